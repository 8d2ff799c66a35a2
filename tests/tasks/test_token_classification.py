"""Tags, windows, repaired rows and figures of entities against seqeval, stock libraries and brute force."""

import dataclasses
import gzip
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import transformers
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from seqeval.scheme import IOB2, IOBES, Entities

import tl_hub
from tests.families import ONE_OF_EACH
from tl_hub import card, data, evaluation, metrics, samples
from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import RunRecord
from tl_hub.tasks.base import Score
from tl_hub.tasks.sequence_to_sequence import Summarization
from tl_hub.tasks.token_classification import TokenClassification, entities
from tl_hub.vectors import extract

ROOT = Path(__file__).parent.parent.parent
TAGS = ["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("person", "place"))]
tag_rows = st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=8), min_size=1, max_size=6)


@hypothesis.given(tag_rows, st.data())
def test_figures_are_those_of_seqeval(expected, draw):
    """Of any tags, valid or not: of all entities, and of each type."""
    predicted = [draw.draw(st.lists(st.sampled_from(TAGS), min_size=len(t), max_size=len(t))) for t in expected]
    for tags in expected + predicted:
        assert entities.entities_of(tags) == [(kind, start, last + 1) for kind, start, last in get_entities(tags)]
    found = [[entities.entities_of(tags) for tags in rows] for rows in (expected, predicted)]
    counts = entities.compared(*found, ["person", "place"]).sum(0)
    ours = entities.figures(counts)
    total = entities.figures(counts.sum(0))
    there = sorted({kind for rows in found for row in rows for kind, _, _ in row})
    if there:
        every = precision_recall_fscore_support(expected, predicted, average="micro", zero_division=0)[:3]
        assert [total[name] / 100 for name in ("precision", "recall", "f1")] == pytest.approx(list(map(float, every)))
        each = precision_recall_fscore_support(expected, predicted, average=None, zero_division=0)[:3]
        places = [("person", "place").index(kind) for kind in there]
        for name, values in zip(("precision", "recall", "f1"), each, strict=True):
            assert ours[name][places] / 100 == pytest.approx(values)


@hypothesis.given(st.lists(st.sampled_from(TAGS), min_size=1, max_size=8))
def test_repaired_tags_are_valid_and_tell_the_same_entities(tags):
    """Judged by seqeval's strict reading, which takes no tag that its scheme does not allow."""
    found = entities.entities_of(tags)
    for scheme, strict in ((entities.BIO, IOB2), (entities.BIOES, IOBES)):
        repaired = entities.tags_of(found, len(tags), scheme)
        assert entities.entities_of(repaired) == found
        assert [each.to_tuple()[1:] for each in Entities([repaired], strict).entities[0]] == found
        assert entities.tags_of(entities.entities_of(repaired), len(tags), scheme) == repaired, "valid tags stay"


def test_intervals_are_those_of_drawing_sentences():
    random = np.random.default_rng(0)
    wanted, found = random.integers(0, 4, (2, 200))
    counts = np.stack([np.minimum(wanted, found) * random.integers(0, 2, 200), found, wanted], axis=1)
    ours = entities.intervals(counts)
    by_rows = {
        "f1": (2 * counts[:, 0], found + wanted),
        "precision": (counts[:, 0], found),
        "recall": (counts[:, 0], wanted),
    }
    for name, (right, sizes) in by_rows.items():
        drawn = random.integers(200, size=(2000, 200))
        error = np.std(right[drawn].sum(1) / sizes[drawn].sum(1))
        expected = metrics.interval_by_error(right.sum() / sizes.sum(), error, 200)
        assert ours[name] == pytest.approx([100 * end for end in expected], abs=0.5), name
    assert entities.intervals(np.zeros((3, 3), dtype=int))["f1"] == (0.0, 100.0), "nothing found, nothing there"
    two_found = entities.intervals(np.repeat([[1, 1, 1], [0, 0, 0]], [2, 90], axis=0))
    assert two_found["f1"][0] < 60, "two entities say little, however many sentences have none"


