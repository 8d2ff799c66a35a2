import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier

from tl_hub.tasks.classification.baselines import STRENGTHS, linear_model_of_words, most_frequent
from tl_hub.vectors.heads import folds_of


def noisy(rows, multi_label):
    """Texts of ten words, of which two are frequent in one class, and their classes."""
    random = np.random.default_rng(0)
    texts, targets = [], np.zeros((rows, 3), dtype=bool)
    for i in range(rows):
        targets[i] = random.random(3) < 0.4 if multi_label else np.arange(3) == random.integers(3)
        told = [f"{'abc'[c]}{random.integers(9)}" for c in np.flatnonzero(targets[i]) if random.random() < 0.8]
        texts.append(" ".join(random.permutation([f"w{random.integers(60)}" for _ in range(8)] + told)))
    return texts, targets


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_linear_model_is_the_one_a_stock_grid_search_finds(multi_label):
    texts, targets = noisy(360, multi_label)
    texts, targets, asked, expected = texts[:240], targets[:240], texts[240:], targets[240:]
    stock = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
    x, y = stock.fit_transform(texts), stock.transform(asked)
    drawn = np.random.default_rng(0).permutation(240)
    folds = folds_of(targets[drawn], 5, seed=0)
    splits = [(drawn[folds != fold], drawn[folds == fold]) for fold in range(5)]
    linear, name = LogisticRegression(max_iter=1000), "C"
    if multi_label:
        linear, name = OneVsRestClassifier(linear), "estimator__C"

    def quality(model, x, y):
        found = model.predict_proba(x)
        return np.log(np.where(y, found, 1 - found) if multi_label else found[np.arange(len(y)), y]).mean()

    labels = targets if multi_label else targets.argmax(1)
    search = GridSearchCV(linear, {name: STRENGTHS}, scoring=quality, cv=splits).fit(x, labels)
    found, strength = linear_model_of_words(texts, targets, asked, multi_label)
    assert strength == search.best_params_[name] != STRENGTHS[0]
    probabilities = search.best_estimator_.predict_proba(y)
    if multi_label:
        held_out = cross_val_predict(search.best_estimator_, x, labels, cv=splits, method="predict_proba")

        def micro_f1(threshold):
            given = held_out >= threshold
            return 2 * (given & targets).sum() / (given.sum() + targets.sum())

        threshold = max(np.unique(held_out), key=micro_f1)
        clear = np.abs(probabilities - threshold) > 0.02
        assert np.array_equal(found[clear], probabilities[clear] > threshold) and clear.mean() > 0.9
        assert f1_score(expected, found, average="micro") > f1_score(expected, probabilities > 0.5, average="micro")
    else:
        assert found.sum(1).tolist() == [1] * len(asked)
        assert np.array_equal(found.argmax(1), probabilities.argmax(1))


def test_the_most_frequent_labels_are_those_of_more_than_half_of_the_rows():
    targets = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 1], [0, 1, 1, 1]], dtype=bool)
    assert most_frequent(targets, 2, multi_label=True).tolist() == [[True, True, False, False]] * 2
    assert not most_frequent(targets[:, 2:], 1, multi_label=True).any(), "half of the rows is no more than half"
    assert most_frequent(np.eye(3, dtype=bool)[[2, 0, 2]], 2, multi_label=False).tolist() == [[False, False, True]] * 2


def test_no_example_of_a_class_in_a_fold_does_not_stop_the_search():
    """A class of one row is missing where that row is held out; the only one of its kind leaves nothing to fit."""
    targets = np.eye(3, dtype=bool)[[0, 0, 0, 0, 0, 1, 1, 1, 1, 2]]
    texts = ["good"] * 5 + ["bad"] * 4 + ["other"]
    found, _ = linear_model_of_words(texts, targets, ["bad", "good"], multi_label=False)
    assert found.tolist() == [[False, True, False], [True, False, False]]
    found, _ = linear_model_of_words(["good", "bad"], np.eye(2, dtype=bool), ["bad"], multi_label=False)
    assert found.sum() == 1


def test_the_most_frequent():
    targets = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]], dtype=bool)
    assert most_frequent(targets, 2, multi_label=True).tolist() == [[True, False, False]] * 2
    assert most_frequent(targets[:, 1:], 1, multi_label=False).tolist() == [[True, False]]
