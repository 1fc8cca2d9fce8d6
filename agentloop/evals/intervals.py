"""How sure a figure is: 95 % intervals for means of values from 0 to 1.

The unit is the case: repeats of a case are no further cases, they make its value surer. An
interval says how far the figure could be off for other cases of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

_Z = 1.959963984540054
"""Of the normal distribution, for 95 %."""


class Estimate(NamedTuple):
    """A mean, and the interval that holds the true one in 95 of 100 cases."""

    mean: float
    low: float
    high: float


def estimate(cases: Sequence[Sequence[float]]) -> Estimate | None:
    """The mean over ``cases``, each with the values of its repeats; None where there are none.

    Wilson's interval, with the number of trials that would be as sure if they were independent:
    p(1-p) over the variance of the mean of the cases, at least the number of cases and at most the
    number of trials. Without repeats, and with values of 0 and 1, it is Wilson's own.
    """
    means = [sum(values) / len(values) for values in cases if values]
    if not means:
        return None
    n = len(means)
    p = sum(means) / n
    trials = sum(len(values) for values in cases)
    effective = float(n)
    if 0 < p < 1 and n > 1:
        variance = sum((m - p) ** 2 for m in means) / (n - 1) / n
        effective = min(max(p * (1 - p) / variance if variance else math.inf, n), trials)
    z2 = _Z * _Z / effective
    middle = (p + z2 / 2) / (1 + z2)
    half = _Z * math.sqrt(p * (1 - p) / effective + z2 / (4 * effective)) / (1 + z2)
    return Estimate(p, max(min(middle - half, p), 0.0), min(max(middle + half, p), 1.0))


def difference(pairs: Sequence[float]) -> Estimate | None:
    """The mean of differences between paired values, each from -1 to 1.

    The adjusted Wald interval of Bonett and Price (2012): as if there were two more pairs, one
    fully for either side, so that a few pairs that are all alike do not look certain.
    """
    if not pairs:
        return None
    n = len(pairs) + 2
    middle = sum(pairs) / n
    variance = (sum(d * d for d in pairs) + 2) / n - middle * middle
    half = _Z * math.sqrt(max(variance, 0.0) / n)
    mean = sum(pairs) / len(pairs)
    return Estimate(mean, max(min(middle - half, mean), -1.0), min(max(middle + half, mean), 1.0))
