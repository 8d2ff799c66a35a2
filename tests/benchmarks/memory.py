"""How much memory a run takes by the number of its rows: python -m tests.benchmarks.memory [ROWS ...]

For each task, a process trains three steps of an embedded model on so many short rows of a generated file, and measures
100 others. Prints a table, in MiB: the most memory that each process had for itself beyond what its imports take
(anonymous pages, looked at every 10 ms, on Linux); and in brackets, with these and all that it had mapped
(`ru_maxrss`), which holds pages of files that the system takes back when it needs room. `--tasks` names some tasks.
"""

import argparse
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SENTENCE = "the river rises in the hills and ends in the sea where a baker sells bread"
TAGS = ["B-number", *["O"] * len(SENTENCE.split())]


def _question(i: int) -> dict[str, Any]:
    answers = {"text": [str(i)], "answer_start": [0]}
    return {"question": "Which number comes first?", "context": f"{i} {SENTENCE}", "answers": answers}


TASKS: dict[str, tuple[str, str, Callable[[int], dict[str, Any]]]] = {
    "classification": ("sentiment_finetune", "bert", lambda i: {"text": f"{i} {SENTENCE}", "label": "ab"[i % 2]}),
    "entities": ("ner_finetune", "bert", lambda i: {"tokens": f"{i} {SENTENCE}".split(), "tags": TAGS}),
    "questions": ("qa_finetune", "bert", _question),
    "summarization": (
        "summarization_finetune",
        "t5",
        lambda i: {"text": f"{i} {SENTENCE}. The end.", "summary": f"{i} ends"},
    ),
    "translation": (
        "translation_finetune",
        "t5",
        lambda i: {"translation": {"en": f"{i} {SENTENCE}", "de": f"{i} und Brot"}},
    ),
    "text generation": ("text_generation_finetune", "gpt2", lambda i: {"text": f"{i} {SENTENCE}"}),
    "masked language modelling": ("pretraining", "bert", lambda i: {"text": f"{i} {SENTENCE}"}),
    "frozen vectors": ("sentiment_features", "bert", lambda i: {"text": f"{i} {SENTENCE}", "label": "ab"[i % 2]}),
}
"""By name: recipe, family, and the row of a number."""


def run_recipe(recipe: str, *arguments: str) -> None:
    """In this process: a recipe, and then a line of JSON with the memory it took, in MiB."""
    peak = [0]

    def watch() -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.partition("RssAnon:")[2].split()[0]))
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()
    import tl_hub.training  # noqa: F401  what every recipe imports

    time.sleep(0.05)
    imported = peak[0]
    sys.argv = [recipe, *arguments]
    with suppress(SystemExit):
        runpy.run_path(f"recipes/{recipe}.py", run_name="__main__")
    whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"imports": imported / 1024, "own": peak[0] / 1024, "mapped": whole / 1024}))


def measure(name: str, rows: int, folder: Path) -> dict[str, float]:
    """What a process took that ran a task's recipe on so many rows, in MiB."""
    recipe, family, row = TASKS[name]
    for split, first, count in (("train", 0, rows), ("validation", rows, 100)):
        with open(folder / f"{split}.jsonl", "w") as file:
            file.writelines(json.dumps(row(i)) + "\n" for i in range(first, first + count))
    files = [f"--{split}_file={folder}/{split}.jsonl" for split in ("train", "validation")]
    few = [] if "features" in recipe else ["--max_steps=3", "--epochs=1"]
    command = [sys.executable, "-m", "tests.benchmarks.memory", "--recipe", recipe, f"--model=tiny:{family}", *files]
    own = {"TL_HUB_CACHE": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, *few, f"--output_dir={folder}/run", "--overwrite", "--no_examples"],
        env=os.environ | own,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def main() -> None:
    if sys.argv[1:2] == ["--recipe"]:
        run_recipe(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=int, default=[1_000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    given = parser.parse_args()
    print("| task | " + " | ".join(f"{count:,} rows" for count in given.rows) + " |")
    print("| --- |" + " --- |" * len(given.rows))
    for name in given.tasks:
        print(f"| {name} |", end="", flush=True)
        for count in given.rows:
            with tempfile.TemporaryDirectory() as folder:
                found = measure(name, count, Path(folder))
            print(f" {found['own'] - found['imports']:.0f} ({found['mapped']:.0f}) |", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
