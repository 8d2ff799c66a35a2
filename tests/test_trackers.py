"""What experiment trackers get, read back from a real TensorBoard."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.test_training import TASK, go, interrupt_after, interrupting, log  # noqa: F401 (a fixture of each module)
from tl_hub import launch, run_folder, trackers
from tl_hub.config import RunConfig
from tl_hub.data import Data
from tl_hub.errors import RunStopped, UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.fine_tune import FineTune


@pytest.fixture
def run(tmp_path, checkpoint_folders) -> RunConfig:
    return RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), train_rows=40, validation_rows=8,
        test_rows=16, epochs=2, batch_size=4, learning_rate=1e-3, precision="fp32", report_to="tensorboard",
    )  # fmt: skip


def scalars(folder: str) -> dict[str, dict[int, float]]:
    """Tag -> step -> value, as TensorBoard reads them from the files of all processes and starts."""
    events = EventAccumulator(str(Path(folder, "tracking", "tl_hub")), size_guidance={"scalars": 0}).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


@pytest.mark.slow
def test_tensorboard_shows_what_log_jsonl_holds(run):
    _, history, _ = go(run)
    shown = scalars(run.output_dir)
    for name in ("loss", "learning_rate", "grad_norm", "rows_per_second"):
        logged = {line["step"]: line[name] for line in log(run)}
        assert shown[f"train/{name}"] == pytest.approx(logged, rel=1e-5), name
    assert shown["epoch"] == pytest.approx({line["step"]: line["epoch"] for line in log(run)}, rel=1e-5)
    assert shown["validation/f1"] == pytest.approx({e["step"]: e["f1"] for e in history.epochs}, rel=1e-5)


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_curves(run, tmp_path):
    """A step that was lost when a process was killed is shown once: as it was done again."""
    folder = Path(run.output_dir)
    interrupt_after(run, 3)
    with pytest.raises(RunStopped):
        go(run)
    shutil.copytree(folder / run_folder.STATE, tmp_path / "state")
    interrupt_after(run, len(log(run)) + 4)
    with pytest.raises(RunStopped):
        go(replace(run, resume=True))
    first_time = scalars(run.output_dir)["train/loss"]
    shutil.rmtree(folder / run_folder.STATE)
    shutil.copytree(tmp_path / "state", folder / run_folder.STATE)
    _, history, _ = go(replace(run, resume=True, learning_rate=2e-3))
    shown = scalars(run.output_dir)["train/loss"]
    assert list(shown) == list(range(1, history.step + 1))
    assert shown == pytest.approx({line["step"]: line["loss"] for line in log(run)}, rel=1e-5)
    assert shown[max(first_time)] != first_time[max(first_time)], "the curve before the second start is hidden"


@pytest.mark.slow
def test_a_tracker_gets_the_settings_that_are_published_and_no_path(run, tmp_path):
    go(replace(run, max_steps=1, license="mit", push_to="alice/secret-project"))
    tracking = Path(run.output_dir, run_folder.TRACKING)
    sent = b"".join(path.read_bytes() for path in tracking.rglob("*") if path.is_file())
    (settings,) = (yaml.safe_load(path.read_text()) for path in tracking.rglob("hparams.yml"))
    assert settings["batch_size"] == 4 and settings["data"] == "sample:qa" and settings["method"] == "fine-tuning"
    assert str(tmp_path).encode() not in sent and b"secret-project" not in sent


@pytest.mark.parametrize(("source", "says"), [("hf_" + "a" * 34 + ".csv", "a secret"), ("/home/ann/a.csv", "a path")])
def test_a_setting_that_holds_a_secret_or_a_path_is_refused(tmp_path, source, says):
    run = RunConfig(output_dir=str(tmp_path), report_to="tensorboard", patience=0)
    experiment = Experiment(run, TASK, FineTune(), None, Data({}, source, "local"), None, None, launch.start(run))
    with pytest.raises(UserError, match=f"what --report_to sends holds .*{says}"), trackers.reporting(experiment, 0):
        pass
    assert not any(tmp_path.iterdir())


def test_only_a_known_tracker_whose_package_is_there_is_taken(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="--report_to tensorboard,w: 'w' is not one of tensorboard, trackio, wandb"):
        RunConfig(report_to="tensorboard,w")
    (tmp_path / "wandb").mkdir()  # as wandb leaves behind; Python would import it
    monkeypatch.syspath_prepend(tmp_path)
    run = RunConfig(output_dir=str(tmp_path / "run"), report_to="tensorboard,wandb")
    with pytest.raises(UserError, match="--report_to wandb: its package is not installed; run pip install wandb"):
        launch.check(run, FineTune())


def test_mlflow_from_its_smaller_package_is_taken(tmp_path, monkeypatch):
    """Its distribution is called mlflow-skinny."""
    for name, text in {"mlflow/__init__.py": "", "mlflow_skinny-3.0.dist-info/top_level.txt": "mlflow\n"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    (tmp_path / "mlflow_skinny-3.0.dist-info" / "METADATA").write_text("Name: mlflow-skinny\nVersion: 3.0\n")
    run = RunConfig(output_dir=str(tmp_path / "run"), report_to="mlflow")
    with pytest.raises(UserError, match="mlflow: its package is not installed"):
        trackers.check(run)
    monkeypatch.syspath_prepend(tmp_path)
    trackers.check(run)
