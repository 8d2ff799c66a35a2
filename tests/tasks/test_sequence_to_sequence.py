"""Summarization and translation against the libraries' own scores, a loop token by token, and rows alone."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sacrebleu
import torch
from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

import tl_hub
from tl_hub import base_model, data, finish, launch, training
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.evaluate_metrics import RougeMetric, TranslationMetric
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.metrics import rouge_scores, rouge_signature, sentences, squad_signature, translation_scores
from tl_hub.record import RunRecord
from tl_hub.tasks import sequence_to_sequence
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization, best_sentences
from tl_hub.tasks.sequence_to_sequence import Summarization, Translation

TEXTS = [
    "The river rises in the hills. It ends in the sea.",
    "A baker sells bread. Her brother, who is older, mills the flour that she needs each morning. Both like it.",
    "Snow fell.",
    "Tigers eat deer and wild boar above all; a baby of the animal goes by the name of a cub. It can swim.",
]
SUMMARIES = ["A river flows to the sea.", "The baker's brother mills her flour.", "It snowed.", "Tigers eat deer."]
ROWS = Dataset.from_dict({"source": TEXTS, "references": [[text] for text in SUMMARIES]})
TASK = Summarization(max_source_length=48, max_target_length=12, beams=3)
CLASSES = {"t5": "AutoModelForSeq2SeqLM", "gpt2": "AutoModelForCausalLM"}


def loaded(checkpoints: Any, family: str, task: Any = TASK) -> tuple[Any, Any]:
    """A model with the weights of larger steps, or all texts would be one token repeated."""
    model, tokenizer = checkpoints(family, CLASSES[family])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0 if family == "gpt2" else 1.0).add_(0.1 * torch.randn_like(parameter))
    task.adapt(tokenizer, model)
    return model.eval(), tokenizer


def batches(task: Any, features: Dataset, tokenizer: Any, training: bool) -> tuple[dict, list[dict]]:
    """All features in one batch, and each in a batch of its own."""
    kept = features.select_columns([name for name in task.batched if name in features.column_names]).to_list()
    collate = task.collator(tokenizer, training)
    return collate(kept), [collate([feature]) for feature in kept]


def test_rouge_is_that_of_the_library() -> None:
    predictions = ["The cats sat. They ran home.", "", "Dogs bark"]
    references = [["The cat sat.", "They run home. A cat sits."], ["Nothing."], ["A dog barks. It is loud!"]]
    found = rouge_scores(predictions, references)
    scorer = RougeScorer([*found], use_stemmer=True)
    for row, texts in enumerate(references):
        lines = [text.replace(". ", ".\n").replace("! ", "!\n") for text in texts]
        scores = [scorer.score(line, predictions[row].replace(". ", ".\n")) for line in lines]
        for name, values in found.items():
            assert values[row] == pytest.approx(100 * max(score[name].fmeasure for score in scores))
    computed = RougeMetric().compute(predictions=predictions, references=references)
    assert computed == pytest.approx({name: values.mean() for name, values in found.items()})


def test_rouge_of_another_script_counts_words() -> None:
    scores = rouge_scores(["도나우 강은 흑해로 흐른다."], [["도나우 강은 길다."]])
    assert scores["rouge1"] == pytest.approx(100 * 2 * 2 / (4 + 3))


def test_chinese_and_japanese_are_counted_by_character_and_split_without_blanks() -> None:
    """As if each character were a word of its own, which is what sacreBLEU's tokenizer for Chinese makes of them."""
    predictions, references = ["多瑙河流入黑海。GPT2模型"], [["多瑙河很长。它流入黑海。"]]
    spaced = TokenizerZh()(references[0][0]), TokenizerZh()(predictions[0])
    expected = RougeScorer(["rouge1", "rouge2"], tokenizer=Spaces()).score(*spaced)
    found = rouge_scores(predictions, references)
    for name, score in expected.items():
        assert found[name] == pytest.approx([100 * score.fmeasure]) and 0 < score.fmeasure < 1
    assert "each character" in rouge_signature(references) and "each character" not in rouge_signature([["한국어"]])
    text = "他说：“好。”然后走了！真的？ 是的. Yes."
    assert sentences(text) == ["他说：“好。”", "然后走了！", "真的？", "是的.", "Yes."]
    split = ["今天下雨。", "多瑙河流入黑海。", "很好。"]
    assert best_sentences(split, ["多瑙河流到黑海"], most=1) == [1]


