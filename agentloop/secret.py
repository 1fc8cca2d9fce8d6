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
from collections.abc import Iterable
from threading import Lock
from typing import Any, TypeVar, cast
from urllib.parse import quote, quote_plus

from agentloop.errors import DefinitionError
from agentloop.text import clean

HIDDEN = "[secret]"
"""Stands where a secret stood."""

SHORTEST = 6
"""Characters of a secret; a shorter one would stand in ordinary words too."""

T = TypeVar("T")


class _Forms:
    """Secrets in all the ways in which texts hold them: plain, in JSON, in a URL, in a ``repr``."""

    def __init__(self, values: Iterable[str]) -> None:
        # The longest first: one secret may begin another.
        self._forms = sorted({form for value in values for form in _forms(value)}, key=len)[::-1]
        self._pattern = re.compile("|".join(map(re.escape, self._forms)))

    def taken_out(self, text: str) -> str:
        # Looking for each is much faster than the pattern, and most texts hold none.
        found = any(form in text for form in self._forms)
        return self._pattern.sub(HIDDEN, text) if found else text


def _forms(value: str) -> set[str]:
    in_json = (json.dumps(value, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    # A variable of the environment may hold what is no UTF-8.
    in_url = (quote(value, safe, errors="replace") for safe in ("/", ""))
    plus = quote_plus(value, errors="replace")
    return {value, clean(value), *in_json, *in_url, plus, repr(value)[1:-1]}


class _Secrets:
    """The secrets of this process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[str, bool] = {}
        """Whether it is kept from the model, by secret."""
        self.all: _Forms | None = None
        self.from_model: _Forms | None = None

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
        hidden = [value for value, from_model in self._kept.items() if from_model]
        self.all = _Forms(self._kept) if self._kept else None
        self.from_model = _Forms(hidden) if hidden else None


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


def _without(value: T, secrets: _Forms | None) -> T:
    return value if secrets is None else cast("T", _replaced(value, secrets))


def _replaced(value: Any, secrets: _Forms) -> Any:
    if isinstance(value, str):
        return secrets.taken_out(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {_replaced(key, secrets): _replaced(each, secrets) for key, each in items}
    if isinstance(value, list | tuple):
        return [_replaced(each, secrets) for each in cast("list[Any]", value)]
    return value
