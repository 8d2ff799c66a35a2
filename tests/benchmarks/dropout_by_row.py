"""What dropout would cost on a CPU if each row had a random stream of its own, against one stream for all rows.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.dropout_by_row

Prints the ratio of processor time for the hidden states and for the attention weights of BERT-base on 16 texts of 128
tokens, by the fastest of five times ten passes.
"""

import time
from collections.abc import Callable

import torch

from tl_hub.cpu import dropout

SHAPES = {"hidden states": (16, 128, 768), "attention weights": (16, 12, 128, 128)}
P = 0.1


def dropout_by_row(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """As `tl_hub.cpu.dropout`, of rows each of which draws from a generator seeded by `seed` and its number."""
    drop, size = round(256 * p), x[0].numel()
    words = torch.empty((len(x), (size + 7) // 8), dtype=torch.int64)
    for number, row in enumerate(words):
        row.random_(-(2**63), None, generator=torch.Generator().manual_seed(hash((seed, number))))
    kept = words.view(torch.uint8)[:, :size].reshape(x.shape) >= drop
    return x * kept.to(x.dtype).mul_(256 / (256 - drop))


def seconds(act: Callable[[], torch.Tensor]) -> float:
    took = []
    for _ in range(5):
        began = time.process_time()
        for _ in range(10):
            act()
        took.append(time.process_time() - began)
    return min(took)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        x = torch.randn(shape)
        by_row, at_once = seconds(lambda x=x: dropout_by_row(x, P, 0)), seconds(lambda x=x: dropout(x, P))
        print(f"{name}: {by_row / at_once:.2f} times")
