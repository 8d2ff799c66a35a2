"""run.json: what is written is read back, and the schema says neither more nor less than the dataclasses."""

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tl_hub import record as record_module
from tl_hub.errors import UserError
from tl_hub.record import BaseModel, Cost, DataFacts, Domain, DomainMetric, Metric, RunRecord, SeedsMetric, SplitFacts

SCHEMA = record_module.schema()
PARTS: dict[type, dict[str, Any]] = {
    RunRecord: SCHEMA,
    BaseModel: SCHEMA["$defs"]["base"],
    DataFacts: SCHEMA["$defs"]["data"],
    SplitFacts: SCHEMA["$defs"]["split"],
    Metric: SCHEMA["$defs"]["metric"],
    SeedsMetric: SCHEMA["$defs"]["seeds_metric"],
    Domain: SCHEMA["$defs"]["domain"],
    DomainMetric: SCHEMA["$defs"]["domain_metric"],
    Cost: SCHEMA["$defs"]["cost"],
}
JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array"}
FIELDS = [(part, field.name) for part in PARTS for field in dataclasses.fields(part)]


def full() -> RunRecord:
    """Every field set."""
    digest = "0123456789abcdef" * 4
    return RunRecord(
        name="qa", kind="adapter", task="question-answering", pipeline_tag="question-answering",
        auto_class="AutoModelForQuestionAnswering",
        method={"name": "lora", "settings": {"rank": 8}},
        base=BaseModel(
            id="a/b", source="hub", model_type="bert", revision="c0ffee", license="mit", weights_sha256=digest
        ),
        data=DataFacts(
            id="x.jsonl, y.jsonl", source="local", revision="beef", license="mit", held_out=True, overlap=2,
            near_duplicates=1, notes=["Größe: 5 €."],
            splits={"train": SplitFacts(rows=9, features=11, sha256=digest), "validation": SplitFacts(rows=1)},
        ),
        metrics=[Metric(name="f1", value=0.1 + 0.2, low=0.25, high=1, split="validation", rows=1, unit="share")],
        settings={"epochs": 3, "betas": [0.9, 0.999], "schedule": "linear", "lower": True},
        command="recipe --epochs 3", history=[{"epoch": 1, "loss": 0.5}], best_epoch=1,
        decision={"null_threshold": 0.5},
        cost=Cost(
            training_seconds=1.5, total_seconds=2, rows_per_second=3.5, peak_memory_bytes=4, trainable_parameters=5,
            total_parameters=6, device="CPU, 2 cores", precision="fp32",
        ),
        software={"torch": "2"}, commit="abc", created="2026-11-22T00:00:00Z",
        examples=[{"question": "q", "context": "c\u2028c", "expected": "", "predicted": "p"}],
        config={"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}},
        seeds=[
            SeedsMetric(
                name="f1", value=0.25, low=0.125, high=0.5, split="validation", rows=1, unit="share", seeds=3,
                deviation=0.1, least=0.125, most=0.375,
            )
        ],
        domains=[
            Domain(
                name="tweets", data=DataFacts(id="a/t", source="hub", splits={"test": SplitFacts(rows=3)}),
                metrics=[
                    DomainMetric(
                        name="f1", value=0.25, low=0.125, high=0.5, split="test", rows=3, unit="share", drop=0.05,
                        drop_low=-0.2, drop_high=0.4,
                    )
                ],
                written={"text_column": "tweet"},
            )
        ],
        tables={"Classes": [{"class": "no", "F1": 0.5}]},
        verification={"max_difference": 0.0, "loaded_by": ["peft"]}, language=["no"],
    )  # fmt: skip


def minimal() -> dict[str, Any]:
    return {
        "name": "mine",
        "kind": "fine-tuned",
        "pipeline_tag": "text-classification",
        "auto_class": "AutoModelForSequenceClassification",
        "method": {"name": "fine-tuning"},
        "data": {"id": "imdb", "source": "hub", "splits": {"test": {"rows": 5}}},
        "metrics": [{"name": "accuracy", "value": 1, "split": "test", "rows": 5}],
    }


def load(folder: Path, facts: Any) -> RunRecord:
    text = facts if isinstance(facts, str) else json.dumps(facts)
    (folder / "run.json").write_text(text, encoding="utf-8")
    return RunRecord.load(folder)


def test_round_trip(tmp_path: Path) -> None:
    assert full().save(tmp_path) == tmp_path / "run.json"
    assert RunRecord.load(tmp_path) == full()


def test_round_trip_of_defaults(tmp_path: Path) -> None:
    read = load(tmp_path, minimal())
    read.save(tmp_path)
    assert RunRecord.load(tmp_path) == read
    assert "null" not in (tmp_path / "run.json").read_text()
    assert read.base is None and read.cost == Cost() and read.version == 2


def test_only_plain_values_are_written(tmp_path: Path) -> None:
    record = full()
    record.metrics.append(Metric(name="lost", value=float("nan"), split="test", rows=1))
    record.metrics[0].value = np.float32(0.5)  # type: ignore[assignment]
    record.metrics[0].low = float("-inf")
    record.history = [{"epoch": np.int64(1), "loss": np.float64("nan"), "kept": np.bool_(True)}]
    record.settings = {"betas": (0.9, 0.999), "layers": np.arange(2), "train_file": None}
    text = record.save(tmp_path).read_text()
    assert not {"NaN", "Infinity", "null"} & set(text.replace(",", " ").split())
    read = RunRecord.load(tmp_path)
    assert [(metric.name, metric.value, metric.low) for metric in read.metrics] == [("f1", 0.5, None)]
    assert read.history == [{"epoch": 1, "kept": True}]
    assert read.settings == {"betas": [0.9, 0.999], "layers": [0, 1]}


@pytest.mark.parametrize("kind", ["adapter", "merged", "fine-tuned", "feature-extraction", "pretrained"])
def test_a_loader_is_given_the_bases_revision_where_the_base_is_what_it_loads(kind: Any) -> None:
    """Weights that stand in the folder are of no commit of the base."""
    assert dataclasses.replace(full(), kind=kind).base_revision == ("c0ffee" if kind == "adapter" else None)


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_patterns_are_described() -> None:
    """The message about a value that does not match shows the description."""

    def check(part: Any) -> None:
        assert not (isinstance(part, dict) and isinstance(part.get("pattern"), str)) or part["description"]
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            check(inner)

    check(SCHEMA)


@pytest.mark.parametrize("place", ["pipeline_tag", "auto_class", "license"])
def test_a_final_line_break_is_no_part_of_a_name(place: str) -> None:
    """Python's `$` matches before one; what is refused here would become a line of code."""
    facts = {
        "name": "a", "kind": "adapter", "pipeline_tag": "fill-mask", "auto_class": "AutoModel", "license": "mit",
        "method": {"name": "lora"}, "data": {"id": "imdb", "source": "hub"}, "metrics": [],
    }  # fmt: skip
    record_module.validate(facts, "it")
    with pytest.raises(UserError, match=f"it: {place}: "):
        record_module.validate(facts | {place: facts[place] + "\n"}, "it")


@pytest.mark.parametrize("part", PARTS)
def test_schema_has_the_fields_of_the_dataclass(part: type) -> None:
    fields = dataclasses.fields(part)
    assert list(PARTS[part]["properties"]) == [field.name for field in fields]
    assert PARTS[part]["additionalProperties"] is False
    missing = dataclasses.MISSING
    needed = [field.name for field in fields if field.default is missing and field.default_factory is missing]
    assert sorted(PARTS[part].get("required", [])) == sorted(needed)


@pytest.mark.parametrize(("part", "name"), FIELDS)
def test_schema_has_the_types_of_the_dataclass(part: type, name: str) -> None:
    hint, found = typing.get_type_hints(part)[name], PARTS[part]["properties"][name]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    assert accepted(found) == set().union(*map(expected, kinds))
    assert "description" in found or "description" in SCHEMA["$defs"]["source"]


def expected(hint: Any) -> set[Any]:
    """JSON types, or the values, that an annotation stands for."""
    if hint is types.NoneType:
        return {"null"}
    if typing.get_origin(hint) is typing.Literal:
        return set(typing.get_args(hint))
    return {"object"} if dataclasses.is_dataclass(hint) else {JSON_TYPES[typing.get_origin(hint) or hint]}


def accepted(schema: dict[str, Any]) -> set[Any]:
    """JSON types, or the values, that a schema lets through."""
    if "$ref" in schema and "type" not in schema:
        return accepted(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]])
    if "const" in schema:
        return {JSON_TYPES[type(schema["const"])]}
    if "enum" in schema:
        return set(schema["enum"])
    return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])


