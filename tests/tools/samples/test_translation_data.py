"""The embedded translation data: correct German and Korean, splits that share nothing, and no easy way to translate."""

import collections
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import sacrebleu

from tl_hub import samples
from tools.samples import write_translation
from tools.samples.write_translation import Clause, NounPhrase, Sentence

pytestmark = pytest.mark.slow

FILE = Path(samples.__file__).with_name("translation.jsonl")
ROWS: list[dict[str, Any]] = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
SPLITS = ("train", "validation", "test")
DOMAINS = {"world": "de", "korean": "ko"}
FOLDER = write_translation.GRAMMAR
NOUNS = [
    row for rows in json.loads((FOLDER / "nouns.json").read_text(encoding="utf-8"))["groups"].values() for row in rows
]
VERBS: dict[str, Any] = json.loads((FOLDER / "verbs.json").read_text(encoding="utf-8"))
PHRASES = json.loads((FOLDER / "phrases.json").read_text(encoding="utf-8"))


def pairs(domain: str, split: str) -> list[tuple[str, str]]:
    chosen = [row["translation"] for row in ROWS if (row["domain"], row["split"]) == (domain, split)]
    return [(pair["en"], pair[DOMAINS[domain]]) for pair in chosen]


def words(text: str) -> list[str]:
    return re.findall(r"[\w']+", text.lower())


def test_the_file_is_what_the_generator_writes(tmp_path: Path) -> None:
    write_translation.write(tmp_path / "translation.jsonl")
    assert (tmp_path / "translation.jsonl").read_bytes() == FILE.read_bytes()
    assert FILE.stat().st_size <= 700_000


@pytest.mark.parametrize("domain", DOMAINS)
def test_sizes(domain: str) -> None:
    assert [len(pairs(domain, split)) for split in SPLITS] == [1880, 150, 250]


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("side", [0, 1])
def test_no_sentence_occurs_twice(domain: str, side: int) -> None:
    texts = [pair[side].lower() for split in SPLITS for pair in pairs(domain, split)]
    assert len(set(texts)) == len(texts)


def test_the_text_is_clean() -> None:
    for row in ROWS:
        source, target = row["translation"].values()
        assert 4 <= len(source.split()) <= 14 and 2 <= len(target.split()) <= 14
        assert re.fullmatch(r"[A-Z][A-Za-z' ,]*[.?]", source), source
        assert re.fullmatch(r"[A-ZÄÖÜ][A-Za-zÄÖÜäöüß ,]*[.?]|[가-힣 ]+[.?]", target), target
        assert source[-1] == target[-1]
        assert not re.search(r"  | [,.?]|\b(\w+) \1\b|\b[Aa] [aeio]|\b[Aa]n [b-df-hj-np-tv-z]", source), source
        assert not re.search(r"  | [,.?]|\b(?!(?:sie|der|die|das)\b)(\w+) \1\b", target), target


def third(base: str) -> set[str]:
    return {base + "s", base + "es", base[:-1] + "ies"}


# Which forms belong to which verb of the lexicon.
FORMS = {form: verb["en"][0] for verb in VERBS.values() for form in (*verb["en"][:3], *third(verb["en"][0]))}
FORMS |= {form: "be" for form in ("am", "are", "is", "were")} | {"has": "have"}
TIMES = tuple(row[0].capitalize() for row in PHRASES["times"]["rows"])
JOINS = ("because", "if", "while", "before", "that", "but", "and", "who")
MODALS = {"will": "will", "can": "can", "cannot": "can", "could": "can", "must": "must", "should": "must"}
MODALS |= {"want": "want", "wants": "want", "wanted": "want", "to": "to"}


def constructions(sentence: str) -> set[tuple[str, str]]:
    """(cue, verb) as one sees them: what opens the clause, and the modals before the verb."""
    found = set()
    tokens = re.findall(r"[\w']+|,", sentence.lower())
    question = sentence.endswith("?")
    cues = {"asked" if question else "told"} | ({"front"} if sentence.startswith(TIMES) else set())
    for place, token in enumerate(tokens):
        if token in JOINS and not (question and place == 0):
            cues = {token}
        elif token == ",":
            cues = {"told"}
        elif token in MODALS:
            cues = cues | {MODALS[token]}
        elif token in FORMS:
            found |= {(cue, FORMS[token]) for cue in cues}
    return found


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_third_of_test_takes_constructions_that_train_never_shows_with_the_verb(domain: str) -> None:
    seen = set().union(*(constructions(source) for source, _ in pairs(domain, "train")))
    # The constructions are known, only not with this verb.
    cues = collections.Counter(cue for cue, _ in seen)
    rows = [{pair for pair in constructions(source) if pair not in seen} for source, _ in pairs(domain, "test")]
    assert sum(map(bool, rows)) >= len(rows) / 3
    assert all(cues[cue] >= 3 for row in rows for cue, _ in row)


