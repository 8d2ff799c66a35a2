"""Text generation: go on with a text, token by token, in the style of the texts a model was adapted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tl_hub import on_disk
from tl_hub.architectures import ARCHITECTURES, Objective, longest_input
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.metrics import distinct, repetition
from tl_hub.model_types import Tokenizer
from tl_hub.on_use import torch, transformers
from tl_hub.tasks.base import Collator, Score, give_padding
from tl_hub.tasks.language_modeling import CausalLanguageModeling, blocks, joined

if TYPE_CHECKING:
    from datasets import Dataset

PROMPT = 16
"""Tokens of a held-out text that a measured continuation goes on from."""
SAMPLES = 64
"""Held-out texts that are continued."""
_BATCH = 16


@dataclass(kw_only=True)
class TextGeneration(CausalLanguageModeling):
    """Predict each token from those before it (Radford et al. 2019, section 2), and sample texts that way.

    Texts are joined by the end-of-text token. Blocks of `max_length` overlap by one token, so that each token is
    predicted exactly once: `bits_per_byte` (Gao et al. 2020, https://arxiv.org/abs/2101.00027), the only one of
    the figures that is comparable across tokenizers, counts them all. Blank texts are left out.

    XLNet was pretrained to predict tokens in random orders from both sides. Here it is adapted to one order, left to
    right (attn_type="uni"), in which its training, its perplexity and its sampling (`decode`) are those of a causal
    model. Before training, its figures show only how far it was from that.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "text-generation"
    tuned_as: ClassVar[str | None] = None
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("causal", "permutation")
    refused: ClassVar[dict[Objective, str]] = {
        "masked": "it predicts a word from both sides",
        "span": "its decoder answers an encoded text and does not go on with one",
    }

    max_new_tokens: int = flag(48, "tokens of a continuation")
    top_p: float = flag(0.95, "sample from the likeliest tokens that have this share of the probability")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_new_tokens < 1:
            raise UserError(f"--max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p is {self.top_p}; it must lie above 0, up to 1")

    def config_for(self, model_type: str) -> dict[str, Any]:
        return dict(ARCHITECTURES[model_type].left_to_right)

    def adapt(self, tokenizer: Tokenizer, model: Any) -> None:
        """Nothing that counts sees the padding, so GPT-2's end-of-text token serves.

        Raises:
            UserError: an XLNet that reads from both sides, which gives no probability of a next token.
        """
        for name, value in ARCHITECTURES[model.config.model_type].left_to_right.items():
            if getattr(model.config, name) != value:
                raise UserError(f'this model reads from both sides; text generation needs one with {name}="{value}"')
        give_padding(tokenizer, model)

    def objective(self, model: Any) -> torch.nn.Module:
        from tl_hub.tasks import objectives  # it needs torch, for which --help does not wait

        return objectives.NextToken(model) if ARCHITECTURES[model.config.model_type].left_to_right else model

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        collate = super().collator(tokenizer, training)

        def without_mask(encoded: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            # Padding is on the right, where no token that counts sees it, and XLNet from left to right takes no mask.
            return {name: tensor for name, tensor in collate(encoded).items() if name != "attention_mask"}

        return without_mask

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Any) -> Dataset:
        ids, ends = joined(rows, tokenizer, tokenizer.eos_token_id, before=[tokenizer.eos_token_id])
        window = self.window(model)
        longest = longest_input(model.config)
        if longest and longest < PROMPT + self.max_new_tokens:
            raise UserError(
                f"--max_new_tokens is {self.max_new_tokens}; the model reads {longest} tokens, of which "
                f"{PROMPT} are a prompt's"
            )
        return blocks(ids, ends, range(0, len(ids) - 1, window - 1), size=window, least=2)

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        score = super().score(predictions, rows, encoded, decision)
        size = sum(len(text.encode()) for text in on_disk.Cells(rows, "text"))
        per_byte = predictions["tokens"].sum() / size / np.log(2)  # the loss is of tokens, in nats
        score.metrics["bits_per_byte"] = score.metrics["loss"] * per_byte
        if "loss" in score.intervals:
            low, high = score.intervals["loss"]
            score.intervals["bits_per_byte"] = (low * per_byte, high * per_byte)
        return score

    def continued(
        self, model: Any, tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int, top_p: float, seed: int
    ) -> list[str]:
        """Sampled continuations of `prompts`, without them. The same seed and prompts give the same texts."""
        window = longest_input(model.config)
        room = max(1, window - max_new_tokens) if window else None
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in prompts]
        # A model with a window goes on from the end of a long prompt; from nothing, from the start of a text.
        ids = [(text or [tokenizer.eos_token_id])[-room if room else 0 :] for text in ids]
        model.eval()
        texts: list[str] = []
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            for first in range(0, len(ids), _BATCH):
                part = ids[first : first + _BATCH]
                if ARCHITECTURES[model.config.model_type].left_to_right:
                    new = decode(model, part, max_new_tokens, tokenizer.eos_token_id, top_p)
                else:
                    batch = left_padded(part, model.config.pad_token_id)
                    found = model.generate(
                        **{name: tensor.to(model.device) for name, tensor in batch.items()},
                        do_sample=True,
                        top_p=top_p,
                        top_k=0,
                        max_new_tokens=max_new_tokens,
                        eos_token_id=tokenizer.eos_token_id,
                        pad_token_id=model.config.pad_token_id,
                    )
                    new = found[:, batch["input_ids"].size(1) :].tolist()
                texts += tokenizer.batch_decode(new, skip_special_tokens=True)
        return texts

    def report(
        self,
        score: Score,
        rows: Dataset,
        model: Any,
        tokenizer: Tokenizer,
        *,
        folder: Path,
        seed: int,
        before: Score | None = None,
    ) -> None:
        if before:
            score.tables |= self.baselines(before, score)
        self.add_samples(score, model, tokenizer, rows, seed)

    def add_samples(self, score: Score, model: Any, tokenizer: Tokenizer, rows: Dataset, seed: int) -> None:
        """Continue the first 16 tokens of held-out texts, and add the texts and how varied they are to `score`.

        `distinct_1` and `distinct_2` are of all continuations together, `repetition` (of 4-grams) is of each. All
        count words, so that tokenizers can be compared; the more words, the lower `distinct` gets.
        """
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in rows["text"][: 20 * SAMPLES]]
        long = [text for text in ids if len(text) > PROMPT] or ids
        prompts = tokenizer.batch_decode([text[:PROMPT] for text in long[:SAMPLES]])
        expected = tokenizer.batch_decode([text[PROMPT : PROMPT + self.max_new_tokens] for text in long[:SAMPLES]])
        continued = self.continued(model, tokenizer, prompts, self.max_new_tokens, self.top_p, seed)
        words = [text.split() for text in continued]
        score.metrics["distinct_1"] = np.asarray(distinct(words, 1))
        score.metrics["distinct_2"] = np.asarray(distinct(words, 2))
        repeated = np.array([repetition(text) for text in words])
        if not np.isnan(repeated).all():
            score.metrics["repetition"] = repeated
        score.counts |= {"distinct_1": len(words), "distinct_2": len(words)}
        score.predictions = [
            {"text": prompt, "expected": text, "predicted": found}
            for prompt, text, found in zip(prompts, expected, continued, strict=True)
        ]


