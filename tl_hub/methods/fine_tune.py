"""Fine-tuning: every weight of the pretrained model is trained."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tl_hub.training import Base


@dataclass(kw_only=True)
class FineTune:
    """All weights, head included (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.2)."""

    name: ClassVar[str] = "fine-tuning"
    kind: ClassVar[str] = "fine-tuned"

    def wrap(self, model: Any, base: Base) -> Any:
        """All of `model` is trained and saved: there is nothing to add."""
        return model
