"""What a run gave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from mcp_types import SamplingMessage

from agentloop.errors import RunStopped
from agentloop.journal import Journal
from agentloop.run import Run, Stop
from agentloop.transcript_file import save
from agentloop.usage import Usage

OutputT = TypeVar("OutputT")


class RunResult(Generic[OutputT]):
    """What a run gave: an answer or not, and everything that happened, whatever the stop."""

    def __init__(
        self,
        run: Run,
        journal: Journal | None = None,
        key: str = "0",
        handle: str | None = None,
    ) -> None:
        """``journal`` has seen what happened in the run, which was at ``key``."""
        self.run = run
        self._journal = journal
        self._key = key
        self.handle = handle
        """For ``agent.run(..., resume=handle)`` in a later call, where the run ended on a limit in
        a served call with a store; else None."""

    @property
    def output(self) -> OutputT:
        """The answer: text, or an instance of the agent's output type.

        Raises :class:`RunStopped` where the agent has an output type and the run ended without an
        answer of it. A run that answers in words always has an output, if only an empty one.
        """
        output = self.run.definition.output
        if output is None:
            return cast("OutputT", self.text)
        if self.run.answer is None:
            raise RunStopped(f"{self.story()}: there is no {_name_of(output.type)}", self)
        return output.revive(self.run.answer[0])

    @property
    def text(self) -> str:
        """The text of the model's last message."""
        return self.run.text

    @property
    def stop(self) -> Stop:
        """How the run ended."""
        assert self.run.stop is not None
        return self.run.stop

    @property
    def error(self) -> str | None:
        """What failed, where the stop is ``failed`` or ``denied``; begins with a stable code."""
        return self.run.error

    @property
    def messages(self) -> Sequence[SamplingMessage]:
        """The whole transcript; every tool use in it has its result."""
        return self.run.messages

    @property
    def usage(self) -> Usage:
        """What the run used, the runs inside of it included."""
        return self.run.usage

    @property
    def steps(self) -> int:
        """How often the model was asked."""
        return self.run.steps

    def raise_for_stop(self) -> RunResult[OutputT]:
        """This result, if the run is done. Raises :class:`RunStopped` for any other stop."""
        if self.stop is not Stop.DONE:
            raise RunStopped(self.story(), self)
        return self

    def to_json(self) -> dict[str, Any]:
        """The result as JSON, as ``agentloop run --json`` prints it."""
        run = self.run
        answer = self.text if run.definition.output is None else (run.answer or (None,))[0]
        return {
            "agent": run.definition.name,
            "output": answer,
            "text": run.text,
            "stop": str(self.stop),
            "error": run.error,
            "steps": run.steps,
            "tool_calls": run.tool_calls,
            "seconds": round(run.seconds, 3),
            "usage": {"total_tokens": run.usage.total_tokens, **run.usage.to_json()},
            "run_id": run.id,
            **({"handle": self.handle} if self.handle else {}),
            "messages": run.messages.to_json(),
        }

    def save(self, file: str | Path) -> None:
        """Write the transcript to ``file``, for ``agentloop show`` and programs to read.

        Messages, usage and the stop, and when each ask and tool call began and ended, runs inside
        of this one included. Of a run that was resumed, the times are those since then.
        """
        moments = self._journal.about(self._key) if self._journal else []
        save(file, self.run, moments, key=self._key)

    def story(self) -> str:
        """How the run went, in one line."""
        run = self.run
        after = f"after {_count(run.steps, 'step')} and {_count(run.tool_calls, 'tool call')}"
        error = f" ({run.error})" if run.error else ""
        return f"agent {run.definition.name!r} stopped with {str(run.stop)!r} {after}{error}"

    def __repr__(self) -> str:
        return f"RunResult({self.story()})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _name_of(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_))
