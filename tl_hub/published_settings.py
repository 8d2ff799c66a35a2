"""Published training settings by family, size and method, for models that are larger than the embedded ones.

The values in a recipe are for the embedded models, of less than four million parameters, which need high rates and
many epochs. For a larger model, `apply` takes the first row of the method's `published` that fits, in place of those
values that neither a flag nor a preset gave. Batches of `SMALLEST_BATCH` rows or more stay as the recipes have them: 8,
16 and 32 are the published sizes as well. An embedded family that a recipe's values do not suit has a row marked
`embedded`.
"""

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from tl_hub.architectures import ARCHITECTURES, Objective
from tl_hub.config import RunConfig
from tl_hub.model_types import Model

if TYPE_CHECKING:
    from tl_hub.methods.base import Method, TrainedMethod
    from tl_hub.tasks.base import Task

_Method = TypeVar("_Method", bound="TrainedMethod")

EMBEDDED = 10
"""Models of fewer million parameters keep a recipe's own values: the embedded ones, and what was trained from them."""
SMALLEST_BATCH = 8
"""Rows in a batch of a larger model, where the recipe has fewer: Hu et al. 2021, https://arxiv.org/abs/2106.09685,
table 11 (GPT-2), and PEFT's example of LoRA with a text-to-text model."""


@dataclass(frozen=True)
class Row:
    """Settings of one kind of training.

    Attributes:
        values: names of flags and their values.
        source: where the values were published.
        pretrained_by: objectives of pretraining of the models it is for; none: all.
        below: upper limit of the model's size, in millions of parameters.
        task: kind of tasks that it is for, as their `tuned_as`; None: any.
        embedded: whether it is for models of fewer than `EMBEDDED` million parameters, and for no others.
    """

    values: dict[str, Any]
    source: str
    pretrained_by: tuple[Objective, ...] = ()
    below: float = float("inf")
    task: str | None = field(default=None, kw_only=True)
    embedded: bool = field(default=False, kw_only=True)


def values(learning_rate: float, epochs: int = 3, warmup: float = 0.1, **others: Any) -> dict[str, Any]:
    """Values of a row; epochs and warm-up are those that most papers give."""
    return {"learning_rate": learning_rate, "epochs": epochs, "warmup": warmup, **others}


def row_for(family: str, parameters: int, task: "Task", method: "Method") -> Row | None:
    """The first row that fits, or None: for most small models, and for methods that train no pretrained weights."""
    embedded = parameters < EMBEDDED * 1e6
    objective = ARCHITECTURES[family].pretrained_by
    for row in method.published:
        fits = (not row.pretrained_by or objective in row.pretrained_by) and parameters < row.below * 1e6
        if fits and row.embedded == embedded and row.task in (None, task.tuned_as):
            return row
    return None


def apply(run: RunConfig, task: "Task", method: _Method, model: Model) -> tuple[RunConfig, _Method]:
    """The settings with published values for `model` in place of what neither a flag nor a preset gave.

    `run.settings_from`, which the screen, the run record and the card show, says what was taken, and from where. To be
    called when the model is loaded, before anything is made from the settings.
    """
    row = row_for(model.config.model_type, model.num_parameters(), task, method)
    if row is None:
        return run, method
    published = row.values | ({"batch_size": SMALLEST_BATCH} if run.batch_size < SMALLEST_BATCH else {})
    taken = {name: value for name, value in published.items() if name not in run.given}
    if not taken:
        return run, method
    run, method = copy.copy(run), copy.copy(method)
    for name, value in taken.items():
        setattr(run if hasattr(run, name) else method, name, value)
    shown = ", ".join(f"{name} {value:g}" for name, value in taken.items())
    source = row.source if row.embedded else f"learning rate: {row.source}"
    run.settings_from = (
        f"for {model.config.model_type} models of {model.num_parameters() / 1e6:.0f}M parameters, {method.name}: "
        f"{shown} ({source})"
    )
    return run, method


def shown(name: str, run: RunConfig, task: "Task", method: "Method") -> str:
    """What `--help` says of published values of a flag; empty where there are none for this task and method."""
    if name == "batch_size" and run.batch_size < SMALLEST_BATCH:
        return f"; models from {EMBEDDED}M parameters: {SMALLEST_BATCH}"
    rows = [row for row in method.published if not row.embedded and row.task in (None, task.tuned_as)]
    last = next((i for i, row in enumerate(rows) if not row.pretrained_by and row.below == float("inf")), len(rows))
    values = sorted({row.values[name] for row in rows[: last + 1] if name in row.values})
    if not values:
        return ""
    span = f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}, by family and size"
    return f"; models from {EMBEDDED}M parameters: {span}"
