"""The pretrained model that a run starts from: found, loaded with the task's head, and checked."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from tl_hub import hub, run_folder, samples
from tl_hub.architectures import ARCHITECTURES, architecture_of, pretrained_by
from tl_hub.base_checks import check_base, check_reads, check_sizes
from tl_hub.config import RunConfig
from tl_hub.errors import UserError, first_line
from tl_hub.licenses import known_license, license_of
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_use import torch, transformers
from tl_hub.record import license_in
from tl_hub.tasks.base import Task
from tl_hub.tokenizer import load_tokenizer

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)
"""What transformers raises, as it comes, for files of a checkpoint that are broken or ask for what is not there."""


@dataclass
class Base:
    """The pretrained model a run started from.

    Attributes:
        id: Hub id, `tiny:<family>`, or the name (not the path) of a local folder.
        source: where `id` is to be looked for.
        revision: commit on the Hub.
        weights: the local files that the weights were read from.
        fresh: parameters that the checkpoint lacked and that were therefore newly initialised.
        new_tokens: tokens added to the tokenizer that the checkpoint has no embeddings of, and were given new ones.
    """

    id: str
    source: Literal["hub", "embedded", "local"]
    model_type: str = ""
    revision: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    weights: tuple[Path, ...] = ()
    fresh: tuple[str, ...] = ()
    new_tokens: tuple[str, ...] = ()

    def check_frozen(self, model: Any) -> None:
        """Refuse new embeddings where they would not be trained, nor be part of the base as others have it.

        Raises:
            UserError: there are some.
        """
        if self.new_tokens:
            raise UserError(
                f"--model {self.id}: tokens added to its tokenizer have no embedding ({', '.join(self.new_tokens[:3])}"
                f"{', ...' * (len(self.new_tokens) > 3)}), and only fine-tuning of all layers trains new ones; do that "
                f"or call model.resize_token_embeddings({model.get_input_embeddings().weight.size(0)}) once, save the "
                "model and tokenizer, and give that"
            )


def family_of(run: RunConfig) -> str:
    """The family (`config.model_type`) of the model a run starts from, for tasks that differ between families.

    Raises:
        UserError: not there, out of reach, or of none of the families.
    """
    return _configuration(run)[2].model_type


def load(run: RunConfig, task: Task) -> tuple[Model, Tokenizer, Base]:
    """The model with the task's head, in float32, its tokenizer, and where both come from.

    Raises:
        UserError: not there, out of reach, without safetensors weights, or of a family this task cannot use.
    """
    path, base, config = _configuration(run)
    objective = ARCHITECTURES[config.model_type].pretrained_by
    if objective not in task.pretrained_by:
        reason = f" ({task.refused[objective]})" if objective in task.refused else ""
        raise UserError(
            f"--model {run.model}: {task.name} is not for {config.model_type}{reason}; "
            f"use {', '.join(pretrained_by(task.pretrained_by))}"
        )
    try:
        tokenizer = load_tokenizer(path, base.revision, config)
        model, report = getattr(transformers, task.class_for(config.model_type)).from_pretrained(
            path,
            revision=base.revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            output_attentions=False,  # nobody reads them, and a fused attention cannot give them
            ignore_mismatched_sizes=True,  # or transformers would not tell which
            **task.config_for(config.model_type),
        )
    except UNREADABLE as error:
        raise UserError(f"--model {run.model}: weights or tokenizer cannot be loaded ({first_line(error)})") from error
    # Code beside a checkpoint is not run, so what is made of it must not ask for that code.
    vars(model.config).pop("auto_map", None)
    tokenizer.init_kwargs.pop("auto_map", None)
    check_sizes(run.model, model, report["mismatched_keys"])
    check_base(run.model, model, tokenizer, report["missing_keys"])
    base.fresh = tuple(sorted(report["missing_keys"]))
    base.new_tokens = _give_embeddings(model, tokenizer)
    task.adapt(tokenizer, model)
    check_reads(run.model, model, tokenizer)
    return model, tokenizer, base


def _give_embeddings(model: Any, tokenizer: Tokenizer) -> tuple[str, ...]:
    """Embeddings, about the mean of the others, for tokens that have none; which ones they are."""
    numbers, known = tokenizer.get_vocab(), model.get_input_embeddings().weight.size(0)
    new = sorted((token for token in numbers if numbers[token] >= known), key=numbers.__getitem__)
    if new:
        model.resize_token_embeddings(numbers[new[-1]] + 1)
    return tuple(new)


def _configuration(run: RunConfig) -> tuple[str, Base, Any]:
    path, base = locate(run)
    try:
        config = transformers.AutoConfig.from_pretrained(path, revision=base.revision, trust_remote_code=False)
    except UNREADABLE as error:
        raise UserError(
            f"--model {run.model}: no configuration of a {', '.join(ARCHITECTURES)} model ({first_line(error)})"
        ) from error
    license_of(run.license, base.license)  # or a published result would break the base's terms
    if run.push_to:
        known_license(run.license, base.license)
    base.model_type = config.model_type
    architecture_of(config.model_type, run.model)
    return path, base, config


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files that transformers reads a model's weights from; a run folder holds other safetensors beside them."""
    whole = folder / run_folder.WEIGHTS
    return (whole,) if whole.is_file() else tuple(sorted(folder.glob(run_folder.SHARDS)))


def embedded(family: str) -> Base:
    """The embedded checkpoint of a family.

    Raises:
        UserError: there is none.
    """
    return Base(
        f"tiny:{family}",
        "embedded",
        family,
        license=samples.LICENSE,
        license_name=samples.LICENSE_NAME,
        license_link=run_folder.LICENSE,
        weights=weight_files(samples.checkpoint(family)),
    )


def source_of(model: str) -> Literal["hub", "embedded", "local"]:
    return "embedded" if model.startswith("tiny:") else "local" if os.path.isdir(model) else "hub"


def locate(run: RunConfig) -> tuple[str, Base]:
    """Path or Hub id of the model that a run starts from, and what is known of it before it is read.

    Raises:
        UserError: it is not there, out of reach, or of a kind that no run can start from.
    """
    source = source_of(run.model)
    if run.revision and source != "hub":
        raise UserError(f"--revision is for models on the Hub; --model {run.model} is {source}, so omit --revision")
    if source == "embedded":
        family = run.model.removeprefix("tiny:")
        return str(samples.checkpoint(family)), embedded(family)
    if source == "local":
        folder = Path(run.model).resolve()
        if (folder / run_folder.ADAPTER_CONFIG).exists():
            raise UserError(
                f"--model {run.model} holds an adapter, which cannot be trained further; train it with --merge, or "
                "give a whole model"
            )
        weights = weight_files(folder)
        if not weights:
            raise UserError(f"--model {run.model}: the folder holds no safetensors weights (model.safetensors)")
        license = license_in(folder)  # of the user's own run
        return str(folder), Base(folder.name, source, license=license, weights=weights)
    facts = hub.model_facts(run.model, run.revision)
    return run.model, Base(run.model, "hub", **vars(facts))
