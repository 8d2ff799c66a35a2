"""Vectors of texts by a frozen model: read, kept on the disk, and the heads and models that are made of them."""

from typing import Literal

from tl_hub.on_use import OnUse

HeadKind = Literal["logistic", "ridge", "prototypes", "mlp"]

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties on the squared weights of a head, as multiples of the number of examples."""


def __getattr__(name: str) -> OnUse:
    if name in ("cache", "extract", "heads", "model"):
        return OnUse(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
