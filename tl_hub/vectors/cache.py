"""Vectors on the disk: an entry for each model and set of texts, read again instead of computed again.

The cache stands in `$TL_HUB_CACHE/features`, by default below the folder of the Hub's own cache.
"""

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

from tl_hub import on_disk
from tl_hub.errors import UserError
from tl_hub.model_types import Model
from tl_hub.tasks.base import Collator

VERSION = 1
"""Of what the vectors are; a change of the code that changes them must raise it, or old entries would be read."""
_VECTORS, _ENTRY = "vectors.npy", "entry.json"
_ABANDONED_SECONDS = 24 * 3600.0
_HASHED: WeakKeyDictionary[torch.nn.Module, tuple[list[Any], bytes]] = WeakKeyDictionary()
"""Hashes of the weights of models: three splits, one hash."""
_UNREAD = {"architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version", "_name_or_path"}
"""Entries of a configuration that do not change what the layers compute."""
_TOKENS = ("input_ids", "token_type_ids", "prompt", "target")
"""Columns of encoded rows with what a model reads."""


@dataclass(frozen=True)
class Vectors:
    """Pooled vectors of the encoded rows of a split, such as windows.

    Attributes:
        values: float16, on disk, shape (layers, poolings, encoded rows, hidden).
        layers: 0 is what the embeddings give, k what layer k gives; the last one includes the model's final norm.
        seconds: spent in reading the texts; 0 where the cache had the vectors.
        places: of the encoded rows that are asked for, ascending; all if None.
    """

    values: np.ndarray
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    seconds: float
    places: np.ndarray | slice | None = None

    def at(self, places: np.ndarray | slice) -> "Vectors":
        """Some of the encoded rows that are asked for: `places` counts these."""
        if self.places is not None:
            places = np.arange(self.values.shape[2])[self.places][places]
        return replace(self, places=places)

    def of(self, layers: Sequence[int], pooling: str, mix: np.ndarray | None = None) -> np.ndarray:
        """The vectors of some layers side by side: (encoded rows, len(layers) * hidden), float32.

        With `mix`, the weights of a scalar mix, (layers,), their sum instead: (encoded rows, hidden).
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


def cache_folder() -> Path:
    return on_disk.folder() / "features"


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
def stored(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[Dataset, Path]]:
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


def in_use(path: str | Path, collate: Collator) -> Collator:
    """`collate`, which also says that a file is in use: writing by way of its map does not, and `prune` would take it.

    A reading may take days.
    """

    def touching(rows: list[dict[str, Any]]) -> dict[str, Any]:
        os.utime(path)
        return collate(rows)

    return touching


def kept(
    key: str,
    shape: tuple[int, ...],
    facts: dict[str, Any],
    read: Callable[[np.memmap], None],
    instead: str = "name one --layer and --pooling",
) -> Vectors:
    """The vectors of an entry that has what is asked for, which `read` makes where there is none yet.

    Args:
        instead: what a user can do who has no room for them.

    Raises:
        UserError: there is no room, or the cache cannot be written to.
    """
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
            shared = [(f"{key}-{kinds}", layers, poolings, str(_reserved(f"{key}-{kinds}", shape, instead)))]
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


def key_of(
    model: Model,
    parameters: Iterable[tuple[str, torch.nn.Parameter]],
    encoded: Dataset,
    bf16: bool,
) -> str:
    """128-bit hash of all that the vectors of a layer and pooling depend on.

    The token ids stand for the texts, the tokenizer and the windows.
    """
    config = {name: value for name, value in model.config.to_dict().items() if name not in _UNREAD}
    facts = [VERSION, config, bf16, torch.__version__, transformers.__version__]
    digest = xxhash.xxh3_128(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update(_weights_hash(model, sorted(parameters)))
    names = [name for name in _TOKENS if name in encoded.column_names]
    for table in encoded.select_columns([*names, "length"]).with_format("arrow").iter(1000):
        digest.update(table["length"].to_numpy().astype(np.int64).tobytes())
        for name in names:
            digest.update(table[name].combine_chunks().flatten().to_numpy().astype(np.int64).tobytes())
    return digest.hexdigest()


def _weights_hash(model: Model, parameters: list[tuple[str, torch.nn.Parameter]]) -> bytes:
    """128-bit hash of named weights, made anew where one stands elsewhere in memory, or torch counts a change of it."""
    state = [(name, parameter.data_ptr(), parameter._version) for name, parameter in parameters]
    if model not in _HASHED or _HASHED[model][0] != state:
        digest = xxhash.xxh3_128()
        for name, parameter in parameters:
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().float().cpu().contiguous().numpy().data)
        _HASHED[model] = state, digest.digest()
    return _HASHED[model][1]


def _reserved(name: str, shape: tuple[int, ...], instead: str) -> Path:
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
            f"{instead}, give fewer rows, or set TL_HUB_CACHE to a folder on another disk"
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


def facts_of(model: Model, encoded: Dataset, layers: Sequence[int], poolings: Sequence[str]) -> dict[str, Any]:
    kinds = {"layers": list(layers), "poolings": list(poolings)}
    return {"model_type": model.config.model_type, "features": len(encoded), **kinds}


def _publish(new: Path, folder: Path, facts: dict[str, Any]) -> None:
    (new / _ENTRY).write_text(json.dumps(facts))
    if folder.is_dir() and not (folder / _VECTORS).is_file():
        shutil.rmtree(folder, ignore_errors=True)  # what a removal that was interrupted has left
    try:
        new.rename(folder)
    except OSError:
        if not (folder / _VECTORS).is_file():  # else another process wrote the same vectors first
            raise
