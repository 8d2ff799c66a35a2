"""The run record: everything a model card states about a run, kept as `run.json` in the run folder.

It is the seam between training and publishing: anyone with their own training loop writes this file (by hand, if they
like), and the rest of the package works from it. The format is `run.schema.json`, shipped beside this module.
Needs neither torch nor transformers.
"""

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tl_hub import run_folder
from tl_hub.errors import UserError, first_line

_DEEPEST = 50  # levels of a record
_OF_EXAMPLES = ("result", "example", "pipeline_output", "outputs", "same_output")
Kind = Literal["adapter", "feature-extraction", "fine-tuned", "merged", "pretrained"]
VERSION: Literal[2] = 2
"""Of this format. Version 1 named no task and no units; it is still read (`tl_hub.tasks.catalog.task_of`)."""


@dataclass(kw_only=True)
class BaseModel:
    """The model a run started from.

    Attributes:
        id: Hub id, `tiny:<family>` for an embedded checkpoint, or the name (never the path) of a local folder.
        source: where `id` is to be looked for.
        revision: commit on the Hub.
        weights_sha256: of the safetensors file(s) the run loaded.
        copy_of: `tiny:<family>`, of a repository on the Hub that a push made of an embedded checkpoint.
    """

    id: str
    source: Literal["hub", "embedded", "local"]
    model_type: str
    revision: str | None = None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    weights_sha256: str | None = None
    copy_of: str | None = None


@dataclass(kw_only=True)
class SplitFacts:
    """Rows (as the user counts them), features (windows the model reads) and the rows' SHA-256."""

    rows: int
    features: int | None = None
    sha256: str | None = None


