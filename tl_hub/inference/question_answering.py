"""Answers to questions from a text."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from tl_hub.calibration import scaled
from tl_hub.errors import UserError
from tl_hub.inference.base import call_of_pipeline, checked_texts, predictions_of
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.question_answering.answers import answers_of
from tl_hub.tasks.question_answering.windows import windows


class QuestionAnsweringPipeline:
    """Calls give `answer`, its `score`, and where it stands in the context (`start`, `end`, in characters)."""

    def __init__(self, model: Model, tokenizer: Tokenizer, task: QuestionAnswering, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.threshold = decision.get("null_threshold", np.inf)
        self.temperature, self.sure_from = decision.get("temperature", 1.0), decision.get("sure_from")

    @call_of_pipeline
    @torch.no_grad()
    def __call__(
        self, question: str | list[str], context: str | list[str], batch_size: int = 16
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Answer a question, or each of a list of questions from its own or one common context.

        Contexts longer than the model's window are read in overlapping windows. The score is the probability of the
        answer among all spans of the context; where the model finds no answer, `answer` is empty, `start` and `end`
        are 0, and the score is the probability of that. A temperature that was fitted in training makes it the
        probability that the answer is right. With `--sure_at` in training, `sure` tells whether it reaches the one that
        was chosen for it.

        Raises:
            UserError: a question or context is empty, or their numbers differ.
        """
        questions, contexts = checked_texts(question, "question"), checked_texts(context, "context")
        contexts = contexts * len(questions) if isinstance(context, str) else contexts
        if len(questions) != len(contexts):
            raise UserError(f"{len(questions)} questions and {len(contexts)} contexts; give one context, or one each")
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
        encoded = Dataset.from_dict(columns)
        predictions = predictions_of(self, encoded, batch_size, lambda inputs: self.model(**inputs))
        answers = [self._decided(answer) for answer in answers_of(predictions, encoded, contexts)]
        return answers[0] if isinstance(question, str) else answers

    def _decided(self, answer: dict[str, Any]) -> dict[str, Any]:
        found = {name: answer[name] for name in ("answer", "score", "start", "end")}
        if answer["null_margin"] > self.threshold:
            found = {"answer": "", "score": answer["null_score"], "start": 0, "end": 0}
        found["score"] = float(scaled(found["score"], self.temperature))
        if self.sure_from is not None:
            found["sure"] = found["score"] >= self.sure_from
        return found
