"""Settings of pretraining, whatever the family's objective, and which objective a family has."""

from dataclasses import dataclass, fields
from typing import ClassVar

from tl_hub import base_model
from tl_hub.architectures import ARCHITECTURES, Objective, titles
from tl_hub.config import RunConfig, flag
from tl_hub.tasks.language_modeling.base import LanguageModeling
from tl_hub.tasks.language_modeling.causal import CausalLanguageModeling
from tl_hub.tasks.language_modeling.masked import MaskedLanguageModeling
from tl_hub.tasks.language_modeling.permutation import PermutationLanguageModeling
from tl_hub.tasks.language_modeling.span import SpanCorruption


@dataclass(kw_only=True)
class Pretraining:
    """Settings of pretraining, each of which is one of the family's own objective.

    Raises:
        UserError: a setting is out of its range.
    """

    tuned_as: ClassVar[str | None] = LanguageModeling.tuned_as

    text_column: str = flag("text", "column with the text", reads=True)
    max_length: int = flag(256, "tokens in a window")
    mask_probability: float = flag(0.15, f"{titles('masked')}: share of the tokens that are predicted")
    whole_word: bool = flag(False, f"{titles('masked')}: mask all pieces of a word or none")
    random_length: bool = flag(
        True, f"{titles('masked')}: cut the windows of each batch into pieces of a random length, 32 to 256"
    )
    noise_density: float = flag(0.15, f"{titles('span')}: share of the tokens that are taken out")
    mean_span: float = flag(3.0, f"{titles('span')}: tokens in a span, on average")
    whole_target: bool = flag(False, f"{titles('span')}: predict the whole text, not the spans alone")

    def __post_init__(self) -> None:
        for task in OBJECTIVES.values():
            self._of(task)

    def of_run(self, run: RunConfig) -> LanguageModeling:
        """The task by which the family of the model is pretrained that the run starts from.

        Raises:
            UserError: as `base_model.family_of`.
        """
        return self.objective(base_model.family_of(run))

    def objective(self, model_type: str) -> LanguageModeling:
        """The task by which the family `model_type` is pretrained, with those settings that it has."""
        return self._of(objective_of(model_type))

    def _of(self, task: type[LanguageModeling]) -> LanguageModeling:
        return task(**{field.name: getattr(self, field.name) for field in fields(task)})


OBJECTIVES: dict[Objective, type[LanguageModeling]] = {
    "masked": MaskedLanguageModeling,
    "causal": CausalLanguageModeling,
    "span": SpanCorruption,
    "permutation": PermutationLanguageModeling,
}


def objective_of(model_type: str) -> type[LanguageModeling]:
    """The task by which a family is pretrained."""
    return OBJECTIVES[ARCHITECTURES[model_type].pretrained_by]
