"""The embedded sentences with entities: what test asks for stands in no training row, and words alone do not tell."""

import collections
import json
from pathlib import Path

from tl_hub import samples
from tl_hub.tasks.token_classification import entities
from tools.samples import write_ner

FILE = Path(samples.__file__).with_name("ner.jsonl")
ROWS = samples.load("ner")
SIZES = {"train": 600, "validation": 150, "test": 300}
LEADING = {"north", "lake", "port", "valley", "bank", "of", "brothers", "and", "university", "motors", "airways"}


def named(split: str) -> list[tuple[str, list[str]]]:
    """Type and words of each entity."""
    return [
        (kind, row["tokens"][begin:end])
        for row in ROWS[split]
        for kind, begin, end in entities.entities_of(row["tags"])
    ]


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_ner.write(tmp_path / "ner.jsonl")
    assert (tmp_path / "ner.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 250_000


def test_sizes_and_tags() -> None:
    assert {split: len(rows) for split, rows in ROWS.items()} == SIZES
    texts = [json.dumps(row["tokens"]).lower() for rows in ROWS.values() for row in rows]
    assert len(set(texts)) == len(texts)
    for rows in ROWS.values():
        for row in rows:
            found = entities.entities_of(row["tags"])
            assert row["tags"] == entities.tags_of(found, len(row["tokens"]), entities.BIO)
    counts = collections.Counter(kind for kind, _ in named("test"))
    assert counts.keys() == {"person", "place", "organization"} and min(counts.values()) >= 100


def test_no_name_of_test_stands_in_training() -> None:
    seen = {word.lower() for row in ROWS["train"] + ROWS["validation"] for word in row["tokens"]}
    for _, words in named("test"):
        assert {word.lower() for word in words} & seen <= LEADING, words


def test_a_word_alone_does_not_tell() -> None:
    """Of the surnames that are in training more than once, half name things of more than one type."""
    kinds = collections.defaultdict(set)
    counts = collections.Counter[str]()
    for kind, words in named("train"):
        for word in words:
            if word.lower() not in LEADING:
                kinds[word].add(kind)
                counts[word] += 1
    often = [word for word in kinds if counts[word] > 2]
    assert sum(len(kinds[word]) > 1 for word in often) >= len(often) / 2
