"""Start a run, load its model, and the one gradient loop that every recipe uses."""

import gc
import json
import math
import os
import resource
import shutil
import signal
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
import safetensors.torch
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from huggingface_hub.errors import StrictDataclassError
from peft.helpers import disable_input_dtype_casting
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch.utils.data import BatchSampler, DataLoader
from tqdm import tqdm

from tl_hub import cpu, hub, overview, publishing, run_folder, samples
from tl_hub.architectures import ARCHITECTURES, architecture_of, pretrained_by
from tl_hub.base_model import check_base, check_reads, check_sizes
from tl_hub.config import RunConfig
from tl_hub.data import Data, LengthBuckets, Split, fingerprint
from tl_hub.errors import Checked, RunStopped, UserError, first_line
from tl_hub.licenses import license_of
from tl_hub.methods.base import Method
from tl_hub.record import license_in
from tl_hub.tasks.base import Score, Task
from tl_hub.tokenizer import load_tokenizer

_UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)
"""What transformers raises, as it comes, for files of a checkpoint that are broken or ask for what is not there."""


@dataclass
class Base:
    """The pretrained model a run started from.

    Attributes:
        id: Hub id, `tiny:<family>`, or the name (not the path) of a local folder.
        source: where `id` is to be looked for.
        revision: commit on the Hub.
        weights: the local files that the weights were read from.
        fresh: parameters that the checkpoint lacked and that were therefore newly initialised.
    """

    id: str
    source: Literal["hub", "embedded", "local"]
    model_type: str = ""
    revision: str | None = None
    license: str | None = None
    weights: tuple[Path, ...] = ()
    fresh: tuple[str, ...] = ()


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


