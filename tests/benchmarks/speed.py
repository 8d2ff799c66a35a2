"""Training and evaluation beside `transformers.Trainer` with the same model, rows, batches, rate and threads.

    python -m tests.benchmarks.speed
    python -m tests.benchmarks.speed --cases qa_adapter qa_finetune --rounds 5 --json speed.jsonl \
        --precision bf16 --model MODEL --train_file train.jsonl --batch_size 8
    python -m tests.benchmarks.speed --random

Each measurement is a process of its own, and the two take turns. The Trainer has what makes it fast: batches of like
length, its fused AdamW, and for adapters PEFT. Both train recipes' embedded rows, or those that other flags of the
recipes name; the first steps are left out, as they also warm up.

The embedded models are narrow and have no dropout. `--random` takes random weights in the shape of MiniLM, 6 layers of
width 384 (of T5, in encoder and decoder), with dropout of a tenth.

Prints how many times as many tokens a second the recipes train, and rows they measure, and the same for a second of
processor time, which other work on the machine distorts less: the median of the rounds, the lowest and the highest. The
last column is the peak of resident memory, of the recipes' process and of the Trainer's.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from tests.benchmarks import random_models
from tl_hub import base_model, cli, cpu, data, launch, published_settings, training
from tl_hub.experiment import Experiment

CASES = {
    "qa_adapter": [],
    "qa_finetune": [],
    "sentiment_finetune": [],
    "document_classification_finetune": ["--model", "tiny:xlnet"],
    "summarization_finetune": ["--validation_rows", "32"],
    "text_generation_finetune": [],
}
"""Recipes, and the flags that they are measured with."""
STEPS, WARMING = 24, 4
Point = tuple[float, float, int]
"""Seconds by the clock and of the processor, and the tokens of inputs read until then, without padding."""
READ = [0]


def now() -> Point:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # whose work goes on after a step has returned
    return time.perf_counter(), time.process_time(), READ[0]


def prepared(name: str, flags: list[str], folder: str) -> Experiment:
    """What a recipe trains."""
    recipe = importlib.import_module(f"recipes.{name}")
    sys.argv = [name, *CASES[name], *flags, "--output_dir", f"{folder}/run", "--max_steps", str(STEPS)]
    run, task, method = cli.parse(recipe.RUN, recipe.TASK, recipe.METHOD, presets={}, doc=None)
    launch.check(run, method)
    rows, task = data.load(run, task)
    accelerator = launch.start(run)
    model, tokenizer, base = base_model.load(run, task)
    run, method = published_settings.apply(run, task, method, model)
    data.encode(rows, task, tokenizer, model)
    collator = type(task).collator

    def counting(*given: Any, **options: Any) -> Any:
        collate = collator(*given, **options)

        def counted(features: list[dict[str, Any]]) -> Any:
            READ[0] += sum(len(feature["input_ids"]) for feature in features)
            return collate(features)

        return counted

    type(task).collator = counting
    return Experiment(run, task, method, base, rows, method.wrap(model, base), tokenizer, accelerator)


def by_recipe(experiment: Experiment) -> tuple[list[Point], list[Point]]:
    """Points of time after each step, and before and after validation rows were measured."""
    points: list[Point] = []
    count = training._Loop._count

    def counted(*given: Any) -> None:
        count(*given)
        points.append(now())

    training._Loop._count = counted  # type: ignore[method-assign]
    training.train(experiment)
    before = now()
    training.evaluate(experiment, split="validation")
    return points, [before, now()]


def by_trainer(experiment: Experiment, folder: str) -> tuple[list[Point], list[Point]]:
    """The same."""
    run, task, model = experiment.run, experiment.task, experiment.model
    points: list[Point] = []

    class Watch(transformers.TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            points.append(now())

    collate = task.collator(experiment.tokenizer, training=True)

    def collated(features: list[dict[str, Any]]) -> Any:
        return task.inputs(collate([{name: row[name] for name in kept if name in row} for row in features]))

    kept = [*task.batched]
    rows = [experiment.rows.splits[name].encoded for name in ("train", "validation")]
    generates = model.config.is_encoder_decoder
    arguments = transformers.Seq2SeqTrainingArguments(
        output_dir=f"{folder}/trainer",
        per_device_train_batch_size=run.batch_size,
        per_device_eval_batch_size=2 * run.batch_size,
        max_steps=STEPS,
        learning_rate=run.learning_rate,
        weight_decay=run.weight_decay,
        warmup_steps=int(run.warmup * STEPS),
        train_sampling_strategy="group_by_length",
        length_column_name="length",
        optim="adamw_torch_fused",
        bf16=experiment.accelerator.mixed_precision == "bf16",
        use_cpu=experiment.accelerator.device.type == "cpu",
        predict_with_generate=generates,
        generation_max_length=task.max_target_length if generates else None,
        generation_num_beams=task.beams if generates else None,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = transformers.Seq2SeqTrainer(
        model, arguments, collated, train_dataset=rows[0], eval_dataset=rows[1], callbacks=[Watch()]
    )
    trainer.train()
    before = now()
    trainer.predict(rows[1])
    return points, [before, now()]


def measure(by: str, name: str, flags: list[str]) -> dict[str, float]:
    if by == "trainer":
        cpu.keep_memory = lambda: None  # it is of the recipes alone
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        experiment = prepared(name, flags, folder)
        encoded = experiment.rows.splits["validation"].encoded
        assert encoded is not None
        points, evaluated = by_recipe(experiment) if by == "recipe" else by_trainer(experiment, folder)
        found: dict[str, float] = {"MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
        for place, clock in enumerate(("wall", "processor")):
            spent = np.subtract(points[-1], points[WARMING - 1])
            found[f"train, {clock}"] = spent[2] / spent[place]
            found[f"measure, {clock}"] = len(encoded) / (evaluated[1][place] - evaluated[0][place])
        return found


def random_model(case: str, folder: Path) -> list[str]:
    """The flag for one of the family that a case trains."""
    usual = importlib.import_module(f"recipes.{case}").RUN.model
    family = dict(pairwise(CASES[case])).get("--model", usual).removeprefix("tiny:")
    random_models.write(folder / family, family, layers=6, hidden_size=384)
    return ["--model", str(folder / family)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=[*CASES])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--random", action="store_true", help="random weights with dropout, in the shape of MiniLM")
    parser.add_argument("--json", type=Path, help="a file to which each measurement is added, a line each")
    parser.add_argument("--by", choices=("recipe", "trainer"), help=argparse.SUPPRESS)
    asked, flags = parser.parse_known_args()
    flags += ["--precision", asked.precision, "--threads", str(len(os.sched_getaffinity(0)))]
    if asked.by:
        print(json.dumps(measure(asked.by, asked.cases[0], flags)))
        return
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": len(os.sched_getaffinity(0)),
        "precision": asked.precision,
        "torch": torch.__version__,
    }
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    names = [f"{what}, {clock}" for what in ("train", "measure") for clock in ("wall", "processor")]
    print(f"| recipe | {' | '.join(names)} | MiB |\n|{' --- |' * (len(names) + 2)}", flush=True)
    folder = tempfile.TemporaryDirectory()
    for case in asked.cases:
        found: dict[str, list[dict[str, float]]] = {"recipe": [], "trainer": []}
        model = random_model(case, Path(folder.name)) if asked.random else []
        for _ in range(asked.rounds):
            for by, measured in found.items():
                words = [sys.executable, "-m", "tests.benchmarks.speed", "--by", by, "--cases", case, *flags, *model]
                measured.append(json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout))
                if asked.json:
                    with asked.json.open("a") as file:
                        file.write(
                            json.dumps({"case": case, "flags": flags, "by": by, **machine, **measured[-1]}) + "\n"
                        )
        cells = []
        for name in names:
            ratios = [ours[name] / other[name] for ours, other in zip(found["recipe"], found["trainer"], strict=True)]
            cells.append(f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        peaks = [f"{np.median([each['MiB'] for each in measured]):.0f}" for measured in found.values()]
        print(f"| `{' '.join([case, *CASES[case]])}` | {' | '.join(cells)} | {' / '.join(peaks)} |", flush=True)


if __name__ == "__main__":
    main()
