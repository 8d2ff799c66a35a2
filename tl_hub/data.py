"""Rows: where they come from, whether they are what the task needs, and in which order they are trained on."""

import codecs
import csv
import gzip
import hashlib
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import datasets
import pyarrow
import pyarrow.parquet
from datasets import Dataset
from datasets.exceptions import DatasetsError
from datasets.table import InMemoryTable

from tl_hub import hub, samples, shown_rows
from tl_hub.config import RunConfig
from tl_hub.errors import UserError, first_line
from tl_hub.held_out import hold_out, in_proportion
from tl_hub.model_types import Model, Tokenizer
from tl_hub.tokenizer import unknown_share

if TYPE_CHECKING:
    from tl_hub.tasks.base import Task

_UNKNOWN = 0.05
"""Share of unknown tokens above which a note says so: a rare sign is no matter, a script is."""
SPLITS = ("train", "validation", "test")


@dataclass
class Split:
    """One part of the data: its rows as the user wrote them and, once encoded, as the model reads them.

    Of a row there are as many encoded ones as it has windows, or sentences of which a summary is chosen.
    """

    rows: Dataset
    encoded: Dataset | None = None


@dataclass
class Data:
    """Rows by split, and where they came from.

    Attributes:
        source: Hub id, `sample:<task>` or the names of the files; never a path.
        kind: where `source` is to be looked for.
        revision: commit of the Hub data set.
        held_out: `train` where the validation rows were cut from the training rows.
        notes: what was left out or cut and a reader must know, in whole sentences.
        overlaps, near_duplicates: what `overlap.count` has counted, by split.
        others: rows of other domains that the trained model is also measured on, each with one split.
        name: what the run calls rows of another domain.
        written: how those are written, where otherwise than the run's own: settings by name.
    """

    splits: dict[str, Split]
    source: str
    kind: Literal["hub", "embedded", "local"]
    revision: str | None = None
    license: str | None = None
    held_out: bool = False
    notes: list[str] = field(default_factory=list)
    overlaps: dict[str, int] = field(default_factory=dict)
    near_duplicates: dict[str, int] = field(default_factory=dict)
    others: "list[Data]" = field(default_factory=list)
    name: str = ""
    written: dict[str, str] = field(default_factory=dict)

    @property
    def final(self) -> str:
        """The split that the reported numbers come from."""
        return "test" if "test" in self.splits else "validation"


class TaskSettings(Protocol):
    """What a run is asked to learn: a task, or the settings of one that depends on the family of the model."""

    def of_run(self, run: RunConfig) -> "Task": ...


def load(run: RunConfig, settings: TaskSettings, training: bool = True) -> "tuple[Data, Task]":
    """Read the rows a run asks for and check every one before any training.

    With `train_draw` the training rows are put into a random order first. Without validation rows a part of the
    training rows is held out, as `held_out.hold_out` says. Rows beyond
    `train_rows`, `validation_rows` and `test_rows` are left out after the check, and after rows of one text have been
    put together where the task measures them so.

    Args:
        training: False where rows are only measured, so that there need be no training rows.

    Returns:
        The rows, and the task with what it learned from them.

    Raises:
        UserError: nothing there, not readable, a column missing, a setting without effect, or rows that the task
            refuses.
    """
    for name in ("validation_file", "test_file"):
        if training and getattr(run, name) and not run.train_file:
            raise UserError(f"--{name} needs --train_file; a --dataset brings its own splits")
    task = settings.of_run(run)
    data = read(run, run.dataset or f"sample:{task.sample}", task)
    check(data, task)
    if training and "train" not in data.splits:
        raise UserError(f"{data.source} has no train split; it has {', '.join(data.splits)}")
    if run.train_draw is not None and "train" in data.splits:
        rows = data.splits["train"].rows
        data.splits["train"].rows = rows.select(in_proportion(rows, run.train_draw))
    if "validation" not in data.splits and (training or "test" not in data.splits):
        rows = data.splits["train"].rows
        if len(rows) < 10:
            raise UserError(f"{data.source} has {len(rows)} rows and no validation rows; give --validation_file")
        data.splits["train"].rows, held = hold_out(rows, run.train_rows)
        data.splits["validation"] = Split(held)
        data.held_out = True
    for name in data.splits:
        # Where validation rows are held out, training rows were cut before, so that each class keeps one.
        limit = None if name == "train" and data.held_out else getattr(run, f"{name}_rows")
        cut(data, name, task, limit)
    if run.eval_on:
        from tl_hub import other_domains  # which reads by this module

        data.others = other_domains.load(run, task)
    shown_rows.check(run, data, task)
    learnt = {"train": data.splits[data.final].rows}  # unless there are training rows
    elsewhere = {other.name: other.splits[other.final].rows for other in data.others}
    return data, task.learn(learnt | {name: split.rows for name, split in data.splits.items()} | elsewhere)


