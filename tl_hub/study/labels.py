"""Rows whose label is probably wrong: a head that was fitted without them, on frozen vectors, gives them another.

Confident learning, Northcutt, Jiang and Chuang 2021, https://arxiv.org/abs/1911.00068.
"""

import csv
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.special
from datasets import Dataset

from tl_hub import data
from tl_hub.calibration import temperature
from tl_hub.card.markdown import cut
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.feature_extraction import FeatureExtraction, examples
from tl_hub.metrics import mean_interval
from tl_hub.on_disk import each
from tl_hub.study.quick import prepared
from tl_hub.tasks.base import column
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.classification.decision import names_of
from tl_hub.vectors import heads

_OWN = ("row", "doubt", "suggested")
"""Columns of the files beside the user's."""
_SHOWN = 5


@dataclass(frozen=True)
class Doubts:
    """What a head makes of the labels of rows that it was not fitted on.

    Attributes:
        own: probability of the label that a row has, (rows,): of several, and of those it lacks, the lowest one.
        suggested: classes that it would give instead, bool, (rows, classes).
        wrong: whether the label is probably wrong, bool, (rows,).
    """

    own: np.ndarray
    suggested: np.ndarray
    wrong: np.ndarray


def doubts_of(probabilities: np.ndarray, targets: np.ndarray, multi_label: bool) -> Doubts:
    """Judge labels by probabilities of classes, (rows, classes), of a head that was not fitted on those rows.

    A label is probably wrong if another class is likelier and at least as likely as it is, on average, for the rows
    that have it (Northcutt et al., equation 1). With several labels a row, each class is judged as yes or no.

    Args:
        targets: which classes rows have, bool, (rows, classes).
    """
    if multi_label:
        yes = _sure(probabilities, targets)
        no = _sure(1 - probabilities, ~targets)
        other = np.where(targets, (1 - probabilities) >= no, probabilities >= yes)
        contradicted = other & ((probabilities >= 0.5) != targets)
        own = np.where(targets, probabilities, 1 - probabilities).min(1)
        return Doubts(own, targets ^ contradicted, contradicted.any(1))
    own = probabilities[targets]
    sure = np.where(probabilities >= _sure(probabilities, targets), probabilities, -1.0)
    place = sure.argmax(1)
    likeliest = np.arange(targets.shape[1]) == place[:, None]
    return Doubts(own, likeliest, (sure.max(1) > own) & ~(likeliest & targets).any(1))


