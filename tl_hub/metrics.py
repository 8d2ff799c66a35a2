"""Metrics that need no network, and intervals around them."""

import re
import string
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from itertools import zip_longest
from typing import Any, Literal

import datasets
import evaluate
import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_BLANKS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Chinese characters and kana, between whose words there are no blanks."""
_WORD = re.compile(rf"[{_NO_BLANKS}]|[^\W{_NO_BLANKS}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])(?![”’」』）])\s*|(?<=[。！？][”’」』）])\s*")
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


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


def _one_or_several() -> list[datasets.Features]:
    """What the metrics take: a text as prediction, and a text or a list of texts as reference."""
    text = datasets.Value("string")
    kinds: list[Any] = [datasets.List(text), text]
    return [datasets.Features({"predictions": text, "references": kind}) for kind in kinds]


def _several(references: list[Any]) -> list[list[str]]:
    return [[texts] if isinstance(texts, str) else texts for texts in references]


class SquadMetric(evaluate.Metric):
    """Exact match and F1 of extractive question answering (SQuAD 1.1 and 2.0), as an `evaluate.Metric`.

    `compute(predictions=["in Paris"], references=[["Paris"]])`; an unanswerable question has the references `[]`. A
    single reference may be a text instead of a list.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and token F1 of answers, the best over their references, in per cent.",
            citation="https://arxiv.org/abs/1806.03822",
            features=_one_or_several(),
        )

    def _compute(self, predictions: list[str], references: list[Any]) -> dict[str, Any]:
        return {name: float(scores.mean()) for name, scores in squad_scores(predictions, _several(references)).items()}


class _Words:
    """`words`, for `rouge_score`, whose own tokenizer keeps a-z and 0-9 only."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def words(text: str) -> list[str]:
    """Words of any script, in lower case; of Chinese and Japanese each character."""
    return _WORD.findall(text.lower())


def sentences(text: str) -> list[str]:
    """Split at blanks after full stops, question and exclamation marks; Chinese and Japanese ones need no blank.

    Abbreviations are split too.
    """
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


def rouge_scores(predictions: list[str], references: list[list[str]]) -> dict[str, np.ndarray]:
    """F of ROUGE-1, -2, -L and -Lsum of each summary, the best over its references.

    By `rouge_score` with the Porter stemmer; sentences, for Lsum, are those of `sentences`. It reads a-z and 0-9 only,
    so where most letters of the references are others, `words` are taken as they stand instead.

    Returns:
        `rouge1`, `rouge2`, `rougeL`, `rougeLsum`, shape (predictions,), from 0 to 100.

    Source: Lin 2004, https://aclanthology.org/W04-1013
    """
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    scorer = RougeScorer(ROUGE, use_stemmer=True, tokenizer=None if _in_latin_letters(references) else _Words())
    scores = [
        scorer.score_multi(["\n".join(sentences(text)) for text in texts], "\n".join(sentences(prediction)))
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return {name: 100 * np.array([score[name].fmeasure for score in scores]) for name in ROUGE}


def rouge_signature(references: list[list[str]]) -> str:
    """What makes `rouge_scores` against these references comparable: version, figure, words and references."""
    unit = "Porter stemmer"
    if not _in_latin_letters(references):
        unit = "words of any script without stemming"
        if any(re.search(f"[{_NO_BLANKS}]", text) for texts in references for text in texts):
            unit += ", of Chinese and Japanese each character"
    return f"rouge_score {version('rouge_score')}, F, {unit}, best of the references"


def _in_latin_letters(references: list[list[str]]) -> bool:
    letters = [letter for texts in references for text in texts for letter in text.lower() if letter.isalpha()]
    return 2 * sum("a" <= letter <= "z" for letter in letters) >= len(letters)


class RougeMetric(evaluate.Metric):
    """ROUGE of summaries, as an `evaluate.Metric`: `compute(predictions=["A cat sat."], references=["A cat."])`.

    A reference may be a list of several.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="F of ROUGE-1, -2, -L and -Lsum, the best over the references, in per cent.",
            citation="https://aclanthology.org/W04-1013",
            features=_one_or_several(),
        )

    def _compute(self, predictions: list[str], references: list[Any]) -> dict[str, Any]:
        return {name: float(scores.mean()) for name, scores in rouge_scores(predictions, _several(references)).items()}


def translation_scores(
    predictions: list[str], references: list[list[str]], tokenize: str = "13a", resamples: int = 1000
) -> dict[str, dict[str, Any]]:
    """chrF and BLEU of a corpus by sacreBLEU, with the signature that makes each comparable.

    Args:
        references: one or more each.
        tokenize: sacreBLEU's name of BLEU's tokenizer.
        resamples: of sentences, for the bootstrap interval; 0 for none.

    Returns:
        `chrf` and `bleu`: each a dict of `value` (0 to 100), `signature` and, with `resamples`, `low` and `high`.

    Source: Popović 2015, https://aclanthology.org/W15-3049; Papineni et al. 2002, https://aclanthology.org/P02-1040;
    Post 2018, https://aclanthology.org/W18-6319
    """
    from sacrebleu.metrics import BLEU, CHRF

    # sacreBLEU wants a corpus of first references, one of second ones and so on; None stands for one that is not there.
    streams = [list(stream) for stream in zip_longest(*references)]
    found: dict[str, dict[str, Any]] = {}
    for name, metric in (("chrf", CHRF()), ("bleu", BLEU(tokenize=tokenize))):
        score = metric.corpus_score(predictions, streams)
        found[name] = {"value": float(score.score), "signature": str(metric.get_signature())}
        if resamples:
            # sacreBLEU's own interval fails on a mixture of its number types where a resample scores 0.
            counts = np.array(metric._extract_corpus_statistics(predictions, streams))
            drawn = np.random.default_rng(0).integers(len(counts), size=(resamples, len(counts)))
            scores = [metric._compute_score_from_stats(counts[rows].sum(0).tolist()).score for rows in drawn]
            low, high = np.percentile(np.asarray(scores, dtype=float), [2.5, 97.5])
            found[name] |= {"low": float(low), "high": float(high)}
    return found


