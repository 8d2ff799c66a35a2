"""EM, F1 and intervals against the published rules, worked by hand, and closed forms."""

import numpy as np
import pytest

from tl_hub.metrics import SquadMetric, bootstrap_interval, squad_scores, translation_scores


@pytest.mark.parametrize(
    ("prediction", "references", "exact", "f1"),
    [
        ("The Eiffel Tower!", ["eiffel tower"], 100, 100),  # case, article, punctuation
        ("an apple  a day", ["apple day"], 100, 100),  # articles inside, repeated blanks
        ("Paris", ["London", "Paris, France"], 0, 200 / 3),  # best of several references
        ("New York City", ["New York"], 0, 80),  # 2 * (2/3 * 1) / (2/3 + 1)
        ("the the cat", ["cat cat"], 0, 200 / 3),  # repeated words count as often as they stand
        ("", [], 100, 100),  # unanswerable and silent
        ("Paris", [], 0, 0),  # unanswerable, answered
        ("", ["Paris"], 0, 0),  # answerable, silent
        ("theatre", ["atre"], 0, 0),  # an article is a word, not letters
        ("naïve café", ["Naïve Café."], 100, 100),
    ],
)
def test_squad_rules(prediction, references, exact, f1):
    computed = SquadMetric().compute(predictions=[prediction], references=[references])
    assert computed == pytest.approx({"exact_match": exact, "f1": f1})


def test_the_metric_is_the_mean_of_the_rows():
    predictions, references = ["a b", "c", "d e f"], [["a b"], ["x"], ["d e"]]
    rows = squad_scores(predictions, references)
    computed = SquadMetric().compute(predictions=predictions, references=references)
    assert computed == pytest.approx({name: values.mean() for name, values in rows.items()})


def test_a_single_reference_may_be_a_text():
    flat = SquadMetric().compute(predictions=["Paris", "", "x"], references=["paris", "", ""])
    assert flat == SquadMetric().compute(predictions=["Paris", "", "x"], references=[["paris"], [], []])
    assert flat["exact_match"] == pytest.approx(200 / 3)


def test_interval_of_a_proportion_is_near_the_normal_one():
    scores = np.repeat([0.0, 100.0], [300, 700])
    low, high = bootstrap_interval(scores)
    half = 1.96 * 100 * np.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(70 - half, abs=0.5) and high == pytest.approx(70 + half, abs=0.5)


def test_rows_of_one_group_count_as_one():
    """Ten copies of each row say nothing new: the interval must be that of the rows without copies."""
    scores = np.random.default_rng(0).random(100)
    copied = bootstrap_interval(np.repeat(scores, 10), groups=np.repeat(np.arange(100), 10))
    assert copied == pytest.approx(bootstrap_interval(scores))
    naive = bootstrap_interval(np.repeat(scores, 10))
    assert copied[1] - copied[0] > 2.5 * (naive[1] - naive[0])


def test_translations_with_nothing_right_have_an_interval_too():
    found = translation_scores(["xyz", "the house"], [["나는 집에 가요."], ["the house is big"]], resamples=200)
    assert all(0 <= score["low"] <= score["value"] <= score["high"] <= 100 for score in found.values())
