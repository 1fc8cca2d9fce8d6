"""``agentloop run``: one run of an agent, watched, and its answer."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from agentloop.cli import EARLY, FAILED, _options
from agentloop.errors import DefinitionError

if TYPE_CHECKING:
    from agentloop.agent import Agent
    from agentloop.provider import Provider
    from agentloop.result import RunResult
    from agentloop.transcript_file import TranscriptFile

SUMMARY = "run an agent on a prompt and print its answer"

STAND_IN = "offline"


def configure(parser: argparse.ArgumentParser) -> None:
    _options.add_agent(parser)
    parser.add_argument("prompt", metavar="PROMPT", help="what to ask; - reads it from stdin")
    parser.add_argument(
        "--provider",
        metavar="SPEC",
        help="who answers for the model, e.g. anthropic:MODEL; default: the agent's own, else "
        f"{STAND_IN}, a stand-in that is no language model (see: agentloop providers)",
    )
    parser.add_argument(
        "--carrier",
        choices=("direct", "push", "rounds", "task"),
        default="direct",
        help="how asks travel to it: direct, or through a real MCP server and client (default: "
        "%(default)s)",
    )
    _options.add_limits(parser)
    parser.add_argument("--save", metavar="FILE", help="write the transcript (see: agentloop show)")
    recording = parser.add_mutually_exclusive_group()
    recording.add_argument("--record", metavar="FILE", help="record what the model says")
    recording.add_argument("--replay", metavar="FILE", help="answer from a recording, not a model")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.add_argument("--quiet", action="store_true", help="do not show progress")
    parser.add_argument(
        "--backend",
        choices=("asyncio", "trio"),
        default="asyncio",
        help="the event loop to run in (default: %(default)s)",
    )


def execute(options: argparse.Namespace) -> int:
    """Run the agent. Progress goes to stderr, the answer and nothing else to stdout."""
    import anyio

    from agentloop.cli._load import load, opened
    from agentloop.cli._terminal import stdout_for_answers

    arguments = _options.pairs("--arg", options.arg)
    limits = _options.pairs("--limit", options.limit)
    if find_spec(options.backend) is None:
        raise DefinitionError(f"--backend {options.backend}: try: pip install {options.backend}")
    prompt = _prompt(options.prompt)
    with stdout_for_answers():
        provider = _options.provider_of(options.provider) if options.provider else None
        loaded = load(options.agent, arguments)

        async def run() -> RunResult[Any]:
            async with _options.closing(provider), opened(options.agent, loaded) as agent:
                return await _run(_options.limited(agent, limits), prompt, provider, options)

        result = anyio.run(run, backend=options.backend)
    return _report(result, as_json=options.json)


def _prompt(given: str) -> str:
    if given == "-":
        if reconfigure := getattr(sys.stdin, "reconfigure", None):
            reconfigure(errors="replace")
        given = sys.stdin.read().rstrip("\n")
    if not given.strip():
        raise DefinitionError("the prompt is empty")
    return given


async def _run(
    agent: Agent[Any], prompt: str, provider: Provider | None, options: argparse.Namespace
) -> RunResult[Any]:
    from agentloop.cli._live import shown
    from agentloop.cli._terminal import remark
    from agentloop.events import all_of
    from agentloop.replay import Recorder, Replayer
    from agentloop.testing.carry import carry

    provider = provider or agent.provider
    if options.replay:
        provider = Replayer(options.replay)
    if provider is None:
        provider = _options.provider_of(STAND_IN)
        if not options.quiet:
            remark(
                "No model is configured: a stand-in answers that is no language model "
                "(--provider SPEC for a real one)."
            )
    if options.record:
        provider = Recorder(provider, options.record)
    with ExitStack() as stack:
        sink = stack.enter_context(_saved(options.save)) if options.save else None
        progress = stack.enter_context(shown(quiet=options.quiet))
        return await carry(
            agent,
            prompt,
            provider=provider,
            carrier=options.carrier,
            on_event=all_of(progress, sink) if sink else progress,
        )


def _saved(file: str) -> TranscriptFile:
    from agentloop.transcript_file import TranscriptFile

    try:
        return TranscriptFile(file)
    except OSError as error:
        raise DefinitionError(f"--save {file}: {error.strerror or error}") from error


def _report(result: RunResult[Any], *, as_json: bool) -> int:
    """Print the answer, or what there is of one, and say how the run ended."""
    from agentloop.cli._terminal import complain, say
    from agentloop.run import Stop

    data = result.to_json()
    answer = data["text"] if data["output"] is None else data["output"]
    if as_json:
        # ASCII only: no terminal and no encoding makes anything else of it.
        print(json.dumps(data))
    elif not isinstance(answer, str):
        say(json.dumps(answer, indent=2, ensure_ascii=False))
    elif answer.strip():
        say(answer)
    if result.stop is Stop.DONE:
        return 0
    sys.stdout.flush()
    complain(result.story())
    return FAILED if result.stop in (Stop.FAILED, Stop.DENIED) else EARLY
