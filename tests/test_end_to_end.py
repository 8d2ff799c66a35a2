"""Three kinds of run of each family: trained, published on a Hub of our own, and loaded where tl_hub is not."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

import tl_hub
from tests.hub_server import WRITE
from tests.publishing.runs import environment
from tl_hub.architectures import ARCHITECTURES
from tl_hub.methods import head_only
from tl_hub.record import RunRecord
from tl_hub.tasks.language_modeling import objective_of

ROOT = Path(__file__).parent.parent
TEXT = "The rooms were clean, and we did not want to leave."
KINDS = {
    "adapter": ["--rank", "2", "--max_steps", "2"],
    "finetune": ["--max_steps", "2"],
    "features": ["--fold"],  # a stock class; without it the result needs tl_hub.FeatureModel
}
CELLS = [(kind, family) for family in ARCHITECTURES for kind in KINDS if family != "xlm-roberta"]
# T5's head on frozen vectors cannot be folded, as transformers' classifier reads its decoder: it needs tl_hub.
FOLDED = [cell for cell in CELLS if cell != ("features", "t5")]
STOCK = """
import json, sys
sys.modules["tl_hub"] = None
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoModelForSequenceClassification, AutoTokenizer
found, text = {}, sys.argv[1]
for repo in sys.argv[2:]:
    tokenizer = AutoTokenizer.from_pretrained(repo)
    loaders = [AutoModelForSequenceClassification.from_pretrained(repo)]
    if "adapter" in repo:
        # PEFT makes the base itself, and the names of the classes are not in an adapter.
        loaders.append(AutoPeftModelForSequenceClassification.from_pretrained(repo, num_labels=2))
    with torch.no_grad():
        inputs = tokenizer(text, return_tensors="pt")
        found[repo] = [model.eval()(**inputs).logits[0].softmax(0).tolist() for model in loaders]
