"""Summaries and translations that a model writes."""

import torch
from datasets import Dataset

from tl_hub.inference.base import call_of_pipeline, checked_texts, predictions_of
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.sequence_to_sequence import SequenceToSequence


class SequenceToSequencePipeline:
    """Calls give `generated_text`: the summary or the translation of a text."""

    def __init__(self, model: Model, tokenizer: Tokenizer, task: SequenceToSequence, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        task.adapt(tokenizer, model)

    @call_of_pipeline
    @torch.no_grad()
    def __call__(self, text: str | list[str], batch_size: int = 16) -> dict[str, str] | list[dict[str, str]]:
        """Summarize or translate a text, or each of a list, as in the evaluation: a text that is too long is cut.

        Raises:
            UserError: a text is empty.
        """
        texts = checked_texts(text)
        if not texts:
            return []
        rows = Dataset.from_dict({"source": texts, "references": [[""]] * len(texts)})
        encoded = self.task.encode(rows, self.tokenizer, self.model)
        predictions = predictions_of(self, encoded, batch_size, lambda inputs: self.task.outputs(self.model, inputs))
        answers = [{"generated_text": text} for text in self.task.texts(predictions["generated"])]
        return answers[0] if isinstance(text, str) else answers
