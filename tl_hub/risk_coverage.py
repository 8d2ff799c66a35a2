"""The picture of how many answers are wrong if only the surest ones are given: a risk-coverage curve.

El-Yaniv and Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tl_hub import picture, run_folder
from tl_hub.calibration import FEWEST
from tl_hub.metrics import mean_interval
from tl_hub.tasks.base import Score

_POINTS = 100
"""Of the curve, at most."""


@dataclass(frozen=True)
class Curve:
    """Each of shape (points,), in per cent.

    Attributes:
        answered: share of the rows that are answered, the surest first.
        wrong: share of the answers that are wrong.
        low, high: 95 % interval of `wrong` at each point, over the rows.
    """

    answered: np.ndarray
    wrong: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve(confidence: np.ndarray, right: np.ndarray, groups: np.ndarray | None = None) -> Curve:
    """The curve at shares as evenly spread as the confidences allow: equal ones are all answered or none.

    Args:
        confidence, right: as in `calibration.sure_from`.
        groups: as in `metrics.mean_interval`.
    """
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.diff(confidence[order], append=-np.inf)) + 1
    wanted = np.linspace(0, len(order), _POINTS + 1)[1:]
    counts = np.unique(ends[np.searchsorted(ends, np.ceil(wanted))])
    wrong = 100.0 * ~right[order]
    shares = np.cumsum(wrong)[counts - 1] / counts
    of = None if groups is None else groups[order]
    bounds = [mean_interval(wrong[:count], None if of is None else of[:count]) for count in counts]
    low, high = np.array(bounds).T
    return Curve(100 * counts / len(order), shares, low, high)


def draw(folder: Path, score: Score) -> None:
    """Write risk_coverage.png, with a mark on the answers that `--sure_at` calls sure; not of fewer than 100 rows."""
    confidence, right = score.confidence, score.right
    if confidence is None or right is None or len(confidence) < FEWEST:
        return
    found = curve(confidence, right, score.groups)
    sure = confidence >= score.decision.get("sure_from", np.inf)
    with picture.drawn(folder / run_folder.RISK_COVERAGE) as figure:
        axes = figure.subplots()
        axes.fill_between(found.answered, found.low, found.high, color="tab:blue", alpha=0.2, label="95 % interval")
        axes.plot(found.answered, found.wrong, color="tab:blue", label="wrong among those answered")
        # The interval of a row or two is all that there is.
        top = [found.wrong.max(), found.high[found.answered >= 10].max()]
        if sure.any():
            wrong = 100 * float(1 - right[sure].mean())
            axes.plot(100 * sure.mean(), wrong, "D", color="tab:orange", label=f"called sure: {wrong:.1f} % wrong")
            axes.axvline(100 * sure.mean(), color="tab:orange", linestyle="--", linewidth=1)
        axes.set(xlabel="rows answered, the surest first, %", ylabel="wrong answers, %", xlim=(0, 101))
        axes.set_ylim(0, picture.limits([0.0, *top], "%")[1])
        picture.legend(figure)