class Spaces:
    def tokenize(self, text: str) -> list[str]:
        return [word for word in text.lower().split() if word not in "。"]


@pytest.mark.parametrize("other", [["2023년"], ["COVID 백신", "그는 2023년에 왔다."]])
def test_a_digit_or_a_foreign_word_does_not_change_the_words_of_a_script(other: list[str]) -> None:
    """`rouge_score`'s own tokenizer finds no words in Korean: a perfect summary had 0."""
    references = [["도나우 강은 흑해로 흐른다."], other]
    scores = rouge_scores(["도나우 강은 흑해로 흐른다.", other[0]], references)
    assert scores["rouge1"].tolist() == scores["rougeL"].tolist() == [100, 100]
    assert "Porter" not in rouge_signature(references)


def test_a_signature_says_what_was_counted() -> None:
    """By what two figures of the same texts differ: the words that a third counts as one, two or six."""
    counted = {"ไปบ้าน": "each character of scripts without blanks", "黒海": "of Chinese and Japanese each character"}
    for text, unit in counted.items():
        half = rouge_scores([text[: len(text) // 2]], [[text]])["rouge1"]
        assert half == pytest.approx([200 / 3]), "half of the characters, all of them right"
        assert unit in rouge_signature([[text]])
    assert rouge_scores(["흑"], [["흑해"]])["rouge1"] == 0
    assert rouge_signature([["흑해"]]).split(", ")[2] == "words of any script without stemming"
    assert len({squad_signature([[text]]) for text in ("sea", "흑해", "黒海")}) == 3
    assert squad_signature([["黒海"]]) == squad_signature([["ไปบ้าน"]])


def test_foreign_words_in_latin_text_are_left_out_as_the_library_does() -> None:
    references = [["The Danube (도나우) flows to the sea."], ["42"]]
    scores = rouge_scores(["The Danube flowed to the sea.", "42"], references)
    assert scores["rouge1"].tolist() == [100, 100]
    assert "Porter stemmer" in rouge_signature(references)


def test_a_single_reference_may_be_a_text() -> None:
    flat = RougeMetric().compute(predictions=["a b", "c d"], references=["a b", "c e"])
    assert flat == RougeMetric().compute(predictions=["a b", "c d"], references=[["a b"], ["c e"]])
    assert flat["rouge1"] == pytest.approx(75)


def test_translation_scores_are_those_of_the_library() -> None:
    predictions = ["Der Fluss fließt ins Meer.", "Es hat heute geschneit.", "Guten Tag"]
    references = ["Der Fluss endet im Meer.", "Es hat geschneit.", "Guten Abend"]
    one_each = [[text] for text in references]
    found = translation_scores(predictions, one_each, resamples=200)
    assert found["bleu"]["value"] == sacrebleu.corpus_bleu(predictions, [references]).score
    assert found["chrf"]["value"] == sacrebleu.corpus_chrf(predictions, [references]).score
    assert all(score["low"] < score["value"] < score["high"] for score in found.values())
    assert "tok:13a" in found["bleu"]["signature"] and "nc:6" in found["chrf"]["signature"]
    characters = sacrebleu.corpus_bleu(predictions, [references], tokenize="char").score
    assert translation_scores(predictions, one_each, "char")["bleu"]["value"] == characters
    computed = TranslationMetric().compute(predictions=predictions, references=references)
    assert computed == {
        "chrf": found["chrf"]["value"], "chrf_signature": found["chrf"]["signature"],
        "bleu": found["bleu"]["value"], "bleu_signature": found["bleu"]["signature"],
    }  # fmt: skip


def test_translation_is_scored_against_all_references() -> None:
    predictions = ["Der Fluss fließt ins Meer.", "Es hat heute geschneit.", "Guten Tag"]
    references = [["Der Fluss endet im Meer.", "Der Strom fließt ins Meer."], ["Es hat geschneit."], ["Guten Abend"]]
    first, second = [texts[0] for texts in references], [references[0][1], None, None]
    computed = TranslationMetric().compute(predictions=predictions, references=references)
    assert computed["bleu"] == sacrebleu.corpus_bleu(predictions, [first, second]).score
    assert computed["chrf"] == sacrebleu.corpus_chrf(predictions, [first, second]).score
    assert computed["bleu"] > sacrebleu.corpus_bleu(predictions, [first]).score
    assert "nrefs:var" in computed["bleu_signature"] and "nrefs:var" in computed["chrf_signature"]


@pytest.mark.parametrize("task", [Summarization(), ExtractiveSummarization()], ids=lambda task: type(task).__name__)
def test_rows_of_one_text_are_measured_once_against_all_their_references(task: Any, tmp_path: Path) -> None:
    """As those of DialogSum's test split, which has three summaries a dialogue, each in a row of its own."""
    rows = [{"text": text, "summary": summary} for text, summary in zip(TEXTS, SUMMARIES, strict=True)]
    again = [{"text": TEXTS[0], "summary": "It flows."}, {"text": TEXTS[2], "summary": SUMMARIES[2]}]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *again]))
    loaded, task = data.load(RunConfig(dataset=str(tmp_path), test_rows=3), task)
    sizes = {name: len(split.rows) for name, split in loaded.splits.items()}
    assert sizes == {"train": 6, "validation": 4, "test": 3}, "each is trained on"
    assert loaded.splits["test"].rows.to_list() == [
        {"source": TEXTS[0], "references": [SUMMARIES[0], "It flows."]},
        {"source": TEXTS[1], "references": [SUMMARIES[1]]},
        {"source": TEXTS[2], "references": [SUMMARIES[2]]},
    ]
    assert any(note.startswith("The 6 rows of the test split are of 4 texts: each is mea") for note in loaded.notes)


