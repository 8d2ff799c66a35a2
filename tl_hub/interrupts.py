"""Ctrl-C and SIGTERM in the middle of training."""

import signal
import types

import torch
from accelerate import Accelerator


class Interrupts:
    """Turns Ctrl-C and SIGTERM into a question asked after each step, so that the state saved is a whole one."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupts":
        self.previous = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: types.FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_any_process(self, accelerator: Accelerator) -> bool:
        if accelerator.num_processes == 1:
            return self.asked
        asked = torch.tensor(int(self.asked), device=accelerator.device)
        return bool(accelerator.reduce(asked, reduction="sum"))
