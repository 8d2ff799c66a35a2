"""What the entry of a model family says. Neither torch nor transformers is imported before an entry is asked to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import torch

Objective = Literal["masked", "causal", "span", "permutation"]
"""What a family was pretrained to predict, by which a task knows what it can be trained to do: tokens hidden in a text
that is read from both sides; the next token; what was taken out of a text, written by a decoder; tokens in a random
order."""


class Shape(Protocol):
    """Sizes of a new model, as `methods.from_scratch.FromScratch` has them."""

    layers: int
    hidden_size: int
    heads: int
    intermediate_size: int
    window: int


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Facts about one model family that are needed here and that a checkpoint's configuration does not tell.

    Attributes:
        title: what people call the family.
        paper: authors and year, address.
        example: Hub id of a checkpoint.
        pretrained_by: the objective of the pretraining.
        new_tokenizer: an empty tokenizer of the family's own kind, to be trained.
        new_config: configuration of a new model without dropout, by a trained tokenizer and the sizes.
        lora_targets: names of the linear layers that take a low-rank update; heads are never among them.
        lora_parameters: ends of the names of parameters that take one too, where the attention has no linear layers.
        keys_and_values: regular expression for the end of the names of the projections to keys and values; None where
            they are no modules.
        attention_output: regular expression for the modules whose output the attention adds to its input.
        feed_forward_output: the same of the feed-forward layers.
        prompt_tasks: model class -> PEFT's name of its task, where trained embeddings may stand before the input.
        prefix_tasks: the same, where trained keys and values may stand before those of the input, in each layer.
        fan_in_fan_out: weights are stored (in, out), as GPT-2's Conv1D does, not (out, in).
        plain_attention: nothing but the mask and `position_bias` is added to the products of queries and keys, so that
            another implementation of the attention may stand in.
        token_type_ids: the tokenizer must be asked for segment ids, which the model was pretrained with; others must
            not get any.
        word_pieces: the tokenizer marks tokens that go on with a word, by which stock pipelines know where words end.
        marks: the tokenizer marks where a text ends; where not, two texts run together.
        encoder_decoder: a text is made from another one that an encoder reads; others go on with it as a prompt.
        left_to_right: values of the configuration by which a model that was pretrained in random orders reads from left
            to right. Its own loss and `generate` are not made for that.
        layers: regular expression for the part of a parameter's name that tells its transformer layer.
        position_table: end of the name of the learned position embeddings; None where there are none.
        positions_after_padding: the first token's position is the padding token's id and one, so that the table has as
            many rows more than a text may have tokens.
        padding_side: where positions (GPT-2) or the place of the class token (XLNet) want the padding.
        null_token: the special token whose place in a window stands for "no answer here" in extractive QA. It must
            see the whole window: BERT's first token does, a causal or encoder-decoder model's last token does.
        summary: which token stands for the whole text. The first token of a causal model has seen nothing; T5 and XLNet
            have their special token last.
        blocks: where the list of layers stands in the part that reads texts (`extract.encoder_of`).
        depth: the configuration's name for the number of layers in the part that gives a head the vectors of all
            tokens (`extract.stack_of`).
        final_norm: the norm beside `blocks` that the top layer's vectors go through; None where there is none.
        time_major: layers pass (length, batch, hidden) on, not (batch, length, hidden).
        fold: puts a linear head on the `summary` token, weight (classes, hidden) and bias (classes,), into a model of
            transformers' own class for text classification, which then gives the same logits; of several classes, of
            which a text has one (the last argument is false), they may differ by what all have in common. Raises
            `UserError` where these weights cannot be put there. None where no weights can.
        fold_config: values of the configuration that such a model needs.
        vocabulary_scores: of a masked language model, from hidden states (tokens, hidden) to (tokens, vocabulary).
    """

    title: str
    paper: tuple[str, str]
    example: str
    pretrained_by: Objective
    new_tokenizer: Callable[[], Tokenizer]
    new_config: Callable[[Tokenizer, Shape], Config]
    lora_targets: tuple[str, ...]
    keys_and_values: str | None
    attention_output: str
    feed_forward_output: str
    layers: str
    blocks: str
    summary: Literal["first", "last"]
    fan_in_fan_out: bool = False
    plain_attention: bool = False
    token_type_ids: bool = False
    padding_side: Literal["left", "right"] = "right"
    null_token: Literal["cls", "eos"] = "cls"
    final_norm: str | None = None
    time_major: bool = False
    word_pieces: bool = False
    marks: bool = True
    encoder_decoder: bool = False
    left_to_right: dict[str, Any] = field(default_factory=dict)
    lora_parameters: tuple[str, ...] = ()
    prompt_tasks: dict[str, str] = field(default_factory=dict)
    prefix_tasks: dict[str, str] = field(default_factory=dict)
    position_table: str | None = None
    positions_after_padding: bool = False
    depth: str = "num_hidden_layers"
    fold: Callable[[Any, Any, Any, bool], None] | None = None
    fold_config: dict[str, Any] = field(default_factory=dict)
    vocabulary_scores: Callable[[Any, Any], Any] | None = None

    @property
    def poolings(self) -> tuple[str, ...]:
        """Ways to make one vector of a layer's token vectors that suit the family, the usual one first."""
        return ("mean", self.summary, "max")


_LARGEST_HALF = 65504.0
_TANH_SCALE = 2.0**-14
"""Tanh changes values up to 30 times this small by a millionth at most, and a power of two costs no digit. Were it much
smaller, float16 would lose digits of the vectors, and the weights that are divided by it would be too large for it."""


def through_tanh(first: Any, second: Any, weight: "torch.Tensor", bias: "torch.Tensor") -> None:
    """Make a head of two linear layers with a tanh between them give what one linear layer gives.

    The first one shrinks the vector so far that tanh leaves it as it is.
    """
    largest = weight.abs().amax(0) / _LARGEST_HALF
    scale = largest.log2().ceil().exp2().clamp(min=_TANH_SCALE)
    first.weight.copy_(scale.diag())
    first.bias.zero_()
    second.weight.copy_(weight / scale)
    second.bias.copy_(bias)
