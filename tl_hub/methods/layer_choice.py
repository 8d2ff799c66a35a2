"""What the two ways of choosing a layer share: rows to compare layers on, and the picture of the comparison."""

from pathlib import Path
from typing import Any

import numpy as np

from tl_hub import picture, run_folder


def drawn_rows(row: np.ndarray, most: int, each: bool, seed: int) -> np.ndarray:
    """Numbers of rows drawn at random until about `most` are there, ascending; all if there are no more than that.

    Args:
        row: of each encoded row, (encoded rows,), counted from 0.
        each: count the encoded rows, and not the rows. The last row that is drawn may exceed `most`.
    """
    sizes = np.bincount(row) if each else np.ones(row[-1] + 1, dtype=int)
    order = np.random.default_rng(seed).permutation(len(sizes))
    return np.sort(order[: np.searchsorted(sizes[order].cumsum(), most) + 1])


def draw(folder: Path, sweep: list[dict[str, Any]], layer: str, pooling: str, metric: str) -> None:
    """Write layers.png: quality by layer, a line a pooling, with a mark on what was chosen."""
    with picture.drawn(folder / run_folder.LAYERS) as figure:
        axes = figure.subplots()
        names = [line["layer"] for line in sweep]
        for each in sweep[0]:
            if each != "layer":
                axes.plot(names, [line[each] for line in sweep], "o-", label=each)
        axes.plot(layer, sweep[names.index(layer)][pooling], "k*", markersize=16, label="chosen", zorder=3)
        measured = [line[each] for line in sweep for each in line if each != "layer"]
        axes.set(xlabel="layer (0: embeddings)", ylabel=f"{metric}, %", ylim=picture.limits(measured, "%"))
        picture.legend(figure)
