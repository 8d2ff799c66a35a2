"""Cards of all kinds pass the rules of the Hub, and a card that breaks one is refused for that reason.

Each is judged twice: by the project's table, and by the schema of `tests.hub_server`, which shares nothing with that.
"""

import copy
import itertools
import json
import re
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub_server import judge as server
from tests.publishing.runs import weights
from tl_hub import card
from tl_hub.architectures import ARCHITECTURES
from tl_hub.card import rules
from tl_hub.errors import UserError
from tl_hub.licenses import Terms
from tl_hub.methods.adapters import METHODS
from tl_hub.publishing import contents
from tl_hub.publishing.destination import Destination
from tl_hub.record import RunRecord

ROOT = Path(__file__).parents[1]
STORED = json.loads((ROOT / "model_cards" / "qa_adapter.json").read_text())
STORED["metrics"] = STORED["metrics"][:1]  # most of the time is YAML's, by its lines
STORED["examples"], STORED["history"], STORED["tables"] = STORED["examples"][:1], STORED["history"][:1], {}
SHA = "c7be5b2f12ac41a5aeb4e1d3a6f1a2b3c4d5e6f7"
BASES = {
    "hub": {"id": "owner/base.v1", "source": "hub", "revision": SHA, "license": "other", "license_name": "own-1.0",
            "license_link": "https://example.com/license"},
    "embedded": {"id": "tiny:bert", "source": "embedded", "license": "cc-by-sa-4.0"},
    "local": {"id": "my model (new): v2", "source": "local"},
}  # fmt: skip
DATA = {
    "hub": {"id": "nyu-mll/glue", "source": "hub", "revision": SHA},
    "embedded": {"id": "sample:qa", "source": "embedded"},
    "local": {"id": "my rows: all.csv, test.jsonl", "source": "local"},
}
PEFT_TASKS = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}


def recipes() -> Iterator[tuple[str, Any, Any]]:
    for path in sorted((ROOT / "recipes").glob("*.py")):
        recipe = runpy.run_path(str(path))
        yield path.stem, recipe["TASK"], recipe["METHOD"]


