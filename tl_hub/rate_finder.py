"""A learning rate to begin with, from the loss while the rate rises from far too low to far too high (`--find_lr`).

The range test of Smith (2017, https://arxiv.org/abs/1506.01186): nothing of it is kept but a picture.
"""

import itertools
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from tl_hub import cpu, picture, progress
from tl_hub.batches import GlobalBatches, Reader
from tl_hub.errors import Checked, RunStopped, UserError
from tl_hub.experiment import Experiment

LOWEST, HIGHEST = 1e-6, 1.0
STEPS, SECONDS = 100, 45
"""As many steps at most as fit into the time, of which the first ones are measured."""
FEWEST = 20
DIVERGED = 4
"""The test ends where the smoothed loss is so many times its lowest value."""
WINDOW = 4
"""Steps before and after a step whose losses are averaged with its own, as each batch has another."""


def find(
    experiment: Experiment, objective: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: GlobalBatches
) -> Checked:
    """Train for a while at a rate that rises from step to step, and draw `RUN.rates.png` beside the run folder.

    Raises:
        UserError: there are several processes.
        RunStopped: the loss is not finite from the start.
    """
    if experiment.accelerator.num_processes > 1:
        raise UserError("--find_lr trains on one process; start it without accelerate launch, as python recipes/...")
    faster = cpu.faster_training(experiment.model) if experiment.accelerator.device.type == "cpu" else nullcontext()
    with faster:
        rates, losses = _rising(experiment, objective, optimizer, batches)
    smooth = smoothed(losses)
    rate = suggested(rates, losses)
    path = Path(f"{experiment.run.output_dir}.rates.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    _draw(path, rates, losses, smooth, rate)
    said = (
        f"suggested: --learning_rate {rate:.1g}, where the loss falls fastest"
        if rate
        else "no suggestion: at no rate does the loss fall by more than batches differ"
    )
    return Checked(
        f"{said}; this run has {experiment.run.learning_rate:g}. {path} shows the loss over {len(rates)} rates from "
        f"{rates[0]:.0e} to {rates[-1]:.0e}. Nothing else was kept",
        {"learning_rate": rate and float(f"{rate:.1g}"), "rates": rates.tolist(), "losses": losses.tolist()},
    )


def _rising(
    experiment: Experiment, objective: torch.nn.Module, optimizer: torch.optim.Optimizer, batches: GlobalBatches
) -> tuple[np.ndarray, np.ndarray]:
    """The rates and the losses before each step, (steps,)."""
    run, accelerator = experiment.run, experiment.accelerator
    reader, began, count = Reader(experiment, "train", training=True), time.monotonic(), STEPS
    rates, losses = [], list[float]()
    objective.train()
    with progress.bar(STEPS, "raising the learning rate", "step") as bar:
        for step, (epoch, rows) in enumerate(_steps(batches)):
            batch = reader.batch(rows[: run.batch_size].tolist(), (run.seed, epoch, step), int(rows[0]))
            loss = objective(**experiment.task.inputs(batch)).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(objective.parameters(), run.max_grad_norm)
            rate = LOWEST * (HIGHEST / LOWEST) ** (step / (count - 1))
            for group in optimizer.param_groups:
                group["lr"] = rate * group["rate"]
            optimizer.step()
            optimizer.zero_grad()
            figure = float(loss.detach())
            if not math.isfinite(figure):
                break
            rates.append(rate)
            losses.append(figure)
            bar.update()
            smooth = smoothed(np.array(losses))
            if step + 1 == count or (step > FEWEST // 2 and smooth[-1] > DIVERGED * smooth.min()):
                break
            if step == 2:  # rates rise faster where steps take long; so far they hardly differ
                count = int(np.clip(SECONDS / (time.monotonic() - began) * 3, FEWEST, STEPS))
    if len(losses) < 3:
        raise RunStopped("the loss is not finite at the lowest rate; --precision fp32 may help", exit_code=1)
    return np.array(rates), np.array(losses)


def _steps(batches: GlobalBatches) -> Iterator[tuple[int, np.ndarray]]:
    for epoch in itertools.count():
        for rows in batches.of_epoch(epoch):
            yield epoch, rows


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Mean over the steps around each, fewer at the ends: (steps,)."""
    ones = np.ones(2 * WINDOW + 1)
    within = slice(WINDOW, WINDOW + len(losses))
    return np.convolve(losses, ones)[within] / np.convolve(np.ones(len(losses)), ones)[within]


def suggested(rates: np.ndarray, losses: np.ndarray) -> float | None:
    """The rate at which the smoothed loss falls fastest against the logarithm of the rate, before it is lowest.

    None where it does not fall by more than four standard errors, as seen at rates that are too low to learn.
    """
    smooth = smoothed(losses)
    lowest, still = int(smooth.argmin()), losses[: len(losses) // 4]
    error = still.std(ddof=1) / math.sqrt(2 * WINDOW + 1)
    if lowest < 2 or still.mean() - smooth[lowest] <= 4 * error:
        return None
    slopes = np.gradient(smooth[: lowest + 1], np.log(rates[: lowest + 1]))
    return float(rates[int(slopes.argmin())])


def _draw(path: Path, rates: np.ndarray, losses: np.ndarray, smooth: np.ndarray, rate: float | None) -> None:
    with picture.drawn(path) as figure:
        axes = figure.subplots()
        axes.plot(rates, losses, color="tab:blue", alpha=0.25, linewidth=0.8)
        axes.plot(rates, smooth, color="tab:blue", label="training loss")
        if rate:
            axes.axvline(rate, color="tab:orange", label=f"suggested: {rate:.1g}")
        axes.set(xscale="log", xlabel="learning rate", ylabel="training loss")
        axes.set_ylim(0, 1.5 * smooth[: max(3, len(smooth) // 2)].max())  # it ends where the loss is many times higher
        picture.legend(figure)
