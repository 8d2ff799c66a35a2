"""Rows come in as the user wrote them from any kind of file, or not at all, with the place that is wrong."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from tl_hub import data, overlap
from tl_hub.config import RunConfig
from tl_hub.data import Data, Split
from tl_hub.errors import UserError
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.question_answering import QuestionAnswering

KINDS = (
    "rows.json",
    "pretty.json",
    "rows.jsonl",
    "rows.JSONL",
    "rows.jsonl.gz",
    "rows.csv",
    "rows.csv.gz",
    "r.parquet",
)


def row(question: str, context: str, answer: str = "") -> dict[str, Any]:
    found = {"text": [answer], "answer_start": [context.index(answer)]} if answer else {"text": [], "answer_start": []}
    return {"question": question, "context": context, "answers": found}


# Texts that libraries take for something else: dates, numbers, missing values, ends of lines and of cells.
ODD = [
    row("2020-01-02", "2020-01-02", "2020-01-02"),
    row("007", "007 is a number to a careless reader.", "007"),
    row("NA", "null", "null"),
    row("nan", "None"),
    row('Which "quoted", word?', 'It is a "quoted", word;\nwith a second line.', '"quoted"'),
    row("흑해는 어디에 있는가?", "도나우 강은 삼각주에서 흑해로 흘러든다. 🙂\u2028\x85end", "흑해"),
    row("{", "[1, 2]", "1"),
    row("Which line is second?", "A first line\r\nand a second, after\ra lone return.", "second"),
    row("Where does a long text end?", "so on, " * 30_000 + "here.", "here"),
]
ROWS = ODD + [row(f"What is number {i}?", f"Number {i} is called n{i}.", f"n{i}") for i in range(11)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A data file of the kind its name says."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1 if "pretty" in path.name else None), encoding="utf-8")
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ".csv" in path.suffixes:
        with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows({**row, "answers": json.dumps(row["answers"])} for row in rows)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines, encoding="utf-8")
    return path


def load(path: Path, **settings: Any) -> Data:
    return data.load(RunConfig(train_file=str(path), **settings), QuestionAnswering())[0]


def refused(path: Path, content: bytes | str | None = None, **settings: Any) -> str:
    """The message for a training file with this content."""
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as raised:
        load(path, **settings)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def questions(loaded: Data, split: str) -> list[str]:
    return list(loaded.splits[split].rows["question"])


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_gives_the_rows_as_written(tmp_path, name):
    same = write(tmp_path / "validation.jsonl", ROWS)
    loaded = load(write(tmp_path / name, ROWS), validation_file=str(same))
    assert loaded.splits["train"].rows.to_list() == ROWS
    assert data.fingerprint(loaded.splits["train"].rows) == data.fingerprint(loaded.splits["validation"].rows)


def test_the_fingerprint_sees_every_change(tmp_path):
    rows = Dataset.from_list(ROWS)
    swapped = [ROWS[1], ROWS[0], *ROWS[2:]]
    changed = [*ROWS[:-1], {**ROWS[-1], "question": ROWS[-1]["question"] + " "}]
    prints = {data.fingerprint(Dataset.from_list(r)) for r in (ROWS, swapped, changed, ROWS[:-1])}
    assert len(prints) == 4 and data.fingerprint(rows) in prints
    reordered = Dataset.from_list([dict(reversed(row.items())) for row in ROWS])
    assert data.fingerprint(reordered) == data.fingerprint(rows), "the order of columns is not part of the rows"


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b"\n\n"])
def test_byte_order_mark_and_empty_lines_are_no_rows(tmp_path, start):
    """Excel and Notepad write the mark."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(start + write(path, ROWS).read_bytes().replace(b"\n", b"\r\n\r\n"))
    assert len(load(path, validation_file=str(path)).splits["train"].rows) == len(ROWS)


