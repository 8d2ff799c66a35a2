"""Load-back: a fresh process loads a run folder as its users will, and must find the model that was trained.

`check` starts the fresh process, which does what stands in `load_back`. Needs neither torch nor transformers itself.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tl_hub import run_folder
from tl_hub.errors import RunStopped, UserError
from tl_hub.record import RunRecord


class Mismatch(RunStopped):
    """What was loaded is not the model that was trained, or cannot be loaded at all."""


def check_weights(folder: Path, record: RunRecord) -> None:
    """Whether nothing but safetensors and the code of installed libraries is needed to load a run folder.

    A folder may be a stranger's: whatever of it decides how, or by which code, it is loaded is checked here.

    Raises:
        UserError: it holds no weights of its kind in safetensors, asks for code of its own, or its record names a
            class that is not a model, or values that are not of its base's configuration.
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
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise UserError(f"{folder / name} is not a JSON object")
            if "auto_map" in content:
                raise UserError(f"{folder / name} asks for code of its own (auto_map), which is not run")
            kernels = [key for key, value in content.items() if "implementation" in key and "/" in json.dumps(value)]
            if kernels:
                raise UserError(f"{folder / name} asks for code from the Hub ({kernels[0]}), which is not run")
    if (folder / run_folder.MODULES).is_file():
        for module in json.loads((folder / run_folder.MODULES).read_text(encoding="utf-8")):
            kind = module.get("type") if isinstance(module, dict) else module
            if not str(kind).startswith("sentence_transformers."):
                raise UserError(f"{folder / run_folder.MODULES} asks for code of its own ({kind}), which is not run")
    _check_class(record)


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
        where the card has an example, the `result` of stock calls, the `pipeline_output`, and whether they are the
        `same_output` as the card states.

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
