"""Rows on the disk are those that came, whatever their cells hold, and leave nothing in memory and no file behind."""

import contextlib
import gc
import io
import json
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset
from hypothesis import strategies as st

from tl_hub import data, on_disk, overlap, row_files
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.tasks.base import Task
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization
from tl_hub.tasks.language_modeling import (
    CausalLanguageModeling,
    MaskedLanguageModeling,
    PermutationLanguageModeling,
    SpanCorruption,
)
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.sequence_to_sequence import Summarization, Translation
from tl_hub.tasks.text_generation import TextGeneration
from tl_hub.tasks.token_classification import TokenClassification

CELLS = st.none() | st.integers(-5, 5) | st.sampled_from([0.5, 1e9]) | st.sampled_from(["", "a", "흑해"])
CELLS = CELLS | st.lists(CELLS, max_size=2) | st.dictionaries(st.sampled_from(["text", "start"]), CELLS, max_size=2)
ROWS = st.lists(st.dictionaries(st.sampled_from(["one", "two"]), CELLS | st.sampled_from([["x"], []])), max_size=7)


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_disk, "ROWS", 25)
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))


@hypothesis.given(ROWS, st.integers(1, 4))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=60)
def test_rows_that_come_some_at_a_time_are_those_of_one_table(rows, at_once):
    """Types are found as `datasets` finds them where it sees all rows: a cell may fit none of the earlier ones'."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    chunks = [{name: [row.get(name) for row in rows[i : i + at_once]] for name in names} for i in range(0, 7, at_once)]
    chunks = [chunk for chunk in chunks if any(chunk.values())]
    try:
        whole = Dataset.from_dict({n: [row.get(n) for row in rows] for n in names}, on_mixed_types="use_json")
    except (pa.ArrowException, TypeError, ValueError):  # nor does it take them
        hypothesis.reject()
    found = on_disk.written(chunks)
    assert len(found) == len(whole)
    assert found.to_list() == whole.to_list()
    if chunks:
        assert found.features == whole.features


def test_a_file_has_no_name_and_goes_with_its_rows(tmp_path):
    found = on_disk.written({"text": [f"{i} {j}" for j in range(25)]} for i in range(40))
    assert found.select([999])["text"][:] == ["39 24"]
    assert (tmp_path / "cache").is_dir() and not list((tmp_path / "cache").iterdir())


def test_a_full_disk_and_a_folder_that_cannot_be_written_to_are_one_line(tmp_path, monkeypatch):
    chunks = [{"text": ["x" * 1000] * 25}] * 40
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(UserError, match="rows cannot be kept in .*File too large.*TL_HUB_CACHE") as full:
            on_disk.written(chunks)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (tmp_path / "file").touch()
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="rows cannot be kept in .*TL_HUB_CACHE") as unwritable:
        on_disk.written(chunks)
    assert all("\n" not in str(error.value) for error in (full, unwritable))
    assert len(on_disk.written(chunks[:1])) == 25, "what is few needs no disk"


def test_numbers_and_groups():
    arrays = [np.arange(i, dtype=np.int32) for i in range(60)]
    assert on_disk.numbers(iter(arrays)).tolist() == np.concatenate(arrays).tolist()
    texts = np.random.default_rng(0).integers(30, size=120).astype(str).tolist()
    order = list(dict.fromkeys(texts))
    groups = on_disk.groups(on_disk.Cells(Dataset.from_dict({"text": texts}), "text"))
    assert groups.tolist() == [order.index(text) for text in texts]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@hypothesis.given(st.lists(JSON, max_size=4), st.booleans(), st.sampled_from(["", ",", "{", "]", "x", '"']), st.data())
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=150)
def test_a_list_of_json_is_read_in_blocks_as_it_would_be_whole(monkeypatch, entries, indented, fault, draw):
    """Also where one letter is another: it is refused with the same message, line and column."""
    monkeypatch.setattr(row_files, "_BLOCK", 7)
    text = json.dumps(entries, indent=1 if indented else None, ensure_ascii=not indented)
    assert list(row_files._entries(io.StringIO(text))) == entries
    place = draw.draw(st.integers(1, len(text) - 1))
    text = text[:place] + fault + text[place + 1 :]
    try:
        expected: Any = json.loads(text)
    except json.JSONDecodeError as error:
        expected = f"line {error.lineno} is not JSON ({error.msg} at column {error.colno}); one object a line is read"
    try:
        found: Any = list(row_files._entries(io.StringIO(text)))
    except ValueError as error:
        found = str(error)
    assert found == expected


WORDS = (
    "the river rises in the hills and ends in the sea , where a baker sells bread to her brother each morning".split()
)


def sentence(i: int) -> str:
    """About 350 letters, another one for each number."""
    return " ".join([f"{i}", *(WORDS[(i + j * (1 + i % 7)) % len(WORDS)] for j in range(70)), "."])


def tagged(i: int) -> dict[str, Any]:
    words = sentence(i).split()
    return {"tokens": words, "tags": ["B-number", *["O"] * (len(words) - 1)]}


def asked(i: int) -> dict[str, Any]:
    context = sentence(i)
    return {"question": f"What is {i}?", "context": context, "answers": {"text": [context[:1]], "answer_start": [0]}}


def generated(rows: int, encoded: Dataset) -> dict[str, np.ndarray]:
    return {"generated": np.random.default_rng(0).integers(20, 90, size=(rows, 8))}


def nothing_found(rows: int, encoded: Dataset) -> dict[str, np.ndarray]:
    names, windows = ("span", "null", "log_total", "start", "end"), len(encoded)
    start = np.array(encoded["context_start"][:])
    return {name: np.zeros(windows) for name in names[:3]} | {"start": start, "end": start}


TASKS: dict[str, tuple[str, Task, Callable[[int], dict[str, Any]], Callable[[int, Dataset], dict[str, np.ndarray]]]] = {
    "classification": (
        "bert",
        Classification(),
        lambda i: {"text": sentence(i), "label": "ab"[i % 2]},
        lambda rows, encoded: {"logits": np.random.default_rng(0).random((len(encoded), 2))},
    ),
    "several labels": (
        "bert",
        Classification(),
        lambda i: {"text": sentence(i), "label": ["a", "b", "c"][: 1 + i % 3]},
        lambda rows, encoded: {"logits": np.random.default_rng(0).random((len(encoded), 3))},
    ),
    "regression": (
        "bert",
        Classification(),
        lambda i: {"text": sentence(i), "label": i / 7},
        lambda rows, encoded: {"logits": np.random.default_rng(0).random((len(encoded), 1))},
    ),
    "entities": (
        "bert",
        TokenClassification(),
        tagged,
        lambda rows, encoded: {n: np.zeros((len(encoded), 256), np.int8) for n in ("tag", "score")},
    ),
    "questions": ("bert", QuestionAnswering(), asked, nothing_found),
    "summarization": (
        "t5",
        Summarization(max_target_length=8),
        lambda i: {"text": sentence(i), "summary": f"number {i} ends"},
        generated,
    ),
    "translation": (
        "gpt2",
        Translation(max_target_length=8),
        lambda i: {"translation": {"en": sentence(i), "de": f"Zahl {i} endet"}},
        generated,
    ),
    "extractive summarization": (
        "bert",
        ExtractiveSummarization(summary_sentences=1),
        lambda i: {"text": sentence(i), "summary": f"number {i} ends"},
        lambda rows, encoded: {"logits": np.zeros((len(encoded), 1))},
    ),
    **{
        type(task).__name__: (
            family,
            task,
            lambda i: {"text": sentence(i)},
            lambda rows, encoded: {name: np.ones(len(encoded), np.float32) for name in ("loss", "tokens")},
        )
        for family, task in (
            ("bert", MaskedLanguageModeling()),
            ("gpt2", CausalLanguageModeling()),
            ("t5", SpanCorruption()),
            ("xlnet", PermutationLanguageModeling()),
            ("gpt2", TextGeneration()),
        )
    },
}
"""By name: family, task, the row of a number, and some predictions for encoded rows."""


@contextlib.contextmanager
def measured(peaks: dict[str, list[float]], stage: str) -> Iterator[None]:
    """The most that Python's objects and numpy's arrays take more than before, and what Arrow's do at the end."""
    gc.collect()
    tracemalloc.reset_peak()
    before, of_arrow = tracemalloc.get_traced_memory()[0], pa.total_allocated_bytes()
    yield
    after = tracemalloc.get_traced_memory()[1] - before, pa.total_allocated_bytes() - of_arrow
    peaks.setdefault(stage, []).append(max(after[0], 0) + max(after[1], 0))


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_no_text_and_no_token_of_a_row_stays_in_memory(tmp_path, checkpoints, name, monkeypatch):
    """A row of these takes 400 bytes as a text, and 800 or more as token ids: memory may grow by less, for numbers.

    What something else takes meanwhile, such as a module that is imported, it does not take a second time.
    """
    monkeypatch.setattr("tl_hub.metrics._SENTENCES", 25)
    monkeypatch.setattr("tl_hub.tasks.classification.regression._RESAMPLES", 1)  # which it draws by the million
    monkeypatch.setattr(data, "unknown_share", lambda *_: 0.0)  # it looks at the first 10,000 rows, and no more
    for most in ("MOST_TRAINED", "MOST_MEASURED"):  # rows of which near-duplicates are looked for
        monkeypatch.setattr(overlap, most, 10)
    # Both splits are read and encoded. sacreBLEU remembers up to 65,536 sentences.
    limits = {"check": 2 * 300, "encode": 2 * 300, "score": 2000 if name == "translation" else 400}
    for _ in range(2):
        grown = bytes_a_row(tmp_path, checkpoints, name)
        above = {stage: f"{found:.0f} bytes a row" for stage, found in grown.items() if found > limits[stage]}
        if not above:
            return
    raise AssertionError(above)


