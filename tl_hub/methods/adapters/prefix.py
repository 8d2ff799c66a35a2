"""Prefix tuning: trained keys and values stand before those of the input, in each layer."""

from dataclasses import dataclass, field

from tl_hub.architectures import Architecture
from tl_hub.methods.adapters.base import rate_factor
from tl_hub.methods.adapters.virtual_tokens import VirtualTokens
from tl_hub.model_types import Model, PeftConfig
from tl_hub.published_settings import Row, values


@dataclass(kw_only=True)
class Prefix(VirtualTokens):
    """Keys and values before those of the input, in each layer.

    Li and Liang 2021, https://arxiv.org/abs/2101.00190, section 4; without the reparametrization of section 4.3.
    """

    name = title = "prefix tuning"
    paper = ("Prefix tuning: Li and Liang 2021", "https://arxiv.org/abs/2101.00190")
    # The rate is that of the head.
    published = (Row(values(1e-3), "PEFT's example of prefix tuning: 1e-2"),)

    method: str = field(default="prefix", init=False)
    rate_factor: float = rate_factor(10.0)

    @staticmethod
    def tasks(architecture: Architecture) -> dict[str, str]:
        return architecture.prefix_tasks

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        from peft import PrefixTuningConfig  # takes seconds to import

        return PrefixTuningConfig(**self.arguments(model, architecture))
