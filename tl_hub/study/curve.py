"""Quality by the number of training rows: a line a technique, over several draws of the rows."""

import dataclasses
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from tl_hub import comparison, seeds
from tl_hub.card.markdown import label_of
from tl_hub.errors import UserError
from tl_hub.record import RunRecord, SeedsMetric
from tl_hub.study.compare import WIDTH
from tl_hub.study.learning_curve import Point, outlook

_SMALLEST = 8


@dataclass(frozen=True)
class Line:
    """A technique: its figure by the number of training rows, a mean over the draws."""

    label: str
    kind: str
    figures: dict[int, SeedsMetric]


def sizes(asked: str | None, rows: int) -> list[int]:
    """The numbers of training rows, rising: those asked for, or 8, 16, 32 and so on up to all.

    Args:
        asked: as on the command line, such as 8,64,all.

    Raises:
        UserError: one is no number of rows, or there are no more than one.
    """
    if asked is None:
        doubled = [_SMALLEST * 2**i for i in range(64) if _SMALLEST * 2**i < rows]
        found = [*doubled[: -1 if doubled and doubled[-1] > 0.75 * rows else None], rows]
    else:
        found = []
        for part in asked.split(","):
            if part != "all" and not (part.isdecimal() and 1 < int(part) <= rows):
                raise UserError(f"--sizes {asked}: {part!r} is none of 2 to {rows}, which is all, such as 8,64,all")
            found.append(rows if part == "all" else int(part))
    found = sorted({*found})
    if len(found) < 2:
        raise UserError(f"--sizes: {len(found)} size makes no curve; there are {rows} training rows")
    return found


def of_runs(label: str, folders: Mapping[int, Sequence[Path]]) -> Line:
    """The line of finished runs, by their number of training rows.

    Raises:
        UserError: they were not measured on the same rows.
    """
    records = {size: [RunRecord.load(folder) for folder in these] for size, these in folders.items()}
    every = [record for these in records.values() for record in these]
    split = every[0].metrics[0].split
    if len({record.data.splits[split].sha256 for record in every}) > 1:
        raise UserError(
            f"{label}: the {split} rows are not the same in all runs, so they make no curve; give --test_file or, with "
            "--overwrite, begin anew"
        )
    return Line(label, every[0].kind, {size: seeds.over_seeds(folders[size], records[size])[0] for size in folders})


def drawn(lines: Sequence[Line]) -> dict[str, Any]:
    """What the lines come to, in plain values: `curves`, `crossings` and `outlook` by technique.

    Raises:
        UserError: they are not of one metric of the same split.
    """
    first = next(iter(lines[0].figures.values()))
    for line in lines[1:]:
        other = next(iter(line.figures.values()))
        if (other.name, other.split, other.rows) != (first.name, first.split, first.rows):
            raise UserError(
                f"{lines[0].label} and {line.label} were measured on different rows, or by different metrics"
            )
    higher = first.name not in comparison.LOWER_IS_BETTER
    return {
        "metric": first.name,
        "higher_is_better": higher,
        "unit": first.unit,
        "split": first.split,
        "rows": first.rows,
        "draws": first.seeds,
        "curves": [
            {
                "technique": line.label,
                "kind": line.kind,
                "points": [{"train_rows": size, **_plain(figure)} for size, figure in line.figures.items()],
            }
            for line in lines
        ],
        "crossings": [found for one, two in combinations(lines, 2) for found in _crossings(one, two, higher)],
        "outlook": {line.label: _outlook(line) for line in lines},
    }


def _plain(figure: SeedsMetric) -> dict[str, Any]:
    facts = dataclasses.asdict(figure)
    return {name: facts[name] for name in ("value", "low", "high", "deviation", "least", "most")}


