"""Writes documents.jsonl: reports, letters and talks about several subjects, one of which is the main one.

Authored data keeps the demonstration free of licences and small enough to learn in a minute. A document gives about
as many words to each of its subjects; which one it is mainly about is told only by the words beside it ("most of
the evening went to ...", "only in passing ..."), so that counting words does not tell and reading does.

    python -m tl_hub.samples.write_documents

documents_grammar holds a file per topic, with `subjects` (+ marks a plural), `details` and `pools` for their places;
`genres.json` with the settings; and `cues.json` with the clauses that set a subject {x} in its place: `main`,
`aside`, `trap` (a main cue that is denied or belongs to another time), `neutral`, and `both`, which tell {x} from {y}.
In a clause, {past|present} or {past|past plural|present|present plural} picks a form, the longer one to agree with
{x}. Shapes and values that begin with ~ are held out from train and validation.
"""

import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GRAMMAR = Path(__file__).parent / "documents_grammar"
TOPICS = ("environment", "health", "schools", "sports", "traffic")
SIZES = {"train": 1200, "validation": 150, "test": 300}
HELD_OUT = 0.3  # how often test takes a held-out shape or value
LONG = 0.1  # part of the documents that are longer than a tiny model's window
EASY = 0.33  # part of the documents that give the main subject more room than the others
TWICE = 0.85  # how often the main subject and one that was set aside are named once more
WORDS = {False: (45, 160), True: (301, 400)}
COMMON = {
    "number": "ten twelve twenty thirty forty fifty".split(),
    "month": "January March May June September".split(),
    "day": "Monday Tuesday Thursday Friday".split(),
}


def read(name: str) -> Any:
    return json.loads((GRAMMAR / f"{name}.json").read_text(encoding="utf-8"))


