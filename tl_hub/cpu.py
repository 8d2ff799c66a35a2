"""Training speed on a CPU: memory that is kept, dropout whose random numbers cost little, attention that suits bf16.

None of this changes what is computed but for the rounding of dropout's probability to 1/256, and none of it is part
of the model that is saved.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from tl_hub.architectures import ARCHITECTURES
from tl_hub.model_types import Model

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_IDLE = 0.5
"""Processes that wait for a core, on average over a minute: with fewer, nobody needs to look at what is busy."""


def cores() -> int:
    """How many cores this process may use. Only Linux tells which of the machine's they are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share() -> int:
    """How many of the cores are this process's, where several train together."""
    return max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def idle_share() -> int:
    """How many of `share()` no other program keeps busy, at least 1.

    Threads wait for each other at every matrix product. One that has to share its core with another program holds up
    all the others: training on two cores of which one was busy ran at a quarter of its speed, and at two thirds with
    one thread.
    """
    if share() == 1 or share() < cores() or os.getloadavg()[0] < _IDLE:
        return share()
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(cores())
    busy = psutil.cpu_percent(interval=0.25, percpu=True)
    return max(1, cores() - round(sum(busy[core] for core in usable) / 100))


def keep_memory() -> None:
    """Let glibc keep freed memory: each step's activations otherwise come as fresh pages, which cost system time."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_MAX, 0)
            libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Dropout with p rounded to a multiple of 1/256: one random byte an element, drawn eight at a time.

    `torch.nn.functional.dropout` draws one random number an element on a single thread, a third of a training step.
    The expectation of the result is exactly `x`.
    """
    drop = round(256 * p)
    if drop == 0:
        return x
    words = torch.empty((x.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= drop
    return x * kept.to(x.dtype).mul_(256 / max(1, 256 - drop))  # with p = 1 nothing is kept


class Dropout(torch.nn.Dropout):
    """`torch.nn.Dropout` by `dropout` above."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return dropout(input, self.p) if self.training and self.p else input


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention (Vaswani et al. 2017, equation 1) in plain matrix products.

    On a CPU their backward pass is faster than the fused kernel's, and dropout can be the one above.

    Args:
        query, key, value: (batch, heads, length, head size).
        attention_mask: additive, broadcastable to (batch, heads, length, length).
        position_bias: T5's, the same.

    Returns:
        Output (batch, length, heads, head size) and weights (batch, heads, length, length).
    """
    scores = torch.matmul(query * (scaling or query.size(-1) ** -0.5), key.transpose(2, 3))
    # Added in float32, either would turn bf16 scores, and all that follows from them, into float32.
    if position_bias is not None:
        scores = scores + position_bias.to(scores.dtype)
    if attention_mask is not None:
        scores = scores + attention_mask.to(scores.dtype).clamp(min=torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1)
    if dropout and module.training:
        weights = _dropout(weights, dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


_dropout = dropout
_ATTENTION = "tl_hub_cpu"


@contextmanager
def faster_training(model: Model) -> Iterator[None]:
    """Within it, the model's dropout and attention are those above; afterwards they are its own again."""
    dropouts = [module for module in model.modules() if type(module) is torch.nn.Dropout]
    own = model.config._attn_implementation
    replaceable = ARCHITECTURES[model.config.model_type].plain_attention
    AttentionInterface.register(_ATTENTION, attention)
    AttentionMaskInterface.register(_ATTENTION, eager_mask)
    try:
        for module in dropouts:
            module.__class__ = Dropout
        if replaceable:
            model.set_attn_implementation(_ATTENTION)
        yield
    finally:
        for module in dropouts:
            module.__class__ = torch.nn.Dropout
        if replaceable:
            model.set_attn_implementation(own)
