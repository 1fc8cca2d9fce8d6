"""Each example does what it says, through a real client."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import anyio
import pytest
from mcp import Client, StdioServerParameters
from mcp_types import SamplingCapability, SamplingToolsCapability

from agentloop.mcp.callback import sampling_callback
from agentloop.testing import MockClient
from agentloop_providers import OfflineProvider, ScriptedProvider
from agentloop_providers.scripted import use
from tests.engine import needs_engine_on_sqlite

EXAMPLES = Path(__file__).parent.parent / "examples"
Carrier = Literal["push", "rounds"]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_report_runs_planner_writers_and_editor(carrier: Carrier) -> None:
    def model(request: Any) -> Any:
        asked = request.messages[0].content_as_list[0].text
        if asked.startswith("Plan"):
            return use("final_answer", questions=["What for?", "What is needed?", "Who?"])
        if request.tools and len(request.messages) == 1:
            return [use("describe", package="anyio"), use("requirements", package="anyio")]
        return f"About: {asked[:20]}"

    async with MockClient(
        load("report").server, ScriptedProvider(model, repeat=True), carrier=carrier
    ) as client:
        result = await client.call_tool("report", {"package": "anyio"})
    assert result.structured_content["title"] == "About anyio"
    assert len(result.structured_content["sections"]) == 3
    assert len(client.asks) == 8
    assert client.rounds in (0, 4)  # plan, three writers twice but together, editor


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_lowlevel_server_keeps_its_own_tool_and_offers_the_agent(carrier: Carrier) -> None:
    model = ScriptedProvider(use("days_between", first="2026-01-01", last="2026-01-31"), "30 days.")
    async with MockClient(load("lowlevel_server").server, model, carrier=carrier) as client:
        assert (await client.call_tool("ping")).content[0].text == "pong"  # type: ignore[union-attr]
        result = await client.call_tool("calendar", {"prompt": "How long is January?"})
        assert result.content[0].text == "30 days."  # type: ignore[union-attr]
    model.finish()


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_fastmcp_server_gives_typed_answers(carrier: Carrier) -> None:
    pytest.importorskip("fastmcp")
    model = ScriptedProvider(
        use("count_words", text="one two"), use("final_answer", headline="Two", words=2)
    )
    async with MockClient(load("fastmcp_server").mcp, model, carrier=carrier) as client:
        result = await client.call_tool("summary_of", {"text": "one two"})
        assert result.structured_content == {"headline": "Two", "words": 2}
    model.finish()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("example", "mode"),
    [("report", "auto"), ("lowlevel_server", "legacy"), ("fastmcp_server", "auto")],
)
async def test_servers_start_on_stdio_and_list_their_tools(
    example: str, mode: Literal["legacy", "auto"]
) -> None:
    if example == "fastmcp_server":
        pytest.importorskip("fastmcp")
    server = StdioServerParameters(command=sys.executable, args=[str(EXAMPLES / f"{example}.py")])
    with anyio.fail_after(60):
        async with Client(
            server,
            mode=mode,
            sampling_callback=sampling_callback(OfflineProvider()),
            sampling_capabilities=SamplingCapability(tools=SamplingToolsCapability()),
        ) as client:
            assert (await client.list_tools()).tools


@pytest.mark.timeout(180)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_replicas_share_rounds_tasks_and_durable_runs_and_survive_kills(
    database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pytest.importorskip("dbos")
    url = f"sqlite:///{tmp_path}/tasks.db"
    if database == "sqlite":
        needs_engine_on_sqlite()
    else:
        url = request.getfixturevalue("postgres")
    command = [sys.executable, str(EXAMPLES / "replicas.py"), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "runs_taken_over" not in line]
    assert lines[0] == "surveyor: {'result': 'All measured.'}"
    assert lines[1].endswith("to 2 processes")
    assert lines[2].startswith("killed process")
    assert lines[3] == "survey: {'result': 'All measured.'}"
    killed = lines[5].split()[2].rstrip(",")
    measured = lines[6:11]
    by = {line.split()[-1] for line in measured if "measured by" in line}
    assert killed in by
    assert len(by) == 2, "one went on where the other one was killed"
    assert sum("Unknown outcome" in line for line in measured) <= 1
    assert lines[11] == "as a durable run: taken over by the process that was left"
