"""The end of a run: what is worked out there and nowhere else."""

import hashlib
import json
import os
import subprocess
import sys
import tracemalloc
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest

from tl_hub import data, finish, row_predictions, run_folder, shown_rows
from tl_hub.base_model import Base
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.tasks.base import Score
from tl_hub.tasks.classification import SentimentAnalysis
from tl_hub.tasks.language_modeling import MaskedLanguageModeling

SCRIPT = """
import sys
from tl_hub.command_line import command_line, replace_arguments
if "--config" in sys.argv:
    replace_arguments(["--lr", "3"])
print(command_line())
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    (folder / "qa.py").write_text(SCRIPT)
    (folder / "one.yaml").write_text("{compute_environment: LOCAL_MACHINE, distributed_type: 'NO', use_cpu: true}")
    return folder / "qa.py"


def told(words: list[str], script: Path, **environment: str) -> str:
    """What a script says of the command that started it, in a folder of its own."""
    process = subprocess.run(
        words, cwd=script.parent, env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return process.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "qa.py", "--lr=3"], "python qa.py --lr=3"),
        (["python", "{folder}/qa.py"], "python {parent}/qa.py"),
        (["python", "qa.py", "--train_file", "{folder}/qa.py", "--test_file=/data/t.csv", "--label_separator", "; "],
         "python qa.py --train_file qa.py --test_file=t.csv --label_separator '; '"),
        *(pytest.param(words, expected, marks=pytest.mark.slow) for words, expected in (  # these import torch
        (["accelerate", "launch", "--num_processes", "1", "--config_file", "{folder}/one.yaml", "qa.py", "--a", "1"],
         "accelerate launch --num_processes 1 --config_file one.yaml qa.py --a 1"),
        (["accelerate", "launch", "--cpu", "qa.py", "--config", "mine.yaml"], "accelerate launch --cpu qa.py --lr 3"),
        (["python", "-m", "accelerate.commands.launch", "--cpu", "qa.py"], "accelerate launch --cpu qa.py"),
        (["torchrun", "--standalone", "--nproc_per_node", "1", "qa.py", "--a"],
         "ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 1 qa.py --a"),
        )),
    ],
)  # fmt: skip
def test_the_command_is_the_one_that_was_given(script, words, expected):
    """Without paths of this machine, and as a shell takes it."""
    folder, tool = script.parent, Path(sys.executable).parent
    given = [str(tool / words[0]), *(word.format(folder=folder) for word in words[1:])]
    own = {"ACCELERATE_USE_CPU": "true"} if words[0] == "torchrun" else {}
    assert told(given, script, **own) == expected.format(parent=folder.name)


def test_each_measured_row_is_kept_with_its_prediction_and_never_sent(tmp_path):
    shown = [{"text": "é", "expected": "a", "predicted": "b"}, {"text": "z", "expected": "a", "predicted": "a"}]
    score = Score({"f1": np.array([0.0, np.nan]), "macro_f1": np.array(50.0)}, predictions=shown)
    row_predictions.write(tmp_path, score, 2)
    lines = (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"row": 0, "text": "é", "expected": "a", "predicted": "b", "f1": 0.0},
        {"row": 1, "text": "z", "expected": "a", "predicted": "a", "f1": None},
    ]
    score.metrics["f1"] = np.array([0.0, 50.0, 100.0])  # of the rows, of which two samples were made
    row_predictions.write(tmp_path, score, 3)
    assert json.loads((tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()[1]) == shown[1]
    assert not any(fnmatch("predictions.jsonl", pattern) for pattern in run_folder.PUBLISHED)


def test_a_figure_is_the_mean_of_the_rows_that_have_it():
    """As F1 of questions that have an answer, which others lack."""
    score = Score({"f1_answerable": np.array([50.0, np.nan, 100.0, np.nan])}, groups=np.array([0, 0, 1, 1]))
    found = finish.metric("f1_answerable", score, "test", 4, seed=0)
    assert (found.value, found.rows, found.split) == (75.0, 2, "test")
    assert found.low < 75 < found.high


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to anna.berg+news@mail.example.org.", "an e-mail address"),
        ("Call +49 30 1234567 now", "a phone number"),
        ("Call (030) 123-4567", "a phone number"),
        ("Ring 0181 945 8719 after six", "a phone number"),
        ("Ring +821012345678", "a phone number"),
        ("IBAN DE89 3704 0044 0532 0130 00", "an IBAN"),
        ("Pay to BE68 5390 0754 7034 by Friday", "an IBAN"),
        ("Pay to MT84MALT011000012345MTLCAST001S", "an IBAN"),
        ("Betal til NO93 8601 1117 947 nå", "an IBAN"),
        ("Betal til NO9386011117947 nå", "an IBAN"),
        ("See /home/pi/app.log", "a path"),
        ("The token is hf_" + "a" * 34, "a secret"),
    ],
)
def test_rows_that_name_somebody_or_hold_a_path_are_not_shown(text, kind):
    """A row with a path was refused by the push, after the training."""
    rows = [{"text": f"{text} Row {i}.", "expected": "a"} for i in range(20)]
    clean = [
        {"text": f"In 1990, 12 of 30 rows cost 1,500.50 euros; see 3.14, 10:30 and 2020-11-29. {i}"} for i in range(5)
    ]
    shown, (note,) = shown_rows.choose(rows + clean, RunConfig())
    assert sorted(row["text"] for row in shown) == sorted(row["text"] for row in clean)
    assert note == f"When the examples were chosen, 20 rows were passed over: 20 with {kind}."
    assert shown_rows.choose(clean, RunConfig())[1] == []


def test_rows_are_drawn_from_all_and_as_many_as_are_asked_for():
    rows = [{"text": f"Row {i}.", "expected": "a"} for i in range(200)]
    drawn = [[rows.index(row) for row in shown_rows.choose(rows, RunConfig(seed=seed))[0]] for seed in range(20)]
    assert all(len(set(each)) == 8 for each in drawn) and len(set(map(tuple, drawn))) == 20
    assert 60 < np.mean(drawn) < 140, "not the first, not the last: of 160 draws the mean is 99.5, give or take 4.6"
    asked = ",".join(map(str, range(0, 24, 2)))
    assert shown_rows.choose(rows, RunConfig(example_rows=asked))[0] == rows[:24:2]


def test_rows_to_be_shown_are_chosen_by_number(tmp_path):
    texts = ["Good.", "Bad.", "Write to a@b.example now.", "Fine.", "Poor."]
    rows = [{"text": text, "label": i % 2} for i, text in enumerate(texts)]
    files = {}
    for name, repeated in (("train", 3), ("validation", 1), ("test", 1)):
        files[f"{name}_file"] = str(tmp_path / f"{name}.jsonl")
        Path(files[f"{name}_file"]).write_text("".join(json.dumps(row) + "\n" for row in rows) * repeated)

    def load(chosen, task=SentimentAnalysis):
        return data.load(RunConfig(example_rows=chosen, **files), task())[0]

    load("4,0")
    with pytest.raises(UserError, match="--example_rows 0,5: there is no row 5; the test split has rows 0 to 4"):
        load("0,5")
    with pytest.raises(UserError, match="row 2 of the test split holds an e-mail address"):
        load("2")
    with pytest.raises(UserError, match="masked-language-modeling has no prediction for each row"):
        load("1", MaskedLanguageModeling)
    predictions = [{"text": text, "predicted": "0"} for text in texts]
    shown, notes = shown_rows.choose(predictions, RunConfig(example_rows="4,0,4"))
    assert [row["text"] for row in shown] == ["Poor.", "Good."] and not notes
    predictions[0]["predicted"] = "a@b.example"
    shown, notes = shown_rows.choose(predictions, RunConfig(example_rows="4,0"))
    assert [row["text"] for row in shown] == ["Poor."] and "1 row was passed over: 1 with an e-mail" in notes[0]
    for wrong in ("1;2", "-1", "a", "1,"):
        with pytest.raises(UserError, match="give row numbers separated by commas"):
            RunConfig(example_rows=wrong)
    with pytest.raises(UserError, match="exclude each other"):
        RunConfig(example_rows="1", examples=False)


def test_the_weights_of_a_base_are_not_held_in_memory_to_be_known(tmp_path):
    shards = tuple(tmp_path / f"{number}.safetensors" for number in (1, 2))
    for shard, letter in zip(shards, b"ab", strict=True):
        shard.write_bytes(bytes([letter]) * 2**24)
    digest = hashlib.sha256(b"a" * 2**24 + b"b" * 2**24).hexdigest()
    tracemalloc.start()
    try:
        assert finish.base_facts(Base("base", "local", weights=shards)).weights_sha256 == digest
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
