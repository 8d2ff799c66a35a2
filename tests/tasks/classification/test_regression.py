"""Regression: figures by hand and by SciPy, what counts as a number, and scores that every loader gives alike."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
import transformers
from datasets import Dataset
from sklearn.metrics import root_mean_squared_error

import tl_hub
from tl_hub import base_model, card, data, evaluation, finish, launch, training
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.record import RunRecord
from tl_hub.tasks.classification import Classification, regression

METHODS = {"finetune": FineTune, "adapter": Lora}


def rows_of(labels, **columns):
    return Dataset.from_dict({"text": [f"text {i}" for i in range(len(labels))], "label": labels, **columns})


def learned(labels, **settings):
    task = Classification(**settings)
    rows = task.check(rows_of(labels))
    task = task.learn({"train": rows})
    return task, rows


def test_figures_worked_by_hand():
    """Scores 1, 3, 2 of the labels 1, 2, 3: errors 0, 1, 1; ranks 1, 3, 2 of 1, 2, 3; means 2 and 2."""
    score = regression.score(np.array([1.0, 3.0, 2.0]), rows_of([1.0, 2.0, 3.0]))
    assert {name: float(value) for name, value in score.metrics.items()} == pytest.approx(
        {"pearsonr": 0.5, "spearmanr": 0.5, "rmse": math.sqrt(2 / 3)}
    )
    assert [(shown["expected"], shown["predicted"]) for shown in score.predictions] == [(1, 1), (2, 3), (3, 2)]


def test_figures_and_intervals_are_those_of_scipy_and_sklearn():
    random = np.random.default_rng(3)
    expected = random.integers(0, 20, 60) / 4  # with ties
    predicted = np.round(expected + random.normal(size=60), 1)
    score = regression.score(predicted, rows_of(expected))
    known = {
        "pearsonr": lambda x, y: scipy.stats.pearsonr(x, y).statistic,
        "spearmanr": lambda x, y: scipy.stats.spearmanr(x, y).statistic,
        "rmse": root_mean_squared_error,
    }
    for name, measure in known.items():
        assert float(score.metrics[name]) == pytest.approx(measure(expected, predicted))
        to, back = (np.log, np.exp) if name == "rmse" else (np.arctanh, np.tanh)
        error = scipy.stats.bootstrap(
            (expected, predicted), lambda x, y, of=measure, to=to: to(of(x, y)), paired=True, vectorized=False,
            n_resamples=1000, method="percentile", rng=np.random.default_rng(1),
        ).standard_error  # fmt: skip
        middle, half = to(measure(expected, predicted)), scipy.stats.t.ppf(0.975, 59) * error
        low, high = back(middle - half), back(middle + half)
        # Two bootstraps of the same rows differ by chance: by far less than the interval is wide.
        assert score.intervals[name] == pytest.approx((low, high), abs=0.1 * (high - low))


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 50, 350])
@pytest.mark.parametrize(("errors", "least"), [("normal", 0.90), ("heavy", 0.80)])
def test_95_of_100_intervals_hold_the_true_figure(rows, errors, least, monkeypatch):
    """Fewer of RMSE where some errors are far larger than most, by Student's t with four degrees of freedom."""
    monkeypatch.setattr(regression, "_RESAMPLES", 300)
    random, repetitions = np.random.default_rng(1), 300

    def drawn(count):
        labels = random.normal(size=count)
        noise = random.normal(size=count) if errors == "normal" else random.standard_t(4, size=count) / math.sqrt(2)
        return labels, 0.8 * labels + 0.6 * noise

    labels, scores = drawn(1_000_000)
    true = {name: float(of(labels[None], scores[None])[0]) for name, of in regression.MEASURES.items()}
    holds = dict.fromkeys(true, 0)
    for _ in range(repetitions):
        labels, scores = drawn(rows)
        for name, of in regression.MEASURES.items():
            low, high = regression.interval(of, labels, scores)
            holds[name] += low <= true[name] <= high
    sampling = 2 * math.sqrt(0.95 * 0.05 / repetitions)
    for name, count in holds.items():
        wanted = least if name == "rmse" else 0.90
        assert wanted - sampling <= count / repetitions <= 0.98 + sampling, (name, count / repetitions)


@pytest.mark.parametrize("predicted", [[1.0, 2.0, 3.0], [1.0, 2.0, 3.5], [1.0]])
def test_an_interval_is_finite_where_a_draw_has_no_error(predicted):
    """Of a correlation of 1 there is no z, of an error of 0 no logarithm."""
    score = regression.score(np.array(predicted), rows_of([1.0, 2.0, 3.0][: len(predicted)]))
    assert score.intervals and all(np.isfinite(ends).all() for ends in score.intervals.values())


def test_a_correlation_with_a_constant_is_left_out():
    score = regression.score(np.full(3, 2.0), rows_of([1.0, 2.0, 3.5]))
    assert set(score.metrics) == set(score.intervals) == {"rmse"}


