"""From probabilities to classes, and how good that is. Classes of rows are indicators: bool, (rows, classes)."""

from array import array
from collections.abc import Iterable, Sequence

import numpy as np

from tl_hub.calibration import smoothed, sure_from, temperature
from tl_hub.metrics import best_threshold, expected_calibration_error, f1_interval
from tl_hub.on_use import scipy  # it takes a second, and only deciding needs it


def indicators(labels: Iterable[str | list[str]], classes: Sequence[str]) -> np.ndarray:
    """Which of the `classes` each row has, bool, (rows, classes), from its class or its list of them."""
    place = {name: i for i, name in enumerate(classes)}
    rows, columns, count = array("q"), array("q"), 0
    for count, label in enumerate(labels, start=1):
        for name in [label] if isinstance(label, str) else label:
            rows.append(count - 1)
            columns.append(place[name])
    found = np.zeros((count, len(classes)), dtype=bool)
    found[np.array(rows), np.array(columns)] = True
    return found


def names_of(given: np.ndarray, classes: Sequence[str]) -> list[list[str]]:
    """The classes of each row by name, from indicators (rows, classes)."""
    return [[classes[int(i)] for i in np.flatnonzero(row)] for row in given]


def given_classes(probabilities: np.ndarray, threshold: float | None) -> np.ndarray:
    """The classes that rows are given, bool, (rows, classes): those from `threshold` on, or the likeliest one."""
    if threshold is not None:
        return probabilities >= threshold
    likeliest = probabilities == probabilities.max(1, keepdims=True)
    return likeliest & (likeliest.cumsum(1) == 1)  # of equal ones the first


def decided(logits: np.ndarray, expected: np.ndarray, several: bool, sure_at: float | None) -> dict[str, float]:
    """What inference needs besides the weights, chosen on validation rows.

    Args:
        logits, expected: of the rows, (rows, classes).
        several: rows have any number of classes.
        sure_at: per cent of the answers that are to be right among those called sure.

    Returns:
        `threshold`, the probability from which a row is given a class, where it may have several; otherwise the
        `temperature`, and `sure_from`, where `sure_at` asks for it: a probability, above 1 where no answer is sure.
    """
    if several:
        return {"threshold": best_threshold(scipy.special.expit(logits), expected)}
    scale = temperature(logits, smoothed(expected))
    if sure_at is None:
        return {"temperature": scale}
    probabilities = scipy.special.softmax(logits / scale, axis=1)
    right = (given_classes(probabilities, None) == expected).all(1)
    return {"temperature": scale, "sure_from": sure_from(probabilities.max(1), right, sure_at)}


def figures(
    expected: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray, several: bool
) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float]]]:
    """Metrics in per cent, and the 95 % intervals of those that are a single figure.

    Args:
        expected, predicted: bool, (rows, classes).
        several: rows have any number of classes.
    """
    right = (expected == predicted).all(1)
    metrics: dict[str, np.ndarray] = {"accuracy": 100.0 * right}
    intervals = {}
    for average in ("micro", "macro") if several else ("macro",):
        metrics[f"{average}_f1"] = np.array(100 * f1(expected, predicted, average))
        low, high = f1_interval(expected, predicted, average)
        intervals[f"{average}_f1"] = (100 * low, 100 * high)
    if not several:
        error = expected_calibration_error(probabilities.max(1), right)
        metrics["expected_calibration_error"] = np.array(100 * error)
    return metrics, intervals


def f1(expected: np.ndarray, predicted: np.ndarray, average: str) -> float:
    """F1 from 0 to 1 of indicators (rows, classes); classes that are neither there nor predicted are not averaged."""
    from sklearn.metrics import f1_score

    return float(np.nan_to_num(f1_score(expected, predicted, average=average, zero_division=np.nan)))