@pytest.mark.parametrize("name", ["a[1].jsonl", "a*.jsonl", "h#a?.jsonl", "100%20.csv", "k=v.parquet"])
def test_a_file_name_is_no_pattern(tmp_path, name):
    write(tmp_path / "a1.jsonl", ROWS[:1])
    path = write(tmp_path / name, ROWS)
    assert len(load(path, validation_file=str(path)).splits["train"].rows) == len(ROWS)


def test_columns_the_task_does_not_read_may_hold_anything(tmp_path):
    rows = [
        {**row, "id": i if i % 2 else f"a{i}", **({"meta": {"by": i}} if i > 5 else {})} for i, row in enumerate(ROWS)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    loaded = load(path, validation_file=str(path))
    assert loaded.splits["train"].rows.to_list() == ROWS


def test_columns_that_the_first_row_lacks_are_read(tmp_path):
    """A reader that takes the columns from the first row would say that there is no column `answers`."""
    rows = [{name: row[name] for name in ("context", "question")} for row in ROWS[:1]]
    path = write(tmp_path / "rows.jsonl", rows + ROWS)
    assert "row 0: answers is None" in refused(path)


GOOD = [json.dumps(row) + "\n" for row in ROWS]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz"])
@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"question": \n', "is not JSON (Expecting value"),
        ("{'question': 1}\n", "is not JSON (Expecting property name"),
        ('{"a": 1}{"a": 2}\n', "is not JSON (Extra data"),
        ("question,context\n", "is not JSON"),
        (" 1\n", "is not a JSON object"),
        ('"text"\n', "is not a JSON object"),
        ("null\n", "is not a JSON object"),
    ],
)
@pytest.mark.parametrize("number", [1, 7, len(GOOD) + 1])
def test_a_broken_line_is_named(tmp_path, name, line, fault, number):
    text = "".join([*GOOD[: number - 1], line, *GOOD[number - 1 :]]).encode()
    message = refused(tmp_path / name, gzip.compress(text) if name.endswith(".gz") else text)
    assert f"{name} cannot be read: line {number} {fault}" in message


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.jsonl", b"[1, 2]\n", "line 1 is not a JSON object"),
        ("rows.json", b'[\n{"a": 1},\n{"a" 1}\n]', "line 3 is not JSON (Expecting ':' delimiter at column 6)"),
        ("rows.json", b'[{"a": 1}, 2]', "entry 2 is not a JSON object"),
        ("rows.json", b'[{"a": 1}', "line 1 is not JSON"),
        ("rows.jsonl", "Stra\xdfe".encode("latin-1"), "is not UTF-8 (byte 0xdf)"),
        ("rows.csv", "question\nStra\xdfe".encode("latin-1"), "is not UTF-8 (byte 0xdf)"),
        ("rows.jsonl.gz", b'{"question": 1}', "Not a gzipped file"),
        ("rows.jsonl.gz", gzip.compress("".join(GOOD).encode(), mtime=0)[:-20], "Compressed file ended before"),
        ("rows.jsonl.gz", gzip.compress(b"x" * 999, mtime=0)[:15] + b"\xff" * 20, "rror"),
        ("rows.jsonl", gzip.compress(b"{}", mtime=0), "is not UTF-8"),
        ("rows.csv", "question,context,answers\na,b,c\na,b\n", "line 3 has 2 cells, the first line 3"),
        ("rows.csv", "question,context,answers\na,b,c,d\n", "line 2 has 4 cells, the first line 3"),
        ("rows.csv", 'question,context,answers\na,b,"c\n\n', "is not CSV (unexpected end of data)"),
        ("rows.csv", "question,context,question\na,b,c\n", "two columns are named 'question'"),
        ("rows.parquet", b"PAR1 and so on", "Parquet magic bytes not found"),
        ("rows.jsonl", '{"a": 123456789012345678901234567890}\n', "rows.jsonl cannot be read"),
        ("rows.jsonl", '{"a": "\\ud800"}\n', "rows.jsonl cannot be read"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, says):
    message = refused(tmp_path / name, content)
    assert f"{name} cannot be read: " in message and says in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", b""),
        ("rows.jsonl", b"\n \n"),
        ("rows.json", b"[]"),
        ("rows.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("rows.csv", b""),
        ("rows.csv", b"question,context,answers\n"),
    ],
)
def test_a_file_without_rows_is_refused(tmp_path, name, content):
    assert refused(tmp_path / name, content) == f"{tmp_path / name} is empty"


