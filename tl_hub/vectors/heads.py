"""Light heads on fixed vectors, and cross-validation to choose what they read and how strongly they are regularised.

A head is fitted on standardised vectors; mean and deviation are then folded into its weights, so that it takes the
vectors as they are. Examples are rows of `vectors` (examples, dimensions), `targets` tells which classes each has, bool
(examples, classes): exactly one, unless `multi_label`. In regression `targets` are the numbers to predict, float
(examples, 1), a logit is the prediction, and ridge regression is the only kind of head.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss

from tl_hub.calibration import log_loss, temperature
from tl_hub.errors import UserError
from tl_hub.on_use import scipy, sklearn  # importing them takes a second, and only fitting a head needs them
from tl_hub.vectors import STRENGTHS, HeadKind

_HALF = 2.0**-10
"""Distance between two numbers of half precision, in parts of their size."""
_UNITS, _MLP_STRENGTH, _MIX_STRENGTH = 128, 1e-3, 1e-2
_MLP_EPOCHS, _MLP_PATIENCE = 200, 10


@dataclass(frozen=True)
class Head:
    """Logits of a vector x are `weight` @ x + `bias`: (classes, dimensions) and (classes,), float64.

    With `hidden`, (units, dimensions) and (units,), x is what that layer of rectified linear units gives.
    """

    weight: np.ndarray
    bias: np.ndarray
    hidden: tuple[np.ndarray, np.ndarray] | None = None

    def cooler(self, temperature: float) -> "Head":
        """The head whose logits are divided by `temperature`."""
        return Head(self.weight / temperature, self.bias / temperature, self.hidden)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        if self.hidden is not None:
            vectors = np.maximum(vectors @ self.hidden[0].T + self.hidden[1], 0)
        return vectors @ self.weight.T + self.bias


@dataclass(frozen=True)
class Validated:
    """What cross-validation found for each strength.

    Attributes:
        quality: accuracy, micro-averaged average precision of a multi-label task, or the share of the variance that a
            regression explains (R squared), in per cent, (strengths,).
        loss: mean log loss, or mean squared error of a regression, (strengths,).
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
    kind: HeadKind,
    vectors: np.ndarray | Callable[[np.ndarray], np.ndarray],
    targets: np.ndarray,
    folds: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    multi_label: bool = False,
    balanced: bool = False,
) -> Validated:
    """Fit on all folds but one and look at that one, for each fold and strength.

    Args:
        vectors: or what gives those of all examples, where they too are learned, from the examples that a fold is
            fitted on, bool (examples,).
    """
    logits = np.empty((len(strengths), *targets.shape))
    for fold in np.unique(folds):
        out = folds == fold
        x = vectors(~out) if callable(vectors) else vectors
        for i, head in enumerate(_fit(kind, x[~out], targets[~out], strengths, multi_label, balanced)):
            logits[i, out] = head(x[out])
    if _numbers(targets):
        loss = np.square(logits - targets).mean((1, 2))
        quality = 1 - loss / targets.var()
        return Validated(100 * quality, loss, logits)
    if multi_label:
        quality = np.array([sklearn.metrics.average_precision_score(targets, each, average="micro") for each in logits])
    else:
        quality = (logits.argmax(2) == targets.argmax(1)).mean(1)
    loss = np.array([log_loss(each, targets, multi_label) for each in logits])
    return Validated(100 * quality, loss, logits)


