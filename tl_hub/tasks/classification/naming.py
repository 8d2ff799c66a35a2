"""What classes are called: from the labels in rows to the names that a model learns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tl_hub.tasks.labels import (
    count_labels,
    is_number,
    map_labels,
    most_frequent_spellings,
    names_by_rows,
    names_of_numbers,
    spelling_key,
)


@dataclass(frozen=True)
class Naming:
    """How labels are named, and what the rows so far have said of it: rows of other splits follow those of training.

    Attributes:
        given: `--label_names`, with its numbers once rows have shown them.
        fold: labels of the same `spelling_key` are one class.
        order: names in the order of their numbers, where classes have numbers.
        table: number -> name, from a column of names.
        spellings: `spelling_key` -> name, where they are folded.
        folded: label -> the name of another spelling that it got.
        label_map: label -> class of a model that is only measured; None in training.
    """

    given: str | None
    fold: bool
    order: list[str] = field(default_factory=list)
    table: dict[int, str] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    label_map: Mapping[str, str] | None = None

    def named(
        self,
        labels: list[Any],
        kept: Iterable[int],
        column: str,
        names: list[str] | None,
        called: tuple[str, list[Any]] | None,
    ) -> tuple[list[Any], Naming]:
        """The labels by the names of their classes, and what is known of the names now.

        Args:
            labels: class, or list of classes, of each row `kept`, from `column`.
            names: of the classes that are numbers, where the column's type has them.
            called: a column of names, and what it says in each of the rows.

        Raises:
            UserError: a label has no name, or two.
        """
        known = replace(self, order=names or self.order)
        if called:
            name_column, found = called
            table = names_by_rows(labels, found, kept, (column, name_column), self.table)
            labels = [table[int(label)] for label in labels]
            known = replace(known, table=table, order=list(table.values()))
        if self.label_map:
            labels = map_labels(labels, self.label_map)
        if self.given:
            labels, known = known._by_number(labels, self.given, column)
        if self.fold:
            labels, known = known._by_spelling(labels)
        return labels, known

    def _by_number(self, labels: list[Any], given: str, column: str) -> tuple[list[Any], Naming]:
        """Labels that are numbers by the names that `given` has for them."""
        # Classes of other rows that are not numbers are for --label_map.
        found = [label for label in count_labels(labels) if self.label_map is None or is_number(label)]
        table = names_of_numbers(given, found, column)
        order = list(table.values())
        # As it is recorded: other rows need not have all of the numbers.
        numbered = ",".join(f"{number}={name}" for number, name in table.items())
        labels = map_labels(labels, {label: table[int(label)] for label in found if label not in order})
        return labels, replace(self, given=numbered, order=order)

    def _by_spelling(self, labels: list[Any]) -> tuple[list[Any], Naming]:
        """Labels by the most frequent spelling of each."""
        counts = count_labels(labels)
        spellings = most_frequent_spellings(counts) | self.spellings
        names = {label: spellings[spelling_key(label)] for label in counts}
        folded = self.folded | {label: name for label, name in sorted(names.items()) if label != name}
        return map_labels(labels, names), replace(self, spellings=spellings, folded=folded)
