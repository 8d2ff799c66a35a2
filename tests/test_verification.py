"""Load-back must pass a right folder and name what is wrong in a broken one; pipeline answers from it."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

import tl_hub
from tests.conftest import check_here
from tests.test_record import minimal
from tl_hub import base_model, data, finish, launch, load_back, training, verification
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.probe import Probe
from tl_hub.record import RunRecord
from tl_hub.tasks.question_answering import QuestionAnswering

pytestmark = pytest.mark.slow

TASK = QuestionAnswering(max_length=128, doc_stride=32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, checkpoint_folders):
    """Run folders of a few training steps, made by the calls of the recipes, one for each family and method."""
    root = tmp_path_factory.mktemp("runs")

    def folder(family: str, method) -> Path:
        path = root / f"{family}-{method.kind}"
        if not path.exists():
            run = RunConfig(
                output_dir=str(path), model=str(checkpoint_folders(family)), train_rows=16, validation_rows=8, epochs=1,
                batch_size=8, learning_rate=1e-2,
            )  # fmt: skip
            AcceleratorState._reset_state(reset_partial_state=True)
            accelerator = launch.start(run)
            rows, _ = data.load(run, TASK)
            model, tokenizer, base = base_model.load(run, TASK)
            data.encode(rows, TASK, tokenizer, model)
            model = method.wrap(model, base)
            experiment = Experiment(run, TASK, method, base, rows, model, tokenizer, accelerator)
            history = training.train(experiment)
            score = training.evaluate(experiment, history.decision, split="test")
            with pytest.MonkeyPatch.context() as within:
                within.setattr(verification, "check", check_here)
                finish.finish(experiment, history, score)
        return path

    return folder


@pytest.mark.parametrize("method", [Lora(rank=4), FineTune()], ids=lambda method: method.kind)
@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_every_family_and_method_loads_back_and_answers(folders, family, method):
    folder = folders(family, method)
    record = RunRecord.load(folder)
    assert record.verification["max_difference"] <= 1e-5
    if (family, method.kind) == ("bert", "fine-tuned"):  # in a fresh process too
        assert verification.check(folder)["max_difference"] <= 1e-5
    assert record.verification["loaded_by"] == ["transformers", "peft"][: 2 if method.kind == "adapter" else 1]
    assert {path.name for path in folder.iterdir()} >= {
        "README.md",
        "run.json",
        "log.jsonl",
        "curves.png",
        "tokenizer.json",
    }
    assert (folder / "adapter_model.safetensors").exists() == (method.kind == "adapter")
    assert (folder / "config.json").exists() == (method.kind == "fine-tuned")
    assert not list(folder.glob("*.bin")) and not list(folder.glob("*.pkl"))
    card = (folder / "README.md").read_text()
    assert str(folder.parent) not in card and "/tmp" not in (folder / "run.json").read_text()

    context = "Water boils. " * 60 + "The Danube ends in the Black Sea."
    answer = tl_hub.pipeline(folder)(question="Where does the Danube end?", context=context)
    assert answer["answer"] == context[answer["start"] : answer["end"]] and 0 <= answer["score"] <= 1


def test_the_pipeline_is_the_evaluation(folders, checkpoint_folders):
    """Answers to the test rows are those on record, whatever the batch size, and the threshold is applied."""
    folder = folders("bert", FineTune())
    record = RunRecord.load(folder)
    asked = [example["question"] for example in record.examples], [example["context"] for example in record.examples]
    ask = tl_hub.pipeline(folder)
    answers = ask(*asked, batch_size=2)
    assert [answer["answer"] for answer in answers] == [ask(q, c)["answer"] for q, c in zip(*asked, strict=True)]
    ask.threshold = -math.inf
    assert ask(asked[0][0], asked[1][0])["answer"] == ""
    ask.threshold = math.inf
    assert ask(asked[0][0], asked[1][0])["answer"] != ""


def test_scores_of_a_short_context_equal_brute_force(folders):
    folder = folders("bert", FineTune())
    ask = tl_hub.pipeline(folder)
    ask.threshold, ask.temperature = math.inf, 1.0
    context = "The Danube ends in the Black Sea."
    answer = ask("Where does it end?", context)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    encoded = tokenizer("Where does it end?", context, return_tensors="pt", return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")[0].tolist()
    longest = RunRecord.load(folder).settings["max_answer_length"]
    with torch.no_grad():
        out = model(**encoded)
    places = [i for i, part in enumerate(encoded.sequence_ids(0)) if part == 1]
    spans = {
        (offsets[i][0], offsets[j][1]): float(out.start_logits[0, i] + out.end_logits[0, j])
        for i in places for j in places if i <= j < i + longest
    }  # fmt: skip
    best = max(spans, key=spans.__getitem__)
    assert (answer["start"], answer["end"]) == best
    share = np.exp(spans[best]) / np.exp(list(spans.values())).sum()
    assert answer["score"] == pytest.approx(share, rel=1e-3)
    ask.temperature = 2.0  # the probability that it is right, by its odds
    odds = math.sqrt(share / (1 - share))
    assert ask("Where does it end?", context)["score"] == pytest.approx(odds / (1 + odds), rel=1e-3)


@pytest.mark.parametrize("kind", ["adapter", "fine-tuned"])
def test_a_changed_parameter_is_found_and_named(load_back_in_a_fork, folders, tmp_path, kind):
    folder = tmp_path / "broken"
    shutil.copytree(folders("bert", Lora(rank=4) if kind == "adapter" else FineTune()), folder)
    file = folder / ("adapter_model.safetensors" if kind == "adapter" else "model.safetensors")
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("qa_outputs.weight"))
    tensors[name] *= 1.5  # a constant added would vanish: it multiplies normalized states, whose sum is 0
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(RunStopped, match=r"logits differ by .*parameters that differ: qa_outputs\.weight$"):
        verification.check(folder)


def test_a_changed_update_is_named_and_nothing_else(folders, tmp_path, load_back_here):
    """By the name it has without an adapter's wrapping; the head that was trained is what it was."""
    folder = tmp_path / "broken"
    shutil.copytree(folders("bert", Lora(rank=4)), folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in tensors if "layer.1.output.dense.lora_B" in name)
    tensors[name][0] += 0.1  # of one dimension: what is added to all alike, the norm takes off
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    named = r"parameters that differ: bert\.encoder\.layer\.1\.output\.dense\.lora_B\.weight$"
    with pytest.raises(verification.Mismatch, match=named):
        verification.check(folder)


