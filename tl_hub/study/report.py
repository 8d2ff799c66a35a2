"""A study as one page for a browser, its picture included. It loads nothing from elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_hub.card.markdown import capitalized, duration, figure, label_of, table, text_as_is
from tl_hub.card.page import page_of
from tl_hub.study.compare import drop_text, probability_text, with_interval
from tl_hub.study.curve import crossing_text, outlook_lines
from tl_hub.study.domains import cell_text, drop_lines


def write_comparison(folder: Path, answer: Mapping[str, Any]) -> None:
    """Write compare.html, of what `compare.compared` gave; compare.png is there if it has a place in it."""
    metric = label_of(answer["metric"])
    parts = [f"# {len(answer['runs'])} techniques on the same rows"]
    if answer["advice"]:
        parts.append(f"**{text_as_is(answer['advice']['sentence'])}**")
    parts += [
        f"{capitalized(metric)} of {answer['rows']:,} {answer['split']} rows, with its 95 % interval:",
        table(
            ["technique", metric, "95 % interval", "training", "peak memory", "published", "trained parameters"],
            [
                [
                    text_as_is(run["run"]),
                    figure(round(run["value"], 2)),
                    _interval(run),
                    duration(run["training_seconds"]),
                    f"{run['peak_memory_bytes'] / 2**20:,.0f} MiB" if run["peak_memory_bytes"] else "",
                    f"{run['published_bytes'] / 1e6:,.1f} MB",
                    f"{run['trainable_parameters']:,}" if run["trainable_parameters"] else "",
                ]
                for run in answer["runs"]
            ],
        ),
        f"![{capitalized(metric)} against cost](compare.png)",
    ]
    for split, these in answer["differences"].items():
        chosen_by = f"the best of the {answer['chosen_by']} rows"
        parts += [
            f"## Row by row on the {split} rows",
            f"Differences from {text_as_is(answer['best'])}, {chosen_by}:",
            table(
                ["technique", "verdict", "difference", "95 % interval", "p", "test"],  # a phone shows the first ones
                [
                    [
                        text_as_is(label),
                        found["verdict"],
                        f"{found['value']:+.2f}",
                        _interval(found),
                        text_as_is(probability_text(found["p"])),
                        found["test"],
                    ]
                    for label, found in these.items()
                ],
            ),
        ]
    domains = [found["domain"] for found in answer["domains"]]
    if domains:
        parts += [
            "## In other domains",
            table(
                ["rows of", "technique", metric, "compared with the run's own rows"],
                [
                    [
                        f"{text_as_is(found['domain'])} ({found['rows']:,})",
                        text_as_is(found["run"]),
                        with_interval(found, answer["unit"]),
                        drop_text(found, answer["unit"]),
                    ]
                    for found in sorted(answer["domains"], key=lambda found: domains.index(found["domain"]))
                ],
            ),
        ]
    _write(folder, "compare", [*parts, *map(text_as_is, answer["notes"])])


def write_curve(folder: Path, answer: Mapping[str, Any], name: str) -> None:
    """Write curve.html or quick.html, of what `curve.drawn` gave."""
    metric = label_of(answer["metric"])
    every = sorted({point["train_rows"] for curve in answer["curves"] for point in curve["points"]})
    points = [{point["train_rows"]: point for point in curve["points"]} for curve in answer["curves"]]
    rows = [
        [
            f"{size:,}",
            *(
                f"{figure(round(each[size]['value'], 2))} ({_interval(each[size])})" if size in each else ""
                for each in points
            ),
        ]
        for size in every
    ]
    parts = [
        f"# {capitalized(metric)} by the number of training rows",
        f"{capitalized(metric)} of {answer['rows']:,} {answer['split']} rows: mean over {answer['draws']} draws of the "
        "training rows, with its 95 % interval over draws and rows.",
        *map(text_as_is, outlook_lines(answer)),
        *(text_as_is(crossing_text(crossing)) for crossing in answer["crossings"]),
        f"![{capitalized(metric)} by the number of training rows]({name}.png)",
        table(["training rows", *(text_as_is(curve["technique"]) for curve in answer["curves"])], rows),
    ]
    _write(folder, name, parts)


def write_domains(folder: Path, answer: Mapping[str, Any], name: str) -> None:
    """Write domains.html or quick.html, of what `domains.compared` gave."""
    metric, names = label_of(answer["metric"]), [text_as_is(each) for each in answer["domains"]]
    cells = {(cell["trained_on"], cell["measured_on"]): cell for cell in answer["cells"]}
    distances = {frozenset(found["domains"]): found["value"] for found in answer["distances"]}
    every = answer["domains"]
    apart = [[distances.get(frozenset((one, other))) for other in every] for one in every]
    parts = [
        f"# {capitalized(metric)} in other domains",
        f"**{text_as_is(answer['advice'])}**",
        f"{capitalized(metric)} by {text_as_is(answer['technique'])}, with its 95 % interval. A line is a model, and "
        "what it was trained on; a column is the rows that it is measured on.",
        f"![{capitalized(metric)} of each model in each domain]({name}.png)",
        table(
            ["trained on", *names],
            [[names[i], *(cell_text(cells[own, other]) for other in every)] for i, own in enumerate(every)],
        ),
        "## How much worse than on its own rows",
        *(f"- {text_as_is(line)}" for line in drop_lines(answer)),
        "## How far the texts lie apart",
        "Proxy A-distance (Ben-David et al. 2007), by a linear classifier on TF-IDF of words: 0 where it cannot tell "
        "texts of two domains apart, 2 where it always can.",
        table(
            ["", *names],
            [[names[i], *("" if value is None else f"{value:.2f}" for value in line)] for i, line in enumerate(apart)],
        ),
    ]
    _write(folder, name, parts)


def _interval(found: Mapping[str, Any]) -> str:
    if found["low"] is None or found["high"] is None:
        return ""
    return f"{figure(round(found['low'], 2))} to {figure(round(found['high'], 2))}"


def _write(folder: Path, name: str, parts: list[str]) -> None:
    page = page_of("\n\n".join(parts), name, {f"{name}.png": folder / f"{name}.png"})
    (folder / f"{name}.html").write_text(page, encoding="utf-8")