def start(run: RunConfig, method: Method) -> Accelerator:
    """Check the run folder and the right to publish, quiet the libraries, use every core, seed everything.

    Writes nothing, but for the state of a run to be resumed from the Hub. `method` tells where the base
    must be for others to load the result.

    Raises:
        UserError: output_dir holds another run or what this one reads, cannot be written to, or has nothing to resume;
            the Hub does not know the license; or the result could not be published as `push_to`.
        RunStopped: the Hub cannot be reached.
    """
    folder = Path(run.output_dir)
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise UserError(f"--output_dir {folder}: {parent} is a file; give a folder")
    if isinstance(run.resume, str):
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"--output_dir {folder} holds a run; plain --resume goes on with that, or give another")
        with PartialState().local_main_process_first():
            if not folder.is_dir() or not any(folder.iterdir()):
                publishing.fetch_state(run.resume.removeprefix("hub:"), folder, run_folder.RESUMED)
    if run.resume:
        with PartialState().local_main_process_first():
            # Killed as `_Keeper.save` renamed.
            if (folder / run_folder.OLD_STATE).is_dir() and not (folder / run_folder.STATE).exists():
                (folder / run_folder.NEW_STATE).rename(folder / run_folder.STATE)
    if run.resume and not (folder / run_folder.STATE / run_folder.HISTORY).is_file():
        raise UserError(f"--resume: {folder} holds no interrupted run; omit --resume to start one")
    if folder.is_dir() and any(folder.iterdir()) and not (run.resume or run.check):
        _check_used(folder, run)
    if not os.access(parent, os.W_OK):
        raise UserError(f"--output_dir {folder} cannot be written to")
    license_of(run.license, None)  # its name; whether a base allows it is asked when that is looked at
    if run.push_to:
        if method.kind == "pretrained":  # from no base, whose license it could take
            publishing.known_license(run.license, None)
        if not run.push_base and _source(run.model) not in method.base_sources:
            raise UserError(publishing.BASE_ONLY_HERE.format(base=run.model))
        if run.push_every and method.kind == "merged":
            raise UserError("--push_every and --merge exclude each other; weights are merged when training is done")
        private = run.push_every is not None
        goal: dict[str, Any] = {"create_pr": run.create_pr, "tag": run.tag, "revision": run.push_revision}
        publishing.check_rights(run.push_to, private=private, collection=run.collection, **goal)
        if run.push_base:
            publishing.check_rights(run.push_base)

    if not run.verbose:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        datasets.disable_progress_bars()
        warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|accelerate|datasets|huggingface_hub)\b")
    set_seed(run.seed)
    bf16 = run.precision == "bf16" or (run.precision == "auto" and computes_bf16())
    accelerator = Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        gradient_accumulation_steps=run.accumulation,
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)] if _distributed() else [],
    )
    if run.push_to and run.examples and accelerator.is_main_process:
        print(
            "note: some measured rows will stand on the card and in run.json, verbatim, which are published; "
            "--no_examples leaves them out",
            flush=True,
        )
    cpu.keep_memory()
    # `accelerate launch` sets OMP_NUM_THREADS=1, which leaves all cores but one idle on a CPU.
    torch.set_num_threads(max(1, cpu.cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
    return accelerator


def _check_used(folder: Path, run: RunConfig) -> None:
    """
    Raises:
        UserError: a folder that holds files is not to be overwritten, or something would be lost with it.
    """
    if not run.overwrite:
        raise UserError(f"--output_dir {folder} holds another run; --resume goes on with it, --overwrite replaces it")
    if not (folder / run_folder.LOG).exists():
        raise UserError(
            f"--overwrite: {folder} holds files but no run ({run_folder.LOG} is missing); give another --output_dir"
        )
    for name in ("model", "dataset", "train_file", "validation_file", "test_file"):
        path = getattr(run, name)
        if path and Path(path).exists() and Path(path).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--overwrite would delete --{name} {path}; give another --output_dir")


def clear(folder: Path) -> None:
    """Remove what another run left in a folder; the folder itself and files that no run writes stay."""
    for name in run_folder.WRITTEN:
        for path in folder.glob(name):
            path.unlink()
            if path.parent != folder and not any(path.parent.iterdir()):
                path.parent.rmdir()
    for name in (run_folder.STATE, run_folder.NEW_STATE, run_folder.OLD_STATE):
        shutil.rmtree(folder / name, ignore_errors=True)


def family_of(run: RunConfig) -> str:
    """The family (`config.model_type`) of the model a run starts from, for tasks that differ between families.

    Raises:
        UserError: not there, out of reach, or of none of the families.
    """
    return _configuration(run)[2].model_type


def load_model(run: RunConfig, task: Task) -> tuple[Any, Any, Base]:
    """The model with the task's head, in float32, its tokenizer, and where both come from.

    Raises:
        UserError: not there, out of reach, without safetensors weights, or of a family this task cannot use.
    """
    path, base, config = _configuration(run)
    objective = ARCHITECTURES[config.model_type].pretrained_by
    if objective not in task.pretrained_by:
        reason = f" ({task.refused[objective]})" if objective in task.refused else ""
        raise UserError(
            f"--model {run.model}: {task.name} is not for {config.model_type}{reason}; "
            f"use {', '.join(pretrained_by(task.pretrained_by))}"
        )
    try:
        tokenizer = load_tokenizer(path, base.revision, config)
        model, report = getattr(transformers, task.class_for(config.model_type)).from_pretrained(
            path,
            revision=base.revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            output_attentions=False,  # nobody reads them, and a fused attention cannot give them
            ignore_mismatched_sizes=True,  # or transformers would not tell which
            **task.config_for(config.model_type),
        )
    except _UNREADABLE as error:
        raise UserError(f"--model {run.model}: weights or tokenizer cannot be loaded ({first_line(error)})") from error
    # Code beside a checkpoint is not run, so what is made of it must not ask for that code.
    vars(model.config).pop("auto_map", None)
    tokenizer.init_kwargs.pop("auto_map", None)
    check_sizes(run.model, model, report["mismatched_keys"])
    check_base(run.model, model, tokenizer, report["missing_keys"])
    base.fresh = tuple(sorted(report["missing_keys"]))
    task.adapt(tokenizer, model)
    check_reads(run.model, model, tokenizer)
    return model, tokenizer, base


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
        raise _checked(objective, batch, data, task, run, steps, accelerator, model.config.model_type)
    give_advice(task, accelerator)
    keeper = _Keeper(folder / run_folder.STATE, model, optimizer, accelerator)
    _check_space(folder, model)
    # Of these the order of the batches is made. Rates and their schedule may change.
    same: dict[str, Any] = {name: getattr(run, name) for name in ("batch_size", "accumulation", "seed")}
    same |= {"num_processes": accelerator.num_processes, "train_rows": fingerprint(split.rows)}
    if run.resume:
        history = keeper.load(same)
    else:
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            clear(folder)  # there is something only with --overwrite
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
                    loss = objective(**_inputs(batch, task)).loss
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


def give_advice(task: Task, accelerator: Accelerator, frozen: bool = False) -> None:
    """Print `task.advice`, where there is some, once for all processes."""
    advice = task.advice(frozen)
    if advice and accelerator.is_main_process:
        print(f"note: {advice}", flush=True)


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
            outputs = task.outputs(model, _inputs(batch, task))
        reduced = accelerator.gather({"index": batch["index"], **task.predict(outputs, batch)})
        index = reduced.pop("index").cpu().numpy()
        for name, tensor in reduced.items():
            values = tensor.cpu().numpy()
            if name not in predictions:
                predictions[name] = np.zeros((len(features), *values.shape[1:]), values.dtype)
            predictions[name][index] = values
    return task.score(predictions, split.rows, features, decision)


@contextmanager
def _in_float32(model: Any) -> Iterator[None]:
    """Within it, the model computes in float32, also in training, where Accelerate gives it a forward pass in bf16."""
    mixed = vars(model).pop("forward") if "_original_forward" in vars(model) else None
    try:
        yield
    finally:
        if mixed is not None:
            model.forward = mixed


class _Keeper:
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


def _checked(
    objective: torch.nn.Module,
    batch: Any,
    data: Data,
    task: Task,
    run: RunConfig,
    steps: int,
    accelerator: Accelerator,
    model_type: str,
) -> Checked:
    """What a run would do and take, told by two passes, forward and backward, over its longest batch."""
    batch = {name: value.to(accelerator.device) for name, value in batch.items()}
    objective.train()
    for _ in range(2):  # the first one warms up
        clock = time.perf_counter()
        loss = objective(**_inputs(batch, task)).loss
        accelerator.backward(loss)
        figure = float(loss.detach())
        seconds = time.perf_counter() - clock
    if not math.isfinite(figure):
        raise RunStopped(f"the loss of the longest batch is {figure}; --precision fp32 may help", exit_code=1)
    trained = sum(p.numel() for p in objective.parameters() if p.requires_grad)
    facts: dict[str, Any] = {
        **overview.facts(data, task),
        "model_type": model_type,
        "trainable_parameters": trained,
        "steps": steps,
        "seconds": steps * run.accumulation * seconds,
        "memory_bytes": peak_memory() + 8 * trained,
    }
    return Checked(
        f"checked, nothing trained: {counted(data)}; {trained:,} parameters ({model_type}) would be trained in "
        f"{steps:,} step{'s' * (steps != 1)}: at most about {about(facts['seconds'])} of training (estimated from the "
        f"longest batch), plus evaluations; it and the optimizer take {facts['memory_bytes'] / 2**30:.1f} GiB",
        facts,
    )


def counted(data: Data) -> str:
    """The rows of each split, and where they are from."""
    rows = ", ".join(f"{len(split.rows):,} {name}" for name, split in data.splits.items())
    return f"{rows} rows of {data.source}"


def about(seconds: float) -> str:
    """A duration for a person, in minutes or hours."""
    minutes = math.ceil(seconds / 60)
    return f"{seconds / 3600:.1f} hours" if minutes > 90 else f"{minutes} minute{'s' * (minutes != 1)}"


def peak_memory() -> int:
    """Bytes this process has taken at most: of the accelerator's memory where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _loader(split: Split, batches: Any, collate: Any, task: Task) -> DataLoader:
    features = split.features
    assert features is not None
    columns = [name for name in (*task.batched, "index") if name in features.column_names]
    # An iterator draws a number from its generator: from the global one, it would shift the dropout of a resumed run.
    own = torch.Generator().manual_seed(0)
    return DataLoader(features.select_columns(columns), batch_sampler=batches, collate_fn=collate, generator=own)


def _inputs(batch: dict[str, Any], task: Task) -> dict[str, Any]:
    return {name: value for name, value in batch.items() if name != "index" and name not in task.scoring_only}


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


def computes_bf16() -> bool:
    """Whether bf16 is faster than float32 here: in hardware, not emulated."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _distributed() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _configuration(run: RunConfig) -> tuple[str, Base, Any]:
    path, base = _locate(run)
    try:
        config = transformers.AutoConfig.from_pretrained(path, revision=base.revision, trust_remote_code=False)
    except _UNREADABLE as error:
        raise UserError(
            f"--model {run.model}: no configuration of a {', '.join(ARCHITECTURES)} model ({first_line(error)})"
        ) from error
    license_of(run.license, base.license)  # or a published result would break the base's terms
    if run.push_to:
        publishing.known_license(run.license, base.license)
    base.model_type = config.model_type
    architecture_of(config.model_type, run.model)
    return path, base, config


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that transformers reads a model's weights from; a run folder holds other safetensors beside them."""
    whole = folder / run_folder.WEIGHTS
    return (whole,) if whole.is_file() else tuple(sorted(folder.glob(run_folder.SHARDS)))


def _source(model: str) -> Literal["hub", "embedded", "local"]:
    return "embedded" if model.startswith("tiny:") else "local" if Path(model).is_dir() else "hub"


def _locate(run: RunConfig) -> tuple[str, Base]:
    source = _source(run.model)
    if run.revision and source != "hub":
        raise UserError(f"--revision is for models on the Hub; --model {run.model} is {source}, so omit --revision")
    if source == "embedded":
        folder = samples.checkpoint(run.model.removeprefix("tiny:"))
        return str(folder), Base(run.model, source, weights=weight_files(folder))
    if source == "local":
        folder = Path(run.model).resolve()
        if (folder / run_folder.ADAPTER_CONFIG).exists():
            raise UserError(
                f"--model {run.model} holds an adapter, which cannot be trained further; train it with --merge, or "
                "give a whole model"
            )
        weights = weight_files(folder)
        if not weights:
            raise UserError(f"--model {run.model}: the folder holds no safetensors weights (model.safetensors)")
        license = license_in(folder)  # of one's own run
        return str(folder), Base(folder.name, source, license=license, weights=weights)
    facts = hub.model_facts(run.model, run.revision)
    return run.model, Base(run.model, "hub", revision=facts.revision, license=facts.license)
