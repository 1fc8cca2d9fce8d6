"""``agentloop show``: timelines in the terminal, the page as HTML, and where runs part."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentloop import Agent, tool
from agentloop.cli import main
from agentloop.page import render
from agentloop.timeline import read, tell
from agentloop_providers.scripted import ScriptedProvider, reply, use

HOSTILE = (
    "</script><script>steal()</script><img src=x onerror=steal()>"
    "\x1b[2J\x1b]0;owned\x07\x00\x85\u202edessever\u2066\ud800\r\nSet-Cookie: x' \" ` {{7*7}}"
)


@tool
async def look(at: str) -> str:
    await anyio.sleep(0.03)
    return f"saw {at}"


@tool
async def fail() -> str:
    raise ValueError("no")


helper = Agent("helper", tools=[look])
boss = Agent("boss", "Be brief.", tools=[look, fail, helper.as_tool()])


def saved(file: Path, *lines: Any, agent: Agent[Any] = boss, prompt: str = "Look around") -> Path:
    async def run() -> None:
        (await agent.run(prompt, provider=ScriptedProvider(*lines))).save(file)

    anyio.run(run)
    return file


@pytest.fixture
def transcript(tmp_path: Path) -> Path:
    calls = reply(
        "Let me see.", use("look", at="here"), use("fail"), use("helper", prompt="look there")
    )
    lines = (calls, use("look", at="there"), "nothing there", "All is well.")
    return saved(tmp_path / "run.jsonl", *lines)


@pytest.fixture
def shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What ``agentloop show`` prints for some arguments, which it takes well."""
    monkeypatch.setenv("COLUMNS", "150")

    def show(*arguments: str | Path, code: int = 0) -> str:
        assert main(["show", *map(str, arguments)]) == code
        return capsys.readouterr().out

    return show


# --- the terminal ------------------------------------------------------------------------------


def bars(out: str) -> dict[str, tuple[int, int]]:
    """Where the bar of each row begins and ends, by the row's label."""
    found: dict[str, tuple[int, int]] = {}
    for line in out.splitlines():
        if bar := re.search(r"[━╸╺]+", line):
            label = re.sub(r"\s+", " ", line[: bar.start()]).strip()
            found.setdefault(re.sub(r" [\d.]+ m?s$", "", label), bar.span())
    return found


def test_a_timeline_has_a_row_for_everything_that_took_time(
    transcript: Path, shown: Callable[..., str]
) -> None:
    out = shown(transcript)
    head, *_ = out.splitlines()
    assert head.startswith("boss  done  2 steps, 3 tool calls, ")
    assert "tokens (estimated)" in head
    assert "> Look around" in out
    rows = bars(out)
    assert list(rows) == ["1 model", "look", "fail", "helper", "model", "2 model"]
    assert abs(rows["look"][0] - rows["helper"][0]) <= 1, "they began together"
    assert rows["1 model"][0] <= rows["look"][0]
    assert rows["2 model"][0] >= rows["helper"][1] - 1
    assert "fail 0 ms" not in out
    assert "failed: The tool failed with ValueError." in out
    assert out.rstrip().endswith("All is well.")


def test_steps_can_be_picked_and_get_an_axis_of_their_own(
    transcript: Path, shown: Callable[..., str]
) -> None:
    rows = bars(shown(transcript, "--steps", "2"))
    ((start, end),) = rows.values()
    assert list(rows) == ["2 model"]
    assert end - start > 40


def test_everything_that_was_said_with_full(transcript: Path, shown: Callable[..., str]) -> None:
    out = shown(transcript, "--full")
    for words in ("Let me see.", '"at": "there"', "> saw here", "> nothing there"):
        assert words in out


def test_colours_on_a_terminal_only(transcript: Path, shown: Callable[..., str]) -> None:
    assert "\x1b" not in shown(transcript)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "agentloop", "show", str(transcript)]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    subprocess.run(command, stdout=theirs, env=environment, check=True)
    os.close(theirs)
    out = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "\x1b[31m" in out, "what failed is red"
    assert "━" in out


