"""The start of a run against other processes: who may write into a folder, and who knows of whom."""

import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import Accelerator

from tests.conftest import ROOT
from tl_hub import launch, state_folders
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.methods.fine_tune import FineTune

HOLDER = """
import sys
from tl_hub import launch
from tl_hub.config import RunConfig
launch._lock(RunConfig(output_dir=sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_folder_takes_one_run_at_a_time_and_a_killed_one_leaves_it_free(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
        launch._lock(RunConfig(output_dir="other"))
        for run in (RunConfig(output_dir="run"), RunConfig(output_dir="x/../run", overwrite=True)):
            with pytest.raises(UserError, match="another run is writing there; wait for its end"):
                launch._lock(run)
    finally:
        holder.kill()
        holder.wait()
    launch._lock(RunConfig(output_dir="run"))
    launch._lock(RunConfig(output_dir="run"))  # the next run of this process, as in a notebook
    assert list(tmp_path.iterdir()) == [], "a lock is no file of the run's"


def test_a_run_that_ended_while_this_one_read_its_data_is_not_lost(tmp_path):
    run = RunConfig(output_dir=str(tmp_path / "run"))
    launch._lock(run)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UserError, match="holds another run"):
        launch._lock(run)


def test_a_state_is_fetched_where_none_is_here(tmp_path):
    """And never over one that is: it may be of later steps. No Hub can be reached here."""
    run = RunConfig(output_dir=str(tmp_path / "run"), resume="hub:someone/run")
    for _ in range(2):  # without the folder, and with an empty one
        with pytest.raises((UserError, RunStopped), match="someone/run"):
            launch._find_state(run)
        (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "run" / "checkpoint" / "history.json").write_text("{}")
    state_folders.seal(tmp_path / "run" / "checkpoint")
    launch._find_state(run)
    assert {path.name for path in (tmp_path / "run").rglob("*")} == {"checkpoint", "history.json", "hashes.json"}


def test_a_check_of_a_run_that_would_go_on_touches_no_state(tmp_path):
    """A state that was damaged since is not put aside before somebody means to go on."""
    for name in ("checkpoint", "checkpoint.1"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "history.json").write_text('{"step": 3}')
        state_folders.seal(tmp_path / "run" / name)
    (tmp_path / "run" / "checkpoint" / "history.json").write_text("{")
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    launch._take_folder(RunConfig(output_dir=str(tmp_path / "run"), resume=True, check=True))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
    assert "of step 3" in str(state_folders.recover(tmp_path / "run", keep=1))


def test_processes_that_work_apart_are_refused(monkeypatch, capsys):
    accelerator = Accelerator(cpu=True)
    launch._check_processes(accelerator)
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="2 processes .* do not know of each other.* torchrun --nproc_per_node 2 "):
        launch._check_processes(accelerator)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed does not work with the recipes"),
        ({"ACCELERATE_USE_FSDP": "true"}, "FSDP 1 does not work with the recipes"),
        (
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "True"},
            "fsdp_cpu_ram_efficient_loading must be false",
        ),
    ],
)
def test_engines_that_the_recipes_cannot_train_with_are_refused(tmp_path, monkeypatch, settings, said):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{said}.*--config_file recipes/launch/fsdp2.yaml"):
        launch.check(RunConfig(output_dir=str(tmp_path / "run")), FineTune())


@pytest.mark.slow
def test_accelerate_that_starts_fewer_processes_than_asked_is_told(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "from accelerate import Accelerator\nfrom tl_hub import launch\nlaunch._check_processes(Accelerator())\n"
    )
    accelerate = str(Path(sys.executable).with_name("accelerate"))
    words = [accelerate, "launch", "--cpu", "--num_processes", "2", str(script)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    assert "note: accelerate launch started one process, not 2. On CPUs: ACCELERATE_USE_CPU=true" in done.stdout
    assert "torchrun --nproc_per_node 2 mine.py" in done.stdout


def unfinished(folder: Path) -> RunConfig:
    """What a run leaves that was killed while it saved its first state."""
    for name in ("checkpoint.new/weights.safetensors", "tracking/tl_hub/events.1", "log.jsonl", "tokenizer.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('{"step": 1.0}' if name == "log.jsonl" else "")
    return RunConfig(output_dir=str(folder))


@pytest.mark.parametrize(
    "kept",
    ["run.json", "model.safetensors", "thesis.tex", "seed_2/log.jsonl", "checkpoint/history.json",
     "checkpoint.1/history.json", "checkpoint.new/hashes.json"],
)  # fmt: skip
def test_what_a_run_kept_and_what_is_of_no_run_stays(tmp_path, kept):
    run = unfinished(tmp_path)
    launch.check(run, FineTune())
    (tmp_path / kept).parent.mkdir(exist_ok=True)
    (tmp_path / kept).write_text("{}")
    with pytest.raises(UserError, match="holds another run") as refusal:
        launch.check(run, FineTune())
    assert ("--resume goes on with it" in str(refusal.value)) == kept.startswith("checkpoint"), "only with a state"


def test_a_log_or_a_tokenizer_of_somebody_stays(tmp_path):
    run = unfinished(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"time": 1}')
    with pytest.raises(UserError, match="holds another run"):
        launch.check(run, FineTune())
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(UserError, match="holds another run"):
        launch.check(run, FineTune())


def test_a_run_that_kept_nothing_needs_no_flag_to_begin_anew(tmp_path, forks):
    run = RunConfig(output_dir=str(tmp_path / "run"))
    log = Path(run.output_dir, "log.jsonl")
    killed = forks(
        "sentiment_finetune", "--output_dir", run.output_dir, kill_when=lambda: log.exists() and log.stat().st_size
    )
    assert killed.returncode == -9 and log.with_name("tokenizer.json").exists()
    launch.check(run, FineTune())
    launch._take_folder(run)
