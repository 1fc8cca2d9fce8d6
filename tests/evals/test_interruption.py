"""An evaluation that is interrupted at any point is gone on with: no case twice, none lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from agentloop.evals import Report
from agentloop.timeline import read

CASES = 60

EVALUATION = f'''
import os
from pathlib import Path

import anyio

from agentloop import Agent
from agentloop.evals import Case, Evaluation, contains
from agentloop_providers.scripted import reply, use

ASKED = Path(__file__).parent / "asked"


def double(n: int) -> int:
    """Double a number."""
    return 2 * n


class Model:
    name = "model"

    async def sample(self, request):
        first = request.messages[0].content_as_list[0].text
        with ASKED.open("a") as out:
            out.write(f"{{os.getpid()}} {{first}}\\n")
        await anyio.sleep(0.03)
        if len(request.messages) == 1:
            return reply(use("double", id="d", n=int(first)))
        return reply(request.messages[-1].content_as_list[0].content[0].text)


def evaluation():
    cases = [Case(str(n), 2 * n, id=f"case {{n}}") for n in range({CASES})]
    return Evaluation(Agent("a", tools=[double]), cases, [contains()], Model())
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "doubles.py").write_text(EVALUATION)
    return tmp_path


def start(folder: Path, backend: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "agentloop", "eval", "doubles.py", "--out", "out"]
    return subprocess.Popen(
        [*command, "--concurrency", "8", "--backend", backend],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kept(folder: Path) -> list[str]:
    """The cases whose results stand whole in the file, as often as they stand there."""
    try:
        lines = (folder / "out" / "results.jsonl").read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [entry["case"] for line in lines if "case" in (entry := json.loads(line))]


def interrupt(process: subprocess.Popen[str], folder: Path, *, after: int, with_: int) -> str:
    """Send a signal once so many results are there, and give what was said on stderr."""
    deadline = time.monotonic() + 60
    while len(kept(folder)) < after and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(with_)
    return process.communicate(timeout=60)[1]


def asked_by(folder: Path, process: subprocess.Popen[str]) -> set[str]:
    lines = (folder / "asked").read_text().splitlines()
    return {f"case {line.split()[1]}" for line in lines if line.split()[0] == str(process.pid)}


@pytest.mark.parametrize(
    ("backend", "signals"),
    [
        ("asyncio", [signal.SIGKILL, signal.SIGINT]),
        ("trio", [signal.SIGINT, signal.SIGKILL]),
    ],
)
def test_whatever_ends_it_every_case_is_there_once_in_the_end(
    folder: Path, backend: str, signals: list[int]
) -> None:
    done = 0
    for sent in signals:
        before = set(kept(folder))
        process = start(folder, backend)
        said = interrupt(process, folder, after=done + 9, with_=sent)
        assert not before & asked_by(folder, process), "what was finished ran again"
        if sent == signal.SIGINT:
            assert process.returncode == 130, said
            assert "--out out" in said
        done = len(kept(folder))
        assert done < CASES

    before = set(kept(folder))
    process = start(folder, backend)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "60/60" in out
    assert asked_by(folder, process) == {f"case {n}" for n in range(CASES)} - before

    assert Counter(kept(folder)) == Counter(f"case {n}" for n in range(CASES))
    report = Report.read(folder / "out")
    assert [trial.value for trial in report.trials] == [1.0] * CASES
    stories = {story.id: story for story in read(folder / "out" / "transcripts" / "model.jsonl")}
    for trial in report.trials:
        story = stories[trial.run]
        assert (story.stop, len(story.steps), len(list(story.calls))) == ("done", 2, 1)


def test_killed_before_and_right_after_it_began_it_goes_on(folder: Path) -> None:
    for seconds in (0.05, 0.7):
        process = start(folder, "asyncio")
        time.sleep(seconds)
        process.kill()
        process.communicate(timeout=30)
    process = start(folder, "asyncio")
    assert process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert Counter(kept(folder)) == Counter(f"case {n}" for n in range(CASES))
