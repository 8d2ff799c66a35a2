"""A moving average of the weights, which may do better than those of any epoch, and how it compares with the best.

Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, and Morales-Brotons et al. 2024,
https://arxiv.org/abs/2411.18704. The average is an exponential one, so that it needs no plan of when training ends.
"""

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from tl_hub.training_state import History

TITLE = "Moving average of the weights, on the validation rows"
NO_METRICS = {"epoch", "step", "loss", "skipped_steps"}


class MovingAverage:
    """The mean of the weights after each step, in which a step counts 1 - 1/n times as much as the one after it.

    The first n steps are nearly all there is to average; weights from before training have no part in it, so that the
    mean needs no correction.

    Attributes:
        means: by the names of the parameters.
    """

    def __init__(self, parameters: dict[str, torch.Tensor], steps: float):
        """
        Args:
            steps: n, at least 1.
        """
        self.parameters, self.decay = parameters, 1 - 1 / steps
        self.means = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        share = (1 - self.decay) / (1 - self.decay**step)
        for name, parameter in self.parameters.items():
            self.means[name].lerp_(parameter.detach(), share)


def table(history: "History", epochs: float | None) -> dict[str, list[dict[str, Any]]]:
    """The figures of the average beside those of the best epoch, for a card; none where there was no average."""
    if not history.average:
        return {}
    best = {name: figure for name, figure in history.epochs[history.best_epoch - 1].items() if name not in NO_METRICS}
    kept = " (kept)"
    return {
        TITLE: [
            {"weights": f"epoch {history.best_epoch}, the best{kept * (not history.average_kept)}", **best},
            {"weights": f"average over about {epochs:g} epochs{kept * history.average_kept}", **history.average},
        ]
    }
