"""The class of a text, its classes, or its score."""

from typing import Any

import torch
from datasets import Dataset

from tl_hub.errors import UserError
from tl_hub.inference.base import call_of_pipeline, checked_texts, predictions_of
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.classification import Classification, regression


class TextClassificationPipeline:
    """Calls give `label`, its `score` (probability) and the `scores` of all classes; in regression the `score` is raw.

    With `--sure_at` in training, `sure` tells whether the score reaches the one that was chosen for it.

    Of a multi-label model `label` and `score` are lists: the labels whose probability reaches the threshold.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, task: Classification, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        task.adapt(tokenizer, model)
        config: Any = model.config
        self.labels = [config.id2label[i] for i in range(config.num_labels)]
        task.multi_label = "threshold" in decision
        task.regression = getattr(config, "problem_type", None) == regression.PROBLEM
        self.decision = decision

    @call_of_pipeline
    @torch.no_grad()
    def __call__(
        self, text: str | list[str], text_pair: str | list[str] | None = None, batch_size: int = 16
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Classify a text, or each of a list; a model of pairs takes a second text for each.

        Texts longer than the model's window are read in overlapping windows, whose logits are averaged.

        Raises:
            UserError: a text is empty, or second texts are missing, too many or not what the model was trained on.
        """
        texts = checked_texts(text)
        columns = {"text": texts}
        if (text_pair is not None) != bool(self.task.text_pair_column):
            trained = "pairs: give text_pair" if text_pair is None else "single texts: omit text_pair"
            raise UserError(f"the model was trained on {trained}")
        if text_pair is not None:
            columns["text_pair"] = checked_texts(text_pair)
            if len(columns["text_pair"]) != len(texts):
                raise UserError(f"{len(texts)} texts and {len(columns['text_pair'])} second ones; give one for each")
        if not texts:
            return []
        encoded = self.task.encode(Dataset.from_dict(columns), self.tokenizer, self.model)
        predictions = predictions_of(self, encoded, batch_size, lambda inputs: self.model(**inputs))
        if self.task.regression:
            found = self.task.logits(predictions, encoded)[:, 0].tolist()
            answers = [{"label": self.labels[0], "score": score} for score in found]
            return answers[0] if isinstance(text, str) else answers
        probabilities = self.task.probabilities(self.task.logits(predictions, encoded), self.decision)
        answers = [self._decided(dict(zip(self.labels, row, strict=True))) for row in probabilities.tolist()]
        return answers[0] if isinstance(text, str) else answers

    def _decided(self, scores: dict[str, float]) -> dict[str, Any]:
        if self.task.multi_label:
            given = [label for label, score in scores.items() if score >= self.decision["threshold"]]
            return {"label": given, "score": [scores[label] for label in given], "scores": scores}
        label = max(scores, key=scores.__getitem__)
        sure = {"sure": scores[label] >= self.decision["sure_from"]} if "sure_from" in self.decision else {}
        return {"label": label, "score": scores[label], "scores": scores, **sure}
