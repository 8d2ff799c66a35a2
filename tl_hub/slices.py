"""Where a model is worst: a metric by parts of the measured rows, for the card."""

import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset

from tl_hub.card.markdown import label_of
from tl_hub.metrics import mean_interval
from tl_hub.on_disk import each
from tl_hub.tasks.base import Score, Task

FEWEST = 30
"""Rows of a slice: of less, the interval is too wide to tell it from another."""
_SHOWN = 5
_LETTERS = 200
"""Of a text, by which its script is known."""


def tables(rows: Dataset, task: Task, score: Score) -> dict[str, list[dict[str, Any]]]:
    """A metric in thirds of the rows by the words of their input, and in the slices that are worst; 95 % intervals.

    The metric is the one that chose the epoch if it is a mean over rows, or else the first that is. No table where
    none is, or where the rows are too few or too much of a kind to be cut.
    """
    means = [name for name, values in score.metrics.items() if values.shape == (len(rows),)]
    if not means or len(rows) < 3 * FEWEST:
        return {}
    metric = task.best[0] if task.best[0] in means else means[0]
    values = score.metrics[metric]
    words = np.fromiter((len(task.input_of(row).split()) for row in each(rows)), int, len(rows))
    thirds = dict(_thirds(words, ~np.isnan(values)))
    kinds = dict(_kinds(rows, task))
    kept = {name: inside & ~np.isnan(values) for name, inside in kinds.items()}
    kept |= {f"words of the input: {span}": inside for span, inside in thirds.items()}
    parts = {name: inside for name, inside in kept.items() if FEWEST <= inside.sum() <= len(rows) - FEWEST}
    found = {}
    if len(thirds) > 1:
        found["By length of the input"] = [
            {"words of the input": span} | _figures(metric, score, inside) for span, inside in thirds.items()
        ]
    if any(name in kinds for name in parts):
        judged = [
            {"slice": name, **_figures(metric, score, inside), "other rows": float(np.nanmean(values[~inside]))}
            for name, inside in sorted(parts.items(), key=lambda part: values[part[1]].mean())
        ]
        worst = [row for row in judged if row[label_of(metric)] < row["other rows"]]
        found |= {f"Worst of {len(parts)} slices": worst[:_SHOWN]} if worst else {}
    return found


def _figures(metric: str, score: Score, inside: np.ndarray) -> dict[str, Any]:
    groups = None if score.groups is None else score.groups[inside]
    values = score.metrics[metric][inside]
    interval = "{:.1f} to {:.1f}".format(*mean_interval(values, groups))
    return {"rows": int(inside.sum()), label_of(metric): float(values.mean()), "95 % interval": interval}


def _thirds(words: np.ndarray, known: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Which rows are in each third by their number of words, and from how many to how many that is."""
    edges = np.unique([0, *np.quantile(words, [1 / 3, 2 / 3], method="lower"), words.max()])
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        inside = (words > low) & (words <= high) & known
        if inside.sum() >= FEWEST:
            yield f"{words[inside].min()} to {words[inside].max()}", inside


def _kinds(rows: Dataset, task: Task) -> Iterator[tuple[str, np.ndarray]]:
    """Which rows are of each kind that the task tells apart, and have their input in each script."""
    told: dict[str, list[str]] = {}
    for row in each(rows):
        for kind, value in {**task.slices_of(row), "script": script_of(task.input_of(row))}.items():
            told.setdefault(kind, []).append(value)
    for kind, values in told.items():
        for value, count in Counter(values).items():
            if count >= FEWEST:
                yield f"{kind}: {value}", np.array([each == value for each in values])


def script_of(text: str) -> str:
    """The script of most of a text's letters by their names in Unicode, such as Latin, Hangul or Cyrillic."""
    letters = (unicodedata.name(letter, "").split(" ")[0] for letter in text[:_LETTERS] if letter.isalpha())
    return next((name.capitalize() for name, _ in Counter(letters).most_common(1)), "none")
