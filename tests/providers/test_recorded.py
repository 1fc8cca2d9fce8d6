"""From the command line: a model over real HTTP, recorded, and replayed without any network."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentloop.cli import main
from agentloop.output import ANSWER_TOOL
from agentloop.testing.backend import Backend, Call, Says, served
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.messages_api import MessagesBackend
from agentloop.testing.responses_api import ResponsesBackend

AGENT = '''
from pydantic import BaseModel
from agentloop import Agent, Limits

class Sum(BaseModel):
    total: int

def add(x: int, y: int) -> int:
    """The tool called add."""
    return x + y

adder = Agent("adder", "Add up.", tools=[add], output=Sum, limits=Limits(steps=3))
'''

OFFLINE = """
import sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        raise SystemExit("the network was touched")
sys.addaudithook(hook)
from agentloop.cli import main
code = main(sys.argv[1:])
assert "anthropic" not in sys.modules and "openai" not in sys.modules
sys.exit(code)
"""


def replay(folder: Path, prompt: str) -> subprocess.CompletedProcess[str]:
    """The same run in a new process that may not touch the network."""
    command = ["run", "agent.py:adder", prompt, "--replay", "run.jsonl", "--quiet"]
    return subprocess.run(
        [sys.executable, "-c", OFFLINE, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("backend_class", "spec"),
    [
        (MessagesBackend, "anthropic:model-1@{url}"),
        (ResponsesBackend, "openai:model-1@{url}/v1"),
        (ChatBackend, "openai-chat:model-1@{url}/v1"),
    ],
)
def test_a_run_recorded_on_a_provider_replays_with_sockets_blocked(
    backend_class: Callable[[], Backend],
    spec: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    backend = backend_class()
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, backend.key)
    (tmp_path / "agent.py").write_text(AGENT)
    add: Any = Call("add", {"x": 1, "y": 2})
    backend.says(
        Says(thinking="a sum", text="Let me add.", calls=(add, add)),
        Says(thinking="once more", calls=(Call("add", {"x": "much"}),)),
        Says(thinking="done", calls=(Call(ANSWER_TOOL, {"total": 3}),)),
    )
    with served(backend) as url:
        command = ["run", "agent.py:adder", "1+2", "--provider", spec.format(url=url), "--quiet"]
        code = main([*command, "--record", "run.jsonl"])
    recorded = capsys.readouterr()
    assert backend.problems == []
    assert json.loads(recorded.out) == {"total": 3}

    # The server is gone, and no key is needed.
    replayed = replay(tmp_path, "1+2")
    assert (replayed.returncode, replayed.stdout) == (code, recorded.out), replayed.stderr

    file = (tmp_path / "run.jsonl").read_text("utf-8")
    assert backend.key not in file
    assert len(file.splitlines()) == 1 + 3

    other = replay(tmp_path, "1+3")
    assert other.returncode == 1
    assert "content[0].text: recorded '1+2', asked '1+3'" in other.stderr
