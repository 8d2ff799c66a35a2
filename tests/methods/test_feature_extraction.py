"""What is trained: a head on frozen vectors, in whole runs; the head by gradient; top layers; rates by layer."""

import dataclasses
import functools
import itertools
import json
import random
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.linear_model import Ridge
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import QuestionAnsweringModelOutput

import tl_hub
from tests.families import ONE_OF_EACH
from tl_hub import adamw, data, evaluation, finish, launch, load_back, run_folder, samples, training, verification
from tl_hub.architectures import ARCHITECTURES
from tl_hub.base_model import Base
from tl_hub.config import RunConfig
from tl_hub.data import Data, Split
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.methods import feature_extraction, head_only
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.fine_tune import FineTune
from tl_hub.methods.head_only import HeadOnly
from tl_hub.metrics import sentences
from tl_hub.record import RunRecord
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization, best_sentences, in_document
from tl_hub.tasks.language_modeling import objective_of
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.token_classification import TokenClassification
from tl_hub.vectors import cache as vector_cache
from tl_hub.vectors import extract, heads

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

AUTO = "AutoModelForSequenceClassification"
HEADS = {
    "bert": {"classifier.weight", "classifier.bias"},
    "gpt2": {"score.weight"},
    "t5": {f"classification_head.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")},
    "xlnet": {f"{part}.{kind}" for part in ("sequence_summary.summary", "logits_proj") for kind in ("weight", "bias")},
}
# The two layers of the small checkpoints, from the bottom to the top, and what is below and above them.
BOTTOM = {"bert": "bert.embeddings", "gpt2": "transformer.w", "t5": "transformer.shared", "xlnet": "transformer.w"}
LAYERS = {
    "bert": ["bert.encoder.layer.0.", "bert.encoder.layer.1."],
    "gpt2": ["transformer.h.0.", "transformer.h.1."],
    "t5": [f"transformer.{part}coder.block.{i}." for part in ("en", "de") for i in (0, 1)],
    "xlnet": ["transformer.layer.0.", "transformer.layer.1."],
}


def base_of(family: str, fresh: set[str] | None = None) -> Base:
    fresh = HEADS[family] if fresh is None else fresh
    return Base("a", "local", model_type=family, fresh=tuple(sorted(fresh)))


def trained(model) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", HEADS)
def test_only_the_head_is_trained_and_the_base_has_no_dropout(family, checkpoints):
    model, tokenizer = checkpoints(family, AUTO)
    model.config.pad_token_id = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model = HeadOnly().wrap(model, base_of(family))
    assert trained(model) == HEADS[family]
    states = []
    model.base_model.register_forward_hook(lambda module, args, output: states.append(output[0]))
    inputs = tokenizer(["The river flows to the sea."], return_tensors="pt")
    model.train()
    outputs = [model(**inputs, labels=torch.tensor([1])) for _ in range(2)]
    assert torch.equal(states[0], states[1]), "the base has dropout of 0.1, which must be off"
    outputs[0].loss.backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == HEADS[family]
    assert any(module.training for module in model.modules()), "the head keeps its own dropout"


def test_a_pooler_that_the_checkpoint_lacks_is_trained(checkpoint_folders, tmp_path):
    folder = checkpoint_folders("bert")
    transformers.BertForMaskedLM.from_pretrained(folder).save_pretrained(tmp_path)
    model, report = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    base = Base("a", "local", model_type="bert", fresh=tuple(report["missing_keys"]))
    pooler = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
    assert trained(HeadOnly().wrap(model, base)) == HEADS["bert"] | pooler
    model = FineTune(top_layers=1, layer_decay=0.5).wrap(model, base)
    rates = {name: getattr(p, "rate", 1.0) for name, p in model.named_parameters()}
    assert {rates[name] for name in pooler} == {1.0}


def test_nothing_to_train_is_refused(checkpoints):
    model, _ = checkpoints("bert", AUTO)
    with pytest.raises(UserError, match="feature extraction would train nothing"):
        HeadOnly().wrap(model, Base("a", "local", model_type="bert"))


