"""What the fresh process of a load-back does: `python -m tl_hub.load_back FOLDER SNIPPETS [REPOSITORY REVISION]`.

In the run folder it runs the card's own snippet and the stock loaders, and compares what they give with the probe.
"""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tl_hub
from tl_hub import canary, card, cpu, run_folder, verification
from tl_hub.card import snippets, widget
from tl_hub.errors import UserError, first_line
from tl_hub.methods import adapters
from tl_hub.on_use import set_imports_aside, torch, transformers
from tl_hub.probe import Probe, digests, outputs_of, read_probe
from tl_hub.record import RunRecord

TOLERANCE = 1e-5
"""Largest difference of two logits, in float32, that different kernels or orders of addition may cause.

In parts of the largest logit where that is above 1, as T5's are: another kind of CPU rounds those by 2e-5.
"""
MERGED_TOLERANCE = 1e-4
"""The same where the adapter is merged, in parts of the largest logit: the update is rounded in another place."""
OUTPUT_TOLERANCE = 1e-3
"""The same of the figures that a pipeline gives, such as a probability."""
_SNIPPET = "the card's snippet"
_SAFE = {"use_safetensors": True, "trust_remote_code": False}


@dataclass(frozen=True)
class _Run:
    """What is loaded: the run folder that is the working directory, and what the card's snippets load in its place.

    Attributes:
        snippets: execute them.
        namespace: in which they are executed.
    """

    record: RunRecord
    snippets: bool
    repo: str | None
    revision: str | None
    namespace: dict[str, Any] = field(default_factory=dict)

    @property
    def auto_class(self) -> Any:
        name = self.record.auto_class
        return getattr(tl_hub if name == "FeatureModel" else transformers, name)


def load_and_compare(
    record: RunRecord, snippets: bool = True, repo: str | None = None, revision: str | None = None
) -> dict[str, Any]:
    """Load the run folder that is the working directory in each way, as `verification.check` describes it.

    Returns:
        What `verification.check` does, or the `error`.
    """
    torch.set_num_threads(cpu.idle_share())
    run, probe = _Run(record, snippets, repo, revision), read_probe(Path())
    worst, loaders = 0.0, _loaders(run)
    for loader, load in loaders.items():
        try:
            model = load(run)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            return {"error": f"{loader} cannot load it: {first_line(error)}"}
        if probe.outputs:
            difference = _difference(model, probe)
            if not difference <= _allowed(record, loader, probe):
                return {"error": _mismatch(loader, difference, model, probe)}
            worst = max(worst, difference)
    report: dict[str, Any] = {"loaded_by": [name for name in loaders if name != _SNIPPET]}
    if probe.outputs:
        report["max_difference"] = worst
    if line := _drift(record):
        report["tokenizer"] = line
    report |= _examples(run)
    for name, stated in (record.verification or {}).items():
        if name in ("result", "pipeline_output", "outputs") and name in report:
            if not _same(report[name], stated):
                return {"error": f"the card's example gives {report[name]}, and the card states {stated}"}
            report["same_output"] = True
    return report


def _loaders(run: _Run) -> dict[str, Callable[[_Run], Any]]:
    """Each way to load the run by its name. An example on the card is called with the model that its snippet loads."""
    record = run.record
    if record.auto_class == "SentenceTransformer":
        return {"sentence-transformers": _by_snippet if run.snippets else _by_sentence_transformers}
    loaders: dict[str, Callable[[_Run], Any]] = {_SNIPPET: _by_snippet} if run.snippets else {}
    loaders |= {"tl_hub": _by_tl_hub} if record.auto_class == "FeatureModel" else {"transformers": _by_transformers}
    if record.kind == "adapter":
        loaders["peft"] = _by_peft
        adapter = adapters.named(record.method["name"])
        if adapter and not adapter.transformers_loads:
            del loaders["transformers"]
    if record.kind == "merged" and Path(run_folder.ADAPTER).is_dir():  # not published where its base is not
        loaders["peft"] = _by_adapter_snippet if run.snippets else _by_peft
    return loaders


def _by_snippet(run: _Run) -> torch.nn.Module:
    exec(card.snippet(run.record, run.repo, run.revision), run.namespace)
    return run.namespace["model"]


def _by_adapter_snippet(run: _Run) -> torch.nn.Module:
    exec(card.adapter_snippet(run.record, run.repo, run.revision), run.namespace)
    return run.namespace["model"]


def _by_tl_hub(run: _Run) -> torch.nn.Module:
    return run.auto_class.from_pretrained(".")


