"""Progress of long work: a bar on a terminal or in a notebook, and in a file a line every ten seconds."""

import sys
from typing import Any

from tqdm import tqdm

SECONDS = 10.0
"""Between two lines in a file, and before the first one."""


class _Lines:
    """A stream in which each state of a bar is a line of its own, without what moves a terminal's cursor."""

    def write(self, text: str) -> None:
        line = text.replace("\x1b[A", "").strip("\r\n ")
        if line:
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()


def bar(total: int, desc: str, unit: str, *, initial: int = 0, leave: bool = True, shown: bool = True) -> tqdm:
    """A bar of `tqdm`'s, whose meaning the arguments have; not `shown`, it does nothing."""
    facts: dict[str, Any] = {"total": total, "desc": desc, "unit": unit, "initial": initial, "disable": not shown}
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return tqdm(**facts, leave=leave, dynamic_ncols=True)
    return tqdm(**facts, leave=False, file=_Lines(), mininterval=SECONDS, delay=SECONDS, ncols=80, position=0)
