"""Extractive question answering: the answer is a span of the context, or there is none (SQuAD 1.1 and 2.0)."""

import json
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch.nn.functional import cross_entropy, max_pool1d, pad
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from tl_hub.architectures import ARCHITECTURES, PAD_TO, longest_input
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.metrics import squad_scores
from tl_hub.tasks.base import (
    Score,
    Task,
    TokenHead,
    check_fast,
    check_pairs,
    give_padding,
    give_segments,
    give_separator,
    select_columns,
)

_FEATURES = Features(
    {
        "question": Value("string"),
        "context": Value("string"),
        "answers": {"text": List(Value("string")), "answer_start": List(Value("int64"))},
    }
)

LONGEST_ANSWER = 30
"""Tokens of the longest answer where nothing is known of the answers (as in Devlin et al. 2019's SQuAD code)."""

QUESTION_TOKENS = 64
"""Questions are cut to this many tokens (as in Devlin et al. 2019's SQuAD code), so that context always has room."""


def spans(logits: torch.Tensor, mask: torch.Tensor, **places: torch.Tensor) -> QuestionAnsweringModelOutput:
    """Logits of states (batch, length, 2), the lowest there are for padding, and the loss of given places."""
    logits = logits.float().masked_fill(~mask[:, :, None], torch.finfo(torch.float32).min)
    starts, ends = logits.unbind(2)
    loss = None
    if places:
        loss = (cross_entropy(starts, places["start_positions"]) + cross_entropy(ends, places["end_positions"])) / 2
    return QuestionAnsweringModelOutput(loss=loss, start_logits=starts, end_logits=ends)


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
    best: ClassVar[tuple[str, bool]] = ("f1", True)
    token_head = TokenHead("qa_outputs", ("start_positions", "end_positions"), spans, apart="context")
    scoring_only: ClassVar[tuple[str, ...]] = ("context_start", "context_end", "null_position")
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

    def __post_init__(self) -> None:
        for name in ("doc_stride", "max_answer_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        least = self.doc_stride + QUESTION_TOKENS + 8
        if self.max_length < least:
            raise UserError(
                f"--max_length is {self.max_length}; with --doc_stride {self.doc_stride} it must be at least {least}"
            )

    def check(self, rows: Dataset) -> Dataset:
        names = {name: getattr(self, f"{name}_column") for name in ("question", "context", "answers")}
        rows = select_columns(rows, names)
        checked, wrong = [], []
        for i, row in enumerate(rows):
            texts = {names[name]: row[name] for name in ("question", "context")}
            for name, text in texts.items():
                if text is not None and not isinstance(text, str):
                    raise UserError(f"row {i}: {name} is {text!r}; it must be a text")
            if not all(text and text.strip() for text in texts.values()):
                continue  # blank rows, as public data have
            row = {**row, "answers": _answers(row["answers"], i, names["answers"])}
            for text, start in zip(*row["answers"].values(), strict=True):
                if row["context"][start : start + len(text)] != text:
                    found = row["context"][start : start + len(text)]
                    wrong.append(f"row {i}: {text!r} is not at {start}, which has {found!r}")
                    break
            checked.append(row)
        if wrong:
            raise UserError(
                f"{len(wrong)} of {len(rows)} rows: answer text not found at its offset: {'; '.join(wrong[:3])}"
            )
        if not checked:
            raise UserError(f"none of the {len(rows)} rows has both a {names['question']} and a {names['context']}")
        return Dataset.from_list(checked, features=_FEATURES)

    def input_of(self, row: dict[str, Any]) -> str:
        return f"{row['question']}\n{row['context']}"

    def advice(self, frozen: bool = False) -> str | None:
        if not frozen:
            return None
        return (
            "frozen vectors hardly tell which words answer a question: with the same rows training was far better in "
            "our measurements (model_cards/README.md); try the recipe qa_adapter.py or qa_finetune.py"
        )

    def adapt(self, tokenizer: Any, model: Any) -> None:
        """GPT-2 has no padding and no separator: its end-of-text token serves as both.

        Without it question and context run together, and there is no place that could stand for "no answer".
        """
        check_fast(tokenizer)
        check_pairs(model)
        give_segments(tokenizer, model)
        give_padding(tokenizer, model)
        give_separator(tokenizer, model, last=True)

    def window_settings(self, tokenizer: Any, model: Any) -> dict[str, Any]:
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

    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        settings = self.window_settings(tokenizer, model)

        def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            return windows(tokenizer, batch["question"], batch["context"], batch["answers"], indices, **settings)

        features = rows.map(
            encode_batch, with_indices=True, batched=True, remove_columns=rows.column_names, desc="tokenizing"
        )
        # Training rows come first. A start and an end that belong to two answers are farther apart than most answers.
        if self.max_answer_length is None:
            names = ("start_positions", "end_positions", "null_position")
            start, end, null = (np.array(features[name]) for name in names)
            lengths = (end - start + 1)[start != null]
            self.max_answer_length = (
                int(np.quantile(lengths, 0.99, method="higher")) if len(lengths) else LONGEST_ANSWER
            )
        return features

    def notes(self, features: Dataset) -> list[str]:
        """Contexts that took several windows, questions that were cut or have no answer, answers that are too long."""
        windows_of = Counter(features["row"])
        long = sum(count > 1 for count in windows_of.values())
        cut = len({row for row, was_cut in zip(features["row"], features["cut"], strict=True) if was_cut})
        notes = [f"{long:,} of {len(windows_of):,} contexts were read in overlapping windows"] if long else []
        longest = f"were longer than {QUESTION_TOKENS} tokens and were cut"
        notes += [f"{cut:,} of {len(windows_of):,} questions {longest}"] if cut else []
        answers: dict[int, int] = {}  # tokens of the answer of each row that has one; 0 if no window holds it
        legible = set()
        names = ("row", "answered", "legible", "start_positions", "end_positions", "null_position")
        for row, answered, seen, start, end, null in zip(*(features[name] for name in names), strict=True):
            if answered:
                answers[row] = max(answers.get(row, 0), end - start + 1 if start != null else 0)
            if seen and windows_of[row] > 1:  # of a context in one window, the tokenizer has dropped the answer
                legible.add(row)
        silent = len(windows_of) - len(answers)
        nowhere = {row for row, length in answers.items() if length == 0}
        lost, unread = len(nowhere & legible), len(nowhere - legible)
        too_long = sum(length > (self.max_answer_length or LONGEST_ANSWER) for length in answers.values())
        if silent:
            notes.append(f"{silent:,} of {len(windows_of):,} questions have no answer in their context")
        if lost:
            notes.append(
                f"{lost:,} of {len(answers):,} answers stand whole in no window and count as no answer in training; a "
                "larger --doc_stride would help"
            )
        if unread:
            notes.append(
                f"{unread:,} of {len(answers):,} answers have no character that the tokenizer reads and count as no "
                "answer in training"
            )
        if too_long:
            notes.append(
                f"{too_long:,} of {len(answers):,} answers have more than {self.max_answer_length} tokens, the most "
                "that is looked for; a larger --max_answer_length finds them"
            )
        return notes

    def collator(self, tokenizer: Any, training: bool) -> Any:
        def collate(features: list[dict[str, Any]]) -> Any:
            # On the right for every family, or the places of spans would not be those of the tokens. XLNet's tokenizer
            # pads on the left, and says so again each time it is loaded.
            return tokenizer.pad(features, pad_to_multiple_of=PAD_TO, padding_side="right", return_tensors="pt")

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
        self, predictions: dict[str, np.ndarray], rows: Dataset, features: Dataset, decision: dict[str, float] | None
    ) -> Score:
        contexts, references = rows["context"], [answers["text"] for answers in rows["answers"]]
        best = answers_of(predictions, features, contexts)
        answered = squad_scores([answer["answer"] for answer in best], references)
        unanswerable = np.array([not texts for texts in references])
        margin = np.array([answer["null_margin"] for answer in best])
        if decision is None:
            decision = {}
            if unanswerable.any():
                decision["null_threshold"] = best_threshold(margin, answered["f1"], 100.0 * unanswerable)
        silent = margin > decision.get("null_threshold", np.inf)
        metrics = {name: np.where(silent, 100.0 * unanswerable, values) for name, values in answered.items()}
        tables: dict[str, list[dict[str, Any]]] = {}
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
        _, groups = np.unique(contexts, return_inverse=True)
        shown = [
            {
                "question": row["question"],
                "context": row["context"],
                "expected": texts[0] if texts else "",
                "predicted": "" if quiet else answer["answer"],
            }
            for row, texts, quiet, answer in zip(rows, references, silent, best, strict=True)
        ]
        return Score(metrics, groups, shown, decision, tables=tables)


