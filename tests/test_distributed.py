"""Two real processes against one: one run by torchrun itself, the others by forks that stand for its processes.

Each process that torchrun starts imports all anew, which a fork has done already. Only that run, of which two processes
write one folder, is loaded back in a process of its own.
"""

import json
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.test_trackers import scalars
from tl_hub import launch, training
from tl_hub.config import RunConfig
from tl_hub.evaluation import remeasure
from tl_hub.record import RunRecord

TORCHRUN = (os.path.join(os.path.dirname(sys.executable), "torchrun"), "--nproc_per_node", "2", "--standalone")


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "family", "settings"),
    [
        ("qa_finetune", "bert", ("--max_length", "384", "--validation_rows", "6")),
        ("continued_pretraining_finetune", "xlnet", ("--max_length", "64")),
        ("text_generation_finetune", "gpt2", ("--max_length", "64", "--validation_rows", "6", "--test_rows", "6")),
    ],
)
def test_two_processes_train_and_score_as_one(
    tmp_path, without_dropout, recipe, recipe_here, load_back_here, forks, name, family, settings
):
    """The same rows make a step, every row is scored once, whoever scored it, and one process writes and speaks."""
    launched = name == "qa_finetune"
    common = (
        "--model", str(without_dropout(family)), "--train_rows", "20", "--max_steps", "5", "--precision", "fp32",
        "--learning_rate", "1e-3", *settings,
    )  # fmt: skip
    one = recipe_here(name, *common, "--batch_size", "8", "--output_dir", str(tmp_path / "one"))
    flags = (*common, "--batch_size", "4", "--output_dir", str(tmp_path / "two"), "--report_to", "tensorboard")
    if launched:
        two = recipe(name, *flags, launcher=TORCHRUN, ACCELERATE_USE_CPU="true")
    else:
        two = forks(name, *flags, processes=2)
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    records = [RunRecord.load(tmp_path / name) for name in ("one", "two")]
    assert [metric.rows for metric in records[0].metrics] == [metric.rows for metric in records[1].metrics]
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-3)
    shown = scalars(str(tmp_path / "two"))["train/loss"]
    assert shown == pytest.approx(dict(enumerate(losses(tmp_path / "two"), 1)), rel=1e-5)
    assert len([*(tmp_path / "two" / "tracking" / "tl_hub").glob("events.*")]) == 1, "one process reports"
    # Its weights, measured by this one process, score to the digit what two processes together found.
    anew = {metric["name"]: metric["found"] for metric in remeasure(tmp_path / "two")["metrics"]}
    recorded = {metric.name: metric.value for metric in records[1].metrics}
    assert anew == pytest.approx({name: recorded[name] for name in anew}, rel=1e-6)
    assert two.stdout.count("Loaded back by") == 1
    shared = [{n: record.settings[n] for n in ("num_processes", "effective_batch_size")} for record in records]
    assert shared == [{"num_processes": n, "effective_batch_size": 8} for n in (1, 2)]
    assert records[1].command
    assert not launched or "torchrun --nproc_per_node 2 --standalone" in records[1].command


