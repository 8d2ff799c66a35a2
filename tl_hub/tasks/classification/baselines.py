"""What simple classifiers make of the same rows, for the table beside a model's own figures.

Texts come as strings, and which classes each has as bool, (rows, classes): exactly one, unless `multi_label`.
"""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tl_hub.metrics import best_threshold
from tl_hub.vectors.heads import folds_of

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""scikit-learn's C among which cross-validation chooses; texts of few words want 10 to 100."""

_FOLDS, _SEARCHED = 5, 2000
_SURE = 1e-9  # a class that a fold's training rows lack has a probability of 0


def most_frequent(targets: np.ndarray, count: int, multi_label: bool) -> np.ndarray:
    """The most frequent class, or each label that more than half of the rows have, for `count` rows."""
    if multi_label:
        return np.tile(targets.mean(0) > 0.5, (count, 1))
    return np.tile(np.arange(targets.shape[1]) == targets.sum(0).argmax(), (count, 1))


def words_and_pairs() -> TfidfVectorizer:
    """TF-IDF of words, signs and pairs of them."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")


def linear_model_of_words(
    texts: list[str], targets: np.ndarray, asked: Iterable[str], multi_label: bool
) -> tuple[np.ndarray, float]:
    """TF-IDF of words and pairs of words, and logistic regression, fitted on `texts`.

    Like the heads on frozen vectors, it is regularised as strongly as gives the lowest log loss in five-fold
    cross-validation, over 2,000 rows drawn by a fixed seed where there are more. The probability from which a label is
    given is the best of the same cross-validation.

    Returns:
        Which classes the texts in `asked` are given, bool, (asked, classes), and the C that was chosen.
    """
    words = words_and_pairs()
    x, y = words.fit_transform(texts), words.transform(asked)
    drawn = np.random.default_rng(0).permutation(len(texts))[:_SEARCHED]
    known = targets[drawn]
    folds = folds_of(known, min(_FOLDS, len(known)), seed=0)
    chosen, lowest, held_out = STRENGTHS[0], np.inf, np.zeros(known.shape)
    # From the strongest penalty on: the weaker, the slower to fit, and past the minimum the loss only rises.
    for strength in STRENGTHS:
        found = np.empty(known.shape)
        for fold in np.unique(folds):
            out = folds == fold
            found[out] = _probabilities(x[drawn[~out]], known[~out], x[drawn[out]], strength, multi_label)
        right = np.where(known, found, 1 - found) if multi_label else found[known]
        loss = -np.log(np.maximum(right, _SURE)).mean()
        if loss >= lowest:
            break
        chosen, lowest, held_out = strength, loss, found
    probabilities = _probabilities(x, targets, y, chosen, multi_label)
    if multi_label:
        return probabilities >= best_threshold(held_out, known), chosen
    return np.arange(targets.shape[1]) == probabilities.argmax(1)[:, None], chosen


def _probabilities(
    x: csr_matrix, targets: np.ndarray, asked: csr_matrix, strength: float, multi_label: bool
) -> np.ndarray:
    """Of each class, (asked, classes). What all rows have or none has needs no model."""
    found = np.tile(targets.all(0).astype(float), (asked.shape[0], 1))
    model = LogisticRegression(C=strength, max_iter=1000)
    if multi_label:
        for label in np.flatnonzero(targets.any(0) & ~targets.all(0)):
            found[:, label] = model.fit(x, targets[:, label]).predict_proba(asked)[:, 1]
        return found
    present = np.flatnonzero(targets.any(0))
    if len(present) > 1:
        found[:, present] = model.fit(x, targets.argmax(1)).predict_proba(asked)
    return found
