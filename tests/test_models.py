"""Which model answers: hints first, then priorities (client/sampling, Model Preferences)."""

from __future__ import annotations

import math

import pytest
from mcp_types import ModelHint, ModelPreferences

from agentloop import Agent
from agentloop.errors import DefinitionError
from agentloop.models import Model, Router, choose
from agentloop_providers import ScriptedProvider


def model(name: str, **ratings: float | tuple[str, ...]) -> Model:
    return Model(name=name, provider=ScriptedProvider(name, repeat=True), **ratings)  # type: ignore[arg-type]


SMALL = model("acme-mini-3", cheapness=0.9, speed=0.9, intelligence=0.3)
LARGE = model("acme-max-3", cheapness=0.1, speed=0.2, intelligence=0.95)
LOCAL = model("Llama-8B", cheapness=1.0, speed=0.5, intelligence=0.1, aliases=("sonnet",))
MODELS = [LARGE, SMALL, LOCAL]


def prefer(*hints: str | None, **priorities: float) -> ModelPreferences:
    return ModelPreferences(hints=[ModelHint(name=hint) for hint in hints], **priorities)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("preferences", "chosen"),
    [
        pytest.param(None, LARGE, id="nothing preferred: the first"),
        pytest.param(ModelPreferences(), LARGE, id="empty preferences: the first"),
        pytest.param(prefer("mini"), SMALL, id="a hint is a substring"),
        pytest.param(prefer("MINI"), SMALL, id="of any case"),
        pytest.param(prefer("gpt", "llama", "mini"), LOCAL, id="the first hint that matches"),
        pytest.param(prefer("llama-8b-instruct"), LARGE, id="not the other way round"),
        pytest.param(prefer("sonnet"), LOCAL, id="aliases match too"),
        pytest.param(prefer("", None, "mini"), SMALL, id="empty hints say nothing"),
        pytest.param(prefer("acme"), LARGE, id="several matches: the first of them"),
        pytest.param(prefer("acme", cost_priority=1), SMALL, id="or what the priorities say"),
        pytest.param(prefer("max", cost_priority=1), LARGE, id="a hint beats the priorities"),
        pytest.param(prefer("gpt", cost_priority=1), LOCAL, id="no match: the priorities"),
        pytest.param(prefer(intelligence_priority=1), LARGE, id="intelligence"),
        pytest.param(prefer(speed_priority=0.8, cost_priority=0.2), SMALL, id="speed, then cost"),
        pytest.param(prefer(cost_priority=0.3, intelligence_priority=1), LARGE, id="weighed"),
        pytest.param(prefer(cost_priority=math.nan, speed_priority=99), SMALL, id="odd numbers"),
    ],
)
def test_the_choice(preferences: ModelPreferences | None, chosen: Model):
    assert choose(preferences, MODELS) is chosen


async def test_each_ask_goes_to_the_model_that_it_prefers():
    router = Router(*MODELS)
    cheap = Agent("cheap", model_preferences=ModelPreferences(cost_priority=1))
    clever = Agent("clever", model_preferences=prefer("max"))
    assert (await cheap.run("Who?", provider=router)).text == "Llama-8B"
    assert (await clever.run("Who?", provider=router)).text == "acme-max-3"
    assert (await Agent("any").run("Who?", provider=router)).text == "acme-max-3"


def test_a_router_has_models_with_names_of_their_own():
    with pytest.raises(DefinitionError):
        Router()
    with pytest.raises(DefinitionError):
        Router(SMALL, SMALL)


@pytest.mark.parametrize("rating", [-0.1, 1.1, math.nan, "high"])
def test_ratings_are_between_0_and_1(rating: float):
    with pytest.raises(DefinitionError, match="speed"):
        model("m", speed=rating)
