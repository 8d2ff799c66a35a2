"""Frozen vectors against the stock models text by text; the cache; heads against scikit-learn; what is published."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from safetensors.torch import load_file, save_file
from scipy.special import expit, log_softmax, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import log_loss, r2_score
from sklearn.model_selection import GridSearchCV, PredefinedSplit, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.class_weight import compute_sample_weight

from tl_hub.architectures import ARCHITECTURES
from tl_hub.errors import UserError
from tl_hub.methods.estimator import FeatureClassifier
from tl_hub.tasks.classification import Classification
from tl_hub.vectors import cache as vector_cache
from tl_hub.vectors import extract, heads
from tl_hub.vectors import model as model_module
from tl_hub.vectors.model import FeatureModel

pytestmark = pytest.mark.slow

TEXTS = [
    "The Danube ends in the Black Sea.",
    "Water boils.",
    "A long and slow river flows to the town by the sea. " * 2,
]
TASK = Classification(max_length=64, doc_stride=16)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture(scope="module")
def encoders(checkpoint_folders):
    """Encoder, tokenizer as classification adapts it, and features of the three texts."""
    found = {}

    def load(family):
        if family not in found:
            folder = checkpoint_folders(family)
            model = transformers.AutoModel.from_pretrained(folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            TASK.adapt(tokenizer, model)
            encoded = TASK.encode(Dataset.from_dict({"text": TEXTS}), tokenizer, model)
            found[family] = extract.encoder_of(model), tokenizer, encoded
        return found[family]

    return load


def extracted(encoder, tokenizer, encoded, layers=(0, 1, 2), poolings=extract.POOLINGS, tokens=10_000, **options):
    collate = TASK.collator(tokenizer, training=False)
    options = {"bf16": False, **options}
    return extract.extract(encoder, encoded, collate, layers, poolings, tokens, **options)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_each_layer_and_pooling_is_that_of_the_stock_model_on_the_text_alone(family, encoders, checkpoint_folders):
    """In one padded batch, whose padding must not be seen, also where the model is cut off below its top."""
    encoder, tokenizer, encoded = encoders(family)
    found = extracted(encoder, tokenizer, encoded)
    assert found.values.dtype == np.float16
    batch = TASK.collator(tokenizer, training=False)(
        [{name: encoded[i][name] for name in ("input_ids", "token_type_ids") if name in encoded.column_names}
         for i in range(len(encoded))]
    )  # fmt: skip
    assert (batch["attention_mask"] == 0).any()
    low = extract.pooled(encoder, batch, [1], ["mean"])[0, 0]
    stock = transformers.AutoModel.from_pretrained(checkpoint_folders(family), attn_implementation="eager").eval()
    stock = stock.encoder if family == "t5" else stock
    for i, row in enumerate(encoded):
        names = [name for name in ("input_ids", "token_type_ids") if name in row]
        with torch.no_grad():
            alone = {n: torch.tensor([row[n]]) for n in names}
            outputs = stock(**alone, output_hidden_states=True, output_attentions=True)
        states, weights = outputs.hidden_states, [a[0].mean((0, 1)).numpy() for a in outputs.attentions]
        for layer, state in enumerate(s[0].numpy() for s in states):
            truth = {"mean": state.mean(0), "first": state[0], "last": state[-1], "max": state.max(0)}
            truth["attention"] = weights[max(layer, 1) - 1] @ state
            assert set(truth) == set(extract.POOLINGS)
            for pooling, vector in truth.items():
                got = found.of([layer], pooling)[i]
                np.testing.assert_allclose(got, vector, rtol=1e-3, atol=1e-3, err_msg=f"{layer} {pooling}")
        np.testing.assert_allclose(low[i], states[1][0].mean(0), atol=1e-5)
    both = np.float32(0.25) * found.of([0], "max") + np.float32(0.5) * found.of([2], "max")
    np.testing.assert_allclose(found.of([0, 2], "max", np.array([0.25, 0.5])), both, rtol=1e-5)
    np.testing.assert_array_equal(found.of([2, 0], "max")[:, 32:], found.of([0], "max"))
    assert extract.depth_of(encoder) == 2, "the layers above are back"


def test_nothing_above_the_deepest_wanted_layer_is_computed(encoders):
    encoder, tokenizer, encoded = encoders("bert")
    encoder.encoder.layer[1].register_forward_hook(lambda *_: pytest.fail("layer 2 was computed"))
    try:
        extracted(encoder, tokenizer, encoded, layers=(0, 1))
    finally:
        encoder.encoder.layer[1]._forward_hooks.clear()


@pytest.mark.parametrize("family", ARCHITECTURES)
@pytest.mark.parametrize("first", [("attention",), ("mean",)])
def test_layers_that_were_left_out_at_first_give_their_attention_later(family, first, checkpoint_folders):
    """transformers sets its hooks at the first call; a lower layer alone, read first, was an IndexError afterwards."""
    folder = checkpoint_folders(family)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    inputs = {**tokenizer("Water boils.", return_tensors="pt", return_token_type_ids=False)}
    used, fresh = (extract.encoder_of(transformers.AutoModel.from_pretrained(folder)).eval() for _ in range(2))
    extract.pooled(used, inputs, [1], first)
    torch.testing.assert_close(
        extract.pooled(used, inputs, [1, 2], ["attention"]), extract.pooled(fresh, inputs, [1, 2], ["attention"])
    )


def test_half_precision_is_close_and_kept_apart(encoders):
    encoder, tokenizer, encoded = encoders("bert")
    exact = extracted(encoder, tokenizer, encoded).of([2], "mean")
    half = extracted(encoder, tokenizer, encoded, bf16=True).of([2], "mean")
    cosine = (exact * half).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.9995 and not np.array_equal(exact, half)
    assert len(vector_cache.cache_entries()) == 2


def test_batches_keep_to_the_budget_and_miss_nothing():
    lengths = np.random.default_rng(0).integers(1, 90, 200)
    found = list(extract.batches(lengths, 300))
    assert sorted(place for batch in found for place in batch) == list(range(200))
    padded = [len(batch) * 16 * np.ceil(lengths[batch].max() / 16) for batch in found]
    assert max(padded) <= 300 and np.mean(padded[:-1]) > 200, "padding counts, and batches are as large as they can be"
    assert [lengths[batch].max() for batch in found] == sorted((lengths[batch].max() for batch in found), reverse=True)
    assert list(extract.batches([7, 900], 300)) == [[1], [0]], "a row longer than the budget is read by itself"


def test_a_second_run_reads_the_disk_and_any_change_reads_the_texts(encoders, monkeypatch):
    encoder, tokenizer, encoded = encoders("bert")
    first = extracted(encoder, tokenizer, encoded)
    calls = []
    hook = encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        again = extracted(encoder, tokenizer, encoded, tokens=40)
        np.testing.assert_array_equal(again.values, first.values)
        assert calls == [] and again.seconds == 0 < first.seconds
        reads = [
            lambda: extracted(encoder, tokenizer, encoded.select([1, 0, 2])),
            lambda: extracted(encoder, tokenizer, encoded.select([0, 1])),
        ]
        for read in reads:
            calls.clear()
            read()
            assert calls
        calls.clear()
        with torch.no_grad():
            encoder.embeddings.LayerNorm.bias += 1
        try:
            assert not np.array_equal(extracted(encoder, tokenizer, encoded).values, first.values)
        finally:
            with torch.no_grad():
                encoder.embeddings.LayerNorm.bias -= 1
        libraries = (vector_cache.torch, "__version__"), (vector_cache.transformers, "__version__")
        for place, name in ((vector_cache, "VERSION"), *libraries):
            monkeypatch.setattr(place, name, "another")
            calls.clear()
            extracted(encoder, tokenizer, encoded)
            assert calls, f"{place.__name__} {name}"
    finally:
        hook.remove()


def test_what_an_entry_has_among_others_is_not_read_again(encoders, cache):
    encoder, tokenizer, encoded = encoders("bert")
    alone = extracted(encoder, tokenizer, encoded, layers=(1,), poolings=("max",)).of([1], "max")
    shutil.rmtree(cache)
    extracted(encoder, tokenizer, encoded, layers=(0, 1), poolings=("mean", "max"))
    reads = []
    with encoder.register_forward_hook(lambda *_: reads.append(1)):
        found = extracted(encoder, tokenizer, encoded, layers=(1,), poolings=("max",))
        np.testing.assert_allclose(found.of([1], "max"), alone, atol=1e-3)
        assert reads == [] and found.seconds == 0
        extracted(encoder, tokenizer, encoded, layers=(1, 2), poolings=("max",))
        extracted(encoder, tokenizer, encoded, layers=(1,), poolings=("max", "last"))
    assert len(reads) == 2 and len(vector_cache.cache_entries()) == 3


def test_a_stream_has_the_vectors_of_its_rows_and_leaves_no_other_file(encoders, cache):
    encoder, tokenizer, encoded = encoders("bert")
    truth = extracted(encoder, tokenizer, encoded).values
    shutil.rmtree(cache)
    for stream in (encoded.to_iterable_dataset(), iter(encoded.to_list())):
        np.testing.assert_array_equal(extracted(encoder, tokenizer, stream).values, truth)
    assert len(vector_cache.cache_entries()) == len(list(cache.iterdir())) == 1
    with pytest.raises(UserError, match="there are no rows to read"):
        extracted(encoder, tokenizer, iter([]))


def test_two_token_ids_in_one_row_are_not_one_in_each_of_two(encoders):
    encoder = encoders("gpt2")[0]
    rows = [{"input_ids": [[5, 6], [7]], "length": [2, 1]}, {"input_ids": [[5], [6, 7]], "length": [1, 2]}]
    keys = {vector_cache.key_of(encoder, encoder.named_parameters(), Dataset.from_dict(row), False) for row in rows}
    assert len(keys) == 2


@pytest.mark.parametrize("setting", [{"hidden_act": "relu"}, {"num_attention_heads": 4}, {"layer_norm_eps": 1e-2}])
def test_encoders_of_the_same_weights_that_compute_otherwise_share_no_entry(setting, encoders, checkpoint_folders):
    encoder, tokenizer, encoded = encoders("bert")
    other = extract.encoder_of(transformers.AutoModel.from_pretrained(checkpoint_folders("bert"), **setting))
    assert extract.weights_sha256(other) == extract.weights_sha256(encoder)
    first, second = (extracted(each, tokenizer, encoded, layers=(2,)) for each in (encoder, other))
    assert not np.array_equal(first.values, second.values) and len(vector_cache.cache_entries()) == 2


def test_a_writer_that_dies_leaves_no_entry_and_of_two_one_wins(encoders, cache):
    encoder, tokenizer, encoded = encoders("bert")
    collate = TASK.collator(tokenizer, training=False)

    def dying(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract.extract(encoder, encoded, dying, (2,), ("mean",), 100, False)
    assert list(cache.iterdir()) == []

    def overtaken(rows):
        """Another writer of the same vectors begins after this one and ends before it."""
        if not vector_cache.cache_entries():
            extract.extract(encoder, encoded, collate, (2,), ("mean",), 10_000, False)
        return collate(rows)

    found = extract.extract(encoder, encoded, overtaken, (2,), ("mean",), 10_000, False)
    assert len(vector_cache.cache_entries()) == 1 and len(list(cache.iterdir())) == 1
    truth = extract.pooled(
        encoder, collate(encoded.select_columns(["input_ids", "token_type_ids"]).to_list()), [2], ["mean"]
    )
    np.testing.assert_allclose(found.of([2], "mean"), truth[0, 0], rtol=1e-3, atol=1e-3)


def test_half_an_entry_is_not_one_and_is_read_anew(encoders, cache):
    """What a removal that was interrupted leaves."""
    encoder, tokenizer, encoded = (encoders("bert"))[:3]
    whole = extracted(encoder, tokenizer, encoded)
    (folder,) = (path.parent for path in cache.glob("*/vectors.npy"))
    (folder / "vectors.npy").unlink()
    assert vector_cache.cache_entries() == [] and vector_cache.prune(0) == []
    again = extracted(encoder, tokenizer, encoded)
    assert np.array_equal(again.values, whole.values) and len(vector_cache.cache_entries()) == 1


def test_entries_are_listed_and_the_old_ones_pruned(encoders, cache):
    encoder, tokenizer, encoded = encoders("bert")
    extracted(encoder, tokenizer, encoded, layers=(0,))
    extracted(encoder, tokenizer, encoded, layers=(1, 2), poolings=("max", "mean"))
    new, old = vector_cache.cache_entries()
    assert (new.layers, new.poolings, new.features, new.model_type) == ((1, 2), ("max", "mean"), 3, "bert")
    assert new.size == (cache / new.key / "vectors.npy").stat().st_size > 2 * 2 * 2 * 3 * 32
    for path, days in ((cache / old.key, 40), (cache / f"{new.key}.abandoned", 2), (cache / f"{new.key}.now", 0)):
        path.mkdir(exist_ok=True)
        os.utime(path, (time.time() - 86400 * days,) * 2)
    os.utime(cache / new.key, (time.time() - 86400 * 29,) * 2)
    assert [entry.key for entry in vector_cache.prune(days=30)] == [old.key]
    assert {path.name for path in cache.iterdir()} == {new.key, f"{new.key}.now"}
    extracted(encoder, tokenizer, encoded, layers=(0,))
    os.utime(cache / old.key, (time.time() - 86400 * 40,) * 2)
    extracted(encoder, tokenizer, encoded, layers=(0,))  # a use keeps it
    assert vector_cache.prune(days=30) == []


def test_removals_that_were_interrupted_or_come_twice_stop_none(encoders, cache, monkeypatch):
    encoder, tokenizer, encoded = encoders("bert")
    extracted(encoder, tokenizer, encoded, layers=(0,))
    (entry,) = vector_cache.cache_entries()
    (cache / f"{entry.key}.removed").mkdir()
    (cache / f"{entry.key}.removed" / "vectors.npy").touch()
    assert vector_cache.prune(days=0) == [entry] and vector_cache.cache_entries() == []
    extracted(encoder, tokenizer, encoded, layers=(0,))
    listed = vector_cache.cache_entries

    def overtaken():
        """Another process prunes as soon as this one has listed the entries."""
        found = listed()
        for each in found:
            shutil.rmtree(cache / each.key)
        return found

    monkeypatch.setattr(vector_cache, "cache_entries", overtaken)
    assert vector_cache.prune(days=0) == []
    found = extracted(encoder, tokenizer, encoded, layers=(0,))
    again = extracted(encoder, tokenizer, encoded, layers=(0,))
    assert found.seconds > 0 and again.seconds > 0, "what was removed meanwhile is read anew"
    np.testing.assert_array_equal(again.values, found.values)


@pytest.mark.parametrize("stream", [False, True])
def test_a_reading_that_takes_days_is_not_pruned(stream, encoders, cache):
    encoder, tokenizer, encoded = encoders("bert")
    collate, seen = TASK.collator(tokenizer, training=False), []

    def slow(rows):
        """A day passes before each batch."""
        assert vector_cache.prune() == []
        seen.append({path.name.split(".")[0] for path in cache.iterdir()})
        for path in cache.rglob("*"):
            os.utime(path, (time.time() - 86400 * 1.1,) * 2)
        return collate(rows)

    rows = iter(encoded.to_list()) if stream else encoded
    extract.extract(encoder, rows, slow, (2,), ("mean",), 16, False)
    assert len(seen) == 3 and all(len(names) == 1 + stream for names in seen)
    assert len(vector_cache.cache_entries()) == len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none"])
def test_a_cache_that_cannot_be_made_is_told_in_a_line(place, encoders, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / place))
    with pytest.raises(UserError, match="cannot be made or written to .*; set TL_HUB_CACHE"):
        extracted(*encoders("bert"))
    assert vector_cache.cache_entries() == vector_cache.prune() == []


def test_weights_are_hashed_once_and_again_when_they_change(encoders, monkeypatch):
    encoder, tokenizer, encoded = encoders("bert")
    hashed = []
    numpy = torch.Tensor.numpy
    monkeypatch.setattr(torch.Tensor, "numpy", lambda self: hashed.append(self.data_ptr()) or numpy(self))
    own = {parameter.data_ptr() for parameter in encoder.parameters()}
    keys = [vector_cache.key_of(encoder, encoder.named_parameters(), encoded, False) for _ in range(2)]
    assert keys[0] == keys[1] and len(own & set(hashed)) in (0, len(own)) and len(hashed) <= len(own)
    bias = encoder.embeddings.LayerNorm.bias
    for change in (lambda: bias.add_(1), lambda: setattr(bias, "data", bias.data - 1)):
        hashed.clear()
        with torch.no_grad():
            change()
        keys.append(vector_cache.key_of(encoder, encoder.named_parameters(), encoded, False))
        assert set(hashed) == {parameter.data_ptr() for parameter in encoder.parameters()}
    assert keys[2] != keys[0] == keys[3]


def test_a_disk_without_room_is_told_before_the_work(encoders, monkeypatch):
    encoder, tokenizer, encoded = encoders("bert")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(UserError, match="TL_HUB_CACHE"):
        extracted(encoder, tokenizer, encoded)


def test_two_processes_share_the_work(encoders, checkpoint_folders, forks, cache, tmp_path):
    encoder, tokenizer, encoded = encoders("bert")
    alone = extracted(encoder, tokenizer, encoded, layers=(2,), tokens=16).values
    shutil.rmtree(cache)
    program = tmp_path / "program.py"
    program.write_text(f"""
