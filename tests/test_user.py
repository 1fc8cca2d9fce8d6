"""Asking the person behind a call: approvals, forms and pages, on every carrier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
from mcp.server.mcpserver import MCPServer
from mcp_types import ElicitRequestParams, ElicitResult
from pydantic import BaseModel

from agentloop import Agent, RunResult, Tool, ask_url, ask_user, tool
from agentloop.errors import DefinitionError
from agentloop.events import Event, RunEnded
from agentloop.mcp import mount
from agentloop.run import Run
from agentloop.testing import MockClient
from agentloop.user import UserDeclined
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import Line, use

CARRIERS = ["direct", "push", "rounds"]


def answering(
    action: Literal["accept", "decline", "cancel"] = "accept", **content: Any
) -> Callable[[ElicitRequestParams], Any]:
    async def user(params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action=action, content=content or None)

    return user


async def play(
    carrier: str, tools: list[Tool], *script: Line, user: Any = None
) -> tuple[Run, list[ElicitRequestParams], int]:
    """Run an agent; its final run, what its user was asked, and the rounds that it took."""
    questions: list[ElicitRequestParams] = []

    async def asked(params: ElicitRequestParams) -> ElicitResult:
        questions.append(params)
        return await user(params)

    agent = Agent("worker", tools=tools)
    with ScriptedProvider(*script) as provider:
        if carrier == "direct":
            result: RunResult[str] = await agent.run(
                "Go", provider=provider, user=asked if user else None
            )
            return result.run, questions, 0
        runs: list[Run] = []

        def note(event: Event) -> None:
            if isinstance(event, RunEnded):
                runs.append(event.run)

        server = MCPServer("test")
        mount(server, agent, on_event=note)
        async with MockClient(
            server,
            provider,
            carrier=carrier,  # type: ignore[arg-type]
            user=asked if user else None,
        ) as client:
            await client.call_tool("worker", {"prompt": "Go"})
            return runs[-1], questions, client.rounds


def results(run: Run) -> list[tuple[str, bool]]:
    return [
        (block.content[0].text if block.content else "", bool(block.is_error))  # type: ignore[union-attr]
        for message in run.messages
        for block in message.content_as_list
        if block.type == "tool_result"
    ]


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_an_approved_call_runs_and_a_declined_one_is_a_result_for_the_model(
    carrier: str,
) -> None:
    ran: list[int] = []

    @tool(approve=True)
    def pay(amount: int) -> str:
        ran.append(amount)
        return "paid"

    async def user(params: ElicitRequestParams) -> ElicitResult:
        allowed = '"amount": 1' in params.message
        return ElicitResult(action="accept" if allowed else "decline")

    run, questions, _ = await play(
        carrier, [pay], [use("pay", amount=1), use("pay", amount=2)], "done", user=user
    )
    assert ran == [1]
    assert len(questions) == 2
    assert results(run) == [("paid", False), ("Not run: the user did not approve it.", True)]


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_function_of_the_arguments_decides_what_needs_approval(carrier: str) -> None:
    def over_ten(amount: int) -> str | None:
        return f"Pay {amount}?" if amount > 10 else None

    @tool(approve=over_ten)
    def pay(amount: int) -> str:
        return "paid"

    run, questions, _ = await play(
        carrier,
        [pay],
        [use("pay", amount=1), use("pay", amount=20)],
        "done",
        user=answering(),
    )
    assert [q.message for q in questions] == ["Pay 20?"]
    assert [text for text, _ in results(run)] == ["paid", "paid"]


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_without_anybody_to_ask_the_call_does_not_run(carrier: str) -> None:
    @tool(approve=True)
    def pay() -> str:
        raise AssertionError("not approved")

    run, _, _ = await play(carrier, [pay], use("pay"), "done")
    ((text, is_error),) = results(run)
    assert is_error
    assert "approval" in text


async def test_all_approvals_of_a_turn_leave_in_one_round() -> None:
    @tool(approve=True)
    def pay(amount: int) -> str:
        return "paid"

    calls = [use("pay", amount=n) for n in range(5)]
    _, questions, rounds = await play("rounds", [pay], calls, "done", user=answering())
    assert len(questions) == 5
    assert rounds == 3  # ask, approvals, ask


class Address(BaseModel):
    city: str
    floor: int | None = None
    kind: Literal["home", "work"] = "home"


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_tool_can_ask_for_several_values_and_each_is_asked_for_once(carrier: str) -> None:
    @tool
    async def deliver() -> str:
        first = await ask_user("Where to?", Address)
        second = await ask_user("And back to?", Address)
        return f"{first.city} {second.city} {first.kind}"

    answers = iter(["Rome", "Oslo", "never"])

    async def user(params: ElicitRequestParams) -> ElicitResult:
        return ElicitResult(action="accept", content={"city": next(answers)})

    run, questions, _ = await play(carrier, [deliver], use("deliver"), "done", user=user)
    assert results(run) == [("Rome Oslo home", False)]
    assert [q.message for q in questions] == ["Where to?", "And back to?"]


@pytest.mark.parametrize("action", ["decline", "cancel"])
@pytest.mark.parametrize("carrier", CARRIERS)
async def test_declining_is_a_result_for_the_model_and_a_tool_can_catch_it(
    carrier: str, action: Literal["decline", "cancel"]
) -> None:
    @tool
    async def careless() -> str:
        return (await ask_user("Where?", Address)).city

    @tool
    async def careful() -> str:
        try:
            return (await ask_user("Where?", Address)).city
        except UserDeclined:
            return "nowhere"

    run, _, _ = await play(
        carrier,
        [careless, careful],
        [use("careless"), use("careful")],
        "ok",
        user=answering(action),
    )
    assert [is_error for _, is_error in results(run)] == [True, False]
    assert results(run)[1][0] == "nowhere"


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_an_answer_that_does_not_fit_the_form_is_an_error_for_the_model(carrier: str) -> None:
    @tool
    async def where() -> str:
        return (await ask_user("Where?", Address)).city

    run, _, _ = await play(carrier, [where], use("where"), "ok", user=answering(floor=3))
    ((text, is_error),) = results(run)
    assert is_error
    assert "city" in text


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_a_person_can_be_asked_to_visit_a_page(carrier: str) -> None:
    @tool
    async def connect() -> str:
        await ask_url("Sign in", "https://example.com/connect?state=abc")
        return "connected"

    run, questions, _ = await play(carrier, [connect], use("connect"), "ok", user=answering())
    assert results(run) == [("connected", False)]
    assert [q.mode for q in questions] == ["url"]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://me:pw@example.com",
        "https://example.com/in?access_token=1",
        "https://example.com/in?a=b&apiKey=1",
        "ftp://x",
        "nonsense",
        "",
    ],
)
async def test_a_url_that_the_protocol_forbids_is_refused(url: str) -> None:
    with pytest.raises(DefinitionError):
        await ask_url("Sign in", url)


class Nested(BaseModel):
    address: Address


class Login(BaseModel):
    password: str


class Many(BaseModel):
    names: list[str]


@pytest.mark.parametrize("form", [Nested, Login, Many])
async def test_a_form_that_the_protocol_forbids_is_refused(form: type[BaseModel]) -> None:
    with pytest.raises(DefinitionError):
        await ask_user("Please", form)
