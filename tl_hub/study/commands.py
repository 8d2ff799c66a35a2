"""`tl-hub compare`, `curve`, `domains` and `labels`. What they need is imported when they are called."""

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_hub import cli
from tl_hub.errors import UserError
from tl_hub.study import COSTS

if TYPE_CHECKING:
    from tl_hub.cli import Commands
    from tl_hub.study.curve import Line
    from tl_hub.study.entries import Entry
    from tl_hub.study.runs import Job, Study


def add_compare(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        compare,
        "compare",
        "train several techniques on the same rows, or take runs that are there, and say which one to take",
        """\
tl-hub compare sentiment --train_file mine.csv            features, adapter and fine-tuning
tl-hub compare sentiment_features "sentiment_adapter method=ia3" --model tiny:roberta
tl-hub compare sentiment --train_file mine.csv --check    what would be run, and about how long
tl-hub compare runs/first runs/second                     without training""",
    )
    _add_common(parser, "runs/compare", " or the folder of a run")
    parser.add_argument("--cost", choices=COSTS, default="seconds", help="what is to be cheap [seconds]")


def _add_common(parser: argparse.ArgumentParser, folder: str, also: str = "") -> None:
    parser.add_argument(
        "techniques",
        nargs="+",
        metavar="TECHNIQUE",
        help=f"a task (all of its recipes), a recipe, 'RECIPE setting=value'{also}; then flags for all recipes",
    )
    parser.add_argument("--output_dir", help=f"folder of the runs and of the result [{folder}]")
    parser.add_argument("--check", action="store_true", help="say what would be run and about how long; train nothing")
    parser.add_argument("--overwrite", action="store_true", help="train all runs anew")
    parser.set_defaults(passes_on=True)


