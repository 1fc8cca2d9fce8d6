"""The command as a process: quick to say hello, at home in pipes, terminals and MCP hosts."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import SamplingCapability, SamplingToolsCapability

from agentloop.mcp.callback import sampling_callback
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.http import post_of, result_of

AGENTLOOP = [sys.executable, "-m", "agentloop"]

AGENTS = '''
import time

from agentloop import Agent, tool

print("loaded")


def nap(seconds: float) -> str:
    """Sleep."""
    print("napping", flush=True)
    time.sleep(seconds)
    return "\\x1b]0;owned\\x07rested"


agent = Agent("sleeper", tools=[tool(timeout=0.3)(nap)])
patient = Agent("patient", tools=[nap])
'''


def calls(*seconds: float) -> dict[str, Any]:
    content = [
        {"type": "tool_use", "id": f"c{i}", "name": "nap", "input": {"seconds": s}}
        for i, s in enumerate(seconds)
    ]
    return {"role": "assistant", "model": "m", "content": content}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "agents.py").write_text(AGENTS)
    (tmp_path / "naps.json").write_text(json.dumps([calls(0.3, 0.3), "\x1b[2JDone."]))
    (tmp_path / "long.json").write_text(json.dumps([calls(30), "Done."]))
    (tmp_path / "much.json").write_text(json.dumps(["word " * 100_000]))
    return tmp_path


def agentloop(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AGENTLOOP, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, **options
    )


MEASURED = """
import sys, time
began = time.process_time()
from agentloop.cli import main
assert main(sys.argv[1:]) == 0
spent = time.process_time() - began
heavy = {"mcp", "mcp_types", "pydantic", "agentloop_providers", "rich", "anyio", "structlog"}
print(spent, sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["run", "--help"]])
def test_help_loads_no_protocol_code_and_is_quick(arguments: list[str]) -> None:
    spent: list[float] = []
    for _ in range(3):
        command = [sys.executable, "-c", MEASURED, *arguments]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, _, loaded = ran.stdout.splitlines()[-1].partition(" ")
        assert loaded == "[]"
        spent.append(float(seconds))
    assert min(spent) < 0.060


