"""Writes ner.jsonl: sentences with persons, places and organizations, tagged word by word (BIO).

Names are made up, and those of a split stand in no other: what is found in test was never seen in training. A surname
of one sentence may be a town or a firm in another, so that a word alone does not tell what it names; what stands
around it does. Some sentences name nothing.

    python -m tools.samples.write_ner

ner_grammar/shapes.json holds `shapes` of sentences, whose words are separated by blanks, and the shapes of what stands
in their places. Shapes that begin with ~ are held out from train and validation. {name} is a beginning and an end.
"""

import json
import random
from pathlib import Path
from typing import Any

from tl_hub import samples

GRAMMAR = Path(__file__).parent / "ner_grammar" / "shapes.json"
SIZES = {"train": 600, "validation": 150, "test": 300}
SHARES = {"train": 0.6, "validation": 0.15, "test": 0.25}  # of the names
KINDS = ("person", "place", "organization")


def dealt(rng: random.Random, items: list[str]) -> dict[str, list[str]]:
    """Items dealt out to the splits."""
    items, parts, start = rng.sample(items, len(items)), {}, 0
    for split, share in SHARES.items():
        end = start + round(share * len(items))
        parts[split] = items[start:end]
        start = end
    return parts


def write_sentence(
    rng: random.Random, grammar: dict[str, Any], names: dict[str, list[str]], shape: str
) -> list[tuple[Any, ...]]:
    """Words and their tags."""
    tagged: list[tuple[str, str]] = []
    for part in shape.removeprefix("~").split():
        place = part.strip("{}")
        value = rng.choice(grammar[place]) if part != place else part
        words = [rng.choice(names[word.strip("{}")]) if word.startswith("{") else word for word in value.split()]
        tags = ["O"] * len(words)
        if place in KINDS:
            tags = [f"B-{place}", *[f"I-{place}"] * (len(words) - 1)]
        tagged += zip(words, tags, strict=True)
    first, tag = tagged[0]
    return [(first[0].upper() + first[1:], tag), *tagged[1:]]


def write(file: Path) -> None:
    """Writes all splits."""
    rng = random.Random(0)
    grammar = json.loads(GRAMMAR.read_text(encoding="utf-8"))
    made = dealt(rng, [begin + end for begin in grammar["beginnings"] for end in grammar["ends"]])
    first = dealt(rng, grammar["first"])
    lines: list[str] = []
    seen: set[str] = set()
    for split, size in SIZES.items():
        shapes = [shape for shape in grammar["shapes"] if split == "test" or not shape.startswith("~")]
        names = {"name": made[split], "first": first[split]}
        count = turn = 0
        while count < size:
            if turn % len(shapes) == 0:
                rng.shuffle(shapes)
            sentence = write_sentence(rng, grammar, names, shapes[turn % len(shapes)])
            turn += 1
            words, tags = map(list, zip(*sentence, strict=True))
            if " ".join(words) in seen:
                continue
            seen.add(" ".join(words))
            count += 1
            line = {"split": split, "domain": "world", "tokens": words, "tags": tags}
            lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(samples.__file__).with_name("ner.jsonl"))
