"""The gradient loop against an uninterrupted run, a plain loop and the stock schedules."""

import copy
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tl_hub import adamw, base_model, batches, cli, cpu, curves, data, estimate, finish, launch, state_folders, training
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.tasks.classification import Classification, DocumentClassification
from tl_hub.tasks.language_modeling import (
    CausalLanguageModeling,
    MaskedLanguageModeling,
    PermutationLanguageModeling,
    Pretraining,
    SpanCorruption,
)
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.sequence_to_sequence import Summarization
from tl_hub.tasks.text_generation import TextGeneration
from tl_hub.tasks.token_classification import TokenClassification

pytestmark = pytest.mark.slow

TASK = QuestionAnswering(max_length=128, doc_stride=32)


@pytest.fixture
def run(tmp_path, checkpoint_folders) -> RunConfig:
    return RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), train_rows=40, validation_rows=8,
        test_rows=16, epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32",
    )  # fmt: skip


def go(run: RunConfig, method=None, before=None, task=TASK):
    """What a recipe does up to the end of training."""
    method = method or FineTune()
    accelerator = launch.start(run)
    rows, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(rows, task, tokenizer, model)
    model = method.wrap(model, base)
    experiment = Experiment(run, task, method, base, rows, model, tokenizer, accelerator)
    if before:
        before(experiment)
    return model, training.train(experiment), experiment


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def log(run: RunConfig) -> list[dict]:
    return [json.loads(line) for line in (Path(run.output_dir) / "log.jsonl").read_text().splitlines()]


PLANNED: dict[str, int] = {}
"""The folders of runs that will be interrupted, and after which step."""


def interrupt_after(run: RunConfig, step: int) -> None:
    """Send this process the signal that Ctrl-C sends, once the log has `step` lines."""
    PLANNED[run.output_dir] = step


@pytest.fixture(scope="module", autouse=True)
def interrupting():
    write = training._Log.write

    def told(log, **figures):
        write(log, **figures)
        folder = os.path.dirname(log.file.name)
        if PLANNED.get(folder) == figures["step"]:
            del PLANNED[folder]
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.MonkeyPatch.context() as within:
        within.setattr(training._Log, "write", told)
        yield


def test_a_run_goes_on_with_its_rows_in_other_batches(run, tmp_path, without_dropout):
    """Where memory no longer suffices, say: the same rows make a step, and the result is the same but for rounding."""
    run = replace(run, model=str(without_dropout("bert")))
    go(run)
    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, 3)
    with pytest.raises(RunStopped):
        go(cut)
    go(replace(cut, resume=True, batch_size=2, accumulation=2))
    assert [line["loss"] for line in log(cut)] == pytest.approx([line["loss"] for line in log(run)], rel=1e-3)


@pytest.mark.parametrize("method", [FineTune(), Lora(rank=4)])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_an_interrupted_run_ends_as_an_uninterrupted_one_bit_for_bit(run, tmp_path, method, accumulation):
    run = replace(run, accumulation=accumulation)
    whole, history, _ = go(run, method)
    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, 2)
    with pytest.raises(RunStopped, match="--resume") as stop:
        go(cut, method)
    assert stop.value.exit_code == 130
    assert not any((tmp_path / "cut").glob("*.new"))
    resumed, again, _ = go(replace(cut, resume=True), method)
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())
    assert again.epochs == history.epochs and again.best_epoch == history.best_epoch
    figures = ("step", "loss", "learning_rate", "grad_norm")
    assert [[line[f] for f in figures] for line in log(cut)] == [[line[f] for f in figures] for line in log(run)]


EVERY_LOSS = [
    ("bert", QuestionAnswering(max_length=128, doc_stride=32)),
    ("bert", Classification()),
    ("xlnet", Classification(label_smoothing=0.1)),
    ("gpt2", DocumentClassification(class_weights="balanced", label_smoothing=0.1)),
    ("bert", TokenClassification()),
    ("t5", Summarization()),
    ("gpt2", Summarization()),
    ("gpt2", TextGeneration(max_length=64)),
    ("xlnet", TextGeneration(max_length=64)),
    ("bert", MaskedLanguageModeling(max_length=64, random_length=True)),
    ("gpt2", CausalLanguageModeling(max_length=64)),
    ("t5", SpanCorruption(max_length=64)),
    ("xlnet", PermutationLanguageModeling(max_length=64)),
]


