"""Rows of a stream: those of the files in their order, and the same in a run that was interrupted anywhere."""

import gc
import io
import itertools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import IterableDataset, load_dataset
from hypothesis import strategies as st
from safetensors.torch import load_file

from tests.hub_server import File, Repo
from tests.test_training import go, interrupt_after, interrupting, log, weights
from tl_hub import data, launch, on_disk
from tl_hub.batches import GlobalBatches, Reader
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.evaluation import remeasure
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.head_only import HeadOnly
from tl_hub.record import RunRecord
from tl_hub.streaming import Stream
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.language_modeling import CausalLanguageModeling, MaskedLanguageModeling, SpanCorruption
from tl_hub.tasks.sequence_to_sequence import Translation
from tl_hub.tasks.text_generation import TextGeneration

__all__ = ["interrupting"]  # a fixture

WORDS = "the river rises in the hills and ends in the sea where a baker sells bread to her brother".split()


def text(i: int) -> str:
    """One to three windows of 16 tokens; every ninth is blank."""
    return (
        " " * (i % 3) if i % 9 == 8 else " ".join([str(i), *(WORDS[(i * j) % len(WORDS)] for j in range(i * 7 % 30))])
    )


@pytest.fixture(autouse=True)
def few_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_disk, "ROWS", 7)
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of 60 rows, of which 54 have a text."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text(i)}) + "\n" for i in range(60)))
    return path


@pytest.fixture
def run(tmp_path: Path, rows: Path, checkpoint_folders: Any) -> RunConfig:
    """Four epochs of 24 windows, three steps each: the second or third time around, the stream has begun again."""
    return RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), train_file=str(rows), streaming=24,
        validation_rows=5, epochs=4, batch_size=8, learning_rate=1e-3, precision="fp32",
    )  # fmt: skip


def windows(texts: list[str], tokenizer: Any, size: int) -> list[list[int]]:
    """Of masked language modelling: each text is cut by itself."""
    room = size - 2
    cut = [tokenizer(each, add_special_tokens=False)["input_ids"] for each in texts if each.strip()]
    return [
        [tokenizer.cls_token_id, *ids[i : i + room], tokenizer.sep_token_id]
        for ids in cut
        for i in range(0, len(ids), room)
    ]


@hypothesis.given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 14), st.integers(0, 9))
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture], max_examples=15)
def test_each_epoch_has_the_next_rows_of_the_files(tmp_path, checkpoints, sizes, size, held):
    """Of any number of files, row groups and windows. From any place it goes on as if it had come there itself."""
    model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    names = [str(tmp_path / f"{place}.parquet") for place in range(len(sizes))]
    texts, left = [text(i) for i in range(sum(sizes))], iter(range(sum(sizes)))
    for name, count in zip(names, sizes, strict=True):
        pq.write_table(pa.table({"text": [text(i) for i in itertools.islice(left, count)]}), name, row_group_size=5)
    task, expected = MaskedLanguageModeling(max_length=16), windows(texts[held:], tokenizer, 16)

    def stream() -> Stream:
        found = Stream(load_dataset("parquet", data_files=names, split="train", streaming=True), size, "rows")
        if held:
            assert found.hold_out(held)["text"][:] == texts[:held]
        assert found.begin(task)["text"][:] == [each for each in texts[held:] if each.strip()][:size]
        return found

    if len(expected) < size:
        with pytest.raises(UserError) as refused:
            one = stream()
            one.encoded(one.start, task, tokenizer, model)
        least = f"--streaming {size}: rows has {len(expected)} training rows"
        assert (
            least if any(map(str.strip, texts[held:])) else f"no training rows behind the {min(held, len(texts))}"
        ) in (str(refused.value))
        return
    one, place, rounds = stream(), None, itertools.cycle(expected)
    for _ in range(5):
        epoch = [next(rounds) for _ in range(size)]
        encoded = one.encoded(place or one.start, task, tokenizer, model)
        assert encoded["input_ids"][:] == epoch
        place, other = json.loads(json.dumps(one.behind)), stream()
        assert (
            one.encoded(place, task, tokenizer, model)["input_ids"][:]
            == (other.encoded(place, task, tokenizer, model)["input_ids"][:])
        )