print(json.dumps(found))
"""
PUSH = """
import json, sys, tl_hub
done = [tl_hub.publish(**push, say=lambda text: None) for push in json.loads(sys.argv[1])]
print(json.dumps(["torch" in sys.modules, [each.verification for each in done]]))
"""


@pytest.mark.usefixtures("load_back_here")
def test_what_is_published_is_what_stock_libraries_load(hub, run_script, checkpoint_folders, monkeypatch, tmp_path):
    rows = ["--train_rows", "12", "--validation_rows", "6", "--test_rows", "6", "--license", "mit"]
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    expected: dict[str, list[float]] = {}
    temperatures: dict[str, float] = {}
    own = environment(hub.url, WRITE, tmp_path / "home")

    def stock(code: str, *arguments: Any) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, **own},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    pushes = []
    for kind, family in CELLS:
        folder = tmp_path / f"{kind}-{family}"
        flags = KINDS[kind] if (kind, family) in FOLDED or kind != "features" else ["--pooling", "mean"]
        given = ["--model", str(checkpoint_folders(family)), "--output_dir", str(folder), *rows, *flags]
        given += ["--pooling", "last"] if kind == "features" and family in ("gpt2", "xlnet") else []
        monkeypatch.setattr(sys, "argv", [f"sentiment_{kind}.py", *given])
        runpy.run_path(str(ROOT / "recipes" / f"sentiment_{kind}.py"))["main"]()
        expected[f"alice/{folder.name}"] = list(tl_hub.pipeline(folder)(TEXT)["scores"].values())
        record = RunRecord.load(folder)
        temperatures[f"alice/{folder.name}"] = record.decision.get("temperature", 1.0)
        checked = record.verification
        assert checked["result"] == checked["pipeline_output"]["label"], "by the card's stock calls and its pipeline"
        base = {"push_base": f"alice/base-{family}"} if kind == "adapter" or (kind, family) not in FOLDED else {}
        # A fresh process for each takes minutes in all: of those that stock libraries load below, one will do.
        back = (kind, family) == ("adapter", "bert")
        pushes.append({"folder": str(folder), "repo": f"alice/{folder.name}", "load_back": back, **base})
    needs_tl_hub = pushes.pop(CELLS.index(("features", "t5"))) | {"load_back": True}
    torch, reports = stock(PUSH, json.dumps(pushes))
    assert torch is False, "publishing needs no torch"
    assert [report is not None for report in reports] == [push["load_back"] for push in pushes]
    pushed = run_script.code(PUSH, json.dumps([needs_tl_hub]), here="all")
    assert pushed.returncode == 0, pushed.stderr
    for report in (reports[0], *json.loads(pushed.stdout.splitlines()[-1])[1]):
        assert report["same_output"] and report["max_difference"] <= 1e-5
    found = stock(STOCK, TEXT, *(f"alice/{kind}-{family}" for kind, family in FOLDED))
    assert constants.HF_HUB_OFFLINE, "this process has been offline"
    assert set(expected) - set(found) == {"alice/features-t5"}
    for repo, scores in found.items():
        assert len(scores) == (2 if "adapter" in repo else 1)
        for given in scores:
            cooler = np.array(given) ** (1 / temperatures[repo])  # which stock libraries do not know
            found_scores = (cooler / cooler.sum()).tolist()
            assert found_scores == pytest.approx(expected[repo], abs=1e-4), repo  # folded heads add in another order


SHORT = ["--max_steps", "2", "--batch_size", "2", "--validation_rows", "2", "--test_rows", "2"]
RUNS = {
    "pretraining-xlnet": ["--layers", "1", "--hidden_size", "32", "--heads", "2", "--intermediate_size", "64",
                          "--vocab_size", "300", "--max_length", "32", "--max_steps", "2"],
    "qa_features-gpt2": ["--max_steps", "2"],
    "qa_features-t5": ["--max_steps", "2"],
    "summarization_features-t5": [],
    "summarization_features-xlnet": [],
    "sentiment_features-gpt2": [],
    "sentiment_features-t5": [],
    "document_classification_features-gpt2": [],
    "document_classification_features-t5": [],
    "document_classification_finetune-gpt2": SHORT,
    "document_classification_finetune-t5": SHORT,
    "continued_pretraining_finetune-t5": ["--max_length", "32", *SHORT],
    "continued_pretraining_finetune-xlnet": ["--max_length", "32", *SHORT],
    "text_generation_finetune-gpt2": ["--max_length", "32", "--max_new_tokens", "4", *SHORT],
    "text_generation_finetune-xlnet": ["--max_length", "32", "--max_new_tokens", "4", *SHORT],
    "continued_pretraining_finetune-distilbert": ["--max_length", "32", *SHORT],
    "qa_adapter-distilbert": SHORT,
    "qa_features-distilbert": ["--max_steps", "2"],
    "summarization_features-distilbert": [],
    "pretraining-roberta": ["--layers", "1", "--hidden_size", "32", "--heads", "2", "--intermediate_size", "64",
                            "--vocab_size", "300", "--max_length", "32", "--max_steps", "2"],
    "continued_pretraining_finetune-xlm-roberta": ["--max_length", "32", "--whole_word", *SHORT],
    "continued_pretraining_adapter-roberta": ["--max_length", "32", *SHORT],
    "qa_finetune-xlm-roberta": SHORT,
    "qa_adapter-roberta": ["--method", "prefix", "--virtual_tokens", "4", *SHORT],
    "qa_features-roberta": ["--max_steps", "2"],
    "summarization_features-xlm-roberta": [],
    "sentiment_adapter-xlm-roberta": ["--method", "prompt", "--virtual_tokens", "4", *SHORT],
}  # fmt: skip
LOAD_BACK = """
import json, os, sys
from tl_hub import load_back
from tl_hub.record import RunRecord
found = {}
for folder in sys.argv[1:]:
    os.chdir(folder)
    found[folder] = load_back.load_and_compare(RunRecord.load("."))
