"""Pictures of cards: the same whatever style the user has, on a white plate, as pages are dark as often as light."""

import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 4.4, 3.2
"""Of axes and what is beside them, in inches: matplotlib's 10 points are then 11 pixels on a phone of 390."""
_LEAST = {"%": 10.0, "share": 0.1}
"""Unit of a figure -> what its axis covers at least: less would make a mountain of a few tenths."""
_ENDS = {"%": 100.0, "share": 1.0}


@contextmanager
def drawn(path: Path, width: float = WIDTH, height: float = HEIGHT) -> Iterator[Any]:
    """A figure of matplotlib's, in inches, which is saved as `path` in the end."""
    from matplotlib import style
    from matplotlib.figure import Figure  # not pyplot, whose backend may be the user's

    with style.context("default"):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        figure.savefig(path, dpi=160, facecolor="white", transparent=False)


def legend(figure: Any) -> None:
    """A legend above the axes, in as many columns as there is room for; the figure grows by its height."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for text in [label for axes in figure.axes for label in axes.get_legend_handles_labels()[0]]:
        text.set_label(textwrap.fill(text.get_label(), 44))
    for columns in (3, 2, 1):
        made = figure.legend(loc="outside upper center", ncols=columns, frameon=False)
        box = made.get_window_extent(FigureCanvasAgg(figure).get_renderer())
        if box.width <= figure.bbox.width or columns == 1:
            break
        made.remove()
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)


def limits(values: Iterable[float], unit: str | None) -> tuple[float, float]:
    """Ends of an axis with room around `values` that covers 10 points at least, or a tenth of a figure without a unit.

    Of per cent and shares it ends where they do, with room for a mark there.
    """
    values = list(values)
    low, high = min(values), max(values)
    least = _LEAST.get(unit or "", max(abs(low), abs(high)) / 10 or 1.0)
    span = max(1.2 * (high - low), least)
    middle = (low + high) / 2
    if unit in _ENDS and low >= 0:
        end, margin = _ENDS[unit], 0.03
        span = min(span, (1 + 2 * margin) * end)
        middle = min(max(middle, (0.5 - margin) * span), end - (0.5 - margin) * span)
    return middle - span / 2, middle + span / 2
