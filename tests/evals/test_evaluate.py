"""What an evaluation runs, when, and what it makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp_types import CreateMessageRequestParams, ElicitResult, ImageContent, TextContent

from agentloop import Agent, Limits, RunResult, Stop, tool
from agentloop.errors import BadRequestError, DefinitionError, DeniedError, StateError
from agentloop.evals import Budget, Case, Price, Report, Score, contains, evaluate, exact
from agentloop.evals.trial import Trial
from agentloop.story import Story
from agentloop.testing.carry import Carrier
from agentloop.timeline import read
from agentloop.usage import Usage
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use

CASES = [Case("a"), Case("b"), Case("c")]


def double(n: int) -> int:
    """Double a number."""
    return 2 * n


AGENT = Agent("doubler", "Double it.", tools=[double])


class Doubling:
    """Calls the tool with the number in the prompt, and says what it gives."""

    name = "doubling"

    def __init__(self, *, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.now = self.most = self.asks = 0

    async def sample(self, request: CreateMessageRequestParams) -> Any:
        self.asks += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await anyio.sleep(self.seconds)
        self.now -= 1
        last = request.messages[-1].content_as_list[0]
        usage = Usage(asks=1, input_tokens=100, output_tokens=10)
        if last.type == "tool_result":
            text = last.content[0]
            assert text.type == "text"
            return reply(f"It is {text.text}.", usage=usage)
        assert last.type == "text"
        return reply(use("double", id="d", n=int(last.text)), usage=usage)


def numbers(count: int) -> list[Case]:
    return [Case(str(n), 2 * n) for n in range(count)]


async def test_every_case_runs_with_its_tools_and_is_scored() -> None:
    report = await evaluate(AGENT, numbers(5), providers=Doubling(), scorers=[contains()])
    assert [(t.case, t.answer, t.value) for t in report.trials] == [
        (str(n + 1), f"It is {2 * n}.", 1.0) for n in range(5)
    ]
    first = report.trials[0]
    assert (first.steps, first.tool_calls, first.stop) == (2, 1, Stop.DONE)
    assert first.usage == Usage(asks=2, input_tokens=200, output_tokens=20)
    (summary,) = report.summaries
    assert (summary.candidate, summary.right, summary.tokens) == ("doubling", 5, 1100)
    assert summary.score
    assert summary.score.mean == 1
    assert report.wanted == len(report.trials) == 5


async def test_runs_go_on_together_and_no_more_than_allowed() -> None:
    model = Doubling(seconds=0.02)
    await evaluate(AGENT, numbers(20), providers=model, concurrency=7)
    assert model.most == 7


async def test_repeats_providers_and_cases_make_every_trial_once() -> None:
    report = await evaluate(
        AGENT, numbers(3), providers={"x": Doubling(), "y": Doubling()}, repeat=2, concurrency=3
    )
    assert [trial.key for trial in report.trials] == [
        (str(n), name, number) for n in (1, 2, 3) for name in ("x", "y") for number in (1, 2)
    ]


async def test_without_providers_it_is_the_agents_own() -> None:
    agent = Agent("own", provider=ScriptedProvider("hi", repeat=True))
    report = await evaluate(agent, CASES)
    assert report.candidates == ["scripted"]
    assert [trial.answer for trial in report.trials] == ["hi"] * 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, "no provider to evaluate with"),
        ({"providers": []}, "no provider to evaluate with"),
        ({"providers": "nobody"}, "no provider 'nobody'"),
        ({"providers": [Doubling(), Doubling()]}, "two providers are called 'doubling'"),
        ({"providers": Doubling(), "scorers": [exact(), exact()]}, "two scorers are called"),
        ({"providers": Doubling(), "repeat": 0}, "at least 1"),
        ({"providers": Doubling(), "concurrency": 0}, "at least 1"),
        ({"providers": Doubling(), "carriers": ()}, "no provider"),
    ],
)
async def test_what_cannot_work_is_said_before_anything_runs(
    options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DefinitionError, match=problem):
        await evaluate(AGENT, [Case("1", "2")], **options)


async def test_a_provider_may_be_named_as_on_the_command_line() -> None:
    report = await evaluate(Agent("a"), [Case("Say hello.")], providers=["offline"])
    assert report.candidates == ["offline"]
    assert report.trials[0].stop is Stop.DONE


async def test_a_provider_with_a_state_is_made_for_each_trial_and_closed() -> None:
    closed: list[str] = []

    class Closing(ScriptedProvider):
        async def aclose(self) -> None:
            closed.append((self.remaining and "early") or "done")

    def script(case: Case) -> Closing:
        return Closing(use("double", n=int(case.question)), f"for {case.id}")

    report = await evaluate(AGENT, numbers(3), providers={"script": script})
    assert [trial.answer for trial in report.trials] == ["for 1", "for 2", "for 3"]
    assert closed == ["done"] * 3


async def test_an_agent_may_be_made_for_each_case() -> None:
    def agent_for(case: Case) -> Agent[str]:
        return Agent("made", f"You are {case.id}.")

    def model(request: CreateMessageRequestParams) -> str:
        return request.system_prompt or ""

    report = await evaluate(
        agent_for, CASES, providers=ScriptedProvider(model, repeat=True), concurrency=1
    )
    assert report.agent == "agent_for"
    assert [t.answer for t in report.trials] == ["You are 1.", "You are 2.", "You are 3."]


@pytest.mark.parametrize("carrier", ["direct", "push", "rounds", "task"])
async def test_every_carrier_gives_the_same(carrier: Carrier) -> None:
    report = await evaluate(
        AGENT, numbers(3), providers=Doubling(), scorers=[contains()], carriers=[carrier]
    )
    name = "doubling" if carrier == "direct" else f"doubling ({carrier})"
    assert report.candidates == [name]
    assert [(t.answer, t.steps, t.tool_calls) for t in report.trials] == [
        (f"It is {2 * n}.", 2, 1) for n in range(3)
    ]


async def test_over_carriers_failures_say_what_the_provider_said() -> None:
    model = ScriptedProvider(BadRequestError("too odd"), repeat=True)
    report = await evaluate(
        AGENT, [Case("1")], providers=model, carriers=["direct", "push", "rounds", "task"]
    )
    assert [(t.stop, t.error) for t in report.trials] == [(Stop.FAILED, "bad_request: too odd")] * 4


async def test_pictures_go_straight_to_the_provider_or_not_at_all() -> None:
    picture = [TextContent(text="?"), ImageContent(data="AA==", mime_type="image/png")]
    model = ScriptedProvider("a dot", repeat=True)
    report = await evaluate(AGENT, [Case(picture)], providers=model)
    assert report.trials[0].answer == "a dot"
    assert report.trials[0].prompt[1]["mimeType"] == "image/png"
    with pytest.raises(DefinitionError, match="a prompt is a text"):
        await evaluate(AGENT, [Case(picture)], providers=model, carriers=["push"])


async def test_a_person_can_be_played_for_tools_that_ask() -> None:
    @tool(approve=True)
    def launch() -> str:
        """Launch."""
        return "launched"

    async def user(_params: Any) -> ElicitResult:
        return ElicitResult(action="accept")

    def script(_case: Case) -> ScriptedProvider:
        return ScriptedProvider(
            use("launch"), lambda r: r.messages[-1].content_as_list[0].content[0].text
        )

    report = await evaluate(
        Agent("a", tools=[launch]),
        [Case("go")],
        providers={"script": script},
        carriers=["direct", "push", "rounds", "task"],
        user=user,
    )
    assert [trial.answer for trial in report.trials] == ["launched"] * 4


# --- what goes wrong -----------------------------------------------------------------------------


async def test_a_run_that_fails_is_a_trial_with_score_0_and_its_error() -> None:
    def model(request: CreateMessageRequestParams) -> Any:
        text = request.messages[0].content_as_list[0].text  # type: ignore[union-attr]
        return {"a": BadRequestError("no"), "b": DeniedError("never")}.get(text, "c is right")

    report = await evaluate(
        Agent("a"),
        [Case("a", "x"), Case("b", "x"), Case("c", "right")],
        providers=ScriptedProvider(model, repeat=True),
        scorers=[contains()],
    )
    assert [(t.stop, t.error, t.value) for t in report.trials] == [
        (Stop.FAILED, "bad_request: no", 0),
        (Stop.DENIED, "denied: never", 0),
        (Stop.DONE, None, 1),
    ]
    assert report.summaries[0].failed == 2


async def test_a_run_that_ends_on_a_limit_is_scored_by_what_it_said() -> None:
    report = await evaluate(
        AGENT,
        [Case("5", "3 calls")],
        providers=ScriptedProvider(use("double", n=1), "After 3 calls."),
        scorers=[contains()],
        limits=Limits(steps=2),
    )
    (trial,) = report.trials
    assert (trial.stop, trial.value) == (Stop.STEPS, 1)
    assert report.summaries[0].early == 1


async def test_a_scorer_that_fails_costs_its_score_and_nothing_else() -> None:
    def picky(result: RunResult[Any], case: Case) -> Score:
        if case.id == "2":
            raise KeyError("level")
        return Score(0.5, "fair")

    async def always(result: RunResult[Any], case: Case) -> bool:
        await anyio.lowlevel.checkpoint()
        return True

    report = await evaluate(
        AGENT, numbers(3), providers=Doubling(), scorers={"picky": picky, "sure": always}
    )
    assert [trial.value for trial in report.trials] == [0.75, 1, 0.75]
    assert report.trials[1].scores["picky"].reason == "the scorer failed: KeyError: 'level'"
    assert [trial.failed for trial in report.trials] == [False, True, False]
    scores = report.summaries[0].scores
    assert scores["picky"]
    assert scores["picky"].mean == 0.5


async def test_a_mistake_of_the_authors_ends_the_evaluation_and_keeps_what_ran(
    tmp_path: Path,
) -> None:
    def agent_for(case: Case) -> Agent[str]:
        if case.id == "3":
            raise DefinitionError("there is no third")
        return Agent("made")

    with pytest.raises(DefinitionError, match="no third"):
        await evaluate(
            agent_for,
            CASES,
            providers=ScriptedProvider("x", repeat=True),
            folder=tmp_path,
            concurrency=1,
        )
    assert len(Report.read(tmp_path).trials) == 2


# --- what it costs -------------------------------------------------------------------------------


async def test_what_tokens_cost_is_counted_where_the_price_is_known() -> None:
    report = await evaluate(
        AGENT,
        numbers(2),
        providers={"dear": Doubling(), "unknown": Doubling()},
        prices={"dear": Price(3, 15)},
    )
    dear, unknown = report.summaries
    assert dear.cost == pytest.approx(2 * (200 * 3 + 20 * 15) / 1e6)
    assert unknown.cost is None


def test_cached_tokens_have_their_own_price_or_that_of_others() -> None:
    usage = Usage(
        input_tokens=1000, output_tokens=10, cache_read_tokens=600, cache_write_tokens=300
    )
    assert Price(10, 50).of(usage) * 1e6 == 1000 * 10 + 10 * 50
    assert Price(10, 50, cache_read=1, cache_write=12).of(usage) * 1e6 == pytest.approx(
        100 * 10 + 600 * 1 + 300 * 12 + 10 * 50
    )


@pytest.mark.parametrize(
    "budget", [Budget(tokens=500), Budget(cost=0.0005), Budget(seconds=0.3)], ids=str
)
async def test_a_budget_that_is_spent_lets_nothing_more_begin(budget: Budget) -> None:
    report = await evaluate(
        AGENT,
        numbers(50),
        providers=Doubling(seconds=0.02),
        prices={"doubling": Price(1, 1)},
        budget=budget,
        concurrency=2,
    )
    assert report.stopped
    assert "is spent" in report.stopped
    assert 2 <= len(report.trials) < 50
    assert report.wanted == 50
    if budget.tokens:
        assert sum(trial.tokens for trial in report.trials) <= 500 + 2 * 220


async def test_a_budget_that_is_enough_is_not_said_to_be_spent() -> None:
    report = await evaluate(
        AGENT, numbers(2), providers=Doubling(), budget=Budget(tokens=440), concurrency=1
    )
    assert (report.stopped, len(report.trials)) == (None, 2)


# --- results on the disk -------------------------------------------------------------------------


def story_of(trial: Trial, folder: Path) -> Story:
    """What the transcripts tell of a trial's run."""
    assert trial.transcript
    return next(story for story in read(folder / trial.transcript) if story.id == trial.run)


