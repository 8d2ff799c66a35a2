"""What the epochs after the best one say of a run."""

import dataclasses
import subprocess
import sys

import pytest

from tests.test_card import sample
from tl_hub import card, overfitting
from tl_hub.record import Metric, SplitFacts


def said(figures, losses, *, name="accuracy", unit="%", rows=100, best=1):
    """The sentence of a run with these figures of the validation rows and training losses, an epoch each."""
    record = sample()
    key = "validation_loss" if name == "loss" else name
    history = [
        {"epoch": i, "step": i, "loss": loss, key: value}
        for i, (value, loss) in enumerate(zip(figures, losses, strict=True), start=1)
    ]
    splits = {"validation": SplitFacts(rows=rows)}
    return dataclasses.replace(
        record,
        history=history,
        best_epoch=best,
        metrics=[Metric(name=name, value=figures[best - 1], split="test", rows=rows, unit=unit)],
        data=dataclasses.replace(record.data, splits=splits),
    )


def test_a_gap_that_grows_is_told_with_its_figures():
    record = said([80.0, 90.0, 85.0, 70.0], [0.9, 0.5, 0.2, 0.05], best=2)
    expected = (
        "Overfitting: from epoch 2 to 4 the training loss fell from 0.5 to 0.05, while the accuracy of the validation "
        "rows fell from 90 to 70; the weights are those of epoch 2."
    )
    assert overfitting.sentence(record) == expected and expected in card.render(record)
    rising = said([2.0, 1.5, 1.9, 2.5], [3.0, 2.0, 1.0, 0.5], name="loss", unit=None, best=2)
    assert "the loss of the validation rows rose from 1.5 to 2.5" in (overfitting.sentence(rising) or "")


@pytest.mark.parametrize(
    ("figures", "losses", "rows"),
    [
        ([80.0, 85.0, 90.0, 95.0], [0.9, 0.5, 0.2, 0.1], 100),  # it learns to the end
        ([80.0, 90.0, 89.0, 88.0], [0.9, 0.5, 0.2, 0.1], 100),  # 2 of 100 rows, whose standard error is 3
        ([80.0, 90.0, 60.0], [0.9, 0.5, 0.2], 100),  # an epoch is no trend
        ([90.0, 80.0, 70.0], [0.5, 0.7, 0.9], 100),  # it unlearns the training rows too
        ([90.0], [0.5], 100),
    ],
)
def test_what_may_be_chance_is_not_told(figures, losses, rows):
    best = figures.index(max(figures)) + 1
    assert overfitting.sentence(said(figures, losses, rows=rows, best=best)) is None


def test_the_same_fall_on_more_rows_is_told():
    assert overfitting.sentence(said([80.0, 90.0, 89.0, 88.0], [0.9, 0.5, 0.2, 0.1], rows=1000, best=2))


def test_a_record_without_a_history_says_nothing():
    record = sample()
    assert overfitting.sentence(dataclasses.replace(record, history=[], metrics=[])) is None
    odd = [{"epoch": i, "loss": "low", "accuracy": None} for i in range(5)]
    assert overfitting.sentence(dataclasses.replace(record, history=odd)) is None


@pytest.mark.slow
def test_it_can_be_imported_by_itself_and_before_cards():
    """The card imports it, and what it needs imports the card."""
    for module in ("tl_hub.comparison", "tl_hub.overfitting"):
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True, timeout=60)
