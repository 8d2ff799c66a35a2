"""What a task is to the rest of the package."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import numpy as np

from tl_hub.architectures import ARCHITECTURES, Objective
from tl_hub.config import RunConfig
from tl_hub.errors import UserError, did_you_mean
from tl_hub.model_types import Config, Model, Tokenizer
from tl_hub.on_use import torch
from tl_hub.tasks.catalog import CATALOG

if TYPE_CHECKING:
    from datasets import Dataset

Collator = Callable[[list[dict[str, Any]]], dict[str, Any]]
"""Makes a batch of tensors, by name, from encoded rows."""


@dataclass
class Score:
    """Result of an evaluation.

    Attributes:
        metrics: name -> value for each row, shape (rows,), or a single figure, shape ().
        groups: the cluster (paragraph, document) each row belongs to, shape (rows,), for the bootstrap; None where
            rows are independent.
        predictions: what is shown beside the expected answer: one dict a row; of many rows, on the disk.
        decision: what inference must know of this evaluation, such as a threshold chosen on it.
        unit: of the metrics: per cent, or None where they are no shares of anything.
        counts: how many rows a single figure in `metrics` is of, where not of all.
        intervals: 95 % interval of a single figure in `metrics`, where the task can tell it.
        tables: for the card, beside the metrics: title -> rows, such as simple systems on the same rows.
        confidence: probability of each answer, shape (rows,), where the task has one.
        right: whether each is, bool, shape (rows,).
    """

    metrics: dict[str, np.ndarray]
    groups: np.ndarray | None = None
    predictions: Dataset | list[dict[str, Any]] = field(default_factory=list)
    decision: dict[str, float] = field(default_factory=dict)
    unit: Literal["%"] | None = "%"
    counts: dict[str, int] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    confidence: np.ndarray | None = None
    right: np.ndarray | None = None


@dataclass(frozen=True)
class TokenHead:
    """A linear layer that reads the vector of every token, so that it can be trained on vectors that are kept.

    Attributes:
        layer: its name in the model.
        targets: columns of a batch that its loss is made of.
        outputs: the model's outputs, with `loss` where there are targets, from the logits (batch, length, outputs) of
            the layer, the mask (batch, length) of what is no padding, and the targets by name.
        apart: column of the rows by whose values they are kept apart where layers are compared.
    """

    layer: str
    targets: tuple[str, ...]
    outputs: Callable[..., Any]
    apart: str


@dataclass(kw_only=True)
class Task(ABC):
    """Columns, model class, encoding and scoring of one task. Training itself is always `objective(**batch).loss`.

    Attributes:
        sample: name of the embedded data.
        auto_class: the `transformers` class that builds the model, by name, so that a card needs no import.
        best: the metric that chooses the best epoch, and whether higher is better.
        batched: columns of encoded rows that make up a batch, for those families that have them.
        scoring_only: the ones among them that `predict` reads and the model does not.
        pretrained_by: objectives of pretraining after which a model can be trained to do the task.
        refused: other objective -> why the task is not for such models, where that needs a word.
        predicts_rows: a score has a prediction for each row, of which some can be shown on a card.
        token_head: where the task's head reads every token.
        readers: kind of files that only this task reads, by its suffix -> rows of the lines of one; a `ValueError` says
            in which line it is broken.
        measured_anew: `tl-hub verify` can measure a run of it; not where rows are judged beside each other.
        tuned_as: kind of tasks that published settings are for, where not for all.
        random_batches: its training batches are drawn at random, such as which tokens are masked: each row by the
            numbers in its `draw`, which are those of its place in training.
        padding_in_loss: its loss depends on how far the rows of a batch are padded.
    """

    sample: ClassVar[str]
    auto_class: ClassVar[str]
    best: ClassVar[tuple[str, bool]]
    batched: ClassVar[tuple[str, ...]]
    scoring_only: ClassVar[tuple[str, ...]] = ()
    pretrained_by: ClassVar[tuple[Objective, ...]] = get_args(Objective)
    refused: ClassVar[dict[Objective, str]] = {}
    predicts_rows: ClassVar[bool] = True
    token_head: ClassVar[TokenHead | None] = None
    readers: ClassVar[dict[str, Callable[[Iterable[str]], Iterator[dict[str, Any]]]]] = {}
    measured_anew: ClassVar[bool] = True
    tuned_as: ClassVar[str | None] = None
    random_batches: ClassVar[bool] = False
    padding_in_loss: ClassVar[bool] = False

    @property
    @abstractmethod
    def name(self) -> str:
        """Of the task in `tl_hub.tasks.catalog`, which has what can be told of it without torch."""

    @property
    def tag(self) -> str:
        """The Hub's pipeline tag of the task."""
        return CATALOG[self.name].tag

    def of_run(self, run: RunConfig) -> Self:
        """A copy for one run: `check`, `adapt` and `encode` note on it what they find, so that the record tells it.

        The settings that a run was given stay as they are.
        """
        return copy.copy(self)

    @property
    def exact(self) -> bool:
        """Whether outputs are figures in themselves, which bf16 would round to two or three digits, in evaluations."""
        return False

    def class_for(self, model_type: str) -> str:
        """Name of the `transformers` class for a family: `auto_class`, unless families do the task in two ways."""
        return self.auto_class

    def config_for(self, model_type: str) -> dict[str, Any]:
        """Values of the model's configuration that the task sets, by name. Whoever loads an adapter must give them."""
        return {}

    def advice(self, frozen: bool = False) -> str | None:
        """What somebody who is about to train should know of so many rows, once `learn` has seen them.

        With `frozen`, of somebody who is about to fit a head on frozen vectors.
        """
        return None

    def slices_of(self, row: dict[str, Any]) -> dict[str, str]:
        """Kinds that a checked row is of, by which a card looks for where a model is worst: name -> value."""
        return {}

    def class_counts(self, rows: Dataset) -> dict[str, int]:
        """How many checked rows each class has, where the task has classes."""
        return {}

    def remarks(self) -> list[str]:
        """What is odd about the rows that `learn` has seen, and a person should look at before training."""
        return []

    @abstractmethod
    def check(self, rows: Dataset) -> Dataset:
        """The columns the task reads, under their standard names; no rows at all if the answers are hidden.

        Raises:
            UserError: a column is missing, or rows are not what the task can learn from.
        """

    def rows_to_measure(self, rows: Dataset) -> Dataset:
        """Checked rows of a split that is not trained on, as they are measured: several may make up one."""
        return rows

    def learn(self, rows: dict[str, Dataset]) -> Self:
        """The task with what its head depends on, such as the names of the classes, from the checked training rows.

        Args:
            rows: split name -> rows; the other splits must fit what is learned.

        Raises:
            UserError: the rows cannot be learned from, or another split does not fit them.
        """
        return self

    def recall(self, config: Config, decision: dict[str, float], label_map: Mapping[str, str] | None = None) -> Self:
        """The task with what `learn` takes from training rows, from a trained model; for rows that are only measured.

        Args:
            config: of the model.
            decision: of its record.
            label_map: what the model calls the labels of the rows.

        Raises:
            UserError: `label_map` does not fit the model's classes, or it has none.
        """
        if label_map:
            raise UserError(f"--label_map renames classes, and a model for {self.name} has none; omit it")
        return self

    def adapt(self, tokenizer: Tokenizer, model: Model) -> None:
        """Give a checkpoint what this task needs and its family lacks, such as a padding token."""
        return None

    def objective(self, model: Model) -> torch.nn.Module:
        """The module whose output has the loss: the model itself, unless the task can spare it work."""
        return model

    def loss_weight(self, batch: dict[str, Any]) -> torch.Tensor:
        """How much the mean loss of a batch counts among those of its step, (): what it is the mean over.

        That is the rows, unless a task predicts tokens or weighs rows.
        """
        return torch.tensor(float(len(batch["index"])), device=batch["index"].device)

    def inputs(self, batch: dict[str, Any]) -> dict[str, Any]:
        """What the model reads of a batch."""
        return {name: value for name, value in batch.items() if name != "index" and name not in self.scoring_only}

    def outputs(self, model: Model, inputs: dict[str, Any]) -> Any:
        """What `predict` gets of a batch: the model's outputs, unless the task generates text."""
        return self.objective(model)(**inputs)

    def languages(self) -> list[str]:
        """ISO 639 codes of the texts, where the settings name them."""
        return []

    def notes(self, encoded: Dataset) -> list[str]:
        """What a reader must know of a split's encoded rows, such as how many were cut: clauses without a period."""
        return []

    def report(
        self,
        score: Score,
        rows: Dataset,
        model: Model,
        tokenizer: Tokenizer,
        *,
        folder: Path,
        seed: int,
        before: Score | None = None,
    ) -> None:
        """Add to `score` what is too slow for every epoch: tables such as baselines on the same rows, and samples.

        Called once, with the trained model. Pictures are written into the run `folder`.

        Args:
            before: of the model that the run started from, on the same rows, where it was measured.
        """
        return None

    @abstractmethod
    def input_of(self, row: dict[str, Any]) -> str:
        """The text the model reads of a row, to find rows that stand in two splits."""

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """The texts that it is made of, each of which must be nearly the same in near-duplicates."""
        return [self.input_of(row)]

    @abstractmethod
    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        """Encoded rows: what `collator` takes, with `length` (tokens) and `row` (index into `rows`) each.

        Where an evaluation reads fewer tokens than training, `source_length` says how many.
        """

    @abstractmethod
    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        """Function from a list of encoded rows to a batch of tensors."""

    @abstractmethod
    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """What scoring needs of a batch, reduced on the device: name -> tensor of shape (batch, ...)."""

    @abstractmethod
    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        """Compare predictions (arrays in the order of `encoded`) with the rows.

        Thresholds are chosen here where `decision` is None (on the validation rows) and taken from it otherwise.
        """


