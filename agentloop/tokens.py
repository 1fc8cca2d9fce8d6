"""How many tokens an ask took, where the provider does not say.

A ladder: what the provider reports; else ``tiktoken``, labelled with its encoding; else four bytes
a token, labelled ``bytes/4``. Every estimate is labelled in ``Usage.estimated``: no encoding is
that of every model, and none knows how a provider frames roles, tools and images.

``tiktoken`` downloads its tables on first use. Here nothing is ever downloaded: a table counts
only if it is in tiktoken's cache already (``TIKTOKEN_CACHE_DIR``), so an ask never waits for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
from mcp_types import (
    CreateMessageRequestParams,
    SamplingMessage,
    SamplingMessageContentBlock,
    Tool,
)

from agentloop.errors import DefinitionError
from agentloop.memo import Memo
from agentloop.meta import Reply, usage_of, with_usage
from agentloop.provider import Provider
from agentloop.usage import Usage

if TYPE_CHECKING:
    from tiktoken import Encoding

BYTES = "bytes/4"
"""The label of the rule of thumb: a token is four bytes of UTF-8."""

MEDIA_TOKENS = 1500
"""An image or an audio clip, about."""

_FRAME_TOKENS = 4
"""What the role and the borders of a message or a tool take, about."""

_CHUNK = 8192
"""Characters encoded at a time: tiktoken is slow, or fails, on very long words."""

_TABLES = {
    "o200k_base": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "o200k_harmony": (
        "fb374d419588a4632f3f557e76b4b70aebbca790",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
    "cl100k_base": (
        "9b5ad71b2ce5302211f9c61530b329a4922fc6a4",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
}
"""For each encoding its file in tiktoken's cache (the SHA-1 of its address), and its SHA-256."""


class TokenCounter:
    """Counts tokens; each message and tool once, however often it is sent."""

    def __init__(self, encoding: str | Encoding | None = "o200k_base") -> None:
        """``encoding`` is the name of one of tiktoken's, used if its table is on this machine; an
        encoding of your own; or None for the rule of thumb. Raises :class:`DefinitionError` for
        an unknown name."""
        if isinstance(encoding, str) and encoding not in _TABLES:
            raise DefinitionError(
                f"there is no encoding {encoding!r} here: {', '.join(_TABLES)}, or a "
                "tiktoken.Encoding"
            )
        self._wanted = encoding if isinstance(encoding, str) else None
        self._encoding = None if isinstance(encoding, str) else encoding
        self._counts: Memo[int] = Memo()
        self._prompt = ("", 0)

    @property
    def label(self) -> str:
        """How this counts: the name of an encoding, or ``bytes/4``."""
        self.load()
        return self._encoding.name if self._encoding else BYTES

    def load(self) -> None:
        """Read the table, if there is one; takes up to a second, once. Raises nothing."""
        if self._wanted is not None:
            self._encoding = _cached_encoding(self._wanted)
            self._wanted = None

    @property
    def loaded(self) -> bool:
        """Whether the table was read, or found missing."""
        return self._wanted is None

    def count(self, text: str) -> int:
        """The tokens of ``text``."""
        self.load()
        if self._encoding is None:
            return (_size(text) + 3) // 4
        pieces = (text[at : at + _CHUNK] for at in range(0, len(text), _CHUNK))
        return sum(len(self._encoding.encode_ordinary(piece)) for piece in pieces)

    def usage(self, request: CreateMessageRequestParams, reply: Reply) -> Usage:
        """The usage of one ask, estimated."""
        content = reply.content if isinstance(reply.content, list) else [reply.content]
        spoken = sum(self._counts.get(m, lambda m=m: self._message(m)) for m in request.messages)
        offered = sum(self._counts.get(t, lambda t=t: self._tool(t)) for t in request.tools or ())
        return Usage(
            asks=1,
            input_tokens=self._system(request.system_prompt or "") + offered + spoken,
            output_tokens=self._blocks(content),
            estimated=self.label,
        )

    def _system(self, prompt: str) -> int:
        if self._prompt[0] != prompt:
            self._prompt = (prompt, self.count(prompt))
        return self._prompt[1]

    def _message(self, message: SamplingMessage) -> int:
        return _FRAME_TOKENS + self._blocks(message.content_as_list)

    def _tool(self, tool: Tool) -> int:
        described = f"{tool.name} {tool.description or ''} {_json(tool.input_schema)}"
        return _FRAME_TOKENS + self.count(described)

    def _blocks(self, content: Iterable[SamplingMessageContentBlock]) -> int:
        tokens = 0
        for block in content:
            if block.type == "text":
                tokens += self.count(block.text)
            elif block.type == "tool_use":
                tokens += self.count(f"{block.name} {_json(block.input)}")
            elif block.type == "tool_result":
                tokens += sum(
                    self.count(part.text) if part.type == "text" else MEDIA_TOKENS
                    for part in block.content
                )
                if block.structured_content is not None:
                    tokens += self.count(_json(block.structured_content))
            else:
                tokens += MEDIA_TOKENS
        return tokens


class Counted:
    """Another provider, with an estimated usage on each reply that reports none.

    Wrap what really asks: inside ``Emulated``, so that the tools in its prompts are counted.
    """

    def __init__(self, provider: Provider, encoding: str | Encoding | None = "o200k_base") -> None:
        """For ``encoding`` see :class:`TokenCounter`."""
        self._provider = provider
        self._counter = TokenCounter(encoding)

    @property
    def name(self) -> str:
        return self._provider.name

    async def sample(self, request: CreateMessageRequestParams) -> Reply:
        """The provider's reply; its usage is the provider's own wherever there is one."""
        reply = await self._provider.sample(request)
        reported = usage_of(reply)
        if reported is not None and reported.total_tokens:
            return reply
        if not self._counter.loaded:
            await anyio.to_thread.run_sync(self._counter.load)
        usage = self._counter.usage(request, reply)
        return reply.model_copy(update={"meta": with_usage(reply.meta, usage)})


def _cached_encoding(name: str) -> Encoding | None:
    """tiktoken's encoding of that name, if its table is in the cache, whole and unchanged.

    tiktoken would delete a table that has changed, and would download one that is not there.
    """
    file, digest = _TABLES[name]
    folder = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if folder is None:
        folder = str(Path(tempfile.gettempdir()) / "data-gym-cache")
    if not folder:  # tiktoken's way to say: no cache
        return None
    try:
        if hashlib.sha256((Path(folder) / file).read_bytes()).hexdigest() != digest:
            return None
        import tiktoken

        return tiktoken.get_encoding(name)
    except (ImportError, OSError, ValueError):
        return None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)