@pytest.mark.slow
def test_steps_train_on_them_in_an_order_of_the_epoch_and_never_on_those_held_out(run, rows, tmp_path, monkeypatch):
    """While rows are read, those of the epoch before are on the disk no more."""
    seen: dict[bool, list[list[int]]] = {True: [], False: []}
    there = list[int]()
    batch, encode = Reader.batch, MaskedLanguageModeling.encode

    def noted(reader: Reader, numbers: Any, *draw: Any, **options: Any) -> Any:
        seen[reader.training] += [reader.encoded[int(number)]["input_ids"] for number in numbers]
        return batch(reader, numbers, *draw, **options)

    def watched(task: MaskedLanguageModeling, *given: Any) -> Any:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().splitlines() if sys.platform == "linux" else []
        there.append(len({line.split()[-2] for line in maps if str(tmp_path / "cache") in line}))
        return encode(task, *given)

    monkeypatch.setattr(Reader, "batch", noted)
    monkeypatch.setattr(MaskedLanguageModeling, "encode", watched)
    _, history, experiment = go(run, task=MaskedLanguageModeling(max_length=16))
    stream = itertools.cycle(windows([text(i) for i in range(5, 60)], experiment.tokenizer, 16))
    expected = []
    for epoch in range(4):
        chunk = [next(stream) for _ in range(24)]
        order = GlobalBatches([len(each) for each in chunk], 8, run.seed).of_epoch(epoch)
        expected += [chunk[row] for step in order for row in step]
    assert seen[True] == expected
    never = windows([text(i) for i in range(5)], experiment.tokenizer, 16)
    assert sorted(seen[False]) == sorted(4 * never)
    assert history.step == 12
    # Beside the file that is written there are the first rows; once, for the validation rows, the encoded ones too.
    assert sum(files > 1 for files in there) <= 1
    assert {name: len(split.encoded) for name, split in experiment.rows.splits.items()} == {
        "train": 24, "validation": len(never),
    }  # fmt: skip
    assert len(experiment.rows.splits["train"].rows) == 24


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "task", "step"),
    [
        pytest.param("bert", MaskedLanguageModeling(max_length=16), 2, id="first-epoch"),
        pytest.param("gpt2", TextGeneration(max_length=16), 5, id="second-epoch"),
        pytest.param("t5", SpanCorruption(max_length=16), 6, id="between-epochs"),
        pytest.param("bert", MaskedLanguageModeling(max_length=16), 11, id="second-round"),
    ],
)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(run, tmp_path, checkpoint_folders, family, task, step):
    run = replace(run, model=str(checkpoint_folders(family)))
    whole, history, _ = go(run, task=task)
    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, step)
    with pytest.raises(RunStopped, match="--resume"):
        go(cut, task=task)
    resumed, again, _ = go(replace(cut, resume=True), task=task)
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())
    assert (again.epochs, again.best_epoch, again.place) == (history.epochs, history.best_epoch, history.place)
    assert again.place["row"] > 0
    steps = [[{**line, "rows_per_second": 0} for line in log(each)] for each in (cut, run)]
    assert steps[0] == steps[1]


@pytest.mark.slow
def test_a_row_further_on_that_cannot_be_read_keeps_the_state(run, rows, tmp_path):
    """One line; once it is mended the run goes on, and ends as one of the mended file."""
    task = MaskedLanguageModeling(max_length=16)
    mended = rows.read_text()
    whole, _, _ = go(replace(run, output_dir=str(tmp_path / "whole")), task=task)
    rows.write_text(mended.replace('{"text": "40 ', '{"text": 40 '))
    with pytest.raises(RunStopped) as stop:
        go(run, task=task)
    assert "rows.jsonl cannot be read: line 41 is not JSON" in str(stop.value)
    assert "the state of step 6 is kept" in str(stop.value) and "\n" not in str(stop.value)
    assert stop.value.exit_code == 1 and len(log(run)) == 6
    rows.write_text(mended)
    with pytest.raises(UserError, match="--streaming 24, not 23"):
        go(replace(run, resume=True, streaming=23), task=task)
    resumed, _, _ = go(replace(run, resume=True), task=task)
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())