def test_plain_characters_where_the_terminal_has_no_others(transcript: Path) -> None:
    command = [sys.executable, "-m", "agentloop", "show", str(transcript)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    out = subprocess.run(command, capture_output=True, env=environment, check=True).stdout
    assert b"===" in out
    assert out.isascii()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "which transcript"),
        (["missing.jsonl"], "missing.jsonl: No such file"),
        (["{file}", "--steps", "x"], "--steps x: write it as"),
        (["{file}", "--run", "nobody"], "tells of no run nobody"),
        (["{file}", "--html", "/nowhere/at/all.html"], "/nowhere/at/all.html: No such file"),
        (["--diff", "{file}", "missing.jsonl"], "missing.jsonl"),
        ([__file__], "this is no transcript"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], says: str, transcript: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", *(a.format(file=transcript) for a in arguments)]) == 2
    told = capsys.readouterr().err.strip()
    assert says in told
    assert "\n" not in told


# --- hostile content ---------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A run in which everybody who can says what could hurt a reader: in every field there is."""
    file = tmp_path / "hostile.jsonl"
    big = HOSTILE * 8000
    saved(
        file,
        reply(HOSTILE, use(HOSTILE, id=HOSTILE, **{HOSTILE: HOSTILE}), use("look", at=big)),
        reply(HOSTILE, model=HOSTILE, stop_reason=HOSTILE),
        prompt=HOSTILE,
    )
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    for line in lines[1:]:
        for field in ("run", "agent", "provider", "model", "stop", "error", "instructions", "name"):
            if isinstance(line.get(field), str) or field in ("error", "instructions"):
                line[field] = HOSTILE
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert file.stat().st_size > 1_000_000
    return file


def test_hostile_content_stays_inert_in_a_terminal(
    hostile: Path, shown: Callable[..., str]
) -> None:
    for out in (
        shown(hostile),
        shown(hostile, "--full"),
        shown("--diff", hostile, hostile),
    ):
        assert not re.search(r"[^\n -~\u00a0-\u2027\u2030-\u205f\u2070-\ud7ff\ue000-\uffff]", out)
        assert len(out) < 100_000


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, class_: str = "") -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and class_ in (a.get("class") or "").split(" ")]


def test_hostile_content_stays_text_on_the_page(hostile: Path) -> None:
    html = render(read(hostile))
    page = Page(html)
    assert [t for t, _ in page.tags].count("script") == 1
    assert [t for t, _ in page.tags].count("img") == 0
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("href", "src"):
            assert (attributes.get(name) or "#").startswith("#"), "nothing leads out of the page"
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800]", html)
    assert any("<script>steal()</script>" in text for text in page.texts), "it is there, as text"
    assert len(html) < 3_000_000


def test_images_are_shown_only_if_they_are_pictures() -> None:
    def page(kind: str, data: str) -> Page:
        image = {"type": "image", "mimeType": kind, "data": data}
        message = {"role": "user", "content": [image]}
        return Page(
            render(
                tell(
                    [
                        '{"agentloop":"transcript","version":1,"at":1}',
                        '{"event":"run_started","run":"r","key":"0","t":0}',
                        json.dumps({"event": "message", "run": "r", "n": 0, "message": message}),
                    ]
                )
            )
        )

    assert page("image/png", "aGVsbG8=").all("img")[0]["src"] == "data:image/png;base64,aGVsbG8="
    assert not page("image/svg+xml", "aGVsbG8=").all("img")
    assert not page("image/png", '"><script>').all("img")
    assert not page("text/html;base64,PHNjcmlwdD4=", "aGVsbG8=").all("img")


# --- the page ----------------------------------------------------------------------------------


def test_the_page_is_one_file_that_needs_nothing_else(
    transcript: Path, tmp_path: Path, shown: Callable[..., str]
) -> None:
    out = tmp_path / "run.html"
    assert shown(transcript, "--html", out) == ""
    html = out.read_text(encoding="utf-8")
    page = Page(html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]
    assert not re.search(r"https?://", html)
    assert "url(" not in html
    assert "@import" not in html


