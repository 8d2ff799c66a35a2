"""BERT: an encoder that reads from both sides."""

from typing import Any

from tl_hub.architectures.base import Architecture, Shape, through_tanh
from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import torch


def new_tokenizer() -> Tokenizer:
    from transformers import BertTokenizer  # the package is read without torch

    return BertTokenizer(do_lower_case=True)


def new_config(tokenizer: Tokenizer, shape: Shape) -> Config:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.window,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )


def fold(model: Any, weight: "torch.Tensor", bias: "torch.Tensor", several: bool) -> None:
    through_tanh(model.base_model.pooler.dense, model.classifier, weight, bias)


BERT = Architecture(
    title="BERT",
    paper=("Devlin et al. 2019", "https://arxiv.org/abs/1810.04805"),
    example="google-bert/bert-base-uncased",
    pretrained_by="masked",
    new_tokenizer=new_tokenizer,
    new_config=new_config,
    # output.dense is both the attention's and the feed-forward's output projection.
    lora_targets=("query", "key", "value", "intermediate.dense", "output.dense"),
    keys_and_values="key|value",
    attention_output=r"attention\.output\.dense",
    feed_forward_output=r"\d+\.output\.dense",
    layers=r"encoder\.layer\.\d+",
    blocks="encoder.layer",
    summary="first",
    plain_attention=True,
    word_pieces=True,
    token_type_ids=True,
    # In question answering the logits would be those of the prompt too.
    prompt_tasks={"BertForSequenceClassification": "SEQ_CLS"},
    prefix_tasks={"BertForSequenceClassification": "SEQ_CLS", "BertForQuestionAnswering": "QUESTION_ANS"},
    position_table="position_embeddings.weight",
    fold=fold,
    vocabulary_scores=lambda model, hidden: model.cls(hidden),
)