def test_a_parquet_file_without_rows_is_refused(tmp_path):
    pq.write_table(pa.table({"question": pa.array([], pa.string())}), tmp_path / "rows.parquet")
    assert "is empty" in refused(tmp_path / "rows.parquet")


def test_a_missing_file_is_named(tmp_path):
    assert refused(tmp_path / "none.jsonl") == f"{tmp_path / 'none.jsonl'}: no such file"
    (tmp_path / "folder.jsonl").mkdir()
    assert f"{tmp_path / 'folder.jsonl'} is a folder; give a file" in refused(tmp_path / "folder.jsonl")


@pytest.mark.parametrize(("name", "kind"), [("rows.txt", ".txt"), ("rows", "none"), ("rows.tar.gz", ".gz")])
def test_an_unknown_kind_of_file_names_the_known_ones(tmp_path, name, kind):
    message = refused(tmp_path / name, "x")
    assert f"files of kind {kind} are not read; allowed are .json, .jsonl, .csv, .tsv, .parquet" in message


def test_a_missing_column_names_those_there_and_the_flag(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"q": r["question"], "context": r["context"]} for r in ROWS])
    message = refused(path)
    for part in ("'question'", "q, context", "--question_column", "train rows of rows.jsonl"):
        assert part in message


def test_columns_of_another_name_are_read(tmp_path):
    rows = [{"Q": row["question"], "text": row["context"], "answers": row["answers"]} for row in ROWS]
    path = str(write(tmp_path / "rows.csv", rows))
    task = QuestionAnswering(question_column="Q", context_column="text")
    loaded, task = data.load(RunConfig(train_file=path, validation_file=path), task)
    assert loaded.splits["train"].rows.to_list() == ROWS


def test_the_message_says_in_which_split_a_row_is_wrong(tmp_path):
    good = write(tmp_path / "good.jsonl", ROWS)
    shifted = {**ROWS[-1], "answers": {"text": ["n10"], "answer_start": [3]}}
    bad = write(tmp_path / "bad.jsonl", [*ROWS, shifted])
    message = refused(good, validation_file=str(bad))
    assert message.startswith("validation rows of good.jsonl, bad.jsonl: 1 of 21 rows")
    assert f"row {len(ROWS)}: 'n10' is not at 3" in message


def test_rows_beyond_the_limit_are_checked_all_the_same(tmp_path):
    """A quick try with --train_rows 100 is to show what the whole run would stumble over."""
    shifted = {**ROWS[-1], "answers": {"text": ["n10"], "answer_start": [3]}}
    assert "row 20:" in refused(write(tmp_path / "rows.jsonl", [*ROWS, shifted]), train_rows=3)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
@pytest.mark.parametrize("answers", [None, "n1", {"text": ["n1"]}, {"text": ["n1"], "answer_start": ["0"]}, [1]])
def test_answers_of_another_form_are_refused(tmp_path, name, answers):
    message = refused(write(tmp_path / name, [{**ROWS[-1], "answers": answers}]))
    assert "row 0: answers is " in message and "{text: [...], answer_start: [...]}" in message


def from_folder(folder: Path) -> Data:
    return data.load(RunConfig(dataset=str(folder)), QuestionAnswering())[0]


