"""The end of every recipe: save, record, card, load back, and the last screen."""

import dataclasses
import hashlib
import json
import platform
import shlex
import subprocess
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from tqdm.auto import tqdm

from tl_hub import (
    averaging,
    canary,
    card,
    comparison,
    curves,
    data,
    effort,
    last_screen,
    overlap,
    risk_coverage,
    row_predictions,
    run_folder,
    samples,
    seeds,
    settings_file,
    shown_rows,
    slices,
    soup,
    training,
    trials,
    verification,
)
from tl_hub.base_model import Base
from tl_hub.command_line import command_line
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.errors import RunStopped, TrialEnded, UserError
from tl_hub.estimate import peak_memory
from tl_hub.experiment import Experiment
from tl_hub.licenses import Terms, license_of
from tl_hub.methods.adapters.base import merged
from tl_hub.methods.base import settings_of
from tl_hub.metrics import bootstrap_interval, difference_interval, mean_interval
from tl_hub.on_disk import Cells
from tl_hub.probe import write_probe
from tl_hub.publishing import Destination, Options, Patience, publish_to
from tl_hub.publishing.state import drop_state, push_state
from tl_hub.record import BaseModel, Cost, DataFacts, Domain, DomainMetric, Metric, RunRecord, SplitFacts, in_history
from tl_hub.tasks.base import Score, Task, column
from tl_hub.training_state import History
from tl_hub.vectors.model import FeatureModel

PROBES = 4
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")


def finish(experiment: Experiment, history: History, score: Score, before: Score | None = None) -> None:
    """Turn a trained model into a verified run folder, and show the results.

    Args:
        before: of the model that the run started from, on the same rows, to compare the two.

    Raises:
        RunStopped: the folder does not load back as the model that was trained, or it is a run of `run.seeds`, of which
            only the chosen one is shown and published.
    """
    run, task, rows, model = experiment.run, experiment.task, experiment.rows, experiment.model
    folder, chosen_by = Path(run.output_dir), None
    if run.predict_validation and rows.final != "validation":
        chosen_by = training.evaluate(experiment, history.decision, split="validation")
    elsewhere = [
        training.evaluate(dataclasses.replace(experiment, rows=other), history.decision) for other in rows.others
    ]
    if not experiment.accelerator.is_main_process:
        return
    save(folder, experiment)
    settings_file.write(folder, command_line() or "from Python", (run, task, experiment.method))
    write_probe(folder, model, _probe(experiment))
    measured = rows.splits[rows.final].rows
    task.report(score, measured, model, experiment.tokenizer, folder=folder, seed=run.seed, before=before)
    risk_coverage.draw(folder, score)
    row_predictions.write(folder, score, len(measured))
    if chosen_by:
        row_predictions.write(folder, chosen_by, len(rows.splits["validation"].rows), run_folder.VALIDATION)
    record = record_of(experiment, history, score)
    record.domains = [domain_of(experiment, *each, record.metrics) for each in zip(rows.others, elsewhere, strict=True)]
    if history.epochs:
        curves.draw(folder, record)
    with open(folder / run_folder.LOG, "a", encoding="utf-8") as log:
        for domain in record.domains:
            figures = {found.name: float(f"{found.value:.6g}") for found in domain.metrics}
            log.write(json.dumps({"measured_on": domain.name, **figures}, ensure_ascii=False) + "\n")
    if record.kind == "merged":
        merged(model).save_pretrained(folder)
    record.save(folder)
    card.write(folder)
    print("loading the run folder back in a fresh process ...", flush=True)
    record.verification = verification.check(folder)
    record.save(folder)
    card.write(folder)
    if run.seeds:
        raise TrialEnded(history.outcome(task.best))
    last_screen.show(record, folder)
    if run.push_to:
        _push(run, folder)


