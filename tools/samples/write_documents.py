"""Writes documents.jsonl: letters, reports and talks on four topics, with other subtopics in test than in train.

A model that learns on tennis and boxing is asked about ice hockey and cricket. Counting words does not get far: hardly
a word that tells the topic of a test document stands in the training documents of that topic. A pretrained model can
know it from its embeddings, which have put words near each other that occur in the same texts.

    python -m tools.samples.write_documents

documents_grammar holds a file per topic with `sentences` and `phrases` of each subtopic by split, and shared.json with
what fits any topic: sentences `about` phrases {a}, {b} and {c}, what leads to an `aside` on another topic, `neutral`
sentences, and `pools` for other places. A document is about one subtopic, a long one about two of the same topic.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

from tl_hub import samples

GRAMMAR = Path(__file__).parent / "documents_grammar"
TOPICS = ("business", "politics", "science", "sports")
SIZES = {"train": 800, "validation": 152, "test": 300}
LONG = 0.1  # part of the documents that are longer than a tiny model's window
ASIDE = 0.5  # part of the short documents that touch on another topic; a long one touches on all of them


def read(name: str) -> Any:
    return json.loads((GRAMMAR / f"{name}.json").read_text(encoding="utf-8"))


SHARED = read("shared")


def fill(rng: random.Random, shape: str, places: dict[str, str]) -> str:
    """A shape with its places filled, from `places` or else by a new draw from the shared pools."""

    def value(place: re.Match[str]) -> str:
        name = place[1]
        return places[name] if name in places else fill(rng, rng.choice(SHARED["pools"][name]), places)

    return re.sub(r"\{(\w+)\}", value, shape)


def about(rng: random.Random, subtopic: dict[str, list[str]], sentences: int, frames: int, town: str) -> list[str]:
    """The subtopic's own sentences and sentences about its phrases, none twice and in random order."""
    places = {"name": rng.choice(SHARED["pools"]["name"]), "town": town}
    phrases = rng.sample(subtopic["phrases"], len(subtopic["phrases"]))
    told = [fill(rng, shape, places) for shape in rng.sample(subtopic["sentences"], sentences)]
    for shape in rng.sample(SHARED["about"], frames):
        drawn = {place: fill(rng, phrases.pop(), places) for place in "abc" if f"{{{place}}}" in shape}
        told.append(fill(rng, shape, places | drawn))
    return rng.sample(told, len(told))


def asides(rng: random.Random, subtopics: list[dict[str, list[str]]], town: str) -> list[str]:
    """A sentence or two on each subtopic."""
    result = []
    for subtopic, shape in zip(subtopics, rng.sample(SHARED["aside"], len(subtopics)), strict=True):
        phrase = fill(rng, rng.choice(subtopic["phrases"]), {"town": town})
        sentence = fill(rng, rng.choice(subtopic["sentences"]), {"town": town})
        result.append(fill(rng, shape, {"town": town, "a": phrase, "sentence": sentence}))
    return result


def write_document(rng: random.Random, topics: dict[str, Any], split: str, number: int, long: bool) -> tuple[str, str]:
    """A document and its label. Topics, and subtopics within them, take turns by `number`."""
    town = rng.choice(SHARED["pools"]["town"])
    turn, place = divmod(number, len(TOPICS))
    label = TOPICS[place]
    subtopics = list(topics[label][split].values())
    if long:
        told = about(rng, subtopics[turn % len(subtopics)], 6, 3, town)
        told += about(rng, subtopics[(turn + 1) % len(subtopics)], 6, 3, town)
    else:
        told = about(rng, subtopics[turn % len(subtopics)], 4, rng.choice([1, 2]), town)
    others = rng.sample([topic for topic in TOPICS if topic != label], 3 if long else int(rng.random() < ASIDE))
    added = asides(rng, [rng.choice(list(topics[other][split].values())) for other in others], town)
    added += [fill(rng, s, {"town": town}) for s in rng.sample(SHARED["neutral"], 4 if long else rng.choice([0, 1]))]
    for sentence in added:
        told.insert(rng.randint(0, len(told)), sentence)
    return " ".join(sentence[0].upper() + sentence[1:] for sentence in told), label


def write(file: Path) -> None:
    """Writes all splits."""
    rng = random.Random(0)
    topics = {topic: read(topic) for topic in TOPICS}
    lines: list[str] = []
    for split, size in SIZES.items():
        rows: dict[str, str] = {}
        while len(rows) < size:
            text, label = write_document(rng, topics, split, len(rows), len(rows) < LONG * size)
            rows[text] = label
        for text, label in rng.sample(list(rows.items()), size):
            row = {"split": split, "domain": "world", "text": text, "label": label}
            lines.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(samples.__file__).with_name("documents.jsonl"))