@pytest.mark.slow
def test_a_streamed_run_says_so_and_is_measured_anew(run, rows, tmp_path, recipe_here, load_back_here):
    """Its validation rows are found at the beginning of the stream."""
    flags = ("--model", run.model, "--train_file", rows, "--streaming", "24", "--max_length", "16", "--batch_size", "8")
    given = (*flags, "--validation_rows", "5", "--epochs", "2", "--output_dir", tmp_path / "run")
    checked = recipe_here("text_generation_finetune", *given, "--model", "tiny:gpt2", "--check")
    assert checked.returncode == 0, checked.stderr
    assert "would be trained in 6 steps" in checked.stdout + checked.stderr
    assert re.search(r"the rows of an epoch take 0\.\d MiB of the disk", checked.stdout + checked.stderr)
    done = recipe_here("continued_pretraining_finetune", *given)
    assert done.returncode == 0, done.stderr
    record = RunRecord.load(tmp_path / "run")
    assert record.settings["streaming"] == 24
    assert {name: split.rows for name, split in record.data.splits.items()} == {"train": 24, "validation": 5}
    card = (tmp_path / "run" / "README.md").read_text()
    assert "each epoch trains on the next 24" in card and "first 5 rows" in card
    anew = remeasure(tmp_path / "run", train_file=str(rows))
    assert anew["same_rows"] and all(metric["holds"] for metric in anew["metrics"])
    assert anew["metrics"][0]["found"] == pytest.approx(record.metrics[0].value, rel=1e-5)


def test_rows_are_read_no_further_than_they_are_needed(checkpoints):
    model, tokenizer = checkpoints("gpt2", "AutoModelForCausalLM")
    given = list[int]()

    def endless():
        for i in itertools.count():
            given.append(i)
            yield {"text": text(i)}

    stream, task = Stream(IterableDataset.from_generator(endless), 20, "rows"), CausalLanguageModeling(max_length=16)
    stream.begin(task)
    assert len(given) == 28, "no more than seven rows beyond the 20"
    for _ in range(4):
        assert len(stream.encoded(stream.behind, task, tokenizer, model)) == 20
        assert len(given) <= max(28, stream.behind["row"] + 7)
    assert given == [*range(len(given))], "each was read once"


def test_what_fails_is_not_taken_for_the_end(checkpoints):
    model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    down, task = [True], MaskedLanguageModeling()

    def rows():
        for i in range(40):
            if i == 25 and down:
                raise OSError("the line is down")
            yield {"text": str(i)}

    stream, found = Stream(IterableDataset.from_generator(rows), 10, "rows"), list[list[int]]()
    stream.begin(task)
    for epoch in range(4):
        if epoch == 2:
            with pytest.raises(UserError, match="rows cannot be read from row 21 on: the line is down"):
                stream.encoded(stream.behind, task, tokenizer, model)
            down.clear()
        found += stream.encoded(stream.behind, task, tokenizer, model)["input_ids"][:]
    assert found == windows([str(i) for i in range(40)], tokenizer, 256)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"train_file": None}, MaskedLanguageModeling(), "sample:text is embedded; omit it"),
        ({}, Classification(), "takes its classes from all training rows"),
        ({"streaming": 300}, MaskedLanguageModeling(max_length=16), "--streaming 300: rows.jsonl has "),
        ({"validation_rows": 60}, MaskedLanguageModeling(), "no training rows behind the 60 that are held out"),
        ({}, MaskedLanguageModeling(text_column="words"), "no column 'words' in the data, which has text"),
        ({"train_file": "none.jsonl"}, MaskedLanguageModeling(), "none.jsonl: no such file"),
    ],
)
def test_what_cannot_be_streamed_is_refused_in_one_line(run, checkpoints, settings, task, message):
    with pytest.raises(UserError) as refused:
        rows, task = data.load(replace(run, **settings), task)
        model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
        data.encode(rows, task, tokenizer, model)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("settings", [{"train_rows": 10}, {"train_draw": 1}, {"streaming": 0}])
