"""Names and ids as a narrower API takes them, and back again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_-]")


def fits(name: str, limit: int = 64) -> bool:
    """Whether every model API takes ``name`` as it is."""
    return 0 < len(name) <= limit and not _FORBIDDEN.search(name)


class Fitted:
    """Names that fit ``[a-zA-Z0-9_-]{1,limit}``, for one request.

    MCP allows ``[A-Za-z0-9._-]{1,128}`` (SEP-986), the model APIs allow less. The same names in
    the same order always give the same fitted names, so prompt caches stay valid; two names never
    share one.
    """

    def __init__(self, limit: int = 64, names: Iterable[str] = ()) -> None:
        """``names`` come first: those of them that fit stay as they are."""
        self._limit = limit
        self._fitted: dict[str, str] = {}
        self._original: dict[str, str] = {}
        given = list(names)
        for name in given:
            if fits(name, self._limit):
                self._put(name, name)
        for name in given:
            self.fit(name)

    def fit(self, name: str) -> str:
        """``name`` as the API takes it; the same for each call with the same name."""
        known = self._fitted.get(name)
        return known if known is not None else self._put(name, self._free(name))

    def again(self, name: str, *, known_to_api: bool = False) -> str:
        """``name`` fitted, and unlike every fitted name so far: for ids that are used once.

        From here on :meth:`fit` gives this one. An id that is ``known_to_api`` may be of any form.
        """
        free = name if known_to_api and name not in self._original else self._free(name)
        return self._put(name, free)

    def original(self, fitted: str) -> str:
        """The name that ``fitted`` stands for; itself where it stands for none."""
        return self._original.get(fitted, fitted)

    def _free(self, name: str) -> str:
        fitted = _FORBIDDEN.sub("_", name)[: self._limit] or "_"
        number = 0
        while fitted in self._original:
            digest = hashlib.sha256(f"{name}\0{number}".encode("utf-8", "replace")).hexdigest()[:8]
            fitted = f"{_FORBIDDEN.sub('_', name)[: self._limit - 9]}_{digest}"
            number += 1
        return fitted

    def _put(self, name: str, fitted: str) -> str:
        self._fitted[name] = fitted
        self._original[fitted] = name
        return fitted
