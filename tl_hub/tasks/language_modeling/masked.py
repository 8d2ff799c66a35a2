"""Masked language modelling: tokens are predicted from both sides, as BERT and its relatives are pretrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub import on_disk
from tl_hub.architectures import Objective
from tl_hub.config import flag
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_disk import Columns
from tl_hub.on_use import torch
from tl_hub.tasks.base import Collator, check_fast, padded
from tl_hub.tasks.language_modeling.base import (
    LanguageModeling,
    batch_of,
    check_mask,
    check_share,
    drawn,
    gapped,
    one_token,
)
from tl_hub.tokenizer import word_starts

if TYPE_CHECKING:
    from datasets import Dataset

_SHORTEST, _LENGTHS = 32, 4
"""Random lengths are 32, 64, 128 and 256: a new model learns from near neighbours first."""


@dataclass(kw_only=True)
class MaskedLanguageModeling(LanguageModeling):
    """Predict masked tokens from both sides (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1).

    Long texts are cut into windows; nothing is left out.
    """

    name: ClassVar[str] = "masked-language-modeling"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("masked",)
    random_batches: ClassVar[bool] = True

    mask_probability: float = flag(0.15, "share of the tokens that are predicted, of masked and corrupted texts")
    whole_word: bool = flag(False, "mask all pieces of a word or none")
    random_length: bool = flag(False, "cut the windows of each training batch into pieces of a random length")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share("mask_probability", self.mask_probability)

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        max_length = self.window(model)

        check_fast(tokenizer)
        check_mask(tokenizer, "masked")

        def windows(batch: Columns, indices: range) -> Columns:
            encoded = tokenizer(batch["text"], truncation=True, max_length=max_length, return_overflowing_tokens=True)
            ids = encoded["input_ids"]
            rows_of = [indices[i] for i in encoded["overflow_to_sample_mapping"]]
            return {"input_ids": ids, "length": [len(window) for window in ids], "row": rows_of}

        return on_disk.mapped(rows, windows)

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        special = torch.zeros(len(tokenizer), dtype=torch.bool)
        special[tokenizer.all_special_ids] = True
        starts_word = torch.tensor(word_starts(tokenizer)) | special

        def corrupted(encoded: list[dict[str, Any]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
            """What the model is given of each row, and the labels."""
            rows = [torch.tensor(each["input_ids"]) for each in encoded]
            if training and self.random_length:  # the same for all rows of a step, or most of it were padding
                size = _SHORTEST * 2 ** int(np.random.default_rng(encoded[0]["draw"]).integers(_LENGTHS))
                rows = [piece for row in rows for piece in row.split(size)]
            ids = padded(rows, tokenizer.pad_token_id)
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
            labels = ids.masked_fill(~predicted, -100)
            return [(given[i, : len(row)], labels[i, : len(row)]) for i, row in enumerate(rows)]

        def collate(encoded: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            given, labels = zip(*drawn(encoded, training, corrupted), strict=True)
            return batch_of(given, labels, tokenizer.pad_token_id, encoded)

        return collate

    def shown_examples(self, model: Model, tokenizer: Tokenizer, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, each with a word masked that is one token, and what the model puts there."""
        found = []
        for text, expected in gapped(rows, tokenizer.mask_token, seed, self.window(model), one_token(tokenizer)):
            inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=self.window(model))
            masked = inputs["input_ids"][0] == tokenizer.mask_token_id
            if masked.any():  # words may be of many tokens, and the mask be cut off
                logits = model.eval()(**inputs.to(model.device)).logits[0, -len(masked) :]  # after a prompt, if any
                predicted = str(tokenizer.decode(logits[masked.to(model.device)].argmax(-1))).strip()
                found.append({"text": text, "expected": expected, "predicted": predicted})
        return found

    def objective(self, model: Model) -> torch.nn.Module:
        from tl_hub.tasks import objectives  # it needs torch, for which --help does not wait

        return objectives.MaskedPositions(model)

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        masked = batch["labels"] != -100
        losses = torch.zeros(masked.shape, device=masked.device)
        losses[masked] = torch.nn.functional.cross_entropy(outputs.logits, batch["labels"][masked], reduction="none")
        return {"loss": losses.sum(1), "tokens": masked.sum(1)}
