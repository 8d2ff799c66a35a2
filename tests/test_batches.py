"""Which rows make a step, and how processes share them out."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tl_hub.batches import GlobalBatches, micro_batches

LENGTHS = np.random.default_rng(0).lognormal(4.5, 0.6, 1003).astype(int) + 8


def padding(batches: Sequence[Any]) -> float:
    """Padding tokens for each real one."""
    padded = sum(len(batch) * LENGTHS[batch].max() for batch in batches)
    return padded / LENGTHS.sum() - 1


@pytest.mark.parametrize("size", [1, 4, 16, 1003, 5000])
def test_every_row_comes_once_in_steps_of_the_right_size(size):
    batches = GlobalBatches(LENGTHS, size, seed=0)
    for epoch in range(3):
        steps = [rows.tolist() for rows in batches.of_epoch(epoch)]
        assert sorted(row for rows in steps for row in rows) == list(range(len(LENGTHS)))
        assert len(steps) == len(batches) == -(-len(LENGTHS) // size)
        short = [len(rows) for rows in steps if len(rows) != size]
        assert short == ([len(LENGTHS) % size] if len(LENGTHS) % size else [])


def test_the_order_depends_on_seed_and_epoch_alone():
    """A resumed run makes a new object and must get the rows that the interrupted one would have got."""

    def order(batches: GlobalBatches, epoch: int) -> list[list[int]]:
        return [rows.tolist() for rows in batches.of_epoch(epoch)]

    used = GlobalBatches(LENGTHS, 8, seed=3)
    for epoch in (0, 1, 2):
        used.of_epoch(epoch)
    np.random.seed(99)
    orders = [order(used, epoch) for epoch in (2, 0, 1)]
    assert orders == [order(GlobalBatches(LENGTHS, 8, seed=3), epoch) for epoch in (2, 0, 1)]
    others = [order(GlobalBatches(LENGTHS, 8, seed=4), 0), *orders]
    assert len({json.dumps(order) for order in others}) == 4
    contents = [{frozenset(rows) for rows in order} for order in others]
    assert not contents[1] & contents[2], "epochs differ in what is batched with what, not only in the order"


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17, 32, 47, 48])
def test_processes_read_each_row_of_a_step_once_in_equal_shares(rows, processes):
    step = np.arange(100, 100 + rows)
    shares = [micro_batches(step, 8, process, processes) for process in range(processes)]
    assert sorted(row for share in shares for part in share for row in part) == step.tolist()
    assert len({len(share) for share in shares}) == 1, "one that reads more often would wait for the others for ever"
    sizes = [len(part) for share in shares for part in share]
    assert max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
    assert len(shares[0]) == -(-rows // (8 * processes)), "no more passes than are needed"


def test_padding_is_a_fraction_of_that_of_random_batches():
    order = np.random.default_rng(1).permutation(len(LENGTHS)).tolist()
    by_chance = padding([order[i : i + 16] for i in range(0, len(order), 16)])
    bucketed = padding(GlobalBatches(LENGTHS, 16, seed=0).of_epoch(0))
    assert by_chance > 1.0, "these lengths would cost more padding than text"
    assert bucketed < by_chance / 8


def test_the_order_of_lengths_stays_random():
    """Sorted batches would train on short texts first: the mean length must not rise or fall along an epoch."""
    means = [LENGTHS[batch].mean() for batch in GlobalBatches(LENGTHS, 16, seed=0).of_epoch(0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.35
