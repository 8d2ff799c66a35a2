"""Summarization and translation: a text in, a new text out, by T5 as it is made for or by GPT-2 with a prompt."""

from __future__ import annotations

import itertools
import math
import operator
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub import cells, on_disk
from tl_hub.architectures import ARCHITECTURES, Objective, longest_input
from tl_hub.config import flag
from tl_hub.errors import Blank, UserError
from tl_hub.metrics import ROUGE, rouge_scores, rouge_signature, sentences, translation_scores
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_disk import Columns
from tl_hub.on_use import torch, transformers
from tl_hub.tasks.base import Collator, Score, Task, column, give_padding, labelled, padded, select_columns
from tl_hub.tasks.text_generation import left_padded

if TYPE_CHECKING:
    from datasets import Dataset

LEAST_SOURCE = 16
"""Tokens of the source that the model's window must have room for, beside the target."""
_BASELINE_ROWS = 1000


@dataclass(kw_only=True)
class SequenceToSequence(Task):
    """A text to be made from another one.

    T5 reads the source behind a prefix and writes the target (Raffel et al. 2020, https://arxiv.org/abs/1910.10683,
    section 2.4). GPT-2 goes on with a prompt that ends where the target begins (Radford et al. 2019, section 3.6 and
    3.7); its loss counts the target's tokens only. Prompts are padded on the left when texts are generated, so that
    all rows go on from their last token, and on the right in training.

    Rows have the columns `source` and `references`, of which the first is trained on and all are scored.

    Raises:
        UserError: a setting is out of its range.
    """

    pretrained_by: ClassVar[tuple[Objective, ...]] = ("span", "causal")
    refused: ClassVar[dict[Objective, str]] = {
        "masked": "it reads texts and writes none",
        "permutation": "its generate() asks for a token in another way than it can be trained to answer without "
        "seeing it",
    }
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    batched: ClassVar[tuple[str, ...]] = ("input_ids", "labels", "prompt", "target")

    prefix: str | None = flag(None, "text before the input; by default the one T5 was trained with")
    max_source_length: int = flag(512, "tokens of the input, prefix included; longer ones are cut")
    max_target_length: int = flag(64, "tokens of the output, in training and at most generated")
    beams: int = flag(4, "hypotheses kept in beam search; 1 is greedy")
    length_penalty: float = flag(1.0, "beam scores are divided by length to this power: above 0 favours long outputs")
    no_repeat_ngram: int = flag(0, "no n-gram of this many tokens occurs twice in an output; 0 for no such rule")

    def __post_init__(self) -> None:
        for name in ("max_source_length", "max_target_length", "beams"):
            least = LEAST_SOURCE if name == "max_source_length" else 1
            if getattr(self, name) < least:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least {least}")
        if not math.isfinite(self.length_penalty):
            raise UserError(f"--length_penalty is {self.length_penalty}; it must be a number")
        if self.no_repeat_ngram < 0:
            raise UserError(f"--no_repeat_ngram is {self.no_repeat_ngram}; it must be 0 or more")
        self._tokenizer: Any = None

    @abstractmethod
    def prompt_parts(self, model_type: str) -> tuple[str, str]:
        """The texts before and after the source in the input of a family, without a blank next to the source."""

    def class_for(self, model_type: str) -> str:
        return self.auto_class if ARCHITECTURES[model_type].encoder_decoder else "AutoModelForCausalLM"

    def adapt(self, tokenizer: Tokenizer, model: Model) -> None:
        """The tokenizer is kept: scores are of texts, not of tokens."""
        give_padding(tokenizer, model)
        self._tokenizer = tokenizer

    def input_of(self, row: dict[str, Any]) -> str:
        return row["source"]

    def rows_to_measure(self, rows: Dataset) -> Dataset:
        return with_all_references(rows)

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
        score.tables |= self.baselines(rows, score, seed)

    @abstractmethod
    def baselines(self, rows: Dataset, score: Score, seed: int) -> dict[str, list[dict[str, Any]]]:
        """A table of simple systems on the same rows."""

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        """`input_ids` and `labels` for T5, `prompt` and `target` for GPT-2, whose collator joins them in training."""
        before, after = self.prompt_parts(model.config.model_type)
        prompted = not ARCHITECTURES[model.config.model_type].encoder_decoder
        self.prefix = before  # so that the record tells it
        start, end = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, after))
        end = end if prompted else [tokenizer.eos_token_id]
        window = longest_input(model.config)
        longest = min(self.max_source_length, window - self.max_target_length) if window else self.max_source_length
        room = longest - len(start) - len(end)
        if room < LEAST_SOURCE:
            raise UserError(
                f"--max_source_length {self.max_source_length} and --max_target_length {self.max_target_length} leave "
                f"room for {room} tokens of a source in the model's input; it must be at least {LEAST_SOURCE}"
            )
        self.max_source_length = longest
        names = ("prompt", "target") if prompted else ("input_ids", "labels")

        def encode_batch(batch: Columns, indices: range) -> Columns:
            # Words of T5 begin with a blank in any case, those of GPT-2 where there is one.
            sources = [text.strip() for text in batch["source"]]
            targets = [texts[0].strip() for texts in batch["references"]]
            if prompted:
                targets = [" " + text for text in targets]
                sources = [" " + text if before else text for text in sources]
            source_ids = tokenizer(sources, add_special_tokens=False)["input_ids"]
            target_ids = tokenizer(targets, add_special_tokens=False)["input_ids"]
            inputs = [[*start, *ids[:room], *end] for ids in source_ids]
            outputs = [[*ids[: self.max_target_length - 1], tokenizer.eos_token_id] for ids in target_ids]
            return {
                names[0]: inputs,
                names[1]: outputs,
                "length": [len(ids) + len(labels) for ids, labels in zip(inputs, outputs, strict=True)],
                "source_length": [len(ids) for ids in inputs],
                "row": list(indices),
                "source_cut": [len(ids) > room for ids in source_ids],
                "target_cut": [len(ids) >= self.max_target_length for ids in target_ids],
                "unknown": [tokenizer.unk_token_id in ids for ids in target_ids],
                "references": [len(texts) for texts in batch["references"]],
            }

        encoded = on_disk.mapped(rows, encode_batch)
        unknown = int(column(encoded, "unknown").sum())
        if 2 * unknown > len(encoded):
            raise UserError(
                f"{unknown:,} of {len(encoded):,} reference outputs have characters that the model's tokenizer does "
                "not know, so it cannot learn to write them; GPT-2, which reads bytes, knows all"
            )
        return encoded

    def notes(self, encoded: Dataset) -> list[str]:
        found = []
        for name, what in (("source_cut", "inputs"), ("target_cut", "reference outputs")):
            cut = int(column(encoded, name).sum())
            if cut:
                longest = "the model's room" if name == "source_cut" else f"{self.max_target_length} tokens"
                found.append(f"{cut:,} of {len(encoded):,} {what} were longer than {longest} and were cut")
        references = int(column(encoded, "references").sum())
        if references > len(encoded):
            found.append(
                f"{len(encoded):,} texts have {references:,} references, all of which count in a score; training "
                "takes the first of each"
            )
        unknown = int(column(encoded, "unknown").sum())
        if unknown:
            found.append(f"{unknown:,} of {len(encoded):,} reference outputs have characters unknown to the tokenizer")
        return found

    def loss_weight(self, batch: dict[str, Any]) -> torch.Tensor:
        return labelled(batch["labels"])

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        """In evaluation, batches hold what to generate from; for T5 also the labels, or it would have no logits."""

        def collate(encoded: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            index = {"index": torch.tensor([f["index"] for f in encoded])} if "index" in encoded[0] else {}
            if "prompt" in encoded[0] and not training:
                return left_padded([f["prompt"] for f in encoded], tokenizer.pad_token_id) | index
            if "prompt" in encoded[0]:
                encoded = [
                    {
                        "input_ids": [*f["prompt"], *f["target"]],
                        "labels": [*[-100] * len(f["prompt"]), *f["target"]],
                    }
                    for f in encoded
                ]
            ids = [torch.tensor(f["input_ids"]) for f in encoded]
            labels = [torch.tensor(f["labels"]) for f in encoded]
            return {
                "input_ids": padded(ids, tokenizer.pad_token_id),
                "attention_mask": padded([torch.ones_like(row) for row in ids], 0),
                "labels": padded(labels, -100),
                **index,
            }

        return collate

    def outputs(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Generated ids, (batch, max_target_length), padded on the right; neither prompt nor T5's first token."""
        pad = model.config.pad_token_id
        generated = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=self.max_target_length,
            num_beams=self.beams,
            do_sample=False,
            length_penalty=self.length_penalty if self.beams > 1 else None,
            no_repeat_ngram_size=self.no_repeat_ngram,
            pad_token_id=pad,
            eos_token_id=self._tokenizer.eos_token_id,
        )
        new = generated[:, 1 if model.config.is_encoder_decoder else inputs["input_ids"].size(1) :]
        return torch.nn.functional.pad(new, (0, self.max_target_length - new.size(1)), value=pad)

    def predict(self, outputs: torch.Tensor, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"generated": outputs}

    def compared(self, rows: Dataset, generated: np.ndarray) -> Dataset:
        """What is shown beside the expected answer of each row, by generated ids, (rows, max_target_length)."""
        parts = np.array_split(generated, range(on_disk.ROWS, len(generated), on_disk.ROWS))
        return compared(rows, (text for part in parts for text in self.texts(part)))

    def texts(self, generated: Any) -> list[str]:
        """Generated ids as texts."""
        return [text.strip() for text in self._tokenizer.batch_decode(generated, skip_special_tokens=True)]


@dataclass(kw_only=True)
class Summarization(SequenceToSequence):
    """Say in few words what a long text says. Measured by ROUGE (Lin 2004), beside the text's own first sentences.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "summarization"
    sample: ClassVar[str] = "summarization"
    best: ClassVar[tuple[str, bool]] = ("rougeL", True)

    text_column: str = flag("text", "column with the text", reads=True)
    summary_column: str = flag("summary", "column with the summary, or a list of several", reads=True)

    def prompt_parts(self, model_type: str) -> tuple[str, str]:
        before, after = ("summarize:", "") if ARCHITECTURES[model_type].encoder_decoder else ("", " TL;DR:")
        return before if self.prefix is None else self.prefix.rstrip(), after

    def check(self, rows: Dataset) -> Dataset:
        rows = select_columns(rows, {"text": self.text_column, "summary": self.summary_column})
        texts, summaries = on_disk.Cells(rows, "text"), on_disk.Cells(rows, "summary")
        return checked(texts, summaries, (self.text_column, self.summary_column))

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        shown, references = self.compared(rows, predictions["generated"]), on_disk.Cells(rows, "references")
        return Score(
            dict(rouge_scores(on_disk.Cells(shown, "predicted"), references)),
            predictions=shown,
            tables={"Signatures": [{"metric": "ROUGE", "signature": rouge_signature(references)}]},
        )

    def baselines(self, rows: Dataset, score: Score, seed: int) -> dict[str, list[dict[str, Any]]]:
        """First sentence, first three sentences and whole text as summaries, on the rows or 1,000 drawn from them."""
        drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_BASELINE_ROWS])
        split = [sentences(text) for text in rows.select(drawn)["source"]]
        references = rows.select(drawn)["references"]
        table = [{"system": "this model", **{name: float(score.metrics[name][drawn].mean()) for name in ROUGE}}]
        for system, count in (("first sentence", 1), ("first three sentences", 3), ("the whole text", None)):
            scores = rouge_scores([" ".join(parts[:count]) for parts in split], references)
            table.append({"system": system, **{name: float(values.mean()) for name, values in scores.items()}})
        return {"Baselines" if len(drawn) == len(rows) else f"Baselines, on {len(drawn):,} rows": table}


_BLEU_TOKENIZERS = {"zh": "zh", "yue": "zh"} | dict.fromkeys(("bo", "ja", "km", "ko", "lo", "my", "th"), "char")
"""sacreBLEU's tokenizers of languages whose words blanks do not part."""


@dataclass(kw_only=True)
class Translation(SequenceToSequence):
    """Say a text in another language. Measured by chrF and BLEU (sacreBLEU), beside the source left as it is.

    BLEU counts words; of languages whose words are not what blanks part, such as Korean, it counts characters.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "translation"
    sample: ClassVar[str] = "translation"
    best: ClassVar[tuple[str, bool]] = ("chrf", True)

    source_language: str = flag("en", "ISO 639 code of the language to translate from, such as en")
    target_language: str = flag("de", "ISO 639 code of the language to translate into, such as de")
    translation_column: str = flag("translation", "column with {code: text, code: text}", reads=True)
    source_column: str | None = flag(
        None, "column with the source, where the languages have columns of their own", reads=True
    )
    target_column: str | None = flag(None, "column with the translation, or a list of several, likewise", reads=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("source_language", "target_language"):
            given = getattr(self, name)
            if given == type(self).__dataclass_fields__[name].default:
                continue  # importing what knows the others takes a second, which --help need not wait for
            codes = transformers.models.whisper.tokenization_whisper
            if given.lower() in codes.TO_LANGUAGE_CODE:
                raise UserError(f"--{name} is {given!r}; give its code, {codes.TO_LANGUAGE_CODE[given.lower()]}")
            if _primary(given) not in codes.LANGUAGES or not re.fullmatch(r"[a-z]+(-[A-Za-z0-9]+)?", given):
                raise UserError(
                    f"--{name} is {given!r}; allowed are {', '.join(sorted(codes.LANGUAGES))}, or de-AT and such"
                )
        if self.source_language == self.target_language:
            raise UserError(f"--source_language and --target_language are both {self.source_language}; give two")
        if (self.source_column is None) != (self.target_column is None):
            raise UserError("--source_column and --target_column go together; give both or none")

    def prompt_parts(self, model_type: str) -> tuple[str, str]:
        names = transformers.models.whisper.tokenization_whisper.LANGUAGES
        source, target = (names[_primary(code)].title() for code in (self.source_language, self.target_language))
        before, after = f"{source}:", f" {target}:"
        if ARCHITECTURES[model_type].encoder_decoder:
            before, after = f"translate {source} to {target}:", ""
        return before if self.prefix is None else self.prefix.rstrip(), after

    def languages(self) -> list[str]:
        return [self.source_language, self.target_language]

    def check(self, rows: Dataset) -> Dataset:
        codes = (self.source_language, self.target_language)
        if self.source_column is not None and self.target_column is not None:
            names = (self.source_column, self.target_column)
            rows = select_columns(rows, dict(zip(("source", "target"), names, strict=True)))
        else:
            names, rows = codes, on_disk.written(on_disk.columns(self._pairs(rows, codes)))
        return checked(on_disk.Cells(rows, "source"), on_disk.Cells(rows, "target"), names)

    def _pairs(self, rows: Dataset, codes: tuple[str, str]) -> Iterator[dict[str, Any]]:
        pairs = on_disk.Cells(select_columns(rows, {"translation": self.translation_column}), "translation")
        for i, pair in enumerate(cells.objects(pairs, self.translation_column)):
            if not isinstance(pair, dict) or not set(codes) <= set(pair):
                has = ", ".join(pair) if isinstance(pair, dict) else repr(pair)
                raise UserError(
                    f"row {i}: {self.translation_column} has {has}; it must have {' and '.join(codes)}, or give "
                    "--source_language and --target_language"
                )
            yield {"source": pair[codes[0]], "target": pair[codes[1]]}

    def scores(self, texts: Iterable[str], rows: Dataset, resamples: int = 0) -> dict[str, dict[str, Any]]:
        """chrF and BLEU of translations of `rows`; see `metrics.translation_scores`."""
        tokenize = _BLEU_TOKENIZERS.get(_primary(self.target_language), "13a")
        return translation_scores(texts, on_disk.Cells(rows, "references"), tokenize, resamples)

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        shown = self.compared(rows, predictions["generated"])
        # Each resample is a copy of all sentences' counts, so there are fewer of them where sentences are many.
        found = self.scores(
            on_disk.Cells(shown, "predicted"), rows, resamples=max(100, min(1000, 4_000_000 // len(rows)))
        )
        return Score(
            {name: np.asarray(score["value"]) for name, score in found.items()},
            predictions=shown,
            intervals={name: (score["low"], score["high"]) for name, score in found.items()},
            tables={"Signatures": [{"metric": n, "signature": score["signature"]} for n, score in found.items()]},
        )

    def baselines(self, rows: Dataset, score: Score, seed: int) -> dict[str, list[dict[str, Any]]]:
        """The source, left as it is, as a translation of itself."""
        copied = {name: found["value"] for name, found in self.scores(on_disk.Cells(rows, "source"), rows).items()}
        model = {name: float(score.metrics[name]) for name in copied}
        return {"Baselines": [{"system": "this model", **model}, {"system": "the source, as it is", **copied}]}


def _primary(language: str) -> str:
    """The language of a code that may go on with a script or country, such as pt-BR."""
    return language.partition("-")[0]


def checked(sources: on_disk.Cells, targets: on_disk.Cells, columns: tuple[str, str]) -> Dataset:
    """Rows of `source` and `references`. Blank ones are left out: there is nothing to learn from them.

    Args:
        sources: a text each, or the list of its sentences.
        targets: a text, or a list of several, for each source. Lists may be JSON text, as in CSV.

    Raises:
        UserError: a source or reference is something else than a text, or none is left.
    """
    joined = 0

    def told() -> Iterator[dict[str, Any]]:
        nonlocal joined
        for i, (source, target) in enumerate(zip(sources, cells.lists(targets, columns[1]), strict=True)):
            if isinstance(source, list) and all(isinstance(sentence, str) for sentence in source):
                source, joined = " ".join(source), joined + 1
            texts = target if isinstance(target, list) else [target]
            for name, side in zip(columns, ([source], texts), strict=True):
                if not all(text is None or isinstance(text, str) for text in side):
                    raise UserError(f"row {i}: {name} is {side!r}; it must be a text")
            if texts and all(text and text.strip() for text in (source, *texts)):
                yield {"source": source, "references": texts}

    found = on_disk.written(on_disk.columns(told()))
    if not len(found):
        raise Blank(f"none of the {len(sources)} rows has a text in both {' and '.join(columns)}")
    if joined:
        print(f"note: {columns[0]} is a list of sentences in {joined:,} rows; they were joined with blanks", flush=True)
    return found


def with_all_references(rows: Dataset) -> Dataset:
    """Rows of one source as one row with all their references, in the order in which the sources first come."""
    group = on_disk.groups(on_disk.Cells(rows, "source"))
    order = np.argsort(group, kind="stable")

    def merged() -> Iterator[dict[str, Any]]:
        numbered = zip(group[order], on_disk.each(rows.select(order)), strict=True)
        for _, same in itertools.groupby(numbered, key=operator.itemgetter(0)):
            found = [row for _, row in same]
            references = dict.fromkeys(text for row in found for text in row["references"])
            yield {"source": found[0]["source"], "references": list(references)}

    return on_disk.written(on_disk.columns(merged()))


def compared(rows: Dataset, texts: Iterable[str]) -> Dataset:
    """What is shown beside the expected answer of each row, on the disk."""
    shown = (
        {"text": row["source"], "expected": row["references"][0], "predicted": text}
        for row, text in zip(on_disk.each(rows), texts, strict=True)
    )
    return on_disk.written(on_disk.columns(shown))
