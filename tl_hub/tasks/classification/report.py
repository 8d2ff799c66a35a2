"""What a card says of a classifier beside its figures: simple systems, each class, and what is taken for what.

Which classes rows have, and which they were given, come as indicators: bool, (rows, classes).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tl_hub import picture
from tl_hub.tasks.classification.decision import f1

_MATRIX = 20
"""Classes up to which a confusion matrix is shown as a table; of more, the most frequent confusions are."""


def systems(
    texts: list[str],
    known: np.ndarray,
    asked: Iterable[str],
    expected: np.ndarray,
    predicted: np.ndarray,
    several: bool,
) -> list[dict[str, Any]]:
    """This model beside what knows nothing and what knows words only.

    Args:
        texts, known: what those learn from, and its classes.
        asked, expected, predicted: the measured texts, their classes and those that this model gives.
        several: rows have any number of classes.
    """
    from tl_hub.tasks.classification import baselines  # scikit-learn, for which --help does not wait

    by_words, strength = baselines.linear_model_of_words(texts, known, asked, several)
    found = {
        "this model": predicted,
        "most frequent class": baselines.most_frequent(known, len(expected), several),
        f"TF-IDF and logistic regression (C = {strength:g})": by_words,
    }
    return [
        {
            "system": name,
            "accuracy": 100 * float((guess == expected).all(1).mean()),
            **({"micro F1": 100 * f1(expected, guess, "micro")} if several else {}),
            "macro F1": 100 * f1(expected, guess, "macro"),
        }
        for name, guess in found.items()
    ]


def by_class(
    labels: list[str], learned: np.ndarray, expected: np.ndarray, predicted: np.ndarray
) -> list[dict[str, Any]]:
    """Figures of each class.

    Args:
        learned: training rows of each, (classes,).
    """
    from sklearn.metrics import precision_recall_fscore_support

    figures = precision_recall_fscore_support(expected, predicted, average=None, zero_division=0.0)
    return [
        {
            "class": label,
            "training rows": int(rows),
            "rows": int(count),
            "precision": 100 * p,
            "recall": 100 * r,
            "F1": 100 * f,
        }
        for label, rows, p, r, f, count in zip(labels, learned, *map(np.ndarray.tolist, figures), strict=True)
    ]


def confusions(labels: list[str], expected: np.ndarray, predicted: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """How often rows of each class were given each class; of many classes, what happened most often. One class a row.

    Returns:
        A table by its title; none where nothing was confused among many.
    """
    matrix = (expected.astype(int).T @ predicted).tolist()
    if len(labels) <= _MATRIX:
        table = [
            {"expected": label, **{f"predicted {name}": n for name, n in zip(labels, counts, strict=True)}}
            for label, counts in zip(labels, matrix, strict=True)
        ]
        return {"Confusion matrix": table}
    pairs = [
        {"expected": labels[i], "predicted": labels[j], "rows": count}
        for i, counts in enumerate(matrix)
        for j, count in enumerate(counts)
        if count and i != j
    ]
    return {"Most frequent confusions": sorted(pairs, key=lambda pair: -pair["rows"])[:_MATRIX]} if pairs else {}


def draw(path: Path, labels: list[str], expected: np.ndarray, predicted: np.ndarray) -> None:
    """A picture of the share of the rows of each class (line) that were given each class (column).

    Classes stand there by their numbers where no font that is installed has all letters of their names.
    """
    counts = expected.astype(int).T @ predicted
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    size = min(16, 3 + 0.5 * len(counts))
    with picture.drawn(path, size + 1, size) as figure:
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        places, fonts = range(len(counts)), _fonts_for(labels)
        names = [label if fonts else str(i) for i, label in enumerate(labels)]
        # A "$" in a name is not the start of a formula.
        axes.set_xticks(places, names, rotation=45, ha="right", family=fonts or None, parse_math=False)
        place = "" if fonts else " (place in the table of classes)"
        axes.set(xlabel=f"predicted{place}", ylabel=f"expected{place}")
        axes.set_yticks(places, names, family=fonts or None, parse_math=False)
        if len(counts) <= _MATRIX:
            for i in places:
                for j in places:
                    axes.text(j, i, counts[i, j], ha="center", va="center", color="w" if share[i, j] > 0.5 else "k")
        figure.colorbar(image, label="share of the expected class")


def _fonts_for(texts: list[str]) -> list[str]:
    """Names of installed fonts that have all letters of `texts` between them, matplotlib's own first; none if not."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    # Of a font without an upright, normal face, matplotlib takes another face, and warns of it.
    regular = (font.name for font in fontManager.ttflist if font.style == "normal" and font.weight in (400, "normal"))
    missing = {ord(letter) for text in texts for letter in text}
    fonts = []
    for name in dict.fromkeys([FontProperties().get_name(), *regular]):
        if not missing or name.startswith("Last Resort"):  # a font that has a box for everything
            continue
        found = missing & get_font(findfont(name)).get_charmap().keys()
        missing -= found
        fonts += [name] if found else []
    return [] if missing else fonts