def test_baselines_are_the_mean_of_the_training_labels_and_a_ridge():
    texts = ["good film", "bad film", "good plot", "bad plot"] * 5 + ["bad plot"] * 10
    labels = np.array([4.5, 0.5, 4.5, 0.5] * 5 + [0.5] * 10)
    mine, mean, ridge = regression.baselines(
        texts, labels, ["good", "bad", "film"], np.array([5.0, 0.0, 1.0]), np.ones(3)
    )
    assert mean["rmse"] == pytest.approx(root_mean_squared_error([5.0, 0.0, 1.0], [55 / 30] * 3))
    assert mean["pearsonr"] == mean["spearmanr"] == mine["pearsonr"] == "undefined"
    assert ridge["rmse"] < mean["rmse"] and ridge["pearsonr"] > 0.8


def _named(label) -> str:
    return f"{label:g}" if isinstance(label, float) else str(label)


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        ([0.5, 1.0, 2.0], True),
        (["0.0", "2.5", "5"], True),
        (["-1e-3", ".5", "+2."], True),
        ([1.0, 2.0, 3.0], False),  # pandas writes whole numbers so where cells are missing
        (["1.0", "2.0", "3.0"], False),
        ([1, 2, 3], False),
        (["v1.5", "2.5", "x"], False),
        (["True", "False", "True"], False),
    ],
)
def test_labels_with_fractions_are_numbers(labels, numbers):
    task, rows = learned(labels)
    assert bool(task.regression) == numbers
    assert task.config_for("bert")["problem_type"] == ("regression" if numbers else "single_label_classification")
    assert list(rows["label"]) == (
        [float(label) for label in labels] if numbers else [_named(label) for label in labels]
    )


def test_flags_decide_what_labels_are():
    task, rows = learned([1, 2, 5], regression=True)
    assert rows["label"][:] == [1.0, 2.0, 5.0] and task.labels == ["score"] and task.best == ("rmse", False)
    assert "numbers from 1 to 5: regression" in task.remarks()[0]
    assert learned(["0.5", "1.5", "0.5"], regression=False)[0].labels == ["0.5", "1.5"]


COMMAS = ["2,5", "3", "-0,25", " 1,50 ", ",5", "1,2e1"]


def test_decimal_commas_are_asked_about_and_read_where_labels_are_numbers():
    with pytest.raises(
        UserError, match=r"row 0: label is '2,5'; give --regression .*--no-regression .*--label_separator ,"
    ):
        learned(COMMAS)
    assert learned(COMMAS, regression=True)[1]["label"][:] == [2.5, 3.0, -0.25, 1.5, 0.5, 12.0]
    assert learned(["2,5", "3", "2,5"], regression=False)[0].labels == ["2,5", "3"]
    assert learned(["1,2", "3", "2"], label_separator=",")[0].labels == ["1", "2", "3"]
    assert learned(["soup, hot", "1,2", "tea"])[0].labels == ["1,2", "soup, hot", "tea"], "names, not numbers"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["900", "1,000", "2,500"], "row 1: label is '1,000', and no label tells whether commas divide thousands"),
        (["2,5", "1.000", "3,5"], "row 0: label is '2,5'.*with a point"),
        (["1,000,000", "2,5", "3,5"], "row 0: label is '1,000,000'"),
    ],
)
def test_commas_that_may_be_something_else_are_refused(labels, message):
    with pytest.raises(UserError, match=message):
        learned(labels, regression=True)


def test_thousandths_are_read_where_another_label_tells_that_commas_begin_fractions():
    assert learned(["1,000", "0,125", "2,500"], regression=True)[1]["label"][:] == [1.0, 0.125, 2.5]


def test_the_first_rows_decide_for_all():
    task = Classification()
    task.check(rows_of([0.5, 1.5]))
    assert task.check(rows_of(["1", "2"]))["label"][:] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["0.5", "1.5", "high"], "row 2: label is 'high'.*finite number"),
        (["0.5", "nan", "1.5"], "row 1: label is 'nan'"),
        ([0.5, math.inf, 1.5], "row 1: label is inf"),
        ([0.5, math.nan, 1.5], "row 1: label is nan"),
        (["0.5", "-Infinity", "1.5"], "row 1: label is '-Infinity'"),
        (["0.5", "", "1.5"], "1 rows have no label.*row 1"),
        ([2.5, 2.5, 2.5], "each of the 3 training rows has the label 2.5"),
    ],
)
def test_labels_that_cannot_be_learned_get_one_line(labels, message):
    with pytest.raises(UserError, match=message):
        learned(labels)


@pytest.mark.parametrize(
    "setting",
    [
        {"label_smoothing": 0.1},
        {"class_weights": "balanced"},
        {"threshold": 0.5},
        {"label_separator": ";"},
        {"label_names": "no,yes"},
        {"fold_labels": True},
    ],
)
def test_settings_for_classes_are_refused(setting):
    with pytest.raises(UserError, match=f"--{next(iter(setting))} is for classes"):
        learned([0.5, 1.5], regression=True, **setting)


