"""Training whose weights, gradients and moments the processes share out, by Accelerate's FSDP2.

Zhao et al. 2023, https://arxiv.org/abs/2304.11277. What is trained is a copy of the model; the model itself stays whole
in the memory of each process, gets the weights when they are measured or saved, and knows nothing of all this.
"""

import copy
import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import AutocastKwargs, DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor

from tl_hub.architectures import ARCHITECTURES


def used(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.FSDP


def turn_on(accelerator: Accelerator) -> None:
    """Let the processes share out what they train, if that was asked for.

    On CPUs, where Accelerate leaves weights whole, it is turned on here. Mixed precision stays autocast, as without
    FSDP: bf16 weights, which FSDP would compute with, train otherwise.
    """
    state = accelerator.state
    asked = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and state.distributed_type != DistributedType.NO
    if asked and "fsdp_plugin" not in vars(state):
        state.distributed_type, state.fsdp_plugin = DistributedType.FSDP, FullyShardedDataParallelPlugin()
        PartialState().distributed_type = state.distributed_type  # of which the other one is made anew
    if used(accelerator):
        state.fsdp_plugin.mixed_precision_policy = None


def copy_to_train(model: Any, accelerator: Accelerator) -> Any:
    """What `accelerator.prepare` may share out, layer by layer, in place of the model; the model itself, if whole."""
    if not used(accelerator):
        return model
    trained = copy.deepcopy(model)
    for own, copied in zip(model.parameters(), trained.parameters(), strict=True):
        vars(copied).update(vars(own))  # `rate` and its like, which a deep copy leaves out
    layer = re.compile(f"(?:{ARCHITECTURES[model.config.model_type].layers})$")
    plugin = accelerator.state.fsdp_plugin
    plugin.auto_wrap_policy = transformer_auto_wrap_policy
    plugin.transformer_cls_names_to_wrap = sorted(
        {type(module).__name__ for name, module in trained.named_modules() if layer.search(name)}
    )
    return trained


class _Root(torch.nn.Module):
    """What holds a model is no model: Accelerate would group the embeddings of one, which T5 has in two places."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return self.model(**inputs)


def root(objective: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """The objective as `accelerator.prepare` takes it."""
    return _Root(objective) if used(accelerator) else objective


def held(objective: torch.nn.Module) -> int | None:
    """How many parameters this process has; None if all."""
    shares = [parameter.to_local() for parameter in objective.parameters() if isinstance(parameter, DTensor)]
    return sum(share.numel() for share in shares) if shares else None


def computing(accelerator: Accelerator) -> AbstractContextManager[Any]:
    """Autocast around a forward pass, where Accelerate puts none; its cache would keep all that was gathered."""
    if not used(accelerator):
        return nullcontext()
    return accelerator.autocast(autocast_handler=AutocastKwargs(cache_enabled=False))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole of a tensor, on the CPU if it was shared out. All processes have to ask for it."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor


def share(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This process's share of a tensor that it has the whole of, if `like` is shared out; nothing is sent."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


@torch.no_grad()
def gather(trained: Any, model: Any) -> None:
    """Give the model the weights of the copy that is trained."""
    if trained is not model:
        for to, parameter in zip(model.parameters(), trained.parameters(), strict=True):
            if parameter.requires_grad:
                to.copy_(whole(parameter.detach()))
