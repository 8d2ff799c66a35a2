"""The tl-hub command: quick to start, one line for a mistake, JSON for scripts, and a folder that is checked."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import tl_hub
from tests.hub_server.server import File, Repo
from tests.publishing.runs import COMMAND
from tl_hub import command as command_module
from tl_hub import evaluation, verification
from tl_hub.card.page import write_page
from tl_hub.errors import UserError
from tl_hub.loops import RunFolder
from tl_hub.probe import write_probe
from tl_hub.record import DataFacts, Metric, RunRecord

ROOT = Path(__file__).parent.parent
RECORD = {
    "name": "mine",
    "kind": "fine-tuned",
    "pipeline_tag": "text-classification",
    "auto_class": "AutoModelForSequenceClassification",
    "method": {"name": "fine-tuning"},
    "license": "mit",
    "data": {"id": "rows.csv", "source": "local"},
    "metrics": [{"name": "accuracy", "value": 81.25, "split": "test", "rows": 100}],
}


@pytest.fixture
def command(script_here: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`tl-hub` in this process."""
    return lambda *arguments: script_here("tl_hub/command.py", *arguments)


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "runs" / "mine"
    path.mkdir(parents=True)
    (path / "run.json").write_text(json.dumps(RECORD))
    return path


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["push", "--help"],
        ["compare", "--help"],
        ["curve", "--help"],
        ["list"],
        ["show", "mine"],
        ["show", "mine", "mine"],
        ["completion", "bash"],
    ],
)
def test_what_a_person_waits_for_imports_no_library_of_models_or_the_hub(folder, arguments):
    """Import sets, not seconds: each of these alone takes longer to load than the command may."""
    code = f"""
import sys
sys.argv = ["tl-hub", *{arguments!r}]
from tl_hub import command
try:
    command.main()
except SystemExit as end:
    assert not end.code, end.code
heavy = {{"torch", "transformers", "numpy", "huggingface_hub", "datasets", "jinja2", "httpx2", "yaml"}}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)})  # fmt: skip
    if arguments == ["list"]:
        assert "runs is not a folder" in done.stderr
    else:
        assert (done.returncode, done.stderr.strip()) == (0, "[]")


def test_list_and_show(command, folder):
    metrics = [*RECORD["metrics"], {"name": "macro_f1", "value": 79.5, "split": "test", "rows": 100}]
    (folder / "run.json").write_text(json.dumps(RECORD | {"metrics": metrics}))
    (folder.parent / "broken").mkdir()
    (folder.parent / "broken" / "run.json").write_text("{")
    heading, line, broken = command("list", folder.parent).stdout.splitlines()
    assert heading.split() == ["run", "kind", "task", "metric", "score", "seconds", "size", "date"]
    assert line.split() == [str(folder), "fine-tuned", "text-classification", "accuracy", "81.25"]
    assert "is not JSON" in broken
    run, broken = json.loads(command("list", folder.parent, "--json").stdout)
    assert broken["folder"] == str(folder.parent / "broken") and "is not JSON" in broken["error"]
    assert "is not JSON" in command("list", folder.parent / "broken").stdout
    assert run["folder"] == str(folder) and run["metrics"] == metrics
    assert json.loads(command("show", folder, "--json").stdout)["name"] == "mine"
    assert "accuracy" in command("show", folder).stdout


def test_several_runs_are_a_table_sorted_by_any_column(command, folder, tmp_path):
    """What is not known comes last, whichever way round."""
    first = folder.parent
    facts = {"a": (70.5, 9.0, 3_000_000), "b": (90.25, 100.0, 2_000_000), "c": (8.0, 20.0, 1_000_000)}
    for name, (score, seconds, size) in facts.items():
        (first / name).mkdir()
        metric = {"name": "f1", "value": score, "split": "test", "rows": 9}
        cost = {"training_seconds": seconds}
        record = RECORD | {
            "metrics": [metric],
            "cost": cost,
            "created": f"2026-01-0{len(name)}T10:0{size // 10**6}:00Z",
        }
        (first / name / "run.json").write_text(json.dumps(record))
        (first / name / "model.safetensors").write_bytes(bytes(size))
    for column, order in [
        ("run", ["a", "b", "c", "mine"]),
        ("score", ["b", "mine", "a", "c"]),
        ("seconds", ["b", "c", "a", "mine"]),
        ("size", ["a", "b", "c", "mine"]),
        ("date", ["a", "b", "c", "mine"]),
    ]:
        for words in ([first], [*map(first.joinpath, ("c", "mine", "b", "a"))]):
            rows = command("show", *words, "--sort", column).stdout.splitlines()[1:]
            assert [Path(row.split()[0]).name for row in rows] == order, column
    rows = command("list", first, "--sort", "seconds", "--reverse").stdout.splitlines()[1:]
    assert [Path(row.split()[0]).name for row in rows] == ["a", "c", "b", "mine"]
    assert rows[0].split()[4:8] == ["70.5", "9", "3.0", "MB"]
    wrong = command("show", first, "--sort", "loss")
    assert wrong.returncode == 2 and "choose from 'run'" in wrong.stderr


def test_a_page_shows_the_card_alone_and_runs_nothing_that_stands_in_it(command, folder):
    """Rows of data are on a card; what they say is text on the page too."""
    picture = b"\x89PNG\r\n\x1a\n..."
    (folder / "curves.png").write_bytes(picture)
    example = {"text": "<script>alert(1)</script> good", "expected": "yes", "predicted": "no"}
    (folder / "run.json").write_text(json.dumps(RECORD | {"examples": [example]}))
    done = command("card", folder, "--html", "--json")
    assert json.loads(done.stdout)["page"] == str(folder / "card.html")
    page = (folder / "card.html").read_text()
    assert "<title>mine</title>" in page and page.count("<h1>") == 1 and "<table>" in page and "81.25" in page
    assert "<script" not in page and "alert(1)" in page and "library_name" not in page and "tl_hub: Summary" not in page
    assert base64.b64encode(picture).decode() in page and 'src="curves.png"' not in page
    assert not re.findall(r'src="(?!data:)|<link|@import|url\(', page), "it loads nothing"


def test_html_that_somebody_wrote_into_the_card_is_text_on_the_page(tmp_path):
    """The card's own parts escape it; what stands between them is taken as it is."""
    (tmp_path / "README.md").write_text("# Mine\n\n<script>alert(1)</script>\n\nA <img src=x onerror=alert(2)> b\n")
    page = write_page(tmp_path).read_text()
    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;img src=x onerror=alert(2)&gt;" in page


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands_and_flags(command, shell):
    script = command("completion", shell).stdout
    assert all(word in script for word in ("push", "verify", "dry_run", "label_map", "completion"))
    if shutil.which(shell):
        assert subprocess.run([shell, "-n"], input=script, text=True, capture_output=True).stderr == ""
    if shell == "bash":
        asked = f"{script}\nCOMP_WORDS=(tl-hub show --so); COMP_CWORD=2; _shtab_tl_hub; echo ${{COMPREPLY[@]}}"
        assert subprocess.run(["bash", "-c", asked], text=True, capture_output=True).stdout.split() == ["--sort"]