def check(data: Data, task: "Task") -> None:
    """Let the task check the rows of each split; those that are blank, and splits without answers, are left out.

    Raises:
        UserError: rows are not what the task can read.
    """
    for name, split in [*data.splits.items()]:
        given = len(split.rows)
        try:
            split.rows = task.check(split.rows)
        except UserError as error:
            raise UserError(f"{name} rows of {data.source}: {error}") from error
        if 0 < len(split.rows) < given:
            blank = given - len(split.rows)
            was = "was" if blank == 1 else "were"
            data.notes.append(f"{blank:,} of {given:,} rows of the {name} split {was} blank and left out.")
        if name != "train" and len(split.rows) == 0:
            del data.splits[name]
            data.notes.append(f"The answers of the {name} split are hidden, so it was left out.")


def cut(data: Data, name: str, task: "Task", limit: int | None) -> None:
    """Leave the first rows of a checked split, after those of one text are together where the task measures them so."""
    split = data.splits[name]
    checked = len(split.rows)
    split.rows = split.rows if name == "train" else task.rows_to_measure(split.rows)
    if len(split.rows) < checked:
        data.notes.append(
            f"The {checked:,} rows of the {name} split are of {len(split.rows):,} texts: each is measured once, "
            "against all of its references."
        )
    if limit is not None and limit < len(split.rows):
        split.rows = split.rows.select(range(limit))


def encode(data: Data, task: "Task", tokenizer: Tokenizer, model: Model) -> None:
    """Give every split its encoded rows: tokenized, with a `length` (tokens) and an `index` each.

    The training rows come first: a task may learn from them how to read the others, and from no others.
    """
    for name in (name for name in SPLITS if name in data.splits):
        split = data.splits[name]
        (datasets.enable_progress_bars if len(split.rows) > 10_000 else datasets.disable_progress_bars)()
        encoded = task.encode(split.rows, tokenizer, model)
        split.encoded = encoded.add_column("index", list(range(len(encoded))))
        data.notes.extend(f"In the {name} split, {note}." for note in task.notes(encoded))
        share = unknown_share(tokenizer, encoded) if name == "train" else 0.0
        if share > _UNKNOWN:
            data.notes.append(
                f"{100 * share:.0f} % of the tokens of the training rows are unknown to the tokenizer, so the model "
                "does not see what stands there; a --model whose vocabulary is of their language does."
            )
    for other in data.others:
        encode(other, task, tokenizer, model)


def each(rows: Dataset) -> Iterator[dict[str, Any]]:
    """The rows in their order, read a thousand at a time: one at a time, `datasets` takes eight times as long."""
    for batch in rows.iter(1000):
        yield from (dict(zip(batch, cells, strict=True)) for cells in zip(*batch.values(), strict=True))


def fingerprint(rows: Dataset) -> str:
    """SHA-256 over the rows in their order, the same for the same rows from any kind of file."""
    digest = hashlib.sha256()
    for row in each(rows):
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode())
    return digest.hexdigest()


