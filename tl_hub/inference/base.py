"""What the pipelines have in common."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from tl_hub.errors import UserError


def parts_of(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def predictions_of(
    pipe: Any, features: Dataset, batch_size: int, compute: Callable[[dict[str, torch.Tensor]], Any]
) -> dict[str, np.ndarray]:
    """What the task of a pipeline predicts of `features`, in their order; those of like length share a batch."""
    batched = features.select_columns([name for name in pipe.task.batched if name in features.column_names])
    collate = pipe.task.collator(pipe.tokenizer, training=False)
    order = np.argsort(features["length"], kind="stable")
    found: dict[str, np.ndarray] = {}
    for places in np.split(order, range(batch_size, len(order), batch_size)):
        batch = collate([batched[i] for i in places.tolist()])
        batch = {name: tensor.to(pipe.model.device) for name, tensor in batch.items()}
        inputs = {name: tensor for name, tensor in batch.items() if name not in pipe.task.scoring_only}
        for name, tensor in pipe.task.predict(compute(inputs), batch).items():
            values = tensor.cpu().numpy()
            found.setdefault(name, np.zeros((len(order), *values.shape[1:]), values.dtype))[places] = values
    return found


def checked_texts(text: str | list[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not all(text.strip() for text in texts):
        raise UserError("a text is empty")
    return texts
