"""Everything that differs between BERT, GPT-2, T5 and XLNet, one entry each."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from tl_hub.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Facts about one model family that the recipes need and that a checkpoint's configuration does not tell.

    Attributes:
        lora_targets: names of the linear layers that take a low-rank update; heads are never among them.
        lora_parameters: ends of the names of parameters that take one too, where the attention has no linear layers.
        keys_and_values: regular expression for the end of the names of the projections to keys and values; None where
            they are no modules.
        attention_output: regular expression for the modules whose output the attention adds to its input.
        feed_forward_output: the same of the feed-forward layers.
        prompt_tasks: model class -> PEFT's name of its task, where trained embeddings may stand before the input.
        prefix_tasks: the same, where trained keys and values may stand before those of the input, in each layer.
        fan_in_fan_out: weights are stored (in, out), as GPT-2's Conv1D does, not (out, in).
        token_type_ids: the tokenizer must be asked for segment ids, which the model was pretrained with.
        marks: the tokenizer marks where a text ends; where not, two texts run together.
        encoder_decoder: a text is made from another one that an encoder reads; others go on with it as a prompt.
        left_to_right: values of the configuration by which a model that was pretrained in random orders reads from left
            to right. Its own loss and `generate` are not made for that.
        layers: regular expression for the part of a parameter's name that tells its transformer layer.
        padding_side: where positions (GPT-2) or the place of the class token (XLNet) want the padding.
        null_token: the special token whose place in a window stands for "no answer here" in extractive QA. It must
            see the whole window: BERT's first token does, a causal or encoder-decoder model's last token does.
        blocks: where the list of layers stands in the part that reads texts (`features.encoder_of`).
        poolings: ways to make one vector of a layer's token vectors that suit the family, the usual one first. The
            first token of a causal model has seen nothing; T5 and XLNet have their special token last.
        final_norm: the norm beside `blocks` that the top layer's vectors go through; None where there is none.
        time_major: layers pass (length, batch, hidden) on, not (batch, length, hidden).
    """

    lora_targets: tuple[str, ...]
    keys_and_values: str | None
    attention_output: str
    feed_forward_output: str
    layers: str
    blocks: str
    poolings: tuple[str, ...]
    fan_in_fan_out: bool = False
    token_type_ids: bool = False
    padding_side: Literal["left", "right"] = "right"
    null_token: Literal["cls", "eos"] = "cls"
    final_norm: str | None = None
    time_major: bool = False
    marks: bool = True
    encoder_decoder: bool = False
    left_to_right: dict[str, Any] = field(default_factory=dict)
    lora_parameters: tuple[str, ...] = ()
    prompt_tasks: dict[str, str] = field(default_factory=dict)
    prefix_tasks: dict[str, str] = field(default_factory=dict)


PAD_TO = 16
"""Batches are padded to a multiple of it. Few distinct lengths: the kernels prepared for one are used again, and matrix
units have whole tiles."""
_BESIDE = ("qa_outputs.", "lm_head.")
"""Heads of models that hold the parts of the base themselves, as T5's do for question answering and generation."""

