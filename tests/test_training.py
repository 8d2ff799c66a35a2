"""The gradient loop against an uninterrupted run, a plain loop and the stock schedules."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tl_hub import base_model, data, estimate, finish, launch, training
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.question_answering import QuestionAnswering

pytestmark = pytest.mark.slow

TASK = QuestionAnswering(max_length=128, doc_stride=32)


@pytest.fixture
def run(tmp_path, checkpoint_folders) -> RunConfig:
    return RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), train_rows=40, validation_rows=8,
        test_rows=16, epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32",
    )  # fmt: skip


def go(run: RunConfig, method=None, before=None, family_patch=None):
    """What a recipe does up to the end of training."""
    method = method or FineTune()
    accelerator = launch.start(run, method)
    rows = data.load(run, TASK)
    model, tokenizer, base = base_model.load(run, TASK)
    data.encode(rows, TASK, tokenizer, model)
    model = method.wrap(model, base)
    if before:
        before(model, rows)
    history = training.train(model, rows, TASK, tokenizer, run, accelerator)
    return model, history, rows


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def log(run: RunConfig) -> list[dict]:
    return [json.loads(line) for line in (Path(run.output_dir) / "log.jsonl").read_text().splitlines()]


def interrupt_after(run: RunConfig, step: int) -> None:
    """Send this process the signal that Ctrl-C sends, once the log has `step` lines."""

    def watch() -> None:
        path = Path(run.output_dir) / "log.jsonl"
        while not path.exists() or len(path.read_text().splitlines()) < step:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()


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
    accelerator = launch.start(pushed, FineTune())
    pushed.push_every = 1  # asked of a Hub where it is given before
    rows = data.load(pushed, TASK)
    model, tokenizer, base = base_model.load(pushed, TASK)
    data.encode(rows, TASK, tokenizer, model)
    model, sent = FineTune().wrap(model, base), []

    def push(history):
        sent.append((history.best_epoch, weights(model)))

    history = training.train(model, rows, TASK, tokenizer, pushed, accelerator, push)
    figures = ("step", "loss", "learning_rate", "grad_norm")
    assert [[line[f] for f in figures] for line in log(pushed)] == [[line[f] for f in figures] for line in log(run)]
    assert history.epochs == expected.epochs and len(sent) == 2
    best = weights(whole)
    assert [all(torch.equal(p, best[n]) for n, p in each.items()) for epoch, each in sent] == [
        epoch == expected.best_epoch for epoch, _ in sent
    ]


@pytest.mark.parametrize("accumulation", [1, 3, 4])
def test_equals_a_plain_loop_with_the_stock_schedule(run, accumulation):
    """Loss, gradient and weights of a hand-written loop: torch's AdamW, transformers' linear schedule, the same rows.

    The loss of accumulated batches is their mean there, also of the last ones of an epoch, which are fewer.
    """
    run = replace(run, epochs=1, warmup=0.2, accumulation=accumulation)
    initial = {}
    order = []

    def keep(model, rows):
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.config.attention_probs_dropout_prob = 0.0
        initial.update(weights(model))
        features = rows.splits["train"].features
        batches = list(data.LengthBuckets(features["length"], 4, run.seed))
        assert {len(batch) for batch in batches} == {4} and len(batches) % 3 == 1 and len(batches) % 4 == 2
        for start in range(0, len(batches), accumulation):
            order.append([[features[i] for i in batch] for batch in batches[start : start + accumulation]])

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
    for step, group in enumerate(order):
        batches = [collate([{name: feature[name] for name in names} for feature in batch]) for batch in group]
        loss = torch.stack([model(**batch).loss for batch in batches]).mean()
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
        assert training._schedule(step, 20, run) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
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
        assert training._schedule(step, 20, run) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert training._schedule(3, 20, run) == pytest.approx(0.8) and training._schedule(4, 20, run) == 1.0


def test_the_best_epoch_is_kept_and_its_figures_are_the_models(run):
    """Whatever the last epoch did: the weights left in the model score what the history says of the best one."""
    run = replace(run, epochs=4, learning_rate=5e-3)
    model, history, rows = go(run)
    scores = [entry["f1"] for entry in history.epochs]
    assert history.epochs[history.best_epoch - 1]["f1"] == max(scores)
    accelerator = launch.start(replace(run, overwrite=True), FineTune())
    _, tokenizer, _ = base_model.load(run, TASK)
    score = training.evaluate(model, rows.splits["validation"], TASK, tokenizer, run, accelerator, history.decision)
    assert score.metrics["f1"].mean() == pytest.approx(max(scores))
    kept = load_file(Path(run.output_dir) / "checkpoint" / "best.safetensors")
    assert all(torch.equal(kept[name], p) for name, p in weights(model).items())


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(run):
    """The weights turn bad in the second epoch; the state on disk is that of the first, and a resumed run goes on."""

    def poison(model, rows):
        steps = 0

        def hook(module, inputs, outputs):
            nonlocal steps
            steps += module.training
            if steps == 16:
                outputs.loss.data.fill_(float("nan"))

        model.register_forward_hook(hook)

    with pytest.raises(RunStopped, match="diverged at step 16.*step 10 is kept.*--resume"):
        go(run, before=poison)
    state = load_file(Path(run.output_dir) / "checkpoint" / "weights.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    # As a kill leaves it that comes while a new state takes the place of the old one.
    (Path(run.output_dir) / "checkpoint").rename(Path(run.output_dir) / "checkpoint.new")
    (Path(run.output_dir) / "checkpoint.old").mkdir()
    _, history, _ = go(replace(run, resume=True, learning_rate=1e-4))
    assert history.step == 20 and log(run)[10]["learning_rate"] < 1e-4
    assert not list(Path(run.output_dir).glob("checkpoint.*"))


def test_a_gradient_that_is_not_finite_stops_before_the_weights_are_changed(run):
    """The loss is a number all the while: the square root of 0 has such a gradient."""
    kept = {}

    def poison(model, rows):
        kept["model"], steps = model, 0

        def hook(gradient):
            nonlocal steps
            steps += 1
            return gradient * float("nan") if steps == 16 else gradient

        model.qa_outputs.weight.register_hook(hook)

    with pytest.raises(RunStopped, match=r"diverged at step 16 \(loss \d.*, gradient norm nan\); .*step 10 is kept"):
        go(run, before=poison)
    assert all(torch.isfinite(p).all() for p in kept["model"].parameters())


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
    model, history, rows = go(replace(run, epochs=1))
    accelerator = launch.start(replace(run, overwrite=True), FineTune())
    _, tokenizer, _ = base_model.load(run, TASK)
    answers = [
        training.evaluate(
            model, rows.splits["test"], TASK, tokenizer, replace(run, batch_size=size), accelerator
        ).predictions
        for size in (1, 16)
    ]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("prepare", "flags", "message"),
    [
        (lambda p: (p / "x").write_text(""), {}, "--resume goes on with it, --overwrite replaces it"),
        (lambda p: None, {"resume": True}, "no interrupted run"),
        (lambda p: (p / "thesis.tex").write_text("years"), {"overwrite": True}, "holds files but no run"),
    ],
)
def test_the_run_folder_is_checked_first(tmp_path, prepare, flags, message):
    prepare(tmp_path)
    with pytest.raises(UserError, match=message):
        launch.start(RunConfig(output_dir=str(tmp_path), **flags), FineTune())


def test_an_output_folder_below_a_file_is_refused(tmp_path):
    (tmp_path / "notes").write_text("")
    for place in ("notes", "notes/run", "notes/a/run"):
        with pytest.raises(UserError, match="notes is a file; give a folder"):
            launch.start(RunConfig(output_dir=str(tmp_path / place)), FineTune())


@pytest.mark.parametrize("name", ["model", "dataset", "train_file", "test_file"])
def test_overwriting_what_the_run_reads_is_refused(tmp_path, name):
    place = tmp_path / "run" / "own"
    place.parent.mkdir()
    (place.parent / "log.jsonl").write_text("")
    (place.mkdir if name in ("model", "dataset") else place.touch)()
    flags = {"output_dir": str(tmp_path / "run"), "overwrite": True}
    with pytest.raises(UserError, match=f"--overwrite would delete --{name} .*own; give another --output_dir"):
        launch.start(RunConfig(**flags, **{name: str(place)}), FineTune())
    if name in ("model", "dataset"):  # the folder itself, by another path
        with pytest.raises(UserError, match=f"--{name}"):
            launch.start(RunConfig(**flags, **{name: str(place / "..")}), FineTune())
    launch.start(RunConfig(**flags, **{name: str(tmp_path / "elsewhere")}), FineTune())


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
    launch.start(replace(run, check=True), FineTune())
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
        ({"batch_size": 8}, "--batch_size 4, not 8"),
        ({"accumulation": 2}, "--accumulation 1, not 2"),
        ({"seed": 1}, "--seed 0, not 1"),
        ({"train_rows": 39}, "other training rows"),
    ]:
        with pytest.raises(UserError, match=f"--resume: .* was saved with {says}; give the same as before"):
            go(replace(run, resume=True, **other))
    path = Path(run.output_dir) / "checkpoint" / "history.json"
    history = json.loads(path.read_text())
    path.write_text(json.dumps(history | {"same": history["same"] | {"num_processes": 2}}))
    with pytest.raises(UserError, match="--num_processes 2, not 1; give the same as before"):
        go(replace(run, resume=True))
    assert history.pop("same")
    path.write_text(json.dumps(history))  # as an older version wrote it
    _, history, _ = go(replace(run, resume=True, learning_rate=1e-4, max_steps=12))
    assert history.step == 12


def test_a_kill_while_a_state_takes_the_place_of_another_loses_none(run, monkeypatch):
    rename = Path.rename

    def killed(path, target):
        if path.name == "checkpoint.new" and target.with_name("checkpoint.old").exists():
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as within, pytest.raises(KeyboardInterrupt):
        within.setattr(Path, "rename", killed)
        go(replace(run, train_rows=12))
    _, history, _ = go(replace(run, train_rows=12, resume=True))
    assert history.step == 6 and not any(Path(run.output_dir).glob("checkpoint.*"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.1, "1 minute"), (61, "2 minutes"), (5400, "90 minutes"), (7200, "2.0 hours")],
)
def test_a_time_is_told_in_words(seconds, said):
    assert estimate.about(seconds) == said


def test_a_disk_too_small_is_refused_before_training(run, monkeypatch):
    monkeypatch.setattr(training.shutil, "disk_usage", lambda path: type("usage", (), {"free": 1000}))
    with pytest.raises(UserError, match="MiB are free, the run needs"):
        go(run)
    assert not Path(run.output_dir).exists()
