"""Language modelling, by which models are pretrained: four objectives, of which each family has one."""

from tl_hub.tasks.language_modeling.base import LanguageModeling, blocks, joined
from tl_hub.tasks.language_modeling.causal import CausalLanguageModeling
from tl_hub.tasks.language_modeling.masked import MaskedLanguageModeling
from tl_hub.tasks.language_modeling.permutation import PermutationLanguageModeling
from tl_hub.tasks.language_modeling.pretraining import OBJECTIVES, Pretraining, objective_of
from tl_hub.tasks.language_modeling.span import BEAMS, FILLED_TOKENS, GAP, SpanCorruption

__all__ = [
    "BEAMS",
    "FILLED_TOKENS",
    "GAP",
    "OBJECTIVES",
    "CausalLanguageModeling",
    "LanguageModeling",
    "MaskedLanguageModeling",
    "PermutationLanguageModeling",
    "Pretraining",
    "SpanCorruption",
    "blocks",
    "joined",
    "objective_of",
]
