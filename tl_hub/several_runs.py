"""A recipe that was asked for several runs at once, by `--sweep` or `--seeds`."""

import sys
from collections.abc import Callable

from tl_hub import trials
from tl_hub.seeds import Seeds
from tl_hub.sweep import Sweep


def call(main: Callable[[], None]) -> None:
    """Call a recipe's `main`: once, or for each trial, and then for the chosen one's end.

    Raises:
        UserError, RunStopped: as `trials.run_all`, or as `main`.
    """
    given = {*map(trials.flag_of, sys.argv[1:])}
    asked = [kind for kind in (Sweep, Seeds) if kind.flag in given]
    if asked and "RUN" in main.__globals__:
        trials.run_all(main, asked[0])
    else:
        main()
