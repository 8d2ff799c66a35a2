"""What a model made of each row it was measured on, kept in the run folder to be looked through. Never published."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from tl_hub import run_folder
from tl_hub.tasks.base import Score


def write(folder: Path, score: Score, rows: int, name: str = run_folder.PREDICTIONS) -> None:
    """Write a line a prediction: its texts, `expected`, `predicted` and the metrics that single rows have.

    Where there is one prediction for each of the `rows` measured, `row` numbers them from 0 (blank rows, which are not
    measured, do not count); samples of a language model have no number. A metric that a row lacks (NaN) is null. Rows
    that share a paragraph have the same `group`.
    """
    every = len(score.predictions) == rows
    means = {name: values for name, values in score.metrics.items() if every and values.shape == (rows,)}
    groups = score.groups if every else None
    numbers = None if groups is None else np.unique(groups, return_inverse=True)[1].tolist()
    with open(folder / name, "w", encoding="utf-8") as file:
        for i, shown in enumerate(score.predictions):
            figures = {name: None if np.isnan(values[i]) else float(values[i]) for name, values in means.items()}
            place = {"row": i} if every else {}
            group = {"group": numbers[i]} if numbers else {}
            file.write(json.dumps({**place, **group, **shown, **figures}, ensure_ascii=False) + "\n")


def read(folder: Path, name: str = run_folder.PREDICTIONS) -> list[dict[str, Any]]:
    """The lines that `write` wrote."""
    with open(folder / name, encoding="utf-8") as file:
        return [json.loads(line) for line in file]
