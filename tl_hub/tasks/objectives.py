"""Modules around a model whose output has the loss of a task, where the model's own does not."""

from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers.modeling_outputs import CausalLMOutput, MaskedLMOutput

from tl_hub.architectures import ARCHITECTURES


class WithLoss(torch.nn.Module):
    """A model whose loss weighs the classes, smooths the labels or adds R-Drop, which those of `transformers` cannot.

    R-Drop (Liang et al. 2021, https://arxiv.org/abs/2106.14448) takes each batch through the model twice, with other
    dropout. The loss is the mean of both, plus `r_drop` times the mean of the two Kullback-Leibler divergences between
    the two predictions. The paper adds up the two losses in place of their mean, which is twice ours with half its
    weight. Several labels are as many predictions of yes or no, over which the divergences are averaged.
    """

    def __init__(
        self, model: torch.nn.Module, smoothing: float, multi_label: bool, weights: torch.Tensor | None, r_drop: float
    ):
        super().__init__()
        self.model, self.smoothing, self.multi_label, self.weights = model, smoothing, multi_label, weights
        self.r_drop = r_drop

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> Any:
        outputs = self.model(**inputs)
        logits = outputs.logits.float()
        outputs.loss = self._loss(logits, labels)
        if self.r_drop and self.model.training:
            again = self.model(**inputs).logits.float()
            both = (outputs.loss + self._loss(again, labels)) / 2
            outputs.loss = both + self.r_drop * self._divergence(logits, again, labels)
        return outputs

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        weights = None if self.weights is None else self.weights.to(logits.device)
        if self.multi_label:
            labels = labels * (1 - self.smoothing) + self.smoothing / 2
            return binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
        return cross_entropy(logits, labels, weights, label_smoothing=self.smoothing)

    def _divergence(self, one: torch.Tensor, other: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Mean of the divergences in both directions, (); rows count as much as in the loss."""
        if self.multi_label:
            apart = (one.sigmoid() - other.sigmoid()) * (one - other)  # of yes and of no, in both directions
            return apart.mean() / 2
        apart = (one.softmax(1) - other.softmax(1)) * (one.log_softmax(1) - other.log_softmax(1))
        counts = torch.ones_like(one[:, 0]) if self.weights is None else self.weights.to(one.device)[labels]
        return (apart.sum(1) * counts).sum() / counts.sum() / 2


def balanced(counts: torch.Tensor, rows: int, multi_label: bool) -> torch.Tensor:
    """How much a row of each class counts, or the answer yes to each label, so that all classes weigh the same.

    Args:
        counts: training rows of each class, (classes,), among so many `rows`.

    Returns:
        Weights, (classes,).
    """
    counts = counts.float()
    weights = (rows - counts) / counts if multi_label else rows / (len(counts) * counts)
    return weights.clamp(min=1 / rows)  # a weight of 0 would unlearn a label that every row has


class MaskedPositions(torch.nn.Module):
    """A model whose vocabulary scores are computed only where a token is predicted: a seventh of the places."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> MaskedLMOutput:
        masked = labels != -100
        # Under an adapter the model stands two wrappers deeper.
        model = getattr(self.model, "get_base_model", lambda: self.model)()
        scores = ARCHITECTURES[model.config.model_type].vocabulary_scores
        assert scores is not None, "a family that is pretrained by masked tokens has it"
        hidden = model.base_model(**inputs).last_hidden_state
        logits = scores(model, hidden[masked]).float()
        return MaskedLMOutput(loss=cross_entropy(logits, labels[masked]), logits=logits)


class NextToken(torch.nn.Module):
    """XLNet with the loss of each labelled token given those before it; its own loss shifts no labels, so it leaks."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, labels: torch.Tensor, **inputs: Any) -> CausalLMOutput:
        logits = self.model(**inputs, use_mems=False).logits
        loss = cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)