import transformers
from pathlib import Path
from accelerate import PartialState
from datasets import Dataset
from tl_hub.vectors import extract
from tl_hub.tasks.classification import Classification
state = PartialState(cpu=True)
folder, task = {str(checkpoint_folders("bert"))!r}, Classification(max_length=64, doc_stride=16)
model, tokenizer = transformers.AutoModel.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
encoded = task.encode(Dataset.from_dict({{"text": {TEXTS!r}}}), tokenizer, model)
encoder, seen = extract.encoder_of(model), []
encoder.register_forward_hook(lambda module, args, output: seen.append(len(output[0])))
extract.extract(encoder, encoded, task.collator(tokenizer, False), (2,), extract.POOLINGS, 16, False)
Path(__file__).with_name("read_" + str(state.process_index)).write_text(str(sum(seen)))
""")
    done = forks(program, processes=2, TL_HUB_CACHE=str(cache.parent))
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"read_{rank}").read_text() for rank in (0, 1)] == ["2", "1"]
    (entry,) = vector_cache.cache_entries()
    np.testing.assert_allclose(np.load(cache / entry.key / "vectors.npy"), alone, atol=1e-3)


def test_processes_that_write_one_entry_at_once_and_one_that_is_killed(
    encoders, checkpoint_folders, forks, cache, tmp_path
):
    """Both read all before either publishes. What the killed one had written is no entry, and is pruned in time."""
    encoder, tokenizer, encoded = encoders("bert")
    alone = extracted(encoder, tokenizer, encoded, layers=(2,)).values
    shutil.rmtree(cache)
    program = tmp_path / "program.py"
    program.write_text(f"""
