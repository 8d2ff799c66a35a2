"""A run that is ready: what it consists of, in one hand."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from tl_hub.config import FEW_ROWS, PATIENCE
from tl_hub.model_types import Tokenizer
from tl_hub.on_use import torch

if TYPE_CHECKING:
    from accelerate import Accelerator

    from tl_hub.base_model import Base
    from tl_hub.config import RunConfig
    from tl_hub.data import Data
    from tl_hub.methods.base import Method
    from tl_hub.tasks.base import Task


@dataclass(frozen=True)
class Experiment:
    """What training, evaluation and the run folder are made from. The rows are encoded, the model is as the method
    wants it.

    Attributes:
        method: None where a model is measured that was trained before.
        base: None where the model starts from no other.
    """

    run: RunConfig
    task: Task
    method: Method | None
    base: Base | None
    rows: Data
    model: Any
    tokenizer: Tokenizer
    accelerator: Accelerator

    @property
    def patience(self) -> int | None:
        """Epochs without a better figure after which training ends, if it may: those asked for, or `config.PATIENCE`.

        Without being asked, few rows end it; not where each epoch has others, nor where layers join one by one, of
        which the last may bring the most.
        """
        if self.run.patience is not None or self.run.streaming:
            return self.run.patience or None
        by_layer = any(getattr(parameter, "from_epoch", 0) for parameter in self.model.parameters())
        return PATIENCE if len(self.rows.splits["train"].rows) < FEW_ROWS and not by_layer else None

    def settings(self, *, trained: bool) -> dict[str, Any]:
        """Those of run and task, without what the run record, which is published, must not or need not hold.

        Args:
            trained: by gradient, in steps of so many rows.
        """
        run, processes = self.run, self.accelerator.num_processes
        assert self.method is not None
        left_out = {field.name for field in fields(run) if not field.metadata["recorded"]} | {*self.method.unused}
        settings = asdict(run) | asdict(self.task)
        settings["settings_from"] = run.settings_from or None
        settings["patience"] = self.patience
        settings["threads"] = torch.get_num_threads()  # by which sums are rounded
        if trained:  # batch_size is that of each process
            settings["num_processes"] = processes
            settings["effective_batch_size"] = run.batch_size * run.accumulation * processes
        return {name: value for name, value in settings.items() if name not in left_out and value is not None}
