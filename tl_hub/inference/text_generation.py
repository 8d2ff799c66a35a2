"""Texts that a model goes on with."""

from tl_hub.inference.base import call_of_pipeline, checked_texts
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.language_modeling import CausalLanguageModeling
from tl_hub.tasks.text_generation import TextGeneration


class TextGenerationPipeline:
    """Calls give `generated_text`: what comes after a text, without the text."""

    def __init__(self, model: Model, tokenizer: Tokenizer, task: CausalLanguageModeling, decision: dict[str, float]):
        # Pretraining has no settings of sampling: those of text generation serve.
        self.task = task if isinstance(task, TextGeneration) else TextGeneration(max_length=task.max_length)
        self.model, self.tokenizer = model.eval(), tokenizer
        self.task.adapt(tokenizer, model)

    @call_of_pipeline
    def __call__(
        self, text: str | list[str], max_new_tokens: int | None = None, top_p: float | None = None, seed: int = 0
    ) -> dict[str, str] | list[dict[str, str]]:
        """Go on with a text, or with each of a list; the same seed gives the same texts.

        Raises:
            UserError: a text is empty.
        """
        max_new_tokens, top_p = max_new_tokens or self.task.max_new_tokens, top_p or self.task.top_p
        found = self.task.continued(self.model, self.tokenizer, checked_texts(text), max_new_tokens, top_p, seed)
        answers = [{"generated_text": text} for text in found]
        return answers[0] if isinstance(text, str) else answers