async def test_results_and_transcripts_are_kept_and_read_back(tmp_path: Path) -> None:
    report = await evaluate(
        AGENT,
        [Case("4", 8, id="a/b c"), Case("5", 10, id="A")],
        providers=Doubling(),
        scorers=[contains()],
        prices={"doubling": Price(1, 1)},
        folder=tmp_path,
    )
    again = Report.read(tmp_path)
    assert again.to_json() == report.to_json()
    assert again.trials == report.trials
    for trial in again.trials:
        story = story_of(trial, tmp_path)
        assert story.stop == "done"
        assert [call.name for call in story.calls] == ["double"]


@pytest.mark.parametrize("carrier", ["push", "rounds"])
async def test_transcripts_over_carriers_tell_the_whole_run(
    tmp_path: Path, carrier: Carrier
) -> None:
    report = await evaluate(
        AGENT, [Case("4")], providers=Doubling(), carriers=[carrier], folder=tmp_path
    )
    story = story_of(report.trials[0], tmp_path)
    assert (story.stop, len(story.steps), len(list(story.calls))) == ("done", 2, 1)


async def test_what_ran_is_not_run_again_and_what_is_new_is(tmp_path: Path) -> None:
    model = Doubling()
    await evaluate(AGENT, numbers(3), providers=model, folder=tmp_path)
    assert model.asks == 6
    report = await evaluate(AGENT, numbers(3), providers=model, folder=tmp_path)
    assert (model.asks, len(report.trials), report.ran) == (6, 3, 0)
    report = await evaluate(AGENT, numbers(4), providers=model, folder=tmp_path, repeat=2)
    assert (model.asks, len(report.trials), report.ran) == (16, 8, 5)
    other = {"other": Doubling()}
    report = await evaluate(AGENT, numbers(4), providers=other, folder=tmp_path)
    assert report.candidates == ["doubling", "other"]
    assert len(report.trials) == 12


