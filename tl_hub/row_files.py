"""Rows of files, as the user wrote them, onto the disk: a file may be larger than memory."""

import codecs
import csv
import gzip
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TextIO

import pyarrow
import pyarrow.parquet
from datasets import Dataset

from tl_hub import on_disk
from tl_hub.config import RunConfig
from tl_hub.errors import UserError, first_line
from tl_hub.on_disk import Columns

_BLOCK = 2**20
"""Letters, or bytes, that are read at once of what has no lines."""

RowReader = Callable[[Iterable[str]], Iterator[dict[str, Any]]]
"""Makes rows of the lines of a file of a kind that only one task knows; a `ValueError` says which is broken."""


def kinds(readers: dict[str, RowReader]) -> list[str]:
    """Suffixes of the files that are read, with those that only the task reads."""
    return [*_READERS, *readers]


def read(path: str, run: RunConfig, readers: dict[str, RowReader]) -> Dataset:
    """The rows of a file, on the disk.

    Args:
        readers: of the task, by suffix.

    Raises:
        UserError: no such file, one that is not read, is empty or broken (says in which line), or no room on the disk.
    """
    with _reading(path, run, readers):
        if suffix(Path(path)) == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as parquet:
                batches = parquet.iter_batches(on_disk.ROWS)
                tables = (pyarrow.Table.from_batches([batch]) for batch in batches)
                rows = on_disk.tables(tables, parquet.schema_arrow)
        else:
            rows = on_disk.written(_columns(path, run, readers))
    if len(rows) == 0:
        raise UserError(f"{path} is empty")
    return rows


def each(path: str, run: RunConfig, readers: dict[str, RowReader]) -> Iterator[dict[str, Any]]:
    """The rows of a file, one after the other; what `read` has of them.

    Raises:
        UserError: no such file, one that is not read, or is broken (says in which line).
    """
    with _reading(path, run, readers):
        for columns in _columns(path, run, readers):
            yield from (dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True))


