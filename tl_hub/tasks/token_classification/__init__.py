"""Token classification: entities such as persons and places are found in a text (named-entity recognition)."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from tl_hub import cells, on_disk
from tl_hub.architectures import ARCHITECTURES, PAD_TO, longest_input
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.model_types import Config, Model, Tokenizer
from tl_hub.on_disk import Columns
from tl_hub.on_use import datasets, torch, transformers
from tl_hub.tasks.base import (
    Collator,
    Score,
    Task,
    TokenHead,
    check_fast,
    column,
    give_padding,
    give_segments,
    labelled,
    select_columns,
)
from tl_hub.tasks.labels import count_labels
from tl_hub.tasks.token_classification import entities
from tl_hub.tasks.token_classification.entities import Entity
from tl_hub.tasks.token_classification.windows import UNTRAINED, token_labels, windows

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers.modeling_outputs import TokenClassifierOutput


def outputs_of(logits: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor | None = None) -> TokenClassifierOutput:
    """As the model gives them, of logits (batch, length, labels)."""
    logits = logits.float()
    loss = None
    if labels is not None:
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=UNTRAINED)
    return transformers.modeling_outputs.TokenClassifierOutput(loss=loss, logits=logits)


@dataclass(kw_only=True)
class TokenClassification(Task):
    """Each word is tagged by the vector of its first token (Devlin et al. 2019, section 5.3); tags make entities.

    A sentence longer than the window is read in overlapping windows, and each word is trained and tagged in the one
    in which it has most context. GPT-2 reads from left to right and sees neither what follows a word nor its end.

    Attributes:
        labels: tags in the order of the logits, by the types in the training rows.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "token-classification"
    sample: ClassVar[str] = "ner"
    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    best: ClassVar[tuple[str, bool]] = ("f1", True)
    batched: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask", "labels")
    token_head = TokenHead("classifier", ("labels",), outputs_of, apart="text")
    readers = {".conll": entities.read_conll, ".txt": entities.read_conll}

    tokens_column: str = flag("tokens", "column with the words of a sentence, a list", reads=True)
    tags_column: str = flag("tags", "column with a tag for each word (O, B-person, ...), text or number", reads=True)
    tag_names: str | None = flag(
        None, "names of tags that are numbers, in their order from 0: O,B-person,I-person", reads=True
    )
    tag_tokens: Literal["first", "all"] = flag(
        "first",
        "tokens of a word that are trained; all: for stock calls that read each token by itself (aggregation simple)",
    )
    max_length: int = flag(256, "tokens in a window, special tokens included")
    doc_stride: int = flag(64, "tokens that neighbouring windows of a long sentence share", follows="max_length")

    def __post_init__(self) -> None:
        if self.doc_stride < 1:
            raise UserError(f"--doc_stride is {self.doc_stride}; it must be at least 1")
        self._check_window(f"--max_length is {self.max_length}", self.max_length)
        for tag in self.tag_names.split(",") if self.tag_names else []:
            _checked(tag.strip(), f"--tag_names {self.tag_names}")
        self.labels: list[str] = []
        self._label_map: Mapping[str, str] | None = None  # of a model that is only measured
        self._train: Dataset | None = None
        self._learned = Counter[str]()  # entities of each type in the training rows
        self._pad_token_id: int | None = None

    def _check_window(self, what: str, max_length: int) -> None:
        least = self.doc_stride + 16
        if max_length < least:
            raise UserError(f"{what}; with --doc_stride {self.doc_stride} it must be at least {least}")

    def config_for(self, model_type: str) -> dict[str, Any]:
        config = {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: i for i, label in enumerate(self.labels)},
        }
        return config | ({} if self._pad_token_id is None else {"pad_token_id": self._pad_token_id})

    def check(self, rows: Dataset) -> Dataset:
        rows = select_columns(rows, {"tokens": self.tokens_column, "tags": self.tags_column})
        names = getattr(getattr(rows.features["tags"], "feature", None), "names", None)
        if self.tag_names:
            names = [name.strip() for name in self.tag_names.split(",")]
        told, hidden = np.zeros((2, len(rows)), dtype=bool)
        for i, (words, tags) in enumerate(self._tagged_words(rows)):
            told[i] = bool(words)
            hidden[i] = told[i] and (tags is None or bool(names and all(tag == -1 for tag in tags)))
        if not told.any():
            raise UserError(f"none of the {len(rows)} rows has words in {self.tokens_column}")
        if (hidden == told).all():
            return rows.select([])
        if hidden.any():
            raise UserError(
                f"{hidden.sum()} rows have no {self.tags_column} (the first is row {hidden.argmax()}, counted from 0); "
                "tag them, or take them out"
            )

        def sentences() -> Iterator[dict[str, Any]]:
            for i, (words, tags) in enumerate(self._tagged_words(rows)):
                if told[i] and (sentence := self._sentence(i, words, tags, names))["words"]:
                    yield sentence

        scheme = entities.scheme_of(tag for sentence in sentences() for tag in sentence["tags"])
        string, number = datasets.Value("string"), datasets.Value("int64")
        places, names_of = datasets.List(number), datasets.List(string)
        features = {"text": string, "start": places, "end": places, "tags": names_of, "label": names_of}
        features |= {"repaired": number, "blank": number}
        spelled = (_spelled(sentence, scheme) for sentence in sentences())
        return on_disk.written(on_disk.columns(spelled), datasets.Features(features))

    def _tagged_words(self, rows: Dataset) -> Iterator[tuple[Any, Any]]:
        """The words and the tags of each row."""
        given = {"tokens": self.tokens_column, "tags": self.tags_column}
        return zip(*(cells.lists(on_disk.Cells(rows, name), column) for name, column in given.items()), strict=True)

    def _sentence(self, row: int, words: Any, tags: Any, names: list[str] | None) -> dict[str, Any]:
        """Words that can be seen and their tags, by name."""
        for name, values in ((self.tokens_column, words), (self.tags_column, tags)):
            if not isinstance(values, list):
                raise UserError(f"row {row}: {name} is {values!r}; it must be a list, with an entry for each word")
        if len(words) != len(tags):
            raise UserError(f"row {row}: {len(words)} words and {len(tags)} tags; give one tag for each word")
        if not all(isinstance(word, str) or type(word) is int for word in words):
            raise UserError(f"row {row}: {self.tokens_column} is {words!r}; words must be texts")
        texts = [" ".join(str(word).split()) for word in words]
        named = [self._tag(row, tag, names) for tag in tags]
        kept = [i for i, text in enumerate(texts) if text]
        return {"words": [texts[i] for i in kept], "tags": [named[i] for i in kept], "blank": len(texts) - len(kept)}

    def _tag(self, row: int, tag: Any, names: list[str] | None) -> str:
        if type(tag) is int:
            if names is None:
                raise UserError(
                    f"row {row}: {self.tags_column} holds numbers; name the tags in their order with --tag_names, such "
                    "as O,B-person,I-person"
                )
            if not 0 <= tag < len(names):
                raise UserError(f"row {row}: {self.tags_column} holds {tag}; the {len(names)} tags are numbered from 0")
            tag = names[tag]
        prefix, kind = _checked(tag.strip() if isinstance(tag, str) else tag, f"row {row}: {self.tags_column}")
        kind = (self._label_map or {}).get(kind, kind)
        return f"{prefix}-{kind}" if kind else prefix

    def recall(self, config: Config, decision: dict[str, float], label_map: Mapping[str, str] | None = None) -> Self:
        """The types of a model, as the rows may lack some of them.

        Raises:
            UserError: the model's labels are no tags of BIO or BIOES, or `label_map` leads to none of its types.
        """
        task, given = copy.copy(self), label_map or {}
        task.labels, task._label_map = labels_in(config), given
        unknown = [f"{kind}={name}" for kind, name in given.items() if name not in task.kinds]
        if unknown:
            raise UserError(f"--label_map {unknown[0]}: the model's entities are {', '.join(task.kinds)}")
        return task

    @property
    def kinds(self) -> list[str]:
        """Types of entities, in the order of the labels."""
        return list(dict.fromkeys(kind for label in self.labels if (kind := entities.parts(label)[1])))

    def learn(self, rows: dict[str, Dataset]) -> Self:
        task = copy.copy(self)
        if self._label_map is None:
            train = task._train = rows["train"]
            known = sorted(self.class_counts(train))
            if not known:
                raise UserError(f"no word of the {len(train):,} training rows is tagged as an entity (all tags are O)")
            scheme = entities.scheme_of(tag for tags in on_disk.Cells(train, "tags") for tag in tags)
            task.labels = entities.labels_of(known, scheme)
            task._learned = Counter(
                kind for tags in on_disk.Cells(train, "tags") for kind, _, _ in entities.entities_of(tags)
            )
        for name, part in rows.items():
            unseen = sorted(set(self.class_counts(part)) - set(task.kinds))
            if unseen and self._label_map is not None:
                raise UserError(
                    f"the rows have entities of type {', '.join(unseen)}, the model finds {', '.join(task.kinds)}; "
                    f"name the model's type with --label_map, such as {unseen[0]}={task.kinds[0]}"
                )
            if unseen:
                raise UserError(
                    f"the {name} rows have entities of type {', '.join(unseen)}, which no training row has; add "
                    "training rows with it or tag it O"
                )
        return task

    def class_counts(self, rows: Dataset) -> dict[str, int]:
        return count_labels(on_disk.Cells(rows, "label"))

    def input_of(self, row: dict[str, Any]) -> str:
        return row["text"]

    def adapt(self, tokenizer: Tokenizer, model: Model) -> None:
        check_fast(tokenizer)
        give_segments(tokenizer, model)
        known = model.config.pad_token_id
        give_padding(tokenizer, model)
        if known != tokenizer.pad_token_id:
            self._pad_token_id = tokenizer.pad_token_id

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        """Windows. `words` are those that a window tags, `places` the tokens by which it does.

        Rows need `text`, and `start` and `end` of its words; with `tags` they are trained on.
        """
        longest = longest_input(model.config)
        self.max_length = min(self.max_length, longest or self.max_length)  # so that the record tells it
        self._check_window(f"the model reads {longest} tokens at most", self.max_length)
        segments = ARCHITECTURES[model.config.model_type].token_type_ids
        number = {label: i for i, label in enumerate(self.labels)}
        scheme = entities.scheme_of(self.labels)

        def within(tag: str) -> int:
            """Label of a word's tokens after the first one."""
            prefix, kind = entities.parts(tag)
            goes_on = tag if tag == entities.OUTSIDE else f"{'I' if prefix in 'BI' else 'E'}-{kind}"
            return number[goes_on] if self.tag_tokens == "all" else UNTRAINED

        def encode_batch(batch: Columns, indices: range) -> Columns:
            columns = windows(
                tokenizer, batch["text"], batch["start"], batch["end"], self.max_length, self.doc_stride, segments
            )
            if "tags" in batch:
                tagged = [entities.tags_of(entities.entities_of(t), len(t), scheme) for t in batch["tags"]]
                targets = [[(number[tag], within(tag)) for tag in tags] for tags in tagged]
                columns["labels"] = [
                    token_labels([targets[row][word] for word in words], places, more, length)
                    for row, words, places, more, length in zip(
                        *(columns[name] for name in ("row", "words", "places", "more", "length")), strict=True
                    )
                ]
                for name in ("repaired", "blank"):
                    columns[name] = [batch[name][row] for row in columns["row"]]
            return {**columns, "row": [indices[place] for place in columns["row"]]}

        return on_disk.mapped(rows, encode_batch)

    def notes(self, encoded: Dataset) -> list[str]:
        """Sentences in several windows, tags that were repaired, and words without a token of their own."""
        row = column(encoded, "row")
        first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]])
        long = int((np.bincount(row) > 1).sum())
        notes = [f"overlapping windows were needed to read {long:,} of {len(first):,} sentences whole"] if long else []
        repaired, blank = (column(encoded, name)[first] for name in ("repaired", "blank"))
        if repaired.any():
            notes.append(
                f"{repaired.sum():,} tags in {(repaired > 0).sum():,} of {len(first):,} sentences did not follow BIO "
                "or BIOES and were repaired: a word that goes on with no entity begins one"
            )
        if blank.any():
            notes.append(f"{blank.sum():,} blank words were left out with their tags")
        unread = int(column(encoded, "unread")[first].sum())
        if unread:
            notes.append(
                f"{unread:,} words have no token of their own, as those that the tokenizer drops or joins to the word "
                "before; they are tagged as that token is, or O"
            )
        return notes

    def loss_weight(self, batch: dict[str, Any]) -> torch.Tensor:
        return labelled(batch["labels"])

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        def collate(encoded: list[dict[str, Any]]) -> Any:
            # On the right for every family, or the places of words would not be those of their tokens.
            inputs = [{name: value for name, value in each.items() if name != "labels"} for each in encoded]
            batch = tokenizer.pad(inputs, pad_to_multiple_of=PAD_TO, padding_side="right", return_tensors="pt")
            if "labels" in encoded[0]:
                width = batch["input_ids"].size(1)
                labels = [[*each["labels"], *[UNTRAINED] * (width - len(each["labels"]))] for each in encoded]
                batch["labels"] = torch.tensor(labels)
            return batch

        return collate

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Of each token the likeliest tag, and its probability: all that entities are made of."""
        score, tag = outputs.logits.float().softmax(-1).max(-1)
        missing = -(-self.max_length // PAD_TO) * PAD_TO - tag.size(1)  # batches are of different lengths
        return {
            "tag": torch.nn.functional.pad(tag, (0, missing)),
            "score": torch.nn.functional.pad(score, (0, missing)),
        }

    def tagged(
        self, predictions: dict[str, np.ndarray], encoded: Dataset, counts: Iterable[int]
    ) -> Iterator[tuple[list[str], list[float]]]:
        """For each row, with so many words, the tag of each word and its probability."""
        windows = enumerate(on_disk.each(encoded.select_columns(["row", "words", "places"])))
        i, window = next(windows)
        for row, count in enumerate(counts):
            tags, scores = [entities.OUTSIDE] * count, [1.0] * count
            while window and window["row"] == row:
                for word, place in zip(window["words"], window["places"], strict=True):
                    tags[word] = self.labels[predictions["tag"][i, place]]
                    scores[word] = float(predictions["score"][i, place])
                i, window = next(windows, (i, {}))
            yield tags, scores

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        counts = np.zeros((len(rows), len(self.kinds), 3), dtype=int)

        def shown() -> Iterator[Columns]:
            tagged = self.tagged(predictions, encoded, map(len, on_disk.Cells(rows, "start")))
            for numbers, batch in on_disk.parts(rows):
                expected = [entities.entities_of(tags) for tags in batch["tags"]]
                found = [entities.entities_of(tags) for tags, _ in itertools.islice(tagged, len(numbers))]
                counts[numbers.start : numbers.stop] = entities.compared(expected, found, self.kinds)
                words = list(zip(batch["text"], batch["start"], batch["end"], strict=True))
                yield {
                    "text": batch["text"],
                    "expected": [_named(row, wanted) for row, wanted in zip(words, expected, strict=True)],
                    "predicted": [_named(row, given) for row, given in zip(words, found, strict=True)],
                }

        shown_rows = on_disk.written(shown())
        right = (counts[..., 0] == counts[..., 1]) & (counts[..., 0] == counts[..., 2])
        every = counts.sum(1)
        metrics = entities.figures(every.sum(0)) | {"exact_match": 100.0 * right.all(1)}
        return Score(
            metrics,
            predictions=shown_rows,
            intervals=entities.intervals(every),
            tables={"Entities": self._by_kind(counts.sum(0))},
        )

    def _by_kind(self, counts: np.ndarray) -> list[dict[str, Any]]:
        """Figures of each type by its counts, (types, 3)."""
        figures = entities.figures(counts)
        return [
            {
                "entity": kind,
                "in training": self._learned[kind],
                "expected": int(counts[i, 2]),
                "predicted": int(counts[i, 1]),
                "precision": float(figures["precision"][i]),
                "recall": float(figures["recall"][i]),
                "F1": float(figures["f1"][i]),
            }
            for i, kind in enumerate(self.kinds)
        ]

    def report(
        self,
        score: Score,
        rows: Dataset,
        model: Model,
        tokenizer: Tokenizer,
        *,
        folder: Path,
        seed: int,
        before: Score | None = None,
    ) -> None:
        """This model beside giving each word the tag that it has most often in the training rows."""
        assert self._train is not None
        known: dict[str, Counter[str]] = {}
        for row in on_disk.each(self._train):
            for word, tag in zip(_words(row), row["tags"], strict=True):
                known.setdefault(word, Counter())[tag] += 1
        usual = {word: min(counts, key=lambda tag: (-counts[tag], tag)) for word, counts in known.items()}
        counts = np.zeros(3, dtype=int)
        for row in on_disk.each(rows):
            guessed = [usual.get(word, entities.OUTSIDE) for word in _words(row)]
            expected, found = map(entities.entities_of, (row["tags"], guessed))
            counts += entities.compared([expected], [found], self.kinds).sum((0, 1))
        by_words = entities.figures(counts)
        systems = {"this model": score.metrics, "most frequent tag of each word": by_words}
        names = {"F1": "f1", "precision": "precision", "recall": "recall"}
        table = [
            {"system": system, **{name: float(figures[key]) for name, key in names.items()}}
            for system, figures in systems.items()
        ]
        score.tables = {"Baselines": table, **score.tables}


def labels_in(config: Config) -> list[str]:
    """The labels of a model, in the order of its logits.

    Raises:
        UserError: they are no tags of BIO or BIOES.
    """
    names: Any = config.id2label  # by number
    labels = [names[i] for i in range(config.num_labels or 0)]
    for label in labels:
        _checked(label, "the model's labels")
    return labels


def _spelled(row: dict[str, Any], scheme: str) -> dict[str, Any]:
    """A row as it is encoded: its text, its words' places and tags that are valid."""
    text, start, end = entities.joined(row["words"])
    found = entities.entities_of(row["tags"])
    tags = entities.tags_of(found, len(start), scheme)
    return {
        "text": text,
        "start": start,
        "end": end,
        "tags": tags,
        "label": sorted({kind for kind, _, _ in found}),
        "repaired": sum(given != tag for given, tag in zip(row["tags"], tags, strict=True)),
        "blank": row["blank"],
    }


def _words(row: dict[str, Any]) -> list[str]:
    return [row["text"][start:end] for start, end in zip(row["start"], row["end"], strict=True)]


def _named(words: tuple[str, list[int], list[int]], found: Sequence[Entity]) -> list[str]:
    """Entities as a person reads them, of a text and where its words begin and end."""
    text, starts, ends = words
    return [f"{text[starts[begin] : ends[end - 1]]} ({kind})" for kind, begin, end in found]


def _checked(tag: Any, where: str) -> tuple[str, str]:
    """
    Raises:
        UserError: it is no tag of BIO or BIOES.
    """
    try:
        return entities.parts(tag)
    except (ValueError, AttributeError) as error:
        hint = "; of BILOU, write E- for L- and S- for U-" if str(tag).startswith(("L-", "U-")) else ""
        raise UserError(
            f"{where}: {tag!r} is no tag; there are O and, with the type of an entity, B-, I-, E- and S-, such as "
            f"B-person{hint}"
        ) from error