@pytest.mark.parametrize("domain", DOMAINS)
def test_train_shows_each_word_of_the_lexicon(domain: str) -> None:
    counts: collections.Counter[str] = collections.Counter()
    for source, _ in pairs(domain, "train"):
        counts.update({FORMS.get(word, word) for word in words(source)})
    column = 2 if domain == "world" else 5
    for noun in NOUNS:
        if noun[column]:
            assert sum(counts[form.lower()] for form in {noun[0].split()[-1], noun[1].split(" ")[-1]}) >= 8, noun[0]
    for verb in VERBS.values():
        if DOMAINS[domain] in verb:
            assert counts[verb["en"][0]] >= 10, verb["en"][0]


PARTICLES = r"(들)?(은|는|이|가|을|를|과|와|으로|로|에|에서|에게|께|보다)?$"


@pytest.mark.parametrize(("domain", "side"), [("world", 0), ("world", 1), ("korean", 0), ("korean", 1)])
def test_no_word_is_new_in_test(domain: str, side: int) -> None:
    """Korean nouns may have another particle than in train."""

    def known(text: str) -> set[str]:
        return {*words(text), *(re.sub(PARTICLES, "", word) for word in words(text) if word[0] >= "가")}

    seen = set().union(*(known(pair[side]) for pair in pairs(domain, "train")))
    for split in ("validation", "test"):
        for pair in pairs(domain, split):
            assert not [word for word in words(pair[side]) if not known(word) & seen], pair


def plain(text: str) -> str:
    """Lower case and without umlauts, so that plurals (Väter) begin like singulars (Vater)."""
    return unicodedata.normalize("NFD", text.lower()).replace("\u0308", "")


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_noun_has_one_translation(domain: str) -> None:
    column = 2 if domain == "world" else 5
    rows = [pair for split in SPLITS for pair in pairs(domain, split)]
    for noun in filter(lambda noun: noun[column], NOUNS):
        target = plain(noun[column].split("/")[0])
        expression = re.compile(rf"(?<!o')\b({'|'.join({noun[0], noun[1] or noun[0]})})\b", re.IGNORECASE)
        for source, said in rows:
            assert not expression.search(source) or target in plain(said), (noun[0], source, said)


# German

GENDERS = {
    "m": "Vater Bruder Onkel Sohn Lehrer Arzt Mann Hund Vogel Käse Kuchen Apfel Tee Brief Film Mantel Schlüssel "
    "Regenschirm Ball Fernseher Tisch Stuhl Teller Zug Garten Markt See Wald",
    "f": "Mutter Schwester Tante Tochter Frau Katze Kuh Suppe Kartoffel Milch Zeitung Geschichte Frage Jacke Tasche "
    "Fahrkarte Uhr Tür Kiste Blume Küche Schule Bibliothek Kirche Stadt Brücke Straße Musik",
    "n": "Mädchen Kind Baby Pferd Brot Fleisch Ei Wasser Buch Wort Bild Hemd Kleid Geld Fahrrad Auto Licht Bett "
    "Fenster Geschenk Schiff Haus Zimmer Büro Krankenhaus Dorf",
}
ARTICLES = {
    "m": "der den dem ein einen einem kein keinen",
    "f": "die der eine einer keine",
    "n": "das dem ein einem kein",
}


@pytest.mark.parametrize("gender", "mfn")
def test_german_articles_agree_with_the_gender(gender: str) -> None:
    expression = re.compile(
        rf"(?<!, )\b(d(?:er|ie|as|en|em)|k?ein(?:e[nmr]?)?) ({'|'.join(GENDERS[gender].split())})\b"
    )
    # In these the plural is like the singular.
    allowed = {*ARTICLES[gender].split()}
    unchanged = {"Lehrer", "Kuchen", "Schlüssel", "Teller", "Fernseher", "Onkel", "Mädchen", "Fenster", "Zimmer"}
    found = 0
    for row in ROWS:
        for article, noun in expression.findall(row["translation"].get("de", "").replace("Die ", "die ")):
            found += 1
            assert article in allowed | ({"die", "den", "keine"} if noun in unchanged else set()), row
    assert found > 200


