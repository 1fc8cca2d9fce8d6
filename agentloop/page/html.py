"""HTML that is escaped because it cannot be otherwise."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable
from typing import TypeAlias

Child: TypeAlias = "Html | str | int | Iterable[Child] | None"
"""What goes into an element. Anything but :class:`Html` is text and gets escaped."""

_VOID = frozenset({"meta", "img", "input", "br"})
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_NEEDED = frozenset("\n\t\u200c\u200d")
"""Line ends and tabs; and the joiners, which several scripts and emoji are written with."""


class Html(str):
    """Text that is HTML already. Only :func:`tag` and what the package itself ships make it."""

    __slots__ = ()


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """The element ``name``; ``class_`` is ``class``, and ``data_x`` is ``data-x``.

    An attribute that is True stands without a value; None and False leave it out.
    """
    opening = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            opening.append(key)
        elif value is not None and value is not False:
            opening.append(f'{key}="{escaped(str(value))}"')
    start = f"<{' '.join(opening)}>"
    return Html(start if name in _VOID else f"{start}{inside(children)}</{name}>")


def inside(children: Iterable[Child]) -> Html:
    """``children`` one after another."""
    return Html("".join(map(_written, children)))


def escaped(text: str) -> str:
    """``text`` so that it stays text, with a sign for every character that one cannot see.

    Control characters are not allowed in HTML at all, and marks that turn the direction of writing
    could make a reader see what is not there.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in _NEEDED else _sign(c) for c in text)
    return html.escape(text)


def _sign(char: str) -> str:
    if unicodedata.category(char) not in _UNSAFE:
        return char if char not in "\u2028\u2029" else "\n"
    code = ord(char)
    if code == 0x0D:
        return ""
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"\u2426{code:X}\u2426"


def _written(child: Child) -> str:
    if isinstance(child, Html):
        return child
    if child is None:
        return ""
    if isinstance(child, str | int):
        return escaped(str(child))
    return inside(child)
