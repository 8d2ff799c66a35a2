"""Write the tables of the pages from the files that hold their figures.

python -m tools.pages.tables

A page says where: between `<!-- table: NAME -->` and `<!-- end of table -->`. `tests/tools/pages`
fails where a page holds another table than this writes.
"""

import dataclasses
import functools
import html
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from scipy import stats

from tl_hub import config
from tl_hub.card import rules
from tl_hub.methods import adapters, feature_extraction, fine_tune, from_scratch
from tl_hub.record import RunRecord
from tl_hub.tasks import catalog

ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"
PLACE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end of table -->)", re.DOTALL)
KOREAN = {
    "data": "데이터",
    "features": "특징 추출",
    "adapter": "어댑터",
    "fine-tuning": "미세 조정",
    "accuracy": "정확도",
    "rows": "행",
}


def pages() -> list[Path]:
    """The pages that may hold tables."""
    return [*ROOT.glob("README*.md"), *sorted((ROOT / "docs").rglob("*.md"))]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines) + "\n"


def figure(value: float, low: float | None = None, high: float | None = None, to: str = " to ") -> str:
    """A measured value and its 95 % interval."""
    shown = [f"{round(number, 1) + 0.0:.1f}" for number in (value, low, high) if number is not None]  # no -0.0
    return shown[0] if low is None else f"{shown[0]} ({shown[1]}{to}{shown[2]})"


@functools.cache
def results() -> dict[str, list[dict[str, Any]]]:
    """Name of a table -> its measured figures, a dict a line of `model_cards/results.jsonl`.

    `low` and `high` are null where no interval was recorded, and `command`, `cpu` or `commit` is empty likewise.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for line in map(json.loads, (CARDS / "results.jsonl").read_text(encoding="utf-8").splitlines()):
        found.setdefault(line["table"], []).append(line)
    return found


def measured(name: str) -> str:
    """A table of figures as they are in the file: `row` has a line's first cells, `column` the head of a figure."""
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    lines = results()[name]
    for line in lines:
        shown = f"{line['value']:,}"
        shown += f" ({line['low']:,} to {line['high']:,})" if line["low"] is not None else ""
        shown += f" ± {line['error']}" if "error" in line else ""
        rows.setdefault(tuple(line["row"].values()), {})[line["column"]] = shown
    columns = list(dict.fromkeys(line["column"] for line in lines))
    body = [[*first, *(cells.get(column, "") for column in columns)] for first, cells in rows.items()]
    return table([*lines[0]["row"], *columns], body)


def techniques(korean: bool = False) -> str:
    """The three techniques beside each other, with the BERT of 22 million parameters."""
    rows = {"SST-2": "2,000", "ag_news": "2,000", "emotion": "3,257", "SQuAD": "4,000"}
    measured = [line for line in results()["techniques"] if line["data"] in rows]
    found = {(line["data"], line["technique"]): line for line in measured if line["model"] in ("MiniLM", None)}
    names = ["features", "adapter", "fine-tuning"]

    def word(name: str) -> str:
        return KOREAN[name] if korean and name in KOREAN else name

    def cell(data: str, name: str) -> str:
        line = found.get((data, name), {})
        return figure(line["value"], line.get("low"), line.get("high"), "~" if korean else " to ") if line else ""

    return table(
        [word("data"), *map(word, names), "TF-IDF"],
        [
            [f"{data}, {count} {word('rows')}, {word(found[data, 'adapter']['metric'])}"]
            + [cell(data, name) for name in [*names, "TF-IDF"]]
            for data, count in rows.items()
        ],
    )


def techniques_by_model() -> str:
    """Quality, minutes of one core and size of what is published, of every model that was measured."""
    found = {(line["data"], line["model"], line["technique"]): line for line in results()["techniques"]}
    rows = []
    for data, model in dict.fromkeys((data, model) for data, model, _ in found if model and data != "SQuAD"):
        cells = [found[data, model, name] for name in ("features", "adapter", "fine-tuning")]
        rows.append([data, f"`{model}`" if ":" in model else model])
        rows[-1] += [
            f"{figure(line['value'], line['low'], line['high'])}<br>{line['minutes']} min, {line['published']}"
            for line in cells
        ]
    return table(["data", "model", "features", "adapter", "fine-tuning"], rows)