def test_german_subordinate_clauses_end_with_the_finite_verb() -> None:
    finite = "habe|hast|hat|werde|wirst|wird|kann|kannst|muss|musst|will|willst|konnte|musste|wollte|bin|bist|ist|war"
    found = 0
    for row in ROWS:
        target = row["translation"].get("de", "")
        for clause in re.findall(r"\b(?:weil|wenn|während|bevor|dass) ([^,.?]+)", target, re.IGNORECASE):
            found += 1
            assert not re.search(rf"\b({finite}) ", clause), target
    assert found > 400


def the(noun: str, adjective: str = "", plural: bool = False) -> NounPhrase:
    return NounPhrase(noun, "the", adjective, plural)


def a(noun: str, adjective: str = "") -> NounPhrase:
    return NounPhrase(noun, "a", adjective)


def say(language: str, shape: str, *clauses: Clause, reversed: bool = False) -> str:
    return write_translation.SAY[language](Sentence(shape, clauses, reversed)).replace("+", "")


ME, HE, SHE, IT, YOU, WE = (NounPhrase(word) for word in ("I", "he", "she", "it", "you", "we"))
MOTHER, GRANDMOTHER, UNCLE = (NounPhrase(word, "my") for word in ("mother", "grandmother", "uncle"))
MAN, MINSU, YUNA = the("man"), NounPhrase("Minsu"), NounPhrase("Yuna")
RAIN = Clause("rain", IT, "progressive")


def test_german_word_order() -> None:
    shopped = Clause("shop", MOTHER, "past", time="yesterday", place="market")
    assert say("de", "front", shopped) == "Gestern hat meine Mutter auf dem Markt eingekauft."
    assert say("de", "statement", shopped) == "Meine Mutter hat gestern auf dem Markt eingekauft."
    assert say("de", "question", shopped) == "Hat meine Mutter gestern auf dem Markt eingekauft?"
    stay = Clause("go", HE, "want", True, toward="forest")
    assert say("de", "because", stay, RAIN) == "Er will nicht in den Wald gehen, weil es regnet."
    home = Clause("stay", WE, "will", place="home")
    assert say("de", "if", home, RAIN, reversed=True) == "Wenn es regnet, werden wir zu Hause bleiben."
    watch = Clause("watch", MAN, place="sofa")
    tired = Clause("be", MAN, adjective="tired")
    assert say("de", "relative", tired, watch) == "Der Mann, der auf dem Sofa fernsieht, ist müde."
    assert say("de", "question", Clause("go", YOU, "progressive", asked="where")) == "Wohin gehst du?"


def test_german_separable_verbs_and_auxiliaries() -> None:
    window = the("window")
    assert say("de", "statement", Clause("close", ME, object=window)) == "Ich mache das Fenster zu."
    forgot = say("de", "forget", Clause("forget", ME, "past"), Clause("close", ME, object=window))
    assert forgot == "Ich habe vergessen, das Fenster zuzumachen."
    rose = Clause("get_up", ME, "past", time="at_seven_o'clock")
    assert say("de", "statement", rose) == "Ich bin um sieben Uhr aufgestanden."
    light = Clause("turn_off", YOU, "past", object=the("light"))
    assert say("de", "question", light) == "Hast du das Licht ausgeschaltet?"
    walk = Clause("walk", HE, "must", time="today")
    assert say("de", "statement", walk) == "Er muss heute spazieren gehen."


