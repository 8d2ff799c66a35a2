"""Techniques beside each other on the same rows: quality, cost, what is shown of their differences, and advice."""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tl_hub import comparison, row_predictions, run_folder
from tl_hub.card.markdown import duration, interval_of, label_of, value_of
from tl_hub.errors import UserError
from tl_hub.metrics import chrf_counts, chrf_of
from tl_hub.record import Metric, RunRecord
from tl_hub.study import COSTS, paired
from tl_hub.study.paired import Difference

WIDTH = 80
_SAVING = 0.9
"""Of what the best one cost: one that costs less is cheaper. Runs of one technique differ by less."""


@dataclass(frozen=True)
class Measured:
    """A finished run.

    Attributes:
        scores: by split, by metric, the figure of each row, shape (rows,); NaN where it has none.
        groups: by split, the label of each row's group, shape (rows,); none where rows stand alone.
        counts: by split, what chrF adds up of each row, shape (rows, any); empty where that is not the metric.
        size: bytes that a push would send, but for the card.
    """

    label: str
    folder: Path
    record: RunRecord
    scores: dict[str, dict[str, np.ndarray]]
    groups: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    size: int

    @property
    def metric(self) -> Metric:
        return self.record.metrics[0]

    def rows(self, split: str) -> int:
        return len(self.counts[split] if self.counts else next(iter(self.scores[split].values())))

    def mean(self, split: str, metric: str) -> float:
        """The metric of a split, by what each row has of it."""
        if metric == "chrf":
            return chrf_of(self.counts[split].sum(0))
        return float(np.nanmean(self.scores[split][metric]))

    def cost(self, kind: str) -> float | None:
        """In the unit that `COSTS` names; None where it is not known."""
        cost = self.record.cost
        memory = cost.peak_memory_bytes
        return {
            "seconds": cost.training_seconds,
            "memory": memory / 2**20 if memory else None,
            "size": self.size / 1e6,
            "parameters": cost.trainable_parameters,
        }[kind]


def read(label: str, folder: Path) -> Measured:
    """
    Raises:
        UserError: it is no run folder, or one that keeps no predictions.
    """
    record = RunRecord.load(folder)
    if not record.metrics or not (folder / run_folder.PREDICTIONS).is_file():
        raise UserError(f"{folder} keeps no {run_folder.PREDICTIONS} to compare; train it by its recipe")
    lines = {record.metrics[0].split: row_predictions.read(folder)}
    if (folder / run_folder.VALIDATION).is_file():
        lines["validation"] = row_predictions.read(folder, run_folder.VALIDATION)
    names = [metric.name for metric in record.metrics]
    scores = {
        split: {name: np.array([row[name] for row in rows], float) for name in names if rows and name in rows[0]}
        for split, rows in lines.items()
    }
    if "rmse" in names:
        for split, rows in lines.items():
            errors = [float(row["predicted"]) - float(row["expected"]) for row in rows]
            scores[split]["squared_error"] = np.array(errors) ** 2
    groups = {split: np.array([row["group"] for row in rows]) for split, rows in lines.items() if "group" in rows[0]}
    size = sum(file.stat().st_size for name in run_folder.PUBLISHED for file in folder.glob(name))
    return Measured(label, folder, record, scores, groups, _chrf_counts(record.metrics[0], lines), size)


def _chrf_counts(metric: Metric, lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, np.ndarray]:
    """By split; none where a run was measured by several references a row, of which the lines have the first."""
    if metric.name != "chrf":
        return {}
    found = {
        split: chrf_counts([row["predicted"] for row in rows], [row["expected"] for row in rows])
        for split, rows in lines.items()
    }
    return found if abs(chrf_of(found[metric.split].sum(0)) - metric.value) < 0.01 else {}


