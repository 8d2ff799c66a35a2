"""The embedded summarization data: summaries that follow from their texts, and no way to get them by copying."""

import json
import re
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tl_hub import samples
from tools.samples import write_summarization

FILE = Path(samples.__file__).with_name("summarization.jsonl")
ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
SPLITS = ("train", "validation", "test")
FRAMES = write_summarization.read_frames()
# The grammatical words of the summaries; every other word must be the text's own.
FUNCTION = set("a an ahead and as at because borrows buys elected for found from in instead lets looks after".split())
FUNCTION |= set("leaves money moves of on opens over pay repairs return sold suggestion takes the to until".split())
FUNCTION |= set("flat votes was who with won is".split())


def split_rows(split: str) -> list[dict[str, Any]]:
    return [row for row in ROWS if row["split"] == split]


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def sentences(text: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.?!:]) |\n", text) if part]


def rouge_l(guess: str, summary: str) -> float:
    """ROUGE-L F1 (Lin 2004): from the longest common subsequence of words."""
    mine, theirs = words(guess), words(summary)
    row = [0] * (len(theirs) + 1)
    for word in mine:
        diagonal = 0
        for column, other in enumerate(theirs, 1):
            above = row[column]
            row[column] = diagonal + 1 if word == other else max(above, row[column - 1])
            diagonal = above
    return 2 * row[-1] / (len(mine) + len(theirs)) if mine else 0.0


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_summarization.write(tmp_path / "summarization.jsonl")
    assert (tmp_path / "summarization.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 700 * 1024


def test_sizes() -> None:
    assert all(row.keys() == {"split", "domain", "text", "summary"} and row["domain"] == "world" for row in ROWS)
    assert {split: len(split_rows(split)) for split in SPLITS} == {"train": 1150, "validation": 110, "test": 200}
    assert all(50 <= len(row["text"].split()) <= 110 and 8 <= len(row["summary"].split()) <= 24 for row in ROWS)
    assert sum(len(row["summary"].split()) <= 20 for row in ROWS) >= 0.93 * len(ROWS)


def test_no_text_and_no_summary_is_in_two_splits() -> None:
    assert len({row["text"] for row in ROWS}) == len(ROWS)
    for column in ("text", "summary"):
        seen = [{row[column] for row in split_rows(split)} for split in SPLITS]
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_people_of_test_are_unseen_before() -> None:
    people = {name for names in write_summarization.read("people").values() for name in names}
    texts = ["\n".join(row["text"] + "\n" + row["summary"] for row in split_rows(split)) for split in SPLITS]
    found = [{name for name in people if re.search(rf"\b{name}\b", text)} for text in texts]
    assert all(len(names) > 20 for names in found)
    assert not found[0] & found[1] and not found[0] & found[2] and not found[1] & found[2]


@pytest.mark.parametrize("row", ROWS[::7], ids=range(len(ROWS[::7])))
def test_a_summary_says_only_what_is_in_the_text(row: dict[str, Any]) -> None:
    assert not set(words(row["summary"])) - set(words(row["text"])) - FUNCTION


def test_the_text_is_clean() -> None:
    for row in ROWS:
        for text in (row["text"], row["summary"]):
            assert not re.search(r"  |[{}~^]|[.,;:?!] ?[.,;:?!]|\s[.,;:?!]", text), text
            assert not re.search(r"\b(\w+) \1\b|\b[Aa] [aeio]|\b[Aa]n [b-df-gj-np-tv-z]", text), text
            assert all(part[0].isupper() or part[0] == '"' for part in re.split(r"(?<=[.?!]) |\n", text)), text
        assert re.fullmatch(r"[A-Z][^.\n]+\.", row["summary"].replace("Mr ", "").replace("Mrs ", "")), row["summary"]


def test_summaries_take_few_shapes() -> None:
    """Every summary is one of the frames' shapes, all of them about equally often."""
    shapes = [re.compile(re.sub(r"\\\{.*?\\\}", ".+", re.escape(frame["summary"]))) for frame in FRAMES.values()]
    for split in SPLITS:
        taken = Counter(next(i for i, s in enumerate(shapes) if s.fullmatch(r["summary"])) for r in split_rows(split))
        assert len(taken) == len(FRAMES) and max(taken.values()) <= 1.2 * min(taken.values())


def nearest(rows: list[dict[str, Any]]) -> list[str]:
    """For each text, the summary of the most similar text of train."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    train = split_rows("train")
    index = TfidfVectorizer(ngram_range=(1, 2)).fit([row["text"] for row in train])
    likeness = index.transform([row["text"] for row in rows]) @ index.transform([row["text"] for row in train]).T
    return [train[i]["summary"] for i in likeness.toarray().argmax(axis=1)]


@cache
def guesses() -> dict[str, list[str]]:
    """What one would say about the test texts without understanding them."""
    rows = split_rows("test")
    parts: Callable[[dict[str, Any]], list[str]] = lambda row: sentences(row["text"])  # noqa: E731
    return {
        "the first sentence": [parts(row)[0] for row in rows],
        "three sentences": [" ".join(parts(row)[:3]) for row in rows],
        "the last sentence": [parts(row)[-1] for row in rows],
        "the longest sentence": [max(parts(row), key=len) for row in rows],
        "the whole text": [row["text"] for row in rows],
        "the best sentence": [max(parts(row), key=lambda part: rouge_l(part, row["summary"])) for row in rows],
        "the summary of the nearest text": nearest(rows),
    }


@pytest.mark.parametrize(
    ("name", "most"),
    [("the first sentence", 0.15), ("three sentences", 0.3), ("the last sentence", 0.2), ("the longest sentence", 0.35)]
    # The last two know more than a reader who copies: which sentence is the best one, which shape a summary takes.
    + [("the whole text", 0.3), ("the best sentence", 0.5), ("the summary of the nearest text", 0.55)],
)
def test_guessing_does_not_help(name: str, most: float) -> None:
    rows = split_rows("test")
    score = sum(rouge_l(guess, row["summary"]) for guess, row in zip(guesses()[name], rows, strict=True)) / len(rows)
    print(f"{name}: ROUGE-L {100 * score:.1f}")
    assert score <= most
    assert not any(guess == row["summary"] for guess, row in zip(guesses()[name], rows, strict=True))


def test_facts_stand_at_varying_places() -> None:
    """The person a summary names first is first mentioned all over the text."""
    people = [name for names in write_summarization.read("people").values() for name in names]
    places = []
    for row in ROWS:
        named = [name for name in people if re.search(rf"\b{name}\b", row["summary"])]
        if named:
            places += [row["text"].find(named[0]) / len(row["text"])]
    tenths = Counter(int(10 * place) for place in places)
    assert max(tenths.values()) <= 0.3 * len(places) and len(tenths) >= 9


@pytest.mark.slow
def test_the_first_of_its_kind_is_often_the_wrong_one() -> None:
    """Of the people in a text, the first to be mentioned is seldom the first of the summary."""
    people = [name for names in write_summarization.read("people").values() for name in names]

    def named(text: str) -> list[str]:
        found = [(match.start(), name) for name in people for match in re.finditer(rf"\b{name}\b", text)]
        return [name for _, name in sorted(found)]

    pairs = [(named(row["text"]), named(row["summary"])) for row in ROWS if named(row["summary"])]
    assert sum(text[0] == summary[0] for text, summary in pairs) <= 0.35 * len(pairs)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["told", "spoken", "signed", "rivals"])
@pytest.mark.parametrize("name", list(FRAMES))
def test_shapes_held_out_for_test_are_unseen_before(name: str, kind: str) -> None:
    shapes = FRAMES[name][kind]
    held = [shape for shape in shapes if shape.startswith("~")]
    assert held and len(shapes) - len(held) >= 2
    before = "\n\n".join(row["text"] for row in ROWS if row["split"] != "test")
    for shape in held:
        # A place may hold several words, but no line break.
        parts = re.split(r"\{[^}]+\}", shape.removeprefix("~"))
        assert not re.search("[^\n]+?".join(map(re.escape, parts)), before), shape


def test_a_part_of_test_takes_held_out_shapes() -> None:
    held = [s[1:] for f in FRAMES.values() for way in ("told", "spoken", "signed") for s in f[way] if s[0] == "~"]
    expressions = [re.compile("[^\n]+?".join(map(re.escape, re.split(r"\{[^}]+\}", shape)))) for shape in held]
    test = split_rows("test")
    assert 0.2 <= sum(any(e.search(row["text"]) for e in expressions) for row in test) / len(test) <= 0.5