class MaskedLoss(torch.nn.Module):
    """The stock model's logits, of which those of the padding have no part in the loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, attention_mask, start_positions=None, end_positions=None, **inputs):
        found = self.model(attention_mask=attention_mask, **inputs)
        padding = attention_mask == 0
        start, end = (x.masked_fill(padding, -1e30) for x in (found.start_logits, found.end_logits))
        loss = None
        if start_positions is not None:
            loss = (cross_entropy(start, start_positions) + cross_entropy(end, end_positions)) / 2
        return QuestionAnsweringModelOutput(loss=loss, start_logits=start, end_logits=end)


class ComputedInEveryStep(QuestionAnswering):
    def objective(self, model):
        return MaskedLoss(model)


def token_states(model, windows):
    """What the head is given of each token of each window, read one by one without padding."""
    seen = []
    names = [name for name in ("input_ids", "token_type_ids") if name in windows.column_names]
    with torch.no_grad(), model.qa_outputs.register_forward_pre_hook(lambda module, args: seen.append(args[0][0])):
        for row in windows:
            model.eval()(**{name: torch.tensor([row[name]]) for name in names})
    return torch.cat(seen)


SPAN_HEAD = ("qa_outputs.bias", "qa_outputs.weight")


def questions(task, tokenizer, model, **splits):
    examples = Data({k: Split(task.check(Dataset.from_list(v))) for k, v in splits.items()}, "a", "local")
    data.encode(examples, task, tokenizer, model)
    return examples


def with_embedded_tokenizer(family, checkpoint_folders):
    """A random model for the embedded tokenizer. A tokenizer that is trained here differs a little each time.

    AdamW walks by the sign of a gradient that all but vanishes, so that rare states would fail a strict comparison.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(samples.checkpoint(family))
    config = transformers.AutoConfig.from_pretrained(checkpoint_folders(family))
    config.vocab_size, config.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    torch.manual_seed(0)
    return transformers.AutoModelForQuestionAnswering.from_config(config), tokenizer


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_a_head_for_spans_is_trained_on_one_pass_as_on_a_pass_in_every_step(
    family, checkpoint_folders, tmp_path, monkeypatch
):
    """There on states that a hook standardises. A second run reads nothing, not even to score the test rows."""
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    settings = {"max_length": 104, "doc_stride": 16}
    base = Base("a", "local", model_type=family, fresh=SPAN_HEAD)
    rows = samples.load("qa")["train"]
    found, reads = {}, []
    for name in ("every step", "one pass", "cached"):
        AcceleratorState._reset_state(reset_partial_state=True)
        task = (ComputedInEveryStep if name == "every step" else QuestionAnswering)(**settings)
        run = RunConfig(
            output_dir=str(tmp_path / name), epochs=2, batch_size=4, learning_rate=1e-2, precision="fp32", model="a"
        )
        accelerator = launch.start(run)
        model, tokenizer = with_embedded_tokenizer(family, checkpoint_folders)
        task.adapt(tokenizer, model)
        examples = questions(task, tokenizer, model, train=rows[:9], validation=rows[9:12], test=rows[12:17])
        windows = {split: len(part.encoded) for split, part in examples.splits.items()}
        method = HeadOnly(layer="2")
        model = method.wrap(model, base)
        prefix = "encoder" if family == "t5" else model.base_model_prefix
        first = model.get_submodule(f"{prefix}.{ARCHITECTURES[family].blocks}.0")
        rows_at = int(ARCHITECTURES[family].time_major)
        if name == "every step":
            states = token_states(model, examples.splits["train"].encoded)
            mean, deviation = states.mean(0), states.std(0, correction=0)
            standardised = functools.partial(lambda m, d, module, args: (args[0] - m) / d, mean, deviation)
            hook = model.qa_outputs.register_forward_pre_hook(standardised)
        with first.register_forward_pre_hook(lambda module, args, at=rows_at: reads.append(args[0].size(at))):
            experiment = Experiment(run, task, method, base, examples, model, tokenizer, accelerator)
            if name == "every step":
                history = training.train(experiment)
                assert sum(reads) == 2 * (windows["train"] + windows["validation"])
                hook.remove()
                # The bias is left out: it moves all positions alike, so that AdamW walks by what is lost in rounding.
                found[name] = model.qa_outputs.weight.detach() / deviation, history.epochs
            else:
                history, sweep = method.train(experiment)
                score = method.score(experiment, history, sweep)
                assert sum(reads) == (sum(windows.values()) if name == "one pass" else 0)
                found[name] = model.qa_outputs.weight.detach(), history.epochs
        reads.clear()
    for name in ("one pass", "cached"):
        torch.testing.assert_close(found[name][0], found["every step"][0], atol=3e-3, rtol=1e-2)
        for one, other in zip(found[name][1], found["every step"][1], strict=True):
            assert one == pytest.approx(other, rel=2e-3)
    stock = training.evaluate(experiment, history.decision, split="test")
    assert score.metrics["f1"].tolist() == stock.metrics["f1"].tolist(), "by the model as it is saved"
    model.save_pretrained(tmp_path / "saved")
    stock = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path / "saved").eval()
    with torch.no_grad():
        batch = tokenizer(["Where?"], ["The river flows to the sea."], return_tensors="pt")
        torch.testing.assert_close(model.eval()(**batch).start_logits, stock(**batch).start_logits)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_head_for_words_scores_when_it_is_saved_as_it_did_in_training(
    family, checkpoint_folders, tmp_path, monkeypatch
):
    """Where it read standardised vectors. Unlike a span's, a tag's bias decides: it is of the tag, not of the place."""
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    task = TokenClassification(max_length=96, doc_stride=16)
    run = RunConfig(
        output_dir=str(tmp_path / "run"), epochs=6, batch_size=4, learning_rate=3e-2, precision="fp32", model="a"
    )
    accelerator = launch.start(run)
    split = Split(task.check(Dataset.from_list(samples.load("ner")["train"][:24])))
    task = task.learn({"train": split.rows})
    folder = checkpoint_folders(family)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder, **task.config_for(family))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    task.adapt(tokenizer, model)
    # What it was trained on, of which it knows some.
    examples = Data({"train": split, "validation": Split(split.rows)}, "a", "local")
    data.encode(examples, task, tokenizer, model)
    method = HeadOnly(layer="2")
    fresh = ("classifier.bias", "classifier.weight")
    base = Base("a", "local", model_type=family, fresh=fresh)
    experiment = Experiment(run, task, method, base, examples, method.wrap(model, base), tokenizer, accelerator)
    history, _ = method.train(experiment)
    best = history.epochs[history.best_epoch - 1]
    assert best["f1"] > 10
    stock = training.evaluate(experiment, split="validation")
    assert {name: float(stock.metrics[name].mean()) for name in ("f1", "precision", "recall")} == pytest.approx(
        {name: best[name] for name in ("f1", "precision", "recall")}, abs=2.0
    )


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_the_layer_that_tells_answers_best_is_found_in_one_pass(family, checkpoints, tmp_path, monkeypatch):
    """Each layer's vectors are what the model gives when it is cut off there; the layer that knows is taken."""
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    task = QuestionAnswering(max_length=104, doc_stride=16)
    rows = samples.load("qa")["train"]
    run = RunConfig(output_dir=str(tmp_path / "run"), epochs=1, batch_size=4, precision="fp32", model="a")
    accelerator = launch.start(run)
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    task.adapt(tokenizer, model)
    examples = questions(task, tokenizer, model, train=rows[:40], validation=rows[40:42])
    base = Base("a", "local", model_type=family, fresh=SPAN_HEAD)
    windows = examples.splits["train"].encoded.select(range(6))
    prepared = Experiment(run, task, HeadOnly(), base, examples, model, tokenizer, accelerator)
    found = head_only._token_vectors(prepared, windows)
    assert found.values.shape[:2] == (2, 1) and found.layers == (1, 2)
    for layer in (2, 1):
        cut = HeadOnly(layer=str(layer)).wrap(checkpoints(family, "AutoModelForQuestionAnswering")[0], base)
        np.testing.assert_allclose(found.of([layer], "tokens"), token_states(cut, windows), rtol=2e-3, atol=2e-3)
    seen = []
    as_it_is = extract.extract_tokens

    def telling(model, head, encoded, collate, layers, *options):
        """Layer 1 knows where the answers are, in its first two dimensions."""
        vectors = as_it_is(model, head, encoded, collate, layers, *options)
        seen.append((len(encoded), list(layers)))
        if len(seen) > 1:
            return vectors
        values, ends = np.random.default_rng(0).normal(size=vectors.values.shape), np.cumsum(encoded["length"][:])
        for dimension, name in enumerate(("start_positions", "end_positions")):
            values[0, 0, ends - encoded["length"][:] + encoded[name][:], dimension] += 20
        return dataclasses.replace(vectors, values=values)

    monkeypatch.setattr(extract, "extract_tokens", telling)
    monkeypatch.setattr(head_only, "_COMPARED_WINDOWS", 25)
    method = HeadOnly()
    experiment = Experiment(run, task, method, base, examples, method.wrap(model, base), tokenizer, accelerator)
    history, sweep = method.train(experiment)
    assert 25 <= seen[0][0] < len(examples.splits["train"].encoded) and seen[0][1] == [1, 2]
    assert [layers for _, layers in seen[1:]] == [[1], [1]]
    assert [line["layer"] for line in sweep] == ["1", "2"]
    assert sweep[0]["F1"] > 45 and sweep[0]["F1"] > 2 * sweep[1]["F1"]
    score = method.score(experiment, history, sweep)
    assert score.tables["Quality by layer: F1 on held-out training contexts (chosen: layer 1)"] == sweep
    assert (tmp_path / "run" / "layers.png").exists()
    assert len(extract.stack_of(model).get_submodule(ARCHITECTURES[family].blocks)) == 1


