"""Options that commands share, and what their values stand for."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from agentloop.errors import DefinitionError

if TYPE_CHECKING:
    from agentloop.agent import Agent
    from agentloop.provider import Provider


def add_agent(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which agent."""
    parser.add_argument(
        "agent",
        metavar="AGENT",
        help="file.py:name or package.module:name, an Agent or a function that gives one",
    )
    parser.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of the function that AGENT names; may be given several times",
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The option that changes limits."""
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a limit of the run, e.g. steps=5, seconds=30 or tokens=none",
    )


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """The ``KEY=VALUE`` pairs of an option. Raises :class:`DefinitionError`."""
    found: dict[str, str] = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise DefinitionError(f"{option} {item}: write it as {option} KEY=VALUE")
        if key in found:
            raise DefinitionError(f"{option} {key}=... is given twice")
        found[key] = value
    return found


def limited(agent: Agent[Any], given: Mapping[str, str]) -> Agent[Any]:
    """``agent`` with the limits in ``given`` changed. Raises :class:`DefinitionError`."""
    import copy
    import dataclasses

    if not given:
        return agent
    limits = agent.definition.limits
    known = [field.name for field in dataclasses.fields(limits)]
    if unknown := [name for name in given if name not in known]:
        raise DefinitionError(f"there is no limit {unknown[0]!r}; there are: {', '.join(known)}")
    values: dict[str, Any] = {name: _number(value) for name, value in given.items()}
    changed = copy.copy(agent)
    changed.definition = dataclasses.replace(
        agent.definition, limits=dataclasses.replace(limits, **values)
    )
    return changed


def provider_of(spec: str) -> Provider:
    """The provider that ``spec`` names. Raises :class:`DefinitionError` whatever is wrong."""
    from agentloop.provider import load_provider

    try:
        return load_provider(spec)
    except DefinitionError:
        raise
    except Exception as error:  # a provider's package may be broken in any way
        raise DefinitionError(f"provider {spec!r}: {type(error).__name__}: {error}") from error


@asynccontextmanager
async def closing(provider: Provider | None) -> AsyncGenerator[None]:
    """Close ``provider`` in the end, if it can be closed."""
    try:
        yield
    finally:
        if close := getattr(provider, "aclose", None):
            await close()


def _number(text: str) -> Any:
    """The number in ``text``, None for ``none``, else the text itself, which is no limit."""
    if text.lower() == "none":
        return None
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
