"""Feature extraction: the pretrained model is a fixed function of the text; only the new head is trained."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from tl_hub.errors import UserError
from tl_hub.training import Base


@dataclass(kw_only=True)
class FeatureExtraction:
    """The base stays as it is and computes without dropout; what the checkpoint lacked is trained.

    That is the head, and BERT's pooler where the checkpoint has none. How far this falls behind fine-tuning depends
    on the task (Peters et al. 2019, https://arxiv.org/abs/1903.05987).
    """

    name: ClassVar[str] = "feature extraction"
    kind: ClassVar[str] = "feature-extraction"

    def wrap(self, model: Any, base: Base) -> Any:
        """Freeze all of `model` but its new parameters. All of it is saved.

        Raises:
            UserError: the checkpoint has the whole head already, so that nothing would be trained.
        """
        if not base.fresh:
            raise UserError(
                f"--model {base.id} has a trained head for this task, so feature extraction would train nothing; "
                "give the pretrained model without one, or fine-tune"
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in base.fresh
        model.base_model.register_forward_pre_hook(_without_dropout)
        return model


def _without_dropout(module: torch.nn.Module, _: Any) -> None:
    """The training loop puts the whole model into training mode; its frozen part must not be."""
    module.eval()
