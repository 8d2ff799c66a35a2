"""XLNet: an encoder with relative positions, pretrained to predict tokens in a random order."""

from typing import Any

from tl_hub.architectures.base import Architecture, Shape
from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import torch


def new_tokenizer() -> Tokenizer:
    from transformers import XLNetTokenizer  # the package is read without torch

    return XLNetTokenizer()


def new_config(tokenizer: Tokenizer, shape: Shape) -> Config:
    from transformers import XLNetConfig

    return XLNetConfig(
        vocab_size=len(tokenizer),
        d_model=shape.hidden_size,
        n_layer=shape.layers,
        n_head=shape.heads,
        d_inner=shape.intermediate_size,
        dropout=0.0,
        summary_last_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def fold(model: Any, weight: "torch.Tensor", bias: "torch.Tensor", several: bool) -> None:
    model.logits_proj.weight.copy_(weight)
    model.logits_proj.bias.copy_(bias)


XLNET = Architecture(
    title="XLNet",
    paper=("Yang et al. 2019", "https://arxiv.org/abs/1906.08237"),
    example="xlnet/xlnet-base-cased",
    pretrained_by="permutation",
    new_tokenizer=new_tokenizer,
    new_config=new_config,
    # Attention is stored as raw parameters: only the feed-forward layers are modules that PEFT can wrap, and the
    # dropout of what the attention gives.
    lora_targets=("layer_1", "layer_2"),
    lora_parameters=("rel_attn.q", "rel_attn.k", "rel_attn.v", "rel_attn.o"),
    keys_and_values=None,
    attention_output=r"rel_attn\.dropout",
    feed_forward_output=r"ff\.layer_2",
    layers=r"\blayer\.\d+",
    blocks="layer",
    summary="last",
    time_major=True,
    token_type_ids=True,
    padding_side="left",
    left_to_right={"attn_type": "uni"},
    # No prompt: it would stand before the padding, which would put it further from the text it is to act on.
    fold=fold,
    fold_config={"summary_use_proj": False, "summary_activation": "linear"},
)
