"""From logits to answers: the best span of each window, the best of a row's windows, and when to stay silent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tl_hub import on_disk
from tl_hub.on_use import torch
from tl_hub.tasks.base import column

if TYPE_CHECKING:
    from datasets import Dataset


def best_spans(
    start_logits: torch.Tensor,
    end_logits: torch.Tensor,
    context_start: torch.Tensor,
    context_end: torch.Tensor,
    null_position: torch.Tensor,
    max_answer_length: int,
) -> dict[str, torch.Tensor]:
    """The best valid span of each window, exactly: no span with start <= end < start + max_answer_length scores higher.

    The best end for every start is a sliding maximum over the end scores, so all spans are searched in
    O(batch x length) work.

    Args:
        start_logits, end_logits: (batch, length).
        context_start, context_end: token range of the context, (batch,); spans lie within it.
        null_position: (batch,).

    Returns:
        `start`, `end` (token indices), `span` (start + end score), `null` (score of the null position) and
        `log_total` (log of the sum over all valid spans of exp(score)), each (batch,).
    """
    place = torch.arange(start_logits.size(1), device=start_logits.device)
    inside = (place >= context_start[:, None]) & (place < context_end[:, None])
    lowest = torch.finfo(start_logits.dtype).min / 4  # two of them still add up to a finite number
    starts = start_logits.masked_fill(~inside, lowest)
    ends = torch.nn.functional.pad(end_logits.masked_fill(~inside, lowest), (0, max_answer_length - 1), value=lowest)
    best_end, end_at = torch.nn.functional.max_pool1d(ends[:, None], max_answer_length, stride=1, return_indices=True)
    span, start = (starts + best_end[:, 0]).max(1)
    reachable = torch.logsumexp(ends.unfold(1, max_answer_length, 1), 2)
    rows = torch.arange(len(start), device=start.device)
    return {
        "start": start,
        "end": end_at[rows, 0, start],
        "span": span,
        "null": start_logits[rows, null_position] + end_logits[rows, null_position],
        "log_total": torch.logsumexp(starts + reachable, 1),
    }


def answers_of(
    predictions: dict[str, np.ndarray], encoded: Dataset, contexts: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """The best answer of each row over all of its windows.

    Yields:
        One dict a row: `answer` (text), `start`, `end` (characters in the context), `score` (probability among all
        valid spans of all windows), `null_score` (probability of "no answer" against all of them) and `null_margin`
        (how far the null score, the lowest over the windows, lies above the answer's: large means "no answer").
    """
    row = column(encoded, "row")
    first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
    ends = np.r_[first[1:], len(row)]
    chosen = np.array([i + predictions["span"][i:end].argmax() for i, end in zip(first, ends, strict=True)])
    offsets = on_disk.Cells(encoded.select(chosen), "offsets")
    for context, i, end_of_row, best, places in zip(contexts, first, ends, chosen, offsets, strict=True):
        start, end = places[predictions["start"][best]][0], places[predictions["end"][best]][1]
        # Some tokenizers count the blank before a word among its characters, or have a token for it.
        end -= len(context[start:end]) - len(context[start:end].rstrip())
        start += len(context[start:end]) - len(context[start:end].lstrip())
        total = np.logaddexp.reduce(predictions["log_total"][i:end_of_row].astype(float))
        null = float(predictions["null"][i:end_of_row].min())
        yield {
            "answer": context[start:end],
            "start": start,
            "end": end,
            "score": float(np.exp(predictions["span"][best] - total)),
            "null_score": float(np.exp(null - np.logaddexp(null, total))),
            "null_margin": null - float(predictions["span"][best]),
        }


def best_threshold(margin: np.ndarray, if_answered: np.ndarray, if_silent: np.ndarray) -> float:
    """The null margin above which staying silent gives the highest mean score, found exactly by sorting.

    Args:
        margin, if_answered, if_silent: null margin of each row and its score either way, shape (rows,).
    """
    order = np.argsort(margin)
    gain = np.concatenate([[0.0], np.cumsum((if_answered - if_silent)[order])])
    ordered = margin[order]
    gain[1:-1][ordered[1:] == ordered[:-1]] = -np.inf  # no threshold lies between equal ones
    place = int(gain.argmax())
    if place == 0:
        return float(ordered[0] - 1)
    if place == len(ordered):
        return float(ordered[-1] + 1)
    return float((ordered[place - 1] + ordered[place]) / 2)
