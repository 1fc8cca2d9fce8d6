"""The one layer that tries again; the SDKs' own retries are off."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar, cast

import anyio
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
)

from agentloop.errors import DefinitionError, ProviderError
from agentloop.log import log
from agentloop.patience import time_left

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """One attempt that failed. A value, not an exception: nothing of the SDK hangs on to it."""

    error: ProviderError
    again: bool
    """Whether another attempt may succeed."""
    wait: float | None = None
    """Seconds that the server asked to wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a request is sent again: after 408, 409, 429, 5xx, timeouts and broken connections.

    Only a request that brought no whole reply is sent again, never one whose reply was used.
    """

    attempts: int = 4
    """How often a request is sent at most; 1 means never again."""
    seconds: float = 120.0
    """No attempt begins later than this after the first one."""
    max_wait: float = 60.0
    """The longest wait before an attempt, whatever ``Retry-After`` says."""

    def __post_init__(self) -> None:
        if type(self.attempts) is not int or self.attempts < 1:
            raise DefinitionError(f"Retry(attempts={self.attempts!r}): a whole number from 1 on")
        if not (self.seconds >= 0 and self.max_wait >= 0):
            raise DefinitionError("Retry: seconds and max_wait are not negative")

    async def call(self, attempt: Callable[[], Awaitable[T | Failure]], *, name: str) -> T:
        """What ``attempt`` gives. Raises the error of the last one that failed.

        Does not wait past the deadline of the scope that it is called in, such as the time that
        an agent grants an ask: then the error is raised at once.
        """
        # One per call: a tenacity object keeps the state of the call that it serves.
        retrying = AsyncRetrying(
            retry=retry_if_result(_is_worth_another),
            stop=self._is_over,
            wait=self._wait,
            sleep=anyio.sleep,
            before_sleep=lambda state: _log(state, name),
            retry_error_callback=_last,
        )
        outcome: Any = await retrying(attempt)
        if isinstance(outcome, Failure):
            raise outcome.error
        return cast("T", outcome)

    def _is_over(self, state: RetryCallState) -> bool:
        stop = stop_after_attempt(self.attempts) | stop_before_delay(self.seconds)
        return state.upcoming_sleep >= time_left() or stop(state)

    def _wait(self, state: RetryCallState) -> float:
        asked = _last(state).wait
        if asked is not None:
            return min(asked * random.uniform(1.0, 1.1), self.max_wait)
        backoff = min(0.5 * 2.0 ** (state.attempt_number - 1), 8.0)
        return min(backoff * random.uniform(0.5, 1.0), self.max_wait)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that ``Retry-After`` asks for, given as such or as a date; None for neither."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        if math.isfinite(seconds):
            return max(seconds, 0.0)
    try:
        return max(parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time(), 0.0)
    except (KeyError, ValueError, TypeError, OverflowError):
        return None


def _is_worth_another(outcome: object) -> bool:
    return isinstance(outcome, Failure) and outcome.again


def _last(state: RetryCallState) -> Failure:
    assert state.outcome is not None
    return cast("Failure", state.outcome.result())


def _log(state: RetryCallState, name: str) -> None:
    error = _last(state).error
    log().info(
        "provider_retry",
        provider=name,
        attempt=state.attempt_number,
        wait=round(state.upcoming_sleep, 3),
        error=error.code,
        status=error.status,
    )
