"""The picture of a run: its training loss, the course of its first metric, and the result."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_hub import picture, run_folder
from tl_hub.card.markdown import label_of
from tl_hub.record import Metric, RunRecord, in_history

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw(folder: Path, record: RunRecord) -> None:
    """Write curves.png: the training loss of the steps in the log and, of the first metric, its course and the result.

    The course is that of the validation rows, where the history has it. The result stands at the epoch whose weights
    were kept, with its 95 % interval where that is known.
    """
    lines = map(json.loads, (folder / run_folder.LOG).read_text().splitlines())
    steps = [step for step in lines if "loss" in step]  # one that was skipped may have none
    if not steps:
        return
    with picture.drawn(folder / run_folder.CURVES) as figure:
        left = figure.subplots()
        loss = np.array([step["loss"] for step in steps])
        width = max(1, len(loss) // 50)
        smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
        left.plot([step["step"] for step in steps], loss, color="tab:blue", alpha=0.25, linewidth=0.8)
        left.plot([step["step"] for step in steps][width - 1 :], smooth, color="tab:blue", label="training loss")
        left.set(xlabel="optimizer step", ylabel="training loss", ylim=(0, None))
        for metric in record.metrics[:1]:
            course = [epoch for epoch in record.history if math.isfinite(epoch.get(in_history(metric.name), math.nan))]
            if course and math.isfinite(metric.value):
                _draw_metric(left.twinx(), metric, course, record.best_epoch)
        picture.legend(figure)


def _draw_metric(axes: "Axes", metric: Metric, epochs: list[dict[str, Any]], best_epoch: float | None) -> None:
    """The course of a metric over the `epochs` in which it was measured, and the result."""
    label = label_of(metric.name)
    course = [epoch[in_history(metric.name)] for epoch in epochs]
    axes.plot([epoch["step"] for epoch in epochs], course, "o-", color="tab:orange", label=f"validation {label}")
    kept = next((epoch for epoch in epochs if epoch.get("epoch") == best_epoch), epochs[-1])
    low, high = (metric.value if end is None else end for end in (metric.low, metric.high))
    axes.errorbar(
        [kept["step"]],
        [metric.value],
        [[max(0.0, metric.value - low)], [max(0.0, high - metric.value)]],  # an end may be rounded past the value
        fmt="D",
        color="black",
        capsize=4,
        label=f"result: {metric.split} {label}" + ("" if metric.low is None else ", 95 % interval"),
    )
    unit = {"%": ", %", "share": " (share)"}.get(metric.unit or "", "")
    axes.set(ylabel=label + unit, ylim=picture.limits([*course, metric.value, low, high], metric.unit))
