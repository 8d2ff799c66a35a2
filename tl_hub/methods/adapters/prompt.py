"""Prompt tuning: trained embeddings stand before the input."""

from dataclasses import dataclass, field

from tl_hub.architectures import Architecture
from tl_hub.methods.adapters.base import rate_factor
from tl_hub.methods.adapters.virtual_tokens import VirtualTokens
from tl_hub.model_types import Model, PeftConfig
from tl_hub.published_settings import Row, values


@dataclass(kw_only=True)
class Prompt(VirtualTokens):
    """Embeddings before the input (Lester et al. 2021, https://arxiv.org/abs/2104.08691, section 2)."""

    name = title = "prompt tuning"
    paper = ("Prompt tuning: Lester et al. 2021", "https://arxiv.org/abs/2104.08691")
    # The rate is that of the head.
    published = (Row(values(1e-3), "PEFT's example of prompt tuning: 3e-2"),)

    method: str = field(default="prompt", init=False)
    rate_factor: float = rate_factor(30.0)

    @staticmethod
    def tasks(architecture: Architecture) -> dict[str, str]:
        return architecture.prompt_tasks

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        from peft import PromptTuningConfig  # takes seconds to import

        return PromptTuningConfig(**self.arguments(model, architecture))
