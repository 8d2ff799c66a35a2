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


def test_intervals_of_what_pretraining_is_worth_are_those_of_a_paired_t_test():
    lines = [json.loads(line) for line in (tables.CARDS / "transfer.jsonl").read_text().splitlines()]
    case = [line for line in lines if (line["family"], line["data"], line["rows"]) == ("gpt2", "squad", 4000)]
    pretrained, scratch = ([line["score"] for line in case if line["pretrained"] is kind] for kind in (True, False))
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
