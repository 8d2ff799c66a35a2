"""Rows: where they come from, whether they are what the task needs, and in which order they are trained on."""

import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import datasets
import numpy as np
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError

from tl_hub import hub, samples
from tl_hub.config import RunConfig
from tl_hub.errors import UserError

if TYPE_CHECKING:
    from tl_hub.tasks.base import Task

_BUILDERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
SPLITS = ("train", "validation", "test")


@dataclass
class Split:
    """One part of the data: its rows as the user wrote them and, once encoded, the features the model reads."""

    rows: Dataset
    features: Dataset | None = None


@dataclass
class Data:
    """Rows by split, and where they came from.

    Attributes:
        source: Hub id, `sample:<task>` or the names of the files; never a path.
        kind: where `source` is to be looked for.
        revision: commit of the Hub data set.
        held_out: `train` where the validation rows were cut from the training rows.
    """

    splits: dict[str, Split]
    source: str
    kind: Literal["hub", "embedded", "local"]
    revision: str | None = None
    license: str | None = None
    held_out: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def final(self) -> str:
        """The split that the reported numbers come from."""
        return "test" if "test" in self.splits else "validation"


def load(run: RunConfig, task: "Task") -> Data:
    """Read the rows a run asks for and check every one before any training.

    Without validation rows a tenth of the training rows, drawn with the run's seed, is held out. Rows beyond
    `train_rows` and `validation_rows` are left out after the check.

    Raises:
        UserError: nothing there, not readable, a column missing, or rows that the task refuses.
    """
    data = _read(run, run.dataset or f"sample:{task.sample}")
    for split in data.splits.values():
        split.rows = task.check(split.rows)
    if "train" not in data.splits:
        raise UserError(f"{data.source} has no train split; it has {', '.join(data.splits)}")
    if "validation" not in data.splits:
        rows = data.splits["train"].rows
        if len(rows) < 10:
            raise UserError(f"{data.source} has {len(rows)} rows and no validation rows; give --validation_file")
        parts = rows.train_test_split(test_size=max(1, len(rows) // 10), seed=run.seed)
        data.splits["train"].rows, data.splits["validation"] = parts["train"], Split(parts["test"])
        data.held_out = True
    for name, limit in (("train", run.train_rows), ("validation", run.validation_rows)):
        rows = data.splits[name].rows
        if limit is not None and limit < len(rows):
            data.splits[name].rows = rows.select(range(limit))
    return data


def encode(data: Data, task: "Task", tokenizer: Any, model: Any) -> None:
    """Give every split its features: tokenized rows, with a `length` (tokens) and an `index` each."""
    for split in data.splits.values():
        (datasets.enable_progress_bars if len(split.rows) > 10_000 else datasets.disable_progress_bars)()
        features = task.encode(split.rows, tokenizer, model)
        split.features = features.add_column("index", list(range(len(features))))


def fingerprint(rows: Dataset) -> str:
    """SHA-256 over the rows in their order, the same for the same rows from any kind of file."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def overlap(data: Data, task: "Task") -> int:
    """How many rows of the reported split have an input that is also a training input."""
    trained = {task.input_of(row) for row in data.splits["train"].rows}
    return sum(task.input_of(row) in trained for row in data.splits[data.final].rows)


class LengthBuckets:
    """Batches of rows of like length, in an order that is a function of (seed, epoch) alone.

    Rows are shuffled, cut into pools of `pool` batches, sorted by length within a pool and cut into batches, whose
    order is shuffled again: padding stays small, order stays random. Because nothing depends on what was drawn
    before, a resumed run seeks to a batch instead of replaying the ones before it.

    Attributes:
        epoch: whose order the next iteration gives.
        start: how many batches of that epoch the next iteration leaves out.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, pool: int = 50):
        self.lengths, self.batch_size, self.seed, self.pool = np.asarray(lengths), batch_size, seed, pool
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size) - self.start

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(len(self.lengths))
        pooled = self.pool * self.batch_size
        pools = (order[i : i + pooled] for i in range(0, len(order), pooled))
        rows = np.concatenate([pool[np.argsort(-self.lengths[pool], kind="stable")] for pool in pools])
        batches = [rows[i : i + self.batch_size].tolist() for i in range(0, len(rows), self.batch_size)]
        for i in random.permutation(len(batches))[self.start :]:
            yield batches[i]


def _read(run: RunConfig, name: str) -> Data:
    if run.train_file:
        files = {split: getattr(run, f"{split}_file") for split in SPLITS}
        parts = {split: Split(_read_file(path)) for split, path in files.items() if path}
        return Data(parts, ", ".join(Path(path).name for path in files.values() if path), "local")
    if name.startswith("sample:"):
        rows = samples.load(name.removeprefix("sample:"))
        parts = {split: Split(Dataset.from_list(part)) for split, part in rows.items()}
        return Data(parts, name, "embedded", license="apache-2.0")
    if Path(name).is_dir():
        found = {s: p for s in SPLITS for p in sorted(Path(name).iterdir()) if p.name.split(".")[0] == s}
        if not found:
            raise UserError(f"--dataset {name} holds no file named train, validation or test (.jsonl, .csv, .parquet)")
        parts = {split: Split(_read_file(str(path))) for split, path in found.items()}
        return Data(parts, Path(name).resolve().name, "local")
    facts = hub.dataset_facts(name, run.dataset_revision)
    loaded = datasets.load_dataset(name, run.dataset_config, revision=facts.revision)
    parts = {split: Split(loaded[split]) for split in SPLITS if split in loaded}
    return Data(parts, name, "hub", revision=facts.revision, license=facts.license)


def _read_file(path: str) -> Dataset:
    file = Path(path)
    suffix = Path(file.name.removesuffix(".gz")).suffix
    if suffix not in _BUILDERS:
        raise UserError(f"{path}: files of kind {suffix or 'none'} are not read; allowed are {', '.join(_BUILDERS)}")
    if not file.is_file():
        raise UserError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise UserError(f"{path} is empty")
    try:
        rows = datasets.load_dataset(_BUILDERS[suffix], data_files=path, split="train")
    except (DatasetGenerationError, ValueError, OSError) as error:
        raise UserError(f"{path}: {_fault(file, _BUILDERS[suffix], error)}") from error
    if len(rows) == 0:
        raise UserError(f"{path} has no rows")
    return rows


def _fault(file: Path, builder: str, error: Exception) -> str:
    """Name the line of a JSON Lines file that cannot be read; the libraries' messages do not."""
    if builder == "json":
        opener = gzip.open if file.suffix == ".gz" else open
        try:
            with opener(file, "rt", encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip() and not isinstance(json.loads(line), dict):
                        return f"line {number} is not a JSON object"
        except json.JSONDecodeError as fault:
            return f"line {number} is not JSON ({fault.msg} at column {fault.colno}); one object a line is read"
        except (UnicodeDecodeError, EOFError, gzip.BadGzipFile) as fault:
            return f"not readable as UTF-8 text ({fault})"
    return f"not readable as {builder} ({str(error.__cause__ or error).splitlines()[0]})"
