"""IA3: factors for what attention and feed-forward layers compute."""

from dataclasses import dataclass, field

from tl_hub.architectures import Architecture
from tl_hub.methods.adapters.base import Adapter, any_of, rate_factor
from tl_hub.model_types import Model, PeftConfig
from tl_hub.published_settings import Row, values


@dataclass(kw_only=True)
class Ia3(Adapter):
    """Factors for keys, values and the inner feed-forward states.

    Liu et al. 2022, https://arxiv.org/abs/2205.05638, section 3.3. GPT-2's queries, which share a projection with
    keys and values, have factors too; of XLNet, whose attention is no module, only the feed-forward states have.
    """

    name = "ia3"
    title = "IA3"
    paper = ("IA3: Liu et al. 2022", "https://arxiv.org/abs/2205.05638")
    mergeable = True
    decayed = False  # the neutral value of a factor is 1
    # The rate is that of the head.
    published = (Row(values(3e-4, warmup=0.06), "Liu et al. 2022, https://arxiv.org/abs/2205.05638: 3e-3"),)

    method: str = field(default="ia3", init=False)
    rate_factor: float = rate_factor(10.0)

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        from peft import IA3Config  # takes seconds to import

        return IA3Config(
            target_modules=any_of(architecture.keys_and_values, architecture.feed_forward_output),
            feedforward_modules=any_of(architecture.feed_forward_output),
            fan_in_fan_out=architecture.fan_in_fan_out,
        )