import sys, time, transformers
from pathlib import Path
from datasets import Dataset
from tl_hub.vectors import extract
from tl_hub.tasks.classification import Classification
own, others = sys.argv[1], sys.argv[2:]
folder, task = {str(checkpoint_folders("bert"))!r}, Classification(max_length=64, doc_stride=16)
model, tokenizer = transformers.AutoModel.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
encoded = task.encode(Dataset.from_dict({{"text": {TEXTS!r}}}), tokenizer, model)
collate = task.collator(tokenizer, False)
reads = []
def waits(rows):
    reads.append(rows)
    if len(reads) == 2:  # the first batch is written
        Path(__file__).with_name(own).touch()
        while not all(Path(__file__).with_name(other).exists() for other in others):
            time.sleep(0.02)
    return collate(rows)
found = extract.extract(extract.encoder_of(model), encoded, waits, (2,), extract.POOLINGS, 16, False)
Path(__file__).with_name(own + ".done").write_text(str(len(reads)))
""")

    # One that came when the others had published would find their entry, and write nothing.
    words = [("killed", "never"), ("one", "other", "killed"), ("other", "one", "killed")]
    killed, *both = (forks.start(program, *each, TL_HUB_CACHE=str(cache.parent)) for each in words)
    try:
        for fork in both:
            done = fork.end()
            assert done.returncode == 0, done.stderr
    finally:
        os.kill(killed.pid, signal.SIGKILL)
    assert killed.end().returncode == -signal.SIGKILL
    assert {(tmp_path / f"{name}.done").read_text() for name in ("one", "other")} == {"3"}, "each read all three"
    (entry,) = vector_cache.cache_entries()
    np.testing.assert_allclose(np.load(cache / entry.key / "vectors.npy"), alone, atol=1e-3)
    (left,) = (path for path in cache.iterdir() if path.name != entry.key)
    assert (left / "vectors.npy").exists() and vector_cache.prune() == [] and left.exists()
    for path in (left, left / "vectors.npy"):
        os.utime(path, (time.time() - 2 * 86400,) * 2)
    assert vector_cache.prune() == [] and [path.name for path in cache.iterdir()] == [entry.key]


@pytest.mark.parametrize("stream", [False, True])
def test_memory_does_not_grow_with_the_rows(stream, tmp_path):
    """In a process of its own: what it holds after many more rows, files that are mapped left out.

    The length of each row is known, 8 bytes, and ordered; its ids and vectors would be 128 and 64 bytes in arrays.
    """
    last = 1_000_000 if os.environ.get("TL_HUB_BENCHMARKS") else 64_000
    program = tmp_path / "program.py"
    program.write_text(f"""
