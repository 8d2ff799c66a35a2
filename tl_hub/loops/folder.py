"""A run folder that any training loop can have written: checked before training, made from the model after it."""

import json
import math
import platform
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tl_hub import canary, card, curves, run_folder, samples, verification
from tl_hub.base_model import Base
from tl_hub.errors import UserError
from tl_hub.estimate import peak_memory
from tl_hub.finish import LIBRARIES, base_facts, device_name
from tl_hub.licenses import Terms, license_of
from tl_hub.loops.model import adapter_method, base_of, configured, embeds_sentences, inner, probe_inputs, task_of
from tl_hub.model_types import Tokenizer
from tl_hub.probe import write_probe
from tl_hub.record import Cost, DataFacts, Kind, Metric, RunRecord, validate


@dataclass
class RunFolder:
    """A run folder to be written after training, checked before it.

    Attributes:
        path: folder that is empty or not there yet; its name is the card's title.
        data: what was trained and measured on. Splits it does not have are counted by `RunFolderCallback`.
        pipeline_tag: the Hub's name of the task, for models whose class does not tell.
        license: of the result, as the Hub names it; the base model's if not given.
        license_name, license_link: of one that the Hub does not list, whose `license` is `other`; the link is the URL
            of its text, or a file, which is published as LICENSE.
        language: ISO 639 codes of the texts.
        settings: of the run, by name, such as the greatest length of an input. They are published.
        base_revision: branch, tag or commit that was given to `from_pretrained`, which does not keep it.

    Raises:
        UserError: the folder is in use, or something is not what a run record may hold (names it).
    """

    path: str | Path
    data: DataFacts
    pipeline_tag: str | None = None
    license: str | None = None
    language: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    base_revision: str | None = None
    license_name: str | None = None
    license_link: str | Path | None = None

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UserError(f"{self.path} is a file or holds files; give a folder that is empty or not there yet")
        for name, value in self.settings.items():
            if isinstance(value, str) and (Path(value).is_absolute() or value.startswith("hf_")):
                raise UserError(f"settings[{name!r}] is a local path or a token, and settings are published; omit it")
        self._terms.check()
        # All that a model will add, but of any kind.
        known = self._record("fine-tuned", "AutoModel", self.pipeline_tag or "fill-mask", {"name": "fine-tuning"})
        validate(known.facts(), "RunFolder")

    @property
    def _terms(self) -> Terms:
        return Terms(self.license, self.license_name, None if self.license_link is None else str(self.license_link))

    def check(self, model: torch.nn.Module, tokenizer: Tokenizer) -> None:
        """What `write` will need of a model and its tokenizer; to be called before training.

        Says it where the classes have no names, which their users would see.

        Raises:
            UserError: what would be written could not be loaded by stock transformers and peft, or its task is unknown.
        """
        self._check(model, tokenizer)
        inside = inner(model)
        labels = list((inside.config.id2label or {}).values()) if "Classification" in type(inside).__name__ else []
        if len(labels) > 1 and labels[0] == "LABEL_0":
            print(
                f"note: the {len(labels)} classes have no names, so users will get LABEL_0 for an answer; name them "
                "before training: model.config.id2label = {0: 'negative', 1: 'positive'}, and label2id likewise",
                flush=True,
            )

    def _check(self, model: torch.nn.Module, tokenizer: Tokenizer) -> None:
        if not isinstance(model, PreTrainedModel | PeftModel) and not embeds_sentences(model):
            raise UserError(
                f"{type(model).__name__} is no model of transformers or peft and no SentenceTransformer; give such a "
                "one (accelerator.unwrap_model takes a distributed run's wrapper off)"
            )
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise UserError(
                f"the tokenizer is {type(tokenizer).__name__}; give a transformers one (the Trainer's processing_class)"
            )
        inside = inner(model)
        if isinstance(model, PeftModel) and list(model.peft_config) != ["default"]:
            raise UserError(f"the adapters are {', '.join(model.peft_config)}; a run folder holds one, named default")
        base = base_of(inside.config, self.base_revision)
        license_of(self.license, base.license if base else None)
        if isinstance(model, PeftModel) and base is None:
            raise UserError("the adapter's base was not loaded from a checkpoint, so nobody could load the adapter")
        if getattr(inside, "_hf_peft_config_loaded", False):
            raise UserError("the adapter was added by model.add_adapter; use peft.get_peft_model instead")
        if getattr(inside, "is_quantized", False):
            raise UserError("the model is quantized; load it in float32 or bfloat16 to have it checked after training")
        task_of(model, self.pipeline_tag)

    def write(
        self,
        model: torch.nn.Module,
        tokenizer: Tokenizer,
        batch: dict[str, torch.Tensor],
        metrics: list[Metric],
        history: list[dict[str, Any]] | None = None,
        best_epoch: float | None = None,
        log: list[dict[str, float]] | None = None,
        cost: Cost | None = None,
    ) -> RunRecord:
        """Save the model, record, card and probe, and load them back in a fresh process. In the main process only.

        Args:
            model: without wrappers of a distributed run (`accelerator.unwrap_model`).
            batch: as the model is called with, labels or not; a few of its rows are kept in the folder.
            metrics: figures of these weights, the most important one first.
            history: one dict for each epoch (or evaluation): epoch, step, loss, metrics.
            best_epoch: the one in `history` whose weights `model` has, where it was chosen.
            log: one dict a step with step and loss, perhaps more figures.
            cost: what is known of it besides what can be counted here.

        Raises:
            UserError: see `check`; or the batch has nothing that the model reads.
            RunStopped: the folder does not load back as the model that was trained.
        """
        self._check(model, tokenizer)
        inputs = probe_inputs(inner(model), batch)
        folder, base = Path(self.path), base_of(inner(model).config, self.base_revision)
        record = self._record_of(model, base)
        record.metrics, record.history, record.best_epoch = metrics, history or [], best_epoch
        record.cost = _counted(model, cost or Cost())
        record.token_ids = canary.token_ids(tokenizer)
        validate(record.facts(), "RunFolder.write")

        _save(folder, model, tokenizer, base, self._terms.file)
        _write_probe(folder, model, inputs)
        if log:
            lines = [{name: value for name, value in step.items() if math.isfinite(value)} for step in log]
            (folder / run_folder.LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
            curves.draw(folder, record)
        record.save(folder)
        card.write(folder)
        record.verification = verification.check(folder)
        record.save(folder)
        card.write(folder)
        return record

    def _record_of(self, model: Any, base: Base | None) -> RunRecord:
        """What is known of a model without its training: what it is, what it was made from, how it is loaded."""
        auto_class, pipeline_tag = task_of(model, self.pipeline_tag)
        if isinstance(model, PeftModel):
            record = self._record("adapter", auto_class, pipeline_tag, adapter_method(model))
            record.config = configured(inner(model).config, base.revision) if base else {}
        elif base:
            record = self._record("fine-tuned", auto_class, pipeline_tag, {"name": "fine-tuning"})
        else:
            method = {"name": "from scratch", "settings": {"model_type": model.config.model_type}}
            record = self._record("pretrained", auto_class, pipeline_tag, method)
        record.base = base_facts(base) if base else None
        record.license = license_of(self.license, base.license if base else None)
        record.software = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
        record.created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return record

    def _record(self, kind: Kind, auto_class: str, pipeline_tag: str, method: dict[str, Any]) -> RunRecord:
        return RunRecord(
            name=Path(self.path).resolve().name,
            kind=kind,
            pipeline_tag=pipeline_tag,
            auto_class=auto_class,
            method=method,
            data=self.data,
            metrics=[],
            settings=self.settings,
            language=self.language,
            license=self.license,
            license_name=self.license_name,
            license_link=self._terms.published_link,
        )


def _counted(model: torch.nn.Module, cost: Cost) -> Cost:
    """What training took, with what can be counted now that it has ended."""
    parameters = list(model.parameters())
    return replace(
        cost,
        peak_memory_bytes=peak_memory(),
        trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        total_parameters=sum(p.numel() for p in parameters),
        device=cost.device or device_name(parameters[0].device, 1),
    )


def _save(folder: Path, model: Any, tokenizer: Tokenizer, base: Base | None, license: Path | None) -> None:
    """Weights, configuration and tokenizer, as stock libraries load them; and the text of a license."""
    if isinstance(model, PeftModel) and base and base.source == "hub":
        model.peft_config["default"].revision = base.revision  # or PEFT would load what main has by then
    if embeds_sentences(model):
        model.save_pretrained(str(folder), create_model_card=False)
    else:
        model.save_pretrained(folder)
        (folder / run_folder.CARD).unlink(missing_ok=True)  # PEFT's, which says nothing
    tokenizer.save_pretrained(folder)
    if license:
        (folder / run_folder.LICENSE).write_bytes(license.read_bytes())
    elif base and base.source == "embedded":
        (folder / run_folder.LICENSE).write_text(samples.LICENSE_TEXT)


def _write_probe(folder: Path, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    """`write_probe` in float32 on the CPU, as the fresh process will compute. Leaves the model alone."""
    device, dtypes = next(model.parameters()).device, [p.dtype for p in model.parameters()]
    forward = model.__dict__.pop("forward", None)  # accelerate's, which computes in half precision
    training = model.training
    write_probe(folder, model.to("cpu", torch.float32), inputs)
    if forward is not None:
        model.forward = forward
    for p, dtype in zip(model.parameters(), dtypes, strict=True):
        p.data = p.data.to(dtype)
    model.to(device).train(training)
