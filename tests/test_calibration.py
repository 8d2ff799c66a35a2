"""Temperatures against laws that the labels were drawn by, thresholds and shares against brute force."""

import numpy as np
import pytest
from datasets import Dataset
from scipy.special import expit, logit, softmax

from tl_hub import calibration
from tl_hub.tasks.classification import SentimentAnalysis


def drawn(logits, temperature, random):
    """Labels by the probabilities that a temperature makes of logits, bool, (rows, classes)."""
    probabilities = softmax(logits / temperature, axis=1)
    chosen = (random.random((len(logits), 1)) > probabilities.cumsum(1)).sum(1)
    return np.arange(logits.shape[1]) == chosen[:, None]


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_one_that_labels_were_drawn_by(true):
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(20_000, 4))
    targets = drawn(logits, true, random)
    assert calibration.temperature(logits, targets) == pytest.approx(true, rel=0.05)
    assert calibration.temperature(logits, calibration.smoothed(targets)) == pytest.approx(true, rel=0.05)


def test_rows_that_are_all_right_make_no_answer_certain():
    """With n rows of one margin, the likeliest probability by Platt's targets is (n + 1) / (n + 2), in closed form."""
    for rows, classes in ((8, 2), (50, 3)):
        logits = np.zeros((rows, classes))
        logits[:, 0] = 5.0
        targets = np.arange(classes) == np.zeros((rows, 1))
        found = softmax(logits / calibration.temperature(logits, calibration.smoothed(targets)), axis=1)
        assert found[:, 0] == pytest.approx((rows + 1) / (rows + 2), abs=1e-3)


def test_the_probability_of_a_single_answer_becomes_that_of_its_being_right():
    random = np.random.default_rng(1)
    claimed = random.uniform(0.3, 1, 20_000)
    right = random.random(20_000) < expit(logit(claimed) / 2.5)
    temperature = calibration.decided(claimed, right, None)["temperature"]
    assert temperature == pytest.approx(2.5, rel=0.1)
    assert calibration.scaled(claimed, temperature) == pytest.approx(expit(logit(claimed) / temperature))
    certain = np.array([0.0, 0.2, 1.0])
    assert calibration.scaled(certain, 1.0) is certain and np.isfinite(calibration.scaled(certain, 2.0)).all()


@pytest.mark.parametrize("wanted", [50.0, 80.0, 95.0, 100.0])
def test_answers_are_sure_from_the_lowest_confidence_that_does(wanted):
    random = np.random.default_rng(2)
    confidence = random.integers(30, 101, 300) / 100  # so many are equal
    right = random.random(300) < confidence
    fitting = [c for c in np.unique(confidence) if 100 * right[confidence >= c].mean() >= wanted]
    found = calibration.sure_from(confidence, right, wanted)
    assert found == min(fitting) if fitting else found > 1
    assert calibration.sure_from(confidence, np.zeros(300, dtype=bool), wanted) > 1


def test_a_classifier_that_is_too_sure_is_corrected_by_its_validation_rows():
    """Its logits are three times too large; figures, tables and the rows shown follow the temperature."""
    random, classes = np.random.default_rng(3), ("negative", "positive")
    task = SentimentAnalysis(sure_at=90.0)
    splits, predictions = {}, {}
    for name in ("train", "validation", "test"):
        logits = 2 * random.normal(size=(2000, 2))
        labels = drawn(logits, 1.0, random).argmax(1)
        rows = Dataset.from_dict({"text": [f"text {i}" for i in range(2000)], "label": [classes[i] for i in labels]})
        splits[name], predictions[name] = task.check(rows), {"logits": 3 * logits}
    task, encoded = task.learn(splits), Dataset.from_dict({"row": list(range(2000))})
    chosen = task.score(predictions["validation"], splits["validation"], encoded, None).decision
    assert chosen["temperature"] == pytest.approx(3, rel=0.1)
    plain = task.score(predictions["test"], splits["test"], encoded, {})
    score = task.score(predictions["test"], splits["test"], encoded, chosen)
    assert float(score.metrics["accuracy"].mean()) == float(plain.metrics["accuracy"].mean())
    before, after = (float(each.metrics["expected_calibration_error"]) for each in (plain, score))
    assert before > 8 and after < 4
    told = [row["expected calibration error"] for row in score.tables["Calibration"]]
    assert told == pytest.approx([before, after]) and "Calibration" not in plain.tables

    shares = score.tables["Right answers among the surest"]
    probability = np.array([row["probability"] for row in score.predictions])
    right = score.metrics["accuracy"] == 100
    assert (score.right == right).all() and np.abs(score.confidence - probability).max() < 1e-4  # for the picture
    for row in shares:
        surest = np.argsort(-probability, kind="stable")[: row["rows"]]
        assert row["right, %"] == pytest.approx(100 * right[surest].mean(), abs=0.2)  # some are equal to four digits
    assert [row["rows"] for row in shares[:5]] == [2000, 1800, 1500, 1000, 500]
    assert shares[-1]["surest rows"].endswith("called sure")
    assert shares[-1]["right, %"] == pytest.approx(90, abs=2.5)
