"""The classes of rows, as their cells name them."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tl_hub import cells
from tl_hub.errors import UserError, did_you_mean

_RARE = 3
"""Training rows below which a class is named: one to learn from, one to check on, and one to spare."""
_SHOWN = 10
_DIFFERENT = 10_000
"""Values that are remembered to be shared."""
_FEW = 64
"""Training rows a class up to which frozen vectors were better in our measurements, and above which training was:
SST-2, MiniLM, `tests/benchmarks/few_examples.py`; the table is in docs/results/few-labels.md."""
_INVISIBLE = dict.fromkeys([0x00AD, 0x200B, 0x2060, 0xFEFF])
"""Soft hyphen, zero-width space, word joiner, byte-order mark: spreadsheets and web pages leave them behind."""


def read_labels(
    column: Sequence[Any], kept: Iterable[int], names: list[str] | None, separator: str | None, name: str
) -> tuple[list[Any], bool]:
    """The class, or the list of classes, of each row in `kept`, as text; None where a row has none.

    Args:
        column: the cells of all rows: texts, whole numbers, or lists of them, also as JSON text.
        names: of the classes, where the cells are numbers into them.
        separator: stands between the classes of a cell; None where each cell is one class or a list.
        name: of the column.

    Returns:
        The labels, and whether they are lists.

    Raises:
        UserError: a cell is neither, or lists and single classes are mixed.
    """
    if separator:
        wrong = next((i for i, cell in enumerate(column) if cell is not None and not isinstance(cell, str)), None)
        if wrong is not None:
            raise UserError(f"row {wrong}: {name} is {column[wrong]!r}, not a text; omit --label_separator")
        parts = (None if cell is None else cell.split(separator) for cell in column)
        values = shared(part and [label.strip() for label in part if label.strip()] for part in parts)
    else:
        values = shared(cells.lists(column, name))
    several = next((isinstance(value, list) for value in values if value is not None), False)
    labels: list[Any] = []
    for i in kept:
        value = values[i]
        if value is not None and isinstance(value, list) != several:
            raise UserError(f"row {i}: {name} is {value!r}; give a list in every row or in none")
        if several and value is not None:
            inner = [_class_name(item, names, i, name) for item in value]
            labels.append(None if None in inner else list(dict.fromkeys(inner)))
        else:
            labels.append(_class_name(value, names, i, name))
    return shared(labels), several


def shared(values: Iterable[Any]) -> list[Any]:
    """Values of which those that are equal are one object: a class then takes 8 bytes a row, and not 60 or 150.

    Only texts and lists of texts are looked at, and as many different ones as classes may be.
    """
    known: dict[Any, Any] = {}
    found = []
    for value in values:
        key = tuple(value) if isinstance(value, list) else value
        if isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            value = known.get(key, value) if len(known) >= _DIFFERENT else known.setdefault(key, value)
        found.append(value)
    return found


def _class_name(value: Any, names: list[str] | None, row: int, column: str) -> str | None:
    """The class as text; None where there is none, for which a Hub data set with named classes has -1."""
    if names and type(value) is int:
        return names[value] if value >= 0 else None
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int):
        return str(value)
    raise UserError(f"row {row}: {column} is {value!r}; a class is a text or a whole number")


def is_number(label: str) -> bool:
    """Whether the name of a class is a whole number."""
    return label.removeprefix("-").isdecimal()


def spelling_key(label: str) -> str:
    """What labels share that differ only by case, blanks, invisible characters or Unicode form (NFKC)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return "".join(folded.translate(_INVISIBLE).split())


def most_frequent_spellings(counts: Mapping[str, int]) -> dict[str, str]:
    """The most frequent label of each `spelling_key`; of equally frequent ones the first in the alphabet."""
    best: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        best.setdefault(spelling_key(label), label)
    return best


def map_labels(labels: list[Any], names: Mapping[str, str]) -> list[Any]:
    """Rows' classes, or lists of classes, renamed; what `names` lacks stays."""
    return [
        list(dict.fromkeys(names.get(inner, inner) for inner in label))
        if isinstance(label, list)
        else names.get(label, label)
        for label in labels
    ]


def count_labels(labels: Iterable[Any]) -> Counter[str]:
    """Rows of each class; those without a label are left out, and a row of several classes counts for each."""
    counts = Counter[str]()
    for label in labels:
        counts.update([label] if isinstance(label, str) else label or [])
    return counts


