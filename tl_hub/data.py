"""Rows: where they come from, whether they are what the task needs, and in which order they are trained on."""

import hashlib
import itertools
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import datasets
import httpx2
import numpy as np
from datasets import Dataset, IterableDataset
from datasets.exceptions import DatasetsError

from tl_hub import hub, on_disk, row_files, samples, shown_rows
from tl_hub.config import RunConfig
from tl_hub.errors import UserError, first_line
from tl_hub.held_out import hold_out, in_proportion
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_disk import each
from tl_hub.streaming import Place, Stream
from tl_hub.tokenizer import unknown_share

if TYPE_CHECKING:
    from tl_hub.tasks.base import Task

_UNKNOWN = 0.05
"""Share of unknown tokens above which a note says so: a rare sign is no matter, a script is."""
SPLITS = ("train", "validation", "test")


@dataclass
class Split:
    """One part of the data: its rows as the user wrote them and, once encoded, as the model reads them.

    Of a row there are as many encoded ones as it has windows, or sentences of which a summary is chosen.
    """

    rows: Dataset
    encoded: Dataset | None = None


@dataclass
class Data:
    """Rows by split, and where they came from.

    Attributes:
        source: Hub id, `sample:<task>` or the names of the files; never a path.
        kind: where `source` is to be looked for.
        revision: commit of the Hub data set.
        held_out: `train` where the validation rows were cut from the training rows.
        notes: what was left out or cut and a reader must know, in whole sentences.
        overlaps, near_duplicates: what `overlap.count` has counted, by split.
        others: rows of other domains that the trained model is also measured on, each with one split.
        name: what the run calls rows of another domain.
        written: how those are written, where otherwise than the run's own: settings by name.
        stream: where the training rows are from, if those of the split are only the first ones.
    """

    splits: dict[str, Split]
    source: str
    kind: Literal["hub", "embedded", "local"]
    revision: str | None = None
    license: str | None = None
    held_out: bool = False
    notes: list[str] = field(default_factory=list)
    overlaps: dict[str, int] = field(default_factory=dict)
    near_duplicates: dict[str, int] = field(default_factory=dict)
    others: "list[Data]" = field(default_factory=list)
    name: str = ""
    written: dict[str, str] = field(default_factory=dict)
    stream: Stream | None = None

    @property
    def final(self) -> str:
        """The split that the reported numbers come from."""
        return "test" if "test" in self.splits else "validation"


class TaskSettings(Protocol):
    """What a run is asked to learn: a task, or the settings of one that depends on the family of the model."""

    def of_run(self, run: RunConfig) -> "Task": ...


