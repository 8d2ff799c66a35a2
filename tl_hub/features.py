"""Frozen vectors: a pretrained model reads each text once, its layers are pooled to a vector each, kept on disk.

Where a head reads every token, the vectors of all tokens of the top layer are kept instead.

The cache stands in `$TL_HUB_CACHE/features`, by default below the folder of the Hub's own cache.
"""

import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import transformers
import xxhash
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from tqdm import tqdm
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from tl_hub.architectures import ARCHITECTURES, PAD_TO
from tl_hub.errors import UserError
from tl_hub.tasks.base import column

POOLINGS = ("mean", "first", "last", "max", "attention")
"""`attention`: a mean of the tokens weighted by the attention that each receives in the layer from all heads and
tokens; for the embeddings, in the first layer."""
VERSION = 1
"""Of what the vectors are; a change of the code that changes them must raise it, or old entries would be read."""

_VECTORS, _ENTRY = "vectors.npy", "entry.json"
_LARGEST = float(np.finfo(np.float16).max)
_ABANDONED_SECONDS = 24 * 3600.0
_HASHED: WeakKeyDictionary[torch.nn.Module, tuple[list, bytes]] = WeakKeyDictionary()
"""Hashes of the weights of models: three splits, one hash."""
_UNREAD = {"architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version", "_name_or_path"}
"""Entries of a configuration that do not change what the layers compute."""


@dataclass(frozen=True)
class Vectors:
    """Pooled vectors of the features (windows) of a split.

    Attributes:
        values: float16, on disk, shape (layers, poolings, features, hidden).
        layers: 0 is what the embeddings give, k what layer k gives; the last one includes the model's final norm.
        seconds: spent in reading the texts; 0 where the cache had the vectors.
        places: of the features that are asked for, ascending; all if None.
    """

    values: np.ndarray
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    seconds: float
    places: np.ndarray | slice | None = None

    def at(self, places: np.ndarray | slice) -> "Vectors":
        """Some of the features that are asked for: `places` counts these."""
        if self.places is not None:
            places = np.arange(self.values.shape[2])[self.places][places]
        return replace(self, places=places)

    def of(self, layers: Sequence[int], pooling: str, mix: np.ndarray | None = None) -> np.ndarray:
        """The vectors of some layers side by side: (features, len(layers) * hidden), float32.

        With `mix`, the weights of a scalar mix, (layers,), their sum instead: (features, hidden).
        """
        place, some = self.poolings.index(pooling), slice(None) if self.places is None else self.places
        found = (self.values[self.layers.index(layer), place][some].astype(np.float32) for layer in layers)
        if mix is None:
            return np.concatenate(list(found), axis=1)
        return sum(np.float32(weight) * vectors for weight, vectors in zip(mix, found, strict=True))


@dataclass(frozen=True)
class CacheEntry:
    """An entry of the cache: what it was made from, its size in bytes and when it was last used."""

    key: str
    model_type: str
    features: int
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    size: int
    used: datetime


def encoder_of(model: Any) -> Any:
    """The part of a model that reads texts: without head and pooler (taken off), and without a decoder."""
    base = model.base_model
    if getattr(base, "pooler", None) is not None:
        base.pooler = None
    return (base.encoder if ARCHITECTURES[base.config.model_type].encoder_decoder else base).eval()


def depth_of(encoder: Any) -> int:
    """How many layers an encoder has."""
    return len(encoder.get_submodule(ARCHITECTURES[encoder.config.model_type].blocks))


def weights_sha256(encoder: Any) -> str:
    """SHA-256 over the names, shapes and float32 values of all parameters."""
    digest = hashlib.sha256()
    for name, parameter in sorted(encoder.named_parameters()):
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()


@torch.no_grad()
def pooled(
    encoder: Any, inputs: dict[str, torch.Tensor], layers: Sequence[int], poolings: Sequence[str]
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
    encoder: Any,
    features: Dataset | Iterable[dict[str, Any]],
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    layers: Sequence[int],
    poolings: Sequence[str],
    tokens: int,
    bf16: bool,
) -> Vectors:
    """Read every row of `features` once, or take its vectors from the cache.

    Processes share the work and write into one file. An entry comes into being whole, by a rename, so that a writer
    that dies leaves none and of two writers one wins.

    Memory holds the lengths of all rows and no more of them, where they are on the disk. Those of a stream (an
    `IterableDataset`, a generator) are put there first and removed in the end.

    Args:
        features: encoded rows: `length`, and the columns that `collate` makes a batch of. The same in each process.
        tokens: in a batch, padding included.

    Returns:
        The vectors of these layers and poolings, and of others where the cache has them together.

    Raises:
        UserError: no rows, the disk has no room for the vectors, or the cache cannot be written to.
    """
    if not isinstance(features, Dataset):
        with _stored(features) as (rows, scratch):
            return extract(encoder, rows, _in_use(scratch, collate), layers, poolings, tokens, bf16)
    shape = (len(layers), len(poolings), len(features), encoder.config.hidden_size)

    def read(values: np.memmap) -> None:
        encoder.to(PartialState().device)
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=bf16):
            for places, batch in _read(features, _in_use(values.filename, collate), tokens):
                values[:, :, places] = pooled(encoder, batch, layers, poolings).cpu().numpy()

    key = _key(encoder, encoder.named_parameters(), features, bf16)
    return _kept(key, shape, _facts(encoder, features, layers, poolings), read)