def test_several_references_are_counted(checkpoints: Any) -> None:
    model, tokenizer = loaded(checkpoints, "t5")
    rows = Dataset.from_dict({"source": TEXTS[:2], "references": [["It flows.", "A river."], ["Bread."]]})
    features = TASK.encode(rows, tokenizer, model)
    assert features["labels"][0] == tokenizer("It flows.")["input_ids"]
    assert any(note.startswith("2 texts have 3 references") for note in TASK.notes(features))
    assert not any("references" in note for note in TASK.notes(features.select([1])))


def test_korean_is_scored_by_characters() -> None:
    rows = Dataset.from_dict({"source": ["Snow fell."], "references": [["눈이 내렸다."]]})
    korean = Translation(target_language="ko").scores(["눈이 왔다."], rows)
    assert "tok:char" in korean["bleu"]["signature"]
    assert "tok:zh" in Translation(target_language="zh-TW").scores(["下雪了。"], rows)["bleu"]["signature"]


def test_any_language_is_named_to_the_model() -> None:
    task = Translation(source_language="cy", target_language="pt-BR")
    assert task.prompt_parts("t5") == ("translate Welsh to Portuguese:", "")
    assert task.prompt_parts("gpt2") == ("Welsh:", " Portuguese:")
    assert task.languages() == ["cy", "pt-BR"]
    assert Translation(target_language="ko").prompt_parts("t5")[0] == "translate English to Korean:"


def test_t5_reads_its_prefix_and_all_of_a_text_that_fits(checkpoints: Any) -> None:
    model, tokenizer = loaded(checkpoints, "t5")
    features = TASK.encode(ROWS, tokenizer, model)
    assert features[0]["input_ids"] == tokenizer("summarize: " + TEXTS[0])["input_ids"]
    assert features[0]["labels"] == tokenizer(SUMMARIES[0])["input_ids"][:11] + [tokenizer.eos_token_id]
    translation = Translation(max_source_length=128).encode(ROWS, tokenizer, model)
    assert translation[3]["input_ids"] == tokenizer("translate English to German: " + TEXTS[3])["input_ids"]


def test_gpt2_reads_one_natural_text(checkpoints: Any) -> None:
    """Tokens are those of prompt and target written as one text: no doubled blank, no blank of its own token."""
    task = Translation(max_source_length=128)
    model, tokenizer = loaded(checkpoints, "gpt2", task)
    batch, _ = batches(task, task.encode(ROWS, tokenizer, model).select([0]), tokenizer, training=True)
    whole = f"English: {TEXTS[0]} German: {SUMMARIES[0]}"
    assert batch["input_ids"][0].tolist() == [*tokenizer(whole)["input_ids"], tokenizer.eos_token_id]


