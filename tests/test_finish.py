"""The end of a run: what is worked out there and nowhere else."""

import shlex
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from datasets import Dataset

from tl_hub import finish
from tl_hub.tasks.base import Score


@dataclass
class Texts:
    """What `by_length` asks of a task."""

    best: ClassVar[tuple[str, bool]] = ("macro_f1", True)

    def input_of(self, row: dict[str, Any]) -> str:
        return row["text"]


def rows_of(words: np.ndarray) -> Dataset:
    return Dataset.from_dict({"text": ["word " * n for n in words.tolist()]})


def test_the_command_is_one_that_a_shell_takes_without_paths_of_this_machine(monkeypatch, tmp_path):
    words = ["--train_file", str(tmp_path), "--test_file=/data/anna/test.csv", "--label_separator", "; ", "--seed=3"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/recipes/sentiment_finetune.py", *words])
    shown = shlex.split(finish._command())
    assert shown[:3] == ["accelerate", "launch", "recipes/sentiment_finetune.py"]
    assert shown[3:] == ["--train_file", tmp_path.name, "--test_file=test.csv", *words[3:]]


def test_thirds_by_length_hold_every_row_once_and_their_own_mean():
    words = np.random.default_rng(0).integers(1, 50, 400)
    values = np.where(words > 30, 0.0, 100.0)
    score = Score({"macro_f1": np.array(1.0), "accuracy": values})
    (table,) = finish.by_length(rows_of(words), Texts(), score, 0).values()  # type: ignore[arg-type]
    spans = [tuple(map(int, row["words of the input"].split(" to "))) for row in table]
    assert len(spans) == 3 and all(spans[i][1] < spans[i + 1][0] for i in range(2))
    for (low, high), row in zip(spans, table, strict=True):
        inside = (words >= low) & (words <= high)
        assert row["rows"] == inside.sum() and 400 / 4 < row["rows"] < 400 / 2
        assert row["accuracy"] == pytest.approx(values[inside].mean())
    assert sum(row["rows"] for row in table) == 400
    assert table[0]["95 % interval"] == "100.0 to 100.0"


@pytest.mark.parametrize("words", [np.full(200, 7), np.arange(1, 60)], ids=["of one length", "few"])
def test_no_table_where_lengths_tell_nothing(words):
    score = Score({"macro_f1": np.array(1.0), "accuracy": np.ones(len(words))})
    assert finish.by_length(rows_of(words), Texts(), score, 0) == {}  # type: ignore[arg-type]


def test_no_table_of_a_metric_that_is_no_mean_over_rows():
    score = Score({"macro_f1": np.array(1.0)})
    assert finish.by_length(rows_of(np.arange(200)), Texts(), score, 0) == {}  # type: ignore[arg-type]
