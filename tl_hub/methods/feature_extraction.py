"""Feature extraction: the pretrained model is a fixed function of the text; only a head is trained."""

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xxhash
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from tl_hub import base_model, estimate, features, heads, launch, overview, run_folder, training
from tl_hub.architectures import ARCHITECTURES
from tl_hub.base_model import Base
from tl_hub.config import RunConfig, flag
from tl_hub.data import Data, Split
from tl_hub.errors import Checked, UserError
from tl_hub.feature_model import FeatureModel, check_foldable, without_report
from tl_hub.features import Vectors
from tl_hub.heads import STRENGTHS, Head
from tl_hub.methods.base import SOURCES
from tl_hub.published_settings import Row
from tl_hub.tasks.base import Score, column
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.training_state import History

_SWEEP_ROWS = 3000
_FEWEST_TO_CHOOSE = 500
"""Training texts below which cross-validation chooses a layer by noise; model_cards/README.md has the measurement."""
_HEAD_ROWS = 50_000
"""Examples that a head is fitted on, at most: their vectors must fit into memory several times."""
_READ_AT_ONCE = 10_000
"""Windows or sentences whose vectors are in memory at once, where no more is needed of them."""
_MLP_PARTS = 10
"""Parts of the training texts, one of which tells when the training of a multi-layer perceptron stops."""
_SWEEP_STRENGTHS = STRENGTHS[2:5]
_COMPARED_WINDOWS, _COMPARED_PARTS = 2000, 3
_SPAN_RATE, _SPAN_EPOCHS, _SPAN_LEAST, _SPAN_BATCH = 1e-2, 3, 2000, 16
"""Of the heads that tell which layer is best: learning rate, epochs, windows to learn from in all of them, a batch."""
_MOMENTS = 50_000
"""Token vectors, evenly spread, of which mean and deviation are taken."""
_TABLE = "Quality by layer and pooling"
_IDS = ("input_ids", "token_type_ids")

Pooling = Literal["sweep", "mean", "first", "last", "max", "attention"]


@dataclass
class Chosen:
    """What a fit decided: the layers and the pooling that are read, and the head on them.

    Attributes:
        mix: weights with which the layers are summed up; None where they stand side by side.
        sweep: a dict a layer: its number, and its quality with each pooling in cross-validation; empty if none was run.
        metric: what the quality is, in per cent.
        rows: training rows that the head was fitted on.
        decision: what inference needs beside the head, such as a threshold, once it is chosen.
    """

    layers: tuple[int, ...]
    pooling: str
    head: Head
    strength: float
    mix: np.ndarray | None
    sweep: list[dict[str, Any]]
    metric: str
    rows: int
    decision: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclass(kw_only=True)
