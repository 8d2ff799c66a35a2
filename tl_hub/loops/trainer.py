"""Run folders from transformers' Trainer and what is derived from it."""

import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import has_length

from tl_hub.errors import UserError
from tl_hub.finish import PROBES, device_name
from tl_hub.loops.folder import RunFolder
from tl_hub.record import Cost, Metric, SplitFacts, in_history

_ALWAYS_SHOWN = {
    "adam_beta1",
    "adam_beta2",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "max_grad_norm",
    "num_train_epochs",
    "optim",
    "per_device_train_batch_size",
    "seed",
    "warmup_steps",
    "weight_decay",
}
"""TrainingArguments that are stated whatever their value; of the others, those that are not at their default."""
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_SPEED = re.compile(r"_(runtime|\w+_per_second|preparation_time|compilation_time)$|_mem_")


class RunFolderCallback(TrainerCallback):
    """Writes a `RunFolder` when a Trainer has trained, with what the Trainer knows of the run.

    The weights are those that the Trainer ends with, which are the best ones where it has `load_best_model_at_end`,
    and the metrics are those of the evaluation of just these weights.

    Args:
        split: name of the rows that the Trainer evaluates on. Several evaluation sets keep the names they have there.

    Raises:
        UserError: as training begins, where `RunFolder.check` does, or the folder is in use by now; or the Trainer
            spreads the weights over processes, or searches hyperparameters.
    """

    def __init__(self, folder: RunFolder, split: str = "validation"):
        self.folder, self.split = folder, split
        self.rows: dict[str, int] = {}  # prefix of an evaluation's figures -> rows
        self.started: float | None = None
        self.evaluating = 0.0  # seconds

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any
    ) -> None:
        path = Path(self.folder.path)
        if Path(args.output_dir or "").resolve().is_relative_to(path.resolve()):
            raise UserError(
                f"{path} is to hold the Trainer's checkpoints (output_dir) as well; give it a folder of its own"
            )
        if args.fsdp or args.deepspeed:
            raise UserError(
                "fsdp and deepspeed spread the weights over processes; gather them and call RunFolder.write"
            )
        if state.is_hyper_param_search:
            raise UserError("a search for hyperparameters has no single result; train with the best ones, without it")
        replace(self.folder)  # checks again: an earlier training may have filled it
        self.folder.check(known["model"], known["processing_class"])
        # What an interrupted run took before it is not known.
        self.started = time.perf_counter() if state.global_step == 0 else None
        self.evaluating = 0.0

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any) -> None:
        dataset = known["eval_dataloader"].dataset
        for prefix, entry in _evaluations([known["metrics"]]):
            self.evaluating += entry[f"{prefix}_runtime"]
            if has_length(dataset):
                self.rows[prefix] = len(dataset)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **known: Any) -> None:
        if not state.is_world_process_zero:
            return
        seconds = None if self.started is None else time.perf_counter() - self.started
        loader = known["eval_dataloader"] or known["train_dataloader"]
        batch = loader.collate_fn(list(itertools.islice(iter(loader.dataset), PROBES)))

        # best_global_step may be a step that was evaluated but not saved, and a checkpoint that is gone was not loaded.
        checkpoint = state.best_model_checkpoint
        chosen = args.load_best_model_at_end and checkpoint is not None and Path(checkpoint).is_dir()
        kept = int(checkpoint.rpartition("-")[2]) if checkpoint and chosen else state.global_step
        best = (args.metric_for_best_model or "").removeprefix("eval_")
        history, metrics = self._history(state.log_history), self._metrics(state.log_history, kept)
        counted = {metric.split: SplitFacts(rows=metric.rows) for metric in metrics}
        if has_length(known["train_dataloader"].dataset):
            counted = {"train": SplitFacts(rows=len(known["train_dataloader"].dataset))} | counted
        folder = replace(
            self.folder,
            data=replace(self.folder.data, splits=counted | self.folder.data.splits),
            settings=_settings(args) | self.folder.settings,
        )
        record = folder.write(
            known["model"],
            known["processing_class"],
            batch,
            metrics=sorted(metrics, key=lambda metric: (metric.name != best, metric.name == "loss")),
            history=history,
            best_epoch=next((epoch["epoch"] for epoch in history if chosen and epoch["step"] == kept), None),
            log=[
                {name: entry[name] for name in ("step", "epoch", "loss", "learning_rate", "grad_norm") if name in entry}
                for entry in state.log_history
                if "loss" in entry
            ],
            cost=Cost(
                training_seconds=None if seconds is None else round(seconds - self.evaluating, 3),
                total_seconds=None if seconds is None else round(seconds, 3),
                operations=state.total_flos or None,
                operations_by="the Trainer's own count (transformers, floating_point_ops)"
                if state.total_flos
                else None,
                device=device_name(args.device, args.world_size),
                precision="bf16" if args.bf16 else "fp16" if args.fp16 else _PRECISIONS.get(known["model"].dtype),
            ),
        )
        assert record.verification is not None
        print(
            f"{folder.path}: loaded back by {' and '.join(record.verification['loaded_by'])}, "
            f"largest difference of logits {record.verification['max_difference']:.1e}"
        )

    def _metrics(self, log: list[dict[str, float]], step: int) -> list[Metric]:
        """The figures of the evaluations at a step."""
        found = {}
        for prefix, entry in _evaluations(log):
            split = self.split if prefix == "eval" else prefix.removeprefix("eval_")
            if entry["step"] == step:
                # The speed is all that tells of rows without a length, as of an evaluation before a resumed run.
                rows = self.rows.get(prefix, round(entry[f"{prefix}_runtime"] * entry[f"{prefix}_samples_per_second"]))
                if split in self.folder.data.splits:
                    rows = self.folder.data.splits[split].rows
                for name, value in _figures(prefix, entry).items():
                    found[split, name] = Metric(name=name, value=value, split=split, rows=rows)
        return list(found.values())

    def _history(self, log: list[dict[str, float]]) -> list[dict[str, Any]]:
        """One dict a step that was evaluated; `loss` is the mean over the steps since the one before."""
        lines = [entry for entry in log if "loss" in entry]
        steps = np.array([0, *(line["step"] for line in lines)])
        history: list[dict[str, Any]] = []
        for prefix, entry in _evaluations(log):
            if not history or history[-1]["step"] != entry["step"]:
                first = history[-1]["step"] if history else 0
                epoch = entry["epoch"]
                history.append({"epoch": int(epoch) if epoch == int(epoch) else epoch, "step": entry["step"]})
                since = (steps[1:] > first) & (steps[1:] <= entry["step"])
                if since.any():
                    losses = np.array([line["loss"] for line in lines])
                    history[-1]["loss"] = float(np.average(losses[since], weights=np.diff(steps)[since]))
            short = "" if prefix == "eval" else f"{prefix.removeprefix('eval_')}_"
            for name, value in _figures(prefix, entry).items():
                history[-1][in_history(short + name)] = value
        return history


