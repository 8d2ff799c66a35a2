"""Feature extraction: the pretrained model is a fixed function of the text; only a head is trained."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np

from tl_hub import estimate, overview, run_folder, training_state
from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import RunConfig, flag
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.base import SOURCES, FittedMethod
from tl_hub.methods.layer_choice import draw, drawn_rows
from tl_hub.model_types import Model, Tokenizer
from tl_hub.published_settings import Row
from tl_hub.record import Kind
from tl_hub.tasks.base import Score, column
from tl_hub.tasks.extractive_summarization import ExtractiveSummarization
from tl_hub.vectors import STRENGTHS, HeadKind, extract, heads
from tl_hub.vectors import model as feature_model

if TYPE_CHECKING:
    from tl_hub.base_model import Base
    from tl_hub.data import Split
    from tl_hub.tasks.classification import Classification
    from tl_hub.training_state import History
    from tl_hub.vectors.cache import Vectors
    from tl_hub.vectors.heads import Head

    VectorTask = Classification | ExtractiveSummarization
    """Tasks that read one vector of a window or a sentence."""

_SWEEP_ROWS = 3000
_FEWEST_TO_CHOOSE = 500
"""Training texts below which cross-validation chooses a layer by noise, as measured in docs/results/few-labels.md."""
_HEAD_ROWS = 50_000
"""Examples that a head is fitted on, at most: their vectors must fit into memory several times."""
_READ_AT_ONCE = 10_000
"""Windows or sentences whose vectors are in memory at once, where no more is needed of them."""
_MLP_PARTS = 10
"""Parts of the training texts, one of which tells when the training of a multi-layer perceptron stops."""
_SWEEP_STRENGTHS = STRENGTHS[2:5]
_TABLE = "Quality by layer and pooling"
Pooling = Literal["sweep", "mean", "first", "last", "max", "attention"]


@dataclass
class Chosen:
    """What a fit decided: the layers and the pooling that are read, and the head on them.

    Attributes:
        mix: weights with which the layers are summed up; None where they stand side by side.
        sweep: a dict a layer: its number, and its quality with each pooling in cross-validation; empty if none was run.
        metric: what the quality is, in per cent.
        rows: training rows that the head was fitted on.
        decision: what inference needs besides the head, such as a threshold, once it is chosen.
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
class FeatureExtraction(FittedMethod):
    """Each text is read once by the frozen model; a light head is fitted on vectors pooled from its layers.

    Which layer is best depends on the task (Peters et al. 2019, https://arxiv.org/abs/1903.05987); raw vectors of the
    first or last token, that nothing was trained to fill, are seldom good. Each layer with each pooling is therefore
    compared by cross-validated ridge regression on at most 3,000 training rows, and the head's regularisation is
    chosen by cross-validation too. Rows of validation and test have no part in it. Fewer than 500 texts would choose
    a layer by chance, and the usual pooling of the last four, side by side, serves them better. Of more than 50,000
    texts (of a summarizer: sentences) the head reads about 50,000, drawn at random.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "feature extraction"
    kind: ClassVar[Kind] = "feature-extraction"
    unused: ClassVar[tuple[str, ...]] = (
        "epochs",
        "max_steps",
        "accumulation",
        "learning_rate",
        "warmup",
        "schedule",
        "weight_decay",
        "max_grad_norm",
        "patience",
        "activation_checkpointing",
        "streaming",
        "find_lr",
        "checkpoint_minutes",
        "keep",
        "resume",
        "push_every",
        "report_to",
        "label_smoothing",
        "r_drop",
        "average",
        "sweep",
        "trials",
        "seeds",
        "soup",
        "init_seed",
    )
    """Settings of runs and tasks that only training by gradient reads."""
    published: ClassVar[tuple[Row, ...]] = ()

    layer: str = flag(
        "auto",
        "layer (0: embeddings), sweep: the best, last4: side by side, mix: a weighted sum; auto: sweep, but last4 "
        f"below {_FEWEST_TO_CHOOSE} training texts, which are too few to choose by",
    )
    pooling: Pooling = flag(
        "sweep", "how the tokens' vectors become one; attention: a mean weighted by the attention each receives"
    )
    head: HeadKind = flag(
        "logistic",
        "prototypes (the mean of each class) suit a handful of examples, mlp many; numbers always take ridge",
    )
    strength: float | None = flag(
        None, "penalty on the head's squared weights, for each example", shown="chosen by cross-validation"
    )
    cv: int = flag(5, "parts of the training rows in cross-validation")
    fold: bool = flag(
        False,
        "write a whole model of transformers' own class; for one layer's first token (BERT, its relatives) or last "
        "(GPT-2, XLNet)",
    )

    def __post_init__(self) -> None:
        if self.layer not in ("auto", "sweep", "last4", "mix") and not self.layer.isdecimal():
            raise UserError(f"--layer is {self.layer!r}; it must be auto, sweep, last4, mix or a whole number from 0")
        if self.strength is not None and not 0 < self.strength < np.inf:
            raise UserError(f"--strength is {self.strength}; it must be a number greater than 0")
        if self.cv < 2:
            raise UserError(f"--cv is {self.cv}; it must be at least 2")
        if self.fold and self.head == "mlp":
            raise UserError("--fold needs a linear head, which --head mlp is not")

    @property
    def base_sources(self) -> tuple[str, ...]:
        """Where the base may be for others to load the result; an embedded one is there for all who have tl_hub."""
        return SOURCES if self.fold else ("hub", "embedded")

    def candidates(self, encoder: Any, texts: int) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
        """The layers (or several of them together) and the poolings to choose from by so many training texts.

        Raises:
            UserError: the model has no such layer, or `fold` and a choice exclude each other.
        """
        model_type, depth = encoder.config.model_type, extract.depth_of(encoder)
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
            feature_model.check_foldable(model_type, layers[0], poolings[0], depth)
        return layers, poolings

    def fit_head(self, experiment: Experiment) -> tuple[Experiment, History, Score]:
        """Extract the vectors, choose and fit a head on those of training, score it, and put model and head together.

        Raises:
            UserError, Checked: as `fitting` and `extract`; or tokens of the tokenizer have no embedding.
        """
        base = experiment.base
        assert base is not None
        base.check_frozen(experiment.model)
        task = cast("VectorTask", experiment.task)
        method = self.fitting(experiment.run, task)
        experiment = dataclasses.replace(experiment, method=method)
        vectors = method.extract(experiment)
        chosen, history = method.fit(experiment, vectors)
        score = method.score(experiment, vectors, chosen, history)
        model = method.assemble(chosen, experiment.model, experiment.tokenizer, task, base, experiment.run)
        return dataclasses.replace(experiment, model=model), history, score

    def fitting(self, run: RunConfig, task: VectorTask) -> Self:
        """The method with a head that fits the task's labels, as the record tells it.

        Raises:
            UserError: a setting has no effect here, or does not fit the task.
        """
        for settings in (run, task):
            for field in dataclasses.fields(settings):
                if field.name in self.unused and getattr(settings, field.name) != field.default:
                    raise UserError(f"--{field.name} is for gradient training, which this recipe does not do; omit it")
        if self.fold and isinstance(task, ExtractiveSummarization):
            raise UserError("--fold is for classification of texts; no class of transformers summarizes by sentences")
        numbers = getattr(task, "regression", None)
        if numbers and self.head in ("prototypes", "mlp"):
            raise UserError(
                f"--head {self.head} is for classes, and the labels are numbers (regression); use --head ridge"
            )
        if task.multi_label and self.head == "prototypes":
            raise UserError("--head prototypes is for one class a row; use --head logistic for several labels")
        if task.multi_label and self.head in ("ridge", "mlp") and getattr(task, "class_weights", "none") == "balanced":
            raise UserError("--class_weights balanced with several labels a row needs --head logistic")
        return dataclasses.replace(self, head="ridge") if numbers else self  # the default is for classes

    def extract(self, experiment: Experiment) -> dict[str, Vectors]:
        """Vectors of every split, of the layers and poolings to choose from.

        Raises:
            UserError: the model has no such layer, or `fold` and a choice exclude each other.
            Checked: `run.check` asked for no more.
        """
        run, data, accelerator = experiment.run, experiment.rows, experiment.accelerator
        task = cast("VectorTask", experiment.task)
        encoder = extract.encoder_of(experiment.model)
        layers, poolings = self.candidates(encoder, _texts(data.splits["train"], task))
        wanted = sorted({layer for group in layers for layer in group})
        bf16 = accelerator.mixed_precision == "bf16" and not task.exact
        tokens = run.batch_size * task.max_length
        overview.show(experiment)
        if run.check:
            pool = functools.partial(extract.pooled, encoder.to(accelerator.device), layers=wanted, poolings=poolings)
            choice = f"{len(wanted)} layers of {run.model} and {len(poolings)} poolings to choose from"
            kept = sum(len(split.encoded or ()) for split in data.splits.values())
            values = kept * len(wanted) * len(poolings) * encoder.config.hidden_size
            facts = {"layers": len(wanted), "poolings": len(poolings), **overview.facts(data, task)}
            raise estimate.of_reading(experiment, pool, tokens, values, choice, facts)
        overview.give_advice(experiment, frozen=True)
        collate = task.collator(experiment.tokenizer, training=False)
        return {
            name: extract.extract(encoder, split.encoded, collate, wanted, poolings, tokens, bf16)
            for name, split in data.splits.items()
            if split.encoded is not None
        }

    def fit(self, experiment: Experiment, vectors: dict[str, Vectors]) -> tuple[Chosen, History]:
        """Choose layer, pooling and strength, and fit the head, on the training rows.

        Writes `log.jsonl` (a line a candidate) and, after a sweep, `layers.png`. What inference needs besides the head
        is chosen on the validation rows.
        """
        run, task, data = experiment.run, cast("VectorTask", experiment.task), experiment.rows
        folder, start = Path(run.output_dir), time.perf_counter()
        chosen = self.choose(experiment.model, vectors["train"], data.splits["train"], task, run.seed)
        if chosen.rows < len(data.splits["train"].rows):
            data.notes.append(f"The head was fitted on {chosen.rows:,} of the training rows, chosen at random.")
        if experiment.accelerator.is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            run_folder.clear(folder)  # of another run only with --overwrite
            lines = [*chosen.sweep, {"layers": chosen.layers, "pooling": chosen.pooling, "strength": chosen.strength}]
            (folder / run_folder.LOG).write_text("".join(json.dumps(line) + "\n" for line in lines))
            if len(chosen.sweep) > 1:
                place = "+".join(map(str, chosen.layers))
                draw(folder, chosen.sweep, place, chosen.pooling, f"{chosen.metric} in cross-validation")
        history = training_state.History(rows=len(data.splits["train"].rows))
        history.seconds = vectors["train"].seconds + time.perf_counter() - start
        _decide(chosen, self._score(experiment, vectors, chosen, "validation", None))
        history.decision = chosen.decision
        return chosen, history

    def score(self, experiment: Experiment, vectors: dict[str, Vectors], chosen: Chosen, history: History) -> Score:
        """Score the rows that the reported numbers come from."""
        score = self._score(experiment, vectors, chosen, experiment.rows.final, history.decision)
        if chosen.sweep:
            read = f"layer {'+'.join(map(str, chosen.layers))}, {chosen.pooling}"
            score.tables[f"{_TABLE}: {chosen.metric} in cross-validation (chosen: {read})"] = chosen.sweep
        return score

    def judged(self, experiment: Experiment, vectors: dict[str, Vectors], chosen: Chosen, name: str) -> Score:
        """Score the rows that are called so, by a decision that is made on the validation rows."""
        chosen = dataclasses.replace(chosen)
        _decide(chosen, self._score(experiment, vectors, chosen, "validation", None))
        return self._score(experiment, vectors, chosen, name, chosen.decision)

    def assemble(
        self, chosen: Chosen, model: Model, tokenizer: Tokenizer, task: VectorTask, base: Base, run: RunConfig
    ) -> Any:
        """The model that is saved: a `FeatureModel` or, with `fold`, one of transformers' own class."""
        encoder = extract.encoder_of(model)
        found: dict[str, Any] = {"id": base.id, "source": base.source, "revision": base.revision}
        if base.source == "local":
            found["path"] = str(Path(run.model).resolve())
        sentences = isinstance(task, ExtractiveSummarization)
        config = {
            "base": {**found, "sha256": extract.weights_sha256(encoder)},
            "layers": list(chosen.layers),
            "pooling": chosen.pooling,
            "labels": list(task.labels),
            "multi_label": task.multi_label,
            "pairs": bool(getattr(task, "text_pair_column", None)),
            "in_document": sentences,
            "max_length": task.max_length,
            "doc_stride": 0 if isinstance(task, ExtractiveSummarization) else task.doc_stride,
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
        made = feature_model.FeatureModel(encoder, tokenizer, config, tensors).eval()
        return made.folded() if self.fold else made

    def choose(self, model: Model, vectors: Vectors, split: Split, task: VectorTask, seed: int) -> Chosen:
        """Choose by cross-validation on the rows of `split`, and fit the head on all of them, or on some of many.

        Those are drawn at random: rows that hold about 50,000 examples. Layers and poolings are compared on rows that
        hold about 3,000. A summarizer's examples are sentences, and its rows documents, which stay whole.
        """
        sentences = isinstance(task, ExtractiveSummarization)
        row = column(split.encoded, "row")
        drawn = drawn_rows(row, _HEAD_ROWS, sentences or self.head == "mlp", seed)
        vectors, row = taken(vectors, row, drawn)
        targets = task.targets(split.rows if len(drawn) == len(split.rows) else split.rows.select(drawn))
        layers, poolings = self.candidates(extract.encoder_of(model), len(targets))
        parts = min(self.cv, len(drawn))
        if parts < 2:
            raise UserError(f"{len(split.rows)} training rows are too few to choose a head on; give at least 2")
        folds = heads.folds_of(targets, parts, seed, row if sentences else None)
        balanced = getattr(task, "class_weights", "none") == "balanced"
        some = drawn_rows(row, _SWEEP_ROWS, sentences, seed)
        few = np.flatnonzero(np.isin(row, some)) if sentences else some
        sample = _Sample(task, *taken(vectors, row, some), targets[few], folds[few])
        best, sweep = _compare(sample, layers, poolings, self.layer == "mix", balanced and not task.multi_label)
        mix = sample.mix(*best) if self.layer == "mix" else None
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
            x = examples(task, vectors, row, *best, mix)
        head, strength = heads.fit(self.head, x, targets, folds, strengths, task.multi_label, balanced, weights)
        metric = "average precision" if task.multi_label else "accuracy"
        metric = "explained variance" if task.exact else metric
        return Chosen(*best, head, strength, mix, sweep, metric, len(drawn))

    def _score(
        self,
        experiment: Experiment,
        vectors: dict[str, Vectors],
        chosen: Chosen,
        name: str,
        decision: dict[str, float] | None,
    ) -> Score:
        task = cast("VectorTask", experiment.task)
        others = {other.name: other.splits[other.final] for other in experiment.rows.others}
        split = (experiment.rows.splits | others)[name]
        assert split.encoded is not None
        sentences = isinstance(task, ExtractiveSummarization)
        blocks = _blocks(vectors[name], column(split.encoded, "row"), chosen.layers, chosen.pooling, chosen.mix)
        logits = np.concatenate([chosen.head(task.examples(x, row) if sentences else x) for x, row in blocks])
        return task.score({"logits": logits}, split.rows, split.encoded, decision)


def _decide(chosen: Chosen, score: Score) -> None:
    """Take over what was decided on the validation rows; a temperature becomes part of the head."""
    chosen.decision = dict(score.decision)
    chosen.head = chosen.head.cooler(chosen.decision.pop("temperature", 1.0))


@dataclass(frozen=True)
class _Sample:
    """Training examples by which layers and poolings are compared.

    Attributes:
        row: of each encoded row, (encoded rows,).
        targets: (examples, classes).
        folds: of each example, (examples,).
    """

    task: VectorTask
    vectors: Vectors
    row: np.ndarray
    targets: np.ndarray
    folds: np.ndarray

    def of(self, layers: Sequence[int], pooling: str, mix: np.ndarray | None = None) -> np.ndarray:
        """What a head reads of them, (examples, dimensions)."""
        return examples(self.task, self.vectors, self.row, layers, pooling, mix)

    def mix(self, layers: Sequence[int], pooling: str, fitted: np.ndarray | None = None) -> np.ndarray:
        """Weights of the layers in a sum, (layers,), learned from the examples `fitted`, (examples,) bool, or all."""
        fitted = np.ones(len(self.targets), dtype=bool) if fitted is None else fitted
        # A sentence's own vector comes first; what its document adds to it is no sum over layers.
        hidden = self.vectors.values.shape[-1]
        each = [self.of([layer], pooling)[fitted][:, :hidden] for layer in layers]
        return heads.scalar_mix(np.stack(each), self.targets[fitted], self.task.multi_label)


def _compare(
    sample: _Sample, layers: Sequence[tuple[int, ...]], poolings: Sequence[str], mixed: bool, balanced: bool
) -> tuple[tuple[tuple[int, ...], str], list[dict[str, Any]]]:
    """The layers and the pooling that are best by cross-validated ridge regression, and a dict for each of the layers.

    Args:
        mixed: the layers are summed up, and not side by side.
    """
    best = layers[0], poolings[0]
    sweep: list[dict[str, Any]] = []
    if len(layers) * len(poolings) == 1:
        return best, sweep
    highest = -np.inf

    def mixture(group: tuple[int, ...], pooling: str, fitted: np.ndarray) -> np.ndarray:
        return sample.of(group, pooling, sample.mix(group, pooling, fitted))

    for group in layers:
        line: dict[str, Any] = {"layer": "+".join(map(str, group))}
        for pooling in poolings:
            # A mix is learned without the rows that it is judged on.
            x = functools.partial(mixture, group, pooling) if mixed else sample.of(group, pooling)
            found = heads.cross_validate(
                "ridge", x, sample.targets, sample.folds, _SWEEP_STRENGTHS, sample.task.multi_label, balanced
            )
            line[pooling] = round(float(found.quality.max()), 2)
            if found.quality.max() > highest:
                best, highest = (group, pooling), found.quality.max()
        sweep.append(line)
    return best, sweep


def _texts(split: Split, task: VectorTask) -> int:
    """How many texts have a target of their own: rows, however many windows each has, or a summarizer's sentences."""
    return len(split.encoded or []) if isinstance(task, ExtractiveSummarization) else len(split.rows)


def taken(vectors: Vectors, row: np.ndarray, drawn: np.ndarray) -> tuple[Vectors, np.ndarray]:
    """The vectors of the rows `drawn`, and the row of each, counted from 0 without a gap."""
    places = np.flatnonzero(np.isin(row, drawn))
    return vectors.at(places), np.searchsorted(drawn, row[places])


def _blocks(
    vectors: Vectors, row: np.ndarray, layers: Sequence[int], pooling: str, mix: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Vectors in memory, (encoded rows, dimensions), and the row of each: whole rows, some thousand vectors at once."""
    ends = np.flatnonzero(np.r_[row[1:] != row[:-1], True]) + 1
    start = 0
    while start < len(row):
        fitting = np.searchsorted(ends, start + _READ_AT_ONCE, "right") - 1
        end = int(ends[max(fitting, np.searchsorted(ends, start, "right"))])
        yield vectors.at(slice(start, end)).of(layers, pooling, mix), row[start:end]
        start = end


def examples(
    task: VectorTask,
    vectors: Vectors,
    row: np.ndarray,
    layers: Sequence[int],
    pooling: str,
    mix: np.ndarray | None = None,
) -> np.ndarray:
    """What the head is fitted on, (examples, dimensions)."""
    return np.concatenate([task.examples(*block) for block in _blocks(vectors, row, layers, pooling, mix)])