def _by_sentence_transformers(run: _Run) -> torch.nn.Module:
    from sentence_transformers import SentenceTransformer  # need not be installed

    return SentenceTransformer(".", trust_remote_code=False)


def _by_transformers(run: _Run) -> torch.nn.Module:
    own = {"revision": run.record.base_revision, "dtype": torch.float32, **_SAFE}
    return run.auto_class.from_pretrained(".", **own, **run.record.config)


def _by_peft(run: _Run) -> torch.nn.Module:
    from peft import PeftConfig, PeftModel  # takes seconds, and only adapters need it

    adapter = "." if run.record.kind == "adapter" else run_folder.ADAPTER
    base = PeftConfig.from_pretrained(adapter)
    own = {"revision": base.revision, "dtype": torch.float32, **_SAFE}
    plain = run.auto_class.from_pretrained(base.base_model_name_or_path, **own, **run.record.config)
    return PeftModel.from_pretrained(plain, adapter)


def _drift(record: RunRecord) -> str | None:
    if not record.token_ids:
        return None
    return canary.drift(record, transformers.AutoTokenizer.from_pretrained(".", trust_remote_code=False))


def _difference(model: torch.nn.Module, probe: Probe) -> float:
    """The largest of two logits, one of the model and one of the probe."""
    # What is stored in half precision is compared in float32, as kernels round it differently.
    found, expected = outputs_of(model.cpu().float().eval(), probe.inputs), probe.outputs
    # torch's maximum keeps a NaN, wherever it stands; Python's loses one that does not come first.
    return float(torch.stack([(found[name].float() - expected[name]).abs().max() for name in expected]).max())


def _allowed(record: RunRecord, loader: str, probe: Probe) -> float:
    largest = max(float(logits.abs().max()) for logits in probe.outputs.values())
    if record.kind == "merged" and loader != "peft":
        return MERGED_TOLERANCE * largest
    return TOLERANCE * max(1.0, largest)


def _mismatch(loader: str, difference: float, model: torch.nn.Module, probe: Probe) -> str:
    found = digests(model)
    names = sorted(name for name in probe.digests | found if probe.digests.get(name) != found.get(name))
    return (
        f"loaded by {loader}, logits differ by {difference:.3g}; parameters that differ: "
        f"{', '.join(names[:10]) or 'none'}{' ...' if len(names) > 10 else ''}"
    )


def _examples(run: _Run) -> dict[str, Any]:
    """What the card's example gives: the stock call's `result`, and the `pipeline_output`; and which row it is.

    And the `outputs` of all rows that the model's page shows.
    """
    found: dict[str, Any] = {}
    ask = None
    if run.snippets:
        usage = {
            "result": ("result", card.call_snippet(run.record)),
            "pipeline_output": ("answer", card.pipeline_snippet(run.record, run.repo, run.revision)),
        }
        for name, (variable, code) in usage.items():
            if code:
                exec(code, run.namespace)
                found[name] = run.namespace[variable]
        ask = run.namespace.get("ask")
    elif row := snippets.shown_row(run.record):
        ask = tl_hub.pipeline(".")
        found["pipeline_output"] = ask(**row)
    if ask and (shown := widget.places(run.record)):
        found["outputs"] = [{"example": i, "output": ask(**widget.texts(run.record, i))} for i in shown]
    return found | ({"example": snippets.shown_place(run.record)} if found else {})


def _same(found: Any, stated: Any) -> bool:
    """Whether two outputs are the same but for what other kernels do to their figures."""
    if isinstance(found, dict) and isinstance(stated, dict):
        return found.keys() == stated.keys() and all(_same(found[name], stated[name]) for name in found)
    if isinstance(found, list | tuple) and isinstance(stated, list | tuple):
        return len(found) == len(stated) and all(map(_same, found, stated))
    if isinstance(found, float) and isinstance(stated, int | float):
        return abs(found - stated) <= OUTPUT_TOLERANCE
    return found == stated


def report(snippets: bool, repo: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """`load_and_compare`, once it is known that the folder brings no code; a user's mistake is an `error` too."""
    try:
        record = RunRecord.load(".")
        verification.check_weights(Path(), record)
        return load_and_compare(record, snippets, repo, revision)
    except UserError as error:
        return {"error": str(error)}


def main() -> None:
    set_imports_aside()
    os.chdir(sys.argv[1])
    print(json.dumps(report(sys.argv[2] == "1", *sys.argv[3:5])))


if __name__ == "__main__":
    main()
