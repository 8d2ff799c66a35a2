"""Classification of texts and pairs of texts: one class each, or any number of labels each."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from tl_hub import calibration, on_disk, run_folder
from tl_hub.architectures import ARCHITECTURES, PAD_TO, longest_input
from tl_hub.config import flag
from tl_hub.errors import UserError, did_you_mean
from tl_hub.model_types import Config, Model, Tokenizer
from tl_hub.on_disk import Columns
from tl_hub.on_use import datasets, torch, transformers
from tl_hub.tasks.base import (
    Collator,
    Score,
    Task,
    check_fast,
    check_pairs,
    column,
    give_padding,
    give_segments,
    give_separator,
    select_columns,
)
from tl_hub.tasks.classification import reading, regression, report
from tl_hub.tasks.classification.decision import decided, figures, given_classes, indicators, names_of
from tl_hub.tasks.classification.naming import Naming
from tl_hub.tasks.classification.windows import check_window, row_means, windows
from tl_hub.tasks.labels import (
    better_method,
    count_labels,
    doubts,
    is_number,
    parse_names,
    read_labels,
    shared,
    spelling_key,
)

if TYPE_CHECKING:
    from datasets import Dataset

_BASELINE_ROWS = 10_000


@dataclass(kw_only=True)
class Classification(Task):
    """The class of a text is read off one vector of the model: `[CLS]`, the last token or `</s>`, as its family has it.

    Texts longer than the window are read in overlapping windows: in training each is an example with the row's label,
    and a row's logits are the mean over its windows. A label column of lists makes the task a multi-label one; one of
    numbers with fractions makes it regression (`tl_hub.tasks.classification.regression`).

    Attributes:
        labels: names of the classes in the order of the logits, from the training rows.
        multi_label: rows have any number of labels.

    Raises:
        UserError: a setting is out of its range.
    """

    sample: ClassVar[str] = "sentiment"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    best: ClassVar[tuple[str, bool]] = ("accuracy", True)
    batched: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask", "labels")

    text_column: str = flag("text", "column with the text", reads=True)
    text_pair_column: str | None = flag(None, "column with a second text, where pairs are classified", reads=True)
    label_column: str = flag(
        "label", "column with the class: text or a whole number; or a list of them (multi-label)", reads=True
    )
    label_separator: str | None = flag(
        None, "multi-label: a row's labels are one text, separated by this, such as ';'", reads=True
    )
    label_names: str | None = flag(
        None, "names of classes that are numbers: no,yes in the order of the numbers, or 0=no,1=yes", reads=True
    )
    label_name_column: str | None = flag(
        None, "column with the names of classes that are numbers, such as label_text", reads=True
    )
    fold_labels: bool = flag(
        False,
        "make one class of those that differ by case, blanks or Unicode form alone: the most frequent spelling",
        reads=True,
    )
    max_length: int = flag(256, "tokens in a window, special tokens included")
    doc_stride: int = flag(64, "tokens that neighbouring windows of a long text share", follows="max_length")
    regression: bool | None = flag(
        None, "labels are numbers to predict, not classes", shown="where they have fractions, such as 2.5"
    )
    label_smoothing: float = flag(0.0, "share of the probability that training spreads over all classes")
    r_drop: float = flag(
        0.0, "R-Drop: weight of how much two passes with other dropout differ, in the loss of training; 0: one pass"
    )
    class_weights: Literal["none", "balanced"] = flag("none", "balanced: rare classes count more in training")
    threshold: float | None = flag(None, "multi-label: probability of a label that is given; chosen on validation rows")
    sure_at: float | None = flag(
        None, "call an answer sure from the probability where so many per cent of the validation answers are right"
    )

    def __post_init__(self) -> None:
        if self.doc_stride < 1:
            raise UserError(f"--doc_stride is {self.doc_stride}; it must be at least 1")
        check_window(f"--max_length is {self.max_length}", self.max_length, self.doc_stride)
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label_smoothing is {self.label_smoothing}; it must lie in [0, 1)")
        if not 0 <= self.r_drop < math.inf:
            raise UserError(f"--r_drop is {self.r_drop}; it must be a number from 0")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UserError(f"--threshold is {self.threshold}; it must lie between 0 and 1")
        calibration.check_sure_at(self.sure_at)
        if self.regression:
            self._check_regression()
        self.labels: list[str] = []
        self.multi_label = False
        if self.label_names:
            parse_names(self.label_names)
        for name, value in (("label_names", self.label_names), ("label_separator", self.label_separator)):
            if self.label_name_column and value:
                raise UserError(f"--label_name_column and --{name} exclude each other; omit one of them")
        self._naming = Naming(self.label_names, self.fold_labels)
        self._outputs: int | None = None  # of a model that is only measured
        self._seen = False
        self._train: Dataset | None = None
        self._counts = np.zeros(0, dtype=int)  # training rows of each class
        self._pad_token_id: int | None = None

    def _check_regression(self) -> None:
        """
        Raises:
            UserError: a setting is for classes.
        """
        given = {
            "label_separator": self.label_separator,
            "label_names": self.label_names,
            "label_name_column": self.label_name_column,
            "fold_labels": self.fold_labels,
            "label_smoothing": self.label_smoothing,
            "r_drop": self.r_drop,
            "class_weights": self.class_weights != "none",
            "threshold": self.threshold,
            "sure_at": self.sure_at,
        }
        for name in (name for name, value in given.items() if value):
            raise UserError(f"--{name} is for classes, and the labels are numbers (regression); omit one of them")
        self.best = ("rmse", False)  # type: ignore[misc]

    @property
    def _measures(self) -> bool:
        """Whether a model is only measured, whose classes are known (`recall`)."""
        return self._naming.label_map is not None

    @property
    def exact(self) -> bool:
        return bool(self.regression)

    @property
    def name(self) -> str:
        return "text-regression" if self.regression else "text-classification"

    def config_for(self, model_type: str) -> dict[str, Any]:
        """Names of the classes and, where the checkpoint lacks a padding token, the one that was given to it."""
        config: dict[str, Any] = {
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: i for i, label in enumerate(self.labels)},
            "problem_type": regression.PROBLEM
            if self.regression
            else "multi_label_classification"
            if self.multi_label
            else "single_label_classification",
        }
        return config | ({} if self._pad_token_id is None else {"pad_token_id": self._pad_token_id})

    def check(self, rows: Dataset) -> Dataset:
        given = {"text": self.text_column, "text_pair": self.text_pair_column, "label": self.label_column}
        if not self._measures or self.label_name_column in rows.column_names:
            given["label_name"] = self.label_name_column  # rows to measure a model on may have the names for labels
        columns = {name: column for name, column in given.items() if column}
        first, given_rows = not self._seen and not self._measures, rows
        rows = select_columns(rows, columns)
        texts = [name for name in ("text", "text_pair") if name in rows.column_names]
        kept = reading.rows_with_text(rows, {name: columns[name] for name in texts})
        names = reading.class_names(rows.features["label"])
        labels, several = self._read(shared(on_disk.Cells(rows, "label")), kept, names)
        missing = kept[np.fromiter((label is None for label in labels), bool, len(labels))]
        if len(missing) == len(kept):
            return rows.select([])
        if len(missing):
            raise UserError(
                f"{len(missing)} rows have no {self.label_column} (the first is row {missing[0]}, counted from 0); "
                "label them, or take them out"
            )
        if first and not several and not self.regression:
            reading.check_not_ids(labels, self.label_column, given_rows, columns.values())
        called = None
        if name_column := columns.get("label_name"):
            found, _ = read_labels(shared(on_disk.Cells(rows, "label_name")), kept, None, None, name_column)
            called = name_column, found
        labels, self._naming = self._naming.named(labels, kept, self.label_column, names, called)
        self.label_names = self._naming.given  # so that the record has the numbers too
        string = datasets.Value("string")
        kind = datasets.Value("float64") if self.regression else datasets.List(string) if several else string
        return reading.with_labels(rows, kept, texts, labels, kind)

    def _read(self, cells: list[Any], kept: np.ndarray, names: list[str] | None) -> tuple[list[Any], bool]:
        """The label of each row `kept`: a class, a list of them or a number; and whether they are lists."""
        if self.regression is None and not self._seen and not self.label_separator and not names:
            self.regression = regression.are_numbers(cells) or None
            if self.regression:
                self._check_regression()
            else:
                regression.check_commas(cells, self.label_column)
        self._seen = True  # the first rows, which are those of training where there are some, decide for all
        if self.regression:
            return regression.read_numbers(cells, kept, self.label_column), False
        return read_labels(cells, kept, names, self.label_separator, self.label_column)

    def recall(self, config: Config, decision: dict[str, float], label_map: Mapping[str, str] | None = None) -> Self:
        """The classes of a model, as the rows may lack some of them; those of the rows where the model's have no names.

        Raises:
            UserError: `label_map` leads to a class that the model does not have, or it gives numbers.
        """
        task, labels = copy.copy(self), list((config.id2label or {}).values())
        task.regression = config.problem_type == regression.PROBLEM
        task.multi_label = "threshold" in decision or config.problem_type == "multi_label_classification"
        task._outputs = config.num_labels
        if task.regression:
            return super(Classification, task).recall(config, decision, label_map)
        if labels[0] == "LABEL_0" and not label_map:
            return task
        label_map = label_map or {}
        for label, name in label_map.items():
            if name not in labels:
                there = f"the model's classes are {', '.join(labels)}"
                raise UserError(f"--label_map {label}={name}: {there}{did_you_mean(name, labels)}")
        spellings = {spelling_key(label): label for label in labels}
        task.labels, task._naming = labels, replace(self._naming, label_map=label_map, spellings=spellings)
        task.class_weights, task.label_smoothing, task.r_drop = "none", 0.0, 0.0  # of training alone
        return task

    def _check_measured(self, rows: Dataset) -> None:
        if isinstance(rows.features["label"], datasets.List) != self.multi_label:
            several, one = "any number of labels, as a list or with --label_separator", "one class"
            given, wanted = (one, several) if self.multi_label else ("lists of classes", one)
            raise UserError(
                f"the rows have {given} each, and the model gives {wanted}; name them in {self.label_column} so"
            )
        naming = self._naming
        reading.check_measured(sorted(self.class_counts(rows)), self.labels, naming.spellings, naming.label_map or {})

    def learn(self, rows: dict[str, Dataset]) -> Self:
        if self._measures:
            for part in rows.values():
                self._check_measured(part)
            return self
        task, train = copy.copy(self), rows["train"]
        task._train = train
        if self.regression:
            regression.check_varied(column(train, "label"))
            task.labels = [regression.SCORE]
            return task
        task.multi_label = isinstance(train.features["label"], datasets.List)
        if self.sure_at is not None and task.multi_label:
            raise UserError("--sure_at is for one class a row, and the rows have lists of labels; omit it")
        if self.threshold is not None and not task.multi_label:
            raise UserError(
                f"--threshold is {self.threshold}, but each row has one class, and the likeliest one is given; omit "
                "--threshold, or give lists of labels (or --label_separator)"
            )
        counts = self.class_counts(train)
        task.labels = reading.ordered(counts, self._naming.order)
        if len(task.labels) < 2:
            raise UserError(
                f"the {len(train):,} training rows have fewer than 2 classes{reading.quoted(task.labels)}; if the rows "
                "are sorted by class, mix them or omit --train_rows"
            )
        if self._outputs not in (None, len(task.labels)):
            raise UserError(f"the rows have {len(task.labels)} classes, the model {self._outputs}")
        for name, part in rows.items():
            if isinstance(part.features["label"], datasets.List) != task.multi_label:
                raise UserError(f"{self.label_column} holds lists in the training or the {name} rows, but not in both")
            reading.check_trained(name, sorted(set(self.class_counts(part)) - set(counts)), counts)
        task._counts = np.array([counts[label] for label in task.labels])
        if task.multi_label:
            # All labels right is rarely reached early: it would not tell the first epochs apart.
            task.best = ("micro_f1", True)  # type: ignore[misc]
        return task

    def slices_of(self, row: dict[str, Any]) -> dict[str, str]:
        return {} if self.regression or self.multi_label else {"class": row["label"]}

    def class_counts(self, rows: Dataset) -> dict[str, int]:
        return {} if self.regression else count_labels(on_disk.Cells(rows, "label"))

    def remarks(self) -> list[str]:
        """Classes that are probably the same, rare or without a name, and what was folded; or that it is regression."""
        if self.regression:
            assert self._train is not None
            return [regression.remark(column(self._train, "label"))]
        folded = ", ".join(f"{label!r} as {name!r}" for label, name in self._naming.folded.items())
        counts = dict(zip(self.labels, self._counts.tolist(), strict=True))
        found = [f"--fold_labels reads {folded}"] * bool(folded) + doubts(counts)
        if all(map(is_number, self.labels)):
            found.append(
                "the classes are numbers, which users get for an answer; --label_names no,yes, or --label_name_column, "
                "names them"
            )
        return found

    def advice(self, frozen: bool = False) -> str | None:
        return None if self.regression else better_method(int(self._counts.min()), frozen)

    def input_of(self, row: dict[str, Any]) -> str:
        return "\n".join(self.texts_of(row))

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return [row[name] for name in ("text", "text_pair") if name in row]

    def adapt(self, tokenizer: Tokenizer, model: Model) -> None:
        """Padding where the family's pooling expects it; GPT-2 has no padding token and nothing between two texts."""
        check_fast(tokenizer)
        if self.text_pair_column:
            check_pairs(model)
        architecture = ARCHITECTURES[model.config.model_type]
        tokenizer.padding_side = architecture.padding_side
        give_segments(tokenizer, model)
        known = model.config.pad_token_id
        give_padding(tokenizer, model)
        if known != tokenizer.pad_token_id:
            self._pad_token_id = tokenizer.pad_token_id
        if self.text_pair_column:
            give_separator(tokenizer, model, last=False)  # at the end, GPT-2's head would read it

    def objective(self, model: Model) -> torch.nn.Module:
        if not self.label_smoothing and self.class_weights == "none" and not self.r_drop:
            return model
        if self.r_drop and not any(isinstance(part, torch.nn.Dropout) and part.p for part in model.modules()):
            raise UserError(
                "--r_drop compares two passes with other dropout, and the model has none; omit it, or train an adapter "
                "with --dropout"
            )
        from tl_hub.tasks import objectives  # it needs torch, for which --help does not wait

        weights = self._weights_of_classes()
        return objectives.WithLoss(model, self.label_smoothing, self.multi_label, weights, self.r_drop)

    def _weights_of_classes(self) -> torch.Tensor | None:
        """How much a row of each class counts, or the answer yes to each label: (classes,)."""
        if self.class_weights == "none":
            return None
        from tl_hub.tasks import objectives  # it needs torch, for which --help does not wait

        return objectives.balanced(torch.from_numpy(self._counts), len(self._train or []), self.multi_label)

    def loss_weight(self, batch: dict[str, Any]) -> torch.Tensor:
        weights = None if self.multi_label else self._weights_of_classes()
        if weights is None:
            return super().loss_weight(batch)
        return weights.to(batch["labels"].device)[batch["labels"]].sum()

    def encode(self, rows: Dataset, tokenizer: Tokenizer, model: Model) -> Dataset:
        longest = longest_input(model.config)
        max_length = self.max_length = min(self.max_length, longest or self.max_length)  # so that the record tells it
        check_window(f"the model reads {longest} tokens at most", max_length, self.doc_stride)
        segments = ARCHITECTURES[model.config.model_type].token_type_ids

        def encode_batch(batch: Columns, indices: range) -> Columns:
            columns = windows(tokenizer, batch["text"], batch.get("text_pair"), max_length, self.doc_stride, segments)
            if "label" in batch:
                columns["labels"] = [self._target(batch["label"][place]) for place in columns["row"]]
            return {**columns, "row": [indices[place] for place in columns["row"]]}

        return on_disk.mapped(rows, encode_batch)

    def _target(self, label: Any) -> int | float | list[float]:
        if self.regression:
            return label
        if self.multi_label:
            return [float(name in label) for name in self.labels]
        return self.labels.index(label)

    def notes(self, encoded: Dataset) -> list[str]:
        """Rows that took several windows, and pairs of which something was cut."""
        row = column(encoded, "row")
        long = int((np.bincount(row) > 1).sum())
        cut = len(np.unique(row[column(encoded, "cut")]))
        notes = [f"overlapping windows were needed to read {_rows(long)} whole"] if long else []
        if self.regression and "labels" in encoded.column_names:
            labels = column(encoded, "labels")
            notes.append(f"the labels are numbers from {labels.min():g} to {labels.max():g}")
        return notes + ([f"both texts of {_rows(cut)} are long and the shorter one was cut"] if cut else [])

    def collator(self, tokenizer: Tokenizer, training: bool) -> Collator:
        return transformers.DataCollatorWithPadding(tokenizer, pad_to_multiple_of=PAD_TO)

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": outputs.logits.float()}

    def logits(self, predictions: dict[str, np.ndarray], encoded: Dataset) -> np.ndarray:
        """What the model gives for each row, the mean over its windows: (rows, classes), or (rows, 1) in regression."""
        return row_means(predictions["logits"].astype(float), column(encoded, "row"))

    def probabilities(self, logits: np.ndarray, decision: dict[str, float]) -> np.ndarray:
        """Probability of each class for each row, from its logits, (rows, classes)."""
        scaled = torch.from_numpy(logits / decision.get("temperature", 1.0))
        return (scaled.sigmoid() if self.multi_label else scaled.softmax(1)).numpy()

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, encoded: Dataset, decision: dict[str, float] | None
    ) -> Score:
        if self.regression:
            return regression.score(self.logits(predictions, encoded)[:, 0], rows)
        logits, expected = self.logits(predictions, encoded), self._indicators(on_disk.Cells(rows, "label"))
        final = decision is not None
        if self.multi_label and self.threshold:
            decision = {"threshold": self.threshold}
        elif decision is None or (self.multi_label and "threshold" not in decision):
            decision = decided(logits, expected, self.multi_label, self.sure_at)
        probabilities = self.probabilities(logits, decision)
        predicted = given_classes(probabilities, decision.get("threshold"))
        metrics, intervals = figures(expected, predicted, probabilities, self.multi_label)

        def shown() -> Iterator[Columns]:
            for numbers, batch in on_disk.parts(rows):
                part = slice(numbers.start, numbers.stop)
                found = {**reading.text_columns(batch), "expected": batch["label"]}
                names = names_of(predicted[part], self.labels)
                if self.multi_label:
                    yield {**found, "predicted": names}
                else:
                    sure = [round(float(each), 4) for each in probabilities[part].max(1)]
                    yield {**found, "predicted": [each[0] for each in names], "probability": sure}

        score = Score(metrics, predictions=on_disk.written(shown()), decision=decision, intervals=intervals)
        if final and not self.multi_label:
            score.confidence, score.right = probabilities.max(1), (expected == predicted).all(1)
            before = self.probabilities(logits, {}).max(1)
            score.tables = calibration.tables(score.confidence, score.right, before, decision)
        return score

    def examples(self, vectors: np.ndarray, row: np.ndarray) -> np.ndarray:
        """What a head on frozen vectors reads of each row: the mean over its windows, (rows, dimensions).

        Args:
            vectors: (windows, dimensions).
            row: of each window, (windows,); those of one row stand together.
        """
        return row_means(vectors, row)

    def targets(self, rows: Dataset) -> np.ndarray:
        """Which classes each row has, bool, (rows, classes), or its number in regression, float, (rows, 1)."""
        return column(rows, "label")[:, None] if self.regression else self._indicators(on_disk.Cells(rows, "label"))

    def _indicators(self, labels: Any) -> np.ndarray:
        return indicators(labels, self.labels)

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
        score.tables = self.tables(rows, score) | score.tables
        if not (self.multi_label or self.regression):
            found = (self._indicators(_shown(score, name)) for name in ("expected", "predicted"))
            report.draw(folder / run_folder.CONFUSION, self.labels, *found)

    def tables(self, rows: Dataset, score: Score) -> dict[str, list[dict[str, Any]]]:
        """Baselines fitted on the training rows, figures of each class and, for one class a text, the confusions."""
        (texts, labels), asked = self._known(), (self.input_of(row) for row in on_disk.each(rows))
        given = _shown(score, "predicted")
        if self.regression:
            found = regression.baselines(texts, np.array(labels), asked, column(rows, "label"), np.array(list(given)))
            return {"Baselines": found}
        known, expected, predicted = map(self._indicators, (labels, on_disk.Cells(rows, "label"), given))
        tables = {
            "Baselines": report.systems(texts, known, asked, expected, predicted, self.multi_label),
            "Classes": report.by_class(self.labels, self._counts, expected, predicted),
        }
        return tables if self.multi_label else tables | report.confusions(self.labels, expected, predicted)

    def _known(self) -> tuple[list[str], list[Any]]:
        """Texts and labels of the training rows, or of 10,000 drawn from more by a fixed seed: baselines learn them."""
        assert self._train is not None
        train = self._train
        if len(train) > _BASELINE_ROWS:
            train = train.shuffle(seed=0).select(range(_BASELINE_ROWS))
        return [self.input_of(row) for row in on_disk.each(train)], train["label"][:]


@dataclass(kw_only=True)
class SentimentAnalysis(Classification):
    """Whether a text is positive or negative about its subject."""

    max_length: int = flag(128, "tokens in a window, special tokens included")
    doc_stride: int = flag(32, "tokens that neighbouring windows of a long text share", follows="max_length")


@dataclass(kw_only=True)
class DocumentClassification(Classification):
    """What a whole document is about."""

    sample: ClassVar[str] = "documents"


def _shown(score: Score, name: str) -> Iterator[Any]:
    """One of the columns of what is shown of each row."""
    return (row[name] for row in on_disk.each(score.predictions))


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
