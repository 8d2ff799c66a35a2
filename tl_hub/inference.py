"""Answers from a run folder or a published repository, for tasks that `transformers.pipeline` no longer has."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import AutoTokenizer

from tl_hub import hub, publishing, samples, verification
from tl_hub.architectures import ARCHITECTURES, longest_input
from tl_hub.errors import UserError, first_line
from tl_hub.feature_model import FeatureModel, read_windows
from tl_hub.features import POOLINGS, depth_of, encoder_of, pooled
from tl_hub.methods.adapters.virtual_tokens import reserve
from tl_hub.record import DataFacts, RunRecord
from tl_hub.tasks import regression
from tl_hub.tasks.classification import Classification, row_means
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization
from tl_hub.tasks.language_modeling import (
    BEAMS,
    FILLED_TOKENS,
    GAP,
    MaskedLanguageModeling,
    PermutationLanguageModeling,
    SpanCorruption,
    objective_of,
)
from tl_hub.tasks.question_answering import QuestionAnswering, answers_of, windows
from tl_hub.tasks.sequence_to_sequence import SequenceToSequence, Summarization, Translation
from tl_hub.tasks.text_generation import TextGeneration


def pipeline(location: str | Path, device: str | None = None, *, revision: str | None = None) -> Any:
    """Load what a recipe made, ready to be called.

    Args:
        location: a run folder, the id of a repository on the Hub that was published from one, or `tiny:<family>`.
        device: as torch names it; a GPU if there is one.
        revision: branch, tag or commit of a repository.

    Raises:
        UserError: no run folder or repository, no access to it, the Hub is out of reach and nothing is cached, no
            weights in safetensors, an adapter's base is missing, or the task has no pipeline here.
    """
    if str(location).startswith("tiny:"):
        folder = samples.checkpoint(str(location).removeprefix("tiny:"))
        record = _embedded(folder.name)
    else:
        folder = publishing.snapshot(location, revision)
        record = RunRecord.load(folder)
    headless = record.auto_class == "AutoModel"  # an encoder, which a loop of one's own may train
    if not headless and record.pipeline_tag not in _PIPELINES:
        sentences = record.auto_class == "SentenceTransformer"
        other = "sentence_transformers.SentenceTransformer" if sentences else "transformers.pipeline"
        raise UserError(f"tl_hub.pipeline has no {record.pipeline_tag}; {other}({str(location)!r}) may")
    verification.check_weights(folder, record)
    transformers.logging.set_verbosity_error()  # the adapter's head is reported missing from the base, as it is
    head_only = record.auto_class == FeatureModel.__name__
    try:
        model = _model(folder, record)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{location} cannot be loaded: {first_line(error)}") from error
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if headless:
        return VectorsPipeline(model.to(device), tokenizer, record.settings.get("max_length"))
    task_class, pipeline_class = _PIPELINES[record.pipeline_tag]
    if head_only and model.settings["in_document"]:
        task_class, pipeline_class = ExtractiveSummarization, ExtractiveSummarizationPipeline
    settings = {k: v for k, v in record.settings.items() if k in task_class.__dataclass_fields__}
    stride = task_class.__dataclass_fields__.get("doc_stride")
    if stride and "max_length" in settings:  # of a loop of one's own, which may have cut texts instead
        settings = {"doc_stride": max(1, min(stride.default, settings["max_length"] // 4))} | settings
    task = task_class(**settings)
    return pipeline_class(model.to(device), tokenizer, task, record.decision)


def _embedded(family: str) -> RunRecord:
    """What is to be known of an embedded checkpoint to use it for what it was pretrained to do."""
    task = objective_of(family)
    return RunRecord(
        name=family,
        kind="pretrained",
        pipeline_tag=task.name,
        auto_class=task.auto_class,
        method={"name": "from scratch"},
        data=DataFacts(id="texts", source="local"),
        metrics=[],
        settings={"whole_target": True},  # of T5, which was taught to write whole texts
    )


def _model(folder: Path, record: RunRecord) -> Any:
    """The model of a run folder, in float32, with its adapter on its base."""
    if record.auto_class == FeatureModel.__name__:
        return FeatureModel.from_pretrained(folder)
    auto_class = getattr(transformers, record.auto_class)
    safe: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    if record.kind != "adapter":
        return auto_class.from_pretrained(folder, **safe)
    config = PeftConfig.from_pretrained(str(folder))
    place, revision = config.base_model_name_or_path, record.base_revision or config.revision
    if not Path(place).is_dir():
        hub.model_facts(place, revision)  # says clearly that it is missing
    base = auto_class.from_pretrained(place, revision=revision, **safe, **record.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks for an attribute that transformers has renamed
        model = PeftModel.from_pretrained(base, folder)
    reserve(model)
    return model


class QuestionAnsweringPipeline:
    """Calls give `answer`, its `score`, and where it stands in the context (`start`, `end`, in characters)."""

    def __init__(self, model: Any, tokenizer: Any, task: QuestionAnswering, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.threshold = decision.get("null_threshold", np.inf)

    @torch.no_grad()
    def __call__(
        self, question: str | list[str], context: str | list[str], batch_size: int = 16
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer a question, or each of a list of questions from its own or one common context.

        Contexts longer than the model's window are read in overlapping windows. The score is the probability of the
        answer among all spans of the context; where the model finds no answer, `answer` is empty, `start` and `end`
        are 0, and the score is the probability of that.

        Raises:
            UserError: a question or context is empty, or their numbers differ.
        """
        questions = [question] if isinstance(question, str) else list(question)
        contexts = [context] * len(questions) if isinstance(context, str) else list(context)
        if len(questions) != len(contexts):
            raise UserError(f"{len(questions)} questions and {len(contexts)} contexts; give one context, or one each")
        if not all(text.strip() for text in questions + contexts):
            raise UserError("a question or context is empty")
        if not questions:
            return []
        columns = windows(
            self.tokenizer,
            questions,
            contexts,
            None,
            list(range(len(questions))),
            **self.task.window_settings(self.tokenizer, self.model),
        )
        features = Dataset.from_dict(columns)
        predictions = _predictions(self, features, batch_size, lambda inputs: self.model(**inputs))
        answers = [self._decided(answer) for answer in answers_of(predictions, features, contexts)]
        return answers[0] if isinstance(question, str) else answers

    def _decided(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer["null_margin"] > self.threshold:
            return {"answer": "", "score": answer["null_score"], "start": 0, "end": 0}
        return {name: answer[name] for name in ("answer", "score", "start", "end")}


class TextClassificationPipeline:
    """Calls give `label`, its `score` (probability) and the `scores` of all classes; in regression the `score` is raw.

    Of a multi-label model `label` and `score` are lists: the labels whose probability reaches the threshold.
    """

    def __init__(self, model: Any, tokenizer: Any, task: Classification, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        task.adapt(tokenizer, model)
        self.labels = [model.config.id2label[i] for i in range(model.config.num_labels)]
        task.multi_label = "threshold" in decision
        task.regression = getattr(model.config, "problem_type", None) == regression.PROBLEM
        self.threshold = decision.get("threshold", 0.0)

    @torch.no_grad()
    def __call__(
        self, text: str | list[str], text_pair: str | list[str] | None = None, batch_size: int = 16
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Classify a text, or each of a list; a model of pairs takes a second text for each.

        Texts longer than the model's window are read in overlapping windows, whose logits are averaged.

        Raises:
            UserError: a text is empty, or second texts are missing, too many or not what the model was trained on.
        """
        texts = _texts(text)
        columns = {"text": texts}
        if (text_pair is not None) != bool(self.task.text_pair_column):
            trained = "pairs: give text_pair" if text_pair is None else "single texts: omit text_pair"
            raise UserError(f"the model was trained on {trained}")
        if text_pair is not None:
            columns["text_pair"] = _texts(text_pair)
            if len(columns["text_pair"]) != len(texts):
                raise UserError(f"{len(texts)} texts and {len(columns['text_pair'])} second ones; give one for each")
        if not texts:
            return []
        features = self.task.encode(Dataset.from_dict(columns), self.tokenizer, self.model)
        predictions = _predictions(self, features, batch_size, lambda inputs: self.model(**inputs))
        if self.task.regression:
            found = self.task.logits(predictions, features)[:, 0].tolist()
            answers = [{"label": self.labels[0], "score": score} for score in found]
            return answers[0] if isinstance(text, str) else answers
        probabilities = self.task.probabilities(predictions, features)
        answers = [self._decided(dict(zip(self.labels, row, strict=True))) for row in probabilities.tolist()]
        return answers[0] if isinstance(text, str) else answers

    def _decided(self, scores: dict[str, float]) -> dict[str, Any]:
        if self.task.multi_label:
            given = [label for label, score in scores.items() if score >= self.threshold]
            return {"label": given, "score": [scores[label] for label in given], "scores": scores}
        label = max(scores, key=scores.__getitem__)
        return {"label": label, "score": scores[label], "scores": scores}


class SequenceToSequencePipeline:
    """Calls give `generated_text`: the summary or the translation of a text."""

    def __init__(self, model: Any, tokenizer: Any, task: SequenceToSequence, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        task.adapt(tokenizer, model)

    @torch.no_grad()
    def __call__(self, text: str | list[str], batch_size: int = 16) -> dict[str, str] | list[dict[str, str]]:
        """Summarize or translate a text, or each of a list, as in the evaluation: a text that is too long is cut.

        Raises:
            UserError: a text is empty.
        """
        texts = _texts(text)
        if not texts:
            return []
        rows = Dataset.from_dict({"source": texts, "references": [[""]] * len(texts)})
        features = self.task.encode(rows, self.tokenizer, self.model)
        predictions = _predictions(self, features, batch_size, lambda inputs: self.task.outputs(self.model, inputs))
        answers = [{"generated_text": text} for text in self.task.texts(predictions["generated"])]
        return answers[0] if isinstance(text, str) else answers


class ExtractiveSummarizationPipeline:
    """Calls give `generated_text`: sentences of a text that say most of it."""

    def __init__(self, model: Any, tokenizer: Any, task: ExtractiveSummarization, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.count = int(decision["sentences"])

    @torch.no_grad()
    def __call__(self, text: str | list[str], batch_size: int = 16) -> dict[str, str] | list[dict[str, str]]:
        """Summarize a text, or each of a list, `batch_size` texts with all their sentences at once.

        Raises:
            UserError: a text is empty.
        """
        texts = _texts(text)
        answers = []
        for sources in _parts(texts, batch_size):
            features = self.task.encode(Dataset.from_dict({"source": sources}), self.tokenizer, self.model)
            batched = features.select_columns([name for name in self.task.batched if name in features.column_names])
            batch = self.task.collator(self.tokenizer, training=False)(batched.to_list())
            inputs = {name: value.to(self.model.device) for name, value in batch.items()}
            logits = self.model(**inputs).logits.cpu().numpy()
            answers += [{"generated_text": text} for text in self.task.summaries(logits, sources, self.count)]
        return answers[0] if isinstance(text, str) else answers


class TextGenerationPipeline:
    """Calls give `generated_text`: what comes after a text, without the text."""

    def __init__(self, model: Any, tokenizer: Any, task: TextGeneration, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        task.adapt(tokenizer, model)

    def __call__(
        self, text: str | list[str], max_new_tokens: int | None = None, top_p: float | None = None, seed: int = 0
    ) -> dict[str, str] | list[dict[str, str]]:
        """Go on with a text, or with each of a list; the same seed gives the same texts.

        Raises:
            UserError: a text is empty.
        """
        max_new_tokens, top_p = max_new_tokens or self.task.max_new_tokens, top_p or self.task.top_p
        found = self.task.continued(self.model, self.tokenizer, _texts(text), max_new_tokens, top_p, seed)
        answers = [{"generated_text": text} for text in found]
        return answers[0] if isinstance(text, str) else answers


class SpanFillingPipeline:
    """Calls give `spans`, what T5 writes for each gap of a text, and `generated_text`, the text with them.

    `SpanCorruption.fill` says what a model gives that was trained to write the whole text.
    """

    def __init__(self, model: Any, tokenizer: Any, task: SpanCorruption, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task

    def __call__(
        self, text: str | list[str], max_new_tokens: int = FILLED_TOKENS, beams: int = BEAMS, batch_size: int = 16
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Fill the gaps `<extra_id_0>`, `<extra_id_1>` and so on of a text, or of each of a list.

        Raises:
            UserError: a text has no gap.
        """
        texts = _texts(text)
        if not all(map(GAP.search, texts)):
            raise UserError("a text has no gap to fill; write <extra_id_0> for the first one")
        parts = _parts(texts, batch_size)
        answers = [a for part in parts for a in self.task.fill(self.model, self.tokenizer, part, max_new_tokens, beams)]
        return answers[0] if isinstance(text, str) else answers


class MaskedWordPipeline:
    """Calls give, for the mask of a text, its likeliest tokens as transformers' fill-mask pipeline gives them."""

    def __init__(self, model: Any, tokenizer: Any, task: MaskedLanguageModeling, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        self.ask = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)

    def __call__(self, text: str | list[str], top_k: int = 5, batch_size: int = 16) -> list[Any]:
        """Fill the mask of a text, or of each of a list; of several masks each has a list of its own.

        Raises:
            UserError: a text has no mask.
        """
        texts = _texts(text)
        if not all(self.tokenizer.mask_token in each for each in texts):
            raise UserError(f"a text has no mask; write {self.tokenizer.mask_token}")
        if not texts:
            return []
        answers = self.ask(texts, top_k=top_k, batch_size=batch_size)
        return [answers] if len(texts) == 1 and not isinstance(text, str) else answers  # it unpacks a list of one


class MaskFillingPipeline:
    """Calls give, for the `<mask>` of a text, its likeliest tokens as transformers' fill-mask pipeline gives them."""

    def __init__(self, model: Any, tokenizer: Any, task: PermutationLanguageModeling, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task

    def __call__(self, text: str | list[str], top_k: int = 5, batch_size: int = 16) -> list[Any]:
        """Fill the one mask of a text, or of each of a list, from both sides.

        Raises:
            UserError: a text has no mask or several.
        """
        answers: list[Any] = []
        for sources in _parts(_texts(text), batch_size):
            inputs = self.tokenizer(sources, return_tensors="pt", padding=True).to(self.model.device)
            ids = inputs["input_ids"]
            masked = ids == self.tokenizer.mask_token_id
            if (wrong := masked.sum(1) != 1).any():
                found = int(masked.sum(1)[wrong][0])
                raise UserError(f"a text has {found} masks; write one {self.tokenizer.mask_token}")
            logits = self.task.at_masks(self.model, self.tokenizer, inputs)
            for row, mask, kept, given in zip(
                ids, masked, inputs["attention_mask"].bool(), logits.float().softmax(1), strict=True
            ):
                scores, tokens = given.topk(top_k)
                filled = [row.masked_fill(mask, token)[kept] for token in tokens.tolist()]
                answers.append(
                    [
                        {"score": score, "token": token, "token_str": piece, "sequence": sequence}
                        for score, token, piece, sequence in zip(
                            scores.tolist(),
                            tokens.tolist(),
                            self.tokenizer.batch_decode(tokens[:, None]),
                            self.tokenizer.batch_decode(filled, skip_special_tokens=True),
                            strict=True,
                        )
                    ]
                )
        return answers[0] if isinstance(text, str) else answers


class VectorsPipeline:
    """Calls give the vector of a text, (hidden,), or those of a list of texts, (texts, hidden): of an `AutoModel`.

    Texts longer than `max_length` tokens (at most what the model reads; 512 if neither is known) are read in windows
    that overlap by a quarter, whose vectors are averaged. T5 is its encoder.

    Raises:
        UserError: a family that is none of this package's, or a prompt or prefix adapter, which no encoder alone has.
    """

    def __init__(self, model: Any, tokenizer: Any, max_length: int | None = None):
        config = model.config
        if config.model_type not in ARCHITECTURES:
            known = ", ".join(ARCHITECTURES)
            raise UserError(
                f"tl_hub.pipeline gives vectors of {known}; transformers.pipeline may, of {config.model_type}"
            )
        if isinstance(model, PeftModel):
            if model.active_peft_config.is_prompt_learning:
                raise UserError("tl_hub.pipeline gives no vectors of a model with a prompt or prefix adapter")
            model = model.get_base_model()
        longest = longest_input(config)
        asked = max_length or longest or 512
        self.model, self.tokenizer, self.max_length = encoder_of(model), tokenizer, min(asked, longest or asked)
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token  # the attention mask leaves padding out

    def __call__(
        self, text: str | list[str], layer: int | None = None, pooling: str = "mean", batch_size: int = 16
    ) -> np.ndarray:
        """Read a text, or each of a list.

        Args:
            layer: 0 is what the embeddings give, k what layer k gives; the top one if not given.
            pooling: of the tokens' vectors, one of `tl_hub.features.POOLINGS`.

        Raises:
            UserError: a text is empty, or there is no such layer or pooling.
        """
        texts, depth = _texts(text), depth_of(self.model)
        layer = depth if layer is None else layer
        if not 0 <= layer <= depth or pooling not in POOLINGS:
            raise UserError(
                f"layer {layer}, pooling {pooling}: give a layer from 0 to {depth}, and {', '.join(POOLINGS)}"
            )
        if not texts:
            return np.empty((0, self.model.config.hidden_size), dtype=np.float32)

        def pool(batch: Any) -> torch.Tensor:
            return pooled(self.model, dict(batch.to(self.model.device)), [layer], [pooling])[0, 0]

        cut = self.max_length, max(1, self.max_length // 4)
        segments = "token_type_ids" in self.tokenizer.model_input_names  # as the model was trained, if by its tokenizer
        size = self.model.config.hidden_size
        vectors = row_means(*read_windows(self.tokenizer, texts, None, *cut, segments, pool, size, batch_size))
        return vectors[0] if isinstance(text, str) else vectors


def _parts(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]


def _predictions(
    pipe: Any, features: Dataset, batch_size: int, compute: Callable[[dict[str, torch.Tensor]], Any]
) -> dict[str, np.ndarray]:
    """What the task of a pipeline predicts of `features`, in their order; those of like length share a batch."""
    batched = features.select_columns([name for name in pipe.task.batched if name in features.column_names])
    collate = pipe.task.collator(pipe.tokenizer, training=False)
    order = np.argsort(features["length"], kind="stable")
    found: dict[str, np.ndarray] = {}
    for places in np.split(order, range(batch_size, len(order), batch_size)):
        batch = collate([batched[i] for i in places.tolist()])
        batch = {name: tensor.to(pipe.model.device) for name, tensor in batch.items()}
        inputs = {name: tensor for name, tensor in batch.items() if name not in pipe.task.scoring_only}
        for name, tensor in pipe.task.predict(compute(inputs), batch).items():
            values = tensor.cpu().numpy()
            found.setdefault(name, np.zeros((len(order), *values.shape[1:]), values.dtype))[places] = values
    return found


def _texts(text: str | list[str]) -> list[str]:
    texts = [text] if isinstance(text, str) else list(text)
    if not all(text.strip() for text in texts):
        raise UserError("a text is empty")
    return texts


_PIPELINES: dict[str, tuple[Any, Any]] = {
    QuestionAnswering.name: (QuestionAnswering, QuestionAnsweringPipeline),
    Classification.name: (Classification, TextClassificationPipeline),
    Summarization.name: (Summarization, SequenceToSequencePipeline),
    Translation.name: (Translation, SequenceToSequencePipeline),
    TextGeneration.name: (TextGeneration, TextGenerationPipeline),
    MaskedLanguageModeling.name: (MaskedLanguageModeling, MaskedWordPipeline),
    SpanCorruption.name: (SpanCorruption, SpanFillingPipeline),
    PermutationLanguageModeling.name: (PermutationLanguageModeling, MaskFillingPipeline),
}

TASKS = [task for task, _ in _PIPELINES.values()]
"""Settings classes of the tasks whose runs are loaded here, and measured anew by `evaluation`."""
