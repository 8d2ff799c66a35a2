"""The one gradient loop that every recipe uses, and the one evaluation."""

import gc
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from accelerate import Accelerator
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from tqdm import tqdm

from tl_hub import (
    adamw,
    cpu,
    data,
    estimate,
    frozen_layers,
    merged_lora,
    overview,
    progress,
    rate_finder,
    run_folder,
    sharding,
    trackers,
)
from tl_hub.batches import GlobalBatches, Reader, micro_batches
from tl_hub.errors import Diverged, RunStopped, TrialEnded, UserError, out_of_memory
from tl_hub.experiment import Experiment
from tl_hub.interrupts import Interrupts
from tl_hub.record import in_history
from tl_hub.tasks.base import Score, column
from tl_hub.training_state import History, Keeper

SKIPPED_AT_MOST = 5
"""Steps in a row that may be skipped because their loss or gradient is not finite. The next one ends the run."""


def train(experiment: Experiment, push: Callable[[Experiment, History], None] | None = None) -> History:
    """Train to the last step and leave the weights of the best epoch, or their average, in the model.

    Writes `log.jsonl` (a line a step) and, in `checkpoint/`, the training state: after each epoch, every
    `checkpoint_minutes`, and when interrupted. `run.resume` continues from it with the same result as an
    uninterrupted run.

    Args:
        push: called in the main process after every `run.push_every` epochs but the last, with the weights of the
            best epoch in the model.

    Raises:
        UserError: the state cannot be gone on with, the disk is too small, or the family cannot do what is asked for.
        RunStopped: interrupted, the loss or a gradient was not finite in too many steps in a row, or `run.check`,
            `run.find_lr` or `run.sweep` asked for no more.
    """
    run, task, model = experiment.run, experiment.task, experiment.model
    accelerator, folder = experiment.accelerator, Path(run.output_dir)
    split = experiment.rows.splits["train"]
    assert split.encoded is not None
    lengths = column(split.encoded, "length")
    batches = GlobalBatches(lengths, run.batch_size * run.accumulation * accelerator.num_processes, run.seed)
    trained = sharding.copy_to_train(model, accelerator)
    optimizer = adamw.optimizer(trained, run)
    inner: Any = trained.get_base_model() if isinstance(trained, PeftModel) else trained
    if run.activation_checkpointing:
        if not inner.supports_gradient_checkpointing:
            raise UserError(f"--activation_checkpointing: {inner.config.model_type} has none in transformers; omit it")
        inner.activation_checkpointing_enable()  # Chen et al. 2016, https://arxiv.org/abs/1604.06174
    objective, optimizer = accelerator.prepare(sharding.root(task.objective(trained), accelerator), optimizer)

    steps = int(min(run.max_steps or math.inf, run.epochs * len(batches)))
    overview.show(experiment, steps, sharding.held(objective))
    if run.check:
        longest = np.argsort(lengths)[-run.batch_size :]
        batch = Reader(experiment, "train", training=True).batch(longest.tolist(), (run.seed, 0, 0), int(longest[-1]))
        raise estimate.of_training(experiment, objective, batch, steps)
    if run.find_lr:
        raise rate_finder.find(experiment, objective, optimizer, batches)
    overview.give_advice(experiment)
    keeper = Keeper(run, model, trained, optimizer, accelerator, len(batches))
    estimate.check_space(run, model)
    history = _history(experiment, keeper, steps)
    once = steps > len(batches) and not sharding.used(accelerator)  # reading once pays for later epochs
    frozen = frozen_layers.of_run(experiment) if once else None
    with (
        Interrupts() as interrupts,
        _Log(folder / run_folder.LOG, history.step, accelerator.is_main_process) as log,
        trackers.reporting(experiment, history.step),
        progress.bar(steps, "training", "step", initial=history.step, shown=accelerator.is_main_process) as bar,
        _computing(trained, accelerator),
    ):
        loop = _Loop(experiment, objective, optimizer, batches, keeper, history, log, bar, interrupts, steps, frozen)
        while not loop.is_done():
            loop.train_epoch()
            loop.keep_epoch(loop.measure(), push)
        loop.choose_weights()
    if run.activation_checkpointing:
        inner.activation_checkpointing_disable()
    accelerator.unwrap_model(objective, keep_fp32_wrapper=False)  # or `model` would go on computing in bf16
    accelerator.free_memory()
    gc.collect()
    if run.sweep:
        raise TrialEnded(history.outcome(task.best))
    return history


