"""The embedded question-answering data: sound spans, splits that share nothing, and no way to guess the answers."""

import collections
import json
import re
import string
from pathlib import Path
from typing import Any

import pytest

from tl_hub import samples
from tools.samples import write_qa

FILE = Path(samples.__file__).with_name("qa.jsonl")
PARAGRAPHS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
DOMAINS = sorted({paragraph["domain"] for paragraph in PARAGRAPHS})
SPLITS = ("train", "validation", "test")


def questions(domain: str, split: str) -> list[tuple[str, str, str, int]]:
    """(context, question, answer or "", start) of a split."""
    rows = []
    for paragraph in PARAGRAPHS:
        if (paragraph["domain"], paragraph["split"]) == (domain, split):
            for asked in paragraph["questions"]:
                text, start = ([*asked["answers"][key], None][0] for key in ("text", "answer_start"))
                rows.append((paragraph["context"], asked["question"], text or "", start or 0))
    return rows


def words(text: str) -> list[str]:
    """As SQuAD compares answers: lower case, no punctuation, no articles."""
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def f1(guess: str, answer: str) -> float:
    mine, theirs = words(guess), words(answer)
    common = sum((collections.Counter(mine) & collections.Counter(theirs)).values())
    if not mine or not theirs:
        return float(mine == theirs)
    return 2 * common / (len(mine) + len(theirs))


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_qa.write(tmp_path / "qa.jsonl")
    assert (tmp_path / "qa.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 1100 * 1024


def test_every_answer_lies_where_it_is_said_to_lie() -> None:
    for paragraph in PARAGRAPHS:
        assert 2 <= len(paragraph["questions"]) <= 6
        context = f" {paragraph['context']} "
        assert 16 <= len(context.split()) <= 46
        for asked in paragraph["questions"]:
            assert len(asked["answers"]["text"]) == len(asked["answers"]["answer_start"]) <= 1
            for text, start in zip(*asked["answers"].values(), strict=True):
                assert context[start + 1 : start + 1 + len(text)] == text
                assert not context[start].isalnum() and not context[start + 1 + len(text)].isalnum()
                assert 1 <= len(text.split()) <= 7
                assert text == text.strip(string.punctuation + " ")


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_question_of_the_file_is_a_row(domain: str) -> None:
    loaded = samples.load("qa" if domain == "world" else f"qa-{domain}")
    assert set(loaded) == set(SPLITS)
    for split, rows in loaded.items():
        assert [
            (row["context"], row["question"], *(row["answers"][key][0] if row["answers"][key] else empty
                                                for key, empty in (("text", ""), ("answer_start", 0))))
            for row in rows
        ] == questions(domain, split)  # fmt: skip
        assert {tuple(sorted(row)) for row in rows} == {("answers", "context", "question", "title")}


@pytest.mark.parametrize("domain", DOMAINS)
def test_splits_share_no_context_and_no_question_with_its_answer(domain: str) -> None:
    for name in (lambda row: row[0], lambda row: (row[1], row[2])):
        seen = [{name(row) for row in questions(domain, split)} for split in SPLITS]
        assert all(seen)
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]


def test_no_main_entity_of_train_is_one_of_validation_or_test() -> None:
    titles = {s: {p["title"] for p in PARAGRAPHS if p["domain"] == "world" and p["split"] == s} for s in SPLITS}
    assert not titles["train"] & (titles["validation"] | titles["test"])
    assert not titles["validation"] & titles["test"]


@pytest.mark.parametrize(
    ("domain", "split", "least", "most"),
    [("world", "train", 4000, 4010), ("world", "validation", 250, 260), ("world", "test", 350, 360)]
    + [("manuals", "train", 140, 160), ("manuals", "validation", 55, 70), ("manuals", "test", 240, 260)],
)
def test_sizes(domain: str, split: str, least: int, most: int) -> None:
    assert least <= len(questions(domain, split)) <= most


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("split", SPLITS)
def test_some_of_the_questions_have_no_answer(domain: str, split: str) -> None:
    rows = questions(domain, split)
    assert 0.07 <= sum(not answer for _, _, answer, _ in rows) / len(rows) <= 0.1


@pytest.mark.parametrize("split", SPLITS)
def test_answers_lie_anywhere_in_the_context(split: str) -> None:
    places = [start / len(context) for context, _, answer, start in questions("world", split) if answer]
    assert 0.35 <= sum(places) / len(places) <= 0.65
    assert max(collections.Counter(int(10 * place) for place in places).values()) <= 0.25 * len(places)


def test_the_text_is_clean() -> None:
    for paragraph in PARAGRAPHS:
        context = paragraph["context"]
        assert not re.search(r"  |\{|\}|~|[\ue000-\uf8ff]|[.,;:?!] ?[.,;:?!]|\s[.,;:?!]", context), context
        assert not re.search(r"\b(\w+) \1\b|\b[Aa] [aeio]|\b[Aa]n [b-df-gj-np-tv-z]|\b(of|in) it[,.]", context), context
        assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in context.split(". ")), context
        for asked in paragraph["questions"]:
            assert re.fullmatch(r"[A-Z][^{}~?]+[?.]", asked["question"]), asked["question"]