def test_a_run_of_one_process_goes_on_on_two_and_then_on_one(
    tmp_path, without_dropout, forks, recipe_here, load_back_here, monkeypatch
):
    """In the middle of an epoch, with the same rows and removed spans in each step that is left."""
    common = (
        "--model", str(without_dropout("t5")), "--train_rows", "40", "--precision", "fp32", "--learning_rate", "1e-3",
        "--max_length", "64", "--schedule", "constant", "--warmup", "0",
    )  # fmt: skip
    whole = recipe_here(
        "continued_pretraining_finetune", *common, "--max_steps", "8", "--batch_size", "8", "--output_dir",
        str(tmp_path / "whole"),
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    cut = (*common, "--output_dir", str(tmp_path / "cut"))

    write = training._Log.write

    def interrupted(log, **figures):
        write(log, **figures)
        if figures["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as within:
        within.setattr(training._Log, "write", interrupted)
        stopped = recipe_here("continued_pretraining_finetune", *cut, "--max_steps", "8", "--batch_size", "8")
    assert stopped.returncode == 130, stopped.stderr
    assert len(losses(tmp_path / "cut")) == 3
    launch._held.pop().release()  # as the end of its process would
    resume = ("continued_pretraining_finetune", *cut, "--resume", "--batch_size")
    on_two = forks(*resume, "4", "--max_steps", "6", processes=2)
    assert on_two.returncode == 0, on_two.stderr
    assert len(losses(tmp_path / "cut")) == 6
    on_one = recipe_here(*resume, "8", "--max_steps", "8")
    assert on_one.returncode == 0, on_one.stderr
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=1e-3)


def test_what_ends_all_processes_is_said_once(tmp_path, forks, without_dropout):
    """Another run has the folder, which the main process finds; the others told of a lost connection."""
    run = RunConfig(output_dir=str(tmp_path / "run"))
    launch._lock(run)
    try:
        refused = forks("qa_finetune", "--model", without_dropout("bert"), "--output_dir", run.output_dir, processes=2)
    finally:
        launch._held.pop().release()
    assert refused.returncode != 0 and not (tmp_path / "run").exists()
    assert refused.stderr.count("another run is writing there") == 1, refused.stderr
    assert 'recipes/qa_finetune.py", line' not in refused.stderr, refused.stderr


NEW_TOKENIZER = """
import json
from accelerate import Accelerator
from accelerate.utils import gather_object
from tl_hub.config import RunConfig
from tl_hub.methods.from_scratch import FromScratch

assert Accelerator().num_processes == 2
_, tokenizer, _ = FromScratch(vocab_size=300).build(["ab cd ef gh ij kl"] * 9, RunConfig(output_dir="none"))
assert len(set(gather_object([json.dumps(tokenizer.get_vocab(), sort_keys=True)]))) == 1
"""


def test_two_processes_have_one_new_tokenizer(forks):
    """Trained in each, it would number its pieces otherwise."""
    done = forks.code(NEW_TOKENIZER, processes=2)
    assert done.returncode == 0, done.stderr


def test_two_processes_that_share_out_the_weights_train_as_one(
    tmp_path, without_dropout, forks, recipe_here, load_back_here
):
    """By FSDP2: the same losses, average and weights, whole in the state, from which one process goes on as well."""
    name = "continued_pretraining_finetune"
    common = (
        "--model", str(without_dropout("bert")), "--train_rows", "24", "--precision", "fp32", "--learning_rate", "1e-3",
        "--schedule", "constant", "--warmup", "0", "--max_length", "64", "--epochs", "9", "--average", "1",
        "--validation_rows", "8", "--test_rows", "8",
    )  # fmt: skip
    engine = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    shared = (name, *common, "--batch_size", "4", "--output_dir", tmp_path / "shared", "--max_steps")
    begun = forks(*shared, "2", processes=2, **engine)
    assert begun.returncode == 0, begun.stderr
    two = forks(*shared, "4", "--resume", processes=2, **engine)
    assert two.returncode == 0, two.stderr
    parameters = RunRecord.load(tmp_path / "shared").cost.total_parameters
    held = int(re.search(r"([\d,]+) parameters on this process", two.stdout)[1].replace(",", ""))
    assert 0.5 <= held / parameters < 0.51
    assert [each.stdout.count("Loaded back by") for each in (begun, two)] == [1, 1]
    one = (name, *common, "--batch_size", "4", "--accumulation", "2", "--max_steps", "6", "--output_dir")
    gone_on = recipe_here(*one, str(tmp_path / "shared"), "--resume")
    whole = recipe_here(*one, str(tmp_path / "whole"))
    assert (gone_on.returncode, whole.returncode) == (0, 0), gone_on.stderr + whole.stderr
    assert losses(tmp_path / "shared") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    for file in ("model.safetensors", "checkpoint/average.safetensors"):
        found, expected = (load_file(tmp_path / folder / file) for folder in ("shared", "whole"))
        assert found.keys() == expected.keys()
        for weight in (weight for weight in found if not weight.endswith("key.bias")):  # no loss depends on that
            torch.testing.assert_close(found[weight], expected[weight], rtol=1e-3, atol=1e-5)
