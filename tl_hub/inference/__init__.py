"""Answers from a run folder or a published repository, for tasks that `transformers.pipeline` no longer has."""

import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoTokenizer
from transformers.utils import cached_file

from tl_hub import canary, hub, run_folder, samples, verification
from tl_hub.errors import UserError, first_line
from tl_hub.inference.vectors import VectorsPipeline
from tl_hub.methods.adapters.virtual_tokens import reserve
from tl_hub.publishing.snapshot import snapshot
from tl_hub.record import DataFacts, RunRecord
from tl_hub.tasks import catalog
from tl_hub.tasks.base import Task
from tl_hub.tasks.language_modeling import objective_of
from tl_hub.vectors.model import FeatureModel


def pipeline(location: str | Path, device: str | None = None, *, revision: str | None = None) -> Any:
    """Load what a recipe made, ready to be called.

    Args:
        location: a run folder, the id of a repository on the Hub that was published from one, or `tiny:<family>`.
        device: as torch names it; a GPU if there is one.
        revision: branch, tag or commit of a repository.

    Raises:
        UserError: no run folder or repository, no access to it, the Hub is out of reach and nothing is cached, no
            weights in safetensors, an adapter's base is missing, or the task has no pipeline here.
    """
    if str(location).startswith("tiny:"):
        folder = samples.checkpoint(str(location).removeprefix("tiny:"))
        record = _embedded(folder.name)
    else:
        folder = snapshot(location, revision)
        record = RunRecord.load(folder)
    headless = record.auto_class == "AutoModel"  # an encoder, which another training loop may have trained
    facts = catalog.facts_of(record)
    if not headless and facts.pipeline is None:
        sentences = record.auto_class == "SentenceTransformer"
        other = "sentence_transformers.SentenceTransformer" if sentences else "transformers.pipeline"
        raise UserError(f"tl_hub.pipeline has no {record.pipeline_tag}; {other}({str(location)!r}) may")
    verification.check_weights(folder, record)
    transformers.logging.set_verbosity_error()  # the adapter's head is reported missing from the base, as it is
    try:
        model = _model(folder, record)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{location} cannot be loaded: {first_line(error)}") from error
    if not isinstance(model, FeatureModel) and (line := canary.drift(record, tokenizer)):  # that says it itself
        warnings.warn(line, stacklevel=2)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if headless:
        return VectorsPipeline(model.to(device), tokenizer, record.settings.get("max_length"))
    assert facts.pipeline is not None
    return catalog.load(facts.pipeline)(model.to(device), tokenizer, task_as_recorded(record), record.decision)


def task_as_recorded(record: RunRecord) -> Task:
    """The task of a run with the settings on record."""
    place = catalog.facts_of(record).settings
    assert place is not None
    task_class = catalog.load(place)
    settings = {k: v for k, v in record.settings.items() if k in task_class.__dataclass_fields__}
    stride = task_class.__dataclass_fields__.get("doc_stride")
    if stride and "max_length" in settings:  # of another training loop, which may have cut texts instead
        settings = {"doc_stride": max(1, min(stride.default, settings["max_length"] // 4))} | settings
    return task_class(**settings)


def _embedded(family: str) -> RunRecord:
    """What is to be known of an embedded checkpoint to use it for what it was pretrained to do."""
    task = objective_of(family)
    name = task().name
    return RunRecord(
        name=family,
        kind="pretrained",
        task=name,
        pipeline_tag=catalog.CATALOG[name].tag,
        auto_class=task.auto_class,
        method={"name": "from scratch"},
        data=DataFacts(id="texts", source="local"),
        metrics=[],
        settings={"whole_target": True},  # of T5, which was taught to write whole texts
    )


def _model(folder: Path, record: RunRecord) -> Any:
    """The model of a run folder, in float32, with its adapter on its base."""
    if record.auto_class == FeatureModel.__name__:
        return FeatureModel.from_pretrained(folder)
    auto_class = getattr(transformers, record.auto_class)
    safe: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    if record.kind != "adapter":
        return auto_class.from_pretrained(folder, **safe)
    config = PeftConfig.from_pretrained(str(folder))
    place, revision = config.base_model_name_or_path, record.base_revision or config.revision
    if not Path(place).is_dir():
        hub.model_facts(place, revision, called=f"the base {place}")  # says clearly that it is missing
    configuration = cached_file(place, run_folder.CONFIG, revision=revision)
    assert configuration is not None  # it raises where there is none
    verification.check_runs_nothing(Path(configuration))
    base = auto_class.from_pretrained(place, revision=revision, **safe, **record.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for an attribute that transformers has renamed
        model = PeftModel.from_pretrained(base, folder)
    reserve(model)
    return model
