"""`tl-hub verify --retrain`: a run is trained again from its record, of which nothing else is done."""

import json
import runpy
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import tl_hub
from tl_hub import retraining, settings_file
from tl_hub.errors import RunStopped, UserError
from tl_hub.record import BaseModel, DataFacts, RunRecord
from tl_hub.study import entries, runs

FOLDERS = Path(__file__).parent / "run_folders" / "v1"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def made(
    recipe_here: Any, load_back_here: None, checkpoint_folders: Any, place: Path, tmp_path: Path
) -> dict[str, Any]:
    """A finished run on files of its own, and all that `verify` must be given to train it again."""
    given = {"train_file": str(place / "train.jsonl"), "test_file": str(place / "test.jsonl")}
    if not (place / "run").exists():
        rows = [{"text": f"it was {word} {i}", "label": word} for i in range(40) for word in ("good", "bad")]
        for path, part in zip(given.values(), (rows[:60], rows[60:]), strict=True):
            Path(path).write_text("".join(json.dumps(row) + "\n" for row in part))
        files = [word for name, path in given.items() for word in (f"--{name}", path)]
        flags = ["--model", checkpoint_folders("bert"), "--batch_size", 8, "--learning_rate", "1e-3", "--epochs", 1]
        done = recipe_here("sentiment_finetune", *files, *flags, "--output_dir", place / "run")
        assert done.returncode == 0, done.stderr
    shutil.copytree(place / "run", tmp_path / "run")
    return {"run": tmp_path / "run", "base": str(checkpoint_folders("bert")), **given}


