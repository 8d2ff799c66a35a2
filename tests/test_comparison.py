"""What a card and the last screen say beside the figures: baselines, a wrong answer, and where to go on."""

import shlex

import pytest

from tests.test_card import sample
from tl_hub import card, comparison, last_screen
from tl_hub.card import snippets
from tl_hub.command import _parser
from tl_hub.record import Metric


def with_baselines(metric, table, title="Baselines"):
    record = sample()
    record.metrics, record.tables = [metric], {title: table}
    return record


ACCURACY = Metric(name="macro_f1", value=54.0, low=50.0, high=58.17, split="test", rows=600, unit="%")
OURS = {"system": "this model", "accuracy": 10.0, "macro F1": 54.0}


def test_a_baseline_that_is_better_or_within_the_interval_is_named():
    """By the metric that the summary states, whatever the others say."""
    table = [
        OURS,
        {"system": "most frequent class", "accuracy": 99.0, "macro F1": 33.3},
        {"system": "words", "accuracy": 0.0, "macro F1": 58.67},
        {"system": "pairs", "accuracy": 0.0, "macro F1": 50.5},
    ]
    better, alike = comparison.sentences(with_baselines(ACCURACY, table))
    assert better == "A baseline has a better macro F1 on the same rows: words, 58.67."
    assert alike.startswith("This model's 95 % interval holds the macro F1 of a baseline")
    assert alike.endswith(": pairs, 50.5.")
    record = with_baselines(ACCURACY, table)
    assert better in card.render(record) and better not in card.render(with_baselines(ACCURACY, table[:2]))
    assert comparison.sentences(with_baselines(ACCURACY, table[:2])) == []


def test_an_error_is_better_when_it_is_lower_and_what_knows_the_answers_is_no_baseline():
    rmse = Metric(name="rmse", value=0.5, low=0.45, high=0.55, split="test", rows=9)
    table = [{"system": "this model", "rmse": 0.5}, {"system": "ridge", "rmse": 0.4}, {"system": "mean", "rmse": 0.9}]
    (said,) = comparison.sentences(with_baselines(rmse, table))
    assert said == "A baseline has a better RMSE on the same rows: ridge, 0.4."
    rouge = Metric(name="rougeL", value=20.0, low=18.0, high=22.0, split="test", rows=900, unit="%")
    table = [{"system": s, "rougeL": v} for s, v in (("this model", 20.5), ("best choice of sentences", 40.0))]
    assert comparison.sentences(with_baselines(rouge, table)) == []


def test_of_baselines_on_a_part_of_the_rows_the_interval_says_nothing():
    rouge = Metric(name="rougeL", value=20.0, low=18.0, high=22.0, split="test", rows=900, unit="%")
    table = [{"system": s, "rougeL": v} for s, v in (("this model", 17.0), ("lead", 16.9), ("whole", 17.1))]
    (said,) = comparison.sentences(with_baselines(rouge, table, "Baselines, on 500 rows"))
    assert said.endswith(": whole, 17.1.")
    undefined = [OURS, {"system": "mean", "macro F1": "undefined"}]
    assert comparison.sentences(with_baselines(ACCURACY, undefined)) == []


def test_the_example_is_a_row_that_was_answered_right():
    record = sample()
    record.verification = None
    assert snippets.shown_place(record) == 0 and snippets.expected_instead(record) is None, (
        "not the shortest, a wrong one"
    )
    record.examples = record.examples[1:]
    assert snippets.shown_place(record) == 0 and snippets.expected_instead(record) == "either of\ntwo"
    assert "The model gets this row wrong: `either of two` was expected." in card.render(record)
    record.examples = [{"text": "a", "expected": ["x", "y"], "predicted": ["y"]}]
    record.examples += [{"text": "much longer", "expected": ["x", "y"], "predicted": ["y", "x"]}]
    record.pipeline_tag = "text-classification"
    assert snippets.shown_place(record) == 1


def test_a_record_that_states_an_output_keeps_the_row_that_gave_it():
    """Or the card would show the answer to another question."""
    record = sample()
    assert "example" not in record.verification and snippets.shown_place(record) == 1, "as earlier versions chose"
    record.verification["example"] = 2
    assert snippets.shown_row(record)["question"] == "Who paid for it?"
    record.examples = record.examples[:1]
    assert snippets.shown_place(record) == 0, "the others were taken out"


@pytest.mark.parametrize("base", ["embedded", "hub"])
def test_the_commands_after_a_run_can_be_typed(tmp_path, capsys, base):
    record = sample(base=base)
    record.license = None if base == "hub" else "other"
    last_screen.show(record, tmp_path / "my run")
    lines = capsys.readouterr().out.split("\nNext:\n")[1].splitlines()
    verify, push = (shlex.split(line, comments=True) for line in lines if line.strip().startswith("tl-hub"))
    assert _parser().parse_args(verify[1:]).location == str(tmp_path / "my run")
    asked = _parser().parse_args(push[1:])
    assert (asked.folder, asked.repo, asked.dry_run) == (str(tmp_path / "my run"), "YOUR_NAME/qa_adapter", True)
    assert (asked.push_base, asked.license) == {"embedded": ("YOUR_NAME/tiny-bert", None), "hub": (None, "LICENSE")}[
        base
    ]
