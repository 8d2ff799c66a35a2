"""Writes sentiment.jsonl: short reviews whose verdict lies in how their words are put together, not in the words.

A review holds opinions of praise and blame, as a rule one of each, and its frame says which of them wins: by negation,
contrast, expectation, what others say, comparison or time. Every shape, thing and cue stands in reviews of both
verdicts equally often, so that a bag of words cannot tell them apart.

    python -m tools.samples.write_sentiment

In sentiment_grammar, frames.json holds the shapes; world.json and gadgets.json hold what is reviewed, in which words.
In a frame, W and w are what wins, as a clause and as a phrase, V is a second clause that agrees, and L and l are what
loses; {la} is a bare adjective. {s} is the thing, {n} its noun, {it} and {him} its
pronouns, {r} somebody else. Shapes and things that begin with ~ are held out for test.
"""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_hub import samples

GRAMMARS = Path(__file__).parent / "sentiment_grammar"
REVIEWS = {
    "world": {"train": 2400, "validation": 300, "test": 600},
    "gadgets": {"train": 600, "validation": 150, "test": 300},
}
# Of 100 reviews.
KINDS = {
    "contrast": 32,
    "expectation": 12,
    "comparison": 12,
    "past": 10,
    "report": 8,
    "agreement": 16,
    "single": 10,
}
# How often none of the clauses, the one that wins, the other one, and both are negated.
NEGATIONS = {
    "contrast": [94, 3, 3, 0],
    "expectation": [94, 3, 3, 0],
    "comparison": [94, 3, 3, 0],
    "past": [94, 3, 3, 0],
    "report": [100, 0, 0, 0],
    "agreement": [60, 20, 20, 0],
    "single": [60, 40, 0, 0],
}
HELD_OUT = 0.35  # how often test takes a held-out shape
UNSEEN = 0.5  # how often test takes a held-out topic, and else a held-out thing
OPENINGS = 0.06
LONGEST = 116  # characters, which keeps the file small
OBJECTS = {"it": "it", "he": "him", "she": "her", "they": "them"}
SIGNS = ("negative", "positive")


@dataclass
class Thing:
    """What an opinion is about: a noun, its pronoun and the class of adjectives that fit it."""

    noun: str
    pronoun: str
    kind: str


