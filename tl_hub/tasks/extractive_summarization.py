"""Summaries made of a text's own sentences, which a model that cannot write can choose."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub import on_disk
from tl_hub.architectures import ARCHITECTURES, PAD_TO, longest_input
from tl_hub.comparison import UPPER_BOUND
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.metrics import ROUGE, normalized, rouge_scores, rouge_signature, sentences, words
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_disk import Columns
from tl_hub.on_use import torch, transformers
from tl_hub.tasks.base import Collator, Score, Task, column, give_padding, select_columns
from tl_hub.tasks.sequence_to_sequence import checked, compared, with_all_references

if TYPE_CHECKING:
    from datasets import Dataset

_MOST = 5
"""Sentences that a summary has at most, where their number is chosen."""
_ROUGE_ROWS = 500
_Grams = tuple[Counter[Any], Counter[Any]]


@dataclass(kw_only=True)
class ExtractiveSummarization(Task):
    """Say in few words what a long text says, in sentences of the text itself.

    Each sentence is read by itself; it is judged beside the mean of its document's sentences and by its place. The
    sentences of the best summary that can be made greedily of the text's sentences are the positive examples
    (Nallapati et al. 2017, https://arxiv.org/abs/1611.04230, section 3).

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "extractive-summarization"
    measured_anew: ClassVar[bool] = False  # sentences are judged beside all others of their text
    sample: ClassVar[str] = "summarization"
    auto_class: ClassVar[str] = "AutoModel"
    best: ClassVar[tuple[str, bool]] = ("rougeL", True)
    batched: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "document")
    labels: ClassVar[list[str]] = ["in the summary"]
    multi_label: ClassVar[bool] = True

    text_column: str = flag("text", "column with the text", reads=True)
    summary_column: str = flag("summary", "column with the summary, or a list of several", reads=True)
    max_length: int = flag(128, "tokens of a sentence, special tokens included; longer ones are cut")
    summary_sentences: int | None = flag(None, "sentences in a summary", shown="chosen on the validation rows")

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise UserError(f"--max_length is {self.max_length}; it must be at least 8")
        if self.summary_sentences is not None and self.summary_sentences < 1:
            raise UserError(f"--summary_sentences is {self.summary_sentences}; it must be at least 1")

    def check(self, rows: Dataset) -> Dataset:
        rows = select_columns(rows, {"text": self.text_column, "summary": self.summary_column})
        texts, summaries = on_disk.Cells(rows, "text"), on_disk.Cells(rows, "summary")
        return checked(texts, summaries, (self.text_column, self.summary_column))

    def rows_to_measure(self, rows: Dataset) -> Dataset:
        return with_all_references(rows)

    def adapt(self, tokenizer: Tokenizer, model: Model) -> None:
        tokenizer.padding_side = ARCHITECTURES[model.config.model_type].padding_side
        give_padding(tokenizer, model)

    def input_of(self, row: dict[str, Any]) -> str:
        return row["source"]

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        """An encoded row a sentence; `document` is the row it is of."""
        max_length = self.max_length = min(self.max_length, longest_input(model.config) or self.max_length)
        segments = ARCHITECTURES[model.config.model_type].token_type_ids

        def encode_batch(batch: Columns, indices: range) -> Columns:
            split = [sentences(text) for text in batch["source"]]
            document = [i for i, parts in zip(indices, split, strict=True) for _ in parts]
            encoded = tokenizer([part for parts in split for part in parts], return_token_type_ids=segments)
            columns = {name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded}
            whole = [len(ids) for ids in columns["input_ids"]]
            columns = {name: [ids[:max_length] for ids in column] for name, column in columns.items()}
            lengths = [min(length, max_length) for length in whole]
            cut = [length > max_length for length in whole]
            return {**columns, "row": document, "document": document, "length": lengths, "cut": cut}

        return on_disk.mapped(rows, encode_batch)

    def notes(self, encoded: Dataset) -> list[str]:
        cut = int(column(encoded, "cut").sum())
        return [f"{cut:,} of {len(encoded):,} sentences were longer than the window and were cut"] if cut else []

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        return transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=PAD_TO)

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": outputs.logits.float()}

    def examples(self, vectors: np.ndarray, row: np.ndarray) -> np.ndarray:
        """What the head reads of each sentence; see `in_document`."""
        return in_document(vectors, row)

    def targets(self, rows: Dataset) -> np.ndarray:
        """Whether each sentence is in the best summary, bool, (sentences, 1)."""

        def chosen() -> Iterator[bool]:
            for row in on_disk.each(rows):
                split = sentences(row["source"])
                best = set(best_sentences(split, row["references"], self.summary_sentences or _MOST))
                yield from (place in best for place in range(len(split)))

        return np.fromiter(chosen(), bool)[:, None]

    def summaries(self, logits: np.ndarray, sources: Iterable[str], count: int) -> Iterator[str]:
        """The `count` sentences of each text that have the highest logits, in the order of the text.

        Args:
            logits: of all sentences of all texts, (sentences, 1).
        """
        start = 0
        for source in sources:
            split = sentences(source)
            best = np.argsort(-logits[start : start + len(split), 0], kind="stable")[:count]
            yield " ".join(split[place] for place in sorted(best))
            start += len(split)

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        logits, references = predictions["logits"], on_disk.Cells(rows, "references")
        chosen = self.summary_sentences or int((decision or {}).get("sentences", 0))
        if not chosen:
            few = rows[:_ROUGE_ROWS]
            tried = [self.summaries(logits, few["source"], count) for count in range(1, _MOST + 1)]
            chosen = 1 + int(np.argmax([rouge_scores(t, few["references"])["rougeL"].mean() for t in tried]))
        shown = compared(rows, self.summaries(logits, on_disk.Cells(rows, "source"), chosen))
        return Score(
            dict(rouge_scores(on_disk.Cells(shown, "predicted"), references)),
            predictions=shown,
            decision={"sentences": float(chosen)},
            tables={"Signatures": [{"metric": "ROUGE", "signature": rouge_signature(references)}]},
        )

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
        score.tables = self.tables(rows, score)

    def tables(self, rows: Dataset, score: Score) -> dict[str, list[dict[str, Any]]]:
        """The first sentences, as many as this model gives, and the best that sentences can do, on 500 rows at most."""
        few = rows.select(range(min(_ROUGE_ROWS, len(rows))))
        split, count = [sentences(text) for text in few["source"]], int(score.decision["sentences"])
        best = [best_sentences(s, texts, _MOST) for s, texts in zip(split, few["references"], strict=True)]
        systems = {
            "this model": [shown["predicted"] for shown in itertools.islice(on_disk.each(score.predictions), len(few))],
            f"first {count} sentences" if count > 1 else "first sentence": [" ".join(s[:count]) for s in split],
            UPPER_BOUND: [" ".join(s[i] for i in b) for s, b in zip(split, best, strict=True)],
        }
        table = []
        for system, texts in systems.items():
            scores = rouge_scores(texts, few["references"][:])
            table.append({"system": system, **{name: float(scores[name].mean()) for name in ROUGE}})
        title = "Baselines" if len(few) == len(rows) else f"Baselines, on the first {len(few):,} rows"
        return {title: table, **score.tables}


