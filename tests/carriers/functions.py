"""Functions with several runs, and their models, which look at the request alone."""

from __future__ import annotations

from typing import Any

from mcp_types import CreateMessageRequestParams, ImageContent, TextContent, ToolUseContent
from pydantic import BaseModel

from agentloop import Agent, Limits, gather, once, tool
from agentloop.errors import RunStopped
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use
from tests.carriers.kit import PIXEL, Kit


class Article(BaseModel):
    title: str
    parts: list[str]


def asked(request: CreateMessageRequestParams) -> tuple[str, int]:
    """What the run was asked at first, and how often the model replied since."""
    first = next(block for block in request.messages[0].content_as_list if block.type == "text")
    return first.text, sum(message.role == "assistant" for message in request.messages)


def add(number: int, *, of: str = "") -> ToolUseContent:
    return use("add", id=f"{of}{number}", a=number, b=1)


def sub(name: str, prompt: str) -> ToolUseContent:
    return use(name, id=prompt.replace(" ", "-"), prompt=prompt)


async def nested(kit: Kit) -> Any:
    """A boss asks a chief, who asks a worker, who adds."""
    worker = Agent("worker", tools=[kit.add])
    chief = Agent("chief", tools=[worker.as_tool(), kit.same])
    boss = Agent("boss", tools=[chief.as_tool()])
    return (await boss.run("boss")).output


def nested_says(request: CreateMessageRequestParams) -> Line:
    prompt, replies = asked(request)
    match prompt.split()[0], replies:
        case "boss", 0:
            return [sub("chief", "chief 1")]
        case "chief", 0:
            return [sub("worker", "worker of " + prompt), use("same", id="s")]
        case "worker", 0:
            return [add(1), add(2)]
        case _:
            return f"{prompt} is done"


async def team(kit: Kit) -> Any:
    """Three sub-agents as tools of one agent, called in one reply."""
    writer = Agent("writer", "Write.", tools=[kit.add])
    lead = Agent("lead", tools=[writer.as_tool(), kit.add])
    return (await lead.run("lead")).output


def team_says(request: CreateMessageRequestParams) -> Line:
    prompt, replies = asked(request)
    if prompt == "lead":
        calls = [sub("writer", f"part {n}") for n in (1, 2, 3)]
        return "all parts" if replies else [calls[0], add(0), *calls[1:]]
    return [add(replies)] if replies < int(prompt.split()[1]) else f"{prompt} is written"


async def newsroom(kit: Kit) -> Any:
    """A planner, writers at the same time, and an editor."""
    planner = Agent("planner", output=list[str])
    writer = Agent("writer", tools=[kit.add])
    editor = Agent("editor", output=Article)
    plan = await planner.run("plan")
    parts = await gather(*(writer.run(f"part {name}") for name in plan.output))
    article = await editor.run("edit: " + "; ".join(part.output for part in parts))
    return article.output.model_dump()


def newsroom_says(request: CreateMessageRequestParams) -> Line:
    prompt, replies = asked(request)
    if prompt == "plan":
        return [use("final_answer", id="f", result=["1", "2", "3"])]
    if prompt.startswith("edit: "):
        return [use("final_answer", id="f", title="News", parts=prompt[6:].split("; "))]
    return [add(replies, of=prompt)] if replies < 2 else f"{prompt} is written"


async def uneven(kit: Kit) -> Any:
    """Branches of several runs each, which need different numbers of asks."""
    writer = Agent("writer", tools=[kit.add])
    critic = Agent("critic")

    async def branch(number: int) -> str:
        written = await writer.run(f"part {number}")
        return (await critic.run("judge " + written.output)).output

    return await gather(*(branch(number) for number in (3, 1, 2)))


def uneven_says(request: CreateMessageRequestParams) -> Line:
    prompt, replies = asked(request)
    if prompt.startswith("judge"):
        return "good: " + prompt
    return [add(replies)] if replies < int(prompt.split()[1]) else f"{prompt} is written"


