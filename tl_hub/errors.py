"""The two ways a run ends early on purpose; both are shown as one line, never as a traceback."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class UserError(Exception):
    """A mistake the user can mend: says what was given, what is allowed and the fix. Exit code 2."""


class Blank(UserError):
    """None of some rows has what the task reads."""


def all_at_once(*checks: Callable[[], Any]) -> None:
    """Make all checks, so that somebody whose input lacks several things hears of them in one message.

    Raises:
        UserError: what each of the checks that failed says.
    """
    said = []
    for check in checks:
        try:
            check()
        except UserError as error:
            said.append(str(error))
    if said[1:]:
        listed = "; ".join(f"({i}) {text}" for i, text in enumerate(said, start=1))
        raise UserError(f"{len(said)} things are missing or wrong: {listed}")
    if said:
        raise UserError(said[0])


class RunStopped(Exception):
    """A run ended early though its input was fine: interrupted, diverged, or not the same when loaded back.

    Attributes:
        exit_code: 130 for an interrupt, 0 where no more was asked for (`--check`), otherwise 1.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Diverged(RunStopped):
    """The loss or a gradient was not finite in too many steps in a row."""


class TrialEnded(RunStopped):
    """A trial of a `--sweep` has been trained, or a run of `--seeds` measured, and no more was asked of it.

    Attributes:
        facts: `metric` of the validation rows, its `figure`, whether `higher` is better, and the `epoch`.
    """

    def __init__(self, facts: dict[str, Any]):
        super().__init__(f"trained: {facts['metric']} {facts['figure']:.4g}", exit_code=0)
        self.facts = facts


class Checked(RunStopped):
    """`--check` asked for no more.

    Attributes:
        facts: what the message says, by name, in plain values: counts, seconds, bytes.
    """

    def __init__(self, message: str, facts: dict[str, Any]):
        super().__init__(message, exit_code=0)
        self.facts = facts


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """The end of a message: the one of `names` that `word` may stand for, which it is nearly; nothing if none is."""
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(word.casefold(), folded, n=1)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. On a CPU, torch has no class of its own for that."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)
    )


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 300 characters, or the name of its class if it says nothing.

    A line that ends with a colon announces the next one, which follows.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])[:300]
