"""Run folders of version 1, made by the code before version 2 and kept as they were: they are read as ever.

`run_folders/v1` has one of each kind, without pictures, rows and training state; probes with the logits of a whole
vocabulary are left out for their size. An adapter's base is named, as its path was that of another machine.
"""

import json
import shutil
from pathlib import Path

import pytest

from tl_hub import card, load_back, samples
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


@pytest.mark.parametrize("name", TASKS)
def test_a_run_folder_of_version_1_loads_and_answers_as_it_did(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    shutil.copytree(FOLDERS / name, folder)
    config = folder / "adapter_config.json"
    if config.is_file():
        facts = json.loads(config.read_text())
        base = samples.checkpoint(facts["base_model_name_or_path"].removeprefix("tiny:"))
        config.write_text(json.dumps(facts | {"base_model_name_or_path": str(base)}))
    record = RunRecord.load(folder)
    assert (record.version, record.task, catalog.task_of(record)) == (1, None, TASKS[name])
    monkeypatch.chdir(folder)
    report = load_back.load_and_compare(record)
    assert "error" not in report
    assert report["max_difference"] <= 1e-5 if (folder / "probe.safetensors").is_file() else report["loaded_by"]
    stated = record.verification or {}
    assert report.get("same_output", False) == ("pipeline_output" in stated or "result" in stated)
    assert card.write(folder).read_text().count("\n## ") > 5
    sent = contents.files_of(folder, record)
    assert any(place.endswith(".safetensors") for place in sent) and "probe.safetensors" not in sent


def test_each_kind_is_there() -> None:
    assert {path.name for path in FOLDERS.iterdir()} == TASKS.keys()
