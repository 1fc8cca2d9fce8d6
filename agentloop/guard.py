"""For tests that must not reach a real model: :func:`no_real_requests`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from threading import Lock

from agentloop.errors import ProviderError


class RealRequestError(ProviderError):
    """A provider was about to send a real request inside :func:`no_real_requests`."""

    code = "real_request"


_lock = Lock()
_guards = 0


@contextmanager
def no_real_requests() -> Generator[None]:
    """While this is entered, providers that reach a real model refuse to.

    It holds for the whole process, other threads and tasks included; entering it twice is fine.
    Scripted and recorded providers go on working. As a context manager, a decorator, or for all
    tests::

        @pytest.fixture(autouse=True)
        def offline():
            with no_real_requests():
                yield
    """
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def check_real_requests(provider: str) -> None:
    """Called by the provider of that name before a request leaves this process.

    Raises :class:`RealRequestError` inside :func:`no_real_requests`.
    """
    if _guards:
        raise RealRequestError(f"{provider} would send a real request inside no_real_requests()")


def _count(step: int) -> None:
    global _guards
    with _lock:
        _guards += step
