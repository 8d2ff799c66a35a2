"""DistilBERT: a BERT of half the layers, without segments and pooler, taught by a whole one."""

from typing import Any

from tl_hub.architectures.base import Architecture, Shape
from tl_hub.errors import UserError
from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import torch


def new_tokenizer() -> Tokenizer:
    from transformers import DistilBertTokenizer  # the package is read without torch

    return DistilBertTokenizer(do_lower_case=True)


def new_config(tokenizer: Tokenizer, shape: Shape) -> Config:
    from transformers import DistilBertConfig

    return DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=shape.hidden_size,
        n_layers=shape.layers,
        n_heads=shape.heads,
        hidden_dim=shape.intermediate_size,
        max_position_embeddings=shape.window,
        dropout=0.0,
        attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
    )


def fold(model: Any, weight: "torch.Tensor", bias: "torch.Tensor", several: bool) -> None:
    """The head's first layer gives the logits and their negatives; ReLU leaves one of the two, the second subtracts."""
    classes, width = weight.shape
    if 2 * classes > width:
        raise UserError(
            f"--fold: DistilBERT's head has {width} hidden units, of which {classes} classes need two each; omit --fold"
        )
    positive, negative = slice(0, classes), slice(classes, 2 * classes)
    first, second = model.pre_classifier, model.classifier
    for parameter in (first.weight, first.bias, second.weight, second.bias):
        parameter.zero_()
    for part, sign in ((positive, 1.0), (negative, -1.0)):
        first.weight[part] = sign * weight
        first.bias[part] = sign * bias
        second.weight[:, part] = sign * weight.new_ones(classes).diag()


def vocabulary_scores(model: Any, hidden: Any) -> Any:
    return model.vocab_projector(model.vocab_layer_norm(model.activation(model.vocab_transform(hidden))))


DISTILBERT = Architecture(
    title="DistilBERT",
    paper=("Sanh et al. 2019", "https://arxiv.org/abs/1910.01108"),
    example="distilbert/distilbert-base-uncased",
    pretrained_by="masked",
    new_tokenizer=new_tokenizer,
    new_config=new_config,
    lora_targets=("q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"),
    keys_and_values="k_lin|v_lin",
    attention_output="out_lin",
    feed_forward_output="lin2",
    layers=r"transformer\.layer\.\d+",
    blocks="transformer.layer",
    summary="first",
    plain_attention=True,
    word_pieces=True,
    # No prefix: its attention takes no keys and values from elsewhere.
    prompt_tasks={"DistilBertForSequenceClassification": "SEQ_CLS"},
    position_table="position_embeddings.weight",
    fold=fold,
    vocabulary_scores=vocabulary_scores,
)
