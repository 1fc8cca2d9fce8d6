"""The scorers that need no model: an answer against what is expected."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from agentloop.evals.score import ExpectingScorer, Score


def exact(*, ignore_case: bool = True) -> ExpectingScorer:
    """The answer is what is expected, or one of a list of expected texts.

    White space around and between the words does not count.
    """

    def score(answer: Any, expected: Any) -> Score:
        given = _text(answer, ignore_case)
        if any(given == _text(wanted, ignore_case) for wanted in _several(expected)):
            return Score(1.0)
        return Score(0.0, f"not {_short(expected)}")

    return ExpectingScorer("exact", score)


def contains(*, ignore_case: bool = True, whole_words: bool = True) -> ExpectingScorer:
    """The answer holds the expected text, or all of a list of them; the score is the share.

    With ``whole_words`` 4 is not found in 14, nor cat in concatenate.
    """
    before, after = (r"(?<!\w)", r"(?!\w)") if whole_words else ("", "")

    def found(text: Any, given: str) -> bool:
        wanted = _text(text, ignore_case)
        begins = before if wanted[:1].isalnum() else ""
        ends = after if wanted[-1:].isalnum() else ""
        return re.search(f"{begins}{re.escape(wanted)}{ends}", given) is not None

    def score(answer: Any, expected: Any) -> Score:
        given = _text(answer, ignore_case)
        wanted = _several(expected)
        missing = [text for text in wanted if not found(text, given)]
        return _share(len(wanted), [f"{_short(text)} is missing" for text in missing])

    return ExpectingScorer("contains", score)


def regex(*, ignore_case: bool = True) -> ExpectingScorer:
    """The expected pattern, or each of a list of them, is found in the answer."""
    flags = re.IGNORECASE if ignore_case else re.NOFLAG

    def score(answer: Any, expected: Any) -> Score:
        given = answer if isinstance(answer, str) else _dump(answer)
        patterns = [str(pattern) for pattern in _several(expected)]
        missing = [p for p in patterns if not re.search(p, given, flags | re.MULTILINE)]
        return _share(len(patterns), [f"/{pattern}/ is not found" for pattern in missing])

    return ExpectingScorer("regex", score)


def json_match(*, tolerance: float = 1e-9) -> ExpectingScorer:
    """The answer, typed or JSON in words, says what is expected; it may say more.

    The score is the share of the expected values that are there; lists are compared item by item
    and must be of the same length. Numbers may differ by ``tolerance``, relatively.
    """

    def score(answer: Any, expected: Any) -> Score:
        try:
            given: Any = json.loads(_unfenced(answer)) if isinstance(answer, str) else answer
        except (ValueError, RecursionError):
            return Score(0.0, "the answer is no JSON")
        leaves = list(_compare(expected, given, "answer", tolerance))
        return _share(len(leaves), [problem for problem in leaves if problem])

    return ExpectingScorer("json_match", score)


def _several(expected: Any) -> list[Any]:
    if isinstance(expected, list | tuple):
        return list(cast("Iterable[Any]", expected))
    return [expected]


def _text(value: Any, ignore_case: bool) -> str:
    words = " ".join((value if isinstance(value, str) else _dump(value)).split())
    return words.casefold() if ignore_case else words


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _short(value: Any) -> str:
    text = _dump(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _share(total: int, problems: list[str]) -> Score:
    return Score(1 - len(problems) / total if total else 1.0, "; ".join(problems[:5]))


def _unfenced(text: str) -> str:
    """``text`` without the Markdown fence that models like to put around JSON."""
    fenced = re.fullmatch(r"\s*```\w*\s*\n(.*?)\n?\s*```\s*", text, re.DOTALL)
    return fenced[1] if fenced else text


def _compare(expected: Any, given: Any, where: str, tolerance: float) -> Iterator[str]:
    """For each value that is expected, what is wrong with the one given, or nothing."""
    if isinstance(expected, dict) and expected:
        items = cast("dict[str, Any]", expected)
        others = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        for key, value in items.items():
            yield from _compare(value, others.get(key, _MISSING), f"{where}.{key}", tolerance)
    elif isinstance(expected, list) and expected:
        wanted = cast("list[Any]", expected)
        have = cast("list[Any]", given) if isinstance(given, list) else []
        for i in range(max(len(wanted), len(have))):
            if i >= len(wanted):
                yield f"{where}[{i}] is too much"
                continue
            item = have[i] if i < len(have) else _MISSING
            yield from _compare(wanted[i], item, f"{where}[{i}]", tolerance)
    elif given is _MISSING:
        yield f"{where} is missing"
    else:
        same = _same(expected, given, tolerance)
        yield "" if same else f"{where} is {_short(given)}, not {_short(expected)}"


_MISSING = object()


def _same(expected: Any, given: Any, tolerance: float) -> bool:
    if _is_number(expected) and _is_number(given):
        return math.isclose(expected, given, rel_tol=tolerance)
    if isinstance(expected, bool) != isinstance(given, bool):  # 1 == True in Python
        return False
    return bool(expected == given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
