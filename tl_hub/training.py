"""The one gradient loop that every recipe uses, and the one evaluation."""

import gc
import json
import math
import shutil
import signal
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.utils.data import BatchSampler, DataLoader
from tqdm import tqdm

from tl_hub import cpu, estimate, overview, run_folder
from tl_hub.config import RunConfig
from tl_hub.data import Data, LengthBuckets, Split, fingerprint
from tl_hub.errors import RunStopped, UserError
from tl_hub.tasks.base import Score, Task
from tl_hub.training_state import History, Keeper


def train(
    model: Any,
    data: Data,
    task: Task,
    tokenizer: Any,
    run: RunConfig,
    accelerator: Accelerator,
    push: Callable[[History], None] | None = None,
) -> History:
    """Train to the last step and leave the weights of the best epoch in `model`.

    Writes `log.jsonl` (a line a step) and, in `checkpoint/`, the training state: after each epoch, every
    `checkpoint_minutes`, and when interrupted. `run.resume` continues from it with the same result as an
    uninterrupted run.

    Args:
        push: called in the main process after every `run.push_every` epochs but the last, with the weights of the
            best epoch in `model`.

    Raises:
        RunStopped: interrupted, the loss or a gradient is no longer finite, or `run.check` asked for no more.
    """
    folder = Path(run.output_dir)
    split = data.splits["train"]
    assert split.features is not None
    buckets = LengthBuckets(split.features["length"], run.batch_size, run.seed)
    loader = _loader(split, buckets, task.collator(tokenizer, training=True), task)
    optimizer = torch.optim.AdamW(_groups(model, run.weight_decay), lr=run.learning_rate, fused=True)
    objective, optimizer, loader = accelerator.prepare(task.objective(model), optimizer, loader)

    steps = int(min(run.max_steps or math.inf, run.epochs * _steps_per_epoch(len(loader), run)))
    overview.show(data, task, accelerator)
    if run.check:
        longest = np.argsort(split.features["length"])[-run.batch_size :].tolist()
        batch = next(iter(_loader(split, [longest], task.collator(tokenizer, training=True), task)))
        raise estimate.of_training(objective, batch, data, task, run, steps, accelerator, model.config.model_type)
    overview.give_advice(task, accelerator)
    keeper = Keeper(folder / run_folder.STATE, model, optimizer, accelerator)
    _check_space(folder, model)
    # Of these the order of the batches is made. Rates and their schedule may change.
    same: dict[str, Any] = {name: getattr(run, name) for name in ("batch_size", "accumulation", "seed")}
    same |= {"num_processes": accelerator.num_processes, "train_rows": fingerprint(split.rows)}
    if run.resume:
        history = keeper.load(same)
    else:
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            run_folder.clear(folder)  # there is something only with --overwrite
            tokenizer.save_pretrained(folder)  # a run that goes on must number its tokens as this one
        accelerator.wait_for_everyone()
        history = History(same=same)
    faster = cpu.faster_training(model) if accelerator.device.type == "cpu" else nullcontext()
    # Autocast casts inputs itself; PEFT would first cast each one to float32. IA3's layers lack the switch.
    added = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    switches = all(hasattr(module, "cast_input_dtype_enabled") for module in added)
    with (
        _Interrupts() as interrupts,
        _Log(folder / run_folder.LOG, history.step, accelerator.is_main_process) as log,
        _bar(steps, history.step, accelerator) as bar,
        faster,
        disable_input_dtype_casting(model, active=switches),
    ):
        loop = _Loop(
            objective, optimizer, loader, buckets, task, run, accelerator, keeper, history, log, bar, interrupts, steps
        )
        while history.step < steps:
            loop.train_epoch()
            loop.keep_epoch(evaluate(model, data.splits["validation"], task, tokenizer, run, accelerator), push)
    keeper.load_best()
    accelerator.unwrap_model(objective, keep_fp32_wrapper=False)  # or `model` would go on computing in bf16
    accelerator.free_memory()
    gc.collect()
    return history


