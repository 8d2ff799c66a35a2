"""The YAML head of a card, and the Hub's newer form of results."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tl_hub.card import widget
from tl_hub.card.markdown import capitalized, interval_of, label_of, rounded, without_folders
from tl_hub.hub_names import LIBRARIES
from tl_hub.record import BaseModel, DataFacts, Metric, RunRecord
from tl_hub.tasks import catalog

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData


RESULTS = ".eval_results"
ESTIMATED = "estimated by tl_hub"
"""How the source of emissions begins that a push wrote, and no person."""


def results_file(record: RunRecord, task_id: str, source: str) -> dict[str, str]:
    """The first metric in the Hub's newer form, which is for benchmarks: path in the repository -> YAML.

    An entry has no name of a metric, so the notes say what it is (https://huggingface.co/docs/hub/eval-results).

    Args:
        task_id: of the task in the `eval.yaml` of the data set, which is on the Hub.
        source: URL of what the figure can be checked by.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    record = RunRecord.from_facts(record.facts())
    metric = record.metrics[0]
    entry = EvalResultEntry(
        dataset_id=record.data.id,
        task_id=task_id,
        value=rounded(metric),
        dataset_revision=record.data.revision,
        date=record.created,
        source_url=source,
        source_name="run.json: settings, rows and figures of the run",
        notes=", ".join([label_of(metric.name), *interval_of(metric), f"{metric.split} split", f"n = {metric.rows:,}"]),
    )
    name = re.sub(r"[^\w.-]+", "-", record.data.id.lower())
    return {f"{RESULTS}/{name}.yaml": yaml_dump(eval_result_entries_to_yaml([entry]))}


def metadata(record: RunRecord) -> "ModelCardData":
    """The YAML head. Only ids of the Hub stand in `base_model` and `datasets`: it links them, and refuses others."""
    from huggingface_hub import ModelCardData

    record = RunRecord.from_facts(record.facts())
    base = record.base
    base_on_hub = base is not None and base.source == "hub"
    # Its `language` takes ISO 639 codes alone: what names a region or script as well belongs in `language_bcp47`.
    languages = list(dict.fromkeys(code.partition("-")[0] for code in record.language))
    task = catalog.facts_of(record)
    # The card of a base under `other` says which license that is; what is made of it keeps it.
    license = record.license or (base.license if base else None)
    terms: RunRecord | BaseModel = record
    if license == "other" and base and base.license == "other" and not record.license_name:
        terms = base
    own, config = without_folders(record.data.id), record.settings.get("dataset_config")
    results = _results(record, record.data, own, config if record.data.source == "hub" else None, record.metrics)
    for domain in record.domains:
        # huggingface_hub tells results apart by the configuration and not by the name.
        config = domain.written.get("dataset_config") if domain.data.source == "hub" else domain.name
        results += _results(record, domain.data, domain.name, config, domain.metrics)
    return ModelCardData(
        language=languages or None,
        language_bcp47=[code for code in record.language if "-" in code] or None,
        license=license,
        license_name=terms.license_name if license == "other" else None,
        license_link=terms.license_link if license == "other" else None,
        library_name="peft" if record.kind == "adapter" else LIBRARIES.get(record.auto_class, "transformers"),
        pipeline_tag=task.tag,
        base_model=base.id if base and base_on_hub else None,
        base_model_relation=_relation(record) if base_on_hub else None,
        datasets=[record.data.id] if record.data.source == "hub" else None,
        metrics=list(dict.fromkeys(metric.name for metric in record.metrics)) or None,
        co2_eq_emissions=_emissions(record),
        widget=widget.entries(record),
        tags=["tl-hub", *task.tags, method_tag(record), *filter(None, [record.model_type])],
        model_name=" ".join(record.name.split()),
        eval_results=results or None,
    )


def _results(
    record: RunRecord, data: DataFacts, name: str, config: str | None, metrics: Sequence[Metric]
) -> "list[EvalResult]":
    """The figures on some rows. The Hub takes the form of an id only for a data set's type, and links it."""
    from huggingface_hub import EvalResult

    on_hub = data.source == "hub"
    return [
        EvalResult(
            task_type=catalog.facts_of(record).tag,
            dataset_type=data.id if on_hub else "unknown",  # which other libraries, too, write for rows it lacks
            dataset_name=name,
            dataset_config=config,
            dataset_split=metric.split,
            dataset_revision=data.revision if on_hub else None,
            metric_type=metric.name,
            metric_value=rounded(metric),
            metric_name=capitalized(label_of(metric.name))
            + f" ({', '.join([*interval_of(metric), f'n = {metric.rows:,}'])})",
        )
        for metric in metrics
    ]


def _emissions(record: RunRecord) -> dict[str, Any] | None:
    """The Hub's `co2_eq_emissions`, in grams; None where nobody gave the intensity of the grid."""
    cost = record.cost
    if cost.emissions is None:
        return None
    facts = {
        "emissions": float(f"{cost.emissions:.2g}"),
        "source": f"{ESTIMATED}: {cost.energy_by or 'energy'}; at {cost.carbon_intensity:g} g of CO2eq a kWh",
        "training_type": "pre-training" if record.kind == "pretrained" else "fine-tuning",
        "geographical_location": cost.location,
        "hardware_used": cost.device,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _relation(record: RunRecord) -> str:
    """How the Hub's model tree files a result; a head on frozen vectors is as little without its base as an adapter."""
    return "adapter" if record.kind == "adapter" or record.auto_class == "FeatureModel" else "finetune"


def method_tag(record: RunRecord) -> str:
    return re.sub(r"[^a-z0-9]+", "-", record.method["name"].lower()).strip("-")
