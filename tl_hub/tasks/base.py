"""What a task is to the rest of the package."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset

from tl_hub.errors import UserError


@dataclass
class Score:
    """Result of an evaluation.

    Attributes:
        metrics: name -> value for each row, shape (rows,), or a single figure, shape ().
        groups: the cluster (paragraph, document) each row belongs to, shape (rows,), for the bootstrap; None where
            rows are independent.
        predictions: what is shown beside the expected answer: one dict a row.
        decision: what inference must know of this evaluation, such as a threshold chosen on it.
    """

    metrics: dict[str, np.ndarray]
    groups: np.ndarray | None = None
    predictions: list[dict[str, Any]] = field(default_factory=list)
    decision: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class Task(ABC):
    """Columns, model class, encoding and scoring of one task. Training itself is always `objective(**batch).loss`.

    Attributes:
        name: the Hub's pipeline tag.
        sample: name of the embedded data.
        auto_class: the `transformers` class that builds the model, by name, so that a card needs no import.
        best: the metric that chooses the best epoch, and whether higher is better.
        batched: feature columns that make up a batch, for those families that have them.
        scoring_only: the ones among them that `predict` reads and the model does not.
    """

    name: ClassVar[str]
    sample: ClassVar[str]
    auto_class: ClassVar[str]
    best: ClassVar[tuple[str, bool]]
    model_types: ClassVar[tuple[str, ...]]
    batched: ClassVar[tuple[str, ...]]
    scoring_only: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def check(self, rows: Dataset) -> Dataset:
        """The columns the task reads, under their standard names.

        Raises:
            UserError: a column is missing, or rows are not what the task can learn from.
        """

    def adapt(self, tokenizer: Any, model: Any) -> None:
        """Give a checkpoint what this task needs and its family lacks, such as a padding token."""
        return None

    def objective(self, model: Any) -> torch.nn.Module:
        """The module whose output has the loss: the model itself, unless the task can spare it work."""
        return model

    @abstractmethod
    def input_of(self, row: dict[str, Any]) -> str:
        """The text the model reads of a row, to find rows that stand in two splits."""

    @abstractmethod
    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        """Features: what `collator` takes, with `length` (tokens) and `row` (index into `rows`) each."""

    @abstractmethod
    def collator(self, tokenizer: Any, training: bool) -> Any:
        """Function from a list of features to a batch of tensors."""

    @abstractmethod
    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """What scoring needs of a batch, reduced on the device: name -> tensor of shape (batch, ...)."""

    @abstractmethod
    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, features: Dataset, decision: dict[str, float] | None
    ) -> Score:
        """Compare predictions (arrays in the order of `features`) with the rows.

        Thresholds are chosen here where `decision` is None (on the validation rows) and taken from it otherwise.
        """


def select_columns(rows: Dataset, columns: dict[str, str]) -> Dataset:
    """Keep the columns a task reads and give them their standard names.

    Args:
        columns: standard name -> the name in the user's data.

    Raises:
        UserError: one is missing (says which there are).
    """
    for standard, given in columns.items():
        if given not in rows.column_names:
            raise UserError(
                f"no column {given!r} in the data, which has {', '.join(rows.column_names)}; "
                f"name the right one with --{standard}_column"
            )
    rows = rows.select_columns(list(dict.fromkeys(columns.values())))
    return rows.rename_columns({given: standard for standard, given in columns.items() if given != standard})
