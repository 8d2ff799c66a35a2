"""A generated card put together with the one that is there, of which a person may have written parts."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from tl_hub.card import widget
from tl_hub.card.metadata import ESTIMATED
from tl_hub.errors import UserError


class _Yaml(yaml.SafeLoader):
    """YAML 1.2, as the Hub reads it: `no` is Norwegian, not false, and a date is a text."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if not tag.endswith((":bool", ":timestamp"))]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
# Each mark on its own, not a part from mark to mark: 20,000 parts without an end must not take minutes.
_MARK = re.compile(r"<!-- tl_hub: (?P<name>[^\n]{0,300}) (?P<digest>[0-9a-f]{12}) -->\n|\n<!-- tl_hub end -->")
_DEEPEST, _MOST = 30, 20_000
"""Levels and values of metadata, where an alias counts as what it stands for."""
_UNFILLED = "# Model Card for Model ID"
"""How the forms begin that PEFT writes into a folder."""
_MEASURED = ("base_model", "base_model_relation", "datasets", "library_name", "metrics", "model-index", "pipeline_tag")
"""Metadata that states what a run did: what an earlier push said of it does not outlive a new one."""


class StrictYaml(_Yaml):
    """The same, but a key that comes twice is a fault, as it is to the Hub."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} comes twice", key.start_mark)
            seen |= {key.value} if isinstance(key.value, str) else set()
        return super().construct_mapping(node, deep)


class _Part(NamedTuple):
    """A generated part of a card: what it is called, its text and the digest of that, and where it stands."""

    name: str
    digest: str
    text: str
    start: int
    end: int


def _parts(card: str) -> Iterator[_Part]:
    opened: re.Match[str] | None = None
    for mark in _MARK.finditer(card):
        if mark["digest"]:
            opened = opened or mark
        elif opened:
            text = card[opened.end() : mark.start()]
            yield _Part(opened["name"], opened["digest"], text, opened.start(), mark.end())
            opened = None


def merge(generated: str, there: str, where: str = "on the Hub") -> tuple[str, list[str]]:
    """The card of a new push that keeps what a person wrote into the card that is there.

    What stands between the generated parts stays where it is. A generated part that was edited is replaced, or the
    card would state what the weights no longer do; the edit is kept beside it in a comment. In the metadata, what a
    run tells is replaced, tags are put together, and everything else stays.

    Args:
        generated: a text of `render`, or one that this made of it, whose own texts come before those that are there.
        there: a README.md of whatever origin.
        where: it is, for the sentences.

    Returns:
        The text, and a sentence on each thing a person should look at.

    Raises:
        UserError: the metadata there cannot be read.
    """
    from huggingface_hub.utils import yaml_dump

    notes: list[str] = []
    (ours, body), (theirs, old) = split(generated), split(there)
    if old.lstrip().startswith(_UNFILLED):
        notes.append(f"the card {where} is PEFT's form, which nobody has filled in; it is left out")
        theirs, old = {}, ""
    head = _merged_metadata(ours, theirs, where, notes)
    text = _merged_text(body, old, where, notes)
    return f"---\n{yaml_dump(head, sort_keys=False)}---\n\n{text}\n", notes


def _merged_metadata(ours: dict[str, Any], theirs: dict[str, Any], where: str, notes: list[str]) -> dict[str, Any]:
    """What a run tells replaces what is there, which `notes` get a sentence on; tags are put together."""
    for key in ("license", "language", *_MEASURED):
        said, known = theirs.get(key), ours.get(key)
        if not said or said == known or key in ("metrics", "model-index"):
            continue
        if known:
            notes.append(f"the card {where} says {key} {said}; replaced by the run's {known}")
        elif key in _MEASURED:
            notes.append(f"the card {where} says {key} {said}; left out, as the run has none")
    replaced = {*_MEASURED, *(["language_bcp47"] if "language" in ours else [])}
    head = ours | {key: value for key, value in theirs.items() if key not in ours and key not in replaced}
    if isinstance(theirs.get("widget"), list):
        shown = ours.get("widget") or []
        head["widget"] = [*shown, *(each for each in widget.of_a_person(theirs["widget"]) if each not in shown)]
        if not head["widget"]:
            del head["widget"]  # of rows that are not to be shown any more
    measured = theirs.get("co2_eq_emissions")
    if isinstance(measured, dict) and str(measured.get("source")).startswith(ESTIMATED):
        head = {name: value for name, value in head.items() if name != "co2_eq_emissions" or name in ours}
    elif measured is not None:
        head["co2_eq_emissions"] = measured  # a person's own figure is worth more than an estimate
    tags = theirs.get("tags") or []
    tags = [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]
    return head | {"tags": list(dict.fromkeys([*ours.get("tags", []), *tags]))}


def _merged_text(body: str, old: str, where: str, notes: list[str]) -> str:
    """The generated parts of `body`, with what a person wrote between those of `old` at its place."""
    parts = [(part.name, body[part.start : part.end]) for part in _parts(body)]
    for part in _parts(old):
        if _digest(part.text) != part.digest:
            notes.append(
                f"the part {part.name!r} of the card {where} was edited; the edit is kept in a comment below it"
            )
    own, written = _written(body), _written(old)
    if not any(_parts(old)) and old.strip():
        notes.append(f"the card {where} is not from tl_hub; its text is kept below the generated one")
        written = {parts[-1][0]: [old.strip()]}
    for place, texts in own.items():
        there_now = written.get(place, [])
        new = [text for text in texts if not any(text in other for other in there_now)]
        kept = [text for text in there_now if not any(text in other for other in new)]
        if new and kept:
            notes.append(f"the card {where} and the card in the folder differ in a text; both are kept")
        written[place] = new + kept

    merged = written.pop(None, [])
    for name, text in parts:
        merged += [text, *written.pop(name, [])]
    merged += [text for left in written.values() for text in left]  # of parts that the new card does not have
    return "\n\n".join(merged)


def _written(body: str) -> dict[str | None, list[str]]:
    """What a person wrote into a card, by the generated part it follows; an edit of such a part in a comment."""
    written: dict[str | None, list[str]] = {}
    place, end = None, 0
    for part in _parts(body):
        written.setdefault(place, []).append(body[end : part.start].strip())
        place, end = part.name, part.end
        if _digest(part.text) != part.digest:
            edited = part.text.replace("--", "- -")  # two hyphens may end a comment
            written.setdefault(place, []).append(f"<!-- edited by hand, then replaced by a new push:\n{edited}\n-->")
    written.setdefault(place, []).append(body[end:].strip())
    return {place: [text for text in texts if text] for place, texts in written.items()}


def sections_of(body: str) -> list[tuple[str, str]]:
    """The text cut before each heading of the second level, with the heading's name; the first part is "Summary"."""
    name, lines, code = "Summary", list[str](), False
    sections = []
    for line in body.splitlines():
        code ^= line.startswith("```")
        if line.startswith("## ") and not code:
            sections.append((name, "\n".join(lines).strip()))
            name, lines = line.removeprefix("## "), []
        lines.append(line)
    return [*sections, (name, "\n".join(lines).strip())]