def stack_of(model: Any) -> Any:
    """The part of a model that gives its head the vectors of all tokens: the decoder, or the whole base model."""
    base = model.base_model
    return base.decoder if ARCHITECTURES[base.config.model_type].encoder_decoder else base


@torch.no_grad()
def extract_tokens(
    model: Any,
    head: torch.nn.Module,
    features: Dataset,
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    layers: Sequence[int],
    tokens: int,
    bf16: bool,
) -> Vectors:
    """What `model` would give to its layer `head` of every token of `features`, were it cut off above each of `layers`.

    Read once, or taken from the cache, as by `extract`. Of a lower layer that is with the model's final norm, if it
    has one.

    Returns:
        `values` are float16, on disk, (layers, 1, tokens of all rows one after the other, hidden).

    Raises:
        UserError: as `extract`.
    """
    lengths = column(features, "length")
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
                for places, batch in _read(features, _in_use(values.filename, collate), tokens):
                    model(**batch)
                    masks = batch["attention_mask"].bool().cpu().numpy()
                    for i, layer in enumerate(layers):
                        states = found[layer].float().clamp(-_LARGEST, _LARGEST).cpu().numpy()
                        for place, state, mask in zip(places, states, masks, strict=True):
                            values[i, 0, ends[place] - lengths[place] : ends[place]] = state[mask]
        finally:
            for handle in hooks:
                handle.remove()

    key = _key(model, frozen, features, bf16)
    shape = (len(layers), 1, int(ends[-1]), model.config.hidden_size)
    return _kept(key, shape, _facts(model, features, layers, ["tokens"]), read)


def cache_folder() -> Path:
    return Path(os.environ.get("TL_HUB_CACHE") or Path(HF_HOME) / "tl_hub") / "features"


def cache_entries() -> list[CacheEntry]:
    """What the cache holds, the entry last used first."""
    found = []
    for path in cache_folder().glob(f"*/{_ENTRY}"):
        if "." in path.parent.name:
            continue  # still being written, or about to be removed
        try:
            facts = json.loads(path.read_text())
            used = datetime.fromtimestamp(path.parent.stat().st_mtime, UTC)
            size = (path.parent / _VECTORS).stat().st_size
        except FileNotFoundError:
            continue  # removed meanwhile, or a removal was interrupted
        layers, poolings = tuple(facts.pop("layers")), tuple(facts.pop("poolings"))
        found.append(CacheEntry(path.parent.name, **facts, layers=layers, poolings=poolings, size=size, used=used))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def prune(days: float = 30.0) -> list[CacheEntry]:
    """Remove the entries not used for `days`, and what writers that died left behind; returns the entries removed."""
    old = [e for e in cache_entries() if (datetime.now(UTC) - e.used).total_seconds() >= 86400 * days]
    removed = []
    for entry in old:
        new = _new(entry.key)
        try:
            (cache_folder() / entry.key).rename(new)  # or an interruption would leave half an entry
            removed.append(entry)
        except FileNotFoundError:
            pass  # another process removed it
        shutil.rmtree(new, ignore_errors=True)
    for path in cache_folder().glob("*.*"):
        with suppress(FileNotFoundError):
            used = max(each.stat().st_mtime for each in (path, *path.rglob("*")))
            if time.time() - used > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
    return removed


@contextmanager
def _stored(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[Dataset, Path]]:
    """A stream as a data set that is mapped from the disk, for a while, and the folder that it is in.

    Raises:
        UserError: no rows, or the cache cannot be written to.
    """
    stream = iter(rows)
    first = next(stream, None)
    if first is None:
        raise UserError("there are no rows to read; a generator gives its rows only once")
    scratch = _new("stream")
    try:
        # The fingerprint names the file. By default it is a hash of the generator, which has none.
        every = itertools.chain([first], stream)
        yield Dataset.from_generator(lambda: every, cache_dir=str(scratch), fingerprint="stream"), scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _in_use(path: Any, collate: Callable[..., Any]) -> Callable[..., Any]:
    """`collate`, which also says that a file is in use: writing by way of its map does not, and `prune` would take it.

    A reading may take days.
    """

    def touching(rows: list[dict[str, Any]]) -> Any:
        os.utime(path)
        return collate(rows)

    return touching


def _read(
    features: Dataset, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]], tokens: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Places and batches of this process's share of the rows."""
    state = PartialState()
    rows = features.remove_columns(sorted(set(features.column_names) - {"input_ids", "token_type_ids"}))
    every = batches(column(features, "length"), tokens)
    own = itertools.islice(every, state.process_index, None, state.num_processes)
    with tqdm(total=len(features), desc="reading", unit="row", leave=False, disable=not state.is_main_process) as bar:
        for places in own:
            yield places, {name: t.to(state.device) for name, t in collate(rows.__getitems__(places)).items()}
            bar.update(len(places) * state.num_processes)


