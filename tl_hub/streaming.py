"""Training rows of a data set that may be larger than the disk: some are there at a time, any place is found again.

Nothing is shuffled on the way: a place says all that there is to know of the rows behind it.
"""

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypedDict

import httpx2
from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetsError

from tl_hub import on_disk, progress
from tl_hub.errors import Blank, UserError, first_line
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_disk import Columns

if TYPE_CHECKING:
    from tl_hub.tasks.base import Task


class Place(TypedDict):
    """Between two encoded rows of a stream, in JSON.

    Attributes:
        row: rows of the stream before the place.
        at: what `IterableDataset.load_state_dict` finds it by; None is its first row.
        used: encoded rows behind it that have been trained on.
    """

    row: int
    at: dict[str, Any] | None
    used: int


class Stream:
    """Training rows in their order, `size` encoded ones at a time; behind the last row the first one comes again.

    Rows are encoded up to a thousand together, always the same ones. Where an epoch ends among what they make, the
    next one encodes them again and goes on there.

    Args:
        rows: in the same order each time.
        source: what messages call them.

    Attributes:
        start: where the training rows begin.
        blank: of the rows that `begin` read, those left out.
        place, behind: where the rows begin and end that `encoded` gave last.
    """

    def __init__(self, rows: IterableDataset, size: int, source: str):
        self.rows, self.size, self.source = rows, size, source
        self.start = self.place = self.behind = Place(row=0, at=None, used=0)
        self.first = Dataset.from_dict({})
        self._kept: dict[int, tuple[range, Place]] = {}
        self.blank = 0
        self._last: tuple[Place, Dataset, Place] | None = None
        self._left: Iterator[dict[str, Any]] = iter(())

    def hold_out(self, count: int) -> Dataset:
        """The first rows as they are, which are none of the training rows from now on.

        Raises:
            UserError: they cannot be read.
        """
        held, self.start = next(self._read(self.start, count), (self.first, self.start))
        return held

    def begin(self, task: "Task") -> Dataset:
        """The first `size` training rows, checked, which stay on the disk.

        Raises:
            UserError: there are none, they cannot be read, or the task refuses them.
        """

        def checked() -> Iterator[Columns]:
            count, place = 0, self.start
            for rows, behind in self._read(self.start, self._together):
                part = self._checked(rows, place, task)
                self._kept[place["row"]] = range(count, count + len(part)), behind
                count, place, self.blank = count + len(part), behind, self.blank + len(rows) - len(part)
                yield from (batch for _, batch in on_disk.parts(part))
                if count >= self.size:
                    return
            self._kept[place["row"]] = range(0), self.start

        self.first = on_disk.written(checked())
        if not len(self.first):
            raise UserError(
                f"{self.source} has no training rows behind the {self.start['row']} that are held out; give a lower "
                "--validation_rows or --streaming, or rows for validation"
            )
        return self.first.select(range(min(self.size, len(self.first))))

    def encoded(self, place: Place, task: "Task", tokenizer: Tokenizer, model: Model) -> Dataset:
        """The next `size` encoded rows from a place on, on the disk. `row` counts the rows that are read there.

        Raises:
            UserError: there are not so many, they cannot be read, or the task refuses them.
        """

        def chunks() -> Iterator[Columns]:
            count, rows, begin, rounds = 0, 0, place["used"], 0
            for part, here, behind in self._parts(place, task):
                rounds += here["row"] == self.start["row"]
                if rounds == 2 and place == self.start:
                    raise UserError(
                        f"--streaming {self.size}: {self.source} has {count} training rows, as the model reads them; "
                        "give fewer, or omit it"
                    )
                found = task.encode(part, tokenizer, model) if len(part) else part
                end = min(len(found), begin + self.size - count)
                for _, batch in on_disk.parts(found.select(range(begin, end))):
                    yield batch | {"row": [rows + row for row in batch["row"]]}
                count, rows = count + end - begin, rows + len(part)
                bar.update(end - begin)
                if count == self.size:
                    self.place, self.behind = place, behind if end == len(found) else Place(**{**here, "used": end})
                    return
                begin = 0

        with progress.bar(self.size, "reading", "row", leave=False, shown=self.size > on_disk.MANY) as bar:
            return on_disk.written(chunks())

    @property
    def _together(self) -> int:
        return min(on_disk.ROWS, self.size)

    def _parts(self, place: Place, task: "Task") -> Iterator[tuple[Dataset, Place, Place]]:
        """Checked rows from a place on, round and round, some together, with the places before and behind them."""
        while True:
            while place["row"] in self._kept:
                numbers, behind = self._kept[place["row"]]
                yield self.first.select(numbers or []), place, behind
                place = behind
            for rows, behind in self._read(place, self._together):
                yield self._checked(rows, place, task), place, behind
                place = behind
            place = self.start

    def _read(self, place: Place, together: int) -> Iterator[tuple[Dataset, Place]]:
        """The rows from a place on up to the last one, some together, as they are, with the place behind them.

        Those that were read last are still there, and reading goes on behind them: to find a place anew, `datasets`
        reads a file from its beginning.

        Raises:
            UserError: they cannot be read.
        """
        try:
            if self._last is None or place["row"] not in (self._last[0]["row"], self._last[2]["row"]):
                self.rows.load_state_dict(place["at"])
                self._left = iter(self.rows)
            elif place["row"] == self._last[0]["row"]:
                _, rows, place = self._last
                yield rows, place
            while len(rows := on_disk.written(on_disk.columns(itertools.islice(self._left, together)))):
                behind = Place(row=place["row"] + len(rows), at=self.rows.state_dict(), used=0)
                self._last = place, rows, behind
                yield rows, behind
                place = behind
        except (DatasetsError, OSError, ValueError, RuntimeError, httpx2.TransportError) as error:
            self._last = None  # what failed would look like the end
            raise UserError(f"{self.source} cannot be read from row {place['row']} on: {first_line(error)}") from error

    def _checked(self, rows: Dataset, place: Place, task: "Task") -> Dataset:
        """The rows behind a place without those that are blank, which all of them may be.

        Raises:
            UserError: the task refuses them.
        """
        try:
            return task.check(rows)
        except Blank:
            return rows.select([])
        except UserError as error:
            raise UserError(f"train rows of {self.source}, counted from row {place['row']}: {error}") from error
