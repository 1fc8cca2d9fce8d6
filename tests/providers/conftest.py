"""What the tests of providers share."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite(
    "agentloop.testing.provider_contract", "agentloop.testing.http_contract"
)
