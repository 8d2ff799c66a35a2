"""95 % intervals of the mean over seeds: what other seeds and other rows would give.

Seeds and rows are crossed: each seed's model answers the same rows. What differs between the seeds has few degrees of
freedom, what differs between the rows many. Satterthwaite's degrees of freedom for their sum were tried: in simulations
of three and five seeds, intervals by them hold the truth in 89 to 99 %.
"""

import math

import numpy as np

from tl_hub.metrics import mean_interval, student_quantile, wilson_interval


def of_means(scores: np.ndarray, groups: np.ndarray | None = None, *, percent: bool = True) -> tuple[float, float]:
    """Of a metric that is a mean over rows, by the variance components of seeds and rows in a crossed layout.

    The variance of the mean over S seeds and R rows is MS_s / (S R) + max(0, MS_r - MS_sr) / (S R), with the mean
    squares of seeds, of rows and of what is left (Searle, Casella and McCulloch 1992, Variance Components).
    The quantile is Student's of S - 1 and of R - 1 degrees of freedom, weighted by the two terms (Cochran and Cox 1957,
    Experimental Designs).

    Args:
        scores: shape (seeds, rows), at least two seeds.
        groups: label of each row's group, shape (rows,), as in `metrics.mean_interval`.
        percent: scores are from 0 to 100, and so is the interval, by Wilson's formula (`metrics.interval_by_error`).
    """
    seeds, rows = scores.shape
    members = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    members = members if members.max() else np.arange(rows)
    count = int(members.max()) + 1
    means = scores.mean(1)
    # Sums by group of what rows differ from their seed's mean, linearised as for cluster samples: (seeds, groups).
    apart = np.stack([np.bincount(members, weights=part) for part in scores - means[:, None]]) * count / rows
    of_rows, both = apart.mean(0), apart - apart.mean(0)
    square_rows = seeds * float(of_rows @ of_rows) / max(1, count - 1)
    square_both = float((both * both).sum()) / ((seeds - 1) * max(1, count - 1))
    parts = np.array([means.var(ddof=1) / seeds, max(0.0, square_rows - square_both) / (seeds * count)])
    mean, error = float(means.mean()), math.sqrt(parts.sum())
    if count < 2:
        return (0.0, 100.0) if percent else (-math.inf, math.inf)
    if not error:
        return mean_interval(scores[0], groups) if percent else (mean, mean)
    quantile = float(parts @ [student_quantile(seeds - 1), student_quantile(count - 1)] / parts.sum())
    if not percent or not 0 < mean < 100:
        return mean - quantile * error, mean + quantile * error
    low, high = wilson_interval(mean / 100, mean * (100 - mean) / error**2, quantile)
    return 100 * low, 100 * high


def of_figures(
    figures: np.ndarray, lows: np.ndarray, highs: np.ndarray, *, percent: bool = True
) -> tuple[float, float]:
    """Of a metric that is not a mean over rows, such as F1 over classes: from the interval that each seed's run has.

    The distances from the mean to the ends of the interval between rows and of that between seeds are added as squares
    (Zou and Donner 2008, https://doi.org/10.1002/sim.3095). What is of seeds and rows together is in both, so that the
    interval is rather too wide, as Owen's pigeonhole bootstrap is (2007, https://arxiv.org/abs/0711.2578).

    Args:
        figures, lows, highs: of each seed's run, with its interval over the rows, shape (seeds,), at least two.
    """
    seeds, mean = len(figures), float(figures.mean())
    half = student_quantile(seeds - 1) * float(figures.std(ddof=1)) / math.sqrt(seeds)
    low = mean - math.hypot(half, math.sqrt(float(((figures - lows) ** 2).mean())))
    high = mean + math.hypot(half, math.sqrt(float(((highs - figures) ** 2).mean())))
    return (max(0.0, low), min(100.0, high)) if percent else (low, high)
