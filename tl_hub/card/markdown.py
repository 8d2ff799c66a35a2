"""Values as Markdown, and figures and names as the field writes them."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tl_hub.record import Metric

_LABELS = {
    "f1": "F1",
    "chrf": "chrF",
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "rmse": "RMSE",
    "pearsonr": "Pearson correlation",
    "spearmanr": "Spearman correlation",
}
_CELL = 160
"""Characters of a text that a table cell shows."""
# A whole absolute path, up to its last part. A slash inside a word or a URL starts none.
_PATH = re.compile(r"""(?<![\w.:/\\~-])(?:file://)?(?:~|[A-Za-z]:)?[/\\]+(?:[^\s"',;=/\\]+[/\\]+)*(?=[^\s"',;=/\\])""")
_MARKUP = re.compile(r"[\\`*<\[\]~]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")


def label_of(name: str) -> str:
    """The name of a metric, or of another figure, as the field writes it."""
    return " ".join(_LABELS.get(word, word) for word in re.split("[_ ]", name))


def interval_of(metric: Metric) -> list[str]:
    """The interval as a list of one text, or of none where it is not known."""
    if metric.low is None or metric.high is None:
        return []
    return [f"95 % interval {_to_digits(metric.low, metric)} to {_to_digits(metric.high, metric)}"]


def value_of(metric: Metric) -> str:
    """The figure with the digits that its interval supports: two of half the interval's width, four in all at most."""
    return _to_digits(metric.value, metric)


def _to_digits(value: float, metric: Metric) -> str:
    shown = figure(float(value))
    if metric.low is None or metric.high is None or not metric.low < metric.high:
        return shown
    places = max(0, 1 - math.floor(math.log10((metric.high - metric.low) / 2)))
    rounded = figure(round(float(value), places))
    return min(shown, rounded, key=len)


def capitalized(text: str) -> str:
    return text if text == "chrF" else text[:1].upper() + text[1:]


def figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else text_as_is(str(value))


def rounded(metric: Metric) -> float:
    """A figure of the metadata, as exact as the text shows it; `run.json` has it in full."""
    return float(value_of(metric).replace(",", ""))


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def keys_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown. A column in which nothing is known is left out."""
    kept = [i for i in range(len(headers)) if any(row[i] for row in rows)]
    if not kept:
        return ""
    # A sparse column needs some mark, or the cell would look like a mistake.
    lines = [[row[i].replace("|", r"\|") or "–" for i in kept] for row in rows]
    lines = [[headers[i].replace("|", r"\|") for i in kept], ["---"] * len(kept), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text_as_is(text: str) -> str:
    """Text as Markdown that shows it literally, on one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def code_span(text: str) -> str:
    """A code span, or escaped text where the span's own marks are in it."""
    return text_as_is(text) if re.search(r"[`|\\]", text) else f"`{' '.join(text.split())}`"


def cut(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def without_folders(text: str) -> str:
    """Absolute paths reduced to their last part: the card is public, the machine is not."""
    return _PATH.sub("", text)
