"""What is for few rows: averaged weights, gradual unfreezing, layers that start anew, R-Drop."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit, log_softmax, rel_entr, softmax

from tests.test_training import TASK, go, interrupt_after, interrupting, weights  # noqa: F401
from tl_hub import averaging, base_model, finish, training
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.objectives import WithLoss
from tl_hub.tasks.question_answering import QuestionAnswering

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path, checkpoint_folders) -> RunConfig:
    return RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), train_rows=20, validation_rows=8,
        test_rows=8, epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32",
    )  # fmt: skip


@pytest.fixture
def steps(monkeypatch):
    """Weights after each step of the runs that follow."""
    step, seen = training._Loop._step, []

    def watched(loop, *arguments):
        figures = step(loop, *arguments)
        seen.append(weights(loop.experiment.model))
        return figures

    monkeypatch.setattr(training._Loop, "_step", watched)
    return seen


def test_the_average_is_the_weighted_mean_of_the_weights_after_each_step(run, steps):
    """Of five steps to an epoch, over half an epoch: each counts 0.6 times as much as the one after it."""
    go(replace(run, average=0.5))
    means = load_file(Path(run.output_dir) / "checkpoint" / "average.safetensors")
    counts = 0.6 ** np.arange(len(steps))[::-1]
    assert len(steps) == 10
    for name, mean in means.items():
        expected = np.average([step[name].numpy() for step in steps], axis=0, weights=counts)
        np.testing.assert_allclose(mean.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert means.keys() == steps[0].keys()


@pytest.mark.parametrize(
    ("higher", "average", "kept"), [(True, 40.0, True), (True, 39.0, False), (False, 30.0, True), (False, 31.0, False)]
)
def test_the_average_is_the_result_where_it_is_no_worse(run, monkeypatch, higher, average, kept):
    scored, figures = QuestionAnswering.score, itertools.cycle([30.0, 40.0, average])

    def told(*arguments):
        score = scored(*arguments)
        score.metrics = {"f1": np.array(next(figures))}
        score.decision = {"null_threshold": float(score.metrics["f1"])}
        return score

    monkeypatch.setattr(QuestionAnswering, "score", told)
    monkeypatch.setattr(QuestionAnswering, "best", ("f1", higher))
    model, history, experiment = go(replace(run, average=1.0))
    best = 40.0 if higher else 30.0
    state = Path(run.output_dir) / "checkpoint"
    result = load_file(state / ("average.safetensors" if kept else "best.safetensors"))
    assert all(torch.equal(result[name], p) for name, p in weights(model).items())
    assert history.decision == {"null_threshold": average if kept else best}
    assert history.average == {"f1": average} and history.average_kept is kept
    rows = averaging.table(history, 1.0)[averaging.TITLE]
    assert [row["f1"] for row in rows] == [best, average]
    assert ["(kept)" in row["weights"] for row in rows] == [not kept, kept]
    record = finish.record_of(experiment, history, None)
    assert record.best_epoch == (None if kept else 2 if higher else 1)


@pytest.mark.parametrize(
    ("layers", "expected"), [(1, ["head", "1", "0", "embeddings"]), (2, ["head", "1 0", "embeddings"])]
)
def test_each_epoch_unfreezes_more_from_the_top(run, monkeypatch, layers, expected):
    """What has moved at all by the end of each epoch, weight decay included."""
    epochs, keep = [], training._Loop.keep_epoch

    def watched(loop, *arguments):
        epochs.append(weights(loop.experiment.model))
        keep(loop, *arguments)

    def start(experiment):
        epochs.append(weights(experiment.model))

    def part(name):
        found = re.search(r"layer\.(\d)|embeddings", name)
        return "head" if not found else found.group(1) or "embeddings"

    monkeypatch.setattr(training._Loop, "keep_epoch", watched)
    go(replace(run, epochs=len(expected)), FineTune(gradual_unfreezing=layers), before=start)
    learning = []
    for (before, after), more in zip(itertools.pairwise(epochs), expected, strict=True):
        learning += more.split()
        assert {part(name) for name in after if not torch.equal(before[name], after[name])} == {*learning}


def test_with_too_few_epochs_what_stays_frozen_is_said(run, capsys):
    go(replace(run, max_steps=1), FineTune(gradual_unfreezing=1))
    said = "note: the lowest layer would learn from epoch 4 on only; with at most 2 epochs some stay as they are"
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet", "distilbert", "roberta"])
def test_the_top_layer_starts_as_a_new_models_and_the_others_as_the_checkpoint(run, checkpoint_folders, family):
    """Each tensor has mean and deviation of the same one in a stock model of that configuration."""
    run = replace(run, model=str(checkpoint_folders(family)))
    loaded, _, _ = base_model.load(run, TASK)
    before = weights(loaded)
    model, _, base = base_model.load(run, TASK)
    FineTune(reinit_layers=1).wrap(model, base)
    stock = weights(type(model)(model.config))
    top = {
        "bert": "encoder.layer.1.", "roberta": "encoder.layer.1.", "gpt2": ".h.1.", "t5": "decoder.block.1.",
        "xlnet": ".layer.1.", "distilbert": "transformer.layer.1.",
    }[family]  # fmt: skip
    above = {"gpt2": "ln_f", "t5": "decoder.final_layer_norm"}.get(family, "no norm")
    after = weights(model)
    anew = {name for name in after if top in name or above in name}
    assert len(anew) >= 8
    for name, tensor in after.items():
        if name in base.fresh:
            continue
        if name not in anew:
            assert torch.equal(tensor, before[name]), name
            continue
        expected = stock[name]
        if tensor.ndim > 1 and expected.std() > 0 and expected.numel() > 500:
            assert not torch.equal(tensor, before[name]), name
            assert tensor.std() == pytest.approx(expected.std().item(), rel=0.15), name
            assert abs(tensor.mean()) < 5 * expected.std() / expected.numel() ** 0.5, name
        elif tensor.ndim == 1:
            assert torch.equal(tensor, expected), name  # ones and zeros


def test_all_of_it_goes_on_as_if_uninterrupted(run, tmp_path):
    run = replace(run, epochs=3, average=1.0)
    method, task = FineTune(gradual_unfreezing=1, reinit_layers=1), Classification(r_drop=0.5)
    whole, history, _ = go(run, method, task=task)
    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, history.epochs[0]["step"] + 2)
    with pytest.raises(RunStopped):
        go(cut, method, task=task)
    with pytest.raises(UserError, match="saved with --average 1.0, not 2.0"):
        go(replace(cut, resume=True, average=2.0), method, task=task)
    resumed, again, _ = go(replace(cut, resume=True), method, task=task)
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())
    assert (again.epochs, again.average) == (history.epochs, history.average)
    averages = [load_file(Path(each.output_dir) / "checkpoint" / "average.safetensors") for each in (run, cut)]
    assert all(torch.equal(averages[0][name], averages[1][name]) for name in averages[0])


def divergence(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean of KL(one, other) and KL(other, one), over the last axis."""
    return (rel_entr(one, other).sum(-1) + rel_entr(other, one).sum(-1)) / 2


