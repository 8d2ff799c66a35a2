"""The classes of rows, as their cells name them."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tl_hub import cells
from tl_hub.errors import UserError


def read_labels(
    column: Iterable[Any], kept: Sequence[int], names: list[str] | None, separator: str | None, name: str
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
    values = list(column)
    if separator:
        wrong = [i for i, value in enumerate(values) if value is not None and not isinstance(value, str)]
        if wrong:
            raise UserError(f"row {wrong[0]}: {name} is {values[wrong[0]]!r}, not a text; omit --label_separator")
        parts = [None if value is None else value.split(separator) for value in values]
        values = [part and [label.strip() for label in part if label.strip()] for part in parts]
    else:
        values = cells.lists(values, name)
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
    return labels, several


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
