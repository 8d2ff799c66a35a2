"""Questions with their contexts in windows that a model can read, and the tokens that answers stand at."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from tl_hub.model_types import Tokenizer

QUESTION_TOKENS = 64
"""Questions are cut to this many tokens (as in Devlin et al. 2019's SQuAD code), so that context always has room."""


def windows(
    tokenizer: Tokenizer,
    questions: list[str],
    contexts: list[str],
    answers: list[dict[str, list[Any]]] | None,
    indices: Sequence[int],
    *,
    max_length: int,
    doc_stride: int,
    segments: bool,
    null_token_id: int,
) -> dict[str, list[Any]]:
    """Cut each question and context into windows of at most `max_length` tokens that share `doc_stride` tokens.

    The gold span of a window is the first reference's, or, where the window does not hold all of it, the null
    position: the place of the model's special token that stands for "no answer here".

    Returns:
        Columns of one entry a window: `input_ids`, `token_type_ids` (if `segments`), `offsets` (characters of each
        token in its context), `context_start` and `context_end` (token range of the context), `null_position`,
        `start_positions`, `end_positions`, `answered` and `legible` (the row has an answer, and that a visible
        character; if `answers`), `row` (from `indices`), `length` and `cut` (the question is not whole).
    """
    questions = [question.strip() for question in questions]
    shortened = _shortened(tokenizer, questions)
    encoded = tokenizer(
        shortened,
        contexts,
        truncation="only_second",
        max_length=max_length,
        stride=doc_stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        return_token_type_ids=segments,
    )
    samples = encoded["overflow_to_sample_mapping"]
    columns = {
        **_places(encoded, null_token_id),
        "offsets": encoded["offset_mapping"],
        "row": [indices[sample] for sample in samples],
        "length": [len(ids) for ids in encoded["input_ids"]],
        "cut": [shortened[sample] != questions[sample] for sample in samples],
    }
    if answers is not None:
        columns |= _gold_spans(columns, samples, answers)
    return {
        "input_ids": encoded["input_ids"],
        **({"token_type_ids": encoded["token_type_ids"]} if segments else {}),
        **columns,
    }


def _places(encoded: Any, null_token_id: int) -> dict[str, list[int]]:
    """Of each window, the token range of the context and the place that stands for "no answer here"."""
    places: dict[str, list[int]] = {"context_start": [], "context_end": [], "null_position": []}
    for i, ids in enumerate(encoded["input_ids"]):
        parts = encoded.sequence_ids(i)
        places["context_start"].append(parts.index(1) if 1 in parts else len(parts))
        places["context_end"].append(len(parts) - parts[::-1].index(1) if 1 in parts else len(parts))
        # The last one of the model's own, for T5 and GPT-2 also end the question with it; a text may name it too.
        null = max(place for place, token in enumerate(ids) if token == null_token_id and parts[place] is None)
        places["null_position"].append(null)
    return places


def _gold_spans(
    columns: dict[str, list[Any]], samples: list[int], answers: list[dict[str, list[Any]]]
) -> dict[str, list[Any]]:
    """Of each window, the tokens of its row's first answer, or the null position; and what there is to find.

    Args:
        columns: of the windows, as in `windows`.
        samples: place of each window's row in `answers`.
    """
    starts, ends = [], []
    for i, sample in enumerate(samples):
        first, last, null = (columns[name][i] for name in ("context_start", "context_end", "null_position"))
        opens, closes = samples[i - 1 : i] != [sample], samples[i + 1 : i + 2] != [sample]
        start, end = _token_span(columns["offsets"][i][first:last], answers[sample], opens, closes)
        starts.append(null if start is None else first + start)
        ends.append(null if end is None else first + end)
    texts = [answers[sample]["text"] for sample in samples]
    return {
        "start_positions": starts,
        "end_positions": ends,
        "answered": [bool(each) for each in texts],
        "legible": [any(_visible(text) for text in each[:1]) for each in texts],
    }


def _shortened(tokenizer: Tokenizer, questions: list[str]) -> list[str]:
    places = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        question if len(tokens) <= QUESTION_TOKENS else question[: tokens[QUESTION_TOKENS - 1][1]]
        for question, tokens in zip(questions, places, strict=True)
    ]


def _token_span(
    offsets: list[tuple[int, int]], answers: dict[str, list[Any]], opens: bool, closes: bool
) -> tuple[int | None, int | None]:
    """Tokens that cover the first reference, or (None, None) where this part of the context lacks some of it.

    Blank and invisible characters at the edges of the reference do not count. Neither do characters before the first
    token of a context (`opens`: the window starts it) or after its last one (`closes`), such as an accent that the
    tokenizer drops.
    """
    if not answers["text"] or not offsets:
        return None, None
    text, begin = answers["text"][0], answers["answer_start"][0]
    visible = _visible(text)
    if not visible:
        return None, None
    begin, finish = begin + visible[0], begin + visible[-1] + 1
    if opens:
        begin = max(begin, offsets[0][0])
    if closes:
        finish = min(finish, offsets[-1][1])
    if begin >= finish or begin < offsets[0][0] or finish > offsets[-1][1]:
        return None, None
    # The bytes of one character are tokens with its place each: of those all belong to the answer.
    start = min(i for i, (_, right) in enumerate(offsets) if right > begin)
    end = max(i for i, (left, _) in enumerate(offsets) if left < finish)
    return (start, end) if start <= end else (None, None)


def _visible(text: str) -> list[int]:
    """Places of the characters that are neither blank nor invisible."""
    return [i for i, character in enumerate(text) if unicodedata.category(character)[0] not in "ZC"]
