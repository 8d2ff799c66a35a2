"""Bottleneck adapters as a PEFT method. Importing this module registers it, as `import tl_hub` does for PEFT."""

import enum
from dataclasses import dataclass, field
from typing import Any

import peft
import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

_NOT_LINEAR = "bottleneck adapters are not linear, so they cannot be merged into the weights"


class BottleneckType(enum.StrEnum):
    """A second peft.PeftType, as an enumeration cannot be extended. PEFT looks types up by their text."""

    BOTTLENECK = "BOTTLENECK"


@dataclass
class BottleneckConfig(PeftConfig):
    """Settings of bottleneck adapters; the fields that PEFT's other methods share mean the same here.

    Attributes:
        width: of the bottleneck.
    """

    width: int = field(default=64)
    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type: Any = BottleneckType.BOTTLENECK


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A module whose output h, (..., hidden_size), becomes h + U gelu(D h + d) + u.

    U and u start at zero, so that a new adapter changes nothing (Houlsby et al. 2019,
    https://arxiv.org/abs/1902.00751, section 2.1).
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    cast_input_dtype_enabled = True  # what peft.helpers.disable_input_dtype_casting switches off

    def __init__(self, base_layer: nn.Module):
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()

    def add(self, adapter_name: str, hidden_size: int, config: BottleneckConfig, device: torch.device) -> None:
        self.bottleneck_down[adapter_name] = nn.Linear(hidden_size, config.width, device=device)
        self.bottleneck_up[adapter_name] = up = nn.Linear(config.width, hidden_size, device=device)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        hidden = self.base_layer(*args, **kwargs)
        # XLNet's attention has one dropout for its output, (query, batch, width), and for its probabilities, (batch,
        # heads, query, key). Only the output is adapted.
        if self.disable_adapters or (isinstance(self.base_layer, nn.Dropout) and hidden.ndim == 4):
            return hidden
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                down: Any = self.bottleneck_down[name]
                up = self.bottleneck_up[name]
                inner = nn.functional.gelu(down(self._cast_input_dtype(hidden, down.weight.dtype)))
                hidden = hidden + up(inner).to(hidden.dtype)
        return hidden

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        raise NotImplementedError(_NOT_LINEAR)


class BottleneckModel(BaseTuner):
    """A model with a bottleneck adapter behind each of its target modules."""

    prefix = "bottleneck_"
    tuner_layer_cls = BottleneckLayer
    target_module_mapping: dict[str, list[str]] = {}

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        layer = target if isinstance(target, BottleneckLayer) else BottleneckLayer(target)
        device = next(parent.parameters()).device  # the target itself may be a dropout, which has none
        layer.add(adapter_name, self.model.config.hidden_size, peft_config, device)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        raise NotImplementedError(_NOT_LINEAR)


# peft.utils.register_peft_method does just this, but only for members of PeftType.
_TYPE: Any = BottleneckType.BOTTLENECK
peft.PEFT_TYPE_TO_CONFIG_MAPPING[_TYPE] = BottleneckConfig
peft.PEFT_TYPE_TO_TUNER_MAPPING[_TYPE] = BottleneckModel
PEFT_TYPE_TO_PREFIX_MAPPING[_TYPE] = BottleneckModel.prefix
