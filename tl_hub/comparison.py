"""What the baselines of a run say of its result, in sentences for its card and the screen. Needs no torch."""

from tl_hub.card.markdown import figure, label_of
from tl_hub.record import RunRecord

UPPER_BOUND = "best choice of sentences"
"""The system among the baselines that knows the answers."""
_OURS = "this model"
LOWER_IS_BETTER = ("loss", "perplexity", "rmse", "squared_error", "expected_calibration_error")


def sentences(record: RunRecord) -> list[str]:
    """Which baselines are better than the model by its first metric, and which lie within its interval; none if none.

    Of baselines on a part of the rows, for which no interval is known, only the better ones are named.
    """
    for metric in record.metrics[:1]:
        title, rows = next((item for item in record.tables.items() if item[0].startswith("Baselines")), ("", []))
        of = {row.get("system"): _value(row, metric.name) for row in rows}
        ours = of.get(_OURS)
        if ours is None:
            return []
        sign = -1 if metric.name in LOWER_IS_BETTER else 1
        low, high = (metric.low, metric.high) if title == "Baselines" else (None, None)
        better, alike = [], []
        for system, value in of.items():
            if value is None or system in (_OURS, UPPER_BOUND):
                continue
            if low is not None and high is not None and low <= value <= high:
                alike.append(f"{system}, {figure(value)}")
            elif sign * value > sign * ours:
                better.append(f"{system}, {figure(value)}")
        name, said = label_of(metric.name), list[str]()
        if better:
            who = "A baseline has" if len(better) == 1 else "Baselines have"
            said.append(f"{who} a better {name} on the same rows: {'; '.join(better)}.")
        if alike:
            who = "a baseline" if len(alike) == 1 else "baselines"
            said.append(
                f"This model's 95 % interval holds the {name} of {who}, so these rows do not show which is better: "
                f"{'; '.join(alike)}."
            )
        return said
    return []


def _value(row: dict[str, object], metric: str) -> float | None:
    """The figure of a system by the name that the metric has in the record, where the table has it as a number."""
    found = next((value for name, value in row.items() if name.replace(" ", "_").lower() == metric.lower()), None)
    return float(found) if isinstance(found, int | float) else None