def names_by_rows(
    labels: Sequence[Any], names: Sequence[Any], kept: Iterable[int], columns: tuple[str, str], table: dict[int, str]
) -> dict[int, str]:
    """`table`, names by number, with those that further rows add, in the order of the numbers.

    Args:
        labels, names: class and name of each row in `kept`, from `columns`; a row may lack the name.

    Raises:
        UserError: a label is no whole number, or has no name, two names, or that of another one (names the row).
    """
    label_column, name_column = columns
    numbers = {name: number for number, name in table.items()}
    table = dict(table)
    for i, label, name in zip(kept, labels, names, strict=True):
        if not (isinstance(label, str) and is_number(label)):
            raise UserError(
                f"row {i}: --label_name_column is for classes that are whole numbers, and {label_column} is {label!r}; "
                "omit it"
            )
        if name is None:
            continue
        number = int(label)
        if table.setdefault(number, name) != name:
            raise UserError(
                f"row {i}: {name_column} names {number} {name!r}, and {table[number]!r} in an earlier row; give each "
                "number one name"
            )
        if numbers.setdefault(name, number) != number:
            raise UserError(
                f"row {i}: {name_column} names {number} {name!r}, as it does {numbers[name]} in an earlier row; give "
                "each number a name of its own"
            )
    unnamed = sorted({int(label) for label in labels} - table.keys())
    if unnamed:
        raise UserError(f"no row with {label_column} {unnamed[0]} has a name in {name_column}; add it")
    return dict(sorted(table.items()))


def doubts(counts: Mapping[str, int]) -> list[str]:
    """Clauses on classes that are probably the same, and on those with too few training rows to be learned."""
    found = []
    groups: dict[str, list[str]] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        groups.setdefault(spelling_key(label), []).append(label)
    alike = [" and ".join(map(repr, group)) for group in groups.values() if len(group) > 1]
    if alike:
        found.append(f"probably the same class: {_some(alike, '; ')}; --fold_labels makes one of them")
    rare = [f"{label!r} ({count})" for label, count in sorted(counts.items()) if count < _RARE]
    if rare:
        found.append(f"classes with fewer than {_RARE} training rows: {_some(rare, ', ')}")
    return found


def better_method(fewest: int, frozen: bool) -> str | None:
    """A hint where the other kind of method was better with so many training rows of the rarest class.

    Args:
        frozen: a head on frozen vectors is about to be fitted, and not a model to be trained.
    """
    if frozen == (fewest <= _FEW):
        return None
    if frozen:
        return (
            f"{fewest:,} training rows of the rarest class: with more than {_FEW} a class training was better in "
            "our measurements than frozen vectors (docs/results/few-labels.md), and takes longer; try the recipe "
            "*_adapter.py or *_finetune.py"
        )
    return (
        f"{fewest} training rows of the rarest class: with up to {_FEW} a class frozen vectors were better in our "
        "measurements than training (docs/results/few-labels.md), and take seconds; try the recipe *_features.py"
    )


def _some(items: list[str], mark: str) -> str:
    return mark.join(items[:_SHOWN]) + (f"{mark}and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else "")


def parse_names(text: str) -> tuple[list[str], list[int] | None]:
    """Names of classes from `no,yes`, or from `0=no,1=yes`, and the numbers that these say.

    Raises:
        UserError: a name is missing, or a name or number is there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    pairs = [re.fullmatch(r"(-?\d+)\s*=\s*(.+)", part) for part in parts]
    numbers = [int(pair[1]) for pair in pairs if pair]
    names = [pair[2] if pair else part for pair, part in zip(pairs, parts, strict=True)]
    whole = len(numbers) in (0, len(parts)) and len(set(numbers)) == len(numbers)
    if not whole or not all(names) or len(set(names)) < len(names):
        raise UserError(f"--label_names {text}: give each class one name, such as no,yes or 0=no,1=yes")
    return names, numbers or None


def names_of_numbers(text: str, labels: Iterable[str], column: str) -> dict[int, str]:
    """Names by number, in the order of the numbers, for labels that are whole numbers or, already, names.

    Args:
        text: as `parse_names` takes it; without numbers, the names are in the order of the sorted numbers in `labels`.

    Raises:
        UserError: a label is neither a number nor a name, has no name, or there are more or fewer names than numbers.
    """
    names, numbers = parse_names(text)
    others = [label for label in labels if label not in names]
    wrong = next((label for label in others if not is_number(label)), None)
    if wrong is not None:
        near = did_you_mean(wrong, names) or "; omit it"
        raise UserError(f"--label_names is for whole numbers, and {column} holds {wrong!r}{near}")
    found = sorted({int(label) for label in others})
    shown = ", ".join(map(str, found))
    if numbers is None and len(found) != len(names):
        raise UserError(
            f"--label_names has {len(names)} names ({', '.join(names)}), and {column} holds {len(found)} numbers "
            f"({shown}); give one name for each, in this order"
        )
    table = dict(sorted(zip(numbers or found, names, strict=True)))
    unnamed = [number for number in found if number not in table]
    if unnamed:
        raise UserError(f"{column} holds {unnamed[0]}, for which --label_names has no name ({text})")
    return table
