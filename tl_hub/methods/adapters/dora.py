"""DoRA: the length of each weight column is trained apart from its direction."""

from dataclasses import dataclass, field

from tl_hub.architectures import Architecture
from tl_hub.methods.adapters.lora import Lora
from tl_hub.model_types import Model, PeftConfig


@dataclass(kw_only=True)
class Dora(Lora):
    """LoRA for the direction of each weight column, whose length is trained apart.

    Liu et al. 2024, https://arxiv.org/abs/2402.09353, section 4. Of XLNet, only the feed-forward layers: PEFT has no
    DoRA of what is no module's. transformers' own loader leaves the lengths out, silently.
    """

    name = "dora"
    title = "DoRA"
    paper = ("DoRA: Liu et al. 2024", "https://arxiv.org/abs/2402.09353")
    transformers_loads = False
    published = tuple(row for row in Lora.published if not row.embedded)

    method: str = field(default="dora", init=False)

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        return self.of_linear_layers(architecture, use_dora=True)
