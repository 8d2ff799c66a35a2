"""Frozen vectors: a pretrained model reads each text once, its layers are pooled to a vector each, kept on disk.

Where a head reads every token, the vectors of all tokens of the top layer are kept instead.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from tl_hub import progress
from tl_hub.architectures import ARCHITECTURES, PAD_TO
from tl_hub.model_types import Model
from tl_hub.tasks.base import column
from tl_hub.vectors.cache import Vectors, facts_of, in_use, kept, key_of, stored

POOLINGS = ("mean", "first", "last", "max", "attention")
"""`attention`: a mean of the tokens weighted by the attention that each receives in the layer from all heads and
tokens; for the embeddings, in the first layer."""
_LARGEST = float(np.finfo(np.float16).max)


def encoder_of(model: Any) -> Any:
    """The part of a model that reads texts: without head and pooler (taken off), and without a decoder."""
    base = model.base_model
    if getattr(base, "pooler", None) is not None:
        base.pooler = None
    return (base.encoder if ARCHITECTURES[base.config.model_type].encoder_decoder else base).eval()


def depth_of(encoder: Any) -> int:
    """How many layers an encoder has."""
    return len(encoder.get_submodule(ARCHITECTURES[encoder.config.model_type].blocks))


def weights_sha256(encoder: Model) -> str:
    """SHA-256 over the names, shapes and float32 values of all parameters."""
    digest = hashlib.sha256()
    for name, parameter in sorted(encoder.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def pooled(
    encoder: Model, inputs: dict[str, torch.Tensor], layers: Sequence[int], poolings: Sequence[str]
) -> torch.Tensor:
    """Read a batch, no deeper than the deepest of `layers`, and pool the vectors of the tokens that are not padding.

    Args:
        inputs: `input_ids` and `attention_mask`, (batch, length), and `token_type_ids` where the family has them.

    Returns:
        float32 within the range of float16, shape (layers, poolings, batch, hidden).
    """
    architecture = ARCHITECTURES[encoder.config.model_type]
    holder, _, name = architecture.blocks.rpartition(".")
    parent = encoder.get_submodule(holder)
    blocks = getattr(parent, name)
    mask = inputs["attention_mask"].bool()
    weighted = "attention" in poolings
    if weighted:
        encoder.set_attn_implementation("eager")  # the others give no attention weights
        if encoder._can_record_outputs:  # transformers takes the weights by hooks, which it sets on the layers once
            maybe_install_capturing_hooks(encoder)
    found: dict[int, dict[str, torch.Tensor]] = {}
    states: dict[int, torch.Tensor] = {}

    def keep(layer: int, state: torch.Tensor) -> None:
        found[layer] = {pooling: _POOL[pooling](state, mask) for pooling in poolings if pooling in _POOL}
        if weighted:
            states[layer] = state

    def hooked(layer: int, output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output
        keep(layer, state.transpose(0, 1) if architecture.time_major else state)

    def hook(layer: int) -> Callable[..., None]:
        return lambda module, args, output: hooked(layer, output)

    hooks = [blocks[k - 1].register_forward_hook(hook(k)) for k in layers if 0 < k < len(blocks)]
    if 0 in layers:
        hooks.append(blocks[0].register_forward_pre_hook(lambda module, args: hooked(0, args[0])))
    try:
        setattr(parent, name, blocks[: max(1, *layers)])
        outputs = encoder(**inputs, **({"output_attentions": True} if weighted else {}))
    finally:
        setattr(parent, name, blocks)
        for handle in hooks:
            handle.remove()
    if len(blocks) in layers:
        keep(len(blocks), outputs.last_hidden_state)
    for layer, state in states.items():
        found[layer]["attention"] = _attended(state, mask, outputs.attentions[max(layer, 1) - 1])
    vectors = torch.stack([torch.stack([found[layer][pooling] for pooling in poolings]) for layer in layers])
    return vectors.clamp(-_LARGEST, _LARGEST)


def batches(lengths: Sequence[int] | np.ndarray, tokens: int) -> Iterator[list[int]]:
    """Places of the rows from long to short, in batches of at most `tokens` tokens, padding included.

    The first batch is the one that needs most memory. Rows are padded to a multiple of `PAD_TO`, as all collators do.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // (-(-int(lengths[order[start]]) // PAD_TO) * PAD_TO))
        yield order[start : start + size].tolist()
        start += size


def extract(
    encoder: Model,
    encoded: Dataset | Iterable[dict[str, Any]],
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    layers: Sequence[int],
    poolings: Sequence[str],
    tokens: int,
    bf16: bool,
) -> Vectors:
    """Read every row of `encoded` once, or take its vectors from the cache.

    Processes share the work and write into one file. An entry comes into being whole, by a rename, so that a writer
    that dies leaves none and of two writers one wins.

    Memory holds the lengths of all rows and no more of them, where they are on the disk. Those of a stream (an
    `IterableDataset`, a generator) are put there first and removed in the end.

    Args:
        encoded: rows with a `length`, and the columns that `collate` makes a batch of. The same in each process.
        tokens: in a batch, padding included.

    Returns:
        The vectors of these layers and poolings, and of others where the cache has them together.

    Raises:
        UserError: no rows, the disk has no room for the vectors, or the cache cannot be written to.
    """
    if not isinstance(encoded, Dataset):
        with stored(encoded) as (rows, scratch):
            return extract(encoder, rows, in_use(scratch, collate), layers, poolings, tokens, bf16)
    shape = (len(layers), len(poolings), len(encoded), encoder.config.hidden_size)

    def read(values: np.memmap) -> None:
        encoder.to(PartialState().device)
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
            for places, batch in _read(encoded, in_use(str(values.filename), collate), tokens):
                values[:, :, places] = pooled(encoder, batch, layers, poolings).cpu().numpy()

    key = key_of(encoder, encoder.named_parameters(), encoded, bf16)
    return kept(key, shape, facts_of(encoder, encoded, layers, poolings), read)


