"""Checkpoints as people have them: a run of each loads back as trained, or one line says before training why not."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tl_hub import base_model
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import RunRecord
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.language_modeling import objective_of

ROOT = Path(__file__).parent.parent
TINY = {
    "bert": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64},
}
LANGUAGE_MODEL = {
    "bert": "BertForMaskedLM",
    "gpt2": "GPT2LMHeadModel",
    "t5": "T5ForConditionalGeneration",
    "xlnet": "XLNetLMHeadModel",
}


@pytest.fixture
def checkpoint(checkpoint_folders, tmp_path):
    """A small checkpoint of a family with other values of its configuration, weights type or way of saving."""

    def make(family: str, dtype=torch.float32, shards: str = "5GB", **values) -> Path:
        place = tmp_path / f"{family}-model"
        tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folders(family))
        ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id") if family != "bert"}
        given = TINY[family] | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | ids | values
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(family, **given)
        model = getattr(transformers, LANGUAGE_MODEL[family])(config).to(dtype)
        model.save_pretrained(place, max_shard_size=shards)
        tokenizer.save_pretrained(place)
        return place

    return make


def edit(file: Path, **values) -> None:
    """Write values into a JSON file; None takes the name out."""
    content = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


@pytest.fixture
def difference(load_back_here, monkeypatch, tmp_path):
    """Run a recipe on a checkpoint: how far the run folder's outputs, loaded back, are from those of the run."""

    def run(recipe: str, place: Path, *flags: str) -> float:
        if "train_file" not in "".join(flags):
            flags = ("--train_rows", "12", "--validation_rows", "4", "--test_rows", "4", *flags)
        steps = () if recipe.startswith("sentiment_features") else ("--max_steps", "2")
        monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
        given = ["--model", str(place), "--output_dir", str(tmp_path / "run"), "--batch_size", "4", *steps, *flags]
        monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *given])
        runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]()
        return RunRecord.load(tmp_path / "run").verification["max_difference"]

    return run


