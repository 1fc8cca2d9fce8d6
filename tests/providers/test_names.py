"""Names that are fitted to an API come back as they were."""

from __future__ import annotations

import re
import string

from hypothesis import given
from hypothesis import strategies as st

from agentloop_providers._names import Fitted, fits

MCP_NAMES = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=128)
"""SEP-986."""

ANY_NAMES = st.one_of(
    MCP_NAMES, st.sampled_from(["a.b", "a_b", "a_b_", "a-b"]), st.text(max_size=9)
)


@given(st.lists(ANY_NAMES, max_size=12), st.lists(ANY_NAMES, max_size=6), st.sampled_from([40, 64]))
def test_every_name_fits_is_its_own_and_comes_back(
    offered: list[str], seen: list[str], limit: int
) -> None:
    names = Fitted(limit, offered)
    fitted = {name: names.fit(name) for name in [*offered, *seen]}
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", name) for name in fitted.values())
    assert all(len(name) <= limit for name in fitted.values())
    assert len(set(fitted.values())) == len(fitted)
    assert all(names.original(native) == name for name, native in fitted.items())


@given(st.lists(ANY_NAMES, max_size=12, unique=True))
def test_a_name_that_fits_stays_and_the_others_are_the_same_every_time(offered: list[str]) -> None:
    first, second = Fitted(64, offered), Fitted(64, offered)
    assert all(first.fit(name) == name for name in offered if fits(name))
    assert [first.fit(name) for name in offered] == [second.fit(name) for name in offered]


def test_a_name_that_nobody_offered_is_left_as_it_is() -> None:
    assert Fitted(64, ["a.b"]).original("invented") == "invented"


def test_an_id_that_comes_again_gets_another_one() -> None:
    ids = Fitted()
    first, second = ids.again("call_0"), ids.again("call_0")
    assert first == "call_0"
    assert second not in ("call_0", "")
    assert ids.fit("call_0") == second


def test_an_id_of_the_api_itself_stays_whatever_it_looks_like() -> None:
    assert Fitted(40).again("fc:1|" + "x" * 60, known_to_api=True) == "fc:1|" + "x" * 60