def select_columns(rows: Dataset, columns: dict[str, str]) -> Dataset:
    """Keep the columns a task reads and give them their standard names.

    Args:
        columns: standard name -> the name in the user's data.

    Raises:
        UserError: one is missing (says which there are), or is given for two things.
    """
    for given, count in Counter(columns.values()).items():
        if count > 1:
            flags = " and ".join(f"--{standard}_column" for standard in columns if columns[standard] == given)
            raise UserError(
                f"{flags} are both {given!r}; the data have {', '.join(rows.column_names)}; name two columns"
            )
    for standard, given in columns.items():
        if given not in rows.column_names:
            raise UserError(
                f"no column {given!r} in the data, which has {', '.join(rows.column_names)}; "
                f"name the right one with --{standard}_column{did_you_mean(given, rows.column_names)}"
            )
    rows = rows.select_columns(list(dict.fromkeys(columns.values())))
    return rows.rename_columns({given: standard for standard, given in columns.items() if given != standard})


def give_padding(tokenizer: Tokenizer, model: Model) -> None:
    """GPT-2 has no padding token: its end-of-text token serves. Model and tokenizer agree on it."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id


def give_separator(tokenizer: Tokenizer, model: Model, last: bool) -> None:
    """GPT-2's tokenizer puts nothing between two texts: its end-of-text token is to stand there, and also `last`."""
    if ARCHITECTURES[model.config.model_type].marks:
        return
    from tokenizers import processors  # --help does not wait for it

    end = tokenizer.eos_token
    pair = f"$A:0 {end}:0 $B:1" + f" {end}:1" * last
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=True),
            processors.TemplateProcessing(single="$A", pair=pair, special_tokens=[(end, tokenizer.eos_token_id)]),
        ]
    )


