"""One technique across several domains: trained on each, measured on each, and how far their texts lie apart."""

import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_hub import comparison
from tl_hub.card.markdown import label_of
from tl_hub.domain_sources import Source
from tl_hub.errors import UserError
from tl_hub.record import Domain, Metric, RunRecord
from tl_hub.study.compare import WIDTH, drop_text

if TYPE_CHECKING:
    from tl_hub.config import RunConfig
    from tl_hub.data import TaskSettings

_TEXTS = 1000
"""Of each of two domains, whose distance is measured."""


@dataclass(frozen=True)
class Trained:
    """A model of one domain: its figure there, and those in the others."""

    name: str
    metric: Metric
    others: Sequence[Domain]


def named(sources: Sequence[Source]) -> dict[str, Source]:
    """The domains by name, each one that a folder may have.

    Raises:
        UserError: there is one only, or two have the same name.
    """
    found = {}
    for source in sources:
        name = re.sub(r"[^\w.-]+", "-", source.name or Path(source.place).name)
        if name in found:
            raise UserError(f"--data: two domains are called {name}; give each a name of its own, as in other=DATA")
        found[name] = source
    if len(found) < 2:
        raise UserError("--data: a matrix takes two domains or more, such as reviews=FOLDER,tweets=FOLDER")
    return found


def words_of(name: str, sources: Mapping[str, Source], usual: Mapping[str, str]) -> list[str]:
    """Flags of the run that is trained on the domain `name` and measured on all.

    Args:
        usual: what the settings that some domain gives are in the others.
    """
    settings = sorted({setting for source in sources.values() for setting in source.written})
    written = {
        domain: {setting: source.written.get(setting, usual.get(setting)) for setting in settings}
        for domain, source in sources.items()
    }

    def place(domain: str) -> str:
        also = [f"{setting}={value}" for setting, value in written[domain].items() if value]
        return " ".join([f"{domain}={sources[domain].place}", *also])

    own = sources[name].place
    words = ["--train_file" if Path(own).is_file() else "--dataset", own]
    for setting, value in written[name].items():
        words += [f"--{setting}", value] if value else []
    return [*words, "--eval_on", ",".join(place(domain) for domain in sources if domain != name)]


def training_texts(name: str, run: "RunConfig", settings: "TaskSettings") -> list[str]:
    """The inputs of a domain's training rows.

    Raises:
        UserError: as `data.load`, or there are no rows to measure on.
    """
    from tl_hub import data  # slow to import

    rows, task = data.load(run, settings)
    if rows.held_out and rows.final == "validation":
        raise UserError(f"--data: {name} has training rows only; give a folder with files named train and test")
    return [task.input_of(row) for row in data.each(rows.splits["train"].rows)]


def of_run(name: str, folder: Path) -> Trained:
    """What a finished run says."""
    record = RunRecord.load(folder)
    return Trained(name, record.metrics[0], record.domains)


def proxy_a_distance(one: Sequence[str], other: Sequence[str]) -> float:
    """How well a linear classifier tells texts of two domains apart: 2 (1 - 2 error), from 0 (not at all) to 2.

    The error is that of logistic regression on TF-IDF of words, in cross-validation on as many texts of each.

    Source: Ben-David et al. 2007, https://papers.nips.cc/paper/2983; 2010, https://doi.org/10.1007/s10994-009-5152-4
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline

    size = min(len(one), len(other), _TEXTS)
    texts, labels = [*one[:size], *other[:size]], [0] * size + [1] * size
    classifier = make_pipeline(TfidfVectorizer(token_pattern=r"\w+"), LogisticRegression(C=10.0, max_iter=1000))
    folds = StratifiedKFold(min(5, size), shuffle=True, random_state=0)
    right = float(cross_val_score(classifier, texts, labels, cv=folds).mean())
    return max(0.0, 2 * (1 - 2 * (1 - right)))


def compared(
    technique: str, model: str, trained: Sequence[Trained], texts: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What the matrix comes to, in plain values: `cells`, `distances` and `advice`.

    Args:
        texts: training texts of each domain.

    Raises:
        UserError: the domains are not measured by the same metric.
    """
    first = trained[0].metric
    if {each.metric.name for each in trained} != {first.name}:
        raise UserError(f"the domains are measured by {' and '.join(sorted({each.metric.name for each in trained}))}")
    cells = []
    for each in trained:
        for name, metric in [(each.name, each.metric), *((other.name, _first(other, first)) for other in each.others)]:
            facts = {"drop": None, "drop_low": None, "drop_high": None} | dataclasses.asdict(metric)
            kept = ("split", "rows", "value", "low", "high", "drop", "drop_low", "drop_high")
            cells.append({"trained_on": each.name, "measured_on": name, **{key: facts[key] for key in kept}})
    distances = [
        {"domains": [one, other], "value": proxy_a_distance(texts[one], texts[other])}
        for one, other in combinations([each.name for each in trained], 2)
    ]
    answer = {
        "technique": technique,
        "metric": first.name,
        "higher_is_better": first.name not in comparison.LOWER_IS_BETTER,
        "unit": first.unit,
        "domains": [each.name for each in trained],
        "cells": cells,
        "distances": distances,
    }
    return answer | {"advice": _advice(answer, model)}