@pytest.mark.parametrize("form", ["one class", "weighted and smoothed", "several labels"])
def test_r_drop_is_the_formula_with_the_same_masks(checkpoints, form):
    """Two passes with the same random numbers, and the loss by hand in numpy."""
    model, _ = checkpoints("bert", "AutoModelForSequenceClassification")
    several, smoothing = form == "several labels", 0.1 if form == "weighted and smoothed" else 0.0
    counts = torch.tensor([0.5, 3.0]) if smoothing else None
    labels = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]) if several else torch.tensor([0, 1, 0])
    ids = torch.randint(5, 300, (3, 9), generator=torch.Generator().manual_seed(0))
    objective = WithLoss(model.train(), smoothing, several, counts, 2.0)
    torch.manual_seed(1)
    found = objective(input_ids=ids, labels=labels).loss.item()
    torch.manual_seed(1)
    with torch.no_grad():
        one, other = (model(input_ids=ids).logits.double().numpy() for _ in range(2))
    assert np.abs(one - other).max() > 0.01, "dropout differs"
    target = labels.numpy()
    if several:
        losses = [-(target * np.log(expit(x)) + (1 - target) * np.log(expit(-x))).mean() for x in (one, other)]
        pairs = [np.stack([expit(x), expit(-x)], -1) for x in (one, other)]
        apart = divergence(*pairs).mean()
    else:
        weight = np.ones(2) if counts is None else counts.numpy().astype(float)
        smooth = np.eye(2)[target] * (1 - smoothing) + smoothing / 2
        # torch weighs each class of a smoothed target by that class's weight.
        losses = [-(smooth * weight * log_softmax(x, 1)).sum() / weight[target].sum() for x in (one, other)]
        apart = np.average(divergence(softmax(one, 1), softmax(other, 1)), weights=weight[target])
    assert found == pytest.approx(np.mean(losses) + 2.0 * apart, rel=1e-5)
    model.eval()
    plain = WithLoss(model, smoothing, several, counts, 0.0)
    assert objective(input_ids=ids, labels=labels).loss == plain(input_ids=ids, labels=labels).loss


