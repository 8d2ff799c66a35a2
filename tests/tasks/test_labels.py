"""Classes as people write them: spellings, rare ones, counts on the screen, against counts made by hand."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from accelerate import Accelerator
from datasets import Dataset
from transformers import BertConfig

from tl_hub import base_model, data, evaluation, finish, launch, overview, row_predictions, training
from tl_hub.config import RunConfig
from tl_hub.data import Data, Split
from tl_hub.errors import Checked, UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune
from tl_hub.record import RunRecord
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.labels import spelling_key
from tl_hub.tasks.question_answering import QuestionAnswering

MESSY = ["BUG"] * 5 + ["bug"] * 2 + ["Billing"] * 3 + ["billing\u200b"] + ["in voice"] * 3 + ["In  Voice", "n/a"]


def write(path: Path, labels: list, texts: str = "text") -> Path:
    rows = [{"text": f"{texts} {i}", "label": label} for i, label in enumerate(labels)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Bug", "bUG", True),
        ("very good", " verygood ", True),
        ("a\u00a0b", "a b", True),
        ("Straße", "STRASSE", True),
        ("\uff22ug", "bug", True),  # a full-width letter
        ("caf\u00e9", "cafe\u0301", True),
        ("버그", "\u1107\u1165\u1100\u1173", True),  # composed and decomposed
        ("\ufeffbug", "bug", True),
        ("bug", "bugs", False),
        ("C", "C++", False),
        ("cafe", "caf\u00e9", False),
        ("1", "-1", False),
    ],
)
def test_what_makes_two_labels_the_same(one, other, same):
    assert (spelling_key(one) == spelling_key(other)) is same


def test_spellings_and_rare_classes_are_named_and_remain_classes(tmp_path):
    file = write(tmp_path / "rows.jsonl", MESSY)
    _, task = data.load(RunConfig(train_file=str(file), validation_file=str(file)), Classification())
    assert len(task.labels) == 7
    same, rare = task.remarks()
    assert same == (
        "probably the same class: 'BUG' and 'bug'; 'Billing' and 'billing\\u200b'; 'in voice' and 'In  Voice'; "
        "--fold_labels makes one of them"
    )
    assert rare == (
        "classes with fewer than 3 training rows: 'In  Voice' (1), 'billing\\u200b' (1), 'bug' (2), 'n/a' (1)"
    )


def test_labels_are_folded_to_the_most_frequent_spelling_of_the_training_rows(tmp_path):
    train = write(tmp_path / "train.jsonl", MESSY)
    test = write(tmp_path / "test.jsonl", ["bug", "bug", "Bug", "BILLING", "invoice", "N/A"])
    task = Classification(fold_labels=True)
    loaded, task = data.load(RunConfig(train_file=str(train), validation_file=str(test), test_file=str(test)), task)
    assert task.labels == ["BUG", "Billing", "in voice", "n/a"]
    assert loaded.splits["test"].rows["label"][:] == ["BUG", "BUG", "BUG", "Billing", "in voice", "n/a"]
    assert dict(task.class_counts(loaded.splits["train"].rows)) == {"BUG": 7, "Billing": 4, "in voice": 4, "n/a": 1}
    said, rare = task.remarks()
    assert said.startswith("--fold_labels reads 'In  Voice' as 'in voice', 'billing\\u200b' as 'Billing', 'bug' as")
    assert rare == "classes with fewer than 3 training rows: 'n/a' (1)"


def test_lists_of_labels_are_folded_and_hold_each_class_once():
    task = Classification(fold_labels=True)
    rows = Dataset.from_list(
        [{"text": "a", "label": ["Red", "red"]}, {"text": "b", "label": ["red", "Blue"]}, {"text": "c", "label": []}]
    )
    assert task.check(rows)["label"][:] == [["red"], ["red", "Blue"], []]


def test_a_test_file_of_another_spelling_says_what_helps(tmp_path):
    train, test = write(tmp_path / "a.jsonl", ["x", "y"] * 9), write(tmp_path / "b.jsonl", ["X", "y"])
    run = RunConfig(train_file=str(train), test_file=str(test))
    with pytest.raises(UserError, match=r"no training row has \('X'\); --fold_labels takes other spellings"):
        data.load(run, Classification())
    write(test, ["X", "z"])
    with pytest.raises(UserError, match="add training rows of it or remove it"):
        data.load(run, Classification())


def test_of_many_classes_the_largest_and_the_rarest_are_shown(capsys):
    """Each line of the block fits a terminal of 80 columns, Korean names included, which take two columns a letter."""
    labels = [f"c{i:02}" for i in range(1, 31) for _ in range(i)] + ["아주 긴 이름을 가진 분류의 이름이다"] * 31
    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(len(labels))], "label": labels})
    task = Classification().learn({"train": rows})
    few = rows.select([0, len(rows) - 1])
    features = Dataset.from_dict({"length": [5] * len(rows)})
    found = Data({"train": Split(rows, features), "test": Split(few)}, "x.csv", "local", notes=["word " * 40])
    overview.show(Experiment(RunConfig(), task, None, None, found, None, None, Accelerator()))
    lines = capsys.readouterr().out.splitlines()
    table = [line.rsplit(maxsplit=2) for line in lines[3:16]]
    assert [line[0].strip() for line in table[1:]] == [
        "아주 긴 이름을 가진 분류의 이름이다", "c30", "c29", "c28", "c27", "(21 more classes)", "c05", "c04", "c03",
        "c02", "c01", "repeating a training row",
    ]  # fmt: skip
    assert table[0] == ["  rows", "496", "2"] and table[1][1:] == ["31", "1"]
    assert table[6][1:] == [str(sum(range(6, 27))), "0"] and table[11][1:] == ["1", "1"]
    columns = [sum(2 if "가" <= letter <= "힣" else 1 for letter in line) for line in lines]
    assert max(columns) <= 80 and len(set(columns[2:16])) == 1, "the columns stand below each other"


@pytest.fixture
def loaded(tmp_path, checkpoint_folders):
    """A run of 12 training rows, 2 blank ones, and 4 test rows of which one is a training row and one is long."""
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(12)]
    files = {
        "train": [*rows, {"text": " ", "label": "a"}, {"text": "", "label": "b"}],
        "validation": [{"text": f"other {i}", "label": "ab"[i % 2]} for i in range(6)],
        "test": [rows[3], *({"text": "long " * n, "label": "a"} for n in (1, 2, 200))],
    }
    for name, part in files.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    run = RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), check=True,
        **{f"{name}_file": str(tmp_path / f"{name}.jsonl") for name in files},
    )  # fmt: skip
    task = Classification(max_length=64, doc_stride=16)
    rows, task = data.load(run, task)
    model, tokenizer, _ = base_model.load(run, task)
    data.encode(rows, task, tokenizer, model)
    return run, task, rows, model, tokenizer


def test_a_check_shows_classes_blank_rows_windows_and_rows_in_two_splits(loaded, capsys):
    run, task, rows, model, tokenizer = loaded
    with pytest.raises(Checked) as checked:
        accelerator = launch.start(run)
        training.train(Experiment(run, task, FineTune(), None, rows, model, tokenizer, accelerator))
    facts = json.loads(json.dumps(checked.value.facts))
    assert facts["rows"] == {"train": 12, "validation": 6, "test": 4}
    assert facts["classes"] == {"train": {"a": 6, "b": 6}, "validation": {"a": 3, "b": 3}, "test": {"a": 3, "b": 1}}
    assert facts["also_in_training"] == {"train": 0, "validation": 0, "test": 1}
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    lengths = sorted(rows.splits["train"].encoded["length"])
    assert facts["tokens"] == {"0.5": lengths[len(lengths) // 2], "0.95": lengths[-1], "1": lengths[-1]}
    place = lines.index("data: train.jsonl, validation.jsonl, test.jsonl")
    assert lines[place + 1 : place + 9] == [
        "train validation test",
        "rows 12 6 4",
        "a 6 3 3",
        "b 6 3 1",
        "repeating a training row 0 0 1",
        f"tokens of a training input: half have up to {lengths[len(lengths) // 2]}, 95 % up to {lengths[-1]}, the "
        f"longest {lengths[-1]}",
        "note: 2 of 14 rows of the train split were blank and left out",
        "note: In the test split, overlapping windows were needed to read 1 row whole",
    ]
    assert f"training: fine-tuning of {run.model}," in " ".join(lines)


def test_advice_is_given_where_there_is_some_and_once(capsys):
    def said(accelerator, frozen):
        experiment = Experiment(RunConfig(), QuestionAnswering(), None, None, None, None, None, accelerator)
        overview.give_advice(experiment, frozen)
        return " ".join(capsys.readouterr().out.split())

    assert said(Accelerator(), frozen=True).startswith("note: frozen vectors hardly tell which words answer")
    assert not said(Accelerator(), frozen=False), "for training there is none"
    assert not said(SimpleNamespace(is_main_process=False), frozen=True), "another process has said it"


@pytest.mark.parametrize("kind", ["same", "link", "copy"])
def test_a_test_file_that_is_the_training_file_is_a_warning(tmp_path, capsys, kind):
    train = write(tmp_path / "train.jsonl", ["a", "b"] * 20)
    test = train if kind == "same" else tmp_path / "test.jsonl"
    if kind == "link":
        test.symlink_to(train)
    elif kind == "copy":
        test.write_bytes(train.read_bytes())
    run = RunConfig(train_file=str(train), test_file=str(test))
    rows, task = data.load(run, Classification())  # 4 of 40 rows are held out
    rows.splits["train"].encoded = Dataset.from_dict({"length": [5] * 36})
    overview.show(Experiment(run, task, None, None, rows, None, None, Accelerator()))
    shown = " ".join(capsys.readouterr().out.split())
    assert (
        "warning: 36 of the 40 test rows are training rows too" in shown and "give other rows with --test_file" in shown
    )
    assert shown.count("warning: ") == 1


def test_a_run_with_folded_labels_is_measured_on_rows_of_other_spellings(tmp_path, checkpoint_folders, load_back_here):
    """In the rows to measure on, another spelling than the model's is the most frequent one."""
    train = write(tmp_path / "train.jsonl", ["Yes", "no", "Yes", "NO", "no", "yes"] * 2)
    test = write(tmp_path / "test.jsonl", ["yes", "NO", "yes", "NO", "Yes", "no"], "other")
    task = Classification(fold_labels=True, max_length=64, doc_stride=16)
    files = {"train_file": str(train), "validation_file": str(train), "test_file": str(test)}
    run = RunConfig(output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), max_steps=1, **files)
    accelerator = launch.start(run)
    rows, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(rows, task, tokenizer, model)
    experiment = Experiment(run, task, FineTune(), base, rows, model, tokenizer, accelerator)
    history = training.train(experiment)
    score = training.evaluate(experiment, history.decision, split="test")
    finish.finish(experiment, history, score)
    assert model.config.id2label == {0: "Yes", 1: "no"}
    lines = row_predictions.read(tmp_path / "run")
    wrong = {line["text"] for line in lines if line["expected"] != line["predicted"]}
    assert wrong == {row["text"] for row in RunRecord.load(tmp_path / "run").mistakes} and 0 < len(wrong) < len(lines)
    report = evaluation.remeasure(tmp_path / "run", test_file=str(test))
    assert report["same_rows"] and all(metric["holds"] for metric in report["metrics"])


