"""Candidates: what is compared in an evaluation, a provider on a carrier."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from agentloop.errors import DefinitionError
from agentloop.evals.case import Case
from agentloop.provider import Provider, load_provider
from agentloop.testing.carry import Carrier

ProviderOf = Provider | str | Callable[[Case], Provider]
"""A provider, what ``--provider`` takes, or a function that makes one for each trial of a case:
for providers that keep a state, like scripts and recordings."""

Providers = ProviderOf | Sequence[ProviderOf] | Mapping[str, ProviderOf]
"""One or several, by their own names or by names of your choice."""


@dataclass(frozen=True)
class Candidate:
    """Something that answers cases, under the name it has in results."""

    name: str
    provider: Provider | None
    make: Callable[[Case], Provider] | None
    """Makes a provider for one trial, where there is not one for all."""
    carrier: Carrier
    label: str
    """The provider's name, without the carrier."""

    @asynccontextmanager
    async def answering(self, case: Case) -> AsyncGenerator[Provider]:
        """The provider for one trial of ``case``; one made for it is closed afterwards."""
        if self.make is None:
            assert self.provider is not None
            yield self.provider
            return
        provider = self.make(case)
        try:
            yield provider
        finally:
            await _close(provider)


@asynccontextmanager
async def candidates(
    providers: Providers, carriers: Sequence[Carrier]
) -> AsyncGenerator[list[Candidate]]:
    """Every provider on every carrier; those that are loaded here are closed in the end.

    Raises :class:`DefinitionError` where there is none, or two have one name.
    """
    loaded: list[Provider] = []
    try:
        named = list(_named(providers, loaded))
        names = [name for name, _ in named]
        if not names or not carriers:
            raise DefinitionError("there is no provider to evaluate with: pass providers=...")
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise DefinitionError(f"two providers are called {twice!r}: pass {{name: provider}}")
        yield [
            _candidate(name, item, carrier, carriers)
            for name, item in named
            for carrier in dict.fromkeys(carriers)
        ]
    finally:
        for provider in loaded:
            await _close(provider)


def _candidate(
    name: str,
    item: Provider | Callable[[Case], Provider],
    carrier: Carrier,
    carriers: Sequence[Carrier],
) -> Candidate:
    plain = carrier == "direct" and len(carriers) == 1
    title = name if plain else f"{name} ({carrier})"
    if isinstance(item, Provider):
        return Candidate(title, item, None, carrier, name)
    return Candidate(title, None, item, carrier, name)


def _named(
    providers: Providers, loaded: list[Provider]
) -> Iterable[tuple[str, Provider | Callable[[Case], Provider]]]:
    if isinstance(providers, Mapping):
        given = list(cast("Mapping[str, ProviderOf]", providers).items())
    else:
        one = isinstance(providers, str | Provider) or callable(providers)
        several = [providers] if one else providers
        given = [("", item) for item in cast("Sequence[ProviderOf]", several)]
    for name, item in given:
        if isinstance(item, str):
            provider = load_provider(item)
            loaded.append(provider)
            yield name or item, provider
        else:
            yield name or _own_name(item), item


def _own_name(item: Any) -> str:
    return item.name if isinstance(item, Provider) else getattr(item, "__name__", repr(item))


async def _close(provider: Provider) -> None:
    if close := getattr(provider, "aclose", None):
        await close()