def save(folder: Path, experiment: Experiment) -> None:
    """Write what was trained: a model, or an adapter (in `adapter/` if merged weights stand next to it)."""
    model, method = experiment.model, experiment.method
    assert method is not None
    if method.kind in ("adapter", "merged"):
        place = folder / run_folder.ADAPTER if method.kind == "merged" else folder
        model.save_pretrained(place, save_embedding_layers=False)
        (place / run_folder.CARD).unlink()  # PEFT's, which says nothing
    else:
        there = (folder / run_folder.CARD).exists()
        model.save_pretrained(folder)
        if not there:  # a FeatureModel writes a card of its own, the run's says more
            (folder / run_folder.CARD).unlink(missing_ok=True)
    # A run that is killed here goes on by the tokenizer that training put there.
    if not (folder / run_folder.TOKENIZER_CONFIG).exists():
        experiment.tokenizer.save_pretrained(folder)
    if license_file := Terms(link=experiment.run.license_link).file:
        (folder / run_folder.LICENSE).write_bytes(license_file.read_bytes())
    elif experiment.base and experiment.base.source == "embedded":
        (folder / run_folder.LICENSE).write_text(samples.LICENSE_TEXT)


def push_under_way(experiment: Experiment, history: History) -> None:
    """Publish a run that is not at its end, for `training.train`: the best model so far, and the state to go on from.

    A failed push is reported in one line, and training goes on: the next push sends everything.
    """
    run = experiment.run
    destination = Destination(str(run.push_to), revision=run.push_revision)
    # Loading what is sent takes longer than an epoch may; the push at the end does.
    options = Options(load_back=False, patience=Patience(attempts=3), say=tqdm.write)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch, Path(run.output_dir).name)
            save(folder, experiment)
            record_of(experiment, history, None).save(folder)
            publish_to(destination, folder, options, push_base=run.push_base)
        push_state(run.output_dir, destination.repo, patience=options.patience, say=options.say)
    except (UserError, RunStopped) as error:
        tqdm.write(f"epoch {len(history.epochs)} was not published: {error}")


def _push(run: RunConfig, folder: Path) -> None:
    destination = Destination.of_run(run)
    print(f"\npublishing {folder} as {destination.repo} ...", flush=True)
    try:
        options = Options(dry_run=run.dry_run, sign=Path(run.sign) if run.sign else None)
        done = publish_to(destination, folder, options, push_base=run.push_base, push_adapter=run.push_adapter)
        if run.push_every:
            drop_state(destination.repo)
    except (UserError, RunStopped) as error:
        raise RunStopped(
            f"the run is complete in {folder}, but publishing it failed: {error}; to try again: "
            f"{_push_command(run, folder)}",
            exit_code=1,
        ) from error
    print("nothing was sent" if run.dry_run else done.summary())


def _push_command(run: RunConfig, folder: Path) -> str:
    """What pushes a finished run as its flags asked for."""
    words = ["tl-hub", "push", str(folder), str(run.push_to)]
    flags: dict[str, str | bool | None] = {
        "revision": run.push_revision,
        "create_pr": run.create_pr,
        "tag": run.tag,
        "collection": run.collection,
        "push_base": run.push_base,
        "push_adapter": run.push_adapter,
        "sign": run.sign,
        "public": run.public,
    }
    for name, value in flags.items():
        words += [f"--{name}"] if value else []
        words += [value] if isinstance(value, str) else []
    return shlex.join(words)


def _probe(experiment: Experiment) -> dict[str, Any]:
    model, task, rows = experiment.model, experiment.task, experiment.rows
    split = rows.splits[rows.final]
    assert split.encoded is not None
    encoded = split.encoded.select(range(min(PROBES, len(split.encoded))))
    kept = [name for name in task.batched if name in encoded.column_names]
    batch = task.collator(experiment.tokenizer, training=False)(encoded.select_columns(kept).to_list())
    # A decoder that makes its inputs from the labels (T5's) gives no logits without them.
    needs_labels = hasattr(model, "prepare_decoder_input_ids_from_labels")
    unread = {*task.scoring_only, "start_positions", "end_positions", *([] if needs_labels else ["labels"])}
    return {name: value.to(model.device) for name, value in batch.items() if name not in unread}


