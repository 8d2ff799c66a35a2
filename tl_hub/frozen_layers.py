"""Layers below the lowest trained one read each row once, and what they give is kept on the disk.

Every epoch would otherwise compute the same again. Rücklé et al. 2021 (https://arxiv.org/abs/2010.11918) leave adapters
out of the lower layers, so that no gradient goes there; with that, all epochs but the first can do without them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel

from tl_hub import progress
from tl_hub.architectures import ARCHITECTURES, layer_groups
from tl_hub.batches import Reader
from tl_hub.experiment import Experiment
from tl_hub.model_types import Model
from tl_hub.tasks.base import column
from tl_hub.vectors import cache, extract

_LARGEST = float(np.finfo(np.float16).max)


def count(experiment: Experiment) -> int:
    """How many of the lowest layers give the same for a row in every epoch.

    None do if the embeddings are trained, if rows are masked anew each time or come from a stream, or if layers hand on
    more than their output, as those with relative positions do. Nor are there any below a head alone, which
    `methods.head_only` gives the vectors of the top layer.
    """
    model = _inner(experiment.model)
    wrapped = experiment.model
    prompted = isinstance(wrapped, PeftModel) and wrapped.active_peft_config.is_prompt_learning
    alone = ARCHITECTURES[model.config.model_type].position_table is not None
    run, random = experiment.run, experiment.task.random_batches
    if run.recompute_frozen or run.streaming or prompted or random or not alone:
        return 0
    trained = [any(model.get_parameter(name).requires_grad for name in names) for names in layer_groups(model)]
    return max(0, trained.index(True) - 1) if any(trained) else 0


def cache_bytes(experiment: Experiment) -> int:
    """How much of the disk their output takes, in half precision; 0 where there are none."""
    tokens = int(column(_encoded(experiment), "length").sum())
    return 2 * tokens * _inner(experiment.model).config.hidden_size * bool(count(experiment))


def of_run(experiment: Experiment) -> "FrozenLayers | None":
    """Those of a run, where there are any. Their output is read now, unless the cache has it.

    Raises:
        UserError: as `FrozenLayers`.
    """
    layers = count(experiment)
    return FrozenLayers(experiment, layers) if layers else None


class FrozenLayers:
    """The output of the lowest layers for each training row. It stands in for them in the steps of the training.

    The layers read without dropout. Their output is in half precision, and zero where a batch is padded. It is an entry
    of the cache of vectors, which other runs with the same weights and rows find there.

    Args:
        layers: how many they are, at least 1.

    Raises:
        UserError: the disk has no room, or the cache cannot be written to.
    """

    def __init__(self, experiment: Experiment, layers: int):
        self.experiment, self.layers, self.model = experiment, layers, _inner(experiment.model)
        encoded = _encoded(experiment)
        self.lengths = column(encoded, "length")
        self.starts = np.cumsum([0, *self.lengths])
        read = {id(parameter) for block in _blocks(self.model)[:layers] for parameter in block.parameters()}
        read |= {id(self.model.get_parameter(name)) for name in layer_groups(self.model)[0]}
        weights = [(name, parameter) for name, parameter in self.model.named_parameters() if id(parameter) in read]
        key = cache.key_of(self.model, weights, encoded, experiment.accelerator.mixed_precision == "bf16")
        facts = cache.facts_of(self.model, encoded, [layers], ["each token"])
        shape = (1, 1, int(self.starts[-1]), self.model.config.hidden_size)
        without = "compute them in each epoch with --recompute_frozen"
        self.values = cache.kept(key, shape, facts, self._read, without).values[0, 0]

    @contextmanager
    def of(self, batch: dict[str, Any]) -> Iterator[None]:
        """Within it, the model begins above the layers, with what they gave for the rows of a training batch."""
        mask = self._mask(batch)
        state = np.zeros((*mask.shape, self.values.shape[1]), np.float32)
        rows = batch["index"].tolist()
        state[mask] = np.concatenate([self.values[self.starts[row] : self.starts[row + 1]] for row in rows])
        given = _Given(torch.from_numpy(state).to(batch["index"].device))
        with _standing_in(self.model, [given, *_blocks(self.model)[self.layers :]]):
            yield

    @torch.no_grad()
    def _read(self, values: np.memmap) -> None:
        """Fill `values`, (1, 1, tokens of all rows, hidden); each process its share of the rows."""
        accelerator, run = self.experiment.accelerator, self.experiment.run
        reader = Reader(self.experiment, "train", training=True)
        reader.collate = cache.in_use(str(values.filename), reader.collate)
        every = list(extract.batches(self.lengths, run.batch_size * int(self.lengths.max())))
        shown, found = accelerator.is_main_process, list[torch.Tensor]()
        self.model.to(accelerator.device).eval()
        lowest = _blocks(self.model)[: self.layers]
        hook = lowest[-1].register_forward_hook(lambda module, args, output: found.append(output))
        try:
            with (
                progress.bar(len(every), "frozen layers", "batch", leave=False, shown=shown) as bar,
                _standing_in(self.model, lowest),
                accelerator.autocast(),
            ):
                for places in every[accelerator.process_index :: accelerator.num_processes]:
                    batch = reader.batch(places, longest=places[0])
                    names = ("input_ids", "attention_mask", "token_type_ids")
                    self.model.base_model(**{name: batch[name] for name in names if name in batch})
                    state = found.pop().float().clamp(-_LARGEST, _LARGEST).cpu().numpy()
                    for place, row, real in zip(places, state, self._mask(batch), strict=True):
                        values[0, 0, self.starts[place] : self.starts[place + 1]] = row[real]
                    bar.update(accelerator.num_processes)
        finally:
            hook.remove()

    def _mask(self, batch: dict[str, Any]) -> np.ndarray:
        """Which tokens of a batch are not padding, (batch, length). Where no mask tells it, padding is on the right."""
        if "attention_mask" in batch:
            return batch["attention_mask"].bool().cpu().numpy()
        lengths = self.lengths[batch["index"].cpu().numpy()]
        return np.arange(batch["input_ids"].shape[1]) < lengths[:, None]


class _Given(torch.nn.Module):
    """A layer that has its output already, (batch, length, hidden)."""

    def __init__(self, output: torch.Tensor):
        super().__init__()
        self.output = output

    def forward(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.output


@contextmanager
def _standing_in(model: Model, layers: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Within it, the model has these layers."""
    holder, _, name = ARCHITECTURES[model.config.model_type].blocks.rpartition(".")
    parent, own = model.base_model.get_submodule(holder), _blocks(model)
    setattr(parent, name, torch.nn.ModuleList(layers))
    try:
        yield
    finally:
        setattr(parent, name, own)


def _blocks(model: Model) -> torch.nn.ModuleList:
    blocks = model.base_model.get_submodule(ARCHITECTURES[model.config.model_type].blocks)
    assert isinstance(blocks, torch.nn.ModuleList)
    return blocks


def _inner(model: Model | PeftModel) -> Model:
    """The model inside an adapter."""
    return cast(Model, model.get_base_model()) if isinstance(model, PeftModel) else model


def _encoded(experiment: Experiment) -> Any:
    encoded = experiment.rows.splits["train"].encoded
    assert encoded is not None
    return encoded
