"""What a run that was interrupted goes on from: weights, optimizer, random states and history."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from accelerate import Accelerator
from safetensors import safe_open

from tl_hub import run_folder, sharding, state_folders
from tl_hub.averaging import MovingAverage
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import in_history
from tl_hub.streaming import Place

AVERAGE = "average.safetensors"
BEST = "best.safetensors"
SOUP = "soup.safetensors"
_OTHER = {
    "train_rows": "other training rows",
    "validation_rows": "other validation rows",
    "frozen_weights": "another base model",
    "rows_per_step": "{saved} rows a step (--batch_size times --accumulation times the processes), not {value}",
}
"""What an error calls a difference that has no flag."""


@dataclass
class History:
    """What happened in training, kept with the training state so that a resumed run goes on with it.

    Attributes:
        epochs: one dict an epoch: epoch, step, loss (mean over the rows or tokens of its steps), skipped_steps (if
            any), metrics of the validation rows.
        best_epoch: number of the epoch whose weights are kept; 0 before the first evaluation.
        seconds: spent in optimizer steps and data, evaluations left out.
        rows: training rows (features) passed through the model.
        loss_sum, loss_weight: of the epoch so far, over the rows or tokens that its losses are means over.
        average: metrics of the validation rows by the moving average of the weights, if there is one; known at the end.
        average_kept: whether its weights are the result.
        soup: as `average`, by the mean of the weights of several seeds (`tl_hub.soup`).
        soup_kept: whether that is the result.
        skipped: steps of the epoch so far whose loss or gradient was not finite.
        skipped_in_row: the last ones among all steps.
        same: what a run that goes on with it must have in common with it, by the names of the flags.
        threads: of the CPU, for each process; 0 where an earlier version did not note it.
        place: of a stream, where the rows of the epoch begin that the next step is in; None is the start.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    rows: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_weight: float = 0.0
    average: dict[str, float] = field(default_factory=dict)
    average_kept: bool = False
    soup: dict[str, float] = field(default_factory=dict)
    soup_kept: bool = False
    skipped: int = 0
    skipped_in_row: int = 0
    decision: dict[str, float] = field(default_factory=dict)
    same: dict[str, Any] = field(default_factory=dict)
    threads: int = 0
    place: Place | None = None

    def outcome(self, best: tuple[str, bool]) -> dict[str, Any]:
        """What a trial came to on the validation rows, by the weights that are kept: facts of `TrialEnded`.

        Args:
            best: the metric that chooses the best epoch, and whether higher is better.
        """
        name, entry = in_history(best[0]), self.epochs[self.best_epoch - 1]
        figure = self.average[name] if self.average_kept else entry[name]
        return {"metric": name, "figure": figure, "higher": best[1], "epoch": entry["epoch"]}


