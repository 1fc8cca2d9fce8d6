"""A function with several agents in it: a planner, writers at the same time, an editor.

The tool is an ordinary async function. Where the client is asked over rounds it is entered again
at each round; nothing in the code shows it. Three writers cost as many rounds as one.

    uv run python examples/report.py            # serve on stdio
    uv run python examples/report.py anyio      # try it here, with the offline stand-in
"""

from __future__ import annotations

import sys
from importlib import metadata

import anyio
from mcp.server.mcpserver import Context, MCPServer
from pydantic import BaseModel, Field

from agentloop import Agent, ToolError, gather
from agentloop.mcp import resumable


class Plan(BaseModel):
    questions: list[str] = Field(min_length=1, max_length=3, description="What to find out.")


class Report(BaseModel):
    title: str
    summary: str
    sections: list[str]


def describe(package: str) -> str:
    """Tell what an installed Python package is for, and who makes it.

    Args:
        package: The name of the package, e.g. ``anyio``.
    """
    facts = _metadata(package)
    names = ("Name", "Version", "Summary", "Author", "Author-email", "License-Expression")
    return "\n".join(f"{name}: {facts[name]}" for name in names if facts[name])


def requirements(package: str) -> list[str]:
    """List what an installed Python package requires.

    Args:
        package: The name of the package, e.g. ``anyio``.
    """
    _metadata(package)
    return metadata.requires(package) or []


def _metadata(package: str) -> metadata.PackageMetadata:
    try:
        return metadata.metadata(package)
    except metadata.PackageNotFoundError:
        raise ToolError(f"There is no package {package!r} installed here.") from None


planner = Agent(
    "planner", "Plan a short report: which questions must it answer?", output=Plan, tools=[describe]
)
writer = Agent("writer", "Answer one question in a few sentences.", tools=[describe, requirements])
editor = Agent("editor", "Sum up the sections in two sentences.")

server = MCPServer("reports")


@server.tool()
@resumable
async def report(package: str, ctx: Context) -> Report:
    """Write a report about an installed Python package."""
    plan = await planner.run(f"Plan a report about the package {package!r}.")
    questions = [f"{question} (package {package!r})" for question in plan.output.questions]
    sections = [part.text for part in await gather(*(writer.run(q) for q in questions))]
    summary = await editor.run("\n\n".join(sections))
    return Report(title=f"About {package}", summary=summary.text, sections=sections)


async def try_it(package: str) -> None:
    """Call the tool the way a client does that speaks 2026-07-28."""
    from agentloop.testing import MockClient
    from agentloop_providers import OfflineProvider

    async with MockClient(server, OfflineProvider(), carrier="rounds") as client:
        result = await client.call_tool("report", {"package": package})
        print(result.content[0].text if result.content[0].type == "text" else result)
        print(f"({len(client.asks)} asks in {client.rounds} rounds)", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        anyio.run(try_it, sys.argv[1])
    else:
        server.run()
