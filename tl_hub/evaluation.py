"""The figures of a run measured anew: whether what its card claims holds for the weights that are there."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from tl_hub import data, finish, inference, other_domains, training
from tl_hub.config import RunConfig
from tl_hub.domain_sources import Source
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.record import Metric, RunRecord, SplitFacts
from tl_hub.tasks.base import Task

CLOSE = 0.05
"""Greatest relative difference of a figure without an interval, which other hardware or half precision may cause."""


def remeasure(
    folder: str | Path, *, label_map: Mapping[str, str] | None = None, **source: str | None
) -> dict[str, Any]:
    """Load a run folder and the rows it was measured on, and compare each figure with the one on record.

    Args:
        label_map: what the model calls the labels of the rows; a label that is not named keeps its name.
        source: where the rows are: `dataset`, or `train_file`, `validation_file` and `test_file`, as of the recipes,
            but that no training rows are needed; the run's own data where there are none and they are embedded or on
            the Hub. A `test_file` is what is measured, else the split that the claims are of, else what other rows
            there are. And how they are written, where otherwise than the run's: `encoding`, and the columns of its
            task.

    Returns:
        `same_rows`: whether the rows are those of the run (None where it did not keep their SHA-256); `metrics`: name,
        `claimed`, `found`, its 95 % interval from `low` to `high`, and whether the claim `holds`: the figure found lies
        in the claimed interval. A claim is about the run's own rows: on others, of another domain say, `holds` is None.
        Where no rows are given, `domains` has the same for each of the run's other domains whose rows can be had, with
        its `name`.

    Raises:
        UserError: the data are not there, or it is a run that can only be measured by its own recipe.
    """
    record = RunRecord.load(folder)
    given = {name: value for name, value in source.items() if value is not None}
    claimed = record.metrics[0].split if record.metrics else "test"
    elsewhere = any(name == "dataset" or name.endswith("_file") for name in given)
    if not elsewhere and record.data.source == "local":
        name = "train" if record.data.held_out and claimed == "validation" else claimed
        raise UserError(f"the rows of {record.name} are in {record.data.id}; give --{name}_file, or their --dataset")
    pipe = inference.pipeline(folder)
    if isinstance(pipe, inference.VectorsPipeline):
        raise UserError(f"{record.name} gives vectors, of which tl_hub has no figure; measure what you use them for")
    task = inference.task_as_recorded(record)
    if not task.measured_anew:
        raise UserError(f"{record.name} can only be measured by the recipe that made it")
    task = _as_written(
        task, {name: value for name, value in given.items() if name not in RunConfig.__dataclass_fields__}
    )
    task.adapt(pipe.tokenizer, pipe.model)
    task = task.recall(pipe.model.config, record.decision, label_map)
    run = _run_as_recorded(record, given, elsewhere)
    rows, task = data.load(run, task, training=False)
    split = _measured_split(rows, record, given, claimed, elsewhere)
    rows.splits = {split: rows.splits[split]}
    data.encode(rows, task, pipe.tokenizer, pipe.model)
    accelerator = Accelerator(mixed_precision={"bf16": "bf16", "fp16": "fp16"}.get(record.cost.precision or "", "no"))
    experiment = Experiment(run, task, None, None, rows, pipe.model, pipe.tokenizer, accelerator)
    claims = [claim for claim in record.metrics if claim.split == claimed]
    found = _measured(experiment, record, split, claims, record.data.splits.get(claimed))
    if elsewhere:
        return found
    return found | {"domains": _domains(experiment, record)}


def _measured(
    experiment: Experiment, record: RunRecord, split: str, claims: Sequence[Metric], known: SplitFacts | None
) -> dict[str, Any]:
    """Figures measured anew beside the `claims`, and whether the rows are the `known` ones."""
    measured = experiment.rows.splits[split]
    score = training.evaluate(experiment, record.decision, split=split)
    same_rows = known.sha256 == data.fingerprint(measured.rows) if known and known.sha256 else None
    there = [claim for claim in claims if claim.name in score.metrics]
    if not there:
        stated = ", ".join(dict.fromkeys(metric.name for metric in record.metrics)) or "none"
        raise UserError(f"of the figures on record ({stated}) none is measured here ({', '.join(score.metrics)})")
    anew = [finish.metric(claim.name, score, split, len(measured.rows), experiment.run.seed) for claim in there]
    metrics = [compared(claim, found, record, same_rows) for claim, found in zip(there, anew, strict=True)]
    return {"same_rows": same_rows, "metrics": metrics}


def _domains(experiment: Experiment, record: RunRecord) -> list[dict[str, Any]]:
    """What `_measured` gives for each of the other domains of a run whose rows are embedded or on the Hub."""
    found = []
    for domain in (domain for domain in record.domains if domain.data.source != "local"):
        written = domain.written
        if domain.data.revision:
            written = written | {"dataset_revision": domain.data.revision}
        source = Source(domain.name, domain.data.id, written)
        other = other_domains.read(source, experiment.run, experiment.task)
        data.encode(other, experiment.task, experiment.tokenizer, experiment.model)
        there, known = replace(experiment, rows=other), domain.data.splits.get(other.final)
        found.append({"name": domain.name, **_measured(there, record, other.final, domain.metrics, known)})
    return found


def _run_as_recorded(record: RunRecord, given: dict[str, str], elsewhere: bool) -> RunConfig:
    """The settings of a run on which its figures depend, with the rows that are given, or its own."""
    kept = {field.name for field in fields(RunConfig) if field.metadata["measured_with"]}
    settings = {name: value for name, value in record.settings.items() if name in kept}
    own: dict[str, str | None] = (
        {} if elsewhere else {"dataset": record.data.id, "dataset_revision": record.data.revision}
    )
    own |= {name: value for name, value in given.items() if name in RunConfig.__dataclass_fields__}
    if own.get("dataset") != record.data.id:
        settings.pop("dataset_config", None)
    return RunConfig(**settings | own)


def _measured_split(rows: data.Data, record: RunRecord, given: Mapping[str, str], claimed: str, elsewhere: bool) -> str:
    """The split to measure: the `test_file` that is given, else the one claimed, else what other rows there are.

    Raises:
        UserError: there is none that may be measured.
    """
    if elsewhere and rows.held_out and not (record.data.held_out and claimed == "validation"):
        raise UserError(f"{rows.source} has training rows only, which are not measured; give --test_file")
    split = "test" if "test_file" in given else claimed
    if elsewhere and split not in rows.splits:
        split = rows.final
    if split not in rows.splits:
        raise UserError(f"the figures are of the {split} split, which {rows.source} does not have")
    return split


def compared(claim: Metric, anew: Metric, record: RunRecord, same_rows: bool | None) -> dict[str, Any]:
    """A claimed figure beside the one found, in the unit of the claim, as `remeasure` gives it."""
    scale = 0.01 if _is_share(claim, anew, record) else 1.0
    found = scale * anew.value
    if same_rows is False:
        holds = None
    elif claim.low is not None and claim.high is not None:
        holds = claim.low <= found <= claim.high
    else:
        holds = math.isclose(found, claim.value, rel_tol=CLOSE)
    low, high = (None if bound is None else scale * bound for bound in (anew.low, anew.high))
    return {"name": claim.name, "claimed": claim.value, "found": found, "low": low, "high": high, "holds": holds}


def _is_share(claim: Metric, anew: Metric, record: RunRecord) -> bool:
    """Whether a claim is a share of 1 where the figure found is per cent, as that of another training loop may be.

    Where a record of such a loop does not say so, the value decides.
    """
    if anew.unit != "%" or claim.unit:
        return anew.unit == "%" and claim.unit == "share"
    return record.command is None and claim.value <= 1


def _as_written(task: Task, columns: dict[str, str]) -> Task:
    """The task, reading rows whose columns have other names than those of the run."""
    known = [field.name for field in fields(task) if field.metadata["reads"]]
    for name in columns:
        if name not in known:
            flags = ", ".join(f"--{known_name}" for known_name in known)
            raise UserError(f"--{name} is not for {task.name}, whose rows are read with {flags}")
    if "text_pair_column" in columns and getattr(task, "text_pair_column", None) is None:
        raise UserError("--text_pair_column is for models of pairs, and this one reads single texts; omit it")
    return replace(task, **columns)
