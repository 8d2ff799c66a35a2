"""What can be known before anything is sent, or even trained, is said by then."""

import json
import shutil

import pytest
import yaml

from tests.hub_server import FINE, READ
from tests.publishing.runs import holds, texts, write_run
from tl_hub import base_model, launch
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.methods.adapters import Lora
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.publishing.client import Patience
from tl_hub.publishing.repository import Repository


def test_who_may_not_write_there_is_told_so_before_anything_is_sent(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    cases = [(READ, "alice/x", "may only read"), ("", "alice/x", "`hf auth login`"), ("hf_old", "alice/x", "(401")]
    cases += [(FINE, "alice/x", "may not write to alice/x; give it the right to write to repositories of alice")]
    for token, repo, says in cases:
        answer = push(folder, repo, token=token)
        assert answer["kind"] == "UserError" and says in answer["error"], answer
    for repo, says in [
        ("bob/x", "give a name under alice or acme"),
        ("x", "alice/x"),
        ("alice/a b", "'alice/a b' is not a name"),
        ("alice/../x", "is not a name"),
    ]:
        answer = push(folder, repo)
        assert answer["kind"] == "UserError" and says in answer["error"], answer
    assert ("model", "alice/x") not in hub.repos
    push(folder, "acme/theirs")
    assert holds(hub.model("acme/theirs"), folder)
    assert "error" not in push(folder, "acme/fine", token=FINE)
    assert holds(hub.model("acme/fine"), folder)
    assert "error" not in push(folder, "alice/one", token=FINE), "a token may be for a single repository"
    assert holds(hub.model("alice/one"), folder)


def test_a_token_that_cannot_be_sent_is_refused_before_the_hub_is_asked(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "ä" * 34)
    with pytest.raises(UserError, match="the Hub token .* has a letter that tokens do not have"):
        Repository("alice/x", Patience(), print)


def test_a_license_must_be_known_and_allowed(push, tmp_path):
    base = {"id": "bert-base", "source": "local", "model_type": "bert", "license": "cc-by-sa-4.0"}
    folder = write_run(tmp_path / "run", license=None)
    assert "give --license" in push(folder, "alice/license")["error"]
    assert "not an identifier" in push(folder, "alice/license", license="my own")["error"]
    folder = write_run(tmp_path / "run", license="mit", base=base)
    assert "which what is made from it must keep" in push(folder, "alice/license")["error"]


def test_the_license_that_is_given_counts_then_the_runs_then_the_bases(hub, push, tmp_path):
    base = {"id": "bert-base", "source": "local", "model_type": "bert", "license": "apache-2.0"}
    for own, given, expected in (("mit", "cc-by-4.0", "cc-by-4.0"), ("mit", None, "mit"), (None, None, "apache-2.0")):
        folder, name = write_run(tmp_path / expected, license=own, base=base), f"alice/license-{expected}"
        assert "error" not in push(folder, name, license=given)
        files = texts(hub.model(name))
        assert yaml.safe_load(files["README.md"].decode().split("---")[1])["license"] == expected
        assert json.loads(files["run.json"])["license"] == expected


def test_a_license_is_asked_for_before_training(tmp_path, checkpoint_folders):
    """And that of a base that is one's own run is the one it states."""
    folder = str(tmp_path / "run")
    with pytest.raises(UserError, match="--license free is not an identifier"):
        launch.check(RunConfig(output_dir=folder, license="free"), FromScratch())
    with pytest.raises(UserError, match="the license is not known; give --license"):
        launch.check(RunConfig(output_dir=folder, push_to="alice/pretrained"), FromScratch())
    base = tmp_path / "base"
    shutil.copytree(checkpoint_folders("bert"), base)
    facts = json.loads((write_run(tmp_path / "facts", license="cc-by-nc-4.0") / "run.json").read_text())
    (base / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="--license mit: the base model is under cc-by-nc-4.0"):
        base_model.family_of(RunConfig(output_dir=folder, model=str(base), license="mit"))


def test_a_base_that_only_this_machine_has_is_refused_before_training(tmp_path, checkpoint_folders):
    run = RunConfig(output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), push_to="alice/head")
    for method in (FeatureExtraction(), Lora()):
        with pytest.raises(UserError, match="--push_base"):
            launch.check(run, method)
