"""Writes text.jsonl: short recipes made from the dishes and words in text_grammar.

Authored data keeps the demonstration free of licences. Recipes are a register of their own (a title, for how many,
short commands with amounts and times), which a model pretrained on other prose has hardly met, so that adapting to
it shows in the perplexity and in what the model writes.

    python -m tools.samples.write_text

A dish draws some words once and has shapes for its title and for each of its steps. In a shape {x} is a word drawn by
the dish, {x.some} its amount and {x.the} its name in a step; any other {name} is a new draw from the words `name`,
which may hold places themselves. No two splits share a title.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

from tl_hub import samples

GRAMMAR = Path(__file__).parent / "text_grammar"
SIZES = {"train": 800, "validation": 80, "test": 120}
FIELDS = ("", "some", "the")
WORDS = range(40, 76)


def read(name: str) -> Any:
    return json.loads((GRAMMAR / f"{name}.json").read_text(encoding="utf-8"))


def fill(rng: random.Random, shape: str, words: dict[str, list[Any]], drawn: dict[str, Any]) -> str:
    """A shape with its places filled."""

    def value(place: re.Match[str]) -> str:
        name, field = place.groups()
        if name not in drawn:
            return fill(rng, rng.choice(words[name]), words, drawn)
        word = drawn[name]
        return word if isinstance(word, str) else word[FIELDS.index(field or "")]

    return re.sub(r"\{(\w+)(?:\.(\w+))?\}", value, shape)


def write_recipe(rng: random.Random, dish: dict[str, Any], words: dict[str, list[Any]]) -> tuple[str, str]:
    """The title and the text of a recipe."""
    drawn = {name: rng.choice(words[pool]) for name, pool in (dish["draw"] | {"people": "people"}).items()}
    title = fill(rng, rng.choice(dish["titles"]), words, drawn)
    title = title[0].upper() + title[1:]
    steps = [fill(rng, rng.choice(shapes), words, drawn) for shapes in dish["steps"]]
    return title, " ".join([f"{title}.", f"For {drawn['people']}.", *steps])


def write(file: Path) -> None:
    """Writes all splits."""
    rng = random.Random(0)
    dishes, words = read("dishes"), read("words")
    lines, texts = [], set()
    split_of: dict[str, str] = {}
    for split in sorted(SIZES, key=SIZES.__getitem__):  # the small ones first, while titles are plenty
        written = 0
        while written < SIZES[split]:
            title, text = write_recipe(rng, dishes[written % len(dishes)], words)
            if len(text.split()) not in WORDS or text in texts or split_of.setdefault(title, split) != split:
                continue
            texts.add(text)
            written += 1
            line = {"split": split, "domain": "world", "text": text}
            lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(samples.__file__).with_name("text.jsonl"))
