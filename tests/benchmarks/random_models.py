"""Models for figures that do not depend on what a model has learned: random weights in the shape of pretrained ones."""

from pathlib import Path

import torch
import transformers

from tl_hub import samples
from tl_hub.architectures import ARCHITECTURES
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.tasks.language_modeling import objective_of
from tl_hub.tokenizer import load_tokenizer


def write(folder: Path, family: str, *, layers: int, hidden_size: int) -> None:
    """A checkpoint with the embedded tokenizer of its family, and dropout of a tenth, as pretrained ones have.

    Heads have 64 dimensions each, or 32 where the width is below 768, and feed-forward layers four times the width.
    """
    place = str(samples.checkpoint(family))
    tokenizer = load_tokenizer(place, None, transformers.AutoConfig.from_pretrained(place))
    heads = hidden_size // (64 if hidden_size >= 768 else 32)
    shape = FromScratch(
        layers=layers, hidden_size=hidden_size, heads=heads, intermediate_size=4 * hidden_size, window=512
    )
    config = ARCHITECTURES[family].new_config(tokenizer, shape)
    for name, value in config.to_dict().items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.1)
    torch.manual_seed(0)
    getattr(transformers, objective_of(family).auto_class).from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
