"""Pretraining from scratch: a new tokenizer and a new model of one of the families."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from transformers import AutoModelForMaskedLM, BertConfig, BertTokenizer

from tl_hub.config import flag
from tl_hub.errors import UserError


@dataclass(kw_only=True)
class FromScratch:
    """Shape of the new model. Dropout is off: a small model that sees each text a few times underfits, not overfits."""

    name: ClassVar[str] = "from scratch"
    kind: ClassVar[str] = "pretrained"

    model_type: Literal["bert"] = flag("bert", "family of the new model")
    vocab_size: int = flag(4096, "entries in the new tokenizer's vocabulary")
    layers: int = flag(4, "transformer layers")
    hidden_size: int = flag(128, "width of the hidden states")
    heads: int = flag(4, "attention heads")
    intermediate_size: int = flag(512, "width of the feed-forward layers")
    window: int = flag(384, "longest input in tokens")

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise UserError(f"--hidden_size {self.hidden_size} is not a multiple of --heads {self.heads}")

    def build(self, texts: Iterable[str]) -> tuple[Any, Any, None]:
        """Train the family's own kind of tokenizer on `texts`, and initialise a model that fits it."""
        tokenizer = BertTokenizer(do_lower_case=True).train_new_from_iterator(texts, vocab_size=self.vocab_size)
        tokenizer.model_max_length = self.window
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.window,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=tokenizer.pad_token_id,
        )
        return AutoModelForMaskedLM.from_config(config), tokenizer, None
