"""Studies whose runs are made in this process: the imports of each one take eight seconds."""

import contextlib
import runpy
import sys

import pytest
from accelerate.state import AcceleratorState

from tl_hub.study import runs


@pytest.fixture
def command(script_here):
    """`tl-hub` in this process."""
    return lambda *arguments: script_here("tl_hub/command.py", *arguments)


@pytest.fixture
def begun(monkeypatch, load_back_here):
    """The command lines of the runs that studies begin, which run in this process."""
    found = []

    def run(words, out):
        AcceleratorState._reset_state(reset_partial_state=True)
        found.append(words)
        with monkeypatch.context() as within, contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
            within.setattr(sys, "argv", [*words])
            runpy.run_path(words[0], run_name="__main__")
        return int(end.value.code or 0)

    monkeypatch.setattr(runs, "in_a_process", run)
    return found