import re, sys, torch, transformers
from pathlib import Path
from datasets import Dataset
from tl_hub.vectors import extract
torch.manual_seed(0)
shape = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=50)
encoder = extract.encoder_of(transformers.BertModel(transformers.BertConfig(**shape)))
def rows(count):
    for i in range(count):
        yield {{"input_ids": [1 + (i + k) % 40 for k in range(12)], "length": 12}}
def collate(batch):
    ids = torch.tensor([row["input_ids"] for row in batch])
    return {{"input_ids": ids, "attention_mask": torch.ones_like(ids)}}
for count in (1_000, 4_000, {last}):
    data = rows(count) if {stream} else Dataset.from_generator(
        rows, gen_kwargs={{"count": count}}, cache_dir={str(tmp_path)!r})
    found = extract.extract(encoder, data, collate, (0, 1), ("mean", "max"), 24_000, False)
    assert found.values.shape == (2, 2, count, 8)
    print(count, re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
""")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    process = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment, timeout=1800)
    assert process.returncode == 0, process.stderr
    print(process.stdout)
    held = {int(rows): int(kib) / 1024 for rows, kib in (line.split() for line in process.stdout.splitlines())}
    assert held[last] - held[4_000] < 10 + 50 * last / 2**20, f"{held} MiB"


def classes(examples=120, dimensions=12, count=3):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(examples, dimensions)) * random.uniform(0.1, 5, dimensions) + 3
    logits = (vectors - 3) @ random.normal(size=(dimensions, count)) + 3 * random.normal(size=(examples, count))
    return vectors, logits.argmax(1), np.eye(count, dtype=bool)[logits.argmax(1)]


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("balanced", [False, True])
def test_logistic_regression_is_that_of_a_standardising_pipeline(count, balanced):
    vectors, labels, targets = classes(count=count)
    head, strength = heads.fit("logistic", vectors, targets, heads.folds_of(targets, 5, 0), balanced=balanced)
    assert strength in heads.STRENGTHS
    solver = LogisticRegression(
        C=1 / (strength * len(vectors)), max_iter=300, class_weight="balanced" if balanced else None
    )
    stock = make_pipeline(StandardScaler(), solver).fit(vectors, labels)
    np.testing.assert_allclose(softmax(head(vectors), axis=1), stock.predict_proba(vectors), atol=1e-8)


@pytest.mark.parametrize("shape", [(120, 12), (20, 40)], ids=["more examples", "more dimensions"])
def test_ridge_regression_is_that_of_sklearn(shape):
    vectors, labels, targets = classes(*shape)
    (head,) = heads._fit("ridge", vectors, targets, [0.1], False, False)
    stock = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * len(vectors))).fit(vectors, 2.0 * targets - 1)
    np.testing.assert_allclose(head(vectors), stock.predict(vectors), atol=1e-10)
    weights = 1 / np.bincount(labels)[labels]
    (balanced,) = heads._fit("ridge", vectors, targets, [0.1], False, True)
    x = StandardScaler().fit_transform(vectors)
    stock = Ridge(alpha=0.1 * len(vectors)).fit(x, 2.0 * targets - 1, weights * len(vectors) / 3)
    np.testing.assert_allclose(balanced(vectors), stock.predict(x), atol=1e-10)


@pytest.mark.parametrize("shape", [(90, 12), (30, 40)], ids=["more examples", "more dimensions"])
def test_the_head_of_regression_is_the_ridge_that_explains_most_in_cross_validation(shape):
    random = np.random.default_rng(5)
    vectors = random.normal(size=shape) * 3 + 1
    numbers = 100 + vectors @ random.normal(size=shape[1]) + 10 * random.normal(size=len(vectors))
    folds = heads.folds_of(numbers[:, None], 3, 0)
    assert sorted(np.bincount(folds)) == [len(vectors) // 3] * 3

    def stock(strength, kept):
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=strength * kept.sum()))
        return ridge.fit(vectors[kept], numbers[kept])

    guesses = np.empty((len(heads.STRENGTHS), len(vectors)))
    for guess, strength in zip(guesses, heads.STRENGTHS, strict=True):
        for fold in range(3):
            guess[folds == fold] = stock(strength, folds != fold).predict(vectors[folds == fold])
    explained = [r2_score(numbers, guess) for guess in guesses]
    found = heads.cross_validate("ridge", vectors, numbers[:, None], folds)
    np.testing.assert_allclose(found.quality, 100 * np.array(explained))
    head, strength = heads.fit("ridge", vectors, numbers[:, None], folds)
    assert strength == heads.STRENGTHS[int(np.argmax(explained))]
    expected = stock(strength, np.ones(len(vectors), dtype=bool)).predict(vectors)
    np.testing.assert_allclose(head(vectors)[:, 0], expected, atol=1e-8)


def test_prototypes_are_the_nearest_centroids_and_scaled_to_the_lowest_loss():
    vectors, labels, targets = classes()
    folds = heads.folds_of(targets, 4, 0)
    head, _ = heads.fit("prototypes", vectors, targets, folds)
    stock = make_pipeline(StandardScaler(), NearestCentroid()).fit(vectors, labels)
    assert (head(vectors).argmax(1) == stock.predict(vectors)).all()
    logits = heads.cross_validate("prototypes", vectors, targets, folds, (1.0,)).logits[0]
    (plain,) = heads._fit("prototypes", vectors, targets, (1.0,), False, False)
    scale = (head.weight / plain.weight).mean()
    losses = {s: -log_softmax(s * logits, axis=1)[targets].mean() for s in (0.9 * scale, scale, 1.1 * scale)}
    assert min(losses, key=losses.get) == scale


@pytest.mark.parametrize("balanced", [False, True])
def test_heads_for_several_labels_are_those_of_sklearn_label_by_label(balanced):
    vectors, _, targets = classes()
    targets[:, 1] |= targets[:, 0]
    targets[20:, 2] = False  # a rare label
    folds = heads.folds_of(targets, 4, 0)
    head, strength = heads.fit("logistic", vectors, targets, folds, multi_label=True, balanced=balanced)
    for label, target in enumerate(targets.T):
        solver = LogisticRegression(
            C=1 / (strength * len(vectors)), max_iter=300, class_weight="balanced" if balanced else None
        )
        stock = make_pipeline(StandardScaler(), solver).fit(vectors, target)
        np.testing.assert_allclose(head(vectors)[:, label], stock.decision_function(vectors), atol=1e-6)
    if not balanced:
        head, strength = heads.fit("ridge", vectors, targets, folds, multi_label=True)
        stock = make_pipeline(StandardScaler(), Ridge(alpha=strength * len(vectors))).fit(vectors, 2.0 * targets - 1)
        scaled = head(vectors) / stock.predict(vectors)
        assert scaled.min() > 0
        np.testing.assert_allclose(scaled, scaled[0, 0], rtol=1e-6)


@pytest.mark.parametrize("case", ["two", "three", "balanced", "windows", "several", "one"])
def test_a_multi_layer_perceptron_is_that_of_sklearn_at_the_epoch_that_tells_fold_0_best(case):
    vectors, labels, targets = classes(count=2 if case == "two" else 3)
    multi_label = case in ("several", "one")
    if multi_label:
        targets = targets[:, :1] if case == "one" else targets | np.roll(targets, 1, axis=1)
    options = {"multi_label": multi_label, "balanced": case == "balanced"}
    row = np.sort(np.random.default_rng(1).integers(40, size=120)) if case == "windows" else np.arange(120)
    if case == "windows":
        row = np.unique(row, return_inverse=True)[1]
        labels = labels[row]
        targets = np.eye(3, dtype=bool)[labels]
    folds, counts = heads.folds_of(targets[np.unique(row, return_index=True)[1]], 3, 0)[row], np.bincount(row)[row]
    head, strength = heads.fit("mlp", vectors, targets, folds, **options, weights=1 / counts)
    y = {"several": targets.astype(int), "one": targets[:, 0]}.get(case, labels)
    weights = (compute_sample_weight("balanced", labels) if case == "balanced" else 1) / counts
    weights = weights / weights.mean()
    x, out = StandardScaler().fit_transform(vectors), folds == 0
    options = {"alpha": strength * (~out).sum(), "tol": 0, "n_iter_no_change": 200, "random_state": 0}
    qualities, stocks = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        while len(qualities) - int(np.argmax(qualities or [0])) <= 10:
            stock = MLPClassifier((128,), max_iter=len(qualities) + 1, **options)
            stocks.append(stock.fit(x[~out], y[~out], sample_weight=weights[~out]))
            qualities.append(stock.score(x[out], y[out], sample_weight=weights[out]))
    stock = stocks[int(np.argmax(qualities))].predict_proba(x)
    found = expit(head(vectors)) if multi_label else softmax(head(vectors), axis=1)
    np.testing.assert_allclose(found, stock[:, 1:] if case == "one" else stock, atol=1e-8)


def test_a_multi_layer_perceptron_wants_rows_to_stop_on():
    _, _, targets = classes(30)
    few = np.concatenate([targets[targets[:, 2]][:1], targets[~targets[:, 2]]])
    for wrong in (targets[:12], few):
        with pytest.raises(UserError, match="--head mlp holds some"):
            heads.fit("mlp", np.ones((len(wrong), 4)), wrong, np.zeros(len(wrong)))


def test_a_scalar_mix_has_the_lowest_loss_that_weights_of_the_layers_can_reach():
    """Against scikit-learn's logistic regression on the sum of the layers, with these weights and with others."""
    random = np.random.default_rng(0)
    _, labels, targets = classes(200)
    clean, noise = np.eye(3)[labels], random.normal(size=(4, 200, 3))
    layers = np.stack([noise[0], 5 * (clean + 0.7 * noise[1]), 0.1 * (clean + 0.7 * noise[2]), noise[3]])
    mix = heads.scalar_mix(layers, targets)
    shares = mix * np.array([(x - x.mean(0)).std() for x in layers])
    np.testing.assert_allclose(shares.sum(), 1, rtol=1e-5)
    assert min(shares[1:3]) > 5 * max(shares[0], shares[3])

    def loss(shares):
        x = sum(s * (x - x.mean(0)) / (x - x.mean(0)).std() for s, x in zip(shares, layers, strict=True))
        stock = LogisticRegression(C=1 / (1e-2 * len(x)), tol=1e-8, max_iter=1000).fit(x, labels)
        return log_loss(labels, stock.predict_proba(x)) + 1e-2 / 2 * (stock.coef_**2).sum()

    others = [np.full(4, 0.25), np.array([0, 1, 0, 0]), np.array([0, 0, 1, 0])]
    others += [shares * scale / (shares * scale).sum() for scale in random.uniform(0.7, 1.3, (8, 4))]
    assert loss(shares) < min(map(loss, others)) + 1e-4


def test_cross_validation_never_fits_on_what_it_looks_at():
    """Random classes: a head that had seen the held-out rows would be above chance, with more dimensions than rows."""
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(200, 300)), random.integers(2, size=200)
    targets = np.eye(2, dtype=bool)[labels]
    found = heads.cross_validate("ridge", vectors, targets, heads.folds_of(targets, 5, 0))
    assert found.quality.max() < 62
    by_hand = 0.0
    folds = heads.folds_of(targets, 5, 0)
    for fold in range(5):
        out = folds == fold
        stock = make_pipeline(StandardScaler(), Ridge(alpha=0.1 * (~out).sum())).fit(vectors[~out], 2.0 * targets[~out])
        by_hand += (stock.predict(vectors[out]).argmax(1) == labels[out]).sum()
    assert found.quality[heads.STRENGTHS.index(0.1)] == pytest.approx(100 * by_hand / 200)


