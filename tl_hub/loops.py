"""Run folders from training loops that are not tl_hub's, so that card, load-back and push work for their models too.

A `RunFolder` is made before training, and checks what can be checked by then. After it, a `RunFolderCallback` writes
the folder for transformers' Trainer and what is derived from it, and `RunFolder.write` for a loop of one's own.
"""

import inspect
import itertools
import json
import math
import platform
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from enum import Enum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import PeftModel, PeftType
from transformers import AutoConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers.trainer_utils import has_length
from transformers.utils.generic import find_labels

from tl_hub import card, hub, run_folder, samples, verification
from tl_hub.base_model import Base, weight_files
from tl_hub.errors import UserError
from tl_hub.estimate import peak_memory
from tl_hub.finish import LIBRARIES, PROBES, base_facts, device_name, draw_curves
from tl_hub.licenses import license_of
from tl_hub.probe import write_probe
from tl_hub.record import Cost, DataFacts, Metric, RunRecord, SplitFacts, license_in, validate

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
_ALWAYS_SHOWN = {
    "adam_beta1",
    "adam_beta2",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "max_grad_norm",
    "num_train_epochs",
    "optim",
    "per_device_train_batch_size",
    "seed",
    "warmup_steps",
    "weight_decay",
}
"""TrainingArguments that are stated whatever their value; of the others, those that are not at their default."""
_PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
_SPEED = re.compile(r"_(runtime|\w+_per_second|preparation_time|compilation_time)$|_mem_")