def test_who_reads_the_first_lines_only_is_told_of_no_error(folder):
    """As `| head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "tl_hub.command", "show", folder], stdout=writing, stderr=subprocess.PIPE, timeout=600
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_mistake_is_one_line(command, folder, tmp_path):
    for arguments, says in [
        (["show", folder / "none"], "holds no run.json"),
        (["list", tmp_path / "none"], "is not a folder"),
        (["push", folder], "the following arguments are required: owner/name"),
        (["push", folder, "alice/x"], "there is no token to write to alice/x"),
        (["push", folder, "x"], "names no owner"),
        (["verify", folder, "--revision", "v1"], "--revision is for a repository"),
        (["verify", "a//b"], "neither a folder here nor a Hub id"),
        (["cache", "prune", "--days", "-1"], "--days is -1"),
    ]:
        done = command(*arguments)
        assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1, done


def test_rows_that_are_shown_can_be_taken_out_later(command, folder):
    """Before a push, say, which sends the card and the record."""
    example = {"text": "Call 555 0199", "expected": "a", "predicted": "b"}
    mistake = {"text": "Call 555 0200", "expected": "a", "predicted": "b", "probability": 0.99}
    (folder / "run.json").write_text(json.dumps(RECORD | {"examples": [example], "mistakes": [mistake]}))
    assert command("card", folder).returncode == 0
    shown = (folder / "README.md").read_text()
    assert "555 0199" in shown and "| Call 555 0200 | a | b | 0.99 |" in shown.partition("Mistakes it was surest of")[2]
    assert command("card", folder, "--no_examples").returncode == 0
    assert "555 0" not in (folder / "README.md").read_text() + (folder / "run.json").read_text()


@pytest.mark.usefixtures("load_back_here")
def test_card_push_and_verify_a_real_model(command, hub, run_script, folder, checkpoints, tmp_path):
    """Pushed and verified in processes of their own, as the Hub's client reads once where the Hub is."""
    model, tokenizer = checkpoints("bert", "AutoModelForSequenceClassification")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_probe(folder, model, dict(tokenizer("The Danube ends in the Black Sea.", return_tensors="pt")))
    assert command("card", folder, "--repo", "alice/mine-by-command").returncode == 0
    assert 'from_pretrained("alice/mine-by-command")' in (folder / "README.md").read_text()
    pushed = run_script(
        COMMAND, "push", folder, "alice/mine-by-command", "--tag", "v1", "--public", "--json", here="all"
    )
    answer = json.loads(pushed.stdout)
    assert answer["verification"]["max_difference"] == 0
    assert hub.model("alice/mine-by-command").refs["refs/tags/v1"] == answer["revision"]
    assert not hub.model("alice/mine-by-command").private
    checked = run_script(COMMAND, "verify", "alice/mine-by-command", "--revision", "v1", "--json", here="none")
    assert json.loads(checked.stdout)["loaded_by"] == ["transformers"], checked.stderr
    of_no_run = Repo("bob/of-no-run", "model", private=False)
    of_no_run.commit("refs/heads/main", {"config.json": File(b"{}")}, "by hand", "", "bob")
    hub.repos["model", of_no_run.id] = of_no_run
    for place, says in ((of_no_run.id, "was not published from a run folder"), (tmp_path, "holds no run.json")):
        refused = run_script(COMMAND, "verify", place, here="none")
        assert refused.returncode == 2 and says in refused.stderr and refused.stderr.count("\n") == 1, refused
    model.classifier.weight.data.mul_(2)
    model.save_pretrained(folder)
    broken = command("verify", folder)
    assert broken.returncode == 1 and "classifier.weight" in broken.stderr
    assert RunRecord.load(folder).name == "mine"