def changed(path: str, value: Any) -> dict[str, Any]:
    """The facts of a full record with one place changed."""
    facts = full().facts()
    *way, last = path.split(".")
    place: Any = facts
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    place[last] = value
    return facts


WRONG = [
    ("kind", "lora", "kind"),
    ("version", 0, "version"),
    ("auto_class", "Auto Model", "auto_class"),
    ("pipeline_tag", "Question Answering", "pipeline_tag"),
    ("language", ["English"], "language.0"),
    ("metrics.0.value", "87", "metrics.0.value"),
    ("metrics.0.rows", 1.5, "metrics.0.rows"),
    ("metrics.0.unit", "per cent", "unit"),
    ("metrics.0.digits", 2, "digits"),
    ("base.source", "web", "base.source"),
    ("base.id", "/home/someone/bert", "base.id"),
    ("data.id", "/srv/x.jsonl", "data.id"),
    ("domains.0.data.id", "/srv/x", "domains.0.data.id"),
    ("domains.0.metrics.0.drop", "much", "domains.0.metrics.0.drop"),
    ("data.splits.train.rows", -1, "data.splits.train.rows"),
    ("data.splits.train", 5, "data.splits.train"),
    ("cost.device", 1, "cost.device"),
    ("method.rank", 8, "rank"),
    ("config", {"x=__import__('os').getcwd(), y": 1}, "config"),  # it becomes code of the card's snippet
    ("config", {"trust_remote_code": True}, "trust_remote_code"),
    ("config", {"attn_implementation": "someone/kernel"}, "attn_implementation"),  # would be downloaded, and run
    ("settings", {"max_length": "8, **(__import__('os').getcwd() and {})"}, "settings.max_length"),  # code of the card
    ("settings", {"max_source_length": True}, "settings.max_source_length"),
    ("settings", {"max_target_length": "1"}, "settings.max_target_length"),
    ("settings", {"beams": [1]}, "settings.beams"),
    ("seed", 1, "seed"),
]


