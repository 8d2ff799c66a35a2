"""The pretraining text of the embedded checkpoints.

    python -m tools.samples.corpus DATA_FOLDER OUTPUT.jsonl.gz "[SEP]"
    python -m tools.samples.corpus DATA_FOLDER OUTPUT.jsonl.gz "</s>" translations

Two parts, shuffled together. Natural text: DATA_FOLDER holds public data sets as `<name>/train.jsonl.gz`. Only
training splits are read, and no labels or answers: a question and its paragraph are one text, so that the model
learns to look from one to the other; the last argument is the model's special token between the two. Authored text:
paragraphs and questions by the grammar of the embedded data, about training entities in training shapes only. Being
simple, they teach a small model early to use the context. For T5, which must know German and Korean words at all, the
sentences of the embedded translations' training rows are added, each with its translation and once alone.
"""

import gzip
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tl_hub import samples
from tools.samples import write_qa

SOURCES = [
    f"The texts are {samples.TEXTS_OF_CHECKPOINTS}.",
    "Validation and test rows are those of WikiText-2, whose word-level marks such as @-@ the training texts lack.",
]
"""What the cards of the embedded checkpoints say of their data."""


def texts(folder: Path, separator: str) -> Iterator[str]:
    """Texts of the training splits of squad, wikipedia_paragraphs, imdb, ag_news and dialogsum."""

    def rows(name: str) -> Iterator[dict[str, Any]]:
        with gzip.open(folder / name / "train.jsonl.gz", "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)

    yield from (f"{row['question'].strip()} {separator} {row['context'].strip()}" for row in rows("squad"))
    yield from (row["text"] for row in rows("wikipedia_paragraphs"))
    yield from (row["text"].replace("<br />", " ") for row in rows("imdb"))
    yield from (row["text"] for row in rows("ag_news"))
    yield from (f"{row['summary']} {separator} {row['dialogue']}" for row in rows("dialogsum"))


def authored(count: int, separator: str) -> Iterator[str]:
    """`count` paragraphs that the grammar writes about the training entities of the world domain, with a question."""
    grammars = write_qa.read_grammars(random.Random(0))["world"]  # the same seed deals out the same entities
    rng = random.Random(1)
    while count:
        grammar = rng.choice(grammars)
        told = rng.sample(grammar["splits"]["train"], 2)
        paragraph = write_qa.write_paragraph(rng, grammar, (told[0], told[1]), "train", rng.random() < 0.3)
        if paragraph:
            yield f"{rng.choice(paragraph['questions'])['question']} {separator} {paragraph['context']}"
            count -= 1


def translations(separator: str) -> Iterator[str]:
    """Training rows of both embedded translations: the pair, in either order, and each sentence alone."""
    for name in ("translation", "translation-korean"):
        for row in samples.load(name)["train"]:
            one, other = row["translation"].values()
            yield from (f"{one} {separator} {other}", f"{other} {separator} {one}", one, other)


def main() -> None:
    folder, output = map(Path, sys.argv[1:3])
    separator = sys.argv[3]
    found = [*texts(folder, separator), *authored(30_000, separator)]
    if sys.argv[4:] == ["translations"]:
        found += translations(separator)
    shuffled = list(dict.fromkeys(found))
    random.Random(0).shuffle(shuffled)
    # A fixed time in the header keeps the file the same byte for byte.
    with gzip.GzipFile(output, "wb", mtime=0) as file:
        for text in shuffled:
            file.write((json.dumps({"text": text}, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