@pytest.mark.parametrize("kind", ["logistic", "ridge", "several"])
def test_the_strength_is_the_one_that_a_stock_search_finds_best(kind):
    """With the same folds: the lowest log loss of logistic regression, the highest accuracy of ridge regression."""
    found = []
    for examples, dimensions in ((60, 12), (90, 40)):
        vectors, labels, targets = classes(examples, dimensions)
        folds = heads.folds_of(targets, 5, 0)
        fitted = examples * 4 // 5
        split = PredefinedSplit(folds)
        if kind == "ridge":
            stock = make_pipeline(StandardScaler(), RidgeClassifier())
            grid = {"ridgeclassifier__alpha": [strength * fitted for strength in heads.STRENGTHS]}
            search = GridSearchCV(stock, grid, scoring="accuracy", cv=split).fit(vectors, labels)
            best = int(np.argmax(search.cv_results_["mean_test_score"].round(9)))  # of equal ones the first
        else:
            y = targets if kind == "several" else labels
            losses = []
            for strength in heads.STRENGTHS:
                solver = LogisticRegression(C=1 / (strength * fitted), max_iter=300)
                stock = make_pipeline(StandardScaler(), OneVsRestClassifier(solver) if kind == "several" else solver)
                shares = cross_val_predict(stock, vectors, y, cv=split, method="predict_proba")
                losses.append(log_loss(targets.ravel(), shares.ravel()) if kind == "several" else log_loss(y, shares))
            best = int(np.argmin(losses))
        name = "ridge" if kind == "ridge" else "logistic"
        _, strength = heads.fit(name, vectors, targets, folds, multi_label=kind == "several")
        assert strength == heads.STRENGTHS[best], (examples, dimensions)
        found.append(best)
    assert len(set(found)) > 1, "not always the same one"


