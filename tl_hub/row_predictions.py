"""What a model made of each row it was measured on, kept in the run folder to be looked through. Never published."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tl_hub import run_folder
from tl_hub.on_disk import each
from tl_hub.tasks.base import Score


def write(folder: Path, score: Score, rows: int, name: str = run_folder.PREDICTIONS) -> None:
    """Write a line a prediction: its texts, `expected`, `predicted` and the metrics that single rows have.

    Where there is one prediction for each of the `rows` measured, `row` numbers them from 0 (blank rows, which are not
    measured, do not count); samples of a language model have no number. A metric that a row lacks (NaN) is null. Rows
    that share a paragraph have the same `group`.
    """
    lines = figures_of(score, rows)
    with open(folder / name, "w", encoding="utf-8") as file:
        for shown, figures in zip(each(score.predictions), lines, strict=True):
            place = {key: figures[key] for key in ("row", "group") if key in figures}
            file.write(json.dumps({**place, **shown, **figures}, ensure_ascii=False) + "\n")


def figures_of(score: Score, rows: int) -> Iterator[dict[str, Any]]:
    """What the lines that `write` writes have beside texts."""
    every = len(score.predictions) == rows
    means = {name: values for name, values in score.metrics.items() if every and values.shape == (rows,)}
    groups = score.groups if every else None
    numbers = None if groups is None else np.unique(groups, return_inverse=True)[1]
    for i in range(len(score.predictions)):
        figures = {name: None if np.isnan(values[i]) else float(values[i]) for name, values in means.items()}
        group = {} if numbers is None else {"group": int(numbers[i])}
        yield ({"row": i} if every else {}) | group | figures


def read(folder: Path, name: str = run_folder.PREDICTIONS) -> list[dict[str, Any]]:
    """The lines that `write` wrote."""
    with open(folder / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
