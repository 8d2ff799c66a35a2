"""Pipelines called with many texts answer as they do one by one; embedded checkpoints have a pipeline by their name."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import pytest
import torch
import transformers

import tl_hub
from tl_hub import evaluation
from tl_hub.errors import UserError
from tl_hub.inference.question_answering import QuestionAnsweringPipeline
from tl_hub.inference.sequence_to_sequence import SequenceToSequencePipeline
from tl_hub.inference.text_classification import TextClassificationPipeline
from tl_hub.inference.token_classification import TokenClassificationPipeline
from tl_hub.inference.vectors import VectorsPipeline
from tl_hub.record import DataFacts, RunRecord, SplitFacts
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.sequence_to_sequence import Summarization
from tl_hub.tasks.token_classification import TokenClassification

SENTENCE = "The river rises in the hills and ends in the sea. "
TEXTS = [f"{number} rivers. {SENTENCE * times}" for number, times in enumerate([4, 1, 5, 2, 9, 3, 12])]


def classify(model: Any, tokenizer: Any, texts: list[str]) -> list[dict[str, Any]]:
    task = Classification(max_length=48, doc_stride=8)  # so that the long ones take several windows
    return TextClassificationPipeline(model, tokenizer, task, {})(texts, batch_size=2)


def answer(model: Any, tokenizer: Any, texts: list[str]) -> list[dict[str, Any]]:
    task = QuestionAnswering(max_length=96, doc_stride=8)
    task.adapt(tokenizer, model)
    return QuestionAnsweringPipeline(model.eval(), tokenizer, task, {})(["Where?"] * len(texts), texts, batch_size=2)


def summarize(model: Any, tokenizer: Any, texts: list[str]) -> list[dict[str, Any]]:
    task = Summarization(max_source_length=64, max_target_length=6, beams=2)
    return SequenceToSequencePipeline(model, tokenizer, task, {})(texts, batch_size=2)


@pytest.mark.parametrize(
    ("family", "auto_class", "ask"),
    [
        ("bert", "AutoModelForSequenceClassification", classify),
        ("xlnet", "AutoModelForQuestionAnswering", answer),
        ("gpt2", "AutoModelForCausalLM", summarize),
    ],
    ids=["classification", "questions", "summarization"],
)
def test_many_texts_are_answered_as_each_alone_and_padded_little(
    family: str, auto_class: str, ask: Any, checkpoints: Any
) -> None:
    model, tokenizer = checkpoints(family, auto_class)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # or a random decoder would say the same of all texts
    lengths: list[int] = []
    hook = model.register_forward_pre_hook(
        lambda _, __, inputs: lengths.append(inputs["input_ids"].size(1)), with_kwargs=True
    )
    together = ask(model, tokenizer, TEXTS)
    seen = [length for length in lengths if length > 1]  # a decoder that goes on reads one token at a time
    hook.remove()
    assert seen == sorted(seen) and len(set(seen)) > 1, "texts of like length share a batch"
    for found, text in zip(together, TEXTS, strict=True):
        (alone,) = ask(model, tokenizer, [text])
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            assert found[name] == (value if isinstance(value, str) else pytest.approx(value, abs=1e-5)), name
    assert len({str(found) for found in together}) > 1, "answers differ, or their order would say nothing"
    assert ask(model, tokenizer, []) == []


def test_of_no_texts_there_are_no_entities(checkpoints: Any) -> None:
    model, tokenizer = checkpoints("bert", "AutoModelForTokenClassification")
    model.config.id2label = {0: "O", 1: "B-river"}
    ask = TokenClassificationPipeline(model, tokenizer, TokenClassification(), {})
    assert ask([]) == [] and ask(TEXTS[:2]) != []


def write_record(folder: Path, kind: Any) -> None:
    """As an own loop leaves it that trains an encoder without a head."""
    data = DataFacts(id="texts.jsonl", source="local", splits={"train": SplitFacts(rows=4)})
    RunRecord(
        name="vectors",
        kind=kind,
        pipeline_tag="feature-extraction",
        auto_class="AutoModel",
        method={"name": "an own loop"},
        data=data,
        metrics=[],
    ).save(folder)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_vectors_of_an_encoder_are_the_means_that_stock_classes_give(
    family: str, checkpoint_folders: Any, tmp_path: Path
) -> None:
    stock = {"t5": transformers.T5EncoderModel}.get(family, transformers.AutoModel)
    model = stock.from_pretrained(checkpoint_folders(family)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folders(family))
    transformers.AutoModel.from_pretrained(checkpoint_folders(family)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_record(tmp_path, "fine-tuned")
    ask = tl_hub.pipeline(tmp_path)
    texts = TEXTS[:3]
    with torch.no_grad():
        for layer in (None, 0, 1):
            found = ask(texts, layer=layer)
            for vector, text in zip(found, texts, strict=True):
                inputs = tokenizer(text, return_tensors="pt")
                states = model(**inputs, output_hidden_states=True).hidden_states[-1 if layer is None else layer]
                assert vector == pytest.approx(states[0].mean(0).numpy(), abs=1e-5)
            assert ask(texts[1], layer=layer) == pytest.approx(found[1], abs=1e-5)
    assert ask([]).shape == (0, model.config.hidden_size)
    with pytest.raises(UserError, match="vectors gives vectors, of which tl_hub has no figure"):
        evaluation.remeasure(tmp_path, test_file="rows.jsonl")
    # A window longer than the model's own is none.
    for asked, size in ((16, 16), (9999, {"bert": 512, "gpt2": 1024}.get(family, 9999))):
        text = SENTENCE * (5 if asked == 16 else 100 if size < asked else 20)
        cut = {"truncation": True, "max_length": size, "stride": size // 4, "return_overflowing_tokens": True}
        with torch.no_grad():
            read = [model(input_ids=torch.tensor([ids])) for ids in tokenizer(text, **cut)["input_ids"]]
        windows = np.stack([outputs.last_hidden_state[0].mean(0).numpy() for outputs in read])
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        vectors = VectorsPipeline(transformers.AutoModel.from_pretrained(tmp_path).eval(), tokenizer, max_length=asked)
        assert (len(windows) > 2) == (size < 9999)
        assert vectors(text) == pytest.approx(windows.mean(0), abs=1e-5)
    for wrong in ({"layer": 99}, {"pooling": "sum"}):
        with pytest.raises(UserError, match="give a layer from 0 to 2, and mean, first"):
            ask("A text.", **wrong)


def test_vectors_of_an_encoder_with_an_adapter(checkpoint_folders: Any, tmp_path: Path) -> None:
    base = checkpoint_folders("bert")
    lora = peft.LoraConfig(target_modules=["query"], init_lora_weights=False)
    prompt = peft.PromptTuningConfig(num_virtual_tokens=2, task_type="FEATURE_EXTRACTION")
    for name, config in {"lora": lora, "prompt": prompt}.items():
        model = peft.get_peft_model(transformers.AutoModel.from_pretrained(base), config).eval()
        model.save_pretrained(tmp_path / name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(base)
        tokenizer.save_pretrained(tmp_path / name)
        write_record(tmp_path / name, "adapter")
        if name == "prompt":
            with pytest.raises(UserError, match="no vectors of a model with a prompt"):
                tl_hub.pipeline(tmp_path / name)
            continue
        with torch.no_grad():
            states = model(**tokenizer(TEXTS[0], return_tensors="pt")).last_hidden_state
        assert tl_hub.pipeline(tmp_path / name)(TEXTS[0]) == pytest.approx(states[0].mean(0).numpy(), abs=1e-5)


def test_an_embedded_checkpoint_does_what_it_was_pretrained_for() -> None:
    filled = tl_hub.pipeline("tiny:bert")("The cat is on the [MASK].")
    assert len(filled) == 5 and filled[0]["sequence"].startswith("the cat is on the")
    assert tl_hub.pipeline("tiny:gpt2")("The city of Paris", max_new_tokens=8)["generated_text"]
    whole = tl_hub.pipeline("tiny:t5")("The city of <extra_id_0> is the capital of France.")["generated_text"]
    assert whole.endswith("is the capital of France."), "it writes whole texts"
    assert len(tl_hub.pipeline("tiny:xlnet")("The cat is on the <mask>.")) == 5
    with pytest.raises(UserError, match="tiny:roberta is not embedded; there are tiny:bert"):
        tl_hub.pipeline("tiny:roberta")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"question": "Who?"}, "'text'; it takes text, "),
        ({"text": "The [MASK].", "question": "Who?"}, "'question'; it takes text, "),
        ({"text": None}, "a text is of type NoneType; give a str, or a list of them"),
        ({"text": ["The [MASK].", 3]}, "a text is of type int"),
        ({"text": [" "]}, "a text is empty"),
    ],
)
def test_what_a_pipeline_cannot_read_is_a_users_mistake(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        tl_hub.pipeline("tiny:bert")(**given)
    assert says in str(refused.value)


def test_a_question_that_is_no_text_is_a_users_mistake(checkpoint_folders: Any) -> None:
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(checkpoint_folders("bert"))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint_folders("bert"))
    with pytest.raises(UserError, match="a question is of type NoneType"):
        QuestionAnsweringPipeline(model, tokenizer, QuestionAnswering(), {})(None, "A context.")  # type: ignore[arg-type]


def test_few_texts_are_read_without_a_bar(checkpoint_folders: Any, capfd: Any) -> None:
    """And who has bars has them afterwards."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint_folders("bert"))
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint_folders("bert"))
    datasets.enable_progress_bars()
    try:
        capfd.readouterr()
        classify(model, tokenizer, TEXTS)
        assert "tokenizing" not in capfd.readouterr().err
        assert not datasets.are_progress_bars_disabled()
    finally:
        datasets.disable_progress_bars()


def test_a_place_that_is_not_there_is_called_as_the_caller_called_it() -> None:
    for call in (tl_hub.pipeline, tl_hub.verify):
        with pytest.raises(UserError) as refused:
            call("no/folder")
        assert str(refused.value).startswith("no/folder: no such folder here") and "--model" not in str(refused.value)
