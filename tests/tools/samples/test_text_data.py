"""The embedded texts: clean recipes in a register of their own, with splits that share no text and no title."""

import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tl_hub import samples
from tools.samples import write_text

FILE = Path(samples.__file__).with_name("text.jsonl")
ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
SPLITS = ("train", "validation", "test")


def texts(split: str) -> list[str]:
    return [row["text"] for row in ROWS if row["split"] == split]


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text.lower())


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_text.write(tmp_path / "text.jsonl")
    assert (tmp_path / "text.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 400 * 1024


def test_sizes() -> None:
    assert all(row.keys() == {"split", "domain", "text"} and row["domain"] == "world" for row in ROWS)
    assert {split: len(texts(split)) for split in SPLITS} == {"train": 800, "validation": 80, "test": 120}
    assert all(40 <= len(row["text"].split()) <= 120 for row in ROWS)


def test_no_text_and_no_title_is_in_two_splits() -> None:
    assert len({row["text"] for row in ROWS}) == len(ROWS)
    titles = [{text.split(". ")[0].lower() for text in texts(split)} for split in SPLITS]
    assert not titles[0] & titles[1] and not titles[0] & titles[2] and not titles[1] & titles[2]


def test_the_text_is_clean() -> None:
    for row in ROWS:
        text = row["text"]
        assert re.match(r"[A-Z][\w' -]+\. For (two|three|four|five|six)\. [A-Z]", text), text
        assert text.endswith(".") and not re.search(r"  |[{}]|[.,;:] ?[.,;:]|\s[.,;:]", text), text
        assert not re.search(r"\b(\w+) \1\b|\b[Aa] [aeio]|\b[Aa]n [b-df-gj-np-tv-z]", text), text
        assert all(sentence[0].isupper() for sentence in text.split(". ")), text


def test_texts_are_varied() -> None:
    sentences = [sentence for text in texts("train") for sentence in text.split(". ")]
    assert len(set(sentences)) >= 0.5 * len(sentences)
    assert max(Counter(text.split(". ")[0] for text in texts("train")).values()) <= 8


@pytest.mark.parametrize("split", ["validation", "test"])
def test_train_tells_much_about_the_other_splits_but_not_all(split: str) -> None:
    """Bits a token by a bigram model of train must lie well below those by a unigram model, and well above none.

    The bigram model backs off to the unigram model, and that to a word never seen, with the weights 0.8 and 0.2.
    """
    singles, pairs, starts = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for text in texts("train"):
        words = tokens(text)
        singles.update(words)
        pairs.update(zip(words, words[1:], strict=False))
        starts.update(words[:-1])
    total = singles.total()
    unigram = bigram = count = 0.0
    for text in texts(split):
        words = tokens(text)
        for before, word in zip(words, words[1:], strict=False):
            alone = (singles[word] + 1) / (total + len(singles) + 1)
            after = pairs[before, word] / starts[before] if starts[before] else 0.0
            unigram -= math.log2(alone)
            bigram -= math.log2(0.8 * after + 0.2 * alone)
            count += 1
    print(f"{split}: unigram {unigram / count:.2f} bits a token, bigram {bigram / count:.2f}")
    assert 1.5 <= bigram / count <= 0.6 * unigram / count