@pytest.mark.parametrize(("labels", "said"), [([0.0, 2.5, 5.0], False), ([900.5, 1000.0, 1100.0], True)])
def test_labels_far_from_the_scale_of_models_are_named(labels, said):
    assert ("scale them" in learned(labels)[0].remarks()[0]) == said


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_a_run_gives_raw_scores_by_every_loader(family, method, tmp_path, checkpoint_folders, load_back_here):
    long = " ".join(f"word {i}" for i in range(80))
    for split in ("train", "validation"):
        rows = [{"text": f"text {i}", "label": i / 4} for i in range(12)] + [{"text": long, "label": 2.25}]
        Dataset.from_list(rows).to_parquet(tmp_path / f"{split}.parquet")
    task, way = Classification(max_length=48, doc_stride=8), METHODS[method]()
    folder = tmp_path / "run"
    run = RunConfig(
        output_dir=str(folder), model=str(checkpoint_folders(family)), dataset=str(tmp_path), epochs=2,
        learning_rate=1e-2, precision="fp32",
    )  # fmt: skip
    accelerator = launch.start(run)
    loaded, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    model = way.wrap(model, base)
    data.encode(loaded, task, tokenizer, model)
    experiment = Experiment(run, task, way, base, loaded, model, tokenizer, accelerator)
    history = training.train(experiment)
    best = min(history.epochs, key=lambda epoch: epoch["rmse"])
    assert history.best_epoch == best["epoch"]
    score = training.evaluate(experiment, split="validation")
    finish.finish(experiment, history, score)

    record = RunRecord.load(folder)
    text = (folder / "README.md").read_text()
    assert (
        "This model gives texts a score. " in text.replace("This adapter", "This model")
        and "Pearson correlation" in text
        and "the labels are numbers from 0 to 2.75" in text
    )
    assert {metric.name for metric in record.metrics} == {"rmse", "pearsonr", "spearmanr"}
    assert record.metrics[0].name == "rmse" and card.metadata(record).metrics[0] == "rmse"
    assert record.verification["result"] == pytest.approx(record.verification["pipeline_output"]["score"], abs=1e-4)

    ask = tl_hub.pipeline(folder)
    features = task.encode(Dataset.from_dict({"text": ["text 3", long]}), ask.tokenizer, ask.model)
    names = [name for name in ("input_ids", "token_type_ids") if name in features.column_names]
    with torch.no_grad():  # without padding or batches: a window alone
        alone = [
            ask.model(**{name: torch.tensor([feature[name]]) for name in names}).logits.item() for feature in features
        ]
    places = np.array(features["row"])
    assert len(features) > 2, "the long text has several windows"
    found = ask(["text 3", long])
    assert [answer["score"] for answer in found] == pytest.approx(
        [alone[0], np.mean(np.array(alone)[places == 1])], abs=1e-4
    )
    stock = transformers.pipeline("text-classification", model=ask.model, tokenizer=ask.tokenizer)
    assert stock("text 3")[0] == {"label": "score", "score": pytest.approx(alone[0], abs=1e-4)}
    if method == "finetune":
        plain = transformers.pipeline("text-classification", model=str(folder))
        assert plain("text 3")[0]["score"] == pytest.approx(alone[0], abs=1e-4)
    assert all(figure["holds"] for figure in evaluation.remeasure(folder, dataset=str(tmp_path))["metrics"])
    # What a loop of the user's own states without a command may be shares of 100, but not in regression.
    replace(record, command=None).save(folder)
    assert all(figure["holds"] for figure in evaluation.remeasure(folder, dataset=str(tmp_path))["metrics"])
    with pytest.raises(UserError, match="--label_map renames classes, and a model for text-regression has none"):
        evaluation.remeasure(folder, dataset=str(tmp_path), label_map={"1": "2"})


@pytest.mark.parametrize("method", METHODS)
def test_bf16_rounds_no_score(method, tmp_path, checkpoint_folders):
    """Neither after training nor during it: the stock pipeline, which computes in float32, is the truth."""
    for split in ("train", "validation"):
        rows = [{"text": f"text {i} of {'many' * (i % 3)}", "label": i / 4} for i in range(12)]
        Dataset.from_list(rows).to_parquet(tmp_path / f"{split}.parquet")
    task, way = Classification(max_length=48, doc_stride=8), METHODS[method]()
    run = RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), dataset=str(tmp_path), epochs=1,
        learning_rate=1e-2, precision="bf16",
    )  # fmt: skip
    accelerator = launch.start(run)
    loaded, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    model = way.wrap(model, base)
    data.encode(loaded, task, tokenizer, model)
    experiment = Experiment(run, task, way, base, loaded, model, tokenizer, accelerator)
    history = training.train(experiment)
    assert accelerator.mixed_precision == "bf16"
    measured = loaded.splits["validation"]
    score = training.evaluate(experiment, split="validation")
    stock = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)
    scores = [answer["score"] for answer in stock(measured.rows["text"][:])]
    assert [shown["predicted"] for shown in score.predictions] == pytest.approx(scores, abs=1e-4)
    expected = root_mean_squared_error(measured.rows["label"][:], scores)
    assert history.epochs[0]["rmse"] == pytest.approx(expected, abs=1e-4)
