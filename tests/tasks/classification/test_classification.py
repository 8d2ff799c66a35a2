"""Classification: labels, windows, pooling and figures, against scikit-learn, brute force and the stock library."""

import numpy as np
import pyarrow
import pytest
import sklearn.metrics
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from matplotlib.font_manager import FontProperties, findfont, get_font

import tl_hub
from tl_hub import base_model, data, evaluation, finish, launch, training
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune
from tl_hub.metrics import best_threshold, expected_calibration_error, f1_interval
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.classification.report import _fonts_for, draw
from tl_hub.tasks.classification.windows import row_means

FAMILIES = ["bert", "gpt2", "t5", "xlnet"]
LONG = " ".join(f"The river number {i} flows to the sea." for i in range(30))


def learned(rows: list[dict], **settings) -> tuple[Classification, Dataset]:
    task = Classification(**{"max_length": 64, "doc_stride": 16, **settings})
    checked = task.check(Dataset.from_list(rows))
    task = task.learn({"train": checked})
    return task, checked


def encoded(family: str, checkpoint_folders, rows: list[dict], **settings):
    """Task, model with its head, tokenizer and features, as a recipe makes them."""
    task, checked = learned(rows, **settings)
    model, tokenizer, _ = base_model.load(RunConfig(model=str(checkpoint_folders(family))), task)
    return task, model.eval(), tokenizer, task.encode(checked, tokenizer, model)


def batch_of(task: Classification, tokenizer, features: Dataset, places: list[int]) -> dict[str, torch.Tensor]:
    kept = features.select_columns([name for name in task.batched if name in features.column_names])
    return task.collator(tokenizer, training=False)([kept[place] for place in places])


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_row_alone_gives_what_it_gives_in_a_padded_batch(family, pairs, checkpoint_folders):
    rows = [
        {"text": "Cold rain.", "label": "a"},
        {"text": "Rain </s> and <|endoftext|> [SEP] <sep> snow fell on the town", "label": "b"},
        {"text": LONG, "label": "a"},
    ]
    settings = {}
    if pairs:
        rows = [{**row, "second": second} for row, second in zip(rows, (LONG, "Sun.", "The end </s>"), strict=True)]
        settings = {"text_pair_column": "second"}
    task, model, tokenizer, features = encoded(family, checkpoint_folders, rows, **settings)
    ends = [ids.count(tokenizer.eos_token_id) for ids in features["input_ids"]]
    if family == "t5":
        assert set(ends) == {2 if pairs else 1}
    if family == "xlnet":
        assert all(ids[-1] == tokenizer.cls_token_id for ids in features["input_ids"])
    logits = model(**batch_of(task, tokenizer, features, list(range(len(features))))).logits
    for place, ids in enumerate(features["input_ids"]):
        # Without the collator: no padding at all, and no mask.
        inputs = {"input_ids": torch.tensor([ids])}
        if "token_type_ids" in features.column_names:
            inputs["token_type_ids"] = torch.tensor([features["token_type_ids"][place]])
        assert torch.allclose(model(**inputs).logits[0], logits[place], atol=2e-6)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_windows_leave_nothing_out(family, pairs, checkpoint_folders):
    """The windows of a long text, without special tokens and what they share, are the text's own tokens."""
    row = {"text": LONG, "label": "a", **({"second": "Does it rain?"} if pairs else {})}
    rows = [row, {**row, "text": "Short.", "label": "b"}]
    settings = {"text_pair_column": "second"} if pairs else {}
    task, model, tokenizer, features = encoded(family, checkpoint_folders, rows, **settings)
    expected = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    second = tokenizer("Does it rain?", add_special_tokens=False)["input_ids"] if pairs else []
    special = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    parts = []
    for feature in features:
        if feature["row"] == 0:
            assert feature["length"] == len(feature["input_ids"]) <= 64
            ids = [token for token in feature["input_ids"] if token not in special]
            assert ids[len(ids) - len(second) :] == second
            parts.append(ids[: len(ids) - len(second)])
    assert len(parts) > 1
    joined = parts[0]
    for before, part in zip(parts, parts[1:], strict=False):
        assert part[:16] == before[-16:]
        joined = joined + part[16:]
    assert joined == expected
    assert task.notes(features) == ["overlapping windows were needed to read 1 row whole"]


