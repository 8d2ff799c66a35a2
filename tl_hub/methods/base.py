"""What the rest of the package asks of a method: how a model is to learn its task.

A class is a method by having these attributes; those of the package name the protocol that they keep, so that a type
checker holds them to it.
"""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tl_hub.model_types import Model

if TYPE_CHECKING:  # importing them takes seconds, and facts of methods are read without
    from tl_hub.base_model import Base
    from tl_hub.experiment import Experiment
    from tl_hub.published_settings import Row
    from tl_hub.record import Kind
    from tl_hub.tasks.base import Score
    from tl_hub.training_state import History

SOURCES = ("hub", "embedded", "local")
"""Where a base may be looked for."""


class Method(Protocol):
    """What starting, recording and publishing a run read of its method: a dataclass, whose fields are settings.

    Attributes:
        name: what the run record calls it.
        kind: what the run folder will hold, as the record's `kind`.
        unused: settings of runs and tasks that have no effect with it, and are therefore not recorded.
        base_sources: where the base may be for others to load the result.
        published: settings by family and size of the model, mostly those of others for larger ones; the first that
            fits counts.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> "Kind": ...

    @property
    def unused(self) -> tuple[str, ...]: ...

    @property
    def base_sources(self) -> tuple[str, ...]: ...

    @property
    def published(self) -> "tuple[Row, ...]": ...


class TrainedMethod(Method, Protocol):
    """One that says what of a model is trained, which `training.train` does then."""

    def wrap(self, model: Model, base: "Base") -> Any:
        """The model to train and to save: `model` itself, or another one around it.

        A parameter may be given `rate`, a multiple of the learning rate, `decayed`, False for no weight decay, and
        `from_epoch`, the epoch, counted from 0, from which on it learns.
        """
        ...


class FittedMethod(Method, Protocol):
    """One that fits a head on the vectors of a frozen model, in place of training."""

    def fit_head(self, experiment: "Experiment") -> "tuple[Experiment, History, Score]":
        """The experiment with the model to save, what happened, and the score that the reported figures come from."""
        ...


def settings_of(method: Method) -> dict[str, Any]:
    """What a record has of a method: its fields, but for those that say where something of the user's own is."""
    return {field.name: getattr(method, field.name) for field in fields(method) if field.metadata.get("recorded", True)}
