"""Texts in windows that a model can read, and the tokens by which their words are tagged."""

from typing import Any

from tl_hub.model_types import Tokenizer

UNTRAINED = -100
"""Label of tokens that have no part in the loss."""


def windows(
    tokenizer: Tokenizer,
    texts: list[str],
    starts: list[list[int]],
    ends: list[list[int]],
    max_length: int,
    doc_stride: int,
    segments: bool,
) -> dict[str, list[Any]]:
    """Cut each text into windows of at most `max_length` tokens that share `doc_stride` tokens.

    Args:
        starts, ends: where the words of each text begin and end, in characters.

    Returns:
        Columns of one entry a window: `input_ids`, `token_type_ids` (if `segments`), `row` (place in `texts`),
        `length` (tokens), `words` (those that have most context in this window) and `places` (the first token of each
        of them), `more` (how many further tokens each has there), and `unread` (words of the text without a first
        token of their own).
    """
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=segments,
    )
    rows = encoded["overflow_to_sample_mapping"]
    # Of a text that its tokenizer drops, GPT-2 would read nothing at all.
    input_ids = [ids or [tokenizer.eos_token_id] for ids in encoded["input_ids"]]
    columns: dict[str, list[Any]] = {"input_ids": input_ids, "row": rows}
    if segments:
        columns["token_type_ids"] = encoded["token_type_ids"]
    columns["length"] = list(map(len, input_ids))
    best: list[dict[int, tuple[int, int, int, int]]] = [{} for _ in texts]
    for window, row in enumerate(rows):
        inside = [i for i, part in enumerate(encoded.sequence_ids(window)) if part is not None]
        offsets = encoded["offset_mapping"][window]
        for word, place, more in _tokens(offsets, inside, starts[row], ends[row]):
            # A window that begins within a word gives it no context: the one before, with its first token, wins.
            found = (min(place - inside[0], inside[-1] - place), window, place, more)
            best[row][word] = max(best[row].get(word, found), found, key=lambda each: each[0])
    told: dict[str, list[list[int]]] = {name: [[] for _ in rows] for name in ("words", "places", "more")}
    unread = []
    for row, chosen in enumerate(best):
        for word, (_, window, place, more) in sorted(chosen.items()):
            for name, value in (("words", word), ("places", place), ("more", more)):
                told[name][window].append(value)
        own = len({(window, place) for _, window, place, _ in chosen.values()})
        unread.append(len(starts[row]) - own)
    return columns | told | {"unread": [unread[row] for row in rows]}


def _tokens(
    offsets: list[tuple[int, int]], inside: list[int], starts: list[int], ends: list[int]
) -> list[tuple[int, int, int]]:
    """Words, the first token that covers some of each among those `inside` a window, and how many more do; in order."""
    found, at = [], 0
    for word, (start, end) in enumerate(zip(starts, ends, strict=True)):
        while at < len(inside) and offsets[inside[at]][1] <= start:
            at += 1
        covering = at
        while covering < len(inside) and offsets[inside[covering]][0] < end:
            covering += 1
        if covering > at:
            found.append((word, inside[at], covering - at - 1))
    return found


def token_labels(targets: list[tuple[int, int]], places: list[int], more: list[int], length: int) -> list[int]:
    """Labels of a window's tokens, from those of its words: of the first token and of what follows it.

    Where words share a token, it has the label of the first of them.
    """
    labels = [UNTRAINED] * length
    for (first, others), place, count in zip(targets, places, more, strict=True):
        if labels[place] == UNTRAINED:
            labels[place] = first
        labels[place + 1 : place + 1 + count] = [others] * count
    return labels
