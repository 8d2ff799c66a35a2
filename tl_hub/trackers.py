"""Experiment trackers, which `--report_to` names, through those of accelerate; `log.jsonl` is written without any.

What they get: the settings that the run record publishes, the figures of each step and those of each evaluation.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from tl_hub import run_folder
from tl_hub.config import RunConfig
from tl_hub.errors import UserError, first_line
from tl_hub.experiment import Experiment
from tl_hub.methods.base import settings_of

_PROJECT = "tl_hub"
_ERRORS = {"mlflow": "mlflow.exceptions:MlflowException", "wandb": "wandb.errors:Error"}
"""What those raise who have errors of their own, such as for a missing login."""


def names(run: RunConfig) -> list[str]:
    """The trackers asked for, each once."""
    return list(dict.fromkeys(run.report_to.split(","))) if run.report_to else []


def check(run: RunConfig) -> None:
    """
    Raises:
        UserError: the package of a tracker is not installed.
    """
    # A folder of that name, which wandb leaves behind, can be imported too. mlflow comes from mlflow-skinny as well.
    installed = metadata.packages_distributions() if run.report_to else {}
    for name in names(run):
        if name not in installed:
            raise UserError(
                f"--report_to {name}: its package is not installed; run pip install {name}, or omit it (log.jsonl is "
                "always written)"
            )


@contextmanager
def reporting(experiment: Experiment, step: int) -> Iterator[None]:
    """Within it, `accelerator.log` reaches the trackers of the run, in the main process alone.

    Args:
        step: the last one that is already there, if the run goes on from it.

    Raises:
        UserError: a setting holds a secret or a local path, or a tracker cannot be started.
    """
    accelerator, run = experiment.accelerator, experiment.run
    if not run.report_to or not accelerator.is_main_process:
        yield
        return
    config = _config(experiment)
    folder, name = Path(run.output_dir, run_folder.TRACKING), Path(run.output_dir).resolve().name
    folder.mkdir(exist_ok=True)
    kinds = tuple(resolve_name(_ERRORS[tracker]) for tracker in names(run) if tracker in _ERRORS)
    try:
        accelerator.init_trackers(_PROJECT, config, _options(folder, name, step))
    except (*kinds, ImportError, OSError, ValueError) as error:
        raise UserError(f"--report_to {run.report_to}: {first_line(error).rstrip('.')}; or omit --report_to") from error
    try:
        yield
    finally:
        for tracker in accelerator.trackers:  # `end_training` would also part the processes
            tracker.finish()
        accelerator.trackers.clear()


def grouped(group: str, figures: dict[str, float]) -> dict[str, float]:
    """Figures under the names by which trackers put them side by side."""
    return {f"{group}/{name.removeprefix(f'{group}_')}": value for name, value in figures.items()}


def _options(folder: Path, name: str, step: int) -> dict[str, dict[str, Any]]:
    """Arguments of the trackers' own: the run goes on where it is one, and what they would look up stays here.

    W&B would send the script's path, the environment and all that is printed; MLflow the script's path.
    """
    quiet = {"x_disable_meta": True, "disable_git": True, "save_code": False, "console": "off"}
    return {
        "tensorboard": {"purge_step": step + 1} if step else {},  # of steps that will be done again, if any
        "trackio": {"name": name, "resume": "allow" if step else "never"},
        "wandb": {"name": name, "dir": str(folder), "settings": quiet},
        "mlflow": {"run_name": name, "tags": {"mlflow.source.name": Path(sys.argv[0]).name}},
    }


def _config(experiment: Experiment) -> dict[str, Any]:
    """Settings and names as the record has them, lists and the like as text.

    Raises:
        UserError: one holds a secret or a local path.
    """
    from tl_hub.publishing import secrets

    base, method = experiment.base, experiment.method
    assert method is not None
    known = {"model": base.id if base else None, "data": experiment.rows.source, "method": method.name}
    known |= settings_of(method) | experiment.settings(trained=True)
    secrets.check("what --report_to sends", json.dumps(known, default=str).encode(), Path(experiment.run.output_dir))
    return {
        name: value if isinstance(value, bool | int | float | str) else str(value)
        for name, value in known.items()
        if value is not None
    }