def _sure(probabilities: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The mean probability of each class over the rows that have it, (classes,); infinite where none has."""
    count = targets.sum(0)
    total = np.where(targets, probabilities, 0.0).sum(0)
    return np.where(count, total / np.maximum(count, 1), np.inf)


def examine(parts: tuple[Any, ...], folder: Path) -> dict[str, Any]:
    """Judge the labels of all rows, and write those of each split into a file, the most doubtful ones first.

    Args:
        parts: run, task and method of a recipe of feature extraction.
        folder: for `train.csv` and the like: `row` (counted from 0, blank ones left out), `doubt` (1 - the probability
            of the label), the texts, the label and, where it is probably wrong, `suggested`.

    Returns:
        `accuracy` of the head on rows that it was not fitted on, with its 95 % interval from `low` to `high`, `chance`
        (the share of the most frequent class), all in per cent; `splits`: by name, `rows`, `wrong` and `file`;
        `contradictions`: groups of rows with the same text and different labels; `worst`: the most doubtful rows.

    Raises:
        UserError: as the recipe, the task is not to give classes, or a file that would be written is there.
    """
    if not isinstance(parts[1], Classification):
        raise UserError(f"labels of {parts[1].name} are not classes of texts; give a task such as sentiment")
    _check_files(parts[1], folder)
    if parts[2].head != FeatureExtraction.head:
        raise UserError(f"--head {parts[2].head}: labels are judged by ridge regression; omit it")
    experiment = prepared((*parts[:2], replace(parts[2], head="ridge")))
    task = cast("Classification", experiment.task)
    if task.regression:
        raise UserError("the labels are numbers, and only classes are judged; leave the rows as they are")
    splits = {name: split.rows for name, split in experiment.rows.splits.items()}
    probabilities = _probabilities(experiment)
    targets = {name: task.targets(rows) for name, rows in splits.items()}
    answer: dict[str, Any] = _quality(probabilities["train"], targets["train"], task.multi_label)
    answer |= {"splits": {}, "worst": []}
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in splits.items():
        doubts = doubts_of(probabilities[name], targets[name], task.multi_label)
        lines = sorted(_lines(task, rows, doubts), key=lambda line: -line["doubt"])
        path = folder / f"{name}.csv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]))
            writer.writeheader()
            writer.writerows(lines)
        answer["splits"][name] = {"rows": len(rows), "wrong": int(doubts.wrong.sum()), "file": str(path)}
        worst = [line for line in lines if line["suggested"]][:_SHOWN]
        answer["worst"] += [
            {
                "split": name,
                "row": line["row"],
                "doubt": line["doubt"],
                "text": line[task.text_column],
                "label": line[task.label_column],
                "suggested": line["suggested"],
            }
            for line in worst
        ]
    answer["worst"] = sorted(answer["worst"], key=lambda line: -line["doubt"])[:_SHOWN]
    answer["contradictions"] = _contradictions(task, splits.values())
    return answer


def _check_files(task: Classification, folder: Path) -> None:
    """
    Raises:
        UserError: a file is there already, which a person may have corrected, or a column has a name of ours.
    """
    for path in (folder / f"{name}.csv" for name in data.SPLITS):
        if path.exists():
            raise UserError(f"{path} is there, and may hold corrections; give another --output_dir")
    for column_name in (task.text_column, task.text_pair_column, task.label_column):
        if column_name in _OWN:
            raise UserError(f"column {column_name!r} would be lost, as the files have one of that name; rename it")


def _contradictions(task: Classification, splits: Iterable[Dataset]) -> int:
    """How many texts stand there more than once, with labels that differ."""
    first: dict[str, Any] = {}
    found = set()
    for row in itertools.chain.from_iterable(map(each, splits)):
        if first.setdefault(task.input_of(row), row["label"]) != row["label"]:
            found.add(task.input_of(row))
    return len(found)


def _probabilities(experiment: Experiment) -> dict[str, np.ndarray]:
    """Of each class for the rows of each split, (rows, classes), by a head that was fitted on other rows.

    That is the recipe's own, by ridge regression; for the training rows, one for each part of them, fitted on the rest.
    """
    task, rows = cast("Classification", experiment.task), experiment.rows
    method, seed = cast("FeatureExtraction", experiment.method), experiment.run.seed
    vectors = method.extract(experiment)
    chosen = method.choose(experiment.model, vectors["train"], rows.splits["train"], task, seed)
    found = {}
    for name, split in rows.splits.items():
        x = examples(task, vectors[name], column(split.encoded, "row"), chosen.layers, chosen.pooling, chosen.mix)
        if name == "train":
            targets = task.targets(split.rows)
            folds = heads.folds_of(targets, min(method.cv, len(targets)), seed)
            (logits,) = heads.cross_validate("ridge", x, targets, folds, (chosen.strength,), task.multi_label).logits
            logits = logits / temperature(logits, targets, task.multi_label)
        else:
            logits = chosen.head(x)
        found[name] = scipy.special.expit(logits) if task.multi_label else scipy.special.softmax(logits, axis=1)
    return found


def _quality(probabilities: np.ndarray, targets: np.ndarray, multi_label: bool) -> dict[str, float]:
    """How well the head gives the labels as they are; of several labels, of how many it tells yes or no."""
    if multi_label:
        right, chance = ((probabilities >= 0.5) == targets).mean(1), max(targets.mean(), 1 - targets.mean())
    else:
        right, chance = targets[np.arange(len(targets)), probabilities.argmax(1)], targets.mean(0).max()
    low, high = mean_interval(100.0 * right)
    return {"accuracy": 100 * float(right.mean()), "low": low, "high": high, "chance": 100 * float(chance)}


def _lines(task: Classification, rows: Dataset, doubts: Doubts) -> Iterator[dict[str, Any]]:
    """What the file says of each row, whose columns are called as the recipe's flags say."""
    names = {"text": task.text_column, "text_pair": task.text_pair_column, "label": task.label_column}
    suggested = names_of(doubts.suggested, task.labels)
    for place, row in enumerate(each(rows)):
        cells = {str(names[name]): row[name] for name in names if name in row}
        other = suggested[place] if task.multi_label else suggested[place][0]
        found = {"row": place, "doubt": round(1 - float(doubts.own[place]), 4), **cells}
        found["suggested"] = other if doubts.wrong[place] else ""
        yield {
            key: json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell for key, cell in found.items()
        }


def text_of(answer: dict[str, Any]) -> str:
    """What `examine` found, for the screen."""
    lines = [
        f"{name}: {split['wrong']:,} of {split['rows']:,} labels are probably wrong; {split['file']} has them first"
        for name, split in answer["splits"].items()
    ]
    if answer["contradictions"]:
        lines.append(f"{answer['contradictions']:,} texts stand there more than once, with labels that differ")
    for line in answer["worst"]:
        said = f"{line['label']}, rather {line['suggested']}: {cut(line['text'])}"
        lines.append(f"  {line['split']} row {line['row']}: {said}")
    figure = f"{answer['accuracy']:.1f} % ({answer['low']:.1f} to {answer['high']:.1f})"
    if answer["low"] <= answer["chance"]:
        lines.append(
            f"The head that judged them is right in {figure}, where the most frequent class is in "
            f"{answer['chance']:.1f} %: it can tell little. A larger --model may."
        )
    else:
        lines.append(f"The head that judged them agrees with {figure} of the training labels.")
    lines.append("Correct the labels in the files, and give those to the recipe as --train_file and the like.")
    return "\n".join(lines)
