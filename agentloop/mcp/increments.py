"""What changed in a call since it was last written down, so that a step's cost does not grow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mcp_types import SamplingMessage
from pydantic_core import to_json

from agentloop.errors import StateError
from agentloop.run import Run


class Increments:
    """Knows what of runs and values is written down already."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._values: set[str] = set()

    def take(
        self,
        runs: Mapping[str, Run],
        values: Mapping[str, Any],
        write: Callable[[SamplingMessage], dict[str, Any]],
    ) -> str | None:
        """What is new in ``runs`` and ``values``, as JSON text; None where nothing is."""
        changed = {key: run for key, run in runs.items() if run is not self._runs.get(key)}
        added = {key: value for key, value in values.items() if key not in self._values}
        if not changed and not added:
            return None
        entry: dict[str, Any] = {"runs": {}, "values": added}
        for key, run in changed.items():
            since = self._known(key, run)
            entry["runs"][key] = {**run.to_json(write, since=since), "since": since}
        self._runs.update(changed)
        self._values.update(added)
        return to_json(entry).decode()

    def _known(self, key: str, run: Run) -> int:
        """How many of the run's messages are written down as they are."""
        if (before := self._runs.get(key)) is None:
            return 0
        number = min(len(before.messages), len(run.messages))
        while number and before.messages[number - 1] is not run.messages[number - 1]:
            number -= 1
        return number


def amend(saved: dict[str, Any], entries: Iterable[str]) -> dict[str, Any]:
    """``saved``, the state of a call, with what :class:`Increments` gave since, in that order.

    Raises :class:`StateError` for entries that do not fit.
    """
    try:
        for entry in map(json.loads, entries):
            saved.setdefault("values", {}).update(entry["values"])
            runs: dict[str, Any] = saved.setdefault("runs", {})
            for key, run in entry["runs"].items():
                messages: list[Any] = runs[key]["messages"] if key in runs else []
                del messages[run.pop("since") :]
                messages += run["messages"]
                runs[key] = {**run, "messages": messages}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise StateError("the state is damaged: what was written since does not fit") from error
    return saved
