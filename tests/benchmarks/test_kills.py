"""Runs that are killed again and again, wherever they are, against uninterrupted ones.

    TL_HUB_BENCHMARKS=1 OMP_NUM_THREADS=1 pytest tests/benchmarks/test_kills.py -s

Each run is killed (SIGKILL) ten times, at seeded moments, and goes on with --resume. It must end with the same bytes of
weights, the same figures and the same log: with dropout, accumulation, and masks that are drawn. The uninterrupted run
of pretraining begins at the first kill of the other one, as tokenizers are not trained to the same numbers twice. The
feature recipes, which make no steps, begin again and find the vectors that they have read.
"""

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.hub_server import WRITE, HubServer, Repo
from tests.publishing.runs import environment
from tl_hub import run_folder, samples, state_folders
from tl_hub.publishing.commits import SENT
from tl_hub.record import RunRecord

pytestmark = pytest.mark.skipif(not os.environ.get("TL_HUB_BENCHMARKS"), reason="slow: set TL_HUB_BENCHMARKS=1")

KILLS, STEPS = 10, 36
FEW = (
    "--validation_rows", "6", "--test_rows", "6", "--epochs", "3", "--max_steps", str(STEPS), "--batch_size", "4",
    "--accumulation", "2", "--precision", "fp32", "--checkpoint_minutes", "0.00001", "--seed", "3", "--threads", "1",
)  # fmt: skip
ROWS, TEXTS = ("--train_rows", "96"), ("--train_rows", "44", "--max_length", "64")
STREAM = ("--streaming", "96", "--max_length", "64")
"""Of each, three epochs are 36 steps or a few more. Of a stream they are other rows each, of a file of 70 texts."""
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
    ("continued_pretraining_adapter", "tiny:bert", STREAM),
    ("text_generation_finetune", "gpt2", STREAM),
    ("pretraining", None, ("--model_type", "t5", *NEW, *STREAM)),
]


def result(folder: Path) -> tuple[dict[str, str], list[float], list[dict[str, float]]]:
    """Hashes of the weights, the figures of the card, and what the log says of each step but for its speed."""
    weights = [file for name in ("model*", "adapter_model", "head") for file in folder.glob(f"{name}.safetensors")]
    assert weights
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in weights}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    steps = [{name: figure for name, figure in line.items() if name != "rows_per_second"} for line in log]
    return hashes, [metric.value for metric in RunRecord.load(folder).metrics], steps


