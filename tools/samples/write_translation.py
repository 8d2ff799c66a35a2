"""Writes translation.jsonl: short sentences about daily life in English with German ("world") or Korean ("korean").

Authored data keeps the demonstration free of licences and small enough to learn in a minute. A sentence is drawn as
a tree of clauses, which each language then says by its own grammar: German by gender, case, word order and separable
verbs; Korean by particles, connective endings and respectful forms. Within a domain a word has one translation.

    python -m tools.samples.write_translation

translation_grammar holds the words (nouns, verbs, adjectives, phrases) and what goes with what (scenes). For a third
of the (verb, construction) pairs, such as "bake" after "while", train and validation have no sentence; three
fifths of test do.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tl_hub import samples

GRAMMAR = Path(__file__).parent / "translation_grammar"
SIZES = {"train": 1880, "validation": 150, "test": 250}
TARGET = {"world": "de", "korean": "ko"}
Row = dict[str, Any]
Pair = tuple[str, str]
FREE: Row = {}


def _table(rows: list[list[str]], columns: list[str]) -> dict[str, Row]:
    """Rows by their first column, in which words are joined by _."""
    return {row[0].replace(" ", "_"): dict(zip(columns, row, strict=True)) for row in rows}


def _read(name: str) -> dict[str, Any]:
    return json.loads((GRAMMAR / f"{name}.json").read_text(encoding="utf-8"))


_NOUN_FILE, _PHRASES, _ADJECTIVES, SCENES = map(_read, ("nouns", "phrases", "adjectives", "scenes"))
NOUNS = _table(sum(_NOUN_FILE["groups"].values(), []), _NOUN_FILE["columns"])
VERBS: dict[str, Row] = _read("verbs")
ADJECTIVES = _table(_ADJECTIVES["rows"], _ADJECTIVES["columns"])
WEATHER: dict[str, list[str]] = _ADJECTIVES["weather"]
PRONOUNS = _table(_PHRASES["pronouns"]["rows"], _PHRASES["pronouns"]["columns"])
NAMES = {domain: _table(_PHRASES["names"][domain], _PHRASES["names"]["columns"]) for domain in TARGET}
NAME = NAMES["world"] | NAMES["korean"]
PLACES = _table(_PHRASES["places"]["rows"], _PHRASES["places"]["columns"])
TIMES = _table(_PHRASES["times"]["rows"], _PHRASES["times"]["columns"])
ADVERBS = _table(_PHRASES["adverbs"]["rows"], _PHRASES["adverbs"]["columns"])
NUMBERS: dict[str, list[str]] = _PHRASES["numbers"]
FINITE = {key: forms.split() for key, forms in _PHRASES["finite"].items()}
POSSESSIVES = {row["possessive"]: row["de_possessive"] for row in PRONOUNS.values()}


def group(names: str) -> list[str]:
    """The nouns of a list such as "@kin doctor", where @ marks a group."""
    found: list[str] = []
    for name in names.split():
        if not name.startswith("@"):
            found.append(name)
        elif name[1:] in _NOUN_FILE["unions"]:
            found += group(_NOUN_FILE["unions"][name[1:]])
        else:
            found += [row[0].replace(" ", "_") for row in _NOUN_FILE["groups"][name[1:]]]
    return list(dict.fromkeys(found))


PEOPLE = set(group("@person"))
LIVING = set(group("@person @animal")) - {"parents"}
PASSING = {"tired", "hungry", "sick", "busy", "angry", "happy", "sad"}  # what one is at a time
OWNED = set(group("@owned"))
SEVERAL = set(group("@several"))


@dataclass(frozen=True)
class NounPhrase:
    """A noun with what stands before it, a pronoun ("I") or a name."""

    noun: str
    determiner: str = ""
    adjective: str = ""
    plural: bool = False

    @property
    def pronoun(self) -> str:
        """The pronoun that can stand for it, or "" where English and German genders may differ."""
        if self.noun in PRONOUNS:
            return self.noun
        if self.plural:
            return "they"
        flags = (NAME[self.noun]["pronoun"] if self.noun in NAME else NOUNS[self.noun]["flags"]).split()
        return "he" if "he" in flags else "she" if "she" in flags else ""

    @property
    def respected(self) -> bool:
        return self.noun == "you" or (self.noun in NOUNS and "hon" in NOUNS[self.noun]["flags"].split())


@dataclass(frozen=True)
class Clause:
    """What is said; places, times and adverbs by their keys in phrases.json."""

    verb: str
    subject: NounPhrase
    mood: str = "present"  # or progressive, past, will, can, could, must, "had to", want, wanted, should
    negated: bool = False
    object: NounPhrase | None = None
    recipient: NounPhrase | None = None
    place: str = ""
    toward: str = ""
    time: str = ""
    frequency: str = ""
    manner: str = ""
    adjective: str = ""  # after "be", as are the next two
    complement: NounPhrase | None = None
    than: NounPhrase | None = None
    asked: str = ""  # where, when, why, what or who


@dataclass(frozen=True)
class Sentence:
    """One clause or two in a construction.

    `shape` is statement, front, question, please or there; because, if, while, before, that, but, and, relative,
    to, time or forget for two, the first of which is the main clause. `reversed` puts the subordinate one first.
    """

    shape: str
    clauses: tuple[Clause, ...]
    reversed: bool = False


def _joined(*parts: str | Iterable[str]) -> str:
    words = [part if isinstance(part, str) else " ".join(filter(None, part)) for part in parts]
    return " ".join(filter(None, words))


def _finished(text: str, mark: str) -> str:
    return text[0].upper() + text[1:] + mark


# English


def en_noun_phrase(phrase: NounPhrase, role: str = "subject") -> str:
    if phrase.noun in PRONOUNS:
        return PRONOUNS[phrase.noun][role]
    if phrase.noun in NAME:
        return phrase.noun
    row = NOUNS[phrase.noun]
    words = _joined(phrase.adjective, row["plural"] if phrase.plural else row["en"])
    determiner = "an" if phrase.determiner == "a" and words[0] in "aeiou" else phrase.determiner
    return _joined(determiner, words)


def _person(subject: NounPhrase) -> int:
    """0 for I, 1 for you, 2 for he, she or it, 3 for the plural."""
    return {"I": 0, "you": 1, "we": 3, "they": 3}.get(subject.pronoun, 3 if subject.plural else 2)


def _en_simple(forms: Sequence[str], past: bool, person: int, support: bool) -> tuple[str, str]:
    """(auxiliary, verb) of the simple present or past; `support` asks for a form of "do"."""
    base, past_form, *_ = forms
    third = person == 2 and not past
    if support:
        return ("did" if past else "does" if third else "do"), base
    if third:
        if base[-1] == "y" and base[-2] not in "aeou":
            base = base[:-1] + "ie"
        base = "has" if base == "have" else base + ("es" if re.search("(s|sh|ch|x|o)$", base) else "s")
    return "", past_form if past else base


def en_verb(clause: Clause, inverted: bool = False) -> tuple[str, str]:
    """(auxiliary with its negation, the other words); without an auxiliary the first one is empty."""
    forms = VERBS[clause.verb]["en"][:3]
    person, mood, support = _person(clause.subject), clause.mood, inverted or clause.negated
    be = ("am", "are", "is", "are")[person]
    if mood == "progressive":
        auxiliary, verb = be, forms[2]
    elif mood in ("will", "can", "could", "must", "should"):
        auxiliary, verb = mood, forms[0]
    elif mood in ("want", "wanted"):
        auxiliary, verb = _en_simple(("want", "wanted"), mood == "wanted", person, support)
        verb += " to " + forms[0]
    elif mood == "had to":
        auxiliary, verb = _en_simple(("have", "had"), True, person, support)
        verb += " to " + forms[0]
    elif forms[0] == "be":
        auxiliary, verb = (be if mood == "present" else ("was", "were", "was", "were")[person]), ""
    else:
        auxiliary, verb = _en_simple(forms, mood == "past", person, support)
    if clause.negated:
        auxiliary = "cannot" if auxiliary == "can" else auxiliary + " not"
    return auxiliary, verb


def en_rest(clause: Clause) -> str:
    """What follows the verb."""
    tail = " ".join(VERBS[clause.verb]["en"][3:])
    words = [en_noun_phrase(phrase, "object") for phrase in (clause.recipient, clause.object) if phrase]
    pronoun = clause.object is not None and clause.object.noun in PRONOUNS
    words.insert(1 if pronoun and tail in ("up", "on", "off") else 0, tail)
    if clause.than:
        words.append(f"{ADJECTIVES[clause.adjective]['en_comparative']} than {en_noun_phrase(clause.than, 'object')}")
    else:
        words.append(clause.adjective)
    if clause.complement:
        words.append(en_noun_phrase(clause.complement))
    words.append(ADVERBS[clause.manner]["en"] if clause.manner else "")
    words.append(PLACES[clause.place]["en_at"] if clause.place else "")
    words.append(PLACES[clause.toward]["en_to"] if clause.toward else "")
    words.append(TIMES[clause.time]["en"] if clause.time else "")
    return _joined(words)


def en_clause(clause: Clause, subject: str | None = None) -> str:
    auxiliary, verb = en_verb(clause)
    subject = en_noun_phrase(clause.subject) if subject is None else subject
    return _joined(subject, auxiliary, clause.frequency, verb, en_rest(clause))


def en_infinitive(clause: Clause) -> str:
    return _joined("to", VERBS[clause.verb]["en"][0], en_rest(clause))


def say_en(sentence: Sentence) -> str:
    """The sentence in English."""
    main = sentence.clauses[0]
    other = sentence.clauses[-1]
    mark = "."
    match sentence.shape:
        case "front":
            text = _joined(TIMES[main.time]["en"], en_clause(replace(main, time="")))
        case "question" if main.asked == "who":
            text, mark = en_clause(main, "who"), "?"
        case "question":
            auxiliary, verb = en_verb(main, inverted=True)
            words = (main.asked, auxiliary, en_noun_phrase(main.subject), main.frequency, verb, en_rest(main))
            text, mark = _joined(words), "?"
        case "please":
            text = _joined("please", VERBS[main.verb]["en"][0], en_rest(main))
        case "there":
            be = {"present": ("is", "are"), "past": ("was", "were")}[main.mood][main.subject.plural]
            text = _joined("there", be, en_noun_phrase(main.subject), en_rest(main))
        case "because" | "if" | "while" | "before" if sentence.reversed:
            text = f"{sentence.shape} {en_clause(other)}, {en_clause(main)}"
        case "because" | "if" | "while" | "before" | "that":
            text = f"{en_clause(main)} {sentence.shape} {en_clause(other)}"
        case "but":
            text = f"{en_clause(main)}, but {en_clause(other)}"
        case "and":
            text = f"{en_clause(main)} and {en_clause(other, '')}"
        case "relative":
            text = en_clause(main, _joined(en_noun_phrase(main.subject), en_clause(other, "who")))
        case "to" | "time" | "forget":
            text = f"{en_clause(replace(main, time=''))} {en_infinitive(replace(other, time=main.time))}"
        case _:
            text = en_clause(main)
    return _finished(text, mark)


# German

# Endings of the determiner and of the adjective after it, by gender (m, f, n, plural p) and case.
_DER = {"nominative": "er e es e", "accusative": "en e es e", "dative": "em er em en"}
_EIN = {"nominative": " e  e", "accusative": "en e  e", "dative": "em er em en"}
_WEAK = {"nominative": "e e e en", "accusative": "en e e en", "dative": "en en en en"}
_MIXED = {"nominative": "er e es en", "accusative": "en e es en", "dative": "en en en en"}
_STRONG = {"nominative": "er e es e", "accusative": "en e es e", "dative": "em er em en"}
_THE = {"nominative": "der die das die", "accusative": "den die das die", "dative": "dem der dem den"}


def _ending(table: dict[str, str], case: str, gender: str) -> str:
    return table[case].split(" ")["mfnp".index(gender)]


def _de_adjective(adjective: str, ending: str) -> str:
    stem = ADJECTIVES[adjective]["de"].split("/")[-1]
    return stem + ending


def de_noun_phrase(phrase: NounPhrase, case: str, negated: bool = False) -> str:
    """The noun phrase in a case; `negated` with "kein" for an indefinite one."""
    if phrase.noun in PRONOUNS:
        return PRONOUNS[phrase.noun][f"de_{case}"] if case != "nominative" else PRONOUNS[phrase.noun]["de_subject"]
    if phrase.noun in NAME:
        return phrase.noun
    row = NOUNS[phrase.noun]
    gender = "p" if phrase.plural else row["gender"]
    singular, *oblique = row["de"].split("/")
    if phrase.plural:
        noun = row["de_plural"]
        if case == "dative" and noun[-1] not in "ns":
            noun += "n"
    else:
        noun = oblique[0] if oblique and case != "nominative" else singular
    determiner = phrase.determiner
    if determiner == "no" or (negated and determiner in ("", "a")):
        word, endings = "kein" + _ending(_EIN, case, gender), _MIXED
    elif determiner == "the":
        word, endings = _ending(_THE, case, gender), _WEAK
    elif determiner == "this":
        word, endings = "dies" + _ending(_DER, case, gender), _WEAK
    elif determiner == "a":
        word, endings = "ein" + _ending(_EIN, case, gender), _MIXED
    elif determiner in POSSESSIVES:
        word, endings = POSSESSIVES[determiner] + _ending(_EIN, case, gender), _MIXED
    else:
        word, endings = NUMBERS[determiner][0] if determiner else "", _STRONG
        if determiner == "many" and case == "dative":
            word = "vielen"
    adjective = _de_adjective(phrase.adjective, _ending(endings, case, gender)) if phrase.adjective else ""
    return _joined(word, adjective, noun)


def _de_infinitive(verb: str, zu: bool = False) -> str:
    prefix, bar, infinitive = VERBS[verb]["de"][0].rpartition("|")
    if not zu:
        return prefix + infinitive
    return prefix + ("zu " if prefix.endswith(" ") or not bar else "zu") + infinitive


def _de_finite(verb: str, person: int) -> str:
    if VERBS[verb]["en"][0] in ("be", "have", "like", "know"):
        return FINITE[VERBS[verb]["en"][0]][person]
    infinitive, third, *_ = VERBS[verb]["de"]
    infinitive = infinitive.rpartition("|")[2]
    stem = third.removesuffix("t")
    second = stem + ("t" if stem[-1] in "sßz" else "st")
    return (re.sub("e?n$", "", infinitive) + "e", second, third, infinitive)[person]


def de_verb(clause: Clause) -> tuple[str, str, str]:
    """(finite verb, its separated prefix, the words at the end of the clause)."""
    row, person, mood = VERBS[clause.verb], _person(clause.subject), clause.mood
    base = row["en"][0]
    if mood in ("present", "progressive"):
        return _de_finite(clause.verb, person), row["de"][0].rpartition("|")[0], ""
    if mood == "past":
        preterite = {"be": "was", "have": "had", "like": "liked"}.get(base)
        if preterite:
            return FINITE[preterite][person], "", ""
        auxiliary = FINITE["be" if row["de"][2] == "ist" else "have"][person]
        return auxiliary, "", row["de"][3]
    return FINITE[mood][person], "", _de_infinitive(clause.verb)


def de_middle(clause: Clause) -> tuple[str, str]:
    """(pronouns, the rest) of what stands between the finite verb or the subject and the end of the clause."""
    preposition, case = VERBS[clause.verb]["de"][4:] or ("", "accusative")
    pronouns = definite = indefinite = recipient = ""
    phrase = clause.object
    kein = clause.negated and phrase is not None and phrase.determiner in ("", "a") and phrase.noun in NOUNS
    if phrase is not None:
        said = _joined(preposition, de_noun_phrase(phrase, case, kein))
        if preposition:
            indefinite = said
        elif phrase.noun in PRONOUNS:
            pronouns = said
        elif case == "dative" or phrase.noun in NAME or phrase.determiner in ("the", "this", *POSSESSIVES):
            definite = said
        else:
            indefinite = said
    if clause.recipient:
        said = de_noun_phrase(clause.recipient, "dative")
        pronouns, recipient = (said, "") if clause.recipient.noun in PRONOUNS else (pronouns, said)
    predicate = ADJECTIVES[clause.adjective]["de"].split("/")[0] if clause.adjective else ""
    if clause.than:
        predicate = f"{ADJECTIVES[clause.adjective]['de_comparative']} als {de_noun_phrase(clause.than, 'nominative')}"
    if clause.complement:
        article = clause.complement.determiner
        article = "" if article == "a" else article  # a trade has none in German
        predicate = de_noun_phrase(replace(clause.complement, determiner=article), "nominative")
    return pronouns, _joined(
        TIMES[clause.time]["de"] if clause.time else "",
        ADVERBS[clause.frequency]["de"] if clause.frequency else "",
        recipient,
        definite,
        "nicht" if clause.negated and not kein else "",
        ADVERBS[clause.manner]["de"] if clause.manner else "",
        PLACES[clause.place]["de"] if clause.place else "",
        indefinite,
        PLACES[clause.toward]["de_to"] if clause.toward else "",
        predicate,
    )


def de_clause(clause: Clause, order: str = "main", subject: str | None = None, first: str = "") -> str:
    """The clause with its finite verb second ("main"), before the subject ("inverted") or last ("last")."""
    finite, prefix, end = de_verb(clause)
    middle = de_middle(clause)
    subject = de_noun_phrase(clause.subject, "nominative") if subject is None else subject
    if order == "last":
        return _joined(first, subject, middle, end, prefix + finite)
    start = (subject, finite) if order == "main" else (first, finite, subject)
    return _joined(start, middle, end, prefix.strip())


def de_infinitive_clause(clause: Clause) -> str:
    return _joined(de_middle(clause), _de_infinitive(clause.verb, zu=True))


def _de_imperative(clause: Clause) -> str:
    pronouns, rest = de_middle(clause)
    prefix = VERBS[clause.verb]["de"][0].rpartition("|")[0]
    return _joined(VERBS[clause.verb]["imperative"], pronouns, "bitte", rest, prefix)


_DE_JOIN = {"because": "weil", "if": "wenn", "while": "während", "before": "bevor", "that": "dass"}
_DE_ASK = {"where": "wo", "when": "wann", "why": "warum", "what": "was", "who": "wer"}


def say_de(sentence: Sentence) -> str:
    """The sentence in German."""
    main = sentence.clauses[0]
    other = sentence.clauses[-1]
    mark = "."
    match sentence.shape:
        case "front":
            text = de_clause(replace(main, time=""), "inverted", first=TIMES[main.time]["de"])
        case "question":
            where = "wohin" if main.asked == "where" and VERBS[main.verb].get("toward") else _DE_ASK.get(main.asked, "")
            subject = "" if main.asked == "who" else None
            text, mark = de_clause(main, "inverted", subject, first=where), "?"
        case "please":
            text = _de_imperative(main)
        case "there":
            place = PLACES[main.place]["de"]
            if main.place in SCENES["es gibt"].split():
                verb = {"present": "gibt es", "past": "gab es"}[main.mood]
                text = _joined(place, verb, de_noun_phrase(main.subject, "accusative"))
            else:
                verb = FINITE[{"present": "be", "past": "was"}[main.mood]][_person(main.subject)]
                text = _joined(place, verb, de_noun_phrase(main.subject, "nominative"))
        case "because" | "if" | "while" | "before" if sentence.reversed:
            text = f"{de_clause(other, 'last', first=_DE_JOIN[sentence.shape])}, {de_clause(main, 'inverted')}"
        case "because" | "if" | "while" | "before" | "that":
            text = f"{de_clause(main)}, {de_clause(other, 'last', first=_DE_JOIN[sentence.shape])}"
        case "but":
            text = f"{de_clause(main)}, aber {de_clause(other)}"
        case "and":
            text = f"{de_clause(main)} und {de_clause(other, subject='')}"
        case "relative":
            pronoun = _ending(_THE, "nominative", "p" if main.subject.plural else NOUNS[main.subject.noun]["gender"])
            inner = de_clause(other, "last", subject=pronoun)
            text = de_clause(main, subject=f"{de_noun_phrase(main.subject, 'nominative')}, {inner},")
        case "to" | "time" | "forget":
            text = f"{de_clause(main)}, {de_infinitive_clause(other)}"
        case _:
            text = de_clause(main)
    return _finished(text, mark)


# Korean. In what these functions return, + stands between a noun and its particle.

_N, _L, _SS = 4, 8, 20  # final consonants ㄴ, ㄹ and ㅆ in the order of Unicode's Hangul syllables


def _final(text: str) -> int:
    """The final consonant of the last syllable, 0 for none."""
    return (ord(text[-1]) - 0xAC00) % 28


def _close(text: str, consonant: int) -> str:
    return text[:-1] + chr(ord(text[-1]) + consonant)


def _open(text: str) -> str:
    """Without a final ㄹ, which falls before ㄴ and ㅅ."""
    return text[:-1] + chr(ord(text[-1]) - _L) if _final(text) == _L else text


def particle(noun: str, which: str) -> str:
    """The noun with a topic (는), subject (가), object (를), "with" (와), "to" (로) or unvarying particle."""
    if noun == "저" and which == "가":
        return "제+가"
    allomorphs = {"는": ("은", "는"), "가": ("이", "가"), "를": ("을", "를"), "와": ("과", "와"), "로": ("으로", "로")}
    closed, opened = allomorphs.get(which, (which, which))
    return f"{noun}+{opened if _final(noun) in ((0, _L) if which == '로' else (0,)) else closed}"


@dataclass(frozen=True)
class Predicate:
    """A verb or an adjective to which endings are added.

    Attributes:
        stem: what 고, 지만 and 는 follow.
        infinitive: what 요 and 서 follow (the form in 아 or 어).
        linked: what 면, ㄹ and 시 follow (the stem, with 으 or as irregular verbs change it).
        adjective: whether "that" is 다고 and not ㄴ다고.
        respectful: whether it ends in 시.
        suppletive: whether it is a respectful word by itself, such as 드시다.
        words: what stands before it.
    """

    stem: str
    infinitive: str
    linked: str
    adjective: bool = False
    respectful: bool = False
    suppletive: bool = False
    words: str = ""


def _predicate(stem: str, infinitive: str, adjective: bool = False) -> Predicate:
    linked = stem
    if _final(stem) not in (0, _L):
        # 먹어 먹으, 들어 들으 (of 듣다), 추워 추우 (of 춥다)
        linked = infinitive[:-1] + {"워": "우", "와": "오"}.get(infinitive[-1], "으")
    return Predicate(stem, infinitive, linked, adjective or stem[-1] in "있없")


def _respected(predicate: Predicate) -> Predicate:
    if predicate.respectful:
        return predicate
    stem = _open(predicate.linked) + "시"
    return replace(predicate, stem=stem, infinitive=stem[:-1] + "셔", linked=stem, respectful=True)


def _after(predicate: Predicate, ending: str, stem: str, infinitive: str, adjective: bool = False) -> Predicate:
    """An auxiliary after a predicate that has taken `ending` (already with its own word)."""
    return replace(_predicate(stem, infinitive, adjective), words=_joined(predicate.words, ending))


def ko_lexical(clause: Clause, respected: bool) -> Predicate:
    """The verb or adjective itself, by the respectful word if there is one and by the humble one where due."""
    if clause.adjective and clause.subject.noun == "it" and clause.adjective in WEATHER:
        _, _, stem, infinitive = WEATHER[clause.adjective]
        return _predicate(stem, infinitive, True)
    if clause.adjective:
        row = ADJECTIVES[clause.adjective]
        return _predicate(row["ko"], row["ko_infinitive"], True)
    row = VERBS[clause.verb]
    stem, infinitive, *others = row["ko"]
    served = clause.recipient or clause.object
    if len(others) == 3 and served is not None and served.respected:
        stem, infinitive = others[1:]
    if respected and others and others[0]:
        stem = others[0]
        return Predicate(stem, stem[:-1] + "셔", stem, stem == "있으시", True, True)
    return _predicate(stem, infinitive, "adjective" in row.get("flags", "").split())


def ko_predicate(clause: Clause) -> Predicate:
    """The verb or adjective with mood, negation, respect and tense."""
    respected, mood, flags = clause.subject.respected, clause.mood, VERBS[clause.verb].get("flags", "").split()
    verb = ko_lexical(clause, respected)
    polite = _respected(verb) if respected else verb
    exists = "exist" in flags and verb.stem != "계시"
    negated = clause.negated
    last = verb  # the word that carries respect
    if mood == "progressive" and "ko_state" not in flags:
        last = _after(verb, verb.stem + "고", "있", "있어")
        if respected:
            last = replace(last, stem="계시", infinitive="계셔", linked="계시", adjective=False, respectful=True)
    elif mood in ("want", "wanted"):
        last = _after(verb, verb.stem + "고", "싶", "싶어", True)
        if clause.subject.noun not in ("I", "we", "you"):
            last = _after(last, "싶어", "하", "해")
    elif mood in ("can", "could"):
        asked = clause.subject.noun == "you"  # then the auxiliary is respectful, else the verb
        before = verb if asked else polite
        last = _after(before, _will(before) + " 수", "없" if negated else "있", "없어" if negated else "있어")
        last = _respected(last) if asked else last
        return _past(last) if mood == "could" else last
    elif mood in ("must", "had to"):
        last = _after(polite, polite.infinitive + "야", "하", "해")
        return _past(last) if mood == "had to" else last
    elif exists and negated:
        last, negated = _predicate("없", "없어"), False
    if negated:
        last = _after(last, last.stem + "지", "않", "않아", last.adjective)
    if respected:
        last = _respected(last)
    return _past(last) if mood in ("past", "wanted") else last


def _will(predicate: Predicate) -> str:
    """The form in ㄹ, before 수, 거 and 시간."""
    return predicate.linked if _final(predicate.linked) == _L else _close(predicate.linked, _L)


def _past(predicate: Predicate) -> Predicate:
    stem = _close(predicate.infinitive, _SS)
    return replace(predicate, stem=stem, infinitive=stem + "어", linked=stem + "으", adjective=True, respectful=False)


def ko_ended(clause: Clause, ending: str) -> str:
    """The predicate with an ending: 요, 지만, 는, 서, 면, 전 (before), 다고, 세요 (a request) or 시간 (time to)."""
    if clause.complement:
        return _ko_copula(clause, ending)
    verb = ko_predicate(clause)
    if clause.mood == "will":
        word = _will(verb) + " 거"
        end = {"요": "예요", "지만": "지만", "다고": "라고"}[ending]
    elif ending == "요":
        word, end = (verb.stem[:-1], "세요") if verb.respectful else (verb.infinitive, "요")
    elif ending == "다고" and not verb.adjective:
        word = _open(verb.stem)
        word, end = (_close(word, _N), "다고") if not _final(word) else (word, "는다고")
    elif ending == "다고":
        word, end = verb.stem, ending
    elif ending == "는":
        word, end = _open(verb.stem), ending
    elif ending == "서":
        word, end = verb.infinitive, ending
    elif ending == "면":
        word, end = verb.linked, ending
    elif ending == "시간":
        word, end = _will(verb), " 시간"
    elif ending == "세요":
        word, end = (verb.stem, ending) if verb.stem.endswith("주") else (verb.infinitive, " 주세요")
    else:
        word, end = verb.stem, {"지만": "지만", "전": "기 전에"}[ending]
    return _joined(verb.words, word + end)


def _ko_copula(clause: Clause, ending: str) -> str:
    assert clause.complement
    noun = ko_noun_phrase(clause.complement)
    closed, respected = _final(noun) != 0, clause.subject.respected
    link = "이" if closed else ""
    if ending == "다고":
        return noun + link + ("시라고" if respected else "라고")
    if clause.mood == "past":
        return noun + link + ("셨어요" if respected else "었어요" if closed else "였어요")
    return noun + link + ("세요" if respected else "에요" if closed else "예요")


def ko_noun_phrase(phrase: NounPhrase) -> str:
    """The noun phrase without particle; "" for a pronoun that Korean leaves out."""
    if phrase.noun in PRONOUNS:
        return {"I": "저", "we": "우리"}.get(phrase.noun, "")
    if phrase.noun in NAME:
        return NAME[phrase.noun]["ko"]
    row = NOUNS[phrase.noun]
    flags = row["flags"].split()
    noun = row["ko"]
    counted = phrase.determiner in ("two", "three")
    if phrase.plural and phrase.determiner and not counted and phrase.noun in LIVING:
        noun += "들"
    mine = "우리" if "our" in flags else "제"
    before = {"my": mine, "our": "우리", "this": "이", "many": "많은"}.get(phrase.determiner, "")
    adjective = ADJECTIVES[phrase.adjective]["ko_attributive"] if phrase.adjective else ""
    count = ""
    if counted:
        counter = "명" if phrase.noun in PEOPLE else next(flag for flag in flags if not flag.isascii())
        count = f"{NUMBERS[phrase.determiner][1]} {counter}"
    return _joined(before, adjective, noun, count)


def ko_slots(clause: Clause) -> list[str]:
    """What stands between the subject and the verb."""
    row = VERBS[clause.verb]
    flags = row.get("flags", "").split()
    slots = [TIMES[clause.time]["ko"] if clause.time else ""]
    slots.append(ADVERBS[clause.frequency]["ko"] if clause.frequency else "")
    if clause.asked in ("when", "why"):
        slots.append({"when": "언제", "why": "왜"}[clause.asked])
    at = "에" if "static" in flags else "에서"
    if clause.asked == "where":
        slots.append("어디+" + ("에" if row.get("toward") else at))
    if clause.place:
        slots.append(f"{PLACES[clause.place]['ko']}+{at}")
    if clause.recipient:
        slots.append(f"{ko_noun_phrase(clause.recipient)}+{'께' if clause.recipient.respected else '에게'}")
    if clause.asked == "what":
        slots.append("무엇+이" if "ga" in flags else "무엇+을")
    if clause.object:
        noun = ko_noun_phrase(clause.object)
        if "ege" in flags:
            slots.append(f"{noun}+{'께' if clause.object.respected else '에게'}")
        else:
            slots.append(particle(noun, "가" if "ga" in flags else "와" if "wa" in flags else "를"))
    if clause.toward:
        slots.append(particle(PLACES[clause.toward]["ko"], "로" if "ro" in flags else "에"))
    if clause.than:
        slots.append(f"{ko_noun_phrase(clause.than)}+보다 더")
    slots.append(ADVERBS[clause.manner]["ko"] if clause.manner else "")
    return slots


def ko_subject(clause: Clause, which: str) -> str:
    if clause.asked == "who":
        return "누+가"
    noun = ko_noun_phrase(clause.subject)
    indefinite = clause.subject.determiner in ("", "a", *NUMBERS) and clause.subject.noun in NOUNS
    return particle(noun, "가" if which == "는" and indefinite else which) if noun else ""


def ko_clause(clause: Clause, ending: str = "요", which: str = "는") -> str:
    """The clause with an ending, its subject with the particle `which` ("" leaves the subject out)."""
    subject = ko_subject(clause, which) if which else ""
    slots = ko_slots(clause)
    if clause.subject.noun == "it" and clause.adjective in WEATHER:
        slots.append("날씨+가")
    return _joined(subject, slots, ko_ended(clause, ending))


def say_ko(sentence: Sentence) -> str:
    """The sentence in Korean, with + between nouns and particles."""
    main = sentence.clauses[0]
    other = sentence.clauses[-1]
    mark = "."
    # One of two clauses with the same subject has a pronoun, which Korean leaves out.
    same = main.subject.pronoun == other.subject.pronoun and {main.subject.noun, other.subject.noun} & set(PRONOUNS)
    if same:
        subject = main.subject if other.subject.noun in PRONOUNS else other.subject
        main, other = replace(main, subject=subject), replace(other, subject=subject)
    match sentence.shape:
        case "front":
            text = _joined(TIMES[main.time]["ko"], ko_clause(replace(main, time="")))
        case "question":
            text, mark = ko_clause(main), "?"
        case "please":
            asked = replace(main, subject=NounPhrase("it"))  # the request is respectful, not the verb
            text = _joined(ko_slots(main), ko_ended(asked, "세요"))
        case "there":
            text = f"{PLACES[main.place]['ko']}+에 {ko_subject(main, '가')} {ko_ended(main, '요')}"
        case "because" | "if" | "while" | "before":
            ending = {"because": "서", "if": "면", "while": "는", "before": "전"}[sentence.shape]
            after = "동안" if sentence.shape == "while" else ""
            other = replace(other, mood="present")  # these endings show no time
            if same:
                text = _joined(ko_subject(main, "는"), ko_clause(other, ending, ""), ko_clause(main, which=""))
            else:
                text = _joined(ko_clause(other, ending, "가"), after, ko_clause(main))
        case "that":
            text = _joined(ko_subject(main, "는"), ko_clause(other, "다고", "가"), ko_ended(main, "요"))
        case "but":
            text = f"{ko_clause(main, '지만')} {ko_clause(other)}"
        case "and":
            text = _joined(ko_clause(replace(main, mood="present"), "서"), ko_clause(other, which=""))
        case "relative":
            head = ko_noun_phrase(main.subject)
            text = _joined(ko_clause(other, "는", ""), particle(head, "는"), ko_slots(main), ko_ended(main, "요"))
        case "to":
            text = _joined(ko_clause(other, "는", ""), "것+은", ko_ended(main, "요"))
        case "forget":
            text = _joined(ko_subject(main, "는"), ko_clause(other, "는", ""), "것+을", ko_ended(main, "요"))
        case "time":
            time = _joined(TIMES[main.time]["ko"] if main.time else "", ko_clause(other, "시간", ""))
            text = _joined(ko_subject(main, "는"), time + "+이", ko_ended(replace(main, negated=True), "요"))
        case _:
            text = ko_clause(main)
    return text + mark


SAY: dict[str, Callable[[Sentence], str]] = {"en": say_en, "de": say_de, "ko": say_ko}


# Drawing sentences

CONSTRUCTIONS = "will can must want front question wh that while before but relative and because if to".split()
HELD_OUT = 5  # of CONSTRUCTIONS for each verb, at most one of them a modal, so that its infinitive is known
MODALS = {"could": "can", "had to": "must", "wanted": "want", "should": "must"}
PAST = {"can": "could", "must": "had to", "want": "wanted", "present": "past", "progressive": "past"}


def held_out() -> set[tuple[str, str]]:
    """The (verb, construction) pairs that only test has."""
    rng = random.Random(3)
    pairs: set[tuple[str, str]] = set()
    for verb in sorted({row["en"][0] for row in VERBS.values()}):
        modal = rng.sample(CONSTRUCTIONS[:4], 1)
        pairs |= {(verb, label) for label in modal + rng.sample(CONSTRUCTIONS[4:], HELD_OUT - 1)}
    return pairs


HELD = held_out()


class Writer:
    """Draws sentences of a domain, words that it has used less often first."""

    def __init__(self, rng: random.Random, domain: str) -> None:
        self.rng, self.domain, self.language = rng, domain, TARGET[domain]
        self.used: Counter[str] = Counter()
        self.verbs = [verb for verb, row in VERBS.items() if self.language in row and row["who"]]

    def pick(self, words: Sequence[str]) -> str:
        return self.rng.choices(words, [(1 + self.used[word]) ** -3 for word in words])[0]

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def known(self, words: Iterable[str], table: dict[str, Row]) -> list[str]:
        """The words that this domain translates."""
        return [word for word in words if table[word][self.language]]

    def listed(self, value: str | dict[str, str]) -> list[str]:
        """The nouns of this domain in a list of verbs.json, which may have one for each domain."""
        return self.known(group(value if isinstance(value, str) else value.get(self.domain, "")), NOUNS)

    # Noun phrases

    def adjective(self, noun: str, kind: str = "attributive") -> str:
        column = "ko_attributive" if kind == "attributive" else "ko"
        fitting = [
            adjective
            for adjective, row in ADJECTIVES.items()
            if noun in LIKE[kind][adjective] and (self.domain == "world" or row[column])
        ]
        return self.pick(fitting) if fitting else ""

    def owner(self, subject: NounPhrase | None) -> str:
        """A possessive that fits the subject."""
        if self.domain == "korean":
            return "my" if subject is None or subject.noun == "I" else "the"
        if subject is not None and subject.pronoun not in ("", "it") and self.chance(0.7):
            return PRONOUNS[subject.pronoun]["possessive"]
        return "the" if subject is not None else self.pick(["my", "your", "his", "her", "our", "their"])

    def person(self, noun: str, subject: NounPhrase | None = None) -> NounPhrase:
        flags = NOUNS[noun]["flags"].split()
        plural = "pl" in flags or (self.chance(0.2) and bool(NOUNS[noun]["plural"]))
        if noun in group("@kin friend"):
            owner = self.owner(subject)
            return NounPhrase(noun, "my" if self.domain == "korean" or owner == "the" else owner, plural=plural)
        if noun in ("neighbor", "boss") and self.domain == "world" and self.chance(0.5):
            owner = self.owner(subject)
            return NounPhrase(noun, "our" if owner == "the" else owner, plural=plural)
        adjective = self.adjective(noun) if self.chance(0.12) else ""
        return NounPhrase(noun, "the", adjective, plural)

    def thing(self, noun: str, policy: str, subject: NounPhrase | None = None) -> NounPhrase:
        """A noun that is no person; `policy` says which determiners it may have."""
        if noun in PEOPLE:
            return self.person(noun, subject)
        row = NOUNS[noun]
        flags = row["flags"].split()
        if "bare" in flags:
            return NounPhrase(noun)
        adjective = self.adjective(noun) if self.chance(0.4) else ""
        if policy == "generic":
            return NounPhrase(noun, "", adjective if self.chance(0.5) else "", bool(row["plural"]))
        mine = self.owner(subject) if noun in OWNED and self.chance(0.6 if policy == "def" else 0.2) else ""
        if "mass" in flags:
            definite = policy in ("the", "def") or (policy == "some" and self.chance(0.15))
            return NounPhrase(noun, "the" if definite else "", adjective)
        if "pl" in flags:
            return NounPhrase(noun, mine or ("the" if policy in ("the", "def") else ""), adjective, True)
        if mine:
            return NounPhrase(noun, mine, adjective)
        if policy in ("the", "def"):
            plural = noun in SEVERAL and self.chance(0.35)
            return NounPhrase(noun, "this" if self.chance(0.08) and not plural else "the", adjective, plural)
        kinds = ["a", "a", "a", "the"] + (["", "number", "number"] if row["plural"] and policy == "some" else [])
        kind = "a" if policy == "a" else self.rng.choice(kinds)
        if kind == "number":
            countable = self.domain == "world" or not row["flags"].isascii()
            return NounPhrase(noun, self.pick([*NUMBERS] if countable else ["many"]), adjective, True)
        return NounPhrase(noun, kind, adjective, not kind)

    def subject(self, who: str) -> NounPhrase:
        """A subject for a verb."""
        if who == "it":
            return NounPhrase("it")
        anyone = who.startswith("@")
        draw = self.rng.random()
        if anyone and draw < 0.4:
            return NounPhrase(self.pick(("I you he she we they" if self.domain == "world" else "I we").split()))
        if anyone and draw < 0.58:
            return NounPhrase(self.pick(list(NAMES[self.domain])))
        noun = self.pick(self.listed(who))
        return self.person(noun) if noun in PEOPLE else self.thing(noun, "the")

    # Clauses

    def moods(self, verb: str) -> list[str]:
        row = VERBS[verb]
        moods = row.get("moods", "present progressive past will can must want").split()
        if "state" in row.get("flags", "").split() and "moods" not in row:
            moods.remove("progressive")
        return moods

    def time(self, verb: str, mood: str) -> str:
        """A time that fits, or "" for none."""
        if "timeless" in VERBS[verb].get("flags", "").split():
            return ""
        fits = {"present": "present", "progressive": "progressive", "past": "past"}.get(mood, "future")
        fits = "past" if mood in PAST.values() else fits
        extra = VERBS[verb].get("times", "").split()
        season = ["season"] if "season" in extra and mood == "present" else []
        year = [{"past": "last_year", "future": "next_year"}.get(fits, "")] if {"year", "year_only"} & {*extra} else []
        if "year_only" in extra:
            return year[0] if self.chance(0.6) else ""
        clock = ["clock"] if "clock" in extra and fits != "progressive" and self.chance(0.5) else []
        allowed = set(clock or [fits, *season, *year, *(["will"] if mood == "will" else [])])
        return self.pick([time for time, row in TIMES.items() if allowed & {*row["fits"].split()}])

    def clause(
        self, verb: str, subject: NounPhrase, mood: str = "present", timed: float = 0.6, spec: Row = FREE
    ) -> Clause:
        """A clause with this verb; `spec` (a part of scenes.json) narrows down what goes with it."""
        row: dict[str, Any] = VERBS[verb]

        flags = row.get("flags", "").split()
        negated = bool(spec.get("neg"))
        changes: Row = {}
        if "object" in row:
            nouns = [noun for noun in self.listed(spec.get("o", row["object"])) if noun != subject.noun]
            if subject.pronoun not in ("she", "I", "you"):
                nouns = [noun for noun in nouns if noun != "dress" or verb != "wear"]
            noun = self.pick(nouns or self.listed(row["object"]))
            changes["object"] = self.object(noun, row, subject)
            if negated and changes["object"].determiner in NUMBERS:
                changes["object"] = self.thing(noun, "the", subject)
        if "to" in row:
            changes["recipient"] = self.receiver(self.listed(row["to"]), subject)
        places = self.known(spec.get("at", row.get("at", "")).split(), PLACES)
        movable = "object" not in row or changes["object"].noun not in row.get("not_at", "").split()
        if places and movable and (spec.get("at") or "must_at" in flags or (self.chance(0.45) and not negated)):
            changes["place"] = self.pick(places)
        targets = self.known(spec.get("toward", row.get("toward", "")).split(), PLACES)
        if targets and (spec.get("toward") or "may_toward" not in flags or self.chance(0.4)):
            changes["toward"] = self.pick(targets)
        if spec.get("manner"):
            changes["manner"] = self.pick([spec["manner"]])
        elif "manner" in row and not negated and "v" not in spec and self.chance(0.35):
            changes["manner"] = self.manner(row["manner"].split(), subject)
        if timed and self.chance(timed):
            changes["time"] = self.time(verb, mood)
            if changes["time"] and TIMES[changes["time"]]["fits"] == "clock":
                changes["manner"] = ""
        return Clause(verb, subject, mood, negated, **changes)

    def object(self, noun: str, row: Row, subject: NounPhrase) -> NounPhrase:
        if noun in PEOPLE:
            return self.receiver([noun], subject)
        return self.thing(noun, row.get("det", "some"), subject)

    def receiver(self, nouns: list[str], subject: NounPhrase) -> NounPhrase:
        """A person to whom or for whom something is done."""
        if self.domain == "world" and self.chance(0.3):
            others = {"I": "you he she they", "you": "I he she we they", "we": "you he she they"}
            pronoun = others.get(subject.noun, "I you we" if subject.pronoun != "I" else "you")
            return NounPhrase(self.pick(pronoun.split()))
        return self.person(self.pick([noun for noun in nouns if noun != subject.noun]), subject)

    def manner(self, allowed: list[str], subject: NounPhrase) -> str:
        plural = _person(subject) == 3
        fits = {*allowed} - ({"single"} if plural else {"plural"})
        fitting = [adverb for adverb, row in ADVERBS.items() if row["fits"] in fits]
        return self.pick(fitting) if fitting else ""

    def habit(self, clause: Clause) -> Clause:
        """A simple present of what is done now and then says how often."""
        state = "state" in VERBS[clause.verb].get("flags", "").split()
        if clause.mood != "present" or clause.time or clause.negated or state:
            return clause
        return replace(clause, frequency=self.pick(["often", "always", "sometimes"]))

    def be(self, subject: NounPhrase | None = None, moods: str = "present past will") -> Clause:
        """A clause about what somebody or something is like."""
        mood = self.rng.choice(moods.split()[:1] * 2 + moods.split())
        time = self.time("be", mood) if mood != "present" and self.chance(0.5) else ""
        draw = self.rng.random()
        if subject is None and draw < 0.12:
            weather = self.pick(list(WEATHER))
            usual = ["today", "in_winter" if weather == "cold" else "in_summer"]
            time = self.pick(usual) if mood == "present" else self.time("be", mood)
            return Clause("be", NounPhrase("it"), mood, time=time, adjective=weather)
        if draw < 0.24 and (subject is None or subject.noun in group("@kin") or subject.noun in NAME):
            kin = self.listed("uncle aunt father mother brother sister younger_brother")
            one = subject or self.person(self.pick(kin))
            if not one.plural and (one.pronoun == "he" or self.domain == "korean"):  # "Lehrer", but "Lehrerin"
                trade = NounPhrase(self.pick(SCENES["professions"]), "a")
                return Clause("be", one, "past" if mood == "past" else "present", complement=trade)
        if subject is None and draw < 0.5:
            known = [row for row in ADJECTIVES.values() if self.domain == "world" or row["ko"]]
            comparative = self.pick([row["en_comparative"] for row in known if row["en_comparative"]])
            adjective = next(row["en"] for row in known if row["en_comparative"] == comparative)
            nouns = self.known(group(ADJECTIVES[adjective]["predicative"]), NOUNS)
            kinds = [[n for n in nouns if n in group("@" + kind)] for kind in _NOUN_FILE["groups"]]
            one, two = (self.plain(n) for n in self.two(self.rng.choice([kind for kind in kinds if len(kind) > 1])))
            return Clause("be", one, "present", adjective=adjective, than=two)
        if subject is not None and subject.noun not in NOUNS:
            states = [a for a in ADJECTIVES if "@person" in ADJECTIVES[a]["predicative"]]
            adjective = self.pick([a for a in states if self.domain == "world" or ADJECTIVES[a]["ko"]])
        else:
            noun = subject.noun if subject else self.pick(self.described())
            adjective = self.adjective(noun, "predicative")
            subject = subject or self.plain(noun)
        often = self.pick(["often", "always", "sometimes"]) if mood == "present" and self.chance(0.15) else ""
        if adjective not in PASSING:
            often, time, mood = "", "", "past" if mood == "past" else "present"
        negated = self.chance(0.2) and not often
        return Clause("be", subject, mood, negated, time=time, frequency=often, adjective=adjective)

    def plain(self, noun: str) -> NounPhrase:
        """One of them, without an adjective."""
        phrase = replace(self.thing(noun, "the"), adjective="")
        return phrase if "pl" in NOUNS[noun]["flags"].split() else replace(phrase, plural=False)

    def two(self, nouns: list[str]) -> tuple[str, str]:
        one = self.pick(nouns)
        return one, self.pick([noun for noun in nouns if noun != one])

    def described(self) -> list[str]:
        column = {"world": "de", "korean": "ko"}[self.domain]
        nouns = {noun for row in ADJECTIVES.values() if row[column] for noun in group(row["predicative"])}
        return sorted(self.known(nouns, NOUNS))

    def simple(self, moods: Iterable[str] = (), subject: NounPhrase | None = None, timed: float = 0.6) -> Clause:
        """Any clause, in one of these moods."""
        if self.chance(0.28) and (not moods or "present" in moods) and (subject is None or subject.noun in PRONOUNS):
            return self.be(subject)
        verb = self.pick(self.verbs)
        fitting = [mood for mood in self.moods(verb) if not moods or mood in moods]
        if not fitting or (subject is not None and not VERBS[verb]["who"].startswith("@")):
            return self.simple(moods, subject, timed)
        mood = self.pick(fitting)
        if mood in ("can", "must", "want") and self.chance(0.25):
            mood = PAST[mood]
        elif mood == "must" and self.domain == "world" and self.chance(0.4):
            mood = "should"
        state = "state" in VERBS[verb].get("flags", "").split()
        negated = mood not in ("must", "should", "had to") and (state or mood != "present") and self.chance(0.17)
        who = subject or self.subject(VERBS[verb]["who"])
        return self.habit(self.clause(verb, who, mood, timed, {"neg": negated}))

    def spec(self, spec: Row, subject: NounPhrase, past: bool, mood: str = "") -> Clause:
        """A clause as scenes.json says it, about this subject where it has none of its own."""
        if "weather" in spec:
            return Clause("be", NounPhrase("it"), "past" if past else "present", adjective=self.pick([spec["weather"]]))
        if "is" in spec:
            if "thing" in spec:
                subject = self.plain(self.pick(group(spec["thing"])))
            adjective = self.pick([spec["is"]])
            return Clause("be", subject, "past" if past else mood or "present", adjective=adjective)
        row = VERBS[spec["v"]]
        if "who" in spec:
            subject = self.person(self.pick(self.listed(spec["who"])))
        elif row["who"] == "it":
            subject = NounPhrase("it")
        now = spec["neg"] if spec.get("neg") in ("can", "want") else mood
        if not now:
            lively = "progressive" in self.moods(spec["v"])
            now = "progressive" if lively and (row["who"] == "it" or "who" in spec or self.chance(0.4)) else "present"
        return self.clause(spec["v"], subject, PAST.get(now, now) if past else now, 0, spec)

    def usable(self, specs: Iterable[Row]) -> list[Row]:
        """The parts of scenes.json that this domain can say."""
        return [
            spec
            for spec in specs
            if ("v" not in spec or self.language in VERBS[spec["v"]])
            and ("is" not in spec or self.domain == "world" or ADJECTIVES[spec["is"]]["ko"])
            and ("o" not in spec or self.listed(spec["o"]))
            and ("toward" not in spec or not spec["toward"] or self.known(spec["toward"].split(), PLACES))
        ]

    def chosen(self, specs: list[Row]) -> Row:
        """One of them, by how often their words were used."""
        keys = [VERBS[spec["v"]]["en"][0] if "v" in spec else spec["is"] for spec in specs]
        key = self.rng.choices(range(len(specs)), [(1 + self.used[key]) ** -1.5 for key in keys])[0]
        return specs[key]

    # Sentences

    def statement(self) -> Sentence:
        return Sentence("statement", (self.simple(),))

    def front(self) -> Sentence:
        clause = self.simple(timed=1)
        time = clause.time or self.time(clause.verb, clause.mood)
        lasting = clause.verb == "be" and clause.subject.noun != "it" and clause.adjective not in PASSING
        if lasting or not time:
            return self.front()
        return Sentence("front", (replace(clause, time=time, frequency=""),))

    def question(self) -> Sentence:
        you = NounPhrase(self.pick(["you"])) if self.chance(0.35) else None
        clause = self.simple("present progressive past will can want".split(), subject=you, timed=0.4)
        if clause.subject.noun in ("I", "we") and clause.mood not in ("can", "should", "will"):
            return self.question()
        return Sentence("question", (replace(clause, negated=False),))

    def wh(self) -> Sentence:
        asked = self.pick(["where", "when", "why", "what", "who"])
        you = NounPhrase(self.pick(["you"])) if self.chance(0.3) and asked != "who" else None
        clause = replace(self.simple(subject=you, timed=0.3), negated=False, asked=asked, frequency="")
        row = VERBS[clause.verb]
        if asked == "where":
            clause = replace(clause, place="", toward="", manner="")
        elif asked == "when":
            clause = replace(clause, time="")
        elif asked == "what":
            clause = replace(clause, object=None)
        elif asked == "who":
            clause = replace(clause, subject=NounPhrase("he"))
        fits = {
            "where": ("at" in row or "toward" in row) and "may_toward" not in row.get("flags", "").split(),
            "when": clause.mood in ("past", "will") and clause.verb != "be",
            "why": clause.mood not in ("can", "should", "could") and (clause.adjective or "sad") in PASSING,
            "what": "object" in row and row.get("det") not in ("the", "generic") and len(row.get("de", [])) <= 4
            and not PEOPLE & set(self.listed(row["object"])),
            "who": row["who"].startswith("@"),
        }[asked]  # fmt: skip
        return Sentence("question", (clause,)) if fits and clause.subject.noun not in ("I", "we") else self.wh()

    def please(self) -> Sentence:
        verb = self.pick([verb for verb in self.verbs if "imperative" in VERBS[verb]])
        subject = NounPhrase("you")
        clause = replace(self.clause(verb, subject, timed=0), manner="", place="", toward="")
        if clause.recipient and self.domain == "korean" and self.chance(0.6):
            clause = replace(clause, recipient=NounPhrase(self.pick(["I"])))
        clause = replace(clause, time=self.pick(["today", "now", "tomorrow"]) if self.chance(0.3) else "")
        return Sentence("please", (clause,))

    def there(self) -> Sentence:
        place = self.pick(self.known(SCENES["there"], PLACES))
        noun = self.pick(self.known(SCENES["there"][place].split(), NOUNS))
        thing = self.thing(noun, "some")
        if thing.determiner not in ("a", *NUMBERS):
            thing = NounPhrase(noun, "a", thing.adjective)
        mood = "past" if self.chance(0.3) else "present"
        return Sentence("there", (Clause("be_there", thing, mood, place=place),))

    def that(self) -> Sentence:
        verb = self.pick(["say", "think", "know", "hope"] if self.domain == "world" else ["say", "think"])
        matrix = Clause(verb, self.subject("@grown"))
        moods = ["will", "can"] if verb == "hope" else ["present", "progressive", "past", "will", "can", "must"]
        inner = self.simple(moods, timed=0.3)
        first_person = {"I", "we"}
        same = matrix.subject.noun == inner.subject.noun or {matrix.subject.noun, inner.subject.noun} <= first_person
        if same or (verb == "say" and matrix.subject.noun in first_person):
            return self.that()
        return Sentence("that", (matrix, inner))

    def lively(self, noun: str = "") -> str:
        """A verb of something that goes on for a while and that people (or this noun) do."""
        verbs = [verb for verb in self.verbs if "progressive" in self.moods(verb) and VERBS[verb]["who"][0] == "@"]
        fitting = [verb for verb in verbs if not noun or noun in self.listed(VERBS[verb]["who"])]
        return self.pick([verb for verb in fitting if verb not in ("come", "wear", "look")])

    def during(self) -> Sentence:
        clauses = []
        for _ in range(2):
            verb = self.lively()
            clauses.append(self.clause(verb, self.subject(VERBS[verb]["who"]), "progressive", 0))
        one, two = clauses
        if one.subject.noun == two.subject.noun or one.verb == two.verb:
            return self.during()
        return Sentence("while", (one, two), self.chance(0.4))

    def before(self) -> Sentence:
        subject = self.subject("@grown")
        mood = self.pick(["present", "past", "must", "want"])
        one, two = (self.lively(subject.noun if subject.noun in NOUNS else "") for _ in range(2))
        if not subject.pronoun or one == two:
            return self.before()
        main = self.clause(one, subject, mood, 0.3 if mood == "past" else 0)
        other = self.clause(two, NounPhrase(subject.pronoun), "past" if mood == "past" else "present", 0)
        return Sentence("before", (main, other))

    def but(self) -> Sentence:
        verb = self.pick([verb for verb in self.verbs if {"object", "must_at", "toward"} & self.varied(verb)])
        moods = [mood for mood in self.moods(verb) if mood not in ("can", "must")]
        mood = self.pick([mood for mood in moods if mood != "present" or "state" in self.varied(verb)])
        one, two = (self.clause(verb, self.subject(VERBS[verb]["who"]), mood, 0) for _ in range(2))
        one, two = replace(one, manner=""), replace(two, manner="")
        if "object" in VERBS[verb]:
            one, two = replace(one, place="", toward=""), replace(two, place="", toward="")
        if one.object and two.object:
            kinds = [self.kind(phrase.noun) for phrase in (one.object, two.object)]
            contrast = one.object.noun != two.object.noun and kinds[0] == kinds[1]
        else:
            contrast = (one.place, one.toward) != (two.place, two.toward)
        if one.subject.noun == two.subject.noun or not contrast:
            return self.but()
        return Sentence("but", (one, two))

    def kind(self, noun: str) -> str:
        """The group that a noun belongs to."""
        return next((kind for kind in _NOUN_FILE["groups"] if noun in group("@" + kind)), "kin")

    def varied(self, verb: str) -> set[str]:
        return {*VERBS[verb], *VERBS[verb].get("flags", "").split()}

    def relative(self) -> Sentence:
        noun = self.pick(["man", "woman", "boy", "girl", "child"])
        subject = NounPhrase(noun, "the")
        verb = self.lively(noun)
        kin = self.known(SCENES["relative"][noun], NOUNS)
        if self.chance(0.5):
            who = replace(self.person(self.pick(kin)), plural=False, adjective="")
            if who.determiner == "the":
                who = replace(who, determiner="my" if self.domain == "korean" else "our")
            main = Clause("be", subject, complement=who)
        else:
            main = replace(self.be(subject, "present"), frequency="")
        return Sentence("relative", (main, self.clause(verb, subject, "progressive", 0)))

    def cause(self, conjunction: str) -> Sentence:
        scenes = [scene for scene in SCENES["because"] if conjunction == "because" or "if" in scene]
        scene = self.rng.choice([scene for scene in scenes if self.usable(scene["cause"])])
        effects = self.usable(scene["effects"])
        if not effects:
            return self.cause(conjunction)
        effect = self.chosen(effects)
        past = conjunction == "because" and (scene.get("tense") == "past" or self.chance(0.3))
        subject = self.subject(VERBS[effect["v"]]["who"] if "v" in effect else "@grown")
        if not subject.pronoun or subject.noun == "it":
            return self.cause(conjunction)
        main = self.spec(effect, subject, past, "will" if conjunction == "if" else "")
        cause = self.rng.choice(self.usable(scene["cause"]))
        other = self.spec(cause, NounPhrase(subject.pronoun), past, "present" if conjunction == "if" else "")
        told, reason = (
            {phrase.noun for phrase in (clause.subject, clause.object) if phrase} - set(PRONOUNS)
            for clause in (main, other)
        )
        if told & reason:
            return self.cause(conjunction)
        main, other = (
            # An adjective could speak against the cause.
            replace(clause, object=replace(clause.object, adjective="")) if clause.object else clause
            for clause in (main, other)
        )
        if conjunction == "if" and other.subject.noun == "it":
            other = replace(other, time=self.pick(["tomorrow", "today", "on_Sunday", "on_Saturday", "on_the_weekend"]))
        first = self.chance(0.5 if conjunction == "if" else 0.15)
        if first and main.subject.noun not in PRONOUNS and other.subject.noun == subject.pronoun:
            main, other = replace(main, subject=other.subject), replace(other, subject=main.subject)
        return Sentence(conjunction, (main, other), first)

    def because(self) -> Sentence:
        return self.cause("because")

    def condition(self) -> Sentence:
        return self.cause("if")

    def going(self) -> Sentence:
        place = self.pick(list(SCENES["and"]))
        spec = self.chosen(self.usable(SCENES["and"][place]))
        subject = self.subject(VERBS[spec["v"]]["who"])
        if subject.noun in group("@animal"):
            return self.going()
        past = self.chance(0.6)
        mood = "past" if past else "present"
        going = self.clause("go", subject, mood, 0.5 if past else 1, {"toward": place})
        doing = replace(self.clause(spec["v"], subject, mood, 0, spec), place="", toward="", manner="")
        return Sentence("and", (replace(going, manner=""), doing))

    def to(self) -> Sentence:
        adjective = self.pick(list(SCENES["to"]))
        spec = self.chosen(self.usable(SCENES["to"][adjective]))
        inner = self.clause(spec["v"], NounPhrase("it"), timed=0, spec=spec)
        inner = replace(inner, place=inner.place if "at" in spec or "must_at" in self.varied(spec["v"]) else "")
        return Sentence("to", (Clause("be", NounPhrase("it"), adjective=adjective), inner))

    def time_to(self) -> Sentence:
        verb = self.pick([verb for verb in SCENES["time"] if self.language in VERBS[verb]])
        subject = self.subject(VERBS[verb]["who"])
        mood = self.rng.choice(["present", "past"])
        time = self.pick(["this_morning", "yesterday", "last_week"] if mood == "past" else ["today"])
        main = Clause("have", subject, mood, object=NounPhrase("time", "no"), time=time if self.chance(0.5) else "")
        inner = replace(self.clause(verb, subject, timed=0), place="", manner="")
        return Sentence("time", (main, inner))

    def forget_to(self) -> Sentence:
        spec = self.chosen(self.usable(SCENES["forget"]))
        subject = self.subject(VERBS[spec["v"]]["who"])
        inner = replace(self.clause(spec["v"], subject, timed=0, spec=spec), place="", manner="", toward="")
        return Sentence("forget", (Clause("forget", subject, "past"), inner))


SHAPES = {
    "statement": 27, "front": 10, "question": 9, "wh": 8, "please": 3, "there": 3, "that": 7, "during": 5, "before": 5,
    "but": 5, "relative": 3, "because": 8, "condition": 4, "going": 4, "to": 2, "time_to": 2, "forget_to": 2,
}  # fmt: skip


def constructions(sentence: Sentence) -> set[tuple[str, str]]:
    """The (verb, construction) pairs of a sentence."""
    pairs = set()
    for place, clause in enumerate(sentence.clauses):
        verb = VERBS[clause.verb]["en"][0]
        label = {"time": "to", "forget": "to"}.get(sentence.shape, sentence.shape)
        if label == "question" and clause.asked:
            label = "wh"
        if place or len(sentence.clauses) == 1 or label == "but":
            pairs.add((verb, label))
        pairs.add((verb, MODALS.get(clause.mood, clause.mood)))
    return pairs


def vocabulary(sentence: Sentence) -> list[str]:
    """The keys of the words in a sentence."""
    words = []
    for clause in sentence.clauses:
        comparative = ADJECTIVES[clause.adjective]["en_comparative"] if clause.than else ""
        words += [clause.verb, VERBS[clause.verb]["en"][0], comparative or clause.adjective]
        words += [clause.place, clause.toward, clause.time, clause.frequency, clause.manner]
        phrases = (clause.subject, clause.object, clause.recipient, clause.complement, clause.than)
        for phrase in filter(None, phrases):
            words += [phrase.noun, phrase.determiner, phrase.adjective]
    return words


def pieces(text: str) -> list[str]:
    """The words, Korean nouns without their particles."""
    return re.findall(r"[\w']+", text.lower())


LIKE = {
    kind: {adjective: set(group(row[kind])) for adjective, row in ADJECTIVES.items()}
    for kind in ("attributive", "predicative")
}  # the nouns that an adjective may describe


def _natural(source: str) -> bool:
    """Whether it is of a fitting length and does not name somebody's same relative or thing twice."""
    owned = re.findall(r"\b(?:my|our|your|his|her|their) (\w+)", source)
    return 4 <= len(source.split()) <= 11 and len(set(owned)) == len(owned)


