"""The last screen of a run: its figures, some of its answers, and the commands that go on from there."""

import shlex
import textwrap
from pathlib import Path
from typing import Any

from tl_hub import comparison, overfitting, run_folder, shown_rows, soup
from tl_hub.card import snippets
from tl_hub.publishing import base
from tl_hub.record import DomainMetric, RunRecord
from tl_hub.tasks import catalog


def show(record: RunRecord, folder: Path) -> None:
    """Print it, of a run that was loaded back."""
    verification = record.verification or {}
    print(f"\n{record.name}: {record.kind} for {record.pipeline_tag}")
    figures = [(metric, f"{metric.rows} {metric.split} rows") for metric in record.metrics]
    figures += [(mean, f"mean of {mean.seeds} seeds, over seeds and rows") for mean in record.seeds]
    for metric, measured_on in figures:
        interval = "" if metric.low is None else f"  95 % interval {metric.low:.2f} to {metric.high:.2f}"
        print(f"  {metric.name:24} {metric.value:7.2f}{interval}  ({measured_on})")
    for domain in record.domains:
        (split,) = domain.data.splits.values()
        print(f"  on {domain.name}, {split.rows} rows of another domain:")
        for found in domain.metrics:
            interval = "" if found.low is None else f"  95 % interval {found.low:.2f} to {found.high:.2f}"
            print(f"    {found.name:22} {found.value:7.2f}{interval}{_drop(found)}")
    cost = record.cost
    print(
        f"  {cost.trainable_parameters:,} of {cost.total_parameters:,} parameters trained"
        f" in {cost.training_seconds or 0:.0f} s, {(cost.peak_memory_bytes or 0) / 2**20:,.0f} MiB"
    )
    for system in record.tables.get("Baselines", []):
        scores = ", ".join(f"{name} {_figure(value)}" for name, value in system.items() if name != "system")
        print(f"  {system['system']}: {scores}")
    overfits = overfitting.sentence(record)
    for sentence in filter(None, [soup.sentence(record), *comparison.sentences(record), overfits]):
        print(textwrap.fill(sentence, 80, initial_indent="  ", subsequent_indent="  "))
    nothing = f"({catalog.facts_of(record).no_answer})"
    if record.examples:
        print("\nrows it was not trained on:")
        for example in record.examples[:3]:
            print(f"  {_shortened(example.get('question') or example.get('text', ''))}")
            if "text_pair" in example:
                print(f"  {_shortened(example['text_pair'])}")
            for name in ("expected", "predicted"):
                print(f"    {name + ':':10} {_shortened(_joined(example.get(name)) or nothing)}")
    for note in record.data.notes:
        if note.startswith(shown_rows.PASSED_OVER):
            print(f"  {note}")
    pictures = ", ".join(sorted(path.name for path in folder.glob("*.png")))
    print(f"\nIn {folder}: weights, README.md (the model card), run.json, log.jsonl, {pictures}")
    print(f"Kept here, never published: {run_folder.PREDICTIONS}, with the prediction for each measured row")
    print(
        f"Loaded back by {' and '.join(verification['loaded_by'])}: "
        f"largest difference of logits {verification['max_difference']:.1e}"
    )
    print("\nNext:")
    for command in _next(record, folder):
        print(f"  {command}")


def _next(record: RunRecord, folder: Path) -> list[str]:
    """Commands that use, read, check and publish the run."""
    commands = []
    if snippets.reads(record):
        arguments = ", ".join(f"{name}='...'" for name in snippets.reads(record))
        commands.append(f'python -c "import tl_hub; print(tl_hub.pipeline({str(folder)!r})({arguments}))"')
    push = ["tl-hub", "push", str(folder), f"YOUR_NAME/{record.name}"]
    if needed := base.only_here(record):
        push += ["--push_base", f"YOUR_NAME/{needed.replace(':', '-')}"]
    if not record.license:
        push += ["--license", "LICENSE"]
    commands += [shlex.join(["less", str(folder / run_folder.CARD)]), shlex.join(["tl-hub", "verify", str(folder)])]
    return [*commands, shlex.join([*push, "--dry_run"]) + "  # YOUR_NAME: yours on the Hub; sends nothing yet"]


def _drop(found: DomainMetric) -> str:
    """How much worse a figure is than that of the run's own rows."""
    if found.drop is None:
        return ""
    interval = "" if found.drop_low is None else f", {found.drop_low:.2f} to {found.drop_high:.2f}"
    return f"  (worse by {found.drop:.2f}{interval})"


def _shortened(text: str) -> str:
    return textwrap.shorten(text, 200, placeholder=" ...")


def _joined(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)


def _figure(value: float | str) -> str:
    """A figure of a baseline: per cent with one decimal, and a small number, such as a correlation, with two more."""
    return value if isinstance(value, str) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
