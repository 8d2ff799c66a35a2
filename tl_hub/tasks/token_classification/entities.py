"""Entities in sentences: tags of words that tell them (BIO, BIOES), words of a raw text, files of tagged words, scores.

Neither models nor data sets are known here.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from tl_hub.metrics import interval_by_error

OUTSIDE = "O"
BIO, BIOES = "BI", "BIES"
"""Prefixes of the tags of a scheme: a word begins an entity, goes on with it, ends it, or is one by itself."""

Entity = tuple[str, int, int]
"""Type, first word, and the word after the last one."""

_CLITIC = re.compile(r"['’](?:s|re|ve|ll|d|m)$|n['’]t$", re.IGNORECASE)
_ABBREVIATION = re.compile(r"(?:[^\W\d_]\.){2,}$")
_ALONE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Chinese characters and kana, between whose words there are no blanks."""
_CLOSES, _OPENS = frozenset(",.;:!?%)]}…"), frozenset("([{")


def parts(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag; of one outside entities, no type.

    Raises:
        ValueError: it is no tag of BIO or BIOES.
    """
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, kind = tag.partition("-")
    if prefix not in BIOES or len(prefix) != 1 or not dash or not kind:
        raise ValueError(f"{tag!r} is no tag of BIO or BIOES")
    return prefix, kind


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags tell, valid or not, by the rules of conlleval and seqeval (in its default mode).

    A word goes on with the entity before it if its tag is I- or E- of the same type and the one before is B- or I-;
    otherwise it begins an entity. An entity that no E- ends is one all the same.
    """
    found: list[Entity] = []
    before, begin = (OUTSIDE, ""), 0
    for place, tag in enumerate([*tags, OUTSIDE]):
        prefix, kind = parts(tag)
        if prefix in ("I", "E") and before[0] in ("B", "I") and kind == before[1]:
            before = prefix, kind
            continue
        if before[0] != OUTSIDE:
            found.append((before[1], begin, place))
        before, begin = (prefix, kind), place
    return found


def tags_of(entities: Sequence[Entity], words: int, scheme: str) -> list[str]:
    """The valid tags of a scheme for so many words."""
    tags = [OUTSIDE] * words
    for kind, begin, end in entities:
        prefixes = ["B", *"I" * (end - begin - 1)]
        if scheme == BIOES:
            prefixes[-1] = "E" if len(prefixes) > 1 else "S"
        tags[begin:end] = [f"{prefix}-{kind}" for prefix in prefixes]
    return tags


def scheme_of(tags: Iterable[str]) -> str:
    """BIOES where one of the tags is of no other scheme, or else BIO."""
    return BIOES if any(tag.startswith(("E-", "S-")) for tag in tags) else BIO


def labels_of(kinds: Sequence[str], scheme: str) -> list[str]:
    """All tags of a scheme, in the order of a model's logits."""
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in kinds for prefix in scheme)]


def joined(words: Sequence[str]) -> tuple[str, list[int], list[int]]:
    """The text that words make, and where each begins and ends in it.

    As people write it, so that a model sees in training what it will be asked about: no blank before a comma or a
    closing bracket, nor within "Ann's". Quotation marks, of which it is not known whether they open, stand alone.
    """
    text, starts, ends = "", list[int](), list[int]()
    for before, word in pairwise(["", *words]):
        close = not before or before in _OPENS or set(word) <= _CLOSES or bool(_CLITIC.match(word))
        text += word if close else f" {word}"
        starts.append(len(text) - len(word))
        ends.append(len(text))
    return text, starts, ends


def words_of(text: str) -> tuple[list[int], list[int]]:
    """Where the words of a raw text begin and end, split as most tagged data are: signs around words are words.

    Signs within a word ("Paris-based", "3.5") belong to it, as do the full stops of an abbreviation ("U.S.").
    """
    spans = [span for chunk in re.finditer(r"\S+", text) for span in _split(text, *chunk.span())]
    return [start for start, _ in spans], [end for _, end in spans]