def compared(runs: Sequence[Measured], cost: str) -> dict[str, Any]:
    """What a comparison comes to, in plain values: its runs and domains, `differences` by split, best, advice, notes.

    The best is the one with the best figure on the rows that choose: those of validation where all runs kept their
    predictions for them, or else the measured ones. The advice is the cheapest run of which, on the same rows, no
    difference to the best is shown, unless it saves less than a tenth or the measured rows show it to be worse.

    Raises:
        UserError: the runs were not measured on the same rows, or by the same metric.
    """
    first = runs[0].metric
    higher = first.name not in comparison.LOWER_IS_BETTER
    _check_same(runs)
    name, notes = _tested(runs, first), list[str]()
    by = "validation" if all("validation" in run.scores for run in runs) and _same_rows(runs, "validation") else ""
    by = by or first.split
    if by != "validation" and name:
        notes.append(
            f"The {by} rows chose the best and the advice, as not every run kept its predictions for validation rows; "
            "the best figure is a little too good."
        )
    if by == first.split == "validation":
        notes.append("There are no test rows: the figures are of the rows that chose the epochs, and are too good.")
    notes.append("Tested are these runs: with other seeds they may come out in another order.")
    trained = {run.record.data.splits["train"].sha256 for run in runs if "train" in run.record.data.splits}
    if len(trained) > 1:
        notes.append("They were trained on different rows.")
    if name and name != first.name:
        notes.append(f"Differences are tested by {label_of(name)}, as {label_of(first.name)} is no mean over rows.")
    answer: dict[str, Any] = {
        "metric": first.name,
        "higher_is_better": higher,
        "unit": first.unit,
        "split": first.split,
        "rows": first.rows,
        "chosen_by": by if name else None,
        "tested_by": name,
        "cost": cost,
        "runs": [_facts(run) for run in runs],
        "domains": [found for run in runs for found in _in_domains(run)],
        "notes": notes,
    }
    if not name:
        notes.append(f"No difference is tested: {label_of(first.name)} is no mean over rows.")
        return answer | {"best": None, "differences": {}, "advice": None}
    means = [(1 if higher else -1) * run.mean(by, name) for run in runs]
    best = runs[int(np.argmax(means))]
    differences = {
        split: _against(best, [run for run in runs if run is not best], split, name)
        for split in {by: 0, first.split: 0}
    }
    answer |= {
        "best": best.label,
        "differences": {
            split: {
                label: dataclasses.asdict(found) | {"verdict": found.verdict(higher)} for label, found in these.items()
            }
            for split, these in differences.items()
        },
    }
    if len(runs) > 2:
        notes.insert(0, f"Each p is adjusted for {len(runs) - 1} comparisons; the intervals are those of one.")
    spent = {run.label: value for run in runs if (value := run.cost(cost)) is not None}
    alike = [label for label, found in differences[by].items() if found.verdict(higher) != "worse" and label in spent]
    alike.sort(key=lambda label: spent[label])
    most = spent.get(best.label, math.inf)
    cheaper = [label for label in alike if spent[label] < _SAVING * most]
    passed = [label for label in cheaper if differences[first.split][label].verdict(higher) == "worse"]
    taken = next((label for label in cheaper if label not in passed), best.label)
    if taken not in spent:
        return answer | {"advice": None}
    passed = [label for label in passed if spent[label] < spent[taken]]
    near = [label for label in alike if _SAVING * most <= spent[label] < most]
    (run,) = (run for run in runs if run.label == taken)
    return answer | {"advice": _advice(run, answer, passed, near)}


