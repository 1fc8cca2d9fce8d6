"""The page in a real browser, which must be there: Chromium, driven by Playwright.

Screenshots are kept in ``build/screenshots``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentloop import Agent, tool
from agentloop.page import render
from agentloop.timeline import read, tell
from agentloop_providers.scripted import ScriptedProvider, reply, use

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
DESKTOP, PHONE = (1280, 900), (390, 844)
STEPS, CALLS = 200, 1000
OPEN_SECONDS = 2.0
USE_SECONDS = 1.5
"""For what a person does on the page; a tenth of it on a machine that does nothing else."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no browser: install chromium, or say where one is in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


class Tab:
    """A page that is open, and what the browser had to complain about it."""

    def __init__(self, browser: Any, file: Path, size: tuple[int, int], scheme: str) -> None:
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self.page = context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append("a dialog"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        began = time.perf_counter()
        self.page.goto(file.as_uri())
        self.settle()
        self.seconds = time.perf_counter() - began

    def settle(self) -> None:
        """Wait until what was changed is on the screen."""
        self.page.evaluate(
            "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )

    def took(self, act: Callable[[], Any]) -> float:
        began = time.perf_counter()
        act()
        self.settle()
        return time.perf_counter() - began

    def visible(self, selector: str) -> int:
        count = "all => all.filter(e => e.checkVisibility()).length"
        return self.page.locator(selector).evaluate_all(count)

    def keep(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")


@pytest.fixture
def open_(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Tab]]:
    tabs: list[Tab] = []

    def open_(lines: list[str], size: tuple[int, int] = DESKTOP, scheme: str = "light") -> Tab:
        file = tmp_path / "page.html"
        file.write_text(render(tell(lines)), encoding="utf-8")
        tabs.append(Tab(browser, file, size, scheme))
        return tabs[-1]

    yield open_
    for tab in tabs:
        assert tab.problems == []
        assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
        tab.page.context.close()


def search(tab: Tab, words: str) -> str:
    """What the page says that it found."""
    tab.page.get_by_role("searchbox").fill(words)
    tab.settle()
    return tab.page.locator("#found").inner_text()


def told(steps: int, calls: int, *, say: str = "Looking further. ", result: str = "") -> list[str]:
    """The lines of a run that makes ``calls`` calls in ``steps`` steps, some of them at once."""
    dice = random.Random(4)
    lines: list[dict[str, Any]] = [{"agentloop": "transcript", "version": 1, "at": 1.8e9}]
    run: dict[str, Any] = {"run": "r", "key": "0"}
    t, n, made = 0.0, 0, 0

    def add(event: str, at: float, **more: Any) -> None:
        lines.append({"event": event, "t": at, **run, **more})

    def message(role: str, *content: dict[str, Any]) -> None:
        nonlocal n
        add("message", t, n=n, message={"role": role, "content": content})
        n += 1

    add("run_started", t, agent="surveyor", began=1.8e9, instructions="Survey the coast.")
    message("user", {"type": "text", "text": "Where along the coast does it pay to build?"})
    for step in range(1, steps + 1):
        add("ask_started", t, step=step, provider="p")
        t += dice.uniform(0.8, 4)
        usage = {"input_tokens": 900 + 120 * step, "output_tokens": dice.randint(40, 300)}
        add("ask_ended", t, step=step, provider="p", model="model-1", stop_reason="toolUse",
            usage=usage)  # fmt: skip
        count = -(-calls * step // (steps - 1)) - made if step < steps else 0
        count = min(count, calls - made)
        uses = [
            {
                "type": "tool_use",
                "id": f"c{number}",
                "name": dice.choice(["search", "fetch", "measure", "chart", "convert"]),
                "input": {"place": f"place {step}-{number}", "radius": number},
            }
            for number in range(count)
        ]
        message("assistant", {"type": "text", "text": say * dice.randint(1, 8)}, *uses)
        ends: list[tuple[float, int, dict[str, Any], bool]] = []
        for number, made_use in enumerate(uses):
            call = {
                "step": step,
                "number": number,
                "call": made_use["id"],
                "name": made_use["name"],
            }
            add("tool_started", t, **call)
            ends.append((t + dice.expovariate(1.2), number, call, dice.random() < 0.06))
        for at, _, call, failed in sorted(ends, key=lambda end: end[0]):
            add("tool_ended", at, **call, failed=failed)
        made += count
        t = max([at for at, *_ in ends], default=t)
        if uses:
            message("user", *(
                {"type": "tool_result", "toolUseId": call["call"], "isError": failed,
                 "content": [{"type": "text", "text": result or f"a record of {number} " * 60}]}
                for _, number, call, failed in ends
            ))  # fmt: skip
    add("run_ended", t, stop="done", usage={"input_tokens": 3_000_000, "output_tokens": 33_000})
    return list(map(json.dumps, lines))


def test_a_long_run_opens_at_once_and_stays_usable(open_: Callable[..., Tab]) -> None:
    lines = told(STEPS, CALLS)
    tab = min((open_(lines) for _ in range(3)), key=lambda tab: tab.seconds)
    page = tab.page
    assert tab.seconds < OPEN_SECONDS
    assert page.locator(".bar").count() == STEPS + CALLS
    assert page.locator("details.call").count() == CALLS
    for _ in range(3):
        assert tab.took(lambda: page.get_by_role("button", name="zoom in").click()) < USE_SECONDS
    assert tab.took(lambda: page.get_by_role("button", name="Unfold all").click()) < USE_SECONDS
    assert tab.took(lambda: page.get_by_role("button", name="Fold all").click()) < USE_SECONDS
    assert tab.took(lambda: page.mouse.wheel(0, 20_000)) < USE_SECONDS
    began = time.perf_counter()
    assert search(tab, "place 150-3") == "1 of 200 steps"
    assert time.perf_counter() - began < USE_SECONDS


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [("light", DESKTOP, "light"), ("dark", DESKTOP, "dark"), ("phone", PHONE, "light")],
)
def test_it_fits_the_screen_and_the_scheme(
    open_: Callable[..., Tab], name: str, size: tuple[int, int], scheme: str
) -> None:
    tab = open_(told(12, 40), size, scheme)
    width = tab.page.evaluate("document.documentElement.scrollWidth")
    assert width <= size[0], "nothing sticks out sideways"
    paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, paper[4:-1].split(","))) > 3 * 128
    assert light == (scheme == "light")
    tab.keep(name)
    before = paper
    tab.page.locator("#theme").click()
    assert tab.page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_calls_of_one_turn_are_bars_side_by_side_on_one_axis(open_: Callable[..., Tab]) -> None:
    tab = open_(told(3, 6))
    boxes = tab.page.locator(".bar").evaluate_all(
        "all => all.map(e => { const b = e.getBoundingClientRect();"
        " return [e.hash, b.left, b.right, b.top, b.bottom] })"
    )
    calls = {name: box for name, *box in boxes if name.startswith("#r0s1c")}
    assert len(calls) == 3
    lefts = [left for left, *_ in calls.values()]
    assert max(lefts) - min(lefts) < 2, "they began together"
    assert len({top for _, _, top, _ in calls.values()}) == 3, "each in a lane of its own"
    ask = next(box for name, *box in boxes if name == "#r0s1")
    assert ask[1] <= min(lefts) + 1, "after their ask"


