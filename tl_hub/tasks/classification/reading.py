"""The user's rows as a classifier reads them: those that have a text, their labels, and the classes these make."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_hub import on_disk
from tl_hub.errors import UserError, did_you_mean
from tl_hub.on_disk import Columns
from tl_hub.on_use import datasets
from tl_hub.tasks.labels import is_number, spelling_key

if TYPE_CHECKING:
    from datasets import Dataset

_LOOKED_AT = 1000
_LEAST_ROWS = 20
"""Rows below which each may well have a class of its own."""


def class_names(kind: Any) -> list[str] | None:
    """Names of the classes of a column that has them, single ones or lists, by its type in `datasets`."""
    return getattr(getattr(kind, "feature", kind), "names", None)


def rows_with_text(rows: Dataset, columns: Mapping[str, str]) -> np.ndarray:
    """Numbers of the rows whose texts are all there: public data have blank rows.

    Args:
        columns: of texts, in the rows and in the user's data.

    Raises:
        UserError: a cell is no text, or there is no such row.
    """
    kept = np.arange(len(rows))
    for name, given in columns.items():
        told = np.zeros(len(rows), dtype=bool)
        for i, text in enumerate(on_disk.Cells(rows, name)):
            if text is not None and not isinstance(text, str):
                raise UserError(f"row {i}: {given} is {text!r}; it must be a text")
            told[i] = bool(text and text.strip())
        kept = kept[told[kept]]
    if len(kept) == 0:
        raise UserError(f"none of the {len(rows)} rows has a text in {' and '.join(columns.values())}")
    return kept


def with_labels(rows: Dataset, kept: np.ndarray, texts: Sequence[str], labels: list[Any], kind: Any) -> Dataset:
    """The texts of the rows `kept`, each with its label.

    Args:
        kind: of the labels, in `datasets`.
    """
    strings = datasets.Features({name: datasets.Value("string") for name in texts})
    whole, rows = len(kept) == len(rows), rows.select_columns(list(texts))
    if not whole or rows.features != strings:
        rows = on_disk.written((batch for _, batch in on_disk.parts(rows.select(kept))), strings)
    # By default the fingerprint is a hash of the labels.
    return rows.add_column("label", labels, new_fingerprint=uuid.uuid4().hex, feature=kind)


def text_columns(columns: Columns) -> Columns:
    """The texts among columns of rows."""
    return {name: columns[name] for name in ("text", "text_pair") if name in columns}


def ordered(classes: Collection[str], names: Sequence[str]) -> list[str]:
    """Classes in the order of the logits: of their `names`, or else of numbers where all are, or else of letters."""
    whole = all(map(is_number, classes))
    place = {name: i for i, name in enumerate(names)}
    return sorted(classes, key=lambda label: (place.get(label, 0), int(label) if whole else 0, label))


def check_trained(split: str, unseen: list[str], known: Collection[str]) -> None:
    """Refuse classes of a split that no training row has.

    Raises:
        UserError: there are such classes.
    """
    if unseen:
        alike = {spelling_key(label) for label in unseen} <= {spelling_key(label) for label in known}
        raise UserError(
            f"the {split} rows have {len(unseen)} class{'es' * (len(unseen) > 1)} that no training row "
            f"has{quoted(unseen)}; "
            + ("--fold_labels takes other spellings for one class" if alike else "add training rows of it or remove it")
        )


def check_not_ids(labels: Sequence[str], column: str, rows: Dataset, used: Collection[str]) -> None:
    """Refuse rows of which nearly each has a class of its own.

    Args:
        labels: of the rows.
        rows: as the user has them.
        used: columns that the task reads.

    Raises:
        UserError: they do, as a column of ids has; names the columns that may hold the classes.
    """
    classes = len(set(labels))
    if len(labels) < _LEAST_ROWS or classes <= 0.9 * len(labels):
        return
    first, likely = rows.select(range(min(_LOOKED_AT, len(rows)))), []
    for name, feature in rows.features.items():
        if name not in used and getattr(feature, "dtype", "") in ("string", "large_string", "int64", "int32", "bool"):
            values = {value for value in first[name][:] if value is not None}
            if 2 <= len(values) <= max(2, len(first) // 10):
                likely.append(f"{name} ({len(values)} values, such as {min(values)!r})")
    raise UserError(
        f"{column} has {classes:,} classes in {len(labels):,} rows, as ids have; name the column of the classes "
        f"with --label_column{', such as ' * bool(likely)}{'; '.join(likely)}"
    )


def check_measured(found: list[str], labels: list[str], spellings: Collection[str], renamed: Mapping[str, str]) -> None:
    """Refuse classes of rows that a model is measured on and does not have.

    Args:
        labels: the model's classes.
        spellings: keys of theirs.
        renamed: what `--label_map` says.

    Raises:
        UserError: there are such classes.
    """
    unknown = [label for label in found if label not in labels]
    if unknown:
        alike = all(spelling_key(label) in spellings for label in unknown)
        for label, name in renamed.items():
            if label not in found and (near := did_you_mean(label, unknown)):
                raise UserError(f"--label_map {label}={name}: no row has the label {label!r}{near}")
        raise UserError(
            f"the rows have the classes {', '.join(found)}, the model {', '.join(labels)}; "
            + (
                "--fold_labels takes other spellings for one class"
                if alike
                else f"name the model's class for {', '.join(map(repr, unknown))} with --label_map, such as "
                f"{unknown[0]}={labels[0]}"
            )
        )


def quoted(labels: list[str]) -> str:
    """Some classes in brackets, as a message shows them; nothing of none."""
    shown = ", ".join(repr(label) for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
    return f" ({shown})" if labels else ""
