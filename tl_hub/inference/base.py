"""What the pipelines have in common."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from tl_hub.errors import UserError
from tl_hub.tasks.base import column

P = ParamSpec("P")
R = TypeVar("R")
_MANY = 10_000
"""Texts above which reading them takes long enough for a bar."""


def parts_of(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def predictions_of(
    pipe: Any, encoded: Dataset, batch_size: int, compute: Callable[[dict[str, torch.Tensor]], Any]
) -> dict[str, np.ndarray]:
    """What the task of a pipeline predicts of `encoded`, in their order; those of like length share a batch."""
    batched = encoded.select_columns([name for name in pipe.task.batched if name in encoded.column_names])
    collate = pipe.task.collator(pipe.tokenizer, training=False)
    order = np.argsort(column(encoded, "length"), kind="stable")
    found: dict[str, np.ndarray] = {}
    for places in np.split(order, range(batch_size, len(order), batch_size)):
        batch = collate([batched[i] for i in places.tolist()])
        batch = {name: tensor.to(pipe.model.device) for name, tensor in batch.items()}
        inputs = {name: tensor for name, tensor in batch.items() if name not in pipe.task.scoring_only}
        for name, tensor in pipe.task.predict(compute(inputs), batch).items():
            values = tensor.cpu().numpy()
            found.setdefault(name, np.zeros((len(order), *values.shape[1:]), values.dtype))[places] = values
    return found


def checked_texts(text: str | list[str], what: str = "text") -> list[str]:
    """One text or several as a list.

    Raises:
        UserError: it is neither, or one is empty.
    """
    texts = list(text) if isinstance(text, Iterable) and not isinstance(text, str) else [text]
    wrong = [each for each in texts if not isinstance(each, str)]
    if wrong:
        raise UserError(f"a {what} is of type {type(wrong[0]).__name__}; give a str, or a list of them")
    if not all(text.strip() for text in texts):
        raise UserError(f"a {what} is empty")
    return texts


def call_of_pipeline(call: Callable[P, R]) -> Callable[P, R]:
    """A pipeline's `__call__` that refuses arguments it does not have as a `UserError`, and reads few texts quietly."""
    signature = inspect.signature(call)

    @functools.wraps(call)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments.values()
        except TypeError as error:
            takes = ", ".join(list(signature.parameters)[1:])
            raise UserError(f"{type(args[0]).__name__}: {error}; it takes {takes}") from error
        many = any(isinstance(value, Sized) and len(value) > _MANY for value in given if not isinstance(value, str))
        if many or are_progress_bars_disabled():
            return call(*args, **kwargs)
        disable_progress_bars()
        try:
            return call(*args, **kwargs)
        finally:
            enable_progress_bars()

    return checked
