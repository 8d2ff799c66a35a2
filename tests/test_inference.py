"""Pipelines called with many texts answer as they do one by one; embedded checkpoints have a pipeline by their name."""

from typing import Any

import pytest
import torch

import tl_hub
from tl_hub.errors import UserError
from tl_hub.inference import QuestionAnsweringPipeline, SequenceToSequencePipeline, TextClassificationPipeline
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.sequence_to_sequence import Summarization

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


def test_an_embedded_checkpoint_does_what_it_was_pretrained_for() -> None:
    filled = tl_hub.pipeline("tiny:bert")("The cat is on the [MASK].")
    assert len(filled) == 5 and filled[0]["sequence"].startswith("the cat is on the")
    assert tl_hub.pipeline("tiny:gpt2")("The city of Paris", max_new_tokens=8)["generated_text"]
    whole = tl_hub.pipeline("tiny:t5")("The city of <extra_id_0> is the capital of France.")["generated_text"]
    assert whole.endswith("is the capital of France."), "it writes whole texts"
    assert len(tl_hub.pipeline("tiny:xlnet")("The cat is on the <mask>.")) == 5
    with pytest.raises(UserError, match="tiny:roberta is not embedded; there are tiny:bert"):
        tl_hub.pipeline("tiny:roberta")
