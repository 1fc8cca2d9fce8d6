"""What is loaded by whom: names cost nothing before they are used."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "mcp",
    "mcp_types",
    "pydantic",
    "anyio",
    "trio",
    "structlog",
    "tiktoken",
    "anthropic",
    "openai",
    "fastmcp",
    "httpx2",
    "uvicorn",
    "starlette",
    "sqlalchemy",
    "opentelemetry",
    "agentloop_providers",
)


def loaded_by(code: str) -> set[str]:
    """The packages of :data:`HEAVY` that ``code`` loads in a process of its own."""
    script = f"{code}\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert process.returncode == 0, process.stderr
    names = {name.partition(".")[0] for name in json.loads(process.stdout.splitlines()[-1])}
    return names & set(HEAVY)


def test_the_package_itself_loads_nothing() -> None:
    assert loaded_by("import agentloop; agentloop.__version__; dir(agentloop)") == set()
    assert loaded_by("import agentloop_providers") == {"agentloop_providers"}


@pytest.mark.parametrize("name", ["ToolError", "AgentLoopError", "Limits", "Usage"])
def test_names_without_messages_in_them_load_no_protocol(name: str) -> None:
    assert loaded_by(f"from agentloop import {name}") == set()


@pytest.mark.parametrize("name", ["Agent", "tool", "gather", "once", "RunResult", "Stop"])
def test_the_core_loads_no_server_no_client_and_no_provider(name: str) -> None:
    loaded = loaded_by(f"from agentloop import {name}")
    assert loaded <= {"mcp_types", "pydantic", "anyio", "structlog", "opentelemetry"}


def test_a_run_loads_no_server_no_client_and_no_providers_sdk() -> None:
    loaded = loaded_by(
        "import anyio\n"
        "from agentloop import Agent\n"
        "from agentloop_providers import ScriptedProvider\n"
        "result = anyio.run(lambda: Agent('a').run('go', provider=ScriptedProvider('hi')))\n"
        "assert result.text == 'hi'\n"
    )
    assert loaded.isdisjoint({"mcp", "anthropic", "openai", "fastmcp", "httpx2", "trio", "uvicorn"})


def test_providers_are_named_without_being_loaded() -> None:
    loaded = loaded_by("from agentloop.provider import provider_names; provider_names()")
    assert loaded.isdisjoint({"mcp", "anthropic", "openai", "agentloop_providers"})
