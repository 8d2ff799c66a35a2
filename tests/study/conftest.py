"""Studies, in this process."""

import pytest


@pytest.fixture
def command(script_here):
    """`tl-hub` in this process."""
    return lambda *arguments: script_here("tl_hub/command.py", *arguments)
