"""What the settings for few rows bring: fine-tuning with each of them against fine-tuning without, on the same rows.

    python -m tests.benchmarks.little_data --model MODEL --train_file train.jsonl.gz --test_file test.jsonl.gz \
        --text_column sentence --size 100 --draws 3

Files are those that recipes read. For each draw, `--size` rows of each class are drawn at random to train on, and a
quarter as many others to choose the epoch by, or the average. Prints a table: the mean accuracy on the test rows over
the draws, and the mean difference to plain fine-tuning of the same draw, with its 95 % interval by Student's t. Each
single figure goes to the standard error as it is known.
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

from tests.benchmarks.few_examples import shown
from tl_hub import base_model, cli, data, launch, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.classification import Classification

PLAIN = "fine-tuning"
VARIANTS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "--average 2": {"average": 2.0},
    "--r_drop 1": {"r_drop": 1.0},
    "--r_drop 4": {"r_drop": 4.0},
    "--reinit_layers 1": {"reinit_layers": 1},
    "--gradual_unfreezing 2": {"gradual_unfreezing": 2},
}


def accuracy(settings: dict[str, Any], run: RunConfig, task: Classification) -> float:
    """Accuracy on the test rows, in per cent, of one run as the recipe makes it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    run, task, method = (
        replace(part, **{name: value for name, value in settings.items() if hasattr(part, name)})
        for part in (run, task, FineTune())
    )
    accelerator = launch.start(run)
    rows, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    model = method.wrap(model, base)
    data.encode(rows, task, tokenizer, model)
    experiment = Experiment(run, task, method, base, rows, model, tokenizer, accelerator)
    history = training.train(experiment)
    return float(training.evaluate(experiment, history.decision).metrics["accuracy"].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--test_file", required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--label_column", default="label")
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--test_rows", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), help=f"some of {', '.join(VARIANTS)}")
    asked = parser.parse_args()
    task = Classification(text_column=asked.text_column, label_column=asked.label_column, max_length=128, doc_stride=32)
    rows = data._read_file(asked.train_file, RunConfig(), data._READERS).select_columns(
        [asked.text_column, asked.label_column]
    )
    labels = np.array([str(label) for label in rows[asked.label_column]])
    found: dict[str, list[float]] = {name: [] for name in asked.variants}
    for draw in range(asked.draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        of_class = [order[labels[order] == name] for name in np.unique(labels)]
        with tempfile.TemporaryDirectory() as folder:
            files = {}
            for name, part in (("train", slice(asked.size)), ("validation", slice(asked.size, 5 * asked.size // 4))):
                drawn = np.sort(np.concatenate([places[part] for places in of_class])).tolist()
                files[f"{name}_file"] = str(Path(folder, f"{name}.jsonl"))
                Path(files[f"{name}_file"]).write_text("".join(json.dumps(row) + "\n" for row in rows.select(drawn)))
            run = RunConfig(
                model=asked.model, **files, test_file=asked.test_file, test_rows=asked.test_rows, seed=draw,
                epochs=asked.epochs, learning_rate=asked.learning_rate,
            )  # fmt: skip
            for place, name in enumerate(asked.variants):
                start = time.perf_counter()
                with redirect_stdout(sys.stderr):
                    run_here = replace(run, output_dir=str(Path(folder, str(place))))
                    found[name].append(accuracy(VARIANTS[name], run_here, task))
                seconds = time.perf_counter() - start
                print(f"draw {draw + 1}, {name}: {found[name][-1]:.1f} in {seconds:.0f} s", file=sys.stderr, flush=True)
    print("| settings | accuracy | difference |\n| --- | --- | --- |")
    for name, figures in found.items():
        apart = "" if name == PLAIN else shown([a - b for a, b in zip(figures, found[PLAIN], strict=True)])
        print(f"| {name} | {np.mean(figures):.1f} | {apart} |")


if __name__ == "__main__":
    cli.run(main)
