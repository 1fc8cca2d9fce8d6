"""Agents on FastMCP 4, which has no sampling loop of its own any more.

    uv run python examples/fastmcp_server.py           # serve on stdio

``summary_of`` is what ``ctx.sample(..., tools=..., result_type=...)`` was in FastMCP 3.
"""

from __future__ import annotations

import textwrap

from fastmcp import FastMCP
from pydantic import BaseModel, Field

from agentloop import Agent, tool
from agentloop.mcp import mount, resumable

mcp = FastMCP("words")


class Summary(BaseModel):
    headline: str = Field(description="At most ten words.")
    words: int


def count_words(text: str) -> int:
    """Count the words of a text."""
    return len(text.split())


@tool(exclusive=True, timeout=5)
def wrap(text: str, width: int = 72) -> str:
    """Wrap a text into lines.

    Args:
        text: The text to wrap.
        width: The longest line, in characters.
    """
    return textwrap.fill(text, width)


summariser = Agent("summariser", "Sum the text up.", output=Summary, tools=[count_words])
typesetter = Agent("typesetter", "Set texts as they are asked for.", tools=[wrap])

mount(mcp, typesetter)


@mcp.tool
@resumable
async def summary_of(text: str) -> Summary:
    """Sum a text up."""
    return (await summariser.run(text)).output


if __name__ == "__main__":
    mcp.run()