def test_both_texts_too_long_is_said(checkpoint_folders):
    rows = [{"text": LONG, "second": LONG + " " + LONG, "label": "a"}, {"text": "x", "second": "y", "label": "b"}]
    task, model, tokenizer, features = encoded("t5", checkpoint_folders, rows, text_pair_column="second")
    assert max(features["length"]) <= 64
    assert any("the shorter one was cut" in note for note in task.notes(features))
    longer = tokenizer(rows[0]["second"])["input_ids"]
    last = [ids for ids, row in zip(features["input_ids"], features["row"], strict=True) if row == 0][-1]
    assert last[-8:] == longer[-8:], "the longer one is read to its end"


def test_a_shorter_model_window_wins(checkpoint_folders, checkpoints):
    model, tokenizer = checkpoints("bert", "AutoModelForSequenceClassification")
    model.config.max_position_embeddings = 48
    task, checked = learned([{"text": LONG, "label": "a"}, {"text": "b", "label": "b"}])
    assert max(task.encode(checked, tokenizer, model)["length"]) == 48
    model.config.max_position_embeddings = 40
    with pytest.raises(UserError, match="reads 32 tokens at most.*--doc_stride 16"):
        task.encode(checked, tokenizer, model)


def test_row_means_equals_a_loop():
    random = np.random.default_rng(0)
    row = np.array([0, 0, 1, 2, 2, 2])
    values = random.normal(size=(6, 3))
    for i, mean in enumerate(row_means(values, row)):
        assert mean == pytest.approx(np.mean([v for v, r in zip(values, row, strict=True) if r == i], axis=0))


