"""The line that started a run, as a shell takes it, for a record that is published."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

_LAUNCHERS = {
    ("accelerate", "launch"): "accelerate launch",
    ("accelerate-launch",): "accelerate launch",
    ("-m", "accelerate.commands.launch"): "accelerate launch",
    ("torchrun",): "torchrun",
    ("-m", "torch.distributed.run"): "torchrun",
}
"""How a command line begins that starts the script in processes of its own, and what it is called."""


def command_line() -> str | None:
    """The command of this process: launcher, its flags, script and arguments. None in a notebook, which has none.

    Of a local path only the last part is kept, of the script also its folder.
    """
    script = Path(sys.argv[0])
    if script.name == "ipykernel_launcher.py":
        return None
    launcher = next(filter(None, map(_launcher, _ancestors())), None)
    # torchrun passes nothing on to accelerate, which reads its settings from variables then.
    variables = [
        f"{name}={_without_folders(value)}"
        for name, value in sorted(os.environ.items())
        if name.startswith("ACCELERATE_")
    ]
    words = [*(variables if launcher and launcher[0] == "torchrun" else []), *(launcher or ["python"])]
    shown = script.as_posix() if not script.is_absolute() and ".." not in script.parts else ""
    return shlex.join([*words, shown or f"{script.parent.name}/{script.name}", *map(_without_folders, sys.argv[1:])])


def _ancestors() -> list[list[str]]:
    """Command lines of the processes that this one came from, the nearest first, as far as they may be read."""
    try:
        return [parent.cmdline() for parent in psutil.Process().parents()]
    except psutil.Error:
        return []


def _launcher(words: Sequence[str]) -> list[str] | None:
    """Name and flags of the launcher in a command line that starts this script with these arguments."""
    given = sys.argv[1:]
    end = len(words) - len(given) - 1  # where the script stands
    if end < 1 or list(words[end + 1 :]) != given or Path(words[end]).name != Path(sys.argv[0]).name:
        return None
    names = [Path(word).name for word in words[:3]]
    for start in range(len(names)):
        for form, name in _LAUNCHERS.items():
            if tuple(names[start : start + len(form)]) == form:
                return [*name.split(), *map(_without_folders, words[start + len(form) : end])]
    return None


def _without_folders(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    local = os.sep in value and (path.exists() or path.is_absolute())
    return flag + equals + (path.name if local else value)