def in_document(vectors: np.ndarray, document: np.ndarray) -> np.ndarray:
    """Each sentence's vector with what its document adds: the mean of the document's vectors and its place.

    Args:
        vectors: (sentences, hidden).
        document: number of each sentence's document, (sentences,); sentences of one stand together, in order.

    Returns:
        (sentences, 2 * hidden + 4): the vector, its product with the document's mean element by element, their cosine,
        and three functions of place and number of sentences.
    """
    first = np.flatnonzero(np.r_[True, document[1:] != document[:-1]])
    counts = np.diff(np.r_[first, len(document)])
    means = np.repeat(np.add.reduceat(vectors, first, axis=0) / counts[:, None], counts, axis=0)
    product = vectors * means
    norms = np.linalg.norm(vectors, axis=1) * np.linalg.norm(means, axis=1)
    cosine = product.sum(1) / np.maximum(norms, 1e-12)
    place = np.arange(len(document)) - np.repeat(first, counts)
    count = np.repeat(counts, counts)
    added = np.stack([cosine, 1 / (1 + place), place / count, np.log(count)], axis=1)
    return np.concatenate([vectors, product, added], axis=1).astype(np.float32)


def best_sentences(split: list[str], references: list[str], most: int) -> list[int]:
    """Places of the sentences that, one after the other, raise the F of one- and two-word sequences most.

    That is the sum of ROUGE-1 and ROUGE-2 of normalized words without stemming. It ends where none raises it. Of
    several references the one counts that the sentences come closest to.
    """
    grams = [_grams(sentence) for sentence in split]
    return max((_chosen(grams, _grams(text), most) for text in references), key=lambda found: found[0])[1]


def _chosen(grams: list[_Grams], wanted: _Grams, most: int) -> tuple[float, list[int]]:
    chosen: list[int] = []
    best, so_far = 0.0, (Counter[Any](), Counter[Any]())
    while len(chosen) < min(most, len(grams)):
        scores = {
            i: sum(_f(a + b, w) for a, b, w in zip(so_far, grams[i], wanted, strict=True))
            for i in range(len(grams))
            if i not in chosen
        }
        place = max(scores, key=scores.__getitem__)
        if scores[place] <= best:
            break
        best, chosen = scores[place], [*chosen, place]
        so_far = (so_far[0] + grams[place][0], so_far[1] + grams[place][1])
    return best, sorted(chosen)


def _grams(text: str) -> _Grams:
    found = words(normalized(text))
    return Counter(found), Counter(zip(found, found[1:], strict=False))


def _f(found: Counter[str], wanted: Counter[str]) -> float:
    return 2 * (found & wanted).total() / max(1, found.total() + wanted.total())
