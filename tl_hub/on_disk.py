"""Rows on the disk, in Arrow's format and mapped: memory holds those that are being read, however many there are.

Up to a thousand stay in memory. The files have no names. They are this process's alone, are never found again as
another run's, and are gone with it however it ends, so that no copy of private data stays behind. They stand in
`$TL_HUB_CACHE`, by default below the folder of the Hub's own cache.
"""

import itertools
import mmap
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import xxhash

from tl_hub import progress
from tl_hub.errors import UserError
from tl_hub.on_use import datasets, pyarrow

if TYPE_CHECKING:
    from datasets import Dataset, Features

Columns = dict[str, list[Any]]
"""Some rows: the cells of each column, by its name."""

ROWS = 1000
"""Rows in memory at once."""
MANY = 10_000
"""Rows from which a bar shows how far encoding is."""


def folder() -> Path:
    """Where the project keeps what it computes, and the rows of runs under way."""
    from huggingface_hub.constants import HF_HOME  # slow to import

    return Path(os.environ.get("TL_HUB_CACHE") or Path(HF_HOME) / "tl_hub")


def parts(rows: "Dataset") -> Iterator[tuple[range, Columns]]:
    """The rows in their order, a thousand at a time, with their numbers."""
    start = 0
    for batch in rows.iter(ROWS):
        end = start + len(next(iter(batch.values())))
        yield range(start, end), batch
        start = end


def each(rows: "Dataset | list[dict[str, Any]]") -> Iterator[dict[str, Any]]:
    """The rows in their order. One at a time, `datasets` takes more than a hundred times as long to find them."""
    if isinstance(rows, list):
        yield from rows
        return
    for _, batch in parts(rows):
        yield from (dict(zip(batch, cells, strict=True)) for cells in zip(*batch.values(), strict=True))


class Cells:
    """A column, to go through any number of times, as `each` does rows."""

    def __init__(self, rows: "Dataset", name: str):
        self.rows, self.name = rows.select_columns(name), name

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        for _, batch in parts(self.rows):
            yield from batch[self.name]


def groups(cells: Cells) -> np.ndarray:
    """Numbers of texts, the same where they are alike by their 64-bit hashes, as they first come: (rows,)."""
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(text.encode()) for text in cells), np.uint64, len(cells))
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[group]


def columns(rows: Iterable[dict[str, Any]]) -> Iterator[Columns]:
    """Rows as columns, some at a time; what one lacks that one before it has is None."""
    names: dict[str, None] = {}
    left = iter(rows)
    while some := list(itertools.islice(left, ROWS)):
        names |= dict.fromkeys(name for row in some for name in row)
        yield {name: [row.get(name) for row in some] for name in names}


def mapped(rows: "Dataset", make: Callable[[Columns, range], Columns]) -> "Dataset":
    """What `make` makes of some rows at a time and their numbers: any number of rows with columns of their own.

    Raises:
        UserError: as `written`.
    """

    def chunks() -> Iterator[Columns]:
        with progress.bar(len(rows), "tokenizing", "row", leave=False, shown=len(rows) > MANY) as bar:
            for numbers, batch in parts(rows):
                yield make(batch, numbers)
                bar.update(len(numbers))

    return written(chunks())


def written(chunks: Iterable[Columns], features: "Features | None" = None) -> "Dataset":
    """Rows that come some at a time, on the disk.

    Args:
        features: of the columns. None: what fits all cells, as `Dataset.from_dict(..., on_mixed_types="use_json")`
            would find of all rows at once; a column that some chunks lack is None there.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
        ValueError, OverflowError: a cell fits no type of Arrow's.
    """
    kinds: list[tuple[Features, _Rows]] = []
    with ExitStack() as opened:
        for chunk in chunks:
            table, found = _typed(chunk, features)
            fitting = _columns_fitting(kinds[-1][0], found) if kinds else found
            if fitting != found:
                table, _ = _typed(_with_all(fitting, chunk), fitting)
            if not kinds or fitting != kinds[-1][0]:
                kinds.append((fitting, _Rows(table.schema, opened)))
            kinds[-1][1].add(table)
        read = [rows.read() for _, rows in kinds]
    if len(read) > 1:  # what came first fits fewer cells than what came last
        last = read[-1].features
        return written((_with_all(last, batch) for rows in read for _, batch in parts(rows)), last)
    return read[0] if read else datasets.Dataset.from_dict({name: [] for name in features or {}}, features=features)


