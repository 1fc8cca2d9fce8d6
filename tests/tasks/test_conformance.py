"""MCP's own conformance suite, on the tasks and the rounds of a server of ours.

``npm install --prefix DIR @modelcontextprotocol/conformance node@24`` installs it; the folder is
``.conformance`` here, or what ``AGENTLOOP_CONFORMANCE`` says.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = Path(os.environ.get("AGENTLOOP_CONFORMANCE", ROOT / ".conformance")) / "node_modules"
SUITE = MODULES / ".bin" / "conformance"
NODE = MODULES / "node" / "bin" / "node"

pytestmark = pytest.mark.skipif(
    not (SUITE.exists() and NODE.exists()), reason="the conformance suite is not installed"
)

CHECKS = {
    "tasks-lifecycle": 9,
    "tasks-capability-negotiation": 5,
    "tasks-wire-fields": 4,
    "tasks-request-state-removal": 3,
    "tasks-mrtr-input": 4,
    "tasks-request-headers": 5,
    "tasks-dispatch-and-envelope": 9,
    "tasks-required-task-error": 3,
    "tasks-mrtr-composition": 2,
    "tasks-status-notifications": 0,  # the suite leaves it out by itself
    "input-required-result-basic-sampling": 3,
    "input-required-result-unsupported-methods": 2,
    "input-required-result-request-state": 3,
    "input-required-result-tampered-state": 2,
    "input-required-result-multi-round": 4,
    "input-required-result-capability-check": 2,
}
"""How many checks of each scenario pass: all that it makes."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.tasks.conformance_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}/mcp"
        server.terminate()


@pytest.mark.parametrize("scenario", CHECKS)
def test_all_checks_pass(scenario: str, url: str, tmp_path: Path) -> None:
    """None fails, and as many pass as there are: a scenario that checks nothing is no success."""
    command = [NODE, SUITE, "server", "--url", url, "--scenario", scenario, "-o", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    [report] = tmp_path.glob("*/checks.json")
    by_status: dict[str, list[str]] = {}
    for check in json.loads(report.read_text()):
        said = f"{check['id']} {check.get('errorMessage', '')}".rstrip()
        by_status.setdefault(check["status"], []).append(said)

    passed = by_status.pop("SUCCESS", [])
    print(f"{scenario}: {len(passed)} checks passed", *passed, sep="\n  ")  # noqa: T201
    by_status.pop("SKIPPED", None)
    assert by_status == {}, ran.stdout[-2000:]
    assert len(passed) == CHECKS[scenario]
