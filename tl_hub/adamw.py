"""AdamW (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101) and how its learning rate goes."""

import math
from typing import Any

import torch

from tl_hub.config import RunConfig


def optimizer(model: torch.nn.Module, run: RunConfig) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups(model, run.weight_decay), lr=run.learning_rate, fused=True)


def groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: biases and norms are not decayed.

    A parameter that a method gave an attribute `rate` learns at that multiple of the learning rate, one whose attribute
    `decayed` is False is not decayed either, and one with `from_epoch` learns from that epoch on, counted from 0.
    """
    trained: dict[tuple[float, int], tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            # Some biases of XLNet and T5 have two dimensions.
            matrix = p.ndim > 1 and "bias" not in name and getattr(p, "decayed", True)
            key = getattr(p, "rate", 1.0), getattr(p, "from_epoch", 0)
            trained.setdefault(key, ([], []))[0 if matrix else 1].append(p)
    found = []
    for (rate, from_epoch), (matrices, others) in trained.items():
        common = {"rate": rate, "from_epoch": from_epoch}
        found.append({"params": matrices, "weight_decay": weight_decay, **common})
        found.append({"params": others, "weight_decay": 0.0, **common})
    return found


def share_of_rate(step: int, steps: float, run: RunConfig) -> float:
    """Share of the peak rate at `step` (from 0): a linear rise over the warm-up, then the schedule down to 0.

    The linear one is the slanted triangle of Howard and Ruder (2018, https://arxiv.org/abs/1801.06146, section 3.2),
    which ends at a thirty-second of the peak.
    """
    warm = int(run.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    left = (steps - step) / max(1, steps - warm)
    return {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}[run.schedule]
