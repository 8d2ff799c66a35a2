"""Pictures of studies. A technique has the same colour in each of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_hub import picture
from tl_hub.card.markdown import label_of

COLOURS = {
    "feature-extraction": "tab:green",
    "adapter": "tab:orange",
    "merged": "tab:orange",
    "fine-tuned": "tab:blue",
    "pretrained": "tab:purple",
}
_MARKS = "osD^vPX*"


def draw_costs(path: Path, answer: Mapping[str, Any], costs: Mapping[str, float | None], axis: str) -> None:
    """Quality against cost: a mark a run, with the 95 % interval over the rows.

    Args:
        answer: what `compare.compared` gave.
        costs: of each run, by its label.
        axis: what they are.
    """
    runs = [run for run in answer["runs"] if costs[run["run"]]]
    if not runs:
        return
    with picture.drawn(path, 7, 4) as figure:
        axes = figure.subplots()
        seen: dict[str, int] = {}
        for run in runs:
            mark = _MARKS[seen.get(run["kind"], 0) % len(_MARKS)]
            seen[run["kind"]] = seen.get(run["kind"], 0) + 1
            value = run["value"]
            low, high = (value if run[end] is None else run[end] for end in ("low", "high"))
            error = [[max(0.0, value - low)], [max(0.0, high - value)]]
            style = {"fmt": mark, "capsize": 4, "color": COLOURS[run["kind"]], "label": run["run"]}
            axes.errorbar([costs[run["run"]]], [value], error, **style)
        unit = "" if answer["unit"] is None else " (share)" if answer["unit"] == "share" else ", %"
        ends = [run[name] for run in runs for name in ("value", "low", "high") if run[name] is not None]
        axes.set(
            xscale="log",
            xlabel=axis,
            ylabel=f"{label_of(answer['metric'])} of the {answer['split']} rows{unit}",
            ylim=picture.limits(ends, answer["unit"]),
        )
        _plain_numbers(axes.xaxis)
        figure.legend(loc="outside upper center", ncols=3, frameon=False)


def _plain_numbers(axis: Any) -> None:
    """20 instead of 2 x 10^1, on a logarithmic axis."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
