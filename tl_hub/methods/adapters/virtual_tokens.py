"""What prompts and prefixes have in common: tokens that are none, of which each takes a place of the model's window."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tl_hub.architectures import Architecture, longest_input
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.methods.adapters.base import Adapter
from tl_hub.model_types import Model

if TYPE_CHECKING:
    from tl_hub.base_model import Base


@dataclass(kw_only=True)
class VirtualTokens(Adapter):
    """Something trained stands before the input, for the classes of models that a family's entry names."""

    transformers_loads: ClassVar[bool] = False  # it refuses them
    layered: ClassVar[bool] = False

    virtual_tokens: int = flag(20, "length of what stands before the input")

    @staticmethod
    def tasks(architecture: Architecture) -> dict[str, str]:
        """Model class -> PEFT's name of its task, of the classes it is for."""
        raise NotImplementedError

    @classmethod
    def fits(cls, model: Model, architecture: Architecture) -> bool:
        return type(model).__name__ in cls.tasks(architecture)

    def arguments(self, model: Model, architecture: Architecture) -> dict[str, Any]:
        """What PEFT's configurations of both kinds are made of.

        Raises:
            UserError: the model's window is too short.
        """
        longest = longest_input(model.config)
        if longest and longest <= 2 * self.virtual_tokens:
            raise UserError(
                f"--virtual_tokens is {self.virtual_tokens}; the model reads {longest} tokens, more than half of "
                "which must be left to the input"
            )
        return {
            "task_type": self.tasks(architecture)[type(model).__name__],
            "num_virtual_tokens": self.virtual_tokens,
            # PEFT looks for the names of few families; a configuration of transformers has these of all.
            "token_dim": model.config.hidden_size,
            "num_attention_heads": model.config.num_attention_heads,
        }

    def wrap(self, model: Model, base: "Base") -> Any:
        wrapped = super().wrap(model, base)
        reserve(wrapped)
        return wrapped


def reserve(model: Any) -> None:
    """Take the length of a prompt or prefix off the window that `model`, of PEFT, tells its users."""
    taken = getattr(model.active_peft_config, "num_virtual_tokens", 0)
    if taken and longest_input(model.config):
        model.config.max_position_embeddings -= taken
