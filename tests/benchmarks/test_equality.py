"""How far training differs with the way in which the 16 rows of a step are shared out, by task.

    TL_HUB_BENCHMARKS=1 OMP_NUM_THREADS=1 pytest tests/benchmarks/test_equality.py -s

Prints a table: the largest relative difference of a loss to that of one batch of 16 rows, over six steps in three
epochs, the last of each with fewer rows. In float32 and without dropout; `log.jsonl` keeps six digits.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.test_training import EVERY_LOSS, go, log, stock_loss
from tl_hub.batches import GlobalBatches
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.tasks.base import column

pytestmark = pytest.mark.skipif(not os.environ.get("TL_HUB_BENCHMARKS"), reason="slow: set TL_HUB_BENCHMARKS=1")

ROWS, STEPS = 16, 6
OURS: dict[str, dict[str, Any]] = {
    "one batch": {},
    "two accumulated": {"accumulation": 2},
    "two processes": {"processes": 2},
    "two processes, FSDP2": {"processes": 2, "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
}
SCRIPT = """
import json, os, sys
from pathlib import Path
from accelerate.state import AcceleratorState
from tests.benchmarks.test_equality import run_of
from tests.test_training import EVERY_LOSS, go
from tl_hub import launch

root, models, batch_size, accumulation = sys.argv[1], json.loads(sys.argv[2]), *map(int, sys.argv[3:])
for number, (family, task) in enumerate(EVERY_LOSS):
    go(run_of(Path(root, str(number)), models[family], batch_size, accumulation), task=task)
    AcceleratorState._reset_state(reset_partial_state=False)
    while launch._held:
        launch._held.pop().release()
"""


def run_of(folder: Path, model: str, batch_size: int, accumulation: int) -> RunConfig:
    return RunConfig(
        output_dir=str(folder), model=model, train_rows=40, validation_rows=8, test_rows=8, epochs=9, max_steps=STEPS,
        batch_size=batch_size, accumulation=accumulation, learning_rate=1e-3, precision="fp32", threads=1,
        schedule="constant", warmup=0.0,
    )  # fmt: skip


def plain_losses(experiment: Experiment) -> Iterator[float]:
    """Of a loop of torch's own, with the loss and the decayed weights of transformers, on batches of the same rows."""
    run, task, model = experiment.run, experiment.task, experiment.model
    features = experiment.rows.splits["train"].encoded
    decayed = {*transformers.Trainer.get_decay_parameter_names(None, model)}
    groups = [
        {"params": [p for name, p in model.named_parameters() if (name in decayed) == decay], "weight_decay": by}
        for decay, by in ((True, run.weight_decay), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=run.learning_rate)
    batches = GlobalBatches(column(features, "length"), ROWS, run.seed)
    kept = features.select_columns([name for name in (*task.batched, "index") if name in features.column_names])
    collate = task.collator(experiment.tokenizer, training=True)
    model.train()
    for step in range(STEPS):
        epoch, place = divmod(step, len(batches))
        rows = kept.select(batches.of_epoch(epoch)[place]).to_list()
        draw = {"draw": (run.seed, epoch, place)} if task.random_batches else {}
        loss = stock_loss(model, experiment, collate([row | draw for row in rows]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), run.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()


class Enough(Exception):
    """A run is ready to train, and does not."""


def test_losses_do_not_depend_on_who_reads_the_rows(forks, without_dropout, tmp_path):
    models = {family: str(without_dropout(family)) for family, _ in EVERY_LOSS}
    for form, how in OURS.items():
        accumulation, processes = how.get("accumulation", 1), how.get("processes", 1)
        environment = {name: value for name, value in how.items() if name != "accumulation"}
        done = forks.code(
            SCRIPT, tmp_path / form, json.dumps(models), ROWS // accumulation // processes, accumulation,
            **environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    print(f"\n| | {' | '.join([*list(OURS)[1:], 'plain torch'])} |\n|{' --- |' * (len(OURS) + 1)}")
    for number, (family, task) in enumerate(EVERY_LOSS):
        found = {
            form: [line["loss"] for line in log(run_of(tmp_path / form / str(number), models[family], 1, 1))]
            for form in OURS
        }

        def plain(experiment: Experiment, found: dict[str, list[float]] = found) -> None:
            found["plain torch"] = [*plain_losses(experiment)]
            raise Enough

        with pytest.raises(Enough):
            go(run_of(tmp_path / "plain" / str(number), models[family], ROWS, 1), before=plain, task=task)
        reference = torch.tensor(found.pop("one batch"))
        differ = [((torch.tensor(losses) - reference).abs() / reference).max().item() for losses in found.values()]
        shown = " | ".join(f"{largest:.0e}" if largest else "0" for largest in differ)
        print(f"| {task.name}, {family} | {shown} |")
        assert max(differ) < 1e-4