def _split(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Words of what stands between two blanks."""
    while start < end and _is_sign(text[start]):
        yield start, start + 1
        start += 1
    after: list[tuple[int, int]] = []
    while start < end and _is_sign(text[end - 1]) and not _ABBREVIATION.match(text[start:end]):
        end -= 1
        after.append((end, end + 1))
    clitic = _CLITIC.search(text[start:end])
    if clitic and clitic.start():
        after.append((start + clitic.start(), end))
        end = start + clitic.start()
    begin = start
    for place in range(start, end):
        if _ALONE.match(text[place]):
            if begin < place:
                yield begin, place
            yield place, place + 1
            begin = place + 1
    if begin < end:
        yield begin, end
    yield from reversed(after)


def _is_sign(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def read_conll(lines: Iterable[str]) -> Iterator[dict[str, list[str]]]:
    """Sentences of a file with a word a line and a blank line between sentences: the word first, its tag last.

    Cells are separated by tabs, or by blanks where there are no tabs. Those between are columns named by their number
    (`column_2`). Lines that begin with -DOCSTART- are left out.

    Raises:
        ValueError: a line has fewer than two cells, or not as many as the others.
    """
    sentence: list[list[str]] = []
    width = 0
    for number, line in enumerate(lines, start=1):
        line = line.strip("\r\n\ufeff")
        if not line.strip() or line.startswith("-DOCSTART-"):
            if sentence:
                yield _columns(sentence)
            sentence = []
            continue
        cells = line.split("\t") if "\t" in line else line.split()
        width = width or len(cells)
        if len(cells) != width or width < 2:
            wanted = f"{width}, as the first one has" if width > 1 else "a word and, last, its tag"
            raise ValueError(
                f"line {number} has {len(cells)} cell{'s' * (len(cells) > 1)}; it must have {wanted}, and sentences "
                "are separated by blank lines"
            )
        sentence.append([cell.strip() for cell in cells])
    if sentence:
        yield _columns(sentence)


def _columns(sentence: list[list[str]]) -> dict[str, list[str]]:
    names = ["tokens", *(f"column_{i}" for i in range(2, len(sentence[0]))), "tags"]
    return {name: [cells[i] for cells in sentence] for i, name in enumerate(names)}


def compared(
    expected: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]], kinds: Sequence[str]
) -> np.ndarray:
    """How many entities were found rightly, found at all, and are there: int, (sentences, kinds, 3).

    One is right if its type and both of its ends are.
    """
    place = {kind: i for i, kind in enumerate(kinds)}
    counts = np.zeros((len(expected), len(kinds), 3), dtype=int)
    for row, (wanted, found) in enumerate(zip(expected, predicted, strict=True)):
        for column, entities in enumerate((set(wanted) & set(found), found, wanted)):
            for kind, _, _ in entities:
                counts[row, place[kind], column] += 1
    return counts


def figures(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 from 0 to 100 of counts (..., 3) by `compared`; 0 where nothing is there."""
    right, found, wanted = np.moveaxis(counts.astype(float), -1, 0)
    return {
        "f1": 200 * right / np.maximum(found + wanted, 1),
        "precision": 100 * right / np.maximum(found, 1),
        "recall": 100 * right / np.maximum(wanted, 1),
    }


def intervals(counts: np.ndarray, seed: int = 0, resamples: int = 2000) -> dict[str, tuple[float, float]]:
    """95 % intervals of `figures` of all sentences: Wilson's, with the standard error of resampled sentences.

    Args:
        counts: (sentences, 3).
    """
    random, shares = np.random.default_rng(seed), np.full(len(counts), 1 / len(counts))
    drawn = np.array([random.multinomial(len(counts), shares) @ counts for _ in range(resamples)])
    errors = {name: values.std() for name, values in figures(drawn).items()}
    _, found, wanted = counts.sum(0)
    there = {"f1": (found + wanted) / 2, "precision": found, "recall": wanted}  # fewer than sentences, where rare
    ends = {
        name: interval_by_error(float(value) / 100, errors[name] / 100, int(min(len(counts), there[name])))
        for name, value in figures(counts.sum(0)).items()
    }
    return {name: (100 * low, 100 * high) for name, (low, high) in ends.items()}
