"""Labels that are numbers: regression, with the model's one output as the score of a text.

The rows, windows and models are those of `tl_hub.tasks.classification`, which calls this where labels are numbers. A
model is trained on the numbers as they are, by the mean squared error of transformers' own classes, so that what is
published gives scores that need no scaling back.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tl_hub import on_disk
from tl_hub.errors import UserError
from tl_hub.metrics import student_quantile
from tl_hub.on_disk import Columns
from tl_hub.tasks.base import Score, column
from tl_hub.tasks.classification.reading import text_columns

SCORE = "score"
"""Name of the model's one output, where a classifier has the names of its classes."""
PROBLEM = "regression"
"""What transformers calls it in a model's configuration: its loss is the mean squared error, its pipeline's score raw.
"""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NO_NUMBER = ("nan", "inf", "infinity")
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_RESAMPLES = 2000
_LEARNED = 10.0
"""Mean and deviation of the labels up to which the recipes' learning rates reach them from an output around 0."""
_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def are_numbers(cells: Sequence[Any]) -> bool:
    """Whether labels are numbers to predict: most are numbers, and one at least has a fraction.

    Whole numbers are classes, as `1` and `1.0` may be; so are texts such as `v1.5`.
    """
    count, fraction = 0, False
    for value in map(_number, cells):
        count += value is not None
        fraction = fraction or (value is not None and math.isfinite(value) and not value.is_integer())
    return fraction and 2 * count > len(cells)


def check_commas(cells: Sequence[Any], name: str) -> None:
    """Ask what labels such as `2,5` are: numbers with a decimal comma, or classes, of which there may be two.

    Args:
        name: of the column.

    Raises:
        UserError: most labels are numbers, and one at least has a comma (names the row).
    """
    i = next((i for i, cell in enumerate(cells) if _has_comma(cell)), None)
    if i is not None and 2 * sum(_has_comma(cell) or _number(cell) is not None for cell in cells) > len(cells):
        raise UserError(
            f"row {i}: {name} is {cells[i]!r}; give --regression where that is a number with a decimal comma, "
            "--no-regression where it is the name of a class, or --label_separator , where it is two classes"
        )


def read_numbers(cells: Sequence[Any], kept: Iterable[int], name: str) -> list[float | None]:
    """The label of each row in `kept`; None where a row has none.

    Args:
        cells: of all rows: numbers, or texts of them, with a point or, in the whole column, a comma before a fraction.
        name: of the column.

    Raises:
        UserError: a label is not a finite number, or its comma may divide thousands (names the row).
    """
    points = any("." in cell for cell in cells if isinstance(cell, str))
    i = None if points else next((i for i, cell in enumerate(cells) if _has_comma(cell)), None)
    if i is not None and all(_THOUSANDS.fullmatch(cell.strip()) for cell in cells if _has_comma(cell)):
        raise UserError(
            f"row {i}: {name} is {cells[i]!r}, and no label tells whether commas divide thousands or begin fractions; "
            "write the labels without commas, and fractions with a point"
        )
    labels: list[float | None] = []
    for i in kept:
        cell = cells[i]
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            labels.append(None)
            continue
        value = _number(cell.replace(",", ".") if not points and _has_comma(cell) else cell)
        if value is None or not math.isfinite(value):
            raise UserError(
                f"row {i}: {name} is {cell!r}, and the labels are read as numbers; give a finite number, with a point "
                "before its fraction, or --no-regression to make each label a class"
            )
        labels.append(value)
    return labels


def _has_comma(cell: Any) -> bool:
    """Whether it is the text of a number with one comma."""
    return isinstance(cell, str) and "," in cell and _COMMA.fullmatch(cell.strip()) is not None


