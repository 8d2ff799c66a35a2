"""Adapters: the pretrained weights stay as they are, small added ones are trained."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from peft import IA3Config, LoraConfig, PrefixTuningConfig, PromptTuningConfig, get_peft_model

from tl_hub.architectures import ARCHITECTURES, longest_input
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.methods.bottleneck import BottleneckConfig
from tl_hub.training import SOURCES, Base

_LORA: dict[str, Any] = {"rank": 16, "alpha": 32, "dropout": 0.0, "rate_factor": 1.0}
_SETTINGS: dict[str, dict[str, Any]] = {
    "lora": _LORA,
    "dora": _LORA,
    "ia3": {"rate_factor": 10.0},
    "prompt": {"virtual_tokens": 20, "rate_factor": 30.0},
    "prefix": {"virtual_tokens": 20, "rate_factor": 10.0},
    "bottleneck": {"width": 64, "placement": "houlsby", "rate_factor": 1.0},
}
"""The settings of each method, and their defaults."""


def _default(name: str) -> str:
    """What `--help` says of a setting that is not given: its default, and with which method where that makes one."""
    methods: dict[str, list[str]] = {}
    for method, settings in _SETTINGS.items():
        if name in settings:
            value = settings[name]
            methods.setdefault(f"{value:g}" if isinstance(value, float) else str(value), []).append(method)
    if len(methods) == 1:
        return next(iter(methods))
    return "; ".join(f"{', '.join(names)}: {value}" for value, names in methods.items())


_MERGEABLE = ("lora", "dora", "ia3")


@dataclass(kw_only=True)
class Adapter:
    """One of six ways to adapt a model by few weights.

    lora: low-rank updates of all linear layers (Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1). XLNet's
        attention has none; each of its tensors (width, heads, head width) takes updates of rank 1, one for each index
        of the first axis.
    dora: the same for the direction of each weight column, whose length is trained apart (Liu et al. 2024,
        https://arxiv.org/abs/2402.09353, section 4). Of XLNet, only the feed-forward layers.
    ia3: factors for keys, values and the inner feed-forward states (Liu et al. 2022,
        https://arxiv.org/abs/2205.05638, section 3.3). GPT-2's queries, which share a projection with them, have
        factors too; of XLNet, whose attention is no module, only the feed-forward states have.
    prompt: embeddings before the input (Lester et al. 2021, https://arxiv.org/abs/2104.08691, section 2).
    prefix: keys and values before those of the input, in each layer (Li and Liang 2021,
        https://arxiv.org/abs/2101.00190, section 4; without the reparametrization of section 4.3).
    bottleneck: small layers after attention and feed-forward (Houlsby et al. 2019,
        https://arxiv.org/abs/1902.00751, section 2.1), or after feed-forward only (Pfeiffer et al. 2021,
        https://arxiv.org/abs/2005.00247).

    A setting that is None takes the method's default when the model is wrapped. Prompts, prefixes and factors learn
    at a multiple of the head's rate: they want a larger one than updates of matrices.

    Raises:
        UserError: a setting is out of its range, or not one of the method's.
    """

    unused: ClassVar[tuple[str, ...]] = ()

    method: Literal["lora", "dora", "ia3", "prompt", "prefix", "bottleneck"] = flag("lora", "what is added and trained")
    rank: int | None = flag(None, "lora, dora: rank r of the update B A", shown=_default("rank"))
    alpha: int | None = flag(None, "lora, dora: the update is scaled by alpha / rank", shown=_default("alpha"))
    dropout: float | None = flag(
        None, "lora (not of XLNet), dora: dropout on the update's input", shown=_default("dropout")
    )
    virtual_tokens: int | None = flag(
        None, "prompt, prefix: length of what stands before the input", shown=_default("virtual_tokens")
    )
    width: int | None = flag(None, "bottleneck: width of the small layers", shown=_default("width"))
    placement: Literal["houlsby", "pfeiffer"] | None = flag(
        None,
        "bottleneck: after attention and feed-forward (houlsby), or after feed-forward only (pfeiffer)",
        shown=_default("placement"),
    )
    rate_factor: float | None = flag(
        None, "added weights learn at this multiple of --learning_rate", shown=_default("rate_factor")
    )
    merge: bool = flag(False, "lora, dora, ia3: also write the whole model, with the adapter merged into its weights")

    def __post_init__(self) -> None:
        own = _SETTINGS[self.method]
        for name in {name for settings in _SETTINGS.values() for name in settings}:
            if getattr(self, name) is not None and name not in own:
                raise UserError(
                    f"--{name} is not a setting of --method {self.method}; its own are --{', --'.join(own)}"
                )
        for name in ("rank", "alpha", "virtual_tokens", "width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name} is {value}; it must be at least 1")
        if self.rate_factor is not None and not 0 < self.rate_factor < math.inf:
            raise UserError(f"--rate_factor is {self.rate_factor}; it must be a number greater than 0")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise UserError(f"--dropout is {self.dropout}; it must lie in [0, 1)")
        if self.merge and self.method not in _MERGEABLE:
            raise UserError(
                f"--merge: {self.name} cannot be merged into the weights; use --method {', '.join(_MERGEABLE)}"
            )

    @property
    def name(self) -> str:
        """What a card calls the method."""
        full = {"prompt": "prompt tuning", "prefix": "prefix tuning", "bottleneck": "bottleneck adapters"}
        return full.get(self.method, self.method)

    @property
    def kind(self) -> str:
        """What the run folder will hold."""
        return "merged" if self.merge else "adapter"

    @property
    def base_sources(self) -> tuple[str, ...]:
        """Where the base may be for others to load the result; PEFT looks for it on the Hub."""
        return SOURCES if self.merge else ("hub",)

    def wrap(self, model: Any, base: Base) -> Any:
        """Freeze `model`, add the adapter, and make its new parts (the head) trainable and part of what is saved.

        What was initialised, not loaded (`base.fresh`), must be trained *and* saved, or the adapter loads with a
        head of random numbers and no error. Of a model's window, a prompt or prefix takes its length.

        Raises:
            UserError: the method is not for this model and task, or what is new is a head that shares the embeddings'
                weights, which an adapter cannot carry.
        """
        for name, default in _SETTINGS[self.method].items():
            if getattr(self, name) is None:
                setattr(self, name, default)
        output = model.get_output_embeddings()
        if any(
            name.rpartition(".")[0] == head for name in base.fresh for head, m in model.named_modules() if m is output
        ):
            raise UserError(f"--model {base.id} has no language-modelling head to adapt; give a model that has one")
        config = self._config(model, **{name: getattr(self, name) for name in _SETTINGS[self.method]})
        config.modules_to_save = sorted({name.rpartition(".")[0] for name in base.fresh}) or None
        wrapped = get_peft_model(model, config, revision=base.revision)
        for name, parameter in wrapped.named_parameters():
            if parameter.requires_grad and ".modules_to_save." not in name:
                parameter.rate = self.rate_factor
        reserve(wrapped)
        return wrapped

    def _config(self, model: Any, **given: Any) -> Any:
        """PEFT's configuration of the method for `model`, by the method's own settings `given`."""
        architecture = ARCHITECTURES[model.config.model_type]
        if self.method in ("lora", "dora"):
            config = LoraConfig(
                r=given["rank"],
                lora_alpha=given["alpha"],
                lora_dropout=given["dropout"],
                use_dora=self.method == "dora",
                target_modules=list(architecture.lora_targets),
                fan_in_fan_out=architecture.fan_in_fan_out,
            )
            if architecture.lora_parameters and self.method == "lora":  # PEFT has no DoRA of what is no module's
                if given["dropout"]:
                    raise UserError(
                        f"--dropout is {given['dropout']}; PEFT has no dropout for the attention of "
                        f"{model.config.model_type}, which is no module; omit --dropout"
                    )
                config.target_parameters = list(architecture.lora_parameters)
                # A parameter of (width, heads, head width) has an update for each index of its first axis: of rank 1,
                # or there would be more to train than in the parameter itself.
                config.rank_pattern = dict.fromkeys(architecture.lora_targets, given["rank"])
                config.alpha_pattern = dict.fromkeys(architecture.lora_targets, given["alpha"])
                config.r, config.lora_alpha = 1, given["alpha"] / given["rank"]
            return config
        if self.method == "ia3":
            return IA3Config(
                target_modules=_any_of(architecture.keys_and_values, architecture.feed_forward_output),
                feedforward_modules=_any_of(architecture.feed_forward_output),
                fan_in_fan_out=architecture.fan_in_fan_out,
            )
        if self.method == "bottleneck":
            after_attention = architecture.attention_output if given["placement"] == "houlsby" else None
            return BottleneckConfig(
                width=given["width"], target_modules=_any_of(after_attention, architecture.feed_forward_output)
            )
        tasks = {"prompt": architecture.prompt_tasks, "prefix": architecture.prefix_tasks}
        kind = type(model).__name__
        if kind not in tasks[self.method]:
            others = [method for method in _SETTINGS if method not in tasks or kind in tasks[method]]
            raise UserError(f"--method {self.method} is not for {kind}; use {', '.join(others)}")
        longest = longest_input(model.config)
        if longest and longest <= 2 * given["virtual_tokens"]:
            raise UserError(
                f"--virtual_tokens is {given['virtual_tokens']}; the model reads {longest} tokens, more than half of "
                "which must be left to the input"
            )
        prompt_like = PromptTuningConfig if self.method == "prompt" else PrefixTuningConfig
        return prompt_like(task_type=tasks[self.method][kind], num_virtual_tokens=given["virtual_tokens"])


def reserve(model: Any) -> None:
    """Take the length of a prompt or prefix off the window that `model`, of PEFT, tells its users."""
    taken = getattr(model.active_peft_config, "num_virtual_tokens", 0)
    if taken and longest_input(model.config):
        model.config.max_position_embeddings -= taken


def _any_of(*ends: str | None) -> str:
    """Regular expression for the names of modules that end in one of `ends`, which are such expressions."""
    return rf".*\.({'|'.join(filter(None, ends))})"