def test_a_folder_of_splits_is_a_data_set(tmp_path):
    """Other files, such as a README, are left alone."""
    for name, rows in (("train.jsonl", ROWS), ("validation.csv", ROWS[:3]), ("test.parquet", ROWS[3:5])):
        write(tmp_path / name, rows)
    (tmp_path / "README.md").write_text("about")
    (tmp_path / "train.md").write_text("about")
    loaded = from_folder(tmp_path)
    assert {name: split.rows.to_list() for name, split in loaded.splits.items()} == {
        "train": ROWS,
        "validation": ROWS[:3],
        "test": ROWS[3:5],
    }
    assert list(loaded.splits) == list(data.SPLITS)
    assert (loaded.source, loaded.kind, loaded.final, loaded.held_out) == (tmp_path.name, "local", "test", False)


@pytest.mark.parametrize("held_out", [False, True])
def test_what_is_learned_in_encoding_comes_from_the_training_rows(tmp_path, checkpoints, held_out):
    """In whichever order a folder lists its files: here the length of the longest answer."""
    long = "the boat leaves at ten and the train at noon"
    answers = {"test": long, "train": "ten"} | ({} if held_out else {"validation": long})
    for name, answer in answers.items():
        write(tmp_path / f"{name}.jsonl", [row("When?", long, answer)] * 20)
    task = QuestionAnswering()
    loaded, task = data.load(RunConfig(dataset=str(tmp_path)), task)
    model, tokenizer = checkpoints("bert", "AutoModelForQuestionAnswering")
    data.encode(loaded, task, tokenizer, model)
    assert task.max_answer_length == len(tokenizer("ten", add_special_tokens=False)["input_ids"])


def test_a_folder_without_splits_is_refused(tmp_path):
    write(tmp_path / "rows.jsonl", ROWS)
    with pytest.raises(UserError, match="holds no file named train, validation or test"):
        from_folder(tmp_path)


def test_a_folder_with_two_files_for_a_split_is_refused(tmp_path):
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "train.csv", ROWS)
    with pytest.raises(UserError, match="holds train.csv and train.jsonl"):
        from_folder(tmp_path)


def test_a_folder_without_training_rows_is_refused(tmp_path):
    write(tmp_path / "test.jsonl", ROWS)
    with pytest.raises(UserError, match="has no train split; it has test"):
        from_folder(tmp_path)


def test_files_by_flag_keep_their_roles_and_only_their_names(tmp_path):
    """The source is published; where a file lies on somebody's machine is not."""
    paths = [str(write(tmp_path / f"{name}.jsonl", ROWS[: 3 + i])) for i, name in enumerate("abc")]
    loaded = load(Path(paths[0]), validation_file=paths[1], test_file=paths[2])
    assert {name: len(split.rows) for name, split in loaded.splits.items()} == {"train": 3, "validation": 4, "test": 5}
    assert (loaded.source, loaded.kind, loaded.revision) == ("a.jsonl, b.jsonl, c.jsonl", "local", None)


@pytest.mark.parametrize("name", ["validation_file", "test_file"])
def test_rows_to_measure_on_need_training_rows_only_where_there_is_training(tmp_path, name):
    path = write(tmp_path / "rows.jsonl", ROWS)
    run = RunConfig(**{name: str(path)})
    with pytest.raises(UserError, match=f"--{name} needs --train_file"):
        data.load(run, QuestionAnswering())
    loaded, _ = data.load(run, QuestionAnswering(), training=False)
    assert list(loaded.splits) == [name.removesuffix("_file")] == [loaded.final]
    assert loaded.splits[loaded.final].rows.to_list() == ROWS and not loaded.held_out


@pytest.mark.parametrize("name", ["dataset_config", "dataset_revision"])
def test_settings_of_hub_data_sets_are_refused_for_other_rows(tmp_path, name):
    path = write(tmp_path / "train.jsonl", ROWS)
    for source in ({}, {"dataset": "sample:qa"}, {"dataset": str(tmp_path)}, {"train_file": str(path)}):
        with pytest.raises(UserError, match=f"--{name} is for data sets on the Hub"):
            data.load(RunConfig(**source, **{name: "main"}), QuestionAnswering())


