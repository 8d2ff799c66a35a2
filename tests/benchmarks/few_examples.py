"""Which method learns most from a handful of examples: features, an adapter or fine-tuning, on the same rows.

    python -m tests.benchmarks.few_examples --model MODEL --train_file train.jsonl.gz --test_file test.jsonl.gz

Rows are {"text", "label"}. For each size (examples a class) and seed, training rows are drawn by chance. The epoch that
tells them best is kept: of so few, a tenth held out would choose by one or two rows. Prints a table of accuracies on
the test rows: mean (lowest to highest of the seeds). Small sets take many epochs and a low rate (Mosbach et al. 2021,
https://arxiv.org/abs/2006.04884).
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.state import AcceleratorState

from tl_hub import data, training
from tl_hub.config import RunConfig
from tl_hub.methods.adapter import Adapter
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.fine_tune import FineTune
from tl_hub.tasks.classification import Classification

METHODS = {"features": FeatureExtraction(), "adapter": Adapter(), "fine-tuning": FineTune()}
RATES = {"adapter": 1e-3, "fine-tuning": 1e-4}


def accuracy(name: str, run: RunConfig, task: Classification) -> float:
    """Accuracy on the test rows, in per cent, of one run as the recipes make it."""
    AcceleratorState._reset_state(reset_partial_state=True)
    method: Any = METHODS[name]
    accelerator = training.start(run, method)
    rows = data.load(run, task)
    model, tokenizer, base = training.load_model(run, task)
    data.encode(rows, task, tokenizer, model)
    if name == "features":
        vectors = method.extract(model, rows, task, tokenizer, run, accelerator)
        chosen, history = method.fit(model, vectors, rows, task, run, accelerator)
        score = method.score(chosen, vectors, rows, task, history)
    else:
        model = method.wrap(model, base)
        history = training.train(model, rows, task, tokenizer, run, accelerator)
        score = training.evaluate(model, rows.splits[rows.final], task, tokenizer, run, accelerator, history.decision)
    return float(score.metrics["accuracy"].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train_file", required=True)
    parser.add_argument("--test_file", required=True)
    parser.add_argument("--text_column", default="text")
    parser.add_argument("--test_rows", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    asked = parser.parse_args()
    task = Classification(text_column=asked.text_column, max_length=128, doc_stride=32)
    rows = data._read_file(asked.train_file).select_columns([asked.text_column, "label"])
    labels = np.array([str(label) for label in rows["label"]])
    print(f"| examples a class | {' | '.join(METHODS)} |\n| --- |{' --- |' * len(METHODS)}")
    for size in asked.sizes:
        found: dict[str, list[float]] = {name: [] for name in METHODS}
        for seed in range(asked.seeds):
            order = np.random.default_rng(seed).permutation(len(labels))
            drawn = np.concatenate([order[labels[order] == label][:size] for label in np.unique(labels)])
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "train.jsonl"
                file.write_text("".join(json.dumps(row) + "\n" for row in rows.select(np.sort(drawn).tolist())))
                for name in METHODS:
                    run = RunConfig(
                        model=asked.model, train_file=str(file), validation_file=str(file),
                        test_file=asked.test_file, test_rows=asked.test_rows,
                        output_dir=str(Path(folder) / name), seed=seed, epochs=asked.epochs if name in RATES else 3,
                        learning_rate=RATES.get(name, 5e-5),
                    )  # fmt: skip
                    found[name].append(accuracy(name, run, task))
        shown = [f"{np.mean(each):.1f} ({min(each):.1f} to {max(each):.1f})" for each in found.values()]
        print(f"| {size} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