class FeatureExtraction:
    """Each text is read once by the frozen model; a light head is fitted on vectors pooled from its layers.

    Which layer is best depends on the task (Peters et al. 2019, https://arxiv.org/abs/1903.05987); raw vectors of the
    first or last token, that nothing was trained to fill, are seldom good. Each layer with each pooling is therefore
    compared by cross-validated ridge regression on at most 3,000 training rows, and the head's regularisation is
    chosen by cross-validation too. Rows of validation and test have no part in it. Fewer than 500 texts would choose
    a layer by chance, and the usual pooling of the last four, side by side, serves them better. Of more than 50,000
    texts (of a summarizer: sentences) the head reads about 50,000, drawn by chance.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "feature extraction"
    kind: ClassVar[str] = "feature-extraction"
    unused: ClassVar[tuple[str, ...]] = (
        "epochs",
        "max_steps",
        "accumulation",
        "learning_rate",
        "warmup",
        "schedule",
        "weight_decay",
        "max_grad_norm",
        "checkpoint_minutes",
        "resume",
        "push_every",
        "label_smoothing",
    )
    """Settings of runs and tasks that only training by gradient reads."""
    published: ClassVar[tuple[Row, ...]] = ()

    layer: str = flag(
        "auto",
        "layer (0: embeddings), sweep: the best, last4: side by side, mix: a weighted sum; auto: sweep, but last4 "
        f"where fewer than {_FEWEST_TO_CHOOSE} training texts would choose by chance",
    )
    pooling: Pooling = flag(
        "sweep", "what is taken of the tokens' vectors; attention: a mean weighted by what each receives"
    )
    head: heads.Kind = flag(
        "logistic", "prototypes (the mean of each class) suit a handful of examples, mlp many; of numbers always ridge"
    )
    strength: float | None = flag(
        None, "penalty on the head's squared weights, for each example", shown="chosen by cross-validation"
    )
    cv: int = flag(5, "parts of the training rows in cross-validation")
    fold: bool = flag(
        False,
        "write a whole model of transformers' own class; for one layer's first token of BERT, last of GPT-2 and XLNet",
    )

    def __post_init__(self) -> None:
        if self.layer not in ("auto", "sweep", "last4", "mix") and not self.layer.isdecimal():
            raise UserError(f"--layer is {self.layer!r}; it must be auto, sweep, last4, mix or a whole number from 0")
        if self.strength is not None and not 0 < self.strength < np.inf:
            raise UserError(f"--strength is {self.strength}; it must be a number greater than 0")
        if self.cv < 2:
            raise UserError(f"--cv is {self.cv}; it must be at least 2")
        if self.fold and self.head == "mlp":
            raise UserError("--fold needs a linear head; --head mlp is none")

    @property
    def base_sources(self) -> tuple[str, ...]:
        """Where the base may be for others to load the result; an embedded one is there for all who have tl_hub."""
        return SOURCES if self.fold else ("hub", "embedded")

    def candidates(self, encoder: Any, texts: int) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
        """The layers (or several of them together) and the poolings to choose from by so many training texts.

        Raises:
            UserError: the model has no such layer, or `fold` and a choice exclude each other.
        """
        model_type, depth = encoder.config.model_type, features.depth_of(encoder)
        architecture = ARCHITECTURES[model_type]
        poolings = architecture.poolings if self.pooling == "sweep" else (self.pooling,)
        layers: list[tuple[int, ...]] = [(layer,) for layer in range(depth + 1)]
        few = self.layer == "auto" and texts < _FEWEST_TO_CHOOSE and not self.fold
        if few:
            poolings = poolings[:1]
        if few or self.layer == "last4":
            layers = [tuple(range(max(depth - 3, 0), depth + 1))]
        elif self.layer == "mix":
            layers = [tuple(range(depth + 1))]
        elif self.layer.isdecimal():
            if int(self.layer) > depth:
                raise UserError(f"--layer is {self.layer}; the model has {depth} layers")
            layers = [(int(self.layer),)]
        if self.fold:
            if self.pooling == "sweep" and architecture.fold is not None and architecture.summary == "last":
                raise UserError(
                    f"--fold: transformers' classifier for {model_type} reads the last token, of which frozen vectors "
                    "tell little; omit --fold, whose default takes the mean of all tokens, or give --pooling last"
                )
            if self.pooling == "sweep":
                poolings = (architecture.summary,)  # all that the head reads
            if self.layer in ("auto", "sweep"):
                layers = layers[1:] if architecture.final_norm is None else layers[-1:]  # the norm follows the top one
            check_foldable(model_type, layers[0], poolings[0], depth)
        return layers, poolings

    def fit_head(
        self, model: Any, data: Data, task: Any, tokenizer: Any, base: Base, run: RunConfig, accelerator: Accelerator
    ) -> tuple[Any, History, Score]:
        """Extract the vectors, choose and fit a head on those of training, score it, and put model and head together.

        Raises:
            UserError, Checked: as `extract`.
        """
        vectors = self.extract(model, data, task, tokenizer, run, accelerator)
        chosen, history = self.fit(model, vectors, data, task, run, accelerator)
        score = self.score(chosen, vectors, data, task, history)
        return self.assemble(chosen, model, tokenizer, task, base, run), history, score

    def extract(
        self, model: Any, data: Data, task: Any, tokenizer: Any, run: RunConfig, accelerator: Accelerator
    ) -> dict[str, Vectors]:
        """Vectors of every split, of the layers and poolings to choose from.

        Raises:
            UserError: a setting has no effect here, or does not fit the model.
            Checked: `run.check` asked for no more.
        """
        for settings in (run, task):
            for field in dataclasses.fields(settings):
                if field.name in self.unused and getattr(settings, field.name) != field.default:
                    raise UserError(f"--{field.name} is for training by gradient, which there is none of; omit it")
        if self.fold and isinstance(task, ExtractiveSummarization):
            raise UserError("--fold is for classification of texts; no class of transformers summarizes by sentences")
        if getattr(task, "regression", None):
            if self.head in ("prototypes", "mlp"):
                raise UserError(
                    f"--head {self.head} is for classes, and the labels are numbers (regression); use --head ridge"
                )
            self.head = "ridge"  # the default is for classes, and the record tells what was fitted
        if task.multi_label and self.head == "prototypes":
            raise UserError("--head prototypes is for one class a row; use --head logistic for several labels")
        if task.multi_label and self.head in ("ridge", "mlp") and getattr(task, "class_weights", "none") == "balanced":
            raise UserError("--class_weights balanced with several labels a row needs --head logistic")
        encoder = features.encoder_of(model)
        layers, poolings = self.candidates(encoder, _texts(data.splits["train"], task))
        wanted = sorted({layer for group in layers for layer in group})
        bf16 = accelerator.mixed_precision == "bf16" and not task.exact
        tokens = run.batch_size * task.max_length
        collate = task.collator(tokenizer, training=False)
        overview.show(data, task, accelerator)
        if run.check:
            pool = functools.partial(features.pooled, encoder.to(accelerator.device), layers=wanted, poolings=poolings)
            choice = f"{len(wanted)} layers of {run.model} and {len(poolings)} poolings to choose from"
            kept = sum(len(split.features or ()) for split in data.splits.values())
            values = kept * len(wanted) * len(poolings) * encoder.config.hidden_size
            facts = {"layers": len(wanted), "poolings": len(poolings), **overview.facts(data, task)}
            raise _checked(data, run, pool, collate, tokens, values, choice, facts)
        overview.give_advice(task, accelerator, frozen=True)
        return {
            name: features.extract(encoder, split.features, collate, wanted, poolings, tokens, bf16)
            for name, split in data.splits.items()
            if split.features is not None
        }

    def fit(
        self, model: Any, vectors: dict[str, Vectors], data: Data, task: Any, run: RunConfig, accelerator: Accelerator
    ) -> tuple[Chosen, History]:
        """Choose layer, pooling and strength, and fit the head, on the training rows.

        Writes `log.jsonl` (a line a candidate) and, after a sweep, `layers.png`. What inference needs beside the head
        is chosen on the validation rows.
        """
        folder, start = Path(run.output_dir), time.perf_counter()
        chosen = self.choose(model, vectors["train"], data.splits["train"], task, run.seed)
        if chosen.rows < len(data.splits["train"].rows):
            data.notes.append(f"The head was fitted on {chosen.rows:,} of the training rows, chosen at random.")
        if accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            run_folder.clear(folder)  # there is something only with --overwrite
            lines = [*chosen.sweep, {"layers": chosen.layers, "pooling": chosen.pooling, "strength": chosen.strength}]
            (folder / run_folder.LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
            if len(chosen.sweep) > 1:
                place = "+".join(map(str, chosen.layers))
                _draw(folder, chosen.sweep, place, chosen.pooling, f"{chosen.metric} in cross-validation")
        history = History(rows=len(data.splits["train"].rows))
        history.seconds = vectors["train"].seconds + time.perf_counter() - start
        chosen.decision = history.decision = self._score(chosen, vectors, data, task, "validation", None).decision
        return chosen, history

    def score(self, chosen: Chosen, vectors: dict[str, Vectors], data: Data, task: Any, history: History) -> Score:
        """Score the rows that the reported numbers come from."""
        score = self._score(chosen, vectors, data, task, data.final, history.decision)
        if chosen.sweep:
            read = f"layer {'+'.join(map(str, chosen.layers))}, {chosen.pooling}"
            score.tables[f"{_TABLE}: {chosen.metric} in cross-validation (chosen: {read})"] = chosen.sweep
        return score

    def assemble(self, chosen: Chosen, model: Any, tokenizer: Any, task: Any, base: Base, run: RunConfig) -> Any:
        """The model that is saved: a `FeatureModel` or, with `fold`, one of transformers' own class."""
        encoder = features.encoder_of(model)
        found: dict[str, Any] = {"id": base.id, "source": base.source, "revision": base.revision}
        if base.source == "local":
            found["path"] = str(Path(run.model).resolve())
        sentences = isinstance(task, ExtractiveSummarization)
        config = {
            "base": {**found, "sha256": features.weights_sha256(encoder)},
            "layers": list(chosen.layers),
            "pooling": chosen.pooling,
            "labels": list(task.labels),
            "multi_label": task.multi_label,
            "pairs": bool(getattr(task, "text_pair_column", None)),
            "in_document": sentences,
            "max_length": task.max_length,
            "doc_stride": 0 if sentences else task.doc_stride,
        }
        if task.exact:
            config["regression"] = True
        if "threshold" in chosen.decision:
            config["threshold"] = chosen.decision["threshold"]
        tensors = {"weight": chosen.head.weight, "bias": chosen.head.bias}
        if chosen.head.hidden is not None:
            tensors |= {"hidden.weight": chosen.head.hidden[0], "hidden.bias": chosen.head.hidden[1]}
        if chosen.mix is not None:
            tensors["mix"] = chosen.mix
        made = FeatureModel(encoder, tokenizer, config, tensors).eval()
        return made.folded() if self.fold else made

    def choose(self, model: Any, vectors: Vectors, split: Any, task: Any, seed: int) -> Chosen:
        """Choose by cross-validation on the rows of `split`, and fit the head on all of them, or on some of many.

        Those are drawn by chance: rows that hold about 50,000 examples. Layers and poolings are compared on rows that
        hold about 3,000. A summarizer's examples are sentences, and its rows documents, which stay whole.
        """
        sentences = isinstance(task, ExtractiveSummarization)
        row = column(split.features, "row")
        drawn = _drawn(row, _HEAD_ROWS, sentences or self.head == "mlp", seed)
        vectors, row = _taken(vectors, row, drawn)
        targets = task.targets(split.rows if len(drawn) == len(split.rows) else split.rows.select(drawn))
        layers, poolings = self.candidates(features.encoder_of(model), len(targets))
        parts = min(self.cv, len(drawn))
        if parts < 2:
            raise UserError(f"{len(split.rows)} training rows are too few to choose a head on; give at least 2")
        folds = heads.folds_of(targets, parts, seed, row if sentences else None)
        balanced = getattr(task, "class_weights", "none") == "balanced"
        some = _drawn(row, _SWEEP_ROWS, sentences, seed)
        few_vectors, few_row = _taken(vectors, row, some)
        few = np.flatnonzero(np.isin(row, some)) if sentences else some

        def mixed(pooling: str, fitted: np.ndarray) -> np.ndarray:
            each = [_examples(task, few_vectors, few_row, [layer], pooling)[fitted] for layer in layers[0]]
            # A sentence's own vector comes first; what its document adds to it is no sum over layers.
            hidden = vectors.values.shape[-1]
            return heads.scalar_mix(np.stack([x[:, :hidden] for x in each]), targets[few][fitted], task.multi_label)

        every = np.ones(len(few), dtype=bool)

        def examples(group: tuple[int, ...], pooling: str, fitted: np.ndarray) -> np.ndarray:
            mix = mixed(pooling, fitted) if self.layer == "mix" else None
            return _examples(task, few_vectors, few_row, group, pooling, mix)

        best = layers[0], poolings[0]
        sweep: list[dict[str, Any]] = []
        if len(layers) * len(poolings) > 1:
            highest = -np.inf
            for group in layers:
                line: dict[str, Any] = {"layer": "+".join(map(str, group))}
                for pooling in poolings:
                    read = functools.partial(examples, group, pooling)
                    # A mix is learned without the rows that it is judged on.
                    x = read if self.layer == "mix" else read(every)
                    found = heads.cross_validate(
                        "ridge", x, targets[few], folds[few], _SWEEP_STRENGTHS, task.multi_label,
                        balanced and not task.multi_label,
                    )  # fmt: skip
                    line[pooling] = round(float(found.quality.max()), 2)
                    if found.quality.max() > highest:
                        best, highest = (group, pooling), found.quality.max()
                sweep.append(line)
        mix = mixed(best[1], every) if self.layer == "mix" else None
        strengths = STRENGTHS if self.strength is None else (self.strength,)
        weights = None
        if self.head == "mlp":
            folds = heads.folds_of(targets, min(_MLP_PARTS, len(drawn)), seed, row if sentences else None)
        if self.head == "mlp" and not sentences:
            # It is applied to each window, and their logits are averaged.
            x = np.concatenate([x for x, _ in _blocks(vectors, row, *best, mix)])
            weights = 1 / np.bincount(row)[row]
            targets, folds = targets[row], folds[row]
        else:
            x = _examples(task, vectors, row, *best, mix)
        head, strength = heads.fit(self.head, x, targets, folds, strengths, task.multi_label, balanced, weights)
        metric = "average precision" if task.multi_label else "accuracy"
        metric = "explained variance" if task.exact else metric
        return Chosen(*best, head, strength, mix, sweep, metric, len(drawn))

    def _score(
        self, chosen: Chosen, vectors: dict[str, Vectors], data: Data, task: Any, name: str, decision: Any
    ) -> Score:
        split = data.splits[name]
        assert split.features is not None
        sentences = isinstance(task, ExtractiveSummarization)
        blocks = _blocks(vectors[name], column(split.features, "row"), chosen.layers, chosen.pooling, chosen.mix)
        logits = np.concatenate([chosen.head(task.examples(x, row) if sentences else x) for x, row in blocks])
        return task.score({"logits": logits}, split.rows, split.features, decision)


