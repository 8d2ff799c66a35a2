"""A model measured on other rows than its own: the figures against answers counted by hand, and what is published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

import tl_hub
from tl_hub import data, evaluation, overlap
from tl_hub.card import rules
from tl_hub.config import RunConfig
from tl_hub.domain_sources import Source, sources
from tl_hub.errors import UserError
from tl_hub.metrics import difference_interval, wilson_interval
from tl_hub.record import RunRecord
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.token_classification import TokenClassification

WORDS = {"good": "positive", "bad": "negative"}


def rows(subject: str, count: int, flipped: int = 0) -> list[dict[str, str]]:
    """Rows about a subject; of the first `flipped` the label is wrong."""
    made = []
    for i in range(count):
        word = ("good", "bad")[i % 2]
        label = WORDS[word if i >= flipped else ("bad" if word == "good" else "good")]
        made.append({"text": f"the {subject} was {word} {i}", "label": label})
    return made


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_domains_are_named_in_one_flag(tmp_path: Path) -> None:
    (tmp_path / "k=v.csv").touch()
    found = sources(f"a.csv, tweets=b c.csv text_column=q encoding=cp949,owner/name,{tmp_path}/k=v.csv")
    assert found == [
        Source("", "a.csv", {}),
        Source("tweets", "b c.csv", {"text_column": "q", "encoding": "cp949"}),
        Source("", "owner/name", {}),
        Source("", f"{tmp_path}/k=v.csv", {}),
    ]
    assert sources("") == []
    for wrong in ("a.csv,", "=a.csv", " "):
        with pytest.raises(UserError, match="is not of the form NAME=DATA"):
            RunConfig(eval_on=wrong)


def test_the_interval_of_a_difference_is_the_published_one() -> None:
    """Newcombe 1998, table II, method 10, for 56 of 70 against 48 of 80."""
    one, other = [(hit / of, *wilson_interval(hit / of, of)) for hit, of in ((56, 70), (48, 80))]
    assert difference_interval(one, other) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_the_interval_of_a_difference_holds_the_truth_in_95_of_100() -> None:
    random, held = np.random.default_rng(0), []
    for _ in range(1000):
        shares = [(random.binomial(rows, p) / rows, rows) for p, rows in ((0.9, 200), (0.7, 60))]
        low, high = difference_interval(*((share, *wilson_interval(share, rows)) for share, rows in shares))
        held.append(low <= 0.2 <= high)
    assert 0.92 <= np.mean(held) <= 0.98


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    made = {"train": rows("soup", 40), "validation": rows("tea", 10), "test": rows("bread", 20, flipped=2)}
    return {f"{name}_file": str(write(tmp_path / f"{name}.jsonl", part)) for name, part in made.items()}


def refused(task: Any = None, **settings: Any) -> str:
    with pytest.raises(UserError) as raised:
        data.load(RunConfig(**settings), task or Classification())
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_rows_that_do_not_fit_are_refused_in_one_line(own, tmp_path):
    other = write(tmp_path / "other.jsonl", [*rows("phone", 4), {"text": "so so", "label": "neutral"}])
    assert "the other.jsonl rows have 1 class that no training row has ('neutral')" in refused(
        **own, eval_on=str(other)
    )
    assert "the gadgets rows have 1 class" in refused(**own, eval_on=f"gadgets={other}")
    write(other, [{"review": row["text"], "label": row["label"]} for row in rows("phone", 4)])
    message = refused(**own, eval_on=str(other))
    assert "test rows of other.jsonl: no column 'text' in the data, which has review, label" in message
    assert "title_column does not say how rows" in refused(**own, eval_on=f"{other} title_column=review")
    assert "text_pair_column does not say how" in refused(**own, eval_on=f"{other} text_pair_column=review")
    read, _ = data.load(RunConfig(**own, eval_on=f"{other} text_column=review", test_rows=3), Classification())
    assert [row["text"] for row in read.others[0].splits["test"].rows] == [f"the phone was {w} {i}" for i, w in
            enumerate(("good", "bad", "good"))]  # fmt: skip
    assert "no such file" in refused(**own, eval_on=str(tmp_path / "none.csv"))
    write(tmp_path / "folder" / "train.jsonl", rows("phone", 4))
    assert "folder has no test rows with answers" in refused(**own, eval_on=str(tmp_path / "folder"))
    write(tmp_path / "folder" / "test.jsonl", rows("phone", 4))
    twice = f"{own['test_file']},{tmp_path / 'folder' / 'test.jsonl'}"
    assert "test.jsonl cannot be told from other rows; give a name" in refused(**own, eval_on=twice)
    assert "test cannot be told from other rows" in refused(**own, eval_on=f"test={other} text_column=review")


def test_types_of_entities_must_be_known(tmp_path):
    """Other tasks check other domains too, each as it checks its own splits."""
    tagged = [{"tokens": ["Ann", "lives", "in", "Bonn"], "tags": ["B-person", "O", "O", "B-place"]}] * 12
    other = [{"tokens": ["Acme"], "tags": ["B-firm"]}]
    files = {name: str(write(tmp_path / f"{name}.jsonl", part)) for name, part in (("own", tagged), ("other", other))}
    message = refused(TokenClassification(), train_file=files["own"], eval_on=files["other"])
    assert "the other.jsonl rows have entities of type firm, which no training row has" in message


def test_a_name_is_numbered_as_in_training_and_copies_of_training_rows_are_counted(own, tmp_path):
    """A domain may lack classes and call them by name or number; its rows may be training rows."""
    numbers = {"positive": 1, "negative": 0}
    for name, path in own.items():
        lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
        write(tmp_path / f"{name}.jsonl", [{**line, "label": numbers[line["label"]]} for line in lines])
    files = {name: str(tmp_path / f"{name}.jsonl") for name in own}
    other = write(tmp_path / "other.jsonl", [rows("soup", 1)[0], *rows("phone", 6)[2::2]])
    task = Classification(label_names="0=negative,1=positive")
    found, learned = data.load(RunConfig(**files, eval_on=str(other)), task)
    assert learned.labels == ["negative", "positive"]
    assert found.others[0].splits["test"].rows["label"][:] == ["positive"] * 3
    overlap.count(found, learned)
    assert found.overlaps["train"] == 0 and found.others[0].overlaps == {"test": 1}


@pytest.mark.usefixtures("load_back_here")
def test_figures_of_other_domains_go_everywhere(recipe_here, checkpoint_folders, own, tmp_path):
    """By the model's own answers: the accuracy, its drop, and the places where both stand."""
    phones, chairs = rows("phone", 30, flipped=9), rows("chair", 24, flipped=12)
    write(tmp_path / "phones" / "test.jsonl", phones)
    write(tmp_path / "chairs" / "test.jsonl", [{"review": row["text"], "label": row["label"]} for row in chairs])
    where = f"{tmp_path}/phones/test.jsonl,chairs={tmp_path}/chairs text_column=review"
    run, flags = tmp_path / "run", ["--epochs", "2", "--batch_size", "8", "--learning_rate", "3e-3"]
    files = [word for name, path in own.items() for word in (f"--{name}", path)]
    model = ["--model", checkpoint_folders("bert"), "--output_dir", run]
    made = recipe_here("sentiment_finetune", *model, *flags, *files, "--eval_on", where)
    assert made.returncode == 0, made.stderr
    record, ask = RunRecord.load(run), tl_hub.pipeline(run)
    own_accuracy = record.metrics[0]
    for domain, expected in zip(record.domains, (phones, chairs), strict=True):
        found = domain.metrics[0]
        right = [answer["label"] == row["label"] for answer, row in
                 zip(ask(text=[row["text"] for row in expected]), expected, strict=True)]  # fmt: skip
        assert (found.name, found.rows) == ("accuracy", len(expected)) and found.value == 100 * np.mean(right)
        assert found.drop == pytest.approx(own_accuracy.value - found.value)
        assert found.drop_low < found.drop < found.drop_high
        assert [metric.name for metric in domain.metrics] == [metric.name for metric in record.metrics]
        error, ours = domain.metrics[2], record.metrics[2]
        assert error.name == "expected_calibration_error" and error.drop == pytest.approx(error.value - ours.value)
        assert f"on {domain.name}, {len(expected)} rows of another domain:" in made.stdout
    logged = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()[-2:]]
    assert [line["measured_on"] for line in logged] == ["test.jsonl", "chairs"]
    assert [domain.name for domain in record.domains] == ["test.jsonl", "chairs"]
    assert record.domains[1].written == {"text_column": "review"}
    results = ModelCard.load(run / "README.md").data.eval_results
    names = {result.dataset_name: result.metric_value for result in results if result.metric_type == "accuracy"}
    assert names.keys() == {"train.jsonl, validation.jsonl, test.jsonl", "test.jsonl", "chairs"}
    assert all(abs(names[domain.name] - domain.metrics[0].value) < 1 for domain in record.domains), "rounded"
    text = (run / "README.md").read_text()
    assert not [fault.text for fault in rules.judge(text) if "dataset" in fault.rule or fault.rule == "model-index"]
    assert "chairs=chairs text_column=review" in (record.command or "")
    assert "## Other domains" in text and 'rows under "Other domains"' in text
    assert str(tmp_path) not in text + (run / "run.json").read_text()


