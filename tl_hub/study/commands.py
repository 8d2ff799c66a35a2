"""`tl-hub compare`. What it needs is imported when it is called."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tl_hub import cli
from tl_hub.errors import UserError
from tl_hub.study import COSTS

if TYPE_CHECKING:
    from tl_hub.cli import Commands
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
    parser.add_argument(
        "techniques",
        nargs="+",
        metavar="TASK|RECIPE|'RECIPE setting=value'|RUN",
        help="a task (all of its recipes), a recipe, one with settings of its own, or the folder of a run; then flags "
        "for all recipes",
    )
    _add_common(parser, "runs/compare")
    parser.add_argument("--cost", choices=COSTS, default="seconds", help="what is to be cheap [seconds]")


def _add_common(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("--output_dir", help=f"folder of the runs and of the result [{folder}]")
    parser.add_argument("--check", action="store_true", help="say what would be run and about how long; train nothing")
    parser.add_argument("--overwrite", action="store_true", help="train all runs anew")
    parser.set_defaults(passes_on=True)


def compare(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.study import compare as comparing
    from tl_hub.study import entries, pictures
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
            return checked(study, jobs, left)
        for number, job in enumerate(left, start=1):
            _say(f"\n{job.entry.label}: run {number} of {len(left)}", asked.json)
            study.train(job, asked.json)
    elif asked.check:
        raise UserError("--check is for recipes; runs are compared at once")
    runs = [comparing.read(entry.label, place / entry.name if entry.recipe else Path(entry.name)) for entry in found]
    answer = comparing.compared(runs, asked.cost)
    text = comparing.text_of(runs, answer)
    if jobs or asked.output_dir:
        comparing.write(place, answer)
        costs = {run.label: run.cost(asked.cost) for run in runs}
        pictures.draw_costs(place / "compare.png", answer, costs, COSTS[asked.cost])
        text += f"\n\nIn {place}: the runs, compare.json, compare.png"
    return answer, text


def checked(study: "Study", jobs: "Sequence[Job]", left: "Sequence[Job]") -> tuple[Any, str]:
    """What the runs of a study that are left would take, each by its recipe's own `--check`."""
    from tl_hub.estimate import about

    facts = {job.name: study.checked(job) for job in left}
    width = max(len(job.name) for job in jobs)
    lines = [
        f"{job.name:{width}}  "
        + (
            f"at most about {about(facts[job.name]['seconds'])}, {facts[job.name]['memory_bytes'] / 2**30:.1f} GiB"
            if job in left
            else "finished"
        )
        for job in jobs
    ]
    total = sum(found["seconds"] for found in facts.values())
    lines.append(
        f"checked, nothing trained: {len(left)} of {len(jobs)} runs are left, at most about {about(total)} of training "
        "(each estimated from its longest batch), plus evaluations and the start of each run"
    )
    return {"runs": facts, "finished": [job.name for job in jobs if job not in left], "seconds": total}, "\n".join(
        lines
    )


def _say(text: str, quiet: bool) -> None:
    if not quiet:
        print(text, flush=True)
