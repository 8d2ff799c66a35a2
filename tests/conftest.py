"""Small checkpoints of all families, made once a session, and a process environment without a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported, which reads it once
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # or its threads spin beside those of the other workers of pytest
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # or waiting threads take the cores from the processes that tests start

import gc

gc.disable()  # until all is imported: the collector would look at a million objects again and again

import contextlib
import json
import runpy
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.forks import STACK, UNDER_THE_STACK, Forks
from tests.hub_server import WRITE, HubServer
from tests.publishing.runs import environment
from tl_hub import verification
from tl_hub.on_use import accelerate, datasets, torch, transformers  # the process that only starts workers uses none

# The same examples each time, and none kept on the disk: what passes here passes anywhere.
hypothesis.settings.register_profile("tl_hub", derandomize=True, database=None, deadline=None, max_examples=200)
hypothesis.settings.load_profile("tl_hub")

ROOT = Path(__file__).parent.parent
TOKENIZERS = Path(__file__).parent / "tokenizers"
"""Trained once, by `train_new_from_iterator` with 600 pieces on every fifth context of sample:qa and a Korean sentence:
ties between pieces are broken otherwise in each process, and with them every figure of a model made for a test."""
SHARED_DATA = ROOT.parent / "shared" / "data"

IMPORTED = [0]
"""Modules that there were when garbage was last collected from all that there is."""

# Fixtures of tests that train a model, start a process or push.
SLOW_FIXTURES = {
    "load_back_here", "script_here", "recipe", "forks", "forks_of_any_hub", "run_script", "push", "hub", "server",
}  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """A core for each worker: how many threads train, and so how they round, is not to depend on the other workers."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    starts_workers = config.getoption("numprocesses", None) and "PYTEST_XDIST_WORKER" not in os.environ
    if hasattr(os, "sched_setaffinity") and not starts_workers:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of such fixtures are `slow`, which `make quick` leaves out; other slow ones say so themselves."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    # A name for what `map` makes, if it wrote a file. The hash of T5's tokenizer, which is in it, takes a second.
    for module in (datasets.fingerprint, datasets.arrow_dataset):
        module.update_fingerprint = lambda *_: datasets.fingerprint.generate_random_fingerprint()
    gc.enable()


@pytest.fixture(autouse=True)
def imported_for_good() -> None:
    """Leave what is imported to itself: a run collects garbage many times, each half a second if it looks there too."""
    if len(sys.modules) > IMPORTED[0] + 50:
        gc.collect()
        gc.freeze()
        IMPORTED[0] = len(sys.modules)


@pytest.fixture(scope="session")
def checkpoint_folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a randomly initialised checkpoint (base model, no head) with a tokenizer of the samples."""
    root = tmp_path_factory.mktemp("checkpoints")

    def folder(family: str) -> Path:
        path = root / family
        if not path.exists():
            torch.manual_seed(0)
            tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZERS / family)
            ids = {"pad_token_id": tokenizer.pad_token_id, "vocab_size": len(tokenizer)}
            wide = {"initializer_range": 0.1}  # or, of so small a model, all texts would have nearly the same vector
            sizes: Any = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
            # RoBERTa's positions begin behind the padding token's id, which is 1 in the published ones, of 514 rows.
            own = {"max_position_embeddings": 513 + (tokenizer.pad_token_id or 0), "type_vocab_size": 1}
            config: Any = {
                "bert": lambda: transformers.BertConfig(**sizes, **ids, **wide),
                "roberta": lambda: transformers.RobertaConfig(**own, **sizes, **ids, **wide),
                "xlm-roberta": lambda: transformers.XLMRobertaConfig(**own, **sizes, **ids, **wide),
                "distilbert": lambda: transformers.DistilBertConfig(
                    dim=32, n_layers=2, n_heads=2, hidden_dim=64, **ids, **wide
                ),
                "gpt2": lambda: transformers.GPT2Config(
                    n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, **ids, **wide
                ),
                "t5": lambda: transformers.T5Config(
                    d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0, **ids
                ),
                "xlnet": lambda: transformers.XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=64, **ids, **wide),
            }[family]()
            transformers.AutoModel.from_config(config).save_pretrained(path)
            tokenizer.save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="session")
def checkpoints(checkpoint_folders: Callable[[str], Path]) -> Callable[[str, str], tuple[Any, Any]]:
    """Model with the head of an auto class, and tokenizer, of a small checkpoint."""

    def load(family: str, auto_class: str) -> tuple[Any, Any]:
        path = checkpoint_folders(family)
        torch.manual_seed(0)
        model = getattr(transformers, auto_class).from_pretrained(path)
        return model, transformers.AutoTokenizer.from_pretrained(path)

    return load


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """A process has one accelerator state; a run has a process. Tests that share theirs start it anew."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def check_here(folder: Path, offline: bool = True, *, snippets: bool = True) -> dict[str, Any]:
    """`verification.check` without its fresh process, which takes longer than all else."""
    from tl_hub import load_back  # it imports torch

    with contextlib.chdir(folder):
        report = load_back.report(snippets)
    if "error" in report:
        raise verification.Mismatch(f"load-back of {folder} failed: {report['error']}", exit_code=1)
    return report


