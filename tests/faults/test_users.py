"""The person behind a call: answers that are late, double, wrong, or none."""

from __future__ import annotations

from typing import Any, Literal

import anyio
import pytest
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import CallToolRequestParams, CallToolResult, ElicitResult, TextContent
from pydantic import BaseModel, create_model

from agentloop import Agent, Limits, ask_url, ask_user, gather, tool
from agentloop.errors import DefinitionError
from agentloop.mcp import resumable, seal
from agentloop.run import Stop
from agentloop.store import MemoryStore
from agentloop_providers.scripted import use
from tests.faults.kit import (
    GO,
    PROVIDER,
    PUSH,
    STORED,
    Model,
    Raw,
    each,
    each_client,
    in_rounds,
    play,
    says,
    serving,
    text,
)
from tests.faults.wire import PEOPLE, SAMPLING, Refuse, Rejected, Silence, connected

pytestmark = pytest.mark.usefixtures("no_leaks")


class Form(BaseModel):
    city: str
    floor: int = 0


@tool
async def where() -> str:
    form = await ask_user("Where to?", Form)
    return f"to {form.city}, floor {form.floor}"


@tool(timeout=0.2)
async def hurried() -> str:
    return (await ask_user("Quick, where to?", Form)).city


@tool
async def sign_in() -> str:
    await ask_url("Sign in", "https://example.com/connect?state=abc")
    return "signed in"


@tool(approve=True)
async def pay(amount: int = 1) -> str:
    return f"paid {amount}"


def agent(*tools: Any, **limits: Any) -> Agent[str]:
    return Agent("worker", tools=list(tools), limits=Limits(**limits))


@each
@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_declining_and_cancelling_are_results(
    carrier: str, action: Literal["decline", "cancel"]
) -> None:
    async def user(params: Any) -> ElicitResult:
        return ElicitResult(action=action)

    played = await play(
        carrier, agent(where, sign_in, pay), [use("where"), use("sign_in"), use("pay")], "ok",
        user=user, capabilities=PEOPLE,
    )  # fmt: skip
    assert [is_error for _, is_error in played.results] == [True] * 3
    assert played.stop is Stop.DONE


WRONG = [
    {"action": "accept"},
    {"action": "accept", "content": {}},
    {"action": "accept", "content": {"city": 7, "floor": "x"}},
    {"action": "accept", "content": {"city": ["a"]}},
]


@each
@pytest.mark.parametrize("answer", WRONG)
async def test_an_answer_that_does_not_fit_the_form(carrier: str, answer: Any) -> None:
    async def user(params: Any) -> Any:
        return ElicitResult(**answer) if carrier == PROVIDER else Raw(answer)

    played = await play(carrier, agent(where), [use("where")], "ok", user=user, capabilities=PEOPLE)
    ((text, is_error),) = played.results
    assert is_error
    assert "does not fit" in text


@each
async def test_a_form_of_a_megabyte(carrier: str) -> None:
    """What a tool makes of it is bounded like any other result."""

    async def user(params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"city": "x" * 1_000_000})

    played = await play(carrier, agent(where), [use("where")], "ok", user=user, capabilities=PEOPLE)
    ((text, is_error),) = played.results
    assert not is_error
    assert len(text) < 20_000


@pytest.mark.parametrize("carrier", [PROVIDER, PUSH])
async def test_a_person_who_takes_longer_than_the_tool_may(carrier: str) -> None:
    async def user(params: Any) -> Any:
        return Silence if carrier == PUSH else await anyio.sleep_forever()

    played = await play(
        carrier, agent(hurried), [use("hurried")], "ok", user=user, capabilities=PEOPLE
    )
    ((text, is_error),) = played.results
    assert is_error
    assert "Timed out" in text
    if played.wire:
        methods = [note["method"] for note in played.wire.notes]
        assert methods.count("notifications/cancelled") == 1


@in_rounds
async def test_a_person_may_take_any_time_in_rounds(carrier: str) -> None:
    """Nothing waits between two rounds, so the tool's timeout does not count there."""
    server = serving(agent(hurried), carrier)
    model = Model([use("hurried")], "ok")
    async with connected(server, model.answer, modern=True, capabilities=PEOPLE) as wire:
        first = await wire.round("worker", GO)
        second = await wire.go_on(first, "worker", GO)
        ((key, question),) = second["inputRequests"].items()
        assert question["method"] == "elicitation/create"
        await anyio.sleep(0.3)
        answer = {"action": "accept", "content": {"city": "Rome"}}
        third = await wire.round("worker", GO, answers={key: answer}, state=second["requestState"])
        assert "Rome" in str(third["inputRequests"])


@in_rounds
async def test_an_answer_that_comes_twice(carrier: str) -> None:
    """Each question is asked once; what was answered first stays, also beside further asks."""
    server = serving(agent(where, pay), carrier)
    model = Model([use("where"), use("pay")], "ok")
    async with connected(server, model.answer, modern=True, capabilities=PEOPLE) as wire:
        first = await wire.round("worker", GO)
        second = await wire.go_on(first, "worker", GO)
        questions = {
            request["params"]["message"]: key for key, request in second["inputRequests"].items()
        }
        assert len(questions) == 2
        to_rome = {"action": "accept", "content": {"city": "Rome"}}
        key = questions.pop("Where to?")
        third = await wire.round("worker", GO, answers={key: to_rome}, state=second["requestState"])
        assert set(third["inputRequests"]) == set(questions.values()), "only what is still open"
        to_oslo = {"action": "accept", "content": {"city": "Oslo"}}
        (approval,) = questions.values()
        fourth = await wire.round(
            "worker",
            GO,
            answers={key: to_oslo, approval: {"action": "accept"}},
            state=third["requestState"],
        )
        told = str(fourth["inputRequests"])
        assert "to Rome" in told
        assert "Oslo" not in told
        assert "paid 1" in told


