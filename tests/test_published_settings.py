"""What each recipe trains with: its own values for small models, published ones for others, and who wins."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tl_hub import published_settings

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.py"))
TRAINED = [path for path in RECIPES if path.stem.endswith(("_adapter", "_finetune"))]
FINETUNED = {"bert": 3e-5, "gpt2": 6.25e-5, "t5": 3e-4, "xlnet": 2e-5}
LORA = {"bert": 5e-4, "gpt2": 2e-4, "t5": 1e-3, "xlnet": 5e-4}
PUBLIC = {
    "google-bert/bert-base-": ("bert", 110),
    "google-t5/t5-small": ("t5", 60),
    "openai-community/gpt2": ("gpt2", 124),
}
CONFIGS: dict[str, Any] = {
    "bert": transformers.BertConfig,
    "gpt2": transformers.GPT2Config,
    "t5": transformers.T5Config,
    "xlnet": transformers.XLNetConfig,
}


class Sized(transformers.PreTrainedModel):
    """A model of some size without memory for its weights."""

    def __init__(self, family: str, millions: float):
        super().__init__(CONFIGS[family]())
        self.weights = torch.nn.Parameter(torch.empty(int(millions * 1e6), device="meta"))


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch):
    """Run, task and method of a recipe as they are when training starts."""

    def settled(path: Path, family: str, millions: float, *words: str) -> tuple[Any, ...]:
        monkeypatch.setattr(sys, "argv", [path.name, *words])
        recipe = runpy.run_path(str(path))
        parts = [recipe["RUN"], recipe["TASK"], recipe["METHOD"]]
        run, task, method = recipe["cli"].parse(*parts, doc="", presets=recipe["PRESETS"])
        run, method = published_settings.apply(run, task, method, Sized(family, millions))
        return run, task, method, parts

    return settled


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_small_models_keep_the_recipes_own_values(settings, path):
    run, task, method, parts = settings(path, "bert", 4)
    assert [run, task, method] == parts and not run.settings_from


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_a_model_of_110_million_parameters_takes_the_published_values(settings, path, family):
    run, task, method, parts = settings(path, family, 110)
    expected = FINETUNED[family] if path.stem.endswith("finetune") else LORA[family]
    if path.stem == "continued_pretraining_finetune":
        expected = 1e-4
    assert run.learning_rate == expected
    assert run.epochs == (5 if family == "gpt2" and path.stem.endswith("adapter") else 3)
    assert run.warmup <= 0.1 and run.batch_size == max(8, parts[0].batch_size) and task == parts[1]
    if path.stem.endswith("adapter"):
        assert (method.rank, method.alpha) == (16, 32)
    assert "110M" in run.settings_from and f"learning_rate {expected:g}" in run.settings_from


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_flags_win_over_presets_and_presets_over_the_table(settings, path):
    run, *_ = settings(path, "bert", 110, "--learning-rate", "0.007", "--epochs", "9", "--warmup", "0.2")
    assert (run.learning_rate, run.epochs, run.warmup, run.settings_from.count("epochs")) == (0.007, 9, 0.2, 0)
    for name, preset in runpy.run_path(str(path))["PRESETS"].items():
        run, _, method, _ = settings(path, "bert", 110, "--preset", name, "--epochs", "9")
        assert run.epochs == 9
        for key in preset.keys() & {"learning_rate", "warmup"}:
            assert getattr(run, key) == preset[key]


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_a_preset_says_only_what_differs_from_the_table(settings, path):
    for name, preset in runpy.run_path(str(path))["PRESETS"].items():
        family, millions = next(size for model, size in PUBLIC.items() if preset["model"].startswith(model))
        _, task, method, _ = settings(path, family, millions, "--preset", name)
        row = published_settings.row_for(family, int(millions * 1e6), task, method)
        assert not row.values.items() & preset.items()


def test_settings_of_a_preset_and_its_model(settings):
    expected = {
        ("ner_adapter", "bert", 110): (3, 5e-4, 0.06, 32),
        ("ner_finetune", "bert", 110): (3, 5e-5, 0.1, 32),
        ("qa_adapter", "bert", 110): (2, 5e-4, 0.06, 16),
        ("sentiment_adapter", "bert", 110): (3, 4e-4, 0.1, 32),
        ("sentiment_finetune", "bert", 110): (3, 2e-5, 0.1, 32),
        ("document_classification_finetune", "bert", 110): (2, 3e-5, 0.1, 32),
        ("summarization_adapter", "t5", 60): (3, 1e-3, 0.1, 16),
        ("translation_adapter", "t5", 60): (1, 1e-3, 0.1, 16),
    }
    for (recipe, *sized), values in expected.items():
        path = next(p for p in TRAINED if p.stem == recipe)
        for name in runpy.run_path(str(path))["PRESETS"]:
            run, *_ = settings(path, *sized, "--preset", name)
            assert (run.epochs, run.learning_rate, run.warmup, run.batch_size) == values, recipe


def test_the_embedded_xlnet_answers_questions_with_settings_of_its_own(settings):
    qa, finetune, sentiment = (
        next(p for p in TRAINED if p.stem == name) for name in ("qa_adapter", "qa_finetune", "sentiment_adapter")
    )
    run, _, method, (own, *_) = settings(qa, "xlnet", 2.6)
    assert (method.alpha, method.rank, run.batch_size) == (128, 16, 8)
    assert (run.learning_rate, run.epochs) == (own.learning_rate, own.epochs)
    assert run.settings_from.endswith(
        "alpha 128, batch_size 8 (found on the validation rows of sample:qa, docs/results/adapters.md)"
    )
    run, _, method, _ = settings(qa, "xlnet", 2.6, "--alpha", "32", "--batch_size", "4")
    assert (method.alpha, run.batch_size, run.settings_from) == (32, 4, "")
    others = [(sentiment, "xlnet"), (finetune, "xlnet"), (qa, "gpt2"), (qa, "t5"), (qa, "xlnet", "--method", "dora")]
    for path, family, *words in others:
        run, _, method, _ = settings(path, family, 2.6, *words)
        assert not run.settings_from and run.batch_size > 8


def test_sizes_and_methods_have_rates_of_their_own(settings):
    finetune, adapter = (next(p for p in TRAINED if p.stem == f"sentiment_{m}") for m in ("finetune", "adapter"))
    assert [settings(finetune, "bert", size)[0].learning_rate for size in (22, 110, 340)] == [1e-4, 3e-5, 2e-5]
    assert [settings(adapter, "bert", size)[0].learning_rate for size in (22, 340)] == [5e-4, 3e-4]
    for recipe, rates in (("qa_finetune", [2e-4, 3e-5]), ("qa_adapter", [1.5e-3, 5e-4])):
        path = next(p for p in TRAINED if p.stem == recipe)
        assert [settings(path, "bert", size)[0].learning_rate for size in (22, 110)] == rates
    for method in ("dora", "ia3", "prompt", "prefix", "bottleneck", "vera"):
        run, _, chosen, _ = settings(adapter, "bert", 110, "--method", method)
        assert run.epochs == 3 and run.learning_rate in (5e-4, 3e-4, 1e-3)
        assert getattr(chosen, "rank", None) == {"dora": 16, "vera": 256}.get(method)
    factors = [settings(adapter, "bert", size, "--method", "vera")[2].rate_factor for size in (4, 22, 110)]
    assert factors == [10, 100, 20]
    text = next(p for p in TRAINED if p.stem == "text_generation_adapter")
    assert [settings(text, "gpt2", 110, *words)[0].batch_size for words in ((), ("--batch_size", "2"))] == [8, 2]
    run, _, chosen, _ = settings(adapter, "bert", 110, "--rank", "4")
    assert (chosen.rank, chosen.alpha) == (4, 32)


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_what_help_shows_is_what_some_model_takes(settings, path):
    _, task, method, parts = settings(path, "bert", 110)
    rows = [
        published_settings.row_for(family, int(millions * 1e6), task, method)
        for family in CONFIGS
        for millions in (10, 59, 60, 199, 200, 1000)
    ]
    for name in ("learning_rate", "epochs", "warmup", "rank"):
        taken = sorted({row.values[name] for row in rows if name in row.values})
        span = "" if not taken else f"{taken[0]:g}" if len(taken) == 1 else f"{taken[0]:g} to {taken[-1]:g}, by family"
        shown = published_settings.shown(name, parts[0], task, method)
        assert shown.removesuffix(" and size").rpartition(": ")[2] == span


@pytest.mark.parametrize(
    ("recipe", "values"),
    [
        ("sentiment_finetune", "0.0005; models from 10M parameters: 2e-05 to 0.0003, by family and size"),
        ("qa_adapter", "0.002; models from 10M parameters: 0.0002 to 0.0015, by family and size"),
        ("continued_pretraining_finetune", "0.0005; models from 10M parameters: 0.0001"),
    ],
)
def test_help_shows_both_values(recipe, values, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_path(str(next(p for p in TRAINED if p.stem == recipe)), run_name="__main__")
    shown = " ".join(capsys.readouterr().out.split())
    assert f"peak learning rate of AdamW [{values}]" in shown
    rank = "[lora, dora: 16, models from 10M parameters: 16; vera: 256]"
    assert (rank in shown) == (recipe == "qa_adapter")