def windows(
    tokenizer: Any,
    questions: list[str],
    contexts: list[str],
    answers: list[dict[str, list]] | None,
    indices: list[int],
    *,
    max_length: int,
    doc_stride: int,
    segments: bool,
    null_token_id: int,
) -> dict[str, list]:
    """Cut each question and context into windows of at most `max_length` tokens that share `doc_stride` tokens.

    The gold span of a window is the first reference's, or, where the window does not hold all of it, the null
    position: the place of the model's special token that stands for "no answer here".

    Returns:
        Columns of one entry a window: `input_ids`, `token_type_ids` (if `segments`), `offsets` (characters of each
        token in its context), `context_start` and `context_end` (token range of the context), `null_position`,
        `start_positions`, `end_positions`, `answered` and `legible` (the row has an answer, and that a visible
        character; if `answers`), `row` (from `indices`), `length` and `cut` (the question is not whole).
    """
    questions = [question.strip() for question in questions]
    shortened = [_shortened(tokenizer, question) for question in questions]
    encoded = tokenizer(
        shortened,
        contexts,
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=segments,
    )
    out: dict[str, list] = {
        name: [] for name in ("context_start", "context_end", "null_position", "offsets", "row", "length", "cut")
    }
    starts: list[int] = []
    ends: list[int] = []
    answered: list[bool] = []
    legible: list[bool] = []
    for i, (ids, sample) in enumerate(zip(encoded["input_ids"], encoded["overflow_to_sample_mapping"], strict=True)):
        parts = encoded.sequence_ids(i)
        first = parts.index(1) if 1 in parts else len(parts)
        last = len(parts) - parts[::-1].index(1) if 1 in parts else len(parts)
        # The last one of the model's own, for T5 and GPT-2 also end the question with it; a text may name it too.
        null = max(place for place, token in enumerate(ids) if token == null_token_id and parts[place] is None)
        offsets = encoded["offset_mapping"][i]
        out["context_start"].append(first)
        out["context_end"].append(last)
        out["null_position"].append(null)
        out["offsets"].append(offsets)
        out["row"].append(indices[sample])
        out["length"].append(len(ids))
        out["cut"].append(shortened[sample] != questions[sample])
        if answers is not None:
            samples = encoded["overflow_to_sample_mapping"]
            opens, closes = samples[i - 1 : i] != [sample], samples[i + 1 : i + 2] != [sample]
            start, end = _token_span(offsets[first:last], answers[sample], opens, closes)
            starts.append(null if start is None else first + start)
            ends.append(null if end is None else first + end)
            answered.append(bool(answers[sample]["text"]))
            legible.append(any(_visible(text) for text in answers[sample]["text"][:1]))
    if answers is not None:
        out |= {"start_positions": starts, "end_positions": ends, "answered": answered, "legible": legible}
    return {
        "input_ids": encoded["input_ids"],
        **({"token_type_ids": encoded["token_type_ids"]} if segments else {}),
        **out,
    }


