"""The data as a person should see them before training, in lines, and by name for `tl-hub check --json`."""

import textwrap
import unicodedata
from collections import Counter
from typing import Any

import numpy as np

from tl_hub import overlap
from tl_hub.config import FEW_ROWS
from tl_hub.data import Data, Split
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import named
from tl_hub.tasks.base import Task, column

_SHOWN = 10
"""Classes that are listed; of more, the largest and the rarest."""
_LABEL = 24
"""Letters of a class's name that are shown."""


def facts(data: Data, task: Task) -> dict[str, Any]:
    """Plain values, of encoded data: rows of each split, where they are from, and, where there are any, `classes`.

    `tokens` has quantiles (0.5, 0.95 and 1) of the lengths of training inputs. `also_in_training` counts the rows of a
    split whose input is a training input too; of the training split, an earlier row's. `nearly_in_training` counts
    other rows that are near-duplicates of training rows. `notes` says what was left out, cut or read in windows, and
    `remarks` what is odd about the rows. `domains` has rows of other domains, by name.
    """
    overlap.count(data, task)
    classes = {name: dict(task.class_counts(split.rows)) for name, split in data.splits.items()}
    return {
        "rows": {name: len(split.rows) for name, split in data.splits.items()},
        "data": data.source,
        "tokens": _lengths(data.splits["train"]),
        **({"classes": classes} if any(classes.values()) else {}),
        "also_in_training": dict(data.overlaps),
        "nearly_in_training": dict(data.near_duplicates),
        "notes": list(data.notes),
        "remarks": task.remarks(),
        **({"domains": {other.name: _of_domain(other, task) for other in data.others}} if data.others else {}),
    }


def _of_domain(other: Data, task: Task) -> dict[str, Any]:
    rows = other.splits[other.final].rows
    classes = dict(task.class_counts(rows))
    return {
        "split": other.final,
        "rows": len(rows),
        **({"classes": classes} if classes else {}),
        "also_in_training": other.overlaps[other.final],
        "nearly_in_training": other.near_duplicates[other.final],
        "notes": list(other.notes),
    }


def _lengths(split: Split) -> dict[str, int]:
    assert split.encoded is not None
    lengths = column(split.encoded, "length")
    return {f"{q:g}": int(np.quantile(lengths, q, method="higher")) for q in (0.5, 0.95, 1)}


def show(experiment: Experiment, steps: int | None = None, held: int | None = None) -> None:
    """Print what `facts` says and what will be done, at most 80 columns wide, once for all processes.

    Args:
        steps: optimizer steps of the run, if it takes any.
        held: parameters that this process has, where several share them out.
    """
    if not experiment.accelerator.is_main_process:
        return
    found = facts(experiment.rows, experiment.task)
    half, most, longest = found["tokens"].values()
    lengths = f"tokens of a training input: half have up to {half:,}, 95 % up to {most:,}, the longest {longest:,}"
    notes = [note.removesuffix(".") for note in [*found["notes"], *found["remarks"]]]
    lines = [*_wrapped(f"data: {found['data']}"), *_table(found), *_wrapped(lengths, "  ")]
    lines += [line for note in notes for line in _wrapped(f"note: {note}", "  ")]
    for name, near in found["nearly_in_training"].items():
        rows, count = found["rows"][name], found["also_in_training"][name] + near
        if 2 * count >= rows:
            lines += _wrapped(
                f"warning: {count:,} of the {rows:,} {name} rows are training rows too{', or nearly' * bool(near)}, so "
                f"their figures say little about new texts; give other rows with --{name}_file"
            )
    for name, domain in found.get("domains", {}).items():
        said = f"also measured on {name}: {domain['rows']:,} {domain['split']} rows"
        if repeated := domain["also_in_training"]:
            said += f", of which {repeated:,} are training rows too"
        if near := domain["nearly_in_training"]:
            said += f", {near:,} of them nearly training rows"
        lines += _wrapped(said)
        lines += [line for note in domain["notes"] for line in _wrapped(f"note: {note.removesuffix('.')}", "  ")]
    if steps is not None:
        lines += _training(experiment, steps, held)
    print("", *lines, "", sep="\n", flush=True)


