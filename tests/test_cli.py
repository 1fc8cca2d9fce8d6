"""What the command line takes, prints and returns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentloop.cli import main
from agentloop.errors import DefinitionError
from agentloop.provider import load_provider

AGENTS = '''
from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import BaseModel

from agentloop import Agent, ToolError

print("loaded")


def look(place: str) -> str:
    """Look somewhere."""
    print("looking")
    if place == "nowhere":
        raise ToolError("There is \\x1b[31mnothing.")
    return f"seen: {place}"


class Answer(BaseModel):
    number: int


plain = Agent("plain", tools=[look])
typed = Agent("typed", output=Answer)
number = 7


def made(folder: Path, depth: int = 3, tags: list[str] | None = None) -> Agent[str]:
    assert isinstance(folder, Path)
    return Agent(f"made-{folder}-{depth!r}-{tags!r}")


async def later(name: str = "later") -> Agent[str]:
    return Agent(name)


@asynccontextmanager
async def lent():
    print("opened")
    yield Agent("lent", tools=[look])
    print("closed")


def broken() -> Agent[str]:
    raise RuntimeError("no\\nluck")


def wrong() -> Agent[str]:
    return Agent("wrong", max_tokens=0)


def nothing() -> None: ...


class Shelf:
    agent = plain


from mcp.server.mcpserver import Context


async def served(topic: str, ctx: Context) -> str:
    return topic
'''

LOOKS = [
    {
        "role": "assistant",
        "model": "m",
        "content": [
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"place": "here"}},
            {"type": "tool_use", "id": "b", "name": "look", "input": {"place": "nowhere"}},
        ],
    },
    "It is \x1b[31mred\x1b[0m.",
]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory, with a file of agents and some scripts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (tmp_path / "agents.py").write_text(AGENTS)
    (tmp_path / "hello.json").write_text('["Hello."]')
    (tmp_path / "looks.json").write_text(json.dumps(LOOKS))
    (tmp_path / "short.json").write_text(json.dumps(LOOKS[:1]))
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def agentloop(folder: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Ran:
        code = main(arguments)
        return Ran(code, *capsys.readouterr())

    return run


def test_the_answer_goes_to_stdout_and_everything_else_to_stderr(agentloop: Run) -> None:
    ran = agentloop("run", "agents.py:plain", "hi", "--provider", "scripted:looks.json")
    assert ran.code == 0
    assert ran.out == "It is \x1b[31mred\x1b[0m.\n"  # into a pipe, as it is
    assert "loaded" in ran.err
    assert "looking" in ran.err
    assert "\x1b" not in ran.err


def test_plain_progress_has_a_line_for_each_ask_and_tool_call(agentloop: Run) -> None:
    err = agentloop("run", "agents.py:plain", "hi", "--provider", "scripted:looks.json").err
    lines = [" ".join(line.split()) for line in err.splitlines()]
    asks = [line for line in lines if " model " in line]
    calls = [line for line in lines if line.startswith("look ")]
    assert len(asks) == 2
    assert asks[0].endswith('2 tool calls "I look."')
    assert {line.rpartition(" ms ")[2] for line in calls} == {'place="here"', 'place="nowhere"'}
    assert r"failed: There is \x1b[31mnothing." in lines
    assert lines[-1].startswith("done after 2 steps, 2 tool calls, ")


def test_quiet_shows_no_progress(agentloop: Run) -> None:
    ran = agentloop("run", "agents.py:plain", "hi", "--quiet")
    assert ran.code == 0
    assert ran.err == "loaded\n"


def test_without_a_model_the_stand_in_says_so(agentloop: Run) -> None:
    ran = agentloop("run", "agents.py:plain", "where is it?")
    assert ran.code == 0
    assert "No model is configured" in ran.err
    assert "no language model" in ran.err


@pytest.mark.parametrize("carrier", ["direct", "push", "rounds", "task"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_json_is_one_object_and_the_same_on_every_carrier(
    agentloop: Run, carrier: str, backend: str
) -> None:
    ran = agentloop(
        *("run", "agents.py:plain", "hi", "--provider", "scripted:looks.json", "--json"),
        *("--carrier", carrier, "--backend", backend),
    )
    assert ran.code == 0
    assert ran.out.isascii()
    result = json.loads(ran.out)
    assert result["output"] == result["text"] == "It is \x1b[31mred\x1b[0m."
    assert (result["stop"], result["steps"], result["tool_calls"]) == ("done", 2, 2)
    assert result["usage"]["asks"] == 2
    assert [message["role"] for message in result["messages"]] == ["user", "assistant"] * 2
    results = result["messages"][2]["content"]
    assert [block["toolUseId"] for block in results] == ["a", "b"]


def test_a_typed_answer_is_printed_as_json(agentloop: Run, folder: Path) -> None:
    (folder / "typed.json").write_text('["{\\"number\\": 42}"]')
    ran = agentloop("run", "agents.py:typed", "hi", "--provider", "scripted:typed.json")
    assert (ran.code, json.loads(ran.out)) == (0, {"number": 42})


@pytest.mark.parametrize("carrier", ["direct", "push", "rounds", "task"])
def test_a_run_that_ends_on_a_limit_exits_3_with_what_it_has(agentloop: Run, carrier: str) -> None:
    ran = agentloop(
        *("run", "agents.py:plain", "hi", "--provider", "scripted:looks.json"),
        *("--limit", "steps=1", "--carrier", carrier),
    )
    assert ran.code == 3
    assert ran.out == "I look.\n"
    assert "agentloop: agent 'plain' stopped with 'steps'" in ran.err


@pytest.mark.parametrize("carrier", ["direct", "push", "rounds", "task"])
def test_a_run_that_fails_exits_1_with_what_it_has(agentloop: Run, carrier: str) -> None:
    ran = agentloop(
        *("run", "agents.py:plain", "hi", "--provider", "scripted:short.json", "--json"),
        *("--carrier", carrier),
    )
    assert ran.code == 1
    result = json.loads(ran.out)
    assert (result["stop"], result["text"], result["steps"]) == ("failed", "I look.", 1)
    assert "the script has 1 lines" in result["error"]
    assert len(result["messages"]) == 3  # the tools' results are there
    assert "stopped with 'failed'" in ran.err


def test_a_client_that_gives_up_leaves_what_the_server_saw(agentloop: Run, folder: Path) -> None:
    def look(number: int) -> dict[str, Any]:
        call = {"type": "tool_use", "id": "a", "name": "look", "input": {"place": str(number)}}
        return {"role": "assistant", "model": "m", "content": [call]}

    (folder / "endless.json").write_text(json.dumps([look(number) for number in range(20)]))
    command = ("run", "agents.py:plain", "hi", "--provider", "scripted:endless.json", "--json")
    ran = agentloop(*command, "--carrier", "rounds", "--limit", "rounds=none")
    result = json.loads(ran.out)
    assert (ran.code, result["stop"], result["steps"]) == (3, "rounds", 10)
    assert result["error"] == "the client gave up after 10 rounds"
    assert len(result["messages"]) == 21


def test_a_denial_is_the_same_on_every_carrier(agentloop: Run, folder: Path) -> None:
    (folder / "denied.py").write_text(
        "from agentloop import Agent\n"
        "from agentloop.errors import DeniedError\n"
        "from agentloop_providers import ScriptedProvider\n"
        "agent = Agent('denied', provider=ScriptedProvider(DeniedError('Not now.'), repeat=True))\n"
    )
    for carrier in ("direct", "push", "rounds", "task"):
        ran = agentloop("run", "denied.py:agent", "hi", "--json", "--carrier", carrier)
        result = json.loads(ran.out)
        assert (ran.code, result["stop"]) == (1, "denied")
        assert result["error"] == "denied: Not now."
        assert "denied: Not now." in ran.err


def test_limits_of_the_agent_stay_where_no_other_is_given(agentloop: Run, folder: Path) -> None:
    (folder / "strict.py").write_text(
        "from agentloop import Agent, Limits\n"
        "def look() -> str: return ''\n"
        "agent = Agent('strict', tools=[look], limits=Limits(steps=1))\n"
    )
    command = ("run", "strict.py:agent", "hi", "--provider", "scripted:looks.json", "--json")
    assert json.loads(agentloop(*command, "--limit", "errors=none").out)["steps"] == 1
    assert json.loads(agentloop(*command, "--limit", "steps=none").out)["steps"] == 2


def test_the_agents_own_provider_answers_where_none_is_named(agentloop: Run, folder: Path) -> None:
    (folder / "own.py").write_text(
        "from agentloop import Agent\n"
        "from agentloop_providers import ScriptedProvider\n"
        "agent = Agent('own', provider=ScriptedProvider('Mine.', repeat=True))\n"
    )
    for carrier in ("direct", "push", "rounds", "task"):
        ran = agentloop("run", "own.py:agent", "hi", "--carrier", carrier)
        assert (ran.code, ran.out) == (0, "Mine.\n")
        assert "No model is configured" not in ran.err
    ran = agentloop("run", "own.py:agent", "hi", "--provider", "scripted:hello.json")
    assert ran.out == "Hello.\n"


@pytest.mark.parametrize(
    ("agent", "arguments", "name"),
    [
        ("agents.py:plain", [], "plain"),
        ("agents:plain", [], "plain"),
        ("./agents.py:Shelf.agent", [], "plain"),
        ("agents.py:made", ["folder=x"], "made-x-3-None"),
        ("agents.py:made", ["folder=x", "depth=5", 'tags=["a", "b"]'], "made-x-5-['a', 'b']"),
        ("agents.py:later", [], "later"),
        ("agents.py:later", ["name=123"], "123"),
        ("agents.py:lent", [], "lent"),
    ],
)
def test_what_an_agent_can_be(agentloop: Run, agent: str, arguments: list[str], name: str) -> None:
    given = [part for pair in arguments for part in ("--arg", pair)]
    ran = agentloop("run", agent, "hi", "--provider", "scripted:hello.json", "--json", *given)
    assert (ran.code, json.loads(ran.out)["agent"]) == (0, name)


def test_an_agent_that_is_lent_is_given_back(agentloop: Run) -> None:
    err = agentloop("run", "agents.py:lent", "hi", "--provider", "scripted:looks.json").err
    order = [line for line in err.splitlines() if line in ("opened", "looking", "closed")]
    assert order == ["opened", "looking", "looking", "closed"]


def test_a_file_may_be_called_like_a_module_and_import_its_neighbours(
    agentloop: Run, folder: Path
) -> None:
    below = folder / "below"
    below.mkdir()
    (below / "neighbour.py").write_text("NAME = 'json'")
    (below / "json.py").write_text(
        "import neighbour\nfrom agentloop import Agent\nagent = Agent(neighbour.NAME)\n"
    )
    ran = agentloop("run", "below/json.py:agent", "hi", "--provider", "scripted:hello.json")
    assert (ran.code, ran.out) == (0, "Hello.\n")
    assert sys.modules["json"] is json


def test_the_prompt_can_come_from_stdin(
    agentloop: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "question").write_bytes("Wo ist der K\xe4se?\n".encode("latin-1"))
    with (folder / "question").open(encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        ran = agentloop(
            "run", "agents.py:plain", "-", "--provider", "scripted:hello.json", "--json"
        )
    said = json.loads(ran.out)["messages"][0]["content"][0]["text"]
    assert said == "Wo ist der K\ufffdse?"


HI = ("hi", "--provider", "scripted:hello.json")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ([], "required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["run"], "required: AGENT, PROMPT"),
        (["run", "agents.py", "hi"], "which agent of agents.py? Write agents.py:NAME"),
        (["run", "plain", "hi"], "file.py:name or package.module:name, not 'plain'"),
        (["run", "nosuch.py:plain", "hi"], "there is no file nosuch.py"),
        (["run", "nosuch:plain", "hi"], "nosuch: ModuleNotFoundError"),
        (["run", "agents.py:plane", "hi"], "has no 'plane'; it has: look, plain, typed, made"),
        (["run", "agents.py:number", "hi"], "agents.py:number is no agent and no function"),
        (["run", "agents.py:nothing", *HI], "agents.py:nothing gives no agent, but: NoneType"),
        (["run", "agents.py:broken", "hi"], "agents.py:broken (line 48): RuntimeError: no luck"),
        (["run", "agents.py:wrong", "hi"], "agents.py:wrong (line 52): agent 'wrong': max_tokens"),
        (["run", "agents.py:plain", ""], "the prompt is empty"),
        (["run", "agents.py:plain", *HI, "--arg", "a=b"], "it takes no --arg"),
        (
            ["run", "agents.py:made", "hi"],
            "agents.py:made needs --arg folder=...; it takes: folder (Path, required), "
            "depth (int, default 3), tags (list[str] | None, default None)",
        ),
        (
            ["run", "agents.py:served", "hi"],
            "agents.py:served takes the context of a call",
        ),
        (["run", "agents.py:made", "hi", "--arg", "dept=3"], "no parameter 'dept'; it takes: fo"),
        (
            ["run", "agents.py:made", "hi", "--arg", "folder=x", "--arg", "depth=deep"],
            "--arg depth=deep: Input should be a valid integer",
        ),
        (["run", "agents.py:made", "hi", "--arg", "folder"], "write it as --arg KEY=VALUE"),
        (
            ["run", "agents.py:made", "hi", "--arg", "depth=1", "--arg", "depth=2"],
            "--arg depth=... is given twice",
        ),
        (["run", "agents.py:plain", "hi", "--provider", "nobody"], "there is no provider 'nobody'"),
        (["run", "agents.py:plain", "hi", "--provider", "scripted:x.json"], "scripted:x.json: "),
        (["run", "agents.py:plain", *HI, "--limit", "stps=1"], "no limit 'stps'; there are: steps"),
        (["run", "agents.py:plain", *HI, "--limit", "steps=many"], "steps is a whole number"),
        (["run", "agents.py:plain", *HI, "--limit", "seconds=nan"], "a number of seconds above 0"),
        (["run", "agents.py:plain", "hi", "--carrier", "pigeon"], "invalid choice: 'pigeon'"),
        (["serve", "agents.py:plain", "--http", "99999"], "invalid port value: '99999'"),
        (
            ["serve", "agents.py:plain", "--http", "0", "--host", "8.8.8.8"],
            "listen on 8.8.8.8 port 0",
        ),
    ],
)
def test_mistakes_are_said_in_one_line_and_exit_2(
    agentloop: Run, command: list[str], complaint: str
) -> None:
    ran = agentloop(*command)
    assert ran.code == 2
    assert ran.out == ""
    said = ran.err.removeprefix("loaded\n")
    assert said.startswith("agentloop: ")
    assert complaint in said
    assert said.count("\n") == 1


def test_files_that_cannot_be_loaded_are_said_with_the_line(agentloop: Run, folder: Path) -> None:
    for text, complaint in (
        ("x = 1\nimport nosuch", "bad.py (line 2): ModuleNotFoundError: No module named 'nosuch'"),
        ("def (:", "bad.py: SyntaxError: invalid syntax (bad.py, line 1)"),
        ("raise SystemExit(0)", "bad.py (line 1): SystemExit: 0"),
    ):
        (folder / "bad.py").write_text(text)
        ran = agentloop("run", "bad.py:agent", "hi")
        assert (ran.code, ran.err) == (2, f"agentloop: {complaint}\n")


def test_help_and_version(agentloop: Run) -> None:
    from agentloop import __version__

    assert agentloop("--version") == (0, f"agentloop {__version__}\n", "")
    for command in ("run", "serve", "providers"):
        assert command in agentloop("--help").out
        ran = agentloop(command, "--help")
        assert (ran.code, ran.err) == (0, "")
        assert f"usage: agentloop {command}" in ran.out


def _install(folder: Path, name: str, metadata: str = "", **modules: str) -> None:
    """A distribution with one provider called ``name``, as an installer would leave it."""
    plain = name.replace("-", "_")
    info = folder / f"{plain}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{metadata}")
    entry = f"[agentloop.providers]\n{name} = {plain}_provider:Provider\n"
    (info / "entry_points.txt").write_text(entry)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


WORKING = '''
print("hello")
class Provider:
    @classmethod
    def from_spec(cls, rest):
        """From ``MODEL``, whatever that is."""
        raise KeyError(rest)
'''


@pytest.fixture
def third_parties(folder: Path) -> Any:
    _install(folder, "crooked", crooked_provider="raise RuntimeError('\\x1b[31mboom')")
    _install(folder, "absent")
    _install(folder, "leaving", leaving_provider="import sys; sys.exit(1)")
    _install(folder, "bare", bare_provider="class Provider: ...")
    _install(folder, "fine", fine_provider=WORKING)
    needs = "Requires-Dist: nosuch-sdk>=1; extra == 'lazy'\nProvides-Extra: lazy\n"
    _install(folder, "lazy", needs, lazy_provider=WORKING)
    needs = "Requires-Dist: nosuch-sdk>=1; extra == 'eager'\nProvides-Extra: eager\n"
    _install(folder, "eager", needs, eager_provider="import nosuch_sdk")
    _install(folder, "eager-chat", needs, eager_chat_provider=WORKING)
    sys.path.insert(0, str(folder))


@pytest.mark.usefixtures("third_parties")
def test_providers_are_listed_whatever_state_they_are_in(agentloop: Run) -> None:
    ran = agentloop("providers")
    assert ran.code == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in ran.out.splitlines()}
    assert rows["scripted"] == "--provider scripted:FILE installed"
    assert rows["offline"].endswith(" installed")
    assert rows["fine"] == "--provider fine:MODEL installed"
    assert rows["crooked"].endswith(r"broken: RuntimeError: \x1b[31mboom")
    assert rows["leaving"].endswith("broken: SystemExit: 1")
    assert "broken: AttributeError" in rows["bare"]
    assert "not installed: No module named 'absent_provider'" in rows["absent"]
    assert rows["lazy"].endswith("not installed: nosuch-sdk (try: pip install 'lazy[lazy]')")
    assert rows["eager"].endswith("not installed: nosuch-sdk (try: pip install 'eager[eager]')")
    assert rows["eager-chat"].endswith(" nosuch-sdk (try: pip install 'eager-chat[eager]')")


def test_providers_are_listed_with_whether_their_key_is_set_and_never_with_the_key(
    agentloop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(name, " ")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "a-secret")
    rows = {line.split()[0]: line for line in agentloop("providers").out.splitlines()}
    assert rows["anthropic"].endswith("installed, ANTHROPIC_AUTH_TOKEN is set")
    assert rows["openai"].endswith("installed, OPENAI_API_KEY is not set")
    assert rows["openai-chat"].endswith("installed, OPENAI_API_KEY is not set")
    assert rows["scripted"].endswith(" installed")
    assert "secret" not in "".join(rows.values())


def test_to_list_the_providers_no_sdk_is_loaded() -> None:
    code = (
        "import sys; from agentloop.cli import main; main(['providers']); "
        "print(sorted({'anthropic', 'openai', 'inspect_ai'} & {*sys.modules}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


def test_a_provider_without_its_sdk_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    said = r"openai-chat needs a package .*'mcp-agentloop\[openai\]'"
    with pytest.raises(DefinitionError, match=said):
        load_provider("openai-chat:m@http://127.0.0.1:1/v1")


@pytest.mark.usefixtures("third_parties")
@pytest.mark.parametrize("name", ["crooked", "absent", "bare", "fine:x"])
def test_a_provider_that_cannot_be_used_is_a_mistake(agentloop: Run, name: str) -> None:
    ran = agentloop("run", "agents.py:plain", "hi", "--provider", name)
    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("agentloop: provider ")
