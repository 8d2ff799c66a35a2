"""Span corruption: spans that were taken out are predicted, as T5 is pretrained."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub.architectures import Objective
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_use import torch
from tl_hub.tasks.base import Collator
from tl_hub.tasks.language_modeling.base import (
    LanguageModeling,
    batch_of,
    blocks,
    check_share,
    drawn,
    gapped,
    joined,
)

if TYPE_CHECKING:
    from datasets import Dataset

_SENTINELS = [f"<extra_id_{i}>" for i in range(100)]
GAP = re.compile(r"<extra_id_\d+>")
FILLED_TOKENS, BEAMS = 48, 4
"""Of what T5 writes for the gaps of a text; templates/call.txt has the same."""


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
    random_batches: ClassVar[bool] = True

    noise_density: float = flag(0.15, "share of the tokens that are taken out")
    mean_span: float = flag(3.0, "tokens in a span, on average")
    whole_target: bool = flag(False, "predict the whole text, not the spans alone")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("noise_density", self.noise_density)
        if not 1 <= self.mean_span < math.inf:
            raise UserError(f"--mean_span is {self.mean_span}; it must be at least 1")

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        if not set(_SENTINELS) <= tokenizer.get_vocab().keys():
            raise UserError(
                f"the model's tokenizer lacks {_SENTINELS[0]} to {_SENTINELS[-1]}, which stand for the gaps"
            )
        ids, ends = joined(rows, tokenizer, tokenizer.eos_token_id)
        return blocks(ids, ends, range(0, len(ids), self.window(model) - 1), least=2)

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        sentinels = np.array(tokenizer.convert_tokens_to_ids(_SENTINELS))
        end = [tokenizer.eos_token_id]

        def corrupted(encoded: list[dict[str, Any]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
            """What the model is given of each row, and the target."""
            random, rows = np.random.default_rng(int(torch.randint(2**62, ()))), []
            for each in encoded:
                ids = np.asarray(each["input_ids"])
                noise = noise_mask(len(ids), self.noise_density, self.mean_span, len(sentinels), random)
                target = ids if self.whole_target else with_sentinels(ids, ~noise, sentinels)
                given = with_sentinels(ids, noise, sentinels)
                rows.append((torch.tensor([*given, *end]), torch.tensor([*target, *end])))
            return rows

        def collate(encoded: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            inputs, targets = zip(*drawn(encoded, training, corrupted), strict=True)
            return batch_of(inputs, targets, tokenizer.pad_token_id, encoded)

        return collate

    def shown_examples(self, model: Model, tokenizer: Tokenizer, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, each with a word taken out, and what the model puts there."""
        found = []
        for text, expected in gapped(rows, "<extra_id_0>", seed, self.window(model), str.isalpha):
            (filled,) = self.fill(model, tokenizer, [text])
            found.append({"text": text, "expected": expected, "predicted": filled["spans"][0]})
        return found

    def fill(
        self,
        model: Model,
        tokenizer: Tokenizer,
        texts: list[str],
        max_new_tokens: int = FILLED_TOKENS,
        beams: int = BEAMS,
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
