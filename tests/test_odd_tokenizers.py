"""Tokenizers and configurations that a task cannot work with get one line before training."""

import json
import shutil

import pytest
import torch
import transformers
from datasets import Dataset
from transformers.utils import is_sentencepiece_available

from tl_hub import base_model, data
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.language_modeling import SpanCorruption
from tl_hub.tasks.question_answering import QuestionAnswering


def load(place, task):
    if isinstance(task, Classification):
        task.labels = ["bad", "good"]
    return base_model.load(RunConfig(model=str(place)), task)


@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_a_tokenizer_of_another_family_is_refused(family, checkpoint_folders, tmp_path):
    place = tmp_path / family
    shutil.copytree(checkpoint_folders(family), place, ignore=shutil.ignore_patterns("tokenizer*"))
    other = transformers.AutoTokenizer.from_pretrained(checkpoint_folders("bert"))
    other.save_pretrained(place)
    with pytest.raises(UserError, match=f"BertTokenizer has no eos_token, which {family} needs"):
        load(place, QuestionAnswering())
    if family == "t5":
        config = json.loads((place / "tokenizer_config.json").read_text()) | {"eos_token": "[MASK]"}
        (place / "tokenizer_config.json").write_text(json.dumps(config))
        with pytest.raises(UserError, match=r"does not put \[MASK\] into a text"):
            load(place, QuestionAnswering())


def test_a_tokenizer_without_places_is_refused_where_they_are_needed(tmp_path):
    place = tmp_path / "byt5"
    tokenizer = transformers.ByT5Tokenizer()
    torch.manual_seed(0)
    config = transformers.T5Config(
        d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, vocab_size=len(tokenizer), decoder_start_token_id=0
    )
    transformers.T5ForConditionalGeneration(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    for task in (Classification(), QuestionAnswering()):
        with pytest.raises(UserError, match=r"ByT5Tokenizer\) has no fast version"):
            load(place, task)


def test_a_bert_of_one_segment_reads_one_text_and_refuses_two(checkpoint_folders, tmp_path):
    place = tmp_path / "one"
    model = transformers.AutoModel.from_pretrained(
        checkpoint_folders("bert"), type_vocab_size=1, ignore_mismatched_sizes=True
    )
    model.save_pretrained(place)
    transformers.AutoTokenizer.from_pretrained(checkpoint_folders("bert")).save_pretrained(place)
    model, tokenizer, _ = load(place, Classification())
    assert torch.isfinite(model(**tokenizer("a text", return_tensors="pt")).logits).all()
    for task in (QuestionAnswering(), Classification(text_pair_column="other")):
        with pytest.raises(UserError, match="type_vocab_size 1"):
            load(place, task)


@pytest.mark.skipif(is_sentencepiece_available(), reason="sentencepiece is installed and reads the file")
@pytest.mark.parametrize("family", ["t5", "xlnet"])
def test_what_a_sentencepiece_model_needs_is_named(family, checkpoint_folders, tmp_path):
    place = tmp_path / family
    shutil.copytree(checkpoint_folders(family), place, ignore=shutil.ignore_patterns("tokenizer*"))
    (place / "spiece.model").write_bytes(b"\x0a\x05\x0a\x03<s>")
    with pytest.raises(UserError, match=r"pip install sentencepiece") as refused:
        load(place, Classification())
    assert "tiktoken" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_t5_whose_tokenizer_has_no_gaps_does_all_but_fill_them(checkpoint_folders, tmp_path):
    """transformers' class would add a hundred tokens beyond the embeddings."""
    place = tmp_path / "t5"
    shutil.copytree(checkpoint_folders("t5"), place, ignore=shutil.ignore_patterns("tokenizer*"))
    written = json.loads((checkpoint_folders("t5") / "tokenizer.json").read_text())
    written["added_tokens"] = [token for token in written["added_tokens"] if "extra_id" not in token["content"]]
    kept = [each for each in written["model"]["vocab"] if "extra_id" not in each[0]]
    written["model"]["vocab"] = kept + [[f"word{i}", -20.0] for i in range(len(written["model"]["vocab"]) - len(kept))]
    (place / "tokenizer.json").write_text(json.dumps(written))
    _, tokenizer, _ = load(place, Classification())
    assert len(tokenizer) == len(written["model"]["vocab"]) and "<extra_id_0>" not in tokenizer.get_vocab()
    task = SpanCorruption()
    model, tokenizer, _ = load(place, task)
    with pytest.raises(UserError, match="lacks <extra_id_0> to <extra_id_99>, which stand for the gaps"):
        task.encode(Dataset.from_dict({"text": ["The river rises in the hills."]}), tokenizer, model)


@pytest.mark.parametrize(("family", "unknown"), [("bert", True), ("t5", True), ("xlnet", True), ("gpt2", False)])
def test_texts_that_the_tokenizer_does_not_know_are_told_of(family, unknown, checkpoint_folders):
    """GPT-2's reads bytes: what it calls the unknown token ends a text."""
    english, korean = "The soup was good.", "국이 맛있어요."
    task = Classification()
    model, tokenizer, _ = load(checkpoint_folders(family), task)
    for share in (0, 1, 8):
        texts = [korean] * share + [english] * (8 - share)
        rows = Dataset.from_dict({"text": texts, "label": ["good", "bad"] * 4})
        read = data.Data({"train": data.Split(rows), "validation": data.Split(rows)}, "rows.csv", "local")
        data.encode(read, task, tokenizer, model)
        pieces = [piece for text in texts for piece in tokenizer(text, add_special_tokens=False)["input_ids"]]
        percent = 100 * pieces.count(tokenizer.unk_token_id) / len(pieces)
        notes = [note for note in read.notes if "unknown to the tokenizer" in note]
        assert [note.split(" %")[0] for note in notes] == [f"{percent:.0f}"] * (unknown and percent > 5), (
            share,
            percent,
        )
    assert not unknown or percent > 20