def test_a_check_is_that_of_the_recipe(command, checkpoint_folders, tmp_path):
    recipe = ROOT / "recipes" / "qa_adapter.py"
    flags = ["--model", checkpoint_folders("bert"), "--train_rows", 8, "--output_dir", tmp_path / "run"]
    done = command("check", "--json", recipe, *flags)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["check"].startswith("checked, nothing trained: 8 train, ")
    assert found["rows"]["train"] == 8 and found["steps"] > 0 and found["trainable_parameters"] > 0
    assert found["seconds"] > 0 and found["memory_bytes"] > 2**20
    features = command("check", "--json", ROOT / "recipes" / "sentiment_features.py", *flags, "--test_rows", 4,
                       "--validation_rows", 4, "--layer", "1", "--pooling", "mean")  # fmt: skip
    assert features.returncode == 0, features.stderr
    found = json.loads(features.stdout)
    assert found["cache_bytes"] == (8 + 4 + 4) * 32 * 2 and found["seconds"] > 0, "16 texts of one window, 32 wide"
    assert "MiB of the cache" in found["check"]
    spans = command("check", ROOT / "recipes" / "qa_features.py", *flags, "--json")
    assert json.loads(spans.stdout)["cache_bytes"] > 0, spans.stderr
    wrong = command("check", recipe, "--epoch", 3)
    assert wrong.returncode == 2 and wrong.stderr.startswith("error: unknown flag") and wrong.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("load_back_here")
