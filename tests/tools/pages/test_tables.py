"""The tables of the pages are those of the files that they are made from."""

import json
import re

import pytest
from scipy import stats

from tools.pages import tables


@pytest.mark.parametrize("page", tables.pages(), ids=lambda page: page.relative_to(tables.ROOT).as_posix())
def test_a_page_holds_what_its_files_hold(page):
    text = page.read_text(encoding="utf-8")
    assert text == tables.written(text), "python -m tools.pages.tables writes it anew"


def test_each_table_has_a_page():
    used = {found[2] for page in tables.pages() for found in tables.PLACE.finditer(page.read_text(encoding="utf-8"))}
    assert tables.tables().keys() == used


def test_each_figure_has_its_fields_and_lies_in_its_interval():
    """What was not recorded is empty. No figure stands there twice."""
    lines = [line for group in tables.results().values() for line in group]
    for line in lines:
        assert {"table", "value", "low", "high", "command", "cpu", "commit"} <= line.keys()
        assert re.fullmatch("[0-9a-f]{40}|", line["commit"])
        assert line["low"] is None or line["low"] <= line["value"] <= line["high"], line
    figures = {"value", "low", "high", "error", "minutes", "processor_minutes", "published"}
    named = [json.dumps({name: line[name] for name in line if name not in figures}) for line in lines]
    assert len({*named}) == len(named)


def test_a_measured_table_is_made_of_the_lines_of_its_name(monkeypatch):
    line = {"table": "x", "row": {"data": "d", "recipe": "r"}, "low": None, "high": None}
    lines = [
        {**line, "column": "F1", "value": 1234.5, "low": 1000, "high": 2000},
        {**line, "column": "loss", "value": 2, "error": 0.5},
        {**line, "row": {"data": "d", "recipe": "s"}, "column": "loss", "value": 0.1},
    ]
    monkeypatch.setattr(tables, "results", lambda: {"x": lines})
    assert tables.measured("x").strip().splitlines() == [
        "| data | recipe | F1 | loss |",
        "| --- | --- | --- | --- |",
        "| d | r | 1,234.5 (1,000 to 2,000) | 2 ± 0.5 |",
        "| d | s |  | 0.1 |",
    ]


def test_real_data_is_a_line_a_set_with_the_answers_to_three_questions(monkeypatch):
    def line(kind, name, value, low=None, high=None, **more):
        return {"data": "d, 9", "kind": kind, "name": name, "value": value, "low": low, "high": high, **more}

    lines = [
        line("technique", "features", 81.11, 79.2, 82.9, metric="accuracy", verdict="worse", advised=False),
        line(
            "technique", "fine-tuning", 85.0, 82.0, 88.0, metric="accuracy", verdict="no difference shown", advised=True
        ),
        line("technique", "adapter", 85.7, 84.0, 87.2, metric="accuracy", verdict="best", advised=False),
        line("twice the rows", "features, 18 rows", 1.154, -0.2, 2.5),
        line("twice the rows", "adapter", None, why="too little data to tell"),
        line("domain", "tweets", 79.2, 77.0, 81.3, drop=6.43, drop_low=3.8, drop_high=9.1),
        line("domain", "films", 86.7, 84.0, 89.0, drop=-1.0, drop_low=-3.0, drop_high=2.0),
        line("cost", "compare", 8.1),
    ]
    monkeypatch.setattr(tables, "results", lambda: {"real data": lines})
    assert tables.real_data().strip().splitlines()[2:] == [
        "| d, 9 rows, accuracy | **adapter** 85.7 (84.0 to 87.2) | features 81.1: worse"
        "<br>fine-tuning 85.0: no difference shown, and cheaper: **advised** "
        "| features, 18 rows: +1.2 (-0.2 to 2.5)<br>adapter: too little data to tell "
        "| tweets 79.2: loses 6.4 (3.8 to 9.1)<br>films 86.7: gains 1.0 (-2.0 to 3.0) | compare 8.1 |"
    ]
    monkeypatch.setattr(tables, "results", lambda: {"real data": lines[2:3]})
    assert tables.real_data().endswith("| **adapter** 85.7 (84.0 to 87.2) |  | not run | not run |  |\n\n")


def test_intervals_of_what_pretraining_is_worth_are_those_of_a_paired_t_test():
    case = [
        line
        for line in tables.results()["transfer"]
        if (line["family"], line["data"], line["rows"]) == ("gpt2", "squad", 4000)
    ]
    pretrained, scratch = ([line["value"] for line in case if line["pretrained"] is kind] for kind in (True, False))
    assert [line["seed"] for line in case if line["pretrained"]] == [
        line["seed"] for line in case if not line["pretrained"]
    ]
    interval = stats.ttest_rel(pretrained, scratch).confidence_interval(0.95)
    (row,) = re.findall(r"\| gpt2 \| squad \| 4,000 \|.*", tables.transfer())
    assert f"({interval.low:.1f} to {interval.high:.1f})" in row
    assert row.endswith("| 5 of 5 |")


def test_a_figure_shows_one_digit_and_no_negative_zero():
    assert tables.figure(81.06, 79.2, 82.9) == "81.1 (79.2 to 82.9)"
    assert tables.figure(1.0, -0.04, 2.0) == "1.0 (0.0 to 2.0)"
    assert tables.figure(75.7) == "75.7"
