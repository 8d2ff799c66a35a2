"""Fine-tuning: the weights of the pretrained model are trained, all of them or those of its top layers."""

from dataclasses import dataclass
from typing import Any, ClassVar

from tl_hub.architectures import layer_groups
from tl_hub.base_model import Base
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.methods.base import SOURCES
from tl_hub.published_settings import Row, values


@dataclass(kw_only=True)
class FineTune:
    """All weights, head included (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.2).

    With `layer_decay` d the head learns at the full rate, the top layer at d times it, the one below at d squared
    and so on down to the embeddings (discriminative fine-tuning, Howard and Ruder 2018,
    https://arxiv.org/abs/1801.06146, section 3.2). With `top_layers` the layers below and the embeddings stay as they
    are. T5's decoder counts as standing on its encoder.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "fine-tuning"
    kind: ClassVar[str] = "fine-tuned"
    unused: ClassVar[tuple[str, ...]] = ()
    base_sources: ClassVar[tuple[str, ...]] = SOURCES
    published: ClassVar[tuple[Row, ...]] = (
        Row(
            values(1e-4, warmup=0.06),
            "Gururangan et al. 2020, https://arxiv.org/abs/2004.10964, task-adaptive pretraining",
            task="Pretraining",
        ),
        # Small models want more for spans than for classes: with 22 million parameters, 4,000 questions and 3 epochs,
        # half the rate is three points of F1 below (model_cards/README.md).
        Row(
            values(2e-4),
            "Turc et al. 2019, https://arxiv.org/abs/1908.08962: 3e-5 to 3e-4, by the task",
            ("masked",),
            60,
            task="QuestionAnswering",
        ),
        Row(values(1e-4), "Turc et al. 2019, https://arxiv.org/abs/1908.08962: 3e-5 to 3e-4", ("masked",), 60),
        Row(
            values(3e-5),
            "Devlin et al. 2019, https://arxiv.org/abs/1810.04805, appendix A.3: 2e-5 to 5e-5, 2 to 4 epochs",
            ("masked",),
            200,
        ),
        Row(values(2e-5), "Devlin et al. 2019, https://arxiv.org/abs/1810.04805, appendix A.3", ("masked",)),
        Row(values(2e-5), "Yang et al. 2019, https://arxiv.org/abs/1906.08237, appendix A.4", ("permutation",)),
        Row(
            values(6.25e-5, warmup=0.002),
            "Radford et al. 2018, Improving Language Understanding by Generative Pre-Training, section 4.1",
            ("causal",),
        ),
        Row(values(3e-4), "T5 in the documentation of transformers: 1e-4 to 3e-4 with AdamW", ("span",)),
    )

    top_layers: int | None = flag(None, "train the top N layers and the head only", shown="all layers")
    layer_decay: float = flag(1.0, "each layer learns at this multiple of the rate of the one above it")

    def __post_init__(self) -> None:
        if self.top_layers is not None and self.top_layers < 1:
            raise UserError(f"--top_layers is {self.top_layers}; it must be at least 1")
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"--layer_decay is {self.layer_decay}; it must be above 0 and at most 1")

    def wrap(self, model: Any, base: Base) -> Any:
        """Set what is trained, and how fast. All of `model` is saved.

        Raises:
            UserError: the model has fewer layers than `top_layers`.
        """
        groups = layer_groups(model)
        if self.top_layers is not None and self.top_layers >= len(groups):
            raise UserError(f"--top_layers is {self.top_layers}; the model has {len(groups) - 1} layers")
        parameters = dict(model.named_parameters())
        for depth, names in enumerate(reversed(groups), start=1):
            for name in set(names) - set(base.fresh):  # a new part of a layer, such as BERT's pooler, is of the head
                parameters[name].rate = self.layer_decay**depth
                parameters[name].requires_grad = self.top_layers is None or depth <= self.top_layers
        return model
