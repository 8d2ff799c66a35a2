"""Tokenizers and configurations that a task cannot work with get one line before training."""

import json
import shutil

import pytest
import torch
import transformers
from transformers.utils import is_sentencepiece_available

from tl_hub import base_model
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.tasks.classification import Classification
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
