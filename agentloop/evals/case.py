"""Cases: what an agent is asked, and what is right."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from pydantic_core import to_jsonable_python

from agentloop.errors import DefinitionError
from agentloop.prompt import Prompt


@dataclass(frozen=True)
class Case:
    """One thing to ask. What ``expected`` means is up to the scorers."""

    prompt: Prompt
    expected: Any = None
    id: str = ""
    """Tells the cases of a set apart; by default its number in the set."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """For scorers and readers; the agent sees nothing of it."""

    @property
    def question(self) -> str:
        """The prompt in words."""
        return prompt_text(self.prompt)


_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

Cases = str | Path | Iterable[Case]
"""A set of cases: a JSONL file, or the cases themselves."""


def read_cases(
    file: str | Path, *, prompt: str = "prompt", expected: str = "expected", id: str = "id"
) -> list[Case]:
    """The cases of a JSONL file: one object a line; any other field is metadata.

    The arguments say what the file calls the fields. Raises :class:`DefinitionError`, with the
    line, for what is no case.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(f"cases {str(file)!r} cannot be read: {error}") from error
    cases: list[Case] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        fields = _object(line, where)
        asked = fields.pop(prompt, None)
        if not isinstance(asked, str) or not asked.strip():
            raise DefinitionError(f"{where}: {prompt!r} is not a text to ask")
        label = fields.pop(id, "")
        cases.append(Case(asked, fields.pop(expected, None), id=str(label), metadata=dict(fields)))
    return cases


def numbered(cases: Cases) -> list[Case]:
    """The cases of a set, each with an id. Raises :class:`DefinitionError` where there are none,
    or two have one id."""
    given = read_cases(cases) if isinstance(cases, str | Path) else list(cases)
    made = [case if case.id else replace(case, id=str(n)) for n, case in enumerate(given, 1)]
    if not made:
        raise DefinitionError("there are no cases")
    seen: set[str] = set()
    for case in made:
        if case.id in seen:
            raise DefinitionError(f"two cases have the id {case.id!r}")
        seen.add(case.id)
    return made


def plain(value: Any) -> Any:
    """``value`` as JSON, and as text what has no JSON form."""
    return to_jsonable_python(value, by_alias=True, exclude_none=True, fallback=repr)


def prompt_text(prompt: Prompt) -> str:
    """A prompt in words; what is no text is named."""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(b.text if b.type == "text" else f"[{b.type}]" for b in prompt)


def file_name(name: str) -> str:
    """A name for files that says what ``name`` is; two names never give the same one."""
    plain = _UNSAFE.sub("-", name).strip("-.")[:60]
    if plain == name == name.lower():  # some file systems do not tell capitals apart
        return name
    digest = hashlib.blake2b(name.encode("utf-8", "replace"), digest_size=4)
    return f"{plain}-{digest.hexdigest()}"


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{where}: no JSON: {error}") from error
    if not isinstance(value, dict):
        raise DefinitionError(f"{where}: a case is a JSON object")
    return cast("dict[str, Any]", value)
