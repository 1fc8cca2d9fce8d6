"""Values that must not be seen: keys, passwords, tokens.

    keep_secret(os.environ["BANK_TOKEN"])
    keep_secret(os.environ["BANK_PIN"], from_model=True)

They are taken out of everything that this library logs and traces, also where content is logged,
and of the errors with which runs end; and, where the author says so, out of the results of tools
before a model sees them.
"""

from __future__ import annotations

import json
import re
from threading import Lock
from typing import Any, TypeVar, cast
from urllib.parse import quote, quote_plus

from agentloop.errors import DefinitionError

HIDDEN = "[secret]"
"""Stands where a secret stood."""

SHORTEST = 6
"""Characters of a secret; a shorter one would stand in ordinary words too."""

T = TypeVar("T")


class _Secrets:
    """The secrets of this process. What is asked of it is one look where there are none."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[str, bool] = {}
        """Whether it is kept from the model, by secret."""
        self.all: re.Pattern[str] | None = None
        self.from_model: re.Pattern[str] | None = None

    def keep(self, values: tuple[str, ...], from_model: bool) -> None:
        with self._lock:
            for value in values:
                self._kept[value] = from_model or self._kept.get(value, False)
            self._compile()

    def forget(self, values: tuple[str, ...]) -> None:
        with self._lock:
            for value in values:
                self._kept.pop(value, None)
            self._compile()

    def _compile(self) -> None:
        self.all = _pattern(list(self._kept))
        self.from_model = _pattern([value for value, hidden in self._kept.items() if hidden])


def _pattern(values: list[str]) -> re.Pattern[str] | None:
    written = {form for value in values for form in _forms(value)}
    # The longest first: one secret may begin another.
    found = sorted(written, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, found))) if found else None


def _forms(value: str) -> set[str]:
    """``value`` as texts hold it: plain, in JSON, in a URL, in a ``repr``."""
    in_json = (json.dumps(value, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    in_url = (quote(value), quote(value, safe=""), quote_plus(value))
    return {value, *in_json, *in_url, repr(value)[1:-1]}


_SECRETS = _Secrets()


def keep_secret(*values: str, from_model: bool = False) -> None:
    """Keep ``values`` out of logs, spans and errors, for as long as this process lives.

    With ``from_model`` they are taken out of the results of tools too, before a model or a
    transcript gets them. Raises :class:`DefinitionError` for a value that is too short to be told
    from ordinary words.
    """
    for value in values:
        if not isinstance(value, str) or len(value) < SHORTEST:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise DefinitionError(f"keep_secret: a secret is a text of at least {SHORTEST} letters")
    _SECRETS.keep(values, from_model)


def forget_secret(*values: str) -> None:
    """Look for ``values`` no more, as after a token was revoked; unknown ones are ignored."""
    _SECRETS.forget(values)


def hidden(value: T) -> T:
    """``value``, JSON or text, without any secret."""
    return _without(value, _SECRETS.all)


def hidden_from_model(value: T) -> T:
    """``value``, JSON or text, without the secrets that are kept from the model."""
    return _without(value, _SECRETS.from_model)


def _without(value: T, pattern: re.Pattern[str] | None) -> T:
    return value if pattern is None else cast("T", _replaced(value, pattern))


def _replaced(value: Any, pattern: re.Pattern[str]) -> Any:
    if isinstance(value, str):
        return pattern.sub(HIDDEN, value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {_replaced(key, pattern): _replaced(each, pattern) for key, each in items}
    if isinstance(value, list | tuple):
        return [_replaced(each, pattern) for each in cast("list[Any]", value)]
    return value
