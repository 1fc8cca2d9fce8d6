"""What a provider answered, as JSON: a reply, or an error to be raised again."""

from __future__ import annotations

from typing import Any

from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResult,
    CreateMessageResultWithTools,
)
from pydantic import ValidationError

from agentloop import errors
from agentloop.errors import ProviderError
from agentloop.meta import Reply
from agentloop.text import clean_json


def message_to_json(model: CreateMessageRequestParams | Reply) -> dict[str, Any]:
    """A request or a reply, cleaned like all text that leaves: what is no UTF-8 is not written."""
    return clean_json(model.model_dump(mode="python", by_alias=True, exclude_none=True))


def error_to_json(error: ProviderError) -> dict[str, Any]:
    """An error of a provider, for :func:`read_answer`."""
    told = {
        "code": error.code,
        "message": str(error),
        "status": error.status,
        "request_id": error.request_id,
    }
    return clean_json({name: value for name, value in told.items() if value is not None})


def read_answer(entry: dict[str, Any]) -> Reply | ProviderError:
    """The ``reply`` or the ``error`` of ``entry``, a new one each time.

    Raises :class:`ValueError` or :class:`LookupError` where it is neither.
    """
    if "error" in entry:
        return _error_from_json(entry["error"])
    try:
        if isinstance(entry["reply"]["content"], list):
            return CreateMessageResultWithTools.model_validate(entry["reply"])
        return CreateMessageResult.model_validate(entry["reply"])
    except ValidationError as error:
        raise ValueError(
            f"its reply is no sampling result ({error.error_count()} errors)"
        ) from error


def _error_from_json(data: dict[str, Any]) -> ProviderError:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    known = {k.code: k for k in kinds if issubclass(k, ProviderError)}
    kind = known.get(data["code"], ProviderError)
    return kind(data["message"], status=data.get("status"), request_id=data.get("request_id"))
