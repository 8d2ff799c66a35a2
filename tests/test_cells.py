"""Lists and objects in the cells of a CSV file, through the tasks that read them."""

import json
from pathlib import Path

import pytest

from tl_hub import cells, data
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.sequence_to_sequence import Summarization, Translation


def quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"'


def train_rows(tmp_path: Path, header: str, lines: list[str], task) -> list[dict]:
    path = tmp_path / "rows.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return data.load(RunConfig(train_file=str(path), validation_file=str(path)), task)[0].splits["train"].rows.to_list()


def test_json_lists_make_labels_multi_label(tmp_path):
    labels = [["joy"], [], ["joy", "fear"], ["anger"]]
    lines = [f"text {i},{quoted(json.dumps(given))}" for i, given in enumerate(labels)]
    assert [row["label"] for row in train_rows(tmp_path, "text,label", lines, Classification())] == labels


@pytest.mark.parametrize("broken", ['["a"', "['a', 'b']", "[a]"])
def test_a_broken_list_is_one_line_with_its_row(tmp_path, broken):
    lines = [f"one,{quoted(json.dumps(['a']))}", f"two,{quoted(broken)}"]
    with pytest.raises(UserError, match=r"row 1: label is .* not a JSON list"):
        train_rows(tmp_path, "text,label", lines, Classification())


def test_several_references_and_text_that_starts_with_a_bracket(tmp_path):
    lines = [f"[Update] It rained.,{quoted(json.dumps(['Rain.', 'It rained.']))}", '"[1, 2] are numbers.",Numbers.']
    rows = train_rows(tmp_path, "text,summary", lines, Summarization())
    assert rows == [
        {"source": "[Update] It rained.", "references": ["Rain.", "It rained."]},
        {"source": "[1, 2] are numbers.", "references": ["Numbers."]},
    ]
    assert list(cells.lists(["[Update] x", "[1] y", "[x]"], "summary")) == ["[Update] x", "[1] y", "[x]"]


def test_a_blank_cell_beside_json_lists_is_none_and_elsewhere_a_text():
    assert list(cells.lists(['["a"]', " ", "", "b"], "label")) == [["a"], None, None, "b"]
    assert list(cells.lists(["a", " ", ""], "label")) == ["a", " ", ""]


def test_translations_are_objects_in_json(tmp_path):
    pair = quoted(json.dumps({"en": "Good.", "de": "Gut."}))
    rows = train_rows(tmp_path, "translation", [pair], Translation(source_language="en", target_language="de"))
    assert rows == [{"source": "Good.", "references": ["Gut."]}]
    with pytest.raises(UserError, match="row 1: translation is .* not a JSON object"):
        train_rows(tmp_path, "translation", [pair, quoted('{"en": ')], Translation())


@pytest.mark.parametrize(
    "task",
    [
        Classification(text_column="a", label_column="a"),
        Classification(text_column="a", text_pair_column="a", label_column="b"),
        Classification(text_column="label"),
        Summarization(text_column="a", summary_column="a"),
        Translation(source_column="a", target_column="a"),
        QuestionAnswering(question_column="a", context_column="a", answers_column="b"),
    ],
    ids=lambda task: type(task).__name__,
)
def test_two_flags_that_name_one_column_get_one_line(tmp_path, task):
    with pytest.raises(UserError, match=r"_column and --\w+_column are both"):
        train_rows(tmp_path, "a,b,label", ["x,y,z"] * 12, task)