def _texts(split: Split, task: Any) -> int:
    """How many texts have a target of their own: rows, however many windows each has, or a summarizer's sentences."""
    return len(split.features or []) if isinstance(task, ExtractiveSummarization) else len(split.rows)


def _drawn(row: np.ndarray, most: int, each: bool, seed: int) -> np.ndarray:
    """Numbers of rows drawn by chance until about `most` are there, ascending; all if there are no more than that.

    Args:
        row: of each feature, (features,), counted from 0.
        each: count the features, and not the rows. The last row that is drawn may exceed `most`.
    """
    sizes = np.bincount(row) if each else np.ones(row[-1] + 1, dtype=int)
    order = np.random.default_rng(seed).permutation(len(sizes))
    return np.sort(order[: np.searchsorted(sizes[order].cumsum(), most) + 1])


def _taken(vectors: Vectors, row: np.ndarray, drawn: np.ndarray) -> tuple[Vectors, np.ndarray]:
    """The vectors of the rows `drawn`, and the row of each, counted from 0 without a gap."""
    places = np.flatnonzero(np.isin(row, drawn))
    return vectors.at(places), np.searchsorted(drawn, row[places])


def _blocks(
    vectors: Vectors, row: np.ndarray, layers: Sequence[int], pooling: str, mix: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vectors in memory, (features, dimensions), and the row of each: whole rows, of some thousand features at once."""
    ends = np.flatnonzero(np.r_[row[1:] != row[:-1], True]) + 1
    start = 0
    while start < len(row):
        fitting = np.searchsorted(ends, start + _READ_AT_ONCE, "right") - 1
        end = int(ends[max(fitting, np.searchsorted(ends, start, "right"))])
        yield vectors.at(slice(start, end)).of(layers, pooling, mix), row[start:end]
        start = end


def _examples(
    task: Any,
    vectors: Vectors,
    row: np.ndarray,
    layers: Sequence[int],
    pooling: str,
    mix: np.ndarray | None = None,
) -> np.ndarray:
    """What the head is fitted on, (examples, dimensions)."""
    return np.concatenate([task.examples(*block) for block in _blocks(vectors, row, layers, pooling, mix)])


@dataclass(kw_only=True)
class HeadOnly:
    """The base stays as it is and computes without dropout; what the checkpoint lacked is trained by gradient.

    That is the head, and BERT's pooler where the checkpoint has none. It is for heads that read the vector of every
    token, such as the one that answers questions.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "feature extraction"
    kind: ClassVar[str] = "feature-extraction"
    unused: ClassVar[tuple[str, ...]] = ()
    base_sources: ClassVar[tuple[str, ...]] = SOURCES
    published: ClassVar[tuple[Row, ...]] = ()

    layer: str = flag(
        "auto", "layer whose vectors the head reads, from 1 on, those above it are cut off; auto: the best of all"
    )

    def __post_init__(self) -> None:
        if self.layer != "auto" and (not self.layer.isdecimal() or int(self.layer) < 1):
            raise UserError(f"--layer is {self.layer}; it must be auto or a whole number from 1")
        self.sweep: list[dict[str, Any]] = []  # a dict a layer, its F1; empty before, and where none was run

    def fit_head(
        self,
        model: Any,
        data: Data,
        task: QuestionAnswering,
        tokenizer: Any,
        base: Base,
        run: RunConfig,
        accelerator: Accelerator,
    ) -> tuple[Any, History, Score]:
        """Freeze the model but its head, train that on vectors of the training rows, and score it.

        Raises:
            UserError, RunStopped, Checked: as `wrap` and `train`.
        """
        model = self.wrap(model, base)
        history = self.train(model, data, task, tokenizer, run, accelerator)
        return model, history, self.score(model, data, task, tokenizer, run, accelerator, history)

    def wrap(self, model: Any, base: Base) -> Any:
        """Cut off what stands above `layer` and freeze all of `model` but its new parameters. All of it is saved.

        T5's head reads its decoder, whose layers are meant; the model's final norm stays where there is one.

        Raises:
            UserError: the model has no such layer; or the checkpoint has the whole head already, so that nothing would
                be trained.
        """
        if self.layer != "auto":
            _cut(model, int(self.layer))
        if not base.fresh:
            raise UserError(
                f"--model {base.id} has a trained head for this task, so feature extraction would train nothing; "
                "give the pretrained model without one, or fine-tune"
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad = name in base.fresh
        model.base_model.register_forward_pre_hook(_without_dropout)
        return model

    def train(
        self, model: Any, data: Data, task: QuestionAnswering, tokenizer: Any, run: RunConfig, accelerator: Accelerator
    ) -> History:
        """`training.train` of the head that finds spans, on vectors that the base gives once, before the first step.

        Layers are compared first, on about 2,000 windows of the training rows: a head for each is fitted on two thirds
        of the contexts and judged on the third that it has not seen, each third in turn. Those above the best one are
        cut off. Writes `layers.png` then.

        The head learns on standardised vectors; mean and deviation are then folded into it. But for that, and for
        vectors kept in half precision, the result is that of a base that computes in every step; padding, which cannot
        be an answer, has no part in the loss.

        Raises:
            UserError: the checkpoint lacks other parts than that head; `run.push_every`; too few contexts to choose a
                layer; or as `features.extract_tokens`.
            RunStopped: as `training.train`.
            Checked: `run.check` asked for no more.
        """
        others = [n for n, p in model.named_parameters() if p.requires_grad and not n.startswith("qa_outputs.")]
        if others:
            raise UserError(f"--model {run.model} lacks {others[0]}; feature extraction needs a whole pretrained model")
        if run.push_every:
            raise UserError("--push_every is for long runs, and a head is trained in minutes; omit it")
        overview.show(data, task, accelerator)
        if run.check:
            lengths = {name: column(split.features, "length") for name, split in data.splits.items()}
            values = sum(int(each.sum()) for each in lengths.values())
            if self.layer == "auto":  # some windows are kept with all layers
                blocks = features.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks)
                values += int(min(_COMPARED_WINDOWS, len(lengths["train"])) * lengths["train"].mean()) * len(blocks)
            tokens, collate = run.batch_size * task.max_length, task.collator(tokenizer, training=False)
            give = model.to(accelerator.device).eval()
            values *= model.config.hidden_size
            raise _checked(
                data, run, lambda batch: give(**batch), collate, tokens, values, run.model, overview.facts(data, task)
            )
        overview.give_advice(task, accelerator, frozen=True)
        start = time.perf_counter()
        read = functools.partial(_token_vectors, model, task, tokenizer, run, accelerator)
        if self.layer == "auto":
            self.sweep = _compare(read, data.splits["train"], task, run.seed)
            best = [max(self.sweep, key=lambda line: line["F1"])["layer"]]
            broadcast_object_list(best)
            _cut(model, int(best[0]))
        layers = [len(features.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks))]
        splits = [data.splits[name].features for name in ("train", "validation")]
        vectors = [read(each, layers).values[0, 0] for each in splits]
        mean, deviation = heads.moments(vectors[0][:: max(1, len(vectors[0]) // _MOMENTS)].astype(np.float32))
        seconds = time.perf_counter() - start
        with _on_vectors(model, splits, vectors, mean, deviation):
            history = training.train(model, data, task, tokenizer, run, accelerator)
        with torch.no_grad():
            device = model.qa_outputs.weight.device
            model.qa_outputs.weight /= torch.as_tensor(deviation, dtype=torch.float32, device=device)
            model.qa_outputs.bias -= model.qa_outputs.weight @ torch.as_tensor(mean, dtype=torch.float32, device=device)
        if self.sweep and accelerator.is_main_process:
            _draw(Path(run.output_dir), self.sweep, str(best[0]), "F1", "F1 on held-out training contexts")
        history.seconds += seconds
        return history

    def score(
        self,
        model: Any,
        data: Data,
        task: QuestionAnswering,
        tokenizer: Any,
        run: RunConfig,
        accelerator: Accelerator,
        history: History,
    ) -> Score:
        """Score the rows that the reported numbers come from, on vectors that the base gives once."""
        split = data.splits[data.final]
        layers = [len(features.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks))]
        vectors = _token_vectors(model, task, tokenizer, run, accelerator, split.features, layers)
        with _on_vectors(model, [split.features], [vectors.values[0, 0]]):
            score = training.evaluate(model, split, task, tokenizer, run, accelerator, history.decision)
        if self.sweep:
            score.tables[f"Quality by layer: F1 on held-out training contexts (chosen: layer {layers[0]})"] = self.sweep
        return score


def _token_vectors(
    model: Any,
    task: QuestionAnswering,
    tokenizer: Any,
    run: RunConfig,
    accelerator: Accelerator,
    encoded: Any,
    layers: Sequence[int] | None = None,
) -> Vectors:
    """`features.extract_tokens` as the run has it, of all layers if none are named."""
    blocks = features.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks)
    return features.extract_tokens(
        model,
        model.qa_outputs,
        encoded,
        task.collator(tokenizer, training=False),
        range(1, len(blocks) + 1) if layers is None else layers,
        run.batch_size * task.max_length,
        accelerator.mixed_precision == "bf16",
    )


@contextmanager
def _on_vectors(
    model: Any,
    splits: Sequence[Any],
    vectors: Sequence[np.ndarray],
    mean: np.ndarray | float = 0.0,
    deviation: np.ndarray | float = 1.0,
) -> Iterator[None]:
    """For a while, `model` takes the vectors of the tokens from those of `splits`, standardised, and computes none."""
    kept: dict[bytes, np.ndarray] = {}
    for encoded, values in zip(splits, vectors, strict=True):
        end = 0
        names = [n for n in _IDS if n in encoded.column_names]
        for row in encoded.select_columns(names):
            start, end = end, end + len(row["input_ids"])
            kept[_digest(row[n] for n in names)] = values[start:end]

    def forward(
        model: Any, attention_mask: Any, start_positions: Any = None, end_positions: Any = None, **inputs: Any
    ) -> QuestionAnsweringModelOutput:
        mask = attention_mask.bool()
        ids = [inputs[n].cpu().numpy() for n in _IDS if n in inputs]
        found = [kept[_digest(each[i][m] for each in ids)] for i, m in enumerate(mask.cpu().numpy())]
        x = (np.concatenate(found).astype(np.float32) - mean) / deviation
        states = torch.zeros(*mask.shape, model.qa_outputs.in_features, device=mask.device)
        states[mask] = torch.as_tensor(x, dtype=torch.float32, device=mask.device)
        return _spans(model.qa_outputs, states, mask, start_positions, end_positions)

    model.forward = MethodType(forward, model)
    try:
        yield
    finally:
        del model.forward


def _spans(
    head: torch.nn.Module, states: torch.Tensor, mask: torch.Tensor, start: Any = None, end: Any = None
) -> QuestionAnsweringModelOutput:
    """Logits of states (batch, length, hidden), the lowest there are for padding, and the loss of given places."""
    logits = head(states).float().masked_fill(~mask[:, :, None], torch.finfo(torch.float32).min)
    starts, ends = logits.unbind(2)
    loss = None
    if start is not None:
        loss = (cross_entropy(starts, start) + cross_entropy(ends, end)) / 2
    return QuestionAnsweringModelOutput(loss=loss, start_logits=starts, end_logits=ends)


def _compare(
    read: Callable[[Dataset], Vectors], split: Split, task: QuestionAnswering, seed: int
) -> list[dict[str, Any]]:
    """F1 of a head on each layer in cross-validation, a dict a layer, on some training contexts drawn by chance."""
    assert split.features is not None
    row = column(split.features, "row")
    _, contexts = np.unique(split.rows["context"][:], return_inverse=True)
    drawn = np.flatnonzero(np.isin(contexts, _drawn(contexts[row], _COMPARED_WINDOWS, True, seed)))
    parts = min(_COMPARED_PARTS, len(np.unique(contexts[drawn])))
    if parts < 2:
        raise UserError("the training rows have one context, which is too few to choose a layer on; give --layer")
    places = np.flatnonzero(np.isin(row, drawn))
    encoded = split.features.select(places).remove_columns("row")
    encoded = encoded.add_column("row", np.searchsorted(drawn, row[places]).tolist())
    rows = split.rows.select(drawn)
    folds = heads.folds_of(np.ones((len(places), 1), dtype=bool), parts, seed, contexts[row[places]])
    vectors, sweep = read(encoded), []
    for layer, values in zip(vectors.layers, vectors.values[:, 0], strict=True):
        score = task.score(_cross_validated(values, encoded, task, folds, seed), rows, encoded, None)
        sweep.append({"layer": str(layer), "F1": round(float(score.metrics["f1"].mean()), 2)})
    return sweep


def _cross_validated(
    values: np.ndarray, encoded: Dataset, task: QuestionAnswering, folds: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """What `task.predict` gives for each window by a linear head fitted on the windows of the other folds.

    Args:
        values: vectors of all tokens of all windows, one after the other, (tokens, hidden).
        folds: of each window, (windows,).
    """
    lengths = column(encoded, "length")
    ends = np.cumsum(lengths)
    names = ("start_positions", "end_positions", *task.scoring_only)
    columns = {name: torch.as_tensor(column(encoded, name)) for name in names}
    mean, deviation = heads.moments(values[:: max(1, len(values) // _MOMENTS)].astype(np.float32))

    def states(places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        found = [(values[ends[p] - lengths[p] : ends[p]].astype(np.float32) - mean) / deviation for p in places]
        mask = torch.arange(int(lengths[places].max())) < torch.as_tensor(lengths[places])[:, None]
        return pad_sequence([torch.as_tensor(x, dtype=torch.float32) for x in found], batch_first=True), mask

    predictions: dict[str, np.ndarray] = {}
    for fold in np.unique(folds):
        random, fitted = np.random.default_rng(seed), np.flatnonzero(folds != fold)
        head = torch.nn.Linear(values.shape[1], 2)
        torch.nn.init.zeros_(head.weight)
        optimizer = torch.optim.AdamW(head.parameters(), lr=_SPAN_RATE)
        epochs = max(_SPAN_EPOCHS, math.ceil(_SPAN_LEAST / len(fitted)))
        order = np.concatenate([random.permutation(fitted) for _ in range(epochs)])
        for start in range(0, len(order), _SPAN_BATCH):
            places = order[start : start + _SPAN_BATCH]
            optimizer.param_groups[0]["lr"] = _SPAN_RATE * (1 - start / len(order))
            answers = [columns[name][places] for name in ("start_positions", "end_positions")]
            optimizer.zero_grad()
            _spans(head, *states(places), *answers)["loss"].backward()
            optimizer.step()
        out = np.flatnonzero(folds == fold)
        for start in range(0, len(out), _SPAN_BATCH):
            places = out[start : start + _SPAN_BATCH]
            with torch.no_grad():
                outputs = _spans(head, *states(places))
            found = task.predict(outputs, {name: columns[name][places] for name in task.scoring_only})
            for name, tensor in found.items():
                made = predictions.setdefault(name, np.zeros(len(folds), tensor.numpy().dtype))
                made[places] = tensor.numpy()
    return predictions


def _cut(model: Any, layer: int) -> None:
    """Leave the lowest layers of what the head reads, and say so in the configuration.

    Raises:
        UserError: there are fewer.
    """
    architecture = ARCHITECTURES[model.config.model_type]
    holder, _, name = architecture.blocks.rpartition(".")
    parent = features.stack_of(model).get_submodule(holder)
    blocks = getattr(parent, name)
    if layer > len(blocks):
        raise UserError(f"--layer is {layer}; the model has {len(blocks)} layers")
    setattr(parent, name, blocks[:layer])
    setattr(model.config, architecture.depth, layer)


def _digest(columns: Iterable[Any]) -> bytes:
    """Of the token ids of a window, and of its segments: the same ids have the same vectors."""
    return xxhash.xxh3_128_digest(b"".join(np.asarray(column, dtype=np.int64).tobytes() for column in columns))


def _without_dropout(module: torch.nn.Module, _: Any) -> None:
    """The training loop puts the whole model into training mode; its frozen part must not be."""
    module.eval()


def _draw(folder: Path, sweep: list[dict[str, Any]], layer: str, pooling: str, metric: str) -> None:
    """Write layers.png: quality by layer, a line a pooling, with a mark on what was chosen."""
    from matplotlib.figure import Figure  # not pyplot, whose backend may be the user's

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    names = [line["layer"] for line in sweep]
    for each in sweep[0]:
        if each != "layer":
            axes.plot(names, [line[each] for line in sweep], "o-", label=each)
    axes.plot(layer, sweep[names.index(layer)][pooling], "k*", markersize=16, label="chosen", zorder=3)
    axes.set(xlabel="layer (0: embeddings)", ylabel=f"{metric}, %")
    axes.legend(frameon=False)
    figure.savefig(folder / run_folder.LAYERS, dpi=110)


class FeatureClassifier(ClassifierMixin, BaseEstimator):
    """Feature extraction as an estimator of scikit-learn, also at the end of a `Pipeline` whose steps give texts.

    `FeatureClassifier("tiny:bert").fit(texts, labels).predict(texts)`; the fitted model is `model_`, a `FeatureModel`.

    Args:
        model, revision, batch_size, seed: as in `RunConfig`.
        max_length, doc_stride, class_weights: as in `Classification`.
        layer, pooling, head, strength, cv: as in `FeatureExtraction`.
        bf16: read the training texts in bfloat16; None where the hardware computes in it.
    """

    def __init__(
        self,
        model: str = "tiny:bert",
        *,
        revision: str | None = None,
        layer: str = "auto",
        pooling: Pooling = "sweep",
        head: heads.Kind = "logistic",
        strength: float | None = None,
        cv: int = 5,
        max_length: int = 256,
        doc_stride: int = 64,
        class_weights: Literal["none", "balanced"] = "none",
        batch_size: int = 16,
        bf16: bool | None = None,
        seed: int = 0,
    ):
        self.model = model
        self.revision = revision
        self.layer = layer
        self.pooling = pooling
        self.head = head
        self.strength = strength
        self.cv = cv
        self.max_length = max_length
        self.doc_stride = doc_stride
        self.class_weights = class_weights
        self.batch_size = batch_size
        self.bf16 = bf16
        self.seed = seed

    def fit(self, X: Any, y: Any) -> "FeatureClassifier":
        """Read the texts `X` and fit a head that gives them the classes `y`, which `model_` names as text.

        Raises:
            UserError: a text is empty, or two classes are the same as text; or as a recipe does, for instance for
                fewer than two classes.
        """
        texts, y = list(X), np.asarray(y)
        if y.ndim != 1:
            raise UserError(f"y has {y.ndim} dimensions; give one class a text")
        if len(texts) != len(y):
            raise UserError(f"X has {len(texts):,} texts and y {len(y):,} classes; give one class a text")
        self.classes_, places = np.unique(y, return_inverse=True)
        names = [str(name) for name in self.classes_]
        if len(set(names)) < len(names):
            raise UserError(f"two of the classes {', '.join(names)} are the same as text; name them apart")
        run = RunConfig(model=self.model, revision=self.revision, batch_size=self.batch_size, seed=self.seed)
        task = Classification(max_length=self.max_length, doc_stride=self.doc_stride, class_weights=self.class_weights)
        method = FeatureExtraction(
            layer=self.layer, pooling=self.pooling, head=self.head, strength=self.strength, cv=self.cv
        )
        # Numbers of the classes: their names may be of any type, and must come back as they are.
        rows = task.check(Dataset.from_dict({"text": texts, "label": places.tolist()}))
        if len(rows) < len(texts):
            raise UserError("a text is empty; omit it and its class")
        task.learn({"train": rows})
        with without_report():
            model, tokenizer, base = base_model.load(run, task)
        encoded = task.encode(rows, tokenizer, model)
        split = Split(rows, encoded)
        layers, poolings = method.candidates(features.encoder_of(model), len(rows))
        vectors = features.extract(
            features.encoder_of(model),
            encoded,
            task.collator(tokenizer, training=False),
            sorted({layer for group in layers for layer in group}),
            poolings,
            self.batch_size * self.max_length,
            launch.computes_bf16() if self.bf16 is None else self.bf16,
        )
        chosen = method.choose(model, vectors, split, task, self.seed)
        task.labels = names
        self.model_ = method.assemble(chosen, model, tokenizer, task, base, run)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The class of each text, as it was named in `fit`."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class in the order of `classes_`, (texts, classes)."""
        check_is_fitted(self, "model_")
        return self.model_.predict_proba(list(X), batch_size=self.batch_size)


@torch.no_grad()
def _checked(
    data: Data,
    run: RunConfig,
    read: Callable[[dict[str, torch.Tensor]], Any],
    collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]],
    tokens: int,
    values: int,
    choice: str,
    facts: dict[str, Any],
) -> Checked:
    """What reading `values` figures of so many tokens a batch would take, told by the longest batch, read twice."""
    count, found = 0, list[dict[str, torch.Tensor]]()
    for split in data.splits.values():
        if split.features is not None:
            every = list(features.batches(split.features["length"], tokens))
            count += len(every)
            names = [name for name in ("input_ids", "token_type_ids") if name in split.features.column_names]
            found.append(collate(split.features.select_columns(names).select(every[0]).to_list()))
    longest = max(found, key=lambda batch: batch["input_ids"].numel())
    batch = {name: tensor.to(PartialState().device) for name, tensor in longest.items()}
    for _ in range(2):  # the first one warms up
        clock = time.perf_counter()
        read(batch)
        seconds = time.perf_counter() - clock
    facts |= {
        "model": run.model,
        "batches": count,
        "seconds": count * seconds,
        "memory_bytes": estimate.peak_memory(),
        "cache_bytes": 2 * values,  # float16
    }
    return Checked(
        f"checked, nothing kept: {estimate.counted(data)}; {choice}; reading takes at most about "
        f"{estimate.about(facts['seconds'])} (estimated from the longest batch), "
        f"{facts['memory_bytes'] / 2**30:.1f} GiB of memory and {facts['cache_bytes'] / 2**20:,.0f} MiB of the cache",
        facts,
    )
