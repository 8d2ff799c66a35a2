"""The objectives against stock losses, hand-worked examples and brute force, and for what they must not see."""

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import strategies as st
from transformers import DataCollatorForPermutationLanguageModeling

import tl_hub
from tests.families import ONE_OF_EACH
from tl_hub import base_model, data, evaluation, finish, launch, training
from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.inference.masked_words import MaskFillingPipeline, SpanFillingPipeline
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.record import DataFacts, RunRecord, SplitFacts
from tl_hub.tasks.language_modeling import (
    CausalLanguageModeling,
    MaskedLanguageModeling,
    PermutationLanguageModeling,
    Pretraining,
    SpanCorruption,
    objective_of,
)
from tl_hub.tasks.language_modeling.span import _parts, noise_mask, with_sentinels

TEXTS = [
    "The river rises in the hills and ends in the sea.",
    "A baker sells bread. Her brother, who is older, mills the flour that she needs each morning.",
    "Snow fell.",
    "Tigers eat deer and wild boar above all; a baby of the animal goes by the name of a cub.",
]
ROWS = Dataset.from_dict({"text": TEXTS})


def batch_of(task: Any, tokenizer: Any, model: Any, training: bool = False) -> tuple[Dataset, dict[str, torch.Tensor]]:
    features = task.encode(ROWS, tokenizer, model)
    features = features.add_column("index", range(len(features)))
    kept = features.select_columns(["input_ids", "index"]).to_list()
    batch = task.collator(tokenizer, training)(kept)
    batch.pop("index")
    return features, batch


