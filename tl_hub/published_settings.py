"""Published training settings by family, size and method, for models that are larger than the embedded ones.

The values in a recipe are for the embedded models, of less than four million parameters, which need high rates and
many epochs. For a larger model, `apply` takes the first row of `TABLE` that fits, in place of those values that
neither a flag nor a preset gave. Batch sizes stay as the recipes have them: 16 and 32 are the published ones as well.
"""

from dataclasses import dataclass, field
from typing import Any

from tl_hub.config import RunConfig

EMBEDDED = 10
"""Models of fewer million parameters keep a recipe's own values: the embedded ones, and what was trained from them."""


@dataclass(frozen=True)
class Row:
    """Settings of one kind of training.

    Attributes:
        methods: `name` of the methods it is for.
        values: names of flags and their values.
        source: where the values were published.
        families: `model_type` of the models it is for; none: all four.
        below: upper limit of the model's size, in millions of parameters.
        task: name of the class of the task's settings; None: any.
    """

    methods: tuple[str, ...]
    values: dict[str, Any]
    source: str
    families: tuple[str, ...] = ()
    below: float = float("inf")
    task: str | None = field(default=None, kw_only=True)


def _values(learning_rate: float, epochs: int = 3, warmup: float = 0.1, **others: Any) -> dict[str, Any]:
    return {"learning_rate": learning_rate, "epochs": epochs, "warmup": warmup, **others}


_FULL = ("fine-tuning",)
_LORA = ("lora", "dora")
# Rank and alpha for updates of all linear layers; Hu et al. 2021 update queries and values only, with rank 8 and 4.
_RANK = {"rank": 16, "alpha": 32}

TABLE = (
    Row(
        _FULL,
        _values(1e-4, warmup=0.06),
        "Gururangan et al. 2020, https://arxiv.org/abs/2004.10964, task-adaptive pretraining",
        task="Pretraining",
    ),
    # Small models want more for spans than for classes: with 22 million parameters, 4,000 questions and 3 epochs, half
    # the rate is three points of F1 below (model_cards/README.md).
    Row(
        _FULL,
        _values(2e-4),
        "Turc et al. 2019, https://arxiv.org/abs/1908.08962: 3e-5 to 3e-4, by the task",
        ("bert",),
        60,
        task="QuestionAnswering",
    ),
    Row(
        _LORA,
        _values(1.5e-3, warmup=0.06, **_RANK),
        "Schulman et al. 2025, https://thinkingmachines.ai/blog/lora/: about ten times that of fine-tuning",
        ("bert",),
        60,
        task="QuestionAnswering",
    ),
    Row(
        _FULL,
        _values(1e-4),
        "Turc et al. 2019, https://arxiv.org/abs/1908.08962: 3e-5 to 3e-4",
        ("bert",),
        60,
    ),
    Row(
        _FULL,
        _values(3e-5),
        "Devlin et al. 2019, https://arxiv.org/abs/1810.04805, appendix A.3: 2e-5 to 5e-5, 2 to 4 epochs",
        ("bert",),
        200,
    ),
    Row(_FULL, _values(2e-5), "Devlin et al. 2019, https://arxiv.org/abs/1810.04805, appendix A.3", ("bert",)),
    Row(_FULL, _values(2e-5), "Yang et al. 2019, https://arxiv.org/abs/1906.08237, appendix A.4", ("xlnet",)),
    Row(
        _FULL,
        _values(6.25e-5, warmup=0.002),
        "Radford et al. 2018, Improving Language Understanding by Generative Pre-Training, section 4.1",
        ("gpt2",),
    ),
    Row(
        _FULL,
        _values(3e-4),
        "T5 in the documentation of transformers: 1e-4 to 3e-4 with AdamW",
        ("t5",),
    ),
    Row(
        _LORA,
        _values(5e-4, warmup=0.06, **_RANK),
        "Hu et al. 2021, https://arxiv.org/abs/2106.09685, table 9, RoBERTa base",
        ("bert", "xlnet"),
        200,
    ),
    Row(
        _LORA,
        _values(3e-4, warmup=0.06, **_RANK),
        "Hu et al. 2021, https://arxiv.org/abs/2106.09685, table 9, RoBERTa large",
        ("bert", "xlnet"),
    ),
    Row(
        _LORA,
        _values(2e-4, epochs=5, **_RANK),
        "Hu et al. 2021, https://arxiv.org/abs/2106.09685, table 11",
        ("gpt2",),
    ),
    Row(_LORA, _values(1e-3, **_RANK), "PEFT's example of LoRA with a text-to-text model", ("t5",)),
    # The three rates below are of the head; what is added learns at `rate_factor` times that (10, 30 and 10).
    Row(("ia3",), _values(3e-4, warmup=0.06), "Liu et al. 2022, https://arxiv.org/abs/2205.05638: 3e-3"),
    Row(("prompt tuning",), _values(1e-3), "PEFT's example of prompt tuning: 3e-2"),
    Row(("prefix tuning",), _values(1e-3), "PEFT's example of prefix tuning: 1e-2"),
    Row(
        ("bottleneck adapters",),
        _values(3e-4),
        "Houlsby et al. 2019, https://arxiv.org/abs/1902.00751, section 3: 3e-5 to 3e-3, 3 or 20 epochs",
    ),
)


def row_for(family: str, parameters: int, task: Any, method: Any) -> Row | None:
    """The first row that fits, or None: for small models, and for methods that train no pretrained weights."""
    if parameters < EMBEDDED * 1e6:
        return None
    for row in TABLE:
        fits = method.name in row.methods and (not row.families or family in row.families)
        if fits and parameters < row.below * 1e6 and row.task in (None, type(task).__name__):
            return row
    return None


def apply(run: RunConfig, task: Any, method: Any, model: Any, main_process: bool = True) -> None:
    """Set what neither a flag nor a preset gave to the published values for `model`, and print what was taken.

    To be called when the model is loaded, before anything is made from the settings. `run.settings_from`, which the
    run record and the card hold, says what was taken and from where.
    """
    row = row_for(model.config.model_type, model.num_parameters(), task, method)
    if row is None:
        return
    taken = {name: value for name, value in row.values.items() if name not in run.given}
    for name, value in taken.items():
        setattr(run if hasattr(run, name) else method, name, value)
    if not taken:
        return
    shown = ", ".join(f"{name} {value:g}" for name, value in taken.items())
    run.settings_from = (
        f"for {model.config.model_type} models of {model.num_parameters() / 1e6:.0f}M parameters, {method.name}: "
        f"{shown} (learning rate: {row.source})"
    )
    if main_process:
        print(f"settings {run.settings_from}", flush=True)


def shown(name: str, task: Any, method: Any) -> str:
    """What `--help` says of the table's values of a flag; empty where it has none for this task and method."""
    rows = [row for row in TABLE if method.name in row.methods and row.task in (None, type(task).__name__)]
    last = next((i for i, row in enumerate(rows) if not row.families and row.below == float("inf")), len(rows))
    values = sorted({row.values[name] for row in rows[: last + 1] if name in row.values})
    if not values:
        return ""
    span = f"{values[0]:g}" if len(values) == 1 else f"{values[0]:g} to {values[-1]:g}, by family and size"
    return f"; models from {EMBEDDED}M parameters: {span}"