def stack_of(model: Any) -> Any:
    """The part of a model that gives its head the vectors of all tokens: decoder, encoder, or the whole base model."""
    base = model.base_model
    if not ARCHITECTURES[base.config.model_type].encoder_decoder:
        return base
    return base.decoder if hasattr(base, "decoder") else base.encoder


def depth_name(model: Model) -> str:
    """The configuration's name for the number of layers in `stack_of`."""
    alone = not hasattr(model.base_model, "decoder")
    return "num_hidden_layers" if alone else ARCHITECTURES[model.config.model_type].depth


@torch.no_grad()
def extract_tokens(
    model: Any,
    head: torch.nn.Module,
    encoded: Dataset,
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    layers: Sequence[int],
    tokens: int,
    bf16: bool,
) -> Vectors:
    """What `model` would give to its layer `head` of every token of `encoded`, were it cut off above each of `layers`.

    Read once, or taken from the cache, as by `extract`. Of a lower layer that is with the model's final norm, if it
    has one.

    Returns:
        `values` are float16, on disk, (layers, 1, tokens of all rows one after the other, hidden).

    Raises:
        UserError: as `extract`.
    """
    lengths = column(encoded, "length")
    ends = np.cumsum(lengths)
    own = {id(parameter) for parameter in head.parameters()}
    frozen = [(name, p) for name, p in model.named_parameters() if id(p) not in own]
    architecture, stack = ARCHITECTURES[model.config.model_type], stack_of(model)
    blocks = stack.get_submodule(architecture.blocks)
    norm = torch.nn.Identity() if architecture.final_norm is None else stack.get_submodule(architecture.final_norm)
    found: dict[int, torch.Tensor] = {}

    def hook(layer: int) -> Callable[..., None]:
        def keep(module: Any, args: Any, output: Any) -> None:
            state = output[0] if isinstance(output, tuple) else output
            found[layer] = norm(state.transpose(0, 1) if architecture.time_major else state)

        return keep

    def read(values: np.memmap) -> None:
        model.to(PartialState().device).eval()
        hooks = [blocks[k - 1].register_forward_hook(hook(k)) for k in layers if k < len(blocks)]
        hooks.append(head.register_forward_pre_hook(lambda module, args: found.update({len(blocks): args[0]})))
        try:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
                for places, batch in _read(encoded, in_use(str(values.filename), collate), tokens):
                    model(**batch)
                    masks = batch["attention_mask"].bool().cpu().numpy()
                    for i, layer in enumerate(layers):
                        states = found[layer].float().clamp(-_LARGEST, _LARGEST).cpu().numpy()
                        for place, state, mask in zip(places, states, masks, strict=True):
                            values[i, 0, ends[place] - lengths[place] : ends[place]] = state[mask]
        finally:
            for handle in hooks:
                handle.remove()

    key = key_of(model, frozen, encoded, bf16)
    shape = (len(layers), 1, int(ends[-1]), model.config.hidden_size)
    return kept(key, shape, facts_of(model, encoded, layers, ["tokens"]), read)


def _read(
    encoded: Dataset, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]], tokens: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Places and batches of this process's share of the rows."""
    state = PartialState()
    rows = encoded.remove_columns(sorted(set(encoded.column_names) - {"input_ids", "token_type_ids"}))
    every = batches(column(encoded, "length"), tokens)
    own = itertools.islice(every, state.process_index, None, state.num_processes)
    with progress.bar(len(encoded), "reading", "row", leave=False, shown=state.is_main_process) as bar:
        for places in own:
            yield places, {name: t.to(state.device) for name, t in collate(rows.__getitems__(places)).items()}
            bar.update(len(places) * state.num_processes)


def _first(state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return state[torch.arange(len(state)), mask.int().argmax(1)].float()


def _last(state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return state[torch.arange(len(state)), mask.size(1) - 1 - mask.int().flip(1).argmax(1)].float()


def _mean(state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    shares = mask / mask.sum(1, keepdim=True)
    with torch.autocast(state.device.type, enabled=False):
        return torch.bmm(shares[:, None].float(), state.float())[:, 0]


def _max(state: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return state.masked_fill(~mask[:, :, None], -torch.inf).amax(1).float()


_POOL = {"mean": _mean, "first": _first, "last": _last, "max": _max}


def _attended(state: torch.Tensor, mask: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """`attention`: (batch, heads, tokens that attend, tokens attended to)."""
    with torch.autocast(state.device.type, enabled=False):
        received = torch.einsum("bhqk,bq->bk", attention.float(), mask.float()) * mask
        return torch.bmm((received / received.sum(1, keepdim=True))[:, None], state.float())[:, 0]