def losses(task: Any, model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return task.predict(task.objective(model.eval())(**batch), batch)


def test_every_family_has_one_objective_and_its_own_settings() -> None:
    assert {name: objective_of(name) for name in ("bert", "gpt2", "t5", "xlnet")} == {
        "bert": MaskedLanguageModeling,
        "gpt2": CausalLanguageModeling,
        "t5": SpanCorruption,
        "xlnet": PermutationLanguageModeling,
    }
    settings = Pretraining(max_length=64, mask_probability=0.3, random_length=False, mean_span=2.0)
    assert settings.objective("bert") == MaskedLanguageModeling(max_length=64, mask_probability=0.3)
    assert settings.objective("t5") == SpanCorruption(max_length=64, mean_span=2.0)


@pytest.mark.parametrize(
    "wrong", [{"max_length": 4}, {"mask_probability": 1.0}, {"noise_density": 0.0}, {"mean_span": 0.5}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} is"):
        Pretraining(**wrong)


def test_blank_rows_are_left_out_and_rows_of_something_else_refused() -> None:
    """Public texts for language modelling, such as WikiText, have blank rows."""
    rows = MaskedLanguageModeling().check(Dataset.from_dict({"text": ["a", " ", None, "b"]}))
    assert rows["text"][:] == ["a", "b"]
    with pytest.raises(UserError, match="none of the 2 rows has a text in column 'text'"):
        MaskedLanguageModeling().check(Dataset.from_dict({"text": ["", None]}))
    with pytest.raises(UserError, match=r"1 rows have something else than a text \(the first is row 0\)"):
        MaskedLanguageModeling().check(Dataset.from_dict({"text": [3]}))


def test_the_shortest_permutation_has_something_to_predict(checkpoints: Any) -> None:
    _, tokenizer = checkpoints("xlnet", "AutoModelForCausalLM")
    collate = PermutationLanguageModeling().collator(tokenizer, training=True)
    ids = [*range(30, 34), tokenizer.sep_token_id, tokenizer.cls_token_id]
    for seed in range(100):
        torch.manual_seed(seed)
        assert (collate([{"input_ids": ids}])["labels"] != -100).any()


def test_masked_loss_is_the_stock_models(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    task = MaskedLanguageModeling(mask_probability=0.5)
    _, batch = batch_of(task, tokenizer, model)
    with torch.no_grad():
        stock = model.eval()(**batch).loss
        assert torch.isclose(task.objective(model)(**batch).loss, stock)
    sums = losses(task, model, batch)
    assert torch.isclose(sums["loss"].sum() / sums["tokens"].sum(), stock)


def test_masked_windows_leave_nothing_out(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    features, _ = batch_of(MaskedLanguageModeling(max_length=8), tokenizer, model)
    assert max(features["length"]) == 8
    for row, text in enumerate(TEXTS):
        pieces = [ids[1:-1] for ids, of in zip(features["input_ids"], features["row"], strict=True) if of == row]
        assert [*itertools.chain(*pieces)] == tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("random_length", [False, True])
def test_whole_words_are_masked_together(random_length: bool, checkpoints: Any) -> None:
    """Also where a row is cut inside a word, whose end then begins another row."""
    _, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    task = MaskedLanguageModeling(mask_probability=0.3, whole_word=True, random_length=random_length)
    ids = tokenizer(" ".join(TEXTS * 5))["input_ids"]
    collate = task.collator(tokenizer, training=True)
    in_pieces, first_pieces, fates = 0, 0, set()
    for step in range(20):
        batch = collate([{"input_ids": ids, "draw": (0, 0, step)}])
        original = torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])
        for row, labels in zip(original, batch["labels"], strict=True):
            tokens = tokenizer.convert_ids_to_tokens(row)
            predicted = (labels != -100).tolist()
            first_pieces += tokens[0].startswith("##")
            for i in range(1, len(tokens)):
                if tokens[i].startswith("##"):
                    in_pieces += 1
                    assert predicted[i] == predicted[i - 1]
                elif tokens[0].startswith("##") and not tokens[i - 1].startswith("##"):
                    fates.add(predicted[i] == predicted[0])
    assert in_pieces > 100 and (first_pieces > 0) == random_length and (fates == {True, False}) == random_length


def test_random_lengths_are_halves_of_the_longest(checkpoints: Any) -> None:
    """Each as likely as the others; pieces of a window of 256 tokens hold what it held."""
    _, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    ids = torch.randint(50, 500, (256,)).tolist()
    collate = MaskedLanguageModeling(max_length=256, random_length=True).collator(tokenizer, training=True)
    shapes: Counter[tuple[int, ...]] = Counter()
    for step in range(600):
        batch = collate([{"input_ids": ids, "draw": (0, 0, step)}])
        shapes[tuple(batch["input_ids"].shape)] += 1
        assert torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"]).flatten().tolist() == ids
    assert shapes.keys() == {(8, 32), (4, 64), (2, 128), (1, 256)}
    assert all(abs(count - 150) < 4 * (600 / 4 * 3 / 4) ** 0.5 for count in shapes.values()), "standard deviations"


def test_every_row_has_something_to_predict(checkpoints: Any) -> None:
    """Or the loss of a batch of short texts would be no number."""
    model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    ids = tokenizer("Snow fell.")["input_ids"]
    for whole_word in (False, True):
        task = MaskedLanguageModeling(whole_word=whole_word)
        batch = task.collator(tokenizer, training=True)([{"input_ids": ids, "index": i} for i in range(100)])
        predicted = batch["labels"] != -100
        assert predicted.any(1).all() and not predicted[:, [0, -1]].any(), "and never a special token"
        chosen = predicted.float().mean(0)[1:-1]
        assert (chosen > 0.1).all(), "by chance"


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("bert", MaskedLanguageModeling(max_length=16)),
        ("bert", MaskedLanguageModeling(max_length=64, random_length=True)),
        ("t5", SpanCorruption(max_length=64)),
        ("xlnet", PermutationLanguageModeling(max_length=16)),
    ],
)
def test_what_is_drawn_for_a_row_depends_on_the_row_and_its_place_in_training_alone(family, task, checkpoints):
    """Not on the rows beside it, which are others on two processes, nor on what was drawn before a run was resumed."""
    model, tokenizer = checkpoints(family, task.auto_class)
    features = [
        {"input_ids": ids, "index": i} for i, ids in enumerate(task.encode(ROWS, tokenizer, model)["input_ids"])
    ]
    collate = task.collator(tokenizer, training=True)

    def predicted(rows: list[dict[str, Any]], step: int) -> list[list[int]]:
        labels = collate([row | {"draw": (0, 0, step)} for row in rows])["labels"]
        return [row[row != -100].tolist() for row in labels]

    together = predicted(features, 1)
    state = torch.random.get_rng_state()
    assert [part for row in reversed(features) for part in predicted([row], 1)[::-1]][::-1] == together
    assert torch.equal(torch.random.get_rng_state(), state), "dropout draws from it"
    assert predicted(features, 2) != together


