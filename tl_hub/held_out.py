"""Validation rows for data that bring none: a part of the training rows, the same for every seed."""

from collections import Counter

import numpy as np
from datasets import Dataset, List, Value

from tl_hub.errors import UserError
from tl_hub.on_disk import Cells


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
    number, classes = _classes(rows)
    left = Counter[str]()
    for labels, count in zip(classes, np.bincount(number).tolist(), strict=True):
        left.update(dict.fromkeys(labels, count))
    held = np.zeros(len(rows), dtype=bool)
    for i in in_proportion(rows, 0):
        labels = classes[number[i]]
        if not size:
            break
        if all(left[label] > 1 for label in labels):
            held[i], size = True, size - 1
            left.subtract(labels)
    if not held.any():
        raise UserError("each class has one row only, so that none can be held out; give --validation_file")
    return rows.select(np.flatnonzero(~held)), rows.select(np.flatnonzero(held))


def in_proportion(rows: Dataset, seed: int) -> np.ndarray:
    """Numbers of checked rows in a random order whose every beginning holds the classes in proportion, (rows,)."""
    number, _ = _classes(rows)
    order = np.random.default_rng(seed).permutation(len(rows))
    by_class = np.argsort(number[order], kind="stable")  # of each class those that come first, first
    counts = np.bincount(number)
    seen = np.empty(len(rows), dtype=int)
    seen[by_class] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[np.argsort((seen + 0.5) / counts[number[order]], kind="stable")]


def _classes(rows: Dataset) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The number of each row's class, (rows,), and the class, or the labels, by number; one where there are none."""
    known: dict[tuple[str, ...], int] = {}
    if rows.features.get("label") not in (Value("string"), List(Value("string"))):
        return np.zeros(len(rows), dtype=int), [()]
    labels = ((label,) if isinstance(label, str) else tuple(sorted(label)) for label in Cells(rows, "label"))
    number = np.fromiter((known.setdefault(label, len(known)) for label in labels), int, len(rows))
    return number, list(known)