@pytest.mark.slow
@pytest.mark.parametrize("rows", [20, 50, 350])
@pytest.mark.parametrize("chance", [0.5, 0.8, 0.95, 0.98])
def test_95_of_100_intervals_hold_the_true_figure(rows, chance):
    """Entities of a sentence succeed or fail together. The middle of the draws holds 40 at 20 rows and 98 %."""
    random, repetitions = np.random.default_rng(1), 400

    def drawn(count):
        wanted = random.poisson(1.5, count)
        right = random.binomial(wanted, random.beta(8 * chance, 8 * (1 - chance), count))
        found = right + random.binomial(wanted - right, 0.6) + random.poisson(0.15 * (1 - chance), count)
        return np.stack([right, found, wanted], axis=1)

    true = entities.figures(drawn(1_000_000).sum(0))
    holds = dict.fromkeys(true, 0)
    for _ in range(repetitions):
        for name, (low, high) in entities.intervals(drawn(rows), resamples=300).items():
            holds[name] += low <= true[name] <= high
    sampling = 2 * np.sqrt(0.95 * 0.05 / repetitions)
    for name, count in holds.items():
        assert 0.92 - sampling <= count / repetitions <= 0.98 + sampling, (name, count / repetitions)


RAW = {
    "Ann's boat (U.S.), 3.5%.": ["Ann", "'s", "boat", "(", "U.S.", ")", ",", "3.5", "%", "."],
    '"Don’t go," said O\'Brien.': ['"', "Do", "n’t", "go", ",", '"', "said", "O'Brien", "."],
    "Paris-based Köln …": ["Paris-based", "Köln", "…"],
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *RAW.items(),
        ("東京のAnn。", ["東", "京", "の", "Ann", "。"]),
        ("Paris-based हिंदी …", ["Paris-based", "हिंदी", "…"]),
    ],
)
def test_words_of_a_raw_text(text, words):
    starts, ends = entities.words_of(text)
    assert [text[start:end] for start, end in zip(starts, ends, strict=True)] == words


def test_words_of_what_was_joined_are_the_same():
    """A model is asked about raw texts as it was trained on joined ones."""
    for row in samples.load("ner")["test"]:
        text, starts, ends = entities.joined(row["tokens"])
        assert [text[start:end] for start, end in zip(starts, ends, strict=True)] == row["tokens"]
        assert entities.words_of(text) == (starts, ends)
    assert entities.joined(["It", "is", "Ann", "'s", "(", "new", ")", "boat", "."])[0] == "It is Ann's (new) boat."


CONLL = "-DOCSTART- -X- O\n\nAnn NNP B-person\nLee NNP I-person\nleft VBD O\n\n\nBonn NNP I-place\n"


def loaded(folder: Path, name: str, content: bytes, task: Any = None, **settings: Any) -> Dataset:
    (folder / name).write_bytes(content)
    run = RunConfig(train_file=str(folder / name), validation_file=str(folder / name), **settings)
    return data.load(run, task or TokenClassification())[0].splits["train"].rows


def test_files_of_words_and_rows_of_lists_are_the_same(tmp_path):
    rows = [
        {"words": ["Ann", "Lee", "left"], "ner": ["B-person", "I-person", "O"]},
        {"words": ["Bonn"], "ner": ["I-place"]},
    ]
    by_rows = TokenClassification(tokens_column="words", tags_column="ner")
    expected = loaded(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode(), by_rows).to_list()
    assert [row["text"] for row in expected] == ["Ann Lee left", "Bonn"]
    assert [row["tags"] for row in expected] == [["B-person", "I-person", "O"], ["B-place"]]
    assert [row["repaired"] for row in expected] == [0, 1]
    for name, content in {
        "a.conll": CONLL.encode(),
        "a.txt": CONLL.replace("\n", "\r\n").encode("utf-8-sig"),
        "a.conll.gz": gzip.compress(CONLL.replace(" ", "\t").encode()),
        "b.conll": CONLL.encode("utf-16"),
        "a.csv": b'words,ner\n"[""Ann"", ""Lee"", ""left""]","[""B-person"", ""I-person"", ""O""]"\n'
        b'"[""Bonn""]","[""I-place""]"\n',
    }.items():
        task = by_rows if name == "a.csv" else None
        assert loaded(tmp_path, name, content, task).to_list() == expected, name
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "train.conll").write_text(CONLL)
    (tmp_path / "rows" / "test.conll").write_text(CONLL)
    split, _ = data.load(
        RunConfig(dataset=str(tmp_path / "rows"), validation_rows=1), TokenClassification(), training=False
    )
    assert split.splits["test"].rows.to_list() == expected


