"""LoRA's linear layers in training on a CPU: one matrix product for weights and update together.

PEFT computes x W + s (x A) B: three products, of which those with A and B run at a fraction of the speed of the first,
and two more passes over the output. Here W + s A B comes first, which costs little where there are many more tokens
than ranks. It is made again in the backward pass, so that no second copy of the weights is kept. A and B get their
gradients as in PEFT.

Where Accelerate computes in bf16, the sum is made in float32 and rounded as autocast rounds W, so that an update too
small for bf16 is lost for no weight for good: fine-tuning in bf16 rounds its weights in every step in the same way.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import Linear
from transformers.pytorch_utils import Conv1D


class _Product(torch.autograd.Function):
    """x (W + s B A)^T + bias, of which x, A and B have gradients. W is (outputs, inputs), A (rank, inputs).

    The products are in `dtype`, the sum of the weights is as exact as they are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scale: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        rows = x.to(dtype)
        ctx.save_for_backward(rows, weight, a, b)
        ctx.scale, ctx.of_x = scale, x.dtype
        with torch.autocast("cpu", enabled=False):
            merged = torch.addmm(weight, b, a, alpha=scale).to(dtype)
            return torch.nn.functional.linear(rows, merged, None if bias is None else bias.to(dtype))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, a, b = ctx.saved_tensors
        gradient, rows = gradients[0].flatten(0, -2), x.flatten(0, -2)
        of_x = None
        if ctx.needs_input_grad[0]:  # the lowest layer reads embeddings, which are frozen
            merged = torch.addmm(weight, b, a, alpha=ctx.scale).to(x.dtype)
            of_x = (gradient @ merged).view_as(x).to(ctx.of_x)
        # (rank, tokens) in one piece: read across, the products with it take up to twice as long.
        below, above = (rows @ a.to(x.dtype).T).T.contiguous(), (gradient @ b.to(x.dtype)).T.contiguous()
        of_a = (above @ rows).to(a.dtype).mul_(ctx.scale)
        of_b = (below @ gradient).to(b.dtype).mul_(ctx.scale).T
        return of_x, None, None, of_a, of_b, None, None


class _Merged(Linear):
    """PEFT's layer by `_Product`, where that pays: of enough tokens."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        (name,) = self.lora_A
        base: Any = self.base_layer
        a: Any = self.lora_A[name].weight
        b: Any = self.lora_B[name].weight
        pays = x[..., 0].numel() * (a.size(1) + b.size(0)) > 2 * a.size(1) * b.size(0)
        if not (pays and self.training) or self.disable_adapters or self.merged:
            return super().forward(x, *args, **kwargs)
        weight = base.weight.T if isinstance(base, Conv1D) else base.weight
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        return _Product.apply(x, weight, base.bias, a, b, self.scaling[name], dtype)


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
