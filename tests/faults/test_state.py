"""A client that attacks: states that are forged, moved, played again and rolled back.

The numbered tests are twenty-five attacks on ``requestState``; all of them must fail. What needs
single use is played with a store.
"""

from __future__ import annotations

import base64
import json
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import AESGCMRequestStateCodec, RequestStateSecurity
from mcp_types import CallToolRequestParams, CallToolResult, ImageContent, TextContent
from pydantic import AnyHttpUrl

from agentloop import Agent, Limits, tool
from agentloop.mcp import mount, resumable, seal
from agentloop.mcp.request import IDEMPOTENCY_KEY
from agentloop.mcp.state import pack
from agentloop.run import Stop
from agentloop.sql_store import SQLiteStore
from agentloop.store import MemoryStore, Store
from agentloop_providers import ScriptedProvider
from agentloop_providers.scripted import use
from tests.faults.http import post_of, result_of, serving_http
from tests.faults.kit import GO, ROUNDS, STORED, Model, calls, play, says, serving, text
from tests.faults.wire import PEOPLE, SAMPLING, Rejected, Wire, connected

pytestmark = pytest.mark.usefixtures("no_leaks")

KEY = b"0123456789abcdef0123456789abcdef"
FROZEN = {"reason": "invalid_request_state"}


def pay(amount: int, id: str = "c") -> dict[str, Any]:
    return calls("pay", id=id, amount=amount)


class Shop:
    """Servers that offer an agent with a tool that pays, and what was paid."""

    def __init__(self, carrier: str, *, once: bool = True, **limits: Any) -> None:
        self.paid: list[int] = []
        self.store: Store | None = MemoryStore() if carrier == STORED else None
        self.who: str | None = None
        self._once: Any = once if carrier == STORED else "best effort"
        self._limits = limits

    def agent(self, instructions: str | None = None, **options: Any) -> Agent[Any]:
        @tool(once=self._once)
        async def pay(amount: int) -> str:
            """Pay an amount."""
            await anyio.sleep(0.005)
            self.paid.append(amount)
            return f"paid {amount}"

        return Agent("shop", instructions, tools=[pay], limits=Limits(**self._limits), **options)

    def server(
        self,
        agent: Agent[Any] | None = None,
        *,
        name: str = "faults",
        keys: tuple[bytes, ...] = (KEY,),
        ttl: float = 600,
        **options: Any,
    ) -> Server[Any]:
        server: Server[Any] = Server(name)
        security = RequestStateSecurity(keys=list(keys), ttl=ttl, bind_principal=lambda _: self.who)
        seal(server, security)
        mount(server, agent or self.agent(), store=self.store, **options)
        mount(server, Agent("other"), store=self.store)
        return server

    @asynccontextmanager
    async def open(self, server: Server[Any] | None = None) -> AsyncGenerator[Wire]:
        async with connected(server or self.server(), Model().answer, modern=True) as wire:
            yield wire

    async def refused(self, wire: Wire, state: Any, name: str = "shop", **more: Any) -> Rejected:
        """A round whose answer pays, which must be refused with nothing done."""
        before = list(self.paid)
        arguments = more.pop("arguments", GO)
        with pytest.raises(Rejected) as rejected:
            await wire.round(name, arguments, answers={"0:0": says(pay(666))}, state=state, **more)
        assert self.paid == before
        assert rejected.value.code == -32602
        return rejected.value


# --- forged and moved --------------------------------------------------------------------------


def flipped(state: str) -> str:
    middle = len(state) // 2
    return state[:middle] + ("A" if state[middle] != "A" else "B") + state[middle + 1 :]


