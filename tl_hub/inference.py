"""Answers from a run folder or a published repository, for tasks that `transformers.pipeline` no longer has."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from huggingface_hub import snapshot_download
from transformers import AutoTokenizer

from tl_hub.errors import UserError
from tl_hub.record import RunRecord
from tl_hub.tasks.question_answering import QuestionAnswering, answers_of, windows


def pipeline(location: str | Path, device: str | None = None) -> "QuestionAnsweringPipeline":
    """Load what a recipe made, ready to be called.

    Args:
        location: a run folder, or the id of a repository on the Hub that was published from one.

    Raises:
        UserError: no run folder, or its task has no pipeline here.
    """
    folder = Path(location)
    if not folder.is_dir():
        folder = Path(snapshot_download(str(location)))
    record = RunRecord.load(folder)
    if record.pipeline_tag != QuestionAnswering.name:
        raise UserError(f"tl_hub.pipeline has no {record.pipeline_tag}; transformers.pipeline({str(location)!r}) may")
    transformers.logging.set_verbosity_error()  # the adapter's head is reported missing from the base, as it is
    model = getattr(transformers, record.auto_class).from_pretrained(
        folder, dtype=torch.float32, revision=record.base_revision
    )
    task = QuestionAnswering(
        **{k: v for k, v in record.settings.items() if k in QuestionAnswering.__dataclass_fields__}
    )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return QuestionAnsweringPipeline(model.to(device), AutoTokenizer.from_pretrained(folder), task, record.decision)


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
        batched = features.select_columns([name for name in self.task.batched if name in features.column_names])
        collate = self.task.collator(self.tokenizer, training=False)
        parts = []
        for first in range(0, len(batched), batch_size):
            batch = collate([batched[i] for i in range(first, min(first + batch_size, len(batched)))])
            batch = {name: value.to(self.model.device) for name, value in batch.items()}
            inputs = {name: value for name, value in batch.items() if name not in self.task.scoring_only}
            parts.append(
                {name: value.cpu().numpy() for name, value in self.task.predict(self.model(**inputs), batch).items()}
            )
        predictions = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        answers = [self._decided(answer) for answer in answers_of(predictions, features, contexts)]
        return answers[0] if isinstance(question, str) else answers

    def _decided(self, answer: dict[str, Any]) -> dict[str, Any]:
        if answer["null_margin"] > self.threshold:
            return {"answer": "", "score": answer["null_score"], "start": 0, "end": 0}
        return {name: answer[name] for name in ("answer", "score", "start", "end")}
