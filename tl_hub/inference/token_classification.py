"""Entities of a text."""

from typing import Any

import torch
from datasets import Dataset

from tl_hub.inference.base import call_of_pipeline, checked_texts, predictions_of
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.token_classification import TokenClassification, entities, labels_in


class TokenClassificationPipeline:
    """Calls give the entities of a text in their order: `label`, `score`, `text`, `start` and `end` (in characters).

    Raises:
        UserError: the model's labels are no tags of entities.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, task: TokenClassification, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        task.labels = labels_in(model.config)
        task.adapt(tokenizer, model)

    @call_of_pipeline
    @torch.no_grad()
    def __call__(
        self, text: str | list[str], batch_size: int = 16
    ) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Find the entities of a text, or of each of a list.

        Texts longer than the model's window are read in overlapping windows; each word is tagged in the one in which
        it has most context. The score of an entity is the mean of its words' probabilities.

        Raises:
            UserError: a text is empty.
        """
        texts = checked_texts(text)
        if not texts:
            return []
        starts, ends = map(list, zip(*map(entities.words_of, texts), strict=True))
        rows = Dataset.from_dict({"text": texts, "start": starts, "end": ends})
        encoded = self.task.encode(rows, self.tokenizer, self.model)
        predictions = predictions_of(self, encoded, batch_size, lambda inputs: self.model(**inputs))
        tags, scores = zip(*self.task.tagged(predictions, encoded, map(len, starts)), strict=True)
        answers = [
            [
                {
                    "label": kind,
                    "score": sum(scores[i][first:last]) / (last - first),
                    "text": each[starts[i][first] : ends[i][last - 1]],
                    "start": starts[i][first],
                    "end": ends[i][last - 1],
                }
                for kind, first, last in entities.entities_of(tags[i])
            ]
            for i, each in enumerate(texts)
        ]
        return answers[0] if isinstance(text, str) else answers
