"""OpenTelemetry: runs as spans and metrics, in the GenAI semantic conventions.

::

    from agentloop.telemetry import OpenTelemetry

    await agent.run("...", on_event=OpenTelemetry())

One trace for each run::

    invoke_agent NAME             a run, or the part of it that this process drove
        chat MODEL                an ask, from when it left until it was answered
        execute_tool NAME         a tool call; the calls of a turn stand side by side
            invoke_agent OTHER    a run inside of it

Each span is the current one while its work is done, so what tools and providers record themselves
(HTTP requests, the MCP SDK's own spans) comes to stand below it.

A run that is resumed elsewhere takes its trace along (``Run.trace``). There it gets another
``invoke_agent`` span, marked ``agentloop.resumed``, below the first one and linked to the request
that brought it back; or below that request, where it is part of the same trace. An ask that is
answered in another process than it left from is recorded there, from the time at which it left
(``Run.asked``), so by two clocks. A process that is done with a run leaves no span open.

Metrics, once a second and when a run ends::

    gen_ai.client.inference.duration               of asks
    gen_ai.client.inference.usage.*_tokens         as reported; estimates do not count
    gen_ai.execute_tool.duration
    gen_ai.invoke_agent.duration, .inference_calls (steps), .tool_calls
    agentloop.stops                                runs that ended, by how

and, for a server that has :func:`backlog` entered::

    agentloop.tasks                                a gauge of tasks, by their state

Names are those of semantic-conventions-genai v0.1.0, and ``agentloop.*`` for what it has none for.
"""

from agentloop.telemetry.backlog import backlog
from agentloop.telemetry.spans import OpenTelemetry

__all__ = ["OpenTelemetry", "backlog"]
