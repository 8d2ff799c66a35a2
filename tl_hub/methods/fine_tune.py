"""Fine-tuning: the weights of the pretrained model are trained, all of them or those of its top layers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tl_hub.architectures import layer_groups
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.methods.base import SOURCES, TrainedMethod
from tl_hub.model_types import Model
from tl_hub.published_settings import Row, values
from tl_hub.record import Kind

if TYPE_CHECKING:
    from tl_hub.base_model import Base


@dataclass(kw_only=True)
class FineTune(TrainedMethod):
    """All weights, head included (Devlin et al. 2019, https://arxiv.org/abs/1810.04805, section 3.2).

    With `layer_decay` d the head learns at the full rate, the top layer at d times it, the one below at d squared
    and so on down to the embeddings (discriminative fine-tuning, Howard and Ruder 2018,
    https://arxiv.org/abs/1801.06146, section 3.2). With `top_layers` the layers below and the embeddings stay as they
    are. T5's decoder counts as standing on its encoder.

    With `gradual_unfreezing` n the head learns alone in the first epoch, and each epoch adds the n layers below what
    learns already, the embeddings last (Howard and Ruder 2018, section 3.3, where n is 1). With `reinit_layers` n the
    top n layers, and BERT's pooler, start from new random weights, as for pretraining (Zhang et al. 2021,
    https://arxiv.org/abs/2006.05987, section 4).

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "fine-tuning"
    kind: ClassVar[Kind] = "fine-tuned"
    unused: ClassVar[tuple[str, ...]] = ()
    base_sources: ClassVar[tuple[str, ...]] = SOURCES
    published: ClassVar[tuple[Row, ...]] = (
        Row(
            values(1e-4, warmup=0.06),
            "Gururangan et al. 2020, https://arxiv.org/abs/2004.10964, task-adaptive pretraining",
            task="pretraining",
        ),
        # Small models want more for spans than for classes: with 22 million parameters, 4,000 questions and 3 epochs,
        # half the rate is three points of F1 below (docs/results/public.md).
        Row(
            values(2e-4),
            "Turc et al. 2019, https://arxiv.org/abs/1908.08962: 3e-5 to 3e-4, by the task",
            ("masked",),
            60,
            task="question answering",
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

    gradual_unfreezing: int | None = flag(
        None, "the head learns alone in the first epoch, and each epoch adds N more layers", shown="all from the start"
    )
    reinit_layers: int | None = flag(None, "start the top N layers from new random weights", shown="none")

    def __post_init__(self) -> None:
        for name in ("top_layers", "gradual_unfreezing", "reinit_layers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        if self.reinit_layers and self.top_layers and self.reinit_layers > self.top_layers:
            raise UserError(
                f"--reinit_layers is {self.reinit_layers} and --top_layers {self.top_layers}; new layers have to be "
                "trained, so give as many or more of these"
            )
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"--layer_decay is {self.layer_decay}; it must be above 0 and at most 1")

    def wrap(self, model: Model, base: "Base") -> Any:
        """Set what is trained, and how fast. All of `model` is saved.

        Raises:
            UserError: the model has fewer layers than a setting names, or new embeddings, which `top_layers` do not
                train.
        """
        groups = layer_groups(model)
        for name in ("top_layers", "gradual_unfreezing", "reinit_layers"):
            if (getattr(self, name) or 0) >= len(groups):
                raise UserError(f"--{name} is {getattr(self, name)}; the model has {len(groups) - 1} layers")
        from accelerate import PartialState  # takes seconds to import

        if self.top_layers is not None:
            base.check_frozen(model)
        if base.new_tokens and PartialState().is_main_process:
            print(f"note: new embeddings for tokens added to the tokenizer: {', '.join(base.new_tokens)}", flush=True)
        parameters: dict[str, Any] = dict(model.named_parameters())
        for depth, names in enumerate(reversed(groups), start=1):
            for name in set(names) - set(base.fresh):  # a new part of a layer, such as BERT's pooler, is of the head
                parameters[name].rate = self.layer_decay**depth
                parameters[name].requires_grad = self.top_layers is None or depth <= self.top_layers
                if self.gradual_unfreezing:
                    parameters[name].from_epoch = -(-depth // self.gradual_unfreezing)
        if self.reinit_layers:
            _initialise(model, {name for group in groups[-self.reinit_layers :] for name in group})
        return model


def _initialise(model: Any, names: set[str]) -> None:
    """Give parameters new random values as the family's pretraining starts from, by their full names."""
    for name in names:
        model.get_parameter(name)._is_hf_initialized = False  # or transformers would take it for loaded
    for module in reversed([*model.modules()]):  # children first: a layer may initialise parts of its own otherwise
        inside = {id(parameter) for parameter in module.parameters()}
        if inside and inside <= {id(model.get_parameter(name)) for name in names}:
            model._init_weights(module)
