"""Runs that are killed again and again, in training, saving, evaluation and at the end, against uninterrupted ones.

    TL_HUB_BENCHMARKS=1 OMP_NUM_THREADS=1 pytest tests/benchmarks/test_kills.py -s

Each run is killed (SIGKILL) ten times, at seeded moments, and goes on with --resume. It must end with the same bytes of
weights and the same figures: with dropout, accumulation, and masks that are drawn. The uninterrupted run of pretraining
begins at the first kill of the other one, as tokenizers are not trained to the same numbers twice.
"""

import hashlib
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tl_hub.record import RunRecord

pytestmark = pytest.mark.skipif(not os.environ.get("TL_HUB_BENCHMARKS"), reason="slow: set TL_HUB_BENCHMARKS=1")

KILLS, STEPS = 10, 36
FEW = (
    "--validation_rows", "6", "--test_rows", "6", "--epochs", "3", "--max_steps", str(STEPS), "--batch_size", "4",
    "--accumulation", "2", "--precision", "fp32", "--checkpoint_minutes", "0.00001", "--seed", "3", "--threads", "1",
)  # fmt: skip
ROWS, TEXTS = ("--train_rows", "96"), ("--train_rows", "44", "--max_length", "64")
"""Of either, three epochs are 36 steps or a few more."""
NEW = ("--layers", "1", "--hidden_size", "16", "--heads", "2", "--intermediate_size", "32", "--vocab_size", "400")
RUNS = [
    ("qa_finetune", "bert", ROWS),
    ("qa_adapter", "xlnet", ("--dropout", "0.1", "--method", "dora", *ROWS)),
    ("sentiment_finetune", "gpt2", ROWS),
    ("sentiment_adapter", "bert", ROWS),
    ("document_classification_finetune", "xlnet", ("--max_length", "96", *ROWS)),
    ("document_classification_adapter", "t5", ("--max_length", "96", *ROWS)),
    ("ner_finetune", "bert", ROWS),
    ("ner_adapter", "bert", ROWS),
    ("summarization_finetune", "t5", ("--max_target_length", "16", *ROWS)),
    ("summarization_adapter", "gpt2", ("--max_target_length", "16", *ROWS)),
    ("translation_finetune", "tiny:t5", ("--max_target_length", "16", *ROWS)),
    ("translation_adapter", "tiny:t5", ("--max_target_length", "16", *ROWS)),
    ("text_generation_finetune", "gpt2", TEXTS),
    ("text_generation_adapter", "gpt2", TEXTS),
    ("continued_pretraining_finetune", "bert", TEXTS),
    ("continued_pretraining_adapter", "tiny:bert", TEXTS),
    ("pretraining", None, ("--model_type", "bert", *NEW, *TEXTS)),
    ("pretraining", None, ("--model_type", "gpt2", *NEW, *TEXTS)),
    ("pretraining", None, ("--model_type", "t5", *NEW, *TEXTS)),
    ("pretraining", None, ("--model_type", "xlnet", *NEW, *TEXTS)),
]


def result(folder: Path) -> tuple[dict[str, str], list[float]]:
    """Hashes of the weights, and the figures of the card."""
    weights = sorted([*folder.glob("model*.safetensors"), *folder.glob("adapter_model.safetensors")])
    assert weights
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in weights}
    return hashes, [metric.value for metric in RunRecord.load(folder).metrics]


@pytest.mark.parametrize(
    ("number", "name", "family", "flags"),
    [pytest.param(number, *run, id=f"{run[0]}-{number}") for number, run in enumerate(RUNS)],
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(forks, checkpoint_folders, tmp_path, number, name, family, flags):
    embedded = family and family.startswith("tiny:")
    base = ("--model", family if embedded else str(checkpoint_folders(family))) if family else ()
    cut, random = tmp_path / "cut", np.random.default_rng(number)
    killed, where, begun = 0, list[str](), False
    while True:
        last = min(STEPS, length(cut) + int(random.integers(1, 9)))
        delay, since = random.uniform(0, 0.1 if last < STEPS else 1.0), None

        def due(last: int = last, delay: float = delay) -> bool:
            """Some time after a step, of which the state may be saved then; after the last one comes all the rest."""
            nonlocal since
            if since is None and length(cut) >= last:
                since = time.monotonic()
            if name == "pretraining" and not states(cut):
                return False  # begun anew, it trains another tokenizer
            return since is not None and time.monotonic() - since > delay

        again = "--resume" if states(cut) else "--overwrite"
        ended = forks(
            name, *base, *FEW, *flags, "--output_dir", cut, *([again] if begun else []),
            kill_when=due if killed < KILLS else None,
        )  # fmt: skip
        begun = cut.exists()
        if ended.returncode == 0:
            break
        assert ended.returncode == -9, ended.stderr
        killed += 1
        where.append(place(cut))
        if name == "pretraining" and killed == 1:
            shutil.copytree(cut, tmp_path / "whole")
    whole = forks(
        name, *base, *FEW, *flags, "--output_dir", tmp_path / "whole",
        *(["--resume"] if name == "pretraining" else []),
    )  # fmt: skip
    assert whole.returncode == 0, whole.stderr
    print(f"\n{name} {' '.join(flags[:2])}: killed {killed} times ({', '.join(where)})")
    assert result(cut) == result(tmp_path / "whole")


def states(folder: Path) -> list[Path]:
    return [*folder.glob("checkpoint/hashes.json"), *folder.glob("checkpoint.new/hashes.json")]


def length(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def place(folder: Path) -> str:
    """What a kill interrupted, as far as the folder tells."""
    if (folder / "checkpoint.new").exists():
        return f"saving at {length(folder)}"
    return f"step {length(folder)}"