def test_characters_the_tokenizer_lacks_are_counted_and_refused_where_they_are_many(checkpoints: Any) -> None:
    rows = Dataset.from_dict({"source": TEXTS, "references": [["Ж"], ["It snowed."], ["It."], ["Snow."]]})
    model, tokenizer = loaded(checkpoints, "t5")
    features = TASK.encode(rows, tokenizer, model)
    assert "1 of 4 reference outputs have characters unknown to the tokenizer" in TASK.notes(features)
    with pytest.raises(UserError, match="1 of 1 reference outputs have characters.*GPT-2, which reads bytes"):
        TASK.encode(rows.select([0]), tokenizer, model)
    model, tokenizer = loaded(checkpoints, "gpt2")
    assert not any(TASK.encode(rows, tokenizer, model)["unknown"])


@pytest.mark.parametrize("family", CLASSES)
def test_what_is_cut_is_counted(family: str, checkpoints: Any) -> None:
    model, tokenizer = loaded(checkpoints, family)
    features = TASK.encode(ROWS, tokenizer, model)
    before, after = TASK.prompt_parts(family)
    frame = sum(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (before, after))
    room = TASK.max_source_length - frame - (family == "t5")
    blank = " " if before and family == "gpt2" else ""
    lengths = [len(tokenizer(blank + text, add_special_tokens=False)["input_ids"]) for text in TEXTS]
    assert features["source_cut"][:] == [length > room for length in lengths]
    assert any(features["source_cut"]) and not all(features["source_cut"])
    assert max(len(f.get("input_ids") or f["prompt"]) for f in features) == TASK.max_source_length
    assert TASK.notes(features)[0].startswith(f"{sum(features['source_cut'])} of 4 inputs were longer")
    assert TASK.notes(features.filter(lambda feature: not feature["source_cut"] and not feature["target_cut"])) == []


@pytest.mark.parametrize("family", list(CLASSES))
def test_a_target_is_cut_where_its_last_token_has_no_room_beside_the_end(family: str, checkpoints: Any) -> None:
    model, tokenizer = loaded(checkpoints, family)
    blank = " " if family == "gpt2" else ""
    lengths = [len(tokenizer(blank + text, add_special_tokens=False)["input_ids"]) for text in SUMMARIES]
    longest = sorted(lengths)[2]  # one is as long as the limit, one longer, and the end of the text needs a place too
    features = replace(TASK, max_target_length=longest).encode(ROWS, tokenizer, model)
    written = [len(ids) - 1 for ids in features["labels" if family == "t5" else "target"]]
    assert features["target_cut"][:] == [new < whole for new, whole in zip(written, lengths, strict=True)]
    assert sum(features["target_cut"]) >= 2


def test_gpt2_learns_the_target_only(checkpoints: Any) -> None:
    """The batch's loss is the mean over the targets' tokens, each given its whole prompt, computed one by one."""
    model, tokenizer = loaded(checkpoints, "gpt2")
    features = TASK.encode(ROWS, tokenizer, model)
    batch, _ = batches(TASK, features, tokenizer, training=True)
    losses = []
    with torch.no_grad():
        for feature in features:
            ids = [*feature["prompt"], *feature["target"]]
            scores = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            losses += [-float(scores[i - 1, ids[i]]) for i in range(len(feature["prompt"]), len(ids))]
        assert float(model(**batch).loss) == pytest.approx(np.mean(losses), rel=1e-5)
    assert (batch["labels"] != -100).sum() == sum(len(target) for target in features["target"])


