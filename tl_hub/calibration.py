"""Whether a probability is what it says: scaled on rows that were not trained on, and answers that are sure enough."""

import math
from typing import Any

import numpy as np

from tl_hub.errors import UserError
from tl_hub.metrics import expected_calibration_error, mean_interval
from tl_hub.on_use import scipy  # it takes a second, and only fitting needs it

_SHARES = (1.0, 0.9, 0.75, 0.5, 0.25)
"""Shares of the rows, the most confident ones, of which a card says how many are right."""
FEWEST = 100
"""Rows below which the surest ones are too few to say anything."""
_NONE = 1.01
"""A confidence that no answer has."""
_LARGEST = 30.0
"""Logit of a probability that half precision cannot tell from 1."""


def temperature(logits: np.ndarray, targets: np.ndarray, multi_label: bool = False) -> float:
    """By what logits, (examples, classes), are to be divided so that their log loss is lowest; from e^-5 to e^5.

    Temperature scaling, Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2. They must be logits of examples
    that the model was not fitted on.

    Args:
        targets: which classes an example has, bool, or how likely it is to have them, float; (examples, classes).
    """
    found = scipy.optimize.minimize_scalar(
        lambda log: log_loss(logits / np.exp(log), targets, multi_label), bounds=(-5, 5), method="bounded"
    )
    return float(np.exp(found.x))


def log_loss(logits: np.ndarray, targets: np.ndarray, multi_label: bool = False) -> float:
    """The mean negative log-likelihood of targets as in `temperature`, in nats."""
    if multi_label:
        likely, unlikely = scipy.special.log_expit(logits), scipy.special.log_expit(-logits)
        return float(-(targets * likely + (1.0 - targets) * unlikely).mean())
    return float(-(targets * scipy.special.log_softmax(logits, axis=1)).sum(1).mean())


def smoothed(targets: np.ndarray) -> np.ndarray:
    """Targets that leave some probability to the other classes, (rows, classes): 1 / (rows + 2) in all.

    Without it, the temperature of rows that are all right would go to 0, and each answer would be called certain. After
    Platt 1999 ("Probabilistic outputs for support vector machines", section 2.2), whose targets count the rows of each
    of two classes.
    """
    rows, classes = targets.shape
    other = 1 / (rows + 2)
    return np.where(targets, 1 - other, other / max(1, classes - 1))


def decided(confidence: np.ndarray, right: np.ndarray, sure_at: float | None) -> dict[str, float]:
    """What inference needs to know of answers' probabilities, chosen on validation rows.

    Args:
        confidence, right: as in `sure_from`.
        sure_at: per cent of the answers that are to be right among those called sure.

    Returns:
        `temperature` and, where `sure_at` asks for it, `sure_from`.
    """
    logits = _logit(confidence)
    scale = temperature(np.stack([0 * logits, logits], 1), smoothed(np.stack([~right, right], 1)))
    sure = {} if sure_at is None else {"sure_from": sure_from(scaled(confidence, scale), right, sure_at)}
    return {"temperature": scale, **sure}


def scaled(confidence: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities of single answers, (rows,), with their logits divided by a temperature."""
    return confidence if temperature == 1 else scipy.special.expit(_logit(confidence) / temperature)


def _logit(probabilities: np.ndarray) -> np.ndarray:
    """Of a probability, within what a float can tell from 0 and 1."""
    return np.clip(scipy.special.logit(probabilities), -_LARGEST, _LARGEST)


def check_sure_at(wanted: float | None) -> None:
    """
    Raises:
        UserError: no per cent of the answers.
    """
    if wanted is not None and not 0 < wanted <= 100:
        raise UserError(f"--sure_at is {wanted}; it must be per cent of the answers, above 0 and up to 100")


def sure_from(confidence: np.ndarray, right: np.ndarray, wanted: float) -> float:
    """The lowest confidence from which on at least `wanted` per cent of the answers are right; above 1 if none is.

    Args:
        confidence: of the answers, (rows,).
        right: whether they are, bool, (rows,).
    """
    order = np.argsort(-confidence, kind="stable")
    share = right[order].cumsum() / np.arange(1, len(order) + 1)
    last = np.r_[confidence[order][1:] != confidence[order][:-1], True]  # of equal ones, all are in or out
    fitting = np.flatnonzero(last & (100 * share >= wanted))
    return float(confidence[order][fitting[-1]]) if len(fitting) else _NONE


def tables(
    confidence: np.ndarray,
    right: np.ndarray,
    before: np.ndarray,
    decision: dict[str, float],
    groups: np.ndarray | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """What a card says of confidence: how far it is from the truth, and how many of the surest answers are right.

    That is a risk-coverage curve in figures, El-Yaniv and Wiener 2010, https://jmlr.org/papers/v11/el-yaniv10a.html.

    Args:
        confidence, right: as in `sure_from`, of the measured rows.
        before: the confidence without a temperature, (rows,).
        decision: of the validation rows, a `temperature` and perhaps `sure_from`.
        groups: as in `metrics.mean_interval`.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    if "temperature" in decision:
        found["Calibration"] = [
            {"confidence": name, "expected calibration error": 100 * expected_calibration_error(each, right)}
            for name, each in (("as the model gives it", before), ("with the temperature", confidence))
        ]
    order = np.argsort(-confidence, kind="stable")
    parts = {f"{100 * share:.0f} %": order[: math.ceil(share * len(order))] for share in _SHARES}
    if "sure_from" in decision:
        places = np.flatnonzero(confidence >= decision["sure_from"])
        parts[f"{100 * len(places) / len(order):.0f} %, called sure"] = places
    if len(order) >= FEWEST:
        found["Right answers among the surest"] = [
            {"surest rows": name, "confidence from": float(confidence[places].min())} | _right(places, right, groups)
            for name, places in parts.items()
            if len(places)
        ]
    return found


def _right(places: np.ndarray, right: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    of_places = None if groups is None else groups[places]
    low, high = mean_interval(100.0 * right[places], of_places)
    return {
        "rows": len(places),
        "right, %": 100 * float(right[places].mean()),
        "95 % interval": f"{low:.1f} to {high:.1f}",
    }
