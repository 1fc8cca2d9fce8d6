"""What servers say went wrong, as typed errors."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop.errors import (
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    MalformedReplyError,
    OverloadedError,
    ProviderError,
)
from agentloop_providers._failures import Refused, redacted, status_failure


def said(message: str, **more: str) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, said("You exceeded your quota", code="insufficient_quota"), AuthenticationError),
        (429, said("Request too large: 40000 tokens per min"), OverloadedError),
        (400, said("This model's maximum context length is 8192 tokens"), ContextOverflowError),
        (400, said("too long", code="context_length_exceeded"), ContextOverflowError),
        (400, said("the request exceeds the available context size"), ContextOverflowError),
        (500, said("too long", type="exceed_context_size_error"), ContextOverflowError),
        (400, said("no", type="invalid_request_error"), BadRequestError),
        (400, said("no", code="content_filter"), Refused),
        (400, {"error": "model not loaded"}, BadRequestError),
        (404, {"detail": "Not Found"}, BadRequestError),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, BadRequestError),
        (404, "<!doctype html><title>404</title>", BadRequestError),
        (418, None, BadRequestError),
        (302, "", MalformedReplyError),
        (500, [1], OverloadedError),
        (200, said("slow down", type="overloaded_error"), OverloadedError),
        (200, said("odd", type="odd"), MalformedReplyError),
    ],
)
def test_the_kind_of_an_error(status: int, body: Any, kind: type[ProviderError]) -> None:
    failure = status_failure(status, body, {"x-request-id": "req_1"})
    assert type(failure.error) is kind
    assert failure.again is kind.retryable
    assert failure.error.request_id == "req_1"
    assert "<" not in str(failure.error)


def test_a_server_may_say_that_another_attempt_is_of_no_use() -> None:
    failure = status_failure(503, said("down for today"), {"x-should-retry": "false"})
    assert isinstance(failure.error, OverloadedError)
    assert not failure.again


def test_a_message_is_one_short_line() -> None:
    error = status_failure(400, said("first\nsecond " + "x" * 9999), {}).error
    assert "\n" not in str(error)
    assert "first second" in str(error)
    assert len(str(error)) < 600


@pytest.mark.parametrize(
    "text",
    [
        "Incorrect API key: secret-1234",
        "Incorrect API key: sk-proj-abcdefgh12345678",
        "authorization: Bearer abc.def-ghi",
        "token sk-ant-api03-abcdefgh",
    ],
)
def test_keys_are_left_out(text: str) -> None:
    shown = redacted(text, "secret-1234", None, "")
    assert shown.endswith("***")
    assert not any(part in shown for part in ("1234", "abcdefgh", "abc.def"))
