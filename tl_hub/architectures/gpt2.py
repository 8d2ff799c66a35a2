"""GPT-2: a decoder alone, which predicts the next token."""

from typing import Any

from tl_hub.architectures.base import Architecture, Shape
from tl_hub.errors import UserError
from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import torch


def new_tokenizer() -> Tokenizer:
    from transformers import GPT2Tokenizer  # the package is read without torch

    return GPT2Tokenizer()


def new_config(tokenizer: Tokenizer, shape: Shape) -> Config:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=shape.hidden_size,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_inner=shape.intermediate_size,
        n_positions=shape.window,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        resid_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def fold(model: Any, weight: "torch.Tensor", bias: "torch.Tensor", several: bool) -> None:
    """The head has no bias: that of the last norm is moved to give it."""
    model.score.weight.copy_(weight)
    shift = weight.double().pinverse() @ bias.double()
    missed = weight.double() @ shift - bias
    if not several and len(bias) > 1:
        missed = missed - missed.mean()  # what all classes have in common changes no probability
    if missed.abs().max() > 1e-5:
        raise UserError(
            "--fold: GPT-2's head has no bias, and these weights cannot give the one that this head needs, "
            "as where every row has a label; omit --fold"
        )
    model.base_model.ln_f.bias += shift.float()


GPT2 = Architecture(
    title="GPT-2",
    paper=(
        "Radford et al. 2019",
        "https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf",
    ),
    example="openai-community/gpt2",
    pretrained_by="causal",
    new_tokenizer=new_tokenizer,
    new_config=new_config,
    lora_targets=("c_attn", "c_proj", "c_fc"),
    keys_and_values="c_attn",  # and queries, of which it is the common projection
    attention_output=r"attn\.c_proj",
    feed_forward_output=r"mlp\.c_proj",
    layers=r"\bh\.\d+",
    blocks="h",
    summary="last",
    final_norm="ln_f",
    fan_in_fan_out=True,
    plain_attention=True,
    null_token="eos",
    marks=False,
    # No prompt: it would stand before the padding, from which the positions are counted, and classification could
    # not tell where the padding is.
    prefix_tasks={
        "GPT2ForSequenceClassification": "SEQ_CLS",
        "GPT2ForQuestionAnswering": "QUESTION_ANS",
        "GPT2LMHeadModel": "CAUSAL_LM",
    },
    position_table="wpe.weight",
    fold=fold,
)