def test_calibration_error_equals_a_loop_over_bins():
    """Guo et al. 2017, equation 3: bins ((m - 1) / 15, m / 15], each gap weighted by its share of the rows."""
    random = np.random.default_rng(1)
    confidence = np.concatenate([random.random(200), np.arange(1, 16) / 15 - 1e-12, [1.0]])
    correct = random.random(len(confidence)) < confidence**2
    expected = 0.0
    for m in range(1, 16):
        inside = [i for i, c in enumerate(confidence) if (m - 1) / 15 < c <= m / 15]
        if inside:
            gap = np.mean([correct[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            expected += len(inside) / len(confidence) * abs(gap)
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected, abs=1e-9)
    assert expected_calibration_error(np.ones(4), np.array([True, False, True, False])) == pytest.approx(0.5)


def scored(logits: np.ndarray, rows: list[dict], decision=None, **settings):
    """Score of given logits, one window a row."""
    task, checked = learned(rows, **settings)
    features = Dataset.from_dict({"row": list(range(len(rows)))})
    return task, checked, task.score({"logits": logits}, checked, features, decision)


def test_figures_equal_those_of_scikit_learn():
    random = np.random.default_rng(2)
    names = ["cat", "dog", "eel"]
    expected = random.choice(names, size=60).tolist()
    logits = random.normal(size=(60, 3)).astype(np.float32)
    logits[:, 2] -= 9  # never predicted
    task, checked, score = scored(logits, [{"text": f"t {i}", "label": label} for i, label in enumerate(expected)])
    assert task.labels == names
    predicted = [names[i] for i in logits.argmax(1)]
    assert [shown["predicted"] for shown in score.predictions] == predicted
    assert score.metrics["accuracy"].mean() == pytest.approx(100 * sklearn.metrics.accuracy_score(expected, predicted))
    macro = sklearn.metrics.f1_score(expected, predicted, average="macro")
    assert float(score.metrics["macro_f1"]) == pytest.approx(100 * macro)
    confidence = (torch.from_numpy(logits).double() / score.decision["temperature"]).softmax(1).max(1).values.numpy()
    right = np.array(expected) == np.array(predicted)
    assert float(score.metrics["expected_calibration_error"]) == pytest.approx(
        100 * expected_calibration_error(confidence, right)
    )
    low, high = score.intervals["macro_f1"]
    assert low < 100 * macro < high

    tables = task.tables(checked, score)
    report = sklearn.metrics.classification_report(expected, predicted, output_dict=True, zero_division=0.0)
    for row in tables["Classes"]:
        stock = report[row["class"]]
        assert row["rows"] == stock["support"]
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("F1", "f1-score")):
            assert row[ours] == pytest.approx(100 * stock[theirs])
    matrix = sklearn.metrics.confusion_matrix(expected, predicted, labels=names)
    assert [[row[f"predicted {name}"] for name in names] for row in tables["Confusion matrix"]] == matrix.tolist()
    ours, majority, _ = tables["Baselines"]
    assert ours["accuracy"] == pytest.approx(score.metrics["accuracy"].mean())
    assert majority["accuracy"] == pytest.approx(100 * max(expected.count(name) for name in names) / 60)


def test_the_interval_is_that_of_resampled_rows():
    random = np.random.default_rng(3)
    expected = random.random((80, 3)) < 0.4
    predicted = expected ^ (random.random((80, 3)) < 0.2)
    for average in ("micro", "macro"):
        found = []
        for _ in range(150):
            drawn = random.integers(80, size=80)
            found.append(sklearn.metrics.f1_score(expected[drawn], predicted[drawn], average=average))
        assert f1_interval(expected, predicted, average) == pytest.approx(np.quantile(found, [0.025, 0.975]), abs=0.03)
    # Of a class with one row, a third of the draws have none. scikit-learn leaves it out of their mean, too.
    classes = np.array([0] * 40 + [1] * 39 + [2])
    answers = np.where(np.arange(80) % 7, classes, 0)
    found = []
    for _ in range(250):
        drawn = random.integers(80, size=80)
        found.append(sklearn.metrics.f1_score(classes[drawn], answers[drawn], average="macro"))
    interval = f1_interval(np.eye(3, dtype=bool)[classes], np.eye(3, dtype=bool)[answers], "macro")
    assert interval == pytest.approx(np.quantile(found, [0.025, 0.975]), abs=0.03)


def test_words_alone_solve_what_words_tell():
    """The linear baseline is fitted on the training rows and asked about others."""
    rows = [{"text": f"{word} {i}", "label": label} for i in range(20) for word, label in (("good", "p"), ("bad", "n"))]
    task, _ = learned(rows)
    others = task.check(Dataset.from_list([{"text": "so bad", "label": "n"}, {"text": "a good one", "label": "n"}]))
    score = task.score({"logits": np.zeros((2, 2), np.float32)}, others, Dataset.from_dict({"row": [0, 1]}), None)
    tables = task.tables(others, score)
    # Equal logits give the first class, n; of the training rows each is as frequent; the words tell n and p.
    assert [round(row["accuracy"]) for row in tables["Baselines"]] == [100, 100, 50]


def test_many_classes_show_their_confusions_as_a_list():
    rows = [{"text": f"text {i}", "label": i % 25} for i in range(50)]
    logits = np.eye(25, dtype=np.float32)[[1, *range(1, 25), *range(25)]]
    task, checked, score = scored(logits, rows)
    assert task.labels == [str(i) for i in range(25)]  # by number, not by letter
    tables = task.tables(checked, score)
    assert tables["Most frequent confusions"] == [{"expected": "0", "predicted": "1", "rows": 1}]
    assert "Confusion matrix" not in tables


OF_NO_FONT = "\U0010fffd"  # in a plane for private use


@pytest.mark.parametrize("name", ["good", "좋음", "$5 to $10 \\", OF_NO_FONT])
@pytest.mark.filterwarnings("error:Glyph")
def test_the_picture_of_the_confusions_has_no_empty_boxes(name, tmp_path, caplog):
    """Whichever fonts are installed: matplotlib warns of a glyph or a face that it does not find."""
    draw(tmp_path / "confusion.png", ["a", name], np.eye(2, dtype=bool), np.eye(2, dtype=bool))
    assert "findfont" not in caplog.text
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_fonts_are_looked_for_letter_by_letter():
    assert _fonts_for(["good", "é"]) == [FontProperties().get_name()]
    (own, other) = _fonts_for(["good ⃝"])  # a sign of STIXGeneral, which comes with matplotlib
    assert own == FontProperties().get_name() and ord("⃝") in get_font(findfont(other)).get_charmap()
    assert _fonts_for(["good", OF_NO_FONT]) == []


LABELLED = [
    {"text": "a", "label": ["red", "big"]},
    {"text": "b", "label": ["red"]},
    {"text": "c", "label": []},
    {"text": "d", "label": ["blue", "big"]},
]


def test_multi_label_figures_and_the_threshold():
    random = np.random.default_rng(4)
    names = ["big", "blue", "red"]
    rows = [{"text": f"t {i}", "label": [n for n in names if random.random() < 0.4]} for i in range(50)]
    logits = random.normal(size=(50, 3)).astype(np.float32)
    task, checked, score = scored(logits, rows)
    assert task.multi_label and task.best == ("micro_f1", True) and Classification.best == ("accuracy", True)
    expected = np.array([[name in row["label"] for name in names] for row in rows])
    probabilities = 1 / (1 + np.exp(-logits.astype(float)))
    threshold = score.decision["threshold"]
    for average in ("micro", "macro"):
        stock = sklearn.metrics.f1_score(expected, probabilities >= threshold, average=average)
        assert float(score.metrics[f"{average}_f1"]) == pytest.approx(100 * stock)
    every = [sklearn.metrics.f1_score(expected, probabilities >= t, average="micro") for t in np.unique(probabilities)]
    assert float(score.metrics["micro_f1"]) == pytest.approx(100 * max(every))
    assert best_threshold(probabilities, expected) == pytest.approx(threshold)
    exact = sklearn.metrics.accuracy_score(expected, probabilities >= threshold)
    assert score.metrics["accuracy"].mean() == pytest.approx(100 * exact)
    again = task.score({"logits": logits}, checked, Dataset.from_dict({"row": list(range(50))}), {"threshold": 0.9})
    assert again.decision == {"threshold": 0.9}
    assert [shown["predicted"] for shown in again.predictions] == [
        [n for n, p in zip(names, row, strict=True) if p >= 0.9] for row in probabilities
    ]
    task.threshold = 0.7  # as given by hand, which wins
    own = task.score({"logits": logits}, checked, Dataset.from_dict({"row": list(range(50))}), {"threshold": 0.9})
    assert own.decision == {"threshold": 0.7}
    tables = task.tables(checked, score)
    assert "Confusion matrix" not in tables and len(tables["Baselines"]) == 3


def test_multi_label_loss_is_binary_cross_entropy(checkpoint_folders):
    task, model, tokenizer, features = encoded("bert", checkpoint_folders, LABELLED)
    assert features["labels"][:] == [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    batch = batch_of(task, tokenizer, features, [0, 1, 2, 3])
    with torch.no_grad():
        outputs = task.objective(model)(**batch)
    p = outputs.logits.double().sigmoid()
    y = batch["labels"].double()
    assert float(outputs.loss) == pytest.approx(float(-(y * p.log() + (1 - y) * (1 - p).log()).mean()), abs=1e-5)
    assert model.config.problem_type == "multi_label_classification"


def test_weights_and_smoothing_of_several_labels_change_the_loss_as_defined(checkpoint_folders):
    """A label's own rows weigh as much as the others (rows without / rows with); a smoothed label is 0.95 or 0.05."""
    task, model, tokenizer, features = encoded(
        "bert", checkpoint_folders, LABELLED, class_weights="balanced", label_smoothing=0.1
    )
    batch = batch_of(task, tokenizer, features, [0, 1, 2, 3])
    with torch.no_grad():
        outputs = task.objective(model)(**batch)
    assert task.labels == ["big", "blue", "red"]
    weights = [2 / 2, 3 / 1, 2 / 2]
    p = outputs.logits.double().sigmoid().numpy()
    total = 0.0
    for row, labels in enumerate([{"red", "big"}, {"red"}, set(), {"blue", "big"}]):
        for column, name in enumerate(task.labels):
            y = 0.95 if name in labels else 0.05
            total -= weights[column] * y * np.log(p[row, column]) + (1 - y) * np.log(1 - p[row, column])
    assert float(outputs.loss) == pytest.approx(total / 12, abs=1e-5)


def test_a_threshold_for_rows_of_one_class_is_refused():
    rows = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    with pytest.raises(UserError, match="--threshold is 0.9, but each row has one class.*omit --threshold"):
        learned(rows, threshold=0.9)
    learned([{**row, "label": [row["label"]]} for row in rows], threshold=0.9)


def test_a_label_that_every_row_has_is_not_unlearned(checkpoint_folders):
    """Balanced, its rows would count nothing, and its logit would fall without end."""
    rows = [{**row, "label": [*row["label"], "every"]} for row in LABELLED]
    task, model, tokenizer, features = encoded("bert", checkpoint_folders, rows, class_weights="balanced")
    batch = batch_of(task, tokenizer, features, [0, 1, 2, 3])
    with torch.enable_grad():
        outputs = task.objective(model)(**batch)
        outputs.loss.backward()
    assert float(model.classifier.bias.grad[task.labels.index("every")]) < 0, "its logit rises"


def test_weights_and_smoothing_change_the_loss_as_defined(checkpoint_folders):
    rows = [{"text": text, "label": label} for text, label in (("a", "x"), ("b", "x"), ("c", "x"), ("d", "y"))]
    task, model, tokenizer, features = encoded(
        "bert", checkpoint_folders, rows, class_weights="balanced", label_smoothing=0.1
    )
    batch = batch_of(task, tokenizer, features, [0, 1, 2, 3])
    with torch.no_grad():
        outputs = task.objective(model)(**batch)
    logs = outputs.logits.double().log_softmax(1)
    weights = np.array([4 / (2 * 3), 4 / (2 * 1)])  # rows / (classes * rows of the class)
    total = 0.0
    for log, label in zip(logs.numpy(), [0, 0, 0, 1], strict=True):
        total += 0.9 * weights[label] * -log[label] + 0.1 * np.mean(
            [-w * value for w, value in zip(weights, log, strict=True)]
        )
    assert float(outputs.loss) == pytest.approx(total / weights[[0, 0, 0, 1]].sum(), abs=1e-5)
    plain = Classification()
    assert plain.objective(model) is model


def test_a_run_with_weighted_classes_is_measured_on_rows_that_lack_one(tmp_path, checkpoint_folders, load_back_here):
    """The weights were those of its own classes, and its losses do not count in a measurement."""
    for split in ("train", "validation"):
        rows = [{"text": f"text {i}", "label": label} for i, label in enumerate(["a", "b", "b", "c"] * 3)]
        Dataset.from_list(rows).to_parquet(tmp_path / f"{split}.parquet")
    task = Classification(class_weights="balanced", label_smoothing=0.1)
    run = RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), dataset=str(tmp_path), max_steps=1
    )
    accelerator = launch.start(run)
    loaded, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(loaded, task, tokenizer, model)
    experiment = Experiment(run, task, FineTune(), base, loaded, model, tokenizer, accelerator)
    history = training.train(experiment)
    score = training.evaluate(experiment, split="validation")
    finish.finish(experiment, history, score)
    assert all(figure["holds"] for figure in evaluation.remeasure(tmp_path / "run", dataset=str(tmp_path))["metrics"])
    others = [{"text": f"text {i}", "label": label} for i, label in enumerate("acacac")]
    (tmp_path / "others").mkdir()
    for split in ("train", "validation"):
        Dataset.from_list(others).to_parquet(tmp_path / "others" / f"{split}.parquet")
    report = evaluation.remeasure(tmp_path / "run", dataset=str(tmp_path / "others"))
    given = [answer["label"] for answer in tl_hub.pipeline(tmp_path / "run")([row["text"] for row in others])]
    right = np.mean([label == row["label"] for label, row in zip(given, others, strict=True)])
    assert {m["name"]: m["found"] for m in report["metrics"]}["accuracy"] == pytest.approx(100 * right)


