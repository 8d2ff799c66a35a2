"""Where a model is worst, and what it was surest of though it was wrong, against what was planted."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy
from datasets import Dataset

from tl_hub import shown_rows, slices
from tl_hub.config import RunConfig
from tl_hub.tasks.base import Score
from tl_hub.tasks.classification import SentimentAnalysis
from tl_hub.tasks.question_answering import QuestionAnswering


@dataclass
class Texts:
    """What `tables` asks of a task."""

    best: ClassVar[tuple[str, bool]] = ("macro_f1", True)

    def input_of(self, row: dict[str, Any]) -> str:
        return row["text"]

    def slices_of(self, row: dict[str, Any]) -> dict[str, str]:
        return {"class": row["class"]} if "class" in row else {}


def rows_of(words: np.ndarray) -> Dataset:
    return Dataset.from_dict({"text": ["word " * n for n in words.tolist()]})


def test_thirds_by_length_hold_every_row_once_and_their_own_mean():
    words = np.random.default_rng(0).integers(1, 50, 400)
    values = np.where(words > 30, 0.0, 100.0)
    score = Score({"macro_f1": np.array(1.0), "accuracy": values})
    (table,) = slices.tables(rows_of(words), Texts(), score).values()  # type: ignore[arg-type]
    spans = [tuple(map(int, row["words of the input"].split(" to "))) for row in table]
    assert len(spans) == 3 and all(spans[i][1] < spans[i + 1][0] for i in range(2))
    for (low, high), row in zip(spans, table, strict=True):
        inside = (words >= low) & (words <= high)
        assert row["rows"] == inside.sum() and 400 / 4 < row["rows"] < 400 / 2
        assert row["accuracy"] == pytest.approx(values[inside].mean())
    assert sum(row["rows"] for row in table) == 400
    stock = scipy.stats.binomtest(table[0]["rows"], table[0]["rows"]).proportion_ci(method="wilson")
    assert table[0]["95 % interval"] == f"{100 * stock.low:.1f} to 100.0"


@pytest.mark.parametrize("words", [np.full(200, 7), np.arange(1, 60)], ids=["of one length", "few"])
def test_no_table_where_lengths_tell_nothing(words):
    score = Score({"macro_f1": np.array(1.0), "accuracy": np.ones(len(words))})
    assert slices.tables(rows_of(words), Texts(), score) == {}  # type: ignore[arg-type]


def test_no_table_of_a_metric_that_is_no_mean_over_rows():
    score = Score({"macro_f1": np.array(1.0)})
    assert slices.tables(rows_of(np.arange(200)), Texts(), score) == {}  # type: ignore[arg-type]


def test_the_worst_slices_are_those_that_were_made_bad():
    """Of three classes and two scripts one each is bad; a class of 10 rows is too small to be told."""
    random = np.random.default_rng(0)
    classes = random.choice(["a", "b", "c"], 400)
    classes[:10] = "rare"
    hangul = random.random(400) < 0.3
    texts = [("맛있는 국수 " if korean else "good noodles ") + "x " * int(random.integers(1, 9)) for korean in hangul]
    right = random.random(400) < np.where(classes == "b", 0.3, 0.9) * np.where(hangul, 0.6, 1.0)
    score = Score({"accuracy": 100.0 * right})
    rows = Dataset.from_dict({"text": texts, "class": classes.tolist()})
    ((title, worst),) = (each for each in slices.tables(rows, Texts(), score).items() if each[0].startswith("Worst"))  # type: ignore[arg-type]
    assert title == "Worst of 8 slices" and 2 <= len(worst) <= 5  # three classes, two scripts, three lengths
    assert all(row["accuracy"] < row["other rows"] for row in worst)
    assert worst[0]["slice"] == "class: b" and "script: Hangul" in [row["slice"] for row in worst]
    for row in worst[:1]:
        inside = classes == "b"
        assert row["rows"] == inside.sum()
        assert row["accuracy"] == pytest.approx(100 * right[inside].mean())
        assert row["other rows"] == pytest.approx(100 * right[~inside].mean())
    assert [row["accuracy"] for row in worst] == sorted(row["accuracy"] for row in worst)


@pytest.mark.parametrize(
    ("text", "script"),
    [("The soup, 2024!", "Latin"), ("국이 good 하다", "Hangul"), ("суп", "Cyrillic"), ("42 + 1", "none"), ("", "none")],
)
def test_the_script_is_that_of_most_letters(text, script):
    assert slices.script_of(text) == script


def test_tasks_tell_their_kinds_of_rows():
    row = {"question": "Who sang?", "context": "Ann sang.", "answers": {"text": ["Ann"], "answer_start": [0]}}
    assert QuestionAnswering().slices_of(row) == {"answer": "in the context", "first word of the question": "who"}
    silent = {**row, "question": " ", "answers": {"text": [], "answer_start": []}}
    assert QuestionAnswering().slices_of(silent) == {"answer": "none", "first word of the question": ""}
    assert SentimentAnalysis().slices_of({"text": "Good.", "label": "positive"}) == {"class": "positive"}
    assert SentimentAnalysis(regression=True).slices_of({"text": "Good.", "label": 2.5}) == {}


def test_the_surest_mistakes_are_shown_but_no_personal_data():
    random = np.random.default_rng(1)
    right, sure = random.random(60) < 0.5, random.random(60)
    shown = [{"text": f"row {i}", "probability": float(p)} for i, p in enumerate(sure)]
    worst = np.flatnonzero(~right)[np.argsort(-sure[~right])]
    shown[worst[0]]["text"] = "write to ann.smith@gmail.com"
    score = Score({"accuracy": 100.0 * right}, predictions=shown)
    found = shown_rows.mistakes(score, SentimentAnalysis(), RunConfig())
    assert [row["text"] for row in found] == [f"row {i}" for i in worst[1:11]]
    assert shown_rows.mistakes(score, SentimentAnalysis(), RunConfig(examples=False)) == []
    assert shown_rows.mistakes(score, SentimentAnalysis(), RunConfig(example_rows="3,17")) == [], "only those"
    unsure = Score({"accuracy": 100.0 * right}, predictions=[{"text": "a"}] * 60)
    assert shown_rows.mistakes(unsure, SentimentAnalysis(), RunConfig()) == []
