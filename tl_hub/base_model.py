"""Whether a checkpoint is what a run would take it for, asked before anything is trained on it."""

from collections.abc import Collection
from typing import Any

import torch

from tl_hub.architectures import ARCHITECTURES, base_parameters
from tl_hub.errors import UserError

_NAMED = 3
"""Names that a message shows of many."""


def check_base(model_name: str, model: Any, tokenizer: Any, missing: Collection[str]) -> None:
    """Refuse a checkpoint whose weights or tokenizer are not those of the model that was built from it.

    transformers fills what is missing with noise, and makes an empty tokenizer where a folder has none, silently.

    Args:
        model_name: what `--model` says.
        missing: names of the parameters that the checkpoint lacks.

    Raises:
        UserError: something but a head or pooler is missing, a weight is not finite, the tokenizer does not fit the
            embeddings, or it lacks a special token that the family needs.
    """
    base = base_parameters(model)
    lacking = sorted(name for name in missing if name in base and "pooler." not in name)
    if lacking:
        raise UserError(
            f"--model {model_name}: its weights lack {len(lacking)} of the {len(base)} parameters of a "
            f"{model.config.model_type} model ({_some(lacking)}), which would be random; give a whole checkpoint. A "
            "prefix such as 'module.' in the names of its weights is a frequent reason"
        )
    broken = [name for name, p in model.named_parameters() if name not in missing and not torch.isfinite(p).all()]
    if broken:
        raise UserError(
            f"--model {model_name}: {len(broken)} of its weights hold NaN or infinity ({_some(broken)}); give a "
            "checkpoint that was saved before its training diverged"
        )
    known, rows = len(tokenizer), model.get_input_embeddings().weight.size(0)
    if 2 * known < rows:
        raise UserError(
            f"--model {model_name}: its tokenizer knows {known:,} tokens, its embeddings are for {rows:,}; the files "
            "of the tokenizer (such as tokenizer.json or spiece.model) are missing or those of another model"
        )
    numbers = tokenizer.get_vocab()
    beyond = sorted((token for token in numbers if numbers[token] >= rows), key=numbers.__getitem__)
    if beyond:
        fix = f"call model.resize_token_embeddings({numbers[beyond[-1]] + 1}) once, save the model, and give that"
        raise UserError(
            f"--model {model_name}: {len(beyond)} token{'s' * (len(beyond) > 1)} of its tokenizer have no embedding "
            f"({_some(beyond)}); {fix}"
        )
    architecture = ARCHITECTURES[model.config.model_type]
    needed = ("cls_token", "sep_token", "pad_token") if architecture.null_token == "cls" else ("eos_token",)
    absent = [name for name in needed if getattr(tokenizer, name) is None]
    if absent:
        raise UserError(
            f"--model {model_name}: its {type(tokenizer).__name__} has no {' and no '.join(absent)}, which "
            f"{model.config.model_type} needs; give a checkpoint with the tokenizer it was pretrained with"
        )
    mark = getattr(tokenizer, f"{architecture.null_token}_token")
    if architecture.marks and tokenizer.convert_tokens_to_ids(mark) not in tokenizer("a")["input_ids"]:
        raise UserError(
            f"--model {model_name}: its {type(tokenizer).__name__} does not put {mark} into a text, which "
            f"{model.config.model_type} needs; give a checkpoint with the tokenizer it was pretrained with"
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)
