"""What a run would do and take, told before any training (`--check`)."""

import math
import resource
import sys
import time
from typing import Any

import torch
from accelerate import Accelerator

from tl_hub import overview
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.errors import Checked, RunStopped
from tl_hub.tasks.base import Task


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
