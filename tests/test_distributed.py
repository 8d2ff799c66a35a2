"""Two real processes against one."""

import json
import os
import sys

import pytest

from tl_hub.evaluation import remeasure
from tl_hub.record import RunRecord


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_two_processes_train_and_score_as_one(tmp_path, checkpoint_folders, recipe, recipe_here, family):
    """Every row is scored once, whoever scored it, and one process writes and speaks."""
    common = (
        "--model", str(checkpoint_folders(family)), "--train_rows", "24", "--validation_rows", "6", "--max_steps", "3",
        "--precision", "fp32", "--max_length", "384", "--learning_rate", "1e-3",
    )  # fmt: skip
    torchrun = (os.path.join(os.path.dirname(sys.executable), "torchrun"), "--nproc_per_node", "2", "--standalone")
    one = recipe_here("qa_finetune", *common, "--batch_size", "8", "--output_dir", str(tmp_path / "one"))
    two = recipe(
        "qa_finetune", *common, "--batch_size", "4", "--output_dir", str(tmp_path / "two"), launcher=torchrun,
        ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    records = [RunRecord.load(tmp_path / name) for name in ("one", "two")]
    assert [metric.rows for metric in records[0].metrics] == [metric.rows for metric in records[1].metrics]
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert [len(log) for log in logs] == [3, 3]
    assert all(json.loads(line)["loss"] > 0 for line in logs[1])
    # Its weights, measured by this one process, score to the digit what two processes together found.
    anew = {metric["name"]: metric["found"] for metric in remeasure(tmp_path / "two")["metrics"]}
    assert anew == {metric.name: metric.value for metric in records[1].metrics}
    assert two.stdout.count("Loaded back by") == 1
    shared = [{n: record.settings[n] for n in ("num_processes", "effective_batch_size")} for record in records]
    assert shared == [{"num_processes": n, "effective_batch_size": 8} for n in (1, 2)]
    assert records[1].command and "torchrun --nproc_per_node 2 --standalone" in records[1].command
