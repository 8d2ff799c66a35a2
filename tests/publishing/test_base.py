"""A base that only this machine has is published on the way."""

import json
import re

import yaml

from tests.publishing.runs import adapter_run, holds, texts, weights, write_run
from tl_hub import card, samples
from tl_hub.record import RunRecord


def test_a_base_published_on_the_way_keeps_its_own_license(hub, push, tmp_path):
    base = write_run(tmp_path / "base", license="cc-by-nc-4.0")
    folder = adapter_run(tmp_path / "run", base, "local")
    answer = push(folder, "alice/relabelled", push_base="alice/nc-base")
    assert "--license mit: the base model is under cc-by-nc-4.0" in answer["error"], answer
    assert not {("model", "alice/nc-base"), ("model", "alice/relabelled")} & hub.repos.keys()
    assert "error" not in push(folder, "alice/relabelled", push_base="alice/nc-base", license="cc-by-nc-4.0")
    for name in ("nc-base", "relabelled"):
        assert hub.model(f"alice/{name}").private
        assert (
            yaml.safe_load(texts(hub.model(f"alice/{name}"))["README.md"].decode().split("---")[1])["license"]
            == "cc-by-nc-4.0"
        )


def test_a_published_copy_of_an_embedded_base_stays_a_demonstration(hub, push, tmp_path):
    folder = adapter_run(tmp_path / "run", samples.checkpoint("bert"), "local")
    facts = json.loads((folder / "run.json").read_text())
    facts["base"] |= {"id": "tiny:bert", "source": "embedded"}
    del facts["license"]
    (folder / "run.json").write_text(json.dumps(facts))
    answer = push(folder, "alice/demo", push_base="alice/demo-base", load_back=False)
    assert "error" not in answer, answer
    for name in ("demo", "demo-base"):
        text = texts(hub.model(f"alice/{name}"))["README.md"].decode()
        assert "This is a demonstration" in text and "DialogSum (CC BY-NC-SA 4.0)" in text, name
        assert "license: other\nlicense_name: mixed-terms-non-commercial\nlicense_link: LICENSE" in text, name
        assert b"DialogSum (CC BY-NC-SA 4.0)" in texts(hub.model(f"alice/{name}"))["LICENSE"], name
    there = RunRecord.from_facts(json.loads(texts(hub.model("alice/demo"))["run.json"]))
    assert there.base.source == "hub" and "This is a demonstration" in card.render(there, "alice/demo")
    # A card that is there stays, and says it, once, too.
    theirs = "---\nlicense: other\n---\n\n# My base\n\nWords of its owner.\n"
    repo = hub.model("alice/demo-base")
    files = repo.at("main").files
    files = files | {"README.md": type(files["README.md"])(theirs.encode())}
    repo.commit("refs/heads/main", files, "edit", "", "alice")
    assert "error" not in push(folder, "alice/demo", push_base="alice/demo-base", load_back=False)
    text = texts(hub.model("alice/demo-base"))["README.md"].decode()
    assert text.startswith(theirs) and text.count("This is a demonstration") == text.count("DialogSum") == 1
    again = push(folder, "alice/demo", push_base="alice/demo-base", load_back=False)
    assert "error" not in again and texts(hub.model("alice/demo-base"))["README.md"].decode() == text
    own = adapter_run(tmp_path / "own", write_run(tmp_path / "base"), "local")
    assert "error" not in push(own, "alice/own", push_base="alice/own-base", load_back=False)
    for name in ("own", "own-base"):
        assert "demonstration" not in texts(hub.model(f"alice/{name}"))["README.md"].decode(), name


