"""Results on the disk: a folder that an evaluation can go on from after any interruption.

    results.jsonl            a header for each sitting, then one line for each trial that ended
    transcripts/NAME.jsonl   what happened in the runs of one candidate, as it happened
    transcripts/NAME/        a page for each of these runs, once there is a report
    report.html              the report

A trial's line is written when everything of the trial is known, and its transcript is written by
then. What was cut off, as by a killed process, is passed over when the evaluation goes on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from agentloop.errors import AgentLoopError, DefinitionError, StateError
from agentloop.evals.case import file_name
from agentloop.evals.trial import Key, Trial
from agentloop.text import clean_json
from agentloop.transcript_file import TranscriptFile

FILE = "results.jsonl"
TRANSCRIPTS = "transcripts"
VERSION = 1

try:
    import fcntl
except ImportError:  # not on every system
    fcntl = None


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a sitting set out to do."""

    agent: str
    digest: str | None
    """Of the agent's definition, where all cases have the same agent."""
    cases: list[str]
    candidates: list[str]
    scorers: list[str]
    repeat: int
    at: float
    by: str

    @property
    def wanted(self) -> int:
        """How many trials there should be."""
        return len(self.cases) * len(self.candidates) * self.repeat

    def to_json(self) -> dict[str, Any]:
        return {"agentloop": "evaluation", "version": VERSION, **self.__dict__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Header:
        if data.get("version") != VERSION:
            raise ValueError(f"it is of version {data.get('version')!r}, not {VERSION}")
        return cls(**{k: v for k, v in data.items() if k not in ("agentloop", "version")})


def read(folder: str | Path) -> tuple[list[Header], dict[Key, Trial]]:
    """The headers and the trials in a folder of results, each trial once, as it was last.

    Raises :class:`DefinitionError` where there are none, or damaged ones.
    """
    file = _file(folder)
    headers: list[Header] = []
    trials: dict[Key, Trial] = {}
    for number, line in enumerate(_lines(file), 1):
        try:
            data = cast("dict[str, Any]", json.loads(line))
            if "agentloop" in data:
                headers.append(Header.from_json(data))
            else:
                trial = Trial.from_json(data)
                trials.pop(trial.key, None)
                trials[trial.key] = trial
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DefinitionError(f"{file}, line {number}: no result: {error}") from error
    if not headers:
        raise DefinitionError(f"{file} holds no results of an evaluation")
    return headers, trials


class Results:
    """The results of an evaluation, kept as they come, on the disk if there is a folder."""

    def __init__(self, folder: str | Path | None) -> None:
        """Reads what is there from earlier sittings. Raises :class:`DefinitionError` where another
        process writes there now, or the folder cannot be used."""
        self.trials: dict[Key, Trial] = {}
        self.headers: list[Header] = []
        self.folder = Path(folder) if folder is not None else None
        self._transcripts: dict[str, TranscriptFile] = {}
        self._out: Any = None
        if self.folder is None:
            return
        try:
            (self.folder / TRANSCRIPTS).mkdir(parents=True, exist_ok=True)
            self._out = (self.folder / FILE).open("a+b")
        except OSError as error:
            raise DefinitionError(f"results cannot be kept in {self.folder}: {error}") from error
        try:
            self._lock()
            self._cut_torn_line()
            if self._out.tell():
                self.headers, self.trials = read(self.folder)
        except BaseException:
            self._out.close()
            raise

    def begin(self, header: Header) -> None:
        """Begin a sitting. Raises :class:`StateError` where the results that are there already are
        of another agent or other scorers."""
        if self.headers:
            before = self.headers[-1]
            for what in ("agent", "digest", "scorers"):
                then, now = getattr(before, what), getattr(header, what)
                if then != now:
                    told = "definition" if what == "digest" else what
                    raise StateError(
                        f"the results in {self.folder} are of another {told} ({then}) than now "
                        f"({now}): keep these results elsewhere"
                    )
        self.headers.append(header)
        self._write(header.to_json())

    def add(self, trial: Trial) -> None:
        """Keep the result of a trial; it replaces one that failed."""
        self._write(trial.to_json())
        self.trials.pop(trial.key, None)
        self.trials[trial.key] = trial

    def transcript(self, candidate: str) -> TranscriptFile | None:
        """The file that takes what happens in the runs of a candidate; None without a folder."""
        if self.folder is None:
            return None
        if candidate not in self._transcripts:
            file = self.folder / transcript_name(candidate)
            _end_line(file)
            self._transcripts[candidate] = TranscriptFile(file, append=True)
        return self._transcripts[candidate]

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for transcript in self._transcripts.values():
            transcript.close()
        if self._out is not None:
            self._out.close()

    def _write(self, entry: dict[str, Any]) -> None:
        if self._out is None:
            return
        try:
            line = _line(entry)
        except ValueError:  # what is no UTF-8 or no JSON: rare, and dear to look for
            line = _line(clean_json(entry))
        try:
            self._out.write(line)
            self._out.flush()
        except OSError as error:
            raise AgentLoopError(f"results cannot be kept in {self.folder}: {error}") from error

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DefinitionError(f"another process is evaluating into {self.folder}") from error

    def _cut_torn_line(self) -> None:
        self._out.seek(0)
        whole = self._out.read().rfind(b"\n") + 1
        self._out.truncate(whole)
        self._out.seek(whole)


def transcript_name(candidate: str) -> str:
    """The file with a candidate's transcripts, from the folder of the results."""
    return f"{TRANSCRIPTS}/{file_name(candidate)}.jsonl"


def _end_line(file: Path) -> None:
    """End the last line of a file, where it was cut off."""
    with suppress(FileNotFoundError), file.open("r+b") as out:
        if out.seek(0, os.SEEK_END):
            out.seek(-1, os.SEEK_END)
            if out.read(1) != b"\n":
                out.write(b"\n")


def _file(folder: str | Path) -> Path:
    path = Path(folder)
    return path / FILE if path.is_dir() else path


def _lines(file: Path) -> Iterator[str]:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise DefinitionError(f"{file} cannot be read: {error}") from error
    for line in text[: text.rfind(b"\n") + 1].split(b"\n")[:-1]:
        yield line.decode(errors="replace")


def _line(entry: dict[str, Any]) -> bytes:
    text = json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode() + b"\n"
