"""Modules that are imported when one of their names is first used.

Importing torch, transformers and datasets takes seconds, and `--help` or a misspelt flag should not wait for it.
`from tl_hub.on_use import torch` in place of `import torch` puts that off. Recipes get `training` and the like from
`tl_hub` in the same way.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import accelerate as accelerate
    import datasets as datasets
    import pyarrow as pyarrow
    import scipy as scipy
    import sklearn as sklearn
    import torch as torch
    import transformers as transformers


class OnUse(ModuleType):
    """Stands for a module: reading, setting or deleting one of its attributes imports it."""

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """The module's own: whoever patches a name for a while looks there for what to put back."""
        return vars(importlib.import_module(self.__name__))

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(importlib.import_module(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(importlib.import_module(self.__name__), name)


def __getattr__(name: str) -> ModuleType:
    if name.startswith("__"):
        raise AttributeError(name)
    return OnUse(name)
