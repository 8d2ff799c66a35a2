"""Writes qa.jsonl: short paragraphs and questions made from the shapes and values in qa_grammar.

Authored data keeps the demonstration free of licences and small enough to learn in a minute. A paragraph tells facts
of one entity (a library, a ferry ...) and sometimes of a second one of the same category, so that the kind of answer
asked for does not settle a question. Entities are made up and drawn anew for each paragraph: nothing can be known by
heart, the clause that answers has to be found.

    python -m tools.samples.write_qa

A grammar file holds, per attribute, `clauses` and `questions`, with `reverse` questions whose answer is the entity,
and `pools` of values and of names. In a shape, {s} is the subject (a name or a pronoun), {s's} its possessive, {n} the
name, {o} the name of the second entity and {a} the value; those that begin with ~ are held out from train and
validation. In a value, <first>, <last>, <place> and <thing> stand for one of the `names.json`, # for a digit. Names
and values are dealt out to the splits, so test asks about none that train holds.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

from tl_hub import samples

GRAMMARS = Path(__file__).parent / "qa_grammar"
NAMES = GRAMMARS / "names.json"
QUESTIONS = {
    "world": {"train": 4000, "validation": 250, "test": 350},
    "manuals": {"train": 145, "validation": 60, "test": 245},
}
SPLITS = ("train", "validation", "test")
SHARES = (0.6, 0.14)  # train's and validation's part of names and values
SECOND = 0.25  # how often facts of a second entity are told
UNANSWERABLE = 0.08
HELD_OUT = 0.1  # how often test takes a held-out shape
CLOSE = "\uf8ff"  # ends a marked span; the character that begins it, from U+E000 on, says which one it is
BOTH, OPENING, ASIDE = 2, 3, 4  # what a sentence is about, besides the main entity (0) and the second one (1)
Row = dict[str, str]


class Paragraph:
    """Text about a main entity (0) and a second one (1), in which answers are marked while it is put together."""

    def __init__(self, rng: random.Random, grammar: dict[str, Any], rows: tuple[Row, Row], split: str) -> None:
        self.rng, self.grammar, self.rows, self.split = rng, grammar, rows, split
        self.last: int | None = None  # whom a pronoun would be taken to mean
        self.introduced = False  # whether the second entity has been named
        self.used: set[str] = set()

    def shape(self, shapes: list[str]) -> str:
        """A shape that this split may use, if possible one that is new to the paragraph."""
        held = self.split == "test" and self.rng.random() < HELD_OUT
        fitting = [s for s in shapes if s.startswith("~") == held] or [s for s in shapes if not s.startswith("~")]
        shape = self.rng.choice([s for s in fitting if s not in self.used] or fitting)
        self.used.add(shape)
        return shape.removeprefix("~")

    def marked(self, who: int, column: str) -> str:
        """A value as an answer span, which leaves out the article so that spans begin alike."""
        value = re.sub(r"^(the|a|an|its) ", "", self.rows[who][column])
        article = self.rows[who][column].removesuffix(value)
        return article + chr(0xE000 + 2 * ["name", *self.grammar["attributes"]].index(column) + who) + value + CLOSE

    def subject(self, who: int) -> str:
        """The name, unless a pronoun can only mean this entity."""
        words = [self.marked(who, "name")]
        if self.last == who:
            words += ["it", "it"] + ([self.noun()] if who == 0 else [])
        self.last = who
        self.introduced |= who == 1
        return self.rng.choice(words)

    def noun(self) -> str:
        return "the " + self.grammar["noun"]

    def fill(self, shape: str, who: int, column: str = "", subject: str | None = None) -> str:
        """A shape with its places filled."""
        if "{s" in shape and subject is None:
            subject = self.subject(who)
        if subject is not None:
            if subject == "it" and not shape.startswith("{s") and "{s}" in shape:
                subject = self.noun()  # "the flag of it" is no English
            own = "its" if subject == "it" else subject + "'s"
            shape = shape.replace("{s's}", own).replace("{s}", subject)
        if "{n}" in shape:
            self.last = who
        for place, value in (("{n}", (who, "name")), ("{o}", (1, "name")), ("{a}", (who, column))):
            if place in shape:
                shape = shape.replace(place, self.marked(*value))
        return shape

    def clause(self, who: int, column: str) -> str:
        return self.shape(self.grammar["attributes"][column]["clauses"])

    def told(self, who: int, columns: list[str]) -> str:
        """One or two facts of one entity in a sentence."""
        if len(columns) == 2:
            return self.pair(who, *columns)
        shape = self.clause(who, columns[0])
        if who == 1 and not self.introduced and shape.startswith("{s} ") and self.rng.random() < 0.7:
            self.last, self.introduced = who, True
            subject = f"another {self.grammar['noun']}, {self.marked(who, 'name')},"
            return self.fill(shape, who, columns[0], subject)
        return self.fill(shape, who, columns[0])

    def pair(self, who: int, first: str, second: str) -> str:
        """Two facts of one entity in a sentence."""
        one, two = self.clause(who, first), self.clause(who, second)
        if one.startswith("{s} ") and two.startswith("{s} "):
            if self.rng.random() < 0.4:
                self.last = None  # "it, which" is no English
                return self.fill(f"{{s}}, which {one[4:]}, ", who, first) + self.fill(two[4:], who, second)
            return self.fill(one, who, first) + " and " + self.fill(two[4:], who, second)
        start = self.fill(one, who, first)
        # "Its currency is the yen, and it ..." would leave open what "it" is.
        subject = "it" if one.startswith("{s} ") else self.noun()
        return start + self.rng.choice([", and ", "; "]) + self.fill(two, who, second, subject)

    def contrast(self, column: str) -> str:
        """The same attribute of both entities in a sentence."""
        one, two = self.clause(0, column), self.clause(1, column)
        if self.rng.random() < 0.3 and one.startswith("{s} ") and two.startswith("{s} "):
            self.last = None
            start = self.fill(f"unlike {{s}}, which {two[4:]}, ", 1, column)
            return start + self.fill(one, 0, column)
        if self.rng.random() < 0.5 and two.startswith("{s"):
            self.last = None
            start = self.fill("while " + two, 1, column) + ", "
            return start + self.fill(one, 0, column)
        links = [", while ", ", whereas ", ", but "] if two.startswith("{s") else [", but "]
        start = self.fill(one, 0, column) + self.rng.choice(links)
        return start + self.fill(two, 1, column)

    def sentences(self, facts: list[list[str]]) -> list[str]:
        """Sentences that tell these attributes of the main and of the second entity."""
        both = [column for column in facts[0] if column in facts[1] and self.rng.random() < 0.6]
        plan: list[tuple[int, list[str]]] = [(BOTH, [column]) for column in both]
        for who in (0, 1):
            rest = [column for column in facts[who] if column not in both]
            while rest:
                size = 2 if len(rest) > 1 and self.rng.random() < 0.7 else 1
                plan.append((who, [rest.pop() for _ in range(size)]))
        self.rng.shuffle(plan)
        # The main entity comes first, by a sentence of its own or by an opening that tells nothing.
        if self.rng.random() < 0.35:
            plan.insert(0, (OPENING, []))
        else:
            first = plan.index(next(part for part in plan if part[0] in (0, BOTH)))
            plan.insert(0, plan.pop(first))
        if self.rng.random() < 0.35:
            plan.insert(self.rng.randint(1, len(plan)), (ASIDE, []))
        result = []
        for who, columns in plan:
            if who == BOTH:
                result.append(self.contrast(columns[0]))
            elif who == OPENING:
                result.append(self.fill(self.shape(self.grammar["openings"]), 0))
            elif who == ASIDE:
                result.append(self.shape(self.grammar["asides"]))
            else:
                result.append(self.told(who, columns))
            if who in (BOTH, ASIDE):
                self.last = None
        return result

    def question(self, who: int, column: str, kind: str = "questions") -> str:
        text = self.shape(self.grammar["attributes"][column][kind])
        name = self.rows[who]["name"]
        text = text.replace("{n's}", name + "'s").replace("{n}", name).replace("{a}", self.rows[who][column])
        return text[0].upper() + text[1:]


def unmark(marked: str) -> tuple[str, list[tuple[int, int, str]]]:
    """The plain text, and its spans as (mark, start, text)."""
    plain, spans = "", []
    begun: list[tuple[int, int]] = []
    for character in marked:
        if character == CLOSE:
            mark, start = begun.pop()
            spans.append((mark, start, plain[start:]))
        elif "\ue000" <= character < CLOSE:
            begun.append((ord(character) - 0xE000, len(plain)))
        else:
            plain += character
    return plain, spans


def write_paragraph(
    rng: random.Random, grammar: dict[str, Any], rows: tuple[Row, Row], split: str, unanswerable: bool
) -> dict[str, Any] | None:
    """A paragraph with its questions, or None if the draw gives no fitting one."""
    columns = list(grammar["attributes"])
    main = rng.sample(columns, rng.choice([2, 3, 4]))
    second = [c for c in columns if rng.random() < (0.75 if c in main else 0.3)][:3] if rng.random() < SECOND else []
    if any(rows[0][column] == rows[1][column] for column in ["name", *second]):
        return None
    paragraph = Paragraph(rng, grammar, rows, split)
    sentences = paragraph.sentences([main, second])
    if not second:
        paragraph.last = 0
        sentences.append(paragraph.fill(paragraph.shape(grammar["links"]), 0))
    marked = " ".join(re.sub(r"^[\ue000-\uf8ff]*.", lambda m: m[0].upper(), s) + "." for s in sentences)
    context, spans = unmark(marked)
    if not 16 <= len(context.split()) <= 44:
        return None

    answered = [(0, column) for column in main] + [(1, column) for column in second]
    questions = []
    for who, column in rng.sample(answered, min(len(answered), 6 - unanswerable)):
        place = 2 * (1 + columns.index(column)) + who
        (start, text), *_ = [span[1:] for span in spans if span[0] == place]
        value, other = rows[who][column], rows[1 - who][column]
        alone = value not in other and other not in value  # else both entities would be right
        reverse = alone and "reverse" in grammar["attributes"][column] and rng.random() < 0.15
        if reverse:
            # The answer is the mention of the entity that lies nearest to the fact.
            names = [span[1:] for span in spans if span[0] == who]
            start, text = min(names, key=lambda span: abs(span[0] - start))
        asked = paragraph.question(who, column, "reverse" if reverse else "questions")
        questions.append({"question": asked, "answers": {"text": [text], "answer_start": [start]}})
    if unanswerable:
        missing = [(who, c) for who in (0, 1) for c in columns if (who, c) not in answered]
        missing = [(who, c) for who, c in missing if rows[who][c] not in context]
        # An answer of the other entity makes the question look answerable.
        tempting = [(who, c) for who, c in missing if (1 - who, c) in answered]
        pool = tempting if tempting and rng.random() < 0.5 else missing
        if not pool:
            return None
        asked = paragraph.question(*rng.choice(pool))
        nothing = {"question": asked, "answers": {"text": [], "answer_start": []}}
        questions.insert(rng.randint(0, len(questions)), nothing)
    title = re.sub("^the ", "", rows[0]["name"])
    return {"title": title[0].upper() + title[1:], "context": context, "questions": questions}


def dealt(rng: random.Random, items: list[str]) -> dict[str, list[str]]:
    """Items dealt out to the splits."""
    items = rng.sample(items, len(items))
    first = round(SHARES[0] * len(items))
    second = first + round(SHARES[1] * len(items))
    return dict(zip(SPLITS, (items[:first], items[first:second], items[second:]), strict=True))


def drawn(rng: random.Random, grammar: dict[str, Any], split: str) -> Row:
    """A made-up entity: its name and the values of its attributes."""
    row = {}
    for column, pool in grammar["pools"].items():
        value = re.sub(r"<(\w+)>", lambda kind: rng.choice(grammar["names"][kind[1]][split]), rng.choice(pool[split]))
        row[column] = re.sub("#", lambda _: str(rng.randint(1, 9)), value)
    return row


def read_grammars(rng: random.Random) -> dict[str, list[dict[str, Any]]]:
    """The grammars of each domain, with their names and values dealt out to the splits."""
    names = {kind: dealt(rng, words) for kind, words in json.loads(NAMES.read_text(encoding="utf-8")).items()}
    grammars: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(set(GRAMMARS.glob("*.json")) - {NAMES}):
        grammar = json.loads(path.read_text(encoding="utf-8"))
        for column, pool in grammar["pools"].items():
            unlike = [value for value in pool if re.search("[<#]", value)]  # comes out differently each time
            parts = dealt(rng, [value for value in pool if value not in unlike])
            grammar["pools"][column] = {split: parts[split] + unlike for split in SPLITS}
        grammars.setdefault(grammar.get("domain", "world"), []).append(grammar | {"names": names})
    return grammars


def write(file: Path) -> None:
    """Writes all splits of all domains."""
    rng = random.Random(0)
    grammars = read_grammars(rng)
    lines, contexts = [], set()
    for domain, sizes in QUESTIONS.items():
        for split, size in sizes.items():
            total = missing = turn = 0
            while total < size:
                grammar = grammars[domain][turn % len(grammars[domain])]
                rows = (drawn(rng, grammar, split), drawn(rng, grammar, split))
                paragraph = write_paragraph(rng, grammar, rows, split, missing < UNANSWERABLE * total)
                if paragraph is None or paragraph["context"] in contexts:
                    continue
                contexts.add(paragraph["context"])
                turn += 1
                total += len(paragraph["questions"])
                missing += sum(not question["answers"]["text"] for question in paragraph["questions"])
                line = {"split": split, "domain": domain, **paragraph}
                lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(samples.__file__).with_name("qa.jsonl"))