@pytest.mark.parametrize(
    ("number", "name", "family", "flags"),
    [pytest.param(number, *run, id=f"{run[0]}-{number}") for number, run in enumerate(RUNS)],
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(forks, checkpoint_folders, tmp_path, number, name, family, flags):
    embedded = family and family.startswith("tiny:")
    base = ("--model", family if embedded else str(checkpoint_folders(family))) if family else ()
    if "--streaming" in flags:
        texts = tmp_path / "texts.jsonl"
        texts.write_text("".join(json.dumps(row) + "\n" for row in samples.load("text")["train"][:70]))
        flags = (*flags, "--train_file", texts)
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
    print(f"\n{name} {' '.join(map(str, flags[:2]))}: killed {killed} times ({', '.join(where)})")
    assert result(cut) == result(tmp_path / "whole")


@pytest.mark.parametrize("name", ["qa_features", "sentiment_features", "summarization_features"])
def test_features_that_are_killed_end_as_ones_that_are_not(forks, checkpoint_folders, tmp_path, name):
    """At any moment of a run. The cache of vectors is empty at every other start, and then as the kill left it."""
    random, killed, lasts = np.random.default_rng(len(name)), 0, 0.0
    flags = ("--model", checkpoint_folders("bert"), "--train_rows", "96", *FEW[:4], "--threads", "1", "--output_dir")
    whole = forks(name, *flags, tmp_path / "whole", TL_HUB_CACHE=str(tmp_path / "cache"))
    assert whole.returncode == 0, whole.stderr
    while killed < KILLS // 2:
        cut, cache = tmp_path / f"cut-{killed}", str(tmp_path / f"cache-{killed // 2}")
        began = time.monotonic()
        end = began + random.uniform(0, lasts or 60)
        ended = forks(name, *flags, cut, kill_when=lambda end=end: time.monotonic() > end, TL_HUB_CACHE=cache)
        lasts = time.monotonic() - began if ended.returncode == 0 else lasts
        killed += ended.returncode == -9
        if ended.returncode == 0:
            shutil.rmtree(cut)
    for folder in (cut, tmp_path / "anew"):  # with what the killed ones left, in the folder and in the cache
        free = not folder.exists() or run_folder.holds_nothing_of_use(folder)
        over = () if free else ("--overwrite",)
        again = forks(name, *flags, folder, *over, TL_HUB_CACHE=cache)
        assert again.returncode == 0, again.stderr
        assert result(folder) == result(tmp_path / "whole")
    print(f"\n{name}: killed {killed} times")


def test_a_run_that_is_killed_while_it_publishes_ends_as_one_that_is_not(hub, run_script, checkpoint_folders, tmp_path):
    """Each request takes 50 ms, in or between which a run is killed. Every commit is one that the other run made."""
    random, killed, where = np.random.default_rng(0), 0, list[str]()
    name = "continued_pretraining_finetune"
    flags = (
        "--model", checkpoint_folders("bert"), "--license", "mit", *FEW, *TEXTS, "--push_every", "1", "--push_to",
    )  # fmt: skip
    hub.fail("(POST|PUT|DELETE) ", "slow", seconds=0.05, count=10**6)
    whole = tmp_path / "whole" / "run"
    ended = run_script(name, *flags, "alice/whole", "--output_dir", whole, here="all")
    assert ended.returncode == 0, ended.stderr
    expected = pushed(hub.model("alice/whole"), tmp_path)
    assert len(expected) == 3
    for number in itertools.count():
        repo, machine, done = f"alice/cut-{number}", 0, False
        while not done:
            elsewhere = random.random() < 0.3 and holds_a_state(hub, repo)
            machine += elsewhere
            cut = tmp_path / f"cut-{number}-{machine}" / "run"
            go_on = ["--resume", f"hub:{repo}"] if elsewhere else ["--resume"] if states(cut) else []
            last = writes(hub.log) + int(random.integers(1, 14))
            delay, since = random.uniform(0, 0.1), None

            def due(last: int = last, delay: float = delay) -> bool:
                nonlocal since
                if since is None and writes(hub.log) >= last:
                    since = time.monotonic()
                return since is not None and time.monotonic() - since > delay

            ended = run_script(
                name, *flags, repo, "--output_dir", cut, *go_on, here="all",
                kill_when=due if killed < KILLS else None,
            )  # fmt: skip
            done = ended.returncode == 0
            assert done or ended.returncode == -9, ended.stderr
            killed += not done
            where += [] if done else [re.sub(r"/alice/[^/ ]*|/api/|models/?|\?.*", "", hub.log[-1])]
        assert result(cut) == result(whole)
        assert pushed(hub.model(repo), tmp_path) <= expected
        assert hub.model(repo).ref("training-state") is None
        if killed == KILLS:
            break
    verified = subprocess.run(
        [sys.executable, "-m", "tl_hub.command", "verify", repo],
        env={**os.environ, **environment(hub.url, WRITE, tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert verified.returncode == 0, verified.stderr
    print(f"\n--push_every: killed {killed} times ({', '.join(where)}) in {number + 1} runs")


def holds_a_state(hub: HubServer, repo: str) -> bool:
    there = hub.repos.get(("model", repo))
    return bool(there and there.ref("training-state") and "checkpoint/hashes.json" in there.at("training-state").files)


def pushed(repo: Repo, scratch: Path) -> set[tuple[str, str]]:
    """Weights and figures of each commit with a model. Of each with a training state, all of it belongs together."""
    found = set()
    for commit in repo.commits.values():
        files = {path: file.content for path, file in commit.files.items()}
        if SENT in files:
            assert set(json.loads(files[SENT])["files"]) <= set(files)
        if "model.safetensors" in files:
            figures = json.dumps([metric["value"] for metric in json.loads(files["run.json"])["metrics"]])
            found.add((hashlib.sha256(files["model.safetensors"]).hexdigest(), figures))
        if "checkpoint/history.json" in files:
            shutil.rmtree(scratch / "state", ignore_errors=True)
            (scratch / "state" / "checkpoint").mkdir(parents=True)
            for path in (path for path in files if path.startswith("checkpoint/")):
                (scratch / "state" / path).write_bytes(files[path])
            state_folders.find(scratch / "state")
            step = json.loads(files["checkpoint/history.json"])["step"]
            assert files["log.jsonl"].count(b"\n") >= step and "tokenizer.json" in files
    return found


def writes(requests: list[str]) -> int:
    return sum(not request.startswith(("GET", "HEAD")) for request in requests)


def states(folder: Path) -> list[Path]:
    return [*folder.glob("checkpoint/hashes.json"), *folder.glob("checkpoint.new/hashes.json")]


def length(folder: Path) -> int:
    log = folder / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def place(folder: Path) -> str:
    """What a kill interrupted, as far as the folder tells."""
    if (folder / "checkpoint.new").exists():
        return f"saving at {length(folder)}"
    if length(folder) < STEPS:
        return f"step {length(folder)}"
    kept = json.loads(states(folder)[0].with_name("history.json").read_text())
    return "the end" if kept["step"] == STEPS else "last evaluation"