def compare(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.study import compare as comparing
    from tl_hub.study import entries, pictures, report
    from tl_hub.study.runs import Job, Study

    found = entries.of(asked.techniques, asked.others)
    if len(found) < 2:
        raise UserError(f"{asked.techniques[0]} is one technique; give two or more to compare, or a task")
    jobs = [Job(entry.name, entry) for entry in found if entry.recipe]
    place = Path(asked.output_dir or "runs/compare")
    if jobs:
        study = Study(place, asked.overwrite)
        left = study.left(jobs, entries.scripts_of(found))
        if asked.check:
            return _checked(study, jobs, left, left)
        _train(study, left, asked.json)
    elif asked.check:
        raise UserError("--check is for recipes; runs are compared at once")
    runs = [comparing.read(entry.label, place / entry.name if entry.recipe else Path(entry.name)) for entry in found]
    answer = comparing.compared(runs, asked.cost)
    text = comparing.text_of(runs, answer)
    if jobs or asked.output_dir:
        _keep(place, answer, "compare.json")
        costs = {run.label: run.cost(asked.cost) for run in runs}
        pictures.draw_costs(place / "compare.png", answer, costs, COSTS[asked.cost])
        report.write_comparison(place, answer)
        text += f"\n\nIn {place}: the runs and their screens, compare.json, compare.png, compare.html"
    return answer, text


def add_curve(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        curve,
        "curve",
        "show quality by the number of training rows, and what twice as many would bring",
        """\
tl-hub curve sentiment --train_file mine.csv --quick      frozen vectors alone, in about a minute
tl-hub curve sentiment --train_file mine.csv --check      what would be run, and about how long
tl-hub curve sentiment --train_file mine.csv --sizes 32,128,512,all --draws 5""",
    )
    _add_common(parser, "runs/curve")
    parser.add_argument("--sizes", help="numbers of training rows, such as 8,64,all [8,16,32 and so on up to all]")
    parser.add_argument(
        "--draws", type=int, default=3, help="draws of the training rows for each size, each a seed [3]"
    )
    parser.add_argument("--quick", action="store_true", help="heads on frozen vectors only, without runs of recipes")


def curve(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.study import curve as curves
    from tl_hub.study import entries, pictures, report
    from tl_hub.study.runs import Study

    if asked.draws < 2:
        raise UserError(f"--draws is {asked.draws}; it must be at least 2, as the spread between them is shown")
    found = entries.of(asked.techniques, asked.others)
    for entry in found:
        if not entry.recipe:
            raise UserError(f"{entry.name} is a run; a curve is made of a recipe's runs on fewer rows")
    place = Path(asked.output_dir or "runs/curve")
    if asked.quick:
        name, lines = "quick", _quick_lines(asked, found)
    else:
        jobs = _jobs(asked, found)
        every = [job for these in jobs.values() for job in these]
        name, study = "curve", Study(place, asked.overwrite)
        left = study.left(every, entries.scripts_of(found))
        if asked.check:
            return _checked(study, every, left, [job for job in left if job.rows == max(rows for _, rows in jobs)])
        _train(study, left, asked.json)
        lines = [
            curves.of_runs(
                entry.label,
                {
                    rows: [place / job.name for job in these]
                    for (name, rows), these in jobs.items()
                    if name == entry.name
                },
            )
            for entry in found
        ]
    answer = curves.drawn(lines)
    _keep(place, answer, f"{name}.json")
    pictures.draw_curves(place / f"{name}.png", answer)
    report.write_curve(place, answer, name)
    runs = "" if asked.quick else "the runs and their screens, "
    return answer, f"{curves.text_of(answer)}\n\nIn {place}: {runs}{name}.json, {name}.png, {name}.html"


def add_labels(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        labels,
        "labels",
        "find rows that are probably mislabelled, by frozen vectors, and write them into files to correct",
        """\
tl-hub labels sentiment --train_file mine.csv             runs/labels/train.csv has the doubtful rows first
tl-hub labels document_classification --train_file mine.csv --model google-bert/bert-base-uncased""",
    )
    parser.add_argument("task", help="a task, or its recipe of feature extraction; then the recipe's flags")
    parser.add_argument("--output_dir", default="runs/labels", help="folder of the files [runs/labels]")
    parser.set_defaults(passes_on=True)


def labels(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.study import entries
    from tl_hub.study import labels as judging

    found = entries.of([asked.task], asked.others)
    ((_, parts), *_) = _frozen(found, f"{asked.task} gives no classes to texts; give a task such as sentiment")
    with contextlib.redirect_stdout(sys.stderr if asked.json else sys.stdout):
        answer = judging.examine(parts, Path(asked.output_dir))
    return answer, judging.text_of(answer)


def add_domains(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        domains,
        "domains",
        "train a technique on each of several domains, measure it on all, and show what is lost between them",
        """\
tl-hub domains sentiment_features --quick --data restaurants=sample:sentiment,gadgets=sample:sentiment-gadgets
tl-hub domains sentiment_adapter --data films=films/,tweets=tweets/ --check     what would be run, and how long
tl-hub domains sentiment_adapter --data "films=films/ text_column=sentence,tweets=tweets/\"""",
    )
    _add_common(parser, "runs/domains")
    parser.add_argument(
        "--data",
        required=True,
        help="the domains, each NAME=DATA: a folder with train and test files, a Hub data set id or sample:NAME; with "
        "commas between them, and settings such as text_column=sentence behind one",
    )
    parser.add_argument("--quick", action="store_true", help="heads on frozen vectors only, without runs of recipes")


def domains(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.methods.feature_extraction import FeatureExtraction
    from tl_hub.study import domains as studies
    from tl_hub.study import entries, pictures, quick, report
    from tl_hub.study.runs import Job, Study

    entry, words, parts = _of_domains(asked)
    texts = {name: studies.training_texts(name, run, task) for name, (run, task, _) in parts.items()}
    run, _, method = next(iter(parts.values()))
    place = Path(asked.output_dir or "runs/domains")
    if asked.quick:
        if asked.check or not isinstance(method, FeatureExtraction):
            raise UserError("--quick fits heads on frozen vectors in about a minute; it takes one recipe *_features")
        with contextlib.redirect_stdout(sys.stderr if asked.json else sys.stdout):
            kept, trained = "quick", [quick.trained_on(name, each) for name, each in parts.items()]
    else:
        jobs = [Job(f"{entry.name}/on={name}", entry, (*words[name],), len(texts[name])) for name in parts]
        kept, study = "domains", Study(place, asked.overwrite)
        left = study.left(jobs, entries.scripts_of([entry]))
        if asked.check:
            return _checked(study, jobs, left, sorted(left, key=lambda job: -job.rows)[:1])
        _train(study, left, asked.json)
        trained = [studies.of_run(name, place / job.name) for name, job in zip(parts, jobs, strict=True)]
    answer = studies.compared(entry.label, run.model, trained, texts)
    _keep(place, answer, f"{kept}.json")
    pictures.draw_domains(place / f"{kept}.png", answer)
    report.write_domains(place, answer, kept)
    runs = "" if asked.quick else "the runs and their screens, "
    return answer, f"{studies.text_of(answer)}\n\nIn {place}: {runs}{kept}.json, {kept}.png, {kept}.html"


def _of_domains(asked: argparse.Namespace) -> "tuple[Entry, dict[str, list[str]], dict[str, tuple[Any, ...]]]":
    """The technique, and for each domain the flags of its run and what they make of run, task and method.

    Raises:
        UserError: it is not one recipe, the domains are not of their form, or flags say where rows are.
    """
    from tl_hub.domain_sources import sources
    from tl_hub.study import domains as studies
    from tl_hub.study import entries
    from tl_hub.trials import flag_of

    for name in map(flag_of, asked.others):
        if name in ("dataset", "eval_on", "train_file", "validation_file", "test_file"):
            raise UserError(f"--{name} is not for tl-hub domains, whose --data names the rows; omit it")
    entry, *more = entries.of(asked.techniques, asked.others)
    if more or not entry.recipe:
        raise UserError(f"{asked.techniques[0]} is not one recipe; give one, such as sentiment_features")
    where, script = studies.named(sources(asked.data, "data")), entries.scripts_of([entry])[entry.recipe]
    usual = {"encoding": "utf-8", **vars(entries.settings_of(entry, script)[1])}
    words = {name: studies.words_of(name, where, usual) for name in where}
    return entry, words, {name: entries.settings_of(entry, script, *words[name]) for name in where}


def _keep(folder: Path, answer: Any, name: str) -> None:
    """Write what a study came to, as a file of JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(answer, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _quick_lines(asked: argparse.Namespace, found: "Sequence[Entry]") -> "list[Line]":
    """
    Raises:
        UserError: none of the techniques is a head on frozen vectors, or a check is asked for.
    """
    from tl_hub.study import quick

    if asked.check:
        raise UserError("--check is for training; --quick takes about a minute")
    fitting = _frozen(found, f"--quick fits heads on frozen vectors, which {found[0].label} does not; omit it")
    with contextlib.redirect_stdout(sys.stderr if asked.json else sys.stdout):
        return [quick.line_of(entry.label, each, asked.sizes, asked.draws) for entry, each in fitting]


def _frozen(found: "Sequence[Entry]", otherwise: str) -> "list[tuple[Entry, tuple[Any, ...]]]":
    """The techniques that are heads on frozen vectors, with run, task and method of their recipes.

    Raises:
        UserError: none is; `otherwise` says so.
    """
    from tl_hub.methods.feature_extraction import FeatureExtraction
    from tl_hub.study import entries

    scripts = entries.scripts_of(found)
    parts = [(entry, entries.settings_of(entry, scripts[entry.recipe])) for entry in found if entry.recipe]
    fitting = [(entry, each) for entry, each in parts if isinstance(each[2], FeatureExtraction)]
    if not fitting:
        raise UserError(otherwise)
    return fitting


def _jobs(asked: argparse.Namespace, found: "Sequence[Entry]") -> "dict[tuple[str, int], list[Job]]":
    """The runs of a curve, by technique and number of training rows, small ones first.

    Raises:
        UserError: the rows cannot be read, or the sizes do not fit them.
    """
    from tl_hub import data
    from tl_hub.study import curve as curves
    from tl_hub.study import entries
    from tl_hub.study.runs import Job

    run, task, _ = entries.settings_of(found[0], next(iter(entries.scripts_of(found[:1]).values())))
    rows, _ = data.load(run, task)
    if rows.held_out and rows.final == "validation":
        raise UserError(
            f"{rows.source} has training rows only; a curve needs rows that stay the same, so give --test_file"
        )
    jobs = {}
    for size in curves.sizes(asked.sizes, len(rows.splits["train"].rows)):
        for entry in found:
            jobs[entry.name, size] = [
                Job(
                    f"{entry.name}/rows={size},draw={draw}",
                    entry,
                    ("--train_rows", str(size), "--train_draw", str(draw), "--seed", str(run.seed + draw)),
                    size,
                )
                for draw in range(1, asked.draws + 1)
            ]
    return jobs


def _train(study: "Study", left: "Sequence[Job]", quiet: bool) -> None:
    """Make the runs, with two lines for each; where `quiet`, they go where errors go."""
    from tl_hub.card.markdown import duration, label_of
    from tl_hub.study.compare import measured_text

    out = sys.stderr if quiet else sys.stdout
    for number, job in enumerate(left, start=1):
        print(f"run {number} of {len(left)}: {job.name}", file=out, flush=True)
        record = study.train(job)
        metric, spent = record.metrics[0], duration(record.cost.training_seconds or 0.0)
        print(f"  {label_of(metric.name)} {measured_text(metric)}, {spent} of training", file=out, flush=True)
    if left:
        print(file=out)


def _checked(study: "Study", jobs: "Sequence[Job]", left: "Sequence[Job]", asked: "Sequence[Job]") -> tuple[Any, str]:
    """What the runs of a study that are left would take: by the `--check` of the recipes, once for each technique.

    Args:
        asked: runs of which the recipe is asked; one of fewer rows takes as much less.
    """
    from tl_hub.estimate import about

    facts = {}
    for job in asked:
        if job.entry.name not in facts:
            facts[job.entry.name] = study.checked(job) | {"rows": job.rows}
    lines, total, width = [], 0.0, max(len(job.entry.name) for job in jobs)
    for name in dict.fromkeys(job.entry.name for job in jobs):
        these = [job for job in left if job.entry.name == name]
        if these:
            found = facts[name]
            seconds = sum(found["seconds"] * (job.rows / found["rows"] if found["rows"] else 1) for job in these)
            total += seconds
            runs = f"{len(these)} run{'s' * (len(these) > 1)} left"
            said = f"{runs}, at most about {about(seconds)}, {found['memory_bytes'] / 2**30:.1f} GiB"
        lines.append(f"{name:{width}}  {said if these else 'finished'}")
    lines.append(
        f"checked, nothing trained: {len(left)} of {len(jobs)} runs are left, at most about {about(total)} of training "
        "(by the longest batch), plus evaluations and the start of each run"
    )
    return {"runs": facts, "left": [job.name for job in left], "seconds": total}, "\n".join(lines)