def _history(experiment: Experiment, keeper: Keeper, steps: int) -> History:
    """That of the run which is gone on with, put back with its state, or a new one, in a folder made ready for it.

    Raises:
        UserError: the state cannot be gone on with.
    """
    run, accelerator, folder = experiment.run, experiment.accelerator, Path(experiment.run.output_dir)
    same = _settled(experiment)
    # Otherwise all processes, or runs of the same `init_seed`, would drop the same places of their rows.
    if accelerator.process_index or run.init_seed is not None:
        torch.manual_seed(int(np.random.default_rng((run.seed, accelerator.process_index)).integers(2**62)))
    if run.resume:
        history = keeper.load(same)
        if run.threads is None and history.threads:  # another number of them rounds otherwise
            torch.set_num_threads(min(history.threads, cpu.share()))
        if history.step > steps:
            raise UserError(
                f"--resume: {folder} has {history.step} steps behind it, and this command allows {steps}; give "
                "--epochs and --max_steps that are no lower than before"
            )
        return history
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        run_folder.clear(folder)  # of another run only with --overwrite
        (folder / run_folder.LOG).touch()  # by which what ends before its first step is known
        experiment.tokenizer.save_pretrained(folder)  # a run that goes on must number its tokens as this one
    accelerator.wait_for_everyone()
    return History(same=same, threads=torch.get_num_threads())


@contextmanager
def _computing(model: Any, accelerator: Accelerator) -> Iterator[None]:
    """Within it, the model computes fast: on a CPU as suits that, and with inputs that are cast once."""
    on_cpu = accelerator.device.type == "cpu"
    faster = cpu.faster_training(model) if on_cpu else nullcontext()
    products = merged_lora.fast_products(model) if on_cpu else nullcontext()
    # Autocast casts inputs itself; PEFT would first cast each one to float32. IA3's layers lack the switch.
    added = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    switches = all(hasattr(module, "cast_input_dtype_enabled") for module in added)
    with faster, products, disable_input_dtype_casting(model, active=switches):
        yield


