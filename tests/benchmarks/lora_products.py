"""What training LoRA gains on a CPU by one product for weights and update together (`tl_hub.merged_lora`).

    OMP_NUM_THREADS=1 python -m tests.benchmarks.lora_products

Takes turns at steps of 16 rows of 80 tokens with the embedded BERT, with it and without, in float32. Prints the
processor time of a step without it as a multiple of that with it: lowest, median and highest of the rounds.
"""

import time
from contextlib import nullcontext

import numpy as np
import torch

from recipes import qa_adapter
from tl_hub import adamw, base_model, cpu, merged_lora

ROUNDS, STEPS = 12, 4


def main() -> None:
    run = qa_adapter.RUN
    model, _, base = base_model.load(run, qa_adapter.TASK.of_run(run))
    cpu.keep_memory()
    adapted = qa_adapter.METHOD.wrap(model, base).train()
    optimizer = adamw.optimizer(adapted, run)
    ids = torch.randint(5, 4000, (16, 80))
    places = {name: torch.randint(0, 80, (16,)) for name in ("start_positions", "end_positions")}

    def step() -> None:
        adapted(input_ids=ids, **places).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    found = []
    with cpu.faster_training(adapted):
        for _ in range(ROUNDS):
            seconds = []
            for products in (nullcontext(), merged_lora.fast_products(adapted)):
                with products:
                    step()
                    start = time.process_time()
                    for _ in range(STEPS):
                        step()
                    seconds.append(time.process_time() - start)
            found.append(seconds[0] / seconds[1])
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print(f"{np.median(found):.2f} ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