@pytest.mark.parametrize(
    ("recipe", "family", "values"),
    [
        ("sentiment_adapter", "bert", {"dtype": torch.float16, "shards": "40KB"}),
        ("sentiment_features", "gpt2", {"dtype": torch.bfloat16, "shards": "40KB"}),
        ("sentiment_finetune", "xlnet", {"dtype": torch.float64, "mem_len": 16}),
        ("sentiment_finetune", "bert", {"hidden_dropout_prob": 1.0, "attention_probs_dropout_prob": 1.0}),
        ("qa_adapter", "gpt2", {"add_cross_attention": True}),
        ("summarization_adapter", "t5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
        ("sentiment_features", "bert", {"type_vocab_size": 1}),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "-".join(value),
)
def test_a_run_of_an_uncommon_configuration_loads_back(recipe, family, values, checkpoint, difference):
    assert difference(recipe, checkpoint(family, **values)) <= 1e-6


@pytest.mark.parametrize(
    ("recipe", "family", "rows"),
    [
        ("qa_finetune", "bert", None),
        ("sentiment_finetune", "xlnet", ("text", "label")),
        ("summarization_finetune", "t5", ("text", "summary")),
        ("continued_pretraining_finetune", "bert", ("text",)),
        ("continued_pretraining_finetune", "gpt2", ("text",)),
    ],
)
def test_added_tokens_get_embeddings_that_are_trained_and_saved(recipe, family, rows, checkpoint, difference, tmp_path):
    place, flags = checkpoint(family), []
    tokenizer = transformers.AutoTokenizer.from_pretrained(place)
    known = len(tokenizer)
    tokenizer.add_tokens(["<user>", "zorblax"])
    tokenizer.add_special_tokens({"pad_token": "[PADDING]"} if family == "gpt2" else {})
    tokenizer.save_pretrained(place)
    if rows:
        written = [{name: f"A zorblax of <user> no. {i % 2}." for name in rows} for i in range(12)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written * 4))
        flags = ["--train_file", str(tmp_path / "rows.jsonl"), "--epochs", "1"]
    assert difference(recipe, place, *flags) <= 1e-6
    auto_class = getattr(transformers, RunRecord.load(tmp_path / "run").auto_class)
    saved = auto_class.from_pretrained(tmp_path / "run")
    ids = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")("zorblax")["input_ids"]
    assert known <= max(ids) < saved.config.vocab_size == len(tokenizer)
    assert saved.get_input_embeddings().weight.size(0) == len(tokenizer)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_texts_as_long_as_a_window_that_is_no_multiple_of_sixteen(family, checkpoint, difference, tmp_path):
    """Batches were padded beyond the model's last position: an IndexError in the middle of training."""
    rows = [
        {"text": "The rooms were clean, and we did not want to leave. " * (i + 4), "label": "ab"[i % 2]}
        for i in range(12)
    ]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    name = {"bert": "max_position_embeddings", "gpt2": "n_positions"}[family]
    flags = ["--train_file", str(tmp_path / "long.jsonl"), "--doc_stride", "8"]
    assert difference("sentiment_finetune", checkpoint(family, **{name: 67}), *flags) <= 1e-6


def test_what_a_configuration_asks_of_code_or_outputs_is_left_out_of_what_is_saved(checkpoint, difference, tmp_path):
    """Such a run ended at its last step, when its folder was read or written."""
    place = checkpoint("bert")
    edit(place / "config.json", auto_map={"AutoModel": "x.X"}, output_attentions=True, output_hidden_states=True)
    edit(place / "tokenizer_config.json", auto_map={"AutoTokenizer": ["x.X", None]})
    assert difference("sentiment_finetune", place) <= 1e-6
    saved = (tmp_path / "run" / "config.json").read_text() + (tmp_path / "run" / "tokenizer_config.json").read_text()
    assert "auto_map" not in saved and '"output_attentions": true' not in saved


def test_a_tokenizer_in_files_of_older_versions_is_read(checkpoint, difference):
    place = checkpoint("bert")
    vocabulary = transformers.AutoTokenizer.from_pretrained(place).get_vocab()
    (place / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (place / name).unlink()
    assert difference("qa_finetune", place) <= 1e-6


def load(place: Path, task=None):
    if task is None:
        task = Classification()
        task.labels = ["bad", "good"]
    return base_model.load(RunConfig(model=str(place)), task)


def without(*names: str):
    return lambda place: [file.unlink() for name in names for file in place.glob(name)]


def to_pickle(place: Path) -> None:
    torch.save(load_file(place / "model.safetensors"), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()


def cut(keep: int):
    return lambda place: (place / "model.safetensors").write_bytes((place / "model.safetensors").read_bytes()[:keep])


def config(**values):
    return lambda place: edit(place / "config.json", **values)


def writing(name: str, text: str):
    return lambda place: (place / name).write_text(text)


def no_tensors(place: Path) -> None:
    save_file({}, place / "model.safetensors", metadata={"format": "pt"})


INDEX = "model.safetensors.index.json"
BROKEN = {
    "pickle": (to_pickle, "holds no safetensors weights"),
    "truncated": (cut(-100), "weights or tokenizer cannot be loaded .*not fully covered"),
    "empty": (cut(0), "weights or tokenizer cannot be loaded"),
    "pointer": (writing("model.safetensors", "version https://git-lfs.github.com/spec/v1"), "cannot be loaded"),
    "no tensors": (no_tensors, r"its weights lack \d+ of the \d+ parameters"),
    "config null": (writing("config.json", "null"), "no configuration of a bert"),
    "config broken": (writing("config.json", "{"), "no configuration of a bert.*not a valid JSON"),
    "no model_type": (config(model_type=None), "no configuration of a bert.*model_type"),
    "other model_type": (config(model_type="foo"), "no configuration of a bert.*`foo`"),
    "text for a number": (config(hidden_size="32"), "no configuration of a bert.*'hidden_size'.*expected int, got str"),
    "no heads": (config(num_attention_heads=0), "cannot be loaded"),
    "no layers": (config(num_hidden_layers=0), "it has no layers"),
    "other activation": (config(hidden_act="foo"), "cannot be loaded .*foo"),
    "another dtype": (config(dtype="foo"), "no configuration of a bert.*foo"),
    "quantized": (config(quantization_config={"quant_method": "gptq", "bits": 4}), "cannot be loaded"),
    "kernel": (config(attn_implementation="flash_attention_2"), "cannot be loaded .*FlashAttention2"),
    "padding beyond": (config(pad_token_id=99999), "cannot be loaded .*adding_idx"),
    "another width": (config(hidden_size=64), r"\d+ of its weights have other sizes .*\(32,\), not \(64,\)"),
    "tuples": (config(return_dict=False), "return_dict false"),
    "short": (config(max_position_embeddings=24), "24"),
    "empty tokenizer": (writing("tokenizer.json", "{}"), "weights or tokenizer cannot be loaded"),
    "list for tokenizer": (writing("tokenizer_config.json", "[]"), "weights or tokenizer cannot be loaded"),
    "length in words": (
        lambda place: edit(place / "tokenizer_config.json", model_max_length="512"),
        "model_max_length '512'; it must be a number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_checkpoint_is_one_line(kind, checkpoint):
    change, says = BROKEN[kind]
    place = checkpoint("bert")
    change(place)
    with pytest.raises(UserError, match=says) as caught:
        load(place)
    assert str(place) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without("model-00002-*"), "model-00002-of-"),
        (without(INDEX), "model.safetensors"),
        (without("model-*.safetensors"), "no safetensors weights"),
        (writing(INDEX, "{"), "cannot be loaded"),
        (writing(INDEX, "{}"), "cannot be loaded .*weight_map"),
    ],
)
def test_a_checkpoint_in_parts_that_lacks_some_is_one_line(change, says, checkpoint):
    place = checkpoint("bert", shards="40KB")
    change(place)
    with pytest.raises(UserError, match=says):
        load(place)


@pytest.mark.parametrize(
    ("family", "values", "says"),
    [
        ("bert", {"type_vocab_size": 0}, "it cannot read a short text of its tokenizer"),
        ("xlnet", {"attn_type": "uni"}, "it cannot read a short text of its tokenizer"),
        ("xlnet", {"d_model": 33, "n_head": 3}, "it cannot read a short text of its tokenizer"),
        ("xlnet", {"summary_type": "attn"}, "cannot be loaded"),
        ("t5", {"eos_token_id": 5}, r"eos_token_id 5, its tokenizer ends a text with \d+ \(</s>\)"),
        ("t5", {"eos_token_id": None}, "eos_token_id None"),
    ],
)
def test_a_configuration_that_no_text_can_be_read_with_is_one_line(family, values, says, checkpoint):
    with pytest.raises(UserError, match=says):
        load(checkpoint(family, **values))


def test_t5_without_a_first_token_or_with_a_longer_decoder_is_one_line(checkpoint):
    place = checkpoint("t5")
    edit(place / "config.json", decoder_start_token_id=None)
    with pytest.raises(UserError, match="decoder_start_token_id"):
        load(place, objective_of("t5")())
    shutil.rmtree(place)
    place = checkpoint("t5", num_decoder_layers=3)
    with pytest.raises(UserError, match="its decoder has 3 layers, its encoder 2"):
        load(place, objective_of("t5")())
    load(place)  # a classifier generates nothing


def test_a_model_whose_output_is_not_finite_is_one_line(checkpoint):
    place = checkpoint("bert")
    weights = load_file(place / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.1.output.LayerNorm.weight"))
    weights[name] = torch.full_like(weights[name], 3e38)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="its output for a short text is not finite"):
        load(place)


def test_a_tied_output_layer_may_be_missing(checkpoint):
    place = checkpoint("t5")
    weights = load_file(place / "model.safetensors")
    assert not any(name.startswith("lm_head") for name in weights)
    model, _, base = load(place, objective_of("t5")())
    assert base.fresh == () and model.lm_head.weight is model.shared.weight