def best_spans(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    context_start: torch.Tensor,
    context_end: torch.Tensor,
    null_position: torch.Tensor,
    max_answer_length: int,
) -> dict[str, torch.Tensor]:
    """The best valid span of each window, exactly: no span with start <= end < start + max_answer_length scores higher.

    The best end for every start is a sliding maximum over the end scores, so all spans are searched in
    O(batch x length) work.

    Args:
        start_logits, end_logits: (batch, length).
        context_start, context_end: token range of the context, (batch,); spans lie within it.
        null_position: (batch,).

    Returns:
        `start`, `end` (token indices), `span` (start + end score), `null` (score of the null position) and
        `log_total` (log of the sum over all valid spans of exp(score)), each (batch,).
    """
    place = torch.arange(start_logits.size(1), device=start_logits.device)
    inside = (place >= context_start[:, None]) & (place < context_end[:, None])
    lowest = torch.finfo(start_logits.dtype).min / 4  # two of them still add up to a finite number
    starts = start_logits.masked_fill(~inside, lowest)
    ends = pad(end_logits.masked_fill(~inside, lowest), (0, max_answer_length - 1), value=lowest)
    best_end, end_at = max_pool1d(ends[:, None], max_answer_length, stride=1, return_indices=True)
    span, start = (starts + best_end[:, 0]).max(1)
    reachable = torch.logsumexp(ends.unfold(1, max_answer_length, 1), 2)
    rows = torch.arange(len(start), device=start.device)
    return {
        "start": start,
        "end": end_at[rows, 0, start],
        "span": span,
        "null": start_logits[rows, null_position] + end_logits[rows, null_position],
        "log_total": torch.logsumexp(starts + reachable, 1),
    }


