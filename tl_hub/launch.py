"""The start of a run: what can be refused is refused here, before anything is loaded or written."""

import os
import warnings
from pathlib import Path

import datasets
import torch
import transformers
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedDataParallelKwargs, set_seed

from tl_hub import base_model, cpu, run_folder
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.licenses import known_license, license_of
from tl_hub.methods.base import Method
from tl_hub.publishing import Destination
from tl_hub.publishing.base import BASE_ONLY_HERE
from tl_hub.publishing.rights import check_rights
from tl_hub.publishing.state import fetch_state


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
                fetch_state(run.resume.removeprefix("hub:"), folder)
    if run.resume:
        with PartialState().local_main_process_first():
            # Killed as `Keeper.save` renamed.
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
        _check_publishing(run, method)

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


def _check_publishing(run: RunConfig, method: Method) -> None:
    """
    Raises:
        UserError, RunStopped: the result could not be published as `push_to`.
    """
    if method.kind == "pretrained":  # from no base, whose license it could take
        known_license(run.license, None)
    if not run.push_base and base_model.source_of(run.model) not in method.base_sources:
        raise UserError(BASE_ONLY_HERE.format(base=run.model))
    if run.push_every and method.kind == "merged":
        raise UserError("--push_every and --merge exclude each other; weights are merged when training is done")
    check_rights(Destination.of_run(run), with_state=run.push_every is not None)
    if run.push_base:
        check_rights(Destination(run.push_base))


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


def computes_bf16() -> bool:
    """Whether bf16 is faster than float32 here: in hardware, not emulated."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


def _distributed() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1
