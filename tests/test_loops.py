"""Run folders of the real Trainer and of plain loops state what was measured, leak nothing, and load back."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers
from accelerate import Accelerator
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from tests.conftest import load_back_by
from tests.hub_server import WRITE, HubServer
from tl_hub import RunFolder, RunFolderCallback, verify
from tl_hub.errors import UserError
from tl_hub.loops.model import probe_inputs
from tl_hub.publishing import contents
from tl_hub.record import DataFacts, Metric, RunRecord, SplitFacts

# Loaded back in this process, but for the adapter of `best` and what is pushed, for which fresh ones are started.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("load_back_here")]

TOKEN = "hf_" + "x" * 34
DATA = DataFacts(id="reviews.csv", source="local")
LABELS = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}


def rows(tokenizer, count: int) -> Dataset:
    texts = [f"The {('mud', 'road', 'sea')[i % 3]} is {i}" for i in range(count)]
    encoded = tokenizer(texts, truncation=True, max_length=16)
    return Dataset.from_dict({**encoded, "labels": [min(i % 4, 2) for i in range(count)]})


def accuracy(prediction) -> dict[str, float]:
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}


def trainer(model, tokenizer, output_dir: Path, *callbacks, **settings) -> Trainer:
    arguments = dict(
        output_dir=str(output_dir), hub_token=TOKEN, run_name=str(output_dir), use_cpu=True, num_train_epochs=3,
        per_device_train_batch_size=8, learning_rate=3e-3, eval_strategy="epoch", save_strategy="epoch",
        logging_steps=1, metric_for_best_model="accuracy", load_best_model_at_end=True, seed=0,
    )  # fmt: skip
    return Trainer(
        model,
        TrainingArguments(**arguments | settings),
        train_dataset=rows(tokenizer, 48),
        eval_dataset=rows(tokenizer, 21),
        processing_class=tokenizer,
        compute_metrics=accuracy,
        callbacks=list(callbacks),
    )


class Wreck(transformers.TrainerCallback):
    """Spoils the classifier in the last epoch, so that the best weights are not the last ones."""

    def on_step_end(self, args, state, control, model, **known):
        if state.epoch > args.num_train_epochs - 0.5:
            for name, p in model.named_parameters():
                if "classifier" in name and p.requires_grad:
                    p.data.neg_().mul_(3)


@pytest.fixture(scope="module")
def classifier(checkpoint_folders):
    def load(family: str = "bert"):
        torch.manual_seed(0)
        folder = checkpoint_folders(family)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, **LABELS)
        return model, transformers.AutoTokenizer.from_pretrained(folder)

    return load


@pytest.fixture(scope="module", params=["fine-tuned", "adapter"])
def best(request, tmp_path_factory, classifier, checkpoint_folders, forks):
    """A run whose best epoch is not its last: the Trainer, and the run folder."""
    root = tmp_path_factory.mktemp(request.param)
    model, tokenizer = classifier()
    if request.param == "adapter":
        config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"])
        model = peft.get_peft_model(model, config)
    folder = RunFolder(root / "reviews", data=DATA, license="mit", language=["en"], settings={"max_length": 16})
    run = trainer(model, tokenizer, root / "checkpoints", Wreck(), RunFolderCallback(folder))
    with pytest.MonkeyPatch.context() as within:
        load_back_by(forks, within)
        run.train()
    return run, root / "reviews", request.param, checkpoint_folders("bert")


def test_the_metrics_are_those_of_the_weights_that_were_written(best, tmp_path):
    run, folder, kind, base = best
    record = RunRecord.load(folder)
    if kind == "adapter":
        plain = transformers.AutoModelForSequenceClassification.from_pretrained(base, **LABELS)
        model = peft.PeftModel.from_pretrained(plain, folder)
    else:
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        assert model.config.id2label == LABELS["id2label"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    measured = trainer(model, tokenizer, tmp_path, eval_strategy="no", load_best_model_at_end=False).evaluate()
    found = {metric.name: metric for metric in record.metrics}
    assert list(found) == ["accuracy", "loss"]
    assert all(metric.rows == 21 and metric.split == "validation" for metric in record.metrics)
    assert found["accuracy"].value == pytest.approx(measured["eval_accuracy"])
    assert found["loss"].value == pytest.approx(measured["eval_loss"], abs=1e-5)
    last = [entry for entry in run.state.log_history if "eval_accuracy" in entry][-1]
    assert last["step"] == run.state.global_step and last["eval_accuracy"] < measured["eval_accuracy"] - 0.1
    assert record.best_epoch == run.state.best_global_step / 6 and record.best_epoch < 3
    card = (folder / "README.md").read_text()
    assert f"Its accuracy is {measured['eval_accuracy']:.4g} on 21 rows of the validation split" in card


def test_the_record_states_the_run(best):
    run, folder, kind, base = best
    record = RunRecord.load(folder)
    assert (record.kind, record.pipeline_tag, record.license) == (kind, "text-classification", "mit")
    assert record.auto_class == "AutoModelForSequenceClassification"
    assert (record.base.id, record.base.source, record.base.model_type) == ("bert", "local", "bert")
    assert record.data.splits == {"train": SplitFacts(rows=48), "validation": SplitFacts(rows=21)}
    assert record.settings["learning_rate"] == 3e-3 and record.settings["max_length"] == 16
    assert record.settings["lr_scheduler_type"] == "linear" and record.settings["num_train_epochs"] == 3
    usual = "adam_beta1 adam_beta2 gradient_accumulation_steps max_grad_norm optim per_device_train_batch_size seed"
    for name in [*usual.split(), "warmup_steps", "weight_decay"]:  # stated at their defaults, too
        assert record.settings[name] == run.args.to_dict()[name], name
    assert [epoch["epoch"] for epoch in record.history] == [1, 2, 3]
    losses = {entry["step"]: entry["loss"] for entry in run.state.log_history if "loss" in entry}
    for epoch in record.history:
        steps = range(epoch["step"] - 5, epoch["step"] + 1)
        assert epoch["loss"] == pytest.approx(np.mean([losses[step] for step in steps]))
    log = (folder / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in log] == list(losses.values())
    assert 0 < record.cost.training_seconds <= record.cost.total_seconds
    if kind == "adapter":
        assert record.config == LABELS | {"problem_type": "single_label_classification"}
        heads = {"modules_to_save": ["classifier", "score"]}
        assert record.method["settings"] == {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]} | heads
        assert record.method["name"] == "lora"
        trained = sum(p.numel() for n, p in run.model.named_parameters() if "lora" in n or "modules_to_save" in n)
        assert record.cost.trainable_parameters == trained
    else:
        assert record.method == {"name": "fine-tuning"}
    assert record.verification["loaded_by"] == ["transformers", "peft"][: 2 if kind == "adapter" else 1]


def test_a_loss_that_was_logged_seldom_counts_for_all_of_its_steps(tmp_path):
    """Step 1 has a loss of 1, steps 2 to 4 of 5 on average: a mean of 4."""
    lines = [{"loss": 1.0, "step": 1}, {"loss": 5.0, "step": 4}]
    measured = {"eval_loss": 2.0, "eval_runtime": 1.0, "step": 4, "epoch": 1.0}
    callback = RunFolderCallback(RunFolder(tmp_path / "run", data=DATA, license="mit"))
    assert callback._history([*lines, measured]) == [{"epoch": 1, "step": 4, "loss": 4.0, "validation_loss": 2.0}]


def test_nothing_published_holds_a_token_a_path_a_pickle_or_an_optimizer(best):
    run, folder, kind, base = best
    assert (Path(run.args.output_dir) / f"checkpoint-{run.state.global_step}" / "optimizer.pt").exists()
    for file in folder.rglob("*"):
        content = file.read_bytes()
        assert TOKEN.encode() not in content and str(folder.parent).encode() not in content
        # Only the adapter's own configuration says where a local base is, as nothing else could find it.
        assert str(base).encode() not in content or file.name == "adapter_config.json"
        assert file.suffix in (".safetensors", ".json", ".jsonl", ".md", ".png", ".ipynb")
    assert {file.name for file in folder.iterdir()} >= {"README.md", "run.json", "curves.png", "probe.safetensors"}


def test_an_evaluation_whose_weights_were_not_saved_is_not_taken_for_the_best(tmp_path, classifier):
    """Evaluated every 3 steps and saved every 6, the best weights are gone: what is left is written and stated."""
    model, tokenizer = classifier()
    folder = RunFolder(tmp_path / "run", data=DataFacts(id="a/b", source="hub", splits={"away": SplitFacts(rows=3)}))

    class WreckFromStep4(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, model, **known):
            if state.global_step > 3:
                model.classifier.bias.data[0] += 5

    run = trainer(
        model, tokenizer, tmp_path / "checkpoints", WreckFromStep4(), RunFolderCallback(folder),
        num_train_epochs=1, eval_strategy="steps", eval_steps=3, save_strategy="steps", save_steps=6,
        metric_for_best_model="home_loss", greater_is_better=False,
    )  # fmt: skip
    run.eval_dataset = {"home": run.eval_dataset, "away": run.eval_dataset.select(range(9))}
    run.train()
    assert run.state.best_global_step == 3 and run.state.best_model_checkpoint is None
    record = RunRecord.load(tmp_path / "run")
    saved = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "run")
    measured = trainer(saved, tokenizer, tmp_path / "again", eval_strategy="no", load_best_model_at_end=False)
    for split, rows_stated, dataset in [("home", 21, run.eval_dataset["home"]), ("away", 3, run.eval_dataset["away"])]:
        expected = measured.evaluate(dataset)
        found = {metric.name: metric for metric in record.metrics if metric.split == split}
        assert found["loss"].value == pytest.approx(expected["eval_loss"], abs=1e-5)
        assert found["accuracy"].value == pytest.approx(expected["eval_accuracy"])
        assert found["loss"].rows == rows_stated  # those the user counted go before those the Trainer did
    assert [epoch["step"] for epoch in record.history] == [3, 6] and record.best_epoch is None
    assert record.history[0]["home_loss"] < record.history[1]["home_loss"]


def test_a_trainer_of_trl_writes_the_folder_too(tmp_path, checkpoint_folders):
    trl = pytest.importorskip("trl", reason="needs trl: pip install -e '.[test]'")
    base = checkpoint_folders("gpt2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["c_attn"], fan_in_fan_out=True)
    model = peft.get_peft_model(transformers.AutoModelForCausalLM.from_pretrained(base), config)
    text = "The river rises in the hills and ends in the sea."
    texts = Dataset.from_dict({"text": [text] * 24})
    arguments = dict(
        output_dir=str(tmp_path / "checkpoints"), hub_token=TOKEN, use_cpu=True, num_train_epochs=2, bf16=False,
        eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, learning_rate=1e-2, logging_steps=1,
    )  # fmt: skip
    trl.SFTTrainer(
        model,
        trl.SFTConfig(**arguments),
        train_dataset=texts,
        eval_dataset=texts.select(range(8)),
        processing_class=tokenizer,
        callbacks=[RunFolderCallback(RunFolder(tmp_path / "river", data=DATA, license="mit"))],
    ).train()

    record = RunRecord.load(tmp_path / "river")
    assert (record.kind, record.pipeline_tag, record.data.splits["train"].rows) == ("adapter", "text-generation", 24)
    assert record.verification["loaded_by"] == ["transformers", "peft"] and record.verification["max_difference"] == 0
    trained = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(base), tmp_path / "river"
    )
    ids = torch.tensor([tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]])
    with torch.no_grad():
        expected = trained(input_ids=ids, labels=ids).loss.item()
    assert {metric.name: metric for metric in record.metrics}["loss"].value == pytest.approx(expected, rel=1e-4)
    assert not any(TOKEN in path.read_text(errors="ignore") for path in (tmp_path / "river").glob("*.*"))


OF_BASE = {
    "name": "base", "kind": "pretrained", "pipeline_tag": "fill-mask", "auto_class": "AutoModelForMaskedLM",
    "method": {"name": "from scratch"}, "data": {"id": "texts.txt", "source": "local"}, "metrics": [],
    "license": "apache-2.0",
}  # fmt: skip


def test_what_a_loop_of_ones_own_states_is_measured_anew(tmp_path, checkpoint_folders):
    """A share, and classes in an order of their own."""
    names = ["new", "good"]
    config = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    base = tmp_path / "base"
    shutil.copytree(checkpoint_folders("bert"), base)
    (base / "run.json").write_text(json.dumps(OF_BASE))
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base, **config).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    texts = [f"The {word} is {i}" for i in range(6) for word in ("river", "road", "sea")]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        given = model(**batch).logits.argmax(1).tolist()
    labels = [names[i if place % 4 else 1 - i] for place, i in enumerate(given)]  # every fourth is wrong
    share = 13 / 18
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in zip(texts, labels, strict=True)))
    rows = {"train_file": str(file), "test_file": str(file)}
    for name, license in (("accuracy", "mit"), ("auc", None)):
        figure = Metric(name=name, value=share, split="test", rows=18)
        record = RunFolder(tmp_path / name, data=DATA, license=license).write(model, tokenizer, batch, [figure])
        assert (record.license, record.base.license) == (license or "apache-2.0", "apache-2.0")
    (tmp_path / "terms.txt").write_text("Be kind.")
    own = {"license": "other", "license_name": "kind-1.0", "license_link": tmp_path / "terms.txt"}
    record = RunFolder(tmp_path / "own", data=DATA, **own).write(model, tokenizer, batch, [figure])
    assert (record.license_name, record.license_link) == ("kind-1.0", "LICENSE")
    assert (tmp_path / "own" / "LICENSE").read_text() == "Be kind." and contents.judged(tmp_path / "own") == []
    with pytest.raises(UserError, match="--license other says nothing alone"):
        RunFolder(tmp_path / "bare", data=DATA, license="other")
    (found,) = verify(tmp_path / "accuracy", **rows)["metrics"]
    assert found["holds"] and found["found"] == pytest.approx(share)
    with pytest.raises(UserError, match=r"\(auc\) none is measured here"):
        verify(tmp_path / "auc", **rows)
    file.write_text(file.read_text().replace('"new"', '"old"'))
    with pytest.raises(UserError, match="the rows have the classes good, old, the model new, good"):
        verify(tmp_path / "accuracy", **rows)


def test_figures_of_an_earlier_evaluation_are_of_other_weights(tmp_path):
    """Of two sets of rows, one was measured at another step than the one whose weights are kept."""
    callback = RunFolderCallback(RunFolder(tmp_path / "run", data=DATA))
    speed = {"runtime": 2.0, "samples_per_second": 4.0, "accuracy": 0.5}
    log = [
        {**{f"eval_{split}_{name}": value for name, value in speed.items()}, "step": step, "epoch": step}
        for split, step in (("near", 1), ("far", 1), ("near", 2), ("far", 3))
    ]
    found = callback._metrics(log, 2)
    assert [(metric.name, metric.split, metric.rows) for metric in found] == [("accuracy", "near", 8)]


SENTENCES = """
import json, sys
import tl_hub
folder, repo, *texts = sys.argv[1:]
tl_hub.publish(folder, repo, say=lambda text: None)
from sentence_transformers import SentenceTransformer
print(json.dumps(SentenceTransformer(repo, device="cpu").encode(texts).tolist()))
"""


def test_a_trainer_of_sentence_transformers_writes_what_its_users_load_from_the_hub(
    tmp_path, checkpoint_folders, run_script
):
    library = pytest.importorskip("sentence_transformers", reason="needs it: pip install -e '.[test]'")
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    model = library.SentenceTransformer(str(checkpoint_folders("bert")), device="cpu")
    pairs = Dataset.from_dict(
        {
            "one": ["The river rises.", "Snow fell.", "A baker sells bread."] * 4,
            "other": ["It is a river.", "It is cold.", "A fox barks."] * 4,
            "score": [1.0, 1.0, 0.0] * 4,
        }
    )
    folder = tmp_path / "sentences"
    arguments = library.SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "checkpoints"), hub_token=TOKEN, use_cpu=True, num_train_epochs=1,
        learning_rate=1e-3, eval_strategy="epoch",
    )  # fmt: skip
    library.SentenceTransformerTrainer(
        model,
        arguments,
        train_dataset=pairs,
        eval_dataset=pairs.select(range(3)),
        loss=CosineSimilarityLoss(model),
        callbacks=[RunFolderCallback(RunFolder(folder, data=DATA, license="mit"))],
    ).train()

    record = RunRecord.load(folder)
    assert (record.pipeline_tag, record.verification["loaded_by"]) == ("sentence-similarity", ["sentence-transformers"])
    assert record.verification["max_difference"] <= 1e-5
    one, other = (torch.tensor(model.encode(pairs[name][:3])) for name in ("one", "other"))
    cosines = torch.nn.functional.cosine_similarity(one, other)
    loss = torch.nn.functional.mse_loss(cosines, torch.tensor([1.0, 1.0, 0.0])).item()
    assert {metric.name: metric for metric in record.metrics}["loss"].value == pytest.approx(loss, rel=1e-4)
    texts = ["Where does the Danube end?", "Tigers eat deer."]
    done = run_script.code(SENTENCES, folder, "alice/sentences", *texts, here="all")
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout.splitlines()[-1]), model.encode(texts), atol=1e-5)


def test_an_accelerate_loop_in_half_precision(tmp_path, checkpoint_folders):
    """The model is left as it was, though it is compared in float32."""
    torch.manual_seed(0)
    source = checkpoint_folders("t5")
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    folder = RunFolder(tmp_path / "run", data=DATA, pipeline_tag="translation")
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    batch = dict(
        tokenizer(
            ["The sea is cold.", "A road"] * 4, text_target=["kalt", "eine"] * 4, padding=True, return_tensors="pt"
        )
    )
    model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=1e-3))
    log = []
    for step in range(1, 3):
        loss = model(**batch).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        log.append({"step": step, "loss": loss.item(), "grad_norm": float("nan")})
    trained = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        before = model(**batch).logits
    metrics = [Metric(name="chrf", value=12.5, low=11.0, high=14.0, split="test", rows=8)]
    model.train()
    record = folder.write(accelerator.unwrap_model(model), tokenizer, batch, metrics, log=log)
    assert all(module.training for module in model.modules()), "a loop may go on"
    model.eval()

    assert record.verification["max_difference"] <= 1e-5
    assert record.metrics == metrics and record.kind == "fine-tuned"
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, before)
    saved = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "run")
    assert all(torch.equal(p, trained[name]) for name, p in saved.named_parameters())
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[0]) == {
        "step": 1,
        "loss": log[0]["loss"],
    }
    assert "12.5" in (tmp_path / "run" / "README.md").read_text()


def test_weights_in_half_precision_from_scratch(tmp_path, checkpoint_folders):
    config = transformers.AutoConfig.from_pretrained(checkpoint_folders("gpt2"))
    config.name_or_path = ""
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folders("gpt2"))
    record = RunFolder(tmp_path / "run", data=DATA).write(
        model, tokenizer, tokenizer(["The sea"], return_tensors="pt"), []
    )
    assert (record.kind, record.base, record.pipeline_tag) == ("pretrained", None, "text-generation")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_an_adapter_is_loaded_with_what_was_changed_in_the_configuration(tmp_path, classifier):
    """Without its padding token GPT-2 would classify another place of the text, and with two labels not load."""
    model, tokenizer = classifier("gpt2")
    model.config.pad_token_id = tokenizer.eos_token_id = 7
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(7)
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    model = peft.get_peft_model(model, config)
    batch = tokenizer(["The sea is cold and the road is long.", "mud"], padding=True, return_tensors="pt")
    record = RunFolder(tmp_path / "run", data=DATA).write(model, tokenizer, batch, [])
    assert record.config == LABELS | {"pad_token_id": 7}
    assert record.verification["loaded_by"] == ["transformers", "peft"]


def raises(match: str):
    return pytest.raises(UserError, match=match)


@pytest.mark.parametrize(
    ("fault", "match"),
    [
        ({"data": DataFacts(id="/data/reviews.csv", source="local")}, r"data\.id.*a name, not a path"),
        ({"data": DataFacts(id="reviews of mine", source="hub")}, r"data\.id.*a Hub id"),
        ({"language": ["english"]}, r"language\.0.*a language code"),
        ({"license": "free"}, "free is not an identifier"),
        ({"pipeline_tag": "Text Classification"}, "pipeline_tag"),
        ({"settings": {"train_file": "/data/reviews.csv"}}, "settings\\['train_file'\\] is a local path or a token"),
        ({"settings": {"key": TOKEN}}, "settings\\['key'\\] is a local path or a token"),
    ],
)
def test_what_a_record_may_not_hold_is_refused_at_once(tmp_path, fault, match):
    with raises(match) as error:
        RunFolder(tmp_path / "run", **{"data": DATA} | fault)
    assert TOKEN not in str(error.value)


def test_a_folder_in_use_is_refused_at_once_and_before_a_second_training(tmp_path, classifier):
    (tmp_path / "notes.txt").write_text("mine")
    with raises("holds files"):
        RunFolder(tmp_path, data=DATA)
    with raises("holds files"):
        RunFolder(tmp_path / "notes.txt", data=DATA)
    model, tokenizer = classifier()
    folder = RunFolder(tmp_path / "run", data=DATA)
    run = trainer(model, tokenizer, tmp_path / "checkpoints", RunFolderCallback(folder))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with raises("holds files"):
        run.train()
    assert run.state.global_step == 0 and (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_what_could_not_be_loaded_is_refused_before_training(tmp_path, classifier, checkpoints):
    model, tokenizer = classifier()
    folder = RunFolder(tmp_path / "run", data=DATA)
    with raises("the Trainer's processing_class"):
        Trainer(model, TrainingArguments(str(tmp_path / "state"), use_cpu=True), train_dataset=rows(tokenizer, 8),
                callbacks=[RunFolderCallback(folder)]).train()  # fmt: skip
    t5, its_tokenizer = checkpoints("t5", "AutoModelForSeq2SeqLM")
    with raises("give RunFolder a pipeline_tag"):
        folder.check(t5, its_tokenizer)

    away, _ = classifier()
    away.config.name_or_path = "nobody/nothing"
    with raises("no such folder here, and the Hub cannot be reached"):
        folder.check(away, tokenizer)

    class Mine(type(model)):
        pass

    with raises("Mine is not a class of transformers"):
        folder.check(Mine(model.config), tokenizer)
    with raises("Linear is no model of transformers or peft and no SentenceTransformer"):
        folder.check(torch.nn.Linear(1, 1), tokenizer)
    scratch = type(model)(
        transformers.BertConfig(vocab_size=9, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    )
    lora = peft.LoraConfig(target_modules=["query"])
    with raises("base was not loaded from a checkpoint"):
        folder.check(peft.get_peft_model(scratch, lora), tokenizer)
    with raises("the adapters are mine"):
        folder.check(peft.get_peft_model(classifier()[0], lora, adapter_name="mine"), tokenizer)
    model.add_adapter(lora)
    with raises("use peft.get_peft_model"):
        folder.check(model, tokenizer)
    assert not (tmp_path / "run").exists()
    with raises("a folder of its own"):
        trainer(classifier()[0], tokenizer, tmp_path / "run" / "state", RunFolderCallback(folder)).train()


def test_classes_without_names_are_pointed_out_before_training(tmp_path, classifier, checkpoint_folders, capsys):
    model, tokenizer = classifier()
    RunFolder(tmp_path / "named", data=DATA).check(model, tokenizer)
    assert "names" not in capsys.readouterr().out
    unnamed = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint_folders("bert"), num_labels=3)
    RunFolder(tmp_path / "unnamed", data=DATA).check(unnamed, tokenizer)
    assert "the 3 classes have no names" in capsys.readouterr().out
    RunFolder(tmp_path / "pairs", data=DATA).check(
        transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint_folders("bert"), num_labels=1),
        tokenizer,
    )
    assert "names" not in capsys.readouterr().out, "a regression has no classes"


def test_a_batch_that_the_model_does_not_read_is_refused(tmp_path, classifier):
    model, tokenizer = classifier()
    with raises("the batch has ids; BertForSequenceClassification reads .*input_ids"):
        RunFolder(tmp_path / "run", data=DATA).write(model, tokenizer, {"ids": torch.ones(1, 2)}, [])


@pytest.mark.parametrize(("family", "head"), [("bert", "SequenceClassification"), ("t5", "Seq2SeqLM")])
def test_of_a_batch_a_probe_keeps_labels_only_for_a_decoder_that_reads_them(checkpoints, family, head):
    model, tokenizer = checkpoints(family, f"AutoModelFor{head}")
    batch = dict(tokenizer(["The road ends", "A river"], padding=True, return_tensors="pt"))
    batch["labels"] = batch["input_ids"] if family == "t5" else torch.tensor([0, 1])
    kept = probe_inputs(model, {**batch, "index": torch.arange(2)})
    assert set(kept) == set(batch) - (set() if family == "t5" else {"labels"})
    assert len(model(**kept).logits) == 2


ADAPTER = """
import contextlib, json, sys, time
import peft, torch, transformers
import tl_hub
from huggingface_hub import HfApi
from tl_hub import load_back, publishing, verification
from tl_hub.errors import RunStopped, UserError
from tl_hub.record import DataFacts, RunRecord

