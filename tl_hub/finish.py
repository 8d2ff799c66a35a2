"""The end of every recipe: save, record, card, load back, and the last screen."""

import dataclasses
import hashlib
import json
import platform
import shlex
import subprocess
import tempfile
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from datasets import Dataset
from tqdm.auto import tqdm

from tl_hub import card, data, row_predictions, run_folder, shown_rows, verification
from tl_hub.base_model import Base
from tl_hub.card import snippets
from tl_hub.command_line import command_line
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.errors import RunStopped, UserError
from tl_hub.estimate import peak_memory
from tl_hub.licenses import license_of
from tl_hub.methods.adapters.base import merged
from tl_hub.methods.base import Method
from tl_hub.metrics import bootstrap_interval
from tl_hub.probe import write_probe
from tl_hub.publishing import Destination, Options, Patience, publish_to
from tl_hub.publishing.state import drop_state, push_state
from tl_hub.record import BaseModel, Cost, DataFacts, Metric, RunRecord, SplitFacts
from tl_hub.tasks import catalog
from tl_hub.tasks.base import Score, Task
from tl_hub.training_state import History
from tl_hub.vectors.model import FeatureModel

PROBES = 4
SLICE_ROWS = 30
"""Fewest rows of a slice: of less, the interval is too wide to tell it from another."""
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers")


def finish(
    run: RunConfig,
    task: Task,
    method: Method,
    base: Base | None,
    rows: Data,
    history: History,
    score: Score,
    model: Any,
    tokenizer: Any,
    accelerator: Accelerator,
    before: Score | None = None,
) -> None:
    """Turn a trained model into a run folder that can be believed, and show what came out.

    Args:
        before: of the model that the run started from, on the same rows, where the two are to be compared.

    Raises:
        RunStopped: the folder does not load back as the model that was trained.
    """
    if not accelerator.is_main_process:
        return
    folder = Path(run.output_dir)
    save(folder, method, model, tokenizer)
    write_probe(folder, model, _probe(model, rows, task, tokenizer))
    if history.epochs:
        draw_curves(folder, history.epochs, task.best[0])
    measured = rows.splits[rows.final].rows
    task.report(score, measured, model, tokenizer, folder=folder, seed=run.seed, before=before)
    row_predictions.write(folder, score, len(measured))
    record = record_of(run, task, method, base, rows, history, score, model, accelerator)
    if method.kind == "merged":
        merged(model).save_pretrained(folder)
    record.save(folder)
    card.write(folder)
    print("loading the run folder back in a fresh process ...", flush=True)
    record.verification = verification.check(folder)
    record.save(folder)
    card.write(folder)
    _show(record, folder, record.verification)
    if run.push_to:
        _push(run, folder)


def save(folder: Path, method: Method, model: Any, tokenizer: Any) -> None:
    """Write what was trained: a model, or an adapter (in `adapter/` where merged weights are to stand beside it)."""
    if method.kind in ("adapter", "merged"):
        place = folder / run_folder.ADAPTER if method.kind == "merged" else folder
        model.save_pretrained(place, save_embedding_layers=False)
        (place / run_folder.CARD).unlink()  # PEFT's, which says nothing
    else:
        there = (folder / run_folder.CARD).exists()
        model.save_pretrained(folder)
        if not there:  # a FeatureModel writes a card of its own, the run's says more
            (folder / run_folder.CARD).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def pusher(
    run: RunConfig,
    task: Task,
    method: Method,
    base: Base | None,
    rows: Data,
    model: Any,
    tokenizer: Any,
    accelerator: Accelerator,
) -> Callable[[History], None]:
    """What `training.train` calls to publish a run under way: the best model so far, and the state to go on from.

    A push that fails is told in a line, and training goes on: the next one sends all.
    """

    def push(history: History) -> None:
        destination = Destination(str(run.push_to), revision=run.push_revision)
        # Loading what is sent takes longer than an epoch may; the push at the end does.
        options = Options(load_back=False, patience=Patience(attempts=3), say=tqdm.write)
        try:
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch, Path(run.output_dir).name)
                save(folder, method, model, tokenizer)
                record_of(run, task, method, base, rows, history, None, model, accelerator).save(folder)
                publish_to(destination, folder, options, push_base=run.push_base)
            push_state(run.output_dir, destination.repo, patience=options.patience, say=options.say)
        except (UserError, RunStopped) as error:
            tqdm.write(f"epoch {len(history.epochs)} is not published: {error}")

    return push


def _push(run: RunConfig, folder: Path) -> None:
    destination = Destination.of_run(run)
    print(f"\npublishing {folder} as {destination.repo} ...", flush=True)
    try:
        done = publish_to(destination, folder, Options(dry_run=run.dry_run), push_base=run.push_base)
        if run.push_every:
            drop_state(destination.repo)
    except (UserError, RunStopped) as error:
        raise RunStopped(
            f"the run is complete in {folder}, but publishing it did not come to its end: {error}; later: "
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
        "public": run.public,
    }
    for name, value in flags.items():
        words += [f"--{name}"] if value else []
        words += [value] if isinstance(value, str) else []
    return shlex.join(words)