class Review:
    """Draws the parts of a review of one topic, in the shapes and things that its split may use."""

    def __init__(self, rng: random.Random, frames: dict[str, Any], domain: dict[str, Any], split: str) -> None:
        self.rng, self.frames, self.domain, self.split = rng, frames, domain, split
        self.topic = self.domain["topics"][self.drawn(list(self.domain["topics"]), UNSEEN)]
        self.used: set[str] = set()  # nouns and words of praise and blame

    def drawn(self, choices: list[str], held_out: float = HELD_OUT) -> str:
        """One of the choices that this split may use; its mark is kept, because the topics are looked up by it."""
        held = self.split == "test" and self.rng.random() < held_out
        fitting = [c for c in choices if c.startswith("~") == held]
        return self.rng.choice(fitting or [c for c in choices if not c.startswith("~")])

    def shape(self, shapes: list[str]) -> str:
        return self.drawn(shapes).removeprefix("~")

    def thing(self) -> Thing:
        """A thing of the topic that is new to the review."""
        kinds = [kind for kind in self.topic if kind not in ("there", "openings")]
        while True:
            kind = self.rng.choice(kinds)
            entry = self.drawn(self.topic[kind], UNSEEN).removeprefix("~")
            noun, _, pronoun = entry.rpartition(" ")
            if pronoun not in OBJECTS:
                noun, pronoun = entry, "it"
            if noun not in self.used:
                self.used.add(noun)
                return Thing(noun, pronoun, kind)

    def word(self, kind: str, sign: str) -> str:
        """A word of praise or blame that is new to the review."""
        words = self.domain["words"][kind][sign]
        if kind not in ("any", "feeling", "noun", "verb") and self.rng.random() < 0.3:
            words = self.domain["words"]["any"][sign]
        word = self.rng.choice([word for word in words if word not in self.used] or words)
        self.used.add(word)
        return word

    def phrase(self, kind: str, sign: str, negated: bool) -> str:
        """What stands after "was" to give a verdict of this sign; if negated, by a word of the other sign."""
        shape = self.shape(self.frames["phrases"]["negated" if negated else "plain"])
        return shape.replace("{w}", self.word(kind, other(sign) if negated else sign))

    def clause(self, sign: str, negated: bool, said: bool = False) -> str:
        """A sentence without its end that gives a verdict of this sign; if negated, by a word of the other sign.

        What is `said` by somebody else does not speak of "me".
        """
        kind = self.rng.choices(["adjective", "noun", "verb", "feeling"], [75, 8, 0, 0] if said else [75, 8, 9, 8])[0]
        thing = self.thing()
        shapes = self.frames["clauses"][kind]["negated" if negated else "plain"]
        shape = self.shape([shape for shape in shapes if not (said and re.search(r"\b(I|we|me)\b", shape))])
        mine = other(sign) if negated else sign
        of = thing.kind if kind == "adjective" else kind
        word = self.word(of, mine)
        base, _, past = word.partition(" ")
        places = {"{w}": word, "{v}": base, "{ed}": past}
        if "{x}" in shape:
            places["{x}"] = self.word(of, mine)
        return fill(shape, places | forms(thing))

    def review(self, kind: str, sign: str) -> str:
        """A review of this kind and verdict."""
        frames = self.frames[kind]
        if kind in ("agreement", "single"):
            text = self.shape(frames)
        else:
            text = self.shape(frames[self.rng.choice(list(frames))])
        negated = self.rng.choices([(0, 0), (1, 0), (0, 1), (1, 1)], NEGATIONS[kind])[0]
        wins, loses = map(bool, negated)
        thing = self.thing()
        better = "better" if sign == "positive" else "worse"
        worse = "worse" if sign == "positive" else "better"
        makers = {
            "{W}": lambda: self.clause(sign, wins, said=kind == "report"),
            "{V}": lambda: self.clause(sign, loses),
            "{L}": lambda: self.clause(other(sign), loses, said=kind == "report"),
            "{w}": lambda: self.phrase(thing.kind, sign, wins),
            "{l}": lambda: self.phrase(thing.kind, other(sign), loses),
            "{wa}": lambda: self.word(thing.kind, sign),
            "{la}": lambda: self.word(thing.kind, other(sign)),
            "{r}": lambda: self.shape(self.domain["reporters"]),
            "{then}": lambda: self.shape(self.domain["then"]),
            "{now}": lambda: self.shape(self.domain["now"]),
            "{there}": lambda: self.shape(self.topic["there"]),
            "{better}": lambda: better,
            "{worse}": lambda: worse,
        }
        places = {place: make() for place, make in makers.items() if place in text}
        text = fill(text, places | forms(thing))
        if self.rng.random() < OPENINGS:
            text = self.shape(self.topic["openings"]) + " " + text
        return re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)


def other(sign: str) -> str:
    return SIGNS[1 - SIGNS.index(sign)]


def forms(thing: Thing) -> dict[str, str]:
    """What the places for a thing are filled with."""
    many = thing.pronoun == "they"
    return {
        "{s}": f"the {thing.noun}",
        "{n}": thing.noun,
        "{this}": "these" if many else "this",
        "{it}": thing.pronoun,
        "{him}": OBJECTS[thing.pronoun],
        "{be}": "were" if many else "was",
        "{is}": "are" if many else "is",
    }


def fill(shape: str, places: dict[str, str]) -> str:
    return re.sub(r"\{\w+\}", lambda place: places[place[0]], shape)


def write(file: Path) -> None:
    """Writes all splits of all domains."""
    rng = random.Random(0)
    frames = json.loads((GRAMMARS / "frames.json").read_text(encoding="utf-8"))
    lines, texts = [], set()
    for name, sizes in REVIEWS.items():
        domain = json.loads((GRAMMARS / f"{name}.json").read_text(encoding="utf-8"))
        for split, size in sizes.items():
            deck = [(kind, sign) for kind, count in KINDS.items() for sign in SIGNS for _ in range(count)]
            reviews: list[tuple[str, str]] = []
            while len(reviews) < size:
                rng.shuffle(deck)
                for kind, sign in deck[: size - len(reviews)]:
                    text = ""
                    while not text or text in texts or len(text) > LONGEST:
                        text = Review(rng, frames, domain, split).review(kind, sign)
                    texts.add(text)
                    reviews.append((text, sign))
            for text, sign in reviews:
                line = {"split": split, "domain": name, "text": text, "label": sign}
                lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(samples.__file__).with_name("sentiment.jsonl"))