@pytest.mark.parametrize(
    ("given", "labels", "named", "recorded"),
    [
        ("no,yes", [1, 0, 1], ["yes", "no", "yes"], "0=no,1=yes"),
        ("no,yes", ["01", "1", "0"], ["yes", "yes", "no"], "0=no,1=yes"),
        (" no , yes ", ["10", "9", "10"], ["yes", "no", "yes"], "9=no,10=yes"),
        ("low,mid,high", [-1, 1, 0], ["low", "high", "mid"], "-1=low,0=mid,1=high"),
        ("1=yes,0=no", [1, 0], ["yes", "no"], "0=no,1=yes"),
        ("2=no,5=yes,7=never", [5, 2], ["yes", "no"], "2=no,5=yes,7=never"),
        ("red,green", [[0, 1], [], [1]], [["red", "green"], [], ["green"]], "0=red,1=green"),
    ],
)
def test_numbers_are_named_in_their_order(given, labels, named, recorded):
    task = Classification(label_names=given)
    rows = task.check(Dataset.from_list([{"text": "a", "label": label} for label in labels]))
    assert rows["label"][:] == named and task.label_names == recorded


def test_names_are_the_published_ones_and_a_split_may_lack_a_number(tmp_path):
    """By rank, the test rows' only number would be the first name."""
    train, test = write(tmp_path / "train.jsonl", [2, 1] * 9), write(tmp_path / "test.jsonl", [2, 2])
    task = Classification(label_names="zebra,ant")
    rows, task = data.load(RunConfig(train_file=str(train), test_file=str(test)), task)
    assert task.config_for("bert")["id2label"] == {0: "zebra", 1: "ant"}
    assert rows.splits["test"].rows["label"][:] == ["ant", "ant"]
    again = Classification(label_names=task.label_names)  # as it is recorded
    other = again.check(Dataset.from_list([{"text": "a", "label": "2"}, {"text": "b", "label": "zebra"}]))
    assert other["label"][:] == ["ant", "zebra"]