print(json.dumps(found))
"""


@pytest.mark.usefixtures("load_back_here")
def test_more_cells_end_in_what_a_fresh_process_loads(checkpoint_folders, checkpoints, forks, monkeypatch, tmp_path):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(head_only, "_EPOCHS", 1)  # how well a layer is chosen is not asked here
    monkeypatch.setattr(head_only, "_LEAST", 1)
    rows = ["--train_rows", "24", "--validation_rows", "6", "--test_rows", "6"]
    for name, flags in RUNS.items():
        recipe, _, family = name.partition("-")
        folder = checkpoint_folders(family)
        if recipe.startswith(("continued_pretraining", "text_generation")):  # they go on with a head that is there
            folder = tmp_path / f"{family}-with-head"
            for part in checkpoints(family, objective_of(family).auto_class):
                part.save_pretrained(folder)
        base = ["--model_type", family] if recipe == "pretraining" else ["--model", str(folder)]
        given = [*base, *rows, *flags, "--output_dir", str(tmp_path / name)]
        monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *given])
        runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]()
    done = forks.code(LOAD_BACK, *(tmp_path / name for name in RUNS), here="none")
    assert done.returncode == 0, done.stderr
    for folder, report in json.loads(done.stdout.splitlines()[-1]).items():
        assert report.get("error") is None and report["max_difference"] <= 1e-5, folder
        assert RunRecord.load(folder).token_ids and "tokenizer" not in report, "no alarm"
        shown = RunRecord.load(folder).examples
        assert shown or "pretraining" in Path(folder).name, "few words of a random vocabulary are one token"
        assert ("pipeline_output" in report) == bool(shown), "a card shows an answer"


def test_what_cannot_be_loaded_is_said_in_a_line(run_script):
    """And pickles are not loaded, nor even downloaded."""
    code = """
import json, os, pathlib, sys
import tl_hub
from tl_hub.errors import UserError
from huggingface_hub import HfApi
api = HfApi()
for repo, files in json.loads(sys.argv[1]).items():
    api.create_repo(repo, private=True)
    for name, text in files.items():
        api.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repo)
said = []
for repo, revision in json.loads(sys.argv[2]):
    try:
        tl_hub.pipeline(repo, revision=revision)
    except UserError as error:
        said.append(str(error))
print(json.dumps([said, [path.name for path in pathlib.Path(os.environ["HF_HOME"]).rglob("*.bin")]]))
"""
    run = {"name": "x", "kind": "fine-tuned", "pipeline_tag": "text-classification", "license": "mit"}
    run |= {"auto_class": "AutoModelForSequenceClassification", "method": {"name": "fine-tuning"}}
    run |= {"data": {"id": "rows.csv", "source": "local"}, "metrics": []}
    adapter = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "alice/gone", "r": 2})
    repos = {
        "alice/pickle": {"run.json": json.dumps(run), "config.json": "{}", "pytorch_model.bin": "pickle"},
        "alice/of-no-run": {"config.json": "{}"},
        "alice/baseless": {
            "run.json": json.dumps(run | {"kind": "adapter"}),
            "adapter_config.json": adapter,
            "adapter_model.safetensors": "",
        },
    }
    asked = [("alice/none", None), ("alice/pickle", "v9"), ("alice/pickle", None), ("alice/of-no-run", None)]
    asked += [("alice/baseless", None)]
    done = run_script.code(code, json.dumps(repos), json.dumps(asked), here="none")
    assert done.returncode == 0, done.stderr
    said, pickles = json.loads(done.stdout.splitlines()[-1])
    expected = [
        "no such model on the Hub",
        "no revision v9",
        "pickles are not loaded",
        "not published from a run",
        "alice/gone",
    ]
    assert len(said) == len(expected) and not pickles
    for line, part in zip(said, expected, strict=True):
        assert part in line and "\n" not in line, said
