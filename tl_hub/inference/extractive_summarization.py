"""Summaries made of sentences of the text."""

import torch
from datasets import Dataset

from tl_hub.inference.base import call_of_pipeline, checked_texts, parts_of
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization


class ExtractiveSummarizationPipeline:
    """Calls give `generated_text`: sentences of a text that say most of it."""

    def __init__(self, model: Model, tokenizer: Tokenizer, task: ExtractiveSummarization, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model, tokenizer, task
        self.count = int(decision["sentences"])

    @call_of_pipeline
    @torch.no_grad()
    def __call__(self, text: str | list[str], batch_size: int = 16) -> dict[str, str] | list[dict[str, str]]:
        """Summarize a text, or each of a list, `batch_size` texts with all their sentences at once.

        Raises:
            UserError: a text is empty.
        """
        texts = checked_texts(text)
        answers = []
        for sources in parts_of(texts, batch_size):
            encoded = self.task.encode(Dataset.from_dict({"source": sources}), self.tokenizer, self.model)
            batched = encoded.select_columns([name for name in self.task.batched if name in encoded.column_names])
            batch = self.task.collator(self.tokenizer, training=False)(batched.to_list())
            inputs = {name: value.to(self.model.device) for name, value in batch.items()}
            logits = self.task.predict(self.model(**inputs), batch)["logits"].cpu().numpy()
            answers += [{"generated_text": text} for text in self.task.summaries(logits, sources, self.count)]
        return answers[0] if isinstance(text, str) else answers
