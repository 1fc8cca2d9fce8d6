"""What people read: the table, the page and the comparison, and that hostile text stays text."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agentloop import Agent, Stop
from agentloop.errors import DefinitionError
from agentloop.evals import Case, Report, Score, compare, contains, evaluate
from agentloop.evals.comparison import compared, side_by_side
from agentloop.evals.page import render
from agentloop.evals.trial import Trial
from agentloop.usage import Usage
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use

HOSTILE = '</pre><script>alert("x")</script><img src=x onerror=alert(1)> & \x1b[31m \u202e'


def trial(case: str, candidate: str = "a", number: int = 1, **given: Any) -> Trial:
    value = given.pop("value", None)
    scores = {"right": Score(value)} if value is not None else {}
    more: dict[str, Any] = {"prompt": f"What is {case}?", "answer": "this", "scores": scores}
    return Trial(case=case, candidate=candidate, number=number, **(more | given))


def report_of(*trials: Trial, **given: Any) -> Report:
    more: dict[str, Any] = {
        "agent": "tested",
        "cases": list(dict.fromkeys(t.case for t in trials)),
        "candidates": list(dict.fromkeys(t.candidate for t in trials)),
        "scorers": ["right"],
        "repeat": 1,
        "at": 1_767_225_600.0,
        "wanted": len(trials),
    }
    return Report(**(more | given), trials=list(trials))


# --- the table -----------------------------------------------------------------------------------


def test_the_table_says_who_did_what_and_who_is_better() -> None:
    usage = Usage(asks=2, input_tokens=900, output_tokens=100, estimated="bytes/4")
    report = report_of(
        *[trial(str(n), "a", value=1, usage=usage, steps=2, cost=0.5) for n in range(8)],
        *[trial(str(n), "b", value=n > 5, steps=3, seconds=2.0) for n in range(8)],
    )
    assert (
        report.table()
        == """\
tested: 8 cases, 2 candidates

     score         95 %  right  steps   time  tokens  cost  early  failed
  a  100 %  68 to 100 %    8/8    2.0   0 ms  ~8,000  4.00      0       0
  b   25 %    7 to 59 %    2/8    3.0  2.0 s       0     -      0       0
  ~ estimated, as the provider does not report it

