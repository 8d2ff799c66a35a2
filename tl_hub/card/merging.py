"""A generated card put together with the one that is there, of which a person may have written parts."""

import hashlib
import re
from typing import Any

import yaml

from tl_hub.errors import UserError


class _Yaml(yaml.SafeLoader):
    """YAML 1.2, as the Hub reads it: `no` is Norwegian, not false, and a date is a text."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if not tag.endswith((":bool", ":timestamp"))]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_PART = re.compile(
    r"<!-- tl_hub: (?P<name>[^\n]*) (?P<digest>[0-9a-f]{12}) -->\n(?P<text>.*?)\n<!-- tl_hub end -->", re.DOTALL
)
_UNFILLED = "# Model Card for Model ID"
"""How the forms begin that PEFT writes into a folder."""
_MEASURED = ("base_model", "base_model_relation", "datasets", "library_name", "metrics", "model-index", "pipeline_tag")
"""Metadata that states what a run did: what an earlier push said of it does not outlive a new one."""


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

    notes = []
    (ours, body), (theirs, old) = _split(generated), _split(there)
    if old.lstrip().startswith(_UNFILLED):
        notes.append(f"the card {where} is PEFT's form, which nobody has filled in; it is left out")
        theirs, old = {}, ""
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
    tags = theirs.get("tags") or []
    tags = [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]
    head["tags"] = list(dict.fromkeys([*ours.get("tags", []), *tags]))

    parts = [(part["name"], part[0]) for part in _PART.finditer(body)]
    for part in _PART.finditer(old):
        if _digest(part["text"]) != part["digest"]:
            notes.append(
                f"the part {part['name']!r} of the card {where} was edited; the edit is kept in a comment below it"
            )
    own, written = _written(body), _written(old)
    if not _PART.search(old) and old.strip():
        notes.append(f"the card {where} is not from tl_hub; its text is kept below the generated one")
        written = {parts[-1][0]: [old.strip()]}
    for place, texts in own.items():
        there_now = written.get(place, [])
        new = [text for text in texts if not any(text in other for other in there_now)]
        kept = [text for text in there_now if not any(text in other for other in new)]
        if new and kept:
            notes.append(f"a text of the card {where} is not that of the folder; both are kept")
        written[place] = new + kept

    merged = written.pop(None, [])
    for name, text in parts:
        merged += [text, *written.pop(name, [])]
    merged += [text for left in written.values() for text in left]  # of parts that the new card does not have
    text = "\n\n".join(merged)
    return f"---\n{yaml_dump(head, sort_keys=False)}---\n\n{text}\n", notes


def _written(body: str) -> dict[str | None, list[str]]:
    """What a person wrote into a card, by the generated part it follows; an edit of such a part in a comment."""
    written: dict[str | None, list[str]] = {}
    place, end = None, 0
    for part in _PART.finditer(body):
        written.setdefault(place, []).append(body[end : part.start()].strip())
        place, end = part["name"], part.end()
        if _digest(part["text"]) != part["digest"]:
            edited = part["text"].replace("--", "- -")  # two hyphens may end a comment
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
    name, text = section
    return f"<!-- tl_hub: {name} {_digest(text)} -->\n{text}\n<!-- tl_hub end -->"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Metadata and text of a card."""
    found = re.match(r"\s*---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", card := card.replace("\r\n", "\n"), re.DOTALL)
    if not found:
        return {}, card
    try:
        head = yaml.load(found[1] or "", _Yaml)
    except yaml.YAMLError as error:
        raise UserError(f"the metadata of the card are not YAML ({' '.join(str(error).split())})") from error
    return head if isinstance(head, dict) else {}, card[found.end() :]
