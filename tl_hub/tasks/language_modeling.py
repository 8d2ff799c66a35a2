"""Language modelling, by which models are pretrained: four objectives, of which each family has one."""

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import DataCollatorForPermutationLanguageModeling
from transformers.modeling_outputs import MaskedLMOutput

from tl_hub.architectures import ARCHITECTURES, Objective, longest_input, titles
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.metrics import bootstrap_interval
from tl_hub.tasks.base import Score, Task, check_fast, select_columns
from tl_hub.tokenizer import word_starts

_SHOWN_ROWS, _SHOWN_WORDS = 8, 30
"""Of a card's examples, and words of each."""
_CONTINUED_TOKENS = 30
"""Of what GPT-2 is shown to go on with; as many as templates/call.txt asks for."""
_SENTINELS = [f"<extra_id_{i}>" for i in range(100)]
GAP = re.compile(r"<extra_id_\d+>")
FILLED_TOKENS, BEAMS = 48, 4
"""Of what T5 writes for the gaps of a text; templates/call.txt has the same."""
_SHORTEST, _LENGTHS = 32, 4
"""Random lengths are 32, 64, 128 and 256: a new model learns from near neighbours first."""

Collator = Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]


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

    text_column: str = flag("text", "column with the text", reads=True)
    max_length: int = flag(256, "tokens in a window")

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise UserError(f"--max_length is {self.max_length}; it must be at least 8")

    def check(self, rows: Dataset) -> Dataset:
        rows = select_columns(rows, {"text": self.text_column})
        wrong = [i for i, text in enumerate(rows["text"]) if text is not None and not isinstance(text, str)]
        if wrong:
            raise UserError(f"{len(wrong)} rows have something else than a text (the first is row {wrong[0]})")
        told = [i for i, text in enumerate(rows["text"]) if text and text.strip()]
        if not told:
            raise UserError(f"none of the {len(rows)} rows has a text in column {self.text_column!r}")
        return rows.select(told)

    def input_of(self, row: dict[str, Any]) -> str:
        return row["text"]

    def window(self, model: Any) -> int:
        """Tokens in a window: `max_length`, or the model's own longest input where that is shorter."""
        return min(self.max_length, longest_input(model.config) or self.max_length)

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return token_losses(outputs.logits, batch["labels"])

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, features: Dataset, decision: dict[str, float] | None
    ) -> Score:
        """Texts are drawn whole for the intervals, each with all windows that begin in it; of one text, windows are."""
        sums, tokens = predictions["loss"].astype(float), predictions["tokens"]
        loss = sums.sum() / tokens.sum()
        score = Score({"loss": np.asarray(loss), "perplexity": np.exp(loss)}, unit=None)
        if len(features) > 1:
            texts = np.asarray(features["row"])
            low, high = bootstrap_interval(sums, texts if len(np.unique(texts)) > 1 else None, sizes=tokens)
            score.intervals = {"loss": (low, high), "perplexity": (math.exp(low), math.exp(high))}
        score.tables["Measured on"] = [
            {"texts": len(rows), "windows": len(features), "predicted tokens": int(tokens.sum())}
        ]
        return score

    def report(
        self,
        score: Score,
        rows: Dataset,
        model: Any,
        tokenizer: Any,
        *,
        folder: Path,
        seed: int,
        before: Score | None = None,
    ) -> None:
        if before:
            score.tables |= self.baselines(before, score)
        score.predictions = score.predictions or self.tried(model, tokenizer, rows, seed)

    @abstractmethod
    def tried(self, model: Any, tokenizer: Any, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """Rows with what the model makes of them, as a card shows them."""

    def baselines(self, before: Score, after: Score) -> dict[str, list[dict[str, Any]]]:
        """The figures of the model as it was loaded beside those after training."""
        systems = {"before training": before, "after training": after}
        names = list(before.metrics)
        rows = [{"system": s, **{name: float(found.metrics[name]) for name in names}} for s, found in systems.items()]
        return {"Baselines": rows}


@dataclass(kw_only=True)
class MaskedLanguageModeling(LanguageModeling):
    """Predict masked tokens from both sides (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1).

    Long texts are cut into windows; nothing is left out.
    """

    name: ClassVar[str] = "masked-language-modeling"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("masked",)

    mask_probability: float = flag(0.15, "share of the tokens that are predicted, of masked and corrupted texts")
    whole_word: bool = flag(False, "mask all pieces of a word or none")
    random_length: bool = flag(False, "cut the windows of each training batch into pieces of a random length")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("mask_probability", self.mask_probability)

    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        max_length = self.window(model)

        check_fast(tokenizer)
        _check_mask(tokenizer, "masked")

        def windows(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            encoded = tokenizer(batch["text"], truncation=True, max_length=max_length, return_overflowing_tokens=True)
            ids = encoded["input_ids"]
            rows_of = [indices[i] for i in encoded["overflow_to_sample_mapping"]]
            return {"input_ids": ids, "length": [len(window) for window in ids], "row": rows_of}

        return rows.map(windows, with_indices=True, batched=True, remove_columns=rows.column_names, desc="tokenizing")

    def collator(self, tokenizer: Any, training: bool) -> Any:
        special = torch.zeros(len(tokenizer), dtype=torch.bool)
        special[tokenizer.all_special_ids] = True
        starts_word = torch.tensor(word_starts(tokenizer)) | special

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            rows = [torch.tensor(feature["input_ids"]) for feature in features]
            if training and self.random_length:
                size = _SHORTEST * 2 ** int(torch.randint(_LENGTHS, ()))
                rows = [piece for row in rows for piece in row.split(size)]
            ids = pad_sequence(rows, batch_first=True, padding_value=tokenizer.pad_token_id)
            chance = torch.rand(ids.shape)
            if self.whole_word:  # the first piece of a row may go on with a word that began in another row
                chance = chance.gather(1, starts_word[ids].cumsum(1) - starts_word[ids[:, :1]].long())
            # At least one of each row, as in the published implementation: a batch must have something to learn from.
            chance = chance.masked_fill(special[ids], 1.0)
            predicted = (chance <= chance.amin(1, keepdim=True).clamp(min=self.mask_probability)) & ~special[ids]
            # Of ten predicted tokens eight are hidden, one is another and one is left as it is, so that the model
            # must make something of every token and not of masks alone.
            fate = torch.rand(ids.shape)
            hidden, replaced = predicted & (fate < 0.8), predicted & (fate >= 0.9)
            given = ids.masked_fill(hidden, tokenizer.mask_token_id)
            given = torch.where(replaced, torch.randint(len(tokenizer), ids.shape), given)
            return {
                "input_ids": given,
                "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True),
                "labels": ids.masked_fill(~predicted, -100),
                **_index(features),
            }

        return collate if training else _the_same_each_time(collate)

    @torch.no_grad()
    def tried(self, model: Any, tokenizer: Any, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, each with a word masked that is one token, and what the model puts there."""
        found = []
        for text, expected in _gapped(rows, tokenizer.mask_token, seed, self.window(model), _one_token(tokenizer)):
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=self.window(model))
            masked = inputs["input_ids"][0] == tokenizer.mask_token_id
            if masked.any():  # words may be of many tokens, and the mask be cut off
                logits = model.eval()(**inputs.to(model.device)).logits[0, -len(masked) :]  # after a prompt, if any
                predicted = tokenizer.decode(logits[masked.to(model.device)].argmax(-1)).strip()
                found.append({"text": text, "expected": expected, "predicted": predicted})
        return found

    def objective(self, model: Any) -> torch.nn.Module:
        return _MaskedPositions(model)

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        masked = batch["labels"] != -100
        losses = torch.zeros(masked.shape, device=masked.device)
        losses[masked] = cross_entropy(outputs.logits, batch["labels"][masked], reduction="none")
        return {"loss": losses.sum(1), "tokens": masked.sum(1)}


@dataclass(kw_only=True)
class CausalLanguageModeling(LanguageModeling):
    """Predict each token from those before it (Radford et al. 2019, section 2).

    Texts are joined by the end-of-text token and cut into blocks of `max_length`; only the last one may be shorter.
    """

    name: ClassVar[str] = "causal-language-modeling"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("causal",)

    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        ids, row_of = joined(rows, tokenizer, tokenizer.eos_token_id)
        return blocks(ids, row_of, range(0, len(ids), self.window(model)), least=2)

    def collator(self, tokenizer: Any, training: bool) -> Any:
        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            ids = [torch.tensor(feature["input_ids"]) for feature in features]
            return {
                # On the right, where no token that counts can see it.
                "input_ids": pad_sequence(ids, batch_first=True, padding_value=tokenizer.eos_token_id),
                "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
                "labels": pad_sequence(ids, batch_first=True, padding_value=-100),
                **_index(features),
            }

        return collate

    @torch.no_grad()
    def tried(self, model: Any, tokenizer: Any, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, drawn at random, with what follows and what the model predicts, greedily."""
        most, found = min(_SHOWN_WORDS, self.window(model) // 4), []
        room = (longest_input(model.config) or self.max_length) - _CONTINUED_TOKENS
        for place in np.random.default_rng(seed).permutation(len(rows))[:_SHOWN_ROWS].tolist():
            words = rows[place]["text"].split()[:most]
            text = " ".join(words[: most // 2])
            inputs = tokenizer(text, return_tensors="pt").to(model.device)
            length = inputs["input_ids"].size(1)
            if len(words) == most and length <= room:
                going_on = {"do_sample": False, "pad_token_id": tokenizer.eos_token_id}
                output = model.eval().generate(**inputs, max_new_tokens=_CONTINUED_TOKENS, **going_on)
                predicted = tokenizer.decode(output[0, length:], skip_special_tokens=True)
                found.append({"text": text, "expected": " ".join(words[most // 2 :]), "predicted": predicted})
        return found

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return token_losses(outputs.logits[:, :-1], batch["labels"][:, 1:])


@dataclass(kw_only=True)
class SpanCorruption(LanguageModeling):
    """Predict spans of tokens that were taken out (Raffel et al. 2020, https://arxiv.org/abs/1910.10683).

    It is span corruption as in section 3.1.4 there. Each span is replaced by a sentinel of its own in the input; the
    target is each sentinel followed by its span. With `whole_target` the target is the text itself, as in the first
    objective of section 3.3.1 and in BART (Lewis et al. 2020, https://arxiv.org/abs/1910.13461): then the decoder too
    learns to read and to write whole texts, at the price of longer targets, most of which can be copied.

    Texts are joined by the end-of-sequence token and cut into blocks of `max_length` tokens, of which one is the final
    end of sequence.
    """

    name: ClassVar[str] = "span-corruption"
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("span",)

    noise_density: float = flag(0.15, "share of the tokens that are taken out")
    mean_span: float = flag(3.0, "tokens in a span, on average")
    whole_target: bool = flag(False, "predict the whole text, not the spans alone")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_share("noise_density", self.noise_density)
        if self.mean_span < 1:
            raise UserError(f"--mean_span is {self.mean_span}; it must be at least 1")

    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        if not set(_SENTINELS) <= tokenizer.get_vocab().keys():
            raise UserError(
                f"the model's tokenizer lacks {_SENTINELS[0]} to {_SENTINELS[-1]}, which stand for the gaps"
            )
        ids, row_of = joined(rows, tokenizer, tokenizer.eos_token_id)
        return blocks(ids, row_of, range(0, len(ids), self.window(model) - 1), least=2)

    def collator(self, tokenizer: Any, training: bool) -> Any:
        sentinels = np.array(tokenizer.convert_tokens_to_ids(_SENTINELS))
        end = [tokenizer.eos_token_id]

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            random = np.random.default_rng(int(torch.randint(2**62, ())))  # torch's state is what a checkpoint keeps
            inputs, targets = [], []
            for feature in features:
                ids = np.asarray(feature["input_ids"])
                noise = noise_mask(len(ids), self.noise_density, self.mean_span, len(sentinels), random)
                inputs.append(torch.tensor([*with_sentinels(ids, noise, sentinels), *end]))
                target = ids if self.whole_target else with_sentinels(ids, ~noise, sentinels)
                targets.append(torch.tensor([*target, *end]))
            return {
                "input_ids": pad_sequence(inputs, batch_first=True, padding_value=tokenizer.pad_token_id),
                "attention_mask": pad_sequence([torch.ones_like(row) for row in inputs], batch_first=True),
                "labels": pad_sequence(targets, batch_first=True, padding_value=-100),
                **_index(features),
            }

        return collate if training else _the_same_each_time(collate)

    def tried(self, model: Any, tokenizer: Any, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, each with a word taken out, and what the model puts there."""
        found = []
        for text, expected in _gapped(rows, "<extra_id_0>", seed, self.window(model), str.isalpha):
            (filled,) = self.fill(model, tokenizer, [text])
            found.append({"text": text, "expected": expected, "predicted": filled["spans"][0]})
        return found

    @torch.no_grad()
    def fill(
        self, model: Any, tokenizer: Any, texts: list[str], max_new_tokens: int = FILLED_TOKENS, beams: int = BEAMS
    ) -> list[dict[str, Any]]:
        """What a model writes for the gaps `<extra_id_0>`, `<extra_id_1>` and so on of texts.

        A model that was trained to write the whole text writes it anew; where that changes more than the gaps, the text
        stays as the model wrote it, and its spans are empty.

        Returns:
            For each text `spans`, one a gap, and `generated_text`, the text with them.
        """
        inputs = tokenizer(texts, return_tensors="pt", padding=True).to(model.device)
        ids = model.eval().generate(
            **inputs,
            max_new_tokens=max_new_tokens + (inputs["input_ids"].size(1) if self.whole_target else 0),
            num_beams=beams,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )[:, 1:]
        written = [each.split(tokenizer.eos_token)[0] for each in tokenizer.batch_decode(ids)]
        return list(map(self._filled, texts, written))

    def _filled(self, source: str, written: str) -> dict[str, Any]:
        if self.whole_target:
            written = written.strip()
            around = r"\s*(.*?)\s*".join(re.escape(part.strip()) for part in GAP.split(source))
            match = re.fullmatch(around, written, re.DOTALL)
            spans = list(match.groups()) if match else [""] * len(GAP.findall(source))
            return {"spans": spans, "generated_text": written}
        _, *parts = re.split(f"({GAP.pattern})", written)
        found = {gap: span.strip() for gap, span in zip(parts[::2], parts[1::2], strict=True)}
        gaps, filled = sorted(set(GAP.findall(source)), key=source.index), source
        for gap in gaps:
            filled = filled.replace(gap, found.get(gap, ""))
        return {"spans": [found.get(gap, "") for gap in gaps], "generated_text": filled}


@dataclass(kw_only=True)
class PermutationLanguageModeling(LanguageModeling):
    """Predict tokens in a random order of factorisation (Yang et al. 2019, https://arxiv.org/abs/1906.08237).

    Spans of up to 5 tokens, a sixth of all, are predicted (section 2.6), each token from those that come before it in
    the order. Texts are joined by the separator and cut into blocks of one even length that end in
    <sep><cls>, so that nothing is padded; at the end of all texts fewer than two tokens a block are left out.
    """

    # Not text generation: what was trained to see both sides of a token continues a text badly.
    name: ClassVar[str] = "permutation-language-modeling"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("permutation",)

    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        _check_mask(tokenizer, "permutation")
        end = [tokenizer.sep_token_id, tokenizer.cls_token_id]
        ids, row_of = joined(rows, tokenizer, tokenizer.sep_token_id)
        count = -(-len(ids) // (self.window(model) - len(end)))
        size = len(ids) // count // 2 * 2
        if size < 2:
            raise UserError(f"{len(ids)} tokens of text are too few; give more or longer texts")
        return blocks(ids, row_of, range(0, count * size, size), size=size, end=end)

    def collator(self, tokenizer: Any, training: bool) -> Any:
        stock = DataCollatorForPermutationLanguageModeling(tokenizer)

        def collate(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            # The stock collator replaces predicted tokens by <mask>, so that those later in the order cannot see them
            # either: that is masked modelling. Equation 3 has them seen, and `perm_mask` alone keeps each from itself.
            batch = stock([{"input_ids": feature["input_ids"]} for feature in features])
            while not (batch["labels"] != -100).any():  # a batch must have something to learn from
                batch = stock([{"input_ids": feature["input_ids"]} for feature in features])
            given = torch.tensor([feature["input_ids"] for feature in features])
            # It lets separators and <cls>, which every token sees, see predicted tokens: each that is not predicted
            # must be blind to all that are, or it would pass them on from the second layer up.
            hidden = batch["labels"] != -100
            perm_mask = torch.where(hidden[:, :, None], batch["perm_mask"], hidden[:, None].float())
            # It also asks for every token. Only those that count are asked for here, which saves most of the work.
            predicted = [row.nonzero()[:, 0] for row in hidden]
            places = pad_sequence(predicted, batch_first=True)
            asked = pad_sequence([torch.ones_like(row) for row in predicted], batch_first=True).bool()
            labels = batch["labels"].gather(1, places).masked_fill(~asked, -100)
            target_mapping = torch.nn.functional.one_hot(places, batch["labels"].size(1)).float()
            return {
                "input_ids": given,
                "perm_mask": perm_mask,
                "target_mapping": target_mapping,
                "labels": labels,
                **_index(features),
            }

        return collate if training else _the_same_each_time(collate)

    def tried(self, model: Any, tokenizer: Any, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, each with a word masked that is one token, and what the model puts there."""
        found = []
        for text, expected in _gapped(rows, tokenizer.mask_token, seed, self.window(model), _one_token(tokenizer)):
            inputs = tokenizer(text, return_tensors="pt").to(model.device)
            predicted = tokenizer.decode(self.at_masks(model, tokenizer, inputs).argmax(-1))
            found.append({"text": text, "expected": expected, "predicted": predicted})
        return found

    @torch.no_grad()
    def at_masks(self, model: Any, tokenizer: Any, inputs: Any) -> torch.Tensor:
        """The logits of what stands at the one mask of each text, (batch, vocabulary), from both sides of it."""
        # As in training: no token sees the one that is asked for, and the second stream answers for its place.
        mapping = (inputs["input_ids"] == tokenizer.mask_token_id)[:, None].float()
        outputs = model.eval()(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            perm_mask=mapping.expand(-1, mapping.size(2), -1),
            target_mapping=mapping,
            use_mems=False,
        )
        return outputs.logits[:, 0]


@dataclass(kw_only=True)
class Pretraining:
    """Settings of pretraining, each of which is one of the family's own objective.

    Raises:
        UserError: a setting is out of its range.
    """

    text_column: str = flag("text", "column with the text", reads=True)
    max_length: int = flag(256, "tokens in a window")
    mask_probability: float = flag(0.15, f"{titles('masked')}: share of the tokens that are predicted")
    whole_word: bool = flag(False, f"{titles('masked')}: mask all pieces of a word or none")
    random_length: bool = flag(
        True, f"{titles('masked')}: cut the windows of each batch into pieces of a random length, 32 to 256"
    )
    noise_density: float = flag(0.15, f"{titles('span')}: share of the tokens that are taken out")
    mean_span: float = flag(3.0, f"{titles('span')}: tokens in a span, on average")
    whole_target: bool = flag(False, f"{titles('span')}: predict the whole text, not the spans alone")

    def __post_init__(self) -> None:
        for task in OBJECTIVES.values():
            self._of(task)

    def objective(self, model_type: str) -> LanguageModeling:
        """The task by which the family `model_type` is pretrained, with those settings that it has."""
        return self._of(objective_of(model_type))

    def _of(self, task: type[LanguageModeling]) -> LanguageModeling:
        return task(**{field.name: getattr(self, field.name) for field in fields(task)})


OBJECTIVES: dict[Objective, type[LanguageModeling]] = {
    "masked": MaskedLanguageModeling,
    "causal": CausalLanguageModeling,
    "span": SpanCorruption,
    "permutation": PermutationLanguageModeling,
}


def objective_of(model_type: str) -> type[LanguageModeling]:
    """The task by which a family is pretrained."""
    return OBJECTIVES[ARCHITECTURES[model_type].pretrained_by]


def _one_token(tokenizer: Any) -> Callable[[str], bool]:
    """Whether a word is a single token, by which one mask stands for it."""
    return lambda word: word.isalpha() and len(tokenizer.tokenize(f" {word}")) == 1  # BPE of bytes counts the blank in


def _gapped(rows: Dataset, gap: str, seed: int, window: int, fits: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """The beginnings of some texts, each with `gap` in place of one word, and that word; both are drawn at random."""
    chance = np.random.default_rng(seed)
    most, left = min(_SHOWN_WORDS, window // 4), _SHOWN_ROWS
    for place in chance.permutation(len(rows))[: 4 * _SHOWN_ROWS].tolist():
        words = rows[place]["text"].split()[:most]
        places = [i for i, word in enumerate(words) if fits(word)]
        if left and len(words) >= 4 and places and gap not in " ".join(words):
            hidden, left = int(chance.choice(places)), left - 1
            yield " ".join([*words[:hidden], gap, *words[hidden + 1 :]]), words[hidden]


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sum of the negative log-likelihoods (nats) and number of the labelled tokens of each row.

    Args:
        logits: (batch, length, vocabulary).
        labels: (batch, length); -100 is not counted.

    Returns:
        `loss` and `tokens`, each (batch,).
    """
    losses = cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
    return {"loss": losses.sum(1), "tokens": (labels != -100).sum(1)}


def joined(rows: Dataset, tokenizer: Any, separator: int) -> tuple[np.ndarray, np.ndarray]:
    """All texts as one sequence, `separator` after each: token ids and the row that each came from, (tokens,)."""
    ids: list[np.ndarray] = []
    for batch in rows.iter(batch_size=1000):
        encoded = tokenizer(batch["text"], add_special_tokens=False)["input_ids"]
        ids.extend(np.array([*text, separator], dtype=np.int32) for text in encoded)
    return np.concatenate(ids), np.repeat(np.arange(len(ids)), [len(text) for text in ids])


def blocks(
    ids: np.ndarray, row_of: np.ndarray, starts: range, size: int = 0, end: list[int] | None = None, least: int = 1
) -> Dataset:
    """Cut `ids` at `starts` into features of `size` tokens (up to the next start if 0), with `end` after each.

    A last block of fewer than `least` tokens is left out.
    """

    def generate() -> Iterator[dict[str, Any]]:
        for start in starts:
            block = ids[start : start + (size or starts.step)]
            if len(block) >= least:
                whole = [*block.tolist(), *(end or [])]
                yield {"input_ids": whole, "length": len(whole), "row": int(row_of[start])}

    return Dataset.from_list(list(generate()))


def noise_mask(
    length: int, density: float, mean_span: float, most_spans: int, random: np.random.Generator
) -> np.ndarray:
    """Which tokens are taken out: spans of random lengths, the first of them never at the very start.

    The numbers of noise tokens and of spans are fixed by `length`, as in the published implementation; how the tokens
    are shared out among spans and the gaps between them is uniformly random.

    Args:
        length: tokens, at least 2.
        most_spans: as there are that many sentinels.

    Returns:
        (length,) bool.
    """
    noise = min(max(round(length * density), 1), length - 1)
    spans = min(max(round(noise / mean_span), 1), noise, length - noise, most_spans)
    lengths = np.empty(2 * spans, dtype=int)
    lengths[0::2] = _parts(length - noise, spans, random)
    lengths[1::2] = _parts(noise, spans, random)
    return np.repeat(np.arange(2 * spans) % 2 == 1, lengths)


def _parts(total: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`total` as a sum of `count` positive numbers, each way equally likely."""
    cuts = np.sort(random.choice(total - 1, count - 1, replace=False)) + 1
    return np.diff([0, *cuts, total])


def with_sentinels(ids: np.ndarray, removed: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """`ids` with each run of `removed` tokens replaced by one sentinel, the first run by the first sentinel."""
    starts = removed & ~np.concatenate([[False], removed[:-1]])
    result = ids.copy()
    result[starts] = sentinels[: starts.sum()]
    return result[starts | ~removed]


def _the_same_each_time(collate: Collator) -> Collator:
    """Evaluation hides the same tokens each time, or epochs could not be compared; training's randomness goes on."""

    def seeded(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(features[0].get("index", 0)))
            return collate(features)

    return seeded


def _index(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {"index": torch.tensor([feature["index"] for feature in features])} if "index" in features[0] else {}


def _check_mask(tokenizer: Any, kind: str) -> None:
    if tokenizer.mask_token is None:
        raise UserError(f"the model's tokenizer has no mask_token, which {kind} language modeling needs")


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise UserError(f"--{name} is {value}; it must lie between 0 and 1")


class _MaskedPositions(torch.nn.Module):
    """A model whose vocabulary scores are computed only where a token is predicted: a seventh of the places."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> MaskedLMOutput:
        masked = labels != -100
        # Under an adapter the model stands two wrappers deeper.
        model = getattr(self.model, "get_base_model", lambda: self.model)()
        scores = ARCHITECTURES[model.config.model_type].vocabulary_scores
        assert scores is not None, "a family that is pretrained by masked tokens has it"
        hidden = model.base_model(**inputs).last_hidden_state
        logits = scores(model, hidden[masked]).float()
        return MaskedLMOutput(loss=cross_entropy(logits, labels[masked]), logits=logits)