def _advice(taken: Measured, answer: Mapping[str, Any], passed: Sequence[str], near: Sequence[str]) -> dict[str, str]:
    """The run that is advised, and the sentence that says so.

    Args:
        passed: cheaper ones that only the measured rows show to be worse.
        near: those that are hardly cheaper than the best.
    """
    best, by, cost = answer["best"], answer["chosen_by"], answer["cost"]
    spent = f"{_cost_text(taken, cost)} of {'training' if cost == 'seconds' else COSTS[cost].split(',')[0]}"
    if cost == "parameters":
        spent = f"{_cost_text(taken, cost)} trained parameters"
    rows = f"the {taken.rows(by):,} {by} rows"
    if taken.label == best:
        others = answer["differences"][by].values()
        alike = any(found["verdict"] != "worse" for found in others)
        why = f"it is the best on {rows}"
        if near:
            why += f", and {' and '.join(near)} would not save a tenth"
        elif alike:
            why += ", and the cheapest of those that are not shown to be worse"
    else:
        why = f"on {rows} no difference to the best, {best}, is shown"
    sentence = f"Take {taken.label}, with {spent}: {why}."
    if taken.label != best:
        found = answer["differences"][by][taken.label]
        worst = -found["low"] if answer["higher_is_better"] else found["high"]
        sentence += f" So few rows leave room for up to {_figure(worst, answer['unit'])} points worse, though."
    if passed:
        names, one = " and ".join(passed), len(passed) == 1
        sentence += (
            f" {names} {'is' if one else 'are'} cheaper, but the {answer['split']} rows show {'it' if one else 'them'} "
            f"to be worse than {best}."
        )
    later = answer["differences"][answer["split"]].get(taken.label)
    if by != answer["split"] and later and later["verdict"] == "better":
        sentence += f" On the {answer['split']} rows it is shown to be better."
    return {"run": taken.label, "sentence": sentence}


def _check_same(runs: Sequence[Measured]) -> None:
    first = runs[0]
    for run in runs[1:]:
        names = [(each.metric.name, each.metric.split) for each in (first, run)]
        if names[0] != names[1]:
            said = " and ".join(f"{label_of(name)} of the {split} rows" for name, split in names)
            raise UserError(f"{first.label} and {run.label} cannot be compared: they have {said}")
        if not _same_rows([first, run], first.metric.split):
            raise UserError(
                f"{first.label} and {run.label} were measured on different {first.metric.split} rows, by the SHA-256 "
                "in run.json; train both with the same --test_file or --dataset"
            )


def _same_rows(runs: Sequence[Measured], split: str) -> bool:
    """Whether the rows of a split are known to be the same."""
    prints = {run.record.data.splits[split].sha256 if split in run.record.data.splits else None for run in runs}
    return len(prints) == 1 and None not in prints


def _tested(runs: Sequence[Measured], first: Metric) -> str | None:
    """The metric that each row has or adds to: the first one, or else the next that all runs have of the same rows."""
    if all(run.counts for run in runs):
        return first.name
    for name in [*(metric.name for metric in runs[0].record.metrics), "squared_error"]:
        if (
            len({len(run.scores[first.split].get(name, [])) for run in runs}) == 1
            and name in runs[0].scores[first.split]
        ):
            return name
    return None


def _against(best: Measured, others: Sequence[Measured], split: str, name: str) -> dict[str, Difference]:
    """How far the others lie from the best, by label, adjusted for being several."""
    if name == "chrf":
        corpora = [paired.compare_corpora(run.counts[split], best.counts[split], chrf_of) for run in others]
        return dict(zip([run.label for run in others], paired.holm(corpora), strict=True))
    theirs, found = best.scores[split][name], []
    for run in others:
        ours = run.scores[split][name]
        known = ~(np.isnan(ours) | np.isnan(theirs))
        groups = best.groups[split][known] if split in best.groups else None
        found.append(paired.compare(ours[known], theirs[known], groups))
    return dict(zip([run.label for run in others], paired.holm(found), strict=True))


def _facts(run: Measured) -> dict[str, Any]:
    metric, cost = run.metric, run.record.cost
    return {
        "run": run.label,
        "folder": str(run.folder),
        "kind": run.record.kind,
        "method": run.record.method["name"],
        "base": run.record.base.id if run.record.base else None,
        "value": metric.value,
        "low": metric.low,
        "high": metric.high,
        "training_seconds": cost.training_seconds,
        "peak_memory_bytes": cost.peak_memory_bytes,
        "published_bytes": run.size,
        "trainable_parameters": cost.trainable_parameters,
    }


def _in_domains(run: Measured) -> list[dict[str, Any]]:
    """The run's first metric in each other domain that it was measured in."""
    kept = ("rows", "value", "low", "high", "drop", "drop_low", "drop_high")
    return [
        {"domain": domain.name, "run": run.label, **{key: getattr(metric, key) for key in kept}}
        for domain in run.record.domains
        for metric in domain.metrics
        if metric.name == run.metric.name and metric.drop is not None
    ]


