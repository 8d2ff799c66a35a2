"""The table of what pretraining is worth, against scipy's own paired test."""

import pytest
from scipy import stats

from tools.samples import transfer


def test_intervals_and_counts_are_those_of_the_paired_runs():
    scratch, pretrained = [70.0, 64.0, 71.5, 25.0], [74.0, 73.0, 71.0, 75.5]
    results = [
        {"family": "bert", "data": "sst2", "rows": 64, "seed": seed, "pretrained": kind, "score": score}
        for kind, scores in ((False, scratch), (True, pretrained))
        for seed, score in enumerate(scores)
    ]
    unpaired = {"family": "bert", "data": "sst2", "rows": 64, "seed": 4, "pretrained": True, "score": 99.0}
    row = transfer.table([*reversed(results), unpaired]).splitlines()[-1].split("|")[1:-1]
    assert [cell.strip() for cell in row[:3]] == ["bert", "sst2", "64"] and row[6].strip() == "3 of 4"
    expected = stats.ttest_rel(pretrained, scratch).confidence_interval(0.95)
    mean, low, _, high = row[5].replace("(", "").replace(")", "").split()
    assert float(mean) == pytest.approx(15.8, abs=0.06)
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=0.06)
