"""The two ways a run ends early on purpose; both are shown as one line, never as a traceback."""

from typing import Any


class UserError(Exception):
    """A mistake the user can mend: says what was given, what is allowed and the fix. Exit code 2."""


class RunStopped(Exception):
    """A run ended early though its input was fine: interrupted, diverged, or not the same when loaded back.

    Attributes:
        exit_code: 130 for an interrupt, 0 where no more was asked for (`--check`), otherwise 1.
    """

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class Checked(RunStopped):
    """`--check` asked for no more.

    Attributes:
        facts: what the message says, by name, in plain values: counts, seconds, bytes.
    """

    def __init__(self, message: str, facts: dict[str, Any]):
        super().__init__(message, exit_code=0)
        self.facts = facts


def first_line(error: BaseException) -> str:
    """The first line of what an error says, at most 300 characters, or the name of its class if it says nothing.

    A line that ends with a colon announces the next one, which follows.
    """
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])[:300]