def _kept(key: str, shape: tuple[int, ...], facts: dict[str, Any], read: Callable[[np.memmap], None]) -> Vectors:
    """The vectors of an entry that has what is asked for, which `read` makes where there is none yet."""
    state = PartialState()
    layers, poolings = facts["layers"], facts["poolings"]
    kinds = xxhash.xxh3_64_hexdigest(json.dumps([layers, poolings]).encode())
    shared: list[tuple[str, list[int], list[str], str | None]] = [(f"{key}-{kinds}", layers, poolings, None)]
    found: np.ndarray | None = None
    if state.is_main_process:
        have = [e for e in cache_entries() if e.key.startswith(f"{key}-") and set(layers) <= set(e.layers)]
        for held in sorted((e for e in have if set(poolings) <= set(e.poolings)), key=lambda e: e.size):
            with suppress(FileNotFoundError):  # pruned meanwhile
                os.utime(cache_folder() / held.key)
                found = np.load(cache_folder() / held.key / _VECTORS, mmap_mode="r")
                shared = [(held.key, list(held.layers), list(held.poolings), None)]
                break
        else:
            shared = [(f"{key}-{kinds}", layers, poolings, str(_reserved(f"{key}-{kinds}", shape)))]
    broadcast_object_list(shared)
    name, layers, poolings, reserved = shared[0]
    folder = cache_folder() / name
    start = time.perf_counter()
    if reserved is not None:
        new = Path(reserved)
        try:
            values = np.load(new / _VECTORS, mmap_mode="r+")
            read(values)
            values.flush()
            state.wait_for_everyone()
            if state.is_main_process:
                _publish(new, folder, facts)
        finally:
            if state.is_main_process:
                shutil.rmtree(new, ignore_errors=True)
        state.wait_for_everyone()
    seconds = time.perf_counter() - start if reserved is not None else 0.0
    found = np.load(folder / _VECTORS, mmap_mode="r") if found is None else found
    return Vectors(found, tuple(layers), tuple(poolings), seconds)


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


def _key(
    model: Any,
    parameters: Iterable[tuple[str, torch.nn.Parameter]],
    features: Dataset,
    bf16: bool,
) -> str:
    """128-bit hash of all that the vectors of a layer and pooling depend on.

    The token ids stand for the texts, the tokenizer and the windows.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _UNREAD}
    facts = [VERSION, config, bf16, torch.__version__, transformers.__version__]
    digest = xxhash.xxh3_128(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(_weights_hash(model, sorted(parameters)))
    names = [name for name in ("input_ids", "token_type_ids") if name in features.column_names]
    for table in features.select_columns([*names, "length"]).with_format("arrow").iter(1000):
        digest.update(table["length"].to_numpy().astype(np.int64).tobytes())
        for name in names:
            digest.update(table[name].combine_chunks().flatten().to_numpy().astype(np.int64).tobytes())
    return digest.hexdigest()


def _weights_hash(model: Any, parameters: list[tuple[str, torch.nn.Parameter]]) -> bytes:
    """128-bit hash of named weights, made anew where one stands elsewhere in memory, or torch counts a change of it."""
    state = [(name, parameter.data_ptr(), parameter._version) for name, parameter in parameters]
    if model not in _HASHED or _HASHED[model][0] != state:
        digest = xxhash.xxh3_128()
        for name, parameter in parameters:
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
        _HASHED[model] = state, digest.digest()
    return _HASHED[model][1]


def _reserved(name: str, shape: tuple[int, ...]) -> Path:
    """A new folder in the cache with a file for the vectors, of full size.

    Raises:
        UserError: no room, or no right to write.
    """
    needed = 2 * int(np.prod(shape))
    new = _new(name)
    free = shutil.disk_usage(new).free
    if free < needed:
        new.rmdir()
        raise UserError(
            f"the vectors need {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} are free in {new.parent}; "
            "name one --layer and --pooling, give fewer rows, or set TL_HUB_CACHE to a folder on another disk"
        )
    np.lib.format.open_memmap(new / _VECTORS, mode="w+", dtype=np.float16, shape=shape)
    return new


def _new(name: str) -> Path:
    """A new folder in the cache, whose name is `name`, a dot and more: it is not an entry.

    Raises:
        UserError: it cannot be made, for want of rights, of a folder or of room.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder))
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made or written to ({error.strerror}); set TL_HUB_CACHE to another folder"
        ) from error


def _facts(model: Any, features: Dataset, layers: Sequence[int], poolings: Sequence[str]) -> dict[str, Any]:
    kinds = {"layers": list(layers), "poolings": list(poolings)}
    return {"model_type": model.config.model_type, "features": len(features), **kinds}


def _publish(new: Path, folder: Path, facts: dict[str, Any]) -> None:
    (new / _ENTRY).write_text(json.dumps(facts))
    if folder.is_dir() and not (folder / _VECTORS).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what a removal that was interrupted has left
    try:
        new.rename(folder)
    except OSError:
        if not (folder / _VECTORS).is_file():  # else another process wrote the same vectors first
            raise
