"""Pretraining from scratch: a new tokenizer and a new model of one of the families."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tl_hub import samples
from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import RunConfig, flag
from tl_hub.errors import UserError, first_line
from tl_hub.methods.base import SOURCES, Method
from tl_hub.model_types import Config, Tokenizer
from tl_hub.on_use import accelerate, transformers
from tl_hub.published_settings import Row
from tl_hub.record import Kind
from tl_hub.tasks.language_modeling import objective_of
from tl_hub.tokenizer import load_tokenizer

if TYPE_CHECKING:
    Family = str  # a type checker wants the names written out
else:
    Family = Literal[tuple(ARCHITECTURES)]

_TOKENIZER_CHARACTERS = 20_000_000
"""A vocabulary of some thousand pieces hardly changes with more text, and T5's and XLNet's take minutes to train."""


@dataclass(kw_only=True)
class FromScratch(Method):
    """Shape of the new model. Dropout is off: a small model that sees each text a few times underfits, not overfits.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "from scratch"
    kind: ClassVar[Kind] = "pretrained"
    unused: ClassVar[tuple[str, ...]] = ()
    base_sources: ClassVar[tuple[str, ...]] = SOURCES
    published: ClassVar[tuple[Row, ...]] = ()

    model_type: Family = flag("bert", "family of the new model")
    tokenizer: str | None = flag(
        None,
        "Hub id or folder of a tokenizer to use, such as that of another model of the family",
        shown="a new one, trained on the training texts",
        recorded=False,
    )
    vocab_size: int = flag(4096, "entries in the new tokenizer's vocabulary")
    layers: int = flag(4, "transformer layers; of T5, in the encoder and again in the decoder")
    hidden_size: int = flag(256, "width of the hidden states")
    heads: int = flag(4, "attention heads")
    intermediate_size: int = flag(768, "width of the feed-forward layers")
    window: int = flag(384, "longest input in tokens; T5 and XLNet have no limit")
    cooccurrence: bool = flag(True, "embeddings start from the texts' co-occurrence counts, not from random numbers")

    def __post_init__(self) -> None:
        for name in ("layers", "hidden_size", "heads", "intermediate_size", "window"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if self.vocab_size < 300:
            raise UserError(f"--vocab_size is {self.vocab_size}; it must be at least 300, for bytes and special tokens")
        if self.hidden_size % (2 * self.heads):
            raise UserError(f"--hidden_size {self.hidden_size} is not a multiple of twice --heads {self.heads}")

    def build(self, texts: Sequence[str], run: RunConfig) -> tuple[Any, Any, None]:
        """Train the family's own kind of tokenizer on `texts`, or take the one given, and initialise a model for it.

        A run that goes on takes the tokenizer from the run folder: training one twice on the same texts may number
        its pieces otherwise, and the weights would be taken for those of other pieces.

        Raises:
            UserError: a pretrained model is given, or a tokenizer that is not there or does not suit the family.
        """
        if run.revision or run.model != RunConfig.model:
            given = f"--revision {run.revision}" if run.revision else f"--model {run.model}"
            raise UserError(
                f"{given}: a new model starts from no other; give its family by --model_type "
                f"{'|'.join(ARCHITECTURES)}, or go on with a pretrained one by the recipes continued_pretraining_*.py"
            )
        architecture = ARCHITECTURES[self.model_type]
        empty = architecture.new_tokenizer()
        config = architecture.new_config(empty, self)
        if run.resume:
            tokenizer = load_tokenizer(run.output_dir, None, config)
        elif self.tokenizer:
            if "vocab_size" in run.given:
                raise UserError("--vocab_size is of a new tokenizer, and --tokenizer brings its own; omit one of them")
            tokenizer = self._given(self.tokenizer, config)
        else:
            step = max(1, sum(map(len, texts)) // _TOKENIZER_CHARACTERS)
            # Each process would number the pieces in a way of its own.
            main = accelerate.PartialState().is_main_process
            trained = empty.train_new_from_iterator(texts[::step], self.vocab_size) if main else None
            (tokenizer,) = accelerate.utils.broadcast_object_list([trained])
        if self.tokenizer:
            self.vocab_size = len(tokenizer)  # for the record
        tokenizer.model_max_length = self.window
        config = architecture.new_config(tokenizer, self)
        model = getattr(transformers, objective_of(self.model_type).auto_class).from_config(config)
        if self.cooccurrence:
            from tl_hub.methods import initial_embeddings  # it needs torch, for which --help does not wait

            initial_embeddings.start_from_counts(model, tokenizer, texts)
        return model, tokenizer, None

    def _given(self, name: str, config: Config) -> Tokenizer:
        """The tokenizer of that name.

        Raises:
            UserError: it is not there, or does not mark texts as the family needs.
        """
        from tl_hub import base_model, hub  # they need what --help does not wait for
        from tl_hub.base_checks import check_tokenizer

        flag, source = f"--tokenizer {name}", base_model.source_of(name)
        revision, path = None, name
        if source == "embedded":
            path = str(samples.checkpoint(name.removeprefix("tiny:")))
        elif source == "hub":
            revision = hub.model_facts(name, called=flag).revision
        try:
            tokenizer = load_tokenizer(path, revision, config)
        except base_model.UNREADABLE as error:
            raise UserError(f"{flag}: no tokenizer that can be read ({first_line(error)})") from error
        tokenizer.init_kwargs.pop("auto_map", None)  # code beside it is not run, so nothing published may ask for it
        check_tokenizer(flag, self.model_type, tokenizer)
        known, last = len(tokenizer), max(tokenizer.get_vocab().values())
        if last >= known:
            raise UserError(f"{flag}: it has {known:,} tokens and numbers them up to {last:,}; give one without gaps")
        return tokenizer
