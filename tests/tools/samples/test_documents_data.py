"""The embedded document-classification data: topics that a pretrained model knows and that counting words does not."""

import collections
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from transformers import AutoTokenizer

from tl_hub import samples
from tl_hub.methods.estimator import FeatureClassifier
from tools.samples import write_documents

FILE = Path(samples.__file__).with_name("documents.jsonl")
ROWS: list[dict[str, str]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
SIZES = {"train": 800, "validation": 152, "test": 300}
TOPICS = ("business", "politics", "science", "sports")
WINDOW = 384  # tokens that a tiny model sees at once


def of(split: str) -> tuple[list[str], list[str]]:
    rows = [row for row in ROWS if row["split"] == split]
    return [row["text"] for row in rows], [row["label"] for row in rows]


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_documents.write(tmp_path / "documents.jsonl")
    assert (tmp_path / "documents.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 900_000


def test_sizes_and_balance() -> None:
    for split, size in SIZES.items():
        assert collections.Counter(of(split)[1]) == dict.fromkeys(TOPICS, size // len(TOPICS))
    assert all(list(row) == ["split", "domain", "text", "label"] and row["domain"] == "world" for row in ROWS)


def test_the_text_is_clean() -> None:
    assert len({row["text"].lower() for row in ROWS}) == len(ROWS)
    for row in ROWS:
        text = row["text"]
        assert re.fullmatch(r"[A-Z][^{}]+[.?]", text), text
        assert not re.search(r"  |[.,;:?] ?[,;:?]|\.\.|\s[.,;:](?!\d)|\b([A-Za-z]+) \1\b|\b[Aa] [aeio]", text), text
        assert not re.search(r"(?<!U\.S)[.?] [a-z]", text), text


@pytest.mark.parametrize("split", SIZES)
def test_lengths(split: str) -> None:
    """A tenth of the documents need a second window."""
    tokens = AutoTokenizer.from_pretrained(samples.checkpoint("bert"))(of(split)[0])["input_ids"]
    assert 0.08 <= sum(len(ids) > WINDOW for ids in tokens) / len(tokens) <= 0.12
    words = sorted(len(text.split()) for text in of(split)[0])
    assert 35 <= words[0] and 60 <= words[len(words) // 2] <= 90 and words[-1] <= 350


def test_splits_share_no_subtopic() -> None:
    """What is said of a split's subtopics is said in no document of another split."""
    texts = {split: "\n".join(of(split)[0]).lower() for split in SIZES}
    for topic in TOPICS:
        for split, subtopics in write_documents.read(topic).items():
            for name, subtopic in subtopics.items():
                shapes = [*subtopic["sentences"], *subtopic["phrases"]]
                told = [max(re.split(r"\{\w+\}", shape), key=len).strip(" ,.").lower() for shape in shapes]
                told = [part for part in told if len(part.split()) > 2]
                assert sum(part in texts[split] for part in told) >= 0.9 * len(told), name
                for other in SIZES.keys() - {split}:
                    assert not [part for part in told if part in texts[other]], name


def whole(text: str) -> str:
    return text


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[.?]) ", text)[0]


@pytest.mark.parametrize("part", [whole, first_sentence])
@pytest.mark.parametrize("strength", [1, 10])
def test_counting_words_does_not_tell(part: Callable[[str], str], strength: int) -> None:
    (train, labels), (test, expected) = of("train"), of("test")
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=strength, max_iter=1000))
    assert model.fit(list(map(part, train)), labels).score(list(map(part, test)), expected) <= 0.7


@pytest.mark.slow
def test_frozen_vectors_of_a_pretrained_model_tell() -> None:
    train, labels = (values[:240] for values in of("train"))
    test, expected = (values[:120] for values in of("test"))
    model = FeatureClassifier("tiny:bert", layer="4", pooling="mean", strength=0.01).fit(train, labels)
    assert model.score(test, expected) >= 0.85
