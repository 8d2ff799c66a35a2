"""What it saves that frozen lower layers read each row once, and what an adapter of the top layers alone costs.

    python -m tests.benchmarks.frozen_layers --model MODEL --train_file train.jsonl.gz --test_file test.jsonl.gz \
        --text_column sentence --train_rows 2000 --top_layers 2 --epochs 5

Files are those that recipes read. In each round every variant trains the same rows anew, with an empty cache. Prints a
table: processor time of the training, reading and evaluations included, as a multiple of that of the adapter of all
layers in the same round (lowest, median and highest), and the accuracy on the test rows.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.state import AcceleratorState

from tl_hub import base_model, cli, data, launch, training
from tl_hub.config import RunConfig
from tl_hub.experiment import Experiment
from tl_hub.finish import metric
from tl_hub.methods.adapters import Lora
from tl_hub.tasks.classification import Classification


def trained(run: RunConfig, task: Classification, method: Lora) -> tuple[float, str]:
    """Processor seconds of the training, and accuracy with its 95 % interval."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = launch.start(run)
    rows, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(rows, task, tokenizer, model)
    experiment = Experiment(run, task, method, base, rows, method.wrap(model, base), tokenizer, accelerator)
    start = time.process_time()
    history = training.train(experiment)
    seconds = time.process_time() - start
    score = training.evaluate(experiment, history.decision)
    found = metric("accuracy", score, "test", len(rows.splits["test"].rows), run.seed)
    return seconds, f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--test_file", required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--label_column", default="label")
    parser.add_argument("--train_rows", type=int, default=2000)
    parser.add_argument("--top_layers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    task = Classification(text_column=asked.text_column, label_column=asked.label_column, max_length=128, doc_stride=32)
    top = Lora(top_layers=asked.top_layers)
    variants: dict[str, tuple[Lora, dict[str, Any]]] = {
        "all layers": (Lora(), {}),
        f"top {asked.top_layers}, lower layers computed in each epoch": (top, {"recompute_frozen": True}),
        f"top {asked.top_layers}, lower layers read once": (top, {}),
    }
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    figures: dict[str, str] = {}
    for place in range(asked.rounds):
        for name, (method, settings) in variants.items():
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
                os.environ["TL_HUB_CACHE"] = str(Path(folder) / "cache")
                run = RunConfig(
                    model=asked.model, train_file=asked.train_file, train_rows=asked.train_rows,
                    test_file=asked.test_file, output_dir=str(Path(folder) / "run"), epochs=asked.epochs,
                    learning_rate=asked.learning_rate, precision=asked.precision, **settings,
                )  # fmt: skip
                found, figures[name] = trained(run, task, method)
            seconds[name].append(found)
            told = {"round": place + 1, "variant": name, "processor_seconds": found, "accuracy": figures[name]}
            print(json.dumps({**told, **asdict(method)}), file=sys.stderr, flush=True)
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, {asked.precision}")
    print("| LoRA of | processor time | accuracy |\n| --- | --- | --- |")
    for name, of_rounds in seconds.items():
        shares = np.divide(of_rounds, seconds["all layers"])
        middle = f"{np.median(shares):.2f} ({shares.min():.2f} to {shares.max():.2f})"
        print(f"| {name} | {middle} | {figures[name]} |")


if __name__ == "__main__":
    cli.run(main)
