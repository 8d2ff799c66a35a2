"""Which measured rows stand on a card: a few drawn at random, or those that `--example_rows` names.

A row with personal data, a secret or a path of a machine is never shown.
"""

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.on_disk import each
from tl_hub.sensitive import kind_of
from tl_hub.tasks.base import Score, Task

if TYPE_CHECKING:
    from datasets import Dataset

    from tl_hub.data import Data

EXAMPLES, MISTAKES = 8, 10
PASSED_OVER = "When the examples were chosen"
"""How the note on rows that were passed over begins."""


def check(run: RunConfig, data: "Data", task: Task) -> None:
    """Whether the rows that `--example_rows` names are there and may be shown.

    Raises:
        UserError: no such row, one that is never shown, or a task without a prediction for each row.
    """
    if run.example_rows is None:
        return
    if not task.predicts_rows:
        raise UserError(f"--example_rows: {task.name} has no prediction for each row; omit it")
    rows = data.splits[data.final].rows
    for i in numbers(run.example_rows):
        if i >= len(rows):
            raise UserError(
                f"--example_rows {run.example_rows}: there is no row {i}; the {data.final} split has rows 0 to "
                f"{len(rows) - 1:,}"
            )
        if kind := kind_of(rows[i]):
            raise UserError(
                f"--example_rows {run.example_rows}: row {i} of the {data.final} split holds {kind}, and such rows are "
                "never shown; choose another"
            )


def numbers(example_rows: str) -> list[int]:
    """The row numbers of `--example_rows`, each once."""
    return list(dict.fromkeys(map(int, example_rows.split(","))))


def choose(predictions: "Dataset | list[dict[str, Any]]", run: RunConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows to be shown: random ones, not the best, or those asked for; and a note on those passed over, if any."""
    if not run.examples:
        return [], []
    drawn = np.random.default_rng(run.seed).permutation(len(predictions))
    order = numbers(run.example_rows) if run.example_rows else drawn
    shown: list[dict[str, Any]] = []
    passed = Counter[str]()
    for i in order:
        row = predictions[int(i)]
        kind = kind_of(row)
        if kind:
            passed[kind] += 1
        else:
            shown.append(row)
        if len(shown) == EXAMPLES and not run.example_rows:
            break
    if not passed:
        return shown, []
    count = passed.total()
    kinds = ", ".join(f"{number} with {kind}" for kind, number in passed.most_common())
    rows = "1 row was" if count == 1 else f"{count:,} rows were"
    return shown, [f"{PASSED_OVER}, {rows} passed over: {kinds}."]


def mistakes(score: Score, task: Task, run: RunConfig) -> list[dict[str, Any]]:
    """The rows that a model was surest of and got wholly wrong, where it tells how sure it is of each.

    None where `--example_rows` names the rows that may be shown.
    """
    values = score.metrics.get(task.best[0])
    if not run.examples or run.example_rows or values is None or values.shape != (len(score.predictions),):
        return []
    sure = np.fromiter((row.get("probability", np.nan) for row in each(score.predictions)), float, len(values))
    wrong = np.flatnonzero((values == 0) & ~np.isnan(sure))
    surest = (score.predictions[int(i)] for i in wrong[np.argsort(-sure[wrong], kind="stable")])
    return list(itertools.islice((row for row in surest if not kind_of(row)), MISTAKES))
