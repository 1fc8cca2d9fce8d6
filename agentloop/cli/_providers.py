"""``agentloop providers``: who can answer asks."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

SUMMARY = "list the providers and whether they can be used"


def configure(parser: argparse.ArgumentParser) -> None:
    """There is nothing to set."""


def execute(options: argparse.Namespace) -> int:
    """Print one line for each provider."""
    from importlib.metadata import entry_points

    from agentloop.cli._terminal import one_line, stdout_for_answers
    from agentloop.provider import GROUP

    with stdout_for_answers():
        found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
        rows = [(entry.name, *_form_and_state(entry)) for entry in found]
    names, forms = (max((len(row[i]) for row in rows), default=0) for i in (0, 1))
    for name, form, state in rows:
        print(f"{one_line(name):{names}}  {one_line(form):{forms}}  {one_line(state)}")
    return 0


def _form_and_state(entry: EntryPoint) -> tuple[str, str]:
    """How ``--provider`` is written for ``entry``, and whether it would work."""
    import inspect

    unknown = f"--provider {entry.name}:..."
    try:
        provider: Any = entry.load()
        described = inspect.getdoc(provider.from_spec) or ""
    except ImportError as error:
        return unknown, f"not installed: {_missing(entry) or error}"
    except (Exception, SystemExit) as error:  # noqa: BLE001  anybody may register anything
        return unknown, f"broken: {type(error).__name__}: {error}"
    missing = _missing(entry)
    state = f"not installed: {missing}" if missing else f"installed{_key(provider)}"
    return _form(entry.name, described) or unknown, state


def _key(provider: Any) -> str:
    """Whether the key that ``provider`` takes from the environment is there; never the key."""
    import os

    names: tuple[str, ...] = getattr(provider, "key_variables", ())
    there = [name for name in names if os.environ.get(name, "").strip()]
    if there:
        return f", {there[0]} is set"
    return f", {names[0]} is not set" if names else ""


def _form(name: str, described: str) -> str:
    """The ways to write ``name``'s spec, as the docstring of its ``from_spec`` quotes them.

    They stand in its first line, with the provider's name or without: ``scripted:FILE``, ``MODEL``.
    """
    ways: list[str] = []
    for quoted in re.findall(r"``([^`]+)``", described.partition("\n")[0]):
        if quoted == name or quoted.startswith(f"{name}:"):
            ways.append(quoted)
        elif quoted.isupper():
            ways.append(f"{name}:{quoted}")
    return " or ".join(f"--provider {way}" for way in ways)


def _missing(entry: EntryPoint) -> str | None:
    """The packages that ``entry`` needs and that are not there, and how to get them.

    A provider loads its SDK when it is first used, so having loaded the provider proves nothing.
    What it needs is what its distribution requires for the extra of the provider's name, or of the
    part of it before a hyphen.
    """
    if entry.dist is None:
        return None
    required = entry.dist.requires or ()
    for extra in (entry.name, entry.name.partition("-")[0]):
        wanted = re.compile(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]")
        if needed := [item for item in required if wanted.search(item)]:
            break
    else:
        return None
    names = [found[0] for item in needed if (found := re.match(r"[A-Za-z0-9._-]+", item))]
    absent = [name for name in names if not _is_installed(name)]
    if not absent:
        return None
    return f"{', '.join(absent)} (try: pip install '{entry.dist.name}[{extra}]')"


def _is_installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