def test_one_context_chooses_no_layer(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    task = QuestionAnswering(max_length=104, doc_stride=16)
    rows = samples.load("qa")["train"]
    one = [row for row in rows if row["context"] == rows[0]["context"]]
    run = RunConfig(output_dir=str(tmp_path / "run"), precision="fp32", model="a")
    model, tokenizer = checkpoints("bert", "AutoModelForQuestionAnswering")
    examples = questions(task, tokenizer, model, train=one, validation=one)
    method = HeadOnly()
    base = Base("a", "local", model_type="bert", fresh=SPAN_HEAD)
    experiment = Experiment(run, task, method, base, examples, method.wrap(model, base), tokenizer, launch.start(run))
    with pytest.raises(UserError, match="one context, which is too few to choose a layer on; give --layer"):
        method.train(experiment)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_head_for_spans_on_a_lower_layer_is_a_stock_model_without_those_above(family, checkpoints, tmp_path):
    model, tokenizer = checkpoints(family, "AutoModelForQuestionAnswering")
    base = Base("a", "local", model_type=family, fresh=("qa_outputs.bias", "qa_outputs.weight"))
    batch = tokenizer(["Where?"], ["The river flows to the sea."], return_tensors="pt")
    stack = model.decoder if family == "t5" else model.base_model
    norm = {"gpt2": "ln_f", "t5": "final_layer_norm"}.get(family)
    seen = []
    second = stack.get_submodule(ARCHITECTURES[family].blocks)[1]
    with torch.no_grad(), second.register_forward_pre_hook(lambda module, args: seen.append(args[0])):
        model.eval()(**batch)
        state = seen[0].transpose(0, 1) if ARCHITECTURES[family].time_major else seen[0]
        expected = model.qa_outputs(getattr(stack, norm)(state) if norm else state)
    for layer, message in (("3", "--layer is 3; the model has 2 layers"), ("0", "--layer is 0"), ("x", "--layer is x")):
        with pytest.raises(UserError, match=message):
            HeadOnly(layer=layer).wrap(model, base)
    before = sum(p.numel() for p in model.parameters())
    model = HeadOnly(layer="1").wrap(model, base)
    model.save_pretrained(tmp_path)
    stock, report = transformers.AutoModelForQuestionAnswering.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and sum(p.numel() for p in stock.parameters()) < before
    with torch.no_grad():
        found = stock.eval()(**batch)
    torch.testing.assert_close(torch.stack([found.start_logits, found.end_logits], 2), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", HEADS)
def test_rates_fall_from_the_head_to_the_embeddings(family, checkpoints):
    model, _ = checkpoints(family, AUTO)
    model = FineTune(layer_decay=0.5).wrap(model, base_of(family))
    groups = adamw.groups(model, weight_decay=0.1)
    rates = {p: group["rate"] for group in groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    decayed = {p for group in groups for p in group["params"] if group["weight_decay"] > 0}
    stock = transformers.Trainer.get_decay_parameter_names(None, model)
    assert all((p in decayed) == (name in stock) for name, p in model.named_parameters())
    layers = LAYERS[family]
    for name, p in model.named_parameters():
        if name in HEADS[family]:
            assert rates[p] == 1.0
        elif name.startswith(BOTTOM[family]):
            assert rates[p] == 0.5 ** (len(layers) + 1)
        for depth, layer in enumerate(reversed(layers), start=1):
            assert not name.startswith(layer) or rates[p] == 0.5**depth, name


@pytest.mark.parametrize("auto_class", ["AutoModelForQuestionAnswering", "LM"])
@pytest.mark.parametrize("family", HEADS)
def test_a_head_that_the_checkpoint_has_learns_at_the_full_rate(family, auto_class, checkpoint_folders):
    if auto_class == "LM":
        auto_class = objective_of(family).auto_class
    config = transformers.AutoConfig.from_pretrained(checkpoint_folders(family), tie_word_embeddings=False)
    model = getattr(transformers, auto_class).from_config(config)
    model = FineTune(layer_decay=0.5).wrap(model, base_of(family, set()))
    # A head is what the base model has no place for.
    stem = {name for name, _ in transformers.AutoModel.from_config(config).named_parameters()}
    own = {name for name, _ in model.named_parameters() if name.removeprefix(f"{model.base_model_prefix}.") not in stem}
    assert any(name.startswith(("qa_outputs", "lm_head", "lm_loss", "cls")) for name in own)
    rates = {name: getattr(p, "rate", 1.0) for name, p in model.named_parameters()}
    assert {name for name, rate in rates.items() if rate == 1.0} == own


@pytest.mark.parametrize("family", HEADS)
def test_the_top_layer_and_the_head(family, checkpoints):
    model, _ = checkpoints(family, AUTO)
    found = trained(FineTune(top_layers=1).wrap(model, base_of(family)))
    assert found >= HEADS[family]
    below = (BOTTOM[family], *LAYERS[family][:-1])
    names = {name for name, _ in model.named_parameters()}
    assert {name for name in names if name.startswith(LAYERS[family][-1])} <= found
    assert not {name for name in found if name.startswith(below)}
    with pytest.raises(UserError, match=f"the model has {len(LAYERS[family])} layers"):
        FineTune(top_layers=len(LAYERS[family]) + 1).wrap(model, base_of(family))


def test_all_layers_at_one_rate_is_the_default(checkpoints):
    model, _ = checkpoints("bert", AUTO)
    groups = adamw.groups(FineTune().wrap(model, base_of("bert")), weight_decay=0.1)
    assert [group["rate"] for group in groups] == [1.0, 1.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("settings", "message"), [({"top_layers": 0}, "--top_layers is 0"), ({"layer_decay": 1.5}, "--layer_decay is 1.5")]
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        FineTune(**settings)


@pytest.fixture
def features_run(checkpoint_folders, monkeypatch, tmp_path):
    """Run a recipe's calls here, the load-back too, whose fresh process takes longer than all else."""

    def load_here(folder):
        with monkeypatch.context() as within:
            within.chdir(folder)
            return load_back.load_and_compare(RunRecord.load("."))

    def run(name, family, rows, task=None, method=None, **settings):
        for split, part in rows.items():
            (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        recipe = runpy.run_path(str(ROOT / "recipes" / f"{name}_features.py"))
        settings = {"output_dir": str(tmp_path / "run"), "precision": "fp32", **settings}
        config = dataclasses.replace(
            recipe["RUN"], model=str(checkpoint_folders(family)), dataset=str(tmp_path), **settings
        )
        task = dataclasses.replace(recipe["TASK"], **(task or {}))
        method = dataclasses.replace(
            recipe["METHOD"], **{"layer": "sweep", "pooling": "sweep", "cv": 3, **(method or {})}
        )
        recipe["cli"].parse = lambda *_, **__: (config, task, method)
        recipe["main"]()
        return RunRecord.load(settings["output_dir"]), task

    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(verification, "check", load_here)
    from tl_hub import cli

    parse = cli.parse
    yield run
    cli.parse = parse


CLASSES = ["a place", "a river", "a town"]
SHORT = {"max_length": 64, "doc_stride": 16}
CITIES = "Vienna Budapest Belgrade Ulm Passau Linz Krems Bratislava Vidin Galati Izmail Regensburg".split()
VERBS = "reaches passes leaves feeds crosses floods guards hides".split()
THINGS = "a dam, a bridge, an old mill, the harbour, a wide plain, the gorge, a market, two islands".split(", ")


def document(number: int) -> str:
    """Sentences of words drawn at random: a head scales up what differs, and with it half precision's error."""
    drawn, count = random.Random(number), 1 + 7 * (number % 4)
    lines = [f"{drawn.choice(CITIES)} {drawn.choice(VERBS)} {drawn.choice(THINGS)}." for _ in range(count)]
    return " ".join([*lines, f"{number}."])


DOCUMENTS = {
    split: [{"text": document(i), "label": CLASSES[i % 3]} for i in numbers]
    for split, numbers in (("train", range(18)), ("test", range(24, 33)))
}


@pytest.mark.parametrize("settings", [{}, {"layer": "mix"}, {"fold": True}], ids=["sweep", "mix", "fold"])
def test_numbers_are_predicted_by_a_ridge_that_loads_back(settings, features_run, tmp_path):
    rows = {
        split: [{"text": row["text"], "label": len(row["text"].split()) / 8} for row in part]
        for split, part in DOCUMENTS.items()
    }
    rows["validation"] = rows["test"]  # or some of the training rows would be
    strong = {"strength": 1.0}  # or the head scales up what half precision rounds away of the kept vectors
    record, _ = features_run("document_classification", "bert", rows, SHORT, strong | settings)
    folder, texts = tmp_path / "run", [row["text"] for row in rows["test"]]
    assert record.verification["max_difference"] <= 1e-5
    assert record.method["settings"]["head"] == "ridge" and record.settings["regression"]
    assert {metric.name for metric in record.metrics} == {"rmse", "pearsonr", "spearmanr"}
    if not settings:
        assert "gives texts a score" in (folder / "README.md").read_text()
        model = tl_hub.FeatureModel.from_pretrained(folder)
        scores = model.predict(texts)
        with pytest.raises(UserError, match="a score, not probabilities"):
            model.predict_proba(texts)
        # What varies by less than half precision can tell is no dimension to learn from.
        x = model.embed([row["text"] for row in rows["train"]]).astype(float)
        varied = x.std(0) > np.finfo(np.float16).eps * np.abs(x.mean(0))
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=len(x)))
        ridge.fit(x[:, varied], [row["label"] for row in rows["train"]])
        stock = ridge.predict(model.embed(texts)[:, varied])
        assert scores == pytest.approx(stock, abs=0.05)
    answers = tl_hub.pipeline(folder)(texts)
    assert [answer["label"] for answer in answers] == ["score"] * len(texts)
    if not settings:
        assert [answer["score"] for answer in answers] == pytest.approx(scores, abs=1e-4)
    shown = [json.loads(line)["predicted"] for line in (folder / "predictions.jsonl").read_text().splitlines()]
    # The run scores vectors that are kept in half precision, as far from the stock ridge as that rounds.
    assert shown == pytest.approx([answer["score"] for answer in answers], abs=0.05)
    assert all(figure["holds"] for figure in evaluation.remeasure(folder, dataset=str(tmp_path))["metrics"])


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_what_half_precision_rounds_away_of_kept_vectors_is_not_scaled_up(kind):
    """A dimension of 7 plus a ten-thousandth, as of a token that every text has: kept, it is one of two numbers."""
    random = np.random.default_rng(0)
    exact = random.normal(size=(60, 5)).astype(np.float32)
    exact[:, 4] = 7.002 + 1e-3 * random.normal(size=60)
    kept = exact.astype(np.float16).astype(np.float32)
    noise = (kept[:, 4:] - kept[:, 4].mean()) / kept[:, 4].std()  # a target that follows it rewards a large weight
    targets = (exact[:, :1] + noise > 0) == [True, False] if kind == "logistic" else exact[:, :1] + noise
    folds = heads.folds_of(np.ones((60, 1), dtype=bool), 3, 0)
    head, _ = heads.fit(kind, kept, targets, folds, (1e-4,), False, False, np.ones(60))
    np.testing.assert_allclose(head(exact), head(kept), atol=0.02 * np.abs(head(kept)).max())


@pytest.mark.parametrize("head", ["prototypes", "mlp"])
def test_heads_for_classes_are_refused_in_regression(head, features_run):
    rows = {split: [{**row, "label": i / 4} for i, row in enumerate(part)] for split, part in DOCUMENTS.items()}
    with pytest.raises(UserError, match=f"--head {head} is for classes.*--head ridge"):
        features_run("document_classification", "bert", rows, SHORT, {"head": head})


@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_a_run_of_every_family_loads_back_and_answers_as_evaluated(family, features_run, tmp_path, monkeypatch, capsys):
    strong = {"strength": 1.0}  # a random model's texts differ by little more than half precision rounds away
    record, _ = features_run("document_classification", family, DOCUMENTS, SHORT, strong)
    folder = tmp_path / "run"
    assert record.verification["max_difference"] <= 1e-5 and record.verification["loaded_by"] == ["tl_hub"]
    assert (record.kind, record.auto_class) == ("feature-extraction", "FeatureModel")
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "run.json", "log.jsonl", "config.json", "head.safetensors", "probe.safetensors", "layers.png",
        "confusion.png", "notebook.ipynb", "tokenizer.json", "tokenizer_config.json", "predictions.jsonl",
        "settings.yaml",
    }  # fmt: skip
    assert str(tmp_path) not in (folder / "run.json").read_text() + (folder / "README.md").read_text()
    card = (folder / "README.md").read_text()
    assert "tl_hub.FeatureModel.from_pretrained" in card
    assert "More Information Needed" not in card and "mixin" not in card.lower(), "the card is the run's alone"
    assert "not from tl_hub" not in capsys.readouterr().out
    assert "learning_rate" not in record.settings and record.settings["max_length"] == 64
    assert any("overlapping" in note for note in record.data.notes)
    (sweep,) = (rows for title, rows in record.tables.items() if "by layer and pooling" in title)
    assert [row["layer"] for row in sweep] == ["0", "1", "2"]
    assert set(sweep[0]) == {"layer", *ARCHITECTURES[family].poolings}
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    best = max(row[pooling] for row in sweep for pooling in ARCHITECTURES[family].poolings)
    assert log[:-1] == sweep and sweep[log[-1]["layers"][0]][log[-1]["pooling"]] == best

    shown = {row["text"]: row for row in record.examples}
    answers = tl_hub.pipeline(folder)(list(shown), batch_size=5)
    for answer, row in zip(answers, shown.values(), strict=True):
        # Vectors were kept in half precision, so that of two classes that are nearly alike the other may come first.
        assert answer["scores"][row["predicted"]] == pytest.approx(row["probability"], abs=0.02)
        assert answer["label"] == row["predicted"] or answer["score"] < row["probability"] + 0.02
    assert tl_hub.FeatureModel.from_pretrained(folder).predict(list(shown)) == [a["label"] for a in answers]

    reads = []
    monkeypatch.setattr(extract, "pooled", lambda *_: reads.append(1))
    before = (folder / "head.safetensors").read_bytes()
    rows = {
        split: [{**row, "label": CLASSES[0]} if split == "test" else row for row in part]
        for split, part in DOCUMENTS.items()
    }
    monkeypatch.setattr(verification, "check", lambda folder: {"loaded_by": [], "max_difference": 0.0})
    monkeypatch.setattr(finish, "write_probe", lambda *_: None)
    again, _ = features_run("document_classification", family, rows, SHORT, strong, overwrite=True)
    assert reads == [], "the second run reads the cache"
    assert (folder / "head.safetensors").read_bytes() == before, "what the test rows are decides nothing"


def test_no_row_stands_in_what_is_published_without_examples(features_run, tmp_path):
    strong = {"strength": 1.0}
    shown, _ = features_run("document_classification", "bert", DOCUMENTS, SHORT, strong)
    hidden, _ = features_run(
        "document_classification", "bert", DOCUMENTS, SHORT, strong, examples=False, output_dir=str(tmp_path / "hidden")
    )
    assert len(shown.examples) == 8 and hidden.examples == []
    published = [path for name in run_folder.PUBLISHED for path in (tmp_path / "hidden").glob(name)]
    texts = [path.read_bytes() for path in (*published, tmp_path / "hidden" / "README.md")]
    for row in DOCUMENTS["test"]:
        assert not any(row["text"].split(".")[0].encode() in text for text in texts)


def test_of_more_rows_than_memory_holds_some_are_drawn_and_all_are_scored(features_run, tmp_path, monkeypatch):
    """Against a run that is given no rows but those."""
    splits = {**DOCUMENTS, "validation": DOCUMENTS["test"][:3]}
    drawn = sorted(np.random.default_rng(0).permutation(len(DOCUMENTS["train"]))[:12].tolist())
    few = {**splits, "train": [DOCUMENTS["train"][i] for i in drawn]}
    one = {"layer": "1", "pooling": "mean", "strength": 1.0}
    expected, _ = features_run("document_classification", "bert", few, SHORT, one)
    head = load_file(tmp_path / "run" / "head.safetensors")
    assert not any("chosen at random" in note for note in expected.data.notes)
    monkeypatch.setattr(feature_extraction, "_HEAD_ROWS", 12)
    monkeypatch.setattr(feature_extraction, "_READ_AT_ONCE", 5)
    record, _ = features_run("document_classification", "bert", splits, SHORT, one, overwrite=True)
    assert "The head was fitted on 12 of the training rows, chosen at random." in record.data.notes
    for name, tensor in load_file(tmp_path / "run" / "head.safetensors").items():
        assert torch.allclose(tensor, head[name], atol=1e-4), name
    shown = [{row["text"]: row["probability"] for row in each.examples} for each in (record, expected)]
    assert shown[0] and shown[0] == pytest.approx(shown[1], abs=1e-3)
    assert [m.value for m in record.metrics] == pytest.approx([m.value for m in expected.metrics], abs=0.1)


def test_several_labels_and_a_pair_of_texts(features_run, tmp_path):
    numbers = range(24)
    rows = [{"text": f"text {i}", "text_pair": f"other {i}", "label": ["good", "new"][: i % 3]} for i in numbers]
    pairs = {"text_pair_column": "text_pair", **SHORT}
    tested = [{**row, "label": ["good", "new"]} for row in rows[8:16]]  # of which any low threshold is the best
    splits = {"train": rows, "validation": rows[:8], "test": tested}
    record, _ = features_run("sentiment", "bert", splits, pairs, {"layer": "1"})
    assert record.metrics[0].name == "micro_f1" and 0 < record.decision["threshold"] < 1
    assert any("average precision" in title for title in record.tables)
    answer = tl_hub.pipeline(tmp_path / "run")("text 1", "other 1")
    assert isinstance(answer["label"], list) and set(answer["scores"]) == {"good", "new"}
    model = tl_hub.FeatureModel.from_pretrained(tmp_path / "run")
    assert model.predict_proba(["text 1"], ["other 1"])[0] == pytest.approx(list(answer["scores"].values()), abs=1e-5)
    texts, others = [row["text"] for row in rows], [row["text_pair"] for row in rows]
    told = np.sort(model.predict_proba(texts[:8], others[:8]), axis=None)
    middles = (told[1:] + told[:-1]) / 2
    # It was chosen on vectors that are kept in half precision; the next middle is a hundred times as far.
    assert np.abs(middles - record.decision["threshold"]).min() < 1e-4, "between two answers of the validation rows"
    # The threshold is the best on the validation rows, and the figures of the test rows are with that one.
    shares = model.predict_proba(texts, others)
    true = np.array([[name in row["label"] for name in ("good", "new")] for row in rows])
    every = [f1_score(true[:8], shares[:8] >= share, average="micro") for share in shares[:8].flatten()]
    chosen = shares >= record.decision["threshold"]
    assert f1_score(true[:8], chosen[:8], average="micro") == max(every)
    of_test = f1_score(np.ones((8, 2)), chosen[8:16], average="micro")
    assert record.metrics[0].value == pytest.approx(100 * of_test) and record.metrics[0].split == "test" and of_test < 1
    given = model.predict(texts, others)
    assert given == [each["label"] for each in tl_hub.pipeline(tmp_path / "run")(texts, others)]
    assert given != [["good", "new"]] * len(rows) and given != [[]] * len(rows)
    model.settings["threshold"] = 0.5
    assert given != model.predict(texts, others), "another threshold was chosen than a half"


def test_a_mix_of_layers_under_a_hidden_layer(features_run, tmp_path):
    record, _ = features_run(
        "document_classification", "bert", DOCUMENTS | {"train": 2 * DOCUMENTS["train"]}, SHORT,
        {"layer": "mix", "head": "mlp", "strength": 1.0},
    )  # fmt: skip
    assert record.verification["max_difference"] <= 1e-5
    (sweep,) = (rows for title, rows in record.tables.items() if "by layer and pooling" in title)
    assert [row["layer"] for row in sweep] == ["0+1+2"]
    answers = tl_hub.pipeline(tmp_path / "run")([row["text"] for row in record.examples])
    for answer, row in zip(answers, record.examples, strict=True):
        assert answer["scores"][row["predicted"]] == pytest.approx(row["probability"], abs=0.02)


def test_a_mix_is_judged_on_rows_that_it_was_not_learned_from(checkpoints):
    """Each figure of the table against mixes and scikit-learn's ridge regression, fold by fold."""
    random = np.random.default_rng(0)
    labels = random.integers(3, size=90)
    values = random.normal(size=(3, 3, 90, 32)) + 0.5 * np.eye(3, 32)[labels]
    vectors = vector_cache.Vectors(values.astype(np.float16), (0, 1, 2), ("mean", "first", "max"), 0.0)
    task = Classification()
    rows = Dataset.from_dict({"text": ["a"] * 90, "label": [CLASSES[label] for label in labels]})
    task = task.learn({"train": rows})
    split = Split(rows, Dataset.from_dict({"row": range(90)}))
    method = FeatureExtraction(layer="mix", cv=3, head="prototypes")
    chosen = method.choose(checkpoints("bert", AUTO)[0], vectors, split, task, seed=0)
    targets = task.targets(rows)
    folds = heads.folds_of(targets, 3, 0)
    for pooling in vectors.poolings:
        each = np.stack([vectors.of([layer], pooling) for layer in vectors.layers])
        right = {strength: 0 for strength in heads.STRENGTHS[2:5]}
        for out in (folds == fold for fold in range(3)):
            x = np.tensordot(heads.scalar_mix(each[:, ~out], targets[~out]), each, 1)
            for strength in right:
                stock = make_pipeline(StandardScaler(), Ridge(alpha=strength * (~out).sum()))
                guess = stock.fit(x[~out], 2.0 * targets[~out]).predict(x[out]).argmax(1)
                right[strength] += int((guess == targets[out].argmax(1)).sum())
        assert chosen.sweep[0][pooling] == pytest.approx(100 * max(right.values()) / 90, abs=0.01)
    assert chosen.mix is not None
    every = np.stack([vectors.of([layer], chosen.pooling) for layer in vectors.layers])
    np.testing.assert_allclose(chosen.mix, heads.scalar_mix(every, targets), rtol=1e-4)


def test_a_sweep_reads_the_windows_of_some_rows_only(checkpoints, monkeypatch):
    """Its figures against scikit-learn's ridge regression on means made by a loop; and how many vectors were read."""
    random = np.random.default_rng(0)
    row, labels = np.repeat(np.arange(40), random.integers(1, 5, 40)), random.integers(2, size=40)
    values = random.normal(size=(3, 3, len(row), 32)) + 0.7 * np.eye(2, 32)[labels[row]]
    vectors = vector_cache.Vectors(values.astype(np.float16), (0, 1, 2), ("mean", "first", "max"), 0.0)
    task = Classification()
    rows = Dataset.from_dict({"text": ["a"] * 40, "label": [CLASSES[label] for label in labels]})
    task = task.learn({"train": rows})
    model = checkpoints("bert", AUTO)[0]
    reads = []
    of = vector_cache.Vectors.of

    def counted(self, *options):
        found = of(self, *options)
        reads.append(len(found))
        return found

    monkeypatch.setattr(vector_cache.Vectors, "of", counted)
    monkeypatch.setattr(feature_extraction, "_SWEEP_ROWS", 20)
    monkeypatch.setattr(feature_extraction, "_READ_AT_ONCE", 7)
    method = FeatureExtraction(layer="sweep", cv=3, head="prototypes")
    chosen = method.choose(model, vectors, Split(rows, Dataset.from_dict({"row": row})), task, seed=0)
    some = np.sort(np.random.default_rng(0).permutation(40)[:20])
    assert sum(reads) == 9 * np.isin(row, some).sum() + len(row) and max(reads) <= 7
    targets = task.targets(rows)
    folds = heads.folds_of(targets, 3, 0)[some]
    for layer, place in itertools.product(range(3), range(3)):
        x = np.stack([values[layer, place].astype(np.float16)[row == i].mean(0, dtype=float) for i in some])
        right = {strength: 0 for strength in heads.STRENGTHS[2:5]}
        for out in (folds == fold for fold in range(3)):
            for strength in right:
                stock = make_pipeline(StandardScaler(), Ridge(alpha=strength * (~out).sum()))
                guess = stock.fit(x[~out], 2.0 * targets[some][~out]).predict(x[out]).argmax(1)
                right[strength] += int((guess == labels[some][out]).sum())
        assert chosen.sweep[layer][vectors.poolings[place]] == pytest.approx(5 * max(right.values()), abs=0.01)
    figures = {(layer, pooling): chosen.sweep[layer][pooling] for layer in range(3) for pooling in vectors.poolings}
    (layer,) = chosen.layers
    assert figures[layer, chosen.pooling] == max(figures.values()) > min(figures.values())


def test_a_hidden_layer_learns_what_it_is_applied_to(checkpoints):
    """Windows, each with the class of its text and a share of the text's weight, held out text by text."""
    random = np.random.default_rng(0)
    row, labels = np.repeat(np.arange(60), random.integers(1, 5, 60)), random.integers(2, size=60)
    values = (random.normal(size=(1, 1, len(row), 32)) + 0.7 * np.eye(2, 32)[labels[row]]).astype(np.float16)
    rows = Dataset.from_dict({"text": ["a"] * 60, "label": [CLASSES[label] for label in labels]})
    task = Classification()
    task = task.learn({"train": rows})
    chosen = FeatureExtraction(layer="1", pooling="mean", head="mlp").choose(
        checkpoints("bert", AUTO)[0],
        vector_cache.Vectors(values, (1,), ("mean",), 0.0),
        Split(rows, Dataset.from_dict({"row": row})),
        task,
        seed=0,
    )
    targets, windows = task.targets(rows), values[0, 0].astype(np.float32)
    folds = heads.folds_of(targets, 10, 0)
    weights = 1 / np.bincount(row)[row]
    expected, _ = heads.fit("mlp", windows, targets[row], folds[row], weights=weights)
    np.testing.assert_allclose(chosen.head(windows), expected(windows), atol=1e-6)


def test_a_folded_run_is_a_stock_model(features_run, tmp_path):
    folded = {"fold": True, "pooling": "last"}
    record, _ = features_run("document_classification", "xlnet", DOCUMENTS, SHORT, folded)
    assert record.auto_class == "AutoModelForSequenceClassification"
    assert record.verification["loaded_by"] == ["transformers"] and not (tmp_path / "run" / "head.safetensors").exists()
    assert record.verification["max_difference"] <= 1e-5
    answers = tl_hub.pipeline(tmp_path / "run")([row["text"] for row in record.examples])
    for answer, row in zip(answers, record.examples, strict=True):
        # The vectors of the evaluation are kept in half precision, which may decide between classes as good as equal.
        assert answer["scores"][row["predicted"]] >= answer["score"] - 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"run": {"learning_rate": 1e-3}}, "--learning_rate is for gradient training"),
        ({"task": {"label_smoothing": 0.1}}, "--label_smoothing is for gradient training"),
        ({"method": {"layer": "3"}}, "--layer is 3; the model has 2 layers"),
        (
            {"method": {"fold": True, "pooling": "mean"}},
            "--fold: transformers' classifier for bert reads --pooling first",
        ),
    ],
)
def test_a_setting_that_has_no_effect_or_no_place_is_refused(settings, message, features_run, tmp_path):
    with pytest.raises(UserError, match=message):
        features_run(
            "document_classification", "bert", DOCUMENTS, {**SHORT, **settings.get("task", {})},
            settings.get("method"), **settings.get("run", {}),
        )  # fmt: skip
    assert not (tmp_path / "run").exists() and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "top"}, "--layer is 'top'"),
        ({"strength": 0.0}, "--strength is 0.0"),
        ({"head": "mlp", "fold": True}, "--fold needs a linear head"),
        ({"cv": 1}, "--cv is 1"),
    ],
)
def test_settings_of_the_method_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        FeatureExtraction(**settings)