@dataclass
class Document:
    """A document while it is put together."""

    rng: random.Random
    split: str
    genre: dict[str, Any]
    cues: dict[str, Any]
    topics: dict[str, Any]
    used: set[str] = field(default_factory=set)
    subjects: dict[str, str] = field(default_factory=dict)

    def pick(self, shapes: list[str]) -> str:
        """A shape or value that this split may use, if possible one that is new to the document."""
        held = self.split == "test" and self.rng.random() < HELD_OUT
        fitting = [s for s in shapes if s.startswith("~") == held] or [s for s in shapes if not s.startswith("~")]
        shape = self.rng.choice([s for s in fitting if s not in self.used] or fitting)
        self.used.add(shape)
        return shape.removeprefix("~")

    def fill(self, shape: str, pools: dict[str, list[str]]) -> str:
        """A shape with its places filled from pools; a verb agrees with the place the shape starts with."""

        def filled(place: re.Match[str]) -> str:
            value = self.pick({**COMMON, **pools}[place[1]])
            if place.start():
                return value + (place[2] or "")
            verb = place[2] and (" were" if value.endswith(("s", "police")) else " was")
            return value + (verb or "")

        return re.sub(r"\{(\w+)\}( was\b| were\b)?", filled, shape)

    def subject(self, topic: str) -> str:
        """What the document has to say on a topic, always by the same name; + marks a plural."""
        if topic not in self.subjects:
            grammar = self.topics[topic]
            self.subjects[topic] = self.fill(self.pick(grammar["subjects"]), grammar["pools"])
        return self.subjects[topic]

    def place(self, shape: str, subject: str) -> str:
        """A clause with its verbs in the form that the genre and the subject call for, and its places filled."""

        def form(match: re.Match[str]) -> str:
            forms = match[1].split("|")
            plural = len(forms) == 4 and subject.startswith("+")
            return forms[len(forms) // 2 * self.genre["present"] + plural]

        shape = re.sub(r"\{([^}]*\|[^}]*)\}", form, shape)
        return self.fill(shape.replace("{x}", subject.removeprefix("+")), self.genre)

    def cue(self, role: str, subject: str) -> str:
        """A clause that gives a subject this role."""
        kinds = self.cues[role]
        shapes = kinds if role == "neutral" else kinds[self.rng.choice(list(kinds))]
        return self.place(self.pick(shapes), subject)

    def both(self, main: str, other: str, role: str) -> str:
        """A sentence that tells the main subject from another one."""
        kinds = self.cues["both"]
        kind = self.rng.choice([*kinds, "joined", "joined"])
        shapes = [s for s in kinds[kind] if kind != "joined" or f"{{{role}}}" in s]
        shape = self.pick(shapes).replace("{y}", other.removeprefix("+"))
        for name, subject in (("main", main), ("aside", other), ("trap", other)):
            if f"{{{name}}}" in shape:
                shape = shape.replace(f"{{{name}}}", self.cue(name, subject))
        return self.place(shape, main)

    def details(self, topic: str, count: int) -> list[str]:
        grammar = self.topics[topic]
        return [self.fill(self.pick(grammar["details"]), grammar["pools"]) for _ in range(count)]


def roles(rng: random.Random, topics: list[str], main: str) -> dict[str, str]:
    """What the document makes of each topic; at least one of the others is set aside."""
    others = [topic for topic in topics if topic != main]
    drawn = {topic: rng.choices(["aside", "trap", "neutral"], [0.67, 0.08, 0.25])[0] for topic in others}
    if "aside" not in drawn.values():
        drawn[rng.choice(others)] = "aside"
    return drawn | {main: "main"}


def verdicts(document: Document, drawn: dict[str, str]) -> list[tuple[list[str], str]]:
    """Sentences that set the topics in their places, each with the topics it names, in random order."""
    rng = document.rng
    rest = dict(drawn)
    main = next(topic for topic, role in drawn.items() if role == "main")
    result = []
    weighed = [topic for topic, role in drawn.items() if role in ("aside", "trap")]
    if rng.random() < 0.4:
        other = rng.choice(weighed)
        pair = [main, other]
        told = document.both(document.subject(main), document.subject(other), drawn[other])
        result.append((rng.sample(pair, 2), told))
        rest = {topic: role for topic, role in drawn.items() if topic not in pair}
    result += [([topic], document.cue(role, document.subject(topic))) for topic, role in rest.items()]
    if rng.random() < TWICE:
        again = rng.choice([topic for topic in weighed if drawn[topic] == "aside"])
        for topic in (main, again):
            result.append(([], document.cue(drawn[topic], document.subject(topic))))
    return rng.sample(result, len(result))


def body(document: Document, drawn: dict[str, str], counts: dict[str, int], summed_up: bool) -> list[list[str]]:
    """The sentences of the document, in groups that belong together."""
    rng = document.rng
    if summed_up:
        # First every topic in a neutral voice, then what became of them.
        told = [[document.cue("neutral", document.subject(topic))] for topic in drawn]
        groups = [group + document.details(topic, counts[topic]) for group, topic in zip(told, drawn, strict=True)]
        weighed = {topic: role for topic, role in drawn.items() if role != "neutral"}
        return [*rng.sample(groups, len(groups)), *([sentence] for _, sentence in verdicts(document, weighed))]
    groups = []
    for topics, sentence in verdicts(document, drawn):
        details = [detail for topic in topics for detail in document.details(topic, counts[topic])]
        role = drawn[topics[0]] if topics else ""
        if len(topics) == 1 and details and role in ("main", "aside") and rng.random() < 0.15:
            verdict = document.cue(role, rng.choice(document.cues["back"]))
            groups.append([document.cue("neutral", document.subject(topics[0])), *details, verdict])
        else:
            groups.append([*details, sentence] if len(topics) == 1 and rng.random() < 0.25 else [sentence, *details])
    return groups


def write_document(rng: random.Random, split: str, label: str, long: bool, grammars: dict[str, Any]) -> str:
    """A document whose main subject is of the topic `label`."""
    genre = dict(rng.choice(grammars["genres"]))
    for name in ("they", "whole", "item", "next", "before", "then"):
        genre[name] = [rng.choice(genre[name])]  # the same throughout a document
    document = Document(rng, split, genre, grammars["cues"], grammars["topics"])
    size = 5 if long else rng.choice([3, 3, 4, 4, 5])
    topics = [label, *rng.sample([topic for topic in TOPICS if topic != label], size - 1)]
    rng.shuffle(topics)
    each = rng.choice([4, 5]) if long else rng.choice({3: [0, 1, 1], 4: [0, 0, 1], 5: [0]}[size])
    counts = {topic: each + (rng.random() < 0.2) for topic in topics}
    if not long and rng.random() < EASY:
        counts = {topic: 3 if topic == label else int(rng.random() < 0.2) for topic in topics}
    summed_up = rng.random() < (0.8 if long else 0.12)
    groups = body(document, roles(rng, topics, label), counts, summed_up)
    for _ in range(rng.randint(0, 3 if long else 1)):
        groups.insert(rng.randint(0, len(groups)), [document.fill(document.pick(genre["fillers"]), {})])
    if rng.random() < 0.8:
        groups.insert(0, [document.fill(document.pick(genre["openings"]), {})])
    if rng.random() < 0.4:
        groups.append([document.fill(document.pick(genre["closings"]), {})])
    return " ".join(sentence[0].upper() + sentence[1:] + "." for group in groups for sentence in group)


def write(file: Path) -> None:
    """Writes all splits."""
    rng = random.Random(0)
    grammars = {"genres": read("genres"), "cues": read("cues"), "topics": {topic: read(topic) for topic in TOPICS}}
    lines: list[str] = []
    seen: set[str] = set()
    for split, size in SIZES.items():
        rows = []
        for index in range(size):
            long = index < LONG * size
            text = ""
            while not WORDS[long][0] <= len(text.split()) <= WORDS[long][1] or text in seen:
                text = write_document(rng, split, TOPICS[index % len(TOPICS)], long, grammars)
            seen.add(text)
            rows.append({"split": split, "domain": "world", "text": text, "label": TOPICS[index % len(TOPICS)]})
        rng.shuffle(rows)
        lines += [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(__file__).with_name("documents.jsonl"))
