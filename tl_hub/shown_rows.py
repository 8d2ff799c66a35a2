"""Which measured rows stand on a card: a few drawn at random, or those that `--example_rows` names.

A row with personal data, a secret or a path of a machine is never shown.
"""

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_hub import publishing
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.tasks.base import Task

if TYPE_CHECKING:
    from tl_hub.data import Data

EXAMPLES = 8

# The first that fits names the row's kind: an IBAN has groups of digits as a phone number has.
_KINDS = {
    "a secret": publishing.SECRETS,
    "a path": publishing.HOMES,
    "an e-mail address": re.compile(rb"[\w.+-]+@[\w-]+\.\w[\w.-]*"),
    "an IBAN": re.compile(rb"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "a phone number": re.compile(
        rb"\+\d(?:[ .()-]{0,2}\d){7,14}\b"  # with its country; below, without it, and no date
        rb"|(?<![\w.,:/-])(?!(?:19|20)\d\d-\d\d-\d\d)\(?\d{2,5}\)?[ .-](?:\d{2,4}[ .-]){1,3}\d{2,4}(?![\w:/-])"
    ),
}


def check(run: RunConfig, data: "Data", task: Task) -> None:
    """Whether the rows that `--example_rows` names are there and may be shown.

    Raises:
        UserError: no such row, one that is never shown, or a task without a prediction for each row.
    """
    if run.example_rows is None:
        return
    if type(task).tried is not Task.tried:
        raise UserError(f"--example_rows: {task.name} has no prediction for each row; omit it")
    rows = data.splits[data.final].rows
    for i in numbers(run.example_rows):
        if i >= len(rows):
            raise UserError(
                f"--example_rows {run.example_rows}: there is no row {i}; the {data.final} split has rows 0 to "
                f"{len(rows) - 1:,}"
            )
        if kind := private(rows[i]):
            raise UserError(
                f"--example_rows {run.example_rows}: row {i} of the {data.final} split holds {kind}, and such rows are "
                "never shown; choose another"
            )


def numbers(example_rows: str) -> list[int]:
    """The row numbers of `--example_rows`, each once."""
    return list(dict.fromkeys(map(int, example_rows.split(","))))


def private(row: dict[str, Any]) -> str | None:
    """What a row holds that must not stand on a card, such as "an e-mail address"; None if nothing."""
    content = json.dumps(row, ensure_ascii=False, default=str).encode()
    return next((kind for kind, form in _KINDS.items() if form.search(content)), None)


def choose(predictions: list[dict[str, Any]], run: RunConfig) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows to be shown: random ones, not the best, or those asked for; and a note on those passed over, if any."""
    if not run.examples:
        return [], []
    drawn = np.random.default_rng(run.seed).permutation(len(predictions))
    order = numbers(run.example_rows) if run.example_rows else drawn
    shown: list[dict[str, Any]] = []
    passed = Counter[str]()
    for i in order:
        kind = private(predictions[i])
        if kind:
            passed[kind] += 1
        else:
            shown.append(predictions[i])
        if len(shown) == EXAMPLES and not run.example_rows:
            break
    if not passed:
        return shown, []
    count = passed.total()
    kinds = ", ".join(f"{number} with {kind}" for kind, number in passed.most_common())
    rows = "1 row was" if count == 1 else f"{count:,} rows were"
    return shown, [f"When the examples were chosen, {rows} passed over: {kinds}."]