@pytest.mark.parametrize(("family", "task"), EVERY_LOSS, ids=lambda part: getattr(part, "name", part))
def test_a_step_is_the_same_however_its_rows_are_shared_out(run, tmp_path, without_dropout, family, task):
    """In one batch, accumulated, and by the loss that plain torch and transformers give of one batch of all rows.

    Of 15 rows to a step, the last step of an epoch has fewer. Its mean is over rows or tokens, not over batches.
    """
    run = replace(run, model=str(without_dropout(family)), validation_rows=2, batch_size=15, max_steps=6)
    first = []

    def plain(experiment: Experiment) -> None:
        """Loss and gradient of the first step."""
        features = experiment.rows.splits["train"].encoded
        rows = batches.GlobalBatches(features["length"], 15, run.seed).of_epoch(0)[0]
        kept = features.select_columns([name for name in (*task.batched, "index") if name in features.column_names])
        given = [
            row | {"draw": (run.seed, 0, 0)} if task.random_batches else row for row in kept.select(rows).to_list()
        ]
        batch = experiment.task.collator(experiment.tokenizer, training=True)(given)
        model = copy.deepcopy(experiment.model).train()
        loss = stock_loss(model, experiment, batch)
        loss.backward()
        first.extend([loss.item(), float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1e9))])

    apart = replace(run, output_dir=str(tmp_path / "parts"), batch_size=5, accumulation=3)
    _, whole, _ = go(run, before=plain, task=task)
    _, parts, _ = go(apart, task=task)
    one, three = log(run), log(apart)
    assert [one[0]["loss"], one[0]["grad_norm"]] == pytest.approx(first, rel=2e-4)
    assert [line["loss"] for line in three] == pytest.approx([line["loss"] for line in one], rel=1e-3)
    assert three[0]["grad_norm"] == pytest.approx(one[0]["grad_norm"], rel=1e-4)
    assert len(one) == len(three) == 6
    assert parts.epochs[0]["loss"] == pytest.approx(whole.epochs[0]["loss"], rel=1e-3)


def stock_loss(model, experiment, batch):
    """Of transformers, or of torch where transformers has no such loss."""
    task, labels = experiment.task, batch.get("labels")
    inputs = {name: value for name, value in batch.items() if name != "index" and name not in task.scoring_only}
    if isinstance(task, Classification) and task.label_smoothing:
        weight = None
        if task.class_weights == "balanced":
            given = Counter(experiment.rows.splits["train"].rows["label"])
            weight = torch.tensor([given.total() / len(given) / given[name] for name in task.labels])
        return torch.nn.functional.cross_entropy(model(**inputs).logits, labels, weight, label_smoothing=0.1)
    if isinstance(task, TextGeneration) and model.config.model_type == "xlnet":
        del inputs["labels"]
        logits = model(**inputs, use_mems=False).logits[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
    return model(**inputs).loss


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_what_is_decayed_is_what_the_stock_trainer_decays(run, checkpoint_folders, family):
    """Some biases of XLNet and T5 have two dimensions."""
    model, _, _ = base_model.load(replace(run, model=str(checkpoint_folders(family))), TASK)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = adamw.groups(model, 0.01)
    decayed = [names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]]
    expected = transformers.Trainer.get_decay_parameter_names(None, model)
    assert set(decayed) == set(expected) & set(names.values())  # T5's embeddings have several names
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_after_the_first_steps_the_time_that_is_left_is_said(run, monkeypatch, capsys):
    """By a clock that goes ten seconds a look, as each of the 20 steps takes; after 11 of them, 9 are left."""
    clock = itertools.count(step=10)
    with monkeypatch.context() as within:
        within.setattr(time, "perf_counter", lambda: next(clock))
        go(run)
    said = [line for line in capsys.readouterr().out.splitlines() if "are left" in line]
    assert said == ["about 2 minutes of training are left, and the evaluations"]


def test_an_interrupt_in_the_last_step_ends_the_run_and_loses_nothing(run, tmp_path):
    """It was swallowed, and the run went on to publish."""
    whole, history, _ = go(run)
    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, 20)
    with pytest.raises(RunStopped, match="step 20 of 20.*--resume") as stop:
        go(cut)
    assert stop.value.exit_code == 130
    resumed, again, _ = go(replace(cut, resume=True))
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())
    assert again.epochs == history.epochs and again.best_epoch == history.best_epoch


def test_a_push_on_the_way_sends_the_best_epoch_and_changes_nothing(run, tmp_path, monkeypatch):
    """Training goes on from the last weights, not from the best ones, which were in the model for the push."""
    scored, count = QuestionAnswering.score, itertools.count()

    def declining(*arguments):
        """The first epoch is the best, or it would not tell."""
        score = scored(*arguments)
        score.metrics = {"f1": score.metrics["f1"] - 1000.0 * next(count)}
        return score

    monkeypatch.setattr(QuestionAnswering, "score", declining)
    run = replace(run, epochs=3)
    whole, expected, _ = go(run)
    assert expected.best_epoch == 1
    count = itertools.count()
    pushed = replace(run, output_dir=str(tmp_path / "pushed"))
    accelerator = launch.start(pushed)
    pushed.push_every = 1  # asked of a Hub where it is given before
    rows, _ = data.load(pushed, TASK)
    model, tokenizer, base = base_model.load(pushed, TASK)
    data.encode(rows, TASK, tokenizer, model)
    model, sent = FineTune().wrap(model, base), []

    def push(experiment, history):
        sent.append((history.best_epoch, weights(experiment.model)))

    experiment = Experiment(pushed, TASK, FineTune(), base, rows, model, tokenizer, accelerator)
    history = training.train(experiment, push)
    figures = ("step", "loss", "learning_rate", "grad_norm")
    assert [[line[f] for f in figures] for line in log(pushed)] == [[line[f] for f in figures] for line in log(run)]
    assert history.epochs == expected.epochs and len(sent) == 2
    best = weights(whole)
    assert [all(torch.equal(p, best[n]) for n, p in each.items()) for epoch, each in sent] == [
        epoch == expected.best_epoch for epoch, _ in sent
    ]


