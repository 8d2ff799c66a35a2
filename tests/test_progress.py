"""What a bar leaves in a file, against a terminal's."""

import io
import sys

import pytest

from tl_hub import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_file_gets_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    with progress.bar(3, "training", "step", initial=1) as outer:
        outer.set_postfix_str("loss 0.500", refresh=False)
        with progress.bar(2, "evaluating", "batch", leave=False) as inner:
            inner.update()
        outer.write("epoch 1 of 2", file=file)
        outer.update()
    shown = file.getvalue()
    assert "\r" not in shown and "\x1b" not in shown and shown.endswith("\n")
    lines = shown.splitlines()
    assert all(line == line.strip() and 0 < len(line) <= 80 for line in lines)
    assert any("training" in line and "2/3" in line and "loss 0.500" in line for line in lines)
    assert any("evaluating" in line and "1/2" in line for line in lines) and "epoch 1 of 2" in lines


def test_a_file_gets_nothing_of_what_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", file := io.StringIO())
    with progress.bar(3, "evaluating", "batch", leave=False) as bar:
        bar.update(3)
    with progress.bar(3, "training", "step", shown=False) as bar:
        bar.update(3)
    assert file.getvalue() == ""


def test_a_terminal_gets_one_line_that_is_written_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    with progress.bar(3, "training", "step") as bar:
        bar.update(3)
    assert screen.getvalue().count("\n") == 1 and "\rtraining: 100%" in screen.getvalue()