@pytest.mark.parametrize("family", CLASSES)
def test_a_row_in_a_batch_gives_what_it_gives_alone(family: str, checkpoints: Any) -> None:
    model, tokenizer = loaded(checkpoints, family)
    features = TASK.encode(ROWS, tokenizer, model)
    together, alone = batches(TASK, features, tokenizer, training=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "EncDecAttention" in name:
                parameter.mul_(4)  # or a random decoder would hardly look at what it is given
        found = TASK.outputs(model, together)
        assert found.shape == (len(TEXTS), TASK.max_target_length)
        for row, batch in enumerate(alone):
            assert torch.equal(TASK.outputs(model, batch)[0], found[row])
    assert len({tuple(row) for row in found.tolist()}) > 1, "rows differ, or equality would say nothing"


def test_rows_are_read_beside_others_whose_source_is_as_long(checkpoints: Any) -> None:
    """Nothing else is read in generation: a long target beside a short source is no reason to pad it."""
    model, tokenizer = loaded(checkpoints, "t5")
    long, short = " ".join(TEXTS), "Snow fell."
    rows = Dataset.from_dict({"source": [long, short] * 2, "references": [["It."], [long]] * 2})
    task = Summarization(max_source_length=64, max_target_length=64, beams=1)
    task.adapt(tokenizer, model)
    read = []
    examples = data.Data({"train": data.Split(rows)}, "a", "local")
    data.encode(examples, task, tokenizer, model)
    with model.encoder.register_forward_pre_hook(
        lambda module, args, inputs: read.append(inputs["input_ids"].tolist()), with_kwargs=True
    ):
        run = RunConfig(batch_size=1)
        accelerator = launch.start(run)
        training.evaluate(Experiment(run, task, None, None, examples, model, tokenizer, accelerator), split="train")
    assert [len(batch) for batch in read] == [2, 2] and len(read[0][0]) > len(read[1][0])
    assert not [batch for batch in read if any(tokenizer.pad_token_id in ids for ids in batch)]


@pytest.mark.parametrize("family", CLASSES)
def test_one_beam_is_the_likeliest_token_each_time(family: str, checkpoints: Any) -> None:
    task = Summarization(max_source_length=48, max_target_length=8, beams=1)
    model, tokenizer = loaded(checkpoints, family, task)
    features = task.encode(ROWS, tokenizer, model)
    together, _ = batches(task, features, tokenizer, training=False)
    with torch.no_grad():
        found = task.outputs(model, together).tolist()
        for row, feature in enumerate(features):
            written: list[int] = []
            while len(written) < task.max_target_length and tokenizer.eos_token_id not in written:
                if family == "t5":
                    inputs = {"input_ids": torch.tensor([feature["input_ids"]])}
                    inputs["decoder_input_ids"] = torch.tensor([[model.config.decoder_start_token_id, *written]])
                else:
                    inputs = {"input_ids": torch.tensor([[*feature["prompt"], *written]])}
                written.append(int(model(**inputs).logits[0, -1].argmax()))
            assert found[row][: len(written)] == written


@pytest.mark.parametrize("family", CLASSES)
def test_each_setting_of_generation_does_what_it_says(family: str, checkpoints: Any) -> None:
    """By the likelihoods of what is written, each computed in one pass over the whole text, and by counting."""
    plain = Summarization(max_source_length=48, max_target_length=10, beams=4, length_penalty=0.0)
    model, tokenizer = loaded(checkpoints, family, plain)
    features = plain.encode(ROWS, tokenizer, model)
    together, alone = batches(plain, features, tokenizer, training=False)
    # A token that the model writes takes the place of the end, or no text would end before its limit.
    with torch.no_grad():
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(int(plain.outputs(model, together)[0, 4]))

    def written(**changes: Any) -> list[list[int]]:
        with torch.no_grad():
            found = replace(plain, **changes)
            found.adapt(tokenizer, model)
            rows = found.outputs(model, together).tolist()
        end = tokenizer.eos_token_id
        return [ids[: ids.index(end) + 1] if end in ids else ids for ids in rows]

    def likelihoods(texts: list[list[int]]) -> np.ndarray:
        sums = []
        for batch, ids in zip(alone, texts, strict=True):
            with torch.no_grad():
                if family == "t5":
                    start = [model.config.decoder_start_token_id, *ids[:-1]]
                    logits = model(input_ids=batch["input_ids"], decoder_input_ids=torch.tensor([start])).logits[0]
                else:
                    whole = torch.cat([batch["input_ids"], torch.tensor([ids])], 1)
                    logits = model(input_ids=whole).logits[0, -len(ids) - 1 : -1]
            sums.append(float(logits.log_softmax(-1)[range(len(ids)), ids].sum()))
        return np.array(sums)

    best, greedy = written(), written(beams=1)
    gain = likelihoods(best) - likelihoods(greedy)
    assert gain.min() > -1e-4 and gain.max() > 1e-2, "a search finds likelier texts"
    long, short = (written(length_penalty=penalty) for penalty in (4.0, -4.0))
    lengths = np.array([[len(ids) for ids in texts] for texts in (long, short)])
    assert (lengths[0] >= lengths[1]).all() and (lengths[0] > lengths[1]).any()

    def repeats(texts: list[list[int]]) -> list[bool]:
        pairs = [list(zip(ids, ids[1:], strict=False)) for ids in texts]
        return [len(set(each)) < len(each) for each in pairs]

    assert any(repeats(greedy) + repeats(long)), "or the rule would have nothing to do"
    for changes in ({"beams": 1}, {"length_penalty": 4.0}):
        assert not any(repeats(written(**changes, no_repeat_ngram=2)))


def test_t5_loss_does_not_depend_on_padding(checkpoints: Any) -> None:
    model, tokenizer = loaded(checkpoints, "t5")
    together, alone = batches(TASK, TASK.encode(ROWS, tokenizer, model), tokenizer, training=True)
    with torch.no_grad():
        counts = [(batch["labels"] != -100).sum() for batch in alone]
        total = sum(model(**batch).loss * count for batch, count in zip(alone, counts, strict=True))
        assert torch.isclose(model(**together).loss, total / sum(counts), rtol=1e-5)


def test_baselines_are_the_texts_own_sentences() -> None:
    score = TASK_WITHOUT_MODEL.score({"generated": np.zeros((4, 1), int)}, ROWS, ROWS, None)
    table = TASK_WITHOUT_MODEL.baselines(ROWS, score, seed=0)["Baselines"]
    first = [text.split(". ")[0].rstrip(".") for text in TEXTS]
    expected = rouge_scores(first, ROWS["references"][:])["rougeL"].mean()
    assert [row["system"] for row in table] == [
        "this model", "first sentence", "first three sentences", "the whole text",
    ]  # fmt: skip
    assert table[1]["rougeL"] == pytest.approx(expected)
    assert table[3]["rouge1"] == pytest.approx(rouge_scores(TEXTS, ROWS["references"][:])["rouge1"].mean())


def test_three_sentences_are_three() -> None:
    text = "Snow fell. The river froze. A baker sold bread. Nobody came."
    rows = Dataset.from_dict({"source": [text], "references": [["Snow fell. The river froze. A baker sold bread."]]})
    score = TASK_WITHOUT_MODEL.score({"generated": np.zeros((1, 1), int)}, rows, rows, None)
    _, first, three, whole = TASK_WITHOUT_MODEL.baselines(rows, score, seed=0)["Baselines"]
    assert three["rougeLsum"] == 100 > max(first["rougeLsum"], whole["rougeLsum"])


def test_baselines_of_some_rows_stand_beside_the_model_on_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that copies its source is the whole text."""
    rows = Dataset.from_dict({"source": ["snow " * (i + 1) for i in range(20)], "references": [["snow and rain"]] * 20})
    monkeypatch.setattr(sequence_to_sequence, "_BASELINE_ROWS", 3)
    task = Summarization()
    task._tokenizer = SimpleNamespace(batch_decode=lambda ids, **_: ["snow " * int(i + 1) for i in ids[:, 0]])
    score = task.score({"generated": np.arange(20)[:, None]}, rows, rows, None)
    table = {row.pop("system"): row for row in task.baselines(rows, score, seed=0)["Baselines, on 3 rows"]}
    assert table["this model"] == pytest.approx(table["the whole text"])


class SilentTokenizer:
    """A tokenizer by which everything generated is one text."""

    def batch_decode(self, ids: Any, skip_special_tokens: bool) -> list[str]:
        return ["snow"] * len(ids)


TASK_WITHOUT_MODEL = Summarization()
TASK_WITHOUT_MODEL._tokenizer = SilentTokenizer()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"source_language": "xx"}, "--source_language is 'xx'; allowed are af, .* de, .* zh, or de-AT and such"),
        ({"source_language": "de_DE"}, "--source_language is 'de_DE'; allowed are"),
        ({"target_language": "zh-Hant-TW"}, "--target_language is 'zh-Hant-TW'; allowed are"),
        ({"target_language": "French"}, "--target_language is 'French'; give its code, fr"),
        ({"source_language": "de"}, "are both de"),
        ({"source_column": "a"}, "--source_column and --target_column go together"),
        ({"beams": 0}, "--beams is 0; it must be at least 1"),
        ({"max_source_length": 8}, "--max_source_length is 8; it must be at least 16"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Translation(**wrong)


def test_rows_of_both_forms_and_what_is_refused() -> None:
    pairs = Dataset.from_dict({"translation": [{"en": "a", "de": "b"}, {"en": " ", "de": "c"}, {"en": "d", "de": "e"}]})
    assert Translation().check(pairs).to_list() == [
        {"source": "a", "references": ["b"]},
        {"source": "d", "references": ["e"]},
    ]
    with pytest.raises(UserError, match="row 0: translation has en, de; it must have en and ko"):
        Translation(target_language="ko").check(pairs)
    columns = Dataset.from_dict({"x": ["a"], "y": ["b"]})
    assert Translation(source_column="x", target_column="y").check(columns)["source"][:] == ["a"]
    several = Dataset.from_dict({"x": ["a"], "y": [["b", "c"]]})
    assert Translation(source_column="x", target_column="y").check(several)["references"][:] == [["b", "c"]]
    several = Dataset.from_dict({"translation": [{"en": "a", "de": ["b", "c"]}]})
    assert Translation().check(several)["references"][:] == [["b", "c"]]
    several = Dataset.from_dict({"text": ["a"], "summary": [["b", "c"]]})
    assert Summarization().check(several)["references"][:] == [["b", "c"]]
    with pytest.raises(UserError, match="row 0: summary is .*it must be a text"):
        Summarization().check(Dataset.from_dict({"text": ["a"], "summary": [3]}))
    with pytest.raises(UserError, match="none of the 1 rows has a text in both text and summary"):
        Summarization().check(Dataset.from_dict({"text": ["a"], "summary": [" "]}))


@pytest.mark.parametrize("task", [Summarization(), Translation()], ids=lambda task: task.name)
@pytest.mark.parametrize(("family", "reason"), [("bert", "it reads texts and writes none"), ("xlnet", "generate")])
def test_families_that_cannot_are_refused_with_the_reason(
    family: str, reason: str, task: Any, checkpoint_folders: Any
) -> None:
    run = RunConfig(model=str(checkpoint_folders(family)))
    with pytest.raises(UserError, match=rf"{task.name} is not for {family} \(.*{reason}.*\); use t5, gpt2$"):
        base_model.load(run, task)


@pytest.mark.parametrize("method", [Lora(rank=2), FineTune()], ids=lambda method: method.kind)
@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("task_class", [Summarization, Translation], ids=lambda task: task.name)
def test_every_cell_trains_and_loads_back(
    task_class: Any, family: str, method: Any, checkpoint_folders: Any, tmp_path: Path, load_back_here: None
) -> None:
    rows = [
        {"text": text, "summary": summary, "translation": {"en": text, "de": summary}}
        for text, summary in zip(TEXTS * 3, SUMMARIES * 3, strict=True)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = RunConfig(
        output_dir=str(tmp_path / "run"), model=str(checkpoint_folders(family)), batch_size=4, max_steps=2,
        train_file=str(tmp_path / "rows.jsonl"), validation_file=str(tmp_path / "rows.jsonl"), learning_rate=1e-2,
        precision="fp32",
    )  # fmt: skip
    task = task_class(max_source_length=48, max_target_length=6, beams=2)
    accelerator = launch.start(run)
    split, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(split, task, tokenizer, model)
    model = method.wrap(model, base)
    experiment = Experiment(run, task, method, base, split, model, tokenizer, accelerator)
    history = training.train(experiment)
    score = training.evaluate(experiment, split="validation")
    score.tables |= task.baselines(split.splits["validation"].rows, score, run.seed)
    finish.finish(experiment, history, score)

    folder = tmp_path / "run"
    record = RunRecord.load(folder)
    assert record.verification["max_difference"] <= 1e-5
    assert record.verification["loaded_by"] == ["transformers", "peft"][: 2 if method.kind == "adapter" else 1]
    assert record.auto_class == CLASSES[family]
    assert any("were cut" in note for note in record.data.notes)
    assert {"Baselines", "Signatures"} <= set(record.tables) and "### Baselines" in (folder / "README.md").read_text()
    # What the pipeline says of the recorded rows is what the evaluation said of them.
    answers = tl_hub.pipeline(folder)([example["text"] for example in record.examples])
    assert [answer["generated_text"] for answer in answers] == [example["predicted"] for example in record.examples]
    if family == "t5":  # the card's stock calls say the same
        assert record.verification["result"].strip() == record.verification["pipeline_output"]["generated_text"]


def test_sentences_of_a_text_are_joined_and_said(capsys):
    rows = Dataset.from_dict({"text": [["One.", "Two."]], "summary": [["Both."]]})
    assert list(Summarization().check(rows)["source"]) == ["One. Two."]
    assert "joined with blanks" in capsys.readouterr().out
