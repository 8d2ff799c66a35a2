"""What the objectives of language modelling have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub import on_disk, progress
from tl_hub.architectures import longest_input
from tl_hub.config import flag
from tl_hub.errors import Blank, UserError
from tl_hub.metrics import bootstrap_interval
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_use import torch
from tl_hub.tasks.base import Score, Task, column, labelled, padded, select_columns

if TYPE_CHECKING:
    from datasets import Dataset

SHOWN_ROWS, SHOWN_WORDS = 8, 30
"""Of a card's examples, and words of each."""


@dataclass(kw_only=True)
class LanguageModeling(Task):
    """What the objectives have in common: texts in, the mean negative log-likelihood of the predicted tokens out.

    Raises:
        UserError: a setting is out of its range.
    """

    sample: ClassVar[str] = "text"
    best: ClassVar[tuple[str, bool]] = ("loss", False)
    batched: ClassVar[tuple[str, ...]] = ("input_ids",)
    predicts_rows: ClassVar[bool] = False
    tuned_as: ClassVar[str | None] = "pretraining"

    text_column: str = flag("text", "column with the text", reads=True)
    max_length: int = flag(256, "tokens in a window")

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise UserError(f"--max_length is {self.max_length}; it must be at least 8")

    def check(self, rows: Dataset) -> Dataset:
        rows = select_columns(rows, {"text": self.text_column})
        told, wrong = np.zeros((2, len(rows)), dtype=bool)
        for i, text in enumerate(on_disk.Cells(rows, "text")):
            wrong[i] = text is not None and not isinstance(text, str)
            told[i] = isinstance(text, str) and bool(text.strip())
        if wrong.any():
            raise UserError(f"{wrong.sum()} rows have something else than a text (the first is row {wrong.argmax()})")
        if not told.any():
            raise Blank(f"none of the {len(rows)} rows has a text in column {self.text_column!r}")
        return rows.select(np.flatnonzero(told))

    def input_of(self, row: dict[str, Any]) -> str:
        return row["text"]

    def window(self, model: Model) -> int:
        """Tokens in a window: `max_length`, or the model's own longest input where that is shorter."""
        return min(self.max_length, longest_input(model.config) or self.max_length)

    def loss_weight(self, batch: dict[str, Any]) -> torch.Tensor:
        return labelled(batch["labels"])

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return token_losses(outputs.logits, batch["labels"])

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        """Texts are drawn whole for the intervals, each with all windows that begin in it; of one text, windows are."""
        sums, tokens = predictions["loss"].astype(float), predictions["tokens"]
        loss = sums.sum() / tokens.sum()
        score = Score({"loss": np.asarray(loss), "perplexity": np.exp(loss)}, unit=None)
        if len(encoded) > 1:
            texts = column(encoded, "row")
            low, high = bootstrap_interval(sums, texts if len(np.unique(texts)) > 1 else None, sizes=tokens)
            score.intervals = {"loss": (low, high), "perplexity": (math.exp(low), math.exp(high))}
        score.tables["Measured on"] = [
            {"texts": len(rows), "windows": len(encoded), "predicted tokens": int(tokens.sum())}
        ]
        return score

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
        if before:
            score.tables |= self.baselines(before, score)
        with torch.no_grad():
            score.predictions = score.predictions or self.shown_examples(model, tokenizer, rows, seed)

    @abstractmethod
    def shown_examples(self, model: Model, tokenizer: Tokenizer, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """Rows with what the model makes of them, as a card shows them."""

    def baselines(self, before: Score, after: Score) -> dict[str, list[dict[str, Any]]]:
        """The figures of the model as it was loaded beside those after training."""
        systems = {"before training": before, "after training": after}
        names = list(before.metrics)
        rows = [{"system": s, **{name: float(found.metrics[name]) for name in names}} for s, found in systems.items()]
        return {"Baselines": rows}


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sum of the negative log-likelihoods (nats) and number of the labelled tokens of each row.

    Args:
        logits: (batch, length, vocabulary).
        labels: (batch, length); -100 is not counted.

    Returns:
        `loss` and `tokens`, each (batch,).
    """
    losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return {"loss": losses.sum(1), "tokens": (labels != -100).sum(1)}


def joined(
    rows: Dataset, tokenizer: Tokenizer, separator: int, before: Sequence[int] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """All texts as one sequence, `separator` after each and `before` the first one.

    Returns:
        The token ids, on the disk, (tokens,), and where each row ends among them, (rows,).
    """
    ends = np.zeros(len(rows), dtype=np.int64)

    def ids() -> Iterator[np.ndarray]:
        yield np.array(before, dtype=np.int32)
        with progress.bar(len(rows), "tokenizing", "row", leave=False, shown=len(rows) > on_disk.MANY) as bar:
            for numbers, batch in on_disk.parts(rows):
                for i, text in zip(
                    numbers, tokenizer(batch["text"], add_special_tokens=False)["input_ids"], strict=True
                ):
                    ends[i] = len(text) + 1
                    yield np.array([*text, separator], dtype=np.int32)
                bar.update(len(numbers))

    return on_disk.numbers(ids()), len(before) + np.cumsum(ends)


def blocks(
    ids: np.ndarray, ends: np.ndarray, starts: range, size: int = 0, end: list[int] | None = None, least: int = 1
) -> Dataset:
    """Cut `ids` at `starts` into encoded rows of `size` tokens (up to the next start if 0), with `end` after each.

    A last block of fewer than `least` tokens is left out.

    Args:
        ids, ends: as `joined` gives them.
    """

    def generate() -> Iterator[dict[str, Any]]:
        for start in starts:
            block = ids[start : start + (size or starts.step)]
            if len(block) >= least:
                whole = [*block.tolist(), *(end or [])]
                yield {"input_ids": whole, "length": len(whole), "row": int(np.searchsorted(ends, start, "right"))}

    return on_disk.written(on_disk.columns(generate()))


def drawn(
    encoded: list[dict[str, Any]], training: bool, draw: Callable[[list[dict[str, Any]]], list[Any]]
) -> list[Any]:
    """What `draw` makes of rows with torch's random numbers, whose stream, from which dropout draws, stays as it was.

    In training it gets each row by itself, and numbers that depend on the row and its place in training alone, so that
    those of a resumed run, or of a run on more processes, are the same. In an evaluation it gets the whole batch, and
    the same numbers each time, or epochs and figures on record could not be compared.
    """
    if training:
        places = [(*each.get("draw", ()), each.get("index", 0)) for each in encoded]
        groups = [[each] for each in encoded]
        seeds = [int(np.random.default_rng(place).integers(2**62)) for place in places]
    else:
        groups, seeds = [encoded], [int(encoded[0].get("index", 0))]
    rows = []
    with torch.random.fork_rng(devices=[]):
        for group, seed in zip(groups, seeds, strict=True):
            torch.manual_seed(seed)
            rows += draw(group)
    return rows


def batch_of(
    inputs: Sequence[torch.Tensor], labels: Sequence[torch.Tensor], padding: int, encoded: list[dict[str, Any]]
) -> dict[str, torch.Tensor]:
    """What a model trains on, with the `index` of the rows that it was made of.

    Args:
        inputs, labels: token ids of each row, (length,); labels of -100 are no targets.
        padding: id of the token that fills up the inputs.
    """
    return {
        "input_ids": padded(inputs, padding),
        "attention_mask": padded([torch.ones_like(row) for row in inputs], 0),
        "labels": padded(labels, -100),
        **index_of(encoded),
    }


def index_of(encoded: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """`index`, (batch,), as evaluation wants it of every batch, where the rows have it."""
    return {"index": torch.tensor([each["index"] for each in encoded])} if "index" in encoded[0] else {}


def gapped(rows: Dataset, gap: str, seed: int, window: int, fits: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """The beginnings of some texts, each with `gap` in place of one word, and that word; both are drawn at random."""
    chance = np.random.default_rng(seed)
    most, left = min(SHOWN_WORDS, window // 4), SHOWN_ROWS
    for place in chance.permutation(len(rows))[: 4 * SHOWN_ROWS].tolist():
        words = rows[place]["text"].split()[:most]
        places = [i for i, word in enumerate(words) if fits(word)]
        if left and len(words) >= 4 and places and gap not in " ".join(words):
            hidden, left = int(chance.choice(places)), left - 1
            yield " ".join([*words[:hidden], gap, *words[hidden + 1 :]]), words[hidden]


def one_token(tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Whether a word is a single token, by which one mask stands for it."""
    return lambda word: word.isalpha() and len(tokenizer.tokenize(f" {word}")) == 1  # BPE of bytes counts the blank in


def check_mask(tokenizer: Tokenizer, kind: str) -> None:
    """
    Raises:
        UserError: there is no token that stands for a hidden one.
    """
    if tokenizer.mask_token is None:
        raise UserError(f"the model's tokenizer has no mask_token, which {kind} language modeling needs")


def check_share(name: str, value: float) -> None:
    """
    Raises:
        UserError: a setting is no share of a whole.
    """
    if not 0 < value < 1:
        raise UserError(f"--{name} is {value}; it must lie between 0 and 1")