async def test_failed_trials_are_run_again_when_asked_to(tmp_path: Path) -> None:
    broken = ScriptedProvider(
        use("double", n=1), "fine", BadRequestError("no"), BadRequestError("no")
    )
    providers: dict[str, Any] = {"model": broken}
    report = await evaluate(AGENT, numbers(3), providers=providers, folder=tmp_path, concurrency=1)
    assert [trial.failed for trial in report.trials] == [False, True, True]
    providers = {"model": Doubling()}
    report = await evaluate(AGENT, numbers(3), providers=providers, folder=tmp_path)
    assert report.ran == 0
    report = await evaluate(AGENT, numbers(3), providers=providers, folder=tmp_path, retry=True)
    assert report.ran == 2
    assert [trial.answer for trial in report.trials] == ["fine", "It is 2.", "It is 4."]
    assert Report.read(tmp_path).trials == report.trials


@pytest.mark.parametrize(
    ("agent", "cases", "scorers", "problem"),
    [
        (Agent("doubler", "Triple it.", tools=[double]), numbers(2), [contains()], "definition"),
        (Agent("other", "Double it.", tools=[double]), numbers(2), [contains()], "agent"),
        (AGENT, numbers(2), [exact()], "scorers"),
        (AGENT, [Case("0", 0), Case("1", 3)], [contains()], "case '2' has changed"),
    ],
)
async def test_results_of_something_else_are_not_gone_on_with(
    tmp_path: Path, agent: Any, cases: Any, scorers: Any, problem: str
) -> None:
    await evaluate(AGENT, numbers(2), providers=Doubling(), scorers=[contains()], folder=tmp_path)
    before = (tmp_path / "results.jsonl").read_bytes()
    with pytest.raises(StateError, match=problem):
        await evaluate(agent, cases, providers=Doubling(), scorers=scorers, folder=tmp_path)
    assert len(Report.read(tmp_path).trials) == 2
    assert (tmp_path / "results.jsonl").read_bytes().startswith(before)


