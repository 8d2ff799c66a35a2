"""The start of a run: what can be refused is refused here, before anything is loaded or written."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import filelock

from tl_hub import base_model, cpu, run_folder, sharding, state_folders, trackers
from tl_hub.command_line import processes_asked
from tl_hub.config import RunConfig
from tl_hub.domain_sources import sources
from tl_hub.errors import RunStopped, UserError, all_at_once
from tl_hub.licenses import Terms, known_license
from tl_hub.methods.base import Method
from tl_hub.on_use import accelerate, datasets, torch, transformers
from tl_hub.publishing import Destination, signing
from tl_hub.publishing.base import BASE_ONLY_HERE
from tl_hub.publishing.rights import check_rights, check_token
from tl_hub.publishing.state import fetch_state

_ENGINE = ("ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP", "FSDP_VERSION", "FSDP_CPU_RAM_EFFICIENT_LOADING")
"""How accelerate launch tells a process of the engine in its configuration."""


def check(run: RunConfig, method: Method) -> None:
    """Check the run folder, that there is a model to start from, and the right to publish. Writes nothing.

    Args:
        method: tells where the base must be for others to load the result.

    Raises:
        UserError: output_dir holds another run or what this one reads, cannot be written to, or has nothing to resume;
            the model or the package of a tracker is not there; the Hub does not know the license; or the result could
            not be published as `push_to`.
        RunStopped: the Hub cannot be reached.
    """
    folder = Path(run.output_dir)
    parent = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not parent.is_dir():
        raise UserError(f"--output_dir {folder}: {parent} is a file; give a folder")
    if isinstance(run.resume, str):
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"--output_dir {folder} holds a run; plain --resume goes on with that, or give another")
    elif run.resume:
        state_folders.find(folder)
    _check_used(folder, run)
    if not os.access(parent, os.W_OK):
        raise UserError(f"--output_dir {folder} cannot be written to")
    _check_engine()
    trackers.check(run)
    for name in ("find_lr", "sweep", "seeds", "activation_checkpointing", "streaming"):
        if getattr(run, name) and name in method.unused:
            raise UserError(f"--{name} has no effect with {method.name}, which trains no layer of the model; omit it")
    Terms(run.license, run.license_name, run.license_link).check()  # whether a base allows it is asked with the base
    license = None if method.kind == "pretrained" else base_model.locate(run)[1].license
    if run.push_to:
        _check_publishing(run, method, license)
    if not run.verbose:
        datasets.disable_progress_bars()
        warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|accelerate|datasets|huggingface_hub)\b")


def _check_engine() -> None:
    """
    Raises:
        UserError: Accelerate is to share out the weights in a way that the recipes cannot.
    """
    settings = {name: os.environ.get(name, "").lower() for name in _ENGINE}
    mend = "start with --config_file recipes/launch/fsdp2.yaml, which shares out the same"
    if settings["ACCELERATE_USE_DEEPSPEED"] == "true":
        raise UserError(f"DeepSpeed does not work with the recipes, FSDP2 does; {mend}")
    if settings["ACCELERATE_USE_FSDP"] == "true":
        if settings["FSDP_VERSION"] != "2":
            raise UserError(f"FSDP 1 does not work with the recipes, FSDP2 does (fsdp_version: 2); {mend}")
        if settings["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "true":
            raise UserError(f"fsdp_cpu_ram_efficient_loading must be false: each process reads the model; {mend}")


def start(run: RunConfig) -> accelerate.Accelerator:
    """Seed everything, use every core, keep other runs out of the folder, fetch a state to be resumed from the Hub.

    Raises:
        UserError: there is no such state, another run is using the folder, or the processes do not know of each other.
        RunStopped: the Hub cannot be reached.
    """
    if not run.verbose:
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
    accelerate.utils.set_seed(run.seed if run.init_seed is None else run.init_seed)
    bf16 = run.precision == "bf16" or (run.precision == "auto" and computes_bf16())
    accelerator = accelerate.Accelerator(
        mixed_precision="bf16" if bf16 else "no",
        log_with=trackers.names(run) or None,
        project_config=accelerate.utils.ProjectConfiguration(logging_dir=f"{run.output_dir}/{run_folder.TRACKING}"),
        kwargs_handlers=[accelerate.utils.DistributedDataParallelKwargs(find_unused_parameters=True)]
        if _distributed()
        else [],
    )
    sharding.turn_on(accelerator)
    _check_processes(accelerator)
    _in_main_process(accelerator, _take_folder, run)
    if run.push_to and run.examples and accelerator.is_main_process:
        print(
            "note: some measured rows will stand on the card and in run.json, verbatim, which are published; "
            "--no_examples leaves them out",
            flush=True,
        )
    cpu.keep_memory()
    # `accelerate launch` sets OMP_NUM_THREADS=1, which leaves all cores but one idle on a CPU.
    torch.set_num_threads(run.threads or cpu.idle_share())
    return accelerator


def _check_processes(accelerator: accelerate.Accelerator) -> None:
    """Refuse processes that were started together and work apart, and tell of fewer than were asked for.

    Raises:
        UserError: each process takes itself for the only one.
    """
    works = "ACCELERATE_USE_CPU=true torchrun --nproc_per_node {} " + Path(sys.argv[0]).name
    started, asked = int(os.environ.get("WORLD_SIZE", "1")), processes_asked()
    if started > accelerator.num_processes:
        raise UserError(
            f"{started} processes were started that do not know of each other, as accelerate launch --multi_gpu does "
            f"without GPUs; each would train and publish on its own. On CPUs: {works.format(started)}"
        )
    if asked > accelerator.num_processes and accelerator.is_main_process:
        print(f"note: accelerate launch started one process, not {asked}. On CPUs: {works.format(asked)}", flush=True)


def _in_main_process(accelerator: accelerate.Accelerator, act: Callable[[RunConfig], None], run: RunConfig) -> None:
    """Let the main process act. Where it fails all fail, or the others would tell of a connection that was lost.

    Raises:
        UserError, RunStopped: as `act`.
    """
    failure: tuple[str, int] | None = None
    if accelerator.is_main_process:
        try:
            act(run)
        except UserError as error:
            failure = str(error), 2
        except RunStopped as stop:
            failure = str(stop), stop.exit_code
    (failure,) = accelerate.utils.broadcast_object_list([failure])
    if failure:
        message, code = failure
        raise UserError(message) if code == 2 else RunStopped(message, code)


def _take_folder(run: RunConfig) -> None:
    """
    Raises:
        UserError: another run is using the folder, or there is no whole state to be resumed.
        RunStopped: the Hub, which has the state, cannot be reached.
    """
    if run.check or run.find_lr:  # neither writes there
        return
    _lock(run)
    if run.resume:
        _find_state(run)


_held: list[filelock.BaseFileLock] = []
"""The lock of the run of this process, which has one at a time."""


def _lock(run: RunConfig) -> None:
    """Keep other processes of this machine from the run folder until this one ends, however it ends.

    Raises:
        UserError: another process has it, or has just finished there.
    """
    folder = Path(run.output_dir)
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
    while _held:
        _held.pop().release()
    lock = filelock.FileLock(Path(tempfile.gettempdir(), f"tl_hub-{os.getuid()}-{name}.lock"))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise UserError(
            f"--output_dir {folder}: another run is writing there; wait for its end, or give another folder"
        ) from error
    _held.append(lock)
    _check_used(folder, run)


def _find_state(run: RunConfig) -> None:
    """
    Raises:
        UserError, RunStopped: the state that `run.resume` names cannot be fetched, or no whole one is there.
    """
    folder = Path(run.output_dir)
    if isinstance(run.resume, str) and (not folder.is_dir() or not any(folder.iterdir())):
        fetch_state(run.resume.removeprefix("hub:"), folder)
    note = state_folders.recover(folder, run.keep)
    if note:
        print(f"note: {note}", flush=True)


def _check_publishing(run: RunConfig, method: Method, base_license: str | None) -> None:
    """
    Raises:
        UserError, RunStopped: the result could not be published as `push_to`.
    """
    destination = Destination.of_run(run)
    sources = ("hub",) if run.push_adapter else method.base_sources

    def check_base() -> None:
        if not run.push_base and base_model.source_of(run.model) not in sources:
            raise UserError(BASE_ONLY_HERE.format(base=run.model))

    def check_merging() -> None:
        if run.push_every and method.kind == "merged":
            raise UserError("--push_every and --merge exclude each other; weights are merged when training is done")
        if run.push_adapter and method.kind != "merged":
            raise UserError("--push_adapter is for a merged model; give --merge of an adapter recipe too, or omit it")

    all_at_once(
        lambda: destination.check(revision_flag="push_revision"),
        lambda: known_license(run.license, base_license),
        check_base,
        check_merging,
        lambda: signing.check_key(Path(run.sign)) if run.sign else None,
        lambda: check_token(destination.repo),
    )
    check_rights(destination, with_state=run.push_every is not None)
    for beside in (run.push_adapter, run.push_base):
        if beside:
            check_rights(Destination(beside))


def _check_used(folder: Path, run: RunConfig) -> None:
    """
    Raises:
        UserError: a folder that holds files of use is not to be overwritten, or something would be lost with it.
    """
    if run.resume or run.check or run.find_lr or not folder.is_dir() or not any(folder.iterdir()):
        return
    if not run_folder.holds_nothing_of_use(folder):
        if not run.overwrite:
            goes_on = "--resume goes on with it, " if state_folders.exist(folder) else ""
            raise UserError(f"--output_dir {folder} holds another run; {goes_on}--overwrite replaces it")
        if not (folder / run_folder.LOG).exists():
            raise UserError(
                f"--overwrite: {folder} holds files but no run ({run_folder.LOG} is missing); give another --output_dir"
            )
    names = ("model", "dataset", "train_file", "validation_file", "test_file")
    read = [(name, path) for name in names if (path := getattr(run, name))]
    read += [("eval_on", source.place) for source in sources(run.eval_on or "")]
    for name, path in read:
        if Path(path).exists() and Path(path).resolve().is_relative_to(folder.resolve()):
            raise UserError(f"--output_dir {folder}: the run would delete --{name} {path}; give another folder")


def computes_bf16() -> bool:
    """Whether bf16 is faster than float32 here: in hardware, not emulated."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _distributed() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