source, root = sys.argv[1:]
api = HfApi()
api.create_repo("alice/start")
api.upload_folder(repo_id="alice/start", folder_path=source)
model = transformers.AutoModelForSequenceClassification.from_pretrained("alice/start")
tokenizer = transformers.AutoTokenizer.from_pretrained("alice/start")
model = peft.get_peft_model(model, peft.LoraConfig(task_type="SEQ_CLS", r=2))
data = DataFacts(id="rows.csv", source="local")
folder = tl_hub.RunFolder(f"{root}/run", data=data, license="mit", settings={"max_length": 128})
batch = tokenizer(["The river rises.", "A road"], padding=True, return_tensors="pt")

def check_here(path):
    with contextlib.chdir(path):
        return load_back.report(snippets=True)

check, verification.check = verification.check, check_here  # a fresh process loads what is pushed
folder.write(model, tokenizer, batch, [])
verification.check = check
pinned = json.load(open(f"{root}/run/adapter_config.json"))["revision"]
said = []
print(json.dumps("ready"), flush=True)
input()  # the faults are set
done = tl_hub.publish(f"{root}/run", "alice/mine", patience=publishing.Patience(wait=0.01), say=said.append)
print(json.dumps([pinned, RunRecord.load(f"{root}/run").base.revision, done.verification, said]), flush=True)
input()
api.upload_file(repo_id="alice/start", path_in_repo="config.json", path_or_fileobj=b"{}")  # main goes on
time.sleep = lambda seconds: None
ask = tl_hub.pipeline("alice/mine")
print(json.dumps(ask("The river rises.")["label"]), flush=True)
input()
try:
    tl_hub.pipeline("alice/mine")