def _table(found: dict[str, Any]) -> list[str]:
    """Rows, the rows of each class and repeated inputs, a column for each split."""
    splits = list(found["rows"])
    lines = [("", *splits), ("rows", *(f"{count:,}" for count in found["rows"].values()))]
    classes = found.get("classes", {})
    total = sum((Counter(counts) for counts in classes.values()), Counter[str]())
    order = sorted(total, key=lambda name: (-classes["train"].get(name, 0), -total[name], name))
    hidden = order[_SHOWN // 2 : -_SHOWN // 2] if len(order) > _SHOWN else []
    for name in order:
        if name not in hidden:
            shown = name if len(name) <= _LABEL else f"{name[: _LABEL - 3]}..."
            lines.append((f"  {shown}", *(f"{classes.get(split, {}).get(name, 0):,}" for split in splits)))
        elif name == hidden[0]:
            sums = (sum(classes.get(split, {}).get(name, 0) for name in hidden) for split in splits)
            lines.append((f"  ({len(hidden):,} more classes)", *(f"{count:,}" for count in sums)))
    for title, counts in (
        ("repeating a training row", "also_in_training"),
        ("nearly a training row", "nearly_in_training"),
    ):
        if any(found[counts].values()):
            lines.append((title, *(f"{found[counts].get(split, 0):,}" for split in splits)))
    width = max(map(_width, (line[0] for line in lines)))
    return [
        f"  {label}{' ' * (width - _width(label))}{''.join(f'{cell:>12}' for cell in cells)}" for label, *cells in lines
    ]


def _training(experiment: Experiment, steps: int, held: int | None) -> list[str]:
    run, model, method = experiment.run, experiment.model, experiment.method
    assert method is not None
    accelerator = experiment.accelerator
    sizes = (run.batch_size, run.accumulation, accelerator.num_processes)
    batch = " x ".join(str(size) for place, size in enumerate(sizes) if size > 1 or place == 0)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    total, trained = sum(count for count, _ in counts), sum(count for count, learns in counts if learns)
    share = f"all {total:,}" if trained == total else f"{trained:,} of {total:,}"
    precision = {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
    ends_early = run.patience is None and experiment.patience is not None and experiment.patience < run.epochs
    patience = (
        f"of fewer than {FEW_ROWS:,} training rows, training ends when {experiment.patience} epochs after the warm-up "
        "were no better; --patience 0 trains to the last one"
    )
    at_most = "at most " * bool(run.max_steps or run.patience or ends_early)
    epochs = f"{at_most}{run.epochs} epoch{'s' * (run.epochs != 1)}"
    yours = ", ".join(name for name in ("epochs", "learning_rate", "warmup", "schedule") if name in run.given)
    reason = run.settings_from or "the recipe's, which were found with the embedded models"
    last = 1 + max(getattr(parameter, "from_epoch", 0) for parameter in model.parameters())
    frozen = f"note: the lowest layer would learn from epoch {last} on only; with {epochs} some stay as they are"
    adapter = named(method.name)
    title = adapter.title if adapter else method.name
    return [
        "",
        *_wrapped(f"training: {title} of {run.model}, {share} parameters, {precision} on {accelerator.device}"),
        *_wrapped(
            f"{steps:,} step{'s' * (steps != 1)} of {batch} rows, {epochs}; learning rate {run.learning_rate:g}, "
            f"warm-up {100 * run.warmup:g} %, {run.schedule} schedule",
            "  ",
        ),
        *_wrapped(f"settings: {f'{yours} as given; else ' if yours else ''}{reason}", "  "),
        *(_wrapped(f"{held:,} parameters on this process, the rest on the others (FSDP2)", "  ") if held else []),
        *(_wrapped(patience, "  ") if ends_early else []),
        *(_wrapped(frozen, "  ") if last > run.epochs else []),
    ]


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, 80, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False, break_long_words=False
    )


def _width(text: str) -> int:
    """Columns of a terminal that a text takes: those of Korean, Chinese and Japanese take two each."""
    return sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def give_advice(experiment: Experiment, frozen: bool = False) -> None:
    """Print `task.advice`, where there is some, once for all processes."""
    advice = experiment.task.advice(frozen)
    if advice and experiment.accelerator.is_main_process:
        print(*_wrapped(f"note: {advice}"), "", sep="\n", flush=True)
