"""Every Python block in the docs runs, page by page, top to bottom."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from tests.engine import needs_engine_on_sqlite

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


def blocks(page: str) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the line that it begins in."""
    text = (DOCS / page).read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text[: match.start()].count("\n") + 1, match[1]) for match in found]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)])
async def test_every_block_of_the_page_runs(
    page: str, anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = " ".join(block.lower() for _, block in blocks(page))
    if anyio_backend == "trio" and ("fastmcp" in text or "agentloop.durable" in text):
        pytest.skip("FastMCP and DBOS run on asyncio only")
    if "agentloop.durable" in text:
        needs_engine_on_sqlite()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.removesuffix(".md")}
    for line, block in blocks(page):
        code = compile("\n" * line + block, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        ran = eval(code, names)
        if inspect.iscoroutine(ran):
            await ran


def test_every_page_is_in_the_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page for page in PAGES if page not in navigation] == []
    assert [page for page in re.findall(r"\w[\w-]*\.md", navigation) if page not in PAGES] == []
