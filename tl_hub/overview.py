"""The data as a person should see them before training, in lines, and by name for `tl-hub check --json`."""

from typing import Any

from accelerate import Accelerator

from tl_hub.data import Data, overlap
from tl_hub.tasks.base import Task
from tl_hub.tasks.labels import shown_counts


def facts(data: Data, task: Task) -> dict[str, Any]:
    """Plain values, of encoded data: rows of each split, where they are from, and, where there are any, `classes`.

    `also_in_training` counts the rows of a split whose input is a training input too. `notes` says what was left out,
    cut or read in windows, and `remarks` what is odd about the rows.
    """
    classes = {name: dict(task.class_counts(split.rows)) for name, split in data.splits.items()}
    return {
        "rows": {name: len(split.rows) for name, split in data.splits.items()},
        "data": data.source,
        **({"classes": classes} if any(classes.values()) else {}),
        "also_in_training": dict(overlap(data, task)),
        "notes": list(data.notes),
        "remarks": task.remarks(),
    }


def show(data: Data, task: Task, accelerator: Accelerator) -> None:
    """Print what `facts` says, once for all processes."""
    if not accelerator.is_main_process:
        return
    found = facts(data, task)
    for name, counts in found.get("classes", {}).items():
        print(f"classes of the {name} split: {shown_counts(counts)}")
    for note in [*found["notes"], *found["remarks"]]:
        print(f"note: {note.removesuffix('.')}")
    for name, count in found["also_in_training"].items():
        rows = found["rows"][name]
        if 2 * count >= rows:
            print(
                f"warning: {count:,} of the {rows:,} {name} rows are training rows too, so their figures say little "
                f"about new texts; give other rows with --{name}_file"
            )
        elif count:
            print(f"note: {count:,} of the {rows:,} {name} rows are training rows too")
    print(end="", flush=True)


def give_advice(task: Task, accelerator: Accelerator, frozen: bool = False) -> None:
    """Print `task.advice`, where there is some, once for all processes."""
    advice = task.advice(frozen)
    if advice and accelerator.is_main_process:
        print(f"note: {advice}", flush=True)