def tables(found: "Iterable[pyarrow.Table]", schema: "pyarrow.Schema") -> "Dataset":
    """Arrow's tables of one schema, on the disk.

    Raises:
        UserError: as `written`.
    """
    with ExitStack() as opened:
        rows = _Rows(schema, opened)
        for table in found:
            rows.add(table)
        return rows.read()


def numbers(found: Iterable[np.ndarray]) -> np.ndarray:
    """Arrays of numbers of one kind, (any,) each, one after the other, on the disk.

    Raises:
        UserError: as `written`.
    """
    kind = np.dtype(float)
    with _nameless() as file:
        for array in found:
            kind = array.dtype
            with _writing():
                file.write(array.data)
        with _writing():
            file.flush()
        return np.memmap(file, kind, "r")


@contextmanager
def _nameless() -> Iterator[IO[bytes]]:
    """A new file without a name, in `folder`."""
    with _writing():
        folder().mkdir(parents=True, exist_ok=True)
        file = tempfile.TemporaryFile(dir=folder())
    try:
        yield file
    finally:
        with suppress(OSError):  # of a full disk, which has been said
            file.close()


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the rows cannot be kept in {folder()} ({error.strerror or error}); set TL_HUB_CACHE to a folder on "
            "another disk, or give fewer rows"
        ) from error


class _Rows:
    """Tables of one schema on their way to the disk. The first stays in memory if it is the only one."""

    def __init__(self, schema: "pyarrow.Schema", opened: ExitStack):
        self.schema, self.opened = schema, opened
        self.first: pyarrow.Table | None = None
        self.file: IO[bytes] | None = None

    def add(self, table: "pyarrow.Table") -> None:
        if self.first is None:
            self.first = table
            return
        with _writing():
            if self.file is None:
                self.file = self.opened.enter_context(_nameless())
                self.writer = pyarrow.ipc.new_stream(self.file, self.schema)
                self.writer.write_table(self.first)
            self.writer.write_table(table)

    def read(self) -> "Dataset":
        table = self.schema.empty_table() if self.first is None else self.first
        if self.file:
            with _writing():
                self.writer.close()
                self.file.flush()
            mapped_file = pyarrow.py_buffer(mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_READ))
            table = pyarrow.ipc.open_stream(mapped_file).read_all()
        # By default the fingerprint is a hash of all rows.
        return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=uuid.uuid4().hex)


def _typed(chunk: Columns, features: "Features | None") -> "tuple[pyarrow.Table, Features]":
    """Some rows, and their types, as `Dataset.from_dict` has them, which would also make a hash of them."""
    found = {
        name: _cells(
            values if features is None else features.encode_column(values, name), name, (features or {}).get(name)
        )
        for name, values in chunk.items()
    }
    table = pyarrow.table({name: cells for name, (cells, _) in found.items()})
    return table, datasets.Features({name: kind for name, (_, kind) in found.items()})


def _cells(values: list[Any], name: str, kind: Any) -> tuple[Any, Any]:
    """Cells of a column and their type. Only dictionaries are looked through for cells of several types."""
    sequence = datasets.arrow_writer.OptimizedTypedSequence
    plain = sequence(values, type=kind, col=name)
    with suppress(pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
        cells = pyarrow.array(plain)
        if kind is not None or "struct" not in str(cells.type):
            return cells, plain.get_inferred_type()
    mixed = sequence(values, type=kind, col=name, on_mixed_types="use_json")
    return pyarrow.table({name: mixed})[name], mixed.get_inferred_type()


def _with_all(columns: Iterable[str], chunk: Columns) -> Columns:
    """Some rows with all `columns`; those that they lack are None."""
    count = len(next(iter(chunk.values())))
    return {name: chunk.get(name) or [None] * count for name in columns}


def _columns_fitting(one: "Features", other: "Features") -> "Features":
    """The columns of both, each of a type that fits the cells of both."""
    return datasets.Features(
        {
            name: _fitting(one.get(name, datasets.Value("null")), other.get(name, datasets.Value("null")))
            for name in {**one, **other}
        }
    )


def _fitting(one: Any, other: Any) -> Any:
    """A type that fits the cells of two, as `datasets` would find of both together; JSON where there is no other."""
    null, whole_or_not = datasets.Value("null"), (datasets.Value("int64"), datasets.Value("float64"))
    if one == other or other == null:
        return one
    if one == null:
        return other
    if isinstance(one, datasets.List) and isinstance(other, datasets.List):
        return datasets.List(_fitting(one.feature, other.feature))
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return {name: _fitting(one[name], other[name]) for name in one}
    return whole_or_not[1] if one in whole_or_not and other in whole_or_not else datasets.Json()