@dataclass(kw_only=True)
class DataFacts:
    """What was trained and measured on.

    Attributes:
        id: Hub id, `sample:<task>`, or the names of local files.
        held_out: the validation rows were drawn from the training rows, as the source has none.
        overlap: rows of the measured split whose input is also a training input.
        near_duplicates: other rows of it that are nearly training rows (`tl_hub.near_duplicates`).
        notes: what the rows hold that a reader must know, in whole sentences.
    """

    id: str
    source: Literal["hub", "embedded", "local"]
    splits: dict[str, SplitFacts] = field(default_factory=dict)
    revision: str | None = None
    license: str | None = None
    held_out: bool = False
    overlap: int | None = None
    near_duplicates: int | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Metric:
    """A measured figure of the weights in this folder, with its 95 % interval where one could be had.

    `unit` is "%" for per cent, "share" for parts of 1; None where it is neither, or where nobody said so.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    split: str
    rows: int
    unit: Literal["%", "share", None] = None


@dataclass(kw_only=True)
class SeedsMetric(Metric):
    """A figure over several seeds: its mean, with an interval that covers other seeds and other rows, and its spread.

    Attributes:
        seeds: how many.
        deviation: standard deviation between them.
        least, most: the range.
    """

    seeds: int
    deviation: float
    least: float
    most: float


@dataclass(kw_only=True)
class DomainMetric(Metric):
    """A figure on rows of another domain, and by how much it is worse than that of the run's own measured rows.

    Attributes:
        drop: in the unit of the metric, below 0 where it is better; None where the run's own rows have no such figure.
        drop_low, drop_high: its 95 % interval.
    """

    drop: float | None = None
    drop_low: float | None = None
    drop_high: float | None = None


@dataclass(kw_only=True)
class Domain:
    """Rows of another domain that the weights in this folder were measured on.

    Attributes:
        written: how the rows are written, where otherwise than the run's own: settings by name.
    """

    name: str
    data: DataFacts
    metrics: list[DomainMetric]
    written: dict[str, str] = field(default_factory=dict)


def in_history(metric: str) -> str:
    """What a metric of the validation rows is called in a history, whose `loss` is that of training."""
    return "validation_loss" if metric == "loss" else metric


@dataclass(kw_only=True)
class Cost:
    """Seconds, bytes, parameters, and estimates of what training took.

    Attributes:
        training_seconds: without evaluations.
        total_seconds: wall-clock.
        operations: of floating-point numbers; `operations_by` says how they were found.
        energy_kwh: of training; `energy_by` says how it was found.
        carbon_intensity: grams of CO2 equivalent a kilowatt-hour, as the user gave it.
        location: of the machine, likewise.
    """

    training_seconds: float | None = None
    total_seconds: float | None = None
    rows_per_second: float | None = None
    peak_memory_bytes: int | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    operations: float | None = None
    operations_by: str | None = None
    energy_kwh: float | None = None
    energy_by: str | None = None
    carbon_intensity: float | None = None
    location: str | None = None
    device: str | None = None
    precision: str | None = None

    @property
    def emissions(self) -> float | None:
        """Grams of CO2 equivalent; None where nobody gave the intensity of the grid, which has no honest default."""
        if self.energy_kwh is None or self.carbon_intensity is None:
            return None
        return self.energy_kwh * self.carbon_intensity


@dataclass(kw_only=True)
class RunRecord:
    """One run. See the attributes' classes for what each part means.

    Attributes:
        name: title of the card; the run folder's name.
        kind: what the folder holds: an adapter, or a whole model that was fine-tuned, has an adapter merged into its
            weights (which is also there alone, in `adapter/`), was trained in its head only (feature-extraction), or
            pretrained from scratch.
        task: its name in `tl_hub.tasks.catalog`; if None, as from another training loop, the tag names it.
        pipeline_tag: the Hub's name of the task, which several tasks may share.
        auto_class: class that loads the model: one of `transformers`, `FeatureModel` of tl_hub, or
            `SentenceTransformer`.
        method: name and settings of the training method.
        settings: every setting of the run and the task.
        command: the line that ran it, local paths reduced to file names.
        history: one dict for each epoch (or evaluation); `best_epoch` is the one whose weights are in the folder.
        decision: what inference needs besides the weights, such as a threshold chosen on the validation rows.
        examples: rows of the measured split with expected and predicted answer.
        mistakes: those of them that it was surest of and that are wrong, with their probability.
        config: values of the model's configuration that an adapter must be loaded with, as it has no config.json.
        domains: figures on rows of other domains.
        seeds: the figures of the same run with several seeds, of which this one is the median on the validation rows.
        tables: further tables, title -> rows, such as simple systems measured on the same rows.
        language: ISO 639 codes of the texts.
        license: of what the folder holds, as the Hub names it.
        license_name: of one that the Hub does not list, whose `license` is `other`.
        license_link: URL of its text, or LICENSE for the file in the folder.
        variants: repositories of the same training, where the adapter and the merged model are published apart.
        token_ids: hard texts -> numbers of their tokens, by which `tl_hub.canary` notices another tokenizer.
        verification: what loading the folder back in a fresh process gave; None before it has been done.
    """

    name: str
    kind: Kind
    pipeline_tag: str
    auto_class: str
    method: dict[str, Any]
    base: BaseModel | None = None
    data: DataFacts
    metrics: list[Metric]
    settings: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: float | None = None
    decision: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    software: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    created: str | None = None
    examples: list[dict[str, Any]] = field(default_factory=list)
    mistakes: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    seeds: list[SeedsMetric] = field(default_factory=list)
    domains: list[Domain] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    verification: dict[str, Any] | None = None
    language: list[str] = field(default_factory=list)
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None
    task: str | None = None
    variants: dict[str, str] = field(default_factory=dict)
    token_ids: dict[str, str] = field(default_factory=dict)
    version: Literal[1, 2] = VERSION

    @property
    def model_type(self) -> str | None:
        """The base's family; of a model pretrained from scratch, that of the method's settings."""
        return self.base.model_type if self.base else self.method.get("settings", {}).get("model_type")

    @property
    def base_revision(self) -> str | None:
        """The revision to give a stock loader of the run folder, which takes an adapter's base from `main` without."""
        return self.base.revision if self.base and self.kind == "adapter" else None

    def hide_examples(self) -> None:
        """Take the rows that are shown out of the record, and what a load-back says of them."""
        self.examples = self.mistakes = []
        if self.verification:
            self.verification = {
                name: self.verification[name] for name in self.verification if name not in _OF_EXAMPLES
            }

    def save(self, folder: str | Path) -> Path:
        """Write `run.json` into `folder`; fields nobody knows are left out."""
        path = Path(folder) / run_folder.RECORD
        path.write_text(self.text(), encoding="utf-8")
        return path

    def text(self) -> str:
        """What `save` writes."""
        return json.dumps(self.facts(), indent=2, ensure_ascii=False) + "\n"

    def facts(self) -> dict[str, Any]:
        """The content of `run.json`: plain values only, nothing that is None or NaN, no metric without a value."""
        known = _known(dataclasses.asdict(self))
        for part, name in [(known, "metrics"), (known, "seeds"), *((domain, "metrics") for domain in known["domains"])]:
            part[name] = [metric for metric in part[name] if "value" in metric]
        return known

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "RunRecord":
        """The record of what `facts` gave; what is missing takes its default."""
        base, config = facts.get("base"), dict(facts.get("config", {}))
        if "id2label" in config:
            config["id2label"] = {int(number): label for number, label in config["id2label"].items()}  # JSON has texts
        return cls(
            **{
                **facts,
                "base": BaseModel(**base) if base else None,
                "data": _data_of(facts["data"]),
                "config": config,
                "metrics": [Metric(**metric) for metric in facts["metrics"]],
                "seeds": [SeedsMetric(**metric) for metric in facts.get("seeds", [])],
                "domains": [
                    Domain(
                        **{
                            **domain,
                            "data": _data_of(domain["data"]),
                            "metrics": [DomainMetric(**metric) for metric in domain["metrics"]],
                        }
                    )
                    for domain in facts.get("domains", [])
                ],
                "cost": Cost(**facts.get("cost", {})),
            }
        )

    @classmethod
    def load(cls, folder: str | Path) -> "RunRecord":
        """Read the `run.json` of a run folder.

        Raises:
            UserError: there is none, it does not fit the schema (names the field), or a newer tl_hub wrote it.
        """
        path = Path(folder) / run_folder.RECORD
        if not os.path.isfile(path):  # pathlib fails on a name that is too long
            raise UserError(f"{folder} holds no {run_folder.RECORD}; it is not a run folder")
        try:
            facts = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors write a byte-order mark
            _check_plain(facts)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {error.lineno} is not JSON ({error.msg})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path} is not UTF-8 text; save it as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} cannot be read ({first_line(error)})") from error
        newer = facts.get("version") if isinstance(facts, dict) else None
        if isinstance(newer, int) and newer > VERSION:
            raise UserError(
                f"{path} was made by a newer version of tl_hub (its format is {newer}, this one reads {VERSION}); "
                "update with pip install -U tl_hub"
            )
        validate(facts, str(path))
        return cls.from_facts(facts)


