"""The model card, against parsers that are not ours: the Hub's client, a Markdown parser and the reference Hub."""

import ast
import copy
import dataclasses
import importlib.util
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from tl_hub import card
from tl_hub.card.metadata import results_file
from tl_hub.errors import UserError
from tl_hub.record import BaseModel, Cost, DataFacts, Metric, RunRecord, SplitFacts

REFHUB = Path(__file__).parents[2] / "shared" / "refhub" / "refhub.py"
GOLDEN = Path(__file__).parents[1] / "model_cards"
SHA = "c7be5b2f12ac41a5aeb4e1d3a6f1a2b3c4d5e6f7"
DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
BASES = {
    "hub": BaseModel(
        id="google-bert/bert-base-uncased", source="hub", model_type="bert", revision=SHA, license="apache-2.0",
        weights_sha256=DIGEST,
    ),
    "embedded": BaseModel(id="tiny:bert", source="embedded", model_type="bert", license="cc-by-sa-4.0"),
    "local": BaseModel(id="my-bert", source="local", model_type="bert"),
}  # fmt: skip
SPLITS = {
    "train": SplitFacts(rows=87599, features=88524, sha256=DIGEST),
    "validation": SplitFacts(rows=10570, features=10784, sha256=DIGEST[::-1]),
}
DATA = {
    "hub": DataFacts(
        id="rajpurkar/squad", source="hub", revision=SHA[::-1], license="cc-by-sa-4.0", overlap=0, splits=SPLITS
    ),
    "embedded": DataFacts(id="sample:qa", source="embedded", splits=SPLITS, notes=["Written by a grammar."], overlap=3),
    "local": DataFacts(id="train.jsonl, test.jsonl", source="local", splits=SPLITS, held_out=True),
}
KINDS = ("adapter", "feature-extraction", "fine-tuned", "pretrained")


def sample(kind: str = "adapter", base: str = "hub", data: str = "hub") -> RunRecord:
    """A run as finish.py records it."""
    return RunRecord(
        name="qa_adapter",
        kind=kind,  # type: ignore[arg-type]
        pipeline_tag="question-answering",
        auto_class="AutoModelForQuestionAnswering",
        method={"name": "lora", "settings": {"rank": 8, "alpha": 16, "dropout": 0.0}},
        base=copy.deepcopy(BASES[base]),
        data=copy.deepcopy(DATA[data]),
        metrics=[
            Metric(name="exact_match", value=79.8423, low=79.01, high=80.66, split="validation", rows=10570),
            Metric(name="f1", value=87.6512, low=86.99, high=88.31, split="validation", rows=10570),
        ],
        settings={"epochs": 2, "learning_rate": 5e-4, "max_length": 384, "doc_stride": 128, "schedule": "linear"},
        command="accelerate launch recipes/qa_adapter.py --preset squad",
        history=[
            {"epoch": 1, "step": 5533, "loss": 1.4421, "f1": 86.02, "exact_match": 77.91},
            {"epoch": 2, "step": 11066, "loss": 0.9873, "f1": 87.6512, "exact_match": 79.8423},
        ],
        best_epoch=2,
        cost=Cost(
            training_seconds=1843.2, total_seconds=2011.9, rows_per_second=96.05, peak_memory_bytes=4_512_000_000,
            trainable_parameters=1_341_698, total_parameters=110_234_882, device="1 x NVIDIA H200", precision="bf16",
        ),
        software={"python": "3.11.7", "torch": "2.11.0", "transformers": "5.23.0", "peft": "0.21.2"},
        commit=SHA,
        created="2026-11-22T15:00:00Z",
        examples=[
            {"question": "When was the tower built?", "context": "It was built in 1889. " * 9, "expected": "1889",
             "predicted": "1889"},
            {"question": "What does <b>a|b</b> mean?", "context": "The mark \"a|b\" means\neither of two.",
             "expected": "either of\ntwo", "predicted": "a|b \\| `c`"},
            {"question": "Who paid for it?", "context": "Nobody wrote that down. " * 40, "expected": "",
             "predicted": "Nobody"},
        ],
        verification={
            "max_difference": 1.2e-06, "loaded_by": ["peft", "transformers"],
            "pipeline_output": {"answer": "either of two", "score": 0.91234567, "start": 21, "end": 31},
        },
        language=["en"],
    )  # fmt: skip


