"""`tl-hub labels` against labels that were made wrong on purpose, and its rule against brute force."""

import csv
import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tl_hub import data, samples
from tl_hub.config import RunConfig
from tl_hub.study.labels import doubts_of
from tl_hub.tasks.classification import DocumentClassification


def test_a_label_is_doubted_as_confident_learning_says():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1, 1, 1, 1], 200)
    labels = random.integers(0, 3, 200)  # no row has the last class
    found = doubts_of(probabilities, np.eye(4, dtype=bool)[labels], multi_label=False)
    sure = [probabilities[labels == j, j].mean() if j < 3 else np.inf for j in range(4)]
    for p, label, own, suggested, wrong in zip(
        probabilities, labels, found.own, found.suggested, found.wrong, strict=True
    ):
        candidates = [j for j in range(4) if p[j] >= sure[j]]
        likeliest = max(candidates, key=lambda j: p[j], default=label)
        assert own == p[label]
        assert wrong == (likeliest != label and p[likeliest] > p[label])
        if wrong:
            assert np.flatnonzero(suggested).tolist() == [likeliest]
    assert 10 < found.wrong.sum() < 190


def test_with_several_labels_each_is_judged_as_yes_or_no():
    probabilities = np.array([[0.9, 0.8], [0.9, 0.1], [0.05, 0.1], [0.1, 0.9]])
    targets = np.array([[True, False], [True, False], [True, False], [False, True]])
    found = doubts_of(probabilities, targets, multi_label=True)
    assert found.own == pytest.approx([0.2, 0.9, 0.05, 0.9])
    # The first lacks the second label, of which the only row that has it is as sure as 0.9: not doubted.
    assert found.wrong.tolist() == [False, False, True, False]
    assert found.suggested[2].tolist() == [False, False]


@pytest.mark.slow
def test_labels_that_were_made_wrong_come_first_and_the_corrected_file_trains(command, tmp_path, monkeypatch):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    random, rows = np.random.default_rng(0), samples.load("documents")["train"][:160]
    classes = sorted({row["label"] for row in rows})
    flipped = set(random.choice(len(rows), 16, replace=False).tolist())
    wrong = [
        {**row, "label": random.choice([c for c in classes if c != row["label"]])} if i in flipped else row
        for i, row in enumerate(rows)
    ]
    for name, part in (("train", wrong), ("validation", rows[:12])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    ended = command(
        "labels", "document_classification", "--json", "--train_file", tmp_path / "train.jsonl",
        "--validation_file", tmp_path / "validation.jsonl", "--output_dir", tmp_path / "labels",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    with open(tmp_path / "labels" / "train.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    numbers, doubt = [int(line["row"]) for line in lines], [float(line["doubt"]) for line in lines]
    assert sorted(numbers) == list(range(len(rows))) and doubt == sorted(doubt, reverse=True)
    assert roc_auc_score([number in flipped for number in numbers], doubt) >= 0.95
    marked = {int(line["row"]) for line in lines if line["suggested"]}
    assert answer["splits"]["train"] == {
        "rows": 160, "wrong": len(marked), "file": str(tmp_path / "labels" / "train.csv"),
    }  # fmt: skip
    assert len(marked & flipped) >= 8 and len(marked - flipped) <= 6
    right = sum(line["suggested"] == rows[int(line["row"])]["label"] for line in lines if int(line["row"]) in flipped)
    assert right >= 8

    again = command("labels", "document_classification", "--output_dir", tmp_path / "labels")
    assert again.returncode == 2 and "may hold corrections; give another --output_dir" in again.stderr
    with open(tmp_path / "corrected.csv", "w", newline="") as file:  # as a person would
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(line | {"label": rows[int(line["row"])]["label"]} for line in lines)
    run = RunConfig(train_file=str(tmp_path / "corrected.csv"), validation_file=str(tmp_path / "validation.jsonl"))
    read = data.load(run, DocumentClassification())[0].splits["train"].rows
    assert {(row["text"], row["label"]) for row in read} == {(row["text"], row["label"]) for row in rows}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("summarization",), "labels of extractive-summarization are not classes"),
        (("translation",), "translation gives no classes to texts"),
        (("sentiment", "--head", "mlp"), "--head mlp: labels are judged by ridge regression; omit it"),
        (("sentiment", "--train_file", "{numbers}"), "the labels are numbers"),
        (("sentiment", "--text_column", "doubt"), "column 'doubt' would be lost"),
    ],
)
def test_what_has_no_labels_to_judge_is_refused(command, tmp_path, words, why):
    lines = [json.dumps({"text": f"number {i}", "label": i + 0.5}) + "\n" for i in range(20)]
    (tmp_path / "numbers.jsonl").write_text("".join(lines))
    given = (word.format(numbers=tmp_path / "numbers.jsonl") for word in words)
    ended = command("labels", *given, "--output_dir", tmp_path / "labels")
    assert ended.returncode == 2 and why in ended.stderr and len(ended.stderr.strip().splitlines()) == 1