@dataclass
class _Loop:
    """What the steps and epochs of one call of `train` share.

    Attributes:
        steps: optimizer steps of the whole run.
        frozen: what stands in for the lowest layers, where they are frozen.
        saved_at: when the state was saved last, or training began.
    """

    experiment: Experiment
    objective: torch.nn.Module
    optimizer: Any
    batches: GlobalBatches
    keeper: Keeper
    history: History
    log: "_Log"
    bar: tqdm
    interrupts: Interrupts
    steps: int
    frozen: frozen_layers.FrozenLayers | None
    saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.run, self.task, self.accelerator = self.experiment.run, self.experiment.task, self.experiment.accelerator
        self.reader, self.per_epoch = Reader(self.experiment, "train", training=True), len(self.batches)
        self.batch_size = self.run.batch_size
        self.begun, self.warm = self.history.step, self.history.seconds

    def is_done(self) -> bool:
        """Whether the last step was made, or as many epochs without a better figure as the run has patience for.

        Unless it was asked for, patience begins with the end of the warm-up, in which little may be learned.
        """
        history, patience = self.history, self.experiment.patience
        warming = math.ceil(self.run.warmup * self.steps / self.per_epoch) if self.run.patience is None else 0
        return history.step >= self.steps or (
            patience is not None and len(history.epochs) - max(history.best_epoch, warming) >= patience
        )

    def train_epoch(self) -> None:
        """Train to the end of the epoch, or to the last step, from wherever in the epoch the history stands.

        Raises:
            RunStopped: interrupted, the loss or a gradient was not finite in too many steps in a row, or the rows of
                the epoch cannot be read.
        """
        history = self.history
        self._read_on()
        epoch, done = divmod(history.step, self.per_epoch)
        self.objective.train()
        clock = time.perf_counter()
        for place, rows in enumerate(self.batches.of_epoch(epoch)[done:], start=done):
            figures = self._step_that_fits(rows, (self.run.seed, epoch, place))
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            self._count(figures, len(rows), elapsed)
            if self.keeper.average:
                self.keeper.average.update(history.step)
            stop = self.interrupts.on_any_process(self.accelerator)
            ended, stream = history.step % self.per_epoch == 0, self.experiment.rows.stream
            if ended and stream:
                history.place = stream.behind
            if history.step == self.steps:
                break
            if ended:
                continue  # the epoch ends here, and the evaluation comes before the state is saved
            if stop or time.monotonic() - self.saved_at > 60 * self.run.checkpoint_minutes:
                self.keeper.save(history, best=False)
                self.saved_at, clock = time.monotonic(), time.perf_counter()
            if stop:
                raise RunStopped(_interrupted(history, self.steps), exit_code=130)

    def _read_on(self) -> None:
        """Have the rows of the epoch, if they are of a stream and others than those that were read last.

        Raises:
            RunStopped: they cannot be read.
        """
        history, experiment, stream = self.history, self.experiment, self.experiment.rows.stream
        if stream is None or stream.place == (place := history.place or stream.start):
            return
        del self.reader  # which has those that were read last, for which the disk may have no room then
        try:
            encoded = data.read_on(experiment.rows, place, self.task, experiment.tokenizer, experiment.model)
        except UserError as error:
            raise RunStopped(
                f"{error}; the state of step {history.step} is kept: the same command with --resume goes on from it",
                exit_code=1,
            ) from error
        self.batches = GlobalBatches(column(encoded, "length"), self.batches.size, self.run.seed)
        self.reader = Reader(experiment, "train", training=True)

    def _step_that_fits(self, rows: np.ndarray, draw: tuple[int, int, int]) -> dict[str, float]:
        """A step; from where memory runs out, with half as many rows at a time, which make the same step."""
        while True:
            try:
                return self._step(rows, draw)
            except (MemoryError, RuntimeError) as error:
                # Several processes would have to agree on it.
                if not out_of_memory(error) or self.batch_size == 1 or self.accelerator.num_processes > 1:
                    raise
            self.batch_size = -(-self.batch_size // 2)
            self.bar.write(f"memory ran out: {self.batch_size} rows at a time from here on, which make the same steps")
            self.optimizer.zero_grad()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _step(self, rows: np.ndarray, draw: tuple[int, int, int]) -> dict[str, float]:
        """An optimizer step by the mean loss over all rows, or all tokens predicted in them; what the log says of it.

        The mean of the means of micro-batches would be another: texts differ in length, and the last ones of an epoch
        are fewer. A step whose loss or gradient is not finite is skipped: weights and moments stay as they are.

        Raises:
            RunStopped: as many steps before it were skipped as may be.
        """
        run, accelerator = self.run, self.accelerator
        _, epoch, _ = draw
        parts = micro_batches(rows, self.batch_size, accelerator.process_index, accelerator.num_processes)
        # A process that has no row left takes part with one that counts nothing.
        read = [self.reader.batch((part if len(part) else rows[:1]).tolist(), draw, int(rows[0])) for part in parts]
        weights = [self.task.loss_weight(batch) * bool(len(part)) for batch, part in zip(read, parts, strict=True)]
        total = accelerator.reduce(torch.stack(weights).sum())
        mean = torch.zeros((), device=accelerator.device)
        for place, (batch, weight) in enumerate(zip(read, weights, strict=True), start=1):
            # Gradients are summed up apart, and shared out where that is what saves memory.
            apart = place < len(read) and not sharding.used(accelerator)
            with (
                accelerator.no_sync(self.objective) if apart else nullcontext(),
                self.frozen.of(batch) if self.frozen else nullcontext(),
            ):
                with sharding.computing(accelerator):
                    loss = self.objective(**self.task.inputs(batch)).loss
                # Gradients are averaged over processes, and are to be summed.
                accelerator.backward(loss * (accelerator.num_processes * weight / total))
                mean += loss.detach().float() * (weight / total)
        for group in self.optimizer.param_groups:
            if group["from_epoch"] > epoch:
                for parameter in group["params"]:
                    parameter.grad = None  # neither the norm nor AdamW, its decay included, sees it
        norm = accelerator.clip_grad_norm_(self.objective.parameters(), run.max_grad_norm)
        mean = accelerator.reduce(mean)
        norm = sharding.whole(torch.as_tensor(norm)).to(mean.device)
        loss, norm, counted = torch.stack([mean, norm, total]).tolist()
        rate = run.learning_rate * adamw.share_of_rate(self.history.step, self.steps, run)
        figures = {"loss": loss, "learning_rate": rate, "grad_norm": norm}
        if math.isfinite(loss + norm):
            for parameters in self.optimizer.param_groups:
                parameters["lr"] = rate * parameters["rate"]
            self.optimizer.step()
            self.history.loss_sum += loss * counted
            self.history.loss_weight += counted
            self.history.skipped_in_row = 0
        else:
            figures["skipped"] = self._skip(loss, norm)
        self.optimizer.zero_grad()
        return figures

    def _skip(self, loss: float, norm: float) -> int:
        """Count a step that is skipped; how many are by now, in a row. Loss and norm are the same in all processes.

        Raises:
            RunStopped: one too many.
        """
        history = self.history
        if history.skipped_in_row == SKIPPED_AT_MOST:
            raise Diverged(_diverged(history, loss, norm), exit_code=1)
        history.skipped_in_row += 1
        history.skipped += 1
        if self.accelerator.is_main_process:
            self.bar.write(f"step {history.step + 1} is skipped (loss {loss:g}, gradient norm {norm:g})")
        return history.skipped_in_row

    def _count(self, figures: dict[str, float], rows: int, seconds: float) -> None:
        history = self.history
        history.step += 1
        history.seconds += seconds
        history.rows += rows
        place = {"step": history.step, "epoch": history.step / self.per_epoch}
        figures = {**figures, "rows_per_second": rows / seconds}
        speed = history.rows / history.seconds
        self.bar.set_postfix_str(f"loss {figures['loss']:.3f}, {speed:.1f} rows/s", refresh=False)
        figures = {name: figure for name, figure in figures.items() if math.isfinite(figure)}  # JSON has no others
        self.log.write(**place, **figures)
        self.accelerator.log({"epoch": place["epoch"], **trackers.grouped("train", figures)}, history.step)
        self.bar.update()
        self._tell_time()

    def _tell_time(self) -> None:
        """Say after the first steps how long training takes, if minutes; the very first step also warms up."""
        done = self.history.step - self.begun
        if done == 1:
            self.warm = self.history.seconds
        elif done == 11 and self.accelerator.is_main_process:
            left = (self.steps - self.history.step) * (self.history.seconds - self.warm) / 10
            if left > 60:
                self.bar.write(f"about {estimate.about(left)} of training are left, and the evaluations")

    def measure(self) -> Score:
        """The score of the validation rows by the weights as they are."""
        sharding.gather(self.keeper.trained, self.experiment.model)
        score = evaluate(self.experiment, split="validation")
        if sharding.used(self.accelerator):
            self.experiment.model.cpu()  # the device is to hold its share only
        return score

    def keep_epoch(self, score: Score, push: Callable[[Experiment, History], None] | None) -> None:
        """Note the score of the validation rows, keep the weights if they are the best so far, and save the state.

        Raises:
            RunStopped: interrupted; in the last step, too: who interrupts wants no push.
        """
        history, run, main = self.history, self.run, self.accelerator.is_main_process
        figures = {name: float(np.nanmean(values)) for name, values in score.metrics.items()}
        place = {"epoch": len(history.epochs) + 1, "step": history.step}
        loss = {"loss": history.loss_sum / history.loss_weight} if history.loss_weight else {}
        skipped = {"skipped_steps": history.skipped} if history.skipped else {}
        measured = {in_history(name): value for name, value in figures.items()}
        history.epochs.append({**place, **loss, **skipped, **measured})
        history.loss_sum, history.loss_weight, history.skipped = 0.0, 0.0, 0
        self.accelerator.log(trackers.grouped("validation", figures), history.step)
        name, higher = self.task.best
        best = (max if higher else min)(history.epochs, key=lambda entry: entry[in_history(name)])
        if best is history.epochs[-1]:
            history.best_epoch, history.decision = best["epoch"], score.decision
        self.keeper.save(history, best=best is history.epochs[-1])
        if push and run.push_every and not self.is_done() and len(history.epochs) % run.push_every == 0:
            if main:
                with self.keeper.best():
                    push(self.experiment, history)
            self.accelerator.wait_for_everyone()
        self.saved_at = time.monotonic()
        if main:
            shown = ", ".join(f"{metric} {value:.4g}" for metric, value in figures.items())
            self.bar.write(f"epoch {len(history.epochs)} of {run.epochs}: {shown}")
            if history.step < self.steps and self.is_done():
                more = len(history.epochs) - history.best_epoch
                goes_on = "; --patience 0 trains to the last epoch" * (run.patience is None)
                self.bar.write(
                    f"training ends here: epoch {history.best_epoch} stayed the best for {more} more{goes_on}"
                )
        if self.interrupts.on_any_process(self.accelerator):
            raise RunStopped(_interrupted(history, self.steps), exit_code=130)

    def choose_weights(self) -> None:
        """Put the weights of the best epoch into the model, or an average that is no worse on the validation rows."""
        history, keeper = self.history, self.keeper
        if keeper.average:
            keeper.load_average()
            history.average, history.average_kept = self._compared()
        if keeper.soup.is_file():
            effort = keeper.load_soup()
            history.soup, history.soup_kept = self._compared()
            if history.soup_kept:
                history.seconds, history.rows = effort
                return
        if history.average_kept:
            keeper.load_average()
        else:
            keeper.load_best()

    def _compared(self) -> tuple[dict[str, float], bool]:
        """Figures of the validation rows by the weights as they are, and whether these are no worse than those kept."""
        kept, higher = self.history.outcome(self.task.best)["figure"], self.task.best[1]
        score = self.measure()
        figures = {in_history(name): float(np.nanmean(values)) for name, values in score.metrics.items()}
        no_worse = (figures[in_history(self.task.best[0])] - kept) * (1 if higher else -1) >= 0
        if no_worse:
            self.history.decision = score.decision
        return figures, no_worse


def _settled(experiment: Experiment) -> dict[str, Any]:
    """What the weights and the batches of a run depend on, by the names of its flags; a resumed one must have the same.

    Rates and their schedule may change, and how long training is to go on.
    """
    run, rows = experiment.run, experiment.rows.splits
    processes = experiment.accelerator.num_processes
    settings: dict[str, Any] = {
        "rows_per_step": run.batch_size * run.accumulation * processes,
        "seed": run.seed,
        "precision": run.precision,
        "average": run.average,
        "recompute_frozen": run.recompute_frozen,
    }
    for part in (experiment.task, experiment.method):
        if part:  # but for where rows are, and a tokenizer, which the run folder has by now
            about = {field.name: field.metadata for field in fields(part)}
            kept = {name for name in about if about[name].get("recorded", True) and not about[name].get("reads")}
            settings |= {name: value for name, value in asdict(part).items() if name in kept}
    if run.streaming:
        settings |= {"streaming": run.streaming, "dataset_revision": experiment.rows.revision}
    settings |= {f"{name}_rows": data.fingerprint(rows[name].rows) for name in ("train", "validation")}
    frozen = xxhash.xxh3_128()
    for name, parameter in experiment.model.named_parameters():
        if not parameter.requires_grad:
            frozen.update(name.encode() + parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    settings["frozen_weights"] = frozen.hexdigest()
    return json.loads(json.dumps(settings))


@torch.no_grad()
def evaluate(experiment: Experiment, decision: dict[str, float] | None = None, *, split: str | None = None) -> Score:
    """Score the rows that the reported numbers come from, or those of another split.

    In mixed precision, as the run has it, unless the task wants its outputs as the saved model gives them. Batches run
    from long to short, so the first one shows whether memory suffices.

    Raises:
        Diverged: the model gives nothing but NaN, as after too few steps at too high a rate to be seen by their loss.
    """
    model, task, accelerator = experiment.model, experiment.task, experiment.accelerator
    name = split or experiment.rows.final
    measured, reader = experiment.rows.splits[name], Reader(experiment, name, training=False)
    encoded = measured.encoded
    assert encoded is not None
    read = "source_length" if "source_length" in encoded.column_names else "length"
    order = np.argsort(-column(encoded, read), kind="stable").tolist()
    size = 2 * experiment.run.batch_size
    batches = [order[i : i + size] for i in range(0, len(order), size)]
    # The same ones as a single process has; each process gets as many, for which some come twice.
    process, processes = accelerator.process_index, accelerator.num_processes
    rounds = range(process, len(batches) + -len(batches) % processes, processes)
    model.to(accelerator.device).eval()
    predictions: dict[str, np.ndarray] = {}
    shown = accelerator.is_main_process
    with progress.bar(len(rounds), "evaluating", "batch", leave=False, shown=shown) as bar:
        for place in rounds:
            batch = reader.batch(batches[place % len(batches)])
            with _in_float32(model) if task.exact else accelerator.autocast():
                outputs = task.outputs(model, task.inputs(batch))
            reduced = {"index": batch["index"], **task.predict(outputs, batch)}
            reduced = accelerator.gather(accelerator.pad_across_processes(reduced, pad_index=-1))
            index = reduced.pop("index").cpu().numpy()
            for figure, tensor in reduced.items():
                values = tensor.cpu().numpy()[index >= 0]
                if figure not in predictions:
                    predictions[figure] = np.zeros((len(encoded), *values.shape[1:]), values.dtype)
                predictions[figure][index[index >= 0]] = values
            bar.update()
    if any(values.dtype.kind == "f" and np.isnan(values).all() for values in predictions.values()):
        raise Diverged(
            "training diverged: the model's outputs are no numbers; start again with a lower --learning_rate and "
            "--overwrite",
            exit_code=1,
        )
    return task.score(predictions, measured.rows, encoded, decision)


def evaluate_base(experiment: Experiment) -> Score:
    """Score the same rows with the model that training starts from, without the adapter that it may have."""
    model = experiment.model
    return evaluate(replace(experiment, model=model.get_base_model()) if isinstance(model, PeftModel) else experiment)


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
            kept = path.read_bytes().splitlines(keepends=True)[:step] if path.exists() else []
            self.file = path.open("a")
            self.file.truncate(len(b"".join(kept)))  # written anew, it would be lost if this is killed here

    def write(self, **figures: float) -> None:
        if self.active:
            self.file.write(json.dumps({name: float(f"{value:.6g}") for name, value in figures.items()}) + "\n")
            self.file.flush()

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *_: object) -> None:
        if self.active:
            self.file.close()


def _interrupted(history: History, steps: float) -> str:
    return f"interrupted at step {history.step} of {steps}; the same command with --resume goes on from there"


def _diverged(history: History, loss: float, norm: float) -> str:
    kept = (
        f"the state of step {history.epochs[-1]['step']} is kept: go on with --resume and a lower --learning_rate"
        if history.epochs
        else "start again with a lower --learning_rate and --overwrite"
    )
    return (
        f"training diverged at step {history.step + 1} (loss {loss:g}, gradient norm {norm:g}), as in the "
        f"{SKIPPED_AT_MOST} steps before it, which were skipped; {kept}"
    )
