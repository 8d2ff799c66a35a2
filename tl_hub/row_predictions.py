"""What a model made of each row it was measured on, kept in the run folder to be looked through. Never published."""

import json
from pathlib import Path

import numpy as np

from tl_hub import run_folder
from tl_hub.tasks.base import Score


def write(folder: Path, score: Score, rows: int) -> None:
    """Write a line a prediction: its texts, `expected`, `predicted` and the metrics that single rows have.

    Where there is one prediction for each of the `rows` measured, `row` numbers them from 0 (blank rows, which are not
    measured, do not count); samples of a language model have no number. A metric that a row lacks (NaN) is null.
    """
    every = len(score.predictions) == rows
    means = {name: values for name, values in score.metrics.items() if every and values.shape == (rows,)}
    with open(folder / run_folder.PREDICTIONS, "w", encoding="utf-8") as file:
        for i, shown in enumerate(score.predictions):
            figures = {name: None if np.isnan(values[i]) else float(values[i]) for name, values in means.items()}
            file.write(json.dumps({**({"row": i} if every else {}), **shown, **figures}, ensure_ascii=False) + "\n")
