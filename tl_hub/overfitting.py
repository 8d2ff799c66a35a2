"""Whether the history of a run shows overfitting, in a sentence for its card and the screen. Needs no torch."""

import math

from tl_hub import comparison
from tl_hub.card.markdown import figure, label_of
from tl_hub.record import RunRecord, in_history

_EPOCHS = 2
"""Epochs after the best one from which a trend may be told."""
_RISE = 0.01
"""By how much of itself a figure such as a loss must be worse, which is not a share of the rows."""


def sentence(record: RunRecord) -> str | None:
    """What the epochs after the best one did: the training loss fell, and the validation figure became worse.

    That figure is the loss where the history has it, or else the one that chose the epoch. A share of the validation
    rows must be worse by more than its standard error; any other figure by a hundredth.
    """
    name = "loss" if all(in_history("loss") in epoch for epoch in record.history) else None
    name = name or (record.metrics[0].name if record.metrics else "")
    key = in_history(name)
    epochs = [epoch for epoch in record.history if _is_number(epoch.get("loss")) and _is_number(epoch.get(key))]
    if len(epochs) <= _EPOCHS:
        return None
    sign = 1 if name in comparison.LOWER_IS_BETTER else -1
    best, last = min(epochs, key=lambda epoch: sign * epoch[key]), epochs[-1]
    worse = sign * (last[key] - best[key])
    if epochs.index(last) - epochs.index(best) < _EPOCHS or worse <= _margin(record, name, best[key]):
        return None
    if last["loss"] >= best["loss"]:
        return None
    kept = "" if record.best_epoch is None else f"; the weights are those of epoch {figure(record.best_epoch)}"
    return (
        f"Overfitting: from epoch {figure(best['epoch'])} to {figure(last['epoch'])} the training loss fell from "
        f"{figure(best['loss'])} to {figure(last['loss'])}, while the {label_of(name)} of the validation rows "
        f"{'rose' if sign > 0 else 'fell'} from {figure(best[key])} to {figure(last[key])}{kept}."
    )


def _margin(record: RunRecord, name: str, value: float) -> float:
    """By how much a figure must be worse."""
    unit = next((metric.unit for metric in record.metrics if metric.name == name), None)
    validation = record.data.splits.get("validation")
    if unit is None or validation is None or not validation.rows:
        return _RISE * abs(value)
    whole = 100.0 if unit == "%" else 1.0
    return math.sqrt(max(0.0, value * (whole - value)) / validation.rows)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