def test_german_cases_and_endings() -> None:
    dress = Clause("give", HE, "past", object=a("dress", "blue"), recipient=the("woman"))
    assert say("de", "statement", dress) == "Er hat der Frau ein blaues Kleid gegeben."
    children = Clause("help", ME, object=the("child", "", True), place="garden")
    assert say("de", "statement", children) == "Ich helfe den Kindern im Garten."
    tea = Clause("drink", NounPhrase("Anna"), negated=True, object=NounPhrase("tea", "", "hot"))
    assert say("de", "statement", tea) == "Anna trinkt keinen heißen Tee."
    neighbor = Clause("wait", the("boy"), object=NounPhrase("neighbor", "his"))
    assert say("de", "statement", neighbor) == "Der Junge wartet auf seinen Nachbarn."
    show = Clause("show", YOU, object=the("car", "old"), recipient=ME)
    assert say("de", "please", show) == "Zeig mir bitte das alte Auto."
    coat = Clause("buy", WE, object=a("coat", "expensive"))
    assert say("de", "statement", coat) == "Wir kaufen einen teuren Mantel."
    dear = Clause("be", NounPhrase("car", "this"), adjective="expensive", than=the("bike"))
    assert say("de", "statement", dear) == "Dieses Auto ist teurer als das Fahrrad."
    talk = Clause("talk", SHE, object=NounPhrase("friend", "her", plural=True))
    assert say("de", "statement", talk) == "Sie spricht mit ihren Freunden."


# Korean


def closed(word: str) -> bool:
    """Whether the last syllable has a final consonant: decomposed, it then has three letters."""
    return len(unicodedata.normalize("NFD", word[-1])) == 3


def test_korean_particles_follow_the_last_sound() -> None:
    """은, 이, 을 and 과 come after a consonant, 는, 가, 를 and 와 after a vowel, and ㄹ counts as a vowel before 로."""
    nouns = sorted({noun[5] for noun in NOUNS if noun[5]} | {name[1] for name in PHRASES["names"]["korean"]})
    expression = re.compile(rf"(?<!\S)({'|'.join(nouns)}|저|우리)(들)?(은|는|이|가|을|를|과|와|으로|로)(?=[ .])")
    found: collections.Counter[str] = collections.Counter()
    for row in ROWS:
        target = row["translation"].get("ko", "")
        for noun, several, particle in expression.findall(target):
            found[particle] += 1
            ends = closed(several or noun)
            if particle in ("으로", "로"):
                ends = ends and not unicodedata.normalize("NFD", noun).endswith("\u11af")
                assert ends == (particle == "으로"), target
            else:
                assert ends == (particle in "은이을과"), target
        assert not re.search(r"(?<!\S)저가 ", target), target
    assert all(found[particle] >= 3 for particle in "은는이가을를과와")


def test_korean_sentences_end_with_a_polite_verb() -> None:
    targets = [row["translation"]["ko"] for row in ROWS if row["domain"] == "korean"]
    assert all(re.search("요[.?]$", target) for target in targets)
    # Elders and guests are spoken of with respect, oneself never is.
    respected = "어머니|아버지|할머니|할아버지|부모님|선생님|사장님"
    for target in targets:
        if re.match(rf"(?:우리 )?(?:{respected})(?:은|는) ", target):
            assert re.search("시|실|세|셔|셨|계|주무|드", target), target
        if re.match("(?:저|우리)는 ", target) and not re.search("지만|때문|서 |동안|주세요|께", target):
            assert not re.search("(?:세요|(?<!마)셨어요)[.]$", target), target


def test_korean_verb_endings() -> None:
    apples = Clause("buy", ME, "past", object=NounPhrase("apple", "two", "red", True), time="yesterday", place="market")
    assert say("ko", "statement", apples) == "저는 어제 시장에서 빨간 사과 두 개를 샀어요."
    hot = Clause("be", IT, adjective="hot")
    swim = Clause("swim", WE, "will", place="in_lake")
    assert say("ko", "if", swim, hot) == "날씨가 더우면 우리는 호수에서 수영할 거예요."
    assert (
        say("ko", "because", Clause("close", ME, "past", object=the("window")), RAIN)
        == "비가 와서 저는 창문을 닫았어요."
    )
    sick = Clause("be", MINSU, adjective="sick")
    assert say("ko", "because", Clause("stay", HE, place="home"), sick, reversed=True) == "민수는 아파서 집에 있어요."
    eat = Clause("eat", MINSU, "progressive", object=NounPhrase("bread"))
    assert say("ko", "that", Clause("say", YUNA), eat) == "유나는 민수가 빵을 먹고 있다고 말해요."
    live = Clause("live", MINSU, place="Busan")
    assert say("ko", "that", Clause("think", YUNA), live) == "유나는 민수가 부산에 산다고 생각해요."
    music = Clause("listen_music", YUNA, "past", object=NounPhrase("music"))
    assert say("ko", "before", music, Clause("sleep", SHE, "past")) == "유나는 자기 전에 음악을 들었어요."
    work = Clause("work", MAN, place="bakery")
    assert say("ko", "relative", Clause("be", MAN, complement=UNCLE), work) == "빵집에서 일하는 남자는 우리 삼촌이에요."
    time = Clause("have", ME, object=NounPhrase("time", "no"), time="today")
    assert say("ko", "time", time, Clause("wash", ME, object=the("plate"))) == "저는 오늘 접시를 씻을 시간이 없어요."
    heavy = Clause("be", NounPhrase("bag", "this"), adjective="heavy", than=the("table"))
    assert say("ko", "statement", heavy) == "이 가방은 식탁보다 더 무거워요."
    assert say("ko", "statement", Clause("travel", MINSU, "past", toward="Seoul")) == "민수는 서울로 여행을 갔어요."
    assert say("ko", "please", Clause("open", YOU, object=the("door"))) == "문을 열어 주세요."


