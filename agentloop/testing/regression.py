"""Regression tests from recordings: what an agent did once, it still does, without a model.

``agentloop eval FILE --record FOLDER`` records the cases of an evaluation, and this is the test::

    @pytest.mark.parametrize("recording", recordings("tests/recordings"), ids=str)
    async def test_the_agent_does_what_was_recorded(recording):
        await recording.check(agent)

A recording is two files: ``NAME.jsonl`` holds what the model was asked and answered, ``NAME.json``
the transcript that came of it, for people to read and for versions to be compared.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from agentloop.agent import Agent
from agentloop.differences import differences
from agentloop.errors import DefinitionError
from agentloop.prompt import Prompt
from agentloop.provider import Provider
from agentloop.replay import Recorder, RecordingError, Replayer
from agentloop.result import RunResult
from agentloop.text import clean_json

_PROMPT: TypeAdapter[Prompt] = TypeAdapter(Prompt)
_SHOWN = 10
"""Differences that an error tells."""


class TranscriptChanged(AssertionError):
    """An agent did something else than was recorded; the message says what."""


class Recording:
    """A run of an agent that was recorded. Its name is that of its files."""

    def __init__(self, file: str | Path) -> None:
        """``file`` is the transcript, ``NAME.json``. Raises :class:`DefinitionError` where it is
        none."""
        self.file = Path(file)
        try:
            self._recorded = cast("dict[str, Any]", json.loads(self.file.read_text("utf-8")))
            self.prompt = _PROMPT.validate_python(self._recorded["prompt"])
            self.expected = _outcome(self._recorded)
        except (OSError, ValueError, TypeError, LookupError, ValidationError) as error:
            raise DefinitionError(f"{file} is no recorded transcript: {error}") from error

    @property
    def made_by(self) -> str | None:
        """What was evaluated when it was recorded, as the command line took it."""
        return self._recorded.get("evaluation")

    async def check(self, agent: Agent[Any]) -> RunResult[Any]:
        """Run ``agent`` on the recorded prompt with the recorded answers, and give the result.

        Raises :class:`TranscriptChanged` where it asks the model anything else, or the transcript
        or its end differs in any way.
        """
        replayer = Replayer(self.file.with_suffix(".jsonl"))
        result = await agent.run(self.prompt, provider=replayer)
        if result.error and result.error.startswith(f"{RecordingError.code}: "):
            raise TranscriptChanged(f"{self}: {result.error}")
        told = differences(self.expected, _outcome(_to_json(result)))
        lines = [line.removeprefix(".").replace(", asked ", ", now ", 1) for line in told]
        if replayer.remaining:
            lines.append(f"{replayer.remaining} of the recorded answers were never asked for")
        if lines:
            more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
            raise TranscriptChanged("\n  ".join([f"{self} changed:", *lines[:_SHOWN], *more]))
        return result

    def __str__(self) -> str:
        return self.file.stem

    def __repr__(self) -> str:
        return f"Recording({str(self.file)!r})"


def recordings(folder: str | Path) -> list[Recording]:
    """The recordings in ``folder``, by name. Raises :class:`DefinitionError` where there are none:
    a test of nothing would pass for ever."""
    found = sorted(Path(folder).glob("*.json"))
    if not found:
        raise DefinitionError(f"there are no recordings in {folder}")
    return [Recording(file) for file in found]


async def record(
    agent: Agent[Any],
    prompt: Prompt,
    *,
    provider: Provider,
    file: str | Path,
    evaluation: str | None = None,
) -> RunResult[Any]:
    """Run ``agent`` on ``prompt``, and write down what the model answered and what came of it.

    ``file`` is ``NAME.json``; ``evaluation`` says how the command line calls what is recorded.
    Raises ``OSError`` where it cannot be written.
    """
    target = Path(file)
    target.parent.mkdir(parents=True, exist_ok=True)
    result = await agent.run(prompt, provider=Recorder(provider, target.with_suffix(".jsonl")))
    data: dict[str, Any] = {"agentloop": "recorded transcript", "version": 1}
    if evaluation is not None:
        data["evaluation"] = evaluation
    data["prompt"] = _PROMPT.dump_python(prompt, mode="json", by_alias=True, exclude_none=True)
    _write(target, data | _outcome(_to_json(result)))
    return result


def _write(file: Path, data: dict[str, Any]) -> None:
    text = json.dumps(data, ensure_ascii=False, indent=1)
    file.write_text(text + "\n", encoding="utf-8", newline="\n")


def _to_json(result: RunResult[Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", clean_json(result.to_json()))


def _outcome(data: dict[str, Any]) -> dict[str, Any]:
    """What must not change."""
    return {name: data[name] for name in ("stop", "error", "output", "messages")}