def real_data() -> str:
    """What `tl-hub compare`, `curve` and `domains` answer about public data: a line a data set."""
    lines = results()["real data"]
    rows = []
    for data in dict.fromkeys(line["data"] for line in lines):
        of = {kind: [line for line in lines if (line["data"], line["kind"]) == (data, kind)] for kind in _ANSWERS}
        (best,) = (line for line in of["technique"] if line["verdict"] == "best")
        others = [line for line in of["technique"] if line is not best]
        rows.append([f"{data} rows, {best['metric']}"])
        rows[-1].append(f"**{best['name']}** {figure(best['value'], best['low'], best['high'])}")
        rows[-1].append("<br>".join(map(_beside, others)))
        rows[-1].append("<br>".join(map(_gain, of["twice the rows"])) or "not run")
        rows[-1].append("<br>".join(map(_elsewhere, of["domain"])) or "not run")
        rows[-1].append("<br>".join(f"{line['name']} {line['value']:.1f}" for line in of["cost"]))
    head = ["data", "which technique?", "the others", "twice the rows", "another domain", "minutes of a core"]
    return table(head, rows)


_ANSWERS = ("technique", "twice the rows", "domain", "cost")
"""Kinds of a line of "real data"."""


def _beside(line: dict[str, Any]) -> str:
    advised = ", and cheaper: **advised**" if line["advised"] else ""
    return f"{line['name']} {figure(line['value'])}: {line['verdict']}{advised}"


def _gain(line: dict[str, Any]) -> str:
    if line["value"] is None:
        return f"{line['name']}: {line['why']}"
    return f"{line['name']}: {'+' * (line['value'] > 0)}{figure(line['value'], line['low'], line['high'])}"


def _elsewhere(line: dict[str, Any]) -> str:
    word, sign = ("gains", -1) if line["drop"] < 0 else ("loses", 1)
    low, high = sorted((sign * line["drop_low"], sign * line["drop_high"]))
    return f"{line['name']} {figure(line['value'])}: {word} {figure(sign * line['drop'], low, high)}"


def recipes(data: str) -> str:
    """What the recipes reach with the embedded checkpoints on embedded data: a table for each set."""
    lines = [line for line in results()["recipes"] if line["data"].startswith(f"sample:{data}")]
    return "".join(_on(name, lines) for name in dict.fromkeys(line["data"] for line in lines))


def _on(data: str, lines: list[dict[str, Any]]) -> str:
    lines = [line for line in lines if line["data"] == data]
    simple = [f"{line['beside']}: {line['beside_value']:,.1f}" if "beside" in line else "" for line in lines]
    alike = len(set(simple)) == 1  # which one sentence then says
    rows = []
    for line, beside in zip(lines, simple, strict=True):
        rows.append([f"`{line['recipe']}`" + (f" `{line['flags']}`" if line["flags"] else ""), f"{line['value']:.1f}"])
        rows[-1].append(f"{line['low']:.1f} to {line['high']:.1f}" if line["low"] is not None else "")
        rows[-1] += [] if alike else [beside]
        rows[-1].append(f"{line['minutes']:g}" if "minutes" in line else "")
        rows[-1][-1] += f"{line['processor_minutes']:g}*" if "processor_minutes" in line else ""
    head = ["recipe and flags", lines[0]["metric"], "95 % interval", *([] if alike else ["beside it"]), "minutes"]
    return f"\nOn `{data}`{f' ({simple[0]})' if alike and simple[0] else ''}:\n{table(head, rows)}"


def _records(names: Callable[[str], bool]) -> Iterator[RunRecord]:
    for path in sorted(CARDS.glob("*.json")):
        if names(path.stem):
            yield RunRecord.from_facts(json.loads(path.read_text(encoding="utf-8")))


def cards() -> str:
    """The bare recipes whose cards are in the repository."""
    rows = []
    for record in _records(lambda name: not name.startswith("tiny_")):
        first, seconds = record.metrics[0], record.cost.training_seconds
        assert first.low is not None and first.high is not None and seconds
        rows.append([f"`{record.name}`", str(first.rows), first.name, f"{first.value:.1f}"])
        rows[-1] += [f"{first.low:.1f} to {first.high:.1f}", f"{seconds / 60:.1f}"]
    return table(["recipe", "test rows", "metric", "value", "95 % interval", "minutes"], rows)


def checkpoints() -> str:
    """The embedded checkpoints."""
    rows = []
    for record in _records(lambda name: name.startswith("tiny_")):
        shape, loss = record.method["settings"], next(m for m in record.metrics if m.name == "loss")
        family = record.name.removeprefix("tiny_")
        assert record.cost.total_parameters
        layers = f"{shape['layers']} + {shape['layers']}" if family == "t5" else str(shape["layers"])
        size = f"{record.cost.total_parameters / 1e6:.1f} million"
        rows.append(
            [f"`tiny:{family}`", size, layers, str(shape["hidden_size"]), f"{shape['vocab_size']:,}"]
            + [f"{loss.value:.2f}"]
        )
    return table(
        ["checkpoint", "parameters", "layers", "width", "vocabulary", "loss on WikiText-2, nats a predicted token"],
        rows,
    )


