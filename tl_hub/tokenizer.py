"""The tokenizer of a checkpoint, also where its family's class would read other tokens than the checkpoint has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_hub.architectures import ARCHITECTURES
from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import transformers

if TYPE_CHECKING:
    from datasets import Dataset

_PIECES = ("spiece.model", "sentencepiece.bpe.model")
"""How a SentencePiece model may be called that is read where there is no tokenizer.json."""
_OWN = {
    "bos_token": ("<s>", "</s>"),
    "eos_token": ("</s>",),
    "pad_token": ("<pad>", "[PAD]"),
    "unk_token": ("<unk>", "[UNK]"),
    "mask_token": ("<mask>", "[MASK]"),
    "cls_token": ("[CLS]", "<cls>", "<s>"),
    "sep_token": ("[SEP]", "<sep>", "</s>"),
}
"""How vocabularies call a special token that their configuration does not name, the likeliest first."""


def load_tokenizer(path: str, revision: str | None, config: Config) -> Tokenizer:
    """The tokenizer of a model. It gives segment ids only to a family that was pretrained with them.

    transformers 5 takes the vocabulary out of `tokenizer.json` and builds all else anew, as the family's first model
    had it. A GPT-2 whose words start with U+2581, a T5 that reads bytes, as Korean ones are, would lose the text, and
    the family's names of special tokens become new tokens, without an embedding. Such a file is taken as it is.

    Raises:
        OSError, ValueError, TypeError: the files are not there, or are broken.
        ImportError: a package that reads them is not installed.
    """
    tokenizer = _loaded(path, revision, config)
    names = tokenizer.model_input_names
    if "token_type_ids" in names and not ARCHITECTURES[config.model_type].token_type_ids:  # as of a BERT's tokenizer
        kept = [name for name in names if name != "token_type_ids"]
        tokenizer.model_input_names = tokenizer.init_kwargs["model_input_names"] = kept
    return tokenizer


def word_starts(tokenizer: Tokenizer) -> list[bool]:
    """Of each token, by its number, whether a word may begin with it and never goes on with it.

    WordPiece marks the pieces that go on; sentencepiece and BPE of bytes mark the blank before those that begin.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    pieces = [piece or "" for piece in tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))]
    goes_on = content["model"].get("continuing_subword_prefix")
    if goes_on:
        return [not piece.startswith(goes_on) for piece in pieces]
    blank = "\u0120" if "ByteLevel" in json.dumps(content["pre_tokenizer"]) else "\u2581"
    return [piece.startswith(blank) for piece in pieces]


def unknown_share(tokenizer: Tokenizer, encoded: Dataset) -> float:
    """Share of the unknown token, from 0 to 1, among the input tokens of the first 10,000 encoded rows.

    Special tokens do not count, nor do those of a family that has no `input_ids` before batches are made.
    """
    unknown = tokenizer.unk_token_id
    others = [number for number in tokenizer.all_special_ids if number != unknown]
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    if unknown is None or unknown in marks or "input_ids" not in encoded.column_names:  # GPT-2's reads any byte
        return 0.0
    first = encoded.select_columns("input_ids").select(range(min(10_000, len(encoded)))).with_format("arrow")[:]
    numbers = first["input_ids"].combine_chunks().flatten().to_numpy()
    read = numbers[~np.isin(numbers, others)]
    return float((read == unknown).mean()) if len(read) else 0.0


def _loaded(path: str, revision: str | None, config: Config) -> Tokenizer:
    given: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    utils, auto = transformers.utils, transformers.models.auto
    file = utils.cached_file(path, "tokenizer.json", revision=revision, **quiet)
    written = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    named = (name for name in _PIECES if not file and utils.cached_file(path, name, revision=revision, **quiet))
    pieces = next(named, None)
    packages = {
        "sentencepiece": utils.is_sentencepiece_available(),
        "protobuf": utils.is_protobuf_available(),
    }
    absent = [name for name, available in packages.items() if not available]
    if pieces and absent:  # without them, transformers takes the file for one of tiktoken and asks for that
        raise ImportError(
            f"{pieces} without a tokenizer.json is read with {' and '.join(absent)}, not installed here: pip "
            f"install {' '.join(absent)}"
        )
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **given)
    except (TypeError, ValueError, AttributeError) as error:  # the vocabulary is of another kind than the class's
        if pieces:
            raise ValueError(f"{pieces} cannot be read as a SentencePiece model; fetch it anew") from error
        if "model" not in written:
            raise
    else:
        # A configuration that says whether letters become small is meant to overrule the file.
        says_case = "do_lower_case" in auto.tokenization_auto.get_tokenizer_config(path, revision=revision)
        if not written or not tokenizer.is_fast or not _rebuilt(tokenizer, written, config, says_case):
            return tokenizer
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path, **given)
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    for name, usual in _OWN.items():
        if name in ("cls_token", "sep_token") and ARCHITECTURES[config.model_type].null_token != "cls":
            continue  # a GPT-2's "<s>" begins a text and sums none up
        number = getattr(config, f"{name}_id", None)
        own = [] if number is None else [tokenizer.convert_ids_to_tokens(number)]
        found = [token for token in (*own, *usual) if token in special]
        if getattr(tokenizer, name) is None and found:
            setattr(tokenizer, name, found[0])
    return tokenizer


def _rebuilt(tokenizer: Tokenizer, written: dict[str, Any], config: Config, says_case: bool) -> bool:
    """Whether a class made of `tokenizer.json` what it does not say: other parts of words, or tokens of its own."""
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    lower = {bool((content["normalizer"] or {}).get("lowercase")) for content in (written, made)}
    vocabulary = written["model"]["vocab"]
    pieces = vocabulary if isinstance(vocabulary, dict) else (piece for piece, _ in vocabulary)
    known = {*pieces, *(token["content"] for token in written["added_tokens"])}
    numbers = tokenizer.get_vocab()
    beyond = [token for token in numbers if numbers[token] >= config.vocab_size and token not in known]
    if _facts(made) != _facts(written) or (len(lower) > 1 and not says_case):
        return True
    return bool(beyond)


def _facts(content: dict[str, Any]) -> list[Any]:
    """What a family's class takes for granted of a `tokenizer.json`."""
    model = content["model"]
    of_bytes = ["ByteLevel" in json.dumps(content["pre_tokenizer"]), bool(model.get("byte_fallback"))]
    return [model["type"], model.get("unk_id"), *of_bytes, content["normalizer"] is None]
