"""Extractive question answering: the answer is a span of the context, or there is none (SQuAD 1.1 and 2.0)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub import calibration, on_disk
from tl_hub.architectures import ARCHITECTURES, PAD_TO, longest_input
from tl_hub.config import flag
from tl_hub.errors import Blank, UserError
from tl_hub.metrics import answer_rule, squad_scores, squad_signature
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_disk import Columns
from tl_hub.on_use import datasets, torch, transformers
from tl_hub.tasks.base import (
    Collator,
    Score,
    Task,
    TokenHead,
    check_fast,
    check_pairs,
    column,
    give_padding,
    give_segments,
    give_separator,
    select_columns,
)
from tl_hub.tasks.question_answering.answers import answers_of, best_spans, best_threshold
from tl_hub.tasks.question_answering.windows import QUESTION_TOKENS, windows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.modeling_outputs import QuestionAnsweringModelOutput


LONGEST_ANSWER = 30
"""Tokens of the longest answer where nothing is known of the answers (as in Devlin et al. 2019's SQuAD code)."""


def spans(logits: torch.Tensor, mask: torch.Tensor, **places: torch.Tensor) -> QuestionAnsweringModelOutput:
    """Logits of states (batch, length, 2), the lowest there are for padding, and the loss of given places."""
    logits = logits.float().masked_fill(~mask[:, :, None], torch.finfo(torch.float32).min)
    starts, ends = logits.unbind(2)
    loss = None
    if places:
        mean_loss = torch.nn.functional.cross_entropy
        loss = (mean_loss(starts, places["start_positions"]) + mean_loss(ends, places["end_positions"])) / 2
    return transformers.modeling_outputs.QuestionAnsweringModelOutput(loss=loss, start_logits=starts, end_logits=ends)


@dataclass(kw_only=True)
class QuestionAnswering(Task):
    """A question is read with its context in overlapping windows; the best span over all of them is the answer.

    Where some questions have no answer, the scores of always answering "no answer" stand beside the model's.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "question-answering"
    sample: ClassVar[str] = "qa"
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"
    tuned_as: ClassVar[str | None] = "question answering"
    best: ClassVar[tuple[str, bool]] = ("f1", True)
    token_head = TokenHead("qa_outputs", ("start_positions", "end_positions"), spans, apart="context")
    scoring_only: ClassVar[tuple[str, ...]] = ("context_start", "context_end", "null_position")
    # The loss of transformers' models counts padding among the places where an answer may begin.
    padding_in_loss: ClassVar[bool] = True
    batched: ClassVar[tuple[str, ...]] = (
        "input_ids",
        "token_type_ids",
        "attention_mask",
        "start_positions",
        "end_positions",
        *scoring_only,
    )

    question_column: str = flag("question", "column with the question", reads=True)
    context_column: str = flag("context", "column with the text that holds the answer", reads=True)
    answers_column: str = flag("answers", "column with {text: [...], answer_start: [...]}; [] is no answer", reads=True)
    max_length: int = flag(384, "tokens in a window: question, context and special tokens")
    doc_stride: int = flag(128, "tokens that neighbouring windows of a long context share", follows="max_length")
    max_answer_length: int | None = flag(
        None, "tokens of the longest answer", shown="what 99 % of the training rows need"
    )
    sure_at: float | None = flag(
        None, "call an answer sure from the probability where so many per cent of the validation answers are right"
    )

    def __post_init__(self) -> None:
        for name in ("doc_stride", "max_answer_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        calibration.check_sure_at(self.sure_at)
        least = self.doc_stride + QUESTION_TOKENS + 8
        if self.max_length < least:
            raise UserError(
                f"--max_length is {self.max_length}; with --doc_stride {self.doc_stride} it must be at least {least}"
            )

    def check(self, rows: Dataset) -> Dataset:
        names = {name: getattr(self, f"{name}_column") for name in ("question", "context", "answers")}
        rows = select_columns(rows, names)
        wrong: list[str] = []
        count = 0

        def told() -> Iterator[dict[str, Any]]:
            nonlocal count
            for i, row in enumerate(on_disk.each(rows)):
                texts = {names[name]: row[name] for name in ("question", "context")}
                for name, text in texts.items():
                    if text is not None and not isinstance(text, str):
                        raise UserError(f"row {i}: {name} is {text!r}; it must be a text")
                if not all(text and text.strip() for text in texts.values()):
                    continue  # blank rows, as public data have
                row = {**row, "answers": _answers(row["answers"], i, names["answers"])}
                if misplaced := _misplaced(row):
                    count += 1
                    wrong.extend([f"row {i}: {misplaced}"] * (count <= 3))
                yield row

        string, number = datasets.Value("string"), datasets.Value("int64")
        answers = {"text": datasets.List(string), "answer_start": datasets.List(number)}
        features = datasets.Features({"question": string, "context": string, "answers": answers})
        checked = on_disk.written(on_disk.columns(told()), features)
        if count:
            raise UserError(f"{count} of {len(rows)} rows: answer text not found at its offset: {'; '.join(wrong)}")
        if not len(checked):
            raise Blank(f"none of the {len(rows)} rows has both a {names['question']} and a {names['context']}")
        return checked

    def input_of(self, row: dict[str, Any]) -> str:
        return "\n".join(self.texts_of(row))

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return [row["question"], row["context"]]

    def slices_of(self, row: dict[str, Any]) -> dict[str, str]:
        """Whether there is an answer, and the first word of the question, which in English asks for what it is."""
        first = next(iter(row["question"].lower().split()), "")
        return {"answer": "in the context" if row["answers"]["text"] else "none", "first word of the question": first}

    def advice(self, frozen: bool = False) -> str | None:
        if not frozen:
            return None
        return (
            "frozen vectors hardly tell which words answer a question: with the same rows training was far better in "
            "our measurements (docs/results/public.md); try the recipe qa_adapter.py or qa_finetune.py"
        )

    def adapt(self, tokenizer: Tokenizer, model: Model) -> None:
        """GPT-2 has no padding and no separator: its end-of-text token serves as both.

        Without it question and context run together, and there is no place that could stand for "no answer".
        """
        check_fast(tokenizer)
        check_pairs(model)
        give_segments(tokenizer, model)
        give_padding(tokenizer, model)
        give_separator(tokenizer, model, last=True)

    def window_settings(self, tokenizer: Tokenizer, model: Model) -> dict[str, Any]:
        """Keyword arguments of `windows` for a model; its own longest input may be below `max_length`.

        Raises:
            UserError: the model's longest input leaves no room for a window.
        """
        architecture = ARCHITECTURES[model.config.model_type]
        longest = longest_input(model.config)
        max_length = self.max_length = min(self.max_length, longest or self.max_length)  # so that the record tells it
        if max_length < self.doc_stride + QUESTION_TOKENS + 8:
            raise UserError(
                f"the model reads {longest} tokens at most; --doc_stride {self.doc_stride} is too large for it"
            )
        return {
            "max_length": max_length,
            "doc_stride": self.doc_stride,
            "segments": architecture.token_type_ids,
            "null_token_id": getattr(tokenizer, f"{architecture.null_token}_token_id"),
        }

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        settings = self.window_settings(tokenizer, model)

        def encode_batch(batch: Columns, indices: range) -> Columns:
            return windows(tokenizer, batch["question"], batch["context"], batch["answers"], indices, **settings)

        encoded = on_disk.mapped(rows, encode_batch)
        # Training rows come first. A start and an end that belong to two answers are farther apart than most answers.
        if self.max_answer_length is None:
            names = ("start_positions", "end_positions", "null_position")
            start, end, null = (column(encoded, name) for name in names)
            lengths = (end - start + 1)[start != null]
            self.max_answer_length = (
                int(np.quantile(lengths, 0.99, method="higher")) if len(lengths) else LONGEST_ANSWER
            )
        return encoded

    def notes(self, encoded: Dataset) -> list[str]:
        """Contexts that took several windows, questions that were cut or have no answer, answers that are too long."""
        names = ("row", "cut", "answered", "legible", "start_positions", "end_positions", "null_position")
        row, cut, answered, seen, start, end, null = (column(encoded, name) for name in names)
        # Of the windows of a row, which stand together:
        first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        several = np.diff(np.r_[first, len(row)]) > 1
        rows, long, shortened = len(first), int(several.sum()), int(cut[first].sum())
        notes = [f"{long:,} of {rows:,} contexts were read in overlapping windows"] if long else []
        longest = f"were longer than {QUESTION_TOKENS} tokens and were cut"
        notes += [f"{shortened:,} of {rows:,} questions {longest}"] if shortened else []
        tokens = np.maximum.reduceat(np.where(start != null, end - start + 1, 0), first)  # 0 if no window holds it
        answers, legible = int(answered[first].sum()), seen[first] & several
        nowhere = answered[first] & (tokens == 0)
        # Of a context in one window, the tokenizer has dropped the answer.
        lost, unread = int((nowhere & legible).sum()), int((nowhere & ~legible).sum())
        too_long = int((answered[first] & (tokens > (self.max_answer_length or LONGEST_ANSWER))).sum())
        if rows > answers:
            notes.append(f"{rows - answers:,} of {rows:,} questions have no answer in their context")
        if lost:
            notes.append(
                f"{lost:,} of {answers:,} answers stand whole in no window and count as no answer in training; a "
                "larger --doc_stride would help"
            )
        if unread:
            notes.append(
                f"{unread:,} of {answers:,} answers have no character that the tokenizer reads and count as no "
                "answer in training"
            )
        if too_long:
            notes.append(
                f"{too_long:,} of {answers:,} answers have more than {self.max_answer_length} tokens, the most "
                "that is looked for; a larger --max_answer_length finds them"
            )
        return notes

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        def collate(encoded: list[dict[str, Any]]) -> Any:
            # On the right for every family, or the places of spans would not be those of the tokens. XLNet's tokenizer
            # pads on the left, and says so again each time it is loaded.
            return tokenizer.pad(encoded, pad_to_multiple_of=PAD_TO, padding_side="right", return_tensors="pt")

        return collate

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return best_spans(
            outputs.start_logits.float(),
            outputs.end_logits.float(),
            batch["context_start"],
            batch["context_end"],
            batch["null_position"],
            self.max_answer_length or LONGEST_ANSWER,
        )

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        contexts = on_disk.Cells(rows, "context")
        references = on_disk.Cells(rows.flatten().select_columns("answers.text"), "answers.text")
        best = on_disk.written(on_disk.columns(answers_of(predictions, encoded, contexts)))
        answered = squad_scores(on_disk.Cells(best, "answer"), references)
        unanswerable = np.fromiter((not texts for texts in references), bool, len(rows))
        margin = column(best, "null_margin")
        final, decision = decision is not None, dict(decision or {})
        if not final and unanswerable.any():
            decision["null_threshold"] = best_threshold(margin, answered["f1"], 100.0 * unanswerable)
        silent = margin > decision.get("null_threshold", np.inf)
        metrics = {name: np.where(silent, 100.0 * unanswerable, values) for name, values in answered.items()}
        scores, null_scores = (column(best, name) for name in ("score", "null_score"))
        before = np.where(silent, null_scores, scores)
        right = metrics["exact_match"] == 100
        if not final:
            decision |= calibration.decided(before, right, self.sure_at)
        confidence = calibration.scaled(before, decision.get("temperature", 1.0))
        tables: dict[str, list[dict[str, Any]]] = {}
        if answer_rule(references) != "SQuAD":
            tables["Signatures"] = [{"metric": "F1", "signature": squad_signature(references)}]
        if unanswerable.any():
            # Where every question has an answer, saying nothing scores 0, which needs no row.
            model = {name: float(metrics[key].mean()) for name, key in (("F1", "f1"), ("exact match", "exact_match"))}
            tables["Baselines"] = [
                {"system": "this model", **model},
                {"system": 'always "no answer"', **dict.fromkeys(model, 100.0 * float(unanswerable.mean()))},
            ]
            for name in list(metrics):
                metrics[f"{name}_answerable"] = np.where(unanswerable, np.nan, metrics[name])
            metrics["no_answer_accuracy"] = 100.0 * (silent == unanswerable)
        groups = on_disk.groups(contexts)
        if final:
            tables |= calibration.tables(confidence, right, before, decision, groups)
        shown = (
            {
                "question": row["question"],
                "context": row["context"],
                "expected": row["answers"]["text"][0] if row["answers"]["text"] else "",
                "predicted": "" if quiet else answer,
                "probability": round(float(probability), 4),
            }
            for row, quiet, answer, probability in zip(
                on_disk.each(rows), silent, on_disk.Cells(best, "answer"), confidence, strict=True
            )
        )
        predictions = on_disk.written(on_disk.columns(shown))
        return Score(metrics, groups, predictions, decision, tables=tables, confidence=confidence, right=right)


def _misplaced(row: dict[str, Any]) -> str | None:
    """Which answer does not stand in the context where it is said to, if any."""
    for text, start in zip(*row["answers"].values(), strict=True):
        found = row["context"][start : start + len(text)]
        if found != text:
            return f"{text!r} is not at {start}, which has {found!r}"
    return None


def _answers(value: Any, row: int, column: str) -> dict[str, list[Any]]:
    """The answers of a row, which a CSV file holds as JSON text."""
    try:
        answers = json.loads(value) if isinstance(value, str) else value
        texts, starts = answers["text"], answers["answer_start"]
        right = all(isinstance(t, str) and t for t in texts) and all(type(s) is int and s >= 0 for s in starts)
        if right and len(texts) == len(starts):
            return {"text": list(texts), "answer_start": list(starts)}
    except (json.JSONDecodeError, TypeError, KeyError):
        pass
    raise UserError(
        f"row {row}: {column} is {value!r}; it must be {{text: [...], answer_start: [...]}} of equal length"
    )
