"""The machine of tasks: what may happen to one, and what may not, whatever came before."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.errors import StaleOwnerError, StoreError, TaskEndedError
from agentloop.task import (
    Status,
    Task,
    answered,
    cancelled,
    expired,
    finished,
    held,
    parked,
    released,
    renewed,
    taken,
)

NEW = Task(id="id", call="call", request={"name": "tool"}, created=1.0, updated=1.0)
FINAL = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)

keys = st.sampled_from(["0:0", "0:1", "1:0", "0/0?"])
asks = st.dictionaries(keys, st.just({"method": "sampling/createMessage"}))
answers = st.dictionaries(keys, st.integers())
steps = st.lists(
    st.one_of(
        st.tuples(st.just("take")),
        st.tuples(st.just("renew"), st.text(max_size=3)),
        st.tuples(st.just("release")),
        st.tuples(st.just("park"), asks),
        st.tuples(st.just("answer"), answers),
        st.tuples(st.just("finish"), st.booleans()),
        st.tuples(st.just("cancel")),
        st.tuples(st.just("stale")),
    ),
    max_size=12,
)


def step(task: Task, what: Any, now: float) -> Task:
    """What a worker, a client or an operator does to a task."""
    match what:
        case ("take",):  # which the store does of those that are free only
            free = task.status is Status.WORKING and task.leased_until <= now
            return taken(task, now, lease=10) if free else task
        case ("renew", message):
            return renewed(held(task, task.epoch), now, lease=10, message=message)
        case ("release",):
            return released(held(task, task.epoch))
        case ("park", wanted):
            return parked(held(task, task.epoch), now, asks=wanted, state="s")
        case ("answer", given):
            return answered(task, now, given)
        case ("finish", failed):
            outcome = {"code": 1} if failed else {"content": []}
            return finished(held(task, task.epoch), now, outcome=outcome, failed=failed)
        case ("cancel",):
            return cancelled(task, now)
        case _:
            return released(held(task, task.epoch - 1))


def history(what: list[Any]) -> list[Task]:
    """The task after each of ``what``; what is refused leaves it as it was."""
    tasks = [NEW]
    for number, each in enumerate(what):
        try:
            tasks.append(step(tasks[-1], each, now=2.0 + number))
        except (StaleOwnerError, TaskEndedError):
            tasks.append(tasks[-1])
    return tasks


@given(steps)
def test_what_is_final_stays_as_it_is(what: list[Any]) -> None:
    """No answer, worker or cancellation changes a task that has ended."""
    tasks = history(what)
    ends = [task for task in tasks if task.status.final]
    assert all(task is ends[0] for task in ends)
    assert ends == tasks[len(tasks) - len(ends) :]


@given(steps)
def test_a_task_says_what_its_status_says(what: list[Any]) -> None:
    """Asks are open while input is required, an outcome is there at the end, and only then."""
    for task in history(what):
        assert bool(task.asks) == (task.status is Status.INPUT_REQUIRED)
        ended_well = task.status in (Status.COMPLETED, Status.FAILED)
        assert (task.outcome is not None) == ended_well
        assert not task.answers.keys() & task.asks.keys()
        if task.status.final:
            assert (task.answers, task.state, task.leased_until) == ({}, None, 0.0)


@given(steps)
def test_times_and_numbers_only_rise(what: list[Any]) -> None:
    tasks = history(what)
    for before, after in pairwise(tasks):
        assert after.created == before.created
        assert after.updated >= before.updated
        assert after.epoch >= before.epoch
        assert after.round in (before.round, before.round + 1)


@given(steps, st.integers(0, 11))
def test_a_task_survives_json_at_any_point(what: list[Any], cut: int) -> None:
    """Going on from the copy gives what never having been written would have given."""
    copy = Task.from_json(json.loads(json.dumps(history(what[:cut])[-1].to_json())))
    assert copy == history(what[:cut])[-1]
    for number, each in enumerate(what[cut:], start=min(cut, len(what))):
        try:
            copy = step(copy, each, now=2.0 + number)
        except (StaleOwnerError, TaskEndedError):
            continue
    assert copy == history(what)[-1]


@given(st.dictionaries(keys, st.just({"method": "m"}), min_size=1), st.lists(answers))
def test_the_first_answer_to_an_ask_counts_and_the_rest_is_ignored(
    wanted: dict[str, Any], updates: list[dict[str, int]]
) -> None:
    """Answers come in any number of parts; once all are there, the task goes on, with them."""
    task = parked(taken(NEW, 1, lease=9), 2, asks=wanted, state=None)
    first: dict[str, int] = {}
    for update in updates:
        task = answered(task, 3, update)
        if wanted.keys() - first.keys():
            first = {k: v for k, v in update.items() if k in wanted} | first
    assert task.answers == first
    assert task.asks.keys() == wanted.keys() - first.keys()
    expected = Status.INPUT_REQUIRED if task.asks else Status.WORKING
    assert task.status is expected


def test_a_task_that_is_left_without_a_question_goes_on_by_itself() -> None:
    task = parked(taken(NEW, 1, lease=9), 2, asks={}, state="mine")
    assert (task.status, task.round, task.state) == (Status.WORKING, 1, "mine")
    assert task.leased_until == 0.0


def test_who_lost_a_task_cannot_write_to_it() -> None:
    """Neither after a takeover, nor after a cancellation, nor while the client is asked."""
    mine = taken(NEW, 1, lease=1)
    yours = taken(mine, 5, lease=1)
    for stolen in (yours, cancelled(mine, 2), parked(yours, 6, asks={"k": {}}, state=None)):
        with pytest.raises(StaleOwnerError):
            held(stolen, mine.epoch)
    assert held(yours, yours.epoch) is yours


@pytest.mark.parametrize("failed", [True, False])
def test_what_has_ended_cannot_be_cancelled(failed: bool) -> None:
    ended = finished(taken(NEW, 1, lease=9), 2, outcome={"a": 1}, failed=failed)
    with pytest.raises(TaskEndedError, match=ended.status):
        cancelled(ended, 3)


def test_only_news_is_an_update() -> None:
    """Holding on to a task, or saying again what was said, is none."""
    task = renewed(taken(NEW, 1, lease=9), 2, lease=9, message="step 1")
    assert (task.updated, task.message) == (2, "step 1")
    for message in ("step 1", ""):
        again = renewed(task, 5, lease=9, message=message)
        assert (again.updated, again.message, again.leased_until) == (2, "step 1", 14)


def test_a_task_is_kept_for_its_time_or_for_ever() -> None:
    assert not expired(replace(NEW, ttl=5), 6.0)
    assert expired(replace(NEW, ttl=5), 6.1)
    assert not expired(replace(NEW, ttl=None), 1e12)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["v", "id", "call", "request", "status"]), json_values))
def test_what_is_no_task_is_refused(data: dict[str, Any]) -> None:
    try:
        assert Task.from_json(data).id == data["id"]
    except StoreError:
        assert (
            data.get("v") != 1
            or not {"id", "call", "request"} <= data.keys()
            or data.get("status") not in list(Status)
        )


def test_a_task_of_a_newer_agentloop_is_refused_and_what_it_added_to_this_one_is_not() -> None:
    with pytest.raises(StoreError, match="version"):
        Task.from_json(NEW.to_json() | {"v": 2})
    assert Task.from_json(NEW.to_json() | {"added": "later"}) == NEW
