"""News of tasks for clients that listen, so that they need not ask (SEP-2663, notifications)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import anyio
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.session import ServerSession
from mcp.server.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    InMemorySubscriptionBus,
    ListenHandler,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Notification,
    RequestId,
    ServerNotification,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsListenRequestParams,
)
from pydantic import BaseModel, Field, ValidationError

from agentloop.errors import StoreError
from agentloop.log import log
from agentloop.mcp.alongside import alongside
from agentloop.mcp.tasks.wire import details
from agentloop.output import explain
from agentloop.task import TaskStore

LISTEN = "subscriptions/listen"
MAX_TASKS = 1000
"""Of how many tasks one client is told on one stream."""

Context = ServerRequestContext[Any, Any]


class TaskNews(Notification[dict[str, Any], Literal["notifications/tasks"]]):
    """What a task is doing now."""

    method: Literal["notifications/tasks"] = "notifications/tasks"
    params: dict[str, Any]


class Listeners:
    """The clients that listen for news of tasks.

    They are told at once of what happens in this process, and within ``look_every`` seconds of what
    other servers of the same store do.
    """

    def __init__(self, tasks: TaskStore, *, poll: float, look_every: float) -> None:
        self._tasks, self._poll, self._look_every = tasks, poll, look_every
        self._watches: set[_Watch] = set()
        self._nothing_else = ListenHandler(InMemorySubscriptionBus())

    def tell(self, id: str) -> None:
        """Something has happened to a task."""
        for watch in self._watches:
            watch.note(id)

    async def serve(self, ctx: Context, call_next: CallNext, ids: Iterable[str]) -> HandlerResult:
        """Serve a request to listen, of which ``ids`` are the tasks that the client may see."""
        watch = _Watch(ids)
        told = _Told(ctx.session, sorted(watch.ids))
        inner = replace(ctx, session=cast("ServerSession", told))
        self._watches.add(watch)
        try:
            return await alongside(
                lambda: self._follow(watch, told, ctx.request_id),
                lambda: self._listen(inner, call_next),
            )
        finally:
            self._watches.discard(watch)

    async def _listen(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Listen, also on a server that has nothing else to listen for."""
        try:
            return await call_next(ctx)
        except MCPError as error:
            if error.code != METHOD_NOT_FOUND:
                raise
        nothing = SubscriptionsListenRequestParams(notifications=SubscriptionFilter())
        return await self._nothing_else(ctx, nothing)

    async def _follow(self, watch: _Watch, told: _Told, stream: RequestId | None) -> None:
        await told.acknowledged.wait()
        said: dict[str, Any] = {}
        while watch.ids:
            for id in await watch.changed(self._look_every):
                try:
                    task = await self._tasks.read(id)
                except StoreError as error:
                    log().warning("tasks_not_read", error=str(error))
                    continue
                if task is None or task.status.final:
                    watch.ids.discard(id)
                if task is not None and said.get(id) != (now := details(task, poll=self._poll)):
                    said[id] = now
                    await told.say(now | {"_meta": {SUBSCRIPTION_ID_META_KEY: stream}}, stream)


class _Filter(BaseModel):
    task_ids: list[str] | None = Field(None, alias="taskIds")


class _Wanted(BaseModel):
    notifications: _Filter


def listened_for(params: Mapping[str, Any] | None) -> list[str]:
    """The tasks that a request to listen names. Raises ``MCPError`` for what is no list of ids."""
    try:
        wanted = _Wanted.model_validate(params).notifications.task_ids or ()
    except ValidationError as error:
        text = f"subscriptions/listen: {explain(error, None)}"
        raise MCPError(code=INVALID_PARAMS, message=text) from None
    return list(dict.fromkeys(wanted))[:MAX_TASKS]


class _Watch:
    """The tasks that one client listens for, and which of them to look at."""

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = set(ids)
        self._changed = set(self.ids)  # what they are doing now is the first news
        self._event = anyio.Event()

    def note(self, id: str) -> None:
        if id in self.ids:
            self._changed.add(id)
            self._event.set()

    async def changed(self, seconds: float) -> list[str]:
        """What has changed; after ``seconds`` without a word, anything may have."""
        if not self._changed:
            with anyio.move_on_after(seconds):
                await self._event.wait()
        changed = self._changed or self.ids
        self._changed, self._event = set[str](), anyio.Event()
        return sorted(changed)


class _Told:
    """The session of a client that listens; what is agreed to names its tasks, too."""

    def __init__(self, session: ServerSession, ids: list[str]) -> None:
        self._session, self._ids = session, ids
        self.acknowledged = anyio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def say(self, news: dict[str, Any], stream: RequestId | None) -> None:
        await self._session.send_notification(
            cast("ServerNotification", TaskNews(params=news)), related_request_id=stream
        )

    async def send_notification(
        self, notification: ServerNotification, related_request_id: RequestId | None = None
    ) -> None:
        agreed = isinstance(notification, SubscriptionsAcknowledgedNotification)
        if agreed:
            notification = _naming(notification, self._ids)
        await self._session.send_notification(notification, related_request_id)
        if agreed:
            self.acknowledged.set()


def _naming(
    agreed: SubscriptionsAcknowledgedNotification, ids: list[str]
) -> SubscriptionsAcknowledgedNotification:
    kinds = agreed.params.notifications.model_dump(by_alias=True, exclude_none=True)
    kinds["taskIds"] = ids
    params = agreed.params.model_copy(
        update={"notifications": SubscriptionFilter.model_validate(kinds)}
    )
    return agreed.model_copy(update={"params": params})
