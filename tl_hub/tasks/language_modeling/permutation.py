"""Permutation language modelling: tokens are predicted in a random order, as XLNet is pretrained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tl_hub.architectures import Objective
from tl_hub.errors import UserError
from tl_hub.model_types import Model, Tokenizer
from tl_hub.on_use import torch, transformers
from tl_hub.tasks.base import Collator, padded
from tl_hub.tasks.language_modeling.base import (
    LanguageModeling,
    blocks,
    check_mask,
    drawn,
    gapped,
    index_of,
    joined,
    one_token,
)

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(kw_only=True)
class PermutationLanguageModeling(LanguageModeling):
    """Predict tokens in a random order of factorisation (Yang et al. 2019, https://arxiv.org/abs/1906.08237).

    Spans of up to 5 tokens, a sixth of all, are predicted (section 2.6), each token from those that come before it in
    the order. Texts are joined by the separator and cut into blocks of one even length that end in
    <sep><cls>, so that nothing is padded; at the end of all texts fewer than two tokens a block are left out.
    """

    # Not text generation: what was trained to see both sides of a token continues a text badly.
    name: ClassVar[str] = "permutation-language-modeling"
    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    pretrained_by: ClassVar[tuple[Objective, ...]] = ("permutation",)
    random_batches: ClassVar[bool] = True

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        check_mask(tokenizer, "permutation")
        end = [tokenizer.sep_token_id, tokenizer.cls_token_id]
        ids, ends = joined(rows, tokenizer, tokenizer.sep_token_id)
        count = -(-len(ids) // (self.window(model) - len(end)))
        size = len(ids) // count // 2 * 2
        if size < 2:
            raise UserError(f"{len(ids)} tokens of text are too few; give more or longer texts")
        return blocks(ids, ends, range(0, count * size, size), size=size, end=end)

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        stock = transformers.DataCollatorForPermutationLanguageModeling(tokenizer)

        def permuted(encoded: list[dict[str, Any]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
            """The labels of each row, and which tokens each token does not see."""
            rows = [{"input_ids": each["input_ids"]} for each in encoded]
            batch = stock(rows)
            while not (batch["labels"] != -100).any():  # there must be something to learn from
                batch = stock(rows)
            return list(zip(batch["labels"], batch["perm_mask"], strict=True))

        def collate(encoded: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            # The stock collator replaces predicted tokens by <mask>, so that those later in the order cannot see them
            # either: that is masked modelling. Equation 3 has them seen, and `perm_mask` alone keeps each from itself.
            all_labels, unseen = map(torch.stack, zip(*drawn(encoded, training, permuted), strict=True))
            given = torch.tensor([each["input_ids"] for each in encoded])
            # It lets separators and <cls>, which every token sees, see predicted tokens: each that is not predicted
            # must be blind to all that are, or it would pass them on from the second layer up.
            hidden = all_labels != -100
            perm_mask = torch.where(hidden[:, :, None], unseen, hidden[:, None].float())
            # It also asks for every token. Only those that count are asked for here, which saves most of the work.
            predicted = [row.nonzero()[:, 0] for row in hidden]
            places = padded(predicted, 0)
            asked = padded([torch.ones_like(row) for row in predicted], 0).bool()
            labels = all_labels.gather(1, places).masked_fill(~asked, -100)
            target_mapping = torch.nn.functional.one_hot(places, all_labels.size(1)).float()
            return {
                "input_ids": given,
                "perm_mask": perm_mask,
                "target_mapping": target_mapping,
                "labels": labels,
                **index_of(encoded),
            }

        return collate

    def shown_examples(self, model: Model, tokenizer: Tokenizer, rows: Dataset, seed: int) -> list[dict[str, Any]]:
        """The beginnings of some texts, each with a word masked that is one token, and what the model puts there."""
        found = []
        for text, expected in gapped(rows, tokenizer.mask_token, seed, self.window(model), one_token(tokenizer)):
            inputs = tokenizer(text, return_tensors="pt").to(model.device)
            predicted = tokenizer.decode(self.at_masks(model, tokenizer, inputs).argmax(-1))
            found.append({"text": text, "expected": expected, "predicted": predicted})
        return found

    def at_masks(self, model: Model, tokenizer: Tokenizer, inputs: Any) -> torch.Tensor:
        """The logits of what stands at the one mask of each text, (batch, vocabulary), from both sides of it."""
        # As in training: no token sees the one that is asked for, and the second stream answers for its place.
        mapping = (inputs["input_ids"] == tokenizer.mask_token_id)[:, None].float()
        with torch.no_grad():
            outputs = model.eval()(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                perm_mask=mapping.expand(-1, mapping.size(2), -1),
                target_mapping=mapping,
                use_mems=False,
            )
        return outputs.logits[:, 0]