def test_the_embedded_rows_are_the_default():
    loaded, _ = data.load(RunConfig(), QuestionAnswering())
    assert (loaded.source, loaded.kind) == ("sample:qa", "embedded")
    assert set(loaded.splits) == {"train", "validation", "test"}


def test_embedded_rows_that_are_not_there_name_the_ones_that_are():
    with pytest.raises(UserError, match="sample:nope is not embedded; there are .*sample:qa"):
        data.load(RunConfig(dataset="sample:nope"), QuestionAnswering())


def test_without_validation_rows_a_tenth_is_held_out(tmp_path):
    rows = [row(f"q{i}", f"context {i}") for i in range(57)]
    path = write(tmp_path / "rows.jsonl", rows)
    loaded = load(path)
    train, held = questions(loaded, "train"), questions(loaded, "validation")
    assert len(held) == 5 and loaded.held_out and loaded.final == "validation"
    assert sorted(train + held) == sorted(row["question"] for row in rows), "no row twice, none lost"
    assert (questions(load(path), "train"), questions(load(path), "validation")) == (train, held)
    assert questions(load(path, seed=1), "validation") == held, "seeds are measured on the same rows"
    assert held not in ([f"q{i}" for i in range(5)], [f"q{i}" for i in range(52, 57)]), "they are drawn"


def test_nine_rows_are_too_few_to_hold_any_out(tmp_path):
    assert "--validation_file" in refused(write(tmp_path / "rows.jsonl", ROWS[:9]))
    assert len(questions(load(write(tmp_path / "rows.jsonl", ROWS[:10])), "validation")) == 1


def test_row_limits_keep_the_first_rows(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS)
    loaded = load(path, validation_file=str(path), test_file=str(path), train_rows=4, validation_rows=2)
    assert loaded.splits["train"].rows.to_list() == ROWS[:4]
    assert loaded.splits["validation"].rows.to_list() == ROWS[:2]
    assert loaded.splits["test"].rows.to_list() == ROWS, "what is reported is not cut"
    assert len(load(path, train_rows=10**6).splits["train"].rows) == 18, "a limit above the number of rows"


@pytest.mark.parametrize(("limit", "train", "held"), [(20, 20, 2), (3, 3, 1), (50, 50, 5), (56, 52, 5), (99, 52, 5)])
def test_a_row_limit_leaves_so_many_to_train_on_and_holds_a_tenth_out(tmp_path, limit, train, held):
    path = write(tmp_path / "rows.jsonl", [row(f"q{i}", f"context {i}") for i in range(57)])
    loaded = load(path, train_rows=limit)
    found = [*questions(loaded, "train"), *questions(loaded, "validation")]
    assert (len(questions(loaded, "train")), len(questions(loaded, "validation"))) == (train, held)
    assert sorted(found, key=lambda name: int(name[1:])) == [f"q{i}" for i in range(train + held)], "the first, once"


