"""Load-back: a fresh process loads a run folder as its users will, and must find the model that was trained.

`check` starts the fresh process, which does what stands in `load_back`. Needs neither torch nor transformers itself.
"""

import fnmatch
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tl_hub import run_folder
from tl_hub.errors import RunStopped, UserError, first_line
from tl_hub.record import RunRecord


class Mismatch(RunStopped):
    """What was loaded is not the model that was trained, or cannot be loaded at all."""


def check_weights(folder: Path, record: RunRecord) -> None:
    """Whether nothing but safetensors and the code of installed libraries is needed to load a run folder.

    A folder may be a stranger's: whatever of it decides how, or by which code, it is loaded is checked here.

    Raises:
        UserError: it holds no weights of its kind in safetensors, asks for code of its own, names other files or
            another base than its record, or the record names a class that is not a model, or values that are not of
            its base's configuration.
    """
    names = [run_folder.WEIGHTS, run_folder.INDEX]
    if record.kind == "adapter":
        names = [run_folder.ADAPTER_WEIGHTS]
    elif record.auto_class == "FeatureModel":
        names = [run_folder.HEAD]
    if not any((folder / name).is_file() for name in names):
        raise UserError(f"{folder} holds no weights in safetensors ({names[0]}); pickles are not loaded")
    for name in (run_folder.CONFIG, run_folder.TOKENIZER_CONFIG):
        if (folder / name).is_file():
            check_runs_nothing(folder / name)
    if kernel := _kernel_in(record.config):
        raise UserError(f"{folder / run_folder.RECORD} asks for code from the Hub ({kernel}), which is not run")
    if (folder / run_folder.INDEX).is_file():
        _check_index(folder / run_folder.INDEX)
    if (folder / run_folder.MODULES).is_file():
        modules = _json_in(folder / run_folder.MODULES)
        for module in modules if isinstance(modules, list) else [modules]:
            kind = module.get("type") if isinstance(module, dict) else module
            if not str(kind).startswith("sentence_transformers."):
                raise UserError(f"{folder / run_folder.MODULES} asks for code of its own ({kind}), which is not run")
    _check_base(folder, record)
    _check_class(record)


def check_runs_nothing(path: Path) -> None:
    """
    Raises:
        UserError: a model's or tokenizer's configuration is no JSON object, or asks for code to be run.
    """
    content = _json_in(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object")
    if "auto_map" in content:
        raise UserError(f"{path} asks for code of its own (auto_map), which is not run")
    if kernel := _kernel_in(content):
        raise UserError(f"{path} asks for code from the Hub ({kernel}), which is not run")


def _kernel_in(content: Any) -> str | None:
    """The setting, at whatever depth, that names a repository of kernels: code which transformers would run."""
    if isinstance(content, list):
        return next(filter(None, map(_kernel_in, content)), None)
    if not isinstance(content, dict):
        return None
    for name, value in content.items():
        name = str(name)  # of labels they are numbers
        if ("implementation" in name and "/" in json.dumps(value)) or ("kernel" in name and isinstance(value, dict)):
            return name
    return next(filter(None, map(_kernel_in, content.values())), None)


def _check_index(path: Path) -> None:
    """
    Raises:
        UserError: an index of shards names others than safetensors beside it.
    """
    index = _json_in(path)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise UserError(f"{path} has no weight_map; save the model again")
    for shard in shards.values():
        if not (isinstance(shard, str) and fnmatch.fnmatchcase(shard, run_folder.SHARDS)) or "/" in shard:
            raise UserError(f"{path} names {str(shard)[:100]!r}, which is not a shard in safetensors beside it")


def _check_base(folder: Path, record: RunRecord) -> None:
    """
    Raises:
        UserError: the file by which a base is loaded names another than the record, which says what was measured.
    """
    names = {"adapter": run_folder.ADAPTER_CONFIG, "merged": f"{run_folder.ADAPTER}/{run_folder.ADAPTER_CONFIG}"}
    path = folder / names.get(record.kind, "")
    if record.base is None or not path.is_file():
        return
    content = _json_in(path)
    named = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    revision = content.get("revision") if isinstance(content, dict) else None
    stated = record.base.id.removeprefix("tiny:")
    here = False
    if record.base.source != "hub" and isinstance(named, str):  # a place on the disk, of which the record has the name
        here, named = os.path.isdir(named), Path(named).name
    if named != stated and not here:
        raise UserError(f"{path} names the base {named}, and run.json {record.base.id}; correct the one that is wrong")
    if record.base.revision and revision not in (None, record.base.revision):
        raise UserError(
            f"{path} names revision {revision} of the base, and run.json {record.base.revision}; correct the one that"
            " is wrong"
        )


def _json_in(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({first_line(error)})") from error


def _check_class(record: RunRecord) -> None:
    import transformers  # takes seconds, and only what loads a model comes here

    if record.auto_class in ("FeatureModel", "SentenceTransformer"):
        return
    loader = getattr(transformers, record.auto_class, None)
    if not (hasattr(loader, "_model_mapping") or hasattr(loader, "get_input_embeddings")):
        raise UserError(
            f"{record.name} was made for {record.auto_class}, which is not a model class of this version of "
            "transformers"
        )
    if record.config:
        model_type = record.base.model_type if record.base else ""
        if model_type not in transformers.CONFIG_MAPPING:
            raise UserError(f"{record.name}: transformers knows no configuration of type {model_type!r}")
        known = transformers.AutoConfig.for_model(model_type).to_dict().keys() - {"_name_or_path"}
        foreign = sorted(record.config.keys() - known)
        if foreign:
            raise UserError(
                f"{record.name}: config in run.json has {foreign[0]!r}, which a {model_type} configuration does not "
                "have; remove it"
            )


def check(
    folder: Path,
    offline: bool = True,
    *,
    snippets: bool = True,
    repo: str | None = None,
    revision: str | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Load `folder` in a fresh process and compare.

    Args:
        offline: what is not in the folder, such as an adapter's base, is looked for in the cache only.
        snippets: execute the Python on the card. It is made from the record, so only for a record made here.
        repo, revision: what the card's own snippets load, in place of the folder, which holds the same files.
        cache: where the Hub's client looks for what is not in the folder, instead of in its own.

    Returns:
        `loaded_by` (the loaders that were tried), the `max_difference` of the logits where the folder has a probe and,
        where the card has an example, the `result` of stock calls, the `pipeline_output`, of which `example` they
        are, and whether they are the `same_output` as the card states.

    Raises:
        Mismatch: a loader failed, gives other logits (names the parameters that differ) or another output.
        RunStopped: the process ended before it could tell.
    """
    own = {"TRANSFORMERS_VERBOSITY": "error"} | ({"HF_HUB_OFFLINE": "1"} if offline else {})
    place = [repo, revision or "main"] if repo else []
    process = subprocess.run(
        # -P: the working directory, which may be a stranger's run folder, is no place to import from.
        [sys.executable, "-P", "-m", "tl_hub.load_back", str(folder), str(int(snippets)), *place],
        env={**os.environ, **own, **({"HF_HUB_CACHE": str(cache)} if cache else {})},
        stdin=subprocess.DEVNULL,  # nobody is asked whether to run foreign code
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = json.loads(process.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError) as error:
        reason = (process.stderr.strip().splitlines() or ["the process died"])[-1]
        raise RunStopped(f"load-back of {folder} failed: {reason}", exit_code=1) from error
    if "error" in report:
        raise Mismatch(f"load-back of {repo or folder} failed: {report['error']}", exit_code=1)
    return report