def test_of_a_figure_that_should_be_low_the_lowest_is_the_best(run, monkeypatch):
    """As of the loss of a language model: the second of three epochs is made the best one."""
    scored, figures = QuestionAnswering.score, itertools.cycle([30.0, 10.0, 20.0])

    def told(*arguments):
        score = scored(*arguments)
        score.metrics = {"f1": torch.tensor(next(figures)).numpy()}
        score.decision = {"null_threshold": float(score.metrics["f1"])}
        return score

    monkeypatch.setattr(QuestionAnswering, "score", told)
    monkeypatch.setattr(QuestionAnswering, "best", ("f1", False))
    model, history, _ = go(replace(run, epochs=3, train_rows=12))
    assert [epoch["f1"] for epoch in history.epochs] == [30.0, 10.0, 20.0] and history.best_epoch == 2
    assert history.decision == {"null_threshold": 10.0}, "the threshold goes with the weights"
    kept = load_file(Path(run.output_dir) / "checkpoint" / "best.safetensors")
    assert all(torch.equal(kept[name], p) for name, p in weights(model).items())


@pytest.mark.parametrize("accumulation", [1, 3, 4])
def test_equals_a_plain_loop_with_the_stock_schedule(run, accumulation):
    """Loss, gradient and weights of a hand-written loop: torch's AdamW, transformers' linear schedule, the same rows.

    There the rows of accumulated batches are one batch, also in the last step of an epoch, which has fewer.
    """
    run = replace(run, epochs=1, warmup=0.2, accumulation=accumulation)
    initial = {}
    order = []

    def keep(experiment):
        model, rows = experiment.model, experiment.rows
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.config.attention_probs_dropout_prob = 0.0
        initial.update(weights(model))
        features = rows.splits["train"].encoded
        steps = batches.GlobalBatches(features["length"], 4 * accumulation, run.seed).of_epoch(0)
        assert accumulation == 1 or len(steps[-1]) < len(steps[0])
        order.extend([features[i] for i in rows.tolist()] for rows in steps)

    ours, _, _ = go(run, before=keep)
    losses = [line["loss"] for line in log(run)]
    norms = [line["grad_norm"] for line in log(run)]

    model, tokenizer, _ = base_model.load(run, TASK)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(initial[name])
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.attention_probs_dropout_prob = 0.0
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0}], lr=1e-3
    )
    collate = TASK.collator(tokenizer, training=True)
    expected, expected_norms = [], []
    names = ("input_ids", "token_type_ids", "start_positions", "end_positions")
    for step, rows in enumerate(order):
        loss = model(**collate([{name: row[name] for name in names} for row in rows])).loss
        loss.backward()
        # Adam scales gradients itself, so that a factor in all of them would only be seen here.
        expected_norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), run.max_grad_norm)))
        warm = int(0.2 * len(order))
        rate = (step + 1) / (warm + 1) if step < warm else (len(order) - step) / (len(order) - warm)
        for parameters in optimizer.param_groups:
            parameters["lr"] = 1e-3 * rate
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-4)
    assert norms == pytest.approx(expected_norms, rel=1e-3)
    for name, p in model.named_parameters():
        # Constants under a softmax, and what adds one: their gradients are rounding, which Adam scales up. It does the
        # same to a few others, so that a tensor is compared as a whole.
        if not name.endswith(("qa_outputs.bias", "key.bias", "encoder.layer.1.output.LayerNorm.bias")):
            moved = p.detach() - initial[name]
            assert (weights(ours)[name] - p.detach()).norm() <= 1e-3 * moved.norm(), name


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_schedules_fall_as_the_stock_ones(run, schedule):
    """After the warm-up the rate is that of transformers' schedule of the same name."""
    run = replace(run, schedule=schedule, warmup=0.0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    stock = transformers.get_scheduler(schedule, optimizer, num_warmup_steps=0, num_training_steps=20)
    for step in range(20):
        assert adamw.share_of_rate(step, 20, run) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        stock.step()


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_rises_over_the_warm_up(run, schedule):
    """As transformers' schedule with warm-up rises, but that the first step's rate is not 0."""
    run = replace(run, schedule=schedule, warmup=0.2)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    kind = "constant_with_warmup" if schedule == "constant" else schedule
    stock = transformers.get_scheduler(kind, optimizer, num_warmup_steps=5, num_training_steps=20)
    for step in range(4):
        optimizer.step()
        stock.step()
        assert adamw.share_of_rate(step, 20, run) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert adamw.share_of_rate(3, 20, run) == pytest.approx(0.8) and adamw.share_of_rate(4, 20, run) == 1.0


def test_the_best_epoch_is_kept_and_its_figures_are_the_models(run):
    """Whatever the last epoch did: the weights left in the model score what the history says of the best one."""
    run = replace(run, epochs=4, learning_rate=5e-3)
    model, history, experiment = go(run)
    scores = [entry["f1"] for entry in history.epochs]
    assert history.epochs[history.best_epoch - 1]["f1"] == max(scores)
    score = training.evaluate(experiment, history.decision, split="validation")
    assert score.metrics["f1"].mean() == pytest.approx(max(scores))
    kept = load_file(Path(run.output_dir) / "checkpoint" / "best.safetensors")
    assert all(torch.equal(kept[name], p) for name, p in weights(model).items())


def scores(monkeypatch, figures):
    """Let evaluations of questions come to these figures, again and again."""
    scored, cycle = QuestionAnswering.score, itertools.cycle(figures)

    def told(*arguments):
        score = scored(*arguments)
        score.metrics = {"f1": torch.tensor(next(cycle)).numpy()}
        return score

    monkeypatch.setattr(QuestionAnswering, "score", told)


def test_training_ends_when_patience_does(run, tmp_path, monkeypatch, capsys):
    """The best of five figures is the second: with a patience of two epochs, the fourth is the last one."""
    scores(monkeypatch, [30.0, 40.0, 20.0, 40.0, 50.0])
    run = replace(run, epochs=5, train_rows=12, patience=2)
    _, history, _ = go(run)
    assert [epoch["f1"] for epoch in history.epochs] == [30.0, 40.0, 20.0, 40.0] and history.best_epoch == 2
    shown = capsys.readouterr().out
    assert shown.count("training ends here") == 1 and "training ends here: epoch 2 stayed the best for 2" in shown
    _, again, _ = go(replace(run, resume=True))
    assert again.step == history.step == 12, "it has ended, and a resumed run does not begin anew"
    scores(monkeypatch, [30.0, 40.0, 20.0, 40.0, 50.0])
    _, history, _ = go(replace(run, patience=3, output_dir=str(tmp_path / "patient")))
    assert len(history.epochs) == 5 and history.best_epoch == 5
    assert "training ends here" not in capsys.readouterr().out, "it ended with its last epoch"


def test_few_rows_end_training_unless_told_otherwise(run, tmp_path, monkeypatch, capsys):
    """The best figure is the first: five epochs after a warm-up of two end it, where rows are fewer than 1,000."""
    scores(monkeypatch, [40.0, *[30.0] * 9])
    run = replace(run, epochs=10, train_rows=12, warmup=0.2)
    _, history, experiment = go(run)
    shown = capsys.readouterr().out
    assert len(history.epochs) == 7 and history.best_epoch == 1 and experiment.settings(trained=True)["patience"] == 5
    assert "training ends when 5 epochs after the warm-up" in " ".join(shown.split()) and "--patience 0" in shown
    assert "epoch 1 stayed the best for 6 more; --patience 0 trains to the last epoch" in shown
    _, again, _ = go(replace(run, resume=True, patience=0))
    assert len(again.epochs) == 10, "a resumed run may go on to the last epoch"
    assert "training ends" not in capsys.readouterr().out
    scores(monkeypatch, [40.0, *[30.0] * 9])
    monkeypatch.setattr("tl_hub.experiment.FEW_ROWS", 12)
    _, enough, experiment = go(replace(run, output_dir=str(tmp_path / "enough")))
    assert len(enough.epochs) == 10 and "patience" not in experiment.settings(trained=True)


def poisoned(*steps, first=1):
    """Makes the loss of such steps NaN, counted from the `first` one of the run that trains."""

    def poison(experiment):
        count = itertools.count(first)

        def hook(module, inputs, outputs):
            if module.training and next(count) in steps:
                outputs.loss.data.fill_(float("nan"))

        experiment.model.register_forward_hook(hook)

    return poison


def test_a_loss_that_is_not_finite_too_often_stops_and_keeps_the_last_good_state(run):
    """The weights turn bad in the second epoch; the state on disk is that of the first, and a resumed run goes on."""
    with pytest.raises(RunStopped, match=r"diverged at step 18 \(loss nan.*5 steps before.*step 10 is kept.*--resume"):
        go(run, before=poisoned(*range(13, 21)))
    state = load_file(Path(run.output_dir) / "checkpoint" / "weights.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    # As a kill leaves it that comes while a new state takes the place of the old one.
    (Path(run.output_dir) / "checkpoint").rename(Path(run.output_dir) / "checkpoint.new")
    shutil.copytree(Path(run.output_dir) / "checkpoint.new", Path(run.output_dir) / "checkpoint.1")
    _, history, _ = go(replace(run, resume=True, learning_rate=1e-4))
    assert history.step == 20 and log(run)[10]["learning_rate"] < 1e-4
    assert not list(Path(run.output_dir).glob("checkpoint.*"))


def test_a_model_that_gives_no_numbers_is_told_where_the_loss_did_not_show_it(run):
    with pytest.raises(RunStopped, match=r"diverged: the model's outputs are no numbers.*lower --learning_rate"):
        go(replace(run, learning_rate=1e30, max_steps=3))


def test_gradients_that_are_not_finite_never_change_the_weights(run):
    """The loss is a number all the while: the square root of 0 has such a gradient."""
    kept = {}

    def poison(experiment):
        kept["model"], count = experiment.model, itertools.count(1)

        def hook(gradient):
            return gradient * float("nan") if next(count) >= 13 else gradient

        experiment.model.qa_outputs.weight.register_hook(hook)

    with pytest.raises(RunStopped, match=r"diverged at step 18 \(loss \d.*, gradient norm nan\).*step 10 is kept"):
        go(run, before=poison)
    assert all(torch.isfinite(p).all() for p in kept["model"].parameters())


def test_a_step_whose_loss_is_not_finite_changes_nothing_but_the_count(run, tmp_path, monkeypatch, capsys):
    """Of 20 steps, 3, 4 and 12 to 16 are skipped: weights and moments are as before, and five in a row are allowed.

    Interrupted among them, the run ends as it would have, and six in a row end it wherever they were cut.
    """
    skipped = (3, 4, *range(12, 17))
    step, seen = training._Loop._step, []

    def watched(loop, *arguments):
        figures = step(loop, *arguments)
        moments = [moment.clone() for state in loop.optimizer.state.values() for moment in state.values()]
        seen.append([*weights(loop.experiment.model).values(), *moments])
        return figures

    with monkeypatch.context() as within:
        within.setattr(training._Loop, "_step", watched)
        whole, history, experiment = go(run, before=poisoned(*skipped))
    same = [
        place
        for place, (before, after) in enumerate(itertools.pairwise(seen), start=2)
        if len(before) == len(after) and all(map(torch.equal, before, after))
    ]
    assert same == [*skipped]
    assert [epoch["skipped_steps"] for epoch in history.epochs] == [2, 5]
    assert "step 12 is skipped (loss nan, gradient norm " in capsys.readouterr().out
    lines = log(run)
    assert [line["step"] for line in lines if "loss" not in line] == [*skipped]
    assert [line["skipped"] for line in lines if "skipped" in line] == [1, 2, 1, 2, 3, 4, 5]
    good = [line["loss"] for line in lines[:10] if "loss" in line]
    assert history.epochs[0]["loss"] == pytest.approx(sum(good) / 8, rel=1e-5), "of the steps that counted"
    curves.draw(Path(run.output_dir), finish.record_of(experiment, history, None))
    assert (Path(run.output_dir) / "curves.png").is_file()

    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, 14)
    with pytest.raises(RunStopped, match="interrupted"):
        go(cut, before=poisoned(*skipped))
    shutil.copytree(cut.output_dir, tmp_path / "again")
    resumed, again, _ = go(replace(cut, resume=True), before=poisoned(*skipped, first=15))
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())
    assert again.epochs == history.epochs
    with pytest.raises(RunStopped, match="diverged at step 17"):
        go(
            replace(cut, output_dir=str(tmp_path / "again"), resume=True),
            before=poisoned(*skipped, 17, first=15),
        )


