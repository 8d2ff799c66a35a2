"""Writes summarization.jsonl: short texts and one-sentence summaries made from the frames in summarization_grammar.

Authored data keeps the demonstration free of licences and small enough to learn in a minute. A text tells of one
decision or event among other news. What the summary says stands anywhere in the text, in another order and in other
words; other people, days and things, a plan that was dropped or an offer refused stand next to it. The names and
things of a summary are the text's own words, so that it can be learned to find them.

    python -m tools.samples.write_summarization

A frame holds its `summary`, its `slots` (name: pool), and how it is told: `told` by a third person, `spoken` by two
people or `signed` by one of them; `rivals` tell something like it that is not the point; of two `larger` slots the
first takes the larger value. In a shape {x} is a value, {x.y} a field of it (the pronoun of a person, say), {a x} and
{A x} put the article before it and {x^} begins it with a capital. Shapes that begin with ~ are held out from train
and validation.
"""

import json
import random
import re
from pathlib import Path
from typing import Any

from tl_hub import samples

GRAMMAR = Path(__file__).parent / "summarization_grammar"
SIZES = {"train": 1150, "validation": 110, "test": 200}
TRAIN, VALIDATION = 0.62, 0.13  # parts of each pool; the rest is for test
HELD_OUT = 0.35  # how often test takes a held-out shape
WORDS = range(50, 86)
PRONOUNS = {
    "she": {"he": "she", "his": "her", "him": "her", "himself": "herself"},
    "he": {"he": "he", "his": "his", "him": "him", "himself": "himself"},
}
OTHERS = {"N": "person", "M": "person"}  # named in openings and closings
OTHERS |= {"P": "person", "Q": "person", "dayP": "day", "monthP": "month", "townP": "town"}  # in asides
Value = dict[str, str]  # fields of a value; its text is the field ""
Pools = dict[str, list[Value]]


def read(name: str) -> dict[str, Any]:
    return json.loads((GRAMMAR / f"{name}.json").read_text(encoding="utf-8"))


def values(pool: Any) -> list[Value]:
    """The values of a pool: texts, or rows with named fields."""
    if isinstance(pool, dict):
        return [dict(zip(pool["fields"], row, strict=True)) for row in pool["rows"]]
    return [{"": text} for text in pool]


def head(value: Value) -> str:
    """What must differ between two values of a text: of those joined from two parts, the second part."""
    return value.get("head", value[""])


def read_pools(rng: random.Random) -> dict[str, Pools]:
    """The pools of each split: names and things are dealt out, days, months and numbers shared."""
    pools = read("pools")
    shared = {name: values(pool) for name, pool in pools.pop("shared").items()}
    people = [{"": name, **PRONOUNS[gender]} for gender, names in read("people").items() for name in names]
    splits: dict[str, Pools] = {split: dict(shared) for split in SIZES}
    for name, pool in {"person": people, **pools}.items():
        first, rest = pool if isinstance(pool[0] if isinstance(pool, list) else None, list) else ([], pool)
        dealt = rest if name == "person" else values(rest)
        rng.shuffle(dealt)
        ends = [0, round(TRAIN * len(dealt)), round((TRAIN + VALIDATION) * len(dealt)), len(dealt)]
        for split, start, end in zip(SIZES, ends, ends[1:], strict=False):
            part = dealt[start:end]
            splits[split][name] = [{"": f"{f} {v['']}", "head": v[""]} for v in part for f in first] if first else part
    return splits


def read_frames() -> dict[str, dict[str, Any]]:
    names = sorted(path.stem for path in GRAMMAR.glob("*.json"))
    return {name: read(name) for name in names if name not in ("people", "pools", "settings")}


def fill(shape: str, drawn: dict[str, Value]) -> str:
    """A shape with its places filled."""

    def value(place: re.Match[str]) -> str:
        article, slot, field, capital = place.groups()
        text = drawn[slot][field or ""]
        if article:
            text = f"{article}{'n' * (text[0] in 'aeiou')} {text}"
        return text[0].upper() + text[1:] if capital else text

    return re.sub(r"\{(?:([aA]) )?(\w+)(?:\.(\w+))?(\^)?\}", value, shape)


