"""VeRA: trained vectors scale random matrices that all layers share."""

from dataclasses import dataclass, field

from tl_hub.architectures import Architecture
from tl_hub.config import flag
from tl_hub.methods.adapters.base import Adapter, rate_factor
from tl_hub.model_types import Model, PeftConfig
from tl_hub.published_settings import Row, values


@dataclass(kw_only=True)
class Vera(Adapter):
    """Updates of all linear layers by one pair of random matrices, of which each layer scales the rows.

    Kopiczko et al. 2024, https://arxiv.org/abs/2310.11454, section 3. The matrices are as wide as the widest layer;
    narrower ones take the first rows and columns. They are saved with the vectors: a seed would give them again, but
    no release or device of PyTorch promises the same numbers. Of XLNet, only the feed-forward layers: PEFT has no VeRA
    of what is no module's. transformers' own loader refuses it.
    """

    name = "vera"
    title = "VeRA"
    paper = ("VeRA: Kopiczko et al. 2024", "https://arxiv.org/abs/2310.11454")
    mergeable = True
    transformers_loads = False
    # The rate is that of the head. Small models want more, larger ones were not measured (docs/results/public.md).
    published = (
        Row(values(1e-3, warmup=0.06, rate_factor=100.0), "measured with SST-2: 1e-1", ("masked",), 60),
        Row(values(1e-3, warmup=0.06, rate_factor=20.0), "PEFT's example of VeRA: 2e-2"),
    )

    method: str = field(default="vera", init=False)
    rank: int = flag(256, "rank of the random matrices, which all layers share")
    rate_factor: float = rate_factor(10.0)

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        from peft import VeraConfig  # takes seconds to import

        return VeraConfig(
            r=self.rank,
            target_modules=list(architecture.lora_targets),
            fan_in_fan_out=architecture.fan_in_fan_out,
            save_projection=True,
        )