async def test_a_line_that_was_cut_off_is_run_again(tmp_path: Path) -> None:
    model = Doubling()
    await evaluate(AGENT, numbers(3), providers=model, folder=tmp_path)
    file = tmp_path / "results.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    assert len(Report.read(tmp_path).trials) == 2
    report = await evaluate(AGENT, numbers(3), providers=model, folder=tmp_path)
    assert (report.ran, len(report.trials)) == (1, 3)
    for line in file.read_text().splitlines():
        json.loads(line)


async def test_two_evaluations_cannot_write_to_one_folder_at_the_same_time(
    tmp_path: Path,
) -> None:
    pytest.importorskip("fcntl")

    async def second(report: Report) -> None:
        with pytest.raises(DefinitionError, match="another process"):
            await evaluate(AGENT, numbers(1), providers=Doubling(), folder=tmp_path)

    async with anyio.create_task_group() as group:

        def begun(report: Report) -> None:
            if not report.trials:
                group.start_soon(second, report)

        await evaluate(
            AGENT,
            numbers(4),
            providers=Doubling(seconds=0.05),
            folder=tmp_path,
            concurrency=1,
            on_progress=begun,
        )


@pytest.mark.parametrize(
    "damage", ["no json\n", '{"case": 1}\n', "[]\n", '{"agentloop": "evaluation", "version": 9}\n']
)
def test_damaged_results_are_an_error_that_names_the_line(tmp_path: Path, damage: str) -> None:
    (tmp_path / "results.jsonl").write_text(damage)
    with pytest.raises(DefinitionError, match="line 1"):
        Report.read(tmp_path)


def test_a_folder_without_results_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="cannot be read"):
        Report.read(tmp_path)
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(DefinitionError, match="no results"):
        Report.read(tmp_path)


async def test_text_that_is_no_utf8_is_kept_all_the_same(tmp_path: Path) -> None:
    odd = [Case("lone \ud800 surrogate", float("nan"), id="\ud800")]
    await evaluate(Agent("a"), odd, providers=ScriptedProvider("so \x00 be it"), folder=tmp_path)
    (trial,) = Report.read(tmp_path).trials
    assert trial.answer == "so \ufffd be it"


async def test_progress_is_told_from_the_beginning_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def note(report: Report) -> None:
        seen.append((len(report.trials), report.wanted))

    await evaluate(AGENT, numbers(2), providers=Doubling(), folder=tmp_path, on_progress=note)
    await evaluate(AGENT, numbers(3), providers=Doubling(), folder=tmp_path, on_progress=note)
    assert seen == [(0, 2), (1, 2), (2, 2), (2, 3), (3, 3)]