def drop_text(found: Mapping[str, Any], unit: str | None) -> str:
    """How much worse a figure in another domain is than the model's own: its `drop`, `drop_low` and `drop_high`."""
    word, sign = ("better", -1) if found["drop"] < 0 else ("worse", 1)
    said = f"{word} by {_figure(sign * found['drop'], unit)}{' points' * (unit == '%')}"
    if found["drop_low"] is None:
        return said
    low, high = (_figure(end, unit) for end in sorted((sign * found["drop_low"], sign * found["drop_high"])))
    return f"{said} ({low} to {high})"


def text_of(runs: Sequence[Measured], answer: Mapping[str, Any]) -> str:
    """The comparison for a screen of 80 columns."""
    first = runs[0].metric
    lines = [f"{label_of(first.name)} of {first.rows:,} {first.split} rows, with its 95 % interval", "", *_table(runs)]
    for split, these in answer["differences"].items():
        lines += [
            "",
            f"Against {answer['best']} (best of the {answer['chosen_by']} rows), row by row, on the {split} rows:",
        ]
        width = max(map(len, these))
        for label, found in these.items():
            said = f"{with_interval(found, answer['unit']):24}  p {probability_text(found['p']):7}  {found['verdict']}"
            lines += [f"  {label:{width}}  {said}"] if width <= 18 else [f"  {label}", f"    {said}"]
    for domain in dict.fromkeys(found["domain"] for found in answer["domains"]):
        these = [found for found in answer["domains"] if found["domain"] == domain]
        lines += ["", f"On {these[0]['rows']:,} rows of {domain}, compared with the run's own rows:"]
        width = max(len(found["run"]) for found in these)
        for found in these:
            said = f"{with_interval(found, answer['unit']):24}  {drop_text(found, answer['unit'])}"
            lines += [f"  {found['run']:{width}}  {said}"] if width <= 18 else [f"  {found['run']}", f"    {said}"]
    if answer["advice"]:
        lines += ["", answer["advice"]["sentence"]]
    lines += ["", *answer["notes"]] if answer["notes"] else []
    return "\n".join(
        wrapped for line in lines for wrapped in (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line])
    )


def _table(runs: Sequence[Measured]) -> list[str]:
    head = ["", label_of(runs[0].metric.name), "training", "memory", "published", "trained"]
    rows = [
        [
            run.label,
            measured_text(run.metric),
            *(_cost_text(run, kind) for kind in ("seconds", "memory", "size", "parameters")),
        ]
        for run in runs
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    apart = widths[0] + sum(widths[1:]) + 2 * (len(head) - 1) > WIDTH  # long names have a line of their own
    lines = []
    for row in [head, *rows]:
        cells = [
            f"{row[1]:{widths[1]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)),
        ]
        name = [row[0]] if apart and row[0] else []
        lines += [*name, "  ".join([*(["  "] if apart else [f"{row[0]:{widths[0]}}"]), *cells]).rstrip()]
    return lines


def measured_text(metric: Metric) -> str:
    """A figure with its interval."""
    if metric.unit == "%":
        return with_interval({"value": metric.value, "low": metric.low, "high": metric.high}, metric.unit)
    return " ".join([value_of(metric), *(f"({text.removeprefix('95 % interval ')})" for text in interval_of(metric))])


def _cost_text(run: Measured, kind: str) -> str:
    value = run.cost(kind)
    if value is None:
        return "?"
    if kind == "seconds":
        return duration(value)
    return {"memory": f"{value:,.0f} MiB", "size": f"{value:,.1f} MB", "parameters": f"{value:,.0f}"}[kind]


def with_interval(found: Mapping[str, Any], unit: str | None) -> str:
    """The `value` of a figure or a difference, with its `low` and `high`."""
    if found["low"] is None:
        return _figure(found["value"], unit)
    return f"{_figure(found['value'], unit)} ({_figure(found['low'], unit)} to {_figure(found['high'], unit)})"


def _figure(value: float, unit: str | None) -> str:
    return f"{value + 0.0:.1f}" if unit == "%" else f"{value:.3g}"


def probability_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.2g}"
