"""What the package offers, against the modules it is in."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tl_hub
from tl_hub import publishing, row_predictions
from tl_hub.on_use import OnUse


def test_what_is_offered_is_there_and_listed_without_importing_torch() -> None:
    program = "import sys, tl_hub; print(*dir(tl_hub)); sys.exit('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(tl_hub.__all__) <= set(found.stdout.split())
    for module in (tl_hub, publishing):
        for name in module.__all__:
            assert getattr(module, name).__name__ == name


def test_a_name_of_a_module_that_waits_for_its_use_is_patched_and_put_back():
    """pytest looks into `__dict__` for what was there, and deleted the name for all tests that came after."""
    waiting, own = OnUse("tl_hub.row_predictions"), row_predictions.write
    with pytest.MonkeyPatch.context() as within:
        within.setattr(waiting, "write", None)
        assert row_predictions.write is None
    assert row_predictions.write is own is waiting.write and vars(waiting) is vars(row_predictions)


def test_garbage_is_not_collected_while_a_module_is_imported_and_programs_set_aside_what_was(tmp_path):
    """In a notebook nothing may be set aside, or a model that was dropped before would keep its memory."""
    (tmp_path / "heavy.py").write_text("import gc\ncollects = gc.isenabled()\n")
    program = """
import gc
from tl_hub import on_use
if {program}: on_use.set_imports_aside()
{collector}
heavy = on_use.OnUse("heavy")
print(heavy.collects, gc.isenabled(), gc.get_freeze_count() > 1000)
"""
    found = [
        subprocess.run(
            [sys.executable, "-c", program.format(program=program_of_ours, collector=collector)],
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(tl_hub.__file__).parents[1]}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for program_of_ours in (True, False)
        for collector in ("gc.enable()", "gc.disable()")
    ]
    assert found == [
        ["False", "True", "True"],
        ["False", "False", "False"],
        ["False", "True", "False"],
        ["False", "False", "False"],
    ]
