"""Frozen vectors: a pretrained model reads each text once, its layers are pooled to a vector each, kept on disk.

The cache stands in `$TL_HUB_CACHE/features`, by default below the folder of the Hub's own cache.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from huggingface_hub.constants import HF_HOME
from tqdm import tqdm

from tl_hub.architectures import ARCHITECTURES
from tl_hub.errors import UserError

POOLINGS = ("mean", "first", "last", "max")
VERSION = 1
"""Of what the vectors are; a change of `pooled` that changes them must raise it, or old entries would be read."""

_VECTORS, _ENTRY = "vectors.npy", "entry.json"
_LARGEST = float(np.finfo(np.float16).max)
_ABANDONED_SECONDS = 24 * 3600.0
_UNREAD = {"architectures", "dtype", "id2label", "label2id", "problem_type", "transformers_version", "_name_or_path"}
"""Entries of a configuration that do not change what the layers compute."""


@dataclass(frozen=True)
class Vectors:
    """Pooled vectors of the features (windows) of a split.

    Attributes:
        values: float16, on disk, shape (layers, poolings, features, hidden).
        layers: 0 is what the embeddings give, k what layer k gives; the last one includes the model's final norm.
        seconds: spent in reading the texts; 0 where the cache had the vectors.
    """

    values: np.ndarray
    layers: tuple[int, ...]
    poolings: tuple[str, ...]
    seconds: float

    def of(self, layers: Sequence[int], pooling: str) -> np.ndarray:
        """The vectors of some layers side by side: (features, len(layers) * hidden), float32."""
        place = self.poolings.index(pooling)
        return np.concatenate(
            [self.values[self.layers.index(layer), place].astype(np.float32) for layer in layers], axis=1
        )


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
    """The part of a model that reads texts: without its head, without BERT's pooler (taken off), T5's encoder alone."""
    base = model.base_model
    if base.config.model_type == "bert":
        base.pooler = None
    return (base.encoder if base.config.model_type == "t5" else base).eval()


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
    found: dict[int, torch.Tensor] = {}

    def keep(layer: int, state: torch.Tensor) -> None:
        state = state.transpose(0, 1) if architecture.time_major else state
        found[layer] = torch.stack([_POOL[pooling](state, mask) for pooling in poolings])

    def hook(layer: int) -> Callable[..., None]:
        return lambda module, args, output: keep(layer, output[0] if isinstance(output, tuple) else output)

    hooks = [blocks[k - 1].register_forward_hook(hook(k)) for k in layers if 0 < k < len(blocks)]
    if 0 in layers:
        hooks.append(blocks[0].register_forward_pre_hook(lambda module, args: keep(0, args[0])))
    try:
        setattr(parent, name, blocks[: max(1, *layers)])
        last = encoder(**inputs).last_hidden_state
    finally:
        setattr(parent, name, blocks)
        for handle in hooks:
            handle.remove()
    if len(blocks) in layers:
        found[len(blocks)] = torch.stack([_POOL[pooling](last, mask) for pooling in poolings])
    return torch.stack([found[layer] for layer in layers]).clamp(-_LARGEST, _LARGEST)


def batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Places of the rows from long to short, in batches of at most `tokens` tokens, padding included.

    The first batch is the one that needs most memory.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, tokens // int(lengths[order[start]]))
        yield order[start : start + size].tolist()
        start += size


def extract(
    encoder: Any,
    features: Dataset,
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    layers: Sequence[int],
    poolings: Sequence[str],
    tokens: int,
    bf16: bool,
) -> Vectors:
    """Read every row of `features` once, or take its vectors from the cache.

    Processes share the work and write into one file. An entry comes into being whole, by a rename, so that a writer
    that dies leaves none and of two writers one wins.

    Args:
        features: encoded rows: `length`, and the columns that `collate` makes a batch of.
        tokens: in a batch, padding included.

    Raises:
        UserError: the disk has no room for the vectors, or the cache cannot be written to.
    """
    state = PartialState()
    encoder = encoder.to(state.device)
    key = _key(encoder, features, layers, poolings, bf16)
    folder = cache_folder() / key
    shape = (len(layers), len(poolings), len(features), encoder.config.hidden_size)
    shared: list[str | None] = [None]
    if state.is_main_process:
        if (folder / _VECTORS).is_file():
            os.utime(folder)
        else:
            shared = [str(_reserved(folder, shape))]
    broadcast_object_list(shared)
    start = time.perf_counter()
    if shared[0] is not None:
        new = Path(shared[0])
        try:
            values = np.load(new / _VECTORS, mmap_mode="r+")
            unread = set(features.column_names) - {"input_ids", "token_type_ids"}
            rows = features.remove_columns(sorted(unread))
            planned = list(batches(features["length"][:], tokens))[state.process_index :: state.num_processes]
            bar = tqdm(planned, desc="reading", unit="batch", leave=False, disable=not state.is_main_process)
            with torch.autocast(state.device.type, torch.bfloat16, enabled=bf16):
                for places in bar:
                    batch = {name: t.to(state.device) for name, t in collate(rows.__getitems__(places)).items()}
                    values[:, :, places] = pooled(encoder, batch, layers, poolings).cpu().numpy()
            values.flush()
            state.wait_for_everyone()
            if state.is_main_process:
                _publish(new, folder, encoder.config.model_type, len(features), layers, poolings)
        finally:
            if state.is_main_process:
                shutil.rmtree(new, ignore_errors=True)
        state.wait_for_everyone()
    seconds = time.perf_counter() - start if shared[0] is not None else 0.0
    return Vectors(np.load(folder / _VECTORS, mmap_mode="r"), tuple(layers), tuple(poolings), seconds)


def cache_folder() -> Path:
    return Path(os.environ.get("TL_HUB_CACHE") or Path(HF_HOME) / "tl_hub") / "features"


def cache_entries() -> list[CacheEntry]:
    """What the cache holds, the entry last used first."""
    found = []
    for path in cache_folder().glob(f"*/{_ENTRY}"):
        if "." not in path.parent.name:  # an entry still being written
            facts = json.loads(path.read_text())
            used = datetime.fromtimestamp(path.parent.stat().st_mtime, UTC)
            size = (path.parent / _VECTORS).stat().st_size
            layers, poolings = tuple(facts.pop("layers")), tuple(facts.pop("poolings"))
            found.append(CacheEntry(path.parent.name, **facts, layers=layers, poolings=poolings, size=size, used=used))
    return sorted(found, key=lambda entry: entry.used, reverse=True)


def prune(days: float = 30.0) -> list[CacheEntry]:
    """Remove the entries not used for `days`, and what writers that died left behind; returns the entries removed."""
    old = [e for e in cache_entries() if (datetime.now(UTC) - e.used).total_seconds() >= 86400 * days]
    for entry in old:
        shutil.rmtree(cache_folder() / entry.key, ignore_errors=True)
    for path in cache_folder().glob("*.*"):
        if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
            shutil.rmtree(path, ignore_errors=True)
    return old


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


_POOL = dict(zip(POOLINGS, (_mean, _first, _last, _max), strict=True))


def _key(encoder: Any, features: Dataset, layers: Sequence[int], poolings: Sequence[str], bf16: bool) -> str:
    """SHA-256 of all that the vectors depend on. The token ids stand for the texts, the tokenizer and the windows."""
    config = {name: value for name, value in encoder.config.to_dict().items() if name not in _UNREAD}
    facts = [VERSION, weights_sha256(encoder), config, list(layers), list(poolings), bf16, torch.__version__]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    names = [name for name in ("input_ids", "token_type_ids") if name in features.column_names]
    for table in features.select_columns([*names, "length"]).with_format("arrow").iter(1000):
        digest.update(table["length"].to_numpy().astype(np.int64).tobytes())
        for name in names:
            digest.update(table[name].combine_chunks().flatten().to_numpy().astype(np.int64).tobytes())
    return digest.hexdigest()


def _reserved(folder: Path, shape: tuple[int, ...]) -> Path:
    """A new folder beside `folder` with a file for the vectors, of full size.

    Raises:
        UserError: no room, or no right to write.
    """
    needed = 2 * int(np.prod(shape))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if free < needed:
            raise UserError(
                f"the vectors need {needed / 2**20:,.0f} MiB, {free / 2**20:,.0f} are free in {folder.parent}; "
                "name one --layer and --pooling, or set TL_HUB_CACHE to a folder on another disk"
            )
        new = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        np.lib.format.open_memmap(new / _VECTORS, mode="w+", dtype=np.float16, shape=shape)
    except PermissionError as error:
        raise UserError(f"{folder.parent} cannot be written to; set TL_HUB_CACHE to another folder") from error
    return new


def _publish(
    new: Path, folder: Path, model_type: str, features: int, layers: Sequence[int], poolings: Sequence[str]
) -> None:
    facts = {"model_type": model_type, "features": features, "layers": list(layers), "poolings": list(poolings)}
    (new / _ENTRY).write_text(json.dumps(facts))
    try:
        new.rename(folder)
    except OSError:
        if not (folder / _VECTORS).is_file():  # else another process wrote the same vectors first
            raise
