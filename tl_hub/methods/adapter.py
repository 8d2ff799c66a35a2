"""Adapters: the pretrained weights stay as they are, small added ones are trained."""

from dataclasses import dataclass
from typing import Any, ClassVar

from peft import LoraConfig, get_peft_model

from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.training import Base


@dataclass(kw_only=True)
class Adapter:
    """Low-rank adaptation of every linear layer (LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1).

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "lora"
    kind: ClassVar[str] = "adapter"

    rank: int = flag(8, "rank r of the update B A")
    alpha: int = flag(16, "the update is scaled by alpha / rank")
    dropout: float = flag(0.0, "dropout on the update's input")

    def __post_init__(self) -> None:
        for name in ("rank", "alpha"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.dropout < 1:
            raise UserError(f"--dropout is {self.dropout}; it must lie in [0, 1)")

    def wrap(self, model: Any, base: Base) -> Any:
        """Freeze `model`, add the update, and make its new parts (the head) trainable and part of what is saved.

        What was initialised, not loaded (`base.fresh`), must be trained *and* saved, or the adapter loads with a
        head of random numbers and no error.

        Raises:
            UserError: what is new is a head that shares the embeddings' weights, which an adapter cannot carry.
        """
        architecture = ARCHITECTURES[model.config.model_type]
        output = model.get_output_embeddings()
        if any(
            name.rpartition(".")[0] == head for name in base.fresh for head, m in model.named_modules() if m is output
        ):
            raise UserError(f"--model {base.id} has no language-modelling head to adapt; give a model that has one")
        heads = sorted({name.rpartition(".")[0] for name in base.fresh})
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(architecture.lora_targets),
            fan_in_fan_out=architecture.fan_in_fan_out,
            modules_to_save=heads or None,
        )
        return get_peft_model(model, config, revision=base.revision)
