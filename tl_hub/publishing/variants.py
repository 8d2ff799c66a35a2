"""A merged model and its adapter as two repositories, which name each other and stand in one collection.

The Hub knows a repository by one library, and its hosted inference takes whole models; PEFT wants the adapter at the
root. So each variant has a repository of its own.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from tl_hub import run_folder
from tl_hub.errors import UserError
from tl_hub.publishing import files
from tl_hub.publishing.destination import Destination
from tl_hub.record import RunRecord


def check(destination: Destination, run: RunRecord, folder: Path) -> None:
    """
    Raises:
        UserError: there are no two variants in the folder.
    """
    if run.kind != "merged" or not (folder / run_folder.ADAPTER / run_folder.ADAPTER_WEIGHTS).is_file():
        raise UserError(
            f"--push_adapter is for a merged model with its adapter beside it, and {folder} holds "
            f"{'no adapter' if run.kind == 'merged' else f'a {run.kind} model'}; omit it, or train with --merge"
        )


def collection_of(destination: Destination) -> str:
    """The collection that both go into: the one asked for, or one with the merged model's name."""
    return destination.collection or destination.repo.partition("/")[2]


def adapter_run(folder: Path, run: RunRecord, place: Path) -> RunRecord:
    """Write the adapter of a merged run into `place` as a run folder that nobody has loaded yet.

    Raises:
        UserError: one of its files is a link.
    """
    beside = (*run_folder.TOKENIZER, *run_folder.PICTURES, run_folder.LICENSE, run_folder.PROBE, run_folder.CARD)
    for name in files.own(folder, beside):
        shutil.copy(folder / name, place / name)
    for name in files.own(folder / run_folder.ADAPTER, run_folder.MODEL):
        shutil.copy(folder / run_folder.ADAPTER / name, place / name)
    record = replace(run, kind="adapter", verification=None)
    record.save(place)
    return record
