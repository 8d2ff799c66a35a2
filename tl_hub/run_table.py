"""Several runs side by side, for `tl-hub list` and `tl-hub show`. Needs neither torch nor the Hub's client."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tl_hub import run_folder
from tl_hub.errors import UserError
from tl_hub.record import RunRecord


@dataclass(frozen=True)
class Line:
    """A run in the table; the names are those of the columns, by each of which it can be sorted.

    Attributes:
        score: the metric that chose the weights, which is the first one of the record.
        seconds: of training.
        size: bytes of the weights.
    """

    run: str
    kind: str
    task: str
    metric: str
    score: float | None
    seconds: float | None
    size: int
    date: str


COLUMNS = tuple(field.name for field in fields(Line))
_TEXTS = ("run", "kind", "task", "metric")
"""Columns in the order of the alphabet; the others begin with the highest."""


def folders(places: Iterable[str | Path]) -> list[Path]:
    """The run folders among `places` and below them, each once.

    Raises:
        UserError: one of them is not a folder.
    """
    found: dict[Path, None] = {}
    for place in map(Path, places):
        if not place.is_dir():
            raise UserError(f"{place} is not a folder; give a run folder, or one that holds runs")
        found |= dict.fromkeys(path.parent for path in sorted(place.rglob(run_folder.RECORD)))
    return list(found)


def table(runs: Sequence[Path], sort: str | None = None, reverse: bool = False) -> tuple[list[dict[str, Any]], str]:
    """The records with their folders, and the table; a folder whose record cannot be read says why in both.

    Args:
        sort: one of `COLUMNS`: names from A to Z, figures from high to low, unknown ones last.
        reverse: the other way round.
    """
    known: list[tuple[Line, dict[str, Any]]] = []
    broken: list[dict[str, Any]] = []
    for folder in runs:
        try:
            run = RunRecord.load(folder)
        except UserError as error:
            broken.append({"folder": str(folder), "error": str(error)})
        else:
            known.append((_line(folder, run), {"folder": str(folder), **run.facts()}))
    if sort:
        blank = [pair for pair in known if getattr(pair[0], sort) in (None, "")]
        there = [pair for pair in known if pair not in blank]
        known = sorted(there, key=lambda pair: getattr(pair[0], sort), reverse=reverse == (sort in _TEXTS)) + blank
    rows = [COLUMNS, *(_cells(line) for line, _ in known)] if known else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [">" if name in ("score", "seconds", "size") else "<" for name in COLUMNS]
    forms = [f"{side}{width}" for side, width in zip(aligned, widths, strict=False)]
    lines = ["  ".join(map(format, row, forms)).rstrip() for row in rows]
    text = "\n".join([*lines, *(f"{run['folder']}: {run['error']}" for run in broken)])
    return [*(facts for _, facts in known), *broken], text


def _line(folder: Path, run: RunRecord) -> Line:
    weights = (path for name in run_folder.MODEL for path in folder.glob(name) if path.suffix == ".safetensors")
    return Line(
        run=str(folder),
        kind=run.kind,
        task=run.task or run.pipeline_tag,
        metric=run.metrics[0].name if run.metrics else "",
        score=run.metrics[0].value if run.metrics else None,
        seconds=run.cost.training_seconds,
        size=sum(path.stat().st_size for path in weights),
        date=run.created or "",
    )


def _cells(line: Line) -> tuple[str, ...]:
    score = "" if line.score is None else f"{line.score:.4g}"
    seconds = "" if line.seconds is None else f"{line.seconds:,.0f}"
    size = f"{line.size / 1e6:,.1f} MB" if line.size else ""
    return line.run, line.kind, line.task, line.metric, score, seconds, size, line.date[:16].replace("T", " ")
