"""LoRA's linear layers in training on a CPU: one matrix product for weights and update together.

PEFT computes x W + s (x A) B: three products, of which that with B runs at a sixth of the speed of the first, and two
more passes over the output. Here W + s A B comes first, which costs little where there are many more tokens than
ranks. It is made again in the backward pass, so that no second copy of the weights is kept. A and B get their gradients
as in PEFT. In half precision the sum would lose small updates, so PEFT's own products are left there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D


class _Product(torch.autograd.Function):
    """x (W + s B A)^T + bias, of which x, A and B have gradients. W is (outputs, inputs), A (rank, inputs)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, a, b)
        ctx.scale = scale
        return torch.nn.functional.linear(x, torch.addmm(weight, b, a, alpha=scale), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        gradient, rows = gradients[0].flatten(0, -2), x.flatten(0, -2)
        of_x = None
        if ctx.needs_input_grad[0]:  # the lowest layer reads embeddings, which are frozen
            of_x = (gradient @ torch.addmm(weight, b, a, alpha=ctx.scale)).view_as(x)
        of_a = (gradient @ b).mul_(ctx.scale).T @ rows
        of_b = gradient.T @ (rows @ a.T).mul_(ctx.scale)
        return of_x, None, None, of_a, of_b, None


class _Merged(Linear):
    """PEFT's layer by `_Product`, where that pays: in single precision, of enough tokens."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        (name,) = self.lora_A
        base: Any = self.base_layer
        a: Any = self.lora_A[name].weight
        b: Any = self.lora_B[name].weight
        pays = x[..., 0].numel() * (a.size(1) + b.size(0)) > 2 * a.size(1) * b.size(0)
        if not (pays and self.training) or torch.is_autocast_enabled("cpu") or self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        weight = base.weight.T if isinstance(base, Conv1D) else base.weight
        return _Product.apply(x, weight, base.bias, a, b, self.scaling[name])


def _suits(module: torch.nn.Module) -> bool:
    """Whether a layer is plain LoRA of one adapter, without dropout, on frozen weights that are not shared out."""
    if type(module) is not Linear or len(module.lora_A) != 1 or module.lora_variant:
        return False
    (name,) = module.lora_A
    weight = module.base_layer.weight
    return (
        type(module.base_layer) in (torch.nn.Linear, Conv1D)
        and type(weight) is torch.nn.Parameter
        and not weight.requires_grad
        and isinstance(module.lora_dropout[name], torch.nn.Identity)
        and module.lora_B[name].bias is None
    )


@contextmanager
def fast_products(model: torch.nn.Module) -> Iterator[None]:
    """Within it, the LoRA layers of a model compute as this module says; afterwards they are PEFT's again."""
    found = [module for module in model.modules() if _suits(module)]
    try:
        for module in found:
            module.__class__ = _Merged
        yield
    finally:
        for module in found:
            module.__class__ = Linear
