"""The line that started a run, as a shell takes it, for a record that is published."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
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
_STARTED_WITH = tuple(sys.argv)
"""`sys.argv` before `replace_arguments`."""
_recorded: Sequence[str] | None = None


def replace_arguments(words: Sequence[str]) -> None:
    """Put what a file of settings says in its place, so that the command on record stands for itself."""
    sys.argv[1:] = words


@contextmanager
def recorded_as(words: Sequence[str]) -> Iterator[None]:
    """Within it, these are the arguments on record: those that a person gave, of which the ones of a run were made."""
    global _recorded
    _recorded = words
    try:
        yield
    finally:
        _recorded = None


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
    given = sys.argv[1:] if _recorded is None else _recorded
    return shlex.join([*words, shown or f"{script.parent.name}/{script.name}", *map(_without_folders, given)])


def processes_asked() -> int:
    """How many processes the flags of accelerate launch ask for; 1 where they say nothing or something else started us.

    On a CPU, accelerate starts one whatever they say.
    """
    launcher = next(filter(None, map(_launcher, _ancestors())), [])
    words = [part for word in launcher for part in word.split("=", 1)]
    counts = [count for flag, count in pairwise(words) if flag in ("--num_processes", "--num-processes")]
    return int(counts[-1]) if counts and counts[-1].isdigit() else 1


def _ancestors() -> list[list[str]]:
    """Command lines of the processes that this one came from, the nearest first, as far as they may be read."""
    try:
        return [parent.cmdline() for parent in psutil.Process().parents()]
    except psutil.Error:
        return []


def _launcher(words: Sequence[str]) -> list[str] | None:
    """Name and flags of the launcher in a command line that starts this script with these arguments."""
    script, *given = _STARTED_WITH
    end = len(words) - len(given) - 1  # where the script stands
    if end < 1 or list(words[end + 1 :]) != given or Path(words[end]).name != Path(script).name:
        return None
    names = [Path(word).name for word in words[:3]]
    for start in range(len(names)):
        for form, name in _LAUNCHERS.items():
            if tuple(names[start : start + len(form)]) == form:
                return [*name.split(), *map(_without_folders, words[start + len(form) : end])]
    return None


def _without_folders(word: str) -> str:
    flag, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if os.sep not in value:
        return word
    # Several places may stand in a word, each with its name before it and settings behind it.
    parts = [value] if Path(value).exists() else re.split(r"([,= ])", value)
    return flag + equals + "".join(Path(part).name if _is_local(part) else part for part in parts)


def _is_local(text: str) -> bool:
    return os.sep in text and (Path(text).exists() or Path(text).is_absolute())