@pytest.mark.parametrize("kind", ["logistic", "ridge", "prototypes"])
def test_a_class_that_no_example_has_is_never_given(kind):
    """Nor does it change what is said of the others: all is as if it were not there."""
    vectors, _, targets = classes(count=2)
    lacking = np.c_[targets, np.zeros(len(targets), dtype=bool)]
    (head,), (without,) = (heads._fit(kind, vectors, each, [0.1], False, False) for each in (lacking, targets))
    shares = softmax(head(vectors), axis=1)
    assert shares[:, 2].max() < 1e-6
    np.testing.assert_allclose(shares[:, :2], softmax(without(vectors), axis=1), atol=1e-6)


def test_several_labels_and_classes_that_a_fold_lacks():
    vectors, _, targets = classes()
    several = np.c_[targets[:, 0], targets[:, 1] | targets[:, 0], np.ones(len(targets), bool)]
    head, strength = heads.fit("logistic", vectors, several, heads.folds_of(several, 5, 0), multi_label=True)
    for label in (0, 1):
        solver = LogisticRegression(C=1 / (strength * len(vectors)), max_iter=300)
        stock = make_pipeline(StandardScaler(), solver).fit(vectors, several[:, label])
        np.testing.assert_allclose(head(vectors)[:, label], stock.decision_function(vectors), atol=1e-6)
    assert (head(vectors)[:, 2] > 3).all(), "a label that every row has"
    rare = np.zeros((len(targets), 3), bool)
    rare[:, 0], rare[60:, 0], rare[60:, 1] = True, False, True
    rare[0] = [False, False, True]
    for kind in ("logistic", "ridge", "prototypes"):
        head, _ = heads.fit(kind, vectors, rare, heads.folds_of(rare, 5, 0))
        assert np.isfinite(head(vectors)).all() and (head(vectors)[1:60].argmax(1) != 1).any()


def test_folds_are_balanced_and_keep_groups_whole():
    _, labels, targets = classes(100)
    folds = heads.folds_of(targets, 5, seed=1)
    counts = np.array([np.bincount(labels[folds == fold], minlength=3) for fold in range(5)])
    assert (np.ptp(counts, axis=0) <= 1).all() and set(np.bincount(folds)) == {20}
    groups = np.repeat(np.arange(13), 3)
    folds = heads.folds_of(np.ones((39, 1), bool), 5, 1, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in groups) and len(set(folds)) == 5


