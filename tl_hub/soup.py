"""The mean of the weights of several seeds' runs, and how it compares with the run of the median seed (`--soup`).

A model soup, Wortsman et al. 2022, https://arxiv.org/abs/2203.05482. As there, the runs start from the same weights,
the head's included: the mean of weights that began at different random values is seldom a model of use.
"""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_hub import run_folder, state_folders
from tl_hub.card.markdown import figure, label_of
from tl_hub.errors import UserError
from tl_hub.on_use import torch
from tl_hub.record import RunRecord, in_history

if TYPE_CHECKING:
    from tl_hub.methods.base import Method
    from tl_hub.training_state import History

TITLE = "Average of the seeds' weights, on the validation rows"


def check(method: "Method") -> None:
    """
    Raises:
        UserError: the runs of several seeds by this method have no weights whose mean is of use.
    """
    if method.kind == "pretrained":
        raise UserError("--soup averages runs that start from one pretrained model, and this recipe has none; omit it")
    if getattr(method, "layer", None) == "auto":
        raise UserError("--soup: with --layer auto each seed may choose another layer; give --layer N, such as 3")


def make(runs: Sequence[Path], state: Path) -> None:
    """Write the mean of the weights that ended runs kept into a training state, which is then sealed again.

    Raises:
        UserError: a run's training state is not there, or the runs did not start from the same weights.
    """
    import safetensors.torch

    from tl_hub.training_state import AVERAGE, BEST, SOUP

    records = [RunRecord.load(run) for run in runs]
    # No epoch is the best one where the moving average was kept.
    kept = [AVERAGE if record.best_epoch is None else BEST for record in records]
    files = [run / run_folder.STATE / name for run, name in zip(runs, kept, strict=True)]
    for file in files:
        if not file.is_file():
            raise UserError(f"--soup: {file} is gone, which holds a seed's weights; --overwrite starts anew")
    histories = [json.loads((file.parent / run_folder.HISTORY).read_text()) for file in files]
    frozen = {history["same"]["frozen_weights"] for history in histories}
    if len(frozen) > 1 or any(record.base != records[0].base for record in records):
        raise UserError("--soup: the seeds did not start from the same model; --overwrite starts anew")
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(safetensors.safe_open(file, "pt")) for file in files]
        names = parts[0].keys()
        means = {name: torch.stack([part.get_tensor(name) for part in parts]).mean(0) for name in names}
    took = {name: str(sum(history[name] for history in histories)) for name in ("seconds", "rows")}
    safetensors.torch.save_file(means, state / SOUP, metadata=took)
    state_folders.seal(state)


def table(history: "History") -> dict[str, list[dict[str, Any]]]:
    """The figures of the average beside those of the median seed, for a card; none where there was no average."""
    from tl_hub.averaging import NO_METRICS

    if not history.soup:
        return {}
    own = history.average if history.average_kept else history.epochs[history.best_epoch - 1]
    kept = " (kept)"
    return {
        TITLE: [
            {"weights": f"median seed{kept * (not history.soup_kept)}"}
            | {name: figure for name, figure in own.items() if name not in NO_METRICS},
            {"weights": f"average of the seeds{kept * history.soup_kept}", **history.soup},
        ]
    }


def sentence(record: RunRecord) -> str | None:
    """Whether the weights of a record are the average of several seeds', and why; None where there was no average."""
    name = record.metrics[0].name if record.metrics else ""
    found = [figure(row[in_history(name)]) for row in record.tables.get(TITLE, []) if in_history(name) in row]
    if len(found) != 2 or not record.seeds:
        return None
    (median, average), seeds = found, record.seeds[0].seeds
    figures = f"the {label_of(name)} of the validation rows is {average} with it, and {median} with the median seed"
    if is_kept(record):
        return f"These weights are the average of those of {seeds} seeds: {figures}."
    return f"The average of the weights of {seeds} seeds was not kept: {figures}, whose weights these are."


def is_kept(record: RunRecord) -> bool:
    """Whether the weights of a record are the average."""
    return bool(record.settings.get("soup"))
