"""Metrics that need no network, and intervals around them."""

import itertools
import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_KORQUAD_MARKS = str.maketrans(
    dict.fromkeys("'\"()<>《》〈〉‘’", " ") | dict.fromkeys(set(string.punctuation) - set("'\"()<>"))
)
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff]")
_CHINESE_OR_JAPANESE = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_NO_BLANKS = re.compile(rf"[{_CHINESE_OR_JAPANESE}\u0e00-\u0eff\u0f40-\u0fbc\u1000-\u109f\u1780-\u17d3]")
"""A character of a script that puts no blanks between words: Chinese, kana, Thai, Lao, Tibetan, Burmese, Khmer."""
_SENTENCES = 1000
"""Whose counts sacreBLEU makes at once."""
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])(?![”’」』）])\s*|(?<=[。！？][”’」』）])\s*")
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def normalized(answer: str) -> str:
    """Lower case, without punctuation, English articles and repeated blanks (official SQuAD scorer)."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


AnswerRule = Literal["SQuAD", "KorQuAD", "MLQA"]
"""By whose published scorer answers are compared: see `answer_words`."""


def answer_rule(references: Iterable[list[str]]) -> AnswerRule:
    """The rule for the script of most references; those without letters, such as years, do not count."""
    votes: Counter[AnswerRule] = Counter()
    for text in (text for texts in references for text in texts):
        if _HANGUL.search(text):
            votes["KorQuAD"] += 1
        elif _NO_BLANKS.search(text):
            votes["MLQA"] += 1
        elif any(map(str.isalpha, text)):
            votes["SQuAD"] += 1
    return max(votes, key=lambda rule: votes[rule], default="SQuAD")


def answer_words(answer: str, rule: AnswerRule) -> list[str]:
    """The words of an answer in lower case, as a published scorer parts them; two answers match if they have the same.

    - "SQuAD": what blanks part, without ASCII punctuation and English articles.
    - "KorQuAD": what blanks part, where quotes and brackets are blanks and other ASCII punctuation is left out.
    - "MLQA", as it does for Chinese: punctuation of any script is left out; each character of a script that puts no
      blanks between words is one, all else is what blanks part.

    Source: the scorers of SQuAD (https://arxiv.org/abs/1806.03822), KorQuAD 1.0 (https://arxiv.org/abs/1909.07005) and
    MLQA (https://arxiv.org/abs/1910.07475)
    """
    if rule == "SQuAD":
        return normalized(answer).split()
    if rule == "KorQuAD":
        return answer.lower().translate(_KORQUAD_MARKS).split()
    kept = (c for c in answer.lower() if not unicodedata.category(c).startswith("P") and c not in string.punctuation)
    return apart("".join(kept)).split()


def squad_scores(predictions: Iterable[str], references: Iterable[list[str]]) -> dict[str, np.ndarray]:
    """Exact match and F1 of each answer, the best over its references; none at all means "no answer" is expected.

    F1 is over the bags of `answer_words` by `answer_rule`, and by KorQuAD's over the characters of those words, as a
    Korean word holds its particles.

    Returns:
        `exact_match` and `f1`, shape (answers,), from 0 to 100.

    Source: Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822, and the scorer published with it.
    """
    rule = answer_rule(references)
    exact, f1 = [], []
    for prediction, texts in zip(predictions, references, strict=True):
        predicted = answer_words(prediction, rule)
        # Like the official scorer: references that consist of articles and punctuation only are left out.
        expected = [words for text in texts if (words := answer_words(text, rule))] or [[]]
        exact.append(100.0 * (predicted in expected))
        f1.append(100.0 * max(_overlap(predicted, words, rule) for words in expected))
    return {"exact_match": np.array(exact), "f1": np.array(f1)}


def _overlap(predicted: list[str], expected: list[str], rule: AnswerRule) -> float:
    """F1 over two bags; where either is empty, 1 if both are, else 0."""
    if not predicted or not expected:
        return float(predicted == expected)
    bags = [Counter("".join(words) if rule == "KorQuAD" else words) for words in (predicted, expected)]
    return 2 * (bags[0] & bags[1]).total() / (bags[0].total() + bags[1].total())


def squad_signature(references: Iterable[list[str]]) -> str:
    """What makes `squad_scores` against these references comparable."""
    return {
        "SQuAD": "words without English articles, as SQuAD counts",
        "KorQuAD": "characters, as KorQuAD 1.0 counts",
        "MLQA": "each character of scripts without blanks, else words, as MLQA counts for Chinese",
    }[answer_rule(references)]


class _Words:
    """`words`, for `rouge_score`, whose own tokenizer keeps a-z and 0-9 only."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def words(text: str) -> list[str]:
    """Words of any script, in lower case; of scripts that put no blanks between words, such as Chinese, each character.

    Marks, such as the vowel signs of Hindi, belong to the word they stand in.
    """
    return apart(
        "".join(c if c.isalnum() or c == "_" or unicodedata.category(c)[0] == "M" else " " for c in text.lower())
    ).split()


def apart(text: str) -> str:
    """Blanks around each character of a script that has none between words."""
    return _NO_BLANKS.sub(r" \g<0> ", text)


def sentences(text: str) -> list[str]:
    """Split at blanks after full stops, question and exclamation marks; Chinese and Japanese ones need no blank.

    Abbreviations are split too.
    """
    return [sentence for sentence in _SENTENCE_END.split(text.strip()) if sentence]


def rouge_scores(predictions: Iterable[str], references: Iterable[list[str]]) -> dict[str, np.ndarray]:
    """F of ROUGE-1, -2, -L and -Lsum of each summary, the best over its references.

    By `rouge_score` with the Porter stemmer; sentences, for Lsum, are those of `sentences`. It reads a-z and 0-9 only,
    so where most letters of the references are others, `words` are taken as they stand instead.

    Returns:
        `rouge1`, `rouge2`, `rougeL`, `rougeLsum`, shape (predictions,), from 0 to 100.

    Source: Lin 2004, https://aclanthology.org/W04-1013
    """
    from rouge_score.rouge_scorer import RougeScorer  # slow to import

    scorer = RougeScorer(ROUGE, use_stemmer=True, tokenizer=None if _in_latin_letters(references) else _Words())
    scores = []
    for prediction, texts in zip(predictions, references, strict=True):
        score = scorer.score_multi(["\n".join(sentences(text)) for text in texts], "\n".join(sentences(prediction)))
        scores.append(np.array([score[name].fmeasure for name in ROUGE]))
    return dict(zip(ROUGE, 100 * np.array(scores).T, strict=True))


def rouge_signature(references: Iterable[list[str]]) -> str:
    """What makes `rouge_scores` against these references comparable: version, figure, words and references."""
    unit = "Porter stemmer"
    if not _in_latin_letters(references):
        unit = "words of any script without stemming"
        found = "".join({letter for texts in references for text in texts for letter in _NO_BLANKS.findall(text)})
        if re.search(f"[{_CHINESE_OR_JAPANESE}]", found):
            unit += ", of Chinese and Japanese each character"
        elif found:
            unit += ", each character of scripts without blanks"
    return f"rouge_score {version('rouge_score')}, F, {unit}, best of the references"


def _in_latin_letters(references: Iterable[list[str]]) -> bool:
    latin, count = 0, 0
    for letter in (letter for texts in references for text in texts for letter in text.lower() if letter.isalpha()):
        latin, count = latin + ("a" <= letter <= "z"), count + 1
    return 2 * latin >= count


def translation_scores(
    predictions: Iterable[str], references: Iterable[list[str]], tokenize: str = "13a", resamples: int = 1000
) -> dict[str, dict[str, Any]]:
    """chrF and BLEU of a corpus by sacreBLEU, with the signature that makes each comparable.

    Args:
        references: one or more each.
        tokenize: sacreBLEU's name of BLEU's tokenizer.
        resamples: of sentences, for the standard error of Wilson's interval; 0 for none.

    Returns:
        `chrf` and `bleu`: each a dict of `value` (0 to 100), `signature` and, with `resamples`, `low` and `high`.

    Source: Popović 2015, https://aclanthology.org/W15-3049; Papineni et al. 2002, https://aclanthology.org/P02-1040;
    Post 2018, https://aclanthology.org/W18-6319
    """
    from sacrebleu.metrics import BLEU, CHRF

    most = max(map(len, references), default=1)
    found: dict[str, dict[str, Any]] = {}
    for name, metric in (("chrf", CHRF()), ("bleu", BLEU(tokenize=tokenize))):
        counts = _counts(metric, predictions, references, most)
        score = metric._compute_score_from_stats(counts.sum(0).tolist())
        found[name] = {"value": float(score.score), "signature": str(metric.get_signature())}
        if resamples:
            # sacreBLEU's own interval fails on a mixture of its number types where a resample scores 0.
            random = np.random.default_rng(0)
            drawn = (counts[random.integers(len(counts), size=len(counts))].sum(0) for _ in range(resamples))
            scores = [metric._compute_score_from_stats(each.tolist()).score for each in drawn]
            low, high = interval_by_error(score.score / 100, float(np.std(scores)) / 100, len(counts))
            found[name] |= {"low": 100 * low, "high": 100 * high}
    return found


def chrf_counts(predictions: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What chrF adds up of each sentence, shape (sentences, any); `chrf_of` makes a figure of their sum."""
    from sacrebleu.metrics import CHRF

    return _counts(CHRF(), predictions, [[text] for text in references], 1)


def chrf_of(counts: np.ndarray) -> float:
    """chrF of a corpus, from 0 to 100, by the sum of its sentences' counts, shape (any,)."""
    from sacrebleu.metrics import CHRF

    return float(CHRF()._compute_score_from_stats(counts.tolist()).score)


def _counts(metric: Any, predictions: Iterable[str], references: Iterable[list[str]], most: int) -> np.ndarray:
    """What sacreBLEU's `corpus_score` adds up of each sentence, (sentences, any), of some sentences at a time.

    Args:
        most: references that one has.
    """
    pairs, found, numbers = zip(predictions, references, strict=True), list[np.ndarray](), set[int]()
    while some := list(itertools.islice(pairs, _SENTENCES)):
        # It wants a corpus of first references, one of second ones and so on; None stands for one that is not there.
        streams = [[texts[i] if i < len(texts) else None for _, texts in some] for i in range(most)]
        found.append(np.array(metric._extract_corpus_statistics([text for text, _ in some], streams)))
        numbers.add(metric.num_refs)
    metric.num_refs = numbers.pop() if len(numbers) == 1 else -1  # for the signature
    return np.concatenate(found)


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


def _ngrams(text: Sequence[Any], n: int) -> list[tuple[Any, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def wilson_interval(share: float, trials: float, quantile: float = 1.959964) -> tuple[float, float]:
    """95 % score interval of a share, from 0 to 1, with the normal quantile or Student's.

    At 20 and 50 rows near 100 % it holds what a bootstrap, which never draws a mistake that the rows do not have,
    leaves out.

    Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
    """
    shrink = 1 + quantile**2 / trials
    middle = (share + quantile**2 / (2 * trials)) / shrink
    half = quantile / shrink * math.sqrt(share * (1 - share) / trials + quantile**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def interval_by_error(share: float, error: float, observations: int) -> tuple[float, float]:
    """Wilson's interval of a share with a standard error that was estimated from so many independent observations.

    The trials are the effective ones, share (1 - share) / error^2, and the quantile is Student's.

    Source: Korn and Graubard 1998, Survey Methodology 24, pages 193 to 201
    """
    if observations < 2:
        return 0.0, 1.0
    trials = share * (1 - share) / error**2 if error and 0 < share < 1 else observations
    return wilson_interval(share, trials, student_quantile(observations - 1))


def student_quantile(freedom: int) -> float:
    """Student's quantile of 97.5 %, by its degrees of freedom."""
    from scipy.special import stdtrit  # slow to import

    return float(stdtrit(freedom, 0.975))


def mean_interval(scores: np.ndarray, groups: np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval of a mean of scores from 0 to 100, by Wilson: of shares as it is, else by the mean's error.

    Rows that share a paragraph are not independent: with `groups` the error is that between groups (linearised, as
    for cluster samples), which gives the wider, honest interval. Of a single group the rows are taken.

    Args:
        scores: shape (rows,).
        groups: label of each row's group, shape (rows,).
    """
    shares = scores / 100
    members = np.arange(len(shares)) if groups is None else np.unique(groups, return_inverse=True)[1]
    members = members if members.max() else np.arange(len(shares))
    count, mean = int(members.max()) + 1, float(shares.mean())
    if count == len(shares) and np.isin(shares, (0, 1)).all():
        low, high = wilson_interval(mean, count)
    else:
        between = np.bincount(members, weights=shares - mean)
        error = math.sqrt(count / max(1, count - 1) * float(between @ between)) / len(shares)
        low, high = interval_by_error(mean, error, count)
    return 100 * low, 100 * high


def difference_interval(one: tuple[float, float, float], other: tuple[float, float, float]) -> tuple[float, float]:
    """95 % interval of `one - other`, two figures of different rows, from the interval that each has by itself.

    Of shares with Wilson's intervals it is Newcombe's hybrid score interval.

    Args:
        one, other: value, low and high of each.

    Source: Newcombe 1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I, method 10;
    in general Zou and Donner 2008, https://doi.org/10.1002/sim.3095
    """
    (value, low, high), (other_value, other_low, other_high) = one, other
    difference = value - other_value
    return (
        difference - math.hypot(value - low, other_high - other_value),
        difference + math.hypot(high - value, other_value - other_low),
    )


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
    low, high = np.nanquantile(bootstrap_means(scores, groups, seed, resamples, sizes), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_means(
    scores: np.ndarray,
    groups: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 2000,
    sizes: np.ndarray | None = None,
) -> np.ndarray:
    """The means that `bootstrap_interval` takes its quantiles of, shape (resamples,); NaN where no row counts."""
    if groups is None:
        groups = np.arange(len(scores))
    _, members = np.unique(groups, return_inverse=True)
    sums, sizes = np.bincount(members, weights=scores), np.bincount(members, weights=sizes)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        times = np.bincount(random.integers(len(sums), size=len(sums)), minlength=len(sums))
        count = times @ sizes
        means[i] = (times @ sums) / count if count else np.nan
    return means


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
    """95 % interval of the F1 over classes, from 0 to 1: Wilson's, with the standard error of resampled rows.

    With classes of a row or two the macro average's covers less, 85 to 90 %: what they lack no draw can show.

    F1 is a function of how often each pattern of expected and predicted classes occurs, so the counts of the patterns
    are drawn (multinomially), which is the same as drawing rows. A class that a resample neither holds nor predicts
    is left out of its macro average.

    Args:
        expected, predicted: which classes each row has, bool, shape (rows, classes).
    """
    patterns, counts = np.unique(np.concatenate([expected, predicted], axis=1), axis=0, return_counts=True)
    expected, predicted = np.split(patterns, 2, axis=1)
    hit, missed = (expected & predicted).astype(float), (expected ^ predicted).astype(float)

    def f1(times: np.ndarray) -> np.ndarray:
        hits, misses = times @ hit, times @ missed
        if average == "micro":
            hits, misses = hits.sum(1, keepdims=True), misses.sum(1, keepdims=True)
        there = 2 * hits + misses
        return (2 * hits / np.maximum(there, 1)).sum(1) / np.maximum((there > 0).sum(1), 1)

    random, rows = np.random.default_rng(seed), int(counts.sum())
    parts = range(0, resamples, 100)  # with many labels there are as many patterns as rows
    drawn = np.concatenate([f1(random.multinomial(rows, counts / rows, size=100)) for _ in parts])
    return interval_by_error(float(f1(counts[None])[0]), float(drawn.std()), rows)


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