def test_a_state_of_another_method_is_refused(run):
    interrupt_after(run, 2)
    with pytest.raises(RunStopped):
        go(run)
    with pytest.raises(UserError, match="another model or method"):
        go(replace(run, resume=True), Lora(rank=4))


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_every_fresh_parameter_of_an_adapter_is_trained_and_the_base_is_not(run, checkpoint_folders, family):
    run = replace(run, model=str(checkpoint_folders(family)))
    model, _, base = base_model.load(run, TASK)
    assert base.fresh == ("qa_outputs.bias", "qa_outputs.weight")
    model = Lora(rank=4).wrap(model, base)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.replace("modules_to_save.default.", "") for name in trained if "lora" not in name} == {
        f"base_model.model.{name}" for name in base.fresh
    }
    assert any("lora_A" in name for name in trained)


def test_evaluation_does_not_depend_on_the_batch_size(run):
    """The longest batch comes first, so that it shows at once whether memory suffices."""
    model, _, experiment = go(replace(run, epochs=1))
    read = []
    model.register_forward_pre_hook(lambda _, args, given: read.append(given["input_ids"].size(1)), with_kwargs=True)
    answers = [
        training.evaluate(replace(experiment, run=replace(run, batch_size=size))).predictions[:] for size in (1, 16)
    ]
    assert answers[0] == answers[1]
    alone = read[:-1]  # the rows of the first time, each a batch of its own but for those of several windows
    assert alone == sorted(alone, reverse=True) and len(set(alone)) > 1


