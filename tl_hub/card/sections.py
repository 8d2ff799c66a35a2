"""The parts of a card that are made of the record's facts: sentences and tables."""

import json
from typing import Any

from tl_hub import soup
from tl_hub.architectures import ARCHITECTURES
from tl_hub.card.markdown import (
    capitalized,
    code_span,
    cut,
    duration,
    figure,
    interval_of,
    keys_of,
    label_of,
    table,
    text_as_is,
    value_of,
    without_folders,
)
from tl_hub.methods.adapters import named
from tl_hub.record import BaseModel, Cost, DataFacts, Domain, Metric, RunRecord, SeedsMetric
from tl_hub.tasks import catalog

_PAPERS = {
    **{name: (f"{entry.title}: {entry.paper[0]}", entry.paper[1]) for name, entry in ARCHITECTURES.items()},
    "expected_calibration_error": ("Expected calibration error: Guo et al. 2017", "https://arxiv.org/abs/1706.04599"),
}


def base(base: BaseModel | None) -> str:
    if base is None:
        return ""
    if base.source == "hub":
        return f"[{base.id}](https://huggingface.co/{base.id})"
    kind = "the embedded checkpoint" if base.source == "embedded" else "the local checkpoint"
    return f"{kind} {code_span(without_folders(base.id))}"


def data(data: DataFacts) -> str:
    if data.source == "hub":
        return f"[{data.id}](https://huggingface.co/datasets/{data.id})"
    kind = "the embedded data" if data.source == "embedded" else "local data"
    return f"{kind} {code_span(without_folders(data.id))}"


def headline(record: RunRecord) -> str:
    """The first metric, in the middle of a sentence."""
    if not record.metrics:
        return ""
    metric = record.metrics[0]
    interval = "".join(f" ({text})" for text in interval_of(metric))
    rows = f"{metric.rows:,} row{'' if metric.rows == 1 else 's'}"
    label, split = text_as_is(label_of(metric.name)), text_as_is(metric.split)
    shown = f"{value_of(metric)}{interval}"
    if over := next((figure for figure in record.seeds if figure.name == metric.name), None):
        whole = [f"{text} over seeds and rows" for text in interval_of(over)]
        spread = f"standard deviation {figure(over.deviation)}, range {figure(over.least)} to {figure(over.most)}"
        mean = f"{value_of(over)} on average over {over.seeds} seeds ({', '.join([*whole, spread])})"
        if soup.is_kept(record):
            shown = f"{shown} with these weights, the average of those of {over.seeds} seeds,"
        else:
            shown = f"{mean}, and {shown} with these weights,"
    return f"{label} is {shown} on {rows} of the {split} split"


def seeds(metrics: list[SeedsMetric]) -> str:
    """The figures over the seeds; `Results` has those of the weights."""
    return table(
        ["Metric", "Seeds", "Mean", "95 % interval over seeds and rows", "Standard deviation", "Range"],
        [
            [
                text_as_is(capitalized(label_of(metric.name))),
                str(metric.seeds),
                value_of(metric),
                "".join(interval_of(metric)).removeprefix("95 % interval "),
                figure(metric.deviation),
                f"{figure(metric.least)} to {figure(metric.most)}",
            ]
            for metric in metrics
        ],
    )


def results(metrics: list[Metric]) -> str:
    return table(
        ["Metric", "Value", "95 % interval", "Split", "Rows"],
        [
            [
                text_as_is(capitalized(label_of(metric.name))),
                value_of(metric),
                "".join(interval_of(metric)).removeprefix("95 % interval "),
                text_as_is(metric.split),
                f"{metric.rows:,}",
            ]
            for metric in metrics
        ],
    )


def domains(record: RunRecord) -> str:
    """The figures on rows of other domains, and how much worse they are than those of the run's own rows."""
    return table(
        ["Rows of", "Metric", "Value", "95 % interval", "Worse than on its own rows by", "95 % interval", "Rows"],
        [
            [
                text_as_is(domain.name),
                text_as_is(capitalized(label_of(metric.name))),
                value_of(metric),
                "".join(interval_of(metric)).removeprefix("95 % interval "),
                "" if metric.drop is None else figure(round(metric.drop, 2)),
                ""
                if metric.drop_low is None or metric.drop_high is None
                else f"{figure(round(metric.drop_low, 2))} to {figure(round(metric.drop_high, 2))}",
                f"{metric.rows:,}",
            ]
            for domain in record.domains
            for metric in domain.metrics
        ],
    )


def domain_facts(domain: Domain) -> str:
    """What the rows of another domain are, in sentences."""
    facts = domain.data
    said = f"{text_as_is(domain.name)}: {data(facts)}"
    said += f", revision {code_span(facts.revision)}" if facts.revision else ""
    said += f", license {text_as_is(facts.license)}" if facts.license else ""
    for name, split in facts.splits.items():
        said += f", {split.rows:,} rows of its {text_as_is(name)} split"
        said += f", SHA-256 {code_span(split.sha256[:12])}" if split.sha256 else ""
    if facts.overlap:
        has = "has" if facts.overlap == 1 else "have"
        said += f". {facts.overlap:,} of the rows {has} an input that is also a training input"
    if facts.near_duplicates:
        said += f". {facts.near_duplicates:,} more {'is' if facts.near_duplicates == 1 else 'are'} nearly training rows"
    return " ".join([f"{said}.", *map(text_as_is, facts.notes)])