def sentences(context: str) -> list[str]:
    return re.split(r"(?<=\.) ", context)


def boldest(sentence: str, question: str) -> str:
    """The longest run of capitalised words, or number, that the question does not hold."""
    runs = re.findall(r"[A-Z]\w*(?:[ -][A-Z]\w*)*|\d[\d,.]*(?: \w+)?", sentence)
    return max((run for run in runs if run.lower() not in question.lower()), key=len, default="")


def guesses(domain: str) -> dict[str, list[str]]:
    """What one would answer to the test questions without understanding them."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = questions(domain, "test")
    index = TfidfVectorizer().fit([context for context, *_ in rows])
    closest = []
    for context, question, *_ in rows:
        parts = sentences(context)
        likeness = (index.transform(parts) @ index.transform([question]).T).toarray().ravel()
        closest.append(parts[likeness.argmax()])
    usual = collections.Counter(answer for _, _, answer, _ in questions(domain, "train") if answer).most_common(1)[0][0]
    return {
        "the most common answer": [usual] * len(rows),
        "always nothing": [""] * len(rows),
        "the first sentence": [sentences(context)[0] for context, *_ in rows],
        "the closest sentence": closest,
        "the boldest words of the closest sentence": [boldest(s, row[1]) for s, row in zip(closest, rows, strict=True)],
    }


@pytest.mark.parametrize("domain", DOMAINS)
def test_guessing_does_not_help(domain: str) -> None:
    rows = questions(domain, "test")
    for name, answers in guesses(domain).items():
        score = sum(f1(guess, row[2]) for guess, row in zip(answers, rows, strict=True)) / len(rows)
        print(f"{domain}: {name}: {100 * score:.1f}")
        assert score <= 0.4, name


def any_of(values: list[str]) -> str:
    """What finds any of these values, whatever name or digit stands at their open places."""
    return "(?:" + "|".join(re.sub("<[a-z]+>", r"[A-Z]\\w+", re.escape(v)).replace(r"\#", r"\d") for v in values) + ")"


def pattern(shape: str, grammar: dict[str, Any], column: str) -> re.Pattern[str]:
    """What finds a shape in a text, whatever fills its places."""
    names = any_of([*grammar["pools"]["name"], "it", "the " + grammar["noun"]])
    places = {"{s}": names, "{n}": names, "{s's}": f"(?:its|{names}'s)", "{n's}": f"{names}'s"}
    places["{a}"] = any_of(grammar["pools"][column])
    parts = re.split(r"(\{[^}]+\})", shape.removeprefix("~").removeprefix("{s} "))
    return re.compile(r"\b" + "".join(places.get(part, re.escape(part)) for part in parts), re.IGNORECASE)


def held_out(grammar: dict[str, Any], kind: str) -> list[re.Pattern[str]]:
    found = []
    for column, attribute in grammar["attributes"].items():
        held = [shape for shape in attribute[kind] if shape.startswith("~")]
        assert len(held) >= 2 and len(attribute[kind]) - len(held) >= 3
        found += [pattern(shape, grammar, column) for shape in held]
    return found


def texts(grammar: dict[str, Any], kind: str, *splits: str) -> list[str]:
    """Contexts or questions of the category's domain."""
    mine = [p for p in PARAGRAPHS if p["domain"] == grammar.get("domain", "world") and p["split"] in splits]
    if kind == "clauses":
        return [paragraph["context"] for paragraph in mine]
    return [asked["question"] for paragraph in mine for asked in paragraph["questions"]]


GRAMMARS = [
    json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(write_qa.GRAMMARS.glob("*.json"))
    if path != write_qa.NAMES
]


@pytest.mark.parametrize("kind", ["clauses", "questions"])
@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda grammar: grammar["noun"])
def test_shapes_held_out_for_test_are_unseen_before(grammar: dict[str, Any], kind: str) -> None:
    for expression in held_out(grammar, kind):
        assert not any(expression.search(text) for text in texts(grammar, kind, "train", "validation")), (
            expression.pattern
        )


@pytest.mark.parametrize("kind", ["clauses", "questions"])
def test_a_part_of_test_takes_held_out_shapes(kind: str) -> None:
    grammars = [grammar for grammar in GRAMMARS if grammar.get("domain", "world") == "world"]
    expressions = [expression for grammar in grammars for expression in held_out(grammar, kind)]
    unseen = texts(grammars[0], kind, "test")
    share = sum(any(expression.search(text) for expression in expressions) for text in unseen) / len(unseen)
    # A tenth of the shapes is held out, and a context holds several clauses.
    assert (0.06 if kind == "questions" else 0.2) <= share <= (0.16 if kind == "questions" else 0.6)


@pytest.mark.parametrize("domain", DOMAINS)
def test_no_answer_of_train_is_one_of_test(domain: str) -> None:
    """But for numbers, which come out the same now and then."""
    train, test = (
        {row[2] for row in questions(domain, split) if re.fullmatch(r"\D+", row[2])} for split in ("train", "test")
    )
    assert train and test and not train & test
