"""What the files of a run folder are called, in one place that needs nothing but Python."""

import shutil
from pathlib import Path

RECORD = "run.json"
CARD = "README.md"
NOTEBOOK = "notebook.ipynb"
"""The card's code, to be executed."""
LICENSE = "LICENSE"
SIGNATURE = "model.sig"
"""In a repository only: a push makes it of what it sends."""
PAGE = "card.html"
"""The card for a browser. Not published: the Hub shows the card itself."""
LOG = "log.jsonl"
PROBE = "probe.safetensors"
"""A few inputs with what the trained model gave for them. Never published: they are rows of the user's data."""
PREDICTIONS = "predictions.jsonl"
"""What the model made of each row it was measured on. Never published either."""
VALIDATION = "validation_predictions.jsonl"
"""The same of the validation rows, where `--predict_validation` asked for it."""
SETTINGS = "settings.yaml"
"""Every setting of the run, for `--config`. It names files of the user's, and is never published."""

SWEEP = "sweep.json"
"""What was tried before this run, which was the best of a sweep. The card shows it."""
SEEDS = "seeds.json"
"""What the runs of all seeds came to, of which this one is the median. The card shows it."""

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SHARDS = "model-*-of-*.safetensors"
INDEX = "model.safetensors.index.json"
HEAD = "head.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER = "adapter"
"""The folder of an adapter whose merged weights stand in the run folder itself."""
MODULES = "modules.json"
"""Of sentence-transformers, whose layers above the encoder have folders of their own."""
MODEL = (
    CONFIG,
    "generation_config.json",
    WEIGHTS,
    SHARDS,
    INDEX,
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    HEAD,
    MODULES,
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
    "[1-9]_*/config.json",
    "[1-9]_*/model.safetensors",
    f"{ADAPTER}/{ADAPTER_CONFIG}",
    f"{ADAPTER}/{ADAPTER_WEIGHTS}",
)
VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "spiece.model")
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER = (*VOCABULARY, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")

CURVES = "curves.png"
CONFUSION = "confusion.png"
LAYERS = "layers.png"
RISK_COVERAGE = "risk_coverage.png"
PICTURES = (CURVES, CONFUSION, LAYERS, RISK_COVERAGE)

PUBLISHED = (RECORD, *MODEL, *TOKENIZER, *PICTURES, LICENSE, NOTEBOOK)
"""Patterns of what a repository is made of, beside the card and `.eval_results/`, which are written anew."""
WRITTEN = (
    RECORD,
    *MODEL,
    *TOKENIZER,
    *PICTURES,
    CARD,
    NOTEBOOK,
    PAGE,
    LOG,
    PROBE,
    PREDICTIONS,
    VALIDATION,
    SETTINGS,
    SWEEP,
    SEEDS,
)
"""Patterns of all files that a run writes, but for its training state."""

TRACKING = "tracking"
"""The folder of what experiment trackers keep of the run. Never published."""
STATE = "checkpoint"
"""The folder of the training state."""
NEW_STATE = f"{STATE}.new"
"""A state that is being written. Those before the one in its place are `checkpoint.1`, `checkpoint.2` and so on."""
HISTORY = "history.json"
"""In the training state: what happened so far."""
STATE_HASHES = "hashes.json"
"""In the training state: XXH3 (128 bits) of each of its files, written last."""
RESUMED = (*TOKENIZER, LOG, f"{STATE}/*.safetensors", f"{STATE}/{HISTORY}", f"{STATE}/{STATE_HASHES}")
"""Patterns of what another machine needs to go on with a run."""


def holds_nothing_of_use(folder: Path) -> bool:
    """Whether a folder holds only what a run leaves that ended before it kept anything: no state and no result.

    A run begins its log first, which tells it from a folder with somebody's own tokenizer or log.
    """
    if not (folder / LOG).is_file() or (folder / NEW_STATE / STATE_HASHES).exists():
        return False
    with (folder / LOG).open("rb") as log:
        of_a_run = log.read(7) in (b"", b'{"step"', b'{"layer')
    return of_a_run and {path.name for path in folder.iterdir()} <= {LOG, LAYERS, TRACKING, NEW_STATE, *TOKENIZER}


def clear(folder: Path) -> None:
    """Remove what another run left in a folder; the folder itself and files that no run writes stay."""
    for name in WRITTEN:
        for path in folder.glob(name):
            path.unlink()
            if path.parent != folder and not any(path.parent.iterdir()):
                path.parent.rmdir()
    for name in (STATE, NEW_STATE, f"{STATE}.[0-9]*", TRACKING):
        for path in folder.glob(name):
            shutil.rmtree(path)