def _number(cell: Any) -> float | None:
    """The number in a cell, which may be NaN or infinite; None if it holds something else."""
    if isinstance(cell, str):
        text = cell.strip()
        if not (_NUMBER.fullmatch(text) or text.lstrip("+-").lower() in _NO_NUMBER):
            return None
        return float(text)
    return float(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else None


def check_varied(labels: np.ndarray) -> None:
    """
    Raises:
        UserError: all training labels are the same number.
    """
    if labels.min() == labels.max():
        raise UserError(
            f"each of the {len(labels):,} training rows has the label {labels[0]:g}; there is nothing to learn: if the "
            "rows are sorted, mix them or omit --train_rows"
        )


def remark(labels: np.ndarray) -> str:
    """What is said before training: that it is regression, and where the scale of the labels is in its way."""
    said = f"labels are numbers from {labels.min():g} to {labels.max():g}: regression; "
    said += "--no-regression makes each number a class"
    if abs(labels.mean()) > _LEARNED or not 1 / _LEARNED <= labels.std() <= _LEARNED:
        said += (
            f". Their mean is {labels.mean():.3g} and their standard deviation {labels.std():.3g}: models learn such "
            "labels slowly or not at all; scale them to about 0 to 5"
        )
    return said


def score(predicted: np.ndarray, rows: Any) -> Score:
    """Root mean squared error and correlations of scores, (rows,), with the labels of `rows`, with 95 % intervals.

    A correlation is left out where all labels or all scores are the same number, as it is undefined there.
    """
    expected = column(rows, "label").astype(float)
    metrics: dict[str, np.ndarray] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for name, measure in MEASURES.items():
        value = measure(expected[None], predicted[None])[0]
        if not np.isnan(value):
            metrics[name] = np.array(value)
            intervals[name] = interval(measure, expected, predicted)

    def shown() -> Iterator[Columns]:
        for numbers, batch in on_disk.parts(rows):
            found = [round(float(predicted[i]), 4) for i in numbers]
            yield {**text_columns(batch), "expected": batch["label"], "predicted": found}

    return Score(metrics, predictions=on_disk.written(shown()), intervals=intervals, unit=None)


def rmse(expected: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Root of the mean squared error, in units of the labels, of each line of (samples, rows): (samples,)."""
    return np.sqrt(np.square(predicted - expected).mean(1))


def pearson(expected: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Pearson's correlation, from -1 to 1, of each line of (samples, rows); NaN where one side is constant.

    Returns:
        (samples,).
    """
    constant = (np.ptp(expected, axis=1) == 0) | (np.ptp(predicted, axis=1) == 0)
    x, y = (values - values.mean(1, keepdims=True) for values in (expected, predicted))
    norm = np.sqrt(np.square(x).sum(1) * np.square(y).sum(1))
    return np.divide((x * y).sum(1), norm, out=np.full(len(x), np.nan), where=~constant & (norm > 0))


def spearman(expected: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Spearman's correlation of ranks, those that are equal sharing the mean of theirs; otherwise as `pearson`."""
    from scipy.stats import rankdata  # slow to import

    return pearson(rankdata(expected, axis=1), rankdata(predicted, axis=1))


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "pearsonr": pearson,
    "spearmanr": spearman,
    "rmse": rmse,
}
"""Figures of a run by the names that the Hub's metrics have."""


def interval(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray], expected: np.ndarray, predicted: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a measure, from its standard error over resampled rows and Student's quantile.

    Correlations are taken by Fisher's z, errors by their logarithm, where they are more nearly normal. Draws that leave
    the measure undefined do not count. Where a draw lies at the end of the scale, or there is one row, it is the middle
    95 % of the draws.

    Source: Efron and Tibshirani 1993, chapters 12 and 13; Fisher 1915, https://doi.org/10.2307/2331838.
    """
    random = np.random.default_rng(seed)
    values = []
    at_once = max(1, min(_RESAMPLES, 2_000_000 // len(expected)))
    for start in range(0, _RESAMPLES, at_once):
        drawn = random.integers(len(expected), size=(min(at_once, _RESAMPLES - start), len(expected)))
        values.append(measure(expected[drawn], predicted[drawn]))
    found = np.concatenate([measure(expected[None], predicted[None]), *values])
    found = found[~np.isnan(found)]
    to, back = (np.log, np.exp) if measure is rmse else (np.arctanh, np.tanh)
    with np.errstate(divide="ignore", invalid="ignore"):  # rounding may take a correlation beyond 1
        middle, *scaled = to(found)
    if len(expected) == 1 or not np.isfinite([middle, *scaled]).all():
        low, high = np.quantile(found, [0.025, 0.975])
    else:
        half = student_quantile(len(expected) - 1) * np.std(scaled)
        low, high = back(middle - half), back(middle + half)
    return float(low), float(high)


def baselines(
    texts: list[str], labels: np.ndarray, asked: Iterable[str], expected: np.ndarray, predicted: np.ndarray
) -> list[dict[str, Any]]:
    """This model beside the mean of the training labels and a ridge regression on TF-IDF of words and pairs of words.

    The strength of the ridge is the best in leave-one-out cross-validation (`RidgeCV`).

    Args:
        texts, labels: of the training rows.
        asked, expected, predicted: texts, labels and this model's scores of the measured rows.
    """
    from sklearn.linear_model import RidgeCV

    from tl_hub.tasks.classification.baselines import words_and_pairs

    words = words_and_pairs()
    ridge = RidgeCV(alphas=_PENALTIES).fit(words.fit_transform(texts), labels)
    systems = {
        "this model": predicted,
        "mean of the training labels": np.full(len(expected), labels.mean()),
        f"TF-IDF and ridge regression (alpha = {ridge.alpha_:g})": ridge.predict(words.transform(asked)),
    }
    table = []
    for name, found in systems.items():
        figures = {each: float(measure(expected[None], found[None])[0]) for each, measure in MEASURES.items()}
        row: dict[str, Any] = {"system": name}
        table.append(row | {each: "undefined" if math.isnan(v) else v for each, v in figures.items()})
    return table
