"""A few inputs with what the trained model gives for them, kept in the run folder to compare with what is loaded."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tl_hub import run_folder

_WRAPPING = re.compile(r"base_model\.model\.|modules_to_save\.|base_layer\.|\bdefault\.|\.default\b")


@dataclass(frozen=True)
class Probe:
    """What a run folder has of it; empty where it was published, as the probe is not.

    Attributes:
        inputs: a batch, by the model's names.
        outputs: by name, in float32.
        digests: of each parameter.
    """

    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    digests: dict[str, str]


def write_probe(folder: Path, model: "torch.nn.Module", inputs: dict[str, Any]) -> None:
    """Keep `inputs` (a batch), the outputs `model` gives for them and its digests in `folder`."""
    tensors = {f"input.{name}": tensor.cpu().contiguous() for name, tensor in inputs.items()}
    outputs = outputs_of(model.eval(), inputs)
    tensors |= {f"output.{name}": tensor.float().cpu().contiguous() for name, tensor in outputs.items()}
    save_file(tensors, folder / run_folder.PROBE, metadata={"digests": json.dumps(digests(model))})


def read_probe(folder: Path) -> Probe:
    if not (folder / run_folder.PROBE).is_file():
        return Probe({}, {}, {})
    with safe_open(folder / run_folder.PROBE, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        known = json.loads(file.metadata()["digests"])
    inputs = {name.removeprefix("input."): t for name, t in tensors.items() if name.startswith("input.")}
    outputs = {name.removeprefix("output."): t for name, t in tensors.items() if name.startswith("output.")}
    return Probe(inputs, outputs, known)


@torch.no_grad()
def outputs_of(model: "torch.nn.Module", inputs: dict[str, Any]) -> dict[str, Any]:
    """The tensors to compare of what a model gives for a batch."""
    if type(model).__name__ == "SentenceTransformer":  # it takes a batch as a dict, and adds to it
        return {"sentence_embedding": model(dict(inputs))["sentence_embedding"]}
    outputs = model(**inputs)
    names = ("logits", "start_logits", "end_logits", "prediction_logits", "last_hidden_state")
    return {name: outputs[name] for name in names if name in outputs}


def digests(model: "torch.nn.Module") -> dict[str, str]:
    """SHA-256 of each parameter in float32, under the name it has without an adapter's wrapping."""
    return {
        _WRAPPING.sub("", name): hashlib.sha256(p.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, p in model.named_parameters()
        if "original_module" not in name
    }
