"""What a model tells of itself that another loop has trained: its task, its base, how it is loaded, what it reads."""

import inspect
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel, PeftType
from transformers import AutoConfig, PreTrainedModel
from transformers.utils.generic import find_labels

from tl_hub import hub, samples
from tl_hub.base_model import Base, embedded, weight_files
from tl_hub.errors import UserError
from tl_hub.finish import PROBES
from tl_hub.model_types import Config
from tl_hub.record import license_in

_TAGS = {
    "AutoModelForSequenceClassification": "text-classification",
    "AutoModelForTokenClassification": "token-classification",
    "AutoModelForQuestionAnswering": "question-answering",
    "AutoModelForMaskedLM": "fill-mask",
    "AutoModelForCausalLM": "text-generation",
    "AutoModelForSeq2SeqLM": None,  # summarization, translation or something else
    "AutoModel": "feature-extraction",
}
"""Auto classes, and the Hub's name of their task where there is but one."""
_NOT_CONFIGURED = {"architectures", "dtype", "transformers_version", "use_cache"}
"""Values of a configuration that say nothing about how an adapter's base must be built."""
_NOT_SETTINGS = {"peft_type", "task_type", "auto_mapping", "revision", "inference_mode", "peft_version"}


def embeds_sentences(model: torch.nn.Module) -> bool:
    """Whether it is a SentenceTransformer, without the import of a library that few have."""
    library = sys.modules.get("sentence_transformers")
    return library is not None and type(model) is library.SentenceTransformer


def inner(model: Any) -> Any:
    """The transformers model inside an adapter or a SentenceTransformer, or the model itself."""
    if embeds_sentences(model):
        return model[0].model
    return model.get_base_model() if isinstance(model, PeftModel) else model


def task_of(model: torch.nn.Module, pipeline_tag: str | None) -> tuple[str, str]:
    """Name of the class that loads a model, and its pipeline tag: `pipeline_tag`, or the one that its class tells.

    Raises:
        UserError: it is no class of transformers, or does not tell.
    """
    if embeds_sentences(model):
        return type(model).__name__, pipeline_tag or "sentence-similarity"
    inside = inner(model)
    own = type(inside).__name__
    if getattr(transformers, own, None) is not type(inside):
        raise UserError(f"{own} is not a class of transformers, so nobody could load it without your code")
    auto_class = own
    for name in _TAGS:
        classes = getattr(transformers, name)._model_mapping.get(type(inside.config), ())
        if type(inside) in (classes if isinstance(classes, tuple) else (classes,)):
            auto_class = name
    tag = pipeline_tag or _TAGS.get(auto_class)
    if tag is None:
        raise UserError(f"what a {own} is for is not known; give RunFolder a pipeline_tag, such as summarization")
    return auto_class, tag


def base_of(config: Config, revision: str | None) -> Base | None:
    """The checkpoint a model was loaded from; None if it was built from a configuration."""
    if not config.name_or_path:
        return None
    folder = Path(config.name_or_path)
    if folder.is_dir():
        folder = folder.resolve()
        if folder.parent == Path(samples.__file__).resolve().parent:
            return embedded(folder.name)
        return Base(folder.name, "local", config.model_type, license=license_in(folder), weights=weight_files(folder))
    facts = hub.model_facts(config.name_or_path, revision, called=f"the base {config.name_or_path}")
    return Base(config.name_or_path, "hub", config.model_type, **vars(facts))


def adapter_method(model: PeftModel) -> dict[str, Any]:
    """Name of an adapter's method, and what of its configuration is set and not at its default."""
    config = model.peft_config["default"]
    defaults = {setting.name: setting.default for setting in fields(config) if setting.name not in ("r", "lora_alpha")}
    settings = {
        name: sorted(value) if isinstance(value, set) else value
        for name, value in config.to_dict().items()
        if value and value != defaults.get(name) and name not in _NOT_SETTINGS and not name.endswith("_path")
    }
    name = PeftType(config.peft_type).value.lower().replace("_", " ")
    return {"name": "dora" if settings.get("use_dora") else name, "settings": settings}


def configured(config: Config, revision: str | None) -> dict[str, Any]:
    """In what a model's configuration differs from its checkpoint's: an adapter has no config.json to say it."""
    stored = AutoConfig.from_pretrained(str(config.name_or_path), revision=revision).to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if stored.get(name) != value and name not in _NOT_CONFIGURED and not name.startswith("_")
    }


def probe_inputs(model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The first rows of what the model reads of a batch, without labels.

    Batches of sentence-transformers have several columns of texts, whose names are before what is read of each: the
    first column's will do.
    """
    prefix = next((name.removesuffix("input_ids") for name in batch if name.endswith("_input_ids")), "")
    if prefix and "input_ids" not in batch:
        batch = {name.removeprefix(prefix): value for name, value in batch.items() if name.startswith(prefix)}
    unread = set(find_labels(type(model)))
    if hasattr(model, "prepare_decoder_input_ids_from_labels"):  # a decoder that makes its inputs from the labels
        unread -= {"labels"}
    read = set(inspect.signature(type(model).forward).parameters) - unread
    inputs = {name: value[:PROBES].cpu() for name, value in batch.items() if name in read and torch.is_tensor(value)}
    if not inputs:
        raise UserError(
            f"the batch has {', '.join(batch) or 'nothing'}; {type(model).__name__} reads {', '.join(read)}"
        )
    return inputs