def test_a_base_that_only_this_machine_has(hub, push, tmp_path):
    base = tmp_path / "secret-client"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "bert"}')
    (base / "model.safetensors").write_bytes(weights(7))
    folder = adapter_run(tmp_path / "run", base, "local")
    answer = push(folder, "alice/adapter")
    assert (
        all(way in answer["error"] for way in ("--push_base", "--merge", "--model"))
        and str(base) not in answer["error"]
    )
    said = push(adapter_run(tmp_path / "tiny", "tiny:bert", "embedded"), "adapter")["error"]
    # All that is missing is said at once, also that no license but its base's fits it.
    assert said.startswith("3 things are missing or wrong") and all(
        part in said for part in ("--push_base", "--license mit: the base model is under other", "names no owner")
    ), said
    assert ("model", "alice/adapter") not in hub.repos

    answer = push(folder, "alice/adapter", push_base="alice/base")
    published, adapter = hub.model("alice/base"), hub.model("alice/adapter")
    config = json.loads(texts(adapter)["adapter_config.json"])
    assert config == {"base_model_name_or_path": "alice/base", "revision": published.at("main").id}
    assert texts(published)["model.safetensors"] == weights(7)
    head = yaml.safe_load(texts(adapter)["README.md"].decode().split("---")[1])
    assert (head["base_model"], head["base_model_relation"]) == ("alice/base", "adapter")
    assert not any(str(tmp_path).encode() in text for text in [*texts(adapter).values(), *texts(published).values()])
    again = push(folder, "alice/adapter", push_base="alice/base")
    assert again["sent"] == [] and len(published.history("main")) == 2
    dry = push(folder, "alice/adapter", push_base="alice/base", dry_run=True)
    assert dry["sent"] == [] == dry["base"]["sent"] and dry["revision"] == again["revision"], dry["said"]
    assert "alice/base is there; main holds all of it:" in dry["said"]
    assert any(re.fullmatch(r" +unchanged +model.safetensors \([\d,]+ bytes\)", line) for line in dry["said"])

    merged = adapter_run(tmp_path / "merged", base, "local", kind="merged")
    push(merged, "alice/merged")
    assert holds(hub.model("alice/merged"), merged)
    assert not any(path.startswith("adapter") for path in texts(hub.model("alice/merged")))
    assert "adapter/" not in texts(hub.model("alice/merged"))["README.md"].decode()
    other = adapter_run(tmp_path / "other", "alice/base", "hub")
    (other / "adapter_config.json").write_text('{"base_model_name_or_path": "alice/another", "revision": null}')
    answer = push(other, "alice/other")
    assert "names the base alice/another, and run.json alice/base" in answer["error"], answer
    facts = json.loads((other / "run.json").read_text())
    facts["base"]["revision"] = published.at("main").id
    (other / "run.json").write_text(json.dumps(facts))
    own = '{"base_model_name_or_path": "alice/base", "revision": "%s"}'
    (other / "adapter_config.json").write_text(own % ("0" * 40))
    refused = push(other, "alice/other")["error"]
    assert f"names revision {'0' * 40} of the base alice/base, and run.json" in refused
    (other / "adapter_config.json").write_text('{"base_model_name_or_path": "alice/base", "revision": null}')
    push(other, "alice/pinned")
    assert json.loads(texts(hub.model("alice/pinned"))["adapter_config.json"]) == json.loads(
        own % published.at("main").id
    ), "PEFT would load what main has by then"
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    answer = push(folder, "alice/other", push_base="alice/empty")
    assert "no weights in safetensors" in answer["error"] and ("model", "alice/empty") not in hub.repos
    gone = push(adapter_run(tmp_path / "run", "alice/no-such-base", "hub"), "alice/other")
    assert "alice/no-such-base is not on the Hub" in gone["error"] and ("model", "alice/other") not in hub.repos


