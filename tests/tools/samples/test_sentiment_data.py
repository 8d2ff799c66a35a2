"""The embedded sentiment data: as its generator writes it, balanced, in splits that share nothing, no bag of words."""

import collections
import json
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from tl_hub import samples
from tools.samples import write_sentiment

FILE = Path(samples.__file__).with_name("sentiment.jsonl")
ROWS = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
SIZES = {"world": (2400, 300, 600), "gadgets": (600, 150, 300)}


def rows(domain: str, split: str) -> tuple[list[str], list[str]]:
    found = [row for row in ROWS if (row["domain"], row["split"]) == (domain, split)]
    return [row["text"] for row in found], [row["label"] for row in found]


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_sentiment.write(tmp_path / "sentiment.jsonl")
    assert (tmp_path / "sentiment.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 600 * 1024


@pytest.mark.parametrize("domain", SIZES)
def test_splits_have_their_sizes_and_both_labels_alike(domain: str) -> None:
    for split, size in zip(("train", "validation", "test"), SIZES[domain], strict=True):
        counts = collections.Counter(rows(domain, split)[1])
        assert sum(counts.values()) == size
        assert set(counts) == {"negative", "positive"} and min(counts.values()) > 0.45 * size


def test_no_text_stands_twice() -> None:
    assert len({row["text"].lower() for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("domain", SIZES)
@pytest.mark.parametrize("words", [1, 2])
def test_words_alone_do_not_tell(domain: str, words: int) -> None:
    """A linear model of words and pairs of words stays far below what order and contrast tell a reader: all of it."""
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, words)), LogisticRegression(max_iter=1000))
    model.fit(*rows(domain, "train"))
    assert model.score(*rows(domain, "test")) < 0.7