def test_the_end_of_a_run_writes_nothing_anew_that_it_would_go_on_by(run):
    """A kill in the middle of it would leave half a tokenizer."""
    *_, experiment = go(replace(run, max_steps=1))
    folder = Path(run.output_dir)
    before = {name: (folder / name).stat().st_mtime_ns for name in ("tokenizer.json", "tokenizer_config.json")}
    finish.save(folder, experiment)
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert (folder / "model.safetensors").exists()


def test_a_log_is_cut_in_place(tmp_path):
    """Where nothing can be written, as on a full disk, the lines of the steps before are still there."""
    path, free = tmp_path / "log.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)
    path.write_text("".join(f'{{"step": {step}}}\n' for step in range(1, 6)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, free[1]))
    try:
        with training._Log(path, 3, active=True):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, free)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("prepare", "flags", "message"),
    [
        (lambda p: (p / "x").write_text(""), {}, "holds another run; --overwrite replaces it"),
        (lambda p: None, {"resume": True}, "no interrupted run"),
        (lambda p: (p / "thesis.tex").write_text("years"), {"overwrite": True}, "holds files but no run"),
    ],
)
def test_the_run_folder_is_checked_first(tmp_path, prepare, flags, message):
    prepare(tmp_path)
    with pytest.raises(UserError, match=message):
        launch.check(RunConfig(output_dir=str(tmp_path), **flags), FineTune())


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "notes").write_text("")
    for place in ("notes", "notes/run", "notes/a/run"):
        with pytest.raises(UserError, match="notes is a file; give a folder"):
            launch.check(RunConfig(output_dir=str(tmp_path / place)), FineTune())