def test_a_bar_leads_to_the_call_and_unfolds_it(open_: Callable[..., Tab]) -> None:
    tab = open_(told(40, 120))
    target = tab.page.locator("#r0s30c1")
    assert target.get_attribute("open") is None
    tab.page.locator('.bar[href="#r0s30c1"]').evaluate("bar => bar.click()")
    tab.settle()
    assert target.get_attribute("open") is not None
    box = target.bounding_box()
    assert box
    assert 0 <= box["y"] < DESKTOP[1], "and it is on the screen"
    tab.keep("call")


def test_a_bar_says_what_it_is_under_the_pointer(open_: Callable[..., Tab]) -> None:
    tab = open_(told(3, 6))
    tab.page.locator(".bar").first.hover()
    assert "step 1: model" in tab.page.locator("#tip").inner_text()


def test_search_finds_what_is_folded_and_hides_the_rest(open_: Callable[..., Tab]) -> None:
    tab = open_(told(20, 60))
    page = tab.page
    assert search(tab, "PLACE 7-1") == "1 of 20 steps"
    assert tab.visible(".steps > .step") == 1
    assert page.locator("#r0s7c1").get_attribute("open") is not None
    assert page.evaluate("CSS.highlights.get('found').size") > 0
    tab.keep("search")
    assert search(tab, "") == ""
    assert tab.visible(".steps > .step") == 20
    assert page.locator("details.call[open]").count() == 0


