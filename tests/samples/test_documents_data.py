"""The embedded document-classification data: labels that the text tells, and that counting its words does not."""

import collections
import functools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tl_hub.samples import write_documents

FILE = Path(write_documents.__file__).with_name("documents.jsonl")
ROWS: list[dict[str, str]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
SIZES = {"train": 1200, "validation": 150, "test": 300}
TOPICS = ("environment", "health", "schools", "sports", "traffic")
WINDOW = 256  # words, which are no more than the tokens that a tiny model sees at once
GRAMMARS: dict[str, Any] = {topic: write_documents.read(topic) for topic in TOPICS}
CUES: dict[str, Any] = write_documents.read("cues")
GENRES: list[dict[str, Any]] = write_documents.read("genres")


def of(split: str) -> list[dict[str, str]]:
    return [row for row in ROWS if row["split"] == split]


def one_of(choices: list[str]) -> str:
    return "(?:" + "|".join(re.escape(choice.lstrip("~+")) for choice in sorted(set(choices))) + ")"


def pattern(shape: str, places: dict[str, str]) -> str:
    """A regular expression that finds a shape in a text, whatever fills its places."""
    result = ""
    for part in re.split(r"(\{[^}]+\})", shape.lstrip("~+")):
        name = part[1:-1]
        if part.startswith("{"):
            result += one_of(name.split("|")) if "|" in name else places[name]
        else:
            result += re.escape(part)
    return result


def slots(pools: dict[str, list[str]]) -> dict[str, str]:
    return {name: one_of(values) for name, values in {**write_documents.COMMON, **pools}.items()}


SUBJECTS = {
    topic: "|".join(pattern(shape, slots(grammar["pools"])) for shape in grammar["subjects"])
    for topic, grammar in GRAMMARS.items()
}
SETTING = {
    name: one_of([value for genre in GENRES for value in genre[name]])
    for name in ("they", "whole", "item", "next", "before", "then")
}


def cues(role: str) -> list[str]:
    shapes = CUES[role]
    return shapes if isinstance(shapes, list) else [shape for kind in shapes.values() for shape in kind]


def finder(shape: str, subjects: str) -> re.Pattern[str]:
    # A sentence or clause begins or ends at each side, or another subject's clause is joined there.
    places = SETTING | {"x": f"(?:{subjects})", "y": f"(?:{'|'.join(SUBJECTS.values())})"}
    before, after = r"(?:(?:^|[.;,] |\b(?:but|while|although) ))", r"(?=[.;,]| but )"
    return re.compile(before + pattern(shape, places) + after, re.IGNORECASE)


# Clauses that make a subject the main one: single ones, and those that tell it from another one.
TELLING = [*cues("main"), *(shape for shape in cues("both") if "{x}" in shape)]


@functools.cache
def finders(shape: str) -> dict[str, re.Pattern[str]]:
    return {topic: finder(shape, SUBJECTS[topic]) for topic in TOPICS}


def told(text: str) -> set[str]:
    """The topics that a main cue is bound to."""
    return {topic for shape in TELLING for topic, expression in finders(shape).items() if expression.search(text)}


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_documents.write(tmp_path / "documents.jsonl")
    assert (tmp_path / "documents.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 1_400_000


def test_sizes_and_balance() -> None:
    for split, size in SIZES.items():
        assert collections.Counter(row["label"] for row in of(split)) == dict.fromkeys(TOPICS, size // len(TOPICS))
    assert all(list(row) == ["split", "domain", "text", "label"] and row["domain"] == "world" for row in ROWS)


def test_splits_share_no_text() -> None:
    assert len({row["text"].lower() for row in ROWS}) == len(ROWS)


def test_places_are_filled() -> None:
    for row in ROWS:
        assert re.fullmatch(r"[A-Z][^{}~+|]+\.", row["text"]), row["text"]
        assert "  " not in row["text"] and ".." not in row["text"]


def test_the_text_tells_its_label() -> None:
    sample = [*of("test"), *of("train")[::20]]
    found = [(told(row["text"]), row) for row in sample]
    for topics, row in found:
        # Sometimes the cue is bound to "this", which points back to the sentences before.
        assert topics == {row["label"]} or (not topics and re.search(r"\b[Tt]his\b", row["text"])), row["text"]
    assert sum(bool(topics) for topics, _ in found) >= 0.95 * len(found)


def long(split: str) -> list[dict[str, str]]:
    return [row for row in of(split) if len(row["text"].split()) > 300]


@pytest.mark.parametrize("split", SIZES)
def test_lengths(split: str) -> None:
    words = [len(row["text"].split()) for row in of(split)]
    assert sum(55 <= count <= 160 for count in words) >= 0.8 * len(words)
    assert 45 <= min(words) and max(words) <= 400
    assert 0.08 <= len(long(split)) / len(words) <= 0.12


def test_cutting_long_documents_off_loses() -> None:
    """The first window of a long document seldom tells what it is mainly about, and the whole document does."""
    rows = long("test")
    assert sum(told(row["text"]) == {row["label"]} for row in rows) >= 0.9 * len(rows)
    starts = [" ".join(row["text"].split()[:WINDOW]) for row in rows]
    assert sum(told(start) == {row["label"]} for start, row in zip(starts, rows, strict=True)) <= 0.4 * len(rows)


def first_sentence(text: str) -> str:
    return re.split(r"(?<=\.) ", text)[0]


@pytest.mark.parametrize(("part", "most"), [(str, 0.55), (first_sentence, 0.45)], ids=["all", "first sentence"])
def test_counting_words_does_not_tell(part: Any, most: float) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = {split: [part(row["text"]) for row in of(split)] for split in ("train", "test")}
    labels = {split: [row["label"] for row in of(split)] for split in texts}
    for strength in (1, 10):
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=strength, max_iter=1000))
        score = model.fit(texts["train"], labels["train"]).score(texts["test"], labels["test"])
        print(f"{part.__name__}, C={strength}: {100 * score:.1f}")
        assert score <= most


def uses(shapes: list[str], rows: list[dict[str, str]], subjects: str) -> int:
    expressions = [finder(shape, subjects) for shape in shapes]
    return sum(any(expression.search(row["text"]) for expression in expressions) for row in rows)


@pytest.mark.parametrize("role", ["main", "aside", "trap"])
def test_each_cue_is_seen_dozens_of_times_in_train(role: str) -> None:
    subjects = "|".join([*SUBJECTS.values(), *CUES["back"]])
    for name, shapes in CUES[role].items():
        count = uses(shapes, of("train")[::2], subjects)  # half of the rows, to be quick
        print(f"{role}: {name}: {count}")
        assert count >= 24, name


def test_shapes_and_values_held_out_for_test_are_unseen_before() -> None:
    subjects = "|".join([*SUBJECTS.values(), *CUES["back"]])
    roles = ("main", "aside", "trap", "neutral")
    shapes = [shape for role in roles for shape in cues(role) if shape.startswith("~")]
    before = [row for row in ROWS if row["split"] != "test"]
    assert uses(shapes, before, subjects) == 0
    assert uses(shapes, of("test"), subjects) >= 0.3 * len(of("test"))
    held = [v for g in GRAMMARS.values() for pool in g["pools"].values() for v in pool if v.startswith("~")]
    named = re.compile(rf"\b{one_of(held)}\b", re.IGNORECASE)
    assert not any(named.search(row["text"]) for row in before)
    assert sum(bool(named.search(row["text"])) for row in of("test")) >= 0.3 * len(of("test"))


def test_most_words_of_test_are_seen_in_train() -> None:
    seen = {word for row in of("train") for word in re.findall(r"\w+", row["text"].lower())}
    for row in of("test"):
        words = re.findall(r"\w+", row["text"].lower())
        assert sum(word in seen for word in words) >= 0.75 * len(words), row["text"]


def test_what_is_said_of_a_topic_holds_no_cue_word() -> None:
    cue = re.compile(r"\b(main|most|mostly|above|passing|briefly|aside|apart|hardly|matter\w*|really|real)\b")
    for grammar in GRAMMARS.values():
        for shape in [*grammar["subjects"], *grammar["details"]]:
            assert not cue.search(shape), shape
