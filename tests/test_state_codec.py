"""The seal of agentloop's own: as strong as the SDK's, and smaller."""

from __future__ import annotations

import json
import random
import string
import zlib

import pytest
from mcp import MCPError
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer
from mcp.server.request_state import (
    AESGCMRequestStateCodec,
    InvalidRequestState,
    RequestStateBoundary,
    RequestStateSecurity,
)
from mcp_types import CallToolResult, InputRequiredResult

from agentloop import Agent
from agentloop.mcp import StateCodec, mount, seal
from agentloop.mcp.deflate import MAX_BYTES
from agentloop.mcp.state import pack
from agentloop_providers import ScriptedProvider
from tests.carriers.driver import answers_to, call_once

KEY, OTHER = b"k" * 32, b"o" * 32
GO = {"prompt": "go"}


@pytest.mark.parametrize(
    "payload", [b"", b"{}", "Ünïcödé 🙂".encode() * 500, bytes(range(256)) * 9]
)
def test_what_is_sealed_can_be_unsealed(payload: bytes) -> None:
    """By the same codec, and by another one with the same key."""
    codec = StateCodec([KEY])
    token = codec.seal(payload)

    assert codec.unseal(token) == payload
    assert StateCodec([KEY]).unseal(token) == payload
    assert token.isascii()


@pytest.mark.parametrize("at", [0, 1, 3, 8, 40, -1])
def test_a_token_with_another_letter(at: int) -> None:
    """It is refused, with the error that the SDK wants of a codec."""
    codec = StateCodec([KEY])
    letters = list(codec.seal(b"something to seal, long enough to be touched"))
    letters[at] = "A" if letters[at] != "A" else "B"
    with pytest.raises(InvalidRequestState):
        codec.unseal("".join(letters))


@pytest.mark.parametrize("part", [slice(0), slice(30), slice(-1), slice(1, None)])
def test_a_part_of_a_token(part: slice) -> None:
    """It is refused as well, as is what is no token at all."""
    codec = StateCodec([KEY])
    token = codec.seal(b"something to seal")
    for other in (token[part], token[part] + "!", "\N{SNOWMAN}"):
        with pytest.raises(InvalidRequestState):
            codec.unseal(other)


def test_a_token_of_another_key() -> None:
    """Without keys, each codec has one of its own."""
    token = StateCodec([KEY]).seal(b"{}")
    for codec in (StateCodec([OTHER]), StateCodec()):
        with pytest.raises(InvalidRequestState):
            codec.unseal(token)


def test_keys_can_be_changed() -> None:
    """The first one seals, and each one unseals; no keys at all are an error, not a new key."""
    old, new = StateCodec([KEY]), StateCodec([OTHER, KEY])

    assert new.unseal(old.seal(b"{}")) == b"{}"
    with pytest.raises(InvalidRequestState):
        old.unseal(new.seal(b"{}"))
    with pytest.raises(ValueError, match="at least one key"):
        StateCodec([])


def test_a_token_of_the_sdks_own_codec() -> None:
    """It is refused, although the key is the same: nothing in it was deflated."""
    with pytest.raises(InvalidRequestState):
        StateCodec([KEY]).unseal(AESGCMRequestStateCodec([KEY]).seal(b'{"v":1}'))


def test_a_payload_that_inflates_without_end() -> None:
    """What is unsealed is bounded, even from somebody who has the key."""
    deflating = zlib.compressobj(1, wbits=-15)
    bomb = deflating.compress(b" " * (MAX_BYTES + 1)) + deflating.flush()
    with pytest.raises(InvalidRequestState):
        StateCodec([KEY]).unseal(AESGCMRequestStateCodec([KEY]).seal(bomb))


def test_a_state_takes_a_quarter_less() -> None:
    """Also one of text in which nothing repeats itself."""
    words = "".join(random.Random(7).choices(string.ascii_letters, k=10_000))
    payload = json.dumps({"s": pack({"runs": {"0": words}})}).encode()

    assert len(StateCodec().seal(payload)) < 0.77 * len(
        AESGCMRequestStateCodec([KEY]).seal(payload)
    )


def hosting(key: bytes) -> MCPServer:
    security = RequestStateSecurity(codec=StateCodec([key]))
    server = MCPServer("state", log_level="CRITICAL", request_state_security=security)
    mount(server, Agent("worker"))
    return server


async def test_a_call_goes_on_in_another_process_with_the_key() -> None:
    """And in none without it; to the client the state says nothing."""
    asked = await call_once(hosting(KEY), "worker", GO)
    assert isinstance(asked, InputRequiredResult)
    assert asked.request_state
    answers = await answers_to(asked, ScriptedProvider("fine"))

    result = await call_once(hosting(KEY), "worker", GO, answers=answers, state=asked.request_state)
    assert isinstance(result, CallToolResult)
    assert result.structured_content == {"result": "fine"}

    with pytest.raises(MCPError) as refused:
        await call_once(hosting(OTHER), "worker", GO, answers=answers, state=asked.request_state)
    assert refused.value.data == {"reason": "invalid_request_state"}


async def test_a_call_with_other_arguments() -> None:
    """What the SDK binds a state to, it stays bound to."""
    asked = await call_once(hosting(KEY), "worker", GO)
    assert isinstance(asked, InputRequiredResult)
    answers = await answers_to(asked, ScriptedProvider("fine"))

    with pytest.raises(MCPError) as refused:
        await call_once(
            hosting(KEY), "worker", {"prompt": "stop"}, answers=answers, state=asked.request_state
        )
    assert refused.value.data == {"reason": "invalid_request_state"}


async def test_a_low_level_server_is_sealed_so() -> None:
    """Where nobody says how, ``seal`` takes this codec; a boundary that is there stays."""
    server = Server("low")
    seal(server)
    seal(server, RequestStateSecurity(keys=[KEY]))
    boundaries = [item for item in server.middleware if isinstance(item, RequestStateBoundary)]
    assert len(boundaries) == 1

    mount(server, Agent("worker"))
    asked = await call_once(server, "worker", GO)
    assert isinstance(asked, InputRequiredResult)
    answers = await answers_to(asked, ScriptedProvider("fine"))
    result = await call_once(server, "worker", GO, answers=answers, state=asked.request_state)
    assert isinstance(result, CallToolResult)