def _evaluations(log: list[dict[str, float]]) -> Iterator[tuple[str, dict[str, float]]]:
    """The entries of the Trainer's log that are of an evaluation, with the prefix of their figures."""
    for entry in log:
        prefix = next((name.removesuffix("_runtime") for name in entry if name.endswith("_runtime")), "train")
        if prefix != "train":
            yield prefix, entry


def _figures(prefix: str, entry: dict[str, float]) -> dict[str, float]:
    """What an evaluation measured of the model, without its speed: name -> value."""
    return {
        name.removeprefix(f"{prefix}_"): float(value)
        for name, value in entry.items()
        if name.startswith(f"{prefix}_") and isinstance(value, int | float) and not _SPEED.search(name)
    }


def _settings(args: TrainingArguments) -> dict[str, Any]:
    """Numbers, switches and choices of TrainingArguments. Texts are left out: they may be paths or tokens."""
    settings = {}
    for setting in fields(args):
        value = getattr(args, setting.name)
        if setting.init and isinstance(value, bool | int | float | Enum):
            value = value.value if isinstance(value, Enum) else value
            changed = value != setting.default and (
                value or setting.default
            )  # some are None until they are set to False
            if setting.name in _ALWAYS_SHOWN or changed:
                settings[setting.name] = value
    return settings