def test_four_layers_side_by_side(tmp_path, monkeypatch, checkpoint_folders):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path))
    config = transformers.AutoConfig.from_pretrained(checkpoint_folders("bert"))
    for depth, layers in ((5, (2, 3, 4, 5)), (3, (0, 1, 2, 3)), (2, (0, 1, 2))):
        config.num_hidden_layers = depth
        encoder = extract.encoder_of(transformers.AutoModelForSequenceClassification.from_config(config))
        assert FeatureExtraction(layer="last4", pooling="mean").candidates(encoder, 9)[0] == [layers]


def test_few_texts_do_not_choose_a_layer(checkpoints):
    encoder = extract.encoder_of(checkpoints("gpt2", AUTO)[0])
    every = [(0,), (1,), (2,)]
    assert FeatureExtraction().candidates(encoder, 499) == ([(0, 1, 2)], ("mean",))
    assert FeatureExtraction(pooling="max").candidates(encoder, 499) == ([(0, 1, 2)], ("max",))
    assert FeatureExtraction().candidates(encoder, 500) == (every, ("mean", "last", "max"))
    assert FeatureExtraction(layer="sweep").candidates(encoder, 8) == (every, ("mean", "last", "max"))
    assert FeatureExtraction(fold=True, pooling="last").candidates(encoder, 8) == ([(2,)], ("last",))  # all that can be
    with pytest.raises(UserError, match="for gpt2 reads the last token.*omit --fold.*mean"):
        FeatureExtraction(fold=True).candidates(encoder, 8)
    encoder = extract.encoder_of(checkpoints("bert", AUTO)[0])
    assert FeatureExtraction(fold=True).candidates(encoder, 8) == ([(1,), (2,)], ("first",))
    recipe = runpy.run_path(str(ROOT / "recipes" / "document_classification_features.py"))
    assert recipe["METHOD"].candidates(encoder, 900) == ([(0, 1, 2)], ("mean",)), "as its text says"