def fit(
    kind: HeadKind,
    vectors: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
    multi_label: bool = False,
    balanced: bool = False,
    weights: np.ndarray | None = None,
) -> tuple[Head, float]:
    """The head of the best strength, fitted on all examples, and that strength.

    Best is the lowest log loss in cross-validation for logistic regression, the highest quality for ridge regression.
    Of classes, the logits of ridge regression and of prototypes are then divided by their `temperature`.

    A multi-layer perceptron is not cross-validated: the examples of fold 0 are held out, and training stops where they
    are no longer told better.

    Args:
        weights: how much each example counts in a multi-layer perceptron, (examples,), such as windows of a text of
            which each is an example; the sum is the number of texts. Of a linear head the mean of the windows' logits
            is that of their mean, which is what it is fitted on.

    Raises:
        UserError: too few examples to hold some of each class out of the training of a multi-layer perceptron.
    """
    if kind == "mlp":
        (strength,) = strengths if len(strengths) == 1 else (_MLP_STRENGTH,)
        weights = np.ones(len(targets)) if weights is None else weights
        count, least = round(weights.sum()), round((weights @ targets).min())
        if count < 20 or not multi_label and (count < 10 * targets.shape[1] or least < 2):
            raise UserError(
                f"--head mlp holds some of the training examples out to tell when to stop; {count} examples "
                f"of {targets.shape[1]} classes, {least} of the rarest, are too few; use --head logistic"
            )
        return _mlp(vectors, targets, weights, folds == 0, strength, multi_label, balanced), strength
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
    if _numbers(targets):
        return head, strengths[place]
    return head.cooler(temperature(found.logits[place], targets, multi_label)), strengths[place]


def _fit(
    kind: HeadKind,
    vectors: np.ndarray,
    targets: np.ndarray,
    strengths: Sequence[float],
    multi_label: bool,
    balanced: bool,
) -> list[Head]:
    """A head for each strength, on vectors standardised by their own mean and deviation."""
    x, mean, deviation = _standardised(vectors)
    counts = targets.sum(0)
    weights = np.ones(len(targets))
    if balanced and not multi_label:
        weights = _balanced(targets, weights)
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
        if not multi_label and not _numbers(targets):
            bias = np.where(counts > 0, bias, bias.min() - 20.0)  # a class that these examples lack is not given
        folded = weight / deviation
        heads.append(Head(folded, bias - folded @ mean))
    return heads


def _numbers(targets: np.ndarray) -> bool:
    return targets.dtype.kind == "f"


def moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each dimension, by which it is standardised, float64, (dimensions,).

    A dimension that varies by less than half precision can tell, as vectors are kept in it, counts as constant. Its
    deviation is infinite, or the head would scale up what was rounded away, and the saved model would answer otherwise.
    """
    mean, deviation = vectors.mean(0, dtype=np.float64), vectors.std(0, dtype=np.float64)
    deviation[deviation < _HALF * np.abs(mean) + 1e-12] = np.inf
    return mean, deviation


def _standardised(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The vectors, and the mean and deviation by which they were standardised."""
    mean, deviation = moments(vectors)
    return ((vectors - mean) / deviation).astype(vectors.dtype), mean, deviation


