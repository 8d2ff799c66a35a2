"""Rows that are nearly copies of training rows: another case, a comma, a word more. Exact copies are for hashes."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from tl_hub.metrics import apart

WORDS = 3
"""Words of a shingle."""
JACCARD = 0.8
"""Share of all shingles of two texts that they have in common, from which they are near-duplicates (as in Lee et al.
2022, https://arxiv.org/abs/2107.06499)."""

READ = 500
"""Words of a text that are compared, from its beginning: 5,000 texts of them take about 200 MiB."""

Shingles = set[int]


def shingles(text: str) -> Shingles:
    """Hashes of all runs of three words in a text, in lower case and without punctuation.

    Of a shorter text its words are one run, and of one without words the text itself. Other processes hash otherwise.

    Source: Broder 1997, https://doi.org/10.1109/SEQUEN.1997.666900
    """
    words = [found[0] for found in islice(re.finditer(r"\w+", apart(text.lower())), READ)]
    return {*map(hash, zip(*(words[start:] for start in range(WORDS)), strict=False))} or {hash(tuple(words) or text)}


def near(trained: Iterable[Sequence[str]], measured: Sequence[Sequence[str]]) -> np.ndarray:
    """Which of the `measured` rows are near-duplicates of some row that was `trained` on, bool, (measured,).

    A row is a text or several, such as a question and its paragraph, each of which must be near. All near-duplicates
    are found, and no others: two sets of Jaccard similarity t share one of the |x| - ceil(t |x|) + 1 rarest elements of
    either, so that only those need to be looked up. The measured rows are held in memory, the others read one by one.

    Source: Chaudhuri, Ganti and Kaushik 2006, https://doi.org/10.1109/ICDE.2006.9; Bayardo, Ma and Srikant 2007,
    https://doi.org/10.1145/1242572.1242591
    """
    sets = [[shingles(text) for text in row] for row in measured]
    counts = Counter(shingle for first, *_ in sets for shingle in first)
    index: dict[int, list[int]] = {}
    for place, (ours, *_) in enumerate(sets):
        for shingle in _rarest(ours, len(ours), counts):
            index.setdefault(shingle, []).append(place)
    found = np.zeros(len(sets), dtype=bool)
    for row in trained:
        text, *others = row
        theirs = shingles(text)
        known = theirs & counts.keys()  # the others are rarer than these, and are in no measured row
        candidates = {place for shingle in _rarest(known, len(theirs), counts) for place in index.get(shingle, ())}
        rest: list[Shingles] = []
        for place in candidates:
            ours, *our_rest = sets[place]
            if not found[place] and jaccard(theirs, ours) >= JACCARD:
                rest = rest or [shingles(text) for text in others]
                found[place] = all(jaccard(*pair) >= JACCARD for pair in zip(rest, our_rest, strict=True))
    return found


def jaccard(one: Shingles, other: Shingles) -> float:
    """Share of the elements of both that both have, from 0 to 1. Neither is empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def _rarest(known: Shingles, size: int, counts: Counter[int]) -> list[int]:
    """Those `known` among the rarest ones of a set of this `size`, one of which a near-duplicate has."""
    unknown = size - len(known)
    first = size - math.ceil(JACCARD * size - 1e-9) + 1 - unknown
    return sorted(known, key=lambda shingle: (counts[shingle], shingle))[:first] if first > 0 else []
