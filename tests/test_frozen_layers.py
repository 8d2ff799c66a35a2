"""Frozen lower layers that are read once, against the same training with all layers in every step."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from tests.test_training import go, interrupt_after, interrupting, log, weights  # noqa: F401 (a fixture)
from tl_hub import frozen_layers, launch, training
from tl_hub.base_model import Base
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.errors import Checked, RunStopped, UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import METHODS, Bottleneck, Lora, Prefix, Vera
from tl_hub.methods.base import TrainedMethod
from tl_hub.methods.fine_tune import FineTune
from tl_hub.methods.head_only import HeadOnly
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.language_modeling import MaskedLanguageModeling
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.sequence_to_sequence import Summarization
from tl_hub.tasks.text_generation import TextGeneration
from tl_hub.tasks.token_classification import TokenClassification
from tl_hub.vectors import cache

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, without_dropout, monkeypatch) -> RunConfig:
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    return RunConfig(
        output_dir=str(tmp_path / "run"), model=str(without_dropout("bert")), train_rows=24, validation_rows=8,
        test_rows=8, epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32",
    )  # fmt: skip


class Rows:
    """How many rows the lowest layer of a model has read while it was trained, and otherwise."""

    def __init__(self) -> None:
        self.training = self.reading = 0

    def watch(self, experiment: Any) -> None:
        def count(module: torch.nn.Module, args: Any, output: Any) -> None:
            if self.evaluating:
                return
            if module.training:
                self.training += len(args[0])
            else:
                self.reading += len(args[0])

        self.evaluating = False
        frozen_layers._blocks(frozen_layers._inner(experiment.model))[0].register_forward_hook(count)


@pytest.fixture
def rows(monkeypatch) -> Rows:
    rows, evaluate = Rows(), training.evaluate

    def evaluated(*args: Any, **options: Any) -> Any:
        rows.evaluating = True
        score = evaluate(*args, **options)
        rows.evaluating = False
        return score

    monkeypatch.setattr(training, "evaluate", evaluated)
    return rows


def losses_of(run: RunConfig, folder: Path) -> list[float]:
    return [line["loss"] for line in log(replace(run, output_dir=str(folder)))]


PAIRS = ((2, 3), (4, 3), (2, 5))
CASES = [
    ("bert", Classification(max_length=32, doc_stride=8), FineTune(top_layers=1)),
    ("roberta", TokenClassification(), Lora(top_layers=1)),
    ("distilbert", Classification(max_length=32, doc_stride=8), Bottleneck(top_layers=1)),
    ("gpt2", Summarization(max_source_length=64, max_target_length=16), Vera(rank=4, top_layers=1)),
    ("gpt2", TextGeneration(max_length=64), FineTune(top_layers=1)),
]


@pytest.mark.parametrize(("family", "task", "method"), CASES, ids=[f"{a}-{b.name}" for a, b, _ in CASES])
def test_training_is_as_with_all_layers_and_the_lower_ones_read_once(
    family: str, task: Any, method: TrainedMethod, run: RunConfig, rows: Rows, tmp_path: Path, without_dropout: Any
) -> None:
    run = replace(run, model=str(without_dropout(family)))
    kept, _, experiment = go(run, method, before=rows.watch, task=task)
    read = len(experiment.rows.splits["train"].encoded)
    assert (rows.training, rows.reading) == (0, read)
    every, *_ = go(replace(run, output_dir=str(tmp_path / "every"), recompute_frozen=True), method, task=task)
    losses = [
        [line["loss"] for line in log(replace(run, output_dir=str(tmp_path / name)))] for name in ("run", "every")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=2e-3), "but for half precision"
    for (name, one), other in zip(weights(kept).items(), weights(every).values(), strict=True):
        torch.testing.assert_close(one, other, atol=4e-3, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
    again = replace(run, output_dir=str(tmp_path / "again"), seed=1)
    if family == "bert":  # another run finds what the first one read
        go(again, method, before=rows.watch, task=task)
        assert (rows.training, rows.reading) == (0, read)


def test_answers_too_though_padding_is_read_as_zeros(run: RunConfig, rows: Rows, tmp_path: Path) -> None:
    task = QuestionAnswering(max_length=128, doc_stride=32)
    go(run, Lora(top_layers=1), before=rows.watch, task=task)
    assert rows.training == 0
    go(replace(run, output_dir=str(tmp_path / "every"), recompute_frozen=True), Lora(top_layers=1), task=task)
    losses = [
        [line["loss"] for line in log(replace(run, output_dir=str(tmp_path / name)))] for name in ("run", "every")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    run: RunConfig, tmp_path: Path, checkpoint_folders
) -> None:
    """With dropout in what is trained, and in the middle of an epoch."""
    run = replace(run, model=str(checkpoint_folders("bert")))
    task = Classification(max_length=32, doc_stride=8)
    whole, *_ = go(run, FineTune(top_layers=1), task=task)
    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, 8)
    with pytest.raises(RunStopped):
        go(cut, FineTune(top_layers=1), task=task)
    cache.prune(0)
    resumed, *_ = go(replace(cut, resume=True), FineTune(top_layers=1), task=task)
    for (name, one), other in zip(weights(whole).items(), weights(resumed).values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize(
    ("family", "task", "method", "settings"),
    [
        ("bert", Classification(), FineTune(), {}),
        ("bert", Classification(), FineTune(gradual_unfreezing=1), {}),
        ("bert", Classification(), Lora(), {}),
        ("bert", Classification(), Prefix(virtual_tokens=3), {}),
        ("bert", Classification(), FineTune(top_layers=1), {"epochs": 1}),
        ("bert", MaskedLanguageModeling(), FineTune(top_layers=1), {}),
        ("t5", Classification(), FineTune(top_layers=1), {}),
        ("xlnet", Classification(), FineTune(top_layers=1), {}),
    ],
)
def test_nothing_is_kept_where_rows_or_lower_layers_change(
    family: str, task: Any, method: TrainedMethod, settings: Any, run: RunConfig, without_dropout: Any
) -> None:
    run = replace(run, model=str(without_dropout(family)), train_rows=8, **{"max_steps": 3, **settings})
    go(run, method, task=task)
    assert cache.cache_entries() == []


def test_a_head_alone_has_vectors_of_its_own(run: RunConfig, checkpoints: Any) -> None:
    model, _ = checkpoints("bert", "AutoModelForQuestionAnswering")
    base = Base("a", "local", model_type="bert", fresh=("qa_outputs.weight", "qa_outputs.bias"))
    wrapped = HeadOnly().wrap(model, base)
    rows = Data({}, "a", "local")
    experiment = Experiment(run, QuestionAnswering(), HeadOnly(), base, rows, wrapped, None, launch.start(run))
    assert frozen_layers.count(experiment) == 0


def test_what_is_kept_takes_as_much_of_the_disk_as_the_check_says(run: RunConfig) -> None:
    task = Classification(max_length=32, doc_stride=8)
    with pytest.raises(Checked, match=r"what frozen layers give \d+ MiB of the cache") as checked:
        go(replace(run, check=True), FineTune(top_layers=1), task=task)
    go(run, FineTune(top_layers=1), task=task)
    (entry,) = cache.cache_entries()
    assert checked.value.facts["cache_bytes"] == entry.size - 128, "the head of a .npy file"
    with pytest.raises(Checked) as checked:
        go(replace(run, check=True, recompute_frozen=True), FineTune(top_layers=1), task=task)
    assert checked.value.facts["cache_bytes"] == 0


def test_rows_of_the_same_lengths_are_told_apart(checkpoints: Any) -> None:
    """Those of GPT-2 for summaries have their tokens in two columns."""
    model, _ = checkpoints("gpt2", "AutoModelForCausalLM")
    rows = [Dataset.from_dict({"prompt": [[1, one]], "target": [[other]], "length": [3]}) for one, other in PAIRS]
    assert len({cache.key_of(model, model.named_parameters(), encoded, False) for encoded in rows}) == len(PAIRS)


def test_a_disk_without_room_is_one_line(run: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = cache.shutil.disk_usage
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: usage(path)._replace(free=100))
    monkeypatch.setattr(training.estimate, "check_space", lambda run, model: None)
    with pytest.raises(UserError, match="need 0 MiB, 0 are free in .*; .*--recompute_frozen"):
        go(run, FineTune(top_layers=1), task=Classification(max_length=32, doc_stride=8))


@pytest.mark.parametrize("name", METHODS)
def test_only_methods_of_layers_can_leave_some_out(name: str) -> None:
    layered = name not in ("prompt", "prefix")
    assert ("top_layers" in METHODS[name].flags()) == layered
    if not layered:
        with pytest.raises(UserError, match="--top_layers: .* adds nothing to layers; use --method lora, dora"):
            METHODS[name](top_layers=1)