@pytest.mark.parametrize(
    ("found", "stated", "same"),
    [
        ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.5004}, True),
        ({"label": "a", "score": 0.5}, {"label": "a", "score": 0.502}, False),
        ({"label": "a"}, {"label": "a", "score": 0.5}, False),
        ({"label": "a", "score": 0.5}, {"label": "a"}, False),
        ([{"score": 0.5}], [{"score": 0.5}, {"score": 0.5}], False),
        ((1.0, "a"), [1, "a"], True),
        ({"label": "a", "score": float("nan")}, {"label": "a", "score": 0.5}, False),
    ],
)
def test_an_output_is_the_one_on_the_card_but_for_rounding(found, stated, same):
    assert load_back._same(found, stated) == same


@pytest.mark.parametrize(("change", "refused"), [(1e-4, True), (1e-3, True), (2e-6, False)])
def test_logits_may_differ_by_what_rounding_makes_and_no_more(folders, tmp_path, load_back_here, change, refused):
    folder = tmp_path / "changed"
    shutil.copytree(folders("bert", FineTune()), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["qa_outputs.bias"] += change  # is added to each logit
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if refused:
        with pytest.raises(verification.Mismatch, match="parameters that differ: qa_outputs.bias"):
            verification.check(folder)
    else:
        assert verification.check(folder)["max_difference"] == pytest.approx(change, rel=0.5)


def test_the_adapter_beside_a_merged_model_is_compared_as_closely_as_any(folders, tmp_path, load_back_here):
    """Merging rounds the update in another place; the adapter alone is what was trained, to the digit."""
    folder = tmp_path / "changed"
    shutil.copytree(folders("bert", Lora(rank=4, merge=True)), folder)
    assert verification.check(folder)["loaded_by"] == ["transformers", "peft"]
    file = folder / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    (bias,) = (name for name in tensors if name.endswith("qa_outputs.bias"))
    tensors[bias] += 3e-5
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(verification.Mismatch, match="loaded by peft, logits differ by 3e-05"):
        verification.check(folder)


def test_of_several_loaders_the_largest_difference_is_told(folders, monkeypatch, load_back_here):
    folder, differences = folders("bert", Lora(rank=4)), iter([2e-6, 3e-6, 1e-6])
    monkeypatch.setattr(load_back, "_difference", lambda *_: next(differences))
    assert verification.check(folder)["max_difference"] == 3e-6


@pytest.mark.parametrize("output", [0, 1], ids=["start", "end"])
def test_logits_that_are_no_numbers_are_no_match(folders, tmp_path, load_back_here, output):
    """A NaN in the second of two outputs passed: Python's max drops one that does not come first."""
    folder = tmp_path / "broken"
    shutil.copytree(folders("bert", FineTune()), folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["qa_outputs.weight"][output] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(verification.Mismatch, match="logits differ by nan"):
        verification.check(folder)


def test_a_lost_head_is_found(folders, tmp_path, load_back_here):
    """What PEFT does silently with a head it does not know: the file lacks it, and loading makes a random one."""
    folder = tmp_path / "headless"
    shutil.copytree(folders("xlnet", Lora(rank=4)), folder)
    file = folder / "adapter_model.safetensors"
    save_file({n: t for n, t in load_file(file).items() if "qa_outputs" not in n}, file, metadata={"format": "pt"})
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": None}))
    with pytest.raises(RunStopped, match="qa_outputs"):
        verification.check(folder)


def test_a_folder_that_does_not_load_is_a_failure_with_the_reason(load_back_in_a_fork, folders, tmp_path):
    folder = tmp_path / "gone"
    shutil.copytree(folders("bert", FineTune()), folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(RunStopped, match="load-back of .* failed: .*safetensors"):
        verification.check(folder)


@pytest.mark.parametrize("load", [tl_hub.pipeline, check_here])
@pytest.mark.parametrize("kind", ["fine-tuned", "adapter"])
def test_neither_pickles_nor_foreign_code_are_loaded(folders, tmp_path, kind, load):
    """What a pickle does on loading, and code that a folder brings, would leave a file behind."""
    spoilt, mark = tmp_path / "run", tmp_path / "mark"
    shutil.copytree(folders("bert", Lora(rank=4) if kind == "adapter" else FineTune()), spoilt)
    weights = spoilt / ("adapter_model.safetensors" if kind == "adapter" else "model.safetensors")
    weights.rename(tmp_path / "kept")
    pickled = {"adapter": "adapter_model.bin", "fine-tuned": "pytorch_model.bin"}[kind]
    torch.save({"bert.pooler.dense.bias": _Writes(str(mark))}, spoilt / pickled)
    with pytest.raises((UserError, RunStopped), match="no weights in safetensors .* pickles are not loaded"):
        load(spoilt)
    (spoilt / pickled).unlink()
    (tmp_path / "kept").rename(weights)
    (spoilt / "foreign.py").write_text(f"open({str(mark)!r}, 'w')\nclass Foreign: pass\n")
    tokenizer = json.loads((spoilt / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["foreign.Foreign", None]}
    (spoilt / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    with pytest.raises((UserError, RunStopped), match="code of its own"):
        load(spoilt)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["trust_remote_code\n", "attn_implementation\n", "trust_remote_code", "my_switch"])
def test_a_record_cannot_change_how_its_model_is_loaded(load_back_in_a_fork, folders, tmp_path, name):
    """A line break at the end passes Python's `$`, and such a key was written into code that verification executed."""
    spoilt = tmp_path / "run"
    shutil.copytree(folders("bert", Lora(rank=4)), spoilt)
    facts = json.loads((spoilt / "run.json").read_text())
    (spoilt / "run.json").write_text(json.dumps(facts | {"config": {name: True}}))
    for load in (tl_hub.pipeline, tl_hub.verify):
        with pytest.raises((UserError, RunStopped), match="run.json.*(config|my_switch)"):
            load(spoilt)


def test_verifying_a_strangers_folder_runs_nothing_of_it(folders, tmp_path, monkeypatch):
    """Neither from the working directory, where Python looks for modules first, nor from the text of its record."""
    spoilt, mark = tmp_path / "run", tmp_path / "mark"
    shutil.copytree(folders("bert", FineTune()), spoilt)
    writes = f"open({str(mark)!r}, 'w')"
    for module in ("torch", "json", "tl_hub", "sentencepiece"):
        (spoilt / f"{module}.py").write_text(f"{writes}\nraise SystemExit\n")
    process = subprocess.run(
        [Path(sys.executable).with_name("tl-hub"), "verify", "."],
        cwd=spoilt, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (process.returncode, mark.exists()) == (0, False), process.stderr
    assert "the pipeline gives the answer that is on the card" in process.stdout
    facts = json.loads((spoilt / "run.json").read_text())
    for change in ({"auto_class": f"AutoModel\n{writes}"}, {"auto_class": "AutoModel\n"}, {"auto_class": "pipeline"}):
        (spoilt / "run.json").write_text(json.dumps(facts | change))
        with pytest.raises((UserError, RunStopped), match="auto_class|not a model class"):
            tl_hub.verify(spoilt)
        monkeypatch.setattr(verification, "check", check_here)  # the first in a fresh process, the others here
    assert not mark.exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", {"attn_implementation": "mallory/kernel"}, "code from the Hub"),
        ("config.json", {"_attn_implementation": {"": "mallory/kernel:fn"}}, "code from the Hub"),
        ("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "foreign.Foreign"}], "code of its own"),
        ("modules.json", [{"type": "foreign.sentence_transformers.Foreign"}], "code of its own"),
        ("modules.json", ["foreign"], "code of its own"),
        ("tokenizer_config.json", [], "is not a JSON object"),
    ],
)
def test_configurations_cannot_bring_code(folders, tmp_path, load_back_here, file, content, message):
    spoilt = tmp_path / "run"
    shutil.copytree(folders("bert", FineTune()), spoilt)
    if isinstance(content, dict):
        content = json.loads((spoilt / file).read_text()) | content
    (spoilt / file).write_text(json.dumps(content))
    for load in (tl_hub.pipeline, tl_hub.verify):
        with pytest.raises((UserError, RunStopped), match=message):
            load(spoilt)


class _Writes:
    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_an_adapters_base_is_loaded_from_safetensors_only(folders, tmp_path):
    spoilt, base = tmp_path / "run", tmp_path / "base"
    shutil.copytree(folders("bert", Lora(rank=4)), spoilt)
    config = json.loads((spoilt / "adapter_config.json").read_text())
    shutil.copytree(config["base_model_name_or_path"], base)
    (spoilt / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": str(base)}))
    tl_hub.pipeline(spoilt)
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(UserError, match="cannot be loaded: .*safetensors"):
        tl_hub.pipeline(spoilt)


def test_the_pipeline_says_what_it_cannot_read(folders, tmp_path):
    with pytest.raises(UserError, match="holds no run.json"):
        tl_hub.pipeline(tmp_path)
    record = RunRecord.load(folders("bert", FineTune()))
    replace(record, task=None, pipeline_tag="table-question-answering").save(tmp_path)
    with pytest.raises(UserError, match="no table-question-answering"):
        tl_hub.pipeline(tmp_path)
    shutil.copy(folders("bert", FineTune()) / "model.safetensors", tmp_path)
    for name in ("cached_file", "AutoConfig", "AutoModelForNothing"):
        replace(record, auto_class=name).save(tmp_path)
        with pytest.raises(UserError, match=f"was made for {name}, which is not a model class"):
            tl_hub.pipeline(tmp_path)
    own = tmp_path / "own"  # of a loop that tells no more of how it cut its texts
    shutil.copytree(folders("bert", FineTune()), own)
    replace(record, settings={"max_length": 128}).save(own)
    assert tl_hub.pipeline(own).task.doc_stride == 32
    facts = json.loads((own / "run.json").read_text())
    (own / "run.json").write_text(json.dumps(facts | {"settings": {"max_length": "long"}}))
    with pytest.raises(UserError, match="settings.max_length: 'long' is not of type 'integer'"):
        tl_hub.pipeline(own)
    ask = tl_hub.pipeline(folders("bert", FineTune()))
    with pytest.raises(UserError, match="2 questions and 1 contexts"):
        ask(["a", "b"], ["c"])
    with pytest.raises(UserError, match="empty"):
        ask("a", " ")


def test_importing_the_package_is_light():
    code = "import sys, tl_hub.record, tl_hub.card; print(*{'torch', 'transformers', 'peft'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == []


@pytest.mark.parametrize(("largest", "difference", "allowed"), [
    (0.5, 0.9e-5, True), (0.5, 2e-5, False), (10.0, 9e-5, True), (10.0, 2e-4, False), (-10.0, 9e-5, True),
])  # fmt: skip
def test_another_kind_of_cpu_may_round_large_logits_by_more(largest: float, difference: float, allowed: bool) -> None:
    probe = Probe({}, {"logits": torch.tensor([[0.1, largest]])}, {})
    record = RunRecord.from_facts(minimal())
    assert (difference <= load_back._allowed(record, "transformers", probe)) == allowed
