"""Which of several models answers: the model preferences of a request, and who follows them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mcp_types import CreateMessageRequestParams, ModelPreferences

from agentloop.errors import DefinitionError
from agentloop.meta import Reply
from agentloop.provider import Provider


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that may be chosen: who answers for it, and what it is good at.

    The ratings go from 0 to 1, and more is better: ``cheapness=1`` is the cheapest model.
    """

    name: str
    provider: Provider = field(repr=False)
    cheapness: float = 0.5
    speed: float = 0.5
    intelligence: float = 0.5
    aliases: tuple[str, ...] = ()
    """Other names that hints may match, e.g. of models that fill a similar niche."""

    def __post_init__(self) -> None:
        for rating in ("cheapness", "speed", "intelligence"):
            value = getattr(self, rating)
            if not (isinstance(value, int | float) and 0 <= value <= 1):
                raise DefinitionError(
                    f"model {self.name!r}: {rating}={value!r} is not between 0 and 1"
                )


def choose(preferences: ModelPreferences | None, models: Sequence[Model]) -> Model:
    """The one of ``models`` that fits ``preferences`` best; without any, the first.

    As the specification says (client/sampling, Model Preferences): hints are substrings of model
    names, here of any case, and are evaluated in order; the first that matches decides. The
    priorities choose among several matches, and among all models where no hint matches. Of equals
    the first is taken.
    """
    if preferences is None:
        return models[0]
    matches = next(_matches(preferences, models), models)
    return max(matches, key=lambda model: _score(preferences, model))


class Router:
    """Brings each ask to the model that its preferences choose."""

    def __init__(self, *models: Model) -> None:
        """The first model answers where nothing is preferred. Raises :class:`DefinitionError`
        where there is none, or two have one name."""
        names = [model.name for model in models]
        if not names or len(set(names)) != len(names):
            raise DefinitionError(f"Router takes models with names of their own, not {names}")
        self.models = models

    @property
    def name(self) -> str:
        return f"router({', '.join(model.name for model in self.models)})"

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Answer with the model that ``request`` prefers."""
        return await choose(request.model_preferences, self.models).provider.sample(request)


def _matches(preferences: ModelPreferences, models: Sequence[Model]) -> Iterator[list[Model]]:
    """For each hint that matches something, what it matches."""
    for hint in preferences.hints or ():
        wanted = (hint.name or "").strip().casefold()
        found = [
            model
            for model in models
            if wanted and any(wanted in name.casefold() for name in (model.name, *model.aliases))
        ]
        if found:
            yield found


def _score(preferences: ModelPreferences, model: Model) -> float:
    return (
        _priority(preferences.cost_priority) * model.cheapness
        + _priority(preferences.speed_priority) * model.speed
        + _priority(preferences.intelligence_priority) * model.intelligence
    )


def _priority(value: float | None) -> float:
    """``value`` between 0 and 1; it comes from outside, so it may be anything."""
    return 0.0 if value is None or math.isnan(value) else min(max(value, 0.0), 1.0)
