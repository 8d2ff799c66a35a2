"""Rows to be measured that are training rows too, exactly or nearly: a figure on those would measure memory."""

from typing import TYPE_CHECKING

import numpy as np
import xxhash

from tl_hub.data import Data
from tl_hub.near_duplicates import near
from tl_hub.on_disk import each

if TYPE_CHECKING:
    from datasets import Dataset

    from tl_hub.tasks.base import Task

MOST_TRAINED, MOST_MEASURED = 50_000, 5_000
"""Rows among which near-duplicates are looked for, at most; of more, as many drawn at random."""


def count(data: Data, task: "Task") -> None:
    """Count, in `overlaps`, the rows of each split whose input a training row has too, by their 64-bit hashes.

    Of the training split, those whose input an earlier row has. In `near_duplicates`, the other rows of the splits that
    are measured which are nearly training rows. The same of `data.others`. Counted once, before training, for the
    screen and for the record.
    """
    if data.overlaps:
        return
    train = data.splits["train"].rows
    trained = np.unique(_hashes(task, train))
    data.overlaps["train"] = len(train) - len(trained)
    measured = [(data, name) for name in data.splits if name != "train"]
    measured += [(other, other.final) for other in data.others]
    texts, read = list[list[str]](), _drawn(train, MOST_TRAINED)
    parts = []
    for of, name in measured:
        rows = of.splits[name].rows
        exact = np.isin(_hashes(task, rows), trained)
        of.overlaps[name] = int(exact.sum())
        few = _drawn(rows, MOST_MEASURED)
        parts.append(np.flatnonzero(~exact[few]) + len(texts))
        texts += [task.texts_of(row) for row in each(rows.select(few))]
        if len(few) < len(rows) or len(read) < len(train):
            of.notes.append(
                f"Near-duplicates were looked for between {len(few):,} of the {len(rows):,} rows of the {name} split "
                f"and {len(read):,} of the {len(train):,} training rows, drawn at random."
            )
    found = near((task.texts_of(row) for row in each(train.select(read))), texts)
    for (of, name), places in zip(measured, parts, strict=True):
        of.near_duplicates[name] = int(found[places].sum())


def _hashes(task: "Task", rows: "Dataset") -> np.ndarray:
    """Of the inputs, (rows,)."""
    found = (xxhash.xxh3_64_intdigest(task.input_of(row).encode()) for row in each(rows))
    return np.fromiter(found, np.uint64, len(rows))


def _drawn(rows: "Dataset", most: int) -> np.ndarray:
    """Numbers of so many rows at most, rising."""
    return np.sort(np.random.default_rng(0).permutation(len(rows))[:most])