@pytest.mark.usefixtures("load_back_here")
def test_a_threshold_is_that_of_the_validation_rows_and_figures_are_measured_anew(
    recipe_here, checkpoint_folders, tmp_path, monkeypatch
):
    """Of a head on frozen vectors with several labels a row; verification finds the same figures, and a lie."""
    from tl_hub import samples

    several = {
        name: [{"text": row["text"], "label": [row["label"], "all"]} for row in part[:40]]
        for name, part in samples.load("sentiment").items()
    }
    for name, part in several.items():
        write(tmp_path / "own" / f"{name}.jsonl", part)
    there = [{"text": row["text"], "label": [row["label"], "all"]} for row in samples.load("sentiment-gadgets")["test"]]
    monkeypatch.setattr(samples, "load", lambda name: several if name == "own" else {"test": there[:30]})
    flags = [
        "--model",
        checkpoint_folders("bert"),
        "--layer",
        "1",
        "--pooling",
        "mean",
        "--output_dir",
        tmp_path / "run",
    ]
    made = recipe_here("sentiment_features", "--dataset", "sample:own", "--eval_on", "sample:gadgets", *flags)
    assert made.returncode == 0, made.stderr
    record, ask = RunRecord.load(tmp_path / "run"), tl_hub.pipeline(tmp_path / "run")
    answers = ask(text=[row["text"] for row in there[:30]])
    right = [sorted(answer["label"]) == sorted(row["label"]) for answer, row in zip(answers, there, strict=False)]
    by_name = {metric.name: metric for metric in record.domains[0].metrics}
    assert by_name["accuracy"].value == pytest.approx(100 * np.mean(right)) and "threshold" in record.decision
    report = evaluation.remeasure(tmp_path / "run")
    (domain,) = report["domains"]
    assert domain["name"] == "sample:gadgets" and domain["same_rows"] and all(m["holds"] for m in domain["metrics"])
    record.domains[0].metrics[0].value, record.domains[0].metrics[0].high = 100.5, 101.0
    record.domains[0].metrics[0].low = 100.0
    record.save(tmp_path / "run")
    (domain,) = evaluation.remeasure(tmp_path / "run")["domains"]
    assert domain["metrics"][0]["holds"] is False
