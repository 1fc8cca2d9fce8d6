"""Recording what a provider answers, and answering from the recording."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
import structlog
from mcp_types import CreateMessageRequestParams, SamplingMessage, TextContent

from agentloop import Agent, Stop, Usage, gather, tool
from agentloop.errors import DefinitionError, OverloadedError, ProviderError
from agentloop.guard import no_real_requests
from agentloop.meta import PROVIDER_KEY, Reply
from agentloop.replay import Recorder, RecordingError, Replayer
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import reply, use


def asking(text: str = "Hello?", **more: object) -> CreateMessageRequestParams:
    message = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageRequestParams(messages=[message], max_tokens=100, **more)  # type: ignore[arg-type]


def said(answer: Reply) -> str:
    blocks = answer.content if isinstance(answer.content, list) else [answer.content]
    return "".join(block.text for block in blocks if block.type == "text")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def lines(file: Path) -> list[str]:
    return file.read_text("utf-8").splitlines()


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.jsonl"


async def test_a_recorded_run_replays_to_the_same_result(file: Path):
    agent = Agent("adder", "Add.", tools=[add])
    thinking = {PROVIDER_KEY: {"form": [{"type": "thinking", "signature": "c2ln"}]}}
    script = ScriptedProvider(
        reply("Let me.", use("add", id="1", a=1, b=2), use("add", id="2", a=3, b=4)).model_copy(
            update={"meta": thinking}
        ),
        reply("3 and 7", usage=Usage(asks=1, input_tokens=50, output_tokens=5)),
    )
    recorded = await agent.run("1+2, 3+4", provider=Recorder(script, file))
    with no_real_requests(), Replayer(file) as replayer:
        replayed = await agent.run("1+2, 3+4", provider=replayer)
    same = {"run_id": "", "seconds": 0}
    assert replayed.to_json() | same == recorded.to_json() | same
    assert replayed.text == "3 and 7"


async def test_the_file_is_lines_of_json_that_stay_the_same(file: Path, tmp_path: Path):
    for path in (file, tmp_path / "again.jsonl"):
        recorder = Recorder(ScriptedProvider("Hi.", "Привет."), path)
        await recorder.sample(asking(temperature=0.5))
        await recorder.sample(asking("Ещё?"))
    assert lines(file) == lines(tmp_path / "again.jsonl")
    header, *entries = lines(file)
    assert json.loads(header) == {"agentloop": "recording", "version": 1}
    assert [sorted(json.loads(entry)) for entry in entries] == [["reply", "request"]] * 2
    assert json.loads(entries[0])["request"] == {
        "maxTokens": 100,
        "messages": [{"content": {"text": "Hello?", "type": "text"}, "role": "user"}],
        "temperature": 0.5,
    }
    assert "Ещё?" in entries[1]


async def test_nothing_of_the_provider_is_in_the_file(file: Path):
    class Keyed(ScriptedProvider):
        api_key = "sk-very-secret"

    await Recorder(Keyed("Hi."), file).sample(asking())
    assert "secret" not in "".join(lines(file))


async def test_each_ask_is_on_the_disk_before_it_is_answered(file: Path):
    recorder = Recorder(ScriptedProvider("a", "b"), file)
    for count in (1, 2):
        await recorder.sample(asking())
        assert len(lines(file)) == 1 + count


async def test_the_same_request_is_answered_in_the_recorded_order(file: Path):
    recorder = Recorder(ScriptedProvider("first", "second"), file)
    for _ in range(2):
        await recorder.sample(asking())
    replayer = Replayer(file)
    assert [said(await replayer.sample(asking())) for _ in range(2)] == ["first", "second"]
    with pytest.raises(RecordingError, match="2 times, and it is asked once more"):
        await replayer.sample(asking())
    endless = Replayer(file, repeat=True)
    said_thrice = [said(await endless.sample(asking())) for _ in range(3)]
    assert said_thrice == ["first", "second", "first"]


async def test_the_protocol_s_own_meta_makes_no_difference(file: Path):
    marked = asking(_meta={"progressToken": 7})
    await Recorder(ScriptedProvider("Hi."), file).sample(marked)
    other = asking(_meta={"progressToken": 8})
    assert said(await Replayer(file).sample(other)) == "Hi."


async def test_errors_are_recorded_and_raised_again(file: Path):
    class Odd(ProviderError):
        code = "odd"

    busy = OverloadedError("busy", status=529, request_id="req-1")
    recorder = Recorder(ScriptedProvider(busy, Odd("strange")), file)
    for text in ("a", "b"):
        with pytest.raises(ProviderError):
            await recorder.sample(asking(text))
    replayer = Replayer(file, repeat=True)
    with pytest.raises(OverloadedError, match="busy") as caught:
        await replayer.sample(asking("a"))
    assert (caught.value.status, caught.value.request_id) == (529, "req-1")
    with pytest.raises(ProviderError, match="strange"):
        await replayer.sample(asking("b"))


async def test_a_miss_shows_how_the_request_differs_from_the_nearest(file: Path):
    recorder = Recorder(ScriptedProvider("a", "b"), file)
    long = "The quick brorown fox jumps over the lazy dog, again and again and again."
    await recorder.sample(asking("something else", system_prompt="Be rude.", temperature=1.0))
    await recorder.sample(asking(long))
    with pytest.raises(RecordingError) as caught:
        await Replayer(file).sample(asking(long.replace("lazy", "sleepy"), stop_sequences=["x"]))
    assert str(caught.value).splitlines()[1:] == [
        "  request.messages[0].content.text: recorded '...rown fox jumps over the lazy dog, again "
        "and again and again.', asked '...rown fox jumps over the sleepy dog, again and again and "
        "again.'",
        '  request.stopSequences: recorded nothing, asked ["x"]',
    ]


async def test_a_miss_in_a_run_ends_it_and_names_the_difference(file: Path):
    agent = Agent("adder", tools=[add])
    script = ScriptedProvider([use("add", id="1", a=1, b=2)], "3")
    await agent.run("1+2", provider=Recorder(script, file))

    def add_wrongly(a: int, b: int) -> int:
        """Add two numbers."""
        return a - b

    changed = Agent("adder", tools=[tool(name="add")(add_wrongly)])
    result = await changed.run("1+2", provider=Replayer(file))
    assert result.stop is Stop.FAILED
    assert "request.messages[2].content[0].content[0].text: recorded '3', asked '-1'" in str(
        result.error
    )


async def test_what_was_recorded_has_to_be_asked(file: Path):
    await Recorder(ScriptedProvider("Hi."), file).sample(asking())
    with pytest.raises(RecordingError, match=r"1 answers .* were never asked for"), Replayer(file):
        pass


async def test_asks_at_the_same_time_are_told_apart(file: Path):
    echo = ScriptedProvider(lambda r: f"to {r.messages[0].content_as_list[0].text}", repeat=True)  # type: ignore[union-attr]
    agent = Agent("echo")
    names = [f"number {i}" for i in range(20)]
    recorder = Recorder(echo, file)
    first = await gather(*(agent.run(name, provider=recorder) for name in names))
    with Replayer(file) as replayer:
        again = await gather(*(agent.run(n, provider=replayer) for n in reversed(names)))
    assert [r.text for r in first] == [r.text for r in reversed(again)]


async def test_a_cancelled_ask_is_not_recorded(file: Path):
    recorder = Recorder(ScriptedProvider(60, "late", "next"), file)
    with anyio.move_on_after(0.05):
        await recorder.sample(asking())
    assert Replayer(file).remaining == 0


async def test_where_nothing_can_be_written_nobody_is_asked(tmp_path: Path):
    script = ScriptedProvider("Hi.")
    with pytest.raises(RecordingError, match="cannot be written"):
        await Recorder(script, tmp_path / "missing" / "run.jsonl").sample(asking())
    assert script.remaining == 1


async def test_a_recorder_begins_anew(file: Path):
    for text in ("old", "new"):
        await Recorder(ScriptedProvider(text), file).sample(asking())
    assert said(await Replayer(file).sample(asking())) == "new"
    assert Replayer(file).remaining == 1


async def test_a_last_line_that_was_cut_off_is_left_out_with_a_warning(file: Path):
    recorder = Recorder(ScriptedProvider("a", "b"), file)
    await recorder.sample(asking("A"))
    await recorder.sample(asking("B"))
    cut_off(file)
    with structlog.testing.capture_logs() as logs:
        replayer = Replayer(file)
    assert [log["event"] for log in logs] == ["recording_cut_off"]
    assert said(await replayer.sample(asking("A"))) == "a"
    assert replayer.remaining == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "its first line is not"),
        ("no json\n", "its first line is not"),
        ('{"agentloop":"recording","version":2}\n', "recording of version 1"),
        ('{"agentloop":"recording","version":1}\n{"request":\n{}\n', "line 2: no recorded ask"),
        ('{"agentloop":"recording","version":1}\n[]\n{}\n', "line 2: no recorded ask"),
        ('{"agentloop":"recording","version":1}\n{"request":{},"reply":{"content":1}}\n', "line 2"),
    ],
)
def test_a_damaged_recording_is_refused_with_its_line(file: Path, text: str, problem: str):
    file.write_text(text, "utf-8")
    with pytest.raises(DefinitionError, match=problem):
        Replayer(file)


def test_a_recording_has_to_be_there(file: Path):
    with pytest.raises(DefinitionError, match=r"run\.jsonl"):
        Replayer.from_spec(str(file))


async def test_text_that_is_no_unicode_is_recorded_cleaned(file: Path):
    odd = asking("half \ud83d of a pair")
    await Recorder(ScriptedProvider("Hi."), file).sample(odd)
    assert said(await Replayer(file).sample(odd)) == "Hi."


async def test_a_replayed_answer_can_be_changed_without_changing_the_recording(file: Path):
    await Recorder(ScriptedProvider("Hi."), file).sample(asking())
    replayer = Replayer(file, repeat=True)
    changed = await replayer.sample(asking())
    changed.content = [TextContent(text="changed")]
    assert said(await replayer.sample(asking())) == "Hi."