@pytest.mark.parametrize("name", ["model", "dataset", "train_file", "test_file"])
def test_overwriting_what_the_run_reads_is_refused(tmp_path, name):
    place = tmp_path / "run" / "own"
    place.parent.mkdir()
    (place.parent / "log.jsonl").write_text("")
    (place.mkdir if name in ("model", "dataset") else place.touch)()
    flags = {"output_dir": str(tmp_path / "run"), "overwrite": True}
    with pytest.raises(UserError, match=f"the run would delete --{name} .*own; give another folder"):
        launch.check(RunConfig(**flags, **{name: str(place)}), FineTune())
    if name in ("model", "dataset"):  # the folder itself, by another path
        with pytest.raises(UserError, match=f"--{name}"):
            launch.check(RunConfig(**flags, **{name: str(place / "..")}), FineTune())
    if name == "model":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "model.safetensors").touch()
    launch.check(RunConfig(**flags, **{name: str(tmp_path / "elsewhere")}), FineTune())


def test_overwriting_leaves_what_no_run_writes(run, tmp_path):
    """Also to a check, which writes nothing, a used folder is no hindrance."""
    folder = Path(run.output_dir)
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "adapter").mkdir()
    left = [
        "log.jsonl",
        "predictions.jsonl",
        "run.json",
        "README.md",
        "model.safetensors",
        "adapter/adapter_config.json",
        "probe.safetensors",
    ]
    for name in [*left, "notes.txt"]:
        (folder / name).write_text("{}")
    launch.check(replace(run, check=True), FineTune())
    assert (folder / "run.json").is_file()
    go(replace(run, overwrite=True, max_steps=1))
    assert (folder / "notes.txt").read_text() == "{}"
    assert {path.name for path in folder.iterdir()} == {
        "notes.txt", "log.jsonl", "checkpoint", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip


def test_a_base_is_known_by_the_weights_that_are_read(run, checkpoint_folders, tmp_path):
    """A run folder holds other safetensors too, and an adapter's folder holds no model."""
    base = tmp_path / "base"
    shutil.copytree(checkpoint_folders("bert"), base)
    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    save_file({"logits": torch.zeros(2)}, base / "probe.safetensors")
    _, _, found = base_model.load(replace(run, model=str(base)), TASK)
    assert finish.base_facts(found).weights_sha256 == digest
    model = transformers.AutoModel.from_pretrained(base)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base, max_shard_size="50KB")
    parts = sorted(json.loads((base / "model.safetensors.index.json").read_text())["weight_map"].values())
    assert [file.name for file in base_model.weight_files(base)] == sorted(set(parts)) and len(set(parts)) > 1
    with pytest.raises(UserError, match="--revision is for models on the Hub; --model .* is local"):
        base_model.load(replace(run, model=str(base), revision="main"), TASK)
    (base / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter, which cannot be trained further; train it with --merge"):
        base_model.load(replace(run, model=str(base)), TASK)


def test_only_the_same_run_is_gone_on_with(run):
    interrupt_after(run, 2)
    with pytest.raises(RunStopped):
        go(run)
    for other, says in [
        ({"batch_size": 8}, r"4 rows a step \(--batch_size times --accumulation times the processes\), not 8"),
        ({"accumulation": 2}, "4 rows a step .*, not 8"),
        ({"seed": 1}, "--seed 0, not 1"),
        ({"train_rows": 39}, "other training rows"),
        ({"validation_rows": 7}, "other validation rows"),
    ]:
        with pytest.raises(UserError, match=f"--resume: .* was saved with {says}; give the same as before"):
            go(replace(run, resume=True, **other))
    path = Path(run.output_dir) / "checkpoint" / "history.json"
    history = json.loads(path.read_text())
    path.write_text(json.dumps(history | {"same": history["same"] | {"precision": "bf16"}}))
    state_folders.seal(path.parent)
    with pytest.raises(UserError, match="bf16, not fp32; give the same as before"):
        go(replace(run, resume=True))
    assert history.pop("same")
    path.write_text(json.dumps(history))  # as a version that compares less wrote it
    state_folders.seal(path.parent)
    _, history, _ = go(replace(run, resume=True, learning_rate=1e-4, max_steps=12))
    assert history.step == 12
    with pytest.raises(UserError, match="--seed 0, not 1"):  # of which the state that was saved now knows
        go(replace(run, resume=True, seed=1))


def test_a_run_goes_on_with_its_own_base_and_settings_of_task_and_method(run):
    interrupt_after(run, 2)
    with pytest.raises(RunStopped):
        go(run, Lora(rank=4))
    going_on = replace(run, resume=True)
    with pytest.raises(UserError, match="was saved with --alpha 32, not 8; give the same as before"):
        go(going_on, Lora(rank=4, alpha=8))

    def another(experiment):
        with torch.no_grad():
            experiment.model.get_input_embeddings().weight[5] += 1e-3

    with pytest.raises(UserError, match="was saved with another base model; give the same as before"):
        go(going_on, Lora(rank=4), before=another)
    with pytest.raises(UserError, match="was saved with --max_length 128, not 112; give the same as before"):
        go(going_on, Lora(rank=4), task=replace(TASK, max_length=112))
    _, history, _ = go(replace(going_on, learning_rate=1e-4, warmup=0.0, epochs=1), Lora(rank=4))
    assert history.step == 10


def test_a_run_goes_on_with_as_many_threads_as_before(run, monkeypatch):
    monkeypatch.setattr(cpu, "cores", lambda: 4)
    interrupt_after(run, 2)
    with pytest.raises(RunStopped):
        go(replace(run, threads=2))
    assert torch.get_num_threads() == 2
    monkeypatch.setattr(cpu, "idle_share", lambda: 3)
    go(replace(run, resume=True, epochs=1))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert threads == 2


@pytest.mark.parametrize("family", ["bert", "t5", "xlnet"])
def test_pretraining_goes_on_with_the_masks_that_it_would_have_drawn(family, tmp_path):
    """Masks are drawn a batch ahead of dropout: an interrupt in the middle of an epoch must not draw them twice."""
    rows = tmp_path / "rows.jsonl"
    texts = [" ".join(f"w{(i * 7 + j * j) % 23}" for j in range(12)) for i in range(40)]
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run = RunConfig(output_dir=str(tmp_path / "run"), train_file=str(rows), epochs=2, batch_size=4, learning_rate=1e-3)
    shape = {"layers": 1, "hidden_size": 16, "heads": 2, "intermediate_size": 16, "window": 32, "vocab_size": 300}
    method = FromScratch(model_type=family, cooccurrence=False, **shape)

    # Once for all: trained again on the same texts, a tokenizer numbers its pieces otherwise.
    new, tokenizer, _ = method.build(texts, run)
    for module in new.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1

    def pretrained(run):
        accelerator = launch.start(run)
        examples, task = data.load(run, Pretraining(max_length=32).objective(family))
        model = copy.deepcopy(new)
        data.encode(examples, task, tokenizer, model)
        experiment = Experiment(run, task, method, None, examples, model, tokenizer, accelerator)
        return model, training.train(experiment)

    whole, history = pretrained(run)
    cut = replace(run, output_dir=str(tmp_path / "cut"))
    interrupt_after(cut, 3)
    with pytest.raises(RunStopped):
        pretrained(cut)
    resumed, again = pretrained(replace(cut, resume=True))
    expected = weights(whole)
    assert all(torch.equal(p, expected[name]) for name, p in weights(resumed).items())
    assert again.epochs == history.epochs
    losses = [[(line["step"], line["loss"]) for line in log(each)] for each in (cut, run)]
    assert losses[0] == losses[1]
    assert [step for step, _ in losses[0]] == list(range(1, history.step + 1))


def test_a_kill_while_a_state_takes_the_place_of_another_loses_none(run, monkeypatch):
    rename = Path.rename

    def killed(path, target):
        if path.name == "checkpoint.new" and target.with_name("checkpoint.1").exists():
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as within, pytest.raises(KeyboardInterrupt):
        within.setattr(Path, "rename", killed)
        go(replace(run, train_rows=12))
    _, history, _ = go(replace(run, train_rows=12, resume=True))
    assert history.step == 6 and not any(Path(run.output_dir).glob("checkpoint.*"))


def damage(file: Path) -> None:
    """Flip one bit."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


STATE_FILES = ["weights", "optimizer", "best", "random_0"]


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, checkpoint_folders):
    """An interrupted run that kept two states, and the same one uninterrupted: folder, settings, weights."""
    folder = tmp_path_factory.mktemp("interrupted")
    run = RunConfig(
        output_dir=str(folder / "whole"), model=str(checkpoint_folders("bert")), train_rows=40, validation_rows=8,
        test_rows=16, epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32", keep=2,
    )  # fmt: skip
    whole, _, _ = go(run)
    cut = replace(run, output_dir=str(folder / "cut"))
    interrupt_after(cut, 14)
    with pytest.raises(RunStopped):
        go(cut)
    return folder / "cut", cut, weights(whole)


@pytest.mark.parametrize("name", [*(f"{name}.safetensors" for name in STATE_FILES), "history.json", "hashes.json"])
@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-20])])
def test_a_damaged_state_is_found_before_training(interrupted, tmp_path, name, harm):
    folder, run, _ = interrupted
    run = replace(run, output_dir=str(tmp_path / "copy"), resume=True)
    shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "checkpoint.1")
    harm(tmp_path / "copy" / "checkpoint" / name)
    named = r"\S+" if name == "hashes.json" else name  # with one bit changed, it is another file that seems changed
    with pytest.raises(UserError, match=f"--resume: in .*, checkpoint/{named} is damaged or missing.*--keep 2"):
        launch.check(run, FineTune())


def test_a_run_falls_back_on_an_earlier_state_and_ends_the_same(interrupted, tmp_path, capsys):
    folder, run, expected = interrupted
    shutil.copytree(folder, tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "checkpoint.1" / "history.json").read_text())["step"] == 10
    damage(tmp_path / "copy" / "checkpoint" / "optimizer.safetensors")
    model, history, _ = go(replace(run, output_dir=str(tmp_path / "copy"), resume=True))
    assert "is damaged; going on from the one before it, of step 10" in capsys.readouterr().out
    assert history.step == 20 and len(log(replace(run, output_dir=str(tmp_path / "copy")))) == 20
    assert all(torch.equal(p, expected[name]) for name, p in weights(model).items())


@pytest.mark.parametrize(("family", "method"), [("bert", None), ("bert", Lora(rank=4)), ("gpt2", None), ("t5", None)])
def test_activations_computed_again_change_no_bit(run, tmp_path, checkpoint_folders, family, method, monkeypatch):
    """With dropout, which is drawn twice and must be the same; and less is kept for the backward pass."""
    run = replace(run, model=str(checkpoint_folders(family)), max_steps=4)
    kept = {True: 0, False: 0}

    def watched(again):
        def counted(tensor):
            kept[again] += tensor.numel()
            return tensor

        step = training._Loop._step

        def watch(*arguments):
            with torch.autograd.graph.saved_tensors_hooks(counted, lambda tensor: tensor):
                return step(*arguments)

        return watch

    with monkeypatch.context() as within:
        within.setattr(training._Loop, "_step", watched(False))
        plain, _, _ = go(run, method)
    again = replace(run, activation_checkpointing=True, output_dir=str(tmp_path / "again"))
    with monkeypatch.context() as within:
        within.setattr(training._Loop, "_step", watched(True))
        model, _, _ = go(again, method)
    expected = weights(plain)
    assert all(torch.equal(p, expected[name]) for name, p in weights(model).items())
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert kept[True] < kept[False] / 2


def test_a_family_that_cannot_compute_activations_again_is_refused(run, checkpoint_folders):
    run = replace(run, model=str(checkpoint_folders("xlnet")), activation_checkpointing=True)
    with pytest.raises(UserError, match="--activation_checkpointing: xlnet has none in transformers; omit it"):
        go(run)
    assert not Path(run.output_dir).exists()


def test_a_run_is_not_gone_on_with_to_fewer_steps_than_it_has(run):
    """Its card stated the epochs of the second command beside the weights of the first."""
    go(replace(run, train_rows=12, epochs=3))
    with pytest.raises(UserError, match="has 9 steps behind it, and this command allows 6; give --epochs"):
        go(replace(run, train_rows=12, epochs=2, resume=True))


def test_as_many_states_are_kept_as_asked_for(run):
    go(replace(run, epochs=4, train_rows=12, keep=3))
    steps = [
        json.loads((Path(run.output_dir) / name / "history.json").read_text())["step"]
        for name in ("checkpoint", "checkpoint.1", "checkpoint.2")
    ]
    assert steps == [12, 9, 6] and not (Path(run.output_dir) / "checkpoint.3").exists()
    go(replace(run, epochs=1, train_rows=12, overwrite=True))
    assert [path.name for path in Path(run.output_dir).glob("checkpoint*")] == ["checkpoint"]


def test_a_file_system_without_links_is_enough(run, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    model, _, _ = go(run)
    kept = load_file(Path(run.output_dir) / "checkpoint" / "best.safetensors")
    assert all(torch.equal(kept[name], p) for name, p in weights(model).items())


def test_where_memory_runs_out_fewer_rows_at_a_time_make_the_same_steps(run, without_dropout, tmp_path, capsys):
    """A batch of more than three rows does not fit, from the second step on."""
    run = replace(run, model=str(without_dropout("bert")), batch_size=10, max_steps=4)
    go(run)
    small, seen = replace(run, output_dir=str(tmp_path / "small")), []

    def scarce(module, inputs, keywords):
        seen.extend([len(keywords["input_ids"])] if module.training else [])
        if module.training and len(seen) > 1 and seen[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")

    go(small, before=lambda experiment: experiment.model.register_forward_pre_hook(scarce, with_kwargs=True))
    assert seen[:3] == [10, 10, 5] and max(seen[3:]) <= 3
    assert "memory ran out: 3 rows at a time from here on" in capsys.readouterr().out
    assert [line["loss"] for line in log(small)] == pytest.approx([line["loss"] for line in log(run)], rel=1e-3)


def test_where_one_row_does_not_fit_the_run_ends_in_a_line(run, capsys):
    def scarce(module, inputs):
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory")

    def main():
        go(run, before=lambda experiment: experiment.model.bert.encoder.register_forward_pre_hook(scarce))

    with pytest.raises(SystemExit) as end:
        cli.run(main)
    assert end.value.code == 1
    assert "memory ran out; halve --batch_size and double --accumulation" in capsys.readouterr().err


def test_a_history_has_the_loss_of_training_beside_that_of_the_validation_rows(run, tmp_path):
    """They are of different rows: the first is the mean over the tokens of the epoch's steps in the log."""
    run = replace(run, epochs=2, batch_size=8, train_rows=24)
    _, history, experiment = go(run, task=MaskedLanguageModeling(max_length=64))
    score = training.evaluate(experiment, split="validation")
    assert history.epochs[history.best_epoch - 1]["validation_loss"] == pytest.approx(float(score.metrics["loss"]))
    steps = [line["loss"] for line in log(run)]
    assert min(steps) < history.epochs[0]["loss"] < max(steps)
    assert history.epochs[0]["loss"] != history.epochs[0]["validation_loss"]
    (metric,) = [m for m in finish._metrics_so_far(history, experiment.task, experiment.rows) if m.name == "loss"]
    assert metric.value == min(epoch["validation_loss"] for epoch in history.epochs)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1, "1 minute"), (61, "2 minutes"), (5400, "90 minutes"), (7200, "2.0 hours")],
)
def test_a_time_is_told_in_words(seconds, said):
    assert estimate.about(seconds) == said


def test_a_disk_too_small_is_refused_before_training(run, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="MiB are free, the run needs"):
        go(run)
    assert not Path(run.output_dir).exists()
