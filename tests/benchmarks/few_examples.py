"""Which method learns most from a handful of examples: features, an adapter or fine-tuning, on the same rows.

    python -m tests.benchmarks.few_examples --model MODEL --train_file train.jsonl.gz --test_file test.jsonl.gz \
        --text_column sentence --sizes 8 64 512 --draws 5

Files are those that recipes read. For each size (examples a class) and draw, training rows are drawn at random; of a
class that has fewer, all. The epoch that tells them best is kept: of so few, a tenth held out would choose by one or
two rows. Prints a table of accuracies on the test rows: the mean over the draws and its 95 % interval by Student's t,
which is of the draws and not of the test rows. Each single figure goes to the standard error as it is known. Small sets
take many epochs and a low rate (Mosbach et al. 2021, https://arxiv.org/abs/2006.04884); `--max_steps` ends those of
large sets.
"""

import argparse
import json
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.state import AcceleratorState
from scipy import stats

from tl_hub import base_model, cli, data, launch, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Lora
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.classification import Classification

METHODS = {"features": FeatureExtraction(), "adapter": Lora(), "fine-tuning": FineTune()}
RATES = {"adapter": 1e-3, "fine-tuning": 1e-4}


def accuracy(name: str, run: RunConfig, task: Classification) -> float:
    """Accuracy on the test rows, in per cent, of one run as the recipes make it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    method: Any = METHODS[name]
    accelerator = launch.start(run)
    rows, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(rows, task, tokenizer, model)
    experiment = Experiment(run, task, method, base, rows, model, tokenizer, accelerator)
    if name == "features":
        _, _, score = method.fit_head(experiment)
    else:
        experiment = replace(experiment, model=method.wrap(model, base))
        history = training.train(experiment)
        score = training.evaluate(experiment, history.decision)
    return float(score.metrics["accuracy"].mean())


def shown(found: list[float]) -> str:
    """Mean and 95 % interval of the mean of figures drawn at random; of one figure no interval is known."""
    if len(found) == 1:
        return f"{found[0]:.1f}"
    half = stats.t.ppf(0.975, len(found) - 1) * stats.sem(found)
    return f"{np.mean(found):.1f} ({np.mean(found) - half:.1f} to {np.mean(found) + half:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--test_file", required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--label_column", default="label")
    parser.add_argument("--test_rows", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--max_steps", type=int)
    asked = parser.parse_args()
    task = Classification(text_column=asked.text_column, label_column=asked.label_column, max_length=128, doc_stride=32)
    rows = data._read_file(asked.train_file, RunConfig(), data._READERS).select_columns(
        [asked.text_column, asked.label_column]
    )
    labels = np.array([str(label) for label in rows[asked.label_column]])
    names, counts = np.unique(labels, return_counts=True)
    print(f"| examples a class | {' | '.join(asked.methods)} |\n| --- |{' --- |' * len(asked.methods)}", flush=True)
    for size in asked.sizes:
        found: dict[str, list[float]] = {name: [] for name in asked.methods}
        for draw in range(asked.draws):
            order = np.random.default_rng(draw).permutation(len(labels))
            drawn = np.concatenate([order[labels[order] == name][:size] for name in names])
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "train.jsonl"
                file.write_text("".join(json.dumps(row) + "\n" for row in rows.select(np.sort(drawn).tolist())))
                for name in asked.methods:
                    steps = {"epochs": asked.epochs, "max_steps": asked.max_steps} if name in RATES else {}
                    run = RunConfig(
                        model=asked.model, train_file=str(file), validation_file=str(file),
                        test_file=asked.test_file, test_rows=asked.test_rows,
                        output_dir=str(Path(folder) / name), seed=draw,
                        learning_rate=RATES.get(name, 5e-5), **steps,
                    )  # fmt: skip
                    start = time.perf_counter()
                    with redirect_stdout(sys.stderr):
                        found[name].append(accuracy(name, run, task))
                    print(
                        f"{size} a class, draw {draw + 1} of {asked.draws}, {name}: {found[name][-1]:.1f} in "
                        f"{time.perf_counter() - start:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
        line = f"{size}" if size <= counts.min() else f"{size}, of the rarest {counts.min()}"
        print(f"| {line} | {' | '.join(map(shown, found.values()))} |", flush=True)


if __name__ == "__main__":
    cli.run(main)