def _balanced(targets: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weights with which each class counts for as much as the others."""
    counts = weights @ targets
    return weights * (weights.sum() / (targets.shape[1] * counts))[targets.argmax(1)]


def _logistic(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray, strength: float, multi_label: bool, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    classes = targets.shape[1]
    weight, bias = np.zeros((classes, x.shape[1])), np.zeros(classes)
    solver = sklearn.linear_model.LogisticRegression(
        C=1 / (strength * len(x)), max_iter=300, class_weight="balanced" if balanced and multi_label else None
    )
    with warnings.catch_warnings():
        # Cross-validation judges the head as it is.
        warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
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


def _mlp(
    vectors: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    held_out: np.ndarray,
    strength: float,
    multi_label: bool,
    balanced: bool,
) -> Head:
    """One layer of rectified linear units, by Adam until the examples held out, bool (examples,), are not told better.

    `MLPClassifier` would choose by itself which examples it holds out, and windows of one text would stand on either
    side.
    """
    x, mean, deviation = _standardised(vectors)
    if balanced and not multi_label:
        weights = _balanced(targets, weights)
    weights = weights / weights.mean()
    y = targets.argmax(1) if not multi_label else targets[:, 0] if targets.shape[1] == 1 else targets.astype(int)
    classes = np.arange(targets.shape[1]) if y.ndim > 1 else np.unique(y)
    fitted = np.flatnonzero(~held_out)
    # Its penalty is divided by the size of a batch, which is 200 unless there are fewer.
    solver = sklearn.neural_network.MLPClassifier(
        (_UNITS,), alpha=strength * min(200, len(fitted)), random_state=np.random.RandomState(0)
    )
    best, best_epoch = -np.inf, 0
    for epoch in range(_MLP_EPOCHS):
        solver.partial_fit(x[fitted], y[fitted], classes=classes, sample_weight=weights[fitted])
        quality = solver.score(x[held_out], y[held_out], sample_weight=weights[held_out])
        if quality > best:
            best, best_epoch = quality, epoch
            kept = [c.copy() for c in solver.coefs_], [c.copy() for c in solver.intercepts_]
        elif epoch - best_epoch == _MLP_PATIENCE:
            break
    (lower, upper), (lower_bias, upper_bias) = kept
    if not multi_label and targets.shape[1] == 2:  # of two classes sklearn gives the difference of the logits
        upper, upper_bias = upper * np.array([[-0.5, 0.5]]), upper_bias * np.array([-0.5, 0.5])
    folded = lower.T / deviation
    return Head(upper.T.astype(float), upper_bias.astype(float), (folded, lower_bias - folded @ mean))


def scalar_mix(layers: np.ndarray, targets: np.ndarray, multi_label: bool = False) -> np.ndarray:
    """How much of each layer is in their sum: the softmax of a number a layer, learned together with a linear head.

    As in ELMo (Peters et al. 2018, https://arxiv.org/abs/1802.05365, equation 1), whose one scale of the sum is left
    to the head. Each layer is first divided by the deviation of its values, so that none counts for being large.

    Args:
        layers: (layers, examples, dimensions).

    Returns:
        (layers,): softmax, over the layer's deviation.
    """
    x = torch.as_tensor(layers, dtype=torch.float32)
    x = x - x.mean(1, keepdim=True)
    deviation = x.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-6)
    x = x / deviation
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = cross_entropy
    y = torch.as_tensor(targets.argmax(1))
    if multi_label:
        y, loss_of = torch.as_tensor(targets.astype(np.float32)), binary_cross_entropy_with_logits
    elif _numbers(targets):
        y, loss_of = torch.as_tensor((targets - targets.mean()) / targets.std(), dtype=torch.float32), mse_loss
    mix = torch.zeros(len(x), requires_grad=True)
    weight = torch.zeros(targets.shape[1], x.shape[2], requires_grad=True)
    bias = torch.zeros(targets.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS([mix, weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        mixed = torch.einsum("l,lnd->nd", mix.softmax(0), x)
        loss = loss_of(mixed @ weight.T + bias, y) + _MIX_STRENGTH / 2 * weight.square().sum()
        loss.backward()
        return loss

    solver.step(closure)
    return (mix.detach().softmax(0) / deviation[:, 0, 0]).double().numpy()


def _ridge(
    x: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: Sequence[float]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Regression on the numbers, or on +1 and -1 of classes, by the smaller Gram matrix."""
    y = targets if _numbers(targets) else 2.0 * targets - 1
    share = (weights / weights.sum()).astype(x.dtype)
    x_mean, y_mean = share @ x, share @ y
    root = np.sqrt(weights).astype(x.dtype)[:, None]
    x, y = root * (x - x_mean), (root * (y - y_mean)).astype(x.dtype)
    few = len(x) < x.shape[1]
    gram, right = (x @ x.T, y) if few else (x.T @ x, x.T @ y)
    solved = []
    for strength in strengths:
        penalty = strength * len(x) * np.eye(len(gram), dtype=x.dtype)
        found = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram + penalty, overwrite_a=True), right)
        weight = (x.T @ found if few else found).T
        solved.append((weight, y_mean - weight @ x_mean))
    return solved
