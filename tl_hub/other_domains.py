"""Rows of other domains that a trained model is also measured on: what `--eval_on` names."""

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_hub import data, row_files
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.domain_sources import Source, sources
from tl_hub.errors import UserError

if TYPE_CHECKING:
    from tl_hub.tasks.base import Task


_OF_FILES = ("encoding", "delimiter", "dataset_config", "dataset_revision")
"""Settings of a run that say how rows are written."""


def load(run: RunConfig, task: "Task") -> list[Data]:
    """The rows that `run.eval_on` names, checked as the run's own were, each with the split that is measured.

    Rows beyond `test_rows` are left out.

    Args:
        task: which has read the run's own rows.

    Raises:
        UserError: nothing there, not readable, only training rows, rows that the task refuses, a setting that says
            nothing of how they are written, or two domains of one name.
    """
    found: list[Data] = []
    for source in sources(run.eval_on or ""):
        other = read(source, run, task)
        if other.name in [*data.SPLITS, *(known.name for known in found)]:
            raise UserError(f"--eval_on: {other.name} cannot be told from other rows; give a name, as in other=DATA")
        found.append(other)
    return found


def read(source: Source, run: RunConfig, task: "Task") -> Data:
    """The rows of one domain, as `load` says."""
    reading = as_written(task, source.written)
    other = data.read(_run_of(run, source, reading), source.place, reading)
    other.splits = {name: split for name, split in other.splits.items() if name != "train"}
    other.name, other.written = source.name or other.source, source.written
    data.check(other, reading)
    if not other.splits:
        raise UserError(f"--eval_on: {other.source} has no test rows with answers; give a file of some")
    other.splits = {other.final: other.splits[other.final]}
    data.cut(other, other.final, task, run.test_rows)
    return other


def as_written(task: "Task", written: Mapping[str, str]) -> "Task":
    """The task, as it is by now, reading rows whose columns have other names.

    Raises:
        UserError: it reads no such column.
    """
    there = [field.name for field in fields(task) if field.metadata["reads"] and field.name.endswith("_column")]
    there = [name for name in there if getattr(task, name) is not None]
    allowed = [*there, *_OF_FILES]
    reading = copy.copy(task)
    for name, value in written.items():
        if name not in allowed:
            raise UserError(
                f"{name} does not say how rows of another domain are written; allowed are {', '.join(allowed)}"
            )
        if name not in _OF_FILES:
            setattr(reading, name, value)
    return reading


def _run_of(run: RunConfig, source: Source, task: "Task") -> RunConfig:
    """The run, with these rows for its own."""
    path, kinds = Path(source.place), row_files.kinds(task.readers)
    is_file = path.is_file() or (row_files.suffix(path) in kinds and not path.is_dir())
    settings: dict[str, Any] = dict.fromkeys(("train_file", "validation_file", "test_file", "dataset", "eval_on"))
    settings |= {"dataset_config": None, "dataset_revision": None, "streaming": None}
    settings["test_file" if is_file else "dataset"] = source.place
    return replace(run, **settings | {name: source.written[name] for name in _OF_FILES if name in source.written})