def records() -> Iterator[tuple[str, RunRecord]]:
    """Of every recipe with every kind of result, method, family and source of the data; the base's place goes round."""
    alike = set()
    for name, tasks, of_recipe in recipes():
        kinds = {"adapter": ("adapter", "merged")}.get(of_recipe.kind, (of_recipe.kind,))
        methods = [*METHODS.values()] if of_recipe.kind == "adapter" else [of_recipe]
        for family, entry in ARCHITECTURES.items():
            task = tasks if hasattr(tasks, "pretrained_by") else tasks.objective(family)
            if entry.pretrained_by not in task.pretrained_by:
                continue
            auto_class = "FeatureModel" if of_recipe.kind == "feature-extraction" else task.class_for(family)
            for number, (kind, method, data) in enumerate(itertools.product(kinds, methods, DATA)):
                if (kind == "merged" and not method.mergeable) or (task.name, kind, method.name, family, data) in alike:
                    continue
                alike.add((task.name, kind, method.name, family, data))  # sentiments are classified as documents are
                # Without a base on the Hub nobody could load an adapter, and it is not published.
                base = "hub" if kind == "adapter" else list(BASES)[(number + number // 3) % 3]
                facts = copy.deepcopy(STORED) | {"kind": kind, "task": task.name, "pipeline_tag": task.tag}
                facts |= {"auto_class": auto_class, "data": STORED["data"] | DATA[data], "license": None}
                facts |= {"method": {"name": method.name, "settings": {"model_type": family}}}
                facts |= {"base": None if kind == "pretrained" else BASES[base] | {"model_type": family}}
                facts |= {"language": [[], ["en"], ["no", "pt-BR"], ["zh-Hant-TW", "kor"], ["code"]][number % 5]}
                facts["settings"] = {"dataset_config": [None, "sst2"][number % 2]}
                yield f"{name} {kind} {method.name} {family} {base} {data}", RunRecord.from_facts(facts)


def files_of(record: RunRecord) -> dict[str, bytes]:
    if record.kind != "adapter":
        return {"config.json": b"{}", "model.safetensors": b""}
    assert record.base
    config = {"base_model_name_or_path": record.base.id, "task_type": PEFT_TASKS.get(record.auto_class)}
    return {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": b""}


@pytest.mark.slow
def test_cards_of_every_recipe_method_family_source_and_kind_pass() -> None:
    seen, count = Counter[str](), 0
    for name, record in records():
        count += 1
        files = files_of(record)
        text = f"---\n{card.metadata(record).to_yaml()}\n---\n"
        if seen[key := f"{record.pipeline_tag} {record.kind}"] < 2:  # the text is the same but for names
            seen[key] += 1
            text = card.render(record, "someone/x")
        assert rules.judge(text, files, files.__getitem__, repo="someone/x") == [], name
        assert count % 3 or server.faults_of_card(text) == [], name
    assert count > 800 and len(seen) > 15


def test_each_rule_is_of_one_name_and_says_its_source() -> None:
    names = [rule.name for rule in rules.RULES]
    assert len(set(names)) == len(names) and all(rule.source and rule.says for rule in rules.RULES)


def _head(**changes: Any) -> Any:
    return lambda head, files: head.update(changes)


def _dataset(**changes: Any) -> Any:
    return lambda head, files: head["model-index"][0]["results"][0]["dataset"].update(changes)


def _metric(**changes: Any) -> Any:
    return lambda head, files: head["model-index"][0]["results"][0]["metrics"][0].update(changes)


def _adapter(**changes: Any) -> Any:
    def change(head: Any, files: dict[str, bytes]) -> None:
        files["adapter_config.json"] = json.dumps(json.loads(files["adapter_config.json"]) | changes).encode()

    return change


def _result(text: str) -> Any:
    return lambda head, files: files.update({".eval_results/squad.yaml": text.encode()})


ENTRY = "- dataset: {id: rajpurkar/squad, task_id: squad}\n  value: 80.1\n"
MUTATED: list[tuple[str, Any]] = [
    ("license", _head(license="Apache 2.0")),
    ("license", _head(license=["mit", "my-own"])),
    ("license terms", _head(license="other", license_link="https://a.b/c")),
    ("license terms", _head(license="other", license_name="own")),
    ("license terms", _head(license="other", license_name="own", license_link="LICENSE.md")),
    ("language", _head(language="pt-BR")),
    ("language", _head(language=["en", "english"])),
    ("language", _head(language=False)),
    ("language", _head(language=["jp"])),
    ("pipeline_tag", _head(pipeline_tag="text2text-generation")),
    ("library_name", _head(library_name="tl_hub")),
    ("base_model", lambda head, files: (head.update(base_model="runs/mine/base"),
                                        _adapter(base_model_name_or_path="runs/mine/base")(head, files))),
    ("base_model", lambda head, files: (head.update(base_model="tiny:bert"),
                                        _adapter(base_model_name_or_path="tiny:bert")(head, files))),
    ("base_model_relation", _head(base_model_relation="lora")),
    ("datasets", _head(datasets=[None])),
    ("datasets", _head(datasets=["/srv/rows.csv"])),
    ("new_version", _head(new_version="https://huggingface.co/a/b")),
    ("tags", _head(tags="tl-hub")),
    ("metrics", _head(metrics=[3])),
    ("widget", _head(widget={"text": "a"})),
    ("widget entries", _head(widget=["a text"])),
    ("widget entries", _head(widget=[{"example_title": "Nothing"}])),
    ("widget entries", _head(widget=[{"text": "a", "output": [{"label": "b"}]}])),
    ("widget entries", _head(widget=[{"text": "a", "output": {"answer": "b"}}])),
    ("thumbnail", _head(thumbnail=["a.png"])),
    ("co2_eq_emissions", _head(co2_eq_emissions={"emissions": "5 g"})),
    ("co2_eq_emissions", _head(co2_eq_emissions=-1)),
    ("model-index", _head(**{"model-index": {"name": "a"}})),
    ("model-index", _head(**{"model-index": [{"results": []}]})),
    ("model-index", lambda head, files: head["model-index"][0]["results"][0].pop("task")),
    ("dataset.type", _dataset(type="sample:qa")),
    ("dataset.type", _dataset(type="local files")),
    ("dataset.config", _dataset(config=3)),
    ("value", _metric(value=float("nan"))),
    ("value", _metric(value=None)),
    ("digits", _metric(value=73.52380952380952)),
    ("adapter", lambda head, files: files.pop("adapter_config.json")),
    ("adapter", _adapter(base_model_name_or_path="/home/me/base")),
    ("adapter", lambda head, files: files.update({"config.json": b"{}"})),
    ("task_type", _head(pipeline_tag="text-classification")),  # its adapter_config.json names another
    ("eval_results", _result(ENTRY.replace("squad}", "question-answering}") + "  source: {url: 'https://a.b'}\n")),
    ("eval_results", _result(ENTRY)),
    ("eval_results", _result(ENTRY.replace("80.1", "'80.1'") + "  source: {url: 'https://a.b'}\n")),
]  # fmt: skip


def mutated(change: Any) -> tuple[str, dict[str, bytes]]:
    facts = copy.deepcopy(STORED) | {"base": BASES["hub"] | {"model_type": "bert"}, "license": "mit"}
    record = RunRecord.from_facts(facts)
    head, files = yaml.safe_load(card.metadata(record).to_yaml()), files_of(record)
    change(head, files)
    return f"---\n{yaml.safe_dump(head)}---\n", files


@pytest.mark.parametrize(("rule", "change"), MUTATED, ids=[f"{i}-{rule}" for i, (rule, _) in enumerate(MUTATED)])
def test_a_mutated_card_is_refused_for_its_own_reason(rule: str, change: Any) -> None:
    text, files = mutated(change)
    benchmarks = {"rajpurkar/squad": {"squad"}}
    found = rules.judge(text, files, files.__getitem__, benchmarks=benchmarks)
    assert {fault.rule for fault in found} == {rule}, found
    (of_table,) = [each for each in rules.RULES if each.name == rule]
    refusals = server.faults_of_card(text)
    # The server's language has no list of two letters; all else that the Hub refuses it refuses, and nothing more.
    assert bool(refusals) == (of_table.refused and "jp" not in text), refusals
    for name, content in files.items():
        if name.startswith(".eval_results/"):
            assert server.faults_of_results(content, lambda data: benchmarks.get(data, set()))


def test_nothing_is_found_without_a_change() -> None:
    text, files = mutated(_result(f"{ENTRY}  source: {{url: 'https://a.b'}}\n"))
    assert rules.judge(text, files, files.__getitem__, benchmarks={"rajpurkar/squad": {"squad"}}) == []


@pytest.mark.parametrize("head", ["a: [b", "license: mit\nlicense: mit", "tags: &a [*a]"])
def test_metadata_that_cannot_be_read_are_refused(head: str) -> None:
    (fault,) = rules.judge(f"---\n{head}\n---\n")
    assert fault.rule == "metadata" and fault.refused and "\n" not in fault.text
    assert "tags" in head or server.faults_of_card(f"---\n{head}\n---\n")


@pytest.mark.parametrize(
    ("repo", "taken"),
    [("alice/qa.v1_x-2", True), ("a/" + "b" * 96, True), ("a/" + "b" * 97, False), ("a/b--c", False), ("a/b..c", False),
     ("a/-b", False), ("a/b.", False), ("a/b.git", False), ("a/größe", False), ("a/b c", False), ("a/b/c", False),
     ("a/b\n", False)],
)  # fmt: skip
def test_names_of_repositories_are_checked_before_training(repo: str, taken: bool) -> None:
    faults = [] if "/" in repo[2:] else rules.judge("", repo=repo)
    assert [fault.rule for fault in faults] == ([] if taken or "/" in repo[2:] else ["repository"])
    if taken:
        Destination(repo).check()
    else:
        with pytest.raises(UserError, match="is not a name for a repository"):
            Destination(repo).check()


def test_another_license_has_a_name_and_a_text(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("Be kind.")
    named = Terms("other", "kind-1.0", str(tmp_path / "terms.txt"))
    named.check()
    assert named.published_link == "LICENSE" and named.file == tmp_path / "terms.txt"
    assert Terms("other", "kind-1.0", "https://a.b/c").published_link == "https://a.b/c"
    for wrong, says in {
        Terms("other"): "--license other says nothing alone",
        Terms("mit", "kind-1.0"): "are for --license other",
        Terms(None, None, "https://a.b/c"): "are for --license other",
        Terms("other", "a license", "https://a.b/c"): "'a license' is not an id",
        Terms("other", "kind-1.0", str(tmp_path / "none")): "neither a URL nor a file",
        Terms("Apache"): "not an identifier of the Hub",
    }.items():
        with pytest.raises(UserError, match=says):
            wrong.check()


def test_a_run_folder_is_judged_as_it_would_be_published(tmp_path: Path) -> None:
    base = BASES["local"] | {"model_type": "bert"}  # an embedded one brings its own terms
    record = RunRecord.from_facts(copy.deepcopy(STORED) | {"kind": "fine-tuned", "license": "other", "base": base})
    record.save(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(weights(0.0))
    assert {(fault.rule, fault.refused) for fault in contents.judged(tmp_path)} == {("license terms", False)}
    record.license_name, record.license_link = "kind-1.0", "LICENSE"
    record.save(tmp_path)
    assert [fault.text for fault in contents.judged(tmp_path)] == [
        "license terms: license_link names LICENSE, which is not a file of the repository"
    ]
    (tmp_path / "LICENSE").write_text("Be kind.")
    card.write(tmp_path)
    assert contents.judged(tmp_path) == []
    readme = tmp_path / "README.md"
    readme.write_text(re.sub("^tags:", "thumbnail: [a]\ntags:", readme.read_text(), flags=re.MULTILINE))
    assert [(fault.rule, fault.refused) for fault in contents.judged(tmp_path)] == [("thumbnail", True)]