STORIES = {
    split: [
        {"text": f"It is day {i}. {name} likes tea. The Danube flows to the sea and {name} sees it. Bye.",
         "summary": f"The Danube flows to the sea and {name} sees."}
        for i, name in zip(range(count), itertools.cycle(["Ann", "Bob", "Eve"]), strict=False)
    ]
    for split, count in (("train", 12), ("test", 6))
}  # fmt: skip


def test_a_summary_is_the_sentence_that_training_tells_of(features_run, tmp_path):
    record, task = features_run("summarization", "gpt2", STORIES)
    assert record.decision == {"sentences": 1.0} and record.metrics[0].name == "rougeL" and record.metrics[0].value > 85
    assert {row["system"] for row in record.tables["Baselines"]} == {
        "this model", "first sentence", "best choice of sentences",
    }  # fmt: skip
    lead = next(row for row in record.tables["Baselines"] if row["system"] == "first sentence")
    assert lead["rougeL"] < 40
    ask = tl_hub.pipeline(tmp_path / "run")
    for row in record.examples:
        assert ask(row["text"])["generated_text"] == row["predicted"]
    together = ask([row["text"] for row in record.examples], batch_size=4)
    assert [answer["generated_text"] for answer in together] == [row["predicted"] for row in record.examples]
    with pytest.raises(UserError, match="a text is empty"):
        ask([""])


