"""The same run with several seeds (`--seeds`), and how far its figures depend on the seed.

Each seed's run is a whole one, measured on the final rows and kept in `RUN.seeds/`. What becomes the result is the one
whose validation figure is the median: a typical model, whose figures are what another seed would give, where the best
one's would be those of the luckiest. Test rows take no part in the choice. A single seed tells little: Dodge et al.
2020, https://arxiv.org/abs/2002.06305.
"""

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_hub import row_predictions, run_folder, seed_intervals, soup
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import Metric, RunRecord, SeedsMetric
from tl_hub.trials import Trials

if TYPE_CHECKING:
    from tl_hub.methods.base import Method
    from tl_hub.tasks.base import Task

TITLE = "Each seed"


class Seeds(Trials):
    """The runs of several seeds, which all stay where they are; the result is a copy of one."""

    flag, noun, notes_name, least = "seeds", "set of seeds", run_folder.SEEDS, 2
    own = ("seed", "soup")
    of_the_result = tuple(
        setting.name for setting in fields(RunConfig) if "push_to" in (setting.name, setting.metadata["needs"])
    )

    def __init__(self, run: RunConfig, method: "Method", common: Sequence[str]):
        # Seeds that were begun without it do not share their initial weights.
        super().__init__(run, method, [*common, *["--soup"] * run.soup])
        self.soup = run.soup

    @staticmethod
    def settings(run: RunConfig, task: "Task", method: "Method") -> dict[str, dict[str, Any]]:
        """`seed`, `seed + 1` and so on, with the same initial weights where they are to be averaged.

        Raises:
            UserError: they are, and cannot be.
        """
        assert run.seeds is not None
        if run.soup:
            soup.check(method)
        same = {"init_seed": run.seed if run.init_seed is None else run.init_seed} if run.soup else {}
        return {f"seed={seed}": {"seed": seed, **same} for seed in range(run.seed, run.seed + run.seeds)}

    def choose(self, ended: Mapping[str, dict[str, Any]]) -> str:
        """The one with the median figure of the validation rows; of an even number, the worse of the middle two."""
        higher = next(iter(ended.values()))["higher"]
        from_worst = sorted(ended, key=lambda name: ended[name]["figure"] * (1 if higher else -1))
        return from_worst[(len(ended) - 1) // 2]

    def take(self, name: str) -> None:
        """Copy it, without the card, which says what run it is of, and put the average of all beside its state.

        Raises:
            UserError: as `soup.make`.
        """
        left_out = shutil.ignore_patterns(run_folder.CARD, run_folder.PAGE)
        shutil.copytree(self.path / name, self.result, ignore=left_out, dirs_exist_ok=True)
        if self.soup:
            ended = [self.path / other for other, trial in self.done.items() if "figure" in trial]
            soup.make(ended, self.result / run_folder.STATE)

    def facts(self, chosen: str) -> dict[str, Any]:
        """The figures over the seeds, and the table of the seeds.

        Raises:
            UserError: the rows that were measured changed between two runs.
        """
        ended = {name: self.path / name for name, trial in self.done.items() if "figure" in trial}
        records = {name: RunRecord.load(folder) for name, folder in ended.items()}
        figures = over_seeds([*ended.values()], [*records.values()])
        rows = []
        for name, trial in self.done.items():
            shown = {}
            if name in records:
                first, metric = records[name].metrics[0], trial["metric"].removeprefix("validation_")
                shown = {f"validation {metric}": trial["figure"], f"{first.split} {first.name}": first.value}
            outcome = "kept" if name == chosen else "diverged" if "failed" in trial else ""
            rows.append({**trial["settings"], **shown, "epoch": trial.get("epoch", ""), "outcome": outcome})
        return {"metrics": [dataclasses.asdict(figure) for figure in figures], "tables": {TITLE: rows}}


def figures_in(folder: Path) -> list[SeedsMetric]:
    """The figures over the seeds of a run that was chosen among several; none of another."""
    file = folder / run_folder.SEEDS
    return [SeedsMetric(**metric) for metric in json.loads(file.read_text())["metrics"]] if file.is_file() else []


def settings_of_soup(folder: Path) -> dict[str, Any]:
    """What makes the average of several seeds' weights again, beside the settings that the seeds have in common."""
    rows = json.loads((folder / run_folder.SEEDS).read_text())["tables"][TITLE]
    return {"seed": min(row["seed"] for row in rows), "seeds": len(rows), "soup": True}


def over_seeds(folders: Sequence[Path], records: Sequence[RunRecord]) -> list[SeedsMetric]:
    """Mean, spread and the interval over seeds and rows of each metric that all runs have.

    Args:
        folders, records: of the runs, which were measured on the same rows.

    Raises:
        UserError: they were not.
    """
    rows = {record.data.splits[record.metrics[0].split].sha256 for record in records}
    if len(rows) > 1:
        raise UserError("--seeds: the rows that are measured have changed since the first run; --overwrite starts anew")
    kept = [row_predictions.read(folder) for folder in folders]
    found = []
    for first in records[0].metrics:
        every = [metric for record in records for metric in record.metrics if metric.name == first.name]
        if len(every) == len(records):
            found.append(of_metric(every, kept))
    return found


def of_metric(metrics: Sequence[Metric], kept: Sequence[Sequence[Mapping[str, Any]]]) -> SeedsMetric:
    """One metric over several runs.

    Args:
        metrics: the figure of each run.
        kept: lines of the predictions of each run, as far as they have the metric and the row's group.
    """
    first, figures = metrics[0], np.array([metric.value for metric in metrics])
    percent = first.unit == "%"
    same = len({*map(len, kept)}) == 1  # of language models the lines are samples
    scores = np.array([[row.get(first.name) for row in rows] for rows in (kept if same else [])], float)  # None is NaN
    known = ~np.isnan(scores)
    low, high = None, None
    if known.any() and (known == known[0]).all():
        groups = np.array([row["group"] for row in kept[0]])[known[0]] if "group" in kept[0][0] else None
        low, high = seed_intervals.of_means(scores[:, known[0]], groups, percent=percent)
    elif all(metric.low is not None and metric.high is not None for metric in metrics):
        ends = (np.array([getattr(metric, end) for metric in metrics], float) for end in ("low", "high"))
        low, high = seed_intervals.of_figures(figures, *ends, percent=percent)
    return SeedsMetric(
        name=first.name,
        value=float(figures.mean()),
        low=low,
        high=high,
        split=first.split,
        rows=first.rows,
        unit=first.unit,
        seeds=len(figures),
        deviation=float(figures.std(ddof=1)),
        least=float(figures.min()),
        most=float(figures.max()),
    )
