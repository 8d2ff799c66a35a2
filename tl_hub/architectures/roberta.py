"""RoBERTa and XLM-R: BERT's encoder without segments, on BPE of bytes (RoBERTa) or sentencepiece (XLM-R)."""

from dataclasses import replace
from typing import Any

from tl_hub.architectures.base import Architecture, Shape, through_tanh
from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import torch


def new_tokenizer() -> Tokenizer:
    from transformers import AddedToken, RobertaTokenizer  # the package is read without torch

    mask: Any = AddedToken("<mask>", lstrip=True, special=True)  # it takes the blank before it
    return RobertaTokenizer(mask_token=mask)


def new_multilingual_tokenizer() -> Tokenizer:
    from transformers import AddedToken, XLMRobertaTokenizer

    mask: Any = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizer(mask_token=mask)


def sizes(tokenizer: Tokenizer, shape: Shape) -> dict[str, Any]:
    """Values of a new model's configuration. Positions are counted from the padding token's id on."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": shape.window + tokenizer.pad_token_id + 1,
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def new_config(tokenizer: Tokenizer, shape: Shape) -> Config:
    from transformers import RobertaConfig

    return RobertaConfig(**sizes(tokenizer, shape))


def new_multilingual_config(tokenizer: Tokenizer, shape: Shape) -> Config:
    from transformers import XLMRobertaConfig

    return XLMRobertaConfig(**sizes(tokenizer, shape))


def fold(model: Any, weight: "torch.Tensor", bias: "torch.Tensor", several: bool) -> None:
    through_tanh(model.classifier.dense, model.classifier.out_proj, weight, bias)


ROBERTA = Architecture(
    title="RoBERTa",
    paper=("Liu et al. 2019", "https://arxiv.org/abs/1907.11692"),
    example="FacebookAI/roberta-base",
    pretrained_by="masked",
    new_tokenizer=new_tokenizer,
    new_config=new_config,
    lora_targets=("query", "key", "value", "intermediate.dense", "output.dense"),
    keys_and_values="key|value",
    attention_output=r"attention\.output\.dense",
    feed_forward_output=r"\d+\.output\.dense",
    layers=r"encoder\.layer\.\d+",
    blocks="encoder.layer",
    summary="first",
    plain_attention=True,
    prompt_tasks={"RobertaForSequenceClassification": "SEQ_CLS"},
    prefix_tasks={"RobertaForSequenceClassification": "SEQ_CLS", "RobertaForQuestionAnswering": "QUESTION_ANS"},
    position_table="position_embeddings.weight",
    positions_after_padding=True,
    fold=fold,
    vocabulary_scores=lambda model, hidden: model.lm_head(hidden),
)

XLM_ROBERTA = replace(
    ROBERTA,
    title="XLM-R",
    paper=("Conneau et al. 2020", "https://arxiv.org/abs/1911.02116"),
    example="FacebookAI/xlm-roberta-base",
    new_tokenizer=new_multilingual_tokenizer,
    new_config=new_multilingual_config,
    prompt_tasks={"XLMRobertaForSequenceClassification": "SEQ_CLS"},
    prefix_tasks={"XLMRobertaForSequenceClassification": "SEQ_CLS", "XLMRobertaForQuestionAnswering": "QUESTION_ANS"},
)