def test_figures_are_measured_anew(command, recipe_here, checkpoint_folders, tmp_path):
    """A claim that is true holds, one that was raised by hand is found out; of other rows nothing was claimed."""
    rows = [{"text": f"it was {word} {i}", "label": word} for i in range(40) for word in ("good", "bad")]
    for name, part in (("train", rows[:60]), ("test", rows[60:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    files = ["--train_file", str(tmp_path / "train.jsonl"), "--test_file", str(tmp_path / "test.jsonl")]
    model, run = checkpoint_folders("bert"), tmp_path / "run"
    flags = ["--model", str(model), "--batch_size", "8", "--learning_rate", "1e-3", "--epochs", "1"]
    made = recipe_here("sentiment_finetune", *files, *flags, "--output_dir", str(run))
    assert made.returncode == 0, made.stderr

    done = command("verify", run, "--json", *files)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["same_rows"] is True
    assert {metric["name"] for metric in report["metrics"]} >= {"accuracy", "macro_f1"}
    assert all(metric["holds"] and metric["found"] == pytest.approx(metric["claimed"]) for metric in report["metrics"])

    refused = command("verify", run, "--metrics")
    assert refused.returncode == 2 and "give --test_file" in refused.stderr and refused.stderr.count("\n") == 1
    with pytest.raises(UserError, match="has training rows only, which are not measured; give --test_file"):
        evaluation.remeasure(run, train_file=files[1])
    assert evaluation.remeasure(run, test_file=files[3]) == {k: report[k] for k in ("same_rows", "metrics")}

    record = RunRecord.load(run)
    record.metrics[0].value, record.metrics[0].low, record.metrics[0].high = 101.0, 100.5, 101.5
    record.save(run)
    lied = command("verify", run, "--json", *files)
    assert lied.returncode == 1 and "accuracy 101 DOES NOT HOLD: found " in lied.stderr
    assert [metric["name"] for metric in json.loads(lied.stdout)["metrics"] if not metric["holds"]] == ["accuracy"]
    lower = RunRecord.load(run)
    lower.metrics[0].value, lower.metrics[0].low, lower.metrics[0].high = 1.0, 0.5, 1.5
    lower.save(run)
    (accuracy, *_) = evaluation.remeasure(run, test_file=files[3])["metrics"]
    assert accuracy["found"] > 1.5 and accuracy["holds"] is False, "nor does one that was too low"
    record.save(run)
    told = tl_hub.verify(run, train_file=files[1], test_file=files[3])
    assert told["same_rows"] and [metric["name"] for metric in told["metrics"] if not metric["holds"]] == ["accuracy"]

    other = [*files[:3], str(tmp_path / "train.jsonl")]
    elsewhere = command("verify", run, "--json", *other)
    assert elsewhere.returncode == 0, elsewhere.stderr
    report = json.loads(elsewhere.stdout)
    assert report["same_rows"] is False and {metric["holds"] for metric in report["metrics"]} == {None}
    predict, asked = tl_hub.pipeline(run), [row["text"] for row in rows[:60]]
    right = [answer["label"] == row["label"] for answer, row in zip(predict(text=asked), rows[:60], strict=True)]
    (accuracy,) = (metric for metric in report["metrics"] if metric["name"] == "accuracy")
    assert accuracy["found"] == pytest.approx(100 * sum(right) / 60)
    assert accuracy["low"] <= accuracy["found"] <= accuracy["high"]
    record.data.splits["validation"], record.metrics[0].split = record.data.splits.pop("test"), "validation"
    record.save(run)  # as of a run that had no test rows
    alone = command("verify", run, "--json", "--test_file", tmp_path / "train.jsonl")
    assert alone.returncode == 0, alone.stderr
    (again,) = json.loads(alone.stdout)["metrics"]
    assert again["found"] == accuracy["found"] and again["holds"] is None
    record.data.splits["test"], record.metrics[0].split = record.data.splits.pop("validation"), "test"
    record.save(run)
    said = command("verify", run, *other)
    assert f"accuracy {accuracy['found']:.4g} (" in said.stdout and " here, 101 on its own rows" in said.stdout


def test_what_the_cache_holds_is_listed_and_removed(checkpoint_folders, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path))

    def said(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["tl-hub", "cache", *arguments, "--json"])
        with pytest.raises(SystemExit) as end:
            command_module.main()
        assert end.value.code == 0
        return json.loads(capsys.readouterr().out)

    texts, labels = [f"it was {word} {i}" for i in range(8) for word in ("good", "bad")], ["good", "bad"] * 8
    tl_hub.FeatureClassifier(str(checkpoint_folders("bert")), layer="1", pooling="mean").fit(texts, labels)
    capsys.readouterr()
    (entry,) = said("ls")
    assert (entry["model_type"], entry["features"]) == ("bert", 16)
    assert entry["size"] == sum(file.stat().st_size for file in tmp_path.rglob("*.npy"))
    assert said("prune") == [] and said("prune", "--days", "0") == [entry] and said("ls") == []


def test_rows_of_others_have_columns_and_classes_of_other_names(checkpoint_folders, tmp_path, monkeypatch, capsys):
    """The expected accuracy is counted by hand: the labels are the model's own answers, but for one in every four."""
    names = {0: "negative", 1: "positive"}
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint_folders("bert"), id2label=names)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folders("bert"))
    texts = [f"The {word} is {i}, café" for i in range(4) for word in ("river", "road", "sea")]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        # Both classes are answers, and none of them hangs on the rounding of a sum.
        leads = model.eval()(**batch).logits.diff(dim=1)[:, 0].sort().values
        widest = int(leads.diff().argmax())
        model.classifier.bias[1] -= leads[widest : widest + 2].mean()
        answers = model(**batch).logits.argmax(1).tolist()
    assert set(answers) == {0, 1}
    short = [("neg", "pos")[answer if row % 4 else 1 - answer] for row, answer in enumerate(answers)]
    monkeypatch.setattr(verification, "check", lambda *_, **__: {"loaded_by": []})  # other tests load it back
    run = tmp_path / "run"
    claim = Metric(name="accuracy", value=75.0, split="test", rows=10)
    RunFolder(run, data=DataFacts(id="own", source="local"), license="mit").write(model, tokenizer, batch, [claim])
    other = tmp_path / "other.csv"
    lines = ["review,stars", *(f'"{text}",{label}' for text, label in zip(texts, short, strict=True))]
    other.write_text("\n".join(lines) + "\n", encoding="cp1252")

    def said(*flags: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["tl-hub", "verify", str(run), "--test_file", str(other), *flags])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            command_module.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out or err

    flags: tuple[str, ...] = ()
    for advice, flag in [
        ("line 2 is not UTF-8 (byte 0xe9); give the file's encoding with --encoding", ("--encoding", "cp1252")),
        ("no column 'text' in the data, which has review, stars; name the right one with --text_column",
         ("--text_column", "review")),
        ("no column 'label' in the data, which has review, stars; name the right one with --label_column",
         ("--label_column", "stars")),
        ("the rows have the classes neg, pos, the model negative, positive; name the model's class for 'neg', 'pos' "
         "with --label_map, such as neg=negative", ("--label_map", "neg=negative, pos=positive")),
    ]:  # fmt: skip
        code, text = said(*flags)
        assert code == 2 and advice in text and text.count("\n") == 1, text
        flags += flag
    code, text = said(*flags, "--json")
    (accuracy,) = json.loads(text)["metrics"]
    assert code == 0 and accuracy["found"] == pytest.approx(100 * 9 / 12), "rows 0, 4 and 8 of 12 were turned round"

    written = flags[:-2]
    for wrong, advice in [
        (("--label_map", "neg=bad,pos=positive"), "--label_map neg=bad: the model's classes are negative, positive"),
        (("--label_map", "neg=negative"), "name the model's class for 'pos' with --label_map"),
        (("--label_map", "neg=negatve,pos=positive"), "negative, positive; did you mean 'negative'?"),
        (("--label_map", "nge=negative,pos=positive"), "no row has the label 'nge'; did you mean 'neg'?"),
        (("--text_column", "reviw"), "the right one with --text_column; did you mean 'review'?"),
        (("--label_map", "neg"), "'neg' has no class; give pairs such as neg=negative,pos=positive"),
        (("--question_column", "review"), "--question_column is not for text-classification, whose rows are read with"),
        (("--text_pair_column", "review"), "this one reads single texts; omit it"),
        (("--label_separator", ";"), "the rows have lists of classes each, and the model gives one class"),
    ]:
        code, text = said(*written, *wrong)
        assert code == 2 and advice in text and text.count("\n") == 1, text

    other.write_text("review,stars\n" + f'"{texts[1]}",{"NEGATIVE Positive".split()[answers[1]]}\n', "cp1252")
    code, text = said(*written)
    assert code == 2 and "--fold_labels takes other spellings for one class" in text
    _, text = said(*written, "--fold_labels", "--json")
    assert json.loads(text)["metrics"][0]["found"] == 100, "a file of one class is measured too"


def test_help_shows_every_flag_by_which_rows_are_read(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tl-hub", "verify", "--help"])
    with pytest.raises(SystemExit):
        command_module.main()
    said = capsys.readouterr().out
    for flag in ("text_column", "label_separator", "context_column", "summary_column", "target_column", "encoding"):
        assert f"--{flag} " in said
