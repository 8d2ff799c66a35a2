"""Classification of texts and pairs of texts: one class each, or any number of labels each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from transformers import DataCollatorWithPadding

from tl_hub import run_folder
from tl_hub.architectures import ARCHITECTURES, PAD_TO, longest_input
from tl_hub.config import flag
from tl_hub.errors import UserError
from tl_hub.metrics import best_threshold, expected_calibration_error, f1_interval
from tl_hub.tasks import regression
from tl_hub.tasks.base import (
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
from tl_hub.tasks.labels import (
    count_labels,
    doubts,
    is_number,
    map_labels,
    most_frequent_spellings,
    names_by_rows,
    names_of_numbers,
    parse_names,
    read_labels,
    spelling_key,
)

_MATRIX = 20
"""Classes up to which a confusion matrix is shown as a table; of more, the most frequent confusions are."""

_BASELINE_ROWS = 10_000
_CHECKED_AT_ONCE = 10_000
_FEW = 64
"""Training rows a class up to which frozen vectors were better in our measurements, and above which training was:
SST-2, MiniLM, `tests/benchmarks/few_examples.py`; the table is in model_cards/README.md."""


@dataclass(kw_only=True)
class Classification(Task):
    """The class of a text is read off one vector of the model: `[CLS]`, the last token or `</s>`, as its family has it.

    Texts longer than the window are read in overlapping windows: in training each is an example with the row's label,
    and a row's logits are the mean over its windows. A label column of lists makes the task a multi-label one; one of
    numbers with fractions makes it regression (`tl_hub.tasks.regression`).

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
    class_weights: Literal["none", "balanced"] = flag("none", "balanced: rare classes count more in training")
    threshold: float | None = flag(None, "multi-label: probability of a label that is given; chosen on validation rows")

    def __post_init__(self) -> None:
        if self.doc_stride < 1:
            raise UserError(f"--doc_stride is {self.doc_stride}; it must be at least 1")
        _check_window(f"--max_length is {self.max_length}", self.max_length, self.doc_stride)
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"--label_smoothing is {self.label_smoothing}; it must lie in [0, 1)")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise UserError(f"--threshold is {self.threshold}; it must lie between 0 and 1")
        if self.regression:
            self._check_regression()
        self.labels: list[str] = []
        self.multi_label = False
        if self.label_names:
            parse_names(self.label_names)
        for name, value in (("label_names", self.label_names), ("label_separator", self.label_separator)):
            if self.label_name_column and value:
                raise UserError(f"--label_name_column and --{name} exclude each other; omit one of them")
        self.spellings: dict[str, str] = {}  # with fold_labels: key -> label, the training rows' before others'
        self._folded: dict[str, str] = {}
        self._label_map: Mapping[str, str] | None = None  # of a model that is only measured
        self._outputs: int | None = None  # of such a model
        self._seen = False
        self._names: list[str] = []  # of a ClassLabel, in its order
        self._table: dict[int, str] = {}  # with label_name_column: the names of the numbers seen so far
        self._train: Dataset | None = None
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
            "class_weights": self.class_weights != "none",
            "threshold": self.threshold,
        }
        for name in (name for name, value in given.items() if value):
            raise UserError(f"--{name} is for classes, and the labels are numbers (regression); omit one of them")
        self.best = ("rmse", False)  # type: ignore[misc]

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
        if self._label_map is None or self.label_name_column in rows.column_names:
            given["label_name"] = self.label_name_column  # rows to measure a model on may have the names for labels
        columns = {name: column for name, column in given.items() if column}
        rows = select_columns(rows, columns)
        kind = rows.features["label"]
        names = getattr(getattr(kind, "feature", kind), "names", None)
        texts = [name for name in ("text", "text_pair") if name in rows.column_names]
        kept = np.arange(len(rows))
        for name in texts:
            told = np.zeros(len(rows), dtype=bool)  # public data have blank rows
            for start in range(0, len(rows), _CHECKED_AT_ONCE):
                for i, text in enumerate(rows[name][start : start + _CHECKED_AT_ONCE], start):
                    if text is not None and not isinstance(text, str):
                        raise UserError(f"row {i}: {columns[name]} is {text!r}; it must be a text")
                    told[i] = bool(text and text.strip())
            kept = kept[told[kept]]
        if len(kept) == 0:
            raise UserError(f"none of the {len(rows)} rows has a text in {' and '.join(columns[n] for n in texts)}")
        cells = rows["label"][:]
        if self.regression is None and not self._seen and not self.label_separator and not names:
            self.regression = regression.are_numbers(cells) or None
            if self.regression:
                self._check_regression()
            else:
                regression.check_commas(cells, self.label_column)
        self._seen = True  # the first rows, which are those of training where there are some, decide for all
        several = False
        if self.regression:
            labels: list[Any] = regression.read_numbers(cells, kept.tolist(), self.label_column)
        else:
            labels, several = read_labels(cells, kept.tolist(), names, self.label_separator, self.label_column)
        missing = [i for i, label in zip(kept, labels, strict=True) if label is None]
        if len(missing) == len(kept):
            return rows.select([])
        if missing:
            raise UserError(f"{len(missing)} rows have no {self.label_column} (the first is row {missing[0]})")
        if "label_name" in columns:
            called, _ = read_labels(rows["label_name"][:], kept.tolist(), None, None, columns["label_name"])
            both = self.label_column, columns["label_name"]
            self._table = names_by_rows(labels, called, kept.tolist(), both, self._table)
            labels = [self._table[int(label)] for label in labels]
            names = list(self._table.values())
        if self._label_map:
            labels = map_labels(labels, self._label_map)
        if self.label_names:
            # Classes of other rows that are not numbers are for --label_map.
            measured = self._label_map is not None
            found = [label for label in count_labels(labels) if not measured or is_number(label)]
            table = names_of_numbers(self.label_names, found, self.label_column)
            names = list(table.values())
            labels = map_labels(labels, {label: table[int(label)] for label in found if label not in names})
            # As it is recorded: other rows need not have all of the numbers.
            self.label_names = ",".join(f"{number}={name}" for number, name in table.items())
        if self.fold_labels:
            counts = count_labels(labels)
            self.spellings = most_frequent_spellings(counts) | self.spellings
            folded = {label: self.spellings[spelling_key(label)] for label in counts}
            self._folded |= {label: name for label, name in sorted(folded.items()) if label != name}
            labels = map_labels(labels, folded)
        self._names = names or self._names
        rows = (rows if len(kept) == len(rows) else rows.select(kept)).select_columns(texts)
        strings = Features({name: Value("string") for name in texts})
        rows = rows if rows.features == strings else rows.cast(strings)  # rows on the disk stay there
        kind = Value("float64") if self.regression else List(Value("string")) if several else Value("string")
        return rows.add_column("label", labels, feature=kind)

    def recall(self, config: Any, decision: dict[str, float], label_map: Mapping[str, str] | None = None) -> None:
        """The classes of a model, as the rows may lack some of them; those of the rows where the model's have no names.

        Raises:
            UserError: `label_map` leads to a class that the model does not have, or it gives numbers.
        """
        labels = list(config.id2label.values())
        self.regression = config.problem_type == regression.PROBLEM
        self.multi_label = "threshold" in decision or config.problem_type == "multi_label_classification"
        self._outputs = config.num_labels
        if self.regression:
            return super().recall(config, decision, label_map)
        if labels[0] == "LABEL_0" and not label_map:
            return None
        label_map = label_map or {}
        unknown = [f"{label}={name}" for label, name in label_map.items() if name not in labels]
        if unknown:
            raise UserError(f"--label_map {unknown[0]}: the model's classes are {', '.join(labels)}")
        self.labels, self._label_map = labels, label_map
        self.spellings = {spelling_key(label): label for label in labels}
        self.class_weights, self.label_smoothing = "none", 0.0  # of training alone

    def _check_measured(self, rows: Dataset) -> None:
        if isinstance(rows.features["label"], List) != self.multi_label:
            several, one = "any number of labels, as a list or with --label_separator", "one class"
            given, wanted = (one, several) if self.multi_label else ("lists of classes", one)
            raise UserError(
                f"the rows have {given} each, and the model gives {wanted}; name them in {self.label_column} so"
            )
        found = sorted(self.class_counts(rows))
        unknown = [label for label in found if label not in self.labels]
        if unknown:
            alike = all(spelling_key(label) in self.spellings for label in unknown)
            raise UserError(
                f"the rows have the classes {', '.join(found)}, the model {', '.join(self.labels)}; "
                + (
                    "--fold_labels takes other spellings for one class"
                    if alike
                    else f"name the model's class for {', '.join(map(repr, unknown))} with --label_map, such as "
                    f"{unknown[0]}={self.labels[0]}"
                )
            )

    def learn(self, rows: dict[str, Dataset]) -> None:
        if self._label_map is not None:
            for part in rows.values():
                self._check_measured(part)
            return
        train = self._train = rows["train"]
        if self.regression:
            regression.check_varied(column(train, "label"))
            self.labels = [regression.SCORE]
            return
        self.multi_label = isinstance(train.features["label"], List)
        if self.threshold is not None and not self.multi_label:
            raise UserError(
                f"--threshold is {self.threshold}, but each row has one class, and the likeliest one is given; omit "
                "--threshold, or give lists of labels (or --label_separator)"
            )
        counts = self.class_counts(train)
        whole = all(map(is_number, counts))
        order = {name: i for i, name in enumerate(self._names)}
        self.labels = sorted(counts, key=lambda label: (order.get(label, 0), int(label) if whole else 0, label))
        if len(self.labels) < 2:
            raise UserError(
                f"the {len(train):,} training rows have fewer than 2 classes{_quoted(self.labels)}; if the rows "
                "are sorted by class, mix them or omit --train_rows"
            )
        if self._outputs not in (None, len(self.labels)):
            raise UserError(f"the rows have {len(self.labels)} classes, the model {self._outputs}")
        for name, part in rows.items():
            if isinstance(part.features["label"], List) != self.multi_label:
                raise UserError(f"{self.label_column} holds lists in the training or the {name} rows, but not in both")
            unseen = sorted(set(self.class_counts(part)) - set(counts))
            if unseen:
                alike = {spelling_key(label) for label in unseen} <= {spelling_key(label) for label in counts}
                raise UserError(
                    f"the {name} rows have {len(unseen)} class{'es' * (len(unseen) > 1)} that no training row "
                    f"has{_quoted(unseen)}; "
                    + (
                        "--fold_labels takes other spellings for one class"
                        if alike
                        else "add training rows of it or remove it"
                    )
                )
        self._counts = np.array([counts[label] for label in self.labels])
        if self.multi_label:
            # All labels right is rarely reached early: it would not tell the first epochs apart.
            self.best = ("micro_f1", True)  # type: ignore[misc]

    def class_counts(self, rows: Dataset) -> dict[str, int]:
        return {} if self.regression else count_labels(rows["label"])

    def remarks(self) -> list[str]:
        """Classes that are probably the same, rare or without a name, and what was folded; or that it is regression."""
        if self.regression:
            assert self._train is not None
            return [regression.remark(column(self._train, "label"))]
        folded = ", ".join(f"{label!r} as {name!r}" for label, name in self._folded.items())
        counts = dict(zip(self.labels, self._counts.tolist(), strict=True))
        found = [f"--fold_labels reads {folded}"] * bool(folded) + doubts(counts)
        if all(map(is_number, self.labels)):
            found.append(
                "the classes are numbers, which users get for an answer; --label_names no,yes, or --label_name_column, "
                "names them"
            )
        return found

    def advice(self, frozen: bool = False) -> str | None:
        if self.regression:
            return None
        fewest = int(self._counts.min())
        if frozen == (fewest <= _FEW):
            return None
        if frozen:
            return (
                f"{fewest:,} training rows of the rarest class: with more than {_FEW} a class training was better in "
                "our measurements than frozen vectors (model_cards/README.md), and takes longer; try the recipe "
                "*_adapter.py or *_finetune.py"
            )
        return (
            f"{fewest} training rows of the rarest class: with up to {_FEW} a class frozen vectors were better in our "
            "measurements than training (model_cards/README.md), and take seconds; try the recipe *_features.py"
        )

    def input_of(self, row: dict[str, Any]) -> str:
        return "\n".join(row[name] for name in ("text", "text_pair") if name in row)

    def adapt(self, tokenizer: Any, model: Any) -> None:
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

    def objective(self, model: Any) -> torch.nn.Module:
        if not self.label_smoothing and self.class_weights == "none":
            return model
        return _WithLoss(model, self)

    def encode(self, rows: Dataset, tokenizer: Any, model: Any) -> Dataset:
        longest = longest_input(model.config)
        max_length = self.max_length = min(self.max_length, longest or self.max_length)  # so that the record tells it
        _check_window(f"the model reads {longest} tokens at most", max_length, self.doc_stride)
        segments = ARCHITECTURES[model.config.model_type].token_type_ids

        def encode_batch(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
            columns = windows(tokenizer, batch["text"], batch.get("text_pair"), max_length, self.doc_stride, segments)
            if "label" in batch:
                columns["labels"] = [self._target(batch["label"][place]) for place in columns["row"]]
            return {**columns, "row": [indices[place] for place in columns["row"]]}

        return rows.map(
            encode_batch, with_indices=True, batched=True, remove_columns=rows.column_names, desc="tokenizing"
        )

    def _target(self, label: Any) -> int | float | list[float]:
        if self.regression:
            return label
        if self.multi_label:
            return [float(name in label) for name in self.labels]
        return self.labels.index(label)

    def notes(self, features: Dataset) -> list[str]:
        """Rows that took several windows, and pairs of which something was cut."""
        row = column(features, "row")
        long = int((np.bincount(row) > 1).sum())
        cut = len(np.unique(row[column(features, "cut")]))
        notes = [f"overlapping windows were needed to read {_rows(long)} whole"] if long else []
        if self.regression and "labels" in features.column_names:
            labels = column(features, "labels")
            notes.append(f"the labels are numbers from {labels.min():g} to {labels.max():g}")
        return notes + ([f"both texts of {_rows(cut)} are long and the shorter one was cut"] if cut else [])

    def collator(self, tokenizer: Any, training: bool) -> Any:
        return DataCollatorWithPadding(tokenizer, pad_to_multiple_of=PAD_TO)

    def predict(self, outputs: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": outputs.logits.float()}

    def logits(self, predictions: dict[str, np.ndarray], features: Dataset) -> np.ndarray:
        """What the model gives for each row, the mean over its windows: (rows, classes), or (rows, 1) in regression."""
        return row_means(predictions["logits"].astype(float), column(features, "row"))

    def probabilities(self, predictions: dict[str, np.ndarray], features: Dataset) -> np.ndarray:
        """Probability of each class for each row, from the mean of the logits of its windows: (rows, classes)."""
        logits = torch.from_numpy(self.logits(predictions, features))
        return (logits.sigmoid() if self.multi_label else logits.softmax(1)).numpy()

    def score(
        self, predictions: dict[str, np.ndarray], rows: Dataset, features: Dataset, decision: dict[str, float] | None
    ) -> Score:
        if self.regression:
            return regression.score(self.logits(predictions, features)[:, 0], rows)
        probabilities = self.probabilities(predictions, features)
        expected = self._indicators(rows["label"])
        if self.multi_label:
            chosen = self.threshold or (decision or {}).get("threshold") or best_threshold(probabilities, expected)
            decision = {"threshold": chosen}
            predicted = probabilities >= chosen
        else:
            decision = {}
            predicted = probabilities == probabilities.max(1, keepdims=True)
            predicted &= predicted.cumsum(1) == 1  # of equal ones the first
        right = (expected == predicted).all(1)
        metrics: dict[str, np.ndarray] = {"accuracy": 100.0 * right}
        intervals = {}
        for average in ("micro", "macro") if self.multi_label else ("macro",):
            metrics[f"{average}_f1"] = np.array(100 * f1(expected, predicted, average))
            low, high = f1_interval(expected, predicted, average)
            intervals[f"{average}_f1"] = (100 * low, 100 * high)
        if not self.multi_label:
            error = expected_calibration_error(probabilities.max(1), right)
            metrics["expected_calibration_error"] = np.array(100 * error)
        shown = [
            {
                **{name: row[name] for name in ("text", "text_pair") if name in row},
                "expected": row["label"],
                "predicted": names if self.multi_label else names[0],
                **({} if self.multi_label else {"probability": round(float(probability.max()), 4)}),
            }
            for row, names, probability in zip(rows, self._given(predicted), probabilities, strict=True)
        ]
        return Score(metrics, predictions=shown, decision=decision, intervals=intervals)

    def examples(self, vectors: np.ndarray, row: np.ndarray) -> np.ndarray:
        """What a head on frozen vectors reads of each row: the mean over its windows, (rows, dimensions).

        Args:
            vectors: (windows, dimensions).
            row: of each window, (windows,); those of one row stand together.
        """
        return row_means(vectors, row)

    def targets(self, rows: Dataset) -> np.ndarray:
        """Which classes each row has, bool, (rows, classes), or its number in regression, float, (rows, 1)."""
        return column(rows, "label")[:, None] if self.regression else self._indicators(rows["label"])

    def _indicators(self, labels: Any) -> np.ndarray:
        """Which classes each row has, bool, (rows, classes)."""
        place = {label: i for i, label in enumerate(self.labels)}
        indicators = np.zeros((len(labels), len(self.labels)), dtype=bool)
        for row, names in enumerate(_lists(labels)):
            indicators[row, [place[name] for name in names]] = True
        return indicators

    def _given(self, indicators: np.ndarray) -> list[list[str]]:
        return [[self.labels[i] for i in np.flatnonzero(row)] for row in indicators]

    def report(
        self,
        score: Score,
        rows: Dataset,
        model: Any,
        tokenizer: Any,
        *,
        folder: Path,
        seed: int,
        before: Score | None = None,
    ) -> None:
        score.tables = self.tables(rows, score) | score.tables
        self.draw(folder, score)

    def tables(self, rows: Dataset, score: Score) -> dict[str, list[dict[str, Any]]]:
        """Baselines fitted on the training rows, figures of each class and, for one class a text, the confusions."""
        from sklearn.metrics import precision_recall_fscore_support

        if self.regression:
            texts, labels = self._known()
            asked = [self.input_of(row) for row in rows]
            found = np.array([shown["predicted"] for shown in score.predictions])
            return {"Baselines": regression.baselines(texts, np.array(labels), asked, column(rows, "label"), found)}
        expected = self._indicators(rows["label"])
        predicted = self._indicators([shown["predicted"] for shown in score.predictions])
        figures = precision_recall_fscore_support(expected, predicted, average=None, zero_division=0.0)
        tables = {
            "Baselines": self._baselines(rows, expected, predicted),
            "Classes": [
                {
                    "class": label,
                    "training rows": int(learned),
                    "rows": int(count),
                    "precision": 100 * p,
                    "recall": 100 * r,
                    "F1": 100 * f,
                }
                for label, learned, p, r, f, count in zip(
                    self.labels, self._counts, *map(np.ndarray.tolist, figures), strict=True
                )
            ],
        }
        if self.multi_label:
            return tables
        matrix = (expected.astype(int).T @ predicted).tolist()
        if len(self.labels) <= _MATRIX:
            tables["Confusion matrix"] = [
                {"expected": label, **{f"predicted {name}": n for name, n in zip(self.labels, counts, strict=True)}}
                for label, counts in zip(self.labels, matrix, strict=True)
            ]
        else:
            pairs = [
                {"expected": self.labels[i], "predicted": self.labels[j], "rows": count}
                for i, counts in enumerate(matrix)
                for j, count in enumerate(counts)
                if count and i != j
            ]
            tables["Most frequent confusions"] = sorted(pairs, key=lambda pair: -pair["rows"])[:_MATRIX]
        return {title: table for title, table in tables.items() if table}

    def _baselines(self, rows: Dataset, expected: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
        """This model beside what knows nothing and what knows words only, fitted on 10,000 training rows at most."""
        from tl_hub.tasks import baselines

        texts, labels = self._known()
        known, multi_label = self._indicators(labels), self.multi_label
        asked = [self.input_of(row) for row in rows]
        by_words, strength = baselines.linear_model_of_words(texts, known, asked, multi_label)
        found = {
            "this model": predicted,
            "most frequent class": baselines.most_frequent(known, len(rows), multi_label),
            f"TF-IDF and logistic regression (C = {strength:g})": by_words,
        }
        return [
            {
                "system": name,
                "accuracy": 100 * float((guess == expected).all(1).mean()),
                **({"micro F1": 100 * f1(expected, guess, "micro")} if self.multi_label else {}),
                "macro F1": 100 * f1(expected, guess, "macro"),
            }
            for name, guess in found.items()
        ]

    def _known(self) -> tuple[list[str], list[Any]]:
        """Texts and labels of the training rows, or of 10,000 drawn from more by a fixed seed: baselines learn them."""
        assert self._train is not None
        train = self._train
        if len(train) > _BASELINE_ROWS:
            train = train.shuffle(seed=0).select(range(_BASELINE_ROWS))
        return [self.input_of(row) for row in train], train["label"][:]

    def draw(self, folder: Path, score: Score) -> None:
        """`confusion.png`: share of the rows of each class (line) that were given each class (column).

        Classes stand there by their numbers where no font that is installed has all letters of their names.
        """
        if self.multi_label or self.regression:
            return
        from matplotlib.figure import Figure  # not pyplot, whose backend may be the user's

        expected = self._indicators([shown["expected"] for shown in score.predictions]).astype(int)
        counts = expected.T @ self._indicators([shown["predicted"] for shown in score.predictions])
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        size = min(16, 3 + 0.5 * len(counts))
        figure = Figure(figsize=(size + 1, size), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        places, fonts = range(len(counts)), _fonts_for(self.labels)
        names = [label if fonts else str(i) for i, label in enumerate(self.labels)]
        # A "$" in a name is not the start of a formula.
        axes.set_xticks(places, names, rotation=45, ha="right", family=fonts or None, parse_math=False)
        axes.set(xlabel="predicted", ylabel="expected")
        axes.set_yticks(places, names, family=fonts or None, parse_math=False)
        if len(counts) <= _MATRIX:
            for i in places:
                for j in places:
                    axes.text(j, i, counts[i, j], ha="center", va="center", color="w" if share[i, j] > 0.5 else "k")
        figure.colorbar(image, label="share of the expected class")
        figure.savefig(folder / run_folder.CONFUSION, dpi=110)


@dataclass(kw_only=True)
class SentimentAnalysis(Classification):
    """Whether a sentence speaks well or ill of its subject."""

    max_length: int = flag(128, "tokens in a window, special tokens included")
    doc_stride: int = flag(32, "tokens that neighbouring windows of a long text share", follows="max_length")


@dataclass(kw_only=True)
class DocumentClassification(Classification):
    """What a whole document is about."""

    sample: ClassVar[str] = "documents"


class _WithLoss(torch.nn.Module):
    """A model whose loss weighs the classes or smooths the labels, which those of `transformers` cannot."""

    def __init__(self, model: Any, task: Classification):
        super().__init__()
        self.model, self.smoothing, self.multi_label = model, task.label_smoothing, task.multi_label
        counts, rows = torch.from_numpy(task._counts).float(), len(task._train or [])
        weights = (rows - counts) / counts if task.multi_label else rows / (len(counts) * counts)
        # A weight of 0 would unlearn a label that every row has.
        self.weights = weights.clamp(min=1 / rows) if task.class_weights == "balanced" else None

    def forward(self, labels: torch.Tensor | None = None, **inputs: torch.Tensor) -> Any:
        outputs = self.model(**inputs)
        if labels is not None:
            logits = outputs.logits.float()
            weights = None if self.weights is None else self.weights.to(logits.device)
            if self.multi_label:
                labels = labels * (1 - self.smoothing) + self.smoothing / 2
                outputs.loss = binary_cross_entropy_with_logits(logits, labels, pos_weight=weights)
            else:
                outputs.loss = cross_entropy(logits, labels, weights, label_smoothing=self.smoothing)
        return outputs


def windows(
    tokenizer: Any, texts: list[str], pairs: list[str] | None, max_length: int, doc_stride: int, segments: bool
) -> dict[str, list]:
    """Cut each text, or pair of texts, into windows of at most `max_length` tokens that share `doc_stride` tokens.

    Each window is whole to the model, with its own special tokens, and of a pair it holds both texts: the longer one
    is cut into windows, and the shorter one stands in all of them, cut to half a window if need be.

    Returns:
        Columns of one entry a window: `input_ids`, `token_type_ids` (if `segments`), `row` (place in `texts`), `length`
        (tokens) and `cut` (something of the row is in no window).
    """
    columns: dict[str, list] = {name: [] for name in ("input_ids", "row", "length", "cut")}
    if segments:
        columns["token_type_ids"] = []
    # A "</s>" in a text is text: T5 must find the same number of its own in each row.
    own = {tokenizer.cls_token, tokenizer.sep_token, tokenizer.eos_token, tokenizer.pad_token} - {None}
    marks = re.compile("|".join(map(re.escape, own)))
    texts = [marks.sub(_spaced, text) for text in texts]
    if pairs is None:
        groups = [("only_first", list(range(len(texts))))]
        cut = [False] * len(texts)
    else:
        pairs = [marks.sub(_spaced, text) for text in pairs]
        half = max_length // 2 - 4
        sizes = np.array([_sizes(tokenizer, texts), _sizes(tokenizer, pairs)])
        cut = ((sizes.min(0) > half) & (sizes.sum(0) > max_length - 4)).tolist()
        second = sizes[1] >= sizes[0]
        texts = [_shortened(tokenizer, t, half) if c and s else t for t, c, s in zip(texts, cut, second, strict=True)]
        pairs = [
            _shortened(tokenizer, t, half) if c and not s else t for t, c, s in zip(pairs, cut, second, strict=True)
        ]
        groups = [("only_first", np.flatnonzero(~second).tolist()), ("only_second", np.flatnonzero(second).tolist())]
    for truncation, places in groups:
        if not places:
            continue
        encoded = tokenizer(
            [texts[place] for place in places],
            None if pairs is None else [pairs[place] for place in places],
            truncation=truncation,
            max_length=max_length,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_token_type_ids=segments,
        )
        rows = [places[sample] for sample in encoded["overflow_to_sample_mapping"]]
        columns["row"] += rows
        columns["cut"] += [cut[row] for row in rows]
        columns["length"] += [len(ids) for ids in encoded["input_ids"]]
        for name in ("input_ids", "token_type_ids") if segments else ("input_ids",):
            columns[name] += encoded[name]
    order = np.argsort(columns["row"], kind="stable")
    return {name: [values[place] for place in order] for name, values in columns.items()}


def row_means(values: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Mean over the windows of each row.

    Args:
        values: (windows, classes).
        row: of each window, (windows,); those of one row stand together.

    Returns:
        (rows, classes), in the precision of `values`.
    """
    first = np.flatnonzero(np.r_[True, row[1:] != row[:-1]][: len(row)])
    if len(first) == len(row):
        return values
    counts = np.diff(np.r_[first, len(row)]).astype(values.dtype)
    return np.add.reduceat(values, first, axis=0) / counts[:, None]


def f1(expected: np.ndarray, predicted: np.ndarray, average: str) -> float:
    """F1 from 0 to 1 of indicators (rows, classes); classes that are neither there nor predicted are not averaged."""
    from sklearn.metrics import f1_score

    return float(np.nan_to_num(f1_score(expected, predicted, average=average, zero_division=np.nan)))


def _fonts_for(texts: list[str]) -> list[str]:
    """Names of installed fonts that have all letters of `texts` between them, matplotlib's own first; none if not."""
    from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

    missing = {ord(letter) for text in texts for letter in text}
    fonts = []
    for name in dict.fromkeys([FontProperties().get_name(), *(font.name for font in fontManager.ttflist)]):
        if not missing or name.startswith("Last Resort"):  # a font that has a box for everything
            continue
        found = missing & get_font(findfont(name)).get_charmap().keys()
        missing -= found
        fonts += [name] if found else []
    return [] if missing else fonts


def _check_window(what: str, max_length: int, doc_stride: int) -> None:
    least = 2 * doc_stride + 16  # of a pair, half a window may be the shorter text
    if max_length < least:
        raise UserError(f"{what}; with --doc_stride {doc_stride} it must be at least {least}")


def _lists(labels: Any) -> list[list[str]]:
    return [[label] if isinstance(label, str) else label for label in labels]


def _quoted(labels: list[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:5]) + (", ..." if len(labels) > 5 else "")
    return f" ({shown})" if labels else ""


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _spaced(found: re.Match[str]) -> str:
    return " ".join(found.group())


def _sizes(tokenizer: Any, texts: list[str]) -> list[int]:
    encoded = tokenizer(texts, add_special_tokens=False)
    return [len(ids) for ids in encoded["input_ids"]]


def _shortened(tokenizer: Any, text: str, tokens: int) -> str:
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return text[: encoded["offset_mapping"][tokens - 1][1]]
