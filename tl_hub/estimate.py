"""What a run would do, and its time and memory, estimated before any training (`--check`)."""

import math
import resource
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from tl_hub import frozen_layers, overview
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.errors import Checked, RunStopped, UserError
from tl_hub.experiment import Experiment
from tl_hub.tasks.base import column
from tl_hub.vectors import extract


def of_training(
    experiment: Experiment, objective: torch.nn.Module, batch: Mapping[str, torch.Tensor], steps: int
) -> Checked:
    """What a run would do, with its time and memory measured by two passes over its longest batch."""
    accelerator, model_type = experiment.accelerator, experiment.model.config.model_type
    batch = {name: value.to(accelerator.device) for name, value in batch.items()}
    objective.train()
    for _ in range(2):  # the first one warms up
        clock = time.perf_counter()
        loss = objective(**experiment.task.inputs(batch)).loss
        accelerator.backward(loss)
        figure = float(loss.detach())
        seconds = time.perf_counter() - clock
    if not math.isfinite(figure):
        raise RunStopped(f"the loss of the longest batch is {figure}; --precision fp32 may help", exit_code=1)
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    facts: dict[str, Any] = {
        **overview.facts(experiment.rows, experiment.task),
        "model_type": model_type,
        "trainable_parameters": trained,
        "steps": steps,
        "seconds": steps * experiment.run.accumulation * seconds,
        "memory_bytes": peak_memory() + 8 * trained,
        "cache_bytes": frozen_layers.cache_bytes(experiment),
        "stream_bytes": _stream_bytes(experiment.rows),
    }
    kept = f", and what frozen layers give {facts['cache_bytes'] / 2**20:,.0f} MiB of the cache"
    at_a_time = f"; the rows of an epoch take {facts['stream_bytes'] / 2**20:,.1f} MiB of the disk"
    return Checked(
        f"checked, nothing trained: {counted(experiment.rows)}; {trained:,} parameters ({model_type}) would be trained "
        f"in {steps:,} step{'s' * (steps != 1)}: at most about {about(facts['seconds'])} of training (estimated from "
        f"the longest batch), plus evaluations; it and the optimizer take {facts['memory_bytes'] / 2**30:.1f} GiB"
        f"{kept if facts['cache_bytes'] else ''}{at_a_time if facts['stream_bytes'] else ''}",
        facts,
    )


def _stream_bytes(data: Data) -> int:
    """How much of the disk the training rows of an epoch take, as texts and encoded; 0 where they are no stream."""
    split = data.splits["train"]
    return sum(rows.data.nbytes for rows in (split.rows, split.encoded) if rows) if data.stream else 0


def counted(data: Data) -> str:
    """The rows of each split, and where they are from."""
    rows = ", ".join(f"{len(split.rows):,} {name}" for name, split in data.splits.items())
    return f"{rows} rows of {data.source}"


def about(seconds: float) -> str:
    """A duration for a person, in minutes or hours."""
    minutes = math.ceil(seconds / 60)
    return f"{seconds / 3600:.1f} hours" if minutes > 90 else f"{minutes} minute{'s' * (minutes != 1)}"


def peak_memory() -> int:
    """Bytes this process has taken at most: of the accelerator's memory where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def check_space(run: RunConfig, model: torch.nn.Module) -> None:
    """Refuse to start what the disk cannot hold: the result, the best weights, the training states and a new one.

    Raises:
        UserError: there is too little room.
    """
    folder = Path(run.output_dir)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    state = 3 + bool(run.average)  # in float32: weights, AdamW's two moments, the average
    needed = 4 * trained * (1 + 1 + state * (run.keep + 1))
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(f"--output_dir {folder}: {free / 2**20:,.0f} MiB are free, the run needs {needed / 2**20:,.0f}")


@torch.no_grad()
def of_reading(
    experiment: Experiment,
    read: Callable[[dict[str, torch.Tensor]], Any],
    tokens: int,
    values: int,
    choice: str,
    facts: dict[str, Any],
) -> Checked:
    """What extracting `values` figures would take, measured by reading the longest batch twice."""
    collate = experiment.task.collator(experiment.tokenizer, training=False)
    count, found = 0, list[dict[str, torch.Tensor]]()
    for split in experiment.rows.splits.values():
        if split.encoded is not None:
            every = list(extract.batches(column(split.encoded, "length"), tokens))
            count += len(every)
            names = [name for name in ("input_ids", "token_type_ids") if name in split.encoded.column_names]
            found.append(collate(split.encoded.select_columns(names).select(every[0]).to_list()))
    longest = max(found, key=lambda batch: batch["input_ids"].numel())
    batch = {name: tensor.to(PartialState().device) for name, tensor in longest.items()}
    for _ in range(2):  # the first one warms up
        clock = time.perf_counter()
        read(batch)
        seconds = time.perf_counter() - clock
    facts |= {
        "model": experiment.run.model,
        "batches": count,
        "seconds": count * seconds,
        "memory_bytes": peak_memory(),
        "cache_bytes": 2 * values,  # float16
    }
    return Checked(
        f"checked, nothing kept: {counted(experiment.rows)}; {choice}; reading takes at most about "
        f"{about(facts['seconds'])} (estimated from the longest batch), "
        f"{facts['memory_bytes'] / 2**30:.1f} GiB of memory and {facts['cache_bytes'] / 2**20:,.0f} MiB of the cache",
        facts,
    )