async def forest(kit: Kit) -> Any:
    """Branches inside branches; agents inside a tool; the same prompt more than once."""
    worker = Agent("worker", tools=[kit.add])

    async def both(prompt: str) -> str:
        """Ask two workers at the same time."""
        answers = await gather(worker.run(prompt), worker.run(prompt))
        return " and ".join(answer.output for answer in answers)

    asker = Agent("asker", tools=[both])
    tops = await gather(gather(worker.run("part 1"), worker.run("part 1")), asker.run("both"))
    return [[run.output for run in tops[0]], tops[1].output]  # type: ignore[union-attr]


def forest_says(request: CreateMessageRequestParams) -> Line:
    prompt, replies = asked(request)
    if prompt == "both":
        return "both done" if replies else [use("both", id="b", prompt="part 2")]
    return f"{prompt} is done" if replies else [add(1), add(2)]


async def remembered(kit: Kit) -> Any:
    """Values that are made once, sync and async, also in branches, also with a run inside."""
    helper = Agent("helper")

    def stamp() -> int:
        kit.record.effect("stamp")
        return 42

    async def ask(number: int) -> dict[str, Any]:
        said = (await helper.run(f"helper {number}")).output
        kit.record.effect(f"ask {number}")
        return {"said": said}

    async def branch(number: int) -> Any:
        kept = await once("ask", kit.add, number, 1)
        return [kept, (await helper.run(f"kept {kept}")).output]

    first = await once("stamp", stamp)
    said = await once("ask", ask, 1)
    branches = await gather(branch(1), branch(2))
    return [first, said, branches, (await helper.run(f"last {first}")).output]


async def talk(kit: Kit) -> Any:
    """A second run goes on with what was said in the first, whose prompt holds a picture."""
    agent = Agent("talker", tools=[kit.add])
    picture = ImageContent(data=PIXEL, mime_type="image/png")
    first = await agent.run([TextContent(text="look"), picture])
    second = await agent.run("and now?", history=first.messages)
    return [first.output, second.output]


def talk_says(request: CreateMessageRequestParams) -> Line:
    replies = asked(request)[1]
    return [add(replies)] if replies in (0, 2) else f"reply {replies}"


async def recovered(kit: Kit) -> Any:
    """A sub-agent runs into its limit, a run gives no typed answer, and the function goes on."""
    busy = Agent("busy", tools=[kit.add], limits=Limits(steps=1))
    lead = Agent("lead", tools=[busy.as_tool()])
    typed = Agent("typed", output=Article, limits=Limits(output_retries=0))
    led = await lead.run("lead")
    try:
        missing = (await typed.run("typed")).output.title
    except RunStopped as error:
        missing = str(error.result.stop)
    return [led.output, missing, (await lead.run("again", limits=Limits(steps=1))).stop]


def recovered_says(request: CreateMessageRequestParams) -> Line:
    prompt, replies = asked(request)
    if prompt == "lead" and not replies:
        return [sub("busy", "hurry")]
    return [add(1)] if prompt in ("hurry", "again") else "some words"


async def mixed(kit: Kit) -> Any:
    """Some runs are answered on the server's side, next to runs that ask the client."""
    inner = ScriptedProvider([use("add", id="i", a=5, b=5)], "from the server")
    agent = Agent("worker", tools=[kit.add])

    async def own() -> Any:
        return await once("own", lambda: _own(agent, inner))

    first, second = await gather(own(), agent.run("client"))
    return [first, second.output]


async def _own(agent: Agent[str], provider: ScriptedProvider) -> str:
    return (await agent.run("server", provider=provider)).output


async def typed_tool(kit: Kit) -> Any:
    """A sub-agent with an output type, called by name, and exclusive tools beside it."""
    sub_agent = Agent("facts", output=Article)
    lead = Agent("lead", tools=[sub_agent.as_tool(name="ask_facts"), tool(exclusive=True)(kit.add)])
    return (await lead.run("lead")).output


def typed_tool_says(request: CreateMessageRequestParams) -> Line:
    prompt, replies = asked(request)
    if prompt == "facts":
        return [use("final_answer", id="f", title="T", parts=["p"])]
    return "told" if replies else [add(1), sub("ask_facts", "facts")]
