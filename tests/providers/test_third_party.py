"""The contract in the hands of others: three lines prove a provider, and a flaw shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""

PROVIDER = '''
from openai import AsyncOpenAI

from agentloop_providers import OpenAIChatProvider


class MyProvider:
    """A provider of somebody's own; that it is built on another is nobody's business."""

    def __init__(self, backend):
        client = AsyncOpenAI(
            api_key=backend.key, base_url=backend.url, http_client=backend.http_client()
        )
        self._inner = OpenAIChatProvider(backend.model, client=client)

    @property
    def name(self):
        return "mine"

    async def sample(self, request):
        return self.after(await self._inner.sample(self.before(request)))

    def before(self, request):
        return request

    def after(self, reply):
        return reply
'''

TESTS = """
from agentloop.testing.chat_api import ChatBackend
from agentloop.testing.http_contract import HTTPProviderContract
from mine import MyProvider


class TestMine(HTTPProviderContract):
    backend_class = ChatBackend

    def provider(self, backend):
        return MyProvider(backend)
"""

FLAWS = {
    "test_usage_is_what_was_reported": "reply.meta.pop('dev.agentloop/usage')",
    "test_what_the_model_said_goes_back_as_it_was": "reply.meta.pop('dev.agentloop/provider', 0)",
    "test_calls_come_in_their_order": "reply.content.reverse()",
    "test_words_come_as_text": "reply.stop_reason = 'stop'",
    "test_an_answer_comes_as_the_use_of_its_tool": "reply.content.clear()",
    "test_a_typed_run_has_the_transcript_that_it_has_elsewhere": (
        "reply.content[:] = [b.model_copy(update={'name': 'x'}) if b.type == 'tool_use' else b"
        " for b in reply.content]"
    ),
}
"""Flaws of a provider, each with the test that shows it."""


def contract(folder: Path, *options: str) -> tuple[int, str]:
    """The contract as a project of another's runs it: how many tests passed, and what was said."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_mine.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "test_mine.py"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    return int(passed[1]) if passed else 0, done.stdout + done.stderr


def test_three_lines_prove_a_provider(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(PROVIDER)
    passed, said = contract(tmp_path)
    assert "failed" not in said, said
    assert passed > 80


@pytest.mark.parametrize("shows", FLAWS)
def test_a_flaw_shows(tmp_path: Path, shows: str) -> None:
    flawed = PROVIDER.replace(
        "        return reply\n", f"        {FLAWS[shows]}\n        return reply\n"
    )
    (tmp_path / "mine.py").write_text(flawed)
    passed, said = contract(tmp_path, "-k", shows)
    assert passed == 0, said
    assert re.search(r"\d+ failed", said), said
