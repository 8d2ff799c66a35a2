"""New models: counts against brute force, the factorisation against the matrix, and all four families."""

import json
import math
import runpy
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer

from tl_hub import data, launch, samples, training
from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import RunConfig
from tl_hub.errors import RunStopped, UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.base import settings_of
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.methods.initial_embeddings import cooccurrences, factorised, sinusoids
from tl_hub.tasks.language_modeling import Pretraining

TEXTS = [row["context"] for row in samples.load("qa")["train"][::8]]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return BertTokenizer(do_lower_case=True).train_new_from_iterator(TEXTS, vocab_size=400)


def test_cooccurrences_are_those_of_a_plain_loop(tokenizer: Any) -> None:
    texts = [*TEXTS[:3], f"{TEXTS[3]} [SEP] {TEXTS[4]}", ""]
    expected: Counter[tuple[int, int]] = Counter()
    alone: Counter[int] = Counter()
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        for i, token in enumerate(ids):
            if token == tokenizer.sep_token_id:
                continue
            alone[token] += 1
            for j in range(max(0, i - 5), min(len(ids), i + 6)):
                if j != i and ids[j] != tokenizer.sep_token_id:
                    expected[token, ids[j]] += 1
    counts, frequency = cooccurrences(tokenizer, texts, len(tokenizer))
    found = {(int(i), int(j)): int(n) for i, j, n in zip(*counts.tocoo().coords, counts.tocoo().data, strict=True)}
    assert found == dict(expected)
    assert {i: int(n) for i, n in enumerate(frequency) if n} == dict(alone)


def test_vectors_of_full_width_give_the_information_back(tokenizer: Any) -> None:
    """Levy and Goldberg 2014, equation 11, with contexts smoothed: the part of the matrix that E E^T can hold."""
    counts, _ = cooccurrences(tokenizer, TEXTS, len(tokenizer))
    dense = counts.toarray()
    tokens, contexts = dense.sum(1), dense.sum(0) ** 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(dense / tokens[:, None] / (contexts / contexts.sum())[None])
    information = np.where(dense > 0, np.maximum(information, 0), 0)
    left, values, _ = np.linalg.svd(information)
    vectors = factorised(counts, len(tokenizer)).numpy()
    np.testing.assert_allclose(vectors @ vectors.T, (left * values) @ left.T, atol=1e-2)


