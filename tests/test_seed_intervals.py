"""Intervals over seeds and rows against truths that are known because they were made."""

import itertools

import numpy as np
import pytest

from tl_hub import seed_intervals
from tl_hub.metrics import mean_interval

REPLICATIONS = 800


def drawn(random, kind, seeds, rows, spread, own):
    """Scores of seeds on rows whose expected value is 70, shape (REPLICATIONS, seeds, rows).

    `own` is the share of a row's variance that each seed has for itself.
    """
    of_seeds = random.normal(0, spread, (REPLICATIONS, seeds, 1))
    of_rows, both = random.normal(size=(REPLICATIONS, 1, rows)), random.normal(size=(REPLICATIONS, seeds, rows))
    if kind == "continuous":
        return 70 + of_seeds + 20 * (np.sqrt(1 - own) * of_rows + np.sqrt(own) * both)
    # A row is right with a probability of 0.7 plus its own and its seed's part, both symmetric and so without bias.
    chance = 0.7 + of_seeds / 100 + 0.25 * np.sqrt(1 - own) * np.tanh(of_rows)
    assert spread <= 6, "or chances would leave 0 to 1"
    return 100.0 * (random.random((REPLICATIONS, seeds, rows)) < chance)


def coverage(intervals, truth):
    return np.mean([low <= truth <= high for low, high in intervals])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["0/1", "continuous"])
def test_an_interval_over_seeds_and_rows_holds_the_truth_in_92_to_98_per_cent(kind):
    random, found = np.random.default_rng(1), {}
    for case in itertools.product((3, 5), (50, 350), (1, 5), (0.3, 0.8)):
        scores = drawn(random, kind, *case)
        found[case] = coverage([seed_intervals.of_means(y, percent=kind == "0/1") for y in scores], 70)
    assert {case: share for case, share in found.items() if not 0.92 <= share <= 0.98} == {}


def test_rows_of_a_paragraph_count_together():
    """Their errors do: without groups the interval of the same scores holds the truth far less often."""
    random, found = np.random.default_rng(2), {}
    of_groups = random.normal(0, 20, (REPLICATIONS, 1, 40, 1)) + random.normal(0, 5, (REPLICATIONS, 3, 40, 1))
    scores = (
        70 + of_groups + random.normal(0, 2, (REPLICATIONS, 3, 1, 1)) + random.normal(0, 5, (REPLICATIONS, 3, 40, 5))
    )
    scores, groups = scores.reshape(REPLICATIONS, 3, 200), np.repeat(np.arange(40), 5)
    for given in (groups, None):
        intervals = [seed_intervals.of_means(y, given, percent=False) for y in scores]
        found[given is None] = coverage(intervals, 70)
    assert 0.92 <= found[False] <= 0.98 and found[True] < 0.9


def test_a_figure_that_is_no_mean_over_rows_is_held_at_least_as_often():
    """F1 of two classes by seeds and rows, from the intervals of each seed's run."""
    random = np.random.default_rng(3)
    scores = drawn(random, "continuous", 3, 50, 5, 0.5)[:300]
    found = []
    for y in scores:
        ends = np.array([mean_interval(row) for row in np.clip(y, 0, 100)])
        found.append(seed_intervals.of_figures(y.mean(1), ends[:, 0], ends[:, 1]))
    assert coverage(found, 70) >= 0.92


def test_equal_answers_of_all_seeds_leave_the_interval_of_the_rows():
    right = np.full((3, 50), 100.0)
    assert seed_intervals.of_means(right) == mean_interval(right[0])
    mixed = np.tile(np.arange(50) % 3 * 50.0, (3, 1))
    assert seed_intervals.of_means(mixed) == pytest.approx(mean_interval(mixed[0]))
