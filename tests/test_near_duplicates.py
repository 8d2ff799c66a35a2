"""Near-duplicates against all pairs by brute force, and what is said of them."""

import random

import pytest
from datasets import Dataset

from tl_hub import overlap, overview, samples
from tl_hub.data import Data, Split
from tl_hub.near_duplicates import READ, near, shingles
from tl_hub.tasks.classification import Classification


def by_brute_force(trained: list[list[str]], measured: list[list[str]]) -> list[bool]:
    """Each text of a row against that of each training row, in words that a plain reading gives."""

    def runs(text: str) -> set[str]:
        words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
        return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}

    def alike(one: str, other: str) -> bool:
        a, b = runs(one), runs(other)
        return 5 * len(a & b) >= 4 * len(a | b)

    return [any(all(map(alike, row, other)) for other in trained) for row in measured]


def changed(text: str, chance: random.Random) -> str:
    """The text with words replaced, left out and added, in other case and with other punctuation."""
    words = text.split()
    for _ in range(chance.randint(0, 2)):
        words[chance.randrange(len(words))] = chance.choice(["", "new", words[0]])
    text = " ".join(words)
    return text.upper() if chance.random() < 0.3 else f"{text} !!" if chance.random() < 0.5 else text


def test_all_near_duplicates_are_found_and_no_others():
    """Planted ones, some nearer than others, among texts that are merely similar."""
    chance = random.Random(0)
    names, things = [f"name{i}" for i in range(9)], [f"thing{i}" for i in range(9)]
    texts = [
        f"{chance.choice(names)} went to the {chance.choice(things)} and bought a {chance.choice(things)} "
        + " ".join(chance.choice(names + things) for _ in range(chance.randint(0, 25)))
        for _ in range(300)
    ]
    trained, measured = texts[:200], texts[200:] + [changed(text, chance) for text in texts[:100]]
    measured += ["", "?", "one", "one two", "ONE, two"]
    trained += ["one two", "!"]
    found = near([[text] for text in trained], [[text] for text in measured]).tolist()
    expected = by_brute_force([[text] for text in trained], [[text] for text in measured])
    words = [any(map(str.isalnum, text)) for text in measured]  # what has no word is near to nothing but itself
    assert [f for f, word in zip(found, words, strict=True) if word] == [
        e for e, word in zip(expected, words, strict=True) if word
    ]
    assert not any(found[-5:-3]) and found[-2:] == [True, True] and not found[-3]
    assert 30 < sum(found) < 100, "some of those planted are near, some are not"


def test_a_pair_is_near_if_both_texts_are():
    paragraph = "The Danube ends in the Black Sea, which is far from where it begins, in the Black Forest."
    asked = [["Where does the Danube end?", paragraph], ["where does the danube end", paragraph.upper()]]
    other = [["Where does the Danube begin?", paragraph], ["Where does the Danube end?", "It ends elsewhere."]]
    assert near(asked[:1], [*asked, *other]).tolist() == by_brute_force(asked[:1], [*asked, *other])
    assert near(asked[:1], [*asked, *other]).tolist() == [True, True, False, False]


def test_words_of_scripts_without_blanks_are_characters():
    assert len(shingles("今日は良い天気")) == 5 and shingles("Good, soup") == {hash(("good", "soup"))}
    long = "今日は良い天気なので、公園へ散歩に行きました。"
    other = "昨日は悪い天気だったので、家で本を読みました。"
    assert near([[long]], [[long.replace("、", "")], [other]]).tolist() == [True, False]


def test_of_long_texts_the_beginning_is_compared():
    words = [f"word{i}" for i in range(2 * READ)]
    begun = [[" ".join([*words[:length], "and", "so", "on"])] for length in (READ, READ // 2)]
    assert near([[" ".join(words)]], begun).tolist() == [True, False]


@pytest.mark.parametrize("name", ["sentiment", "documents", "translation", "text", "summarization"])
def test_the_embedded_samples_are_similar_and_not_near(name):
    """Grammars wrote them, so that all are alike; a word in another place is no copy."""
    rows = samples.load(name)
    text = {name: [[str(row.get("text") or row["translation"]["en"])] for row in part] for name, part in rows.items()}
    assert not near(text["train"], text["validation"]).any() and not near(text["train"], text["test"]).any()


def test_counts_are_of_rows_that_are_no_exact_copies_and_stand_on_the_screen(monkeypatch):
    text = "the soup was rather good and the bread was warm as it should be"
    parts = {
        "train": [text, "nothing of that kind was here before"],
        "validation": [text, f"{text}!", "quite another text"],
        "test": [text.title()] * 2,
    }
    splits = {
        name: Split(Dataset.from_list([{"text": each, "label": "a"} for each in texts]))
        for name, texts in parts.items()
    }
    task, rows = Classification(), Data(splits, "x", "local")
    overlap.count(rows, task)
    assert rows.overlaps == {"train": 0, "validation": 1, "test": 0}
    assert rows.near_duplicates == {"validation": 1, "test": 2} and not rows.notes
    for split in splits.values():
        split.encoded = Dataset.from_dict({"length": [3] * len(split.rows)})
    assert overview.facts(rows, task)["nearly_in_training"] == {"validation": 1, "test": 2}
    monkeypatch.setattr(overlap, "MOST_TRAINED", 1)
    few = Data(splits, "x", "local")
    overlap.count(few, task)
    assert few.notes[0].endswith(
        "3 of the 3 rows of the validation split and 1 of the 2 training rows, drawn at random."
    )
    assert few.overlaps == rows.overlaps, "exact copies are always looked for in all rows"
