"""Several values of a setting, tried one after another on the validation rows (`--sweep`); the best run goes on to its
end.

A trial stops when training ends: no trial but the best one is measured on test rows, gets a card or is pushed. With
`--trials N`, N combinations of the values are drawn (random search, Bergstra and Bengio 2012,
https://jmlr.org/papers/v13/bergstra12a.html).
"""

import itertools
import random
import shutil
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tl_hub import run_folder, settings_file
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.methods.adapters import Adapter
from tl_hub.trials import Trials

if TYPE_CHECKING:
    from tl_hub.methods.base import Method
    from tl_hub.tasks.base import Task

TITLE = "Sweep, on the validation rows"


class Sweep(Trials):
    """The trials of a sweep. The best one's files are moved; of the others no training state is kept."""

    flag, noun, notes_name = "sweep", "sweep", run_folder.SWEEP
    own = ("trials",)

    @staticmethod
    def settings(run: RunConfig, task: "Task", method: "Method") -> dict[str, dict[str, Any]]:
        """All combinations of the values, or those that are drawn.

        Raises:
            UserError: a setting is none that can be swept, or has no values.
        """
        allowed = _sweepable(task, method)
        axes: dict[str, list[Any]] = {}
        for part in str(run.sweep).split():
            name, _, values = part.partition("=")
            if name not in allowed:
                raise UserError(f"--sweep {part}: {name} cannot be swept; what can is {', '.join(allowed)}")
            axes[name] = [settings_file.SWITCHES.get(value, value) for value in values.split(",")]
            if "" in axes[name] or len({*axes[name]}) < len(axes[name]):
                raise UserError(f"--sweep {part}: give different values, such as learning_rate=1e-4,3e-4,1e-3")
        grid = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        if run.trials and run.trials < len(grid):
            places = random.Random(run.seed).sample(range(len(grid)), run.trials)
            grid = [grid[place] for place in sorted(places)]
        return {",".join(f"{name}={value}" for name, value in settings.items()): settings for settings in grid}

    def note(self, name: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keep what a trial came to, and the training state of the best one only."""
        super().note(name, settings, facts)
        ended = {other: facts for other, facts in self.done.items() if "figure" in facts}
        best = self.choose(ended) if ended else None
        for other in self.done:
            if other != best:
                for state in (self.path / other).glob(f"{run_folder.STATE}*"):
                    shutil.rmtree(state)

    def choose(self, ended: Mapping[str, dict[str, Any]]) -> str:
        """The first of the best ones."""
        better = max if next(iter(ended.values()))["higher"] else min
        return better(ended, key=lambda name: ended[name]["figure"])

    def take(self, name: str) -> None:
        """Move it."""
        if (self.path / name).is_dir():
            for file in (self.path / name).iterdir():
                file.rename(self.result / file.name)
            (self.path / name).rmdir()

    def facts(self, chosen: str) -> dict[str, Any]:
        """The table of the settings and what they came to."""
        rows = []
        for name, trial in self.done.items():
            figure = {trial["metric"]: trial["figure"]} if "figure" in trial else {}
            outcome = "kept" if name == chosen else "diverged" if "failed" in trial else ""
            rows.append({**trial["settings"], **figure, "epoch": trial.get("epoch", ""), "outcome": outcome})
        return {"tables": {TITLE: rows}}


def _sweepable(task: "Task", method: "Method") -> list[str]:
    """Settings under which the figures of the validation rows can be compared: not what rows and losses are made of."""
    names, group = [], None
    for setting in fields(RunConfig):
        group = setting.metadata["group"] or group
        names += [setting.name] if group == "training" else []
    if method.kind != "pretrained":  # a loss by token is of its vocabulary
        names += ["method"] if isinstance(method, Adapter) else []
        names += [setting.name for setting in fields(method) if setting.init]
    if getattr(task, "best", ("loss",))[0] != "loss":
        names += [setting.name for setting in fields(task) if not setting.metadata["reads"]]
    return [name for name in names if name not in method.unused]