def test_a_measured_model_reads_numbers_names_and_other_words():
    """As `tl-hub verify` does: numbers by the run's --label_names, its names as they are, the rest by --label_map."""
    task = Classification(label_names="0=no,1=yes")
    task = task.recall(BertConfig(id2label={0: "no", 1: "yes"}), {}, {"nope": "no"})
    rows = task.check(Dataset.from_dict({"text": list("abcd"), "label": ["1", "yes", "nope", "0"]}))
    task = task.learn({"test": rows})
    assert rows["label"][:] == ["yes", "yes", "no", "no"] and task.labels == ["no", "yes"]


@pytest.mark.parametrize(
    ("given", "labels", "says"),
    [
        ("no,yes", [0, 1, 2], r"2 names \(no, yes\), and label holds 3 numbers \(0, 1, 2\); give one name for each"),
        ("a,b,c", [0, 1], r"3 names \(a, b, c\), and label holds 2 numbers"),
        ("no,yes", ["good", "bad"], "for whole numbers, and label holds 'good'; omit it"),
        ("0=no,1=yes", [0, 3], "holds 3, for which --label_names has no name"),
        ("no,,yes", [0, 1], "give each class one name"),
        ("no,no", [0, 1], "give each class one name"),
        ("0=no,yes", [0, 1], "give each class one name"),
        ("0=no,0=yes", [0, 1], "give each class one name"),
    ],
)
def test_names_that_do_not_fit_are_refused(given, labels, says):
    with pytest.raises(UserError, match=says):
        Classification(label_names=given).check(Dataset.from_list([{"text": "a", "label": label} for label in labels]))


