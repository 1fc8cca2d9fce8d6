"""Asking the person behind a call: for a value, for a visit to a page, for a yes.

Works in tools and in served functions, on every carrier (elicitation, SEP-1036 for URLs). Over
rounds the function is entered again with the answer; what it was told before is remembered.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

import anyio
from mcp_types import (
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitRequestURLParams,
    ElicitResult,
)
from pydantic import BaseModel, ValidationError

from agentloop.errors import AgentLoopError, DefinitionError, ToolError, where
from agentloop.log import log
from agentloop.output import explain
from agentloop.patience import granting
from agentloop.place import HERE, Place
from agentloop.secret import hidden
from agentloop.strays import stray
from agentloop.text import clean, cut
from agentloop.threads import work_of
from agentloop.tools import Tool, is_async

FormT = TypeVar("FormT", bound=BaseModel)

_SECRETS = re.compile(
    r"pass(word|wd|phrase|code)|secret|token|credential|(credit|debit)_?card|card_?n|cv[vc]"
    r"|(api|access|private|signing|encryption|ssh)_?key|^(key|card|pin|pwd|otp)$",
    re.I,
)
_PRIMITIVES = frozenset({"string", "number", "integer", "boolean"})


class UserDeclined(ToolError):
    """The person said no, or closed the question without an answer."""


async def ask_user(message: str, form: type[FormT]) -> FormT:
    """Ask the person to fill in ``form``, a model of plain fields, and give what they entered.

    Raises :class:`UserDeclined` where they did not, :class:`ToolError` where the client cannot ask
    them or their answer does not fit, and :class:`DefinitionError` for a form that the protocol
    does not allow: nested fields, or fields for secrets (use :func:`ask_url` for those).
    """
    params = ElicitRequestFormParams(message=clean(message), requested_schema=_flat(form))
    answer = await _ask(params)
    try:
        return form.model_validate(answer.content or {})
    except ValidationError as error:
        raise ToolError(f"The user's answer does not fit: {explain(error, None)}") from error


async def ask_url(message: str, url: str) -> None:
    """Ask the person to visit ``url``, where they give secrets to the server and not to the client.

    Returning means that they agreed to go there, not that they are done there. Raises
    :class:`UserDeclined` where they did not, :class:`ToolError` where the client cannot ask them,
    and :class:`DefinitionError` for a URL that is not https or carries credentials: in its
    authority, in a parameter that is named like one, or anywhere a secret that is known.
    """
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise DefinitionError("ask_url: an https:// URL, or http:// on this machine")
    named = next((n for n, _ in parse_qsl(parts.query) if _SECRETS.search(n)), None)
    if parts.username or parts.password or named or hidden(url) != url:
        what = f" (its parameter {named!r} looks like one)" if named else ""
        raise DefinitionError(f"ask_url: the URL must not carry credentials{what}")
    await _ask(ElicitRequestURLParams(message=clean(message), url=url))


async def refusal(
    tool: Tool, arguments: dict[str, Any], place: Place, *, seconds: float = math.inf
) -> str | None:
    """Why the call at ``place`` may not run; None where it needs no approval or has it.

    Whatever goes wrong about an approval is a no, and so is none within ``seconds``.
    """
    until = time.monotonic() + seconds
    try:
        question = await _question(tool, arguments, seconds)
        if question is None:
            return None
        params = ElicitRequestFormParams(
            message=question, requested_schema={"type": "object", "properties": {}}
        )
        await _ask(params, place, until - time.monotonic())
    except UserDeclined:
        return "Not run: the user did not approve it."
    except ToolError as error:
        return f"Not run: it needs a person's approval. {error}"
    return None


async def _question(tool: Tool, arguments: dict[str, Any], seconds: float) -> str | None:
    wanted: Any = tool.approve
    if callable(wanted):
        wanted = await _decided(tool, wanted, arguments, seconds)
    if not wanted:
        return None
    if isinstance(wanted, str):
        return clean(cut(wanted, 4096))
    given = json.dumps(arguments, ensure_ascii=False, default=str)
    return clean(f"Allow the tool {tool.name!r} to run with {cut(given, 1024)}?")


async def _decided(
    tool: Tool, decide: Callable[..., Any], arguments: dict[str, Any], seconds: float
) -> Any:
    """What the author's function says of a call. It may hang or break like any other."""
    errand = stray(work_of(decide, arguments, is_async=is_async(decide)))
    try:
        if not await errand.wait(min(tool.timeout or math.inf, seconds)):
            await errand.stop(tool.grace)
            raise ToolError("It was not decided in time whether to ask.")
    except anyio.get_cancelled_exc_class():
        if not errand.ended:
            await errand.stop(tool.grace)
        raise
    if errand.cancelled or errand.error is not None:
        _log("approval_failed", errand.error, tool=tool.name)
        raise ToolError("It could not be decided whether to ask.")
    return errand.value


async def _ask(
    params: ElicitRequestParams, here: Place | None = None, seconds: float = math.inf
) -> ElicitResult:
    here = here or HERE.get()
    if here is None:
        raise ToolError("There is nobody to ask: this does not run for a client.")
    place = here.below()
    answer = None
    try:
        with granting() as place.patience:
            place.patience.grant(seconds)
            answer = await here.host.ask_user(place, params)
    except (ToolError, AgentLoopError):
        raise
    except Exception as error:  # noqa: BLE001  who answers for the user is the author's code
        _log("user_not_asked", error)
        raise ToolError("The user could not be asked.") from None
    finally:
        place.leave()
    if answer is None:
        raise ToolError("The user did not answer in time.")
    if answer.action != "accept":
        raise UserDeclined(
            "The user declined." if answer.action == "decline" else "The user gave no answer."
        )
    return answer


def _log(event: str, error: BaseException | None, **fields: Any) -> None:
    """Log that ``error`` happened, without its text, which may hold secrets."""
    at = where(error) if error else None
    log().warning(event, error_type=type(error).__name__, at=at, **fields)


def _flat(form: type[BaseModel]) -> dict[str, Any]:
    """The form's schema as the protocol wants it: one level of plain fields."""
    schema = form.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})
    for name, field in schema.get("properties", {}).items():
        if _SECRETS.search(name):
            raise DefinitionError(
                f"ask_user: {name!r} looks like a secret, which no form may ask for: use ask_url"
            )
        schema["properties"][name] = _plain(form, name, field, definitions)
    return schema


def _plain(
    form: type[BaseModel], name: str, field: dict[str, Any], definitions: dict[str, Any]
) -> dict[str, Any]:
    if "$ref" in field:
        reference = cast("str", field["$ref"]).rpartition("/")[2]
        field = {**definitions[reference], **{k: v for k, v in field.items() if k != "$ref"}}
    choices: list[dict[str, Any]] = field.get("anyOf", [])
    given = [choice for choice in choices if choice.get("type") != "null"]
    if len(given) == 1:
        field = {**given[0], **{k: v for k, v in field.items() if k != "anyOf"}}
    if field.get("default", ...) is None:
        field = {k: v for k, v in field.items() if k != "default"}
    chosen_from = field.get("type") == "array" and "enum" in field.get("items", {})
    if field.get("type") not in _PRIMITIVES and not chosen_from:
        raise DefinitionError(
            f"ask_user: field {name!r} of {form.__name__} is no plain value "
            "(text, number, yes or no, or a choice)"
        )
    return field
