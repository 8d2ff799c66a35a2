"""A run trained again from its record: whether the weights, or at least the figures, are those that it states.

A record may be a stranger's. Of it only settings that recipes have flags for are used, and of those none that says
where to read, write, publish or report. Its `command` tells which recipe of this package it was, and is not run.
"""

import hashlib
import os
import runpy
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tl_hub import base_model, cpu, data, evaluation, finish, launch, recipe_files, run_folder, settings_file
from tl_hub.card.markdown import duration
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.methods import adapters
from tl_hub.record import RunRecord
from tl_hub.study import entries, runs
from tl_hub.tasks.catalog import task_of

_WEIGHTS = (run_folder.WEIGHTS, run_folder.SHARDS, run_folder.ADAPTER_WEIGHTS, run_folder.HEAD)


def retrain(folder: Path, *, base: str | Path | None = None, **source: str | None) -> dict[str, Any]:
    """Train a run again by its recipe and its recorded settings, into a temporary folder, and compare the two.

    Args:
        base: folder of the model that the run started from, where that is neither embedded nor on the Hub.
        source: where the run's rows are, training rows included, and how they are written, as of
            `evaluation.remeasure`; its own if none, where they are embedded or on the Hub.

    Returns:
        `holds`: whether every figure found lies in the claimed interval; `weights`: how many `tensors` were compared,
        and the names of those that `differ` in any bit; `metrics` as `evaluation.remeasure` gives them; `differences`:
        what was otherwise then, and may cause other bits; `seconds` of training.

    Raises:
        UserError: no recipe made the run, its base or rows are not there, or they are others than it was trained on.
        RunStopped: training was interrupted or came to no result, or the Hub cannot be reached.
    """
    record = RunRecord.load(folder)
    recipe = _recipe_of(record)
    script = runpy.run_path(str(recipe))
    given = {name: value for name, value in source.items() if value is not None}
    settings = _settings(record, script, base, given)
    if script["METHOD"].kind == "pretrained":  # a tokenizer that is trained anew may number its pieces otherwise
        settings.pop("vocab_size", None)
        settings["tokenizer"] = str(folder)
    words = settings_file.arguments(settings)
    _check(record, entries.Entry(record.name, record.name, recipe, (*words,)), script)
    took = duration(record.cost.training_seconds) or "a time that is not on record"
    print(f"training {record.name} again, which took {took} ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch, open(os.devnull, "w") as nowhere:
        place = Path(scratch, "run")  # of which the recipe's screen says how to publish it
        code = runs.in_a_process([str(recipe), *words, "--output_dir", str(place)], nowhere)
        if code:
            why = "was interrupted" if code == 130 else "came to no result, for the reason above"
            raise RunStopped(f"training {record.name} again {why}", code)
        anew, there, now = RunRecord.load(place), _tensors(folder), _tensors(place)
    found = {(metric.name, metric.split): metric for metric in anew.metrics}
    metrics = [
        evaluation.compared(claim, found[claim.name, claim.split], record, same_rows=True)
        for claim in record.metrics
        if (claim.name, claim.split) in found
    ]
    return {
        "holds": bool(metrics) and all(metric["holds"] for metric in metrics),
        "weights": {
            "tensors": len(there),
            "differ": sorted(name for name in there.keys() | now.keys() if there.get(name) != now.get(name)),
        },
        "metrics": metrics,
        "differences": _differences(record, anew),
        "seconds": anew.cost.training_seconds,
    }


def _recipe_of(record: RunRecord) -> Path:
    """The recipe of this package that the command on record names.

    Raises:
        UserError: it names none.
    """
    recipes = recipe_files.paths()
    for name in (Path(word).stem for word in (record.command or "").split() if word.endswith(".py")):
        if name in recipes:
            return recipes[name]
    raise UserError(f"{record.name} was not made by a recipe of tl_hub, so it cannot be trained again; omit --retrain")


def _settings(
    record: RunRecord, script: Mapping[str, Any], base: str | Path | None, given: Mapping[str, str]
) -> dict[str, Any]:
    """What a recipe is given, by the names of its flags: of the record what a record may hold, and what the user gave.

    Raises:
        UserError: the base or the rows are to be given, or something here has their name.
    """
    own = record.settings | record.method.get("settings", {})
    method = script["METHOD"]
    adapter = adapters.named(record.method["name"]) if isinstance(method, adapters.Adapter) else None
    flags = {field.name for field in fields(RunConfig) if field.metadata["recorded"]}
    for part in (script["TASK"], adapter or method):
        flags |= {field.name for field in fields(part) if field.init and field.metadata.get("recorded", True)}
    # The license is of no matter for what is learned. No patience on record is none.
    known = {"patience": 0, **own, "examples": False}
    settings = {name: known[name] for name in known if name in flags - {"license", *method.unused} | {"examples"}}
    settings |= {"method": adapter.method} if adapter else {}
    settings |= {name: own[name] for name in ("seeds", "soup") if own.get("soup") is True and name in own}
    counts = {name: own[name] for name in ("accumulation", "num_processes", "threads") if type(own.get(name)) is int}
    if counts.get("num_processes", 1) > 1:  # as many rows a step, by one
        settings["accumulation"] = counts.get("accumulation", 1) * counts["num_processes"]
    if "threads" in counts:
        settings["threads"] = min(counts["threads"], cpu.cores())
    settings["precision"] = "bf16" if record.cost.precision == "bf16" and launch.computes_bf16() else "fp32"
    settings |= _place_of_base(record, base)
    if any(name == "dataset" or name.endswith("_file") for name in given):
        settings = {name: settings[name] for name in settings if not name.startswith("dataset_")}
    elif record.data.source == "local":
        raise UserError(f"the rows of {record.name} are in {record.data.id}; give --train_file and the like")
    else:
        settings["dataset"] = _not_here(record.data.id)
        settings |= {"dataset_revision": record.data.revision} if record.data.revision else {}
    return settings | {**given}


def _place_of_base(record: RunRecord, base: str | Path | None) -> dict[str, str]:
    """
    Raises:
        UserError: it is to be given, or not to be given, or something here has its name.
    """
    if record.base is None or record.base.source != "local":
        if base:
            raise UserError(f"--base {base}: {record.name} started from no model in a folder; omit it")
        if record.base is None:
            return {}
        place = {"model": _not_here(record.base.id)}
        return place | ({"revision": record.base.revision} if record.base.revision else {})
    if not base:
        raise UserError(f"{record.name} started from a model in a folder {record.base.id}; give it as --base FOLDER")
    return {"model": str(base)}


def _not_here(name: str) -> str:
    """An id, of which a record's schema lets none be a path, but a folder here may have its name.

    Raises:
        UserError: one has.
    """
    if Path(name).exists():
        raise UserError(f"run.json names {name}, and so is something in this folder; start it from another folder")
    return name


def _check(record: RunRecord, recipe: entries.Entry, script: dict[str, Any]) -> None:
    """
    Raises:
        UserError: the recipe refuses the settings, is another than the record's, or base or rows are not the run's.
    """
    run, settings, method = entries.settings_of(recipe, script)
    if (record.base is None) != (method.kind == "pretrained"):
        raise UserError(f"{record.name} has another base than its command's recipe starts from; run.json was changed")
    if record.base is None:
        settings = settings.objective(method.model_type)
    else:
        found = finish.base_facts(base_model.locate(run)[1])
        if len({found.weights_sha256, record.base.weights_sha256} - {None}) > 1:  # of the Hub's, the revision tells
            raise UserError(f"--model {run.model} has other weights than what {record.name} started from; give that")
    rows, task = data.load(run, settings)
    if (task.name, method.name) != (task_of(record), record.method["name"]):
        raise UserError(
            f"{record.name} is {task_of(record)} by {record.method['name']}, and its command starts a recipe of "
            f"{task.name} by {method.name}; run.json was changed"
        )
    for name in (name for name in data.SPLITS if name in record.data.splits.keys() | rows.splits.keys()):
        known, there = record.data.splits.get(name), rows.splits.get(name)
        if known is None or there is None or known.sha256 not in (None, data.fingerprint(there.rows)):
            raise UserError(f"the {name} rows of {rows.source} are not those that {record.name} had; give those")


def _tensors(folder: Path) -> dict[str, str]:
    """Name -> SHA-256 of type, shape and bytes of the weights in a run folder, of one file or of several."""
    found = {}
    for file in sorted(file for name in _WEIGHTS for file in folder.glob(name)):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensor = tensors.get_tensor(name)
                digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
                digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
                found[name] = digest.hexdigest()
    return found


def _differences(then: RunRecord, now: RunRecord) -> list[str]:
    """What rounds otherwise, or computes in another order, and was not the same in both trainings."""

    def facts(record: RunRecord) -> dict[str, Any]:
        computed = {name: record.settings.get(name) for name in ("threads", "num_processes")}
        return {**record.software, "device": record.cost.device, "precision": record.cost.precision, **computed}

    before, here = facts(then), facts(now)
    return [
        f"{name} {before.get(name) or 'not on record'} then, {here.get(name) or 'none'} here"
        for name in before | here
        if before.get(name) != here.get(name)
    ]