def test_many_rows_a_class_are_told_that_training_may_do_better(features_run, capsys):
    """Whoever has a handful is told of frozen vectors by the recipes that train; here it is the other way round."""
    many = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(65)]
    one = {"layer": "1", "pooling": "mean", "strength": 1.0}
    features_run("sentiment", "bert", {"train": many, "validation": many[::13]}, SHORT, one)
    assert "note: 65 training rows of the rarest class: with more than 64" in capsys.readouterr().out
    features_run("sentiment", "bert", {"train": many[1:], "validation": many[::13]}, SHORT, one, overwrite=True)
    assert "training was better" not in capsys.readouterr().out


def test_of_many_sentences_some_documents_are_drawn_and_all_are_scored_whole(checkpoints, monkeypatch):
    """Against a choice among no documents but those, and a head that is given all sentences at once."""
    rows = [
        {"text": " ".join(f"{name} saw {n} ships." for n in range(1 + 2 * (i % 3))), "summary": f"{name} saw 0 ships."}
        for i, name in enumerate(f"Captain {letter}x" for letter in "ABCDEFGHIJKL")
    ]
    task, random = ExtractiveSummarization(), np.random.default_rng(0)
    model = checkpoints("bert", AUTO)[0]
    documents = task.check(Dataset.from_list(rows))
    row = np.repeat(np.arange(12), [1 + 2 * (i % 3) for i in range(12)])
    values = random.normal(size=(1, 1, len(row), 32)).astype(np.float16)
    vectors = vector_cache.Vectors(values, (1,), ("mean",), 0.0)
    split = Split(documents, Dataset.from_dict({"row": row}))
    monkeypatch.setattr(feature_extraction, "_HEAD_ROWS", 15)
    method = FeatureExtraction(layer="1", pooling="mean", strength=1.0, cv=2)
    chosen = method.choose(model, vectors, split, task, seed=0)
    order = np.random.default_rng(0).permutation(12)
    drawn = next(np.sort(order[:n]) for n in range(1, 13) if np.isin(row, order[:n]).sum() >= 15)
    assert chosen.rows == len(drawn) < 12
    few = np.isin(row, drawn)
    monkeypatch.undo()
    of = Split(documents.select(drawn), Dataset.from_dict({"row": np.unique(row[few], return_inverse=True)[1]}))
    alone = method.choose(model, dataclasses.replace(vectors, values=values[:, :, few]), of, task, seed=0)
    np.testing.assert_allclose(chosen.head.weight, alone.head.weight, atol=1e-6)
    monkeypatch.setattr(feature_extraction, "_READ_AT_ONCE", 4)
    seen = []
    monkeypatch.setattr(task, "score", lambda predictions, *_: seen.append(predictions["logits"]))
    rows = Data({"test": split}, "a", "local")
    experiment = Experiment(RunConfig(), task, method, None, rows, model, None, Accelerator())
    method._score(experiment, {"test": vectors}, chosen, "test", None)
    np.testing.assert_allclose(seen[0], chosen.head(in_document(values[0, 0].astype(np.float32), row)), atol=1e-5)