def test_everything_that_took_time_is_a_bar_that_leads_to_what_was_said(transcript: Path) -> None:
    page = Page(render(read(transcript)))
    anchors = page.all("a", "bar")
    assert len(anchors) == 2 + 3 + 2 + 1, "asks and calls, those of the run inside included"
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert all((a["href"] or "")[1:] in ids for a in anchors)
    for anchor in anchors:
        left, width = map(float, re.findall(r"([\d.]+)%", anchor["style"] or ""))
        assert 0 <= left <= 100
        assert 0 <= width <= 100.001 - left
    assert len(page.all("details", "call")) == 4
    assert not [a for a in page.all("details", "call") if "open" in a], "calls are folded"
    text = " ".join(page.texts)
    for words in ("Let me see.", "saw here", "All is well.", "Look around", "Be brief."):
        assert words in text


def test_bars_of_calls_that_ran_at_the_same_time_are_in_different_lanes(transcript: Path) -> None:
    html = render(read(transcript))
    lanes = re.findall(r'<div class="lane">(.*?)</div>', html)
    for lane in lanes:
        spans = [
            (float(left), float(left) + float(width))
            for left, width in re.findall(r"left:([\d.]+)%;width:([\d.]+)%", lane)
        ]
        assert all(a[1] <= b[0] + 0.001 for a, b in pairwise(spans))
    look_lane, helper_lane = (
        next(n for n, lane in enumerate(lanes) if f"<span>{name}</span>" in lane)
        for name in ("look", "helper")
    )
    assert look_lane != helper_lane


def test_an_unfinished_run_can_be_shown_too(
    transcript: Path, tmp_path: Path, shown: Callable[..., str]
) -> None:
    text = transcript.read_text(encoding="utf-8")
    cut = tmp_path / "cut.jsonl"
    cut.write_text(text[: text.index('"tool_ended"')], encoding="utf-8")
    out = shown(cut)
    assert "boss  unfinished" in out
    assert "unfinished ━" in out or re.search(r"unfinished\s+[╺━]", out)
    assert "unfinished" in render(read(cut))


# --- where runs part ---------------------------------------------------------------------------


def test_equal_runs_are_the_same_whatever_their_ids_and_times(
    tmp_path: Path, shown: Callable[..., str]
) -> None:
    a = saved(tmp_path / "a", reply(use("look", id="x", at="here")), "done", agent=helper)
    b = saved(tmp_path / "b", reply(use("look", id="y", at="here")), "done", agent=helper)
    assert "The same was said and done in both." in shown("--diff", a, b)


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (["words at once"], "in step 1"),
        ([use("look", at="there"), "done"], "in step 1"),
        ([use("look", at="here"), use("look", at="there"), "done"], "in step 2"),
        ([use("look", at="here"), "done!"], "in step 2"),
    ],
)
def test_it_says_where_runs_part_and_how(
    lines: list[Any], part: str, tmp_path: Path, shown: Callable[..., str]
) -> None:
    a = saved(tmp_path / "a", use("look", at="here"), "done", agent=helper)
    b = saved(tmp_path / "b", *lines, agent=helper)
    out = shown("--diff", a, b, code=1)
    assert f"They part {part}" in out


def test_the_difference_of_texts_is_shown_line_by_line(
    tmp_path: Path, shown: Callable[..., str]
) -> None:
    a = saved(tmp_path / "a", "one\ntwo\nthree", agent=helper)
    b = saved(tmp_path / "b", "one\nzwei\nthree", agent=helper)
    out = shown("--diff", a, b, code=1)
    assert "-two" in out
    assert "+zwei" in out
    assert re.search(r"steps +1 +1", out)


def test_a_file_of_many_runs_needs_one_to_be_picked(
    tmp_path: Path, shown: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    both = tmp_path / "both"
    texts = [saved(tmp_path / n, n, agent=helper).read_text(encoding="utf-8") for n in "ab"]
    both.write_text("".join(texts), encoding="utf-8")
    assert main(["show", "--diff", str(both), str(both)]) == 2
    assert "has 2 runs, pick one with --run" in capsys.readouterr().err
    first, second = read(both)
    assert shown(both).count("helper  done") == 2
    assert shown(both, "--run", second.id[:8]).count("helper  done") == 1
    assert "The same" in shown("--diff", both, both, "--run", first.id)
