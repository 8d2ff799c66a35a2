"""`tl_hub.train` against the command line whose recipe it runs."""

import json
import sys
from pathlib import Path

import pytest

import tl_hub
from tests.conftest import ROOT
from tl_hub.errors import UserError
from tl_hub.record import RunRecord

SETTINGS = {"train_rows": 16, "epochs": 1, "validation_rows": 8, "test_rows": 8, "precision": "fp32"}


@pytest.mark.slow
def test_a_call_gives_the_run_of_the_command_line(script_here, load_back_here, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["notebook", "--of", "its own"])
    run = tl_hub.train("sentiment_adapter", **SETTINGS, output_dir=tmp_path / "called", examples=False, license=None)
    # A second call in the process may ask for another precision.
    tl_hub.train("sentiment_adapter", **SETTINGS | {"precision": "bf16"}, output_dir=tmp_path / "again")
    assert sys.argv == ["notebook", "--of", "its own"]
    words = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    done = script_here("recipes/sentiment_adapter.py", *words, "--output_dir", tmp_path / "started", "--no_examples")
    assert done.returncode == 0, done.stderr
    weights = [Path(folder, "adapter_model.safetensors").read_bytes() for folder in (run.folder, tmp_path / "started")]
    assert weights[0] == weights[1]
    assert run.record == RunRecord.load(tmp_path / "called") and not run.record.examples
    started = ["python", "recipes/sentiment_adapter.py", *words, "--output_dir", "called", "--no-examples"]
    assert run.record.command == " ".join(started)
    monkeypatch.setattr(sys, "argv", ["notebook"])
    again = tl_hub.train("sentiment_adapter", config=run.folder / "settings.yaml", output_dir=tmp_path / "anew")
    assert Path(again.folder, "adapter_model.safetensors").read_bytes() == weights[0]
    assert again.record.settings == run.record.settings
    shown = run._repr_html_()
    two_digits = f"{run.record.metrics[0].value:.2g}"  # of so few rows
    assert f"<td>{two_digits}</td>" in shown and "data:image/png;base64,iVBOR" in shown


@pytest.mark.parametrize(
    ("recipe", "settings", "says"),
    [
        ("sentiment", {}, "no recipe 'sentiment'; there are .*, sentiment_adapter, "),
        ("recipes/sentiment_adapter.py", {}, r"did you mean 'sentiment_adapter'\?"),
        ("sentiment_adaptor", {}, r"did you mean 'sentiment_adapter'\?"),
        ("sentiment_adapter", {"lr": 1}, "unknown flag or value --lr; did you mean --learning_rate"),
        ("sentiment_adapter", {"epochs": -1}, "--epochs is -1; it must be at least 1"),
        ("sentiment_adapter", {"train_file": "none.csv"}, "none.csv: no such file"),
        ("sentiment_adapter", {"preset": "sst2"}, "--model google-bert/bert-base-uncased: no such folder here"),
        ("sentiment_adapter", {"preset": "sst3"}, "--preset: invalid choice: 'sst3'.*sst2"),
        ("qa_adapter", {"method": "lore"}, "invalid choice: 'lore'"),
    ],
)
def test_what_the_command_line_refuses_is_raised(recipe, settings, says, tmp_path):
    words = sys.argv
    with pytest.raises(UserError, match=says):
        tl_hub.train(recipe, **settings, output_dir=tmp_path / "run")
    assert sys.argv is words and not (tmp_path / "run").exists()


def test_every_recipe_is_one_of_those_that_can_be_called(tmp_path):
    with pytest.raises(UserError) as refused:
        tl_hub.train("none")
    assert all(path.stem in str(refused.value) for path in (ROOT / "recipes").glob("*.py"))


def test_an_installed_package_has_its_own_recipes_and_takes_no_stranger_s(tmp_path, monkeypatch):
    site, shared = tmp_path / "lib" / "site-packages", tmp_path / "share" / "tl_hub" / "recipes"
    for folder in (site / "tl_hub", site / "recipes", site / "tl_hub-9.dist-info", shared):
        folder.mkdir(parents=True)
    (site / "recipes" / "stranger.py").write_text("raise AssertionError")
    (shared / "mine.py").write_text("raise ValueError('this one')")
    (site / "tl_hub-9.dist-info" / "METADATA").write_text("Name: tl_hub\nVersion: 9\n")
    (site / "tl_hub-9.dist-info" / "RECORD").write_text("../../share/tl_hub/recipes/mine.py,,\nrecipes/stranger.py,,\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setattr(tl_hub, "__file__", str(site / "tl_hub" / "__init__.py"))
    with pytest.raises(UserError, match="no recipe 'stranger'; there are mine$"):
        tl_hub.train("stranger")
    with pytest.raises(ValueError, match="this one"):
        tl_hub.train("mine")


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(load_back_here, tmp_path, monkeypatch):
    notebook = json.loads((ROOT / "docs/tutorials/first_adapter.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "outputs would go stale"
    monkeypatch.chdir(tmp_path)
    train = tl_hub.train
    monkeypatch.setattr(tl_hub, "train", lambda *given, **settings: train(*given, **settings | SETTINGS), raising=False)
    namespace: dict = {}
    for cell in cells:
        exec(cell, namespace)
    assert namespace["run"].folder == Path("runs/notebook") and namespace["report"]["max_difference"] == 0
    assert namespace["classify"](text="Good.")["label"] in ("positive", "negative")
