"""How many tasks, or durable runs, wait, run and have failed, as an OpenTelemetry gauge."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

import anyio
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from agentloop._version import __version__
from agentloop.errors import DefinitionError
from agentloop.log import log
from agentloop.strays import stray

Count = Callable[[], Awaitable[Mapping[str, int]]]


@asynccontextmanager
async def backlog(
    count: Count,
    *,
    name: str = "agentloop.tasks",
    every: float = 15.0,
    meter_provider: MeterProvider | None = None,
) -> AsyncGenerator[None]:
    """While entered, reports what ``count`` gives as the gauge ``name``, a value for each state.

    ``count`` is ``store.tasks.count``, or ``DurableRuns(url).count`` for runs on DBOS. It is asked
    once in ``every`` seconds. The store is one for all servers, so let one of them report, or take
    the maximum over all. While the store cannot be reached nothing is reported.
    """
    if not every > 0:
        raise DefinitionError(f"every={every!r} is not a number of seconds above 0")
    seen: Mapping[str, int] = {}

    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(number, {"agentloop.state": str(state)}) for state, number in seen.items()
        ]

    async def look() -> None:
        nonlocal seen
        while True:
            try:
                seen = await count()
            except Exception as error:  # noqa: BLE001  what watches must not end what it watches
                seen = {}
                log().warning("backlog_not_counted", gauge=name, error_type=type(error).__name__)
            await anyio.sleep(every)

    meter = get_meter("agentloop", __version__, meter_provider)
    meter.create_observable_gauge(name, [observe], "{item}", "How many there are in each state.")
    looking = stray(look)
    try:
        yield
    finally:
        await looking.stop(1)
        seen = {}  # a gauge cannot be taken back; it has nothing to report any more
