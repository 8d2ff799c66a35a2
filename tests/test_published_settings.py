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
        parts = [recipe["RUN"], recipe.get("TASK") or recipe["OBJECTIVE"], recipe["METHOD"]]
        run, task, method = recipe["cli"].parse(*parts, doc="", presets=recipe["PRESETS"])
        published_settings.apply(run, task, method, Sized(family, millions))
        return run, task, method, parts

    return settled


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_small_models_keep_the_recipes_own_values(settings, path, capsys):
    run, task, method, parts = settings(path, "bert", 4)
    assert [run, task, method] == parts and not capsys.readouterr().out


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_a_model_of_110_million_parameters_takes_the_published_values(settings, path, family, capsys):
    run, task, method, parts = settings(path, family, 110)
    expected = FINETUNED[family] if path.stem.endswith("finetune") else LORA[family]
    if path.stem == "continued_pretraining_finetune":
        expected = 1e-4
    assert run.learning_rate == expected
    assert run.epochs == (5 if family == "gpt2" and path.stem.endswith("adapter") else 3)
    assert run.warmup <= 0.1 and run.batch_size == parts[0].batch_size and task == parts[1]
    if path.stem.endswith("adapter"):
        assert (method.rank, method.alpha) == (16, 32)
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and "110M" in line and f"learning_rate {expected:g}" in line
    assert run.settings_from in line


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_flags_win_over_presets_and_presets_over_the_table(settings, path):
    run, *_ = settings(path, "bert", 110, "--learning-rate", "0.007", "--epochs", "9", "--warmup", "0.2")
    assert (run.learning_rate, run.epochs, run.warmup, run.settings_from.count("epochs")) == (0.007, 9, 0.2, 0)
    for name, preset in runpy.run_path(str(path))["PRESETS"].items():
        run, _, method, _ = settings(path, "bert", 110, "--preset", name, "--epochs", "9")
        assert run.epochs == 9
        for key in preset.keys() & {"learning_rate", "warmup"}:
            assert getattr(run, key) == preset[key]


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
    run, _, chosen, _ = settings(adapter, "bert", 110, "--rank", "4")
    assert (chosen.rank, chosen.alpha) == (4, 32)


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
