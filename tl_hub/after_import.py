"""Run a module of ours as soon as a library is there, without importing the library for it."""

import importlib
import importlib.abc
import sys
from importlib.machinery import ModuleSpec
from typing import Any


def after_import(library: str, ours: str) -> None:
    """Import the module `ours` at the end of the first import of `library`, or at once if that has been."""
    if sys.modules.get(library):
        importlib.import_module(ours)
    else:
        sys.meta_path.insert(0, _Finder(library, ours))


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `library` as the other finders do, with a loader that goes on with `ours`."""

    def __init__(self, library: str, ours: str):
        self.library, self.ours = library, ours

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != self.library:
            return None
        found = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, found), None)
        if spec and spec.loader:  # it may only be asked whether there is one
            execute = spec.loader.exec_module

            def exec_module(module: Any) -> None:
                execute(module)
                importlib.import_module(self.ours)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
