"""What is trained, and how fast: the head alone, the top layers, or every layer at a rate of its own."""

import pytest
import torch
import transformers

from tl_hub import training
from tl_hub.errors import UserError
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.fine_tune import FineTune
from tl_hub.training import Base

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


def base_of(family: str) -> Base:
    return Base("a", "local", model_type=family, fresh=tuple(sorted(HEADS[family])))


def trained(model) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", HEADS)
def test_only_the_head_is_trained_and_the_base_has_no_dropout(family, checkpoints):
    model, tokenizer = checkpoints(family, AUTO)
    model.config.pad_token_id = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    model = FeatureExtraction().wrap(model, base_of(family))
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
    assert trained(FeatureExtraction().wrap(model, base)) == HEADS["bert"] | pooler
    model = FineTune(top_layers=1, layer_decay=0.5).wrap(model, base)
    rates = {name: getattr(p, "rate", 1.0) for name, p in model.named_parameters()}
    assert {rates[name] for name in pooler} == {1.0}


def test_nothing_to_train_is_refused(checkpoints):
    model, _ = checkpoints("bert", AUTO)
    with pytest.raises(UserError, match="feature extraction would train nothing"):
        FeatureExtraction().wrap(model, Base("a", "local", model_type="bert"))


@pytest.mark.parametrize("family", HEADS)
def test_rates_fall_from_the_head_to_the_embeddings(family, checkpoints):
    model, _ = checkpoints(family, AUTO)
    model = FineTune(layer_decay=0.5).wrap(model, base_of(family))
    groups = training._groups(model, weight_decay=0.1)
    rates = {p: group["rate"] for group in groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert all((p.ndim > 1) == (group["weight_decay"] > 0) for group in groups for p in group["params"])
    layers = LAYERS[family]
    for name, p in model.named_parameters():
        if name in HEADS[family]:
            assert rates[p] == 1.0
        elif name.startswith(BOTTOM[family]):
            assert rates[p] == 0.5 ** (len(layers) + 1)
        for depth, layer in enumerate(reversed(layers), start=1):
            assert not name.startswith(layer) or rates[p] == 0.5**depth, name


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
    groups = training._groups(FineTune().wrap(model, base_of("bert")), weight_decay=0.1)
    assert [group["rate"] for group in groups] == [1.0, 1.0]
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("settings", "message"), [({"top_layers": 0}, "--top_layers is 0"), ({"layer_decay": 1.5}, "--layer_decay is 1.5")]
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        FineTune(**settings)
