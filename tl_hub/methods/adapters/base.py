"""What all adapters have in common: the pretrained weights stay as they are, small added ones are trained.

Neither this module nor one of an adapter needs torch, transformers or peft to be imported: cards read their facts.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from tl_hub.architectures import ARCHITECTURES, Architecture, layer_groups
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.methods.base import SOURCES, TrainedMethod
from tl_hub.model_types import Model, PeftConfig, PeftModel
from tl_hub.published_settings import Row
from tl_hub.record import Kind

if TYPE_CHECKING:
    from tl_hub.base_model import Base

_WHOLE = "classifier"
"""A head that PEFT's own classes for classification save whole; they cannot load it in parts."""


TASK_TYPES = {
    "AutoModelForSequenceClassification": "SEQ_CLS",
    "AutoModelForTokenClassification": "TOKEN_CLS",
    "AutoModelForQuestionAnswering": "QUESTION_ANS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
"""Class that loads a model -> PEFT's name of its task. There is none for masked words."""


def rate_factor(default: float) -> Any:
    """The flag of how fast added weights learn. Prompts, prefixes and factors want more than updates of matrices."""
    return flag(default, "added weights learn at this multiple of --learning_rate")


@dataclass(kw_only=True)
class Adapter(TrainedMethod):
    """Facts and settings of an adapter. Each kind is a subclass in a module of its own, and nothing else knows it.

    Attributes:
        method: what `--method` calls it.
        name: what the run record calls it.
        title: what a card calls it.
        paper: title and address.
        mergeable: it can become part of the weights, without a layer of its own.
        transformers_loads: `from_pretrained` of transformers loads it as it was trained, not PEFT alone.
        snippet_import: what a script must import so that PEFT knows it, besides PEFT.
        layered: it is added to layers, of which `top_layers` can choose.
        decayed: weight decay applies to its matrices.
        published: settings by family and size of the model, mostly those of others for larger ones; the first that
            fits counts.
        methods: all kinds by `method`, from which the command line chooses.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[tuple[str, str]]
    mergeable: ClassVar[bool] = False
    transformers_loads: ClassVar[bool] = True
    snippet_import: ClassVar[str | None] = None
    layered: ClassVar[bool] = True
    decayed: ClassVar[bool] = True
    published: ClassVar[tuple[Row, ...]] = ()
    methods: ClassVar[Mapping[str, type["Adapter"]]] = {}
    unused: ClassVar[tuple[str, ...]] = ()

    method: str = field(default="", init=False)
    rate_factor: float = rate_factor(1.0)
    top_layers: int | None = flag(None, "adapt the top N layers only", shown="all layers")
    merge: bool = flag(False, "also write the whole model, with the adapter merged into its weights")

    def __post_init__(self) -> None:
        for name in (setting.name for setting in dataclasses.fields(self) if setting.init):
            value = getattr(self, name)
            if name == "dropout":
                if not 0 <= value < 1:
                    raise UserError(f"--dropout is {value}; it must lie in [0, 1)")
            elif isinstance(value, float) and not 0 < value < math.inf:
                raise UserError(f"--{name} is {value}; it must be a number greater than 0")
            elif isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        if self.merge and not self.mergeable:
            others = [name for name, kind in self.methods.items() if kind.mergeable]
            raise UserError(f"--merge: {self.name} cannot be merged into the weights; use --method {', '.join(others)}")
        if self.top_layers is not None and not self.layered:
            others = [name for name, kind in self.methods.items() if kind.layered]
            raise UserError(f"--top_layers: {self.name} adds nothing to layers; use --method {', '.join(others)}")

    @classmethod
    def flags(cls) -> dict[str, dataclasses.Field[Any]]:
        """Its settings that are flags, by name: first its own, then those that all adapters have."""
        common = {setting.name for setting in dataclasses.fields(Adapter)}
        settings = sorted(dataclasses.fields(cls), key=lambda setting: setting.name in common)
        unknown = {name for name, known in (("merge", cls.mergeable), ("top_layers", cls.layered)) if not known}
        return {setting.name: setting for setting in settings if setting.init and setting.name not in unknown}

    @property
    def kind(self) -> Kind:
        """What the run folder will hold."""
        return "merged" if self.merge else "adapter"

    @property
    def base_sources(self) -> tuple[str, ...]:
        """Where the base may be for others to load the result; PEFT looks for it on the Hub."""
        return SOURCES if self.merge else ("hub",)

    @classmethod
    def fits(cls, model: Model, architecture: Architecture) -> bool:
        """Whether models of this class can be adapted so."""
        return True

    def peft_config(self, model: Model, architecture: Architecture) -> PeftConfig:
        """PEFT's configuration of this adapter for `model`, which it `fits`.

        Raises:
            UserError: a setting does not suit the model.
        """
        raise NotImplementedError

    def wrap(self, model: Model, base: "Base") -> Any:
        """Freeze `model`, add the adapter, and make its new parts (the head) trainable and part of what is saved.

        What was initialised, not loaded (`base.fresh`), must be trained *and* saved, or the adapter loads with a
        head of random numbers and no error.

        Raises:
            UserError: the method is not for this model and task, or what is new is of the embeddings, or a head that
                shares their weights, which an adapter cannot carry.
        """
        from peft import get_peft_model  # takes seconds to import

        base.check_frozen(model)
        output = model.get_output_embeddings()
        if any(
            name.rpartition(".")[0] == head for name in base.fresh for head, m in model.named_modules() if m is output
        ):
            raise UserError(f"--model {base.id} has no language-modelling head to adapt; give a model that has one")
        architecture = ARCHITECTURES[model.config.model_type]
        if not self.fits(model, architecture):
            others = [name for name, kind in self.methods.items() if kind.fits(model, architecture)]
            raise UserError(f"--method {self.method} is not for {type(model).__name__}; use {', '.join(others)}")
        config: Any = self.peft_config(model, architecture)  # not all kinds have modules_to_save
        if self.top_layers:
            _keep_to(config, self._top_of(model, architecture))
        new = {name.rpartition(".")[0] for name in base.fresh}
        new = {_WHOLE if name.startswith(f"{_WHOLE}.") else name for name in new}
        config.modules_to_save = sorted(new) or None
        config.task_type = config.task_type or task_type_of(model)
        wrapped = get_peft_model(model, config, revision=base.revision)
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and ".modules_to_save." not in name:
                parameter.rate, parameter.decayed = self.rate_factor, self.decayed
        return wrapped

    def _top_of(self, model: Model, architecture: Architecture) -> list[str]:
        """Names of the layers that are adapted, such as encoder.layer.3.

        Raises:
            UserError: the model has fewer.
        """
        groups = layer_groups(model)[1:]
        assert self.top_layers is not None
        if self.top_layers > len(groups):
            raise UserError(f"--top_layers is {self.top_layers}; the model has {len(groups)} layers")
        found = (re.search(architecture.layers, names[0]) for names in groups[-self.top_layers :])
        return [layer.group() for layer in found if layer]


def _keep_to(config: Any, layers: list[str]) -> None:
    """Make PEFT's configuration adapt what it names in these layers alone.

    Not by its own `layers_to_transform`, which only some methods have, and which takes the decoder for the encoder.
    """
    within = rf"(?=(.*\.)?({'|'.join(map(re.escape, layers))})\.)"
    targets = config.target_modules
    config.target_modules = within + (targets if isinstance(targets, str) else any_of(*map(re.escape, targets)))
    if getattr(config, "target_parameters", None):
        config.target_parameters = [f"{layer}.{name}" for layer in layers for name in config.target_parameters]


def task_type_of(model: Model) -> str | None:
    """PEFT's name of what a model is for, by which others know how to load its adapter; None where it has none.

    Also where PEFT's class for the task would compute something else: that for answers drops the segment ids.
    """
    import transformers  # takes seconds to import

    for auto_class, task in TASK_TYPES.items():
        if type(model) is getattr(transformers, auto_class)._model_mapping.get(type(model.config), None):
            segments = ARCHITECTURES[model.config.model_type].token_type_ids
            return None if task == "QUESTION_ANS" and segments else task
    return None


def merged(model: PeftModel) -> Model:
    """The whole model with its adapter in the weights. PEFT's own merge fails at a saved head of several layers."""
    from peft.utils import ModulesToSaveWrapper  # takes seconds to import

    for name, module in list(model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, module.modules_to_save[model.active_adapter])
    return model.merge_and_unload()


def any_of(*ends: str | None) -> str:
    """Regular expression for the names of modules that end in one of `ends`, which are such expressions."""
    return rf".*\.({'|'.join(filter(None, ends))})"
