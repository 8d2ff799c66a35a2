"""What more rows would bring: a power law through the figures at several sizes, and whether to believe it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_EXPONENTS = np.arange(0.05, 2.01, 0.05)
_FEWEST = 5
"""Sizes that are needed: the law has three numbers, one size is left out to check it, and one more is to spare."""
_REFITS = 300


@dataclass(frozen=True)
class Point:
    """A figure at a number of training rows, with its 95 % interval."""

    rows: int
    value: float
    low: float
    high: float

    @property
    def error(self) -> float:
        """Standard error, by the width of the interval."""
        return max((self.high - self.low) / (2 * 1.959964), 1e-6)


@dataclass(frozen=True)
class Outlook:
    """What twice the rows of the last size would bring.

    Attributes:
        rows: twice those of the last size.
        gain: by how much the figure would rise, in its unit; None where too little is known to tell.
        low, high: its 95 % interval.
        missed: how far the law, fitted without the last size, was from the figure there; None where it was not fitted.
        why: what is missing, where there is no gain.
    """

    rows: int
    gain: float | None = None
    low: float | None = None
    high: float | None = None
    missed: float | None = None
    why: str = ""


def outlook(points: Sequence[Point], seed: int = 0) -> Outlook:
    """Extrapolate to twice the rows of the last size.

    The law is value(n) = end - scale * n**-exponent (Hestness et al. 2017, https://arxiv.org/abs/1712.00409), weighted
    by the points' errors. It is believed only if, fitted without the last size, it foretells the figure there within
    that figure's interval. The interval of the gain is that of refits to points drawn from their intervals, widened by
    what was missed there.

    Args:
        points: by rising size, each figure a mean that rises with more rows, or falls.
    """
    twice = 2 * points[-1].rows
    if len(points) < _FEWEST:
        return Outlook(twice, why=f"{len(points)} sizes are too few for a law; it takes {_FEWEST}")
    last = points[-1]
    missed = _law(points[:-1], last.rows) - last.value
    reach = max(last.high - last.value, last.value - last.low)
    if abs(missed) > reach:
        return Outlook(
            twice,
            missed=missed,
            why=f"without the last size, the law misses it by {abs(missed):.3g}, more than its interval",
        )
    random = np.random.default_rng(seed)
    gain = _law(points, twice) - _law(points, last.rows)
    drawn = []
    for _ in range(_REFITS):
        values = [random.normal(point.value, point.error) for point in points]
        moved = [
            Point(p.rows, v, v - p.value + p.low, v - p.value + p.high) for p, v in zip(points, values, strict=True)
        ]
        drawn.append(_law(moved, twice) - _law(moved, last.rows))
    low, high = np.quantile(drawn, [0.025, 0.975])
    down, up = math.hypot(gain - low, missed), math.hypot(high - gain, missed)
    if max(down, up) > reach:
        return Outlook(twice, missed=missed, why=f"the gain is only known to within {max(down, up):.3g}")
    return Outlook(twice, gain, gain - down, gain + up, missed)


def _law(points: Sequence[Point], rows: int) -> float:
    """The fitted law at a number of rows: the exponent by search, the other two by least squares."""
    n = np.array([point.rows for point in points], float)
    value = np.array([point.value for point in points])
    weight = 1 / np.array([point.error for point in points])
    best, found = math.inf, float(value[-1])
    for exponent in _EXPONENTS:
        columns = np.stack([np.ones(len(n)), -(n**-exponent)], 1) * weight[:, None]
        (end, scale), *_ = np.linalg.lstsq(columns, value * weight, rcond=None)
        residual = float(
            (((end - scale * n**-exponent) - value) * weight) @ (((end - scale * n**-exponent) - value) * weight)
        )
        if residual < best:
            best, found = residual, float(end - scale * rows**-exponent)
    return found