@pytest.fixture
def load_back_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load back by `check_here`. At least one test of each kind of result starts the fresh process."""
    monkeypatch.setattr(verification, "check", check_here)


def load_back_by(forks: Forks, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `verification.check` start forks, in which nothing has happened yet, for processes that import all anew."""

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert words[1:4] == ["-P", "-m", "tl_hub.load_back"]
        return forks.code("from tl_hub import load_back; load_back.main()", *words[4:], here="none")

    monkeypatch.setattr(verification, "subprocess", types.SimpleNamespace(run=run, DEVNULL=subprocess.DEVNULL))


@pytest.fixture
def load_back_in_a_fork(monkeypatch: pytest.MonkeyPatch, forks: Forks) -> None:
    """Load back by `verification.check` itself, in a fork."""
    load_back_by(forks, monkeypatch)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch, load_back_here: None) -> list[list[str]]:
    """The command lines of the recipes that others begin, which run in this process."""
    from tl_hub.study import runs  # the process that only starts workers uses none

    found: list[list[str]] = []

    def run(words: list[str], out: Any) -> int:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        found.append(words)
        with monkeypatch.context() as within, contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end:
            within.setattr(sys, "argv", [*words])
            runpy.run_path(words[0], run_name="__main__")
        return int(end.value.code or 0)

    monkeypatch.setattr(runs, "in_a_process", run)
    return found


@pytest.fixture
def script_here(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in this process, where its own is not what is tested: the imports of one take eight seconds."""

    def run(path: str, *arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
        accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        with monkeypatch.context() as within:
            within.setattr(sys, "argv", [path, *map(str, arguments)])
            for name, value in environment.items():
                within.setenv(name, value)
            capfd.readouterr()
            with pytest.raises(SystemExit) as end:
                runpy.run_path(str(ROOT / path), run_name="__main__")
        return subprocess.CompletedProcess(sys.argv, int(end.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def recipe_here(script_here: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """As `recipe`, in this process."""
    return lambda name, *arguments, **environment: script_here(f"recipes/{name}.py", *arguments, **environment)


@pytest.fixture(scope="session")
def without_dropout(checkpoint_folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """As `checkpoint_folders`, of models that compute in training what they compute in evaluation."""
    root = tmp_path_factory.mktemp("without_dropout")

    def folder(family: str) -> Path:
        if not (root / family).exists():
            shutil.copytree(checkpoint_folders(family), root / family)
            file = root / family / "config.json"
            config = json.loads(file.read_text())
            off = {name: 0.0 for name in config if "dropout" in name or name.endswith("_pdrop")}
            assert off
            file.write_text(json.dumps(config | off))
        return root / family

    return folder


@pytest.fixture(scope="session")
def recipe() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a recipe in a process of its own, as a user would, from the root of the project."""

    def run(name: str, *arguments: str, launcher: tuple[str, ...] = (sys.executable,), **environment: str) -> Any:
        return subprocess.run(
            [*launcher, f"recipes/{name}.py", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


@pytest.fixture(scope="session")
def forks(forks_of_any_hub: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Run a script or a recipe in a process of its own, for which all is imported already. The Hub is out of reach."""
    forks = Forks(tmp_path_factory.mktemp("forks"), STACK, forks_of_any_hub)
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> None:
    """No test meets what another has the Hub do."""
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults.clear()


@pytest.fixture(scope="session")
def run_script(hub: HubServer, forks_of_any_hub: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """As `forks`, with `hub` for the Hub."""
    folder = tmp_path_factory.mktemp("forks")
    forks = Forks(folder, STACK, forks_of_any_hub, **environment(hub.url, WRITE, folder / "home"))
    yield forks
    forks.close()


@pytest.fixture(scope="session")
def forks_of_any_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """As `forks`, where each names its Hub, and imports the client, transformers, peft and tl_hub itself."""
    forks = Forks(tmp_path_factory.mktemp("forks"), UNDER_THE_STACK)
    yield forks
    forks.close()
