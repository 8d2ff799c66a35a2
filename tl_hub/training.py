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

    batches = len(loader)
    per_epoch = math.ceil(batches / run.accumulation)
    steps = int(min(run.max_steps or math.inf, run.epochs * per_epoch))
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
    log = _Log(folder / run_folder.LOG, history.step, accelerator.is_main_process)
    bar = tqdm(
        total=steps,
        initial=history.step,
        unit="step",
        desc="training",
        dynamic_ncols=True,
        disable=not accelerator.is_main_process,
    )
    saved_at = time.monotonic()
    faster = cpu.faster_training(model) if accelerator.device.type == "cpu" else nullcontext()
    # Autocast casts inputs itself; PEFT would first cast each one to float32. IA3's layers lack the switch.
    added = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    switches = all(hasattr(module, "cast_input_dtype_enabled") for module in added)
    with _Interrupts() as interrupts, log, bar, faster, disable_input_dtype_casting(model, active=switches):
        while history.step < steps:
            epoch, done = divmod(history.step, per_epoch)
            buckets.epoch, buckets.start = epoch, done * run.accumulation * accelerator.num_processes
            objective.train()
            clock, rows, losses = time.perf_counter(), 0, []
            for batch in loader:
                with accelerator.accumulate(objective):
                    loss = objective(**task.inputs(batch)).loss
                    # Accelerate divides by `accumulation` in an epoch's last group too, which may hold fewer batches.
                    group = min(run.accumulation, batches - history.step % per_epoch * run.accumulation)
                    accelerator.backward(loss * (run.accumulation / group))
                    losses.append(loss.detach().float())
                    rows += len(batch["index"])
                    if not accelerator.sync_gradients:
                        continue
                    norm = accelerator.clip_grad_norm_(objective.parameters(), run.max_grad_norm)
                    figure, norm = torch.stack(
                        [torch.stack(losses).mean(), torch.as_tensor(norm, device=loss.device)]
                    ).tolist()
                    if not math.isfinite(figure + norm):
                        raise RunStopped(_diverged(history, figure, norm, folder), exit_code=1)
                    rate = run.learning_rate * _schedule(history.step, steps, run)
                    for parameters in optimizer.param_groups:
                        parameters["lr"] = rate * parameters["rate"]
                    optimizer.step()
                    optimizer.zero_grad()
                elapsed, clock = time.perf_counter() - clock, time.perf_counter()
                history.step += 1
                history.seconds += elapsed
                history.rows += rows * accelerator.num_processes
                history.loss_sum += figure
                log.write(
                    step=history.step,
                    epoch=history.step / per_epoch,
                    loss=figure,
                    learning_rate=rate,
                    grad_norm=norm,
                    rows_per_second=rows * accelerator.num_processes / elapsed,
                )
                bar.set_postfix_str(f"loss {figure:.3f}, {history.rows / history.seconds:.1f} rows/s", refresh=False)
                bar.update()
                rows, losses = 0, []
                stop = interrupts.on_any_process(accelerator)
                if history.step == steps:
                    break
                if history.step % per_epoch == 0:
                    continue  # the loader ends here, and the evaluation comes before the state is saved
                if stop or time.monotonic() - saved_at > 60 * run.checkpoint_minutes:
                    keeper.save(history)
                    saved_at, clock = time.monotonic(), time.perf_counter()
                if stop:
                    raise RunStopped(_interrupted(history, steps), exit_code=130)
            first = history.epochs[-1]["step"] if history.epochs else 0
            score = evaluate(model, data.splits["validation"], task, tokenizer, run, accelerator)
            figures = {name: float(np.nanmean(values)) for name, values in score.metrics.items()}
            history.epochs.append(
                {
                    "epoch": len(history.epochs) + 1,
                    "step": history.step,
                    "loss": history.loss_sum / (history.step - first),
                    **figures,
                }
            )
            history.loss_sum = 0.0
            name, higher = task.best
            best = (max if higher else min)(history.epochs, key=lambda entry: entry[name])
            if best is history.epochs[-1]:
                history.best_epoch, history.decision = best["epoch"], score.decision
                keeper.save_best()
            keeper.save(history)
            if push and run.push_every and history.step < steps and len(history.epochs) % run.push_every == 0:
                if accelerator.is_main_process:
                    with keeper.best():
                        push(history)
                accelerator.wait_for_everyone()
            saved_at = time.monotonic()
            if accelerator.is_main_process:
                shown = ", ".join(f"{metric} {value:.4g}" for metric, value in figures.items())
                bar.write(f"epoch {len(history.epochs)} of {run.epochs}: {shown}")
            if interrupts.on_any_process(accelerator):  # in the last step, too: who interrupts wants no push
                raise RunStopped(_interrupted(history, steps), exit_code=130)
    keeper.load_best()
    accelerator.unwrap_model(objective, keep_fp32_wrapper=False)  # or `model` would go on computing in bf16
    accelerator.free_memory()
    gc.collect()
    return history


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


def _diverged(history: History, loss: float, norm: float, folder: Path) -> str:
    kept = (
        f"the state of step {history.epochs[-1]['step']} is kept: go on with --resume and a lower --learning_rate"
        if history.epochs
        else "start again with a lower --learning_rate and --overwrite"
    )
    return f"training diverged at step {history.step + 1} (loss {loss:g}, gradient norm {norm:g}); {kept}"