def named_by_rows(pairs, **settings):
    task = Classification(label_name_column="label_text", **settings)
    rows = [{"text": "a", "label": label, "label_text": name} for label, name in pairs]
    return task, task.check(Dataset.from_list(rows))


def test_another_column_names_the_numbers_in_their_order(tmp_path):
    """A test split may lack some, and its own rows need not say all names."""
    lines = [f"text {i}\t{number}\t{name}" for i, (number, name) in enumerate([(10, "ant"), (2, "zebra, old")] * 9)]
    train, test = tmp_path / "train.tsv", tmp_path / "test.tsv"
    train.write_text("\n".join(["text\tlabel\tlabel_text", *lines]))
    test.write_text("text\tlabel\tlabel_text\nx\t10\t\ny\t10\tant\n")
    task = Classification(label_name_column="label_text")
    rows, task = data.load(RunConfig(train_file=str(train), test_file=str(test)), task)
    assert task.config_for("bert")["id2label"] == {0: "zebra, old", 1: "ant"}
    assert rows.splits["test"].rows["label"][:] == ["ant", "ant"]
    assert not any("are numbers" in remark for remark in task.remarks())


@pytest.mark.parametrize(
    ("pairs", "says"),
    [
        ([(0, "no"), (1, "yes"), (0, "nein")], "row 2: label_text names 0 'nein', and 'no' in an earlier row"),
        ([(0, "no"), (1, "yes"), (2, "no")], "row 2: label_text names 2 'no', as it does 0 in an earlier row"),
        ([(0, "no"), (1, None)], "no row with label 1 has a name in label_text"),
        ([("good", "no"), ("bad", "yes")], "row 0: --label_name_column is for .* whole numbers, and label is 'good'"),
        (
            [([0, 1], "no"), ([1], "yes")],
            r"row 0: --label_name_column is for .* whole numbers, and label is \['0', '1'",
        ),
    ],
)
def test_a_column_of_names_that_contradicts_itself_is_refused(pairs, says):
    with pytest.raises(UserError, match=says):
        named_by_rows(pairs)


