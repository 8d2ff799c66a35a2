"""Transfer-learning recipes for BERT, GPT-2, T5 and XLNet, with model cards and checks that the results load."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tl_hub.after_import import after_import

try:
    __version__ = version("tl_hub")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

__all__ = ["FeatureClassifier", "FeatureModel", "RunFolder", "RunFolderCallback", "pipeline", "publish", "verify"]

# So that PEFT can load what this package adds to its methods.
after_import("peft", "tl_hub.methods.adapters.peft_bottleneck")


def __getattr__(name: str) -> Any:
    # torch and transformers take seconds to import, and cards and records need neither.
    if name == "pipeline":
        from tl_hub.inference import pipeline

        return pipeline
    if name == "publish":
        from tl_hub.publishing import publish

        return publish
    if name == "verify":
        from tl_hub.verifying import verify

        return verify
    if name == "FeatureModel":
        from tl_hub.vectors.model import FeatureModel

        return FeatureModel
    if name == "FeatureClassifier":
        from tl_hub.methods.estimator import FeatureClassifier

        return FeatureClassifier
    if name in ("RunFolder", "RunFolderCallback"):
        from tl_hub import loops

        return getattr(loops, name)
    raise AttributeError(f"module 'tl_hub' has no attribute {name!r}")