class Story:
    """One text: the values drawn for its slots and the shapes taken for its parts."""

    def __init__(self, rng: random.Random, pools: Pools, frame: dict[str, Any], split: str) -> None:
        self.rng, self.frame, self.split = rng, frame, split
        self.drawn: dict[str, Value] = {}
        self.way = rng.choices(["told", "spoken", "signed"], [0.6, 0.22, 0.18])[0]
        slots = frame["slots"] | OTHERS
        for slot, pool in slots.items():
            # Those who speak or sign go by their first name.
            familiar = slot in ("A", "B", "C") and self.way != "told"
            taken = [head(value) for other, value in self.drawn.items() if slots[other] == pool]
            free = [v for v in pools[pool] if head(v) not in taken and not (familiar and " " in v[""])]
            self.drawn[slot] = rng.choice(free)
        if "larger" in frame:
            more, less = frame["larger"]
            order = pools[slots[more]]
            self.drawn[less], self.drawn[more] = sorted((self.drawn[less], self.drawn[more]), key=order.index)

    def shape(self, shapes: list[str]) -> str:
        """A shape that this split may use."""
        held = self.split == "test" and self.rng.random() < HELD_OUT
        return self.rng.choice([s for s in shapes if s.startswith("~") == held]).removeprefix("~")

    def extras(self, settings: dict[str, Any]) -> list[str]:
        """One or two sentences besides the point."""
        chosen = [self.shape(self.frame["rivals"])] if self.rng.random() < 0.75 else []
        if not chosen or self.rng.random() < 0.45:
            chosen.append(self.shape(settings["asides"]))
        return chosen

    def text(self, settings: dict[str, Any]) -> str:
        core = self.shape(self.frame[self.way])
        if self.way == "spoken":
            return self.talk(settings, core)
        setting = settings["letter" if self.way == "signed" else self.rng.choice(self.frame["settings"])]
        parts = self.extras(settings)
        if self.way == "signed":
            parts.append(core)
        else:
            parts.insert(self.rng.randint(0, len(parts)), core)
        if self.rng.random() < 0.9 or parts[0] == core:
            parts.insert(0, self.shape(setting["openings"]))
        if self.way == "told" and self.rng.random() < 0.6:
            parts.append(self.shape(setting["closings"]))
        return fill(" ".join(parts), self.drawn)

    def talk(self, settings: dict[str, Any], core: str) -> str:
        """A dialogue, in which the speakers take turns."""
        speakers = list(dict.fromkeys(re.findall(r"^\{(\w)\}:", core, re.MULTILINE)))
        one, two = speakers[:2]
        last = re.findall(r"^\{(\w)\}:", core, re.MULTILINE)[-1]
        parts = [core]
        if self.rng.random() < 0.6:
            parts.insert(0, f"{{{two}}}: " + self.extras(settings)[0])
            one, two = two, one
        if self.rng.random() < 0.85:
            opening = self.shape(settings["talk"]["openings"])
            parts.insert(0, opening.replace("{X}", f"{{{one}}}").replace("{Y}", f"{{{two}}}"))
        if self.rng.random() < 0.6:
            closing = self.shape(settings["talk"]["closings"])
            other = next(speaker for speaker in speakers if speaker != last)
            parts.append(closing.replace("{X}", f"{{{other}}}").replace("{Y}", f"{{{last}}}"))
        return fill("\n".join(parts), self.drawn)


def write_row(
    rng: random.Random, pools: Pools, settings: dict[str, Any], frame: dict[str, Any], split: str
) -> dict[str, str] | None:
    """A text with its summary, or None if the draw is too short or too long."""
    story = Story(rng, pools, frame, split)
    text = story.text(settings)
    summary = fill(frame["summary"], story.drawn)
    return {"text": text, "summary": summary} if len(text.split()) in WORDS else None


def write(file: Path) -> None:
    """Writes all splits."""
    rng = random.Random(0)
    pools, settings, frames = read_pools(rng), read("settings"), list(read_frames().values())
    lines, texts = [], set()
    for split, size in SIZES.items():
        written = 0
        while written < size:
            row = write_row(rng, pools[split], settings, frames[written % len(frames)], split)
            if row is None or row["text"] in texts:
                continue
            texts.add(row["text"])
            written += 1
            line = {"split": split, "domain": "world", **row}
            lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(samples.__file__).with_name("summarization.jsonl"))
