"""What a run would do and take, told before any training (`--check`)."""

import math
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator, PartialState

from tl_hub import overview
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.errors import Checked, RunStopped
from tl_hub.tasks.base import Task
from tl_hub.vectors import extract


def of_training(
    objective: torch.nn.Module,
    batch: Any,
    data: Data,
    task: Task,
    run: RunConfig,
    steps: int,
    accelerator: Accelerator,
    model_type: str,
) -> Checked:
    """What a run would do and take, told by two passes, forward and backward, over its longest batch."""
    batch = {name: value.to(accelerator.device) for name, value in batch.items()}
    objective.train()
    for _ in range(2):  # the first one warms up
        clock = time.perf_counter()
        loss = objective(**task.inputs(batch)).loss
        accelerator.backward(loss)
        figure = float(loss.detach())
        seconds = time.perf_counter() - clock
    if not math.isfinite(figure):
        raise RunStopped(f"the loss of the longest batch is {figure}; --precision fp32 may help", exit_code=1)
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    facts: dict[str, Any] = {
        **overview.facts(data, task),
        "model_type": model_type,
        "trainable_parameters": trained,
        "steps": steps,
        "seconds": steps * run.accumulation * seconds,
        "memory_bytes": peak_memory() + 8 * trained,
    }
    return Checked(
        f"checked, nothing trained: {counted(data)}; {trained:,} parameters ({model_type}) would be trained in "
        f"{steps:,} step{'s' * (steps != 1)}: at most about {about(facts['seconds'])} of training (estimated from the "
        f"longest batch), plus evaluations; it and the optimizer take {facts['memory_bytes'] / 2**30:.1f} GiB",
        facts,
    )


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


@torch.no_grad()
def of_reading(
    data: Data,
    run: RunConfig,
    read: Callable[[dict[str, torch.Tensor]], Any],
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    tokens: int,
    values: int,
    choice: str,
    facts: dict[str, Any],
) -> Checked:
    """What reading `values` figures of so many tokens a batch would take, told by the longest batch, read twice."""
    count, found = 0, list[dict[str, torch.Tensor]]()
    for split in data.splits.values():
        if split.features is not None:
            every = list(extract.batches(split.features["length"], tokens))
            count += len(every)
            names = [name for name in ("input_ids", "token_type_ids") if name in split.features.column_names]
            found.append(collate(split.features.select_columns(names).select(every[0]).to_list()))
    longest = max(found, key=lambda batch: batch["input_ids"].numel())
    batch = {name: tensor.to(PartialState().device) for name, tensor in longest.items()}
    for _ in range(2):  # the first one warms up
        clock = time.perf_counter()
        read(batch)
        seconds = time.perf_counter() - clock
    facts |= {
        "model": run.model,
        "batches": count,
        "seconds": count * seconds,
        "memory_bytes": peak_memory(),
        "cache_bytes": 2 * values,  # float16
    }
    return Checked(
        f"checked, nothing kept: {counted(data)}; {choice}; reading takes at most about "
        f"{about(facts['seconds'])} (estimated from the longest batch), "
        f"{facts['memory_bytes'] / 2**30:.1f} GiB of memory and {facts['cache_bytes'] / 2**20:,.0f} MiB of the cache",
        facts,
    )
