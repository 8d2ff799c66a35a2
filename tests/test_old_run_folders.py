"""Run folders of version 1, made by the code before version 2 and kept as they were: they are read as ever.

`run_folders/v1` has one of each kind, without pictures, rows and training state; probes with the logits of a whole
vocabulary are left out for their size. An adapter's base is named, as its path was that of another machine.
"""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

import tl_hub
from tl_hub import card, evaluation, load_back, samples
from tl_hub.publishing import contents
from tl_hub.record import RunRecord
from tl_hub.tasks import catalog

FOLDERS = Path(__file__).parent / "run_folders" / "v1"
TASKS = {
    "adapter_ia3_t5_qa": "question-answering",
    "adapter_lora_bert": "text-classification",
    "adapter_prefix_gpt2": "text-classification",
    "adapter_prompt_t5_summarization": "summarization",
    "continued_bert": "masked-language-modeling",
    "continued_xlnet": "permutation-language-modeling",
    "features_bert": "text-classification",
    "features_gpt2_summarization": "extractive-summarization",
    "finetune_bert": "text-classification",
    "finetune_multilabel_gpt2": "text-classification",
    "finetune_regression_t5": "text-regression",
    "finetune_xlnet_qa": "question-answering",
    "finetune_xlnet_text": "text-generation",
    "merged_bert": "text-classification",
    "pretrained_gpt2": "causal-language-modeling",
    "pretrained_t5": "span-corruption",
}


def copied(name: str, folder: Path) -> Path:
    """A copy whose adapter's base is where it is on this machine."""
    shutil.copytree(FOLDERS / name, folder)
    config = folder / "adapter_config.json"
    if config.is_file():
        facts = json.loads(config.read_text())
        base = samples.checkpoint(facts["base_model_name_or_path"].removeprefix("tiny:"))
        config.write_text(json.dumps(facts | {"base_model_name_or_path": str(base)}))
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_a_run_folder_of_version_1_loads_and_answers_as_it_did(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(name, tmp_path / name)
    record = RunRecord.load(folder)
    assert (record.version, record.task, catalog.task_of(record)) == (1, None, TASKS[name])
    monkeypatch.chdir(folder)
    report = load_back.load_and_compare(record)
    assert "error" not in report
    if (folder / "probe.safetensors").is_file():
        probe = load_file(folder / "probe.safetensors")
        largest = max(float(probe[name].abs().max()) for name in probe if name.startswith("output."))
        assert report["max_difference"] <= 1e-5 * max(1, largest), "made on another kind of CPU"
    assert report["loaded_by"]
    stated = record.verification or {}
    assert report.get("same_output", False) == ("pipeline_output" in stated or "result" in stated)
    assert card.write(folder).read_text().count("\n## ") > 5
    sent = contents.files_of(folder, record)
    assert any(place.endswith(".safetensors") for place in sent) and "probe.safetensors" not in sent


def test_a_prefix_leaves_the_rest_of_the_window_to_the_text(tmp_path: Path) -> None:
    """The prefix takes 20 of the 384 positions: windows of the length on record would not fit beside it."""
    folder = copied("adapter_prefix_gpt2", tmp_path / "run")
    facts = json.loads((folder / "run.json").read_text())
    facts["settings"]["max_length"] = 384
    (folder / "run.json").write_text(json.dumps(facts))
    scores = tl_hub.pipeline(folder)("The road goes on. " * 200)["scores"]
    assert sum(scores.values()) == pytest.approx(1)


def test_figures_are_measured_anew_where_that_is_asked_for(load_back_here: None) -> None:
    folder = FOLDERS / "features_bert"
    assert "metrics" not in tl_hub.verify(folder)
    report = tl_hub.verify(folder, metrics=True)
    assert report["same_rows"] is True and all(metric["holds"] for metric in report["metrics"])
    found = {metric["name"]: metric["found"] for metric in report["metrics"]}
    stated = {metric.name: metric.value for metric in RunRecord.load(folder).metrics}
    assert found["accuracy"] == pytest.approx(stated["accuracy"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "adapter_prompt_t5_summarization", "finetune_xlnet_qa", "finetune_xlnet_text", "continued_bert",
        "continued_xlnet", "pretrained_t5",
    ],
)  # fmt: skip
def test_figures_of_version_1_come_out_again(name: str, tmp_path: Path) -> None:
    report = evaluation.remeasure(copied(name, tmp_path / name))
    assert report["same_rows"] is True and report["metrics"]
    stated = {metric.name: metric.value for metric in RunRecord.load(FOLDERS / name).metrics}
    # In a written summary, a token that is nearly as likely as another is another one on some processors.
    points = 1.0 if name.endswith("summarization") else 0.0
    for metric in report["metrics"]:
        assert metric["holds"] and metric["found"] == pytest.approx(stated[metric["name"]], rel=1e-4, abs=points)


def test_a_configuration_of_a_data_set_is_of_no_other_one() -> None:
    record = RunRecord.load(FOLDERS / "finetune_bert")
    record.settings["dataset_config"] = "de-en"
    assert evaluation._run_as_recorded(record, {}, False).dataset_config == "de-en"
    other = evaluation._run_as_recorded(record, {"dataset": "someone/rows"}, True)
    assert (other.dataset, other.dataset_config) == ("someone/rows", None)


def test_each_kind_is_there() -> None:
    assert {path.name for path in FOLDERS.iterdir()} == TASKS.keys()