def test_splits_agree_on_the_names_of_numbers():
    task, _ = named_by_rows([(0, "no"), (1, "yes")])
    with pytest.raises(UserError, match="row 0: label_text names 1 'ja'"):
        task.check(Dataset.from_list([{"text": "a", "label": 1, "label_text": "ja"}]))


@pytest.mark.parametrize("other", [{"label_names": "no,yes"}, {"label_separator": ";"}, {"regression": True}])
def test_a_column_of_names_and_what_excludes_it(other):
    with pytest.raises(UserError, match=rf"label_name_column.*{next(iter(other))}"):
        Classification(label_name_column="label_text", **other)


def test_rows_to_measure_on_need_no_column_of_names():
    task = Classification(label_name_column="label_text")
    task = task.recall(BertConfig(id2label={0: "no", 1: "yes"}), {})
    assert task.check(Dataset.from_dict({"text": ["a"], "label": ["yes"]}))["label"][:] == ["yes"]
    both = {"text": ["a", "b"], "label": [1, 0], "label_text": ["yes", "no"]}
    assert task.check(Dataset.from_dict(both))["label"][:] == ["yes", "no"]


def test_classes_without_names_are_announced(tmp_path):
    file = write(tmp_path / "rows.jsonl", [0, 1] * 4)
    for names, said in ((None, 1), ("no,yes", 0)):
        run = RunConfig(train_file=str(file), validation_file=str(file))
        _, task = data.load(run, Classification(label_names=names))
        assert sum("--label_names" in remark for remark in task.remarks()) == said


def test_a_column_of_ids_is_refused_with_those_that_may_hold_the_classes(tmp_path):
    rows = [
        {
            "text": f"Soup {i}.",
            "label": f"r{i:03}",
            "when": f"day {i}",
            "mood": "good" if i % 3 else "bad",
            "stars": i % 5,
        }
        for i in range(60)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = RunConfig(train_file=str(path))
    with pytest.raises(UserError) as refused:
        data.load(run, Classification())
    said = str(refused.value)
    assert "as ids have" in said and "mood (2 values, such as 'bad'); stars (5 values, such as 0)" in said, said
    assert "when" not in said
    assert data.load(run, Classification(label_column="mood"))[1].labels == ["bad", "good"]


def test_a_class_that_is_misspelt_among_the_names_is_pointed_out():
    rows = Dataset.from_list([{"text": "a", "label": label} for label in ("0", "positve")])
    with pytest.raises(UserError, match="holds 'positve'; did you mean 'positive'"):
        Classification(label_names="negative,positive").check(rows)
