"""Which rows are trained on together: those of each optimizer step, each process's share of them, and their batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from accelerate.utils import send_to_device

from tl_hub.experiment import Experiment


class GlobalBatches:
    """The rows of each optimizer step, of like length, in an order that is a function of (seed, epoch) alone.

    Rows are shuffled, cut into pools of `pool` batches, sorted by length within a pool and cut into batches, whose
    order is shuffled again: padding stays small, order stays random. Because nothing depends on what was drawn
    before, a resumed run seeks to a step instead of replaying the ones before it; and because nothing depends on who
    reads them, a step has the same rows whether one process reads 16 of them, or two processes 8 each.

    Args:
        lengths: of the rows, (rows,).
        size: rows of a step, over all processes and accumulated batches; an epoch's last step may have fewer.
    """

    def __init__(self, lengths: np.ndarray | Sequence[int], size: int, seed: int, pool: int = 50):
        self.lengths, self.size, self.seed, self.pool = np.asarray(lengths), size, seed, pool

    def __len__(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.lengths) // self.size)

    def of_epoch(self, epoch: int) -> list[np.ndarray]:
        """The rows of each step, longest first."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(len(self.lengths))
        pooled = self.pool * self.size
        pools = (order[i : i + pooled] for i in range(0, len(order), pooled))
        rows = np.concatenate([pool[np.argsort(-self.lengths[pool], kind="stable")] for pool in pools])
        batches = [rows[i : i + self.size] for i in range(0, len(rows), self.size)]
        full = len(self.lengths) // self.size
        places = [*random.permutation(full).tolist(), *range(full, len(batches))]  # one that is not full comes last
        return [batches[i] for i in places]


def micro_batches(rows: np.ndarray, batch_size: int, process: int, processes: int) -> list[np.ndarray]:
    """What one process reads of a step's rows, at most `batch_size` at a time.

    All processes read as many batches, of almost as many rows. Where there are fewer rows than processes, some of the
    batches are empty.
    """
    rounds = -(-len(rows) // (batch_size * processes))
    return np.array_split(rows, rounds * processes)[process::processes]


class Reader:
    """Batches of given rows of a split, to train on or to measure."""

    def __init__(self, experiment: Experiment, split: str, *, training: bool):
        encoded, task = experiment.rows.splits[split].encoded, experiment.task
        assert encoded is not None
        self.device, self.task, self.training = experiment.accelerator.device, task, training
        self.encoded = encoded.select_columns(
            [name for name in (*task.batched, "index") if name in encoded.column_names]
        )
        self.collate = task.collator(experiment.tokenizer, training=training)

    def batch(self, rows: Sequence[int], draw: tuple[int, int, int] | None = None, longest: int | None = None) -> Any:
        """The batch of some rows.

        Args:
            draw: in training, seed, epoch and step, by which what is random in it is drawn. Drawn from the stream that
                dropout draws from, masks would depend on the number of processes.
            longest: in training, the row as long as which they are padded where padding counts.
        """
        beside = [longest] if self.training and self.task.padding_in_loss else []
        columns = self.encoded[[*rows, *beside]]
        features = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        if self.training and self.task.random_batches:
            features = [row | {"draw": draw} for row in features]
        batch = {name: tensor[: len(tensor) - len(beside)] for name, tensor in self.collate(features).items()}
        return send_to_device(batch, self.device)