@dataclass
class _Loop:
    """What the steps and epochs of one call of `train` share.

    Attributes:
        steps: optimizer steps of the whole run.
        saved_at: when the state was saved last, or training began.
    """

    objective: torch.nn.Module
    optimizer: Any
    loader: Any
    buckets: LengthBuckets
    task: Task
    run: RunConfig
    accelerator: Accelerator
    keeper: Keeper
    history: History
    log: "_Log"
    bar: tqdm
    interrupts: "_Interrupts"
    steps: int
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.batches = len(self.loader)
        self.per_epoch = _steps_per_epoch(self.batches, self.run)

    def train_epoch(self) -> None:
        """Train to the end of the epoch, or to the last step, from wherever in the epoch the history stands.

        Raises:
            RunStopped: interrupted, or the loss or a gradient is no longer finite.
        """
        history, run, processes = self.history, self.run, self.accelerator.num_processes
        epoch, done = divmod(history.step, self.per_epoch)
        self.buckets.epoch, self.buckets.start = epoch, done * run.accumulation * processes
        self.objective.train()
        clock, rows, losses = time.perf_counter(), 0, list[torch.Tensor]()
        for batch in self.loader:
            with self.accelerator.accumulate(self.objective):
                loss = self.objective(**self.task.inputs(batch)).loss
                # Accelerate divides by `accumulation` in an epoch's last group too, which may hold fewer batches.
                group = min(run.accumulation, self.batches - history.step % self.per_epoch * run.accumulation)
                self.accelerator.backward(loss * (run.accumulation / group))
                losses.append(loss.detach().float())
                rows += len(batch["index"])
                if not self.accelerator.sync_gradients:
                    continue
                figures = self._update(losses)
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            self._count(figures, rows * processes, elapsed)
            rows, losses = 0, []
            stop = self.interrupts.on_any_process(self.accelerator)
            if history.step == self.steps:
                break
            if history.step % self.per_epoch == 0:
                continue  # the loader ends here, and the evaluation comes before the state is saved
            if stop or time.monotonic() - self.saved_at > 60 * run.checkpoint_minutes:
                self.keeper.save(history)
                self.saved_at, clock = time.monotonic(), time.perf_counter()
            if stop:
                raise RunStopped(_interrupted(history, self.steps), exit_code=130)

    def _update(self, losses: list[torch.Tensor]) -> dict[str, float]:
        """An optimizer step; what the log says of it."""
        run = self.run
        norm = self.accelerator.clip_grad_norm_(self.objective.parameters(), run.max_grad_norm)
        loss, norm = torch.stack([torch.stack(losses).mean(), torch.as_tensor(norm, device=losses[0].device)]).tolist()
        if not math.isfinite(loss + norm):
            raise RunStopped(_diverged(self.history, loss, norm), exit_code=1)
        rate = run.learning_rate * _schedule(self.history.step, self.steps, run)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate * parameters["rate"]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return {"loss": loss, "learning_rate": rate, "grad_norm": norm}

    def _count(self, figures: dict[str, float], rows: int, seconds: float) -> None:
        history = self.history
        history.step += 1
        history.seconds += seconds
        history.rows += rows
        history.loss_sum += figures["loss"]
        place = {"step": history.step, "epoch": history.step / self.per_epoch}
        self.log.write(**place, **figures, rows_per_second=rows / seconds)
        speed = history.rows / history.seconds
        self.bar.set_postfix_str(f"loss {figures['loss']:.3f}, {speed:.1f} rows/s", refresh=False)
        self.bar.update()

    def keep_epoch(self, score: Score, push: Callable[[History], None] | None) -> None:
        """Note the score of the validation rows, keep the weights if they are the best so far, and save the state.

        Raises:
            RunStopped: interrupted; in the last step, too: who interrupts wants no push.
        """
        history, run, main = self.history, self.run, self.accelerator.is_main_process
        first = history.epochs[-1]["step"] if history.epochs else 0
        figures = {name: float(np.nanmean(values)) for name, values in score.metrics.items()}
        place = {"epoch": len(history.epochs) + 1, "step": history.step}
        history.epochs.append({**place, "loss": history.loss_sum / (history.step - first), **figures})
        history.loss_sum = 0.0
        name, higher = self.task.best
        best = (max if higher else min)(history.epochs, key=lambda entry: entry[name])
        if best is history.epochs[-1]:
            history.best_epoch, history.decision = best["epoch"], score.decision
            self.keeper.save_best()
        self.keeper.save(history)
        if push and run.push_every and history.step < self.steps and len(history.epochs) % run.push_every == 0:
            if main:
                with self.keeper.best():
                    push(history)
            self.accelerator.wait_for_everyone()
        self.saved_at = time.monotonic()
        if main:
            shown = ", ".join(f"{metric} {value:.4g}" for metric, value in figures.items())
            self.bar.write(f"epoch {len(history.epochs)} of {run.epochs}: {shown}")
        if self.interrupts.on_any_process(self.accelerator):
            raise RunStopped(_interrupted(history, self.steps), exit_code=130)


def _steps_per_epoch(batches: int, run: RunConfig) -> int:
    return math.ceil(batches / run.accumulation)


def _bar(steps: int, done: int, accelerator: Accelerator) -> tqdm:
    shown = accelerator.is_main_process
    return tqdm(total=steps, initial=done, unit="step", desc="training", dynamic_ncols=True, disable=not shown)