def test_korean_respect() -> None:
    asleep = Clause("sleep", GRANDMOTHER, "progressive", place="room")
    assert say("ko", "statement", asleep) == "우리 할머니는 방에서 주무시고 계세요."
    cook, play = Clause("cook", MOTHER, "progressive"), Clause("play", YUNA, "progressive")
    assert say("ko", "while", cook, play) == "유나가 노는 동안 우리 어머니는 요리하고 계세요."
    assert say("ko", "while", play, cook) == "우리 어머니가 요리하시는 동안 유나는 놀고 있어요."
    flower = Clause("give", ME, "past", object=a("flower"), recipient=GRANDMOTHER)
    assert say("ko", "statement", flower) == "저는 우리 할머니께 꽃을 드렸어요."
    assert say("ko", "question", Clause("like", YOU, object=NounPhrase("coffee"))) == "커피를 좋아하세요?"
    tea = Clause("drink", MOTHER, "want", object=NounPhrase("tea"))
    assert say("ko", "statement", tea) == "우리 어머니는 차를 드시고 싶어 하세요."


# How far one comes without a model


def word_by_word(domain: str) -> list[str]:
    """Each word of the test sources by its likeliest target word (IBM model 1, Brown et al. 1993)."""

    train = [(words(source), re.findall(r"\w+", target)) for source, target in pairs(domain, "train")]
    likely = {(f, e): 1.0 for source, target in train for f in target for e in source}
    for _ in range(10):
        counts: collections.Counter[tuple[str, str]] = collections.Counter()
        totals: collections.Counter[str] = collections.Counter()
        for source, target in train:
            for f in target:
                total = sum(likely[f, e] for e in source)
                for e in source:
                    counts[f, e] += likely[f, e] / total
                    totals[e] += likely[f, e] / total
        likely = {(f, e): count / totals[e] for (f, e), count in counts.items()}
    best: dict[str, tuple[float, str]] = {}
    for (f, e), probability in likely.items():
        best[e] = max(best.get(e, (0.0, "")), (probability, f))
    said = [" ".join(best[word][1] for word in words(source)) for source, _ in pairs(domain, "test")]
    return [
        text[0].upper() + text[1:] + source[-1] for text, (source, _) in zip(said, pairs(domain, "test"), strict=True)
    ]


def closest(domain: str) -> list[str]:
    """The translations of the train sentences that share the most words with the test sources."""
    train = [(set(words(source)), target) for source, target in pairs(domain, "train")]
    found = []
    for source, _ in pairs(domain, "test"):
        mine = set(words(source))
        found.append(max(train, key=lambda pair: len(mine & pair[0]) / len(mine | pair[0]))[1])
    return found


LIMITS = {"world": {"copy": 3, "words": 30, "closest": 30}, "korean": {"copy": 3, "words": 20, "closest": 25}}


@pytest.mark.parametrize("domain", DOMAINS)
def test_translating_without_a_model_does_not_work(domain: str) -> None:
    sources, targets = zip(*pairs(domain, "test"), strict=True)
    guesses = {"copy": list(sources), "words": word_by_word(domain), "closest": closest(domain)}
    for name, guess in guesses.items():
        score = sacrebleu.corpus_bleu(guess, [list(targets)]).score
        print(f"{domain}: {name}: {score:.1f}")
        assert score < LIMITS[domain][name], name