def labelled(labels: torch.Tensor) -> torch.Tensor:
    """How many tokens of a batch have a part in the loss, (), as float."""
    return (labels != -100).sum().float()


def padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Rows of different lengths as one tensor (rows, longest), filled up with `value` on the right."""
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)


def column(rows: Dataset, name: str) -> np.ndarray:
    """A column of numbers, (rows,). Taken from the data set as it is, each number would become a Python object."""
    return np.asarray(rows.with_format("numpy")[name][:])


def give_segments(tokenizer: Tokenizer, model: Model) -> None:
    """XLNet's tokenizer gives segment ids only when asked; what is trained on them must be published with them."""
    if ARCHITECTURES[model.config.model_type].token_type_ids:
        names = ["input_ids", "token_type_ids", "attention_mask"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = names


def check_fast(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer that cannot tell which characters a token covers, as those written in Python cannot.

    Raises:
        UserError: it is none of the tokenizers library.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"the model's tokenizer ({type(tokenizer).__name__}) has no fast version, without which a text cannot be "
            "cut into windows; give a checkpoint that has a tokenizer.json"
        )


def check_pairs(model: Model) -> None:
    """Refuse two texts for a model of a family that tells them apart by segments, where it has one only.

    Raises:
        UserError: `type_vocab_size` of its configuration is 1.
    """
    segments = ARCHITECTURES[model.config.model_type].token_type_ids
    if segments and getattr(model.config, "type_vocab_size", None) == 1:
        raise UserError(
            "the model has one segment (type_vocab_size 1) and cannot tell two texts apart; give one that has two"
        )
