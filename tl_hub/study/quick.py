"""A curve from frozen vectors alone: each text is read once, and a head is fitted on each draw of the rows."""

import dataclasses
from typing import Any, cast

import numpy as np
from datasets import Dataset

from tl_hub import base_model, data, finish, launch, row_predictions, seeds
from tl_hub.data import Split
from tl_hub.experiment import Experiment
from tl_hub.held_out import in_proportion
from tl_hub.methods.feature_extraction import FeatureExtraction, taken
from tl_hub.study.curve import Line, sizes
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
    run, *others = parts
    limits = {name: most for name, most in MOST.items() if getattr(run, name) is None}
    run = dataclasses.replace(run, **limits, train_draw=run.train_draw or 0)
    experiment = prepared((run, *others))
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
            scores.append(method.judged(experiment, vectors, chosen))
        name, count = task.best[0], len(rows.splits[rows.final].rows)
        kept = [list(row_predictions.figures_of(score, count)) for score in scores]
        metrics = [finish.metric(name, score, rows.final, count, 0) for score in scores]
        figures[size] = seeds.of_metric(metrics, kept)
    return Line(label, "feature-extraction", figures)