def test_a_summarizer_has_no_stock_class(features_run):
    with pytest.raises(UserError, match="--fold is for classification"):
        features_run("summarization", "bert", STORIES, method={"fold": True})


def test_sentences_beside_their_document():
    vectors, document = np.random.default_rng(0).normal(size=(6, 5)), np.array([3, 3, 3, 8, 8, 9])
    found = in_document(vectors, document)
    for i in range(6):
        members = np.flatnonzero(document == document[i])
        mean, place = vectors[members].mean(0), list(members).index(i)
        cosine = vectors[i] @ mean / np.linalg.norm(vectors[i]) / np.linalg.norm(mean)
        truth = [*vectors[i], *vectors[i] * mean, cosine, 1 / (1 + place), place / len(members), np.log(len(members))]
        np.testing.assert_allclose(found[i], truth, rtol=1e-5)


def test_the_best_sentences_and_the_summaries_of_them():
    split = ["Rain fell all day.", "The old bridge fell.", "Nobody was hurt.", "It was Monday."]
    assert best_sentences(split, ["The old bridge fell and nobody was hurt."], 5) == [1, 2]
    assert best_sentences(split, ["The old bridge fell and nobody was hurt."], 1) == [1]
    assert best_sentences(split, ["Zebras."], 5) == []
    task = ExtractiveSummarization()
    texts = [" ".join(split), "One. Two."]
    logits = np.array([[0.1], [3.0], [4.0], [0.2], [1.0], [2.0]])
    assert list(task.summaries(logits, texts, 2)) == ["The old bridge fell. Nobody was hurt.", "One. Two."]
    three = np.array([[1.0], [2.0], [0.3], [0.2], [0.1], [0.0], [0.9]])
    assert list(task.summaries(three, ["One. Two.", "A. B. C.", "I. Me."], 1)) == ["Two.", "A.", "Me."], (
        "each by its own"
    )
    rows = Dataset.from_dict({"source": texts, "references": [["The old bridge fell."], ["Two."]]})
    assert task.targets(rows)[:, 0].tolist() == [False, True, False, False, False, True]
    assert len(task.targets(rows)) == sum(len(sentences(text)) for text in texts)


