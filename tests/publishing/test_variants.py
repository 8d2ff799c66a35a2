"""A merged model and its adapter are two repositories, which name each other and stand in one collection."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.publishing.runs import adapter_run, texts, write_run


def head_of(files: dict[str, bytes]) -> dict[str, Any]:
    return yaml.safe_load(files["README.md"].decode().split("---")[1])


@pytest.fixture
def merged(hub: Any, push: Any, tmp_path: Path) -> Path:
    """A merged run whose base is on the Hub."""
    push(write_run(tmp_path / "base"), "alice/a-base", private=False)
    return adapter_run(tmp_path / "run", "alice/a-base", "hub", kind="merged")


def test_each_variant_has_a_repository_that_names_the_other(hub, push, merged):
    answer = push(merged, "alice/whole", push_adapter="alice/alone", tag="v1")
    assert "error" not in answer, answer
    whole, alone = texts(hub.model("alice/whole")), texts(hub.model("alice/alone"))
    assert whole["model.safetensors"] == (merged / "model.safetensors").read_bytes()
    assert not [name for name in whole if "adapter" in name]
    assert alone["adapter_model.safetensors"] == (merged / "adapter" / "adapter_model.safetensors").read_bytes()
    assert not {"config.json", "model.safetensors"} & alone.keys(), "transformers would take the adapter for merged"
    assert [json.loads(files["run.json"])["kind"] for files in (whole, alone)] == ["merged", "adapter"]
    heads = [head_of(files) for files in (whole, alone)]
    assert [(head["library_name"], head["base_model_relation"]) for head in heads] == [
        ("transformers", "finetune"),
        ("peft", "adapter"),
    ]
    assert "[alice/alone](https://huggingface.co/alice/alone)" in whole["README.md"].decode()
    assert 'subfolder="adapter"' not in whole["README.md"].decode()
    told = "takes no adapters for this task, only whole models: [alice/whole](https://huggingface.co/alice/whole) is"
    assert told in alone["README.md"].decode()
    assert (answer["repo"], answer["adapter"]["repo"]) == ("alice/whole", "alice/alone")
    assert all("refs/tags/v1" in hub.model(f"alice/{name}").refs for name in ("whole", "alone"))
    again = push(merged, "alice/whole", push_adapter="alice/alone", tag="v1")
    assert again["sent"] == again["adapter"]["sent"] == []
    (found,) = [each for each in hub.collections.values() if each["title"] == "whole"]
    assert [item["id"] for item in found["items"]] == ["alice/whole", "alice/alone"], "each of them once"
    assert found["private"] and "variants" not in json.loads((merged / "run.json").read_text())


def test_both_go_into_the_collection_that_is_asked_for(hub, push, merged):
    push(merged, "alice/other", collection="Mine")
    (slug,) = [slug for slug, each in hub.collections.items() if each["title"] == "Mine"]
    assert "error" not in push(merged, "acme/whole", push_adapter="alice/small", collection=slug)
    assert [item["id"] for item in hub.collections[slug]["items"]] == ["alice/other", "acme/whole", "alice/small"]


def test_a_dry_run_shows_both_and_sends_none(hub, push, merged):
    before = set(hub.repos), set(hub.collections)
    answer = push(merged, "alice/dry-whole", push_adapter="alice/dry-alone", dry_run=True)
    assert "adapter_model.safetensors" in answer["adapter"]["sent"] and "model.safetensors" in answer["sent"]
    assert "both would be put into the collection dry-whole" in answer["said"]
    assert (set(hub.repos), set(hub.collections)) == before


def test_a_local_base_is_published_for_both(hub, push, tmp_path):
    run = adapter_run(tmp_path / "run", write_run(tmp_path / "base", license="apache-2.0"), "local", kind="merged")
    needs = push(run, "alice/l-whole", push_adapter="alice/l-alone")
    assert "--push_base owner/name publishes the base too" in needs["error"]
    assert "error" not in push(run, "alice/l-whole", push_adapter="alice/l-alone", push_base="alice/l-base")
    for name in ("l-whole", "l-alone"):
        assert head_of(texts(hub.model(f"alice/{name}")))["base_model"] == "alice/l-base"
    config = json.loads(texts(hub.model("alice/l-alone"))["adapter_config.json"])
    assert config["base_model_name_or_path"] == "alice/l-base"


def test_what_cannot_be_two_variants_is_refused_before_anything_is_sent(hub, push, merged, tmp_path):
    before = set(hub.repos)
    own = write_run(tmp_path / "own")
    assert "holds a fine-tuned model; omit it" in push(own, "alice/n1", push_adapter="alice/n2")["error"]
    assert "--push_adapter is alice/n1 too" in push(merged, "alice/n1", push_adapter="alice/n1")["error"]
    assert (
        "--push_adapter is alice/n2 too"
        in push(merged, "alice/n1", push_adapter="alice/n2", push_base="alice/n2")["error"]
    )
    assert "may not write to bob/n1" in push(merged, "bob/n1", push_adapter="alice/n2")["error"]
    (merged / "tokenizer.json").symlink_to("/etc/hostname")
    assert "is a link; put the file itself there" in push(merged, "alice/n1", push_adapter="alice/n2")["error"]
    assert set(hub.repos) == before


def test_a_recipe_publishes_both_and_each_loads_back(hub, run_script, tmp_path):
    flags = ["--output_dir", str(tmp_path / "run"), "--push_to", "alice/r-whole", "--push_adapter", "alice/r-alone"]
    few = ["--max_steps", "2", "--train_rows", "16", "--validation_rows", "8", "--test_rows", "8"]
    for given, says in (
        ([], "--push_adapter is for a merged model"),
        (["--merge"], "--push_base owner/name publishes"),
    ):
        refused = run_script("sentiment_adapter", *flags, *few, *given)
        assert refused.returncode == 2 and says in refused.stderr and not (tmp_path / "run").exists(), refused.stderr
    done = run_script("sentiment_adapter", *flags, *few, "--merge", "--push_base", "alice/r-base", here="all")
    assert done.returncode == 0, done.stderr
    last = next(line for line in done.stdout.splitlines() if line.startswith(f"{hub.url}/alice/r-whole at"))
    assert "loaded back from there by transformers; the adapter: " in last
    assert f"{hub.url}/alice/r-alone at" in last and last.endswith("loaded back from there by transformers and peft")


def test_where_the_second_fails_the_first_is_told(hub, push, merged):
    hub.fail(r"POST /api/models/alice/f-whole/commit/", 403)
    answer = push(merged, "alice/f-whole", push_adapter="alice/f-alone")
    assert answer["error"].startswith(f"the adapter is {hub.url}/alice/f-alone at ")
    assert "error" not in push(merged, "alice/f-whole", push_adapter="alice/f-alone"), "the same command again"