@dataclass
class RunFolder:
    """A run folder to be written after training, checked before it.

    Attributes:
        path: folder that is empty or not there yet; its name is the card's title.
        data: what was trained and measured on. Splits it does not have are counted by `RunFolderCallback`.
        pipeline_tag: the Hub's name of the task, for models whose class does not tell.
        license: of the result, as the Hub names it; the base model's if not given.
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

    def __post_init__(self) -> None:
        self.path = Path(self.path)
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise UserError(f"{self.path} is a file or holds files; give a folder that is empty or not there yet")
        for name, value in self.settings.items():
            if isinstance(value, str) and (Path(value).is_absolute() or value.startswith("hf_")):
                raise UserError(f"settings[{name!r}] is a local path or a token, and settings are published; omit it")
        license_of(self.license, None)
        # All that a model will add, but of any kind.
        known = self._record("fine-tuned", "AutoModel", self.pipeline_tag or "fill-mask", {"name": "fine-tuning"})
        validate(known.facts(), "RunFolder")

    def check(self, model: Any, tokenizer: Any) -> None:
        """What `write` will need of a model and its tokenizer; to be called before training.

        Says it where the classes have no names, which their users would see.

        Raises:
            UserError: what would be written could not be loaded by stock transformers and peft, or its task is unknown.
        """
        self._check(model, tokenizer)
        inner = _inner(model)
        labels = list((inner.config.id2label or {}).values()) if "Classification" in type(inner).__name__ else []
        if len(labels) > 1 and labels[0] == "LABEL_0":
            print(
                f"note: the {len(labels)} classes have no names, so users will get LABEL_0 for an answer; name them "
                "before training: model.config.id2label = {0: 'negative', 1: 'positive'}, and label2id likewise",
                flush=True,
            )

    def _check(self, model: Any, tokenizer: Any) -> None:
        if not isinstance(model, PreTrainedModel | PeftModel) and not _embeds_sentences(model):
            raise UserError(
                f"{type(model).__name__} is no model of transformers or peft and no SentenceTransformer; give such a "
                "one (accelerator.unwrap_model takes a distributed run's wrapper off)"
            )
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise UserError(
                f"the tokenizer is {type(tokenizer).__name__}; give a transformers one (the Trainer's processing_class)"
            )
        inner = _inner(model)
        if isinstance(model, PeftModel) and list(model.peft_config) != ["default"]:
            raise UserError(f"the adapters are {', '.join(model.peft_config)}; a run folder holds one, named default")
        base = _base(inner.config, self.base_revision)
        license_of(self.license, base.license if base else None)
        if isinstance(model, PeftModel) and base is None:
            raise UserError("the adapter's base was not loaded from a checkpoint, so nobody could load the adapter")
        if getattr(inner, "_hf_peft_config_loaded", False):
            raise UserError("the adapter was added by model.add_adapter; use peft.get_peft_model instead")
        if getattr(inner, "is_quantized", False):
            raise UserError("the model is quantized; load it in float32 or bfloat16 to have it checked after training")
        self._task(model)

    def write(
        self,
        model: Any,
        tokenizer: Any,
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
            history: one dict an epoch (or evaluation): epoch, step, loss, metrics.
            best_epoch: the one in `history` whose weights `model` has, where it was chosen.
            log: one dict a step with step and loss, perhaps more figures.
            cost: what is known of it beside what can be counted here.

        Raises:
            UserError: see `check`; or the batch has nothing that the model reads.
            RunStopped: the folder does not load back as the model that was trained.
        """
        self._check(model, tokenizer)
        inputs = _inputs(_inner(model), batch)
        folder, adapter = Path(self.path), isinstance(model, PeftModel)
        base = _base(_inner(model).config, self.base_revision)
        auto_class, pipeline_tag = self._task(model)
        if adapter:
            method = _adapter_method(model)
        elif base:
            method = {"name": "fine-tuning"}
        else:
            method = {"name": "from scratch", "settings": {"model_type": model.config.model_type}}
        record = self._record(
            "adapter" if adapter else "fine-tuned" if base else "pretrained", auto_class, pipeline_tag, method
        )
        record.base = base_facts(base) if base else None
        record.license = license_of(self.license, base.license if base else None)
        record.metrics, record.history, record.best_epoch = metrics, history or [], best_epoch
        record.config = _configured(_inner(model).config, base.revision) if adapter and base else {}
        parameters = list(model.parameters())
        cost = cost or Cost()
        record.cost = replace(
            cost,
            peak_memory_bytes=peak_memory(),
            trainable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
            total_parameters=sum(p.numel() for p in parameters),
            device=cost.device or device_name(parameters[0].device, 1),
        )
        record.software = {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
        record.created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        validate(record.facts(), "RunFolder.write")

        if adapter and base and base.source == "hub":
            model.peft_config["default"].revision = base.revision  # or PEFT would load what main has by then
        if _embeds_sentences(model):
            model.save_pretrained(str(folder), create_model_card=False)
        else:
            model.save_pretrained(folder)
            (folder / run_folder.CARD).unlink(missing_ok=True)  # PEFT's, which says nothing
        tokenizer.save_pretrained(folder)
        _write_probe(folder, model, inputs)
        if log:
            lines = [{name: value for name, value in step.items() if math.isfinite(value)} for step in log]
            (folder / run_folder.LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
            # In a history, `loss` is the training loss.
            first = metrics[0].name if metrics else None
            draw_curves(folder, record.history, "validation_loss" if first == "loss" else first)
        record.save(folder)
        card.write(folder)
        record.verification = verification.check(folder)
        record.save(folder)
        card.write(folder)
        return record

    def _record(self, kind: Any, auto_class: str, pipeline_tag: str, method: dict[str, Any]) -> RunRecord:
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
        )

    def _task(self, model: Any) -> tuple[str, str]:
        """Name of the class that loads a model, and its pipeline tag."""
        if _embeds_sentences(model):
            return type(model).__name__, self.pipeline_tag or "sentence-similarity"
        inner = _inner(model)
        own = type(inner).__name__
        if getattr(transformers, own, None) is not type(inner):
            raise UserError(f"{own} is not a class of transformers, so nobody could load it without your code")
        auto_class = own
        for name in _TAGS:
            classes = getattr(transformers, name)._model_mapping.get(type(inner.config), ())
            if type(inner) in (classes if isinstance(classes, tuple) else (classes,)):
                auto_class = name
        tag = self.pipeline_tag or _TAGS.get(auto_class)
        if tag is None:
            raise UserError(f"what a {own} is for is not known; give RunFolder a pipeline_tag, such as summarization")
        return auto_class, tag


class RunFolderCallback(TrainerCallback):
    """Writes a `RunFolder` when a Trainer has trained, with what the Trainer knows of the run.

    The weights are those that the Trainer ends with, which are the best ones where it has `load_best_model_at_end`,
    and the metrics are those of the evaluation of just these weights.

    Args:
        split: name of the rows that the Trainer evaluates on. Several evaluation sets keep the names they have there.

    Raises:
        UserError: as training begins, where `RunFolder.check` does, or the folder is in use by now; or the Trainer
            spreads the weights over processes, or searches hyperparameters.
    """

    def __init__(self, folder: RunFolder, split: str = "validation"):
        self.folder, self.split = folder, split
        self.rows: dict[str, int] = {}  # prefix of an evaluation's figures -> rows
        self.started: float | None = None
        self.evaluating = 0.0  # seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        path = Path(self.folder.path)
        if Path(args.output_dir).resolve().is_relative_to(path.resolve()):
            raise UserError(
                f"{path} is to hold the Trainer's checkpoints (output_dir) as well; give it a folder of its own"
            )
        if args.fsdp or args.deepspeed:
            raise UserError(
                "fsdp and deepspeed spread the weights over processes; gather them and call RunFolder.write"
            )
        if state.is_hyper_param_search:
            raise UserError("a search for hyperparameters has no single result; train with the best ones, without it")
        replace(self.folder)  # checks again: an earlier training may have filled it
        self.folder.check(known["model"], known["processing_class"])
        # What an interrupted run took before it is not known.
        self.started = time.perf_counter() if state.global_step == 0 else None
        self.evaluating = 0.0

    def on_evaluate(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        dataset = known["eval_dataloader"].dataset
        for prefix, entry in _evaluations([known["metrics"]]):
            self.evaluating += entry[f"{prefix}_runtime"]
            if has_length(dataset):
                self.rows[prefix] = len(dataset)

    def on_train_end(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        if not state.is_world_process_zero:
            return
        seconds = None if self.started is None else time.perf_counter() - self.started
        loader = known["eval_dataloader"] or known["train_dataloader"]
        batch = loader.collate_fn(list(itertools.islice(iter(loader.dataset), PROBES)))

        # best_global_step may be a step that was evaluated but not saved, and a checkpoint that is gone was not loaded.
        checkpoint = state.best_model_checkpoint
        chosen = args.load_best_model_at_end and checkpoint is not None and Path(checkpoint).is_dir()
        kept = int(checkpoint.rpartition("-")[2]) if chosen else state.global_step
        best = (args.metric_for_best_model or "").removeprefix("eval_")
        history, metrics = self._history(state.log_history), self._metrics(state.log_history, kept)
        counted = {metric.split: SplitFacts(rows=metric.rows) for metric in metrics}
        if has_length(known["train_dataloader"].dataset):
            counted = {"train": SplitFacts(rows=len(known["train_dataloader"].dataset))} | counted
        folder = replace(
            self.folder,
            data=replace(self.folder.data, splits=counted | self.folder.data.splits),
            settings=_settings(args) | self.folder.settings,
        )
        record = folder.write(
            known["model"],
            known["processing_class"],
            batch,
            metrics=sorted(metrics, key=lambda metric: (metric.name != best, metric.name == "loss")),
            history=history,
            best_epoch=next((epoch["epoch"] for epoch in history if chosen and epoch["step"] == kept), None),
            log=[
                {name: entry[name] for name in ("step", "epoch", "loss", "learning_rate", "grad_norm") if name in entry}
                for entry in state.log_history
                if "loss" in entry
            ],
            cost=Cost(
                training_seconds=None if seconds is None else round(seconds - self.evaluating, 1),
                total_seconds=None if seconds is None else round(seconds, 1),
                device=device_name(args.device, args.world_size),
                precision="bf16" if args.bf16 else "fp16" if args.fp16 else _PRECISIONS.get(known["model"].dtype),
            ),
        )
        assert record.verification is not None
        print(
            f"{folder.path}: loaded back by {' and '.join(record.verification['loaded_by'])}, "
            f"largest difference of logits {record.verification['max_difference']:.1e}"
        )

    def _metrics(self, log: list[dict[str, float]], step: int) -> list[Metric]:
        """The figures of the evaluations at a step."""
        found = {}
        for prefix, entry in _evaluations(log):
            split = self.split if prefix == "eval" else prefix.removeprefix("eval_")
            if entry["step"] == step:
                # The speed is all that tells of rows without a length, as of an evaluation before a resumed run.
                rows = self.rows.get(prefix, round(entry[f"{prefix}_runtime"] * entry[f"{prefix}_samples_per_second"]))
                if split in self.folder.data.splits:
                    rows = self.folder.data.splits[split].rows
                for name, value in _figures(prefix, entry).items():
                    found[split, name] = Metric(name=name, value=value, split=split, rows=rows)
        return list(found.values())

    def _history(self, log: list[dict[str, float]]) -> list[dict[str, Any]]:
        """One dict a step that was evaluated; `loss` is the mean over the steps since the one before."""
        lines = [entry for entry in log if "loss" in entry]
        steps = np.array([0, *(line["step"] for line in lines)])
        history: list[dict[str, Any]] = []
        for prefix, entry in _evaluations(log):
            if not history or history[-1]["step"] != entry["step"]:
                first = history[-1]["step"] if history else 0
                epoch = entry["epoch"]
                history.append({"epoch": int(epoch) if epoch == int(epoch) else epoch, "step": entry["step"]})
                since = (steps[1:] > first) & (steps[1:] <= entry["step"])
                if since.any():
                    losses = np.array([line["loss"] for line in lines])
                    history[-1]["loss"] = float(np.average(losses[since], weights=np.diff(steps)[since]))
            short = "" if prefix == "eval" else f"{prefix.removeprefix('eval_')}_"
            for name, value in _figures(prefix, entry).items():
                history[-1]["validation_loss" if short + name == "loss" else short + name] = value
        return history


def _evaluations(log: list[dict[str, float]]) -> Iterator[tuple[str, dict[str, float]]]:
    """The entries of the Trainer's log that are of an evaluation, with the prefix of their figures."""
    for entry in log:
        prefix = next((name.removesuffix("_runtime") for name in entry if name.endswith("_runtime")), "train")
        if prefix != "train":
            yield prefix, entry


def _figures(prefix: str, entry: dict[str, float]) -> dict[str, float]:
    """What an evaluation measured of the model, without its speed: name -> value."""
    return {
        name.removeprefix(f"{prefix}_"): float(value)
        for name, value in entry.items()
        if name.startswith(f"{prefix}_") and isinstance(value, int | float) and not _SPEED.search(name)
    }


def _settings(args: TrainingArguments) -> dict[str, Any]:
    """Numbers, switches and choices of TrainingArguments. Texts are left out: they may be paths or tokens."""
    settings = {}
    for setting in fields(args):
        value = getattr(args, setting.name)
        if setting.init and isinstance(value, bool | int | float | Enum):
            value = value.value if isinstance(value, Enum) else value
            changed = value != setting.default and (
                value or setting.default
            )  # some are None until they are set to False
            if setting.name in _ALWAYS_SHOWN or changed:
                settings[setting.name] = value
    return settings


def _embeds_sentences(model: Any) -> bool:
    """Whether it is a SentenceTransformer, without the import of a library that few have."""
    library = sys.modules.get("sentence_transformers")
    return library is not None and type(model) is library.SentenceTransformer


def _inner(model: Any) -> Any:
    """The transformers model inside an adapter or a SentenceTransformer, or the model itself."""
    if _embeds_sentences(model):
        return model[0].model
    return model.get_base_model() if isinstance(model, PeftModel) else model


def _base(config: Any, revision: str | None) -> Base | None:
    """The checkpoint a model was loaded from; None if it was built from a configuration."""
    if not config.name_or_path:
        return None
    folder = Path(config.name_or_path)
    if folder.is_dir():
        folder = folder.resolve()
        weights = weight_files(folder)
        if folder.parent == Path(samples.__file__).resolve().parent:
            return Base(f"tiny:{folder.name}", "embedded", config.model_type, weights=weights)
        return Base(folder.name, "local", config.model_type, license=license_in(folder), weights=weights)
    facts = hub.model_facts(config.name_or_path, revision)
    return Base(config.name_or_path, "hub", config.model_type, revision=facts.revision, license=facts.license)


def _adapter_method(model: PeftModel) -> dict[str, Any]:
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


def _configured(config: Any, revision: str | None) -> dict[str, Any]:
    """In what a model's configuration differs from its checkpoint's: an adapter has no config.json to say it."""
    stored = AutoConfig.from_pretrained(config.name_or_path, revision=revision).to_dict()
    return {
        name: value
        for name, value in config.to_dict().items()
        if stored.get(name) != value and name not in _NOT_CONFIGURED and not name.startswith("_")
    }


def _inputs(model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
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


def _write_probe(folder: Path, model: Any, inputs: dict[str, torch.Tensor]) -> None:
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
