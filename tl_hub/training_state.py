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

from tl_hub import run_folder
from tl_hub.errors import UserError


@dataclass
class History:
    """What happened in training, kept with the training state so that a resumed run goes on with it.

    Attributes:
        epochs: one dict an epoch: epoch, step, loss (mean over its steps), metrics of the validation rows.
        best_epoch: number of the epoch whose weights are kept; 0 before the first evaluation.
        seconds: spent in optimizer steps and data, evaluations left out.
        rows: training rows (features) passed through the model.
        same: what a run that goes on with it must have in common with it, by the names of the flags.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    rows: int = 0
    step: int = 0
    loss_sum: float = 0.0
    decision: dict[str, float] = field(default_factory=dict)
    same: dict[str, Any] = field(default_factory=dict)


class Keeper:
    """Saves and restores a training run: trained weights, optimizer, random states, history."""

    def __init__(self, folder: Path, model: Any, optimizer: Any, accelerator: Accelerator):
        self.folder, self.model, self.optimizer, self.accelerator = folder, model, optimizer, accelerator

    def _trained(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def save(self, history: History) -> None:
        """Replace the saved state; the old one stays until the new one is whole and in its place."""
        new, old = self.folder.with_name(run_folder.NEW_STATE), self.folder.with_name(run_folder.OLD_STATE)
        rank = self.accelerator.process_index
        if self.accelerator.is_main_process:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            if (self.folder / "best.safetensors").exists():
                os.link(self.folder / "best.safetensors", new / "best.safetensors")
            safetensors.torch.save_file(self._trained(), new / "weights.safetensors")
            moments = {
                f"{place}.{name}": tensor
                for place, state in self.optimizer.state_dict()["state"].items()
                for name, tensor in state.items()
            }
            safetensors.torch.save_file(moments, new / "optimizer.safetensors")
            (new / run_folder.HISTORY).write_text(json.dumps(vars(history)))
        self.accelerator.wait_for_everyone()
        states = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            states["cuda"] = torch.cuda.get_rng_state()
        safetensors.torch.save_file(states, new / f"random_{rank}.safetensors")
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            shutil.rmtree(old, ignore_errors=True)
            if self.folder.exists():
                self.folder.rename(old)
            new.rename(self.folder)
            shutil.rmtree(old, ignore_errors=True)
        self.accelerator.wait_for_everyone()

    def load(self, same: dict[str, Any]) -> History:
        """Put the saved state back, bit for bit.

        Raises:
            UserError: the state was saved from another model or method, by a run that differs in what must be the
                `same`, on fewer processes, or by another version.
        """
        history = History(**json.loads((self.folder / run_folder.HISTORY).read_text()))
        for name, value in same.items():
            saved = history.same.get(name, value)  # there are none of another version
            if saved != value:
                other = "other training rows" if name == "train_rows" else f"--{name} {saved}, not {value}"
                raise UserError(f"--resume: {self.folder} was saved with {other}; give the same as before")
        history.same = same
        random = self.folder / f"random_{self.accelerator.process_index}.safetensors"
        for file in (self.folder / "optimizer.safetensors", random):
            if not file.is_file():
                raise UserError(
                    f"--resume: {file} is missing: the run was on fewer processes or of another version of tl_hub; use "
                    "the same, or start again with --overwrite"
                )
        weights = safetensors.torch.load_file(self.folder / "weights.safetensors")
        if {n: w.shape for n, w in weights.items()} != {n: p.shape for n, p in self._trained().items()}:
            raise UserError(f"--resume: {self.folder} was saved with another model or method; use the same command")
        self._put(weights)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in safetensors.torch.load_file(self.folder / "optimizer.safetensors").items():
            place, _, kind = name.partition(".")
            moments.setdefault(int(place), {})[kind] = tensor
        # The groups hold settings, which the command gives again.
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        states = safetensors.torch.load_file(random)
        torch.set_rng_state(states["cpu"])
        if "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])
        return history

    def save_best(self) -> None:
        if self.accelerator.is_main_process:
            self.folder.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_file(self._trained(), self.folder / "best.safetensors.new")
            (self.folder / "best.safetensors.new").replace(self.folder / "best.safetensors")

    def load_best(self) -> None:
        self._put(safetensors.torch.load_file(self.folder / "best.safetensors"))

    @contextmanager
    def best(self) -> Iterator[None]:
        """Within it, the model has the weights of the best epoch; afterwards, those that were last saved."""
        self.load_best()
        try:
            yield
        finally:
            self._put(safetensors.torch.load_file(self.folder / "weights.safetensors"))

    def _put(self, weights: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._trained().items():
                parameter.copy_(weights[name])
