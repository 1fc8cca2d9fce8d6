"""Who answers an ask: sampling request in, sampling result out."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Protocol, runtime_checkable

from mcp_types import CreateMessageRequestParams

from agentloop.errors import DefinitionError
from agentloop.meta import Reply

GROUP = "agentloop.providers"
"""The entry-point group under which providers are found by name."""


@runtime_checkable
class Provider(Protocol):
    """Answers sampling requests.

    The same object can serve a run directly and answer for a client as its sampling callback.
    Token usage and the provider's own state travel in ``_meta``, see :mod:`agentloop.meta`.
    """

    @property
    def name(self) -> str:
        """What the provider is called in events and messages, e.g. ``anthropic:claude-x``."""
        ...

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """Answer ``request``.

        Raises :class:`~agentloop.errors.ProviderError` where it cannot; must not raise anything
        else, must not keep the request, and must not change it.
        """
        ...


def check_provider(provider: Any) -> None:
    """Raises :class:`DefinitionError` for what is no provider, such as a class or a spec, which is
    one for the command alone."""
    if isinstance(provider, str):
        raise DefinitionError(
            f"provider={provider!r} is a text: give a provider, e.g. OfflineProvider(), or "
            f"agentloop.provider.load_provider({provider!r})"
        )
    if isinstance(provider, type):
        raise DefinitionError(
            f"provider={provider.__name__} is a class: give one of it, {provider.__name__}(...)"
        )
    if provider is not None and not hasattr(provider, "sample"):
        raise DefinitionError(f"provider={provider!r} has no sample(): it is no provider")


def provider_names() -> list[str]:
    """The names of the providers that are installed, without loading any of them."""
    return sorted(entry.name for entry in entry_points(group=GROUP))


def load_provider(spec: str) -> Provider:
    """The provider that ``NAME`` or ``NAME:REST`` stands for, e.g. ``anthropic:claude-x``.

    Everything after the first colon goes to the provider's ``from_spec``. Raises
    :class:`DefinitionError` where there is no such provider, its package is not installed, or it
    does not accept the rest.
    """
    name, _, rest = spec.partition(":")
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        raise DefinitionError(
            f"there is no provider {name!r}; installed are: {', '.join(provider_names())}"
        )
    try:
        cls: Any = found[0].load()
        make = cls.from_spec
    except ImportError as error:
        raise DefinitionError(
            f"provider {name!r} needs a package that is not installed: {error}; "
            f"try: pip install 'mcp-agentloop[{name.partition('-')[0]}]'"
        ) from error
    except Exception as error:
        raise DefinitionError(
            f"provider {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return make(rest)
