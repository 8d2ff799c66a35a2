"""Bottleneck adapters: small layers after those of the model."""

from dataclasses import dataclass, field
from typing import Literal

from tl_hub.architectures import Architecture
from tl_hub.config import flag
from tl_hub.methods.adapters.base import Adapter, any_of
from tl_hub.model_types import Model, PeftConfig
from tl_hub.published_settings import Row, values


@dataclass(kw_only=True)
class Bottleneck(Adapter):
    """Small layers after attention and feed-forward, or after feed-forward only.

    Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, section 2.1; Pfeiffer et al. 2021,
    https://arxiv.org/abs/2005.00247. PEFT has no such method; `peft_bottleneck` adds it.
    """

    name = title = "bottleneck adapters"
    paper = ("Bottleneck adapters: Houlsby et al. 2019", "https://arxiv.org/abs/1902.00751")
    snippet_import = "import tl_hub  # tells PEFT of the method"
    published = (
        Row(
            values(3e-4),
            "Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, section 3: 3e-5 to 3e-3, 3 or 20 epochs",
        ),
    )

    method: str = field(default="bottleneck", init=False)
    width: int = flag(64, "width of the small layers")
    placement: Literal["houlsby", "pfeiffer"] = flag(
        "houlsby", "after attention and feed-forward (houlsby), or after feed-forward only (pfeiffer)"
    )

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        from tl_hub.methods.adapters.peft_bottleneck import BottleneckConfig  # imports peft, which takes seconds

        after_attention = architecture.attention_output if self.placement == "houlsby" else None
        return BottleneckConfig(
            width=self.width, target_modules=any_of(after_attention, architecture.feed_forward_output)
        )