a scores higher than b: ahead on 6 cases, behind on 0, level on 2. The difference of 75 points \
is more than chance explains (95 % interval 19 to 100).

  case      a    b
  0     100 %  0 %  worse
  1     100 %  0 %  worse
  2     100 %  0 %  worse
  3     100 %  0 %  worse
  4     100 %  0 %  worse
  5     100 %  0 %  worse"""
    )


def test_a_report_that_is_not_complete_says_so() -> None:
    report = report_of(trial("1", value=1), wanted=3)
    assert report.table().startswith("tested: 1 case, 1 candidate (2 of 3 trials are missing)")
    assert "2 trials missing" in render(report)


def test_without_scorers_the_table_is_of_runs_alone() -> None:
    report = report_of(trial("1"), trial("1", "b", stop=Stop.STEPS), scorers=[])
    lines = report.table().splitlines()
    assert lines[2].split() == ["steps", "time", "tokens", "early", "failed"]
    assert [line.split()[-2:] for line in lines[3:5]] == [["0", "0"], ["1", "0"]]


# --- comparing -----------------------------------------------------------------------------------


def test_a_comparison_is_told_from_the_side_of_the_better_one() -> None:
    before = [trial(str(n), "old", value=n % 2) for n in range(10)]
    after = [trial(str(n), "new", value=n != 9) for n in range(10)]
    told = compared("old", "new", before, after)
    assert [change.case for change in told.better] == ["0", "2", "4", "6", "8"]
    assert [change.case for change in told.worse] == ["9"]
    assert told.same == 4
    assert told.score
    assert told.score.mean == pytest.approx(0.4)
    assert "new scores higher than old: ahead on 5 cases, behind on 1, level on 4" in told.verdict()
    assert "may be chance" in told.verdict()


def test_repeats_count_as_one_case() -> None:
    before = [trial("1", number=n, value=n == 1) for n in (1, 2)]
    after = [trial("1", number=n, value=1) for n in (1, 2)]
    told = compared("a", "b", before, after)
    assert told.better == [("1", 0.5, 1.0)]


def test_the_same_scores_with_the_same_answers_are_said_to_be_that() -> None:
    some = [trial("1", value=1), trial("2", value=0)]
    assert compared("a", "b", some, some).verdict().endswith("with the same answers.")
    other = [trial("1", value=1, answer="that"), trial("2", value=0)]
    assert compared("a", "b", some, other).verdict().endswith("with different answers.")
    assert "no scored cases in common" in compared("a", "b", some, [trial("3")]).verdict()


def test_candidates_of_one_name_are_compared_and_lone_ones() -> None:
    one = report_of(trial("1", "x", value=1), trial("1", "y", value=1))
    two = report_of(trial("1", "y", value=0), trial("1", "z", value=0))
    lone = report_of(trial("1", "w", value=0))
    (same,) = compare(one, two)
    assert (same.a, same.b) == ("y before", "y after")
    (other,) = compare(lone, report_of(trial("1", "v", value=1)))
    assert (other.a, other.b) == ("w", "v")
    with pytest.raises(DefinitionError, match="nothing to compare"):
        compare(one, lone)


async def test_two_folders_are_compared_and_their_page_has_both(tmp_path: Path) -> None:
    for name, said in (("old", "blue"), ("new", "red")):
        await evaluate(
            Agent("painter"),
            [Case("Which colour?", "red")],
            providers={"model": ScriptedProvider(said)},
            scorers=[contains()],
            folder=tmp_path / name,
        )
    (told,) = compare(tmp_path / "old", tmp_path / "new")
    assert [change.case for change in told.better] == ["1"]
    both = side_by_side(Report.read(tmp_path / "old"), Report.read(tmp_path / "new"))
    page = tmp_path / "pages" / "both.html"
    both.save_page(page)
    text = page.read_text()
    assert "model before" in text
    assert "model after" in text
    for link in re.findall(r'<a href="([^"]+)"', text):
        assert (page.parent / link).is_file()


# --- the page ------------------------------------------------------------------------------------


async def test_the_page_links_the_page_of_every_transcript(tmp_path: Path) -> None:
    def look(place: str) -> str:
        """Look."""
        return f"seen {place}"

    def script(_case: Case) -> ScriptedProvider:
        return ScriptedProvider(use("look", place="here"), "I looked.")

    report = await evaluate(
        Agent("looker", tools=[look]),
        [Case("a", "looked"), Case("b", "other", id="b/ b")],
        providers={"script": script},
        scorers=[contains()],
        folder=tmp_path,
    )
    report.save_page(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    links = re.findall(r'<a href="([^"]+)"', text)
    assert len(links) == 2
    for link in links:
        page = (tmp_path / link).read_text()
        assert "seen here" in page
        assert "<!doctype html>" in page


async def test_a_transcript_that_was_taken_away_costs_its_link(tmp_path: Path) -> None:
    report = await evaluate(
        Agent("a"), [Case("a")], providers=ScriptedProvider("x"), folder=tmp_path
    )
    (tmp_path / "transcripts" / "scripted.jsonl").unlink()
    report.save_page(tmp_path / "report.html")
    assert "<a href" not in (tmp_path / "report.html").read_text()


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_hostile_text_stays_text() -> None:
    page = render(
        report_of(
            trial(
                HOSTILE,
                HOSTILE,
                prompt=HOSTILE,
                expected=[HOSTILE, {"x": HOSTILE}],
                answer=HOSTILE,
                error=HOSTILE,
                stop=Stop.FAILED,
                scores={HOSTILE: Score(0.5, HOSTILE)},
            ),
            agent=HOSTILE,
            scorers=[HOSTILE],
        ),
        lambda trial: HOSTILE,
    )
    tags = Tags(page)
    assert tags.found.count("script") == 1
    assert "img" not in tags.found
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert "default-src &#x27;none&#x27;" in page


def test_the_page_needs_nothing_else() -> None:
    page = render(report_of(trial("1", value=1)))
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "url(" not in page
    assert "@import" not in page


# --- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no browser: install chromium, or say where one is in CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
        browser = playwright.chromium.launch(executable_path=path, args=flags.split())
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_a_person_finds_the_cases_that_differ(
    browser: Any, tmp_path: Path, scheme: str, size: tuple[int, int]
) -> None:
    cases = range(60)
    report = report_of(
        *[trial(f"case-{n}", "first", value=n % 2) for n in cases],
        *[trial(f"case-{n}", "second", value=n % 3 > 0, answer=HOSTILE) for n in cases],
    )
    file = tmp_path / "report.html"
    report.save_page(file)
    width, height = size
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append("a dialog"))
    page.goto(file.as_uri())

    shown = page.locator(".case:visible")
    assert shown.count() == 60
    differing = sum((n % 2 > 0) != (n % 3 > 0) for n in cases)
    page.get_by_text("They differ").click()
    assert shown.count() == differing
    assert page.locator("#found").inner_text() == f"{differing} of 60"
    page.get_by_text("All", exact=True).click()
    page.locator("#search").fill("case-59")
    assert shown.count() == 1
    shown.locator("summary").click()
    assert HOSTILE.splitlines()[0][:20] in shown.locator("article").nth(1).inner_text()
    page.locator("#search").fill("nowhere")
    assert page.locator("#none").is_visible()

    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width, "the page scrolls sideways"
    assert not complaints
    page.close()
