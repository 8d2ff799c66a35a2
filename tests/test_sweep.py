"""Sweeps against the same runs one by one."""

import random
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.test_training import interrupt_after, interrupting  # noqa: F401
from tl_hub import finish, settings_file, state_folders, sweep, training
from tl_hub.config import RunConfig
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.record import RunRecord
from tl_hub.sweep import Sweep
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.language_modeling import Pretraining
from tl_hub.tasks.question_answering import QuestionAnswering

VALUES = ["1e-5", "3e-3", "1e30"]
SPEC = f"learning_rate={','.join(VALUES)}"


def same(one: Path, other: Path) -> bool:
    first, second = (load_file(path / "model.safetensors") for path in (one, other))
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


@pytest.fixture
def common(checkpoint_folders):
    return (
        "--model", str(checkpoint_folders("bert")), "--train_rows", "40", "--test_rows", "20", "--epochs", "2",
        "--batch_size", "8", "--max_length", "32", "--doc_stride", "8", "--precision", "fp32", "--no_examples",
    )  # fmt: skip


def test_a_sweep_keeps_the_run_that_is_best_on_validation_rows(
    recipe_here, load_back_here, tmp_path, common, monkeypatch
):
    """Figures and weights are those of the same runs one by one. Interrupted twice, no trial that ended is repeated."""
    alone = {}
    for value in VALUES[:2]:
        ended = recipe_here(
            "sentiment_finetune", *common, "--learning_rate", value, "--output_dir", str(tmp_path / value)
        )
        assert ended.returncode == 0, ended.stderr
        record = RunRecord.load(tmp_path / value)
        alone[value] = max(epoch["accuracy"] for epoch in record.history)
    best = max(alone, key=alone.__getitem__)

    measured, trained, evaluate, train = [], [], training.evaluate, training.train
    monkeypatch.setattr(
        training, "evaluate", lambda *given, split=None: (measured.append(split), evaluate(*given, split=split))[1]
    )
    monkeypatch.setattr(
        training, "train", lambda experiment, push: (trained.append(experiment.run), train(experiment, push))[1]
    )
    swept = ("sentiment_finetune", *common, "--sweep", SPEC, "--output_dir", str(tmp_path / "swept"))
    trials = tmp_path / "swept.sweep"
    interrupt_after(RunConfig(output_dir=str(trials / "learning_rate=3e-3")), 3)
    ended = recipe_here(*swept)
    assert ended.returncode == 130 and "the same command with --resume goes on" in ended.stderr, ended.stderr
    refused = recipe_here(*swept)
    assert refused.returncode == 2 and "--resume goes on with it, --overwrite replaces it" in refused.stderr
    refused = recipe_here(*swept, "--resume", "--seed", "1")
    assert refused.returncode == 2 and "was started with other flags" in refused.stderr
    with monkeypatch.context() as within:
        within.setattr(finish, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert recipe_here(*swept, "--resume").returncode == 130
    ended = recipe_here(*swept, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert "trial 3 of 3: training diverged at step 7" in ended.stdout
    names = [f"learning_rate={value}" for value in VALUES]
    folders = [Path(run.output_dir).name for run in trained]
    assert folders == [names[0], names[1], names[1], names[2], "swept", "swept"]
    assert measured.count(None) == 2 and set(measured) == {"validation", None}, "no trial is measured on test rows"

    record = RunRecord.load(tmp_path / "swept")
    assert same(tmp_path / "swept", tmp_path / best) and record.settings["learning_rate"] == float(best)
    assert record.command and record.command.endswith(f"--sweep {SPEC} --output_dir swept --resume")
    rows = record.tables[sweep.TITLE]
    assert [(row["learning_rate"], row.get("accuracy"), row["outcome"]) for row in rows] == [
        *((value, pytest.approx(alone[value]), "kept" if value == best else "") for value in VALUES[:2]),
        (VALUES[2], None, "diverged"),
    ]
    assert "### Sweep, on the validation rows" in (tmp_path / "swept" / "README.md").read_text()
    assert "sweep" not in settings_file.read(str(tmp_path / "swept" / "settings.yaml"), [])
    assert not [*trials.glob("*/checkpoint*")], "only the best one's state is kept"
    metrics = {metric.name: metric.value for metric in RunRecord.load(tmp_path / best).metrics}
    assert {metric.name: metric.value for metric in record.metrics} == metrics
    ended = recipe_here(*swept, "--resume", "--sweep", f"{SPEC},1e-4")
    assert ended.returncode == 2 and "has ended without learning_rate=1e-4; --overwrite starts another" in ended.stderr


@pytest.mark.parametrize(
    ("recipe", "words", "says"),
    [
        (
            "sentiment_finetune",
            ("--sweep", "lr=1,2"),
            "--sweep lr=1,2: lr cannot be swept; what can is epochs, max_steps",
        ),
        ("sentiment_finetune", ("--sweep", "train_file=a,b"), "train_file cannot be swept"),
        ("sentiment_finetune", ("--sweep", "epochs=1,,2"), "give different values, such as"),
        ("sentiment_finetune", ("--sweep", "epochs=1,1"), "give different values, such as"),
        ("sentiment_finetune", ("--sweep", "epochs=1,two"), "--epochs: invalid int value: 'two'"),
        ("sentiment_finetune", ("--sweep", "layer_decay=0.9,2"), "--layer_decay is 2.0; it must be"),
        ("sentiment_finetune", ("--trials", "2"), "--trials needs --sweep"),
        ("sentiment_finetune", ("--sweep", "epochs=1,2", "--find_lr"), "--sweep and --find_lr exclude each other"),
        ("sentiment_finetune", ("--sweep", "epochs=1,2", "--resume"), "holds no interrupted sweep; omit --resume"),
        ("sentiment_features", ("--sweep", "epochs=1,2"), "epochs cannot be swept"),
        ("sentiment_features", ("--sweep", "cv=3,5"), "--sweep has no effect with feature extraction"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_written(recipe_here, tmp_path, recipe, words, says):
    ended = recipe_here(recipe, *words, "--output_dir", str(tmp_path / "run"))
    assert ended.returncode == 2 and says in ended.stderr, ended.stderr
    assert not [*tmp_path.iterdir()]


def test_trials_are_drawn_from_all_combinations():
    run = RunConfig(sweep="learning_rate=1e-4,3e-4,1e-3 rank=8,16", trials=4, seed=3)
    drawn = Sweep.settings(run, QuestionAnswering(), Lora())
    every = Sweep.settings(RunConfig(sweep=run.sweep), QuestionAnswering(), Lora())
    assert [*every] == [f"learning_rate={rate},rank={rank}" for rate in ("1e-4", "3e-4", "1e-3") for rank in (8, 16)]
    places = sorted(random.Random(3).sample(range(6), 4))
    assert [*drawn] == [[*every][place] for place in places]
    assert Sweep.settings(RunConfig(sweep="merge=true,false"), QuestionAnswering(), Lora())["merge=True"] == {
        "merge": True
    }


def test_figures_that_do_not_compare_are_not_swept():
    """A loss by token depends on the vocabulary and on what is masked; rows are not a setting at all."""
    assert {"learning_rate", "seed", "batch_size", "r_drop", "class_weights", "reinit_layers"} <= {
        *sweep._sweepable(Classification(), FineTune())
    }
    assert not {"text_column", "train_rows", "model", "output_dir", "push_to"} & {
        *sweep._sweepable(Classification(), FineTune())
    }
    pretraining = sweep._sweepable(Pretraining(), FromScratch())
    assert "learning_rate" in pretraining and not {"vocab_size", "layers", "max_length"} & {*pretraining}


def test_a_sweep_in_a_file_of_settings_is_refused(recipe_here, tmp_path):
    (tmp_path / "run.yaml").write_text("sweep: epochs=1,2\n")
    ended = recipe_here("sentiment_finetune", "--config", str(tmp_path / "run.yaml"))
    assert ended.returncode == 2 and "sweep is for the command line" in ended.stderr


def test_a_trial_that_was_killed_in_its_first_save_begins_anew(tmp_path, checkpoint_folders):
    run = RunConfig(output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")))
    trials, state = Sweep(run, FineTune(), []), tmp_path / "run.sweep" / "a" / "checkpoint.new"
    state.mkdir(parents=True)
    (state / "history.json").write_text("{}")
    assert trials.words_of("a") == ["--output_dir", str(state.parent)] and not state.exists()
    state.mkdir(parents=True)
    (state / "history.json").write_text("{}")
    state_folders.seal(state)
    assert trials.words_of("a")[2:] == ["--resume"] and state.exists()