def load(folder, features: Features | None = None, limit: int | None = None, **splits: list) -> tuple:
    """Rows of parquet files, which keep a ClassLabel's names, through `data.load`."""
    for name, rows in splits.items():
        Dataset.from_dict(
            {"text": [f"text {i}" for i in range(len(rows))], "label": rows}, features=features
        ).to_parquet(folder / f"{name}.parquet")
    rows, task = data.load(RunConfig(dataset=str(folder), train_rows=limit), Classification())
    return task, rows


NAMED = Features({"text": Value("string"), "label": ClassLabel(names=["neg", "pos", "alike"])})


def test_names_of_a_class_label_survive_in_their_order(tmp_path):
    task, rows = load(tmp_path, NAMED, train=[2, 0, 1, 0], validation=[0, 1])
    assert task.labels == ["neg", "pos", "alike"]
    assert rows.splits["train"].rows["label"][:] == ["alike", "neg", "pos", "neg"]
    assert task.config_for("bert")["id2label"] == {0: "neg", 1: "pos", 2: "alike"}
    assert task.config_for("bert")["label2id"] == {"neg": 0, "pos": 1, "alike": 2}


def test_lists_of_a_class_label(tmp_path):
    kind = Features({"text": Value("string"), "label": List(ClassLabel(names=["neg", "pos"]))})
    task, rows = load(tmp_path, kind, train=[[0, 1], [], [1]], validation=[[1]])
    assert task.multi_label and task.labels == ["neg", "pos"]
    assert rows.splits["train"].rows["label"][:] == [["neg", "pos"], [], ["pos"]]


