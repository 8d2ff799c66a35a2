"""Transfer-learning recipes for BERT, GPT-2, T5 and XLNet, with model cards and checks that the results load."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("tl_hub")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

__all__ = ["pipeline"]


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import, and cards and records need neither.
    if name == "pipeline":
        from tl_hub.inference import pipeline

        return pipeline
    raise AttributeError(f"module 'tl_hub' has no attribute {name!r}")
