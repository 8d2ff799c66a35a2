"""`tl-hub compare` against the same runs one by one, and against what their files say."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics import CHRF

import tl_hub
from tests.test_sweep import same
from tests.test_training import interrupt_after, interrupting  # noqa: F401
from tl_hub import row_predictions, run_folder, samples, state_folders
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import RunRecord
from tl_hub.study import compare, entries, paired, pictures, runs


@pytest.fixture
def common(checkpoint_folders):
    return (
        "--model", str(checkpoint_folders("bert")), "--train_rows", "32", "--validation_rows", "24",
        "--test_rows", "30", "--epochs", "1", "--batch_size", "8", "--learning_rate", "3e-3",
        "--precision", "fp32", "--no_examples",
    )  # fmt: skip


def test_techniques_are_trained_once_and_beside_each_other(command, recipe_here, begun, tmp_path, common):
    """Interrupted, the same command goes on; runs that ended are not repeated; figures are those of their files."""
    place = tmp_path / "study"
    interrupt_after(RunConfig(output_dir=str(place / "sentiment_finetune")), 2)
    words = ("compare", "sentiment_features", "sentiment_finetune", *common, "--output_dir", place)
    ended = command(*words)
    assert ended.returncode == 130 and "the same command goes on" in ended.stderr, ended.stderr
    ended = command(*words, "--json")
    assert ended.returncode == 0, ended.stderr
    assert [(Path(words[0]).stem, "--resume" in words) for words in begun] == [
        ("sentiment_features", False), ("sentiment_finetune", False), ("sentiment_finetune", True)
    ]  # fmt: skip
    answer = json.loads(ended.stdout)
    said = ended.stderr.splitlines()
    assert said[0] == "run 1 of 1: sentiment_finetune" and said[1].startswith("  accuracy ") and len(said) == 3, said
    screen = (place / "sentiment_finetune.txt").read_text()
    assert "sentiment_finetune: fine-tuned for text-classification" in screen
    assert screen.count("data: sample:sentiment") == 2, "before and after the interrupt"
    assert answer == json.loads((place / "compare.json").read_text())
    assert json.loads(command(*words, "--json").stdout) == answer and len(begun) == 3, "nothing was left to train"

    assert recipe_here("sentiment_finetune", *common, "--output_dir", tmp_path / "alone").returncode == 0
    assert same(place / "sentiment_finetune", tmp_path / "alone")
    assert not (tmp_path / "alone" / run_folder.VALIDATION).exists()
    assert "--epochs" not in RunRecord.load(place / "sentiment_features").command, "which it would refuse"

    folders = {name: place / f"sentiment_{name}" for name in ("features", "finetune")}
    for run in answer["runs"]:
        record = RunRecord.load(folders[run["run"]])
        assert (run["value"], run["low"]) == (record.metrics[0].value, record.metrics[0].low)
        assert run["trainable_parameters"] == record.cost.trainable_parameters
        sent = {path for name in run_folder.PUBLISHED for path in folders[run["run"]].glob(name)}
        assert run["published_bytes"] == sum(path.stat().st_size for path in sent)
    for split, name in (("validation", run_folder.VALIDATION), ("test", run_folder.PREDICTIONS)):
        rows = {label: row_predictions.read(folder, name) for label, folder in folders.items()}
        assert len(rows["features"]) == {"validation": 24, "test": 30}[split]
        scores = {label: np.array([row["accuracy"] for row in lines]) for label, lines in rows.items()}
        if split == "validation":
            assert answer["best"] == max(folders, key=lambda label: scores[label].mean())
            texts = [row["text"] for row in samples.load("sentiment")["validation"][:24]]
            given = [answer["label"] for answer in tl_hub.pipeline(folders["finetune"])(text=texts)]
            assert [row["predicted"] for row in rows["finetune"]] == given
        ((label, found),) = answer["differences"][split].items()
        assert {label, answer["best"]} == {*folders}
        assert found["value"] == pytest.approx(scores[label].mean() - scores[answer["best"]].mean())
    text = command(*words).stdout
    assert max(map(len, text.partition("In ")[0].splitlines())) <= 80 and answer["advice"]["sentence"][:40] in text
    assert (place / "compare.png").read_bytes().startswith(b"\x89PNG")

    refused = command(*words, "--seed", "7")
    assert refused.returncode == 2 and "was made with other flags" in refused.stderr
    begun.clear()
    assert command(*words, "--overwrite", "--seed", "7").returncode == 0 and len(begun) == 2
    assert RunRecord.load(place / "sentiment_finetune").settings["seed"] == 7


def write_run(folder, test, validation=None, seconds=1.0, sha256="a" * 64, **facts):
    """A run folder as far as a comparison reads it. `test`: what each row scored."""
    folder.mkdir(parents=True)
    for name, scores in ((run_folder.PREDICTIONS, test), (run_folder.VALIDATION, validation)):
        if scores is not None:
            (folder / name).write_text("".join(json.dumps({"accuracy": float(score)}) + "\n" for score in scores))
    metric = {"name": "accuracy", "value": float(np.mean(test)), "split": "test", "rows": len(test), "unit": "%"}
    splits = {"test": {"rows": len(test), "sha256": sha256}, "validation": {"rows": 9, "sha256": "b" * 64}}
    record = {
        "name": folder.name, "kind": "adapter", "pipeline_tag": "text-classification", "auto_class": "A",
        "method": {"name": "LoRA"}, "data": {"id": "d", "source": "local", "splits": splits}, "metrics": [metric],
        "cost": {"training_seconds": seconds, "trainable_parameters": 10}, "license": "mit",
    }  # fmt: skip
    RunRecord.from_facts(record | facts).save(folder)
    return folder


def test_the_advice_is_the_cheapest_of_which_no_difference_to_the_best_is_shown(tmp_path):
    """By the validation rows; those that are reported choose none, and rule out what they show to be worse."""
    right = np.arange(100)
    best, near, far = (100.0 * (right < count) for count in (90, 88, 60))
    write_run(tmp_path / "slow", best, best, 100.0)
    write_run(tmp_path / "middle", far, near, 10.0)
    write_run(tmp_path / "quick", best, far, 1.0)

    def answer(*names, cost="seconds"):
        return compare.compared([compare.read(name, tmp_path / name) for name in names], cost)

    found = answer("quick", "middle", "slow")
    assert (found["best"], found["advice"]["run"], found["chosen_by"]) == ("slow", "slow", "validation")
    verdicts = {
        split: {run: each["verdict"] for run, each in these.items()} for split, these in found["differences"].items()
    }
    assert verdicts["validation"] == {"quick": "worse", "middle": "no difference shown"}
    assert verdicts["test"] == {"quick": "no difference shown", "middle": "worse"}
    assert found["advice"]["sentence"] == (
        "Take slow, with 1 min 40 s of training: it is the best on the 100 validation rows, and the cheapest of those "
        "that are not shown to be worse. middle is cheaper, but the test rows show it to be worse than slow."
    )
    assert "Each p is adjusted for 2 comparisons; the intervals are those of one." in found["notes"]
    write_run(tmp_path / "soon", best, near, 93.0)
    found = answer("soon", "slow")
    assert found["advice"]["run"] == "slow" and "rows, and soon would not save a tenth." in found["advice"]["sentence"]
    write_run(tmp_path / "even", best, near, 10.0)
    found = answer("even", "slow")
    assert found["advice"]["run"] == "even" and not any("adjusted" in note for note in found["notes"])
    assert f"up to {-paired.compare(near, best).low:.1f} points worse" in found["advice"]["sentence"]
    found = answer("quick", "slow")
    assert (
        found["advice"]["run"] == "slow" and "it is the best on the 100 validation rows." in found["advice"]["sentence"]
    )

    (tmp_path / "middle" / run_folder.VALIDATION).unlink()
    found = answer("quick", "middle", "slow")
    assert (found["chosen_by"], found["advice"]["run"]) == ("test", "quick")
    assert any("a little too good" in note for note in found["notes"])
    pictures.draw_costs(tmp_path / "it.png", found, {"quick": 1.0, "middle": None, "slow": 2.0}, "seconds")
    assert (tmp_path / "it.png").stat().st_size > 5000


def test_what_the_runs_were_measured_on_beside_their_own_rows_is_shown(tmp_path):
    def domain(value, drop, low, high):
        facts = {"name": "accuracy", "value": value, "low": value - 5, "high": value + 5, "split": "test", "rows": 40}
        other = {"name": "loss", "value": 1.0, "split": "test", "rows": 40}
        drops = {"unit": "%", "drop": drop, "drop_low": low, "drop_high": high}
        return [{"name": "tweets", "data": {"id": "t", "source": "local"}, "metrics": [other, facts | drops]}]

    write_run(tmp_path / "one", [100.0, 0.0] * 40, domains=domain(40.0, 10.0, -2.0, 22.0))
    write_run(tmp_path / "two", [100.0, 0.0] * 40, domains=domain(60.0, -10.0, -22.0, 2.0))
    write_run(tmp_path / "three", [100.0, 0.0] * 40)
    read = [compare.read(name, tmp_path / name) for name in ("one", "two", "three")]
    answer = compare.compared(read, "seconds")
    assert [(found["domain"], found["run"], found["rows"]) for found in answer["domains"]] == [
        ("tweets", "one", 40), ("tweets", "two", 40)
    ]  # fmt: skip
    text = compare.text_of(read, answer)
    assert "On 40 rows of tweets, compared with the run's own rows:" in text
    assert "  one  40.0 (35.0 to 45.0)       worse by 10.0 points (-2.0 to 22.0)" in text
    assert "  two  60.0 (55.0 to 65.0)       better by 10.0 points (-2.0 to 22.0)" in text


def test_errors_of_numbers_are_tested_by_their_squares(tmp_path):
    random = np.random.default_rng(0)
    truth = random.normal(size=50)
    for name, noise in (("good", 0.1), ("bad", 1.0)):
        predicted = truth + random.normal(0, noise, 50)
        rmse = float(np.sqrt(((predicted - truth) ** 2).mean()))
        metric = {"name": "rmse", "value": rmse, "split": "test", "rows": 50}
        write_run(tmp_path / name, [0.0] * 50, metrics=[metric])
        lines = [{"expected": t, "predicted": p} for t, p in zip(truth, predicted, strict=True)]
        (tmp_path / name / run_folder.PREDICTIONS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = compare.compared([compare.read(name, tmp_path / name) for name in ("bad", "good")], "seconds")
    assert (found["best"], found["tested_by"], found["higher_is_better"]) == ("good", "squared_error", False)
    assert found["differences"]["test"]["bad"]["verdict"] == "worse"
    assert found["differences"]["test"]["bad"]["value"] > 0.5


def test_translations_are_compared_by_their_chrf(tmp_path):
    truth = [f"Der Hund {i} läuft durch den Garten." for i in range(30)]
    given = {"good": truth[:20] + ["Der Hund läuft."] * 10, "bad": ["Ein Haus."] * 30}
    for name, texts in given.items():
        value = CHRF().corpus_score(texts, [truth]).score
        metric = {"name": "chrf", "value": value, "split": "test", "rows": 30, "unit": "%"}
        write_run(tmp_path / name, [0.0] * 30, [0.0] * 30, {"good": 9.0, "bad": 1.0}[name], metrics=[metric])
        lines = [json.dumps({"expected": t, "predicted": p}) + "\n" for t, p in zip(truth, texts, strict=True)]
        for file in (run_folder.PREDICTIONS, run_folder.VALIDATION):
            (tmp_path / name / file).write_text("".join(lines))
    read = [compare.read(name, tmp_path / name) for name in ("bad", "good")]
    answer = compare.compared(read, "seconds")
    assert (answer["best"], answer["tested_by"], answer["advice"]["run"]) == ("good", "chrf", "good")
    assert "it is the best on the 30 validation rows" in answer["advice"]["sentence"]
    found = answer["differences"]["test"]["bad"]
    assert found["verdict"] == "worse" and found["test"] == "paired bootstrap"
    assert found["value"] == pytest.approx(read[0].metric.value - read[1].metric.value)
    several = RunRecord.load(tmp_path / "good")
    several.metrics[0].value += 1.0  # as where rows have more references than the first
    several.save(tmp_path / "good")
    answer = compare.compared([compare.read(name, tmp_path / name) for name in ("bad", "good")], "seconds")
    assert answer["best"] is None and any("No difference is tested" in note for note in answer["notes"])


def test_runs_that_cannot_be_compared_are_refused_in_a_line(command, tmp_path):
    one = write_run(tmp_path / "one", [100.0, 0.0])
    other = write_run(tmp_path / "other", [100.0, 0.0], sha256="c" * 64)
    metric = {"name": "f1", "value": 1.0, "split": "test", "rows": 2}
    third = write_run(tmp_path / "third", [100.0, 0.0], metrics=[metric])
    bare = write_run(tmp_path / "bare", [100.0, 0.0])
    (bare / run_folder.PREDICTIONS).unlink()
    for words, says in [
        ((one, other), "one and other were measured on different test rows, by the SHA-256 in run.json"),
        ((one, third), "they have accuracy of the test rows and F1 of the test rows"),
        ((one, bare), "keeps no predictions.jsonl"),
        ((one,), "one technique; give two or more"),
        ((one, one), "is asked for twice"),
        ((one, bare, "--epochs", "3"), "runs are compared as they are"),
        ((one, bare, "--check"), "--check is for recipes"),
        (("sentiment", "mine.csv"), "there is no recipe 'mine.csv'"),
        (("sentiment", "--epoch", "3"), "unknown flag or value --epoch; did you mean --epochs?"),
        (("sentiment", "--rank", "many"), "argument --rank: invalid int value"),
        (("sentiment_features", "sentiment_features layer=mix", "--epochs", "3"), "--epochs has no effect with"),
        (("sentiment", "--push_to", "me/it"), "--push_to is not for a study"),
        (("sentiment_adapter rank", "sentiment_adapter"), "'rank' is not a setting; give such as rank=8"),
        (("sentiment_adapter method=lore", "sentiment_adapter"), "invalid choice: 'lore'"),
        (("sentiment", "--train_rows", "0"), "--train_rows is 0"),
        (("sentiment", "--model", "nowhere/at_all"), "nowhere/at_all"),
        (("sentiment", "--output_dir", tmp_path), "holds something else than a study"),
    ]:
        ended = command("compare", *words, *([] if tmp_path in words else ["--output_dir", tmp_path / "study"]))
        assert ended.returncode in (1, 2) and says in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
        assert not (tmp_path / "study").exists()


def test_a_flag_goes_to_the_recipes_that_it_has_an_effect_with():
    found = entries.of(
        ["sentiment", "sentiment_adapter method=ia3 learning_rate=0.01"],
        "--epochs 5 --rank 4 --layer 2 --no_examples --test_rows 9".split(),
    )
    assert [entry.label for entry in found] == [
        "features",
        "adapter",
        "finetune",
        "adapter method=ia3 learning_rate=0.01",
    ]
    assert [" ".join(entry.words) for entry in found] == [
        "--layer 2 --no_examples --test_rows 9",
        "--epochs 5 --rank 4 --no_examples --test_rows 9",
        "--epochs 5 --no_examples --test_rows 9",
        "--epochs 5 --no_examples --test_rows 9 --method ia3 --learning_rate 0.01",
    ]
    assert found[3].name == "sentiment_adapter,method=ia3,learning_rate=0.01"


def test_check_says_what_is_left_and_what_the_recipes_estimate(command, monkeypatch, tmp_path):
    asked = []

    def checked(study, job):
        asked.append(job.name)
        return {"seconds": 100.0 * len(asked), "memory_bytes": 2**30}

    monkeypatch.setattr(runs.Study, "checked", checked)
    words = ("compare", "sentiment_features", "sentiment_finetune", "--check", "--output_dir", tmp_path / "study")
    answer_ = json.loads(command(*words, "--json").stdout)
    assert answer_["seconds"] == 300 and asked == ["sentiment_features", "sentiment_finetune"]
    text = command(*words).stdout
    assert "sentiment_finetune  1 run left, at most about 7 minutes, 1.0 GiB" in text and "2 of 2 runs" in text
    assert not (tmp_path / "study").exists()


def test_the_recipes_own_checks_are_asked_one_after_another(checkpoint_folders, tmp_path, capsys):
    asked = ["sentiment_features", "sentiment_finetune precision=fp32", "sentiment_finetune precision=bf16"]
    found = entries.of(asked, ["--model", str(checkpoint_folders("bert")), "--train_rows", "16"])
    study = runs.Study(tmp_path / "study", False)
    facts = [study.checked(runs.Job(entry.name, entry)) for entry in found]
    assert all(each["seconds"] > 0 for each in facts) and [each.get("steps", 0) > 0 for each in facts] == [0, 1, 1]
    assert capsys.readouterr().out == "" and sys.argv[0] != str(found[0].recipe)
    wrong = runs.Job("x", entries.of(["sentiment_features"], ["--train_file", "none.csv"])[0])
    with pytest.raises(UserError, match=r"^none.csv: no such file$"):
        study.checked(wrong)


@pytest.fixture
def heeds_interrupts() -> Iterator[None]:
    """Also where what started the tests in the background had it ignore them."""
    own = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, own)


@pytest.mark.slow
@pytest.mark.usefixtures("heeds_interrupts")
def test_an_interrupt_waits_for_the_run_to_save_its_state(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import os, pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGINT, lambda *_: None)\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "time.sleep(0.6)\n"
        "pathlib.Path(sys.argv[1]).write_text('saved')\n"
    )
    assert runs.in_a_process([str(script), str(tmp_path / "state")], sys.stdout) == 130
    assert (tmp_path / "state").read_text() == "saved"
    script.write_text("import sys; print('out'); sys.exit(3)")
    with open(tmp_path / "out", "w") as out:
        assert runs.in_a_process([str(script)], out) == 3
    assert (tmp_path / "out").read_text() == "out\n"
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL and os.getpid()


def test_a_run_that_was_killed_in_its_first_save_begins_anew(tmp_path):
    study, job = runs.Study(tmp_path, overwrite=False), runs.Job("a", entries.Entry("a", "a", None))
    study.commands["a"] = []
    for sealed in (False, True):
        state = tmp_path / "a" / "checkpoint.new"
        state.mkdir(parents=True)
        (state / "history.json").write_text("{}")
        if sealed:
            state_folders.seal(state)
        assert study._place(job)[2:] == ["--resume"] * sealed
        assert state.exists() == sealed
