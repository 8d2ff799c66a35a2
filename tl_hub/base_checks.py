"""Whether a checkpoint is what a run would take it for, asked before anything is trained on it."""

from collections.abc import Collection
from typing import Any

from tl_hub.architectures import ARCHITECTURES, base_parameters, layer_groups, longest_input, usable_positions
from tl_hub.errors import UserError, first_line
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_use import torch

LEAST_WINDOW = 48
"""Tokens that a model must read for the recipes' prompts, continuations and questions to have room."""
_NAMED = 3
"""Names that a message shows of many."""


def check_base(model_name: str, model: Model, tokenizer: Tokenizer, missing: Collection[str]) -> None:
    """Refuse a checkpoint whose weights or tokenizer are not those of the model that was built from it.

    transformers fills what is missing with noise, and makes an empty tokenizer where a folder has none, silently.

    Args:
        model_name: what `--model` says.
        missing: names of the parameters that the checkpoint lacks.

    Raises:
        UserError: something but a head or pooler is missing, a weight is not finite, the tokenizer does not fit the
            embeddings (but for tokens that were added to it), or it lacks a special token that the family needs.
    """
    _check_weights(model_name, model, missing)
    _check_configuration(model_name, model, tokenizer)
    _check_vocabulary(model_name, model, tokenizer)
    check_tokenizer(f"--model {model_name}", model.config.model_type, tokenizer)
    if ARCHITECTURES[model.config.model_type].encoder_decoder:
        _check_decoder(model_name, model, tokenizer)


def _check_weights(model_name: str, model: Model, missing: Collection[str]) -> None:
    """All are there but those of a head or pooler, and all are finite."""
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


def _check_configuration(model_name: str, model: Model, tokenizer: Tokenizer) -> None:
    """It has layers, and positions enough, counted as the family counts them."""
    if len(layer_groups(model)) < 2:
        raise UserError(f"--model {model_name}: its config.json says that it has no layers; give a whole checkpoint")
    if not model.config.return_dict:
        raise UserError(f"--model {model_name}: its config.json has return_dict false; remove that line")
    after_padding = ARCHITECTURES[model.config.model_type].positions_after_padding
    if after_padding and model.config.pad_token_id != tokenizer.pad_token_id:
        raise UserError(
            f"--model {model_name}: its config.json has pad_token_id {model.config.pad_token_id}, after which "
            f"positions are counted, its tokenizer pads with {tokenizer.pad_token_id} ({tokenizer.pad_token}); give a "
            "checkpoint with the tokenizer it was pretrained with"
        )
    window = longest_input(model.config)
    if window is not None and window < LEAST_WINDOW:
        raise UserError(
            f"--model {model_name} reads {usable_positions(model.config)} tokens at most; it must be at least "
            f"{LEAST_WINDOW}"
        )


def _check_vocabulary(model_name: str, model: Any, tokenizer: Tokenizer) -> None:
    """Each token has an embedding, but for those that were added, and most embeddings have a token."""
    known, rows = len(tokenizer), model.get_input_embeddings().weight.size(0)
    if 2 * known < rows:
        raise UserError(
            f"--model {model_name}: its tokenizer knows {known:,} tokens, its embeddings are for {rows:,}; the files "
            "of the tokenizer (such as tokenizer.json or spiece.model) are missing or those of another model"
        )
    added = tokenizer.get_added_vocab()
    beyond = [token for token, number in tokenizer.get_vocab().items() if number >= rows and token not in added]
    if beyond:
        raise UserError(
            f"--model {model_name}: {len(beyond):,} tokens of its tokenizer have no embedding "
            f"({_some(sorted(beyond))}) and were not added to it, so it is that of another "
            "model; give a checkpoint with its own"
        )


