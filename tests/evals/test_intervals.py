"""How sure figures are said to be."""

from __future__ import annotations

import random

import pytest

from agentloop.evals.intervals import difference, estimate


def test_without_repeats_it_is_wilsons_interval() -> None:
    # 8 of 10, from tables of the Wilson score interval.
    found = estimate([[1.0]] * 8 + [[0.0]] * 2)
    assert found is not None
    assert found.mean == 0.8
    assert found[1:] == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_all_right_is_not_certainty() -> None:
    found = estimate([[1.0]] * 20)
    assert found is not None
    assert (found.mean, found.high) == (1, 1)
    assert found.low == pytest.approx(0.8389, abs=1e-4)


def test_repeats_make_a_case_surer_but_are_no_further_cases() -> None:
    once = estimate([[1.0], [0.0]] * 10)
    same = estimate([[1.0] * 5, [0.0] * 5] * 10)
    mixed = estimate([[1.0, 0.0, 1.0, 0.0]] * 20)
    assert once
    assert same
    assert mixed
    assert same[1:] == pytest.approx(once[1:], abs=0.02)
    assert mixed.high - mixed.low < once.high - once.low


def test_no_values_have_no_interval() -> None:
    assert estimate([]) is None
    assert estimate([[]]) is None
    assert difference([]) is None


def test_a_difference_of_a_few_pairs_that_are_alike_is_not_certain() -> None:
    found = difference([0.0] * 5)
    assert found is not None
    assert found.low < 0 < found.high
    assert found.mean == 0


def test_a_clear_difference_is_one() -> None:
    found = difference([1.0] * 12 + [0.0] * 8)
    assert found is not None
    assert found.mean == 0.6
    assert found.low > 0.2


@pytest.mark.parametrize(("p", "cases"), [(0.5, 30), (0.9, 20), (0.2, 50)])
def test_an_interval_holds_the_truth_about_95_times_of_100(p: float, cases: int) -> None:
    chance = random.Random(7)
    held = 0
    for _ in range(1000):
        found = estimate([[float(chance.random() < p)] for _ in range(cases)])
        assert found
        held += found.low <= p <= found.high
    assert 920 <= held <= 985


def test_the_interval_of_a_difference_holds_the_truth_too() -> None:
    chance = random.Random(11)
    held = 0
    for _ in range(1000):
        pairs = [(chance.random() < 0.8) - (chance.random() < 0.6) for _ in range(40)]
        found = difference([float(d) for d in pairs])
        assert found
        held += found.low <= 0.2 <= found.high
    assert 920 <= held <= 985
