"""Linear heads on fixed vectors, and cross-validation to choose what they read and how strongly they are regularised.

A head is fitted on standardised vectors; mean and deviation are then folded into its weights, so that it takes the
vectors as they are. Examples are rows of `vectors` (examples, dimensions), `targets` tells which classes each has, bool
(examples, classes): exactly one, unless `multi_label`.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

Kind = Literal["logistic", "ridge", "prototypes"]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties on the squared weights, as multiples of the number of examples."""


@dataclass(frozen=True)
class Head:
    """Logits of a vector x are `weight` @ x + `bias`: (classes, dimensions) and (classes,), float64."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        return vectors @ self.weight.T + self.bias


@dataclass(frozen=True)
class Validated:
    """What cross-validation found for each strength.

    Attributes:
        quality: accuracy, or micro-averaged average precision of a multi-label task, in per cent, (strengths,).
        loss: mean log loss, (strengths,).
        logits: of each example by the head that was not fitted on it, (strengths, examples, classes).
    """

    quality: np.ndarray
    loss: np.ndarray
    logits: np.ndarray


def folds_of(targets: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None) -> np.ndarray:
    """Number of the fold each example is in, (examples,). Each fold has its share of every class.

    Args:
        groups: examples of one group, such as the sentences of a document, stay together; classes are not balanced.
    """
    random = np.random.default_rng(seed)
    if groups is not None:
        _, members = np.unique(groups, return_inverse=True)
        return (random.permutation(members.max() + 1) % folds)[members]
    order = random.permutation(len(targets))
    order = order[np.argsort(targets[order].argmax(1), kind="stable")]
    found = np.empty(len(targets), dtype=int)
    found[order] = np.arange(len(targets)) % folds
    return found


def cross_validate(
    kind: Kind,
    vectors: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    multi_label: bool = False,
    balanced: bool = False,
) -> Validated:
    """Fit on all folds but one and look at that one, for each fold and strength."""
    logits = np.empty((len(strengths), *targets.shape))
    for fold in np.unique(folds):
        out = folds == fold
        for i, head in enumerate(_fit(kind, vectors[~out], targets[~out], strengths, multi_label, balanced)):
            logits[i, out] = head(vectors[out])
    if multi_label:
        quality = np.array([average_precision_score(targets, each, average="micro") for each in logits])
    else:
        quality = (logits.argmax(2) == targets.argmax(1)).mean(1)
    loss = np.array([_log_loss(each, targets, multi_label) for each in logits])
    return Validated(100 * quality, loss, logits)


def fit(
    kind: Kind,
    vectors: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    multi_label: bool = False,
    balanced: bool = False,
) -> tuple[Head, float]:
    """The head of the best strength, fitted on all examples, and that strength.

    Best is the lowest log loss in cross-validation for logistic regression, the highest quality for ridge regression.
    The logits of ridge regression and of prototypes are then multiplied by the number that makes the log loss of the
    cross-validation lowest (temperature scaling, Guo et al. 2017, https://arxiv.org/abs/1706.04599, section 4.2).
    """
    if kind == "logistic":
        best, lowest = strengths[0], np.inf
        # From the strongest on: the weaker, the slower to fit, and past the minimum the loss only rises.
        for strength in sorted(strengths, reverse=True) if len(strengths) > 1 else ():
            (loss,) = cross_validate(kind, vectors, targets, folds, (strength,), multi_label, balanced).loss
            if loss > lowest:
                break
            best, lowest = strength, loss
        (head,) = _fit(kind, vectors, targets, (best,), multi_label, balanced)
        return head, best
    if kind == "prototypes":
        strengths = strengths[:1]  # there is nothing to regularise
    found = cross_validate(kind, vectors, targets, folds, strengths, multi_label, balanced)
    place = int(found.quality.argmax())
    (head,) = _fit(kind, vectors, targets, (strengths[place],), multi_label, balanced)
    log_scale = minimize_scalar(
        lambda log: _log_loss(np.exp(log) * found.logits[place], targets, multi_label), bounds=(-5, 5), method="bounded"
    ).x
    return Head(np.exp(log_scale) * head.weight, np.exp(log_scale) * head.bias), strengths[place]


def _fit(
    kind: Kind,
    vectors: np.ndarray,
    targets: np.ndarray,
    strengths: Sequence[float],
    multi_label: bool,
    balanced: bool,
) -> list[Head]:
    """A head for each strength, on vectors standardised by their own mean and deviation."""
    mean, deviation = vectors.mean(0, dtype=np.float64), vectors.std(0, dtype=np.float64)
    deviation[deviation < 1e-6 * (np.abs(mean) + 1e-6)] = np.inf  # a constant tells nothing
    x = ((vectors - mean) / deviation).astype(vectors.dtype)
    counts = targets.sum(0)
    shares = np.maximum(counts, 1) / len(targets)
    weights = np.ones(len(targets))
    if balanced and not multi_label:
        weights = 1 / (targets.shape[1] * shares[targets.argmax(1)])
    if kind == "logistic":
        solved = [_logistic(x, targets, weights, strength, multi_label, balanced) for strength in strengths]
    elif kind == "ridge":
        solved = _ridge(x, targets, weights, strengths)
    else:
        # Of the squared distance to a prototype, what differs between classes is linear in x.
        centres = (targets.T @ x) / np.maximum(counts, 1)[:, None]
        solved = [(centres, -(centres**2).sum(1) / 2)] * len(strengths)
    heads = []
    for weight, bias in solved:
        if not multi_label:
            bias = np.where(counts > 0, bias, bias.min() - 20.0)  # a class that these examples lack is not given
        folded = weight / deviation
        heads.append(Head(folded, bias - folded @ mean))
    return heads


def _logistic(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float, multi_label: bool, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    classes = targets.shape[1]
    weight, bias = np.zeros((classes, x.shape[1])), np.zeros(classes)
    solver = LogisticRegression(
        C=1 / (strength * len(x)), max_iter=300, class_weight="balanced" if balanced and multi_label else None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # cross-validation judges the head as it is
        if multi_label:
            for i, target in enumerate(targets.T):
                if 0 < target.sum() < len(target):
                    solver.fit(x, target)
                    weight[i], bias[i] = solver.coef_[0], solver.intercept_[0]
                else:
                    bias[i] = np.log((target.sum() + 0.5) / (len(target) - target.sum() + 0.5))
            return weight, bias
        present = np.flatnonzero(targets.any(0))
        if len(present) > 1:
            solver.fit(x, targets.argmax(1), sample_weight=weights)
            pair = np.array([[-0.5], [0.5]])  # of two classes sklearn gives the difference of the logits
            weight[present] = solver.coef_ if len(present) > 2 else pair * solver.coef_
            bias[present] = solver.intercept_ if len(present) > 2 else pair[:, 0] * solver.intercept_
    return weight, bias


def _ridge(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Regression on +1 and -1, by the smaller Gram matrix."""
    y = 2.0 * targets - 1
    share = (weights / weights.sum()).astype(x.dtype)
    x_mean, y_mean = share @ x, share @ y
    root = np.sqrt(weights).astype(x.dtype)[:, None]
    x, y = root * (x - x_mean), (root * (y - y_mean)).astype(x.dtype)
    few = len(x) < x.shape[1]
    gram, right = (x @ x.T, y) if few else (x.T @ x, x.T @ y)
    solved = []
    for strength in strengths:
        penalty = strength * len(x) * np.eye(len(gram), dtype=x.dtype)
        found = cho_solve(cho_factor(gram + penalty, overwrite_a=True), right)
        weight = (x.T @ found if few else found).T
        solved.append((weight, y_mean - weight @ x_mean))
    return solved


def _log_loss(logits: np.ndarray, targets: np.ndarray, multi_label: bool) -> float:
    if multi_label:
        return float(-np.where(targets, log_expit(logits), log_expit(-logits)).mean())
    return float(-log_softmax(logits, axis=1)[targets].mean())