class Keeper:
    """Saves and restores a training run: trained weights, their average, optimizer, random states, history.

    All of it is whole, also where the processes share it out in training, so that any number of them can go on.

    Attributes:
        trained: `model`, or the copy of it that the processes share out.
        average: None without `run.average`.
        soup: file of the mean of the weights of several seeds, which is there for `run.soup` only.
    """

    def __init__(
        self,
        run: RunConfig,
        model: torch.nn.Module,
        trained: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        accelerator: Accelerator,
        steps_per_epoch: int,
    ):
        self.folder, self.keep = Path(run.output_dir, run_folder.STATE), run.keep
        self.soup = self.folder / SOUP
        self.model, self.trained, self.optimizer, self.accelerator = model, trained, optimizer, accelerator
        steps = max(1.0, (run.average or 0) * steps_per_epoch)
        self.average = MovingAverage(_learning(trained), steps) if run.average else None

    def save(self, history: History, *, best: bool) -> None:
        """Put a new state beside the saved ones and, when it is whole, in the place of the latest.

        Args:
            best: the weights are those of the best epoch so far; otherwise the ones saved before stay.
        """
        new = self.folder.with_name(run_folder.NEW_STATE)
        rank = self.accelerator.process_index
        sharding.gather(self.trained, self.model)
        means = self._means()
        moments = {
            f"{place}.{name}": sharding.whole(tensor)
            for place, state in self.optimizer.state_dict()["state"].items()
            for name, tensor in state.items()
        }
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            safetensors.torch.save_file(_learning(self.model), new / "weights.safetensors")
            kept = new / "weights.safetensors" if best else self.folder / BEST
            if kept.exists():
                _link(kept, new / BEST)
            if means:
                safetensors.torch.save_file(means, new / AVERAGE)
            safetensors.torch.save_file(moments, new / "optimizer.safetensors")
            (new / run_folder.HISTORY).write_text(json.dumps(vars(history)))
        self.accelerator.wait_for_everyone()
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state()
        safetensors.torch.save_file(states, new / f"random_{rank}.safetensors")
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            state_folders.seal(new)
            state_folders.put_in_place(self.folder.parent, self.keep)
        self.accelerator.wait_for_everyone()

    def load(self, same: dict[str, Any]) -> History:
        """Put the saved state back, bit for bit.

        Raises:
            UserError: the state was saved from another model or method, by a run that differs in what must be the
                `same`, on fewer processes, or by another version.
        """
        history = History(**json.loads((self.folder / run_folder.HISTORY).read_text()))
        self._check_same(history, {name: value for name, value in same.items() if name != "frozen_weights"})
        weights = safetensors.torch.load_file(self.folder / "weights.safetensors")
        if {n: w.shape for n, w in weights.items()} != {n: p.shape for n, p in _learning(self.model).items()}:
            raise UserError(f"--resume: {self.folder} was saved with another model or method; use the same command")
        self._check_same(history, same)  # another method leaves other weights as they are
        history.same = same
        self._put(weights)
        if self.average:
            for name, mean in safetensors.torch.load_file(self.folder / AVERAGE).items():
                self.average.means[name].copy_(sharding.share(mean, self.average.means[name]))
        self._load_moments()
        random = self.folder / f"random_{self.accelerator.process_index}.safetensors"
        if random.is_file():  # or there are more processes than before, and this one begins with its own
            states = safetensors.torch.load_file(random)
            torch.set_rng_state(states["cpu"])
            if "cuda" in states:
                torch.cuda.set_rng_state(states["cuda"])
        return history

    def _load_moments(self) -> None:
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in safetensors.torch.load_file(self.folder / "optimizer.safetensors").items():
            place, _, kind = name.partition(".")
            own = sharding.share(tensor, parameters[int(place)]) if tensor.ndim else tensor  # a step is a number
            moments.setdefault(int(place), {})[kind] = own
        # The groups hold settings, which the command gives again.
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def _check_same(self, history: History, same: dict[str, Any]) -> None:
        """
        Raises:
            UserError: the state was saved by a run that differs in something.
        """
        for name, value in same.items():
            saved = history.same.get(name, value)  # there are none of another version
            if saved != value:
                other = _OTHER.get(name, f"--{name} {{saved}}, not {{value}}").format(saved=saved, value=value)
                raise UserError(f"--resume: {self.folder} was saved with {other}; give the same as before")

    def load_best(self) -> None:
        self._put(safetensors.torch.load_file(self.folder / BEST))

    def load_average(self) -> None:
        self._put(self._means())

    def load_soup(self) -> tuple[float, int]:
        """Put the mean of several seeds' weights into the model; seconds and rows of the training of all of them."""
        with safe_open(self.soup, "pt") as file:
            facts = file.metadata()
        self._put(safetensors.torch.load_file(self.soup))
        return float(facts["seconds"]), int(facts["rows"])

    @contextmanager
    def best(self) -> Iterator[None]:
        """Within it, the model has the weights of the best epoch; afterwards, those that were last saved."""
        self.load_best()
        try:
            yield
        finally:
            self._put(safetensors.torch.load_file(self.folder / "weights.safetensors"))

    def _means(self) -> dict[str, torch.Tensor]:
        means = self.average.means if self.average else {}
        return {name: sharding.whole(mean) for name, mean in means.items()}

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for model in {id(model): model for model in (self.model, self.trained)}.values():
                for name, parameter in _learning(model).items():
                    parameter.copy_(sharding.share(weights[name], parameter))


def _learning(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _link(file: Path, to: Path) -> None:
    """Some file systems have no hard links."""
    try:
        os.link(file, to)
    except OSError:
        shutil.copyfile(file, to)