def minimal() -> dict[str, Any]:
    """What a person would write by hand."""
    return {
        "name": "my run",
        "kind": "fine-tuned",
        "pipeline_tag": "text-classification",
        "auto_class": "AutoModelForSequenceClassification",
        "method": {"name": "fine-tuning"},
        "data": {"id": "imdb", "source": "hub", "splits": {"test": {"rows": 25000}}},
        "metrics": [{"name": "accuracy", "value": 0.93, "split": "test", "rows": 25000}],
    }


def data_of(text: str) -> Any:
    """The metadata as the Hub's client reads it."""
    return ModelCard(text).data


def tables_of(text: str) -> list[list[list[str]]]:
    """Tables as CommonMark + GFM sees them: table -> rows -> the text of each cell."""
    parser = pytest.importorskip("markdown_it", reason="needs markdown-it-py").MarkdownIt("commonmark").enable("table")
    tables: list[list[list[str]]] = []
    for token in parser.parse(ModelCard(text).text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            tables[-1].append([])
        elif token.type == "inline" and token.level > 3 and tables:
            tables[-1][-1].append("".join(child.content for child in token.children))
    return tables


ALL = list(itertools.product(KINDS, BASES, DATA))


@pytest.mark.parametrize(("kind", "base", "data"), ALL)
def test_nothing_unknown_blank_or_private(kind: str, base: str, data: str) -> None:
    # The Hub's word for the type of data that it lacks.
    text = card.render(sample(kind, base, data), curves=True).replace("      type: unknown\n", "")
    assert not re.search(r"\b(None|N/A|nan|unknown|null|Undefined)\b", text, re.IGNORECASE)
    assert "\n\n\n" not in text
    assert not re.search(r"[ \t]$", text, re.MULTILINE), "a line ends in blanks: a field is empty"
    assert not re.search(r"\|[ \t]*\|", text), "an empty cell"
    assert not re.search(r"^#+ .*\n+(#|\Z)", text, re.MULTILINE), "a heading with nothing under it"
    assert not re.search(r"(?<![\w.:/<~])(~?/\w|[A-Z]:[/\\])", text), "an absolute path"


OPTIONAL = sorted({field.name for field in dataclasses.fields(RunRecord)} - set(minimal()) - {"version"})


@pytest.mark.parametrize("keep", OPTIONAL)
def test_with_and_without_each_optional_field(keep: str) -> None:
    full = sample()
    alone = RunRecord.from_facts(minimal())
    setattr(alone, keep, getattr(full, keep))
    without = RunRecord.from_facts({k: v for k, v in full.facts().items() if k != keep})
    for record in (alone, without):
        text = card.render(record)
        assert "\n\n\n" not in text and "None" not in text
        assert not re.search(r"^#+ .*\n+(## |\Z)", text, re.MULTILINE), "a heading with nothing under it"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_metadata_names_only_hub_ids(kind: str, base: str) -> None:
    data = data_of(card.render(sample(kind, base, "local"))).to_dict()
    assert data.get("base_model") == ("google-bert/bert-base-uncased" if base == "hub" else None)
    relation = "adapter" if kind == "adapter" else "finetune"
    assert data.get("base_model_relation") == (relation if base == "hub" else None)
    assert data["library_name"] == ("peft" if kind == "adapter" else "transformers")
    assert data.get("license") == {"hub": "apache-2.0", "embedded": "cc-by-sa-4.0"}.get(base)
    head = dataclasses.replace(sample(kind, base, "local"), auto_class="FeatureModel")
    assert data_of(card.render(head)).to_dict().get("base_model_relation") == ("adapter" if base == "hub" else None), (
        "no base in it"
    )
    assert "datasets" not in data
    assert data["tags"] == ["tl-hub", "lora", "bert"]
    own = dataclasses.replace(sample(kind, base, "local"), license="mit")
    assert data_of(card.render(own)).to_dict()["license"] == "mit", "the result's own, not the base's"


def test_metadata_round_trip(tmp_path: Path) -> None:
    record = sample()
    record.save(tmp_path)
    path = card.write(tmp_path)
    assert path == tmp_path / "README.md"
    data: Any = ModelCard.load(path).data
    assert (data.datasets, data.language, data.pipeline_tag) == (["rajpurkar/squad"], ["en"], "question-answering")
    assert data.model_name == "qa_adapter" and data.metrics == ["exact_match", "f1"]
    assert [(r.metric_type, r.metric_value) for r in data.eval_results] == [("exact_match", 79.84), ("f1", 87.65)]
    result = data.eval_results[1]
    assert result.metric_name == "F1 (95 % interval 86.99 to 88.31, n = 10,570)"
    assert (result.dataset_type, result.dataset_split) == ("rajpurkar/squad", "validation")
    assert result.dataset_revision == SHA[::-1]
    assert data_of(str(ModelCard.load(path))).to_dict() == card.metadata(record).to_dict()


@pytest.mark.parametrize("data", ["hub", "embedded", "local"])
def test_the_hub_takes_the_type_of_any_data(data: str) -> None:
    """The pattern is the one in the Hub's refusal, as mteb#1111 quotes it."""
    record = sample("adapter", "hub", data)
    record.data.revision = SHA
    results = yaml.safe_load(card.metadata(record).to_yaml())["model-index"][0]["results"]
    assert {result["dataset"].get("revision") for result in results} == {SHA if data == "hub" else None}
    types = {result["dataset"]["type"] for result in results}
    assert all(re.match(r"^(?:[\w-]+\/)?[\w\-.]+$", kind) for kind in types)
    assert (types == {"rajpurkar/squad"}) == (data == "hub")
    assert {result["dataset"]["name"] for result in results} == {DATA[data].id}


def test_regions_and_scripts_stand_beside_the_language() -> None:
    """`language` takes ISO 639 codes alone (espnet_model_zoo#102: 17 cards refused)."""
    record = sample()
    record.language = ["pt-BR", "pt", "zh-Hant-TW"]
    head = yaml.safe_load(card.metadata(record).to_yaml())
    assert head["language"] == ["pt", "zh"]
    assert head["language_bcp47"] == ["pt-BR", "zh-Hant-TW"]
    text, _ = card.merge(card.render(sample()), card.render(record))
    head = yaml.safe_load(text.split("---")[1])
    assert head["language"] == ["en"] and "language_bcp47" not in head


def test_norwegian_is_not_false() -> None:
    record = sample()
    record.language = ["no", "en"]
    text = card.render(record)
    assert data_of(text).language == ["no", "en"]
    assert data_of(str(ModelCard(text))).language == ["no", "en"]


@pytest.mark.parametrize(
    ("value", "stated"),
    [(73.52380952380952, 73.52), (8, 8.0), (100.0, 100.0), (0.0, 0.0), (0.123456789, 0.1235), (5.0449, 5.045),
     (1234.5678, 1235.0), (1.5e-07 / 3, 5e-08), (-3.14159265, -3.142)],
)  # fmt: skip
def test_metadata_and_text_state_the_same_figures(value: float, stated: float, tmp_path: Path) -> None:
    record = sample()
    record.metrics = [Metric(name="f1", value=value, split="test", rows=3)]
    (result,) = data_of(card.render(record)).eval_results
    assert result.metric_value == stated
    (entry,) = parse_eval_result_entries(yaml.safe_load(results_file(record, "f1", "https://a.b/c").popitem()[1]))
    assert entry.value == stated
    (table,) = [table for table in tables_of(card.render(record)) if table[0][0] == "Metric"]
    assert float(table[1][1].replace(",", "")) == stated
    record.save(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["metrics"][0]["value"] == value, "in full"


def test_numpy_and_nan() -> None:
    record = sample()
    record.metrics[0].value = float("nan")
    record.metrics[1].value = np.float32(87.5)  # type: ignore[assignment]
    record.metrics[1].low = np.float64("nan")
    record.metrics[1].rows = np.int64(10570)  # type: ignore[assignment]
    record.history[0]["loss"] = np.float64("inf")
    record.settings["seeds"] = np.arange(3)
    text = card.render(record)
    (result,) = data_of(text).eval_results
    assert (result.metric_type, result.metric_value, type(result.metric_value)) == ("f1", 87.5, float)
    assert result.metric_name == "F1 (n = 10,570)"
    assert "[0, 1, 2]" in text
    assert not re.search(r"\b(nan|inf)\b|python/|!!", text)


def test_without_any_metric() -> None:
    record = sample()
    record.metrics = []
    text = card.render(record)
    assert "## Results" not in text and "model-index" not in text and "metrics" not in data_of(text).to_dict()


def test_tables_stay_tables() -> None:
    record = sample()
    record.settings["separator|mark"] = "a|b`c\\|d\ne"
    record.examples[0]["predicted"] = "*x* _y_ [z](u) <extra_id_0> &amp; ~~s~~ \\"
    tables = tables_of(card.render(record))
    for table in tables:
        assert len({len(row) for row in table}) == 1
    examples = next(table for table in tables if table[0] == ["Question", "Expected", "Predicted"])
    assert len(examples) == 1 + len(record.examples)
    assert examples[1][2] == "*x* _y_ [z](u) <extra_id_0> &amp; ~~s~~ \\"
    assert examples[2] == ["What does <b>a|b</b> mean?", "either of two", "a|b \\| `c`"]
    assert examples[3][1:] == ["no answer", "Nobody"]
    assert ["separator|mark", "a|b`c\\|d e"] in next(table for table in tables if ["epochs", "2"] in table)


def test_long_cells_are_cut() -> None:
    record = sample()
    record.examples[0]["expected"] = "word " * 500
    cells = [cell for table in tables_of(card.render(record)) for row in table for cell in row]
    assert max(map(len, cells)) <= 160 and any(cell.endswith("…") for cell in cells)


def test_best_epoch_is_marked() -> None:
    record = sample()
    record.best_epoch = 1
    epochs = next(table for table in tables_of(card.render(record)) if table[0][0] == "Epoch")
    assert [row[0] for row in epochs[1:]] == ["1 (kept)", "2"]


def test_skipped_steps_are_counted() -> None:
    record = sample()
    assert "skipped" not in card.render(record)
    record.history = [{"epoch": 1, "skipped_steps": 1}, {"epoch": 2}, {"epoch": 3, "skipped_steps": 2}]
    assert "\n3 steps were skipped, as the loss or the gradient was not finite.\n" in card.render(record)
    record.history = [{"epoch": 1, "skipped_steps": 1}]
    assert "\n1 step was skipped, as" in card.render(record)
    record.history = [{"epoch": 1, "skipped_steps": "some"}]  # by another training loop
    assert "skipped, as" not in card.render(record)


def test_absolute_paths_keep_only_their_last_part() -> None:
    record = sample(base="local", data="local")
    assert record.base
    record.base.id = "/home/someone/models/my-bert"
    record.data.id = "C:\\Users\\someone\\train.jsonl, /srv//data/test.jsonl"
    record.command = "accelerate launch recipes/qa.py --train_file=/srv/data/rows.jsonl --model ~/models/my-bert ./x/y"
    record.settings["test_file"] = "file:///home/someone/test.jsonl"
    record.settings["files"] = ["/home/someone/a.jsonl", "//server/share/b.jsonl"]
    record.settings["label_separator"] = "yes / no, and/or"
    text = card.render(record)
    assert "yes / no, and/or" in text, "no path at all"
    assert not re.search(r"someone|srv|/home|Users|share|~/", text)
    for kept in (
        "`my-bert`",
        "train.jsonl, test.jsonl",
        "--train_file=rows.jsonl",
        "recipes/qa.py",
        "./x/y",
        "b.jsonl",
    ):
        assert kept in text


def test_curves_only_where_they_are(tmp_path: Path) -> None:
    sample().save(tmp_path)
    assert "curves.png" not in card.write(tmp_path).read_text()
    (tmp_path / "curves.png").write_bytes(b"png")
    (tmp_path / "risk_coverage.png").write_bytes(b"png")
    text = card.write(tmp_path).read_text()
    assert "![curves](curves.png)" in text and "by the per cent of rows answered](risk_coverage.png)" in text


def test_demonstration_is_said_where_something_is_embedded() -> None:
    said = {(b, d): "demonstration" in card.render(sample(base=b, data=d)) for b in BASES for d in DATA}
    assert said == {(b, d): "embedded" in (b, d) for b in BASES for d in DATA}


def test_how_windows_are_combined_is_said_as_the_task_does_it() -> None:
    record = sample()
    assert "windows. The answer is the best span of all windows.\n" in card.render(record)
    record.decision = {"null_threshold": 1.25}
    assert "and there is no answer only if all windows agree." in card.render(record)
    record.pipeline_tag, record.auto_class = "text-classification", "AutoModelForSequenceClassification"
    assert "windows. The logits of the windows are averaged.\n" in card.render(record)
    record.kind, record.auto_class = "feature-extraction", "FeatureModel"
    assert "windows. The head reads the mean of the windows' vectors.\n" in card.render(record)
    del record.settings["doc_stride"]
    assert "windows" not in card.render(record), "texts are cut"


def test_rows_of_a_split_are_counted_once_in_the_limits() -> None:
    record = sample()
    record.metrics.append(Metric(name="f1_answerable", value=90.0, split="validation", rows=9000))
    text = card.render(record)
    assert "- Measured only on 10,570 rows of the validation split of [rajpurkar/squad]" in text
    record.metrics.append(Metric(name="f1", value=90.0, split="test", rows=1))
    assert "10,570 rows of the validation split and on 1 row of the test split of" in card.render(record)


def test_adapter_without_its_base_is_admitted() -> None:
    said = {(k, b): "cannot be loaded without it" in card.render(sample(k, b)) for k in KINDS for b in BASES}
    assert [pair for pair, is_said in said.items() if is_said] == [("adapter", "local")]


def test_choice_on_the_reported_rows_is_admitted() -> None:
    record = sample()
    assert "best epoch was chosen on the same validation rows" in card.render(record)
    for metric in record.metrics:
        metric.split = "test"
    assert "best epoch was chosen" not in card.render(record)


def test_threshold_is_stated() -> None:
    record = sample()
    assert "expect an answer to every question" in card.render(record)
    record.decision = {"null_threshold": 1.25}
    text = card.render(record)
    assert "`null_threshold` | `1.25`" in text and "It can say that a text holds no answer" in text
    assert "expect an answer to every question" not in text


@pytest.mark.parametrize(("kind", "base", "data"), ALL)
@pytest.mark.parametrize("place", [(None, None), ("someone/qa_adapter", None), ("someone/qa_adapter", "dev")])
def test_snippet_compiles_and_defines_model_and_tokenizer(
    kind: str, base: str, data: str, place: tuple[str | None, str | None]
) -> None:
    record = sample(kind, base, data)
    code = card.snippet(record, *place)
    assert code.strip() in card.render(record, *place)
    tree = ast.parse(code)
    names = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
    assert {"model", "tokenizer"} <= names
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    places = {"google-bert/bert-base-uncased", SHA, "bert", "float32"} if kind == "adapter" else set()
    assert texts - places == ({".", None} if place[0] is None else {*place}) - {None}
    assert "my-bert" not in code


def test_pipeline_snippet_asks_a_recorded_question_verbatim() -> None:
    record = sample()
    context = 'Zürich:\t "a\\b"\n\n' + "It  was built in 1889 - once. " * 30
    record.examples = [{**record.examples[0], "context": context}]
    record.verification = None
    called: dict[str, Any] = {}
    fake = MagicMock()
    fake.pipeline = lambda place: lambda **arguments: called.update(arguments, place=place)
    code = card.pipeline_snippet(record, "someone/x")
    assert code and max(map(len, code.splitlines())) < 130
    exec(code.replace("import tl_hub", ""), {"tl_hub": fake})
    assert called == {k: record.examples[0][k] for k in ("question", "context")} | {"place": "someone/x"}
    assert "#" not in code


def test_stock_calls_read_a_question_as_the_pipeline_does() -> None:
    record = sample()
    record.examples = [{**record.examples[0], "question": " When? \n"}]
    code = card.call_snippet(record)
    assert code and 'question = "When?"\n' in code
    assert ".tril(29)" in code, "30 tokens where the record has no longest answer"
    record.settings["max_answer_length"] = 7
    code = card.call_snippet(record)
    assert code and ".tril(6)" in code


def test_the_shortest_row_that_was_answered_is_asked() -> None:
    record = sample()
    record.examples = [
        {"question": "Who?", "context": "Short.", "expected": "", "predicted": ""},
        {"question": "What?", "context": "A longer text than that.", "expected": "text", "predicted": "text"},
        {"question": "Where?", "context": "A text that is longer than all others.", "predicted": "text"},
    ]
    assert "A longer text than that." in (card.pipeline_snippet(record, None) or "")
    record.examples = record.examples[:1]
    assert "Short." in (card.pipeline_snippet(record, None) or "")


def test_pipeline_snippet_shows_only_what_was_measured() -> None:
    record = sample()
    code = card.pipeline_snippet(record, None)
    assert code and json.loads(code.splitlines()[-1].removeprefix("# "))["answer"] == "either of two"
    for row in record.examples:
        del row["context"]
    assert card.pipeline_snippet(record, None) is None and "tl_hub.pipeline" not in card.render(record)


def test_minimal_record_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(minimal()))
    text = card.write(tmp_path, "someone/my-run").read_text()
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    assert headings == ["my run", "How to use", "Results", "Data", "Procedure", "Limits"]
    assert "Its accuracy is 0.93 on 25,000 rows of the test split." in text
    assert 'from_pretrained("someone/my-run")' in text


def test_pretrained_from_scratch() -> None:
    record = sample("pretrained", data="embedded")
    record.base, record.pipeline_tag = None, "fill-mask"
    record.method = {"name": "from scratch", "settings": {"model_type": "bert", "layers": 4}}
    text = card.render(record)
    assert "It was trained from scratch on the embedded data `sample:qa`." in text
    assert data_of(text).tags == ["tl-hub", "from-scratch", "bert"]
    assert "1810.04805" in text and "SQuAD" not in text and "tl_hub.pipeline" not in text


def test_a_new_push_keeps_what_a_person_wrote() -> None:
    old, record = card.render(sample(), "someone/x"), sample()
    record.metrics[0].value = 12.5
    new = card.render(record, "someone/x")
    assert card.merge(new, old) == (new, []) and card.merge(old, old) == (old, [])

    head, summary, results = "---\n# mine\nthumbnail: a.png\n", "Written <b>by me</b>.\n\n## Mine\n\n- one", "Why so?"
    edited = old.replace("---\n", head, 1).replace("tags:\n", "tags:\n- my-tag\n")
    edited = edited.replace("\n<!-- tl_hub: Results", f"\n{summary}\n\n<!-- tl_hub: Results")
    edited = edited.replace("\n<!-- tl_hub: Examples", f"\n{results}\n\n<!-- tl_hub: Examples") + "\nThe end.\n"
    text, notes = card.merge(new, edited.replace("\n", "\r\n"))
    assert not notes
    assert data_of(text).to_dict() == data_of(new).to_dict() | {
        "thumbnail": "a.png",
        "tags": [*data_of(new).tags, "my-tag"],
    }
    written = re.sub(r"<!-- tl_hub: .*?<!-- tl_hub end -->\n\n", "", ModelCard(text).text, flags=re.DOTALL)
    assert "".join(written.split()) == "".join(f"{summary} {results} The end.".split())
    assert text.index(summary) < text.index("## Results") < text.index(results)
    assert card.merge(new, text) == (text, []), "the next push changes nothing"


def test_an_edit_of_a_generated_part_is_reported_and_kept() -> None:
    old, new = card.render(sample()), card.render(sample())
    edited = old.replace("| F1 | 87.65 |", "| F1 | 99.9 |")
    edited = edited.replace("## Data\n", "## Data\n\nBeware -- it is old. --> <b>!</b>\n")
    text, notes = card.merge(new, edited)
    assert [note.split("'")[1] for note in notes] == ["Results", "Data"]
    assert "| F1 | 99.9 |" in text and "it is old." in text
    shown = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    assert shown.split() == re.sub(r"<!--.*?-->", "", new, flags=re.DOTALL).split(), "a reader sees the new parts only"


def test_a_card_of_another_origin_is_kept_below() -> None:
    new = card.render(sample())
    text, (note,) = card.merge(new, "---\nco2: 3\n---\n# Hello\n\n--- no head here\n")
    assert "not from tl_hub" in note and data_of(text).to_dict()["co2"] == 3
    assert text.endswith("<!-- tl_hub end -->\n\n# Hello\n\n--- no head here\n")
    assert card.merge(new, "# Only a text\n")[0].endswith("<!-- tl_hub end -->\n\n# Only a text\n")
    assert card.merge(new, "") == (new, []), "an empty card"


def test_a_readme_with_a_byte_order_mark_is_read_and_one_in_latin1_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes((GOLDEN / "sentiment_finetune.json").read_bytes())
    readme = tmp_path / "README.md"
    own = "---\nlicense: mit\nauthor: me\n---\n\n# M\u00fcller\n\nWritten by hand.\n"
    readme.write_bytes(b"\xef\xbb\xbf" + own.encode())
    card.write(tmp_path, say=lambda note: None)
    written = readme.read_bytes().decode()
    assert "\ufeff" not in written and written.startswith("---\n")
    head, body = written[4:].split("\n---\n", 1)
    assert yaml.safe_load(head)["author"] == "me"
    assert "author: me" not in body and "Written by hand." in body

    readme.write_bytes(own.encode("latin-1"))
    with pytest.raises(UserError, match=r"README\.md is not UTF-8 \(byte 36\); save it as UTF-8"):
        card.write(tmp_path)
    assert readme.read_bytes() == own.encode("latin-1")


def test_metadata_of_a_person_and_of_the_run() -> None:
    record = sample()
    record.language = []
    new = card.render(record)
    there = "---\nlicense: mit\nlanguage:\n- no\n- en\nbase_model: other/model\ndate: 2024-01-02\nyes: no\n---\n"
    text, notes = card.merge(new, there)
    assert [note for note in notes if "license mit" in note and "apache-2.0" in note]
    assert [note for note in notes if "base_model other/model; replaced by the run's google-bert" in note]
    assert not any("language" in note or "date" in note for note in notes), "these stay"
    data = data_of(text).to_dict()
    assert (data["license"], data["base_model"]) == ("apache-2.0", "google-bert/bert-base-uncased")
    assert data["language"] == ["no", "en"], "Norwegian, not false"
    assert (data["date"], data["yes"]) == ("2024-01-02", "no")
    with pytest.raises(UserError, match="not YAML"):
        card.merge(new, "---\na: [b\n---\n")


def test_a_results_file_is_what_the_client_reads() -> None:
    (path, text), *_ = results_file(sample(), "squad_v1", "https://huggingface.co/someone/x/blob/main/run.json").items()
    assert path == ".eval_results/rajpurkar-squad.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(text))
    assert (entry.dataset_id, entry.dataset_revision, entry.value) == ("rajpurkar/squad", SHA[::-1], 79.84)
    assert (entry.task_id, entry.source_url) == ("squad_v1", "https://huggingface.co/someone/x/blob/main/run.json")
    assert entry.notes == "exact match, 95 % interval 79.01 to 80.66, validation split, n = 10,570"


@pytest.mark.parametrize(
    ("value", "low", "high", "stated"),
    [
        (71.4286, 35.9, 91.8, "71 (95 % interval 36 to 92"),
        (87.6512, 86.99, 88.31, "87.65 (95 % interval 86.99 to 88.31"),
        (0.93124, 0.9011, 0.9512, "0.931 (95 % interval 0.901 to 0.951"),
        (100.0, 100.0, 100.0, "100 (95 % interval 100 to"),
        (91.25, 87.3, 94.1, "91.2 (95 % interval 87.3 to 94.1"),
        (3.21987, 3.2178, 3.2219, "3.22 (95 % interval 3.218 to 3.222"),
    ],
)
def test_a_figure_has_the_digits_that_its_interval_supports(value: float, low: float, high: float, stated: str) -> None:
    record = sample()
    record.metrics = [Metric(name="f1", value=value, low=low, high=high, split="test", rows=7)]
    assert f"F1 is {stated}" in card.render(record)
    (result,) = data_of(card.render(record)).eval_results
    assert result.metric_value == float(stated.split()[0])


@pytest.mark.parametrize("record", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_card(record: Path) -> None:
    """Cards of real runs, read and approved; a change of the template shows in them."""
    text = card.render(
        RunRecord.from_facts(json.loads(record.read_text())), curves=record.with_suffix(".png").is_file()
    ).replace("(curves.png)", f"({record.stem}.png)")
    assert text == record.with_suffix(".md").read_text()


def test_golden_cards_exist() -> None:
    assert len(list(GOLDEN.glob("*.json"))) >= 3


@pytest.fixture(scope="module")
def refhub() -> Any:
    """The reference Hub's module. Its card check needs only PyYAML, so the web server's parts may be stand-ins."""
    if not REFHUB.is_file():
        pytest.skip(f"needs {REFHUB}, which is not part of this repository")
    spec = importlib.util.spec_from_file_location("refhub", REFHUB)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    needed = ("starlette", "starlette.applications", "starlette.requests", "starlette.responses", "starlette.routing")
    stand_ins = {name: MagicMock() for name in needed} if importlib.util.find_spec("starlette") is None else {}
    with pytest.MonkeyPatch.context() as patch:
        for name, stand_in in {**stand_ins, "refhub": module}.items():
            patch.setitem(sys.modules, name, stand_in)
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kind", "base", "data"), ALL)
def test_reference_hub_accepts_the_card(refhub: Any, kind: str, base: str, data: str) -> None:
    assert refhub.validate_card(card.render(sample(kind, base, data)), "model") == ([], [])


def test_reference_hub_would_refuse_a_path_as_base(refhub: Any) -> None:
    """The check above can fail."""
    text = card.render(sample()).replace("base_model: google-bert/bert-base-uncased", "base_model: /srv/my-bert")
    errors, _ = refhub.validate_card(text, "model")
    assert errors and "base_model" in errors[0]


def test_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, tl_hub.card, tl_hub.record;"
        "print(sorted({'torch', 'transformers', 'datasets', 'peft', 'numpy', 'huggingface_hub'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