def test_r_drop_of_a_step_is_the_same_however_its_rows_are_shared_out():
    """By the weights of the rows, as the loss itself."""

    class Passes(torch.nn.Module):
        """Gives each row the logits that it has in the first pass, then those in the second."""

        def __init__(self, logits):
            super().__init__()
            self.logits, self.count = logits, itertools.count()

        def forward(self, rows):
            return SimpleNamespace(logits=self.logits[next(self.count) % 2][rows])

    logits, labels = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 0, 1])
    counts = torch.tensor([0.3, 1.0, 5.0])

    def loss(rows):
        objective = WithLoss(Passes(logits), 0.0, False, counts, 1.5)
        return objective(rows=torch.tensor(rows), labels=labels[rows]).loss, counts[labels[rows]].sum()

    parts = [loss(rows) for rows in ([0, 1], [2, 3, 4, 5])]
    whole, total = loss([0, 1, 2, 3, 4, 5])
    assert sum(part * weight for part, weight in parts) / total == pytest.approx(whole.item(), rel=1e-5)


def test_what_has_no_effect_is_refused(run, without_dropout, tmp_path):
    still = replace(run, model=str(without_dropout("bert")))
    with pytest.raises(UserError, match="--r_drop compares two passes .* the model has none; omit it"):
        go(still, task=Classification(r_drop=1.0))
    assert not Path(run.output_dir).exists()
    with pytest.raises(UserError, match="--r_drop is for classes, and the labels are numbers"):
        Classification(r_drop=1.0, regression=True)
    for settings, task, name in (
        (RunConfig(), Classification(r_drop=1.0), "r_drop"),
        (RunConfig(average=1.0), Classification(), "average"),
    ):
        with pytest.raises(UserError, match=f"--{name} is for gradient training"):
            FeatureExtraction().fitting(settings, task)
    model, _, base = base_model.load(run, TASK)
    for settings, says in [
        ({"reinit_layers": 3}, "--reinit_layers is 3; the model has 2 layers"),
        ({"gradual_unfreezing": 3}, "--gradual_unfreezing is 3; the model has 2 layers"),
        (
            {"reinit_layers": 2, "top_layers": 1},
            "--reinit_layers is 2 and --top_layers 1; new layers have to be trained",
        ),
        ({"reinit_layers": 0}, "--reinit_layers is 0; it must be at least 1"),
    ]:
        with pytest.raises(UserError, match=says):
            FineTune(**settings).wrap(model, base)


def test_the_linear_schedule_is_the_slanted_triangle(run):
    """Of Howard and Ruder, with their cut and a ratio so large that the lowest rate is none: their equation 3."""
    steps, cut = 40, 10
    for step in range(cut, steps):
        p = 1 - (step - cut) / (cut * (steps / cut - 1))
        assert training.adamw.share_of_rate(step, steps, replace(run, warmup=cut / steps)) == pytest.approx(p)