@torch.no_grad()
def evaluate(
    model: Any,
    split: Split,
    task: Task,
    tokenizer: Any,
    run: RunConfig,
    accelerator: Accelerator,
    decision: dict[str, float] | None = None,
) -> Score:
    """Score the rows of a split. Batches run from long to short, so the first one shows whether memory suffices.

    In mixed precision, as the run has it, unless the task wants its outputs as the saved model gives them.
    """
    features = split.features
    assert features is not None
    read = "source_length" if "source_length" in features.column_names else "length"
    order = np.argsort(-np.asarray(features[read]), kind="stable").tolist()
    batches = BatchSampler(order, batch_size=2 * run.batch_size, drop_last=False)
    loader = accelerator.prepare_data_loader(_loader(split, batches, task.collator(tokenizer, training=False), task))
    model.to(accelerator.device).eval()
    predictions: dict[str, np.ndarray] = {}
    bar = tqdm(
        loader,
        desc="evaluating",
        unit="batch",
        leave=False,
        dynamic_ncols=True,
        disable=not accelerator.is_main_process,
    )
    for batch in bar:
        with _in_float32(model) if task.exact else accelerator.autocast():
            outputs = task.outputs(model, task.inputs(batch))
        reduced = accelerator.gather({"index": batch["index"], **task.predict(outputs, batch)})
        index = reduced.pop("index").cpu().numpy()
        for name, tensor in reduced.items():
            values = tensor.cpu().numpy()
            if name not in predictions:
                predictions[name] = np.zeros((len(features), *values.shape[1:]), values.dtype)
            predictions[name][index] = values
    return task.score(predictions, split.rows, features, decision)


def evaluate_base(
    model: Any, split: Split, task: Task, tokenizer: Any, run: RunConfig, accelerator: Accelerator
) -> Score:
    """Score the rows of a split with the model that training starts from, without the adapter that `model` may have."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return evaluate(base, split, task, tokenizer, run, accelerator)


@contextmanager
def _in_float32(model: Any) -> Iterator[None]:
    """Within it, the model computes in float32, also in training, where Accelerate gives it a forward pass in bf16."""
    mixed = vars(model).pop("forward") if "_original_forward" in vars(model) else None
    try:
        yield
    finally:
        if mixed is not None:
            model.forward = mixed


class _Log:
    """log.jsonl, a line a step; lines beyond the step that a resumed run starts from are dropped."""

    def __init__(self, path: Path, step: int, active: bool):
        self.active = active
        if active:
            kept = path.read_text().splitlines(keepends=True)[:step] if path.exists() else []
            path.write_text("".join(kept))
            self.file = path.open("a")

    def write(self, **figures: float) -> None:
        if self.active:
            self.file.write(json.dumps({name: float(f"{value:.6g}") for name, value in figures.items()}) + "\n")
            self.file.flush()

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            self.file.close()


class _Interrupts:
    """Turns Ctrl-C and SIGTERM into a question asked after each step, so that the state saved is a whole one."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "_Interrupts":
        self.previous = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_any_process(self, accelerator: Accelerator) -> bool:
        if accelerator.num_processes == 1:
            return self.asked
        asked = torch.tensor(int(self.asked), device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum"))


def _loader(split: Split, batches: Any, collate: Any, task: Task) -> DataLoader:
    features = split.features
    assert features is not None
    columns = [name for name in (*task.batched, "index") if name in features.column_names]
    # An iterator draws a number from its generator: from the global one, it would shift the dropout of a resumed run.
    own = torch.Generator().manual_seed(0)
    return DataLoader(features.select_columns(columns), batch_sampler=batches, collate_fn=collate, generator=own)


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: biases and norms are not decayed.

    A parameter that a method gave an attribute `rate` learns at that multiple of the learning rate, and one whose
    attribute `decayed` is False is not decayed either.
    """
    trained: dict[float, tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            # Some biases of XLNet and T5 have two dimensions.
            matrix = p.ndim > 1 and "bias" not in name and getattr(p, "decayed", True)
            trained.setdefault(getattr(p, "rate", 1.0), ([], []))[0 if matrix else 1].append(p)
    groups = []
    for rate, (matrices, others) in trained.items():
        groups.append({"params": matrices, "weight_decay": weight_decay, "rate": rate})
        groups.append({"params": others, "weight_decay": 0.0, "rate": rate})
    return groups


def _schedule(step: int, steps: float, run: RunConfig) -> float:
    """Share of the peak rate at `step` (from 0): a linear rise over the warm-up, then the schedule down to 0."""
    warm = int(run.warmup * steps)
    if step < warm:
        return (step + 1) / (warm + 1)
    left = (steps - step) / max(1, steps - warm)
    return {"linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left), "constant": 1.0}[run.schedule]


def _check_space(folder: Path, model: Any) -> None:
    """Refuse to start what the disk cannot hold: the result, the best weights and two copies of the training state."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    needed = 4 * trained * (1 + 1 + 2 * 3)  # a state is the weights and AdamW's two moments, in float32
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise UserError(f"--output_dir {folder}: {free / 2**20:,.0f} MiB are free, the run needs {needed / 2**20:,.0f}")


def _interrupted(history: History, steps: float) -> str:
    return f"interrupted at step {history.step} of {steps}; the same command with --resume goes on from there"


def _diverged(history: History, loss: float, norm: float) -> str:
    kept = (
        f"the state of step {history.epochs[-1]['step']} is kept: go on with --resume and a lower --learning_rate"
        if history.epochs
        else "start again with a lower --learning_rate and --overwrite"
    )
    return f"training diverged at step {history.step + 1} (loss {loss:g}, gradient norm {norm:g}); {kept}"
