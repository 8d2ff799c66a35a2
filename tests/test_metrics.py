"""EM, F1 and intervals against the published rules, worked by hand, and closed forms."""

import numpy as np
import pytest
import sacrebleu
from sklearn.metrics import f1_score

from tl_hub.metrics import (
    SquadMetric,
    best_threshold,
    bootstrap_interval,
    expected_calibration_error,
    f1_interval,
    squad_scores,
    translation_scores,
)


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
        ("a", ["the", "Paris"], 0, 0),  # a reference of articles alone is none, as in the official scorer
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


def test_each_reference_counts_where_rows_have_different_numbers_of_them():
    predictions, references = (
        ["the cat sat here", "a dog ran over there"],
        [["the cat sat here"], ["one", "a dog ran over there"]],
    )
    found = translation_scores(predictions, references, resamples=0)
    assert {name: score["value"] for name, score in found.items()} == pytest.approx({"chrf": 100, "bleu": 100})


def test_interval_of_a_mean_over_tokens_divides_by_the_tokens_that_were_drawn():
    """Each token has a loss of 2, so every resample has, however many tokens its rows hold."""
    sizes = np.random.default_rng(0).integers(1, 50, 30)
    assert bootstrap_interval(2.0 * sizes, sizes=sizes) == pytest.approx((2, 2))


def test_interval_of_f1_is_that_of_a_proportion_where_each_row_has_one_class():
    """Micro F1 is accuracy there: 70 % of 1,000 rows."""
    expected = np.eye(2, dtype=bool)[np.repeat([0, 1], 500)]
    predicted = np.where(np.arange(1000)[:, None] % 10 < 7, expected, ~expected)
    low, high = f1_interval(expected, predicted, "micro")
    half = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(0.7 - half, abs=0.002) and high == pytest.approx(0.7 + half, abs=0.002)


def test_no_threshold_gives_a_higher_f1_than_the_best_one():
    """Against every one that can be told apart. With one digit many are equal, and no threshold lies between those."""
    random = np.random.default_rng(0)
    for _ in range(50):
        probabilities, expected = random.random((4, 2)).round(1), random.random((4, 2)) < 0.4
        expected[0, 0] = True
        every = [f1_score(expected, probabilities >= t, average="micro") for t in np.unique(probabilities)]
        chosen = probabilities >= best_threshold(probabilities, expected)
        assert f1_score(expected, chosen, average="micro") == pytest.approx(max(every))


def test_calibration_error_worked_by_hand():
    """Guo et al. 2017: bins are open on the left, so 0.5 lies in (0.25, 0.5] and 0.6 in (0.5, 0.75]."""
    confidence, right = np.array([0.5, 0.6, 0.9, 0.9]), np.array([True, False, True, False])
    assert expected_calibration_error(confidence, right, bins=4) == pytest.approx((0.5 + 0.6 + 0.8) / 4)


def test_the_interval_of_translations_holds_95_of_100_resamples():
    """By sacreBLEU's own score of resampled sentences, drawn here in another order."""
    random = np.random.default_rng(7)
    words = "the river rises in hills and ends sea a boat leaves at noon".split()
    references = [" ".join(random.choice(words, size=8)) for _ in range(30)]
    predictions = [
        " ".join(word if random.random() < share else "snow" for word in text.split())
        for text, share in zip(references, random.random(30), strict=True)
    ]
    found = translation_scores(predictions, [[text] for text in references])
    for name, score in (("chrf", sacrebleu.corpus_chrf), ("bleu", sacrebleu.corpus_bleu)):
        values = []
        for _ in range(600):
            drawn = random.integers(30, size=30)
            values.append(score([predictions[i] for i in drawn], [[references[i] for i in drawn]]).score)
        low, high = np.percentile(values, [2.5, 97.5])
        # An interval of 90 % is a sixth narrower.
        assert found[name]["high"] - found[name]["low"] == pytest.approx(high - low, rel=0.08)
        assert found[name]["low"] == pytest.approx(low, abs=0.08 * (high - low))