def answers_of(predictions: dict[str, np.ndarray], features: Dataset, contexts: list[str]) -> list[dict[str, Any]]:
    """The best answer of each row over all of its windows.

    Returns:
        One dict a row: `answer` (text), `start`, `end` (characters in the context), `score` (probability among all
        valid spans of all windows), `null_score` (probability of "no answer" against all of them) and `null_margin`
        (how far the null score, the lowest over the windows, lies above the answer's: large means "no answer").
    """
    windows_of: list[list[int]] = [[] for _ in contexts]
    for i, row in enumerate(features["row"]):
        windows_of[row].append(i)
    chosen = [max(indices, key=lambda i: predictions["span"][i]) for indices in windows_of]
    offsets = features.select(chosen)["offsets"]
    found = []
    for context, indices, best, places in zip(contexts, windows_of, chosen, offsets, strict=True):
        start, end = places[predictions["start"][best]][0], places[predictions["end"][best]][1]
        # Some tokenizers count the blank before a word among its characters, or have a token for it.
        end -= len(context[start:end]) - len(context[start:end].rstrip())
        start += len(context[start:end]) - len(context[start:end].lstrip())
        total = np.logaddexp.reduce(predictions["log_total"][indices].astype(float))
        null = float(predictions["null"][indices].min())
        found.append(
            {
                "answer": context[start:end],
                "start": start,
                "end": end,
                "score": float(np.exp(predictions["span"][best] - total)),
                "null_score": float(np.exp(null - np.logaddexp(null, total))),
                "null_margin": null - float(predictions["span"][best]),
            }
        )
    return found


def best_threshold(margin: np.ndarray, if_answered: np.ndarray, if_silent: np.ndarray) -> float:
    """The null margin above which staying silent gives the highest mean score, found exactly by sorting.

    Args:
        margin, if_answered, if_silent: null margin of each row and its score either way, shape (rows,).
    """
    order = np.argsort(margin)
    gain = np.concatenate([[0.0], np.cumsum((if_answered - if_silent)[order])])
    ordered = margin[order]
    gain[1:-1][ordered[1:] == ordered[:-1]] = -np.inf  # no threshold lies between equal ones
    place = int(gain.argmax())
    if place == 0:
        return float(ordered[0] - 1)
    if place == len(ordered):
        return float(ordered[-1] + 1)
    return float((ordered[place - 1] + ordered[place]) / 2)


def _answers(value: Any, row: int, column: str) -> dict[str, list]:
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


def _shortened(tokenizer: Any, question: str) -> str:
    encoded = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    if len(encoded["input_ids"]) <= QUESTION_TOKENS:
        return question
    return question[: encoded["offset_mapping"][QUESTION_TOKENS - 1][1]]


def _token_span(
    offsets: list[tuple[int, int]], answers: dict[str, list], opens: bool, closes: bool
) -> tuple[int | None, int | None]:
    """Tokens that cover the first reference, or (None, None) where this part of the context lacks some of it.

    Blank and invisible characters at the edges of the reference do not count. Neither do characters before the first
    token of a context (`opens`: the window starts it) or after its last one (`closes`), such as an accent that the
    tokenizer drops.
    """
    if not answers["text"] or not offsets:
        return None, None
    text, begin = answers["text"][0], answers["answer_start"][0]
    visible = _visible(text)
    if not visible:
        return None, None
    begin, finish = begin + visible[0], begin + visible[-1] + 1
    if opens:
        begin = max(begin, offsets[0][0])
    if closes:
        finish = min(finish, offsets[-1][1])
    if begin >= finish or begin < offsets[0][0] or finish > offsets[-1][1]:
        return None, None
    # The bytes of one character are tokens with its place each: of those all belong to the answer.
    start = min(i for i, (_, right) in enumerate(offsets) if right > begin)
    end = max(i for i, (left, _) in enumerate(offsets) if left < finish)
    return (start, end) if start <= end else (None, None)


def _visible(text: str) -> list[int]:
    """Places of the characters that are neither blank nor invisible."""
    return [i for i, character in enumerate(text) if unicodedata.category(character)[0] not in "ZC"]
