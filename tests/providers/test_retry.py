"""One retry layer: what is sent again, after how long, and when it gives up."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Awaitable, Callable

import anyio
import pytest
from structlog.testing import capture_logs

from agentloop.errors import AskTimeoutError, DefinitionError, OverloadedError
from agentloop_providers.retry import Failure, Retry, retry_after

NO_WAIT = Retry(attempts=4, max_wait=0.0)


class Attempts:
    """Fails so often, then answers."""

    def __init__(self, failures: int, *, wait: float | None = None, again: bool = True) -> None:
        self.failures = failures
        self.count = 0
        self._failure = Failure(OverloadedError("busy", status=503), again=again, wait=wait)

    async def __call__(self) -> str | Failure:
        self.count += 1
        return self._failure if self.count <= self.failures else "answer"

    @property
    def call(self) -> Callable[[], Awaitable[str | Failure]]:
        return self.__call__


async def test_an_answer_is_asked_for_once() -> None:
    attempts = Attempts(0)
    assert await NO_WAIT.call(attempts.call, name="p") == "answer"
    assert attempts.count == 1


async def test_a_failure_that_may_pass_is_tried_again() -> None:
    attempts = Attempts(3)
    with capture_logs() as logs:
        assert await NO_WAIT.call(attempts.call, name="p") == "answer"
    assert attempts.count == 4
    assert [(line["event"], line["attempt"], line["error"]) for line in logs] == [
        ("provider_retry", number, "overloaded") for number in (1, 2, 3)
    ]


async def test_the_last_error_is_raised_as_it_is() -> None:
    attempts = Attempts(9)
    with pytest.raises(OverloadedError, match="busy") as caught:
        await NO_WAIT.call(attempts.call, name="p")
    assert attempts.count == 4
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


async def test_what_will_not_pass_is_not_tried_again() -> None:
    attempts = Attempts(9, again=False)
    with pytest.raises(OverloadedError):
        await NO_WAIT.call(attempts.call, name="p")
    assert attempts.count == 1


async def test_a_server_that_asks_for_an_hour_gets_the_longest_wait() -> None:
    attempts = Attempts(2, wait=3600.0)
    began = time.monotonic()
    assert await Retry(max_wait=0.05).call(attempts.call, name="p") == "answer"
    assert 0.1 <= time.monotonic() - began < 2.0


async def test_what_the_server_asks_for_is_waited_at_least() -> None:
    attempts = Attempts(1, wait=0.2)
    began = time.monotonic()
    await Retry().call(attempts.call, name="p")
    assert time.monotonic() - began >= 0.2


async def test_no_attempt_begins_after_the_time_is_over() -> None:
    attempts = Attempts(9, wait=0.06)
    with pytest.raises(OverloadedError):
        await Retry(attempts=99, seconds=0.2).call(attempts.call, name="p")
    assert 2 <= attempts.count <= 4


async def test_a_wait_past_the_deadline_of_the_ask_is_not_begun() -> None:
    attempts = Attempts(9, wait=30.0)
    began = time.monotonic()
    with pytest.raises(OverloadedError), anyio.fail_after(5):
        await Retry().call(attempts.call, name="p")
    assert time.monotonic() - began < 1
    assert attempts.count == 1


async def test_cancelled_while_it_waits() -> None:
    attempts = Attempts(9, wait=30.0)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: Retry().call(attempts.call, name="p"))
            await anyio.sleep(0.05)
            scope.cancel()
    assert scope.cancelled_caught
    assert attempts.count == 1


async def test_calls_at_the_same_time_do_not_share_their_attempts() -> None:
    retry = Retry(attempts=3, max_wait=0.01)
    fine, failing = Attempts(2), Attempts(3)

    async def fails() -> None:
        with pytest.raises(OverloadedError):
            await retry.call(failing.call, name="p")

    async with anyio.create_task_group() as group:
        group.start_soon(lambda: retry.call(fine.call, name="p"))
        group.start_soon(fails)
    assert (fine.count, failing.count) == (3, 3)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "junk", "retry-after": "7"}, 7.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:28:00 GMT"}, None),
        ({"retry-after": "9" * 400}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers) == expected


def test_retry_after_as_a_date() -> None:
    date = email.utils.formatdate(time.time() + 90, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(90, abs=3)


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"attempts": 1.5}, {"seconds": -1}, {"max_wait": math.nan}]
)
def test_what_a_retry_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(DefinitionError):
        Retry(**wrong)  # pyright: ignore[reportArgumentType]


def test_timeouts_may_pass_too() -> None:
    assert AskTimeoutError.retryable
    assert OverloadedError.retryable
