"""Validation rows for data that bring none: a part of the training rows, the same for every seed."""

from collections import Counter

import numpy as np
from datasets import Dataset, List, Value

from tl_hub.errors import UserError


def hold_out(rows: Dataset, limit: int | None) -> tuple[Dataset, Dataset]:
    """Training rows and validation rows out of checked training rows, both in the order of the file.

    Without `limit` a tenth is held out. With it, only the first `limit` rows and a tenth as many behind them are used,
    so that `limit` rows are left to train on where the file has enough. Classes are held out in proportion, and each
    keeps a row to train on. The draw depends on the rows' classes alone.

    Raises:
        UserError: no row can be held out without the last one of its class.
    """
    size = max(1, (len(rows) if limit is None else limit) // 10)
    if limit is not None and limit + size <= len(rows):
        rows = rows.select(range(limit + size))
    else:
        size = max(1, len(rows) // 10)
    classes = _classes(rows)
    left = Counter(label for row in classes for label in row)
    held: set[int] = set()
    for i in in_proportion(rows, 0).tolist():
        if len(held) < size and all(left[label] > 1 for label in classes[i]):
            held.add(i)
            left.subtract(classes[i])
    if not held:
        raise UserError("each class has one row only, so that none can be held out; give --validation_file")
    return rows.select([i for i in range(len(rows)) if i not in held]), rows.select(sorted(held))


def in_proportion(rows: Dataset, seed: int) -> np.ndarray:
    """Numbers of checked rows in a random order whose every beginning holds the classes in proportion, (rows,)."""
    classes = _classes(rows)
    order = np.random.default_rng(seed).permutation(len(rows))
    counts, seen, place = Counter(classes), Counter[tuple[str, ...]](), np.zeros(len(rows))
    for i in order.tolist():
        place[i] = (seen[classes[i]] + 0.5) / counts[classes[i]]
        seen[classes[i]] += 1
    return order[np.argsort(place[order], kind="stable")]


def _classes(rows: Dataset) -> list[tuple[str, ...]]:
    """The class of each row, or its labels; the same for all where they are no classes."""
    kind = rows.features.get("label")
    labels = rows["label"][:] if kind in (Value("string"), List(Value("string"))) else [[]] * len(rows)
    return [(label,) if isinstance(label, str) else tuple(sorted(label)) for label in labels]
