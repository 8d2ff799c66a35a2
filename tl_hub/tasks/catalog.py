"""Facts about each task that need no torch: cards, pipelines, `tl-hub verify` and records are made from them.

A task is one entry here, one module beside it and one in `tl_hub.inference`. Several tasks may share a tag of the Hub.
"""

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tl_hub.record import RunRecord


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a reader and a loader must know of a task.

    Attributes:
        tag: the Hub's pipeline tag.
        tags: further tags on the Hub.
        does: what a model of this task does, as the end of a sentence.
        reads: the texts that its pipeline is called with: columns of a record's examples, the longest last.
        settings: the class of its settings, as "module:class".
        pipeline: the class that `tl_hub.pipeline` makes, likewise.
        paper: title and URL of what it is measured by.
        windows: what becomes of the outputs for the windows of a long text, in a sentence.
        no_answer: what a card shows for a prediction that is empty, and for an expected answer.
        right_or_wrong: an answer is one or the other, and nothing between.
        stock_calls: class that loads the model -> template, in templates/calls, of the stock calls that read a row.
    """

    tag: str
    does: str
    tags: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    settings: str | None = None
    pipeline: str | None = None
    paper: tuple[str, str] | None = None
    no_answer: str = "nothing"
    right_or_wrong: bool = False
    windows: str = "The logits of the windows are averaged."
    stock_calls: dict[str, str] = field(default_factory=dict)


_CLASSIFICATION = "tl_hub.tasks.classification:Classification"
_CLASSIFIES = "tl_hub.inference.text_classification:TextClassificationPipeline"
_LANGUAGE_MODELING = "tl_hub.tasks.language_modeling"
_GENERATES = "tl_hub.inference.text_generation:TextGenerationPipeline"
_REWRITES = "tl_hub.inference.sequence_to_sequence:SequenceToSequencePipeline"
_ROUGE = ("ROUGE: Lin 2004", "https://aclanthology.org/W04-1013")

CATALOG = {
    "question-answering": TaskFacts(
        tag="question-answering",
        does="answers a question with a span of a given text",
        reads=("question", "context"),
        settings="tl_hub.tasks.question_answering:QuestionAnswering",
        pipeline="tl_hub.inference.question_answering:QuestionAnsweringPipeline",
        paper=("SQuAD, exact match and F1: Rajpurkar et al. 2016", "https://arxiv.org/abs/1606.05250"),
        no_answer="no answer",
        right_or_wrong=True,
        stock_calls={"AutoModelForQuestionAnswering": "question-answering"},
    ),
    "text-classification": TaskFacts(
        tag="text-classification",
        does="assigns texts to classes",
        reads=("text",),
        settings=_CLASSIFICATION,
        pipeline=_CLASSIFIES,
        right_or_wrong=True,
        stock_calls={"AutoModelForSequenceClassification": "text-classification", "FeatureModel": "feature-model"},
    ),
    "text-regression": TaskFacts(
        tag="text-classification",
        does="gives texts a score",
        reads=("text",),
        settings=_CLASSIFICATION,
        pipeline=_CLASSIFIES,
        stock_calls={"AutoModelForSequenceClassification": "text-regression", "FeatureModel": "feature-model"},
    ),
    "token-classification": TaskFacts(
        tag="token-classification",
        does="finds entities in texts",
        reads=("text",),
        settings="tl_hub.tasks.token_classification:TokenClassification",
        pipeline="tl_hub.inference.token_classification:TokenClassificationPipeline",
        paper=("CoNLL-2003, F1 of entities: Tjong Kim Sang and De Meulder 2003", "https://aclanthology.org/W03-0419"),
        no_answer="no entity",
        right_or_wrong=True,
        windows="Each word is tagged in the window in which it has most context.",
        stock_calls={"AutoModelForTokenClassification": "token-classification"},
    ),
    "summarization": TaskFacts(
        tag="summarization",
        does="summarizes texts",
        reads=("text",),
        settings="tl_hub.tasks.sequence_to_sequence:Summarization",
        pipeline=_REWRITES,
        paper=_ROUGE,
        stock_calls={"AutoModelForSeq2SeqLM": "sequence-to-sequence"},
    ),
    "extractive-summarization": TaskFacts(
        tag="summarization",
        does="summarizes texts",
        reads=("text",),
        settings="tl_hub.tasks.extractive_summarization:ExtractiveSummarization",
        pipeline="tl_hub.inference.extractive_summarization:ExtractiveSummarizationPipeline",
        paper=_ROUGE,
    ),
    "translation": TaskFacts(
        tag="translation",
        does="translates texts",
        reads=("text",),
        settings="tl_hub.tasks.sequence_to_sequence:Translation",
        pipeline=_REWRITES,
        paper=("chrF: Popović 2015", "https://aclanthology.org/W15-3049"),
        stock_calls={"AutoModelForSeq2SeqLM": "sequence-to-sequence"},
    ),
    "text-generation": TaskFacts(
        tag="text-generation",
        does="continues texts",
        reads=("text",),
        settings="tl_hub.tasks.text_generation:TextGeneration",
        pipeline=_GENERATES,
        stock_calls={"AutoModelForCausalLM": "text-generation"},
    ),
    "causal-language-modeling": TaskFacts(
        tag="text-generation",
        does="continues texts",
        reads=("text",),
        settings=f"{_LANGUAGE_MODELING}:CausalLanguageModeling",
        pipeline=_GENERATES,
        stock_calls={"AutoModelForCausalLM": "text-generation"},
    ),
    "masked-language-modeling": TaskFacts(
        tag="fill-mask",
        does="predicts the masked words of a text",
        reads=("text",),
        settings=f"{_LANGUAGE_MODELING}:MaskedLanguageModeling",
        pipeline="tl_hub.inference.masked_words:MaskedWordPipeline",
        stock_calls={"AutoModelForMaskedLM": "masked-language-modeling"},
    ),
    "span-corruption": TaskFacts(
        tag="text-generation",
        tags=("text2text-generation",),
        does="fills gaps in texts",
        reads=("text",),
        settings=f"{_LANGUAGE_MODELING}:SpanCorruption",
        pipeline="tl_hub.inference.masked_words:SpanFillingPipeline",
        stock_calls={"AutoModelForSeq2SeqLM": "span-corruption"},
    ),
    "permutation-language-modeling": TaskFacts(
        tag="feature-extraction",
        does="turns texts into vectors",
        reads=("text",),
        settings=f"{_LANGUAGE_MODELING}:PermutationLanguageModeling",
        pipeline="tl_hub.inference.masked_words:MaskFillingPipeline",
        stock_calls={"AutoModelForCausalLM": "permutation-language-modeling"},
    ),
}
"""Task, as `run.json` names it -> its facts."""

_OTHERS = {
    "feature-extraction": TaskFacts(tag="feature-extraction", does="turns texts into vectors"),
    "text2text-generation": TaskFacts(  # to the Hub a sub-task
        tag="text-generation", tags=("text2text-generation",), does="turns texts into texts"
    ),
}
"""Tags of the Hub that another training loop may give, and that no task here has."""


def task_of(record: "RunRecord") -> str | None:
    """The task of a record, by its name in `CATALOG`; None for one that tl_hub has no recipe for.

    Records of version 1 and those of other training loops do not name it: their tag and settings decide, here
    and nowhere else.
    """
    tag, settings = record.pipeline_tag, record.settings
    if record.task:
        return record.task
    if tag == "text-classification" and settings.get("regression"):
        return "text-regression"
    if tag == "summarization" and record.auto_class == "FeatureModel":
        return "extractive-summarization"
    if tag == "text-generation" and "max_new_tokens" not in settings:
        return "causal-language-modeling"
    if tag == "fill-mask":
        return "masked-language-modeling"
    if tag == "text2text-generation" and "noise_density" in settings:
        return "span-corruption"
    if tag == "feature-extraction" and record.auto_class == "AutoModelForCausalLM":
        return "permutation-language-modeling"
    return tag if tag in CATALOG else None


def facts_of(record: "RunRecord") -> TaskFacts:
    """What is known of the task of a record, if only what its tag says."""
    tag = record.pipeline_tag
    return CATALOG.get(task_of(record) or "") or _OTHERS.get(tag) or TaskFacts(tag=tag, does=f"is for {tag}")


def load(place: str) -> Any:
    """The class that an entry names as "module:class". It takes as long to import as torch does."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
