"""Masked language modelling (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.1)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import DataCollatorForLanguageModeling
from transformers.modeling_outputs import MaskedLMOutput

from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.tasks.base import Score, Task, select_columns


@dataclass(kw_only=True)
class MaskedLanguageModeling(Task):
    """Predict masked tokens from both sides. Long texts are cut into windows; nothing is left out.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "fill-mask"
    sample: ClassVar[str] = "text"
    auto_class: ClassVar[str] = "AutoModelForMaskedLM"
    best: ClassVar[tuple[str, bool]] = ("loss", False)
    model_types: ClassVar[tuple[str, ...]] = ("bert",)
    batched: ClassVar[tuple[str, ...]] = ("input_ids",)

    text_column: str = flag("text", "column with the text")
    max_length: int = flag(256, "tokens in a window")
    mask_probability: float = flag(0.15, "share of the tokens that are predicted")

    def __post_init__(self) -> None:
        if self.max_length < 8:
            raise UserError(f"--max_length is {self.max_length}; it must be at least 8")
        if not 0 < self.mask_probability < 1:
            raise UserError(f"--mask_probability is {self.mask_probability}; it must lie between 0 and 1")

    def check(self, rows: Dataset) -> Dataset:
        rows = select_columns(rows, {"text": self.text_column})
        empty = [i for i, text in enumerate(rows["text"]) if not text]
        if empty:
            raise UserError(f"{len(empty)} rows have no text (the first is row {empty[0]}); remove them")
        return rows

    def input_of(self, row: dict[str, Any]) -> str:
        return row["text"]

    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        max_length = min(self.max_length, model.config.max_position_embeddings)

        def windows(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            encoded = tokenizer(batch["text"], truncation=True, max_length=max_length, return_overflowing_tokens=True)
            ids = encoded["input_ids"]
            rows_of = [indices[i] for i in encoded["overflow_to_sample_mapping"]]
            return {"input_ids": ids, "length": [len(window) for window in ids], "row": rows_of}

        return rows.map(windows, with_indices=True, batched=True, remove_columns=rows.column_names, desc="tokenizing")

    def collator(self, tokenizer: Any, training: bool) -> Any:
        # Evaluation masks the same tokens each time, or epochs could not be compared.
        return DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=self.mask_probability, seed=None if training else 0
        )

    def objective(self, model: Any) -> torch.nn.Module:
        return _MaskedPositions(model)

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        masked = batch["labels"] != -100
        losses = torch.zeros(masked.shape, device=masked.device)
        losses[masked] = cross_entropy(outputs.logits, batch["labels"][masked], reduction="none")
        return {"loss": losses.sum(1), "tokens": masked.sum(1)}

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, features: Dataset, decision: dict[str, float] | None
    ) -> Score:
        loss = predictions["loss"].sum() / predictions["tokens"].sum()
        return Score({"loss": np.asarray(loss), "perplexity": np.exp(loss)})


class _MaskedPositions(torch.nn.Module):
    """BertForMaskedLM whose vocabulary scores are computed only where a token is predicted: a seventh of the places."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> MaskedLMOutput:
        masked = labels != -100
        hidden = self.model.bert(**inputs).last_hidden_state
        logits = self.model.cls(hidden[masked]).float()
        return MaskedLMOutput(loss=cross_entropy(logits, labels[masked]), logits=logits)
