"""A head that reads every token, trained by gradient on vectors that the frozen base gives once."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import xxhash

from tl_hub import estimate, overview, training
from tl_hub.architectures import ARCHITECTURES
from tl_hub.config import flag
from tl_hub.errors import Checked, UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.base import SOURCES, FittedMethod
from tl_hub.methods.layer_choice import draw, drawn_rows
from tl_hub.on_use import accelerate, torch
from tl_hub.published_settings import Row
from tl_hub.record import Kind
from tl_hub.tasks.base import Score, Task, TokenHead, column, padded
from tl_hub.vectors import extract, heads

if TYPE_CHECKING:
    from datasets import Dataset

    from tl_hub.base_model import Base
    from tl_hub.data import Split
    from tl_hub.tasks.question_answering import QuestionAnswering
    from tl_hub.tasks.token_classification import TokenClassification
    from tl_hub.training_state import History
    from tl_hub.vectors.cache import Vectors

    TokenTask = QuestionAnswering | TokenClassification

_COMPARED_WINDOWS, _COMPARED_PARTS = 2000, 3
_RATE, _EPOCHS, _LEAST, _BATCH = 1e-2, 3, 2000, 16
"""Of the heads that tell which layer is best: learning rate, epochs, windows to learn from in all of them, a batch."""
_MOMENTS = 50_000
"""Token vectors, evenly spread, of which mean and deviation are taken."""
_IDS = ("input_ids", "token_type_ids")


@dataclass(kw_only=True)
class HeadOnly(FittedMethod):
    """The base stays as it is and computes without dropout; what the checkpoint lacked is trained by gradient.

    That is the head, and BERT's pooler where the checkpoint has none. It is for heads that read the vector of every
    token, such as the one that answers questions.

    Raises:
        UserError: a setting is out of its range.
    """

    name: ClassVar[str] = "feature extraction"
    kind: ClassVar[Kind] = "feature-extraction"
    # The model itself computes once.
    unused: ClassVar[tuple[str, ...]] = ("activation_checkpointing", "find_lr", "streaming")
    base_sources: ClassVar[tuple[str, ...]] = SOURCES
    published: ClassVar[tuple[Row, ...]] = ()

    layer: str = flag(
        "auto", "layer whose vectors the head reads, from 1 on, those above it are cut off; auto: the best of all"
    )

    def __post_init__(self) -> None:
        if self.layer != "auto" and (not self.layer.isdecimal() or int(self.layer) < 1):
            raise UserError(f"--layer is {self.layer}; it must be auto or a whole number from 1")

    def fit_head(self, experiment: Experiment) -> tuple[Experiment, History, Score]:
        """Freeze the model but its head, train that on vectors of the training rows, and score it.

        Raises:
            UserError, RunStopped, Checked: as `wrap` and `train`.
        """
        assert experiment.base is not None
        experiment = replace(experiment, model=self.wrap(experiment.model, experiment.base))
        history, sweep = self.train(experiment)
        return experiment, history, self.score(experiment, history, sweep)

    def wrap(self, model: Any, base: Base) -> Any:
        """Cut off what stands above `layer` and freeze all of `model` but its new parameters. All of it is saved.

        T5's head reads its decoder, whose layers are meant; the model's final norm stays where there is one.

        Raises:
            UserError: the model has no such layer; or the checkpoint has the whole head already, so that nothing would
                be trained.
        """
        base.check_frozen(model)
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

    def train(self, experiment: Experiment) -> tuple[History, list[dict[str, Any]]]:
        """`training.train` of the head, on vectors of all tokens that the base gives once, before the first step.

        Layers are compared first, on about 2,000 windows of the training rows: a head for each is fitted on two thirds
        of the texts and judged on the third that it has not seen, each third in turn. Those above the best one are cut
        off. Writes `layers.png` then.

        The head learns on standardised vectors; mean and deviation are then folded into it. But for that, and for
        vectors kept in half precision, the result is that of a base that computes in every step; padding has no part in
        the loss.

        Returns:
            What training tells, and the F1 of each layer, a dict each; none where no layers were compared.

        Raises:
            UserError: the checkpoint lacks other parts than that head; `run.push_every`; too few texts to choose a
                layer; or as `extract.extract_tokens`.
            RunStopped: as `training.train`.
            Checked: `run.check` asked for no more.
        """
        run, data, model = experiment.run, experiment.rows, experiment.model
        task = cast("TokenTask", experiment.task)
        head = _head(task)
        others = [n for n, p in model.named_parameters() if p.requires_grad and not n.startswith(f"{head.layer}.")]
        if others:
            raise UserError(f"--model {run.model} lacks {others[0]}; feature extraction needs a whole pretrained model")
        if run.push_every:
            raise UserError("--push_every is for long runs, and a head is trained in minutes; omit it")
        overview.show(experiment)
        if run.check:
            raise self._estimate(experiment)
        overview.give_advice(experiment, frozen=True)
        start = time.perf_counter()
        read, sweep = functools.partial(_token_vectors, experiment), list[dict[str, Any]]()
        if self.layer == "auto":
            width = model.get_submodule(head.layer).out_features
            sweep = _compare(read, data.splits["train"], task, width, run.seed)
            best = [max(sweep, key=lambda line: line["F1"])["layer"]]
            accelerate.utils.broadcast_object_list(best)
            _cut(model, int(best[0]))
        layers = [len(extract.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks))]
        splits = [data.splits[name].encoded for name in ("train", "validation")]
        vectors = [read(each, layers).values[0, 0] for each in splits]
        mean, deviation = heads.moments(vectors[0][:: max(1, len(vectors[0]) // _MOMENTS)].astype(np.float32))
        seconds = time.perf_counter() - start
        with _on_vectors(model, head, splits, vectors, mean, deviation):
            history = training.train(experiment)
        with torch.no_grad():
            layer = model.get_submodule(head.layer)
            device = layer.weight.device
            layer.weight /= torch.as_tensor(deviation, dtype=torch.float32, device=device)
            layer.bias -= layer.weight @ torch.as_tensor(mean, dtype=torch.float32, device=device)
        if sweep and experiment.accelerator.is_main_process:
            draw(Path(run.output_dir), sweep, str(best[0]), "F1", f"F1 on held-out training {head.apart}s")
        history.seconds += seconds
        return history, sweep

    def _estimate(self, experiment: Experiment) -> Checked:
        """What time and memory the vectors of the tokens will take."""
        run, model = experiment.run, experiment.model
        task = cast("TokenTask", experiment.task)
        lengths = {name: column(split.encoded, "length") for name, split in experiment.rows.splits.items()}
        values = sum(int(each.sum()) for each in lengths.values())
        if self.layer == "auto":  # some windows are kept with all layers
            blocks = extract.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks)
            values += int(min(_COMPARED_WINDOWS, len(lengths["train"])) * lengths["train"].mean()) * len(blocks)
        give = model.to(experiment.accelerator.device).eval()
        values *= model.config.hidden_size
        tokens, facts = run.batch_size * task.max_length, overview.facts(experiment.rows, task)
        return estimate.of_reading(experiment, lambda batch: give(**batch), tokens, values, run.model, facts)

    def score(self, experiment: Experiment, history: History, sweep: list[dict[str, Any]]) -> Score:
        """Score the rows that the reported numbers come from, on vectors that the base gives once.

        Args:
            sweep: as `train` gives it.
        """
        model, head = experiment.model, _head(experiment.task)
        encoded = experiment.rows.splits[experiment.rows.final].encoded
        layers = [len(extract.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks))]
        vectors = _token_vectors(experiment, encoded, layers)
        with _on_vectors(model, head, [encoded], [vectors.values[0, 0]]):
            score = training.evaluate(experiment, history.decision)
        if sweep:
            held_out = f"F1 on held-out training {head.apart}s"
            score.tables[f"Quality by layer: {held_out} (chosen: layer {layers[0]})"] = sweep
        return score


def _head(task: Task) -> TokenHead:
    """
    Raises:
        UserError: the task has no head that reads every token.
    """
    if task.token_head is None:
        raise UserError(f"{task.name} has no head that reads every token; use a recipe *_features.py of another method")
    return task.token_head


def _token_vectors(experiment: Experiment, encoded: Any, layers: Sequence[int] | None = None) -> Vectors:
    """`extract.extract_tokens` as the run has it, of all layers if none are named."""
    task = cast("TokenTask", experiment.task)
    model = experiment.model
    blocks = extract.stack_of(model).get_submodule(ARCHITECTURES[model.config.model_type].blocks)
    return extract.extract_tokens(
        model,
        model.get_submodule(_head(task).layer),
        encoded,
        task.collator(experiment.tokenizer, training=False),
        range(1, len(blocks) + 1) if layers is None else layers,
        experiment.run.batch_size * task.max_length,
        experiment.accelerator.mixed_precision == "bf16",
    )


@contextmanager
def _on_vectors(
    model: Any,
    head: TokenHead,
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

    def forward(model: Any, attention_mask: Any, **inputs: Any) -> Any:
        layer = model.get_submodule(head.layer)
        mask = attention_mask.bool()
        ids = [inputs[n].cpu().numpy() for n in _IDS if n in inputs]
        found = [kept[_digest(each[i][m] for each in ids)] for i, m in enumerate(mask.cpu().numpy())]
        x = (np.concatenate(found).astype(np.float32) - mean) / deviation
        states = torch.zeros(*mask.shape, layer.in_features, device=mask.device)
        states[mask] = torch.as_tensor(x, dtype=torch.float32, device=mask.device)
        return head.outputs(layer(states), mask, **{name: inputs[name] for name in head.targets if name in inputs})

    model.forward = MethodType(forward, model)
    try:
        yield
    finally:
        del model.forward


def _compare(
    read: Callable[[Dataset], Vectors], split: Split, task: Task, width: int, seed: int
) -> list[dict[str, Any]]:
    """F1 of a head on each layer in cross-validation, a dict a layer, on some training texts drawn at random."""
    assert split.encoded is not None
    row, apart = column(split.encoded, "row"), _head(task).apart
    _, texts = np.unique(split.rows[apart][:], return_inverse=True)
    drawn = np.flatnonzero(np.isin(texts, drawn_rows(texts[row], _COMPARED_WINDOWS, True, seed)))
    parts = min(_COMPARED_PARTS, len(np.unique(texts[drawn])))
    if parts < 2:
        raise UserError(f"the training rows have one {apart}, which is too few to choose a layer on; give --layer")
    places = np.flatnonzero(np.isin(row, drawn))
    encoded = split.encoded.select(places).remove_columns("row")
    encoded = encoded.add_column("row", np.searchsorted(drawn, row[places]).tolist())
    rows = split.rows.select(drawn)
    folds = heads.folds_of(np.ones((len(places), 1), dtype=bool), parts, seed, texts[row[places]])
    vectors, sweep = read(encoded), []
    for layer, values in zip(vectors.layers, vectors.values[:, 0], strict=True):
        score = task.score(_cross_validated(values, encoded, task, width, folds, seed), rows, encoded, None)
        sweep.append({"layer": str(layer), "F1": round(float(score.metrics["f1"].mean()), 2)})
    return sweep


def _cross_validated(
    values: np.ndarray, encoded: Dataset, task: Task, width: int, folds: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """What `task.predict` gives for each window by a linear head fitted on the windows of the other folds.

    Args:
        values: vectors of all tokens of all windows, one after the other, (tokens, hidden).
        width: outputs of the head.
        folds: of each window, (windows,).
    """
    lengths = column(encoded, "length")
    ends = np.cumsum(lengths)
    token_head = _head(task)
    columns = {name: encoded[name][:] for name in (*token_head.targets, *task.scoring_only)}
    mean, deviation = heads.moments(values[:: max(1, len(values) // _MOMENTS)].astype(np.float32))

    def states(places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        found = [(values[ends[p] - lengths[p] : ends[p]].astype(np.float32) - mean) / deviation for p in places]
        mask = torch.arange(int(lengths[places].max())) < torch.as_tensor(lengths[places])[:, None]
        return padded([torch.as_tensor(x, dtype=torch.float32) for x in found], 0), mask

    def taken(name: str, places: np.ndarray) -> torch.Tensor:
        """A number a window, or a number a token; these are filled up to the longest window."""
        found = [torch.as_tensor(columns[name][place]) for place in places]
        return padded(found, -100) if found[0].ndim else torch.stack(found)

    predictions: dict[str, np.ndarray] = {}
    for fold in np.unique(folds):
        random, fitted = np.random.default_rng(seed), np.flatnonzero(folds != fold)
        head = torch.nn.Linear(values.shape[1], width)
        torch.nn.init.zeros_(head.weight)
        optimizer = torch.optim.AdamW(head.parameters(), lr=_RATE)
        epochs = max(_EPOCHS, math.ceil(_LEAST / len(fitted)))
        order = np.concatenate([random.permutation(fitted) for _ in range(epochs)])
        for start in range(0, len(order), _BATCH):
            places = order[start : start + _BATCH]
            optimizer.param_groups[0]["lr"] = _RATE * (1 - start / len(order))
            targets = {name: taken(name, places) for name in token_head.targets}
            optimizer.zero_grad()
            given, mask = states(places)
            token_head.outputs(head(given), mask, **targets)["loss"].backward()
            optimizer.step()
        out = np.flatnonzero(folds == fold)
        for start in range(0, len(out), _BATCH):
            places = out[start : start + _BATCH]
            with torch.no_grad():
                given, mask = states(places)
                outputs = token_head.outputs(head(given), mask)
            found = task.predict(outputs, {name: taken(name, places) for name in task.scoring_only})
            for name, tensor in found.items():
                shape = (len(folds), *tensor.shape[1:])
                made = predictions.setdefault(name, np.zeros(shape, tensor.numpy().dtype))
                made[places] = tensor.numpy()
    return predictions


def _cut(model: Any, layer: int) -> None:
    """Leave the lowest layers of what the head reads, and say so in the configuration.

    Raises:
        UserError: there are fewer.
    """
    architecture = ARCHITECTURES[model.config.model_type]
    holder, _, name = architecture.blocks.rpartition(".")
    parent = extract.stack_of(model).get_submodule(holder)
    blocks = getattr(parent, name)
    if layer > len(blocks):
        raise UserError(f"--layer is {layer}; the model has {len(blocks)} layers")
    setattr(parent, name, blocks[:layer])
    setattr(model.config, extract.depth_name(model), layer)


def _digest(columns: Iterable[Any]) -> bytes:
    """Of the token ids of a window, and of its segments: the same ids have the same vectors."""
    return xxhash.xxh3_128_digest(b"".join(np.asarray(column, dtype=np.int64).tobytes() for column in columns))


def _without_dropout(module: torch.nn.Module, _: Any) -> None:
    """The training loop puts the whole model into training mode; its frozen part must not be."""
    module.eval()
