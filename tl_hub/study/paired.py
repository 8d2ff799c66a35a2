"""Whether two models differ on the same rows, by what each made of each row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tl_hub.metrics import bootstrap_means

LEVEL = 0.05
"""Probability below which a difference counts as shown."""


@dataclass(frozen=True)
class Difference:
    """How far one model's mean lies above another's on the same rows.

    Attributes:
        value: mean over the rows, in the unit of the metric.
        low, high: its 95 % interval.
        p: probability of so large a difference, either way, if there was none; adjusted by `holm` where several models
            were compared with one.
        test: what it was computed by.
    """

    value: float
    low: float
    high: float
    p: float
    test: str

    def verdict(self, higher: bool) -> str:
        """What may be said of the first model; `higher` is whether higher figures are better."""
        if self.p >= LEVEL:
            return "no difference shown"
        return "better" if (self.value > 0) == higher else "worse"


def compare(ours: np.ndarray, theirs: np.ndarray, groups: np.ndarray | None = None) -> Difference:
    """The difference of two models.

    Rows that are right or wrong (0 or 100), each on its own, take McNemar's exact test and the interval of Agresti and
    Min (2005, https://doi.org/10.1002/sim.1781), which is not empty where the models agree on every row. All others
    take the bootstrap of the rows' differences (Efron and Tibshirani 1993, chapter 16); rows that share a paragraph
    are drawn together.

    Args:
        ours, theirs: a metric of each row, shape (rows,).
        groups: label of each row's group, shape (rows,).
    """
    apart = ours - theirs
    value = float(apart.mean())
    if groups is None and np.isin(np.stack([ours, theirs]), (0.0, 100.0)).all():
        won, lost = int((apart > 0).sum()), int((apart < 0).sum())
        return Difference(value, *_agresti_min(won, lost, len(apart)), mcnemar(won, lost), "McNemar, exact")
    return _bootstrapped(value, bootstrap_means(apart, groups, resamples=10_000))


def compare_corpora(ours: np.ndarray, theirs: np.ndarray, figure: Callable[[np.ndarray], float]) -> Difference:
    """The difference of two models by a figure of a whole corpus, such as chrF: both have the same sentences drawn.

    Args:
        ours, theirs: counts of each sentence, shape (sentences, any).
        figure: of a corpus, by the sum of its counts.

    Source: paired bootstrap, Koehn 2004, https://aclanthology.org/W04-3250
    """
    random, apart = np.random.default_rng(0), []
    for _ in range(2000):
        drawn = random.integers(len(ours), size=len(ours))
        apart.append(figure(ours[drawn].sum(0)) - figure(theirs[drawn].sum(0)))
    return _bootstrapped(figure(ours.sum(0)) - figure(theirs.sum(0)), np.array(apart))


def _bootstrapped(value: float, drawn: np.ndarray) -> Difference:
    low, high = np.quantile(drawn, [0.025, 0.975])
    # One is added to both counts, or a finite number of draws would claim a probability of 0.
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p = min(1.0, 2 * (tail + 1) / (len(drawn) + 1))
    return Difference(value, float(low), float(high), p, "paired bootstrap")


def mcnemar(won: int, lost: int) -> float:
    """Two-sided probability of so uneven a split of the rows on which two models disagree, if either was as likely.

    Source: McNemar 1947, https://doi.org/10.1007/BF02295996, with the binomial distribution instead of its limit.
    """
    from scipy.stats import binomtest  # slow to import

    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def _agresti_min(won: int, lost: int, rows: int) -> tuple[float, float]:
    """95 % interval, in per cent, of the difference of two shares of the same rows."""
    won_, lost_, total = won + 0.5, lost + 0.5, rows + 2
    middle = (won_ - lost_) / total
    half = 1.959964 * np.sqrt((won_ + lost_) / total - middle**2) / np.sqrt(total)
    return 100 * max(-1.0, float(middle - half)), 100 * min(1.0, float(middle + half))


def holm(differences: Sequence[Difference]) -> list[Difference]:
    """The same with adjusted probabilities: with no difference anywhere, one is shown by mistake in 5 % at most.

    Source: Holm 1979, https://www.jstor.org/stable/4615733
    """
    adjusted, highest = [*differences], 0.0
    for place, i in enumerate(sorted(range(len(differences)), key=lambda i: differences[i].p)):
        highest = max(highest, min(1.0, differences[i].p * (len(differences) - place)))
        adjusted[i] = replace(differences[i], p=highest)
    return adjusted