def draw(writer: Writer, count: int, fits: Callable[[Sentence, str, str], bool], seen: set[str]) -> list[Pair]:
    """`count` new sentences that fit, as (English, target with + before particles)."""
    shapes: dict[str, Callable[[], Sentence]] = {name: getattr(writer, name) for name in SHAPES}
    rows: list[Pair] = []
    while len(rows) < count:
        shape = writer.rng.choices(list(SHAPES), list(SHAPES.values()))[0]
        sentence = shapes[shape]()
        source, target = say_en(sentence), SAY[writer.language](sentence)
        if _natural(source) and not {source, target} & seen and fits(sentence, source, target):
            seen |= {source, target}
            writer.used.update(vocabulary(sentence))
            rows.append((source, target))
    return rows


def write_domain(rng: random.Random, domain: str) -> dict[str, list[Pair]]:
    """The rows of each split."""
    writer, seen = Writer(rng, domain), set[str]()

    def shown(sentence: Sentence, source: str, target: str) -> bool:
        return not constructions(sentence) & HELD

    def rare(sentence: Sentence, source: str, target: str) -> bool:
        bound = sorted(writer.used.values())[12]
        return shown(sentence, source, target) and any(writer.used[w] <= bound for w in vocabulary(sentence))

    first = SIZES["train"] * 3 // 4
    splits = {"train": draw(writer, first, shown, seen)}
    splits["train"] += draw(writer, SIZES["train"] - first, rare, seen)
    counts = Counter(piece for row in splits["train"] for text in row for piece in set(pieces(text)))

    def known(source: str, target: str) -> bool:
        return all(counts[piece] >= 3 for text in (source, target) for piece in pieces(text))

    writer.used.clear()
    splits["validation"] = draw(writer, SIZES["validation"], lambda s, en, to: shown(s, en, to) and known(en, to), seen)
    writer.used.clear()
    usual = SIZES["test"] * 2 // 5
    splits["test"] = draw(writer, usual, lambda s, en, to: shown(s, en, to) and known(en, to), seen)
    splits["test"] += draw(
        writer, SIZES["test"] - usual, lambda s, en, to: not shown(s, en, to) and known(en, to), seen
    )
    for rows in splits.values():
        rng.shuffle(rows)
    return splits


def write(path: Path) -> None:
    """Writes the rows of both domains to a file."""
    lines = []
    for number, domain in enumerate(TARGET):
        for split, rows in write_domain(random.Random(number), domain).items():
            for source, target in rows:
                pair = {"en": source, TARGET[domain]: target.replace("+", "")}
                row = {"split": split, "domain": domain, "translation": pair}
                lines.append(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    write(Path(samples.__file__).with_name("translation.jsonl"))