@contextmanager
def _reading(path: str, run: RunConfig, readers: dict[str, RowReader]) -> Iterator[None]:
    """Within it, a file is read.

    Raises:
        UserError: it is not there, is of no kind that is read, or is broken.
    """
    file = Path(path)
    if suffix(file) not in kinds(readers):
        given, allowed = file.suffix or "none", ", ".join(kinds(readers))
        raise UserError(f"{path}: files of kind {given} are not read; allowed are {allowed}")
    if not file.is_file():
        raise UserError(f"{path}: no such file")
    try:
        yield
    except UnicodeError as error:
        half = isinstance(error, UnicodeEncodeError)  # half a surrogate pair, which JSON may write
        raise UserError(
            f"{path} cannot be read: {first_line(error) if half else _undecoded(file, run.encoding)}"
        ) from error
    except (ValueError, OverflowError, OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error


def _columns(path: str, run: RunConfig, readers: dict[str, RowReader]) -> Iterator[Columns]:
    """The rows of a file, some at a time."""
    file, kind = Path(path), suffix(Path(path))
    encoding = run.encoding or _marked(file)
    if kind not in readers:
        yield from _READERS[kind](file, encoding, run.delimiter)
        return
    with _opened(file, encoding, newline="\n") as lines:
        yield from on_disk.columns(readers[kind](lines))


def suffix(file: Path) -> str:
    """The kind of a file; of a compressed one, what is in it."""
    return Path(file.name.lower().removesuffix(".gz")).suffix


def separators(files: Iterable[Path], run: RunConfig) -> list[str]:
    """What separates the cells of .csv files, where their first line told it and it is no comma."""
    notes: list[str] = []
    for file in files if run.delimiter is None else ():
        if suffix(file) == ".csv":
            name = {";": "semicolons", "\t": "tabs"}.get(_delimiter(file, run.encoding or _marked(file)))
            notes += [f"The cells of {file.name} are separated by {name}."] * bool(name)
    return list(dict.fromkeys(notes))


def _marked(file: Path) -> str:
    """The encoding that a file's byte-order mark tells, which Excel and Notepad write; UTF-8 without one."""
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as binary:
        start = binary.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _undecoded(file: Path, encoding: str | None) -> str:
    """Which line of a file is in another encoding, and what mends it."""
    name = encoding or "UTF-8"
    place, line = f"it is not {name}", 1
    decoder = codecs.getincrementaldecoder(name)()
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as binary:
            for block in iter(partial(binary.read, _BLOCK), b""):
                line += decoder.decode(block).count("\n")
    except UnicodeDecodeError as error:
        line += error.object[: error.start].decode(name, "ignore").count("\n")
        place = f"line {line} is not {name} (byte 0x{error.object[error.start]:02x})"
    except UnicodeError:
        pass  # UTF-16 that does not begin with its mark
    return f"{place}; give the file's encoding with --encoding, such as cp1252, utf-16 or cp949"


def _opened(file: Path, encoding: str, newline: str) -> TextIO:
    opener: Any = gzip.open if file.suffix == ".gz" else open
    text: TextIO = opener(file, "rt", encoding=encoding, newline=newline)
    return text


# The libraries' own readers do not say in which line a file is broken, and guess: a text that looks like a date or a
# number becomes one, "NA" becomes nothing.
def _read_json(file: Path, encoding: str, delimiter: str | None) -> Iterator[Columns]:
    """One object a line or, in a .json file, a list of them."""
    if suffix(file) == ".json":
        with _opened(file, encoding, newline="") as text:
            start = next(
                (letter for block in iter(partial(text.read, _BLOCK), "") for letter in block.lstrip()[:1]), ""
            )
        if start == "[":
            with _opened(file, encoding, newline="") as text:
                yield from on_disk.columns(_objects("entry", enumerate(_entries(text), start=1)))
            return
        if start == "{" and (squad := _whole(file, encoding)) is not None:
            yield from on_disk.columns(_questions(squad["data"]))
            return
    with _opened(file, encoding, newline="\n") as text:
        lines = ((number, line.rstrip("\n")) for number, line in enumerate(text, start=1) if line.strip())
        yield from on_disk.columns(_objects("line", ((number, _parsed(line, number)) for number, line in lines)))


def _entries(text: TextIO) -> Iterator[Any]:
    """The entries of a JSON list, of which no more is in memory than a block, or an entry that is longer.

    Raises:
        ValueError: it is broken; says in which line.
    """
    decoder, blanks = json.JSONDecoder(), re.compile(r"[ \t\n\r]*")
    held, at = "", 0
    lines, letters = 0, 0  # before what is held, and those of its first line

    def fill() -> bool:
        nonlocal held, at, lines, letters
        if not (new := text.read(max(_BLOCK, len(held) - at))):
            return False
        begins = held.rfind("\n", 0, at) + 1
        lines += held.count("\n", 0, at)
        letters = at - begins + (0 if begins else letters)
        held, at = held[at:] + new, 0
        return True

    def next_mark() -> str:
        nonlocal at
        at = blanks.match(held, at).end()  # type: ignore[union-attr]
        while at == len(held) and fill():
            at = blanks.match(held, at).end()  # type: ignore[union-attr]
        return held[at : at + 1]

    def refuse(error: json.JSONDecodeError) -> NoReturn:
        column = error.colno + (letters if error.lineno == 1 else 0)
        raise ValueError(_broken(lines + error.lineno, error.msg, column)) from error

    next_mark()
    at, first = at + 1, True
    while not (mark := next_mark()) == "]":
        if not first:
            if mark != ",":
                refuse(json.JSONDecodeError("Expecting ',' delimiter", held, at))
            at += 1
            next_mark()
        while True:
            try:
                value, end = decoder.raw_decode(held, at)
                if end > len(held) - 3 and fill():
                    continue  # a number may go on, such as 1e-
                at = end
                break
            except json.JSONDecodeError as error:
                # What is cut off fails where it is, or as a string without an end.
                cut = error.pos > len(held) - 32 or error.msg.startswith("Unterminated")
                if not (cut and fill()):
                    refuse(error)
        yield value
        first = False
    at += 1
    if next_mark():
        refuse(json.JSONDecodeError("Extra data", held, at))


def _whole(file: Path, encoding: str) -> Any:
    """The object that a file is as a whole, if it is one as SQuAD's own files are; None of one object a line."""
    with _opened(file, encoding, newline="") as text:
        first = next(line for line in text if line.strip())
        try:
            value = json.loads(first)
            one_a_line = not isinstance(value.get("data"), list)
        except json.JSONDecodeError:
            one_a_line = False
        if one_a_line:
            return None
        try:
            value = json.loads(first + text.read())
        except json.JSONDecodeError:
            return None
    return value if isinstance(value.get("data"), list) else None


def _questions(articles: list[Any]) -> Iterator[dict[str, Any]]:
    """Rows of SQuAD's nested form, 1.1 and 2.0 (Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822)."""
    place = ""
    try:
        for a, article in enumerate(articles):
            for p, paragraph in enumerate(article["paragraphs"]):
                place = f" (article {a}, paragraph {p})"
                for question in paragraph["qas"]:
                    given = [] if question.get("is_impossible") else question["answers"]
                    answers = {name: [answer[name] for answer in given] for name in ("text", "answer_start")}
                    title = {"title": article.get("title"), "context": paragraph["context"]}
                    yield title | {"id": question.get("id"), "question": question["question"], "answers": answers}
    except (KeyError, TypeError, AttributeError) as error:
        form = "data: [{paragraphs: [{context, qas: [{question, answers: [{text, answer_start}]}]}]}]"
        raise ValueError(f"is not in SQuAD's form{place}, which is {form}; missing or wrong: {error}") from error


def _objects(unit: str, entries: Iterable[tuple[int, Any]]) -> Iterator[dict[str, Any]]:
    """Numbered values as rows."""
    for number, value in entries:
        if not isinstance(value, dict):
            raise ValueError(f"{unit} {number} is not a JSON object")
        yield value


def _parsed(text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(_broken(line + error.lineno - 1, error.msg, error.colno)) from error


def _broken(line: int, message: str, column: int) -> str:
    return f"line {line} is not JSON ({message} at column {column}); one object a line is read"


def _delimiter(file: Path, encoding: str) -> str:
    """What separates the cells of a file, as its first line tells."""
    with _opened(file, encoding, newline="") as text:
        header = next((line for line in text if line.strip("\r\n")), "")
    return next((mark for mark in ",;\t" if mark in header), ",") if suffix(file) == ".csv" else "\t"


def _read_csv(file: Path, encoding: str, delimiter: str | None) -> Iterator[Columns]:
    """Every cell is text; the first line has the names of the columns, and tells what separates them unless given."""
    csv.field_size_limit(2**31 - 1)
    separator = "\t" if delimiter == "tab" else delimiter or _delimiter(file, encoding)
    with _opened(file, encoding, newline="") as text:
        yield from _cells(text, separator)


def _cells(text: TextIO, separator: str) -> Iterator[Columns]:
    table = csv.reader(text, strict=True, delimiter=separator)
    try:
        names = next(table, [])
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two columns are named {twice[0]!r}")
        while rows := list(itertools.islice(_lines(table, names), on_disk.ROWS)):
            yield {name: [row[i] for row in rows] for i, name in enumerate(names)}
    except csv.Error as error:
        raise ValueError(f"line {table.line_num} is not CSV ({error})") from error


def _lines(table: Any, names: list[str]) -> Iterator[list[str]]:
    for cells in table:
        if cells and len(cells) != len(names):
            raise ValueError(f"line {table.line_num} has {len(cells)} cells, the first line {len(names)}")
        if cells:
            yield cells


def _read_parquet(file: Path, encoding: str, delimiter: str | None) -> Iterator[Columns]:
    with pyarrow.parquet.ParquetFile(file) as parquet:
        yield from (batch.to_pydict() for batch in parquet.iter_batches(on_disk.ROWS))


_READERS: dict[str, Callable[[Path, str, str | None], Iterator[Columns]]] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
"""Makes rows of a file, some at a time, by its encoding and what separates its cells; a `ValueError` says what is wrong
with it."""