@pytest.mark.parametrize(("path", "value", "named"), WRONG, ids=[path for path, _, _ in WRONG])
def test_wrong_field_is_named(tmp_path: Path, path: str, value: Any, named: str) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, changed(path, value))
    assert named in str(caught.value) and str(tmp_path) in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("name", minimal())
def test_missing_field_is_named(tmp_path: Path, name: str) -> None:
    facts = minimal()
    del facts[name]
    with pytest.raises(UserError, match=f"'{name}' is a required property"):
        load(tmp_path, facts)


def test_not_a_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run.json"):
        RunRecord.load(tmp_path)
    with pytest.raises(UserError, match="line 2 is not JSON"):
        load(tmp_path, '{"name": "x",\n nonsense}')
    with pytest.raises(UserError, match="the record: .* is not of type 'object'"):
        load(tmp_path, [1])
    (tmp_path / "run.json").write_bytes(b'{"name": "\xff"}')
    with pytest.raises(UserError, match="UTF-8"):
        RunRecord.load(tmp_path)


def test_a_record_of_a_newer_version_is_not_taken_for_a_wrong_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"made by a newer version of tl_hub \(its format is 3, this one reads 2\)"):
        load(tmp_path, minimal() | {"version": 3, "of_the_future": 1})
    with pytest.raises(UserError, match="version"):
        load(tmp_path, minimal() | {"version": 0})


def test_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + json.dumps(minimal())).name == "mine"


def test_a_model_made_from_a_licensed_one_has_its_license_unless_it_has_its_own(tmp_path):
    record = dataclasses.replace(full(), license="cc-by-4.0")
    record.save(tmp_path)
    assert record_module.license_in(tmp_path) == "cc-by-4.0"
    dataclasses.replace(record, license=None).save(tmp_path)
    assert record_module.license_in(tmp_path) == "mit", "the base's"
    dataclasses.replace(record, license=None, base=None).save(tmp_path)
    assert record_module.license_in(tmp_path) is None
