"""Causal language modelling: each token is predicted from those before it, as GPT-2 is pretrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub.architectures import Objective, longest_input
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_use import torch
from tl_hub.tasks.base import Collator, labelled
from tl_hub.tasks.language_modeling.base import (
    SHOWN_ROWS,
    SHOWN_WORDS,
    LanguageModeling,
    batch_of,
    blocks,
    joined,
    token_losses,
)

if TYPE_CHECKING:
    from datasets import Dataset

_CONTINUED_TOKENS = 30
"""Of what GPT-2 is shown to go on with; as many as templates/call.txt asks for."""


@dataclass(kw_only=True)
class CausalLanguageModeling(LanguageModeling):
    """Predict each token from those before it (Radford et al. 2019, section 2).

    Texts are joined by the end-of-text token and cut into blocks of `max_length`; only the last one may be shorter.
    """

    name: ClassVar[str] = "causal-language-modeling"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("causal",)

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        ids, ends = joined(rows, tokenizer, tokenizer.eos_token_id)
        return blocks(ids, ends, range(0, len(ids), self.window(model)), least=2)

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        def collate(encoded: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            ids = [torch.tensor(each["input_ids"]) for each in encoded]
            # Filled up on the right, where no token that counts can see it.
            return batch_of(ids, ids, tokenizer.eos_token_id, encoded)

        return collate

    def shown_examples(self, model: Model, tokenizer: Tokenizer, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, drawn at random, with what follows and what the model predicts, greedily."""
        most, found = min(SHOWN_WORDS, self.window(model) // 4), []
        room = (longest_input(model.config) or self.max_length) - _CONTINUED_TOKENS
        for place in np.random.default_rng(seed).permutation(len(rows))[:SHOWN_ROWS].tolist():
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

    def loss_weight(self, batch: dict[str, Any]) -> torch.Tensor:
        return labelled(batch["labels"][:, 1:])

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return token_losses(outputs.logits[:, :-1], batch["labels"][:, 1:])
