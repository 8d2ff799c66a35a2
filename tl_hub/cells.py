"""Cells that hold more than one value: lists and objects, which a CSV file has as JSON text."""

import json
from collections.abc import Sequence
from typing import Any

from tl_hub.errors import UserError


def lists(values: Sequence[Any], column: str) -> list[Any]:
    """Values of a column of which each may be a list of texts or numbers; JSON text of such a list is parsed.

    Text that merely starts with a bracket, such as "[Update] ...", stays text. In a column with JSON lists, a blank
    cell is None.

    Raises:
        UserError: a cell begins as a list of quoted texts and is not JSON, or, beside JSON lists, another one is not.
    """
    found = [_parsed(value) for value in values]
    several = any(isinstance(value, str) and isinstance(cell, list) for value, cell in zip(values, found, strict=True))
    for row, cell in enumerate(found):
        if not isinstance(cell, str):
            continue
        begin = "".join(cell[:40].split())
        if begin.startswith(('["', "['")) or (several and begin.startswith("[")):
            shown = repr(cell if len(cell) <= 80 else cell[:80] + "...")
            raise UserError(f'row {row}: {column} is {shown}, which is not a JSON list; write ["one", "two"]')
        if several and not begin:
            found[row] = None
    return found


def objects(values: Sequence[Any], column: str) -> list[Any]:
    """Values of a column of objects; JSON text of one is parsed.

    Raises:
        UserError: a text is not JSON.
    """
    found = []
    for row, value in enumerate(values):
        try:
            found.append(json.loads(value) if isinstance(value, str) else value)
        except (json.JSONDecodeError, RecursionError) as error:
            shown = repr(value if len(value) <= 80 else value[:80] + "...")
            raise UserError(f"row {row}: {column} is {shown}, which is not a JSON object") from error
    return found


def _parsed(value: Any) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        cell = json.loads(value)
    except (json.JSONDecodeError, RecursionError):
        return value
    return cell if all(type(item) in (str, int) for item in cell) else value