def test_labels_in_one_cell_of_a_table(tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text('text,label\nfirst,"red; green"\nsecond,\nthird,green;\n')
    task = Classification(label_separator=";")
    rows, task = data.load(RunConfig(train_file=str(file), validation_file=str(file)), task)
    assert task.multi_label and task.labels == ["green", "red"]
    assert rows.splits["train"].rows["label"][:] == [["red", "green"], [], ["green"]]
    with pytest.raises(UserError, match="row 0: label is 3, not a text; omit --label_separator"):
        task.check(Dataset.from_list([{"text": "a", "label": 3}]))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([10, 9, 2], ["2", "9", "10"]),
        (["10", "9", "2"], ["2", "9", "10"]),
        ([1.0, 0.0, 1.0], ["0", "1"]),
        ([True, False, True], ["False", "True"]),
        ([" b", "a ", "b"], ["a", "b"]),
        ([-1, 1, 0], ["-1", "0", "1"]),
    ],
)
def test_names_of_other_labels(tmp_path, labels, names):
    task, _ = load(tmp_path, train=labels, validation=labels)
    assert task.labels == names


def test_a_split_with_hidden_labels_is_left_out_and_noted(tmp_path):
    _, rows = load(tmp_path, NAMED, train=[0, 1], validation=[0, 1], test=[-1, -1])
    assert rows.final == "validation" and set(rows.splits) == {"train", "validation"}
    assert rows.notes == ["The answers of the test split are hidden, so it was left out."]


