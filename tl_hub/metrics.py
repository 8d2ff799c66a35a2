"""Metrics that need no network, and intervals around them."""

import re
import string
from collections import Counter
from typing import Any

import datasets
import evaluate
import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """Lower case, without punctuation, English articles and repeated blanks (official SQuAD scorer)."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    return float(normalized(prediction) == normalized(reference))


def token_f1(prediction: str, reference: str) -> float:
    """F1 over the bags of normalized words; where either has no words, 1 if both have none, else 0."""
    predicted, expected = normalized(prediction).split(), normalized(reference).split()
    if not predicted or not expected:
        return float(predicted == expected)
    common = (Counter(predicted) & Counter(expected)).total()
    return 2 * common / (len(predicted) + len(expected))


def squad_scores(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """Exact match and F1 of each answer, the best over its references; none at all means "no answer" is expected.

    Returns:
        `exact_match` and `f1`, shape (answers,), from 0 to 100.

    Source: Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822, and the scorer published with it.
    """
    # Like the official scorer: references that consist of articles and punctuation only are left out.
    expected = [[text for text in texts if normalized(text)] or [""] for texts in references]
    return {
        name: 100
        * np.array([max(score(p, text) for text in texts) for p, texts in zip(predictions, expected, strict=True)])
        for name, score in (("exact_match", exact_match), ("f1", token_f1))
    }


class SquadMetric(evaluate.Metric):
    """Exact match and F1 of extractive question answering (SQuAD 1.1 and 2.0), as an `evaluate.Metric`.

    `compute(predictions=["in Paris"], references=[["Paris"]])`; an unanswerable question has the references `[]`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and token F1 of answers, the best over their references, in per cent.",
            citation="https://arxiv.org/abs/1806.03822",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, Any]:
        return {name: float(scores.mean()) for name, scores in squad_scores(predictions, references).items()}


def bootstrap_interval(
    scores: np.ndarray, groups: np.ndarray | None = None, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """95 % percentile interval of the mean, by resampling.

    Rows that share a paragraph are not independent: with `groups` whole groups are drawn, which gives the wider,
    honest interval.

    Args:
        scores: shape (rows,).
        groups: label of each row's group, shape (rows,).

    Source: Efron and Tibshirani 1993, chapter 13; cluster version: Field and Welsh 2007.
    """
    if groups is None:
        groups = np.arange(len(scores))
    _, members = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(members, weights=scores), np.bincount(members)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(random.integers(len(sums), size=len(sums)), minlength=len(sums))
        means[i] = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
