"""The provider itself: a request in, a reply out, and nothing kept in between."""

from __future__ import annotations

from mcp_types import (
    CreateMessageRequestParams,
    CreateMessageResultWithTools,
    SamplingMessageContentBlock,
    TextContent,
    ToolUseContent,
)

from agentloop.errors import DefinitionError
from agentloop.meta import with_usage
from agentloop.output import ANSWER_TOOL
from agentloop.text import clean, clean_json
from agentloop.usage import Usage
from agentloop_providers.offline.answering import answer
from agentloop_providers.offline.conversation import Conversation
from agentloop_providers.offline.evidence import Evidence
from agentloop_providers.offline.planning import Planned, forced, plan
from agentloop_providers.offline.ranking import Ranking
from agentloop_providers.offline.typed import typed_answer


class OfflineProvider:
    """Stands in for a model, without a key and without a network.

    It plans tool calls by the words of the question, follows up on what results name, and answers
    with quotes. The same request always gets the same reply. It is no language model, and says so.
    """

    name = "offline"

    @classmethod
    def from_spec(cls, rest: str) -> OfflineProvider:
        """From ``offline``; there is nothing to set. Raises :class:`DefinitionError`."""
        if rest:
            raise DefinitionError(f"offline:{rest}: the offline provider takes no settings")
        return cls()

    async def sample(self, request: CreateMessageRequestParams) -> CreateMessageResultWithTools:
        """Answer ``request``, or call tools for it. Raises nothing."""
        talk = Conversation(request)
        evidence = Evidence(talk.calls)
        ranking = Ranking(evidence, talk.question)
        calls = plan(talk, evidence, ranking)
        if not calls and talk.choice != "none":
            if talk.answer_tool:
                given = typed_answer(talk, evidence, ranking, talk.answer_tool.input_schema)
                calls = [Planned(ANSWER_TOOL, given)]
            elif talk.choice == "required" and talk.tools:
                calls = [forced(talk, evidence, ranking)]
        if calls:
            return _reply(request, [*_tool_uses(talk, calls)], "toolUse")
        text, stop_reason = _fit(clean(answer(talk, evidence, ranking)), request)
        return _reply(request, [TextContent(text=text)], stop_reason)


def _tool_uses(talk: Conversation, calls: list[Planned]) -> list[ToolUseContent]:
    """The calls with ids that tell them apart in the whole conversation."""
    uses: list[ToolUseContent] = []
    for number, call in enumerate(calls, 1):
        id = f"offline-{talk.replies + 1}-{number}"
        while id in talk.ids:
            id += "x"
        uses.append(ToolUseContent(id=id, name=call.tool, input=clean_json(call.arguments)))
    return uses


def _fit(text: str, request: CreateMessageRequestParams) -> tuple[str, str]:
    """The text as far as the request has room for it, and why it ends where it ends."""
    ends = [text.find(stop) for stop in request.stop_sequences or () if stop and stop in text]
    if ends:
        return text[: min(ends)], "stopSequence"
    room = max(request.max_tokens, 1) * 4
    if len(text.encode()) > room:
        return text.encode()[:room].decode(errors="ignore"), "maxTokens"
    return text, "endTurn"


def _reply(
    request: CreateMessageRequestParams,
    content: list[SamplingMessageContentBlock],
    stop_reason: str,
) -> CreateMessageResultWithTools:
    read = sum(_weigh(block) for message in request.messages for block in message.content_as_list)
    usage = Usage(
        asks=1,
        input_tokens=(read + len(request.system_prompt or "")) // 4 + 1,
        output_tokens=sum(map(_weigh, content)) // 4 + 1,
        estimated="bytes/4",
    )
    return CreateMessageResultWithTools(
        role="assistant",
        content=content,
        model="offline",
        stop_reason=stop_reason,
        _meta=with_usage(None, usage),
    )


def _weigh(block: SamplingMessageContentBlock) -> int:
    """The bytes of text in a block, about."""
    if block.type == "text":
        return len(block.text.encode(errors="replace"))
    if block.type == "tool_use":
        return len(block.name) + len(repr(block.input))
    if block.type == "tool_result":
        return sum(
            len(part.text.encode(errors="replace")) for part in block.content if part.type == "text"
        )
    return len(block.data)