def test_a_few_rows_a_class_are_told_of_before_training(tmp_path):
    task, _ = load(tmp_path, train=["a"] * 64 + ["b"] * 65, validation=["a"])
    assert task.advice().startswith("64 training rows of the rarest class")
    assert task.advice(frozen=True) is None
    task, _ = load(tmp_path, train=["a"] * 65 + ["b"] * 65, validation=["a"])
    assert task.advice() is None
    assert task.advice(frozen=True).startswith("65 training rows of the rarest class")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["a", "a"], "validation": ["a"]}, r"2 training rows have fewer than 2 classes \('a'\)"),
        ({"train": ["a", "b"], "validation": ["a", "c"]}, r"validation rows have 1 class that no .* \('c'\)"),
        ({"train": ["a", "b"], "validation": ["a"], "test": ["d", "e"]}, r"test rows have 2 classes .*'d', 'e'"),
        ({"train": ["a", None, "b"], "validation": ["a"]}, r"train rows .*1 rows have no label \(the first is row 1"),
        ({"train": [["a"], ["b"]], "validation": ["a"]}, "holds lists in the training or the validation rows, but not"),
    ],
)
def test_mistakes_in_the_labels(tmp_path, splits, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, **splits)


def test_the_only_row_of_a_class_is_not_held_out(tmp_path):
    only = [f"only {i}" for i in range(30)]
    for limit in (None, 30):
        task, loaded = load(tmp_path, limit=limit, train=[*only, *["a", "b"] * 3])
        assert set(loaded.splits["validation"].rows["label"]) <= {"a", "b"} and set(only) < set(task.labels)


