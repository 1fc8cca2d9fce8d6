"""``agentloop eval``: what it takes, prints and returns."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentloop.cli import main

EVALUATION = '''
from contextlib import asynccontextmanager

from agentloop import Agent, Limits
from agentloop.errors import BadRequestError
from agentloop.evals import Case, Evaluation, Price, contains
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use

print("loaded")


def lookup(word: str) -> str:
    """Look something up."""
    print("looking up")
    return word.upper()


class Model:
    name = "model"
    def __init__(self, right=True):
        self.right = right
    async def sample(self, request):
        first = request.messages[0].content_as_list[0].text
        if len(request.messages) == 1:
            return reply(use("lookup", id="c", word=first))
        if first == "fail":
            raise BadRequestError("\\x1b[31mno")
        return reply(first.upper() if self.right else "what?")


agent = Agent("speller", "Spell.", tools=[lookup])


def evaluation(words: str = "a,b,c"):
    cases = [Case(word, word.upper(), id=word) for word in words.split(",")]
    return Evaluation(agent, cases, [contains()], {"good": Model(), "bad": Model(False)},
                      prices={"good": Price(1, 1)})


@asynccontextmanager
async def lent():
    yield Evaluation(agent, [Case("x", "X")], [contains()], Model())


plain = Evaluation(agent, [Case("x", "X")], [contains()], Model())


async def later():
    return Evaluation(agent, [Case("x", "X")], [contains()], Model(), limits=Limits(steps=1))


def nothing():
    return 7
'''


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    (tmp_path / "words.py").write_text(EVALUATION)
    (tmp_path / "cases.jsonl").write_text(
        '{"prompt": "q", "expected": "Q"}\n{"prompt": "r", "expected": "R"}\n'
    )
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        code = main(["eval", *argv])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    yield run
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("words"):
            del sys.modules[name]


def test_a_file_is_evaluated_and_everything_is_kept(run: Run, tmp_path: Path) -> None:
    ran = run("words.py", "--out", "out")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("speller: 3 cases, 2 candidates\n")
    assert "good scores higher than bad: ahead on 3 cases" in ran.out
    assert "loaded" not in ran.out
    assert "looking up" not in ran.out
    assert "The report with every answer: out/report.html" in ran.err
    assert (tmp_path / "out" / "report.html").is_file()
    assert len(list((tmp_path / "out" / "transcripts").rglob("*.html"))) == 6


def test_what_is_there_is_not_run_again(run: Run, tmp_path: Path) -> None:
    run("words.py", "--out", "out")
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    again = run("words.py", "--out", "out")
    assert again.code == 0
    assert "looking up" not in again.err
    after = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(after) == len(lines) + 1  # the header of the second sitting


def test_without_a_folder_a_new_one_is_made(run: Run, tmp_path: Path) -> None:
    assert run("words.py").code == 0
    (folder,) = (tmp_path / "evals").iterdir()
    assert folder.name.startswith("speller-")
    assert (folder / "results.jsonl").is_file()


def test_json_is_the_whole_report_and_nothing_else(run: Run) -> None:
    ran = run("words.py", "--out", "out", "--json", "--quiet", "--price", "bad=2/3")
    report = json.loads(ran.out)
    good, bad = report["candidates"]
    assert (good["candidate"], good["right"], bad["right"]) == ("good", 3, 0)
    assert good["cost"] > 0
    assert bad["cost"] > 0
    assert len(report["trials"]) == 6
    assert ran.err == "" or "loaded" in ran.err


def test_providers_carriers_and_repeats_are_compared(run: Run) -> None:
    options = ["--provider", "offline", "--carrier", "direct", "--carrier", "rounds"]
    ran = run("words.py", "--out", "out", "--json", *options, "--repeat", "2")
    report = json.loads(ran.out)
    names = [candidate["candidate"] for candidate in report["candidates"]]
    assert names == ["offline (direct)", "offline (rounds)"]
    assert len(report["trials"]) == 12
    answers = {(t["case"], json.dumps(t["answer"])) for t in report["trials"]}
    assert len(answers) == 3, "the same on every carrier"


def test_cases_in_jsonl_are_asked_of_any_agent(run: Run) -> None:
    ran = run("cases.jsonl", "--agent", "words.py:agent", "--out", "out", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["candidates"][0]["candidate"] == "offline"
    assert list(report["trials"][0]["scores"]) == ["contains"]
    assert "stand-in" in ran.err
    several = ["--scorer", "exact", "--scorer", "regex", "--scorer", "judge", "--judge", "offline"]
    ran = run("cases.jsonl", "--agent", "words.py:agent", "--out", "two", "--json", *several)
    assert list(json.loads(ran.out)["trials"][0]["scores"]) == ["exact", "regex", "judge"]


@pytest.mark.parametrize("name", ["plain", "lent", "later"])
def test_an_evaluation_may_be_there_or_be_given_later_or_lent(run: Run, name: str) -> None:
    ran = run(f"words.py:{name}", "--out", "out", "--json")
    assert ran.code == 0, ran.err
    (trial,) = json.loads(ran.out)["trials"]
    assert trial["stop"] == ("steps" if name == "later" else "done")


def test_arguments_and_limits_reach_the_evaluation(run: Run) -> None:
    options = ["--arg", "words=x,y", "--limit", "steps=1", "--backend", "trio"]
    trials = json.loads(run("words.py", "--out", "out", "--json", *options).out)["trials"]
    assert {(t["case"], t["stop"]) for t in trials} == {("x", "steps"), ("y", "steps")}


def test_a_budget_ends_it_early_and_it_can_be_gone_on_with(run: Run) -> None:
    options = ["--out", "out", "--concurrency", "1"]
    ran = run("words.py", *options, "--budget", "tokens=1")
    assert ran.code == 3
    assert "the budget of 1.0 tokens is spent: 1 of 6 trials have run" in ran.err
    assert "(5 of 6 trials are missing)" in ran.out
    assert run("words.py", *options).code == 0


def test_a_score_that_is_too_low_fails_the_command(run: Run) -> None:
    ran = run("words.py", "--out", "out", "--fail-under", "0.8")
    assert ran.code == 1
    assert "the score is lower than 0.8: bad" in ran.err
    assert run("words.py", "--out", "out", "--fail-under", "0").code == 0


def test_what_failed_is_run_again_with_retry(run: Run) -> None:
    ran = run("words.py", "--out", "out", "--arg", "words=a,fail", "--json")
    assert [c["failed"] for c in json.loads(ran.out)["candidates"]] == [1, 1]
    again = run("words.py", "--out", "out", "--arg", "words=a,fail", "--retry")
    assert again.err.count("looking up") == 2
    assert "\x1b" not in again.out


def test_two_results_are_compared(run: Run, tmp_path: Path) -> None:
    run("words.py", "--out", "one", "--arg", "words=a,b,c,d")
    (tmp_path / "words.py").write_text(EVALUATION.replace("Model(False)", "Model(True)"))
    for name in [name for name in sys.modules if name.startswith("words")]:
        del sys.modules[name]
    run("words.py", "--out", "two", "--arg", "words=a,b,c,d")
    ran = run("--compare", "one", "two", "--html", "both.html")
    assert ran.code == 0, ran.err
    assert "good before and good after score the same on every case, with the same answers" in (
        ran.out
    )
    assert "bad after scores higher than bad before: ahead on 4 cases" in ran.out
    assert (tmp_path / "both.html").is_file()
    told = json.loads(run("--compare", "one", "two", "--json").out)
    assert [(c["a"], c["same"], len(c["better"])) for c in told] == [
        ("good before", 4, 0),
        ("bad before", 0, 4),
    ]


def test_recorded_cases_are_checked_without_a_model(run: Run, tmp_path: Path) -> None:
    ran = run("words.py", "--record", "recorded")
    assert ran.code == 0, ran.err
    assert "a: agent 'speller' stopped with 'done' after 2 steps and 1 tool call" in ran.out
    ran = run("--replay", "recorded")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        "a: as recorded",
        "b: as recorded",
        "c: as recorded",
        "3 of 3 are as recorded",
    ]
    (tmp_path / "words.py").write_text(EVALUATION.replace("word.upper()", "word.title() + '!'", 1))
    for name in [name for name in sys.modules if name.startswith("words")]:
        del sys.modules[name]
    ran = run("words.py", "--replay", "recorded")
    assert ran.code == 1
    assert "a: recording: " in ran.out
    assert "recorded 'A', asked 'A!'" in ran.out
    assert "0 of 3 are as recorded" in ran.out


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        ([], "eval needs a FILE"),
        (["none.py"], "there is no file none.py"),
        (["words.py:nobody"], "words.py has no 'nobody'"),
        (["words.py:nothing"], "gives no Evaluation, but: int"),
        (["words.py:agent"], "with eval CASES.jsonl --agent words.py:agent"),
        (["cases.jsonl"], "say with --agent who is asked"),
        (["words.py", "--agent", "words.py:agent"], "are for cases in JSONL"),
        (["words.py", "--budget", "apples=3"], "no budget 'apples'"),
        (["words.py", "--budget", "tokens=many"], "'many' is not an amount"),
        (["words.py", "--price", "good=3"], "--price SPEC=IN/OUT"),
        (["words.py", "--limit", "apples=3"], "no limit 'apples'"),
        (["words.py", "--provider", "nobody"], "no provider 'nobody'"),
        (["words.py", "--repeat", "0"], "at least 1"),
        (["cases.jsonl", "--agent", "words.py:agent", "--scorer", "judge"], "--judge SPEC"),
        (["--compare", "words.py", "out"], "no result"),
        (["--replay", "."], "no recordings"),
    ],
)
def test_a_mistake_is_said_in_one_line(run: Run, argv: list[str], problem: str) -> None:
    ran = run(*argv)
    assert ran.code == 2
    assert problem in ran.err
    assert ran.out == ""
    assert [line for line in ran.err.splitlines() if line.startswith("agentloop: ")][-1:]


def test_the_example_runs_offline_and_beats_its_baseline(run: Run, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "eval_librarian.py"
    lines = (example.parent / "data" / "librarian.jsonl").read_text().splitlines()
    (tmp_path / "some.jsonl").write_text("\n".join(lines[::6]))
    options = ["--arg", "cases=some.jsonl", "--out", "out", "--json", "--quiet"]
    ran = run(str(example), *options)
    assert ran.code == 0, ran.err
    report: dict[str, Any] = json.loads(ran.out)
    offline, first_hit = report["candidates"]
    assert (offline["candidate"], first_hit["candidate"]) == ("offline", "first-hit")
    assert offline["score"]["mean"] > 0.5
    assert offline["score"]["mean"] > first_hit["score"]["mean"]
    assert offline["failed"] == first_hit["failed"] == 0