@in_rounds
@pytest.mark.parametrize("action", ["accept", "decline", "cancel"])
async def test_questions_leave_in_the_round_of_asks(
    carrier: str, action: Literal["accept", "decline", "cancel"]
) -> None:
    """While one agent waits for its model, another's approval, form and page ride along."""
    buyer, writer = agent(pay, where, sign_in), Agent("writer")

    @resumable(store=MemoryStore() if carrier == STORED else None)
    async def both(
        ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        bought, written = await gather(buyer.run("Buy"), later(writer))
        return CallToolResult(content=[TextContent(text=f"{bought.text}, {written.text}")])

    async def later(writer: Agent[str]) -> Any:
        await writer.run("First")
        return await writer.run("Then")

    server: Server[Any] = Server("faults")
    server.add_request_handler("tools/call", CallToolRequestParams, both)
    seal(server)
    kinds: list[list[str]] = []
    script: Any = {
        "Buy": [use("pay"), use("where"), use("sign_in")], "First": "one", "Then": "two",
    }  # fmt: skip

    def reply(request: Any) -> Any:
        last = request.messages[-1].content_as_list[-1]
        return "bought" if last.type == "tool_result" else script[last.text]

    model = Model(reply, repeat=True)

    async def answers(method: str, params: Any) -> Any:
        if method != "elicitation/create":
            return await model.answer(method, params)
        content = {"city": "Rome"} if params["message"] == "Where to?" else None
        return {"action": action} | ({"content": content} if action == "accept" else {})

    async with connected(server, answers, modern=True, capabilities=PEOPLE) as wire:
        result = await wire.round("both")
        while result["resultType"] == "input_required":
            asked = result["inputRequests"].values()
            kinds.append(sorted(request["method"] for request in asked))
            result = await wire.go_on(result, "both")
    assert result["content"][0]["text"] == "bought, two"
    ask, question = "sampling/createMessage", "elicitation/create"
    assert kinds == [[ask] * 2, [question] * 3 + [ask], [ask]]
    told = next(str(r) for r in model.requests if "pay" in str(r) and len(r.messages) > 2)
    accepted = ("paid 1", "to Rome", "signed in")
    assert [words in told for words in accepted] == [action == "accept"] * 3


@in_rounds
async def test_an_answer_of_another_kind(carrier: str) -> None:
    server = serving(agent(where), carrier)
    model = Model([use("where")], "ok")
    async with connected(server, model.answer, modern=True, capabilities=PEOPLE) as wire:
        first = await wire.round("worker", GO)
        second = await wire.go_on(first, "worker", GO)
        (key,) = second["inputRequests"]
        sampled = {key: says(text("Rome"))}
        third = await wire.round("worker", GO, answers=sampled, state=second["requestState"])
        assert "gave no answer of its user" in str(third["inputRequests"])


@each_client
@pytest.mark.parametrize(
    ("declared", "form", "url"),
    [
        (None, False, False),
        ({}, True, False),
        ({"form": {}}, True, False),
        ({"url": {}}, False, True),
        ({"form": {}, "url": {}}, True, True),
    ],
)
async def test_only_modes_that_were_declared_are_used(
    carrier: str, declared: Any, form: bool, url: bool
) -> None:
    async def user(params: Any) -> ElicitResult:
        content = {"city": "Rome"} if params.mode == "form" else None
        return ElicitResult(action="accept", content=content)

    capabilities = SAMPLING | ({} if declared is None else {"elicitation": declared})
    played = await play(
        carrier, agent(where, sign_in), [use("where"), use("sign_in")], "ok",
        user=user, capabilities=capabilities,
    )  # fmt: skip
    assert [not is_error for _, is_error in played.results] == [form, url]


async def test_a_client_that_refuses_to_ask_ends_nothing_over_push() -> None:
    async def user(params: Any) -> Any:
        return Refuse(-32603, "no window")

    played = await play(
        PUSH, agent(where, pay), [use("where"), use("pay")], "ok",
        user=user, capabilities=PEOPLE,
    )  # fmt: skip
    assert [is_error for _, is_error in played.results] == [True, True]
    assert played.stop is Stop.DONE


@in_rounds
async def test_a_client_that_refuses_to_ask_ends_its_own_call(carrier: str) -> None:
    async def user(params: Any) -> Any:
        return Refuse(-32603, "no window")

    with pytest.raises(Rejected, match="no window"):
        await play(carrier, agent(where), [use("where")], user=user, capabilities=PEOPLE)


SECRET = [
    *["password", "db_passwd", "passcode", "api_key", "privateKey", "accessToken", "clientSecret"],
    *["card_number", "credit_card", "cvc", "pin", "otp", "key"],
]
PLAIN = ["city", "keyboard", "sort_key", "spinning", "discarded", "compass"]


@each
@pytest.mark.parametrize("name", [*SECRET, *PLAIN])
async def test_a_form_for_secrets_is_the_authors_mistake(carrier: str, name: str) -> None:
    form: Any = create_model("Form", **{name: (str, ...)})  # type: ignore[call-overload]
    questions: list[Any] = []

    @tool
    async def ask() -> str:
        try:
            await ask_user("Please", form)
        except DefinitionError as error:
            return str(error)
        return "asked"

    async def user(params: Any) -> ElicitResult:
        questions.append(params)
        return ElicitResult(action="accept", content={name: "x"})

    played = await play(carrier, agent(ask), [use("ask")], "ok", user=user, capabilities=PEOPLE)
    ((text, _),) = played.results
    if name in PLAIN:
        assert (text, len(questions)) == ("asked", 1)
    else:
        assert "looks like a secret" in text
        assert "ask_url" in text
        assert questions == []
