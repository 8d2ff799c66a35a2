"""Everything that differs between the model families: one entry each, in a file of its own, and what reads entries."""

import re
from collections.abc import Iterable

from tl_hub.architectures.base import Architecture, Objective
from tl_hub.architectures.bert import BERT
from tl_hub.architectures.distilbert import DISTILBERT
from tl_hub.architectures.gpt2 import GPT2
from tl_hub.architectures.roberta import ROBERTA, XLM_ROBERTA
from tl_hub.architectures.t5 import T5
from tl_hub.architectures.xlnet import XLNET
from tl_hub.errors import UserError
from tl_hub.model_types import Config, Model

ARCHITECTURES: dict[str, Architecture] = {
    "bert": BERT,
    "gpt2": GPT2,
    "t5": T5,
    "xlnet": XLNET,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
    "distilbert": DISTILBERT,
}
"""By the `model_type` of their configurations."""

PAD_TO = 16
"""Batches are padded to a multiple of it. Few distinct lengths: the kernels prepared for one are used again, and matrix
units have whole tiles."""
_BESIDE = ("qa_outputs.", "lm_head.")
"""Heads of models that hold the parts of the base themselves, as T5's do for question answering and generation."""


def architecture_of(model_type: str, model: str) -> Architecture:
    """The entry for `model_type`.

    Raises:
        UserError: there is none.
    """
    if model_type not in ARCHITECTURES:
        raise UserError(
            f"--model {model} is of type {model_type!r}; allowed are {', '.join(ARCHITECTURES)}, such as "
            f"{', '.join(entry.example for entry in ARCHITECTURES.values())}"
        )
    return ARCHITECTURES[model_type]


def pretrained_by(objectives: Iterable[Objective]) -> list[str]:
    """The families that were pretrained by one of `objectives`, in their order."""
    return [
        family
        for objective in objectives
        for family, entry in ARCHITECTURES.items()
        if entry.pretrained_by == objective
    ]


def titles(objective: Objective) -> str:
    """What people call the families that were pretrained by an objective."""
    return ", ".join(ARCHITECTURES[family].title for family in pretrained_by([objective]))


def usable_positions(config: Config) -> int | None:
    """Tokens that a model of this configuration reads at most; None for no limit."""
    rows = getattr(config, "max_position_embeddings", None)
    if not rows or rows < 0:  # T5 has none, XLNet says -1
        return None
    if ARCHITECTURES[config.model_type].positions_after_padding:
        rows -= (config.pad_token_id or 0) + 1
    return rows


def longest_input(config: Config) -> int | None:
    """Tokens of the longest input that a model of this configuration reads, padding included; None for no limit."""
    longest = usable_positions(config)
    return None if longest is None else max(0, longest) // PAD_TO * PAD_TO


def layer_groups(model: Model) -> list[list[str]]:
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


def base_parameters(model: Model) -> list[str]:
    """Names of the parameters that belong to the pretrained part of a model, not to its head."""
    inside = f"{model.base_model_prefix}." if model.base_model is not model else ""
    names = [name for name, _ in model.named_parameters()]
    return [name for name in names if name.startswith(inside) and not name.startswith(_BESIDE)]
