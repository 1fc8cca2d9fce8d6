"""What is checked of histories."""

from __future__ import annotations

from collections.abc import Sequence

from mcp.server.validation import validate_tool_use_result_messages
from mcp_types import SamplingMessage


def assert_balanced(messages: Sequence[SamplingMessage]) -> None:
    """Each tool use is answered once, in order, in a user message that holds nothing else."""
    wanted: list[str] = []
    for number, message in enumerate(messages):
        validate_tool_use_result_messages(list(messages[: number + 1]))
        blocks = message.content_as_list
        given = [block.tool_use_id for block in blocks if block.type == "tool_result"]
        assert given == wanted, f"message {number}"
        if given:
            assert message.role == "user"
            assert len(given) == len(blocks)
        wanted = [block.id for block in blocks if block.type == "tool_use"]
        assert len(set(wanted)) == len(wanted)
        assert all(wanted)
        if wanted:
            assert message.role == "assistant"
    assert wanted == []