def test_numbers_are_named_by_the_data_set_or_by_a_flag():
    names = ["O", "B-person", "I-person"]
    numbered = {"tokens": [["Ann", "Lee", " ", "left"], ["He"]], "tags": [[1, 2, 2, 0], [0]]}
    features = Features({"tokens": List(Value("string")), "tags": List(ClassLabel(names=names))})
    named = TokenClassification().check(Dataset.from_dict(numbered, features=features)).to_list()
    assert named[0]["tags"] == ["B-person", "I-person", "O"] and named[0]["blank"] == 1
    by_flag = TokenClassification(tag_names=",".join(names)).check(Dataset.from_dict(numbered))
    assert by_flag.to_list() == named
    numbered["tags"] = [[-1] * 4, [-1]]
    assert len(TokenClassification().check(Dataset.from_dict(numbered, features=features))) == 0, "hidden answers"


def rows_of(*tags: list[Any]) -> Dataset:
    return Dataset.from_list([{"tokens": [f"w{i}" for i in range(len(each))], "tags": each} for each in tags])


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (rows_of(["O"], ["B-a", "PER"]), "row 1: tags: 'PER' is no tag; there are O and"),
        (rows_of(["U-a"]), "of BILOU, write E- for L- and S- for U-"),
        (rows_of(["B-"]), "'B-' is no tag"),
        (rows_of(["b-a"]), "'b-a' is no tag"),
        (rows_of([3]), "row 0: tags holds numbers; name the tags in their order with --tag_names"),
        (Dataset.from_list([{"tokens": ["a", "b"], "tags": ["O"]}]), "row 0: 2 words and 1 tags"),
        (Dataset.from_list([{"tokens": "Ann left", "tags": ["O"]}]), "row 0: tokens is 'Ann left'; it must be a list"),
        (Dataset.from_list([{"tokens": [], "tags": []}]), "none of the 1 rows has words in tokens"),
        (Dataset.from_list([{"words": ["a"], "tags": ["O"]}]), "name the right one with --tokens_column"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(rows, says):
    with pytest.raises(UserError) as refused:
        TokenClassification().check(rows)
    assert says in str(refused.value)


def test_types_that_cannot_be_learned_are_refused():
    task = TokenClassification()
    train, other = (task.check(rows_of(tags)) for tags in (["B-a", "O"], ["B-b", "O"]))
    with pytest.raises(UserError, match="the test rows have entities of type b, which no training row has"):
        task = task.learn({"train": train, "test": other})
    with pytest.raises(UserError, match="no word of the 1 training rows is tagged as an entity"):
        task = task.learn({"train": task.check(rows_of(["O"]))})
    with pytest.raises(UserError, match="--tag_names O,PER: 'PER' is no tag"):
        TokenClassification(tag_names="O,PER")


def test_broken_files_are_refused_by_line(tmp_path):
    with pytest.raises(UserError, match="line 3 has 3 cells; it must have 2, as the first one has"):
        loaded(tmp_path, "a.conll", b"Ann B-a\nleft O\nBonn NNP B-b\n")
    with pytest.raises(UserError, match="line 1 has 1 cell; it must have a word and, last, its tag"):
        loaded(tmp_path, "a.conll", b"Ann\n")
    with pytest.raises(UserError, match="files of kind .conll are not read; allowed are .json"):
        loaded(tmp_path, "a.conll", b"Ann B-a\n", Summarization())


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_each_word_is_tagged_once_where_it_has_most_context(family, checkpoints):
    model, tokenizer = checkpoints(family, "AutoModelForTokenClassification")
    words = [
        ["Ann", "'s", "boats", "(", "도나우", ")", ",", "3.5", "miles", "from", "Wiesbaden", "."],
        ["Bonn", "."] * 45,
    ]
    tags = [["B-person", *"O" * 3, "B-river", *"O" * 5, "B-place", "O"], ["B-place", "O"] * 45]
    task = TokenClassification(max_length=32, doc_stride=12)
    rows = task.check(Dataset.from_dict({"tokens": words, "tags": tags}))
    task = task.learn({"train": rows})
    task.adapt(tokenizer, model)
    features = task.encode(rows, tokenizer, model).to_list()
    assert len(features) > 4 and all(len(each["input_ids"]) <= 32 for each in features)
    for row, text, starts, ends in zip(range(2), rows["text"], rows["start"], rows["end"], strict=True):
        whole = tokenizer(text, return_offsets_mapping=True)
        special = [i for i, part in enumerate(whole.sequence_ids()) if part is None]
        ids = [i for place, i in enumerate(whole["input_ids"]) if place not in special]
        offsets = [o for place, o in enumerate(whole["offset_mapping"]) if place not in special]
        first = [
            min(i for i, (a, b) in enumerate(offsets) if b > s and a < e) for s, e in zip(starts, ends, strict=True)
        ]
        mine = [each for each in features if each["row"] == row]
        # A window holds `step` tokens more than the one before: where each stands in the text is known by counting.
        room = 32 - (len(whole["input_ids"]) - len(ids))
        begins = [i * (room - 12) for i in range(len(mine))]
        tagged = {}
        for number, each in enumerate(mine):
            shift = next(i for i in range(32) if each["input_ids"][i : i + 4] == ids[begins[number] :][:4])
            for word, place in zip(each["words"], each["places"], strict=True):
                assert word not in tagged, "once"
                tagged[word] = number, place - shift + begins[number]
                if first.index(first[word]) == word:  # of words that share a token, the first one's tag is learned
                    assert task.labels[each["labels"][place]] == rows["tags"][row][word]
            untagged = set(range(each["length"])) - set(each["places"])
            assert {each["labels"][place] for place in untagged} <= {-100}
        assert {word: place for word, (_, place) in tagged.items()} == dict(enumerate(first))
        for number, place in tagged.values():
            context = [
                min(place - begin, min(begin + room, len(ids)) - 1 - place)
                for begin in begins
                if begin <= place < min(begin + room, len(ids))
            ]
            begin = begins[number]
            assert min(place - begin, min(begin + room, len(ids)) - 1 - place) == max(context)


@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_all_tokens_of_a_word_go_on_with_its_entity(family, checkpoints):
    """So that stock calls that group tokens find the whole entities: this grouping is that of the labels themselves."""
    model, tokenizer = checkpoints(family, "AutoModelForTokenClassification")
    row = {"tokens": ["Wiesbaden", "thanked", "Anna", "Lee", "."], "tags": ["B-a", "O", "B-b", "I-b", "O"]}
    for tags in (row["tags"], ["S-a", "O", "B-b", "E-b", "O"]):
        task = TokenClassification(tag_tokens="all")
        rows = task.check(Dataset.from_list([row | {"tags": tags}]))
        task = task.learn({"train": rows})
        task.adapt(tokenizer, model)
        (feature,) = task.encode(rows, tokenizer, model).to_list()
        whole = tokenizer(rows["text"][0], return_offsets_mapping=True)
        inside = [i for i, part in enumerate(whole.sequence_ids()) if part is not None]
        assert [label == -100 for label in feature["labels"]] == [i not in inside for i in range(feature["length"])]
        named = [task.labels[feature["labels"][i]] for i in inside]
        if tags[0] == "B-a":
            found = entities.entities_of(named)
            ends = [
                (whole["offset_mapping"][inside[a]][0], whole["offset_mapping"][inside[b - 1]][1]) for _, a, b in found
            ]
            assert [rows["text"][0][a:b].strip() for a, b in ends] == ["Wiesbaden", "Anna Lee"]
        assert {name for name in named if name.endswith("-a")} == (
            {"S-a", "E-a"} if tags[0] == "S-a" else {"B-a", "I-a"}
        )


def test_a_token_of_two_words_has_the_first_ones_tag(checkpoints):
    """As of tokenizers whose tokens reach over signs, such as "),"; here one whose token has two words told of it."""
    model, tokenizer = checkpoints("bert", "AutoModelForTokenClassification")
    word = max((piece for piece in tokenizer.get_vocab() if piece.isalpha()), key=len)
    task = TokenClassification()
    rows = task.check(Dataset.from_list([{"tokens": [word, "town"], "tags": ["B-a", "B-b"]}]))
    task = task.learn({"train": rows})
    task.adapt(tokenizer, model)
    halves = Dataset.from_list([rows[0] | {"start": [0, 1], "end": [1, 2]}])  # both in the first token
    (feature,) = task.encode(halves, tokenizer, model).to_list()
    assert feature["words"] == [0, 1] and feature["places"] == [1, 1] and feature["unread"] == 1
    assert [task.labels[i] for i in feature["labels"] if i != -100] == ["B-a"]


def test_notes_count_what_was_repaired_and_what_is_not_seen(checkpoints):
    model, tokenizer = checkpoints("bert", "AutoModelForTokenClassification")
    task = TokenClassification(max_length=32, doc_stride=8)
    rows = task.check(
        Dataset.from_list(
            [
                {"tokens": ["Ann", "Lee", "\u00a0", "left"], "tags": ["I-a", "I-b", "O", "O"]},
                {"tokens": ["Ann", "\u0301"], "tags": ["B-a", "O"]},
                {"tokens": ["Ann"] * 50, "tags": ["I-a"] * 50},
            ]
        )
    )
    task = task.learn({"train": rows})
    task.adapt(tokenizer, model)
    assert task.notes(task.encode(rows, tokenizer, model)) == [
        "overlapping windows were needed to read 1 of 3 sentences whole",
        "3 tags in 2 of 3 sentences did not follow BIO or BIOES and were repaired: a word that goes on with no entity "
        "begins one",
        "1 blank words were left out with their tags",
        "1 words have no token of their own, as those that the tokenizer drops or joins to the word before; they are "
        "tagged as that token is, or O",
    ]


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, model: Path) -> RunRecord:
    """A run of a few steps, measured on the rows it trains on; most words are entities, so that it finds some."""
    rows = [
        {"tokens": row["tokens"], "tags": ["B-thing" if tag == "O" else tag for tag in row["tags"]]}
        for row in samples.load("ner")["train"][:24]
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text(content)
    given = ["--model", str(model), *(f"--{split}_file={folder / split}.jsonl" for split in ("train", "validation"))]
    given += "--batch_size 6 --max_length 32 --doc_stride 8 --epochs 3 --learning_rate 5e-3 --precision fp32".split()
    monkeypatch.setattr(sys, "argv", [f"{recipe}.py", *given, "--output_dir", str(folder / "run")])
    runpy.run_path(str(ROOT / "recipes" / f"{recipe}.py"))["main"]()
    return RunRecord.load(folder / "run")


@pytest.mark.usefixtures("load_back_here")
@pytest.mark.parametrize(
    ("recipe", "family"), [*(("ner_finetune", family) for family in ONE_OF_EACH), ("ner_adapter", "roberta")]
)
def test_a_run_of_every_family(recipe, family, checkpoint_folders, monkeypatch, tmp_path):
    """What the pipelines find of the joined sentences is what was measured, in the places of the raw text."""
    record = trained(tmp_path, monkeypatch, recipe, checkpoint_folders(family))
    assert record.verification["max_difference"] <= 1e-5 and record.task == "token-classification"
    assert [row["entity"] for row in record.tables["Entities"]] == ["organization", "person", "place", "thing"]
    assert record.metrics[0].name == "f1" and record.metrics[0].low <= record.metrics[0].value <= record.metrics[0].high
    measured = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    ask = tl_hub.pipeline(tmp_path / "run")
    texts = [row["text"] for row in measured]
    answers = ask(texts, batch_size=5)
    for row, answer in zip(measured, answers, strict=True):
        assert [f"{found['text']} ({found['label']})" for found in answer] == row["predicted"]
        assert all(row["text"][found["start"] : found["end"]] == found["text"] for found in answer)
        assert all(0 < found["score"] <= 1 for found in answer)
    found = sum(len(row["predicted"]) for row in measured)
    assert found, "some entity, or this says nothing"
    alone = ask(texts[3])
    assert [(each["start"], each["label"]) for each in alone] == [(each["start"], each["label"]) for each in answers[3]]
    whole = [i for i, text in enumerate(texts) if len(ask.tokenizer(text)["input_ids"]) <= 32]
    assert sum(bool(answers[i]) for i in whole) > 3
    for i in whole:
        namespace = {"model": ask.model, "tokenizer": ask.tokenizer}
        exec(
            card.call_snippet(dataclasses.replace(record, examples=[{"text": texts[i]}], verification=None)), namespace
        )
        assert namespace["result"] == [[found["label"], found["text"]] for found in answers[i]]
    if not ARCHITECTURES[family].word_pieces:
        for text in [entities.joined(row["tokens"])[0] for row in samples.load("ner")["test"]] + list(RAW):
            found = [word.span() for word in namespace["words"].finditer(text)]
            assert found == list(zip(*entities.words_of(text), strict=True))
    if recipe == "ner_finetune":
        stock = transformers.pipeline("token-classification", str(tmp_path / "run"), aggregation_strategy="simple")
        assert any(map(stock, texts))
        report = evaluation.remeasure(
            tmp_path / "run",
            train_file=str(tmp_path / "train.jsonl"),
            validation_file=str(tmp_path / "validation.jsonl"),
        )
        assert report["same_rows"] and all(line["holds"] for line in report["metrics"])
        assert {line["name"] for line in report["metrics"]} == {"f1", "precision", "recall", "exact_match"}


@pytest.mark.usefixtures("load_back_here")
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_head_alone_is_trained_on_kept_vectors(family, checkpoint_folders, monkeypatch, tmp_path):
    """The whole model, cut off above the layer that was chosen, has the figures that were measured on the vectors."""
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    record = trained(tmp_path, monkeypatch, "ner_features", checkpoint_folders(family))
    assert record.kind == "feature-extraction" and record.verification["max_difference"] <= 1e-5
    (title,) = (title for title in record.tables if title.startswith("Quality by layer: F1 on held-out training texts"))
    best = max(record.tables[title], key=lambda line: line["F1"])["layer"]
    assert f"(chosen: layer {best})" in title
    model = tl_hub.pipeline(tmp_path / "run").model
    assert model.config.num_hidden_layers == int(best) == len(extract.stack_of(model).get_submodule(BLOCKS[family]))
    rows = {f"{split}_file": str(tmp_path / f"{split}.jsonl") for split in ("train", "validation")}
    report = evaluation.remeasure(tmp_path / "run", **rows)
    assert all(line["found"] == pytest.approx(line["claimed"], abs=2) for line in report["metrics"])


BLOCKS = {family: entry.blocks for family, entry in ARCHITECTURES.items()}


def test_the_baseline_gives_each_word_the_tag_it_has_most_often(tmp_path):
    """Worked by hand: Paris is a place in two of three rows, Hilton a person; what is not known is nothing."""
    sentence = {"tokens": ["Paris", "sleeps"], "tags": ["B-place", "O"]}
    train = [sentence, sentence, {"tokens": ["Paris", "Hilton"], "tags": ["B-person", "I-person"]}]
    asked = [
        {"tokens": ["Paris", "wakes"], "tags": ["B-place", "O"]},
        {"tokens": ["Paris"], "tags": ["B-place"]},
        {"tokens": ["Hilton", "Paris"], "tags": ["B-person", "B-person"]},
        {"tokens": ["Rome"], "tags": ["B-place"]},
    ]
    task = TokenClassification()
    rows = task.check(Dataset.from_list(train))
    task = task.learn({"train": rows})
    score = Score({name: np.array(50.0) for name in ("f1", "precision", "recall")})
    task.report(score, task.check(Dataset.from_list(asked)), None, None, folder=tmp_path, seed=0)
    model, words = score.tables["Baselines"]
    assert model == {"system": "this model", "F1": 50.0, "precision": 50.0, "recall": 50.0}
    right, found, wanted = 3, 4, 5  # both places and Hilton; Paris as a place where it is a person; Rome
    assert words["precision"] == 100 * right / found and words["recall"] == 100 * right / wanted
    assert words["F1"] == pytest.approx(200 * right / (found + wanted))


def test_rows_of_others_are_measured_by_the_models_types():
    task = TokenClassification()
    labels = ["O", "B-person", "I-person"]
    task = task.recall(transformers.BertConfig(id2label=dict(enumerate(labels))), {}, {"PER": "person"})
    rows = task.check(rows_of(["B-PER", "I-PER", "O"], ["O"]))
    task = task.learn({"train": rows})
    assert rows["tags"][0] == ["B-person", "I-person", "O"] and task.labels == labels
    task = dataclasses.replace(task)
    task = task.recall(transformers.BertConfig(id2label=dict(enumerate(labels))), {})
    with pytest.raises(UserError, match="entities of type PER, the model finds person; name the model's type with"):
        task = task.learn({"test": task.check(rows_of(["B-PER"]))})
    with pytest.raises(UserError, match="--label_map PER=human: the model's entities are person"):
        task = task.recall(transformers.BertConfig(id2label=dict(enumerate(labels))), {}, {"PER": "human"})
    with pytest.raises(UserError, match="the model's labels: 'LABEL_0' is no tag"):
        task = task.recall(transformers.BertConfig(), {})