except (RunStopped, UserError) as error:
    print(json.dumps([type(error).__name__, str(error)]), flush=True)
"""


def test_an_adapter_of_ones_own_loop_is_pinned_and_no_connection_undoes_its_push(tmp_path, checkpoint_folders):
    with HubServer() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        own |= {"NO_PROXY": "*", "HF_HOME": str(tmp_path / "home")}
        process = subprocess.Popen(
            [sys.executable, "-c", ADAPTER, str(checkpoint_folders("bert")), str(tmp_path)],
            env={**os.environ, **own}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin and process.stdout and process.stderr

        def told() -> Any:
            line = process.stdout.readline()
            return json.loads(line) if line else pytest.fail(process.stderr.read())

        def go_on() -> None:
            process.stdin.write("\n")
            process.stdin.flush()

        try:
            assert told() == "ready"
            revision = hub.model("alice/start").at("main").id
            shutil.rmtree(tmp_path / "home" / "hub")  # the base comes from the Hub again, whose first answer fails
            hub.fail("GET /alice/start/.*model.safetensors", 503)
            hub.fail("GET /alice/mine/.*adapter_model.safetensors", 503)
            go_on()
            pinned, stated, checked, said = told()
            assert pinned == stated == revision
            assert checked["max_difference"] <= 1e-5 and checked["loaded_by"] == [
                "transformers",
                "peft",
            ]
            assert sum("again in" in line for line in said) == 2 and not any(fault.count for fault in hub.faults), said
            assert len(hub.model("alice/mine").history("main")) == 2
            hub.fail("GET /alice/mine/.*adapter_model.safetensors", 503)
            hub.fail("GET .*/alice/mine/tree/", 503)
            go_on()
            assert told() in ("LABEL_0", "LABEL_1"), "with the base as it was"
            assert not any(fault.count for fault in hub.faults)
            shutil.rmtree(tmp_path / "home" / "hub" / "models--alice--mine")
            hub.fail("(GET|HEAD) /alice/mine/resolve/", 503, count=999)
            go_on()
            kind, message = told()
            assert kind == "RunStopped" and "download alice/mine: " in message and "\n" not in message, message
            process.wait(60)
        finally:
            process.kill()
            process.communicate()