def test_classes_are_held_out_in_proportion_and_each_keeps_a_row(tmp_path):
    """40 % a, 40 % b, 19 % c in the order of the class, and one row of d."""
    labels = ["a"] * 80 + ["b"] * 80 + ["c"] * 39 + ["d"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": label}) + "\n" for i, label in enumerate(labels)))
    for seed in (0, 1):
        splits = data.load(RunConfig(train_file=str(path), seed=seed), Classification())[0].splits
        assert Counter(splits["validation"].rows["label"]) == {"a": 8, "b": 8, "c": 4}
    lists = [["a", "b"], ["a"], ["b", "only"], ["a", "b"]] * 3 + [[f"rare {i}"] for i in range(8)]
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": label}) + "\n" for i, label in enumerate(lists)))
    splits = data.load(RunConfig(train_file=str(path)), Classification())[0].splits
    assert {label for row in splits["train"].rows["label"] for label in row} >= {"a", "b", "only", "rare 7"}
    assert len(splits["validation"].rows) == 2
    path.write_text("".join(json.dumps({"text": f"t{i}", "label": f"class {i}"}) + "\n" for i in range(12)))
    with pytest.raises(UserError, match="each class has one row only"):
        data.load(RunConfig(train_file=str(path)), Classification())


def test_overlap_counts_reported_rows_whose_input_was_trained_on():
    """Question and context together are the input: the same question on another text is another input."""
    other_text, other_answer = {**ROWS[1], "context": "another"}, {**ROWS[2], "answers": ROWS[3]["answers"]}
    held = [ROWS[0], ROWS[0], other_text, other_answer, row("new", "new")]
    parts = {"train": [*ROWS[:5], ROWS[0], ROWS[0]], "validation": held, "test": ROWS[4:7]}
    splits = {name: Split(Dataset.from_list(rows)) for name, rows in parts.items()}
    task = QuestionAnswering()
    counted = Data(splits, "x", "local")
    overlap.count(counted, task)
    assert counted.overlaps == {"train": 2, "validation": 3, "test": 1}


def nested(*questions: dict[str, Any]) -> str:
    paragraphs = [{"context": "Ann won in 1810.", "qas": list(questions)}]
    return json.dumps({"version": "v2.0", "data": [{"title": "Races", "paragraphs": paragraphs}]}, indent=1)


def test_the_nested_form_of_squad_is_read(tmp_path):
    path = tmp_path / "squad.json"
    path.write_text(
        nested(
            {
                "id": "1",
                "question": "Who won?",
                "answers": [{"text": "Ann", "answer_start": 0}],
                "is_impossible": False,
            },
            {
                "id": "2",
                "question": "When?",
                "answers": [{"text": text, "answer_start": 11} for text in ("1810", "1810.")],
            },
            {
                "id": "3",
                "question": "Who lost?",
                "answers": [],
                "plausible_answers": [{"text": "Ann", "answer_start": 0}],
                "is_impossible": True,
            },
            {
                "id": "4",  # some tools write what is plausible here, too
                "question": "Who fell?",
                "answers": [{"text": "Ann", "answer_start": 0}],
                "is_impossible": True,
            },
        )
    )
    loaded = load(path, validation_file=str(path))
    context = "Ann won in 1810."
    for split in ("train", "validation"):
        assert loaded.splits[split].rows.to_list() == [
            {"question": "Who won?", "context": context, "answers": {"text": ["Ann"], "answer_start": [0]}},
            {"question": "When?", "context": context, "answers": {"text": ["1810", "1810."], "answer_start": [11, 11]}},
            {"question": "Who lost?", "context": context, "answers": {"text": [], "answer_start": []}},
            {"question": "Who fell?", "context": context, "answers": {"text": [], "answer_start": []}},
        ]


@pytest.mark.parametrize(
    "content",
    [
        nested({"question": "Who won?", "answers": [{"text": "Ann"}]}),
        nested({"question": "Who won?"}),
        nested("Who won?"),
        '{"data": [1]}',
        '{"data": [{"paragraphs": [{"context": "a"}]}]}',
    ],
)
def test_a_broken_nested_file_is_one_line_with_its_place(tmp_path, content):
    assert "SQuAD's form" in refused(tmp_path / "squad.json", content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b'text;label\n"one; two, three";a\n"two\nlines, 2";b\n'),
        ("rows.csv", b'text\tlabel\none; two, three\ta\n"two\nlines, 2"\tb\n'),
        ("rows.tsv", b'\xef\xbb\xbftext\tlabel\r\none; two, three\ta\r\n"two\nlines, 2"\tb\r\n'),
        ("rows.tsv.gz", gzip.compress(b'text\tlabel\none; two, three\ta\n"two\nlines, 2"\tb\n', mtime=0)),
        ("rows.csv", b'text,label\n"one; two, three",a\n"two\nlines, 2",b\n'),
    ],
)
def test_the_header_tells_what_separates_cells(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    loaded, _ = data.load(RunConfig(train_file=str(path), validation_file=str(path)), Classification())
    assert loaded.splits["train"].rows["text"][:] == ["one; two, three", "two\nlines, 2"]
    said = {
        b";": ["The cells of rows.csv are separated by semicolons."],
        b"\t": ["The cells of rows.csv are separated by tabs."],
    }
    assert loaded.notes == (said.get(content[4:5], []) if name == "rows.csv" else [])


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "cp949", "euc-kr"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.json", "rows.csv.gz"])
def test_another_encoding_is_refused_with_its_line_and_read_with_the_flag(tmp_path, encoding, name):
    word = "흑해" if encoding in ("cp949", "euc-kr") else "schön"
    rows = [{"text": "plain", "label": "a"}, {"text": word, "label": "b"}]
    if ".csv" in name:
        text = "text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows)
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path = tmp_path / name
    path.write_bytes((gzip.compress if name.endswith(".gz") else bytes)(text.encode(encoding)))
    line = 3 if ".csv" in name else 2
    assert f"line {line} is not UTF-8" in refused(path) and "--encoding" in refused(path)
    run = RunConfig(train_file=str(path), validation_file=str(path), encoding=encoding)
    assert data.load(run, Classification())[0].splits["train"].rows["text"][:] == ["plain", word]


def test_an_unknown_encoding_or_the_wrong_one_is_one_line(tmp_path):
    for encoding in ("nope", "base64"):
        with pytest.raises(UserError, match=f"--encoding {encoding} is unknown"):
            RunConfig(encoding=encoding)
    assert "line 2 is not ascii" in refused(tmp_path / "rows.csv", "text,label\nschön,a\n", encoding="ascii")
    assert "is not utf-16" in refused(tmp_path / "rows.csv", "text,label\n1,a\n", encoding="utf-16")


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv.gz", "rows.jsonl", "rows.json"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, mark, name):
    encoding = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"\xef\xbb\xbf": "utf-8"}[mark]
    rows = [{"text": "schön", "label": "a"}, {"text": "흑해", "label": "b"}]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not name.startswith("rows.json"):
        text = "".join(
            cells.replace(" ", "\t" if "tsv" in name else ",") for cells in ("text label\n", "schön a\n", "흑해 b\n")
        )
    content = mark + text.encode(encoding)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    loaded, _ = data.load(RunConfig(train_file=str(path), validation_file=str(path)), Classification())
    assert loaded.splits["train"].rows["text"][:] == ["schön", "흑해"]


@pytest.mark.parametrize(
    ("name", "given", "mark"),
    [
        ("rows.csv", "|", "|"),
        ("rows.csv", "tab", "\t"),
        ("rows.csv", "\\t", "\t"),
        ("rows.tsv", ";", ";"),
        ("rows.csv", ";", ";"),
    ],
)
def test_a_delimiter_that_is_given_wins(tmp_path, name, given, mark):
    """The first column's name has a comma, which would be taken for the delimiter."""
    path = tmp_path / name
    path.write_text(f"id, old{mark}text{mark}label\n1{mark}one, two{mark}a\n2{mark}three{mark}b\n")
    run = RunConfig(train_file=str(path), validation_file=str(path), delimiter=given)
    assert run.delimiter == mark.replace("\t", "tab")
    assert data.load(run, Classification())[0].splits["train"].rows["text"][:] == ["one, two", "three"]


@pytest.mark.parametrize("given", ["||", '"', "\n", "comma"])
def test_what_cannot_separate_cells_is_refused(given):
    with pytest.raises(UserError, match="--delimiter .* is not one character"):
        RunConfig(delimiter=given)
