"""Words that a model was pretrained to fill in: for a mask, a gap, or a mask seen from both sides."""

from typing import Any

import transformers

from tl_hub.errors import UserError
from tl_hub.inference.base import call_of_pipeline, checked_texts, parts_of
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tasks.language_modeling import (
    BEAMS,
    FILLED_TOKENS,
    GAP,
    MaskedLanguageModeling,
    PermutationLanguageModeling,
    SpanCorruption,
)


class SpanFillingPipeline:
    """Calls give `spans`, what T5 writes for each gap of a text, and `generated_text`, the text with them.

    `SpanCorruption.fill` says what a model gives that was trained to write the whole text.
    """

    def __init__(self, model: Model, tokenizer: Tokenizer, task: SpanCorruption, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task

    @call_of_pipeline
    def __call__(
        self, text: str | list[str], max_new_tokens: int = FILLED_TOKENS, beams: int = BEAMS, batch_size: int = 16
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Fill the gaps `<extra_id_0>`, `<extra_id_1>` and so on of a text, or of each of a list.

        Raises:
            UserError: a text has no gap.
        """
        texts = checked_texts(text)
        if not all(map(GAP.search, texts)):
            raise UserError("a text has no gap to fill; write <extra_id_0> for the first one")
        parts = parts_of(texts, batch_size)
        answers = [a for part in parts for a in self.task.fill(self.model, self.tokenizer, part, max_new_tokens, beams)]
        return answers[0] if isinstance(text, str) else answers


class MaskedWordPipeline:
    """Calls give, for the mask of a text, its likeliest tokens as transformers' fill-mask pipeline gives them."""

    def __init__(self, model: Model, tokenizer: Any, task: MaskedLanguageModeling, decision: dict[str, float]):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task
        self.ask = transformers.pipeline("fill-mask", model=model, tokenizer=tokenizer)

    @call_of_pipeline
    def __call__(self, text: str | list[str], top_k: int = 5, batch_size: int = 16) -> list[Any]:
        """Fill the mask of a text, or of each of a list; of several masks each has a list of its own.

        Raises:
            UserError: a text has no mask.
        """
        texts = checked_texts(text)
        if not all(self.tokenizer.mask_token in each for each in texts):
            raise UserError(f"a text has no mask; write {self.tokenizer.mask_token}")
        if not texts:
            return []
        answers = self.ask(texts, top_k=top_k, batch_size=batch_size)
        return [answers] if len(texts) == 1 and not isinstance(text, str) else answers  # it unpacks a list of one


class MaskFillingPipeline:
    """Calls give, for the `<mask>` of a text, its likeliest tokens as transformers' fill-mask pipeline gives them."""

    def __init__(
        self, model: Model, tokenizer: Tokenizer, task: PermutationLanguageModeling, decision: dict[str, float]
    ):
        self.model, self.tokenizer, self.task = model.eval(), tokenizer, task

    @call_of_pipeline
    def __call__(self, text: str | list[str], top_k: int = 5, batch_size: int = 16) -> list[Any]:
        """Fill the one mask of a text, or of each of a list, from both sides.

        Raises:
            UserError: a text has no mask or several.
        """
        answers: list[Any] = []
        for sources in parts_of(checked_texts(text), batch_size):
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