def _data_of(facts: dict[str, Any]) -> DataFacts:
    splits = {name: SplitFacts(**split) for name, split in facts.get("splits", {}).items()}
    return DataFacts(**{**facts, "splits": splits})


def license_in(folder: Path) -> str | None:
    """License of the model in a folder, or of what that started from; None where no run record tells.

    Raises:
        UserError: the record cannot be read.
    """
    if not (folder / run_folder.RECORD).is_file():
        return None
    run = RunRecord.load(folder)
    return run.license or (run.base.license if run.base else None)


def schema() -> dict[str, Any]:
    """The JSON Schema of `run.json`."""
    return json.loads(Path(__file__).with_name("run.schema.json").read_text(encoding="utf-8"))


def validate(facts: Any, where: str) -> None:
    """Check the content of a `run.json`.

    Raises:
        UserError: names the first field that does not fit, and why.
    """
    from jsonschema import Draft202012Validator, ValidationError, validators  # slow to import, and only needed here

    def pattern(validator: Any, form: str, instance: Any, _: Any) -> Iterator[ValidationError]:
        # Python's $ also matches before a final line break, ECMA-262's, which JSON Schema asks for, does not.
        if isinstance(instance, str) and not re.search(re.sub(r"\$$", r"\\Z", form), instance):
            yield ValidationError(f"{instance!r} does not match {form!r}")

    faults = validators.extend(Draft202012Validator, {"pattern": pattern})(schema()).iter_errors(facts)
    fault = min(faults, key=lambda fault: list(map(str, fault.absolute_path)), default=None)
    if fault is not None:
        field_name = ".".join(map(str, fault.absolute_path)) or "the record"
        # A pattern says little to a person; the schema's description of the field says what is meant.
        meant = f" ({fault.schema['description']})" if fault.validator == "pattern" else ""
        raise UserError(f"{where}: {field_name}: {fault.message[:300]}{meant}")


def _check_plain(value: Any, depth: int = 0) -> None:
    """
    Raises:
        ValueError: too deep for those who read it, or a text that no file can hold.
    """
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            _check_plain(part, depth + 1)


def _known(value: Any) -> Any:
    """Plain values: numpy's become Python's; None, NaN and the infinities, which JSON lacks, are left out."""
    if hasattr(value, "tolist"):  # numpy and torch, neither of which is imported here
        value = value.tolist()
    if isinstance(value, dict):
        kept = {name: _known(item) for name, item in value.items()}
        return {name: item for name, item in kept.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_known(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
