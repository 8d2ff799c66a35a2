"""Transfer-learning recipes for BERT, GPT-2, T5, XLNet and their relatives, with cards and checks that results load."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tl_hub.after_import import after_import
from tl_hub.on_use import OnUse

try:
    __version__ = version("tl_hub")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

_PUBLIC = {
    "FeatureClassifier": "tl_hub.methods.estimator",
    "FeatureModel": "tl_hub.vectors.model",
    "RunFolder": "tl_hub.loops",
    "RunFolderCallback": "tl_hub.loops",
    "pipeline": "tl_hub.inference",
    "publish": "tl_hub.publishing",
    "train": "tl_hub.from_python",
    "verify": "tl_hub.verifying",
}
"""What the package offers -> the module it is in: torch and transformers take seconds to import, so it waits for that.

Beside it, recipes use `cli`, `config`, `launch`, `data`, `base_model`, `published_settings`, `experiment`, `training`,
`finish`, and the settings of `tasks` and `methods`. The rest may change from one version to the next.
"""
__all__ = [*_PUBLIC]

_STAGES = (
    "base_model", "cpu", "data", "estimate", "finish", "launch", "overview", "sharding", "training", "training_state"
)  # fmt: skip
"""Modules that torch or datasets are imported with, and that recipes and methods use once the flags are read."""

after_import("peft", "tl_hub.methods.adapters.peft_bottleneck")


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _STAGES:
        return OnUse(f"tl_hub.{name}")
    raise AttributeError(f"module 'tl_hub' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