def table_of(rows: list[dict[str, Any]]) -> str:
    """A table of the record, whose rows are dicts."""
    columns = keys_of(rows)
    headers = [text_as_is(capitalized(label_of(name))) for name in columns]
    return table(headers, [[figure(row[name]) if name in row else "" for name in columns] for row in rows])


def examples(record: RunRecord, rows: list[dict[str, Any]]) -> str:
    """All columns but the context, which is long; in question answering no text stands for "there is no answer"."""
    columns = [name for name in keys_of(rows) if name != "context"]
    empty = f"*{catalog.facts_of(record).no_answer}*"

    def cell(row: dict[str, Any], name: str) -> str:
        if name not in row:
            return ""
        value = ", ".join(map(str, row[name])) if isinstance(row[name], list) else str(row[name])
        return text_as_is(cut(value)) or empty

    headers = [text_as_is(capitalized(name.replace("_", " "))) for name in columns]
    return table(headers, [[cell(row, name) for name in columns] for row in rows])


def splits(data: DataFacts) -> str:
    return table(
        ["Split", "Rows", "Features", "SHA-256"],
        [
            [
                text_as_is(name),
                f"{split.rows:,}",
                "" if split.features is None else f"{split.features:,}",
                code_span(split.sha256[:12]) if split.sha256 else "",
            ]
            for name, split in data.splits.items()
        ],
    )


def settings_table(settings: dict[str, Any]) -> str:
    rows = []
    for name, value in settings.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if value not in ("", [], {}):
            rows.append([code_span(name), code_span(cut(without_folders(shown)))])
    return table(["Setting", "Value"], rows)


def history(record: RunRecord) -> str:
    columns = keys_of(record.history)

    def cell(epoch: dict[str, Any], name: str) -> str:
        shown = figure(epoch[name]) if name in epoch else ""
        return f"**{shown} (kept)**" if name == "epoch" and shown and epoch[name] == record.best_epoch else shown

    headers = [text_as_is(capitalized(label_of(name))) for name in columns]
    return table(headers, [[cell(epoch, name) for name in columns] for epoch in record.history])


def skipped(record: RunRecord) -> int:
    """Steps that were skipped. Other training loops may mean something else by the name."""
    counts = [epoch.get("skipped_steps") for epoch in record.history]
    return sum(count for count in counts if isinstance(count, int))


def stopped_early(record: RunRecord) -> bool:
    """Whether training ended before its last epoch by its patience. There may be fewer steps for other reasons."""
    patience, epochs = record.settings.get("patience"), record.settings.get("epochs")
    if not patience or not epochs or len(record.history) >= epochs:
        return False
    return record.best_epoch is None or len(record.history) - record.best_epoch >= patience


def cost(record: RunRecord) -> str:
    cost = record.cost
    trained, total = cost.trainable_parameters, cost.total_parameters
    rows = [
        ["Training, without evaluations", duration(cost.training_seconds)],
        ["Whole run", duration(cost.total_seconds)],
        ["Training rows per second", "" if cost.rows_per_second is None else figure(cost.rows_per_second)],
        ["Peak memory", "" if cost.peak_memory_bytes is None else f"{cost.peak_memory_bytes / 2**20:,.0f} MiB"],
        ["Parameters", "" if total is None or trained is not None else f"{total:,}"],
        ["Parameters trained", "" if trained is None else f"{trained:,}"],
        ["Floating-point operations, estimated", "" if cost.operations is None else f"{cost.operations:.2g}"],
        ["Energy, estimated", "" if cost.energy_kwh is None else f"{cost.energy_kwh:.2g} kWh"],
        ["CO2 equivalent, estimated", _emissions(cost)],
        ["Device", text_as_is(cost.device or "")],
        ["Precision", text_as_is(cost.precision or "")],
    ]
    if trained is not None and total:
        rows[5][1] += f" of {total:,} ({100 * trained / total:.3g} %)"
    return table(["Cost", "Figure"], [row for row in rows if row[1]])


def _emissions(cost: Cost) -> str:
    if cost.emissions is None:
        return ""
    place = f" ({text_as_is(cost.location)})" if cost.location else ""
    return f"{cost.emissions:.2g} g at {cost.carbon_intensity:g} g/kWh{place}"


def estimates(cost: Cost) -> list[str]:
    """How the estimated figures were found, in a sentence each."""
    by = {"Operations": cost.operations_by, "Energy": cost.energy_by}
    return [f"{name}: {text_as_is(how)}." for name, how in by.items() if how]


def papers(record: RunRecord) -> list[str]:
    adapter, of_task = named(record.method["name"]), catalog.facts_of(record).paper
    papers = [_PAPERS.get(record.model_type or ""), adapter.paper if adapter else None, of_task]
    papers += [_PAPERS.get(metric.name) for metric in record.metrics]
    return [f"[{paper[0]}]({paper[1]})" for paper in papers if paper]
