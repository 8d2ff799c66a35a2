"""Runs of several seeds against the same runs one by one."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.test_sweep import same
from tests.test_training import interrupt_after, interrupting  # noqa: F401
from tl_hub import card, row_predictions, seed_intervals, seeds, settings_file, soup, training, trials
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import RunRecord
from tl_hub.seeds import Seeds
from tl_hub.tasks.base import Score
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.training_state import History


@pytest.fixture
def common(checkpoint_folders):
    return (
        "--model", str(checkpoint_folders("bert")), "--train_rows", "64", "--validation_rows", "80",
        "--test_rows", "40", "--epochs", "1", "--batch_size", "8", "--learning_rate", "3e-3", "--max_length", "96",
        "--doc_stride", "16", "--precision", "fp32", "--no_examples",
    )  # fmt: skip


def test_the_result_is_the_median_seed_and_its_card_tells_of_all(
    recipe_here, load_back_here, tmp_path, common, monkeypatch
):
    """Weights and figures are those of the same runs one by one. Interrupted, no run that ended is repeated."""
    alone = {}
    for seed in (10, 11):
        ended = recipe_here("qa_finetune", *common, "--seed", seed, "--output_dir", tmp_path / str(seed))
        assert ended.returncode == 0, ended.stderr
        alone[seed] = RunRecord.load(tmp_path / str(seed))

    trained, train = [], training.train
    monkeypatch.setattr(
        training, "train", lambda experiment, push: (trained.append(experiment.run), train(experiment, push))[1]
    )
    words = ("qa_finetune", *common, "--seed", "10", "--seeds", "3", "--output_dir", tmp_path / "run")
    interrupt_after(RunConfig(output_dir=str(tmp_path / "run.seeds" / "seed=11")), 2)
    ended = recipe_here(*words)
    assert ended.returncode == 130 and "the same command with --resume goes on" in ended.stderr, ended.stderr
    refused = recipe_here(*words)
    assert refused.returncode == 2 and "holds a set of seeds; --resume goes on with it" in refused.stderr
    ended = recipe_here(*words, "--resume")
    assert ended.returncode == 0, ended.stderr
    assert [Path(run.output_dir).name for run in trained] == ["seed=10", "seed=11", "seed=11", "seed=12", "run"]

    for seed in alone:
        assert same(tmp_path / "run.seeds" / f"seed={seed}", tmp_path / str(seed))
    every = {seed: RunRecord.load(tmp_path / "run.seeds" / f"seed={seed}") for seed in (10, 11, 12)}
    assert {seed: every[seed].metrics for seed in alone} == {seed: record.metrics for seed, record in alone.items()}
    validation = {seed: record.history[0]["f1"] for seed, record in every.items()}
    median = sorted(every, key=validation.__getitem__)[1]
    finals = [found.metrics[0].value for found in every.values()]
    record = RunRecord.load(tmp_path / "run")
    assert same(tmp_path / "run", tmp_path / "run.seeds" / f"seed={median}") and record.settings["seed"] == median
    assert record.name == "run" and record.metrics == every[median].metrics
    assert "seeds" not in settings_file.read(str(tmp_path / "run" / "settings.yaml"), [])

    assert record.command and " --seed 10 --seeds 3 " in record.command, "as it was given, whichever seed is the median"

    over = record.seeds[0]
    assert (over.name, over.seeds, over.rows) == ("f1", 3, 40)
    assert [over.value, over.deviation, over.least, over.most] == pytest.approx(
        [np.mean(finals), np.std(finals, ddof=1), min(finals), max(finals)]
    )
    rows = [row_predictions.read(tmp_path / "run.seeds" / f"seed={seed}") for seed in every]
    scores, groups = np.array([[row["f1"] for row in kept] for kept in rows]), [row["group"] for row in rows[0]]
    assert (over.low, over.high) == pytest.approx(seed_intervals.of_means(scores, np.array(groups)))
    assert record.tables[seeds.TITLE] == [
        {
            "seed": seed,
            "validation f1": pytest.approx(validation[seed]),
            "test f1": pytest.approx(found.metrics[0].value),
            "epoch": 1,
            "outcome": "kept" if seed == median else "",
        }
        for seed, found in every.items()
    ]
    text = (tmp_path / "run" / "README.md").read_text()
    assert text.startswith("---\n") and "\n# run\n" in text and "### Each seed" in text
    said = card.sections.headline(record)
    assert "on average over 3 seeds (95 % interval" in said and "with these weights, on 40 rows of the test" in said
    assert f"range {card.sections.figure(min(finals))} to {card.sections.figure(max(finals))}" in said


@pytest.mark.parametrize(("recipe", "kept"), [("qa_finetune", False), ("qa_adapter", True)])
def test_the_average_of_the_seeds_is_the_result_if_it_is_no_worse(
    recipe_here, load_back_here, tmp_path, common, monkeypatch, recipe, kept
):
    """The weights are numpy's mean of the files of the seeds, or the median seed's. An interrupt changes neither."""
    choose = training._Loop._compared
    monkeypatch.setattr(training._Loop, "_compared", lambda loop: (choose(loop)[0], kept))
    words = (recipe, *common, "--max_steps", "4", "--validation_rows", "20", "--test_rows", "10")
    words += ("--seed", "10", "--seeds", "2", "--soup", "--output_dir", tmp_path / "run")
    interrupt_after(RunConfig(output_dir=str(tmp_path / "run.seeds" / "seed=11")), 2)
    assert recipe_here(*words).returncode == 130
    refused = recipe_here(*[word for word in words if word != "--soup"], "--resume")
    assert refused.returncode == 2 and "was started with other flags" in refused.stderr
    ended = recipe_here(*words, "--resume")
    assert ended.returncode == 0, ended.stderr

    file = "model.safetensors" if recipe == "qa_finetune" else "adapter_model.safetensors"
    weights = [load_file(tmp_path / "run.seeds" / f"seed={seed}" / file) for seed in (10, 11)]
    record, result = RunRecord.load(tmp_path / "run"), load_file(tmp_path / "run" / file)
    median = [row["seed"] for row in record.tables[seeds.TITLE] if row["outcome"] == "kept"][0]
    for name, tensor in result.items():
        both = [part[name] for part in weights]
        assert np.allclose(tensor, np.mean(both, axis=0) if kept else both[median - 10], rtol=1e-6, atol=1e-9), name
    apart = max(np.abs(weights[0][name] - weights[1][name]).max() for name in result)
    assert 1e-4 < apart < 0.03, "four steps from the same new weights, which are 0.1 apart otherwise"
    averaged = load_file(tmp_path / "run" / "checkpoint" / "soup.safetensors")
    assert kept or all(
        np.allclose(averaged[n], (weights[0][n] + weights[1][n]) / 2, rtol=1e-6, atol=1e-9) for n in averaged
    )

    every = [RunRecord.load(tmp_path / "run.seeds" / f"seed={seed}") for seed in (10, 11)]
    own, average = record.tables[soup.TITLE]
    assert own["f1"] == every[median - 10].history[0]["f1"]
    assert [own["weights"], average["weights"]] == [
        f"median seed{' (kept)' * (not kept)}", f"average of the seeds{' (kept)' * kept}"
    ]  # fmt: skip
    took = sum(found.cost.training_seconds for found in every) if kept else every[median - 10].cost.training_seconds
    assert record.cost.training_seconds == pytest.approx(took, abs=0.2)
    assert record.settings["seed"] == (10 if kept else median) and record.settings["init_seed"] == 10
    assert record.settings.get("seeds") == (2 if kept else None) and record.best_epoch == (None if kept else 1)
    text, screen = (tmp_path / "run" / "README.md").read_text(), " ".join(ended.stdout.split())
    said = "are the average of those of 2 seeds" if kept else "The average of the weights of 2 seeds was not kept"
    assert said in screen and said in " ".join(text.split()) and "same initial weights" in text
    assert ("intervals under Results are over rows only" in text) is kept
    assert ("on average over 2 seeds" in card.sections.headline(record)) is not kept


@pytest.mark.parametrize(("figure", "kept"), [(81.0, True), (80.0, True), (79.0, False)])
def test_an_average_is_kept_if_its_figure_is_no_worse(figure, kept):
    loop = training._Loop.__new__(training._Loop)
    loop.history = History(epochs=[{"epoch": 1, "f1": 80.0}], best_epoch=1)
    loop.task = QuestionAnswering()
    loop.measure = lambda: Score({"f1": np.array([figure - 1, figure + 1])}, decision={"null_threshold": 1.0})
    assert loop._compared() == ({"f1": figure}, kept)
    assert loop.history.decision == ({"null_threshold": 1.0} if kept else {})


def test_seeds_of_other_bases_or_without_their_state_are_not_averaged(tmp_path):
    runs = [tmp_path / "seed=0", tmp_path / "seed=1"]
    for run in runs:
        record = record_of(run, [], [])
        record.best_epoch = 1
        record.save(run)
    with pytest.raises(UserError, match="best.safetensors is gone, which holds a seed's weights"):
        soup.make(runs, tmp_path)
    for run, frozen in zip(runs, "ab", strict=True):
        (run / "checkpoint").mkdir()
        (run / "checkpoint" / "best.safetensors").touch()
        (run / "checkpoint" / "history.json").write_text(json.dumps({"same": {"frozen_weights": frozen}}))
    with pytest.raises(UserError, match="the seeds did not start from the same model"):
        soup.make(runs, tmp_path)


def test_the_median_is_by_validation_and_the_worse_of_two():
    def chosen(figures, higher=True):
        ended = {f"seed={seed}": {"figure": figure, "higher": higher} for seed, figure in enumerate(figures)}
        return Seeds.choose(Seeds.__new__(Seeds), ended)

    assert chosen([80, 95, 70]) == "seed=0" and chosen([1.0, 3.0, 2.0], higher=False) == "seed=2"
    assert chosen([80, 95, 70, 90]) == "seed=0" and chosen([1.0, 4.0, 2.0, 3.0], higher=False) == "seed=3"
    assert chosen([95, 70]) == "seed=1"


def record_of(folder, metrics, rows, sha256="a" * 64, split="test"):
    """A run folder as far as figures over seeds read it."""
    folder.mkdir()
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return RunRecord.from_facts(
        {
            "name": "run", "kind": "adapter", "pipeline_tag": "question-answering", "auto_class": "A",
            "method": {"name": "LoRA"},
            "data": {"id": "d", "source": "local", "splits": {split: {"rows": len(rows), "sha256": sha256}}},
            "metrics": [{"split": split, "rows": len(rows), **metric} for metric in metrics],
        }
    )  # fmt: skip


def test_figures_over_seeds_take_rows_in_groups_and_figures_without_rows(tmp_path):
    scores = np.random.default_rng(0).integers(0, 2, (3, 12)) * 100.0
    folders = [tmp_path / str(seed) for seed in range(3)]
    records = []
    for folder, row_scores in zip(folders, scores, strict=True):
        rows = [{"row": i, "group": i // 3, "f1": score} for i, score in enumerate(row_scores)]
        f1 = {"name": "f1", "value": row_scores.mean(), "unit": "%"}
        macro = {"name": "macro_f1", "value": row_scores.mean(), "low": 20.0, "high": 90.0, "unit": "%"}
        records.append(record_of(folder, [f1, macro, {"name": "loss", "value": 1.0}], rows))
    f1, macro, loss = seeds.over_seeds(folders, records)
    assert (f1.low, f1.high) == seed_intervals.of_means(scores, np.arange(12) // 3) != seed_intervals.of_means(scores)
    ends = np.full(3, 20.0), np.full(3, 90.0)
    assert (macro.low, macro.high) == seed_intervals.of_figures(scores.mean(1), *ends)
    assert (loss.value, loss.low, loss.deviation) == (1.0, None, 0.0)
    (folders[1] / "predictions.jsonl").write_text("")
    assert seeds.over_seeds(folders, records)[0].low is None, "the lines are not those of the same rows"
    records[2].data.splits["test"].sha256 = "b" * 64
    with pytest.raises(UserError, match="rows that are measured have changed"):
        seeds.over_seeds(folders, records)


def test_a_seed_that_diverges_is_told_and_two_must_come_to_a_result(recipe_here, tmp_path, common):
    words = ("--seeds", "2", "--learning_rate", "1e30", "--epochs", "3", "--output_dir", tmp_path / "run")
    ended = recipe_here("qa_finetune", *common, *words)
    assert ended.returncode == 1, ended.stderr
    assert "--seeds: fewer than 2 trials came to a result; training diverged" in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("recipe", "words", "says"),
    [
        ("sentiment_finetune", ("--seeds", "1"), "--seeds is 1; it is how many seeds to train with, at least 2"),
        ("sentiment_finetune", ("--seeds", "2", "--sweep", "epochs=1,2"), "--seeds and --sweep exclude each other"),
        ("sentiment_finetune", ("--seeds", "2", "--find_lr"), "--seeds and --find_lr exclude each other"),
        ("sentiment_finetune", ("--seeds", "2", "--seed", str(2**32 - 1)), "--seed is 4294967296; it must be"),
        ("sentiment_finetune", ("--seeds", "2", "--resume"), "holds no interrupted set of seeds; omit --resume"),
        ("sentiment_finetune", ("--soup",), "--soup needs --seeds"),
        ("sentiment_finetune", ("--init_seed", "-1"), "--init_seed is -1; it must be a number from 0"),
        ("pretraining", ("--seeds", "2", "--soup"), "--soup averages runs that start from one pretrained model"),
        ("qa_features", ("--seeds", "2", "--soup"), "with --layer auto each seed may choose another layer"),
        ("sentiment_features", ("--seeds", "2"), "--seeds has no effect with feature extraction"),
    ],
)
def test_what_cannot_be_done_with_seeds_is_refused_before_anything_is_written(
    recipe_here, tmp_path, recipe, words, says
):
    ended = recipe_here(recipe, *words, "--output_dir", str(tmp_path / "run"))
    assert ended.returncode == 2 and says in ended.stderr, ended.stderr
    assert not [*tmp_path.iterdir()]


def test_only_the_result_is_published():
    words = "--epochs 1 --push_to me/it --push_base me/base --public --no-dry_run --tag=v1 --no-examples".split()
    assert trials.without(words, Seeds.of_the_result) == ["--epochs", "1", "--no-examples"]
