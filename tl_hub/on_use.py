"""Modules that are imported when one of their names is first used.

Importing torch, transformers and datasets takes seconds, and `--help` or a misspelt flag should not wait for it.
`from tl_hub.on_use import torch` in place of `import torch` puts that off. Recipes get `training` and the like from
`tl_hub` in the same way.

Importing them makes a million objects, none of which is garbage. Python's collector would look through them again and
again, half a second each time, so it rests meanwhile, and a program sets them aside for good.
"""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


_set_aside = False
"""Whether the collector forgets what was imported. It forgets all else with it, so this is for programs of ours alone:
in a notebook, a model that was dropped before would keep its memory."""


def set_imports_aside() -> None:
    """From now on, what was imported is set aside: called by programs as they start."""
    global _set_aside
    _set_aside = True


@contextmanager
def importing() -> Iterator[None]:
    """Within it, no garbage is collected."""
    collects, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if collects:
            if _set_aside and len(sys.modules) > modules:
                gc.freeze()
            gc.enable()


class OnUse(ModuleType):
    """Stands for a module: reading, setting or deleting one of its attributes imports it."""

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        """The module's own: whoever patches a name for a while looks there for what to put back."""
        return vars(importlib.import_module(self.__name__))

    def __getattr__(self, name: str) -> Any:
        with importing():  # transformers imports on use in its turn
            return getattr(importlib.import_module(self.__name__), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(importlib.import_module(self.__name__), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(importlib.import_module(self.__name__), name)


def __getattr__(name: str) -> ModuleType:
    if name.startswith("__"):
        raise AttributeError(name)
    return OnUse(name)