def check_tokenizer(flag: str, model_type: str, tokenizer: Tokenizer) -> None:
    """It has the special tokens that the family needs, and puts one where the family's heads look for it.

    Args:
        flag: by which it was given, with what was given.

    Raises:
        UserError: a token is not there, or not put into texts.
    """
    architecture = ARCHITECTURES[model_type]
    needed = ["cls_token", "sep_token", "pad_token"] if architecture.null_token == "cls" else ["eos_token"]
    if architecture.encoder_decoder:
        needed.append("pad_token")  # classification counts the ends of text, which stand in for GPT-2's
    absent = [name for name in needed if getattr(tokenizer, name) is None]
    if absent:
        raise UserError(
            f"{flag}: its {type(tokenizer).__name__} has no {' and no '.join(absent)}, which {model_type} needs; give "
            "a checkpoint with the tokenizer it was pretrained with"
        )
    if not isinstance(tokenizer.model_max_length, int | float):
        raise UserError(
            f"{flag}: its tokenizer_config.json has model_max_length {tokenizer.model_max_length!r}; it must be a "
            "number"
        )
    mark = getattr(tokenizer, f"{architecture.null_token}_token")
    if architecture.marks and tokenizer.convert_tokens_to_ids(mark) not in tokenizer("a")["input_ids"]:
        raise UserError(
            f"{flag}: its {type(tokenizer).__name__} does not put {mark} into a text, which {model_type} needs; give a "
            "checkpoint with the tokenizer it was pretrained with"
        )


def _check_decoder(model_name: str, model: Model, tokenizer: Tokenizer) -> None:
    """It can write a text, and ends it as the tokenizer does."""
    layers = (getattr(model.config, "num_decoder_layers", 0), model.config.num_hidden_layers)
    if model.get_output_embeddings() is not None and layers[0] > layers[1]:
        raise UserError(
            f"--model {model_name}: its decoder has {layers[0]} layers, its encoder {layers[1]}; transformers cannot "
            "generate a text where the decoder has more"
        )
    end = model.config.eos_token_id
    if end != tokenizer.eos_token_id:
        raise UserError(
            f"--model {model_name}: its config.json has eos_token_id {end}, its tokenizer ends a text with "
            f"{tokenizer.eos_token_id} ({tokenizer.eos_token}); write that number into config.json"
        )


def check_sizes(model_name: str, model: Model, mismatched: Collection[tuple[str, Any, Any]]) -> None:
    """Refuse a checkpoint whose configuration says other sizes than its weights have.

    Args:
        mismatched: name, shape in the checkpoint and shape in the model of each weight whose shapes differ.

    Raises:
        UserError: there are such weights.
    """
    base = base_parameters(model)
    wrong = sorted((name, tuple(given), tuple(wanted)) for name, given, wanted in mismatched if name in base)
    if wrong:
        name, given, wanted = wrong[0]
        raise UserError(
            f"--model {model_name}: {len(wrong)} of its weights have other sizes than its config.json says ({name} is "
            f"{given}, not {wanted}); give the config.json that was saved with the weights"
        )
    if mismatched:
        raise UserError(
            f"--model {model_name} has a head of another size than this task needs; give a pretrained model without one"
        )


def check_reads(model_name: str, model: Model, tokenizer: Tokenizer) -> None:
    """Refuse a model that cannot read what its tokenizer makes of a text, asked by one pass over a short batch.

    What a configuration can get wrong has no end, and each family meets it in another line of its forward pass.

    Raises:
        UserError: the pass fails, or its output is not finite.
    """
    try:
        inputs = dict(tokenizer(["a"] * 3, return_tensors="pt"))
        writes = model.get_output_embeddings() is not None
        if writes:
            inputs = {"input_ids": inputs["input_ids"]}  # as XLNet is trained to write, which wants no mask
        if model.config.is_encoder_decoder:
            inputs["labels" if writes else "decoder_input_ids"] = inputs["input_ids"]
        with torch.no_grad():
            output = model(**inputs)
        finite = bool(torch.isfinite(output[0] if "loss" not in output else output.loss).all())
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"--model {model_name}: it cannot read a short text of its tokenizer ({first_line(error)}); its "
            "config.json or tokenizer_config.json says what the model is not"
        ) from error
    if not finite:
        raise UserError(f"--model {model_name}: its output for a short text is not finite; give another checkpoint")


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + ", ..." * (len(names) > _NAMED)
