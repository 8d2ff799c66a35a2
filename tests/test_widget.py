"""The rows that a model's page shows: those of the record, with outputs that a load-back executed."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub_server import judge
from tl_hub import card
from tl_hub.card import rules, widget
from tl_hub.errors import UserError
from tl_hub.record import RunRecord, validate

GOLDEN = Path(__file__).parents[1] / "model_cards"
SHOWN = {
    "question-answering": (
        {"answer": "Black Sea", "score": 0.98765, "start": 3, "end": 12},
        {"answer": "Black Sea", "score": 0.9877},
    ),
    "text-classification": (
        {"label": "b", "score": 0.9, "scores": {"a": 0.1, "b": 0.9}},
        [{"label": "b", "score": 0.9}, {"label": "a", "score": 0.1}],
    ),
    "text-regression": ({"label": "score", "score": 3.14159}, [{"label": "score", "score": 3.142}]),
    "summarization": ({"generated_text": "Short."}, {"text": "Short."}),
    "text-generation": ({"generated_text": ""}, None),
    "token-classification": ([{"label": "PER", "score": 0.9, "text": "Ada", "start": 0, "end": 3}], None),
    "masked-language-modeling": (
        [{"token_str": "sea", "score": 0.5, "token": 7, "sequence": "the sea"}],
        [{"label": "sea", "score": 0.5}],
    ),
}


def record(**changes: Any) -> RunRecord:
    facts = json.loads((GOLDEN / "qa_adapter.json").read_text())
    return RunRecord.from_facts(copy.deepcopy(facts) | changes)


def head_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---")[1])


@pytest.mark.parametrize("task", SHOWN)
def test_an_output_has_the_form_of_the_page(task: str) -> None:
    given, shown = SHOWN[task]
    row = (
        {"question": "Where?", "context": "To the Black Sea."} if task == "question-answering" else {"text": "A text."}
    )
    run = record(task=task, examples=[row], settings={}, verification={"outputs": [{"example": 0, "output": given}]})
    validate(run.facts(), task)
    (entry,) = head_of(card.render(run))["widget"]
    text = {"text": "Where?", "context": "To the Black Sea."} if "question" in row else row
    files = {"adapter_config.json": b'{"base_model_name_or_path": null}'}
    assert not [fault for fault in rules.judge(card.render(run), files, files.__getitem__) if "widget" in fault.rule]
    assert judge.faults_of_card(card.render(run)) == []
    assert entry == text | {"group": "Measured rows"} | ({"output": shown} if shown else {})


def test_rows_are_few_and_short_and_none_without_a_row_that_may_be_shown() -> None:
    rows = [{"text": "word " * 500, "expected": "a", "predicted": "a"}] + [{"text": f"Row {i}."} for i in range(5)]
    run = record(task="summarization", examples=rows, settings={"prefix": "summarize:"}, verification=None)
    assert [entry["text"] for entry in widget.entries(run) or []] == [f"summarize: Row {i}." for i in range(3)]
    run.hide_examples()
    assert "widget" not in head_of(card.render(run))
    pairs = record(task="text-classification", examples=rows[1:], settings={"text_pair_column": "b"})
    assert widget.entries(pairs) is None, "the page has one field"


def test_rows_that_are_hidden_leave_no_trace_in_the_record_or_the_merged_card() -> None:
    run = record(task="summarization", examples=[{"text": "My own row."}], settings={})
    run.verification = {
        "loaded_by": ["peft"],
        "example": 0,
        "result": "Answer.",
        "pipeline_output": {"generated_text": "Answer."},
        "outputs": [{"example": 0, "output": {"generated_text": "Answer."}}],
    }
    before = card.render(run)
    assert "My own row." in before and "Answer." in before
    mine = {"text": "Mine.", "example_title": "By hand"}
    there, _ = card.merge(before, f"---\n{yaml.safe_dump({'widget': [mine]})}---\n")
    assert [entry["text"] for entry in head_of(there)["widget"]] == ["My own row.", "Mine."]
    assert head_of(card.merge(before, there)[0])["widget"] == head_of(there)["widget"], "merged twice"
    run.hide_examples()
    assert run.verification == {"loaded_by": ["peft"]}
    after, _ = card.merge(card.render(run), there)
    assert head_of(after)["widget"] == [mine] and "Answer." not in after.split("---")[1]


@pytest.mark.parametrize(
    "output", [{"answer": "a"}, {"scores": {"a": "high"}}, {"label": "a", "score": "b"}, [{"token_str": "a"}], "a", {}]
)
def test_outputs_of_another_form_are_refused(output: Any) -> None:
    facts = record().facts() | {"verification": {"outputs": [{"example": 0, "output": output}]}}
    with pytest.raises(UserError, match=r"verification\.outputs\.0\.output"):
        validate(facts, "run.json")
