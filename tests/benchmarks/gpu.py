"""Question answering by a BERT of base size on a GPU: its share of the peak, beside a Trainer that pads to the full.

    python -m tests.benchmarks.gpu
    python -m tests.benchmarks.gpu --train_file train.jsonl --batch_size 32 --rounds 5

On a CPU, `--layers 2 --hidden_size 128 --precision fp32 --peak_size 512 --rounds 1` shows that it works.

The weights are random. The peak is that of products of square matrices in the same precision, measured here. Operations
are 6 for each parameter of a matrix and each token that is no padding, without those of attention itself.

Each measurement is a process of its own, and the three take turns: the recipe, `transformers.Trainer` with batches of
like length, and the Trainer with rows padded to `--max_length`, as many examples call it. Prints a table with a line
for each: tokens a second, their share of the peak, and how many times as many the recipe trains, with the median of the
rounds, the lowest and the highest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.benchmarks import random_models, speed
from tl_hub import effort
from tl_hub.tasks.question_answering import QuestionAnswering

WAYS = {"recipe": "the recipe", "trainer": "Trainer, batches of like length", "padded": "Trainer, padded to the full"}
"""Who trains -> how the table calls it."""


def peak(dtype: torch.dtype, size: int) -> float:
    """Operations a second of products of square matrices: the best of ten."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, other = torch.randn(2, size, size, device=device, dtype=dtype).unbind()
    seconds = []
    for _ in range(13):
        start = speed.now()[0]
        one @ other
        seconds.append(speed.now()[0] - start)
    return 2 * size**3 / min(seconds[3:])


def pad_to_the_full(task: QuestionAnswering) -> None:
    """Let the batches of a task be as long as its longest row may be."""
    collator = type(task).collator

    def padding(*given: Any, **options: Any) -> Any:
        collate = collator(*given, **options)

        def padded(features: list[dict[str, Any]]) -> Any:
            batch = collate(features)
            short = task.max_length - batch["input_ids"].size(1)
            wide = ("input_ids", "attention_mask", "token_type_ids")
            return {k: torch.nn.functional.pad(v, (0, short)) if k in wide else v for k, v in batch.items()}

        return padded

    type(task).collator = padding  # type: ignore[method-assign]


def measure(by: str, flags: list[str]) -> dict[str, float]:
    """Tokens a second, and the operations of one."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        experiment = speed.prepared("qa_finetune", flags, folder)
        if by == "padded":
            pad_to_the_full(experiment.task)
        points, _ = speed.by_recipe(experiment) if by == "recipe" else speed.by_trainer(experiment, folder)
        seconds, _, tokens = np.subtract(points[-1], points[speed.WARMING - 1])
        return {"tokens": tokens / seconds, "operations": effort.operations(experiment.model, 1.0)[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden_size", type=int, default=768)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--peak_size", type=int, default=8192, help="rows of the square matrices of the peak")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="a file to which the figures are written")
    parser.add_argument("--by", choices=WAYS, help=argparse.SUPPRESS)
    asked, flags = parser.parse_known_args()
    if asked.by:
        print(json.dumps(measure(asked.by, flags)))
        return
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, {asked.precision}, torch {torch.__version__}")
    dtype = torch.bfloat16 if asked.precision == "bf16" else torch.float32
    found: dict[str, list[float]] = {by: [] for by in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        random_models.write(Path(folder), "bert", layers=asked.layers, hidden_size=asked.hidden_size)
        words = [sys.executable, "-m", "tests.benchmarks.gpu", "--model", folder, "--precision", asked.precision]
        for _ in range(asked.rounds):
            for by in WAYS:
                ended = subprocess.run([*words, *flags, "--by", by], check=True, stdout=subprocess.PIPE)
                measured = json.loads(ended.stdout)
                found[by].append(measured["tokens"])
    highest = peak(dtype, asked.peak_size)
    print(f"peak {highest / 1e12:.3g} TFLOP/s; {measured['operations'] / 1e6:,.0f} million operations a token\n")
    print("| trained by | tokens a second | share of the peak | the recipe's times |\n| --- | --- | --- | --- |")
    for by, name in WAYS.items():
        shares = [100 * tokens * measured["operations"] / highest for tokens in found[by]]
        times = [ours / theirs for ours, theirs in zip(found["recipe"], found[by], strict=True)]
        cells = [middle(found[by], ",.0f"), f"{middle(shares, '.1f')} %", middle(times, ".2f")]
        print(f"| {name} | {' | '.join(cells)} |")
    if asked.json:
        asked.json.write_text(json.dumps({"device": device, "peak": highest, **measured, "tokens": found}) + "\n")


def middle(values: list[float], form: str) -> str:
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


if __name__ == "__main__":
    main()