def test_an_answer_into_a_pipe_that_closes_early(folder: Path) -> None:
    command = [*AGENTLOOP, "run", "agents.py:agent", "hi", "--provider", "scripted:much.json"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.read(4) == "word"
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 141


def test_an_encoding_that_lacks_characters(folder: Path) -> None:
    (folder / "foreign.json").write_text(json.dumps(["K\u00e4se \u4f60"]))
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = agentloop(
        folder, "run", "agents.py:agent", "hi", "--provider", "scripted:foreign.json", env=plain
    )
    assert (ran.returncode, ran.stdout) == (0, "K\\xe4se \\u4f60\n")


def test_a_tool_that_never_returns_does_not_keep_the_command(folder: Path) -> None:
    began = time.monotonic()
    ran = agentloop(folder, "run", "agents.py:agent", "hi", "--provider", "scripted:long.json")
    assert time.monotonic() - began < 15
    assert (ran.returncode, ran.stdout) == (0, "Done.\n")
    assert "Timed out after 0.3 s." in ran.stderr


@pytest.mark.parametrize(
    ("backend", "carrier"), [("asyncio", "direct"), ("trio", "direct"), ("asyncio", "rounds")]
)
def test_ctrl_c_ends_the_run(folder: Path, backend: str, carrier: str) -> None:
    command = [*AGENTLOOP, "run", "agents.py:patient", "hi", "--provider", "scripted:long.json"]
    with subprocess.Popen(
        [*command, "--backend", backend, "--carrier", carrier],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background may have them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout
        assert process.stderr
        assert any(line == "napping\n" for line in process.stderr)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.stdout.read() == ""
    assert process.returncode == 130
    assert said.endswith("agentloop: interrupted\n")
    assert "Traceback" not in said


# --- in a terminal -----------------------------------------------------------------------------

pty = pytest.importorskip("pty")


WITHOUT_RICH = "import sys; sys.modules['rich'] = None; import runpy; runpy.run_module('agentloop')"


def in_terminal(folder: Path, *arguments: str, rich: bool = True, **environment: str) -> str:
    """All that a terminal gets from the command."""
    command = AGENTLOOP if rich else [sys.executable, "-c", WITHOUT_RICH]
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.environ.pop("NO_COLOR", None)
        os.environ.update({"TERM": "xterm-256color", "COLUMNS": "90", "LINES": "30"} | environment)
        os.execv(command[0], [*command, *arguments])
    shown = b""
    until = time.monotonic() + 60
    while time.monotonic() < until and select.select([terminal], [], [], 60)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(terminal)
    _, status = os.waitpid(process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return shown.decode()


STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RUN = ("run", "agents.py:patient", "hi", "--provider", "scripted:naps.json")


def test_the_live_view_shows_what_runs_and_then_what_ran(folder: Path) -> None:
    pytest.importorskip("rich")
    shown = in_terminal(folder, *RUN)
    text = STYLES.sub("", shown)
    running = [line for line in text.splitlines() if re.match(r"\s*[\u2800-\u28ff] +nap ", line)]
    assert len(running) >= 4  # both naps, several times
    assert "1 ask, 0 tool calls," in text
    ended = [line for line in text.splitlines() if re.match(r"\s+nap +\d+ ms  seconds=0.3", line)]
    assert len(ended) == 2
    assert "done after 2 steps, 2 tool calls," in text
    assert text.rstrip().endswith("\\x1b[2JDone.")


def test_nothing_that_models_and_tools_say_steers_the_terminal(folder: Path) -> None:
    (folder / "evil.json").write_text(
        json.dumps([calls(0.01), {**calls(0.01), "model": "\x1b[2J"}, "a\x1b[2J\u202eb\x9bc\rd"])
    )
    shown = in_terminal(folder, *RUN[:-1], "scripted:evil.json")
    for harmful in ("\x1b[2J", "\x1b]0;", "\u202e", "\x9b", "\x07"):
        assert harmful not in shown
    assert r"a\x1b[2J\u202eb\x9bc\rd" in shown


@pytest.mark.parametrize("options", [{"TERM": "dumb"}, {"rich": False}])
def test_without_rich_or_in_a_dumb_terminal_there_are_plain_lines(
    folder: Path, options: dict[str, Any]
) -> None:
    shown = in_terminal(folder, *RUN, **options)
    assert "\x1b" not in shown
    assert shown.count("seconds=0.3") == 2
    assert "done after 2 steps" in shown


# --- serving -----------------------------------------------------------------------------------


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def sampling(*script: Any) -> dict[str, Any]:
    return {
        "sampling_callback": sampling_callback(ScriptedProvider(*script)),
        "sampling_capabilities": SamplingCapability(tools=SamplingToolsCapability()),
    }


@asynccontextmanager
async def stdio(folder: Path, *arguments: str, **options: Any) -> AsyncGenerator[Client]:
    command = [*AGENTLOOP[1:], "serve", "agents.py:patient", *arguments]
    server = StdioServerParameters(command=AGENTLOOP[0], args=command, cwd=str(folder))
    with (folder / "stderr").open("w") as errors:
        async with Client(stdio_client(server, errlog=errors), **options) as client:
            yield client


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_stdio_carries_the_protocol_and_nothing_else(folder: Path, mode: Any) -> None:
    model = sampling([use("nap", seconds=0.01)], "Done.")
    async with stdio(folder, "--name", "naps", mode=mode, **model) as client:
        assert client.server_info.name == "naps"
        assert [tool.name for tool in (await client.list_tools()).tools] == ["patient"]
        result = await client.call_tool("patient", {"prompt": "hi"})
    assert result.structured_content == {"result": "Done."}
    assert (folder / "stderr").read_text().split() == ["loaded", "napping"]


async def test_a_provider_serves_clients_that_cannot_be_asked(folder: Path) -> None:
    async with stdio(folder, "--provider", "scripted:naps.json") as client:
        result = await client.call_tool("patient", {"prompt": "hi"})
    assert result.structured_content == {"result": "\x1b[2JDone."}


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    command = [*AGENTLOOP, "serve", "agents.py:patient", "--http", "0"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        said = next(line for line in process.stderr if line.startswith("Serving patient at "))
        yield said.split()[3]
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 130


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_http(url: str, mode: Any) -> None:
    assert url.startswith("http://127.0.0.1:")
    async with Client(url, mode=mode, **sampling("Hello.")) as client:
        result = await client.call_tool("patient", {"prompt": "hi"})
    assert result.structured_content == {"result": "Hello."}


def test_http_answers_are_compressed(url: str) -> None:
    """Over rounds each one holds a whole transcript."""
    request = post_of("patient", {"prompt": "hi " * 1000})
    for accepted, encoding in (("gzip", "gzip"), ("identity", None)):
        headers = request["headers"] | {"accept-encoding": accepted}
        answer = httpx2.post(url, content=request["content"], headers=headers)
        assert result_of(answer)["resultType"] == "input_required"
        assert answer.headers.get("content-encoding") == encoding