TAMPERED: dict[str, Callable[[str], Any]] = {
    "R01 one character changed": flipped,
    "R01 the last one changed": lambda s: s[:-2] + ("A" if s[-2] != "A" else "B") + s[-1],
    "R02 empty": lambda _: "",
    "R02 cut": lambda s: s[: len(s) // 2],
    "R02 junk of 2 MB": lambda _: "v1." + "A" * 2_000_000,
    "R02 doubled": lambda s: s + s,
    "R02 another format": lambda s: "v2." + s[3:],
    "R02 what agentloop itself writes": lambda _: pack({"v": 1, "round": 1, "runs": {}}),
    "R02 another key": lambda _: AESGCMRequestStateCodec([KEY[::-1]]).seal(b"{}"),
}


@pytest.mark.fault("B57")
@pytest.mark.parametrize("tamper", TAMPERED.values(), ids=TAMPERED)
async def test_R01_R02_tampered(carrier: str, tamper: Callable[[str], Any]) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        error = await shop.refused(wire, tamper(first["requestState"]))
    assert (error.message, error.data) == ("Invalid or expired requestState", FROZEN)


@pytest.mark.fault("B57")
async def test_R03_an_answer_without_a_state(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        await wire.round("shop", GO)
        again = await wire.round("shop", GO, answers={"0:0": says(pay(666))})
    assert list(again["inputRequests"]) == ["0:0"]
    assert shop.paid == []


@pytest.mark.fault("B58")
async def test_R04_a_state_of_another_tool(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        other = await wire.round("other", GO)
        await shop.refused(wire, other["requestState"])
        mine = await wire.round("shop", GO)
        await shop.refused(wire, mine["requestState"], name="other")


@pytest.mark.fault("B58")
async def test_R05_a_state_of_other_arguments(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        await shop.refused(wire, first["requestState"], arguments={"prompt": "Pay Eve"})


@pytest.mark.fault("B63")
async def test_R06_R07_missing_and_unknown_answers(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        again = await wire.round("shop", GO, answers={}, state=first["requestState"])
        assert list(again["inputRequests"]) == ["0:0"]
        odd = {"0:1": says(pay(1)), "../0:0": says(pay(2)), "0:0 ": says(pay(3))}
        again = await wire.round("shop", GO, answers=odd, state=again["requestState"])
        assert list(again["inputRequests"]) == ["0:0"]
    assert shop.paid == []


@pytest.mark.fault("B63")
async def test_R13_nine_answers_of_the_wrong_kind(carrier: str) -> None:
    shop = Shop(carrier)
    wrong: list[Any] = [
        {}, [], 7, "text", None, {"action": "accept"}, {"roots": []},
        {"role": "assistant", "content": 7, "model": "m"}, {"content": []},
    ]  # fmt: skip
    async with shop.open() as wire:
        for answer in wrong:
            first = await wire.round("shop", GO)
            with suppress(Rejected):
                result = await wire.round(
                    "shop", GO, answers={"0:0": answer}, state=first["requestState"]
                )
                assert result["isError"]
    assert shop.paid == []


@pytest.mark.fault("B02", on=(ROUNDS, STORED))
async def test_R14_two_calls_with_one_id(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        second = await wire.round(
            "shop", GO, answers={"0:0": says(pay(1), pay(2))}, state=first["requestState"]
        )
    ((_, ask),) = second["inputRequests"].items()
    results = ask["params"]["messages"][-1]["content"]
    assert [block["toolUseId"] for block in results] == ["c", "c-2"]
    assert sorted(shop.paid) == [1, 2]


@pytest.mark.fault("B58")
@pytest.mark.parametrize(("minted", "brought"), [("alice", "bob"), ("alice", None), (None, "bob")])
async def test_R17_R18_R19_another_principal(
    carrier: str, minted: str | None, brought: str | None
) -> None:
    shop = Shop(carrier)
    shop.who = minted
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        shop.who = brought
        error = await shop.refused(wire, first["requestState"])
        assert error.data == FROZEN
        shop.who = minted
        await wire.round("shop", GO, answers={"0:0": says(pay(1))}, state=first["requestState"])
    assert shop.paid == [1]


class Tokens:
    """Alice and Bob."""

    async def verify_token(self, token: str) -> AccessToken | None:
        if token not in ("alice", "bob"):
            return None
        return AccessToken(token=token, client_id="app", scopes=["use"], subject=token)


# The SDK's HTTP server and client leave generators behind that trio complains about.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object")
@pytest.mark.fault("B58", "B66", on=(STORED,))
@pytest.mark.timeout(10)
async def test_R17_another_principal_over_http(carrier: str) -> None:
    """Authenticated by the transport: neither a state nor an idempotency key is Bob's to use."""
    shop = Shop(carrier)
    server: Server[Any] = Server("faults")
    seal(server, RequestStateSecurity(keys=[KEY]))
    mount(server, shop.agent(), store=shop.store)

    def app() -> Any:
        url = AnyHttpUrl("http://127.0.0.1/")
        settings = AuthSettings(
            issuer_url=url,
            resource_server_url=url,
            required_scopes=["use"],
            validate_token_resource=False,
        )
        return server.streamable_http_app(auth=settings, token_verifier=Tokens())

    with serving_http(app) as url:
        async with httpx2.AsyncClient() as client:

            async def post(**more: Any) -> Any:
                return result_of(await client.post(url, **post_of("shop", GO, **more)))

            meta = {IDEMPOTENCY_KEY: "k"}
            first = await post(token="alice", meta=meta)
            answered: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
            with pytest.raises(Rejected) as rejected:
                await post(token="bob", **answered)
            assert (rejected.value.code, shop.paid) == (-32602, [])
            unauthorised = await client.post(url, **post_of("shop", GO, token="eve"))
            assert unauthorised.status_code == 401
            await post(token="alice", **answered)
            again = await post(token="alice", meta=meta)
            assert again["inputRequests"] == first["inputRequests"]
            bobs = await post(token="bob", meta=meta)
            answered["state"] = bobs["requestState"]
            await post(token="bob", **answered)
    assert shop.paid == [1, 1], "two people, two calls"


@pytest.mark.fault("B58")
async def test_R20_a_state_of_another_service_with_the_same_key(carrier: str) -> None:
    shop = Shop(carrier)
    async with (
        shop.open(shop.server(name="one")) as one,
        shop.open(shop.server(name="two")) as two,
    ):
        first = await one.round("shop", GO)
        await shop.refused(two, first["requestState"])


@pytest.mark.fault("B67")
async def test_R21_R22_keys_that_change(carrier: str) -> None:
    """Three phases: add the new key, seal with it, drop the old one. No call is lost before."""
    shop = Shop(carrier)
    old, new = KEY, KEY[::-1]
    phases = [(old,), (old, new), (new, old), (new,)]
    async with AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(shop.open(shop.server(keys=keys))) for keys in phases
        ]
        for minting, taking in ((0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)):
            first = await wires[minting].round("shop", GO)
            done = await wires[taking].round(
                "shop", GO, answers={"0:0": says(text("ok"))}, state=first["requestState"]
            )
            assert done["structuredContent"] == {"result": "ok"}
        first = await wires[0].round("shop", GO)
        await shop.refused(wires[3], first["requestState"])


@pytest.mark.fault("B67")
async def test_R23_an_expired_state(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open(shop.server(ttl=0.1)) as wire:
        first = await wire.round("shop", GO)
        await anyio.sleep(0.15)
        await shop.refused(wire, first["requestState"])


def minted_at(state: str, ago: float) -> str:
    """``state`` as a replica would have sealed it whose clock is ``ago`` behind."""
    codec = AESGCMRequestStateCodec([KEY])
    claims = json.loads(codec.unseal(state))
    claims["iat"] -= ago
    claims["exp"] -= ago
    return codec.seal(json.dumps(claims).encode())


@pytest.mark.fault("B67")
async def test_R24_clocks_five_minutes_apart(carrier: str) -> None:
    """A clock that is behind is let pass; one that is ahead is refused, not run."""
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        error = await shop.refused(wire, minted_at(first["requestState"], -300))
        assert error.data == FROZEN
        await shop.refused(wire, minted_at(first["requestState"], 86_400))
        state = minted_at(first["requestState"], 300)
        done = await wire.round("shop", GO, answers={"0:0": says(text("ok"))}, state=state)
        assert done["structuredContent"] == {"result": "ok"}


@pytest.mark.fault("B67")
async def test_R25_an_answer_within_ten_rounds(carrier: str) -> None:
    shop = Shop(carrier)

    def endless(request: Any) -> Any:
        if request.tool_choice is not None and request.tool_choice.mode == "none":
            return "this is what I have"
        return [use("pay", id="c", amount=len(request.messages))]

    played = await play(carrier, _quick(), endless, repeat=True)
    assert played.stop is Stop.ROUNDS
    assert len(played.requests) == 10
    assert played.result is not None
    assert played.result["structuredContent"] == {"result": "this is what I have"}
    assert shop.paid == []


def _quick() -> Agent[Any]:
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    return Agent("shop", tools=[pay])


# --- played again ------------------------------------------------------------------------------


@pytest.mark.fault("B60", on=(STORED,))
async def test_R08_the_same_round_three_times(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        again: Any = {"answers": {"0:0": says(pay(5))}, "state": first["requestState"]}
        given = [await wire.round("shop", GO, **again) for _ in range(3)]
    assert shop.paid == [5]
    assert given[0]["inputRequests"] == given[1]["inputRequests"] == given[2]["inputRequests"]


@pytest.mark.fault("B60", on=(STORED,))
async def test_R09_five_copies_at_once(carrier: str) -> None:
    shop = Shop(carrier)
    given: list[Any] = []
    async with shop.open() as wire:
        first = await wire.round("shop", GO)

        async def send() -> None:
            given.append(
                await wire.round(
                    "shop", GO, answers={"0:0": says(pay(5))}, state=first["requestState"]
                )
            )

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(send)
    assert shop.paid == [5]
    assert all(result["inputRequests"] == given[0]["inputRequests"] for result in given)


@pytest.mark.fault("B62", on=(STORED,))
async def test_R10_an_old_state_thirty_times(carrier: str) -> None:
    """Each time with other answers, under a budget of 8 calls."""
    shop = Shop(carrier, tool_calls=8)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        for n in range(30):
            result = await wire.round(
                "shop", GO, answers={"0:0": says(pay(n))}, state=first["requestState"]
            )
            assert "inputRequests" in result
    assert shop.paid == [0]


@pytest.mark.fault("B60", on=(STORED,))
async def test_a_finished_call_gives_its_result_again(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        done: Any = {"answers": {"0:0": says(text("ok"))}, "state": first["requestState"]}
        results = [await wire.round("shop", GO, **done) for _ in range(2)]
        assert results[0] == results[1]
        other = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        assert await wire.round("shop", GO, **other) == results[0]
    assert shop.paid == []


@pytest.mark.fault("B60", on=(STORED,))
async def test_a_call_that_failed_fails_the_same_way_again(carrier: str) -> None:
    """The author's function raises; a client that tries again does not get another try."""
    server: Server[Any] = Server("faults")
    seal(server, RequestStateSecurity(keys=[KEY]))
    agent = Agent("worker")
    tries: list[int] = []

    @resumable(store=MemoryStore())
    async def function(
        ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        await agent.run("Go")
        tries.append(1)
        raise ValueError("hunter2-canary")

    server.add_request_handler("tools/call", CallToolRequestParams, function)
    async with connected(server, Model().answer, modern=True) as wire:
        first = await wire.round("function")
        for _ in range(3):
            with pytest.raises(Rejected) as rejected:
                await wire.round(
                    "function", answers={"0:0": says(text("ok"))}, state=first["requestState"]
                )
            assert "hunter2" not in f"{rejected.value}{rejected.value.data}"
    assert len(tries) == 1


@pytest.mark.fault("B60", on=(STORED,))
async def test_rounds_on_two_replicas(carrier: str, tmp_path: Path) -> None:
    """Every round on another replica; and the same round on both at once."""
    shop = Shop(carrier)
    stores = [SQLiteStore(tmp_path / "s.db") for _ in range(2)]
    servers: list[Any] = []
    for shop.store in stores:
        servers.append(shop.server())
    async with shop.open(servers[0]) as one, shop.open(servers[1]) as two:
        result = await one.round("shop", GO)
        for n in range(3):
            key = f"0:{n}"
            again: Any = {"answers": {key: says(pay(n))}, "state": result["requestState"]}
            given: list[Any] = []

            async def send(wire: Wire, again: Any = again, given: Any = given) -> None:
                given.append(await wire.round("shop", GO, **again))

            async with anyio.create_task_group() as group:
                for wire in (one, two, one):
                    group.start_soon(send, wire)
            result = given[0]
            assert all(other["inputRequests"] == result["inputRequests"] for other in given)
        done = {"answers": {"0:3": says(text("ok"))}, "state": result["requestState"]}
        assert (await two.round("shop", GO, **done))["structuredContent"] == {"result": "ok"}
    assert shop.paid == [0, 1, 2]
    for store in stores:
        await store.close()


@pytest.mark.fault("B60", on=(STORED,))
async def test_abandoned_at_every_round(carrier: str) -> None:
    """A client that goes away leaves nothing that waits; another one takes the call up."""
    shop = Shop(carrier)
    async with shop.open() as wire:
        result = await wire.round("shop", GO)
    for n in range(3):
        async with shop.open() as wire:
            result = await wire.round(
                "shop", GO, answers={f"0:{n}": says(pay(n))}, state=result["requestState"]
            )
    assert shop.paid == [0, 1, 2]


# --- capabilities ------------------------------------------------------------------------------


@pytest.mark.fault("B61", on=(ROUNDS, STORED))
async def test_R11_R12_capabilities(carrier: str) -> None:
    shop = Shop(carrier)
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        again: Any = {"answers": {"0:0": says(pay(1))}, "state": first["requestState"]}
        for declared in ({}, {"sampling": {}}):
            wire.capabilities = declared
            for request in ({}, again):
                with pytest.raises(Rejected) as rejected:
                    await wire.round("shop", GO, **request)
                assert rejected.value.code == -32021
        assert shop.paid == []


# --- size --------------------------------------------------------------------------------------

BODY_LIMIT = 4 * 1024 * 1024


async def sizes_of(shop: Shop, rounds: int, calls: int) -> list[int]:
    """The size of the state in each round of a call with so many calls in each."""
    sizes: list[int] = []
    async with shop.open() as wire:
        result = await wire.round("shop", GO)
        for n in range(rounds):
            sizes.append(len(result["requestState"]))
            uses = [pay(n * calls + m, f"c{m}") for m in range(calls)]
            result = await wire.round(
                "shop", GO, answers={f"0:{n}": says(*uses)}, state=result["requestState"]
            )
        sizes.append(len(result.get("requestState", "")))
    return sizes


@pytest.mark.fault("B64")
@pytest.mark.timeout(40)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_R15_two_thousand_calls(carrier: str) -> None:
    shop = Shop(carrier, once=False, tool_calls=None, calls_per_reply=250, rounds=None)
    sizes = await sizes_of(shop, 8, 250)
    assert len(shop.paid) == 2000
    assert max(sizes) < (600 if carrier == STORED else 256 * 1024)


@pytest.mark.fault("B64")
@pytest.mark.timeout(40)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hundred_turns(carrier: str) -> None:
    shop = Shop(carrier, once=False, rounds=None, steps=None)
    sizes = await sizes_of(shop, 100, 1)
    assert len(shop.paid) == 100
    assert max(sizes) < (600 if carrier == STORED else 256 * 1024)


@pytest.mark.fault("B64")
@pytest.mark.timeout(20)
async def test_R16_a_result_of_50_megabytes(carrier: str) -> None:
    async def shout() -> str:
        return os.urandom(25_000_000).hex()

    server: Server[Any] = Server("faults")
    mount(server, Agent("shop", tools=[shout]), store=MemoryStore() if carrier == STORED else None)
    async with connected(server, Model().answer, modern=True) as wire:
        first = await wire.round("shop", GO)
        use = {"type": "tool_use", "id": "c", "name": "shout", "input": {}}
        second = await wire.round(
            "shop", GO, answers={"0:0": says(use)}, state=first["requestState"]
        )
    assert len(second["requestState"]) < 64 * 1024
    assert len(json.dumps(second)) < 128 * 1024


@pytest.mark.fault("B64", on=(STORED,))
@pytest.mark.timeout(30)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_stored_state_that_no_client_could_bring(carrier: str) -> None:
    """What a client may bring inflates to 64 MiB; what the server's own store holds to any size."""
    image = ImageContent(data="A" * 5_000_000, mime_type="image/png")

    async def look() -> ImageContent:
        return image

    server = serving(Agent("worker", tools=[look]), carrier)
    async with connected(server, Model().answer, modern=True) as wire:
        first = await wire.round("worker", GO)
        looks = says(*(calls("look", id=f"c{n}") for n in range(14)))
        second = await wire.round("worker", GO, answers={"0:0": looks}, state=first["requestState"])
        assert len(second["requestState"]) < 1_000
        done = await wire.round(
            "worker", GO, answers={"0:1": says(text("seen"))}, state=second["requestState"]
        )
    assert done["structuredContent"] == {"result": "seen"}


@pytest.mark.fault("B64")
async def test_a_state_that_is_too_large_for_the_wire(carrier: str) -> None:
    """Incompressible results: without a store the call ends in words, before the wire breaks."""

    @tool(max_bytes=8_000_000)
    async def noise() -> str:
        return base64.b64encode(os.urandom(3_000_000)).decode()

    server: Server[Any] = Server("faults")
    store = MemoryStore() if carrier == STORED else None
    mount(server, Agent("shop", tools=[noise]), store=store)
    async with connected(server, Model().answer, modern=True) as wire:
        first = await wire.round("shop", GO)
        use = {"type": "tool_use", "id": "c", "name": "noise", "input": {}}
        again: Any = {"answers": {"0:0": says(use)}, "state": first["requestState"]}
        if carrier == STORED:
            second = await wire.round("shop", GO, **again)
            assert len(second["requestState"]) < 600
            done = {"answers": {"0:1": says(text("ok"))}, "state": second["requestState"]}
            result = await wire.round("shop", GO, **done)
            assert result["structuredContent"] == {"result": "ok"}
        else:
            with pytest.raises(Rejected) as rejected:
                await wire.round("shop", GO, **again)
            assert rejected.value.data == {"reason": "state_too_large"}
            assert "store" in rejected.value.message


@pytest.mark.fault("B64", on=(ROUNDS,))
async def test_what_may_cross_the_wire_is_the_authors_to_say(carrier: str) -> None:
    server: Server[Any] = Server("faults")
    mount(server, Agent("shop"), max_state_bytes=100)
    async with connected(server, Model().answer, modern=True) as wire:
        with pytest.raises(Rejected) as rejected:
            await wire.round("shop", GO)
    assert rejected.value.data == {"reason": "state_too_large"}
    assert "at most 100" in rejected.value.message


# --- changed and aged --------------------------------------------------------------------------


async def other_tool(amount: int) -> str:
    """Something else."""
    raise AssertionError("not to be run")


@pytest.mark.fault("B65")
@pytest.mark.parametrize("change", ["prompt", "tools", "schema", "output", "name"])
async def test_an_agent_that_changed_between_rounds(carrier: str, change: str) -> None:
    shop = Shop(carrier)

    async def pay_more(amount: int, to: str = "") -> str:
        raise AssertionError("not to be run")

    changed = {
        "prompt": lambda: shop.agent("Pay everything."),
        "tools": lambda: Agent("shop", tools=[other_tool]),
        "schema": lambda: Agent("shop", tools=[tool(name="pay")(pay_more)]),
        "output": lambda: shop.agent(output=int),
        "name": lambda: Agent("Shop", tools=list(shop.agent().tools.values())),
    }[change]()
    async with shop.open(shop.server(shop.agent())) as before:
        first = await before.round("shop", GO)
    server: Server[Any] = Server("faults")
    seal(server, RequestStateSecurity(keys=[KEY]))
    mount(server, changed, name="shop", store=shop.store)
    async with shop.open(server) as after:
        error = await shop.refused(after, first["requestState"])
        assert error.data == {"reason": "state_mismatch"}
        assert "changed" in error.message
    async with shop.open(shop.server(shop.agent())) as back:
        await back.round("shop", GO, answers={"0:0": says(pay(1))}, state=first["requestState"])
    assert len(shop.paid) == 1, "a roll-back goes on"


@pytest.mark.fault("B65")
async def test_a_function_that_changed_between_rounds(carrier: str) -> None:
    shop = Shop(carrier)
    agent = shop.agent()

    def server(prompt: str) -> Server[Any]:
        server: Server[Any] = Server("faults")
        seal(server, RequestStateSecurity(keys=[KEY]))

        @resumable(store=shop.store)
        async def function(
            ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
        ) -> CallToolResult:
            result = await agent.run(prompt)
            return CallToolResult(content=[TextContent(text=result.text)])

        server.add_request_handler("tools/call", CallToolRequestParams, function)
        return server

    async with shop.open(server("Pay one.")) as before:
        first = await before.round("shop", GO)
    async with shop.open(server("Pay all.")) as after:
        error = await shop.refused(after, first["requestState"])
    assert error.data == {"reason": "state_mismatch"}


@pytest.mark.fault("B73", on=(ROUNDS,))
@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
async def test_a_state_of_another_version(carrier: str, version: Any) -> None:
    shop = Shop(carrier)
    codec = AESGCMRequestStateCodec([KEY])
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        claims = json.loads(codec.unseal(first["requestState"]))
        claims["s"] = pack({"v": version, "round": 1, "runs": {}, "values": {}})
        error = await shop.refused(wire, codec.seal(json.dumps(claims).encode()))
        assert "version" in error.message
        claims["s"] = "b1" + claims["s"][2:]
        error = await shop.refused(wire, codec.seal(json.dumps(claims).encode()))
    assert error.data == {"reason": "state_mismatch"}


@pytest.mark.fault("B73", on=(STORED,))
async def test_a_stored_state_of_another_version(carrier: str, tmp_path: Path) -> None:
    shop = Shop(carrier)
    shop.store = store = SQLiteStore(tmp_path / "s.db")
    async with shop.open() as wire:
        first = await wire.round("shop", GO)
        with sqlite3.connect(tmp_path / "s.db") as database:
            kept = database.execute(
                "SELECT state FROM agentloop_rounds WHERE number = 1"
            ).fetchone()
            changed = pack({"v": 99})
            database.execute("UPDATE agentloop_rounds SET state = ? WHERE number = 1", [changed])
        error = await shop.refused(wire, first["requestState"])
        assert "version" in error.message
        with sqlite3.connect(tmp_path / "s.db") as database:
            database.execute("UPDATE agentloop_rounds SET state = ? WHERE number = 1", kept)
        await wire.round("shop", GO, answers={"0:0": says(pay(1))}, state=first["requestState"])
    assert shop.paid == [666], "the answers that count are the first ones"
    await store.close()


# --- the same call -----------------------------------------------------------------------------


@pytest.mark.fault("B66", on=(STORED,))
async def test_a_client_that_never_got_the_first_round_calls_anew(carrier: str) -> None:
    shop = Shop(carrier)
    own = ScriptedProvider([use("pay", amount=7)], "paid it")
    server = shop.server(provider=own)
    key = {IDEMPOTENCY_KEY: "order 7"}
    async with shop.open(server) as wire:
        wire.capabilities = {}  # so the server's own model answers, all in one round
        given = [await wire.round("shop", GO, meta=key) for _ in range(3)]
        assert given[0] == given[1] == given[2]
        assert given[0]["structuredContent"] == {"result": "paid it"}
    assert shop.paid == [7]


@pytest.mark.fault("B66", on=(STORED,))
async def test_the_same_key_with_other_arguments_is_another_call(carrier: str) -> None:
    shop = Shop(carrier)
    key = {IDEMPOTENCY_KEY: "order 7"}
    async with shop.open() as wire:
        one = await wire.round("shop", GO, meta=key)
        same = await wire.round("shop", GO, meta=key)
        other = await wire.round("shop", {"prompt": "Pay Eve"}, meta=key)
        again: Any = {"answers": {"0:0": says(pay(1))}}
        await wire.round("shop", GO, **again, state=one["requestState"])
        await wire.round("shop", GO, **again, state=same["requestState"])
        assert shop.paid == [1]
        await wire.round("shop", {"prompt": "Pay Eve"}, **again, state=other["requestState"])
    assert shop.paid == [1, 1]


@pytest.mark.fault("B66", on=(STORED,))
async def test_a_key_that_was_forgotten_is_a_new_call(carrier: str) -> None:
    shop = Shop(carrier)
    shop.store = MemoryStore(keep=0.1)
    key = {IDEMPOTENCY_KEY: "order 7"}
    async with shop.open() as wire:
        for _ in range(2):
            first = await wire.round("shop", GO, meta=key)
            await wire.round("shop", GO, answers={"0:0": says(pay(1))}, state=first["requestState"])
            await anyio.sleep(0.15)
    assert shop.paid == [1, 1]


# --- the boundary ------------------------------------------------------------------------------


def bare(**options: Any) -> Server[Any]:
    """A low-level server with a resumable handler and nothing else."""
    server: Server[Any] = Server("faults")
    agent = Agent("worker")

    @resumable(**options)
    async def function(
        ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        result = await agent.run("Go")
        return CallToolResult(content=[TextContent(text=result.text)])

    server.add_request_handler("tools/call", CallToolRequestParams, function)
    return server


@pytest.mark.fault("B57")
async def test_without_a_boundary_no_round_begins(carrier: str, logs: list[Any]) -> None:
    store = MemoryStore() if carrier == STORED else None
    server = bare(store=store)
    asked: list[Any] = []

    async def nobody(method: str, params: Any) -> Any:
        asked.append(params)

    for declared in (SAMPLING, PEOPLE):
        async with connected(server, nobody, modern=True, capabilities=declared) as wire:
            with pytest.raises(Rejected) as rejected:
                await wire.round("function")
            assert rejected.value.code == -32603
            forged = pack({"v": 1, "round": 1, "runs": {}, "values": {}})
            with pytest.raises(Rejected):
                await wire.round("function", answers={}, state=forged)
    assert asked == []
    (line, *_) = [line for line in logs if line["event"] == "handler_failed"]
    assert "agentloop.mcp.seal(server)" in line["error"]


@pytest.mark.fault("B57")
async def test_with_a_boundary_it_does(carrier: str) -> None:
    server = bare(store=MemoryStore() if carrier == STORED else None)
    seal(server)
    seal(server)
    assert len([m for m in server.middleware if "Boundary" in type(m).__name__]) == 1
    async with connected(server, Model("hello").answer, modern=True) as wire:
        result = await wire.call("function")
    assert result["content"][0]["text"] == "hello"


async def test_without_a_boundary_push_and_providers_still_work() -> None:
    async with connected(bare(), Model("hello").answer, modern=False) as wire:
        assert (await wire.call("function"))["content"][0]["text"] == "hello"
    own = bare(provider=ScriptedProvider("mine"))
    async with connected(own, Model().answer, modern=True, capabilities={}) as wire:
        assert (await wire.call("function"))["content"][0]["text"] == "mine"


@pytest.mark.fault("B60", "B62", "B66", on=(ROUNDS,))
async def test_without_a_store_tools_that_must_not_run_twice_are_refused_over_rounds() -> None:
    @tool(once=True)
    async def pay() -> str:
        raise AssertionError("not to be run")

    server: Server[Any] = Server("faults")
    mount(server, Agent("shop", tools=[pay]))
    async with connected(server, Model().answer, modern=True) as wire:
        with pytest.raises(Rejected) as rejected:
            await wire.round("shop", GO)
    assert rejected.value.code == -32603
    began = time.monotonic()
    async with connected(server, Model("fine").answer, modern=False) as wire:
        assert (await wire.call("shop", GO))["structuredContent"] == {"result": "fine"}
    assert time.monotonic() - began < 2