def test_settings_that_exclude_a_stream(run, settings):
    with pytest.raises(UserError, match="--streaming"):
        replace(run, **settings)


@pytest.mark.parametrize("method", [FeatureExtraction(), HeadOnly()])
def test_a_method_that_reads_all_rows_takes_no_stream(run, method):
    with pytest.raises(UserError, match="--streaming has no effect with feature extraction"):
        launch.check(run, method)


def test_pairs_are_streamed_too(tmp_path, run, checkpoints):
    pairs = [{"translation": {"en": f"{i}", "de": f"{i + 1}"}} for i in range(30)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    model, tokenizer = checkpoints("t5", "AutoModelForSeq2SeqLM")
    found, task = data.load(
        replace(run, train_file=str(path), streaming=10), Translation(source_language="en", target_language="de")
    )
    task.adapt(tokenizer, model)
    data.encode(found, task, tokenizer, model)
    again = data.read_on(found, found.stream.behind, task, tokenizer, model)
    first = task.encode(found.splits["train"].rows, tokenizer, model)
    whole = task.check(on_disk.written(on_disk.columns(pairs)))
    expected = task.encode(whole.select(range(5, 25)), tokenizer, model)["input_ids"][:]
    assert [*first["input_ids"][:], *again["input_ids"][:]] == expected


def test_a_data_set_of_the_hub_is_streamed_from_the_commit_that_the_run_began_with(
    hub, run_script, checkpoint_folders, tmp_path
):
    """The Hub fails in the second epoch. Then the data set has another commit, with the same first rows."""
    hub.repos["dataset", "alice/texts"] = there = Repo("alice/texts", "dataset", private=False)

    def shards(end: int) -> dict[str, File]:
        parts = {f"data/train-{i:05}-of-00003.parquet": range(20 * i, 20 * i + 20) for i in range(3)}
        parts["data/train-00002-of-00003.parquet"] = range(40, end)
        parts["data/validation-00000-of-00001.parquet"] = range(100, 112)
        found = {"README.md": File(b"---\nlicense: mit\n---\n")}
        for name, numbers in parts.items():
            pq.write_table(pa.table({"text": [text(i) for i in numbers]}), file := io.BytesIO())
            found[name] = File(file.getvalue(), lfs=True)
        return found

    first = there.commit("refs/heads/main", shards(60), "", "", "alice")
    flags = (
        "--model", checkpoint_folders("bert"), "--dataset", "alice/texts", "--streaming", "20", "--threads", "1",
        "--max_length", "16", "--epochs", "5", "--batch_size", "8", "--precision", "fp32", "--validation_rows", "6",
    )  # fmt: skip
    name, whole, cut = "continued_pretraining_finetune", tmp_path / "whole", tmp_path / "cut"
    done = run_script(name, *flags, "--output_dir", whole)
    assert done.returncode == 0, done.stderr
    hub.fail("GET .*train-00002", 404, count=10**6)
    failed = run_script(name, *flags, "--output_dir", cut)
    assert failed.returncode == 1, failed.stderr
    assert "alice/texts cannot be read from row " in failed.stderr and "--resume goes on from it" in failed.stderr
    assert "Traceback" not in failed.stderr
    hub.faults.clear()
    there.commit("refs/heads/main", shards(58), "", "", "alice")
    moved = run_script(name, *flags, "--output_dir", cut, "--resume")
    assert moved.returncode == 2 and f"--dataset_revision {first.id}, not " in moved.stderr
    resumed = run_script(name, *flags, "--output_dir", cut, "--resume", "--dataset_revision", first.id)
    assert resumed.returncode == 0, resumed.stderr
    files = [load_file(folder / "model.safetensors") for folder in (whole, cut)]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][weight], files[1][weight]) for weight in files[0])
    record = RunRecord.load(whole)
    assert (record.data.source, record.data.revision, record.data.held_out) == ("hub", first.id, False)
    assert {split: facts.rows for split, facts in record.data.splits.items()} == {"train": 20, "validation": 6}