def test_zoom_spreads_the_bars_and_keeps_the_axis_true(open_: Callable[..., Tab]) -> None:
    tab = open_(told(40, 120))
    page = tab.page
    width = "document.querySelector('.plot').getBoundingClientRect().width"
    before = page.evaluate(width)
    for _ in range(2):
        page.get_by_role("button", name="zoom in").click()
    assert page.evaluate(width) == pytest.approx(before * 4, rel=0.01)
    assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP[0]
    page.get_by_role("button", name="fit").click()
    assert page.evaluate(width) == pytest.approx(before, rel=0.01)
    ticks = page.locator(".axis b").all_inner_texts()
    assert ticks[0] == "0"
    assert 4 < len(ticks) < 20


HOSTILE = (
    "</pre></script><script>owned = 1</script><img src=x onerror='owned = 2'>"
    '<svg onload="owned = 3"><a href="javascript:owned = 4">x</a>\x00\x1b[31m\u202e'
    '" onmouseover="owned = 5" x="'
)


def test_hostile_content_does_nothing(open_: Callable[..., Tab]) -> None:
    lines = told(6, 12, say=HOSTILE, result=HOSTILE + "x" * 1_000_000)
    spoilt = [json.loads(line) for line in lines]
    for entry in spoilt[1:]:
        for field in ("agent", "name", "call", "model", "stop_reason", "provider"):
            if field in entry:
                entry[field] = f"{entry[field]}{HOSTILE}"
        if entry["event"] == "message":
            for block in entry["message"]["content"]:
                for field in ("id", "toolUseId", "name"):
                    if field in block:
                        block[field] += HOSTILE
    tab = open_(list(map(json.dumps, spoilt)))
    page = tab.page
    assert tab.seconds < OPEN_SECONDS
    page.get_by_role("button", name="Unfold all").click()
    for bar in page.locator(".bar").all()[:5]:
        bar.hover()
    assert search(tab, "owned = 1") == "6 of 6 steps"
    assert page.evaluate("typeof owned") == "undefined"
    assert page.locator("script").count() == 1
    assert page.locator("main img, main svg, main script").count() == 0
    assert page.locator("h1").inner_text().startswith("surveyor</pre></script><script>owned = 1")
    assert page.evaluate("document.documentElement.scrollWidth") <= DESKTOP[0]
    tab.keep("hostile")


def test_a_real_run_with_runs_inside_of_it(open_: Callable[..., Tab], tmp_path: Path) -> None:
    @tool
    async def look(at: str) -> str:
        await anyio.sleep(0.03)
        return f"saw {at}"

    helper = Agent("helper", tools=[look])
    boss = Agent("boss", tools=[look, helper.as_tool()])
    first = reply(use("look", at="here"), use("helper", prompt="look there"))
    script = ScriptedProvider(first, use("look", at="there"), "nothing there", "All is well.")

    async def run() -> None:
        (await boss.run("Look around", provider=script)).save(tmp_path / "run.jsonl")

    with ThreadPoolExecutor() as elsewhere:  # Playwright's own event loop runs in this thread
        elsewhere.submit(anyio.run, run).result()
    assert len(read(tmp_path / "run.jsonl")) == 1
    tab = open_((tmp_path / "run.jsonl").read_text(encoding="utf-8").splitlines())
    tab.page.locator("details.call", has_text="look there").first.locator("summary").first.click()
    inner = tab.page.locator(".run .step")
    assert inner.count() == 2
    assert inner.first.is_visible()
    assert tab.page.locator(".group").inner_text() == "helper"
