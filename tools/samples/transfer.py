"""What the pretraining of the embedded checkpoints is worth on real data.

    python -m tools.samples.transfer DATA_FOLDER RESULTS.jsonl bert [SEEDS]

fine-tunes the family's embedded checkpoint and the same model with random weights, by the same budget and with five
seeds (or as many as are given), on sst2 (four sizes), ag_news and squad; DATA_FOLDER holds them as
`<name>/train.jsonl.gz` and `<name>/validation.jsonl.gz`. A line a run is added to RESULTS; runs that are there are not
repeated.

    python -m tools.samples.transfer RESULTS.jsonl

prints the table: means over the seeds with 95 % intervals (Student's t), and the difference.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats
from transformers import AutoConfig, AutoModel, AutoTokenizer

from tl_hub import base_model, data, launch, samples, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.base import Task
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.question_answering import QuestionAnswering

SEEDS = 5
# Data, training rows, epochs. Few rows take more epochs, or there would hardly be a step.
EXPERIMENTS = [
    ("sst2", 64, 20),
    ("sst2", 256, 10),
    ("sst2", 1024, 5),
    ("sst2", 4096, 3),
    ("ag_news", 4000, 2),
    ("squad", 4000, 2),
]


def task_of(name: str) -> Task:
    if name == "squad":
        return QuestionAnswering(max_length=384, doc_stride=128)
    return Classification(text_column="sentence" if name == "sst2" else "text", max_length=256)


def measure(source: Path, family: str, name: str, rows: int, epochs: int, seed: int, pretrained: bool) -> float:
    """The best epoch's accuracy or F1, in percent, on the validation rows (of squad the first 500)."""
    with tempfile.TemporaryDirectory() as folder:
        model = f"tiny:{family}"
        if not pretrained:
            model = f"{folder}/random"
            torch.manual_seed(seed)
            AutoModel.from_config(AutoConfig.from_pretrained(samples.checkpoint(family))).save_pretrained(model)
            AutoTokenizer.from_pretrained(samples.checkpoint(family)).save_pretrained(model)
        run = RunConfig(
            output_dir=f"{folder}/run",
            model=model,
            train_file=f"{source}/{name}/train.jsonl.gz",
            validation_file=f"{source}/{name}/validation.jsonl.gz",
            train_rows=rows,
            validation_rows=500 if name == "squad" else None,
            epochs=epochs,
            batch_size=16,
            learning_rate=5e-4,
            seed=seed,
        )
        accelerator = launch.start(run)
        splits, task = data.load(run, task_of(name))
        network, tokenizer, base = base_model.load(run, task)
        data.encode(splits, task, tokenizer, network)
        experiment = Experiment(run, task, FineTune(), base, splits, network, tokenizer, accelerator)
        history = training.train(experiment)
        return history.epochs[history.best_epoch - 1][task.best[0]]


def table(results: list[dict[str, Any]]) -> str:
    """Markdown: a line an experiment, with means, 95 % intervals over the seeds and the paired difference.

    The last column counts the seeds in which the pretrained model is ahead. It is the sign test's statistic, which
    does not mind that a run from scratch may learn nothing at all, where the interval of Student's t does.
    """
    lines = ["| family | data | rows | from scratch | pretrained | difference | ahead |", "| --- " * 7 + "|"]
    keys = dict.fromkeys((result["family"], result["data"], result["rows"]) for result in results)
    for family, name, rows in keys:
        found: dict[bool, dict[int, float]] = {True: {}, False: {}}
        for result in results:
            if (result["family"], result["data"], result["rows"]) == (family, name, rows):
                found[result["pretrained"]][result["seed"]] = result["score"]
        seeds = sorted(found[True].keys() & found[False].keys())
        if not seeds:
            continue
        before, after = (np.array([found[kind][seed] for seed in seeds]) for kind in (False, True))
        cells = [_interval(values) for values in (before, after, after - before)]
        ahead = f"{(after > before).sum()} of {len(seeds)}"
        lines.append(f"| {family} | {name} | {rows:,} | {' | '.join(cells)} | {ahead} |")
    return "\n".join(lines)


def _interval(values: np.ndarray) -> str:
    mean = values.mean()
    if len(values) < 2:
        return f"{mean:.1f}"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{mean:z.1f} ({mean - half:z.1f} to {mean + half:z.1f})"


def main() -> None:
    if len(sys.argv) == 2:
        print(table([json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]))
        return
    source, results, family = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    known = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for seed in range(int(sys.argv[4]) if len(sys.argv) > 4 else SEEDS):
        for name, rows, epochs in EXPERIMENTS:
            for pretrained in (True, False):
                key = {"family": family, "data": name, "rows": rows, "seed": seed, "pretrained": pretrained}
                if any(key.items() <= line.items() for line in known):
                    continue
                score = measure(source, family, name, rows, epochs, seed, pretrained)
                with results.open("a") as file:
                    file.write(json.dumps({**key, "score": round(score, 2)}) + "\n")


if __name__ == "__main__":
    main()