def load(run: RunConfig, settings: TaskSettings, training: bool = True) -> "tuple[Data, Task]":
    """Read the rows a run asks for and check every one before any training.

    With `train_draw` the training rows are put into a random order first. Without validation rows a part of the
    training rows is held out, as `held_out.hold_out` says. Rows beyond
    `train_rows`, `validation_rows` and `test_rows` are left out after the check, and after rows of one text have been
    put together where the task measures them so. With `streaming`, only so many training rows are read and checked now,
    and the rows before them are held out, a tenth as many or `validation_rows`.

    Args:
        training: False where rows are only measured, so that there need be no training rows.

    Returns:
        The rows, and the task with what it learned from them.

    Raises:
        UserError: nothing there, not readable, a column missing, a setting without effect, or rows that the task
            refuses.
    """
    for name in ("validation_file", "test_file"):
        if training and getattr(run, name) and not run.train_file:
            raise UserError(f"--{name} needs --train_file; a --dataset brings its own splits")
    task = settings.of_run(run)
    data = read(run, run.dataset or f"sample:{task.sample}", task)
    if run.streaming and training:
        _check_streaming(data, task)
    if data.stream and "validation" not in data.splits and (training or "test" not in data.splits):
        held = data.stream.hold_out(run.validation_rows or max(1, data.stream.size // 10))
        data.splits["validation"], data.held_out = Split(held), True
    check(data, task)
    if data.stream and training:
        data.splits = {"train": Split(data.stream.begin(task)), **data.splits}
        data.notes += _notes_of_stream(data, data.stream)
    if training and "train" not in data.splits:
        raise UserError(f"{data.source} has no train split; it has {', '.join(data.splits)}")
    if run.train_draw is not None and "train" in data.splits:
        rows = data.splits["train"].rows
        data.splits["train"].rows = rows.select(in_proportion(rows, run.train_draw))
    if "validation" not in data.splits and (training or "test" not in data.splits):
        _hold_out(data, run)
    for name in data.splits:
        # Where validation rows are held out, training rows were cut before, so that each class keeps one.
        limit = None if name == "train" and data.held_out else getattr(run, f"{name}_rows")
        cut(data, name, task, limit)
    if run.eval_on:
        from tl_hub import other_domains  # which reads by this module

        data.others = other_domains.load(run, task)
    shown_rows.check(run, data, task)
    learnt = {"train": data.splits[data.final].rows}  # unless there are training rows
    elsewhere = {other.name: other.splits[other.final].rows for other in data.others}
    return data, task.learn(learnt | {name: split.rows for name, split in data.splits.items()} | elsewhere)


def _hold_out(data: Data, run: RunConfig) -> None:
    """
    Raises:
        UserError: there are too few rows.
    """
    rows = data.splits["train"].rows
    if len(rows) < 10:
        raise UserError(f"{data.source} has {len(rows)} rows and no validation rows; give --validation_file")
    data.splits["train"].rows, held = hold_out(rows, run.train_rows)
    data.splits["validation"], data.held_out = Split(held), True


def _check_streaming(data: Data, task: "Task") -> None:
    """
    Raises:
        UserError: the rows are no stream, or the task must see all of them before training.
    """
    from tl_hub.tasks.base import Task

    if data.kind == "embedded":
        raise UserError(f"--streaming is for rows of files and of the Hub, and {data.source} is embedded; omit it")
    if type(task).learn is not Task.learn:
        raise UserError(
            f"--streaming: {task.name} takes its classes from all training rows before training; omit it, and give "
            "--train_rows where the disk is too small"
        )


def _notes_of_stream(data: Data, stream: Stream) -> list[str]:
    notes = [
        f"The training rows are a stream, of which each epoch trains on the next {stream.size:,}, as the model reads "
        f"them; what is said of them before training, such as repeated rows, is of the first {stream.size:,}."
    ]
    if data.held_out:
        notes.append(f"The validation rows are the first {stream.start['row']:,} rows, which are never trained on.")
    if stream.blank:
        notes.append(f"Blank rows are left out, {stream.blank:,} so far.")
    return notes


def check(data: Data, task: "Task") -> None:
    """Let the task check the rows of each split; those that are blank, and splits without answers, are left out.

    Raises:
        UserError: rows are not what the task can read.
    """
    for name, split in [*data.splits.items()]:
        given = len(split.rows)
        try:
            split.rows = task.check(split.rows)
        except UserError as error:
            raise UserError(f"{name} rows of {data.source}: {error}") from error
        if 0 < len(split.rows) < given:
            blank = given - len(split.rows)
            was = "was" if blank == 1 else "were"
            data.notes.append(f"{blank:,} of {given:,} rows of the {name} split {was} blank and left out.")
        if name != "train" and len(split.rows) == 0:
            del data.splits[name]
            data.notes.append(f"The answers of the {name} split are hidden, so it was left out.")


def cut(data: Data, name: str, task: "Task", limit: int | None) -> None:
    """Leave the first rows of a checked split, after those of one text are together where the task measures them so."""
    split = data.splits[name]
    checked = len(split.rows)
    split.rows = split.rows if name == "train" else task.rows_to_measure(split.rows)
    if len(split.rows) < checked:
        data.notes.append(
            f"The {checked:,} rows of the {name} split are of {len(split.rows):,} texts: each is measured once, "
            "against all of its references."
        )
    if limit is not None and limit < len(split.rows):
        split.rows = split.rows.select(range(limit))


def encode(data: Data, task: "Task", tokenizer: Tokenizer, model: Model) -> None:
    """Give every split its encoded rows: tokenized, with a `length` (tokens) and an `index` each.

    The training rows come first: a task may learn from them how to read the others, and from no others.
    """
    for name in (name for name in SPLITS if name in data.splits):
        split = data.splits[name]
        if name == "train" and data.stream:
            encoded = read_on(data, data.stream.start, task, tokenizer, model)
        else:
            split.encoded = encoded = _numbered(task.encode(split.rows, tokenizer, model))
        data.notes.extend(f"In the {name} split, {note}." for note in task.notes(encoded))
        share = unknown_share(tokenizer, encoded) if name == "train" else 0.0
        if share > _UNKNOWN:
            data.notes.append(
                f"{100 * share:.0f} % of the tokens of the training rows are unknown to the tokenizer, so the model "
                "does not see what stands there; a --model whose vocabulary is of their language does."
            )
    for other in data.others:
        encode(other, task, tokenizer, model)


def read_on(data: Data, place: Place, task: "Task", tokenizer: Tokenizer, model: Model) -> Dataset:
    """Let the encoded rows of a stream from a place on be those of the training split, in place of the ones before.

    Raises:
        UserError: as `Stream.encoded`.
    """
    split = data.splits["train"]
    assert data.stream
    split.encoded = None  # off the disk
    split.encoded = _numbered(data.stream.encoded(place, task, tokenizer, model))
    return split.encoded


def _numbered(encoded: Dataset) -> Dataset:
    # By default the fingerprint is a hash of the column.
    return encoded.add_column("index", np.arange(len(encoded)), new_fingerprint=uuid.uuid4().hex)


def fingerprint(rows: Dataset) -> str:
    """SHA-256 over the rows in their order, the same for the same rows from any kind of file."""
    digest = hashlib.sha256()
    for row in each(rows):
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def read(run: RunConfig, name: str, task: "Task") -> Data:
    """The rows of `run`'s files or, without any, of the data set `name`, as they are; no training rows of a stream.

    Raises:
        UserError: nothing there, or not readable.
    """
    files = {split: path for split in SPLITS if (path := getattr(run, f"{split}_file"))}
    for setting in ("dataset_config", "dataset_revision"):
        if getattr(run, setting) and (files or name.startswith("sample:") or Path(name).is_dir()):
            raise UserError(f"--{setting} is for data sets on the Hub, and these rows are not; omit it")
    if files:
        return _of_files(files, ", ".join(Path(path).name for path in files.values()), run, task)
    if name.startswith("sample:"):
        rows = samples.load(name.removeprefix("sample:"))
        parts = {split: Split(Dataset.from_list(part)) for split, part in rows.items()}
        return Data(parts, name, "embedded", license="apache-2.0")
    if Path(name).is_dir():
        found: dict[str, str] = {}
        kinds = row_files.kinds(task.readers)
        for path in sorted(Path(name).iterdir()):
            split = path.name.split(".")[0]
            if split in SPLITS and row_files.suffix(path) in kinds:
                if split in found:
                    raise UserError(
                        f"--dataset {name} holds {Path(found[split]).name} and {path.name}; leave one of them"
                    )
                found[split] = str(path)
        if not found:
            raise UserError(f"--dataset {name} holds no file named train, validation or test ({', '.join(kinds)})")
        return _of_files({s: found[s] for s in SPLITS if s in found}, Path(name).resolve().name, run, task)
    facts = hub.dataset_facts(name, run.dataset_revision)
    data = Data({}, name, "hub", revision=facts.revision, license=facts.license)
    try:
        loaded = datasets.load_dataset(
            name, run.dataset_config, revision=facts.revision, streaming=run.streaming is not None
        )
        for split in (split for split in SPLITS if split in loaded):
            if run.streaming is None:
                data.splits[split] = Split(loaded[split])
            elif split == "train":
                data.stream = Stream(loaded[split], run.streaming, name)
            else:
                read = itertools.islice(loaded[split], getattr(run, f"{split}_rows"))
                data.splits[split] = Split(on_disk.written(on_disk.columns(read)))
    except (DatasetsError, OSError, ValueError, RuntimeError, httpx2.TransportError) as error:
        raise UserError(f"--dataset {name} cannot be loaded: {first_line(error)}") from error
    return data


def _of_files(files: dict[str, str], source: str, run: RunConfig, task: "Task") -> Data:
    """The rows of files by split.

    Raises:
        UserError: as `row_files.read`.
    """
    data = Data({}, source, "local")
    for split, path in files.items():
        if run.streaming and split == "train":
            given: dict[str, Any] = {"path": path, "run": run, "readers": task.readers}
            next(row_files.each(**given), None)  # what is wrong with its beginning is said before anything else
            data.stream = Stream(
                IterableDataset.from_generator(row_files.each, gen_kwargs=given), run.streaming, source
            )
        else:
            data.splits[split] = Split(row_files.read(path, run, task.readers))
    data.notes = row_files.separators(map(Path, files.values()), run)
    return data
