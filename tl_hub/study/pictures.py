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
    with picture.drawn(path) as figure:
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
        ends = [run[name] for run in runs for name in ("value", "low", "high") if run[name] is not None]
        axes.set(
            xscale="log",
            xlabel=axis,
            ylabel=f"{label_of(answer['metric'])} of the {answer['split']} rows{_unit(answer)}",
            ylim=picture.limits(ends, answer["unit"]),
        )
        _plain_numbers(axes.xaxis)
        picture.legend(figure)


def draw_curves(path: Path, answer: Mapping[str, Any]) -> None:
    """Quality by the number of training rows: a line a technique, with a band for the 95 % interval.

    Args:
        answer: what `curve.drawn` gave.
    """
    from matplotlib.ticker import LogLocator

    with picture.drawn(path) as figure:
        axes = figure.subplots()
        seen: dict[str, int] = {}
        ends: list[float] = []
        for curve in answer["curves"]:
            number = seen[curve["kind"]] = seen.get(curve["kind"], -1) + 1
            rows = [point["train_rows"] for point in curve["points"]]
            values, lows, highs = ([point[name] for point in curve["points"]] for name in ("value", "low", "high"))
            style = {"color": COLOURS[curve["kind"]], "linestyle": ("-", "--", ":", "-.")[number % 4]}
            axes.plot(rows, values, marker=_MARKS[number % len(_MARKS)], label=curve["technique"], **style)
            if None not in lows and None not in highs:
                axes.fill_between(rows, lows, highs, color=COLOURS[curve["kind"]], alpha=0.15, linewidth=0)
            ends += [end for end in (*values, *lows, *highs) if end is not None]
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(2, numticks=5))  # more numbers would touch each other
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(
            xlabel="training rows",
            ylabel=f"{label_of(answer['metric'])} of the {answer['split']} rows{_unit(answer)}",
            ylim=picture.limits(ends, answer["unit"]),
        )
        picture.legend(figure)


def draw_domains(path: Path, answer: Mapping[str, Any]) -> None:
    """A square for each model in each domain, the darker the better, with its figure; no bar, as figures say it all.

    Args:
        answer: what `domains.compared` gave.
    """
    names = answer["domains"]
    values = {(cell["trained_on"], cell["measured_on"]): cell["value"] for cell in answer["cells"]}
    low, high = picture.limits(values.values(), answer["unit"])
    size, longest = 0.7 * len(names), max(map(len, names)) / 14
    with picture.drawn(path, max(size, 1.4) + 0.7 + longest, size + 1 + longest / 2) as figure:
        axes = figure.subplots()
        squares = [[values[own, other] for other in names] for own in names]
        palette = "Blues" if answer["higher_is_better"] else "Blues_r"
        # Of a fixed aspect, the layout would leave no room for long names.
        axes.imshow(squares, cmap=palette, vmin=low, vmax=high, aspect="auto")
        for row, line in enumerate(squares):
            for place, value in enumerate(line):
                dark = (value - low) / (high - low) > 0.5 if answer["higher_is_better"] else value < (low + high) / 2
                text = {"ha": "center", "va": "center", "color": "white" if dark else "black"}
                axes.text(place, row, f"{value:.1f}", weight="bold" if row == place else "normal", **text)
        axes.set(xticks=range(len(names)), yticks=range(len(names)), xlabel="measured on", ylabel="trained on")
        axes.set_xticklabels(names, rotation=30, ha="right")
        axes.set_yticklabels(names)
        figure.suptitle(f"{label_of(answer['metric'])}{_unit(answer)}", fontsize="medium")


def _unit(answer: Mapping[str, Any]) -> str:
    return {"%": ", %", "share": " (share)"}.get(answer["unit"] or "", "")


def _plain_numbers(axis: Any) -> None:
    """20 instead of 2 x 10^1, on a logarithmic axis."""
    from matplotlib.ticker import LogFormatter

    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