def _first(domain: Domain, metric: Metric) -> Metric:
    return next(found for found in domain.metrics if found.name == metric.name)


def _advice(answer: Mapping[str, Any], model: str) -> str:
    """On the drop that is shown where a model trained there is better by most, and what unlabelled texts may do.

    That difference on the same rows, the transfer loss of Glorot et al. 2011 (https://icml.cc/2011/papers/342_icmlpaper.pdf),
    is what there is to be regained; the drop itself may come of rows that are harder.
    """
    there = {cell["measured_on"]: cell["value"] for cell in answer["cells"] if cell["drop"] is None}
    sign = 1 if answer["higher_is_better"] else -1
    shown = [cell for cell in answer["cells"] if cell["drop_low"] is not None and cell["drop_low"] > 0]
    if not shown:
        return "No model is shown to be worse in another domain than in its own."
    worst = max(shown, key=lambda cell: sign * (there[cell["measured_on"]] - cell["value"]))
    if sign * (there[worst["measured_on"]] - worst["value"]) <= 0:
        return "Where a model is shown to be worse, one trained there is no better: the rows of that domain are harder."
    base = Path(model).name if Path(model).is_absolute() else model
    return (
        f"Most can be regained for the model of {worst['trained_on']} on {worst['measured_on']}: it is "
        f"{drop_text(worst, answer['unit'])}, and a model trained there has {there[worst['measured_on']]:.1f} where it "
        f"has {worst['value']:.1f}. Unlabelled texts of {worst['measured_on']} may bring some of it back: "
        f"recipes/continued_pretraining_finetune.py --model {base} --train_file TEXTS reads them, and its run folder "
        "is then the --model of this command."
    )


def drop_lines(answer: Mapping[str, Any]) -> list[str]:
    """A line for each model in each other domain: how much worse it is there than on its own rows, and the distance."""
    distances = {frozenset(found["domains"]): found["value"] for found in answer["distances"]}
    return [
        f"{cell['trained_on']} to {cell['measured_on']}: {drop_text(cell, answer['unit'])}; distance of the texts "
        f"{distances[frozenset((cell['trained_on'], cell['measured_on']))]:.2f}"
        for cell in answer["cells"]
        if cell["drop"] is not None
    ]


def cell_text(cell: Mapping[str, Any]) -> str:
    if cell["low"] is None:
        return f"{cell['value']:.1f}"
    return f"{cell['value']:.1f} ({cell['low']:.1f} to {cell['high']:.1f})"


def text_of(answer: Mapping[str, Any]) -> str:
    """The matrix for a screen of 80 columns."""
    names, of = answer["domains"], {(cell["trained_on"], cell["measured_on"]): cell for cell in answer["cells"]}
    lines = [f"{label_of(answer['metric'])} by {answer['technique']}, with its 95 % interval; a line a training domain"]
    per_block = max(1, (WIDTH - max(map(len, ["trained on", *names]))) // 24)
    for start in range(0, len(names), per_block):
        shown = names[start : start + per_block]
        table = [["trained on", *shown], *([own, *(cell_text(of[own, other]) for other in shown)] for own in names)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)]
    lines += ["", *drop_lines(answer), "", answer["advice"]]
    return "\n".join(part for line in lines for part in (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line]))