class TranslationMetric(evaluate.Metric):
    """chrF and BLEU, as an `evaluate.Metric`: `compute(predictions=["Guten Tag."], references=["Guten Tag!"])`.

    A reference may be a list of several. With each figure comes sacreBLEU's signature, as `chrf_signature` and
    `bleu_signature`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="sacreBLEU's chrF and BLEU (tokenizer 13a, or the one given as tokenize=), from 0 to 100.",
            citation="https://aclanthology.org/W18-6319",
            features=_one_or_several(),
        )

    def _compute(self, predictions: list[str], references: list[Any], tokenize: str = "13a") -> dict[str, Any]:
        scores = translation_scores(predictions, _several(references), tokenize, resamples=0)
        signatures = {f"{name}_signature": score["signature"] for name, score in scores.items()}
        return {name: score["value"] for name, score in scores.items()} | signatures


def distinct(texts: Sequence[Sequence[Any]], n: int) -> float:
    """Share of different n-grams among all n-grams of all texts, from 0 to 100; 0 where there are none.

    Args:
        texts: tokens of each.

    Source: Li et al. 2016, https://aclanthology.org/N16-1014
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return 100 * len(set(grams)) / len(grams) if grams else 0.0


def repetition(text: Sequence[Any], n: int = 4) -> float:
    """Share of a text's n-grams that stood in it before, from 0 to 100; NaN where it is shorter than n tokens.

    Source: Welleck et al. 2020, https://arxiv.org/abs/1908.04319 (seq-rep-n)
    """
    grams = _ngrams(text, n)
    return 100 * (1 - len(set(grams)) / len(grams)) if grams else float("nan")


def _ngrams(text: Sequence[Any], n: int) -> list[tuple]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def bootstrap_interval(
    scores: np.ndarray,
    groups: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 2000,
    sizes: np.ndarray | None = None,
) -> tuple[float, float]:
    """95 % percentile interval of the mean, by resampling.

    Rows that share a paragraph are not independent: with `groups` whole groups are drawn, which gives the wider,
    honest interval.

    Args:
        scores: shape (rows,).
        groups: label of each row's group, shape (rows,).
        sizes: how much each row counts, such as the tokens that `scores` are sums over, shape (rows,); 1 if none.

    Source: Efron and Tibshirani 1993, chapter 13; cluster version: Field and Welsh 2007.
    """
    if groups is None:
        groups = np.arange(len(scores))
    _, members = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(members, weights=scores), np.bincount(members, weights=sizes)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(random.integers(len(sums), size=len(sums)), minlength=len(sums))
        means[i] = (times @ sums) / (times @ sizes)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def expected_calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """How far stated confidence lies from accuracy, from 0 to 1: the mean gap over bins of equal width, by their rows.

    Args:
        confidence: probability of the predicted class, shape (rows,).
        correct: whether the prediction is right, shape (rows,).

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599, equation 3; bin m holds ((m - 1) / bins, m / bins].
    """
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidence))


def f1_interval(
    expected: np.ndarray,
    predicted: np.ndarray,
    average: Literal["macro", "micro"],
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the F1 over classes, from 0 to 1, by resampling rows.

    F1 is a function of how often each pattern of expected and predicted classes occurs, so the counts of the patterns
    are drawn (multinomially), which is the same as drawing rows. A class that a resample neither holds nor predicts
    is left out of its macro average.

    Args:
        expected, predicted: which classes each row has, bool, shape (rows, classes).
    """
    patterns, counts = np.unique(np.concatenate([expected, predicted], axis=1), axis=0, return_counts=True)
    expected, predicted = np.split(patterns, 2, axis=1)
    hit, missed = (expected & predicted).astype(float), (expected ^ predicted).astype(float)
    random = np.random.default_rng(seed)
    values = []
    for _ in range(0, resamples, 100):  # in parts: with many labels there are as many patterns as rows
        times = random.multinomial(counts.sum(), counts / counts.sum(), size=100)
        hits, misses = times @ hit, times @ missed
        if average == "micro":
            hits, misses = hits.sum(1, keepdims=True), misses.sum(1, keepdims=True)
        there = np.maximum(2 * hits + misses, 1)
        values.append((2 * hits / there).sum(1) / np.maximum((2 * hits + misses > 0).sum(1), 1))
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
    return float(low), float(high)


def best_threshold(probabilities: np.ndarray, expected: np.ndarray) -> float:
    """The probability from which labels are given that has the highest micro F1, found exactly by sorting.

    Args:
        probabilities, expected: (rows, labels).
    """
    order = np.argsort(-probabilities, axis=None)
    ordered = probabilities.ravel()[order]
    hits = expected.ravel()[order].cumsum()
    scores = 2 * hits / (np.arange(1, len(order) + 1) + expected.sum())
    scores[:-1][ordered[1:] == ordered[:-1]] = -1.0  # no threshold lies between equal ones
    place = int(scores.argmax())
    below = ordered[place + 1] if place + 1 < len(ordered) else 0.0
    return float((ordered[place] + below) / 2)