def _crossings(one: Line, two: Line, higher: bool) -> list[dict[str, Any]]:
    """Where one line passes the other, by straight lines over the logarithm of the rows.

    `shown` is whether their intervals lie apart somewhere before and, the other way round, somewhere after.
    """
    common = sorted(one.figures.keys() & two.figures.keys())
    gaps = {size: one.figures[size].value - two.figures[size].value for size in common}
    found = []
    for before, after in pairwise(size for size in common if gaps[size]):
        if gaps[before] * gaps[after] < 0:
            share = gaps[before] / (gaps[before] - gaps[after])
            rows = math.exp(math.log(before) + share * math.log(after / before))
            rises = (gaps[after] > 0) == higher
            earlier = {_apart(one, two, size) for size in common if size <= before}
            later = {_apart(one, two, size) for size in common if size >= after}
            sign = 1 if gaps[after] > 0 else -1
            found.append(
                {
                    "technique": (one if rises else two).label,
                    "passes": (two if rises else one).label,
                    "train_rows": round(rows),
                    "between": [before, after],
                    "shown": -sign in earlier and sign in later,
                }
            )
    return found


def _apart(one: Line, two: Line, size: int) -> int:
    """1 where the first line's interval lies above the second's, -1 where below, 0 where they overlap."""
    ours, theirs = one.figures[size], two.figures[size]
    if None in (ours.low, ours.high, theirs.low, theirs.high):
        return 0
    assert ours.low is not None and ours.high is not None and theirs.low is not None and theirs.high is not None
    return int(ours.low > theirs.high) - int(ours.high < theirs.low)


def _outlook(line: Line) -> dict[str, Any]:
    points = [
        Point(size, figure.value, figure.low, figure.high)
        for size, figure in line.figures.items()
        if figure.low is not None and figure.high is not None
    ]
    if not points:
        return {"why": "no interval of its figures is known"}
    return dataclasses.asdict(outlook(points))


def text_of(answer: Mapping[str, Any]) -> str:
    """The curves for a screen of 80 columns."""
    figures = {
        curve["technique"]: {point["train_rows"]: point for point in curve["points"]} for curve in answer["curves"]
    }
    lines = [
        f"{label_of(answer['metric'])} of {answer['rows']:,} {answer['split']} rows: mean over {answer['draws']} draws "
        "of the training rows, with its 95 % interval over draws and rows",
    ]
    for names in _blocks(figures):
        every = sorted({size for name in names for size in figures[name]})
        table = [
            ["rows", *names],
            *([f"{size:,}", *(_cell(figures[name].get(size)) for name in names)] for size in every),
        ]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines += ["", *("  ".join(map(str.ljust, row, widths)).rstrip() for row in table)]
    lines += [""] * bool(answer["crossings"])
    lines += map(crossing_text, answer["crossings"])
    lines.append("")
    lines += outlook_lines(answer)
    return "\n".join(part for line in lines for part in (textwrap.wrap(line, WIDTH) if len(line) > WIDTH else [line]))


def crossing_text(crossing: Mapping[str, Any]) -> str:
    shown = "" if crossing["shown"] else ", which is not shown: the intervals overlap before or after"
    return f"{crossing['technique']} passes {crossing['passes']} at about {crossing['train_rows']:,} rows{shown}."


def outlook_lines(answer: Mapping[str, Any]) -> list[str]:
    """What twice the rows would bring to each technique, in sentences; one for all of which the same is missing."""
    points = "points" if answer["unit"] == "%" else label_of(answer["metric"])
    lines, unknown = list[str](), dict[str, list[str]]()
    for name, found in answer["outlook"].items():
        if found.get("gain") is None:
            unknown.setdefault(found["why"], []).append(name)
        else:
            lines.append(
                f"{name}: {found['rows']:,} rows would bring {found['gain']:+.1f} {points} ({found['low']:.1f} to "
                f"{found['high']:.1f}); fitted without the last size, the law was {abs(found['missed']):.1f} off there."
            )
    return lines + [
        f"{', '.join(names)}: too little data to tell what more rows would bring ({why})."
        for why, names in unknown.items()
    ]


def _blocks(names: Iterable[str]) -> list[list[str]]:
    """As many techniques side by side as a screen holds."""
    blocks: list[list[str]] = []
    used = WIDTH
    for name in names:
        width = max(len(name), 21) + 2
        if used + width > WIDTH:
            blocks.append([])
            used = 7
        blocks[-1].append(name)
        used += width
    return blocks


def _cell(point: Mapping[str, Any] | None) -> str:
    if point is None:
        return ""
    if point["low"] is None:
        return f"{point['value']:.4g}"
    return f"{point['value']:.1f} ({point['low']:.1f} to {point['high']:.1f})"
