"""Load-back: a fresh process loads a run folder as its users will, and must find the model that was trained.

`write_probe` keeps a few inputs with the trained model's outputs and a digest of each parameter in the folder;
`check` starts the fresh process, which runs the card's own snippet and the stock loaders and compares.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_hub import card, run_folder
from tl_hub.errors import RunStopped, UserError, first_line
from tl_hub.methods import adapters
from tl_hub.record import RunRecord

TOLERANCE = 1e-5
"""Largest difference of two logits, in float32, that different kernels or orders of addition may cause."""
MERGED_TOLERANCE = 1e-4
"""The same where the adapter is merged, in parts of the largest logit: the update is rounded in another place."""
OUTPUT_TOLERANCE = 1e-3
"""The same of the figures that a pipeline gives, such as a probability."""

_WRAPPING = re.compile(r"base_model\.model\.|modules_to_save\.|base_layer\.|\bdefault\.|\.default\b")


class Mismatch(RunStopped):
    """What was loaded is not the model that was trained, or cannot be loaded at all."""


def digests(model: Any) -> dict[str, str]:
    """SHA-256 of each parameter in float32, under the name it has without an adapter's wrapping."""
    return {
        _WRAPPING.sub("", name): hashlib.sha256(p.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, p in model.named_parameters()
        if "original_module" not in name
    }


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
    import transformers

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


def write_probe(folder: Path, model: Any, inputs: dict[str, Any]) -> None:
    """Keep `inputs` (a batch), the outputs `model` gives for them and its digests in `folder`."""
    import torch
    from safetensors.torch import save_file

    tensors = {f"input.{name}": tensor.cpu().contiguous() for name, tensor in inputs.items()}
    with torch.no_grad():
        outputs = _outputs(model.eval(), inputs)
    tensors |= {f"output.{name}": tensor.float().cpu().contiguous() for name, tensor in _logits(outputs).items()}
    save_file(tensors, folder / run_folder.PROBE, metadata={"digests": json.dumps(digests(model))})


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
        [sys.executable, "-P", "-m", "tl_hub.verification", str(folder), str(int(snippets)), *place],
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


def verify(
    location: str | Path,
    *,
    revision: str | None = None,
    metrics: bool = False,
    label_map: Mapping[str, str] | None = None,
    **rows: str | None,
) -> dict[str, Any]:
    """Load a run folder, or a repository on the Hub, as its users will, and compare it with what it states.

    Args:
        location: the folder, or `owner/name`.
        revision: branch, tag or commit of a repository.
        metrics: measure the figures of its card anew.
        label_map: what the model calls the labels of the rows.
        rows: the rows to measure them on (which asks for it), and how they are written: `dataset`, or `train_file`,
            `validation_file` and `test_file`, `encoding`, `text_column` and the like, as of the recipes; the run's own
            if none, where they are embedded or on the Hub.

    Returns:
        What `check` gives and, of figures measured anew, `same_rows` and `metrics` (`evaluation.remeasure`).

    Raises:
        UserError: no such folder or repository, or the figures cannot be measured.
        RunStopped: it does not load, or is not the model that was trained; or the Hub cannot be reached.
    """
    from tl_hub.publishing.snapshot import snapshot  # which imports this module

    folder = snapshot(location, revision)
    report = check(folder, offline=False, snippets=False)
    if metrics or label_map or any(rows.values()):
        from tl_hub import evaluation

        report |= evaluation.remeasure(folder, label_map=label_map, **rows)
    return report


def _outputs(model: Any, inputs: dict[str, Any]) -> Any:
    """What a model gives; one of sentence-transformers takes a batch as a dict and adds to it."""
    return model(dict(inputs)) if type(model).__name__ == "SentenceTransformer" else model(**inputs)


def _logits(outputs: Any) -> dict[str, Any]:
    if "sentence_embedding" in outputs:
        return {"sentence_embedding": outputs["sentence_embedding"]}
    names = ("logits", "start_logits", "end_logits", "prediction_logits", "last_hidden_state")
    return {name: outputs[name] for name in names if name in outputs}


def _load_back(
    record: RunRecord, snippets: bool = True, repo: str | None = None, revision: str | None = None
) -> dict[str, Any]:
    """What the fresh process does, in the run folder."""
    import torch
    import transformers
    from safetensors import safe_open

    import tl_hub
    from tl_hub import cpu

    torch.set_num_threads(cpu.cores())
    tensors, expected_digests = dict[str, Any](), dict[str, str]()
    if Path(run_folder.PROBE).is_file():  # it is not published
        with safe_open(run_folder.PROBE, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            expected_digests = json.loads(file.metadata()["digests"])
    inputs = {name.removeprefix("input."): t for name, t in tensors.items() if name.startswith("input.")}
    expected = {name.removeprefix("output."): t for name, t in tensors.items() if name.startswith("output.")}

    head_only, sentences = record.auto_class == "FeatureModel", record.auto_class == "SentenceTransformer"
    auto_class: Any = None if sentences else getattr(tl_hub if head_only else transformers, record.auto_class)
    namespace: dict[str, Any] = {}
    safe = {"use_safetensors": True, "trust_remote_code": False}

    def by_snippet() -> Any:
        exec(card.snippet(record, repo, revision), namespace)
        return namespace["model"]

    def by_adapter_snippet() -> Any:
        exec(card.adapter_snippet(record, repo, revision), namespace)
        return namespace["model"]

    def by_tl_hub() -> Any:
        return auto_class.from_pretrained(".")

    def by_sentence_transformers() -> Any:
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(".", trust_remote_code=False)

    def by_transformers() -> Any:
        own = {"revision": record.base_revision, "dtype": torch.float32, **safe}
        return auto_class.from_pretrained(".", **own, **record.config)

    def by_peft() -> Any:
        from peft import PeftConfig, PeftModel

        adapter = "." if record.kind == "adapter" else run_folder.ADAPTER
        base = PeftConfig.from_pretrained(adapter)
        plain = auto_class.from_pretrained(
            base.base_model_name_or_path, revision=base.revision, dtype=torch.float32, **safe, **record.config
        )
        return PeftModel.from_pretrained(plain, adapter)

    loaders = {"the card's snippet": by_snippet, "transformers": by_transformers}
    if head_only:
        loaders = {"the card's snippet": by_snippet, "tl_hub": by_tl_hub}
    if sentences:
        loaders = {"sentence-transformers": by_snippet if snippets else by_sentence_transformers}
    if not snippets:
        loaders.pop("the card's snippet", None)
    if record.kind == "adapter":
        loaders["peft"] = by_peft
        adapter = adapters.named(record.method["name"])
        if adapter and not adapter.transformers_loads:
            del loaders["transformers"]
    if record.kind == "merged" and Path(run_folder.ADAPTER).is_dir():  # not published where its base is not
        loaders["peft"] = by_adapter_snippet if snippets else by_peft

    worst = 0.0
    for loader, load in loaders.items():
        try:
            model = load()
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            return {"error": f"{loader} cannot load it: {first_line(error)}"}
        if not expected:
            continue
        with torch.no_grad():
            # What is stored in half precision is compared in float32, as kernels round it differently.
            found = _logits(_outputs(model.cpu().float().eval(), inputs))
        # torch's maximum keeps a NaN, wherever it stands; Python's loses one that does not come first.
        difference = float(torch.stack([(found[name].float() - expected[name]).abs().max() for name in expected]).max())
        allowed = TOLERANCE
        if record.kind == "merged" and loader != "peft":
            allowed = MERGED_TOLERANCE * max(float(logits.abs().max()) for logits in expected.values())
        if not difference <= allowed:
            found_digests = digests(model)
            names = sorted(
                n for n in expected_digests | found_digests if expected_digests.get(n) != found_digests.get(n)
            )
            return {
                "error": f"loaded by {loader}, logits differ by {difference:.3g}; parameters that differ: "
                f"{', '.join(names[:10]) or 'none'}{' ...' if len(names) > 10 else ''}"
            }
        worst = max(worst, difference)
    report: dict[str, Any] = {"loaded_by": [name for name in loaders if name != "the card's snippet"]}
    if expected:
        report["max_difference"] = worst
    if snippets:
        usage = {
            "result": ("result", card.call_snippet(record)),
            "pipeline_output": ("answer", card.pipeline_snippet(record, repo, revision)),
        }
        for name, (variable, code) in usage.items():
            if code:
                exec(code, namespace)
                report[name] = namespace[variable]
    elif row := card.shown_row(record):
        from tl_hub import inference  # which imports this module

        report["pipeline_output"] = inference.pipeline(".")(**row)
    for name, stated in (record.verification or {}).items():
        if name in ("result", "pipeline_output") and name in report:
            if not _same(report[name], stated):
                return {"error": f"the card's example gives {report[name]}, and the card states {stated}"}
            report["same_output"] = True
    return report


def _same(found: Any, stated: Any) -> bool:
    """Whether two outputs are the same but for what other kernels do to their figures."""
    if isinstance(found, dict) and isinstance(stated, dict):
        return found.keys() == stated.keys() and all(_same(found[name], stated[name]) for name in found)
    if isinstance(found, list | tuple) and isinstance(stated, list | tuple):
        return len(found) == len(stated) and all(map(_same, found, stated))
    if isinstance(found, float) and isinstance(stated, int | float):
        return abs(found - stated) <= OUTPUT_TOLERANCE
    return found == stated


def main() -> None:
    os.chdir(sys.argv[1])
    try:
        record = RunRecord.load(".")
        check_weights(Path(), record)
        report = _load_back(record, sys.argv[2] == "1", *sys.argv[3:5])
    except UserError as error:
        report = {"error": str(error)}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