def test_as_many_sentences_are_chosen_as_tell_most():
    """Of six sentences the summary is five: no fewer have a higher ROUGE-L."""
    split = ["Rain fell.", "Dogs ran.", "Cats slept.", "Birds sang.", "Bells rang.", "Zebras?"]
    rows = Dataset.from_dict({"source": [" ".join(split)], "references": [[" ".join(split[:5])]]})
    logits = np.array([[6.0], [5.0], [4.0], [3.0], [2.0], [1.0]])
    score = ExtractiveSummarization().score({"logits": logits}, rows, rows, None)
    assert score.decision == {"sentences": 5.0} and float(score.metrics["rougeL"][0]) == pytest.approx(100)


def test_the_best_sentences_are_those_for_whichever_reference_they_match_best():
    """Training and the best choice on the card take the best reference of each text, as the scores beside them do."""
    split = ["Rain fell all day.", "The old bridge fell.", "Nobody was hurt."]
    references = ["It rained and an ancient crossing broke down.", "The old bridge fell."]
    for order in (references, references[::-1]):
        assert best_sentences(split, order, 5) == [1]
    task = ExtractiveSummarization()
    rows = Dataset.from_dict({"source": [" ".join(split)], "references": [references]})
    assert task.targets(rows)[:, 0].tolist() == [False, True, False]
    score = task.score({"logits": np.array([[3.0], [2.0], [1.0]])}, rows, Dataset.from_dict({"row": [0, 0, 0]}), None)
    table = {row["system"]: row for row in task.tables(rows, score)["Baselines"]}
    assert table["best choice of sentences"]["rougeL"] == 100 >= table["this model"]["rougeL"]
