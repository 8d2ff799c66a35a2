"""Embeddings of a new model that start from what its words occur next to."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch

from tl_hub.architectures import ARCHITECTURES
from tl_hub.model_types import Tokenizer

_NEIGHBOURS = 5
_COUNTED_TOKENS = 10_000_000
_LEAST_SCALE = 0.1
"""Standard deviation of the embeddings: well above that of the positions, or what tokens mean would be lost in them."""


@torch.no_grad()
def start_from_counts(model: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
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


def cooccurrences(
    tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int
) -> tuple[scipy.sparse.csr_array, np.ndarray]:
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
