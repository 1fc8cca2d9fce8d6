"""Tasks of 2025-11-25 with the TypeScript client of MCP Tasks, where it is installed.

``npm install @modelcontextprotocol/ext-tasks@0.2.2 @modelcontextprotocol/client@2.4.0`` in a
folder, and name its ``node_modules`` in the environment variable ``AGENTLOOP_NODE_MODULES``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agentloop.mcp import mount
from tests.faults.http import serving_http
from tests.tasks.test_tasks_2025 import a_server, agent

MODULES = os.environ.get("AGENTLOOP_NODE_MODULES", "")
DRIVER = Path(__file__).with_name("ext_tasks.mjs")


@pytest.mark.skipif(
    not MODULES or shutil.which("node") is None,
    reason="AGENTLOOP_NODE_MODULES names no folder with @modelcontextprotocol/ext-tasks",
)
@pytest.mark.parametrize(("tool", "kind"), [("needs_a_task", "task"), ("adder", "immediate")])
def test_the_typescript_client_gets_the_result_and_answers_the_asks(
    tool: str, kind: str, tmp_path: Path
) -> None:
    (tmp_path / "node_modules").symlink_to(Path(MODULES).resolve())
    shutil.copy(DRIVER, tmp_path)
    server = a_server()
    mount(server, agent(), name="needs_a_task", task="required")
    with serving_http(server.streamable_http_app) as url:
        run = subprocess.run(
            ["node", DRIVER.name, url, tool],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["kind"], told["result"]["content"][0]["text"]) == (kind, "It is 3.")
    assert len(told["related"]) == 2
    assert all(bool(id) == (kind == "task") for id in told["related"])
