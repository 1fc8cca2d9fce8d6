"""The agent of these tests, its model and its tools, as every process of a test makes them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mcp_types import CreateMessageRequestParams, CreateMessageResultWithTools, TextContent

from agentloop import Agent, idempotency_key, tool
from agentloop.errors import NotDone
from agentloop.tools import Tool
from agentloop_providers.scripted import use

TURNS = 3
EVENTS = 2 * (TURNS + 1) + 2 * TURNS * 3
"""Before and after each ask and each effect of one undisturbed run."""


class Diary:
    """What happened, in a file that outlives its writers, each line on the disk when it is told."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.kill_at: int | None = None
        """After how many more entries this process dies."""

    def write(self, *words: str) -> None:
        line = " ".join(words) + "\n"
        handle = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, line.encode())
        os.fsync(handle)
        os.close(handle)

    def event(self) -> None:
        if self.kill_at is not None:
            self.kill_at -= 1
            if self.kill_at == 0:
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)

    def lines(self) -> list[str]:
        return self._file.read_text().splitlines() if self._file.exists() else []


class Model:
    """Calls each of three tools in each of three turns, then says that it is done."""

    name = "model"

    def __init__(self, diary: Diary) -> None:
        self._diary = diary

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        turn = sum(message.role == "assistant" for message in request.messages)
        self._diary.event()
        self._diary.write("ask", _prompt(request), str(turn))
        calls = [
            use("pay", id=f"{turn}a", amount=turn),
            use("book", id=f"{turn}b", seat=turn),
            use("send", id=f"{turn}c", text=f"letter {turn}"),
        ]
        self._diary.event()
        return CreateMessageResultWithTools(
            role="assistant",
            content=calls if turn < TURNS else [TextContent(text="all done")],
            model="model",
            stop_reason="toolUse" if turn < TURNS else "endTurn",
        )


def _prompt(request: CreateMessageRequestParams) -> str:
    block: Any = request.messages[0].content_as_list[0]
    return block.text


def tools(diary: Diary, wait: Callable[[int], None] = lambda turn: None) -> list[Tool]:
    def effect(name: str) -> None:
        diary.event()
        diary.write(name, idempotency_key())
        diary.event()

    @tool(once=True)
    def pay(amount: int) -> str:
        """Pay."""
        effect("pay")
        wait(amount)
        return f"paid {amount}"

    @tool(idempotent=True)
    def book(seat: int) -> str:
        """Book a seat."""
        effect("book")
        return f"booked {seat}"

    def was_sent(key: str, text: str) -> str:
        if f"send {key}" not in diary.lines():
            raise NotDone
        return f"sent {text}"

    @tool(reconcile=was_sent)
    async def send(text: str) -> str:
        """Send a letter."""
        effect("send")
        return f"sent {text}"

    return [pay, book, send]


class NestedModel(Model):
    """Asks two agents at once, each of which calls two tools; then says that it is done."""

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        turn = sum(message.role == "assistant" for message in request.messages)
        self._diary.event()
        self._diary.write("ask", request.system_prompt or "", _prompt(request), str(turn))
        calls = [use("helper", id=f"h{n}", prompt=f"help {n}") for n in range(2)]
        if request.system_prompt == "Help.":
            calls = [use("pay", id="0a", amount=0), use("book", id="0b", seat=0)]
        self._diary.event()
        return CreateMessageResultWithTools(
            role="assistant",
            content=calls if turn == 0 else [TextContent(text="all done")],
            model="model",
        )


NESTED_EVENTS = 4 + 2 * (4 + 4)


def boss(diary: Diary) -> Agent[str]:
    helper = Agent("helper", "Help.", tools=tools(diary))
    return Agent("boss", "Have it done.", tools=[helper.as_tool()])


def clerk(diary: Diary, **options: Any) -> Agent[str]:
    return Agent("clerk", "Do what is asked.", tools=tools(diary, **options))