ARCHITECTURES = {
    "bert": Architecture(
        # output.dense is both the attention's and the feed-forward's output projection.
        lora_targets=("query", "key", "value", "intermediate.dense", "output.dense"),
        keys_and_values="key|value",
        attention_output=r"attention\.output\.dense",
        feed_forward_output=r"\d+\.output\.dense",
        layers=r"encoder\.layer\.\d+",
        blocks="encoder.layer",
        poolings=("mean", "first", "max"),
        token_type_ids=True,
        # In question answering the logits would be those of the prompt too.
        prompt_tasks={"BertForSequenceClassification": "SEQ_CLS"},
        prefix_tasks={"BertForSequenceClassification": "SEQ_CLS", "BertForQuestionAnswering": "QUESTION_ANS"},
    ),
    "gpt2": Architecture(
        lora_targets=("c_attn", "c_proj", "c_fc"),
        keys_and_values="c_attn",  # and queries, of which it is the common projection
        attention_output=r"attn\.c_proj",
        feed_forward_output=r"mlp\.c_proj",
        layers=r"\bh\.\d+",
        # No prompt: it would stand before the padding, from which the positions are counted, and classification could
        # not tell where the padding is.
        prefix_tasks={
            "GPT2ForSequenceClassification": "SEQ_CLS",
            "GPT2ForQuestionAnswering": "QUESTION_ANS",
            "GPT2LMHeadModel": "CAUSAL_LM",
        },
        blocks="h",
        final_norm="ln_f",
        poolings=("mean", "last", "max"),
        fan_in_fan_out=True,
        null_token="eos",
        marks=False,
    ),
    "t5": Architecture(
        # wi is the feed-forward of the first T5, wi_0 and wi_1 that of version 1.1.
        lora_targets=("q", "k", "v", "o", "wi", "wi_0", "wi_1", "wo"),
        keys_and_values="k|v",
        attention_output="o",
        feed_forward_output="wo",
        layers=r"(en|de)coder\.block\.\d+",
        # Its other heads take neither embeddings nor keys and values in place of token ids.
        prompt_tasks={"T5ForConditionalGeneration": "SEQ_2_SEQ_LM"},
        prefix_tasks={"T5ForConditionalGeneration": "SEQ_2_SEQ_LM"},
        blocks="block",
        final_norm="final_layer_norm",
        poolings=("mean", "last", "max"),
        null_token="eos",
        encoder_decoder=True,
    ),
    "xlnet": Architecture(
        # Attention is stored as raw parameters: only the feed-forward layers are modules that PEFT can wrap, and the
        # dropout of what the attention gives.
        lora_targets=("layer_1", "layer_2"),
        lora_parameters=("rel_attn.q", "rel_attn.k", "rel_attn.v", "rel_attn.o"),
        keys_and_values=None,
        attention_output=r"rel_attn\.dropout",
        feed_forward_output=r"ff\.layer_2",
        layers=r"\blayer\.\d+",
        blocks="layer",
        poolings=("mean", "last", "max"),
        time_major=True,
        token_type_ids=True,
        padding_side="left",
        left_to_right={"attn_type": "uni"},
        # No prompt: it would stand before the padding, which would put it further from the text it is to act on.
    ),
}


def architecture_of(model_type: str, model: str) -> Architecture:
    """The entry for `model_type`.

    Raises:
        UserError: the family is not one of the four.
    """
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"--model {model} is of type {model_type!r}; allowed are {', '.join(ARCHITECTURES)}, such as "
            "google-bert/bert-base-uncased, openai-community/gpt2, google-t5/t5-small, xlnet/xlnet-base-cased"
        )
    return ARCHITECTURES[model_type]


def longest_input(config: Any) -> int | None:
    """Tokens of the longest input that a model of this configuration reads, padding included; None for no limit."""
    longest = getattr(config, "max_position_embeddings", None)  # T5 has none, XLNet says -1
    return longest // PAD_TO * PAD_TO if longest and longest > 0 else None


def layer_groups(model: Any) -> list[list[str]]:
    """Names of the parameters by layer, from the input to the output: the embeddings, then a list a layer.

    What stands between two layers, such as the norm at the end of T5's encoder, belongs to the lower one; T5's decoder
    stands above its encoder. The parameters of the head are left out.
    """
    layers = re.compile(ARCHITECTURES[model.config.model_type].layers)
    groups: list[list[str]] = [[]]
    current = None
    for name in base_parameters(model):
        found = layers.search(name)
        if found and found.group() != current:
            current = found.group()
            groups.append([])
        groups[-1].append(name)
    return groups


def base_parameters(model: Any) -> list[str]:
    """Names of the parameters that belong to the pretrained part of a model, not to its head."""
    inside = f"{model.base_model_prefix}." if model.base_model is not model else ""
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if name.startswith(inside) and not name.startswith(_BESIDE)]