HEADS = """
import json, sys
from pathlib import Path
import numpy as np, torch, transformers
import tl_hub
from tl_hub import publishing
from tl_hub.errors import UserError
folder, base, facts = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
texts, classes = ["The Danube flows.", "The Danube ends.", "The Nile flows.", "The Nile ends."] * 2, [0, 1, 0, 1] * 2
def refused(call, words):
    try:
        call()
    except UserError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
def same(one, other):
    np.testing.assert_allclose(one.predict_proba(texts), other.predict_proba(texts), atol=1e-6)
    np.testing.assert_allclose(one.embed(texts), other.embed(texts), atol=1e-5)
def run(name, model, source):
    facts["base"] |= {"id": model.settings["base"]["id"], "source": source}
    model.save_pretrained(folder / name)
    (folder / name / "README.md").unlink()
    (folder / name / "run.json").write_text(json.dumps(facts))
    return folder / name
options = {"layer": "1", "pooling": "mean", "cv": 2, "max_length": 64, "doc_stride": 16, "bf16": False}
local = tl_hub.FeatureClassifier(base, **options).fit(texts, classes).model_
refused(lambda: local.push_to_hub("alice/refused"), "is a local folder")
refused(lambda: publishing.publish(run("local", local, "local"), "alice/head"), "--push_base")
publishing.publish(folder / "local", "alice/head", push_base="alice/head-base")
there = tl_hub.FeatureModel.from_pretrained("alice/head")
same(there, local)
assert there.settings["base"]["id"] == "alice/head-base" and "path" not in there.settings["base"]
there.push_to_hub("alice/mixin", private=True)
same(tl_hub.FeatureModel.from_pretrained("alice/mixin"), local)
embedded = tl_hub.FeatureClassifier("tiny:bert", **options).fit(texts, classes).model_
publishing.publish(run("tiny", embedded, "embedded"), "alice/tiny-head", load_back=False)
same(tl_hub.FeatureModel.from_pretrained("alice/tiny-head"), embedded)
publishing.publish(folder / "tiny", "alice/tiny-head", push_base="alice/tiny-bert", load_back=False)
there = tl_hub.FeatureModel.from_pretrained("alice/tiny-head")
assert there.settings["base"]["id"] == "alice/tiny-bert", there.settings["base"]
same(there, embedded)
# The base's main branch goes on; the head keeps to its own revision, and refuses what stands there now.
other = transformers.AutoModel.from_pretrained(base)
with torch.no_grad():
    other.encoder.layer[0].output.dense.bias[0] += 1e-3
other.push_to_hub("alice/head-base")
same(tl_hub.FeatureModel.from_pretrained("alice/head"), local)
other.save_pretrained(folder / "other")
refused(lambda: tl_hub.FeatureModel.from_pretrained("alice/head", base=folder / "other"), "its head is of no use")
refused(lambda: tl_hub.FeatureModel.from_pretrained("alice/head-base"), "holds no FeatureModel")
print("all")
"""


def test_a_head_on_frozen_vectors_is_loaded_with_the_base_it_was_trained_on(
    hub, run_script, checkpoint_folders, tmp_path
):
    facts = json.loads((write_run(tmp_path / "facts") / "run.json").read_text())
    facts |= {"kind": "feature-extraction", "auto_class": "FeatureModel", "method": {"name": "feature extraction"}}
    facts["base"] = {"model_type": "bert", "license": "apache-2.0"}
    del facts["license"]
    (tmp_path / "heads.py").write_text(HEADS)
    arguments = [str(tmp_path), str(checkpoint_folders("bert")), json.dumps(facts)]
    process = run_script(tmp_path / "heads.py", *arguments, here="all", TL_HUB_CACHE=str(tmp_path / "cache"))
    assert process.stdout.endswith("all\n"), process.stderr
    assert {"head.safetensors", "config.json", "tokenizer.json", "run.json"} <= set(texts(hub.model("alice/head")))
    assert "model.safetensors" not in texts(hub.model("alice/head")), "the base is not in it"
    assert {"head.safetensors", "config.json", "README.md"} <= set(texts(hub.model("alice/mixin")))
    assert ("model", "alice/refused") not in hub.repos
    for name in ("head", "head-base", "mixin", "tiny-head", "tiny-bert"):
        assert not any(str(tmp_path).encode() in text for text in texts(hub.model(f"alice/{name}")).values()), name


def test_a_local_base_under_another_license_keeps_its_name(hub, push, tmp_path):
    named = {"license": "other", "license_name": "kind-1.0", "license_link": "https://example.com/kind"}
    folder = adapter_run(tmp_path / "run", write_run(tmp_path / "base", **named), "local")
    facts = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(facts | {"license": "other"}))
    assert "error" not in push(folder, "alice/kind-adapter", push_base="alice/kind-base")
    head = yaml.safe_load(texts(hub.model("alice/kind-base"))["README.md"].decode().split("---")[1])
    assert {key: head[key] for key in named} == named