@pytest.fixture
def copied(made: dict[str, Any], place: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """As `begun`, where training gives what it gave before, as the test of it shows: the run before it was changed."""
    found: list[list[str]] = []

    def run(words: list[str], out: Any) -> int:
        found.append(words)
        shutil.copytree(place / "run", words[words.index("--output_dir") + 1])
        return 0

    monkeypatch.setattr(runs, "in_a_process", run)
    return found


@pytest.fixture
def retrain(script_here: Any, made: dict[str, Any]) -> Callable[..., Any]:
    """`tl-hub verify --retrain` of the run, with its rows and base but for what a test gives otherwise or as None."""

    def call(*words: str, **others: Any) -> Any:
        flags = {name: value for name, value in (made | others).items() if name != "run" and value}
        given = [word for name, value in flags.items() for word in (f"--{name}", value)]
        return script_here("tl_hub/command.py", "verify", made["run"], "--retrain", *given, *words)

    return call


def test_a_run_is_the_same_bit_for_bit(made: Any, begun: list[list[str]], retrain: Any, tmp_path: Path) -> None:
    answer = retrain("--json")
    assert answer.returncode == 0, answer.stderr
    assert "training run again, which took " in answer.stderr
    report = json.loads(answer.stdout)["retrained"]
    assert report["weights"] == {"tensors": len(load_file(made["run"] / "model.safetensors")), "differ": []}
    assert report["holds"] and report["differences"] == []
    record = RunRecord.load(made["run"])
    assert [metric["found"] for metric in report["metrics"]] == [metric.value for metric in record.metrics]
    (words,) = begun
    assert not Path(words[words.index("--output_dir") + 1]).parent.exists(), "the temporary folder is removed"

    (tmp_path / "other.jsonl").write_text(Path(made["train_file"]).read_text().replace("good 7", "good 8"))
    wrong = tmp_path / "another"
    shutil.copytree(made["base"], wrong)
    shutil.copy(made["run"] / "model.safetensors", wrong)
    for others, says in (
        ({"train_file": str(tmp_path / "other.jsonl")}, "the train rows of other.jsonl, test.jsonl are not those that"),
        ({"test_file": None}, "the test rows of train.jsonl are not those"),
        ({"train_file": None, "test_file": None}, "are in train.jsonl, test.jsonl; give --train_file"),
        ({"base": None}, "started from a model in a folder bert; give it as --base FOLDER"),
        ({"base": str(wrong)}, "has other weights than what run started from"),
    ):
        refused = retrain(**others)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1) and says in refused.stderr, refused.stderr
    assert len(begun) == 1, "nothing was trained on them"


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_model_from_scratch_is_trained_again_with_its_own_tokenizer(
    family: str, recipe_here: Any, script_here: Any, load_back_here: None, begun: list[list[str]], tmp_path: Path
) -> None:
    """One that is trained anew may number its pieces otherwise, and the weights would be of other pieces."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": f"the {i}th word of {i * i} others"}) + "\n" for i in range(80)))
    flags = ["--layers", "1", "--hidden_size", "16", "--heads", "2", "--intermediate_size", "16", "--vocab_size", "320"]
    flags += ["--model_type", family, "--train_file", str(rows), "--epochs", "1", "--max_length", "32"]
    done = recipe_here("pretraining", *flags, "--output_dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    answer = script_here("tl_hub/command.py", "verify", tmp_path / "run", "--retrain", "--train_file", rows, "--json")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["retrained"]["weights"]["differ"] == []
    (words,) = begun
    assert words[words.index("--tokenizer") + 1] == str(tmp_path / "run") and "--vocab_size" not in words


def test_weights_of_one_other_bit_differ_and_the_figures_hold(
    made: Any, copied: list[list[str]], retrain: Any, tmp_path: Path
) -> None:
    """What a record must not decide is not handed on either, wherever it stands in it."""
    stored = made["run"] / "model.safetensors"
    weights = bytearray(stored.read_bytes())
    weights[-4] ^= 1  # the last bit of the last number
    stored.write_bytes(weights)
    record = RunRecord.load(made["run"])
    record.software["torch"] = "1.0"
    hostile = {"push_to": "me/it", "report_to": "wandb", "output_dir": str(tmp_path / "out"), "eval_on": "/etc/passwd",
               "config": "/etc/passwd", "resume": "hub:me/it", "sign": "key", "license_link": "/etc/passwd",
               "train_file": "/etc/passwd", "model": "me/it", "public": True, "preset": "sst2"}  # fmt: skip
    record.settings |= hostile
    record.method["settings"] |= hostile
    record.command = f"python /tmp/evil.py; rm -rf {tmp_path} recipes/sentiment_finetune.py --push_to me/it"
    record.save(made["run"])
    answer = retrain()
    assert answer.returncode == 0, answer.stderr
    assert "trained again, the weights differ (in 1 of " in answer.stdout and "the figures hold" in answer.stdout
    assert "torch 1.0 then" in answer.stdout
    (words,) = copied
    for name in hostile.keys() - {"output_dir", "train_file", "model"}:
        assert not [word for word in words if word.partition("=")[0] in (f"--{name}", f"--no-{name}")]
    for name, value in (("train_file", made["train_file"]), ("model", made["base"])):
        assert words.count(f"--{name}") == 1 and words[words.index(f"--{name}") + 1] == value
    assert words.count("--output_dir") == 1 and not (tmp_path / "out").exists()

    record.metrics[0].value, record.metrics[0].low, record.metrics[0].high = 101.0, 100.5, 101.5
    record.save(made["run"])
    lied = retrain("--json")
    assert lied.returncode == 1 and "and the figures DO NOT HOLD" in lied.stderr
    assert json.loads(lied.stdout)["retrained"]["holds"] is False
    rows = {name: made[name] for name in ("train_file", "test_file")}
    report = tl_hub.verify(made["run"], retrain=True, base=made["base"], **rows)["retrained"]
    assert len(report["weights"]["differ"]) == 1 and [m["name"] for m in report["metrics"] if not m["holds"]]


def record_of(name: str = "features_bert") -> RunRecord:
    return RunRecord.load(FOLDERS / name)


BASE = record_of().base
assert BASE


@pytest.mark.parametrize(
    "name", [folder.name for folder in sorted(FOLDERS.iterdir()) if (record := record_of(folder.name))
             and (not record.base or record.base.source == "embedded")]
)  # fmt: skip
def test_recipes_take_the_settings_of_runs_of_long_ago(name: str) -> None:
    """Of each kind: the rows are the same, by the SHA-256 on record, and so are task, method and each setting."""
    record = record_of(name)
    recipe = retraining._recipe_of(record)
    script = runpy.run_path(str(recipe))
    words = settings_file.arguments(retraining._settings(record, script, None, {}))
    entry = entries.Entry(name, name, recipe, (*words,))
    retraining._check(record, entry, script)
    run, task, method = entries.settings_of(entry, script)
    assert run.patience == (None if "patience" in method.unused else record.settings.get("patience", 0))
    for field, value in (record.settings | record.method["settings"]).items():
        for part in (run, task, method):
            if hasattr(part, field) and field not in ("license", "precision"):
                assert getattr(part, field) == value, field


def test_an_average_of_seeds_is_made_again_from_as_many() -> None:
    """And a run of one seed is trained alone, whatever its record says of others."""
    record = record_of("finetune_bert")
    script = runpy.run_path(str(retraining._recipe_of(record)))
    record.settings |= {"seeds": 3, "soup": True, "init_seed": 5}
    words = settings_file.arguments(retraining._settings(record, script, "base", {"train_file": "rows.csv"}))
    assert words[words.index("--seeds") + 1] == "3" and "--soup" in words
    record.settings["soup"] = False
    words = settings_file.arguments(retraining._settings(record, script, "base", {"train_file": "rows.csv"}))
    assert "--seeds" not in words and "--soup" not in words


def test_what_no_recipe_made_or_names_files_here_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "in_a_process", lambda *_: pytest.fail("it was trained"))
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path)
    for change, says in (
        ({"command": None}, "was not made by a recipe of tl_hub"),
        ({"command": "python train.py"}, "was not made by a recipe of tl_hub"),
        ({"command": "python recipes/sentiment_finetune.py"}, "run.json was changed"),
        ({"base": None}, "has another base than its command's recipe starts from"),
        ({"settings": {"seed": [1, "--push_to"], "num_processes": 2}}, "invalid int value"),
        ({"data": DataFacts(id="rows", source="hub")}, "run.json names rows, and so is something in this folder"),
        ({"data": DataFacts(id="rows", source="embedded")}, "run.json names rows, and so is something in this folder"),
        ({"data": DataFacts(id=str(tmp_path), source="hub")}, "data.id: "),
        ({"data": DataFacts(id="sample:../secret", source="embedded")}, "(a name, not a path"),
        ({"base": BaseModel(id="../rows", source="hub", model_type="bert")}, "base.id: "),
        ({"base": BaseModel(id="rows", source="hub", model_type="bert")}, "run.json names rows, and so is"),
        ({"base": replace(BASE, weights_sha256="0" * 64)}, "has other weights than what features_bert started from"),
    ):
        record = record_of()
        vars(record).update(change)
        record.save(tmp_path)
        with pytest.raises(UserError) as refused:
            retraining.retrain(tmp_path)
        assert says in str(refused.value), change
    record_of().save(tmp_path)
    with pytest.raises(UserError, match="started from no model in a folder; omit it"):
        retraining.retrain(tmp_path, base="rows")
    with pytest.raises(UserError, match="--base needs --retrain"):
        tl_hub.verify(tmp_path, base="rows")
    monkeypatch.setattr(runs, "in_a_process", lambda *_: 130)
    with pytest.raises(RunStopped, match="training features_bert again was interrupted") as stopped:
        retraining.retrain(tmp_path)
    assert stopped.value.exit_code == 130
