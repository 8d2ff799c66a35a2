"""How much memory the training of an adapter takes beside fine-tuning, with a BERT of base size (12 layers, width 768).

    python -m tests.benchmarks.technique_memory

The weights are random, the rows are the embedded questions, eight a step, six steps. Prints MiB that each process had
for itself beyond what its imports take, the pages of mapped weights left out, and the share of fine-tuning's.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import random_models

WAYS = {
    "fine-tuning": ("qa_finetune", ()),
    "fine-tuning, --activation_checkpointing": ("qa_finetune", ("--activation_checkpointing",)),
    "adapter": ("qa_adapter", ()),
    "adapter, --activation_checkpointing": ("qa_adapter", ("--activation_checkpointing",)),
}
"""How the table calls it -> recipe and flags."""
FLAGS = ("--batch_size=8", "--max_steps=6", "--validation_rows=8", "--test_rows=8", "--no_examples", "--precision=fp32")


def measure(recipe: str, flags: tuple[str, ...], model: Path) -> float:
    """MiB."""
    words = [sys.executable, "-m", "tests.benchmarks.memory", "--recipe", recipe, f"--model={model}", *FLAGS, *flags]
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run([*words, f"--output_dir={folder}/run"], check=True, stdout=subprocess.PIPE)
    found = json.loads(ended.stdout.splitlines()[-1])
    return float(found["own"] - found["imports"])


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    print("| technique | MiB | of fine-tuning's |\n| --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        random_models.write(Path(folder), "bert", layers=12, hidden_size=768)
        found = {name: measure(recipe, flags, Path(folder)) for name, (recipe, flags) in WAYS.items()}
    for name, taken in found.items():
        print(f"| {name} | {taken:,.0f} | {100 * taken / found['fine-tuning']:.0f} % |")


if __name__ == "__main__":
    main()