def bytes_a_row(folder: Path, checkpoints: Callable[..., Any], name: str) -> dict[str, float]:
    """What memory grows by, by stage, from 150 rows to 300."""
    family, given, row, predictions = TASKS[name]
    peaks: dict[str, list[float]] = {}
    counts = (20, 150, 300)  # the first one imports; of the second, blocks of tokens are several chunks
    model, tokenizer = checkpoints(family, given.class_for(family))
    for count in counts:
        path = folder / f"{count}.jsonl"
        path.write_text("".join(json.dumps(row(i)) + "\n" for i in range(count)))
        tracemalloc.start()
        try:
            with measured(peaks, "check"):
                rows, task = data.load(RunConfig(train_file=str(path), validation_file=str(path)), given)
                overlap.count(rows, task)
            task.adapt(tokenizer, model)
            with measured(peaks, "encode"):
                data.encode(rows, task, tokenizer, model)
            measured_rows, encoded = rows.splits["validation"].rows, rows.splits["validation"].encoded
            assert encoded is not None and len(measured_rows) == count
            found = predictions(count, encoded)
            with measured(peaks, "score"):
                score = task.score(found, measured_rows, encoded, None)
            assert score.metrics
        finally:
            tracemalloc.stop()
    more = counts[2] - counts[1]
    return {stage: (found[2] - found[1]) / more for stage, found in peaks.items()}