def marked(section: tuple[str, str]) -> str:
    """A section between its marks, of which its text, a command or label of somebody's, must hold none."""
    name, text = (part.replace("<!-- tl_hub", "<!- - tl_hub") for part in section)
    return f"<!-- tl_hub: {name} {_digest(text)} -->\n{text}\n<!-- tl_hub end -->"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def split(card: str, loader: type[_Yaml] = _Yaml) -> tuple[dict[str, Any], str]:
    """Metadata and text of a card.

    Raises:
        UserError: the metadata cannot be read.
    """
    found = re.match(r"\s*---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", card := card.replace("\r\n", "\n"), re.DOTALL)
    if not found:
        return {}, card
    try:
        head = yaml.load(found[1] or "", loader)
        _values(head, {})
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(
            f"the metadata of the card are not YAML that can be read ({' '.join(str(error).split())[:300]})"
        ) from error
    return head if isinstance(head, dict) else {}, card[found.end() :]


def _values(value: Any, known: dict[int, int], depth: int = 0) -> int:
    """How many values there are in one, each alias counted as what it stands for.

    Raises:
        ValueError: too many, too deep, or a text that no file can hold.
    """
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    if isinstance(value, str):
        value.encode()
    if not isinstance(value, dict | list | tuple | set):
        return 1
    if id(value) not in known:
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_values(part, known, depth + 1) for part in parts)
    if known[id(value)] > _MOST:
        raise ValueError(f"with its aliases it holds more than {_MOST:,} values")
    return known[id(value)]
