"""For functions that do more than run one agent: several at once, and effects of their own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any, TypeVar, overload

import anyio
from pydantic_core import to_jsonable_python

from agentloop.errors import DefinitionError
from agentloop.place import HERE

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")
T5 = TypeVar("T5")


# For a type checker a few results are a tuple, as with asyncio.gather: only so each keeps its type.
@overload
async def gather(run1: Awaitable[T1], run2: Awaitable[T2], /) -> tuple[T1, T2]: ...
@overload
async def gather(
    run1: Awaitable[T1], run2: Awaitable[T2], run3: Awaitable[T3], /
) -> tuple[T1, T2, T3]: ...
@overload
async def gather(
    run1: Awaitable[T1], run2: Awaitable[T2], run3: Awaitable[T3], run4: Awaitable[T4], /
) -> tuple[T1, T2, T3, T4]: ...
@overload
async def gather(
    run1: Awaitable[T1],
    run2: Awaitable[T2],
    run3: Awaitable[T3],
    run4: Awaitable[T4],
    run5: Awaitable[T5],
    /,
) -> tuple[T1, T2, T3, T4, T5]: ...
@overload
async def gather(*runs: Awaitable[T]) -> list[T]: ...
async def gather(*runs: Awaitable[Any]) -> Any:
    """Await ``runs`` at the same time and give their results, a list, in order.

    Inside a served function, the asks of all of them leave in the same round. If one raises, the
    others are cancelled and its exception is raised as it is.
    """
    results: list[Any] = [None] * len(runs)
    here = HERE.get()
    # What is in a task already runs at the place where that began, and not in a branch of ours.
    branches = [here.below() if here and not asyncio.isfuture(run) else None for run in runs]

    async def branch(number: int, run: Awaitable[T]) -> None:
        place = branches[number]
        HERE.set(place)
        try:
            results[number] = await run
        finally:
            if place:
                place.leave()

    try:
        async with anyio.create_task_group() as group:
            for number, run in enumerate(runs):
                group.start_soon(branch, number, run)
    except BaseExceptionGroup as errors:
        raise _first(errors) from None
    return results


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error  # pyright: ignore[reportUnknownArgumentType]


async def once(name: str, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``fn`` once in a served function, however often the function is entered again.

    Gives the JSON form of what ``fn`` (sync or async) returned, the first time and every time.
    ``name`` must be unique within its branch of the function. Raises :class:`DefinitionError`
    where it is not, or where the value has no JSON form. Where ``fn`` runs agents, it is entered
    again, too, until it has given its value. Outside of served functions it is a plain call.
    """
    here = HERE.get()
    if here is None:
        return _as_json(name, await _result_of(fn, args, kwargs))
    if here.host.suspends:
        await here.host.admit()
    here.name(name)
    key = f"{here.key}#{name}"
    if (kept := here.host.value(key)) is not None:
        return deepcopy(kept[0])
    place = here.below(f"#{name}")
    token = HERE.set(place)
    try:
        value = _as_json(name, await _result_of(fn, args, kwargs))
        here.host.keep_value(key, deepcopy(value))  # the caller's own one may be changed
        return value
    finally:
        HERE.reset(token)
        place.leave()


async def _result_of(fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    value = fn(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def _as_json(name: str, value: Any) -> Any:
    try:
        return to_jsonable_python(value, inf_nan_mode="constants")
    except (ValueError, TypeError) as error:
        raise DefinitionError(
            f"once({name!r}): a {type(value).__name__} has no JSON form, so it cannot be kept"
        ) from error