def read(run: RunConfig, name: str, task: "Task") -> Data:
    """The rows of `run`'s files or, without any, of the data set `name`, as they are.

    Raises:
        UserError: nothing there, or not readable.
    """
    readers = readers_for(task)
    files = {split: path for split in SPLITS if (path := getattr(run, f"{split}_file"))}
    for setting in ("dataset_config", "dataset_revision"):
        if getattr(run, setting) and (files or name.startswith("sample:") or Path(name).is_dir()):
            raise UserError(f"--{setting} is for data sets on the Hub, and these rows are not; omit it")
    if files:
        parts = {split: Split(_read_file(path, run, readers)) for split, path in files.items()}
        notes = _separators(map(Path, files.values()), run)
        return Data(parts, ", ".join(Path(path).name for path in files.values()), "local", notes=notes)
    if name.startswith("sample:"):
        rows = samples.load(name.removeprefix("sample:"))
        parts = {split: Split(Dataset.from_list(part)) for split, part in rows.items()}
        return Data(parts, name, "embedded", license="apache-2.0")
    if Path(name).is_dir():
        found: dict[str, Path] = {}
        for path in sorted(Path(name).iterdir()):
            split = path.name.split(".")[0]
            if split in SPLITS and suffix(path) in readers:
                if split in found:
                    raise UserError(f"--dataset {name} holds {found[split].name} and {path.name}; leave one of them")
                found[split] = path
        if not found:
            raise UserError(f"--dataset {name} holds no file named train, validation or test ({', '.join(readers)})")
        parts = {split: Split(_read_file(str(found[split]), run, readers)) for split in SPLITS if split in found}
        return Data(parts, Path(name).resolve().name, "local", notes=_separators(found.values(), run))
    facts = hub.dataset_facts(name, run.dataset_revision)
    try:
        loaded = datasets.load_dataset(name, run.dataset_config, revision=facts.revision)
    except (DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--dataset {name} cannot be loaded: {first_line(error)}") from error
    parts = {split: Split(loaded[split]) for split in SPLITS if split in loaded}
    return Data(parts, name, "hub", revision=facts.revision, license=facts.license)


def _read_file(path: str, run: RunConfig, readers: dict[str, "Reader"]) -> Dataset:
    file = Path(path)
    if suffix(file) not in readers:
        kind = file.suffix or "none"
        raise UserError(f"{path}: files of kind {kind} are not read; allowed are {', '.join(readers)}")
    if not file.is_file():
        raise UserError(f"{path}: no such file")
    try:
        rows = readers[suffix(file)](file, run.encoding or _marked(file), run.delimiter)
    except UnicodeDecodeError as error:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        raise UserError(f"{path} cannot be read: {_undecoded(content, run.encoding)}") from error
    except (ValueError, OverflowError, OSError, EOFError, zlib.error, pyarrow.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from error
    if len(rows) == 0:
        raise UserError(f"{path} is empty")
    return rows


def suffix(file: Path) -> str:
    """Which kind of file it is, such as .csv, also where it is compressed."""
    return Path(file.name.lower().removesuffix(".gz")).suffix


def _undecoded(content: bytes, encoding: str | None) -> str:
    """Which line of a file is in another encoding, and what mends it."""
    place = f"it is not {encoding or 'UTF-8'}"
    try:
        content.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding or "utf-8", "ignore").count("\n") + 1
        place = f"line {line} is not {encoding or 'UTF-8'} (byte 0x{content[error.start]:02x})"
    return f"{place}; give the file's encoding with --encoding, such as cp1252, utf-16 or cp949"


def _marked(file: Path) -> str:
    """The encoding that a file's byte-order mark tells, which Excel and Notepad write; UTF-8 without one."""
    with (gzip.open if file.suffix == ".gz" else open)(file, "rb") as binary:
        start = binary.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _opened(file: Path, encoding: str, newline: str) -> Any:
    opener = gzip.open if file.suffix == ".gz" else open
    return opener(file, "rt", encoding=encoding, newline=newline)


def _text(file: Path, encoding: str) -> str:
    with _opened(file, encoding, newline="") as text:
        return text.read()


# The libraries' own readers do not say in which line a file is broken, and guess: a text that looks like a date or a
# number becomes one, "NA" becomes nothing.
def _read_json(file: Path, encoding: str, delimiter: str | None) -> Dataset:
    """One object a line or, in a .json file, a list of them."""
    if suffix(file) == ".json":
        start = (text := _text(file, encoding)).lstrip()[:1]
        if start == "[":
            return _of_objects("entry", enumerate(_parsed(text, 1), start=1))
        if start == "{" and (squad := _whole(text)) is not None:
            return _of_objects("question", enumerate(_questions(squad["data"]), start=1))
    with _opened(file, encoding, newline="\n") as text:
        lines = ((number, line.rstrip("\n")) for number, line in enumerate(text, start=1) if line.strip())
        return _of_objects("line", ((number, _parsed(line, number)) for number, line in lines))


def _whole(text: str) -> Any:
    """The object that a text is as a whole, if it is one as SQuAD's own files are; None of one object a line."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    return value if isinstance(value.get("data"), list) else None


def _questions(articles: list[Any]) -> Iterator[dict[str, Any]]:
    """Rows of SQuAD's nested form, 1.1 and 2.0 (Rajpurkar et al. 2018, https://arxiv.org/abs/1806.03822)."""
    place = ""
    try:
        for a, article in enumerate(articles):
            for p, paragraph in enumerate(article["paragraphs"]):
                place = f" (article {a}, paragraph {p})"
                for question in paragraph["qas"]:
                    given = [] if question.get("is_impossible") else question["answers"]
                    answers = {name: [answer[name] for answer in given] for name in ("text", "answer_start")}
                    title = {"title": article.get("title"), "context": paragraph["context"]}
                    yield title | {"id": question.get("id"), "question": question["question"], "answers": answers}
    except (KeyError, TypeError, AttributeError) as error:
        form = "data: [{paragraphs: [{context, qas: [{question, answers: [{text, answer_start}]}]}]}]"
        raise ValueError(f"is not in SQuAD's form{place}, which is {form}; missing or wrong: {error}") from error


def _of_objects(unit: str, entries: Iterator[tuple[int, Any]]) -> Dataset:
    """Columns of numbered objects; what one lacks that another has is None. No object is kept whole: rows are many."""
    columns: dict[str, list[Any]] = {}
    count = 0
    for number, value in entries:
        if not isinstance(value, dict):
            raise ValueError(f"{unit} {number} is not a JSON object")
        for name in value:
            if name not in columns:
                columns[name] = [None] * count
        for name, cells in columns.items():
            cells.append(value.get(name))
        count += 1
    return Dataset.from_dict(columns, on_mixed_types="use_json")


def _parsed(text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1} is not JSON ({error.msg} at column {error.colno})"
        raise ValueError(f"{place}; one object a line is read") from error


def _delimiter(file: Path, header: str) -> str:
    return next((mark for mark in ",;\t" if mark in header), ",") if suffix(file) == ".csv" else "\t"


def _separators(files: Iterable[Path], run: RunConfig) -> list[str]:
    """What separates the cells of .csv files, where their first line told it and it is no comma."""
    notes: list[str] = []
    for file in files if run.delimiter is None else ():
        if suffix(file) == ".csv":
            with _opened(file, run.encoding or _marked(file), newline="") as text:
                header = next((line for line in text if line.strip("\r\n")), "")
            name = {";": "semicolons", "\t": "tabs"}.get(_delimiter(file, header))
            notes += [f"The cells of {file.name} are separated by {name}."] * bool(name)
    return list(dict.fromkeys(notes))


def _read_csv(file: Path, encoding: str, delimiter: str | None) -> Dataset:
    """Every cell is text; the first line has the names of the columns, and tells what separates them unless given."""
    csv.field_size_limit(2**31 - 1)
    text = _text(file, encoding)
    separator = "\t" if delimiter == "tab" else delimiter or _delimiter(file, text.lstrip("\r\n").partition("\n")[0])
    table = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows = []
    try:
        names = next(table, [])
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two columns are named {twice[0]!r}")
        for cells in table:
            if cells and len(cells) != len(names):
                raise ValueError(f"line {table.line_num} has {len(cells)} cells, the first line {len(names)}")
            rows.extend([cells] if cells else [])
    except csv.Error as error:
        raise ValueError(f"line {table.line_num} is not CSV ({error})") from error
    return Dataset.from_dict({name: [row[i] for row in rows] for i, name in enumerate(names)})


def _read_parquet(file: Path, encoding: str, delimiter: str | None) -> Dataset:
    return Dataset(InMemoryTable(pyarrow.parquet.ParquetFile(file).read()))


Reader = Callable[[Path, str, str | None], Dataset]
"""Makes rows of a file, by its encoding and what separates its cells; a `ValueError` says what is wrong with it."""


def _columns_by(read: Callable[[str], dict[str, list[Any]]]) -> Reader:
    """The reader of files of a kind that only one task knows, which makes columns of their text."""
    return lambda file, encoding, delimiter: Dataset.from_dict(read(_text(file, encoding)))


def readers_for(task: "Task") -> dict[str, Reader]:
    """What reads files for a task, by their suffix."""
    return _READERS | {suffix: _columns_by(read) for suffix, read in task.readers.items()}


_READERS: dict[str, Reader] = {
    ".json": _read_json,
    ".jsonl": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
