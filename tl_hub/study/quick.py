"""Studies from frozen vectors alone: each text is read once, and heads are fitted on some of the rows."""

import dataclasses
from typing import Any, cast

import numpy as np
from datasets import Dataset

from tl_hub import base_model, data, finish, launch, overlap, row_predictions, seeds
from tl_hub.data import Split
from tl_hub.experiment import Experiment
from tl_hub.held_out import in_proportion
from tl_hub.methods.feature_extraction import FeatureExtraction, taken
from tl_hub.study.curve import Line, sizes
from tl_hub.study.domains import Trained
from tl_hub.tasks.base import column
from tl_hub.tasks.classification import Classification

MOST = {"train_rows": 1024, "validation_rows": 200, "test_rows": 1000}
"""Rows that are read, unless flags say otherwise."""


def prepared(parts: tuple[Any, ...]) -> Experiment:
    """What a recipe of feature extraction is asked for, with its rows read and its model loaded.

    Args:
        parts: run, task and method of the recipe.

    Raises:
        UserError: as the recipe.
    """
    run, task, method = parts
    if method.layer == "auto":  # a choice by cross-validation takes minutes
        method = dataclasses.replace(
            method, layer="last4", pooling="mean" if method.pooling == "sweep" else method.pooling
        )
    run = dataclasses.replace(run, check=False)
    launch.check(run, method)
    rows, task = data.load(run, task)
    accelerator = launch.start(dataclasses.replace(run, check=True))  # which writes to no folder
    model, tokenizer, base = base_model.load(run, task)
    base.check_frozen(model)
    data.encode(rows, task, tokenizer, model)
    return Experiment(run, task, method.fitting(run, task), base, rows, model, tokenizer, accelerator)


def line_of(label: str, parts: tuple[Any, ...], asked: str | None, draws: int) -> Line:
    """The line of one feature extraction.

    Args:
        parts: run, task and method of its recipe.
        asked: the sizes, as `sizes` takes them.
        draws: for each size.

    Raises:
        UserError: as the recipe.
    """
    experiment = prepared(_few(parts, train_draw=parts[0].train_draw or 0))
    task, rows, model = cast("Classification", experiment.task), experiment.rows, experiment.model
    method = cast("FeatureExtraction", experiment.method)
    wanted = sizes(asked, len(rows.splits["train"].rows))
    vectors = method.extract(experiment)
    train = rows.splits["train"]
    row = column(train.encoded, "row")
    figures = {}
    for size in wanted:
        scores = []
        for draw in range(draws):
            places = np.sort(in_proportion(train.rows, draw + 1)[:size])
            few, renumbered = taken(vectors["train"], row, places)
            split = Split(train.rows.select(places), Dataset.from_dict({"row": renumbered}))
            chosen = method.choose(model, few, split, task, draw)
            scores.append(method.judged(experiment, vectors, chosen, rows.final))
        name, count = task.best[0], len(rows.splits[rows.final].rows)
        kept = [list(row_predictions.figures_of(score, count)) for score in scores]
        metrics = [finish.metric(name, score, rows.final, count, 0) for score in scores]
        figures[size] = seeds.of_metric(metrics, kept)
    return Line(label, "feature-extraction", figures)


def trained_on(name: str, parts: tuple[Any, ...]) -> Trained:
    """A head of one feature extraction, with its figures on the run's own rows and on those of the other domains.

    Args:
        name: of the domain that it is trained on.
        parts: run, task and method of its recipe.

    Raises:
        UserError: as the recipe.
    """
    experiment = prepared(_few(parts))
    task, rows, run = cast("Classification", experiment.task), experiment.rows, experiment.run
    method = cast("FeatureExtraction", experiment.method)
    overlap.count(rows, task)
    elsewhere = {other.name: other.splits[other.final] for other in rows.others}
    every = dataclasses.replace(rows, splits=rows.splits | elsewhere, others=[], overlaps={}, near_duplicates={})
    vectors = method.extract(dataclasses.replace(experiment, rows=every))
    chosen = method.choose(experiment.model, vectors["train"], rows.splits["train"], task, run.seed)
    own = method.judged(experiment, vectors, chosen, rows.final)
    metric = finish.metric(task.best[0], own, rows.final, len(rows.splits[rows.final].rows), run.seed)
    others = [
        finish.domain_of(experiment, other, method.judged(experiment, vectors, chosen, other.name), [metric])
        for other in rows.others
    ]
    return Trained(name, metric, others)


def _few(parts: tuple[Any, ...], **settings: Any) -> tuple[Any, ...]:
    """Run, task and method, with a run that reads no more rows than `MOST`.

    Args:
        settings: of the run, instead of its own.
    """
    run, *others = parts
    limits = {name: most for name, most in MOST.items() if getattr(run, name) is None}
    return dataclasses.replace(run, **limits, **settings), *others