def test_masks_have_the_published_shares(checkpoints: Any) -> None:
    """15 % are predicted, of which 80 % are hidden, 10 % replaced and 10 % kept (Devlin et al. 2019, section 3.1)."""
    _, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    ids = tokenizer(" ".join(TEXTS))["input_ids"]
    batch = MaskedLanguageModeling().collator(tokenizer, True)([{"input_ids": ids, "index": i} for i in range(400)])
    original = torch.tensor(ids).expand(400, -1)
    predicted = batch["labels"] != -100
    special = torch.isin(original, torch.tensor(tokenizer.all_special_ids))
    assert not predicted[special].any()
    assert torch.equal(batch["labels"][predicted], original[predicted])
    assert torch.equal(batch["input_ids"][~predicted], original[~predicted])
    hidden = batch["input_ids"][predicted] == tokenizer.mask_token_id
    kept = batch["input_ids"][predicted] == original[predicted]
    assert predicted[~special].float().mean().item() == pytest.approx(0.15, abs=0.005)
    assert hidden.float().mean().item() == pytest.approx(0.8, abs=0.015)
    assert kept.float().mean().item() == pytest.approx(0.1, abs=0.015)


def test_causal_loss_is_that_of_each_block_alone(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("gpt2", "AutoModelForCausalLM")
    task = CausalLanguageModeling(max_length=32)
    features, batch = batch_of(task, tokenizer, model)
    whole = [*itertools.chain(*features["input_ids"])]
    texts = tokenizer.decode(whole).split(tokenizer.eos_token)
    assert texts == [*TEXTS, ""]
    assert set(features["length"][:-1]) == {32} and 1 <= features["length"][-1] <= 32
    sums = losses(task, model, batch)
    for i, ids in enumerate(features["input_ids"]):
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        expected = -sum(scores[place, ids[place + 1]] for place in range(len(ids) - 1))
        assert torch.isclose(sums["loss"][i], torch.as_tensor(expected), rtol=1e-5)
        assert sums["tokens"][i] == len(ids) - 1
    with torch.no_grad():  # what is trained is the same figure
        assert torch.isclose(model(**batch).loss, sums["loss"].sum() / sums["tokens"].sum(), rtol=1e-5)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_a_window_is_as_long_as_is_said(family: str, checkpoints: Any) -> None:
    """With what is put at its end, by which batches and memory are reckoned, and no longer than was asked for."""
    task = objective_of(family)(max_length=24)
    model, tokenizer = checkpoints(family, task.auto_class)
    features = task.encode(ROWS, tokenizer, model)
    collated = task.collator(tokenizer, training=False)([{"input_ids": ids} for ids in features["input_ids"]])
    assert features["length"][:] == [len(ids) for ids in features["input_ids"]]
    assert collated["input_ids"].size(1) <= max(features["length"]) + (family == "t5") <= 24


def test_a_token_left_over_is_no_block(checkpoints: Any) -> None:
    """A batch of it alone would have no token to predict, and a loss that is no number."""
    model, tokenizer = checkpoints("gpt2", "AutoModelForCausalLM")
    count = sum(len(tokenizer(text)["input_ids"]) + 1 for text in TEXTS)
    features = CausalLanguageModeling(max_length=count - 1).encode(ROWS, tokenizer, model)
    assert features["length"][:] == [count - 1]


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_row_alone_gives_what_it_gives_in_a_padded_batch(family: str, checkpoints: Any) -> None:
    """The other two objectives have blocks of one length; GPT-2's are compared above, what XLNet is asked below."""
    task = objective_of(family)(max_length=24)
    model, tokenizer = checkpoints(family, task.auto_class)
    _, batch = batch_of(task, tokenizer, model)
    sums = losses(task, model, batch)
    lengths = batch["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) > 1
    for row, length in enumerate(lengths.tolist()):
        labels = batch["labels"][row : row + 1]
        labels = labels[labels != -100][None] if family == "t5" else labels[:, :length]
        alone = {"input_ids": batch["input_ids"][row : row + 1, :length], "labels": labels}
        found = losses(task, model, alone)
        assert torch.isclose(found["loss"][0], sums["loss"][row], rtol=1e-5)
        assert found["tokens"][0] == sums["tokens"][row]


def test_a_permuted_row_alone_gives_what_it_gives_beside_rows_that_are_asked_more(checkpoints: Any) -> None:
    task = PermutationLanguageModeling(max_length=32)
    model, tokenizer = checkpoints("xlnet", task.auto_class)
    _, batch = batch_of(task, tokenizer, model)
    sums = losses(task, model, batch)
    asked = batch["labels"] != -100
    assert len(set(asked.sum(1).tolist())) > 1, "rows are asked for different numbers of tokens"
    for row, kept in enumerate(asked):
        alone = {name: batch[name][row : row + 1] for name in ("input_ids", "perm_mask")}
        alone |= {name: batch[name][row : row + 1, kept] for name in ("target_mapping", "labels")}
        found = losses(task, model, alone)
        assert torch.isclose(found["loss"][0], sums["loss"][row], rtol=1e-5)
        assert found["tokens"][0] == sums["tokens"][row]


def test_span_corruption_of_the_papers_example() -> None:
    """Raffel et al. 2020, figure 2."""
    words = np.array("Thank you for inviting me to your party last week .".split(), dtype=object)
    removed = np.isin(words, ["for", "inviting", "last"])
    marks = np.array(["<X>", "<Y>", "<Z>"], dtype=object)
    assert " ".join(with_sentinels(words, removed, marks)) == "Thank you <X> me to your party <Y> week ."
    assert " ".join(with_sentinels(words, ~removed, marks)) == "<X> for inviting <Y> last <Z>"


@hypothesis.given(st.integers(2, 600), st.integers(0, 2**32 - 1))
def test_noise_has_the_published_rates(length: int, seed: int) -> None:
    mask = noise_mask(length, 0.15, 3.0, 100, np.random.default_rng(seed))
    starts = np.flatnonzero(np.diff([0, *mask.astype(int)]) == 1)
    assert mask.sum() == max(1, round(0.15 * length))
    assert len(starts) == max(1, round(mask.sum() / 3.0))
    assert len(mask) == length and not mask[0] and mask[-1]


@hypothesis.given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_text_and_what_was_taken_out_of_it_make_it_whole(removed: list[bool]) -> None:
    ids, marks = np.arange(100, 100 + len(removed)), np.arange(100)
    given_out = [with_sentinels(ids, mask, marks).tolist() for mask in (np.array(removed), ~np.array(removed))]
    kept, taken = ([token for token in part if token >= 100] for part in given_out)
    assert sorted(kept + taken) == ids.tolist() and kept == ids[~np.array(removed)].tolist()
    for part in given_out:  # sentinels in their order, each once, and never two side by side
        used = [token for token in part if token < 100]
        assert used == list(range(len(used)))
        assert not any(a < 100 and b < 100 for a, b in itertools.pairwise(part))


def test_noise_needs_no_more_sentinels_than_there_are() -> None:
    mask = noise_mask(4000, 0.15, 3.0, 100, np.random.default_rng(0))
    assert (np.diff([0, *mask.astype(int)]) == 1).sum() == 100


def test_lengths_of_spans_are_uniformly_random() -> None:
    random = np.random.default_rng(0)
    drawn = Counter(tuple(int(part) for part in _parts(5, 3, random)) for _ in range(6000))
    every = {parts for parts in itertools.product(range(1, 4), repeat=3) if sum(parts) == 5}
    assert set(drawn) == every
    assert all(abs(count - 6000 / len(every)) < 5 * (6000 / len(every)) ** 0.5 for count in drawn.values())


def test_every_way_to_share_out_noise_and_gaps_is_equally_likely() -> None:
    """7 tokens, 3 of them noise, in two spans: 3 as a sum of two numbers, 2 ways, and 4 likewise, 3 ways."""
    random = np.random.default_rng(0)
    drawn = Counter(tuple(noise_mask(7, 3 / 7, 1.5, 100, random).tolist()) for _ in range(6000))
    assert len(drawn) == 6 and all(abs(count - 1000) < 5 * 1000**0.5 for count in drawn.values())


def test_corrupted_text_and_its_target_hold_every_token_once(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("t5", "AutoModelForSeq2SeqLM")
    features, batch = batch_of(SpanCorruption(max_length=40), tokenizer, model, training=True)
    marks = {tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(100)}

    def spans(ids: list[int]) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for token in ids[:-1]:
            if token in marks:
                found[token] = []
            else:
                found[[*found][-1]].append(token)
        return found

    for ids, given, target in zip(features["input_ids"], batch["input_ids"], batch["labels"], strict=True):
        source = given[given != tokenizer.pad_token_id].tolist()
        removed = spans(target[target != -100].tolist())
        assert source[-1] == target[target != -100][-1] == tokenizer.eos_token_id
        restored = [*itertools.chain(*(removed[token] if token in marks else [token] for token in source[:-1]))]
        assert restored == ids
    assert [*itertools.chain(*features["input_ids"])] == [
        token for text in TEXTS for token in tokenizer(text)["input_ids"]
    ]


def test_a_whole_target_is_the_text_itself_and_its_source_is_corrupted_as_ever(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("t5", "AutoModelForSeq2SeqLM")
    torch.manual_seed(0)
    features, batch = batch_of(SpanCorruption(max_length=40, whole_target=True), tokenizer, model, training=True)
    torch.manual_seed(0)
    _, spans = batch_of(SpanCorruption(max_length=40), tokenizer, model, training=True)
    assert batch["input_ids"].equal(spans["input_ids"])
    for ids, target in zip(features["input_ids"], batch["labels"], strict=True):
        assert target[target != -100].tolist() == [*ids, tokenizer.eos_token_id]


def test_permutation_loss_is_the_stock_collators(checkpoints: Any) -> None:
    """Asking only for the tokens that count changes nothing in the loss, once separators see none of them."""
    model, tokenizer = checkpoints("xlnet", "AutoModelForCausalLM")
    task = PermutationLanguageModeling(max_length=32)
    features = task.encode(ROWS, tokenizer, model)
    assert len(set(features["length"])) == 1 and features["length"][0] % 2 == 0
    kept = [{"input_ids": ids, "index": i} for i, ids in enumerate(features["input_ids"])]
    ours = task.collator(tokenizer, training=True)(kept)
    del ours["index"]
    drawn = []
    for i, feature in enumerate(kept):
        torch.manual_seed(int(np.random.default_rng(i).integers(2**62)))
        drawn.append(DataCollatorForPermutationLanguageModeling(tokenizer)([{"input_ids": feature["input_ids"]}]))
    stock = {name: torch.cat([row[name] for row in drawn]) for name in drawn[0]}
    stock["input_ids"] = torch.tensor([feature["input_ids"] for feature in kept])
    for row, place in torch.nonzero(stock["labels"] == -100).tolist():
        stock["perm_mask"][row, place] = (stock["labels"][row] != -100).float()
    assert ours["target_mapping"].size(1) < stock["target_mapping"].size(1)
    with torch.no_grad():
        assert torch.isclose(model.eval()(**ours).loss, model(**stock).loss, rtol=1e-5)
    sums = losses(task, model, ours)
    assert sums["tokens"].sum() == (stock["labels"] != -100).sum()
    assert torch.isclose(sums["loss"].sum() / sums["tokens"].sum(), model(**stock).loss, rtol=1e-5)


def test_a_permutation_worked_by_hand(checkpoints: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a b c d e f, the dice choose b c d to be predicted, in the order b, d, c (Yang et al. 2019, equation 3)."""
    _, tokenizer = checkpoints("xlnet", "AutoModelForCausalLM")
    ids = [*range(30, 36), tokenizer.sep_token_id, tokenizer.cls_token_id]
    dice = iter([3, 1])  # a span of three, from the second token on
    monkeypatch.setattr(torch, "randint", lambda *_: torch.tensor([next(dice)]))
    monkeypatch.setattr(torch, "randperm", lambda _: torch.tensor([2, 0, 3, 1]))  # when a, b, c and d have their turn
    batch = PermutationLanguageModeling().collator(tokenizer, training=True)([{"input_ids": ids}])
    unseen = {
        "b": "bcd",  # the first: only what is not predicted
        "d": "cd",  # the second: b too
        "c": "c",  # the third: b and d
    }
    text = "abcdefSC"  # separator and <cls> as all that is not predicted: they see nothing that is
    expected = [[float(other in unseen.get(token, "bcd")) for other in text] for token in text]
    assert batch["perm_mask"][0].tolist() == expected
    assert batch["labels"].tolist() == [[31, 32, 33]]
    assert batch["target_mapping"][0].tolist() == [[float(token == asked) for token in text] for asked in "bcd"]
    assert batch["input_ids"].tolist() == [ids], "no <mask>: a predicted token is seen by those after it"


def test_predictions_see_what_comes_before_them_in_the_order_and_nothing_else(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("xlnet", "AutoModelForCausalLM")
    _, batch = batch_of(PermutationLanguageModeling(max_length=32), tokenizer, model)
    labels = batch.pop("labels")
    places = batch["target_mapping"].argmax(2)
    seen, unseen = [], []
    with torch.no_grad():
        before = model.eval()(**batch).logits
        for row, slot in torch.nonzero(labels != -100)[:12].tolist():
            changed = {**batch, "input_ids": batch["input_ids"].clone()}
            where = places[row, slot]
            changed["input_ids"][row, where] = (changed["input_ids"][row, where] + 7) % model.config.vocab_size
            difference = (model(**changed).logits - before).abs().amax(2)
            for other in torch.nonzero(labels[row] != -100)[:, 0].tolist():
                hidden = bool(batch["perm_mask"][row, places[row, other], where])
                (unseen if hidden else seen).append(difference[row, other].item())
    assert len(seen) > 5 and len(unseen) > 5
    assert max(unseen) < 1e-6 < 1e-5 < min(seen)


@pytest.mark.parametrize("rows_of", [[0, 0, 1, 1, 1, 2, 3, 4, 5, 5], [0] * 10], ids=["texts", "one text"])
def test_the_interval_of_perplexity_is_that_of_texts_drawn_again(rows_of: list[int]) -> None:
    """A loop over draws of whole texts, or of a lone text's windows: perplexity is of all tokens of a draw together."""
    random = np.random.default_rng(1)
    tokens = random.integers(5, 60, size=10)
    sums = tokens * random.uniform(2, 3, size=10)
    score = CausalLanguageModeling().score(
        {"loss": sums, "tokens": tokens}, Dataset.from_dict({"text": ["a"] * (max(rows_of) + 1)}),
        Dataset.from_dict({"row": rows_of}), None,
    )  # fmt: skip
    units = [[i for i in range(10) if rows_of[i] == row] for row in sorted(set(rows_of))]
    units = units if len(units) > 1 else [[i] for i in range(10)]
    drawn = []
    for _ in range(20_000):
        chosen = [i for unit in random.integers(len(units), size=len(units)) for i in units[unit]]
        drawn.append(np.exp(sums[chosen].sum() / tokens[chosen].sum()))
    expected = np.quantile(drawn, [0.025, 0.975])
    assert score.intervals["perplexity"] == pytest.approx(expected, rel=0.02)
    assert [np.exp(end) for end in score.intervals["loss"]] == pytest.approx(score.intervals["perplexity"])
    assert score.metrics["perplexity"] == pytest.approx(np.exp(sums.sum() / tokens.sum()))
    measured = {"texts": max(rows_of) + 1, "windows": 10, "predicted tokens": tokens.sum()}
    assert score.tables["Measured on"] == [measured]


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_evaluation_hides_the_same_tokens_each_time(family: str, checkpoints: Any) -> None:
    task = objective_of(family)(max_length=32)
    model, tokenizer = checkpoints(family, task.auto_class)
    torch.manual_seed(0)
    _, first = batch_of(task, tokenizer, model)
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(1), drawn), "the random numbers of training go on undisturbed"
    _, second = batch_of(task, tokenizer, model)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_pipeline_fills_masks_as_the_model_does(checkpoints: Any, tmp_path: Any) -> None:
    model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    RunRecord(
        name="bert",
        kind="pretrained",
        pipeline_tag="fill-mask",
        auto_class="AutoModelForMaskedLM",
        method={"name": "from scratch"},
        data=DataFacts(id="texts.jsonl", source="local", splits={"train": SplitFacts(rows=4)}),
        metrics=[],
    ).save(tmp_path)
    found = tl_hub.pipeline(tmp_path)("The cat is on the [MASK].")
    encoded = tokenizer("The cat is on the [MASK].", return_tensors="pt")
    place = encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        scores = model.eval()(**encoded).logits[0, place].softmax(-1)
    best = scores.topk(5)
    assert [answer["token"] for answer in found] == best.indices.tolist()
    assert [answer["score"] for answer in found] == pytest.approx(best.values.tolist(), rel=1e-4)


@pytest.mark.parametrize(("family", "gap"), [("bert", "[MASK]"), ("t5", "<extra_id_0>"), ("xlnet", "<mask>")])
def test_texts_that_hold_a_gap_are_no_examples(family: str, gap: str, checkpoints: Any) -> None:
    """With one more there would be two, which the pipelines refuse, and a run would end in its load-back."""
    task = Pretraining(max_length=64).objective(family)
    model, tokenizer = checkpoints(family, task.auto_class)
    told = "the cat and the dog are in a house of the town"
    rows = Dataset.from_dict({"text": [f"{told}, {gap}, as it was" if i % 2 else told for i in range(8)]})
    found = task.shown_examples(model, tokenizer, rows, seed=0)
    assert found and all(row["text"].count(gap) == 1 and "as it was" not in row["text"] for row in found)


def test_an_example_shows_the_likeliest_token_at_its_mask(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("bert", "AutoModelForMaskedLM")
    rows = Dataset.from_dict({"text": ["the cat and the dog are in a house of the town"] * 3})
    found = MaskedLanguageModeling(max_length=64).shown_examples(model, tokenizer, rows, seed=0)
    assert found
    for row in found:
        assert row["text"].replace("[MASK]", row["expected"]) in rows["text"]
        encoded = tokenizer(row["text"], return_tensors="pt")
        place = encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            likeliest = int(model.eval()(**encoded).logits[0, place].argmax())
        assert row["predicted"] == tokenizer.decode([likeliest]).strip()


@pytest.mark.parametrize("method", [Lora(rank=2), FineTune()], ids=lambda method: method.kind)
@pytest.mark.parametrize("family", ONE_OF_EACH)
def test_every_cell_trains_and_loads_back(
    family: str, method: Any, checkpoints: Any, tmp_path: Path, load_back_here: None
) -> None:
    task = Pretraining(max_length=32, random_length=False).objective(family)
    language_model, own_tokenizer = checkpoints(family, task.auto_class)  # an adapter carries no new head
    language_model.save_pretrained(tmp_path / family)
    own_tokenizer.save_pretrained(tmp_path / family)
    for split in ("train", "validation"):
        ROWS.to_parquet(tmp_path / f"{split}.parquet")
    run = RunConfig(
        output_dir=str(tmp_path / "run"), model=str(tmp_path / family), batch_size=4, max_steps=2,
        dataset=str(tmp_path), learning_rate=1e-2, precision="fp32",
    )  # fmt: skip
    accelerator = launch.start(run)
    rows, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(rows, task, tokenizer, model)
    model = method.wrap(model, base)
    experiment = Experiment(run, task, method, base, rows, model, tokenizer, accelerator)
    before = training.evaluate_base(experiment)
    history = training.train(experiment)
    score = training.evaluate(experiment, split="validation")
    assert score.metrics["loss"] != before.metrics["loss"], "what was trained is measured"
    score.tables |= task.baselines(before, score)
    finish.finish(experiment, history, score)
    record = RunRecord.load(tmp_path / "run")
    assert record.verification["max_difference"] <= 1e-5
    assert record.verification["loaded_by"] == ["transformers", "peft"][: 2 if method.kind == "adapter" else 1]
    assert all(metric.low < metric.value < metric.high for metric in record.metrics)
    assert record.tables["Measured on"][0]["predicted tokens"] > 10
    assert "| Texts | Windows | Predicted tokens |" in (tmp_path / "run" / "README.md").read_text()

    gaps = {"bert": "[MASK]", "gpt2": "", "t5": "<extra_id_0>", "xlnet": "<mask>"}
    if family == "gpt2":  # how a text goes on, by stock calls and in the card's table
        assert record.verification["result"] in [row["predicted"] for row in record.examples]
        assert record.verification["pipeline_output"]["generated_text"]
        whole = [" ".join(text.split()) for text in ROWS["text"][:]]
        for row in record.examples:
            assert any(text.startswith(f"{row['text']} {row['expected']}") for text in whole)
    else:  # the word of the card's row that was taken out, by stock calls and by the pipeline
        shown, result = record.verification["pipeline_output"], record.verification["result"]
        word = shown["spans"][0] if family == "t5" else shown[0]["token_str"].strip()
        assert word in [row["predicted"].strip() for row in record.examples]
        assert word in result if family == "t5" else word == result.strip()
        sources = ROWS["text"][:]
        for row in record.examples:
            filled = row["text"].replace(gaps[family], row["expected"])
            assert row["text"].count(gaps[family]) == 1 and any(" ".join(t.split()).startswith(filled) for t in sources)

    report = evaluation.remeasure(tmp_path / "run", dataset=str(tmp_path))
    assert report["same_rows"] and {figure["name"] for figure in report["metrics"]} == {"loss", "perplexity"}
    assert all(figure["found"] == pytest.approx(figure["claimed"], rel=1e-4) for figure in report["metrics"])

    ask = tl_hub.pipeline(tmp_path / "run")
    answer = ask(f"The cat is on the {gaps[family]}.".replace(" .", ""))
    if family in ("bert", "xlnet"):
        assert len(answer) == 5 and answer[0]["score"] >= answer[1]["score"] and "cat" in answer[0]["sequence"]
    else:
        assert isinstance(answer["generated_text"], str)


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["spans", "whole text"])
def test_gaps_are_filled_with_what_t5_writes_for_them(checkpoints: Any, whole: bool) -> None:
    """By a model that has learnt one answer by heart, so that what it writes is known."""
    model, tokenizer = checkpoints("t5", "AutoModelForSeq2SeqLM")
    text = "the river rises in the hills and ends in the sea."
    text = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)  # what its vocabulary can write
    source = text.replace("rises", "<extra_id_0>").replace("the sea", "<extra_id_1>")
    target = text if whole else "<extra_id_0> rises <extra_id_1> the sea <extra_id_2>"
    batch = tokenizer(source, return_tensors="pt") | {"labels": tokenizer(target, return_tensors="pt")["input_ids"]}
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(80):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    fill = SpanFillingPipeline(model, tokenizer, SpanCorruption(whole_target=whole), {})
    assert fill(source) == {"spans": ["rises", "the sea"], "generated_text": text}
    other = source.replace("hills", "towns")  # the answer learnt by heart is given all the same
    longer = "The river and all that is in it <extra_id_0>."
    assert fill([source, longer, other], batch_size=2) == [fill(source), fill(longer), fill(other)]
    assert fill([other])[0]["spans"] == (["", ""] if whole else ["rises", "the sea"])
    assert fill([other])[0]["generated_text"] == (text if whole else text.replace("hills", "towns"))
    with pytest.raises(UserError, match="no gap to fill; write <extra_id_0>"):
        fill("The river.")


def test_a_mask_is_filled_by_xlnet_from_both_sides(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("xlnet", "AutoModelForCausalLM")
    fill = MaskFillingPipeline(model, tokenizer, PermutationLanguageModeling(), {})
    text = "The cat is on the <mask>. It sleeps."
    answers = fill(text, top_k=len(tokenizer))
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    place = ids[0].tolist().index(tokenizer.mask_token_id)
    scores = {answer["token"]: answer["score"] for answer in answers}
    hidden = torch.zeros(1, ids.size(1), ids.size(1))
    hidden[0, :, place] = 1
    with torch.no_grad():
        for token in (tokenizer.mask_token_id, 50):  # what stands at the place itself is not seen
            ids[0, place] = token
            target = torch.eye(ids.size(1))[None]  # every token asked for
            logits = model.eval()(input_ids=ids, perm_mask=hidden, target_mapping=target).logits[0, place]
            expected = logits.softmax(-1)
            assert [scores[i] for i in range(len(expected))] == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-8)
    assert answers[0]["token"] == int(expected.argmax())
    assert answers[0]["sequence"].startswith("The cat is on the")
    assert fill(text.replace("sleeps", "barks"))[0]["score"] != pytest.approx(answers[0]["score"], rel=1e-6)
    both = fill([text, "A <mask>."], top_k=3)
    for found, alone in zip(both, (fill(text, top_k=3), fill("A <mask>.", top_k=3)), strict=True):
        assert [answer["sequence"] for answer in found] == [answer["sequence"] for answer in alone]
        assert [answer["score"] for answer in found] == pytest.approx([answer["score"] for answer in alone], rel=1e-4)
    with pytest.raises(UserError, match="a text has 2 masks; write one <mask>"):
        fill("<mask> and <mask>")
