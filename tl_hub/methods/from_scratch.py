"""Pretraining from scratch: a new tokenizer and a new model of one of the families."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import scipy.sparse
import torch
import transformers

from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import RunConfig, flag
from tl_hub.errors import UserError
from tl_hub.methods.base import SOURCES
from tl_hub.published_settings import Row
from tl_hub.tasks.language_modeling import objective_of

if TYPE_CHECKING:
    Family = str  # a type checker wants the names written out
else:
    Family = Literal[tuple(ARCHITECTURES)]

_TOKENIZER_CHARACTERS = 20_000_000
"""A vocabulary of some thousand pieces hardly changes with more text, and T5's and XLNet's take minutes to train."""
_NEIGHBOURS = 5
_COUNTED_TOKENS = 10_000_000
_LEAST_SCALE = 0.1
"""Standard deviation of the embeddings: well above that of the positions, or what tokens mean would be lost in them."""


@dataclass(kw_only=True)
class FromScratch:
    """Shape of the new model. Dropout is off: a small model that sees each text a few times underfits, not overfits.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "from scratch"
    kind: ClassVar[str] = "pretrained"
    unused: ClassVar[tuple[str, ...]] = ()
    base_sources: ClassVar[tuple[str, ...]] = SOURCES
    published: ClassVar[tuple[Row, ...]] = ()

    model_type: Family = flag("bert", "family of the new model")
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
        """Train the family's own kind of tokenizer on `texts`, and initialise a model that fits it.

        A run that goes on takes the tokenizer from the run folder: training one twice on the same texts may number
        its pieces otherwise, and the weights would be taken for those of other pieces.

        Raises:
            UserError: a pretrained model is given.
        """
        if run.revision or run.model != RunConfig.model:
            given = f"--revision {run.revision}" if run.revision else f"--model {run.model}"
            raise UserError(
                f"{given}: a new model starts from no other; give its family by --model_type "
                f"{'|'.join(ARCHITECTURES)}, or go on with a pretrained one by the recipes continued_pretraining_*.py"
            )
        architecture = ARCHITECTURES[self.model_type]
        empty = architecture.new_tokenizer()
        if run.resume:
            tokenizer = type(empty).from_pretrained(run.output_dir)
        else:
            step = max(1, sum(map(len, texts)) // _TOKENIZER_CHARACTERS)
            tokenizer = empty.train_new_from_iterator(texts[::step], self.vocab_size)
        tokenizer.model_max_length = self.window
        config = architecture.new_config(tokenizer, self)
        model = getattr(transformers, objective_of(self.model_type).auto_class).from_config(config)
        if self.cooccurrence:
            start_from_counts(model, tokenizer, texts)
        return model, tokenizer, None


@torch.no_grad()
def start_from_counts(model: Any, tokenizer: Any, texts: Sequence[str]) -> None:
    """Replace the random initial token embeddings by a factorisation of what the texts' words occur next to.

    Token vectors whose inner products approximate the positive pointwise mutual information of neighbouring tokens
    are what word2vec learns (Levy and Goldberg 2014, https://papers.nips.cc/paper/5477); counting them takes seconds.
    With random vectors, a small masked language model spends its first tens of millions of tokens predicting each
    token's plain frequency. Learned position embeddings start as sinusoids (Vaswani et al. 2017, section 3.5), so
    that nearby places are alike, and the output bias, where there is one, as the tokens' log frequencies.
    """
    embeddings = model.get_input_embeddings().weight
    counts, frequency = cooccurrences(tokenizer, texts, embeddings.size(0))
    vectors = factorised(counts, embeddings.size(1))
    known = vectors.norm(dim=1) > 0
    scale = max(embeddings.std().item(), _LEAST_SCALE)  # T5's own is 1
    embeddings[known] = vectors[known] * (scale / vectors[known].std())
    table = ARCHITECTURES[model.config.model_type].position_table
    for name, weight in model.named_parameters():
        if table and name.endswith(table):
            weight.copy_(0.03 * sinusoids(*weight.shape))
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if bias is not None:
        share = (frequency + 1.0) / (frequency + 1.0).sum()
        bias.copy_(torch.from_numpy(np.log(share)))


def cooccurrences(tokenizer: Any, texts: Sequence[str], vocab_size: int) -> tuple[scipy.sparse.csr_array, np.ndarray]:
    """How often each two tokens stand within five places of each other, (vocabulary, vocabulary), and each one alone.

    Special tokens are left out. At most ten million tokens are counted, from texts taken at even distances.
    """
    average = np.mean([len(text) for text in texts[:: max(1, len(texts) // 1000)]]) / 4
    step = max(1, int(len(texts) * average / _COUNTED_TOKENS))
    special = np.array(tokenizer.all_special_ids)
    counts = scipy.sparse.csr_array((vocab_size, vocab_size), dtype=np.float64)
    frequency = np.zeros(vocab_size)
    for first in range(0, len(texts), 1000 * step):
        encoded = tokenizer(list(texts[first : first + 1000 * step : step]), add_special_tokens=False)["input_ids"]
        ids = np.concatenate([np.asarray(text, dtype=np.int64) for text in encoded])
        row = np.repeat(np.arange(len(encoded)), [len(text) for text in encoded])
        plain = ~np.isin(ids, special)
        frequency += np.bincount(ids[plain], minlength=vocab_size)
        for distance in range(1, _NEIGHBOURS + 1):
            near = (row[:-distance] == row[distance:]) & plain[:-distance] & plain[distance:]
            pair = ids[:-distance][near], ids[distance:][near]
            counts += scipy.sparse.coo_array((np.ones(near.sum()), pair), counts.shape).tocsr()
    return counts + counts.T, frequency


def factorised(counts: scipy.sparse.csr_array, width: int) -> torch.Tensor:
    """Vectors E, (vocabulary, width), such that E E^T is close to the positive pointwise mutual information.

    Contexts are smoothed by the power 0.75 (Levy, Goldberg and Dagan 2015, https://aclanthology.org/Q15-1016), without
    which rare tokens have the largest values.
    """
    found = counts.tocoo()
    tokens, contexts = counts.sum(1), counts.sum(0) ** 0.75
    information = np.log(found.data * contexts.sum() / (tokens[found.row] * contexts[found.col]))
    matrix = scipy.sparse.csr_array((np.maximum(information, 0.0), (found.row, found.col)), counts.shape).todense()
    left, values, _ = torch.svd_lowrank(torch.from_numpy(matrix).float(), q=min(width + 8, len(matrix)), niter=4)
    vectors = torch.zeros(len(matrix), width)
    kept = min(width, left.size(1))
    vectors[:, :kept] = left[:, :kept] * values[:kept].sqrt()
    return vectors


def sinusoids(places: int, width: int) -> torch.Tensor:
    """Position encodings (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5), (places, width)."""
    angle = torch.arange(places)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.cat([angle.sin(), angle.cos()], dim=1)