def record_of(experiment: Experiment, history: History, score: Score | None) -> RunRecord:
    """The record of a run; without a `score`, of one under way, whose figures are those of the validation rows."""
    run, task, method, base = experiment.run, experiment.task, experiment.method, experiment.base
    rows, model = experiment.rows, experiment.model
    assert method is not None
    overlap.count(rows, task)
    examples, passed_over = shown_rows.choose(score.predictions, run) if score else ([], [])
    return RunRecord(
        name=Path(run.output_dir).resolve().name,
        kind=method.kind,
        task=task.name,
        pipeline_tag=task.tag,
        auto_class=type(model).__name__ if isinstance(model, FeatureModel) else task.class_for(model.config.model_type),
        method={"name": method.name, "settings": settings_of(method)},
        base=base_facts(base) if base else None,
        data=_data_facts(rows, passed_over),
        # The metric that chose the epoch comes first: it is the one the card's summary states.
        metrics=[
            metric(name, score, rows.final, len(rows.splits[rows.final].rows), run.seed)
            for name in sorted(score.metrics, key=lambda name: name != task.best[0])
        ]
        if score
        else _metrics_so_far(history, task, rows),
        settings=experiment.settings(trained=history.step > 0)
        | (seeds.settings_of_soup(Path(run.output_dir)) if history.soup_kept else {}),
        command=command_line(),
        history=history.epochs,
        best_epoch=None if history.average_kept or history.soup_kept else history.best_epoch or None,
        decision=history.decision,
        cost=_cost(experiment, history),
        software={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        commit=_commit(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        examples=examples,
        mistakes=shown_rows.mistakes(score, task, run) if score else [],
        config=task.config_for(model.config.model_type) if method.kind in ("adapter", "merged") else {},
        language=_languages(run, task, rows),
        license=license_of(run.license, base.license if base else None),
        license_name=run.license_name,
        license_link=Terms(link=run.license_link).published_link,
        token_ids=canary.token_ids(experiment.tokenizer),
        tables=_tables(experiment, history, score) if score else {},
        seeds=seeds.figures_in(Path(run.output_dir)) if score else [],
    )


def _tables(experiment: Experiment, history: History, score: Score) -> dict[str, list[dict[str, Any]]]:
    rows = experiment.rows.splits[experiment.rows.final].rows
    average = averaging.table(history, experiment.run.average)
    tried = trials.tables(Path(experiment.run.output_dir))
    return score.tables | slices.tables(rows, experiment.task, score) | average | tried | soup.table(history)


def _data_facts(rows: Data, passed_over: list[str]) -> DataFacts:
    return DataFacts(
        id=rows.source,
        source=rows.kind,
        revision=rows.revision,
        license=rows.license,
        splits={
            name: SplitFacts(
                rows=len(split.rows), features=len(split.encoded or []), sha256=data.fingerprint(split.rows)
            )
            for name, split in rows.splits.items()
        },
        held_out=rows.held_out,
        overlap=rows.overlaps[rows.final],
        near_duplicates=rows.near_duplicates[rows.final],
        notes=rows.notes + passed_over,
    )


def domain_of(experiment: Experiment, rows: Data, score: Score, own: Sequence[Metric]) -> Domain:
    """The figures on rows of another domain, each beside the one among those of the run's `own` measured rows."""
    count, seed = len(rows.splits[rows.final].rows), experiment.run.seed
    metrics = []
    for ours in (ours for ours in own if ours.name in score.metrics):
        found = metric(ours.name, score, rows.final, count, seed)
        lower = ours.name in comparison.LOWER_IS_BETTER
        low, high = _difference(found, ours) if lower else _difference(ours, found)
        drop = (found.value - ours.value) if lower else (ours.value - found.value)
        metrics.append(DomainMetric(**dataclasses.asdict(found), drop=drop, drop_low=low, drop_high=high))
    return Domain(name=rows.name, data=_data_facts(rows, []), metrics=metrics, written=rows.written)


def _difference(one: Metric, other: Metric) -> tuple[float | None, float | None]:
    """95 % interval of `one - other`, where both have one."""
    if one.low is None or one.high is None or other.low is None or other.high is None:
        return None, None
    return difference_interval((one.value, one.low, one.high), (other.value, other.low, other.high))


def _cost(experiment: Experiment, history: History) -> Cost:
    accelerator, parameters = experiment.accelerator, list(experiment.model.parameters())
    operations, operations_by = _operations(experiment, history)
    energy_kwh, energy_by = effort.energy(history.seconds, accelerator.device, accelerator.num_processes)
    return Cost(
        training_seconds=round(history.seconds, 3),
        # What an interrupted run took before it went on is not known.
        total_seconds=None if experiment.run.resume else round(time.time() - psutil.Process().create_time(), 3),
        rows_per_second=round(history.rows / history.seconds, 2) if history.seconds else None,
        peak_memory_bytes=peak_memory(),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        total_parameters=sum(p.numel() for p in parameters),
        operations=operations,
        operations_by=operations_by,
        energy_kwh=energy_kwh,
        energy_by=energy_by,
        carbon_intensity=experiment.run.carbon_intensity,
        location=experiment.run.location,
        device=device_name(accelerator.device, accelerator.num_processes),
        precision={"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision),
    )


def _operations(experiment: Experiment, history: History) -> tuple[float | None, str | None]:
    """Those of training; None where frozen layers were read once, which leaves less to compute than is estimated."""
    encoded, task, method = experiment.rows.splits["train"].encoded, experiment.task, experiment.method
    assert method is not None
    read_once = method.kind == "feature-extraction" or getattr(method, "top_layers", None)
    if read_once or encoded is None or not len(encoded):
        return None, None
    tokens, written = float(np.mean(column(encoded, "length"))), 0.0
    if (
        "labels" in encoded.column_names
        and task.class_for(experiment.model.config.model_type) == "AutoModelForSeq2SeqLM"
    ):
        written = float(np.mean(np.fromiter(map(len, Cells(encoded, "labels")), int, len(encoded))))
        tokens -= written  # the length is that of both
    return effort.operations(experiment.model, history.rows * tokens, history.rows * written)


def _languages(run: RunConfig, task: Task, rows: Data) -> list[str]:
    if run.language:
        return run.language.split(",")
    return task.languages() or (["en"] if rows.kind == "embedded" else [])


def metric(name: str, score: Score, split: str, rows: int, seed: int) -> Metric:
    """One figure of so many rows of a split, with its 95 % interval."""
    values = score.metrics[name]
    figure: dict[str, Any] = {"name": name, "split": split, "unit": score.unit}
    if values.ndim == 0:
        low, high = score.intervals.get(name, (None, None))
        return Metric(**figure, value=float(values), low=low, high=high, rows=score.counts.get(name, rows))
    known = ~np.isnan(values)
    groups = None if score.groups is None else score.groups[known]
    if score.unit == "%":
        low, high = mean_interval(values[known], groups)
    else:
        low, high = bootstrap_interval(values[known], groups, seed)
    return Metric(**figure, value=float(values[known].mean()), low=low, high=high, rows=int(known.sum()))


def _metrics_so_far(history: History, task: Task, rows: Data) -> list[Metric]:
    best = history.epochs[history.best_epoch - 1]
    first = in_history(task.best[0])
    names = sorted(best.keys() - {"epoch", "step", "loss", "skipped_steps"}, key=lambda name: (name != first, name))
    count = len(rows.splits["validation"].rows)
    return [
        Metric(name="loss" if name == in_history("loss") else name, value=best[name], split="validation", rows=count)
        for name in names
    ]


def base_facts(base: Base) -> BaseModel:
    digest = hashlib.sha256()
    for file in base.weights:
        with file.open("rb") as content:
            hashlib.file_digest(content, lambda: digest)  # a piece at a time: they may be larger than the memory
    return BaseModel(
        id=base.id,
        source=base.source,
        model_type=base.model_type,
        revision=base.revision,
        license=base.license,
        license_name=base.license_name,
        license_link=base.license_link,
        weights_sha256=digest.hexdigest() if base.weights else None,
    )


def _commit() -> str | None:
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    tracked = subprocess.run(
        ["git", "ls-files", "--error-unmatch", __file__], cwd=here, capture_output=True, check=False
    )
    return found.stdout.strip() if found.returncode == 0 and tracked.returncode == 0 else None


def device_name(device: torch.device, processes: int) -> str:
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name()}"
    cores = torch.get_num_threads() * processes
    return f"CPU, {cores} core{'' if cores == 1 else 's'}"
