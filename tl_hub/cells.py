"""Cells that hold more than one value: lists and objects, which a CSV file has as JSON text."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from tl_hub.errors import UserError


def lists(values: Iterable[Any], column: str) -> Iterator[Any]:
    """Values of a column, gone through twice, of which each may be a list of texts or numbers; JSON text is parsed.

    Text that merely starts with a bracket, such as "[Update] ...", stays text. In a column with JSON lists, a blank
    cell is None.

    Raises:
        UserError: a cell begins as a list of quoted texts and is not JSON, or, beside JSON lists, another one is not.
    """
    several = any(isinstance(value, str) and isinstance(_parsed(value), list) for value in values)
    for row, value in enumerate(values):
        cell = _parsed(value)
        begin = "".join(cell[:40].split()) if isinstance(cell, str) else None
        if begin and (begin.startswith(('["', "['")) or (several and begin.startswith("["))):
            shown = repr(cell if len(cell) <= 80 else cell[:80] + "...")
            raise UserError(f'row {row}: {column} is {shown}, which is not a JSON list; write ["one", "two"]')
        yield None if several and begin == "" else cell


def objects(values: Iterable[Any], column: str) -> Iterator[Any]:
    """Values of a column of objects; JSON text of one is parsed.

    Raises:
        UserError: a text is not JSON.
    """
    for row, value in enumerate(values):
        try:
            yield json.loads(value) if isinstance(value, str) else value
        except (json.JSONDecodeError, RecursionError) as error:
            shown = repr(value if len(value) <= 80 else value[:80] + "...")
            raise UserError(f"row {row}: {column} is {shown}, which is not a JSON object") from error


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        cell = json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        return value
    return cell if all(type(item) in (str, int) for item in cell) else value