def test_rows_sorted_by_class_are_named_as_a_reason(tmp_path):
    with pytest.raises(UserError, match="sorted by class.*--train_rows"):
        load(tmp_path, limit=3, train=["a"] * 5 + ["b"] * 5, validation=["a"])


def test_blank_texts_are_left_out():
    """With their labels; the others are counted as they stood in the user's file."""
    rows = [{"text": "a", "label": "x"}, {"text": " ", "label": None}, {"text": "b", "label": "y"}]
    assert Classification().check(Dataset.from_list(rows)).to_list() == [rows[0], rows[2]]
    with pytest.raises(UserError, match="1 rows have no label .the first is row 3"):
        Classification().check(Dataset.from_list([*rows, {"text": "c", "label": None}]))
    pairs = [{"text": "a", "two": two, "label": "x"} for two in ("b", None)]
    assert Classification(text_pair_column="two").check(Dataset.from_list(pairs)).to_list() == [
        {"text": "a", "text_pair": "b", "label": "x"}
    ]


@pytest.mark.parametrize("blank", [0, 7])
def test_rows_on_the_disk_are_checked_and_stay_there(tmp_path, blank):
    """Of a data set from the Hub, memory gets the labels alone: the texts may be more than it holds."""
    texts = [" " if i < blank else f"Text number {i} of many, and none is like another." for i in range(20_000)]
    Dataset.from_dict({"text": texts, "label": [i % 3 for i in range(20_000)]}).save_to_disk(str(tmp_path / "rows"))
    rows = Classification().check(Dataset.load_from_disk(str(tmp_path / "rows")))
    assert len(rows) == 20_000 - blank and rows[-1] == {"text": texts[-1], "label": str(19_999 % 3)}
    before = pyarrow.total_allocated_bytes()
    again = Classification().check(Dataset.load_from_disk(str(tmp_path / "rows")))
    assert pyarrow.total_allocated_bytes() - before < sum(map(len, texts)) / 2, again


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ([{"text": " ", "label": 1}], {}, "none of the 1 rows has a text in text$"),
        (
            [{"text": "a", "label": 1, "two": None}],
            {"text_pair_column": "two"},
            "none of the 1 .* text in text and two",
        ),
        ([{"text": 3, "label": 1}], {}, "row 0: text is 3; it must be a text"),
        ([{"text": "a", "label": 1}], {"text_pair_column": "two"}, "no column 'two'.*--text_pair_column"),
        ([{"sentence": "a", "label": 1}], {}, "no column 'text'.*has sentence, label.*--text_column"),
    ],
)
def test_mistakes_in_the_texts(rows, settings, message):
    with pytest.raises(UserError, match=message):
        Classification(**settings).check(Dataset.from_list(rows))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 100, "doc_stride": 64}, "--max_length is 100; with --doc_stride 64 it must be at least 144"),
        ({"doc_stride": 0}, "--doc_stride is 0"),
        ({"label_smoothing": 1.0}, r"--label_smoothing is 1.0; it must lie in \[0, 1\)"),
        ({"threshold": 1.0}, "--threshold is 1.0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        Classification(**settings)


def test_a_head_of_another_size_is_refused(tmp_path, checkpoints):
    model, tokenizer = checkpoints("bert", "AutoModelForSequenceClassification")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    task, _ = learned([{"text": "a", "label": name} for name in "abc"])
    with pytest.raises(UserError, match="has a head of another size"):
        base_model.load(RunConfig(model=str(tmp_path)), task)


def test_whole_numbers_and_versions_in_a_csv_file_are_classes():
    """Cells of CSV are texts; `test_regression.py` has those that are numbers to predict."""
    rows = {"text": ["a", "b", "c"]}
    for labels in (["1.0", "2.0", "3.0"], ["v1.5", "2.5", "x"], ["1", "2", "3"]):
        assert list(Classification().check(Dataset.from_dict(rows | {"label": labels}))["label"]) == labels
