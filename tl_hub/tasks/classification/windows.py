"""Texts, and pairs of texts, in windows that a model can read, and what their windows say of a row."""

import re
from typing import Any

import numpy as np

from tl_hub.errors import UserError
from tl_hub.model_types import Tokenizer


def check_window(what: str, max_length: int, doc_stride: int) -> None:
    """
    Raises:
        UserError: a window has no room for what neighbouring ones share; says `what` it is.
    """
    least = 2 * doc_stride + 16  # of a pair, half a window may be the shorter text
    if max_length < least:
        raise UserError(f"{what}; with --doc_stride {doc_stride} it must be at least {least}")


def windows(
    tokenizer: Tokenizer, texts: list[str], pairs: list[str] | None, max_length: int, doc_stride: int, segments: bool
) -> dict[str, list[Any]]:
    """Cut each text, or pair of texts, into windows of at most `max_length` tokens that share `doc_stride` tokens.

    Each window is whole to the model, with its own special tokens, and of a pair it holds both texts: the longer one
    is cut into windows, and the shorter one stands in all of them, cut to half a window if need be.

    Returns:
        Columns of one entry a window: `input_ids`, `token_type_ids` (if `segments`), `row` (place in `texts`), `length`
        (tokens) and `cut` (something of the row is in no window).
    """
    columns: dict[str, list[Any]] = {name: [] for name in ("input_ids", "row", "length", "cut")}
    if segments:
        columns["token_type_ids"] = []
    # A "</s>" in a text is text: T5 must find the same number of its own in each row.
    own = {tokenizer.cls_token, tokenizer.sep_token, tokenizer.eos_token, tokenizer.pad_token} - {None}
    marks = re.compile("|".join(map(re.escape, own)))
    texts = [marks.sub(_spaced, text) for text in texts]
    if pairs is None:
        groups = [("only_first", list(range(len(texts))))]
        cut = [False] * len(texts)
    else:
        pairs = [marks.sub(_spaced, text) for text in pairs]
        half = max_length // 2 - 4
        sizes = np.array([_sizes(tokenizer, texts), _sizes(tokenizer, pairs)])
        cut = ((sizes.min(0) > half) & (sizes.sum(0) > max_length - 4)).tolist()
        second = sizes[1] >= sizes[0]
        texts = [_shortened(tokenizer, t, half) if c and s else t for t, c, s in zip(texts, cut, second, strict=True)]
        pairs = [
            _shortened(tokenizer, t, half) if c and not s else t for t, c, s in zip(pairs, cut, second, strict=True)
        ]
        groups = [("only_first", np.flatnonzero(~second).tolist()), ("only_second", np.flatnonzero(second).tolist())]
    for truncation, places in groups:
        if not places:
            continue
        encoded = tokenizer(
            [texts[place] for place in places],
            None if pairs is None else [pairs[place] for place in places],
            truncation=truncation,
            max_length=max_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_token_type_ids=segments,
        )
        rows = [places[sample] for sample in encoded["overflow_to_sample_mapping"]]
        columns["row"] += rows
        columns["cut"] += [cut[row] for row in rows]
        columns["length"] += [len(ids) for ids in encoded["input_ids"]]
        for name in ("input_ids", "token_type_ids") if segments else ("input_ids",):
            columns[name] += encoded[name]
    order = np.argsort(columns["row"], kind="stable")
    return {name: [values[place] for place in order] for name, values in columns.items()}


def row_means(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Mean over the windows of each row.

    Args:
        values: (windows, classes).
        row: of each window, (windows,); those of one row stand together.

    Returns:
        (rows, classes), in the precision of `values`.
    """
    first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]][: len(row)])
    if len(first) == len(row):
        return values
    counts = np.diff(np.r_[first, len(row)]).astype(values.dtype)
    return np.add.reduceat(values, first, axis=0) / counts[:, None]


def _spaced(found: re.Match[str]) -> str:
    return " ".join(found.group())


def _sizes(tokenizer: Tokenizer, texts: list[str]) -> list[int]:
    encoded = tokenizer(texts, add_special_tokens=False)
    return [len(ids) for ids in encoded["input_ids"]]


def _shortened(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return text[: encoded["offset_mapping"][tokens - 1][1]]
