"""The names that others rely on. They may become more, and do not change unsaid."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import pytest

import agentloop

PUBLIC = {
    "agentloop": [
        "Agent",
        "AgentLoopError",
        "Limits",
        "Provider",
        "Run",
        "RunResult",
        "Stop",
        "Tool",
        "ToolError",
        "Usage",
        "__version__",
        "gather",
        "keep_secret",
        "once",
        "tool",
    ],
    "agentloop.mcp": ["InputLimits", "mount", "resumable"],
    "agentloop.testing": ["MockClient"],
    "agentloop_providers": ["OfflineProvider", "ScriptedProvider"],
}


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names]
)
def test_a_public_name_is_there(module: str, name: str) -> None:
    assert getattr(import_module(module), name) is not None
    assert name in import_module(module).__all__


def test_everything_that_is_named_can_be_had_and_seen() -> None:
    for name in agentloop.__all__:
        assert getattr(agentloop, name) is not None
    assert set(agentloop.__all__) <= set(dir(agentloop))


@pytest.mark.parametrize("module", list(PUBLIC))
def test_a_name_that_is_not_there_is_an_attribute_error(module: str) -> None:
    package = import_module(module)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
    assert not hasattr(package, "nothing")


def test_what_a_run_takes() -> None:
    parameters = list(inspect.signature(agentloop.Agent.run).parameters)
    assert parameters[:2] == ["self", "prompt"]
    assert {"provider", "limits", "history", "on_event"} <= set(parameters)


def test_what_a_result_has() -> None:
    for name in ("output", "text", "stop", "messages", "usage", "steps"):
        assert isinstance(inspect.getattr_static(agentloop.RunResult, name), property), name


def test_what_limits_there_are() -> None:
    names = list(inspect.signature(agentloop.Limits).parameters)
    assert {"steps", "tool_calls", "tokens", "seconds", "rounds", "errors"} <= set(names)


def test_the_version_is_one() -> None:
    numbers = agentloop.__version__.split(".")
    assert len(numbers) >= 3
    assert numbers[0].isdigit()


def test_every_error_has_a_code_that_is_its_own() -> None:
    def below(cls: type[agentloop.AgentLoopError]) -> list[type[agentloop.AgentLoopError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in below(sub))]

    errors = import_module("agentloop.errors")
    own = [cls for cls in below(agentloop.AgentLoopError) if cls.__module__ == errors.__name__]
    codes = [cls.code for cls in own]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and " " not in code for code in codes)


@pytest.mark.parametrize("module", list(PUBLIC))
def test_a_public_name_is_in_the_reference(module: str) -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference.md").read_text()
    entries = {line.removeprefix("::: ") for line in page.splitlines() if line.startswith("::: ")}
    named = {entry.rpartition(".")[2] for entry in entries}
    package = import_module(module)
    for name in package.__all__:
        home = getattr(getattr(package, name), "__module__", None)
        assert name in named or home in entries or name == "__version__", name