def transfer() -> str:
    """What pretraining is worth: the same budget from the embedded weights and from random ones."""
    scores: dict[tuple[str, str, int], dict[bool, dict[int, float]]] = {}
    for line in results()["transfer"]:
        case = scores.setdefault((line["family"], line["data"], line["rows"]), {True: {}, False: {}})
        case[line["pretrained"]][line["seed"]] = line["value"]

    def of_seeds(values: list[float]) -> str:
        half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
        return figure(mean(values), mean(values) - half, mean(values) + half)

    rows = []
    for (family, data, count), case in sorted(scores.items()):
        seeds = sorted(case[True])
        differences = [case[True][seed] - case[False][seed] for seed in seeds]
        rows.append([family, data, f"{count:,}"])
        rows[-1] += [of_seeds([case[kind][seed] for seed in seeds]) for kind in (False, True)]
        rows[-1] += [of_seeds(differences), f"{sum(d > 0 for d in differences)} of {len(seeds)}"]
    return table(["family", "data", "rows", "from scratch", "pretrained", "difference", "ahead"], rows)


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "\\|")


def settings(kind: Any) -> str:
    """The flags of settings, with their defaults."""
    rows = []
    for field in dataclasses.fields(kind):
        if field.init:
            default = f"`{field.default}`" if field.default is not None else field.metadata["shown"] or "none"
            rows.append([f"`--{field.name}`", default, _cell(field.metadata["help"])])
    return table(["flag", "default", "what it is"], rows)


def settings_of_adapters() -> str:
    """The flags of all adapters. Those of one name may differ from method to method."""
    methods: dict[tuple[str, str, str], list[str]] = {}
    for method, kind in adapters.METHODS.items():
        for name, field in kind().flags().items():
            entry = (f"`--{name}`", f"`{field.default}`", _cell(field.metadata["help"]))
            methods.setdefault(entry, []).append(method)
    rows = [[flag, ", ".join(names), default, help] for (flag, default, help), names in methods.items()]
    return table(["flag", "methods", "default", "what it is"], rows)


def hub_rules() -> str:
    """What the Hub asks of a card and a repository."""
    breach = {True: "refused", False: "shown or loaded wrong"}
    rows = [[f"`{rule.name}`", _cell(rule.says), rule.source, breach[rule.refused]] for rule in rules.RULES]
    return table(["about", "what the Hub takes", "source", "otherwise"], rows)


def tables() -> dict[str, Callable[[], str]]:
    """Name of a table -> what writes it."""
    made: dict[str, Callable[[], str]] = {
        "techniques": techniques,
        "techniques in Korean": lambda: techniques(korean=True),
        "techniques by model": techniques_by_model,
        "real data": real_data,
        "cards": cards,
        "checkpoints": checkpoints,
        "transfer": transfer,
        "settings of the run": lambda: settings(config.RunConfig),
        "settings of fine-tuning": lambda: settings(fine_tune.FineTune),
        "settings of feature extraction": lambda: settings(feature_extraction.FeatureExtraction),
        "settings of pretraining": lambda: settings(from_scratch.FromScratch),
        "settings of adapters": settings_of_adapters,
        "rules of the Hub": hub_rules,
    }
    made |= {name: lambda name=name: measured(name) for name, lines in results().items() if "row" in lines[0]}  # type: ignore[misc]
    for data in ("sentiment", "documents", "qa", "ner", "summarization", "translation", "text"):
        made[f"recipes on {data}"] = lambda data=data: recipes(data)  # type: ignore[misc]
    for name, facts in catalog.CATALOG.items():
        if facts.settings and name != "text-regression":  # whose settings are those of classification
            made[f"settings of {name}"] = lambda place=facts.settings: settings(catalog.load(place))  # type: ignore[misc]
    return made


def written(text: str) -> str:
    """A page with its tables as the files have them now."""
    return PLACE.sub(lambda found: found[1] + tables()[found[2]]() + found[3], text)


def main() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if text != (new := written(text)):
            page.write_text(new, encoding="utf-8")
            print(f"{page.relative_to(ROOT)} was written anew")


if __name__ == "__main__":
    main()
