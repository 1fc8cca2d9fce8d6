"""Record what a provider answers, and answer from the recording.

A recording is a text file of JSON lines: one that says what it is, then one for each ask, with the
request and the reply, or the error. A request is known again by its canonical JSON: sorted keys,
nothing but what is set, without the protocol's own ``_meta`` (progress tokens and the like). It
holds what was asked and answered and nothing of the provider itself, so no keys.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from mcp_types import CreateMessageRequestParams

from agentloop.answers import error_to_json, message_to_json, read_answer
from agentloop.differences import differences
from agentloop.errors import DefinitionError, ProviderError
from agentloop.log import log
from agentloop.meta import Reply
from agentloop.provider import Provider

VERSION = 1
_HEADER = {"agentloop": "recording", "version": VERSION}


class RecordingError(ProviderError):
    """A recording cannot be written, or has no answer to what it is asked."""

    code = "recording"


class Recorder:
    """Another provider, whose answers are written to a file as they come.

    Errors of the provider are recorded too, and are raised again on replay. Each ask is one line,
    on the disk before the answer is handed on. Asks at the same time are fine; let the agents of
    one recording share one recorder.
    """

    def __init__(self, provider: Provider, file: str | Path) -> None:
        """``file`` is begun anew at the first ask."""
        self._provider = provider
        self._file = Path(file)
        self._begun = False
        self._lock = Lock()

    @property
    def name(self) -> str:
        return self._provider.name

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """The provider's reply. Raises what it raises, and :class:`RecordingError` where nothing
        can be written; that shows before the provider is asked."""
        self._begin()
        asked = _canonical(request)
        try:
            reply = await self._provider.sample(request)
        except ProviderError as error:
            self._write({"request": asked, "error": error_to_json(error)})
            raise
        self._write({"request": asked, "reply": message_to_json(reply)})
        return reply

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._write(_HEADER, mode="w")

    def _write(self, entry: dict[str, Any], *, mode: str = "a") -> None:
        try:
            with self._lock, self._file.open(mode, encoding="utf-8", newline="\n") as out:
                out.write(_line(entry) + "\n")
        except OSError as error:
            raise RecordingError(f"{self._file} cannot be written: {error}") from error


class Replayer:
    """Answers what a recording answered to the same request, and knows nothing else.

    A request that was recorded several times is answered in the order of the recording. As a
    context manager, or by :meth:`finish`, it checks that everything recorded was asked for.
    """

    def __init__(self, file: str | Path, *, repeat: bool = False) -> None:
        """Reads ``file``; ``repeat`` begins the answers to a request again when they are through.

        Raises :class:`DefinitionError` where there is no recording, or a damaged one. A last line
        that was cut off, as by a killed process, is left out with a warning.
        """
        self._file = Path(file)
        self._repeat = repeat
        self._requests: dict[str, dict[str, Any]] = {}
        self._entries: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._next: dict[str, int] = defaultdict(int)
        for entry in _read(self._file):
            key = _line(entry["request"])
            self._requests[key] = entry["request"]
            self._entries[key].append(entry)

    @classmethod
    def from_spec(cls, rest: str) -> Replayer:
        """From ``replay:FILE``."""
        return cls(rest)

    @property
    def name(self) -> str:
        return f"replay:{self._file.name}"

    @property
    def remaining(self) -> int:
        """How many recorded answers were not asked for yet."""
        return sum(max(len(e) - self._next[key], 0) for key, e in self._entries.items())

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """The recorded answer. Raises the recorded error, or :class:`RecordingError`."""
        asked = _canonical(request)
        key = _line(asked)
        entries = self._entries.get(key)
        if entries is None:
            raise RecordingError(self._miss(asked))
        turn = self._next[key]
        self._next[key] += 1
        if turn >= len(entries) and not self._repeat:
            raise RecordingError(
                f"{self._file} answers this request {len(entries)} times, and it is asked once more"
            )
        answer = read_answer(entries[turn % len(entries)])  # a new one each time: nobody shares it
        if isinstance(answer, ProviderError):
            raise answer
        return answer

    def finish(self) -> None:
        """Check that every recorded answer was asked for. Raises :class:`RecordingError`."""
        if self.remaining:
            raise RecordingError(f"{self.remaining} answers in {self._file} were never asked for")

    def __enter__(self) -> Replayer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.finish()

    def _miss(self, asked: dict[str, Any]) -> str:
        """How ``asked`` differs from the request that is nearest to it."""
        recorded = self._requests.values()
        if not recorded:
            return f"{self._file} holds no answers"
        told = min((differences(request, asked) for request in recorded), key=len)
        lines = "".join(f"\n  request{line}" for line in told[:_SHOWN])
        more = len(told) - _SHOWN
        lines += f"\n  and {more} more differences" if more > 0 else ""
        return f"{self._file} has no answer to this request; from the nearest it differs in{lines}"


_SHOWN = 8
"""Differences that an error tells; the nearest request is the one with the fewest of all."""


# --- lines -------------------------------------------------------------------------------------


def _canonical(request: CreateMessageRequestParams) -> dict[str, Any]:
    asked = message_to_json(request)
    asked.pop("_meta", None)
    return asked


def _line(value: object) -> str:
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=repr
    )


def _read(file: Path) -> Iterator[dict[str, Any]]:
    """The entries of a recording, each with a ``request`` and a ``reply`` or an ``error``."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"{file} cannot be read as a recording: {error}") from error
    _check_header(file, lines[0])
    for number, line in enumerate(lines[1:], 2):
        if not line:
            continue
        try:
            entry = json.loads(line)
            read_answer(entry)
            yield entry | {"request": entry["request"]}
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if number == len(lines):  # every whole line ends with a line break
                log().warning("recording_cut_off", file=str(file), line=number)
                return
            raise DefinitionError(f"{file}, line {number}: no recorded ask: {error}") from error


def _check_header(file: Path, line: str) -> None:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    if header != _HEADER:
        raise DefinitionError(
            f"{file} is no recording of version {VERSION}: its first line is not {_line(_HEADER)}"
        )