@pytest.fixture(scope="module")
def rows():
    """Texts of three classes, one of them a tuple of windows long."""
    texts = [f"{a} {b}." for a in ("The Danube", "The Nile", "A town") for b in ("flows", "ends", "boils", "is", "was")]
    return [*texts[:-1], texts[-1] * 12], [text.split()[1] for text in texts]


@pytest.fixture(scope="module")
def fitted(rows, checkpoint_folders, tmp_path_factory):
    """A classifier of each family, fitted once, its cache apart from the tests'."""
    found = {}

    def fit(family, **settings):
        key = family, *settings.items()
        times = settings.pop("texts", 1)
        if key not in found:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("TL_HUB_CACHE", str(tmp_path_factory.mktemp("cache")))
                settings = {"max_length": 48, "doc_stride": 8, "bf16": False, "cv": 3, **settings}
                found[key] = FeatureClassifier(str(checkpoint_folders(family)), **settings).fit(
                    *(times * part for part in rows)
                )
        return found[key]

    return fit


@pytest.mark.parametrize("layer", ["auto", "sweep"])
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_model_loads_as_it_was_saved_and_embeds_as_it_reads(
    family, layer, fitted, rows, tmp_path, checkpoint_folders
):
    model = fitted(family, layer=layer).model_
    assert len(model.settings["layers"]) == (3 if layer == "auto" else 1)
    model.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".safetensors"}
    assert (tmp_path / "head.safetensors").stat().st_size < 4000, "the base is not in it"
    loaded = FeatureModel.from_pretrained(tmp_path)
    texts = rows[0]
    np.testing.assert_allclose(loaded.predict_proba(texts), model.predict_proba(texts), atol=1e-6)
    one_by_one = np.concatenate([loaded.embed([text]) for text in texts])
    np.testing.assert_allclose(one_by_one, model.embed(texts, batch_size=4), atol=1e-5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_module, "_CHUNK", 4)
        np.testing.assert_allclose(one_by_one, model.embed(texts), atol=1e-5)
        counts = [len(model._windows([text], None, 32)[1]) for text in texts]
        assert model._windows(texts, None, 32)[1].tolist() == np.repeat(np.arange(len(texts)), counts).tolist()
    stock = transformers.AutoModel.from_pretrained(checkpoint_folders(family)).eval()
    inputs = loaded.tokenizer(texts[0], return_tensors="pt", return_token_type_ids=family in ("bert", "xlnet"))
    with torch.no_grad():
        states = (stock.encoder if family == "t5" else stock)(**inputs, output_hidden_states=True).hidden_states
    expected = []
    for state in (states[k][0].numpy() for k in model.settings["layers"]):
        pool = {"mean": state.mean(0), "first": state[0], "last": state[-1], "max": state.max(0)}
        expected.append(pool[model.settings["pooling"]])
    np.testing.assert_allclose(one_by_one[0], np.concatenate(expected), atol=1e-5)
    assert loaded.predict([]) == [] and set(loaded.predict(texts)) <= set(rows[1])


def test_a_mix_of_layers_under_a_hidden_layer_loads_as_it_was_saved(fitted, rows, tmp_path, checkpoint_folders):
    """What is stored is what a reader of the file would compute from it with the stock model."""
    model = fitted("bert", layer="mix", pooling="attention", head="mlp", texts=3).model_
    model.save_pretrained(tmp_path)
    loaded, own = FeatureModel.from_pretrained(tmp_path), load_file(tmp_path / "head.safetensors")
    assert {name: value.shape for name, value in own.items()} == {
        "weight": (3, 128), "bias": (3,), "hidden.weight": (128, 32), "hidden.bias": (128,), "mix": (3,)
    }  # fmt: skip
    text = rows[0][0]
    stock = transformers.AutoModel.from_pretrained(checkpoint_folders("bert"), attn_implementation="eager").eval()
    with torch.no_grad():
        outputs = stock(
            **loaded.tokenizer(text, return_tensors="pt"), output_hidden_states=True, output_attentions=True
        )
    weights = [outputs.attentions[max(layer, 1) - 1][0].mean((0, 1)) for layer in range(3)]
    vector = sum(own["mix"][i] * (weights[i] @ outputs.hidden_states[i][0]) for i in range(3))
    np.testing.assert_allclose(loaded.embed([text])[0], vector, atol=1e-5)
    hidden = (own["hidden.weight"] @ vector + own["hidden.bias"]).relu()
    expected = (own["weight"] @ hidden + own["bias"]).softmax(0)
    np.testing.assert_allclose(loaded.predict_proba([text])[0], expected, atol=1e-5)
    with torch.no_grad():
        logits = loaded(**loaded.tokenizer(text, return_tensors="pt")).logits[0]
    np.testing.assert_allclose(logits.softmax(0), expected, atol=1e-5)
    with pytest.raises(UserError, match="needs a linear head"):
        loaded.folded()


def test_what_a_model_cannot_read_is_refused(fitted, rows):
    model = fitted("gpt2").model_
    with pytest.raises(UserError, match="a text is empty"):
        model.predict_proba(["ok", " "])
    with pytest.raises(UserError, match="give a list of texts"):
        model.predict("Water boils.")
    with pytest.raises(UserError, match="y has 2 dimensions"):
        fitted("bert", layer="0", pooling="mean").fit(rows[0], [[1, 0]] * len(rows[0]))
    elsewhere = transformers.AutoModel.from_config(model.encoder.config).to("meta")
    head = {"weight": torch.ones(3, 96), "bias": torch.ones(3)}
    made = FeatureModel(elsewhere, model.tokenizer, model.settings, head)
    assert {parameter.device.type for parameter in made.parameters()} == {"meta"}, "the head is where the encoder is"


def test_a_bias_that_gpt2_cannot_have_is_not_folded_away(fitted):
    """As of a label that every row has: regularised weights of nought, and a bias that says so."""
    model = fitted("gpt2").model_
    settings = model.settings | {"layers": [2], "pooling": "last", "multi_label": True}
    head = {"weight": torch.eye(3, 32), "bias": torch.tensor([0.5, -0.5, 5.0])}
    FeatureModel(model.encoder, model.tokenizer, settings, head).folded()
    head["weight"][2] = 0
    with pytest.raises(UserError, match="GPT-2's head has no bias"):
        FeatureModel(model.encoder, model.tokenizer, settings, head).folded()


