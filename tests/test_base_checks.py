"""A checkpoint that is not what a run would take it for is refused before training; whole ones are not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.test_record import minimal
from tl_hub import base_model
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.methods import adapters
from tl_hub.methods.estimator import FeatureClassifier
from tl_hub.methods.fine_tune import FineTune
from tl_hub.methods.head_only import HeadOnly
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.language_modeling import objective_of
from tl_hub.tasks.question_answering import QuestionAnswering


@pytest.fixture
def altered(checkpoint_folders, tmp_path):
    """A copy of a family's checkpoint with other weights: a function of them."""

    def make(family: str, change=None, leave_out: str = "nothing") -> Path:
        place = tmp_path / f"{family}-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(checkpoint_folders(family), place, ignore=shutil.ignore_patterns(leave_out))
        if change:
            weights = change(load_file(place / "model.safetensors"))
            save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
        return place

    return make


def load(place: Path, task=None, **settings):
    task = task or Classification()
    if isinstance(task, Classification):
        task.labels = ["bad", "good"]
    return base_model.load(RunConfig(model=str(place), **settings), task)


FAMILIES = ("bert", "gpt2", "t5", "xlnet")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_checkpoint_passes_with_a_new_head(family, altered):
    for task in (Classification(), QuestionAnswering(), objective_of(family)()):
        model, _, base = load(altered(family), task)
        assert not [name for name in base.fresh if "layer" in name or "embed" in name]


def test_a_head_of_another_task_and_a_missing_pooler_are_no_reason(altered, tmp_path, checkpoint_folders):
    transformers.BertForMaskedLM.from_pretrained(checkpoint_folders("bert")).save_pretrained(tmp_path / "masked")
    transformers.AutoTokenizer.from_pretrained(checkpoint_folders("bert")).save_pretrained(tmp_path / "masked")
    _, _, base = load(tmp_path / "masked")
    assert {name.split(".")[-3] for name in base.fresh if "pooler" in name} == {"pooler"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "student."])
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_under_other_names_are_refused(family, prefix, altered):
    place = altered(family, lambda weights: {prefix + name: value for name, value in weights.items()})
    with pytest.raises(UserError, match=r"its weights lack \d+ of the \d+ parameters .*would be random"):
        load(place)


def test_half_a_model_is_refused(altered):
    upper = altered("bert", lambda weights: {n: w for n, w in weights.items() if "layer.1." not in n})
    with pytest.raises(UserError, match=r"lack 16 of the \d+ parameters .*encoder\.layer\.1\."):
        load(upper)
    encoder = altered("t5", lambda weights: {n: w for n, w in weights.items() if not n.startswith("decoder")})
    with pytest.raises(UserError, match=r"lack \d+ of the \d+ parameters of a t5 model \(decoder\."):
        load(encoder, objective_of("t5")())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_refused(value, altered):
    def spoil(weights):
        weights["encoder.layer.0.output.dense.weight"][3, 5] = value
        return weights

    with pytest.raises(UserError, match=r"1 of its weights hold NaN or infinity \(bert\.encoder\.layer\.0\.output"):
        load(altered("bert", spoil))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_a_tokenizer_is_refused(family, altered):
    """transformers 5 makes an empty one, of 5 tokens for BERT, without a word."""
    with pytest.raises(UserError, match="its tokenizer knows .* tokens|weights or tokenizer cannot be loaded"):
        load(altered(family, leave_out="tokenizer*"))


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_of_the_embeddings_that_stand_for_no_token_are_no_reason(family, altered):
    """Many published checkpoints have them, up to a multiple of 64 or 128."""
    place = altered(family)
    model = transformers.AutoModel.from_pretrained(place)
    rows = -(-model.config.vocab_size // 128) * 128
    assert rows > len(transformers.AutoTokenizer.from_pretrained(place))
    model.resize_token_embeddings(rows)
    model.save_pretrained(place)
    loaded, _, _ = load(place)
    assert loaded.get_input_embeddings().weight.size(0) == rows


@pytest.mark.parametrize(
    ("family", "add"),
    [
        ("bert", lambda tokenizer: tokenizer.add_tokens(["<user>", "zorblax"])),
        ("gpt2", lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "[PAD]"})),
    ],
)
def test_added_tokens_are_refused_where_the_base_is_frozen_with_a_fix_that_works(family, add, altered):
    """They ended in an IndexError in the middle of training."""
    place = altered(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    add(tokenizer)
    tokenizer.save_pretrained(place)
    for method in (adapters.Lora(), HeadOnly(), FineTune(top_layers=1)):
        model, _, base = load(place)
        with pytest.raises(
            UserError,
            match=rf"no embedding \((<user>, zorblax|\[PAD\])\).*resize_token_embeddings\({len(tokenizer)}\)",
        ):
            method.wrap(model, base)
    with pytest.raises(UserError, match="no embedding"):
        FeatureClassifier(model=str(place)).fit(["a", "b"], [0, 1])
    model = transformers.AutoModel.from_pretrained(place)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(place)
    model, tokenizer, base = load(place)
    adapters.Lora().wrap(model, base)
    assert torch.isfinite(model(**tokenizer("zorblax [PAD]", return_tensors="pt")).logits).all()


def test_a_tokenizer_of_another_model_is_not_taken_for_one_with_added_tokens(altered, checkpoint_folders):
    place = altered("bert")
    vocabulary = transformers.AutoTokenizer.from_pretrained(checkpoint_folders("bert")).get_vocab()
    larger = transformers.BertTokenizer(vocab=vocabulary | {f"word{i}": len(vocabulary) + i for i in range(40)})
    larger.save_pretrained(place)
    with pytest.raises(UserError, match=r"40 tokens of its tokenizer have no embedding .*another model"):
        load(place)


def test_the_license_of_a_result_that_will_be_published_is_known_before_training(altered):
    """It may be a stricter one than the base's, never a freer one, and one of the two must be there."""
    place = altered("bert")

    def license_of(base: str | None, own: str | None = None) -> str | None:
        if base:
            (place / "run.json").write_text(json.dumps(minimal() | {"license": base}))
        return load(place, license=own, push_to="someone/run")[2].license

    with pytest.raises(UserError, match="the license is not known; give --license"):
        license_of(None)
    assert license_of(None, "mit") is None
    assert license_of("apache-2.0") == license_of("apache-2.0", "cc-by-nc-4.0") == "apache-2.0"
    with pytest.raises(UserError, match="--license apache-2.0: the base model is under cc-by-nc-4.0"):
        license_of("cc-by-nc-4.0", "apache-2.0")
