"""LoRA: low-rank updates of all linear layers."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

from tl_hub.architectures import Architecture
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.methods.adapters.base import Adapter
from tl_hub.model_types import Model, PeftConfig
from tl_hub.published_settings import Row, values

# Updates of all linear layers; Hu et al. 2021 update queries and values only, with rank 8 and 4.
_RANK = {"rank": 16, "alpha": 32}
_MEASURED = "found on the validation rows of sample:qa, docs/results/adapters.md"


@dataclass(kw_only=True)
class Lora(Adapter):
    """Low-rank updates of all linear layers (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1).

    XLNet's attention has none; each of its tensors (width, heads, head width) takes updates of rank 1, one for each
    index of the first axis.
    """

    name = "lora"
    title = "LoRA"
    paper = ("LoRA: Hu et al. 2021", "https://arxiv.org/abs/2106.09685")
    mergeable = True
    published: ClassVar[tuple[Row, ...]] = (
        # The updates of XLNet's attention have rank 1, and move too slowly at the scale that suits one of 16.
        Row({"alpha": 128, "batch_size": 8}, _MEASURED, ("permutation",), task="question answering", embedded=True),
        # Small models want more for spans than for classes: with 22 million parameters, 4,000 questions and 3 epochs,
        # half the rate is three points of F1 below (docs/results/public.md).
        Row(
            values(1.5e-3, warmup=0.06, **_RANK),
            "Schulman et al. 2025, https://thinkingmachines.ai/blog/lora/: about ten times that of fine-tuning",
            ("masked",),
            60,
            task="question answering",
        ),
        Row(
            values(5e-4, warmup=0.06, **_RANK),
            "Hu et al. 2021, https://arxiv.org/abs/2106.09685, table 9, RoBERTa base",
            ("masked", "permutation"),
            200,
        ),
        Row(
            values(3e-4, warmup=0.06, **_RANK),
            "Hu et al. 2021, https://arxiv.org/abs/2106.09685, table 9, RoBERTa large",
            ("masked", "permutation"),
        ),
        Row(
            values(2e-4, epochs=5, **_RANK),
            "Hu et al. 2021, https://arxiv.org/abs/2106.09685, table 11",
            ("causal",),
        ),
        Row(values(1e-3, **_RANK), "PEFT's example of LoRA with a text-to-text model", ("span",)),
    )

    method: str = field(default="lora", init=False)
    rank: int = flag(16, "rank r of the update B A")
    alpha: int = flag(32, "the update is scaled by alpha / rank")
    dropout: float = flag(0.0, "dropout on the update's input (of XLNet with dora only)")

    def of_linear_layers(self, architecture: Architecture, **options: Any) -> Any:
        """PEFT's configuration for the linear layers of a family, with `options` of its own."""
        from peft import LoraConfig  # takes seconds to import

        return LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=list(architecture.lora_targets),
            fan_in_fan_out=architecture.fan_in_fan_out,
            **options,
        )

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        config = self.of_linear_layers(architecture)
        if architecture.lora_parameters:
            if self.dropout:
                raise UserError(
                    f"--dropout is {self.dropout}; PEFT has no dropout for the attention of "
                    f"{model.config.model_type}, which is not a module; omit --dropout"
                )
            config.target_parameters = list(architecture.lora_parameters)
            # A parameter of (width, heads, head width) has an update for each index of its first axis: of rank 1, or
            # there would be more to train than in the parameter itself.
            config.rank_pattern = dict.fromkeys(architecture.lora_targets, self.rank)
            config.alpha_pattern = dict.fromkeys(architecture.lora_targets, self.alpha)
            config.r, config.lora_alpha = 1, self.alpha / self.rank
        return config