def test_another_base_is_refused(fitted, checkpoint_folders, tmp_path):
    model = fitted("bert").model_
    model.save_pretrained(tmp_path / "head")
    base = transformers.AutoModel.from_pretrained(checkpoint_folders("bert"))
    with torch.no_grad():
        base.encoder.layer[0].output.dense.bias[0] += 1e-3
    base.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="trained on bert with weights .* its head is of no use"):
        FeatureModel.from_pretrained(tmp_path / "head", base=tmp_path / "other")
    state = load_file(tmp_path / "other" / "model.safetensors")
    save_file({name: tensor for name, tensor in state.items() if "layer.1" not in name}, tmp_path / "part.safetensors")
    (tmp_path / "part.safetensors").replace(tmp_path / "other" / "model.safetensors")
    with pytest.raises(UserError, match="its head is of no use"):
        FeatureModel.from_pretrained(tmp_path / "head", base=tmp_path / "other")
    config = json.loads((tmp_path / "head" / "config.json").read_text())
    config["base"]["path"] = str(tmp_path / "gone")
    (tmp_path / "head" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="needs its base bert, a local folder"):
        FeatureModel.from_pretrained(tmp_path / "head")
    again = FeatureModel.from_pretrained(tmp_path / "head", base=checkpoint_folders("bert"))
    np.testing.assert_array_equal(again.embed(TEXTS), model.embed(TEXTS))
    with pytest.raises(UserError, match="holds no FeatureModel"):
        FeatureModel.from_pretrained(checkpoint_folders("bert"))
    with pytest.raises(UserError, match="single texts"):
        model.predict(["a"], ["b"])
    with pytest.raises(UserError, match="is a local folder, without which nobody can load"):
        model.push_to_hub("someone/head")


def test_nothing_is_reported_of_the_head_that_a_base_has_and_a_feature_model_leaves(
    fitted, checkpoint_folders, tmp_path, caplog
):
    """The base is a masked language model, whose head is read by nobody here and which has no pooler."""
    transformers.BertForMaskedLM.from_pretrained(checkpoint_folders("bert")).save_pretrained(tmp_path / "base")
    fitted("bert").model_.save_pretrained(tmp_path / "head")
    verbosity = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_warning()
    try:
        caplog.clear()
        FeatureModel.from_pretrained(tmp_path / "head", base=tmp_path / "base")
        assert "LOAD REPORT" not in caplog.text
        transformers.AutoModel.from_pretrained(tmp_path / "base")
        assert "LOAD REPORT" in caplog.text, "the level is as it was"
    finally:
        transformers.logging.set_verbosity(verbosity)


FOLDS = [
    ("bert", "first", "1"),
    ("bert", "first", "2"),
    ("gpt2", "last", "2"),
    ("xlnet", "last", "1"),
    ("xlnet", "last", "2"),
    ("roberta", "first", "1"),
    ("distilbert", "first", "1"),
    ("distilbert", "first", "2"),
    ("xlm-roberta", "first", "2"),
]


@pytest.mark.parametrize(("family", "pooling", "layer"), FOLDS)
def test_a_folded_model_is_a_stock_one_with_the_same_logits(family, pooling, layer, fitted, rows, tmp_path):
    model = fitted(family, pooling=pooling, layer=layer).model_
    model.folded().save_pretrained(tmp_path)
    stock = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(stock).__module__.startswith("transformers.") and stock.config.num_hidden_layers == int(layer)
    short = [text for text in rows[0] if len(text) < 80]
    segments = family in ("bert", "xlnet")
    batch = model.tokenizer(short, padding=True, return_tensors="pt", return_token_type_ids=segments)
    with torch.no_grad():
        found, expected = stock(**batch).logits, model(**batch).logits
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert list(stock.config.id2label.values()) == sorted(set(rows[1]))
    with torch.no_grad():
        half = stock.half()(**batch).logits.float()
    torch.testing.assert_close(half, expected, atol=0.02 * float(expected.abs().max()), rtol=0)


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        ("t5", {"pooling": "last", "layer": "2"}, "reads its decoder"),
        ("bert", {"pooling": "mean", "layer": "2"}, "--pooling first"),
        ("gpt2", {"pooling": "last", "layer": "1"}, "--layer 2"),
    ],
)
def test_what_no_stock_class_computes_is_not_folded(family, settings, message, fitted):
    with pytest.raises(UserError, match=message):
        fitted(family, **settings).model_.folded()


def test_the_estimator_is_one_of_scikit_learn(fitted, rows, checkpoint_folders):
    texts, labels = rows
    numbers = np.array([{"Danube": 7, "Nile": -1, "town": 3}[label] for label in labels])
    shout = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    estimator = FeatureClassifier(str(checkpoint_folders("bert")), layer="1", pooling="mean", cv=3, head="ridge")
    pipeline = make_pipeline(shout, clone(estimator)).fit(texts, numbers)
    assert pipeline.classes_.tolist() == [-1, 3, 7]
    probabilities = pipeline.predict_proba(texts)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (pipeline.predict(texts) == pipeline.classes_[probabilities.argmax(1)]).all()
    assert pipeline.score(texts, numbers) > 0.6
    assert log_loss(numbers, probabilities) < np.log(3)
    assert fitted("bert").get_params()["cv"] == 3
    assert pipeline[-1].model_.predict([text.upper() for text in texts]) == pipeline.predict(texts).astype(str).tolist()
    assert pipeline[-1].model_.config.label2id == {"-1": 0, "3": 1, "7": 2}
    with pytest.raises(UserError, match="fewer than 2 classes"):
        clone(estimator).fit(texts, ["same"] * len(texts))
    for blank in ("  ", None):  # its class alone would have shifted all others
        with pytest.raises(UserError, match="a text is empty"):
            clone(estimator).fit([blank, *texts], ["a", *labels])
    with pytest.raises(UserError, match="15 texts and y 14 classes"):
        clone(estimator).fit(texts, labels[1:])

    class Named(int):
        def __str__(self):
            return "one name"

    with pytest.raises(UserError, match="one name, one name are the same as text"):
        clone(estimator).fit(texts, np.array([Named(i % 2) for i in range(len(texts))], dtype=object))