def decode(
    model: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, end: int, top_p: float | None = None
) -> list[list[int]]:
    """Go on with token ids until `end`, by a model whose logits at a token are of the next one.

    This is for XLNet: its own `generate` asks a second stream for a dummy token after the text, as in permutation
    language modelling, and a model trained to predict the next token from each token must not be asked that way.
    Rows are padded on the right, where a model that reads from left to right cannot see it: XLNet with attn_type="uni"
    takes no mask for more than one row. Nothing is cached; each step reads the whole text anew.

    Args:
        top_p: sample from the likeliest tokens that have this share of the probability; the likeliest token if None.

    Returns:
        The new ids of each row, `end` left out.
    """
    lengths = torch.tensor([len(ids) for ids in prompts], device=model.device)
    rows = torch.arange(len(prompts), device=model.device)
    texts = torch.full((len(prompts), int(lengths.max()) + max_new_tokens), end, device=model.device)
    for row, ids in enumerate(prompts):
        texts[row, : len(ids)] = torch.tensor(ids)
    ended = torch.zeros(len(prompts), dtype=torch.bool, device=model.device)
    for place in range(max_new_tokens):
        read = texts[:, : int(lengths.max()) + place]
        with torch.no_grad():
            scores = model(input_ids=read, use_mems=False).logits[rows, lengths + place - 1].float()
        if top_p is None:
            token = scores.argmax(1)
        else:
            token = torch.multinomial(transformers.TopPLogitsWarper(top_p)(read, scores).softmax(1), 1)[:, 0]
        texts[rows, lengths + place] = token.masked_fill(ended, end)
        ended |= token == end
        if ended.all():
            break
    new = [text[n : n + max_new_tokens] for text, n in zip(texts.tolist(), lengths.tolist(), strict=True)]
    return [ids[: ids.index(end)] if end in ids else ids for ids in new]


def left_padded(texts: Sequence[Sequence[int]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Token ids as a batch to go on from: `input_ids` and `attention_mask`, (texts, longest), padded on the left."""
    longest = max(len(ids) for ids in texts)
    return {
        "input_ids": torch.tensor([[pad_token_id] * (longest - len(ids)) + [*ids] for ids in texts]),
        "attention_mask": torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in texts]),
    }
