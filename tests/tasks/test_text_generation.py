"""Text generation against plain loops: no token is seen too early, and what is decoded is what was trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset

import tl_hub
from tl_hub import base_model, data, finish, launch, training
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.metrics import distinct, repetition
from tl_hub.record import RunRecord
from tl_hub.tasks.text_generation import TextGeneration, decode

TEXTS = [
    "The river rises in the hills and ends in the sea.",
    "A baker sells bread. Her brother, who is older, mills the flour that she needs each morning.",
    "Snow fell.",
    "Tigers eat deer and wild boar above all; a baby of the animal goes by the name of a cub.",
]
ROWS = Dataset.from_dict({"text": TEXTS})
TASK = TextGeneration(max_length=24, max_new_tokens=6)
FAMILIES = ["gpt2", "xlnet"]


@pytest.fixture
def loaded(checkpoint_folders: Any) -> Any:
    """A model read from left to right."""

    def load(family: str) -> tuple[Any, Any]:
        model, tokenizer, _ = base_model.load(RunConfig(model=str(checkpoint_folders(family))), TASK)
        return model.eval(), tokenizer

    return load


def batch_of(features: Dataset, tokenizer: Any) -> dict[str, torch.Tensor]:
    return TASK.collator(tokenizer, training=False)(features.select_columns(["input_ids"]).to_list())


@pytest.mark.parametrize("family", FAMILIES)
def test_no_prediction_sees_a_later_token(family: str, loaded: Any) -> None:
    model, tokenizer = loaded(family)
    batch = batch_of(TASK.encode(ROWS, tokenizer, model).select(range(2)), tokenizer)
    with torch.no_grad():
        before = TASK.outputs(model, batch).logits
        for place in (3, 10, 20):
            ids = batch["input_ids"].clone()
            ids[:, place:] = (ids[:, place:] + 7) % model.config.vocab_size
            after = TASK.outputs(model, {**batch, "input_ids": ids}).logits
            assert torch.allclose(after[:, :place], before[:, :place], atol=1e-5)
            assert (after[:, place] - before[:, place]).abs().max() > 1e-3, "the changed token itself is read"


@pytest.mark.parametrize("family", FAMILIES)
def test_figures_are_those_of_a_plain_loop_over_all_tokens(family: str, loaded: Any) -> None:
    """Each token of the texts and each end of one is predicted once, from its own block only."""
    model, tokenizer = loaded(family)
    features = TASK.encode(ROWS, tokenizer, model)
    with torch.no_grad():
        outputs = TASK.outputs(model, batch := batch_of(features, tokenizer))
        sums = TASK.predict(outputs, batch)
        end = tokenizer.eos_token_id
        stream = [end]
        for text in TEXTS:
            stream += [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
        losses = []
        for place in range(1, len(stream)):
            start = (place - 1) // 23 * 23  # blocks of 24 tokens, of which the first is the last of the one before
            scores = model(input_ids=torch.tensor([stream[start:place]])).logits[0, -1].log_softmax(-1)
            losses.append(-float(scores[stream[place]]))
    score = TASK.score({name: tensor.numpy() for name, tensor in sums.items()}, ROWS, features, None)
    assert float(score.metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(score.metrics["perplexity"]) == pytest.approx(np.exp(np.mean(losses)), rel=1e-4)
    size = len("".join(TEXTS).encode())
    assert float(score.metrics["bits_per_byte"]) == pytest.approx(np.sum(losses) / np.log(2) / size, rel=1e-5)
    per_byte = len(losses) / size / np.log(2)
    assert score.intervals["bits_per_byte"] == pytest.approx([end * per_byte for end in score.intervals["loss"]])
    assert score.tables["Measured on"][0]["predicted tokens"] == len(losses)
    # What is trained is the same figure, of the batch.
    assert float(outputs.loss) == pytest.approx(np.mean(losses), rel=1e-5)


def test_decoding_xlnet_is_reading_the_text_anew_for_each_token(loaded: Any) -> None:
    """Rows of different lengths, in one batch, against the likeliest token of each alone."""
    model, tokenizer = loaded("xlnet")
    lengths = (3, 9, 5, 1)
    ids_of = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
    prompts = [ids[:length] for ids, length in zip(ids_of, lengths, strict=True)]
    found = decode(model, prompts, 8, tokenizer.eos_token_id)
    for prompt, new in zip(prompts, found, strict=True):
        ids = [*prompt]
        with torch.no_grad():
            while len(ids) < len(prompt) + 8 and tokenizer.eos_token_id not in ids[len(prompt) :]:
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert new == [token for token in ids[len(prompt) :] if token != tokenizer.eos_token_id]
    assert len({tuple(new) for new in found}) > 1, "rows differ, or equality would say nothing"


def test_decoding_stops_at_the_end_of_a_text(loaded: Any) -> None:
    model, tokenizer = loaded("xlnet")
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"][:6] for text in TEXTS]
    whole = decode(model, prompts, 8, end=tokenizer.eos_token_id)
    stop = whole[0][2]
    for new, cut in zip(whole, decode(model, prompts, 8, end=stop), strict=True):
        assert cut == (new[: new.index(stop)] if stop in new else new)


def test_sampling_draws_from_the_likeliest_tokens_only(loaded: Any) -> None:
    model, tokenizer = loaded("xlnet")
    prompt = tokenizer(TEXTS[0], add_special_tokens=False)["input_ids"][:6]
    with torch.no_grad():
        shares = model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1)
    order = shares.argsort(descending=True)
    count = int((shares[order].cumsum(0) < 0.5).sum()) + 1
    torch.manual_seed(0)
    drawn = decode(model, [prompt] * 200, 1, end=-1, top_p=0.5)
    assert {ids[0] for ids in drawn} <= set(order[:count].tolist()) and len({ids[0] for ids in drawn}) > 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_texts(family: str, loaded: Any) -> None:
    model, tokenizer = loaded(family)
    state = torch.get_rng_state()
    first, again, other = (TASK.continued(model, tokenizer, TEXTS, 8, 0.95, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), state), "the random numbers of training go on undisturbed"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_goes_on_as_it_does_beside_longer_ones(family: str, loaded: Any) -> None:
    """The likeliest token each time, so that chance has no part."""
    model, tokenizer = loaded(family)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # or it would say the same after every text
    together = TASK.continued(model, tokenizer, TEXTS, 6, 1e-6, seed=0)
    assert together == [TASK.continued(model, tokenizer, [text], 6, 1e-6, seed=0)[0] for text in TEXTS]
    assert len(set(together)) > 1


def test_a_long_prompt_is_gone_on_with_from_its_end(loaded: Any) -> None:
    """The model reads 16 tokens, of which 6 are to be written: only the last 10 tokens of a prompt can count."""
    model, tokenizer = loaded("gpt2")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.config.n_positions = 16
    beginnings = [" The river rises in the hills of another country.", " Tigers eat deer and wild boar."]
    end = " and her brother, who is older, mills the flour that she needs each morning"
    assert len(tokenizer(end)["input_ids"]) >= 10 and len(tokenizer(beginnings[1])["input_ids"]) >= 10
    first, second = TASK.continued(model, tokenizer, [text + end for text in beginnings], 6, 1e-6, seed=0)
    assert first == second != TASK.continued(model, tokenizer, [end + beginnings[0]], 6, 1e-6, seed=0)[0]


def test_bits_are_counted_by_byte_and_not_by_letter() -> None:
    """Korean letters have three bytes each: 24 nats over 4 letters, or 12 bytes, are 2 nats a byte."""
    rows = Dataset.from_dict({"text": ["한국", "나무"]})
    predictions = {"loss": np.array([10.0, 14.0]), "tokens": np.array([3, 5])}
    score = TASK.score(predictions, rows, rows.add_column("row", [0, 1]), None)
    assert float(score.metrics["bits_per_byte"]) == pytest.approx(2 / np.log(2))


def test_variety_by_brute_force() -> None:
    texts = ["a b a b a b".split(), "c".split(), [], "a b c d".split()]
    for n in (1, 2, 3):
        grams = [tuple(text[i : i + n]) for text in texts for i in range(len(text)) if i + n <= len(text)]
        assert distinct(texts, n) == pytest.approx(100 * len(set(grams)) / len(grams))
    assert distinct([[]], 1) == 0
    assert repetition("a b c d a b c d".split()) == pytest.approx(100 * 1 / 5)  # abcd bcda cdab dabc abcd
    assert repetition("x x x x x x".split()) == pytest.approx(100 * 2 / 3)
    assert np.isnan(repetition("a b c".split()))


def test_samples_go_on_from_held_out_texts(loaded: Any) -> None:
    model, tokenizer = loaded("gpt2")
    long = Dataset.from_dict({"text": [" ".join(TEXTS)] * 2 + TEXTS})
    each = np.ones(len(long))
    score = TASK.score({"loss": each, "tokens": each}, long, long.add_column("row", list(range(len(long)))), None)
    TASK.add_samples(score, model, tokenizer, long, seed=0)
    shown = score.predictions[0]
    ids = tokenizer(" ".join(TEXTS))["input_ids"]
    assert shown["text"] == tokenizer.decode(ids[:16]) and shown["expected"] == tokenizer.decode(ids[16:22])
    words = [row["predicted"].split() for row in score.predictions]
    assert float(score.metrics["distinct_1"]) == pytest.approx(distinct(words, 1))
    assert score.counts["distinct_1"] == len(words) == len(score.metrics["repetition"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_new_tokens": 0}, "--max_new_tokens is 0; it must be at least 1"),
        ({"top_p": 1.5}, "--top_p is 1.5; it must lie above 0, up to 1"),
        ({"max_length": 4}, "--max_length is 4; it must be at least 8"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TextGeneration(**wrong)


def test_more_new_tokens_than_the_window_are_refused(loaded: Any) -> None:
    model, tokenizer = loaded("gpt2")
    with pytest.raises(UserError, match="--max_new_tokens is 1020; the model reads 1024 tokens, of which 16"):
        TextGeneration(max_new_tokens=1020).encode(ROWS, tokenizer, model)


@pytest.mark.parametrize(("family", "reason"), [("bert", "from both sides"), ("t5", "encoded text")])
def test_families_that_cannot_are_refused_with_the_reason(family: str, reason: str, checkpoint_folders: Any) -> None:
    run = RunConfig(model=str(checkpoint_folders(family)))
    with pytest.raises(UserError, match=rf"text-generation is not for {family} \(.*{reason}.*\); use gpt2, xlnet$"):
        base_model.load(run, TASK)


def test_an_xlnet_of_both_sides_is_refused(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("xlnet", "AutoModelForCausalLM")
    with pytest.raises(UserError, match="reads from both sides"):
        TASK.adapt(tokenizer, model)


def test_blank_rows_are_left_out_and_others_refused() -> None:
    assert TASK.check(Dataset.from_dict({"text": ["a", " ", None, "b"]}))["text"][:] == ["a", "b"]
    with pytest.raises(UserError, match="none of the 2 rows has a text"):
        TASK.check(Dataset.from_dict({"text": ["", None]}))
    with pytest.raises(UserError, match=r"1 rows have something else than a text \(the first is row 0\)"):
        TASK.check(Dataset.from_dict({"text": [3]}))


@pytest.mark.parametrize("method", [Lora(rank=2), FineTune()], ids=lambda method: method.kind)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_cell_trains_and_loads_back(
    family: str, method: Any, checkpoints: Any, tmp_path: Path, load_back_here: None
) -> None:
    language_model, own_tokenizer = checkpoints(family, "AutoModelForCausalLM")  # an adapter carries no new head
    language_model.save_pretrained(tmp_path / family)
    own_tokenizer.save_pretrained(tmp_path / family)
    for split in ("train", "validation"):
        (tmp_path / f"{split}.csv").write_text("\n".join(["text", *(f'"{text}"' for text in TEXTS * 3), '" "']) + "\n")
    run = RunConfig(
        output_dir=str(tmp_path / "run"), model=str(tmp_path / family), batch_size=4, max_steps=2,
        dataset=str(tmp_path), learning_rate=1e-2, precision="fp32",
    )  # fmt: skip
    accelerator = launch.start(run)
    rows, _ = data.load(run, TASK)
    model, tokenizer, base = base_model.load(run, TASK)
    data.encode(rows, TASK, tokenizer, model)
    measured = rows.splits["validation"]
    model = method.wrap(model, base)
    experiment = Experiment(run, TASK, method, base, rows, model, tokenizer, accelerator)
    before = training.evaluate_base(experiment)
    history = training.train(experiment)
    score = training.evaluate(experiment)
    assert score.metrics["loss"] < before.metrics["loss"]
    score.tables |= TASK.baselines(before, score)
    TASK.add_samples(score, model, tokenizer, measured.rows, run.seed)
    finish.finish(experiment, history, score)

    folder = tmp_path / "run"
    record = RunRecord.load(folder)
    assert record.verification["max_difference"] <= 1e-5
    resumed = replace(run, resume=True, accumulation=3)
    later = finish.record_of(replace(experiment, run=resumed), history, None)
    assert record.cost.total_seconds and later.cost.total_seconds is None, "what the first part took is not known"
    assert later.settings["effective_batch_size"] == 3 * 4
    assert "1 of 13 rows of the train split was blank and left out." in record.data.notes
    # XLNet is loaded as it was trained, by every way the card names.
    loading = {"revision": record.base_revision, **record.config}
    again = transformers.AutoModelForCausalLM.from_pretrained(folder, **loading)
    assert getattr(again.config, "attn_type", "uni") == "uni"
    prompt = record.examples[0]["text"]
    generate = tl_hub.pipeline(folder)
    assert generate(prompt) == generate([prompt])[0] == generate(prompt, seed=0)
    assert generate(prompt, top_p=1e-6, seed=1) == generate(prompt, top_p=1e-6, seed=2)  # the likeliest token each time
    if family == "gpt2":  # the card's stock calls go on greedily
        prompts = [tokenizer(row["text"])["input_ids"] for row in record.examples]
        greedy = [decode(model.eval(), [ids], 30, tokenizer.eos_token_id)[0] for ids in prompts]
        assert record.verification["result"] in [tokenizer.decode(ids, skip_special_tokens=True) for ids in greedy]
    if family == "xlnet":
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        likeliest = decode(again.eval(), [ids], 6, tokenizer.eos_token_id)
        assert likeliest == decode(model, [ids], 6, tokenizer.eos_token_id)
