"""From what went wrong with a request to a typed error that names no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import httpx2

from agentloop.errors import (
    AskTimeoutError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    MalformedReplyError,
    OverloadedError,
    ProviderError,
    UnreachableError,
)
from agentloop.text import clean
from agentloop_providers.retry import Failure, retry_after


class Refused(BadRequestError):
    """The API's policy refused the request; for a run that is a refusal, not an error."""


_BY_CODE: dict[str, type[ProviderError]] = {
    "authentication_error": AuthenticationError,
    "permission_error": AuthenticationError,
    "billing_error": AuthenticationError,
    "insufficient_quota": AuthenticationError,
    "context_length_exceeded": ContextOverflowError,
    "exceed_context_size_error": ContextOverflowError,
    "overloaded_error": OverloadedError,
    "rate_limit_error": OverloadedError,
    "rate_limit_exceeded": OverloadedError,
    "api_error": OverloadedError,
    "timeout_error": OverloadedError,
    "server_error": OverloadedError,
    "invalid_request_error": BadRequestError,
    "not_found_error": BadRequestError,
}
"""What the APIs call it in an error's ``type`` or ``code``; tells more than the status."""

_PASSING = frozenset({408, 409, 425, 429})
"""Errors below 500 that may pass."""

_REFUSALS = frozenset({"content_filter", "invalid_prompt"})

_OVERFLOW = re.compile(
    r"prompt is too long|context (length|window|size)|maximum context|too many (input )?tokens"
    r"|exceed\w* .{0,40}\bcontext\b",
    re.IGNORECASE,
)

_TOKEN = re.compile(r"\b(sk|pk|rk|key)-[\w*.-]{6,}|\bBearer\s+\S+", re.IGNORECASE)


def redacted(text: str, *secrets: str | None) -> str:
    """``text`` on one line, at most 500 characters of it, without keys."""
    for secret in secrets:
        if secret and len(secret) >= 4:
            text = text.replace(secret, "***")
    text = " ".join(clean(_TOKEN.sub("***", text)).split())
    return text if len(text) <= 500 else text[:500] + "..."


def status_failure(
    status: int, body: object, headers: Mapping[str, str], *secrets: str | None
) -> Failure:
    """The failure that a response with an error in it stands for."""
    said, codes = read_error(body)
    kind = _kind(status, said, codes)
    said = redacted(said, *secrets)
    known = ", ".join([f"HTTP {status}"] * (status >= 300) + codes[:1])
    again = kind.retryable and headers.get("x-should-retry") != "false"
    error = kind(
        redacted(f"{known}: {said}" if said and known else said or known, *secrets),
        status=status,
        request_id=headers.get("request-id") or headers.get("x-request-id"),
    )
    return Failure(error, again=again, wait=retry_after(headers))


def read_error(body: object) -> tuple[str, list[str]]:
    """The message in an error's body, and its codes; the text of a page in HTML is left out."""
    if isinstance(body, str):
        return ("" if body.lstrip().startswith("<") else body), []
    if not isinstance(body, dict):
        return "", []
    given = cast("dict[str, Any]", body)
    inner: object = given.get("error", given)
    if isinstance(inner, str):
        return inner, []
    if not isinstance(inner, dict):
        return "", []
    error = cast("dict[str, Any]", inner)
    codes = [error[key] for key in ("code", "type") if isinstance(error.get(key), str)]
    for key in ("message", "detail", "msg"):
        if isinstance(error.get(key), str):
            return error[key], codes
    return "", codes


def _kind(status: int, said: str, codes: list[str]) -> type[ProviderError]:
    if any("policy" in code or code in _REFUSALS for code in codes):
        return Refused
    kind = next((_BY_CODE[code] for code in codes if code in _BY_CODE), None)
    if kind in (None, BadRequestError) and status < 429 and _OVERFLOW.search(said):
        return ContextOverflowError
    if status < 400:  # an error inside of a response: there is only its code to go by
        return kind or MalformedReplyError
    if status in (401, 402, 403):
        return AuthenticationError
    if kind in (AuthenticationError, ContextOverflowError):
        return kind
    if status == 413:
        return ContextOverflowError
    return OverloadedError if status in _PASSING or status >= 500 else BadRequestError


def exception_failure(
    error: Exception, sdk: Any, host: str, *secrets: str | None, url: str
) -> Failure:
    """The failure that an exception of an SDK, or of the HTTP client below it, stands for."""
    if isinstance(error, sdk.APIStatusError):
        known = cast("Any", error)
        response: httpx2.Response = known.response
        return status_failure(response.status_code, known.body, response.headers, *secrets)
    if isinstance(error, sdk.APITimeoutError | httpx2.TimeoutException):
        return Failure(AskTimeoutError(f"no answer from {host} in time"), again=True)
    if isinstance(error, sdk.APIConnectionError):
        return _broken(error.__cause__ or error, host, url)
    if isinstance(error, httpx2.RequestError):
        return _broken(error, host, url)
    if isinstance(error, UnicodeEncodeError):
        return Failure(BadRequestError("the request holds text that is no Unicode"), again=False)
    # What an SDK raises without sending: no key, a value that it does not take.
    what = redacted(f"{type(error).__name__}: {error}", *secrets)
    return Failure(BadRequestError(f"the request could not be made: {what}"), again=False)


def _broken(error: BaseException, host: str, url: str) -> Failure:
    """A connection that did not come about, or broke."""
    name = type(error).__name__  # not its text, which may quote a header
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.LocalProtocolError | ValueError):
        problem = f"the request to {host} could not be made: {name}"
        return Failure(BadRequestError(problem), again=False)
    if isinstance(error, httpx2.ConnectError):
        said = f" ({reason})" if (reason := redacted(str(error))) else ""  # no header was sent yet
        problem = f"{url} could not be reached{said}: is it running, and is base_url right?"
        return Failure(UnreachableError(problem), again=True)  # it may be starting
    return Failure(OverloadedError(f"no connection to {host}: {name}"), again=True)