def test_sinusoids_are_the_published_ones() -> None:
    found = sinusoids(7, 6)
    for place in range(7):
        for i in range(3):
            angle = place / 10_000 ** (2 * i / 6)
            assert found[place, i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert found[place, 3 + i].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_new_model_fits_its_tokenizer(family: str) -> None:
    method = FromScratch(
        model_type=family,  # type: ignore[arg-type]
        vocab_size=500,
        layers=2,
        hidden_size=32,
        heads=2,
        intermediate_size=64,
        window=48,
    )
    torch.manual_seed(0)
    model, tokenizer, base = method.build(TEXTS, RunConfig())
    assert base is None
    assert model.config.model_type == family
    assert model.config.vocab_size == len(tokenizer) <= 500
    assert tokenizer.model_max_length == 48, "who loads it must not be let read more than it was trained on"
    assert model.config.pad_token_id == tokenizer.pad_token_id
    if model.config.is_encoder_decoder:
        assert model.config.decoder_start_token_id == tokenizer.pad_token_id, "as the published ones start"
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} <= {0.0}
    with torch.no_grad():  # a whole window, and where there is a limit no more
        whole = torch.full((1, 48), tokenizer.convert_tokens_to_ids(tokenizer.tokenize("in")[0]))
        base_model = model.base_model.encoder if model.config.is_encoder_decoder else model.base_model
        assert base_model.eval()(whole).last_hidden_state.isfinite().all()
        if family not in ("t5", "xlnet"):
            with pytest.raises((IndexError, RuntimeError)):
                base_model(torch.cat([whole, whole[:, :1]], dim=1))
    text = TEXTS[0]
    shown = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert shown.replace(" ", "").lower() == text.replace(" ", "").lower()
    embeddings = model.get_input_embeddings().weight
    assert embeddings.isfinite().all()
    # Words that stand in the same places are closer than others: digits to digits, in texts full of years.
    index = {piece: i for i, piece in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))}
    digits = [index[name] for name in index if name.strip("#▁Ġ").isdigit()]
    units = torch.nn.functional.normalize(embeddings.detach(), dim=1)
    among = (units[digits] @ units[digits].T).fill_diagonal_(0).sum() / (len(digits) * (len(digits) - 1))
    assert among > 2 * (units[digits] @ units.T).mean().abs()


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_tokenizer(tmp_path: Path) -> None:
    """Trained again on the same texts, WordPiece numbers the letters inside words otherwise."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    run = RunConfig(output_dir=str(tmp_path / "run"), train_file=str(rows), max_steps=1, batch_size=2)
    method = FromScratch(layers=1, hidden_size=16, heads=2, intermediate_size=16, window=32, vocab_size=400)
    pieces = []
    for settings in (run, replace(run, resume=True, max_steps=2)):
        task = Pretraining(max_length=32).objective("bert")
        accelerator = launch.start(settings)
        data_of_run, task = data.load(settings, task)
        model, tokenizer, _ = method.build(data_of_run.splits["train"].rows["text"], settings)
        data.encode(data_of_run, task, tokenizer, model)
        training.train(Experiment(settings, task, method, None, data_of_run, model, tokenizer, accelerator))
        pieces.append(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    assert pieces[0] == pieces[1]
    saved = AutoTokenizer.from_pretrained(run.output_dir)
    assert saved.convert_ids_to_tokens(range(len(saved))) == pieces[0]


def test_the_recipe_takes_its_tokenizer_from_the_training_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load_back_here: None
) -> None:
    for name, word in (("train", "aardvark"), ("validation", "zyzzyva")):
        (tmp_path / f"{name}.jsonl").write_text((json.dumps({"text": f"{word} and {word}"}) + "\n") * 20)
    flags = ["--layers", "1", "--hidden_size", "32", "--heads", "2", "--intermediate_size", "32", "--vocab_size", "300"]
    flags += ["--dataset", str(tmp_path), "--max_steps", "1", "--output_dir", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["pretraining.py", *flags])
    runpy.run_path(str(Path(__file__).parents[2] / "recipes" / "pretraining.py"))["main"]()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run")
    assert tokenizer.tokenize("aardvark") == ["aardvark"] and tokenizer.unk_token in tokenizer.tokenize("zyzzyva")


def shaped(**settings: Any) -> FromScratch:
    return FromScratch(
        layers=1, hidden_size=16, heads=2, intermediate_size=16, window=32, cooccurrence=False, **settings
    )


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_a_given_tokenizer_is_taken_as_it_is(family: str, tmp_path: Path) -> None:
    theirs = AutoTokenizer.from_pretrained(samples.checkpoint(family))
    shutil.copytree(samples.checkpoint(family), tmp_path / "theirs", ignore=shutil.ignore_patterns("*.safetensors"))
    for name in (f"tiny:{family}", str(tmp_path / "theirs")):
        method = shaped(model_type=family, tokenizer=name)
        model, tokenizer, _ = method.build(TEXTS, RunConfig())
        assert tokenizer(TEXTS[0])["input_ids"] == theirs(TEXTS[0])["input_ids"]
        assert model.config.vocab_size == len(theirs) == method.vocab_size, "the record has the size that it has"
        assert "tokenizer" not in settings_of(method), "it may be a path of this machine"


@pytest.mark.parametrize(
    ("family", "name", "says"),
    [
        ("t5", "tiny:bert", "has no eos_token"),
        ("bert", "tiny:gpt2", "has no cls_token and no sep_token and no pad_token, which bert needs"),
        ("t5", "tiny:xlnet", "does not put </s> into a text"),
        ("bert", "{folder}", "no tokenizer that can be read"),
    ],
)
def test_a_tokenizer_that_does_not_suit_is_refused(family: str, name: str, says: str, tmp_path: Path) -> None:
    name = name.format(folder=tmp_path)
    with pytest.raises(UserError, match=says) as refusal:
        shaped(model_type=family, tokenizer=name).build(TEXTS, RunConfig())
    assert str(refusal.value).startswith(f"--tokenizer {name}: ")


def test_a_given_tokenizer_has_its_own_size() -> None:
    run = RunConfig()
    run.given = frozenset({"vocab_size"})
    with pytest.raises(UserError, match="--tokenizer brings its own; omit one of them"):
        shaped(tokenizer="tiny:bert").build(TEXTS, run)


@pytest.mark.parametrize("given", [{"model": "tiny:gpt2"}, {"revision": "v1"}])
def test_a_pretrained_model_is_refused(given: dict[str, Any]) -> None:
    ((name, value),) = given.items()
    with pytest.raises(UserError, match=f"^--{name} {value}: .* --model_type bert"):
        FromScratch().build(TEXTS, RunConfig(**given))


def test_a_check_says_of_which_family_the_new_model_is(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    run = RunConfig(output_dir=str(tmp_path / "run"), train_file=str(rows), batch_size=2, check=True)
    task = Pretraining(max_length=32).objective("gpt2")
    method = FromScratch(
        model_type="gpt2", layers=1, hidden_size=16, heads=2, intermediate_size=16, window=32, vocab_size=400
    )
    accelerator = launch.start(run)
    examples, task = data.load(run, task)
    model, tokenizer, _ = method.build(TEXTS, run)
    data.encode(examples, task, tokenizer, model)
    with pytest.raises(RunStopped, match=rf" {model.num_parameters():,} parameters \(gpt2\) would be trained"):
        training.train(Experiment(run, task, method, None, examples, model, tokenizer, accelerator))


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"vocab_size": 10}, {"hidden_size": 30, "heads": 4}, {"window": -1}])
def test_shapes_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        FromScratch(**wrong)