def _probe(model: Any, rows: Data, task: Task, tokenizer: Any) -> dict[str, Any]:
    split = rows.splits[rows.final]
    assert split.features is not None
    features = split.features.select(range(min(PROBES, len(split.features))))
    kept = [name for name in task.batched if name in features.column_names]
    batch = task.collator(tokenizer, training=False)(features.select_columns(kept).to_list())
    # A decoder that makes its inputs from the labels (T5's) gives no logits without them.
    needs_labels = hasattr(model, "prepare_decoder_input_ids_from_labels")
    unread = {*task.scoring_only, "start_positions", "end_positions", *([] if needs_labels else ["labels"])}
    return {name: value.to(model.device) for name, value in batch.items() if name not in unread}


def record_of(
    run: RunConfig,
    task: Task,
    method: Method,
    base: Base | None,
    rows: Data,
    history: History,
    score: Score | None,
    model: Any,
    accelerator: Accelerator,
) -> RunRecord:
    """The record of a run; without a `score`, of one under way, whose figures are those of the validation rows."""
    parameters = list(model.parameters())
    # What the record, which is published, must not or need not hold.
    left_out = {field.name for field in dataclasses.fields(run) if not field.metadata["recorded"]} | {*method.unused}
    settings = dataclasses.asdict(run) | dataclasses.asdict(task)
    settings["settings_from"] = run.settings_from or None
    examples, passed_over = shown_rows.choose(score.predictions, run) if score else ([], [])
    if history.step:  # batch_size is that of each process
        settings["num_processes"] = accelerator.num_processes
        settings["effective_batch_size"] = run.batch_size * run.accumulation * accelerator.num_processes
    return RunRecord(
        name=Path(run.output_dir).resolve().name,
        kind=method.kind,
        task=task.name,
        pipeline_tag=task.tag,
        auto_class=type(model).__name__ if isinstance(model, FeatureModel) else task.class_for(model.config.model_type),
        method={"name": method.name, "settings": dataclasses.asdict(method)},
        base=base_facts(base) if base else None,
        data=DataFacts(
            id=rows.source,
            source=rows.kind,
            revision=rows.revision,
            license=rows.license,
            splits={
                name: SplitFacts(
                    rows=len(split.rows), features=len(split.features or []), sha256=data.fingerprint(split.rows)
                )
                for name, split in rows.splits.items()
            },
            held_out=rows.held_out,
            overlap=data.overlap(rows, task)[rows.final],
            notes=rows.notes + passed_over,
        ),
        # The metric that chose the epoch comes first: it is the one the card's summary states.
        metrics=[
            metric(name, score, rows.final, len(rows.splits[rows.final].rows), run.seed)
            for name in sorted(score.metrics, key=lambda name: name != task.best[0])
        ]
        if score
        else _metrics_so_far(history, task, rows),
        settings={name: value for name, value in settings.items() if name not in left_out and value is not None},
        command=command_line(),
        history=history.epochs,
        best_epoch=history.best_epoch or None,
        decision=history.decision,
        cost=Cost(
            training_seconds=round(history.seconds, 1),
            # What an interrupted run took before it went on is not known.
            total_seconds=None if run.resume else round(time.time() - psutil.Process().create_time(), 1),
            rows_per_second=round(history.rows / history.seconds, 2) if history.seconds else None,
            peak_memory_bytes=peak_memory(),
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            total_parameters=sum(p.numel() for p in parameters),
            device=device_name(accelerator.device, accelerator.num_processes),
            precision={"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision),
        ),
        software={"python": platform.python_version()} | {name: version(name) for name in LIBRARIES},
        commit=_commit(),
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        examples=examples,
        config=task.config_for(model.config.model_type) if method.kind in ("adapter", "merged") else {},
        language=_languages(run, task, rows),
        license=license_of(run.license, base.license if base else None),
        tables=score.tables | by_length(rows.splits[rows.final].rows, task, score, run.seed) if score else {},
    )


def by_length(rows: Dataset, task: Task, score: Score, seed: int) -> dict[str, list[dict[str, Any]]]:
    """A table of a metric in thirds of the rows by the words of their input, with 95 % intervals.

    The metric is the one that chose the epoch if it is a mean over rows, or else the first that is. No table where
    none is, or where the rows are too few or too much of a length to be cut.
    """
    means = [name for name, values in score.metrics.items() if values.shape == (len(rows),)]
    if not means or len(rows) < 3 * SLICE_ROWS:
        return {}
    metric = task.best[0] if task.best[0] in means else means[0]
    values = score.metrics[metric]
    words = np.array([len(task.input_of(row).split()) for row in rows])
    edges = np.unique([0, *np.quantile(words, [1 / 3, 2 / 3], method="lower"), words.max()])
    table = []
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (words > low) & (words <= high) & ~np.isnan(values)
        if inside.sum() >= SLICE_ROWS:
            groups = None if score.groups is None else score.groups[inside]
            interval = "{:.1f} to {:.1f}".format(*bootstrap_interval(values[inside], groups, seed))
            span = f"{words[inside].min()} to {words[inside].max()}"
            figures = {metric.replace("_", " "): float(values[inside].mean()), "95 % interval": interval}
            table.append({"words of the input": span, "rows": int(inside.sum()), **figures})
    return {"By length of the input": table} if len(table) > 1 else {}


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
    low, high = bootstrap_interval(values[known], None if score.groups is None else score.groups[known], seed)
    return Metric(**figure, value=float(values[known].mean()), low=low, high=high, rows=int(known.sum()))


def _metrics_so_far(history: History, task: Task, rows: Data) -> list[Metric]:
    best = history.epochs[history.best_epoch - 1]
    names = sorted(best.keys() - {"epoch", "step", "loss"}, key=lambda name: (name != task.best[0], name))
    count = len(rows.splits["validation"].rows)
    return [Metric(name=name, value=best[name], split="validation", rows=count) for name in names]


def base_facts(base: Base) -> BaseModel:
    digest = hashlib.sha256()
    for file in base.weights:
        digest.update(file.read_bytes())
    return BaseModel(
        id=base.id,
        source=base.source,
        model_type=base.model_type,
        revision=base.revision,
        license=base.license,
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


def draw_curves(folder: Path, epochs: list[dict[str, Any]], metric: str | None) -> None:
    """Write curves.png: the training loss of the steps in the log, and a metric of the validation rows, if any."""
    from matplotlib.figure import Figure  # not pyplot, whose backend may be the user's

    steps = [json.loads(line) for line in (folder / run_folder.LOG).read_text().splitlines()]
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.subplots()
    loss = np.array([step["loss"] for step in steps])
    width = max(1, len(loss) // 50)
    smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
    left.plot([step["step"] for step in steps], loss, color="tab:blue", alpha=0.25, linewidth=0.8)
    left.plot([step["step"] for step in steps][width - 1 :], smooth, color="tab:blue", label="training loss")
    left.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
    measured = [epoch for epoch in epochs if metric in epoch]
    if metric and measured:
        right = left.twinx()
        right.plot(
            [epoch["step"] for epoch in measured],
            [epoch[metric] for epoch in measured],
            "o-",
            color="tab:orange",
            label=f"validation {metric.removeprefix('validation_')}",
        )
        right.set_ylabel(f"validation {metric.removeprefix('validation_')}")
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(folder / run_folder.CURVES, dpi=110)


def _show(record: RunRecord, folder: Path, verification: dict[str, Any]) -> None:
    print(f"\n{record.name}: {record.kind} for {record.pipeline_tag}")
    for metric in record.metrics:
        interval = "" if metric.low is None else f"  95 % interval {metric.low:.2f} to {metric.high:.2f}"
        print(f"  {metric.name:24} {metric.value:7.2f}{interval}  ({metric.rows} {metric.split} rows)")
    cost = record.cost
    print(
        f"  {cost.trainable_parameters:,} of {cost.total_parameters:,} parameters trained"
        f" in {cost.training_seconds or 0:.0f} s, {(cost.peak_memory_bytes or 0) / 2**20:,.0f} MiB"
    )
    for system in record.tables.get("Baselines", []):
        figures = ", ".join(f"{name} {_figure(value)}" for name, value in system.items() if name != "system")
        print(f"  {system['system']}: {figures}")
    nothing = f"({catalog.facts_of(record).no_answer})"
    if record.examples:
        print("\nrows it was not trained on:")
        for example in record.examples[:3]:
            print(f"  {_shortened(example.get('question') or example.get('text', ''))}")
            if "text_pair" in example:
                print(f"  {_shortened(example['text_pair'])}")
            for name in ("expected", "predicted"):
                print(f"    {name + ':':10} {_shortened(_joined(example.get(name)) or nothing)}")
    for note in record.data.notes:
        if note.startswith(shown_rows.PASSED_OVER):
            print(f"  {note}")
    pictures = ", ".join(sorted(path.name for path in folder.glob("*.png")))
    print(f"\nIn {folder}: weights, README.md (the model card), run.json, log.jsonl, {pictures}")
    print(f"Only here, never published: {run_folder.PREDICTIONS}, with what it made of each row it was measured on")
    print(
        f"Loaded back by {' and '.join(verification['loaded_by'])}: "
        f"largest difference of logits {verification['max_difference']:.1e}"
    )
    print("\nNext:")
    if snippets.reads(record):
        arguments = ", ".join(f"{name}='...'" for name in snippets.reads(record))
        print(f'  python -c "import tl_hub; print(tl_hub.pipeline({str(folder)!r})({arguments}))"')
    print(f"  less {folder / 'README.md'}")


def _shortened(text: str) -> str:
    return textwrap.shorten(text, 200, placeholder=" ...")


def _joined(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)


def _figure(value: float | str) -> str:
    """A figure of a baseline: per cent with one decimal, and a small number, such as a correlation, with two more."""
    return value if isinstance(value, str) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
