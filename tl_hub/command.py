"""The `tl-hub` command: what can be done with a run folder, by one's own loop or by a recipe, once it is there."""

import argparse
import contextlib
import dataclasses
import json
import sys
import typing
from pathlib import Path
from typing import Any

import tl_hub
from tl_hub import cli, run_folder
from tl_hub.config import RunConfig
from tl_hub.errors import Checked, RunStopped, UserError

# What a command needs is imported when it is called: the Hub's client alone takes longer to load than `--help` may.


def main() -> None:
    cli.run(_main)


def _main() -> None:
    parser = cli.Parser(
        prog="tl-hub",
        description=__doc__,
        epilog="tl-hub COMMAND --help shows examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tl_hub {tl_hub.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=cli.Parser)

    push = _command(
        commands,
        push_run,
        "push",
        "publish a run folder on the Hub",
        """\
tl-hub push runs/qa_adapter alice/qa --dry_run            what would be sent
tl-hub push runs/qa_adapter alice/qa --tag v1             private, unless --public
tl-hub push runs/qa_adapter alice/qa --push_base alice/tiny-bert
HF_HUB_DISABLE_XET=1 tl-hub push runs/qa_adapter alice/qa by LFS""",
    )
    push.add_argument("folder")
    push.add_argument("repo", metavar="owner/name")
    push.add_argument("--public", action="store_true", help="a repository that is made is visible to everybody")
    push.add_argument("--revision", metavar="BRANCH", help="branch, made if it is not there [main]")
    push.add_argument("--create_pr", action="store_true", help="open a pull request, or go on with one's own")
    push.add_argument("--tag", help="name for the commit")
    push.add_argument("--collection", help="slug of a collection, or title of one's own, made if it is not there")
    push.add_argument("--license", help="license of the result, as the Hub names it, instead of the record's")
    push.add_argument("--push_base", metavar="owner/name", help="publish a base that is only here, there")
    push.add_argument("--dry_run", action="store_true", help="say what would be sent, and send nothing")

    card = _command(
        commands,
        write_card,
        "card",
        "write the model card (README.md) of a run folder from its run.json",
        """\
tl-hub card runs/qa_adapter
tl-hub card runs/mine --repo alice/mine                   with snippets that load it from there""",
    )
    card.add_argument("folder")
    card.add_argument("--repo", metavar="owner/name", help="repository that the snippets load from [this folder]")

    verify = _command(
        commands,
        verify_run,
        "verify",
        "load a run folder or a repository in a fresh process and compare it with what it states",
        """\
tl-hub verify runs/qa_adapter
tl-hub verify runs/qa_adapter --metrics                   are the figures on the card true?
tl-hub verify alice/qa --revision v1 --json
tl-hub verify runs/mine --test_file other.csv --encoding cp1252 --text_column review
tl-hub verify runs/mine --test_file other.csv --label_map neg=negative,pos=positive""",
    )
    verify.add_argument("location", metavar="folder|owner/name")
    verify.add_argument("--revision", help="branch, tag or commit of the repository [main]")
    verify.add_argument("--metrics", action="store_true", help="measure the card's figures anew, on the run's own rows")
    rows = verify.add_argument_group("rows to measure them on, given as to the recipe")
    settings: list[Any] = [RunConfig]
    if sys.argv[1:2] == ["verify"]:  # the tasks take as long to import as torch does
        from tl_hub.tasks import catalog

        settings += [catalog.load(facts.settings) for facts in catalog.CATALOG.values() if facts.settings]
    fields = _row_settings(settings)
    for name, (field, hint) in fields.items():
        shown = field.metadata["shown"] if name in ("encoding", "delimiter") else "the run's"
        cli.add_flag(rows, field, hint, f"{field.metadata['help']} [{shown}]")
    verify.set_defaults(row_settings=fields.keys())
    rows.add_argument(
        "--label_map",
        metavar="LABEL=CLASS,...",
        help="what the model calls the labels of the rows, such as neg=negative,pos=positive",
    )

    check = _command(
        commands,
        check_run,
        "check",
        "look at a recipe's data, model, time, memory and rights on the Hub, and train nothing",
        """\
tl-hub check recipes/qa_adapter.py --train_file mine.jsonl
tl-hub check recipes/qa_adapter.py --train_file mine.jsonl --push_to alice/qa""",
    )
    check.add_argument("recipe")
    check.add_argument("flags", nargs=argparse.REMAINDER, help="as for the recipe itself")

    show = _command(commands, show_run, "show", "show a run", "tl-hub show runs/qa_adapter")
    show.add_argument("folder")

    runs = _command(
        commands,
        list_runs,
        "list",
        "list the runs under a folder",
        """\
tl-hub list
tl-hub list experiments --json | jq '.[].metrics[0]'""",
    )
    runs.add_argument("folder", nargs="?", default="runs")

    cache = _command(
        commands,
        manage_cache,
        "cache",
        "list the vectors that feature extraction keeps, or remove what is not used",
        """\
tl-hub cache ls
tl-hub cache prune                                        what has not been used for 30 days
tl-hub cache prune --days 0                               everything""",
    )
    cache.add_argument("action", choices=("ls", "prune"))
    cache.add_argument("--days", type=float, default=30.0, help="prune what has not been used for so long [30]")

    asked = parser.parse_args()
    answer, text = asked.call(asked)
    print(json.dumps(answer, indent=2, ensure_ascii=False) if asked.json else text)


def _command(commands: Any, call: Any, name: str, help: str, examples: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    parser.set_defaults(call=call)
    return parser


def _row_settings(classes: list[Any]) -> dict[str, tuple[dataclasses.Field, Any]]:
    """Fields of settings that say where rows are and how they are written, with their types, by name."""
    found: dict[str, tuple[dataclasses.Field, Any]] = {}
    for settings in classes:
        hints = typing.get_type_hints(settings)
        for field in dataclasses.fields(settings):
            if field.metadata["reads"]:
                found.setdefault(field.name, (field, hints[field.name]))
    return found


def _label_map(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    for label, equals, name in pairs:
        if not (label.strip() and equals and name.strip()):
            raise UserError(f"--label_map {text}: {label!r} has no class; give pairs such as neg=negative,pos=positive")
    return {label.strip(): name.strip() for label, _, name in pairs}


def push_run(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.publishing import publish

    done = publish(
        asked.folder,
        asked.repo,
        private=not asked.public,
        revision=asked.revision,
        create_pr=asked.create_pr,
        tag=asked.tag,
        collection=asked.collection,
        license=asked.license,
        push_base=asked.push_base,
        dry_run=asked.dry_run,
        say=_say_nothing if asked.json else print,
    )
    return dataclasses.asdict(done), "nothing was sent" if asked.dry_run else done.summary()


def _say_nothing(text: str) -> None:
    pass


def write_card(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub import card

    notes: list[str] = []
    path = card.write(asked.folder, asked.repo, say=notes.append)
    return {"card": str(path), "notes": notes}, "\n".join([*notes, f"{path} was written"])


def verify_run(asked: argparse.Namespace) -> tuple[Any, str]:
    import transformers

    from tl_hub.verifying import verify

    transformers.logging.disable_progress_bar()

    label_map = _label_map(asked.label_map) if asked.label_map is not None else None
    rows = {name: value for name, value in vars(asked).items() if name in asked.row_settings}
    report = verify(asked.location, revision=asked.revision, metrics=asked.metrics, label_map=label_map, **rows)
    found = [f"{asked.location}: loaded by {' and '.join(report['loaded_by'])}"]
    if "max_difference" in report:
        found.append(f"largest difference of logits from those of the trained model {report['max_difference']:.1e}")
    if report.get("same_output"):
        found.append("the pipeline's answer on the card came out again")
    if report.get("same_rows") is False:
        found.append("the rows are not those of the run, whose claims are about its own")
    for metric in report.get("metrics", []):
        anew = f"{metric['found']:.4g}"
        if metric["low"] is not None:
            anew += f" ({metric['low']:.4g} to {metric['high']:.4g})"
        if metric["holds"] is None:
            found.append(f"{metric['name']} {anew} here, {metric['claimed']:.4g} on its own rows")
        else:
            verdict = "holds" if metric["holds"] else "DOES NOT HOLD"
            found.append(f"{metric['name']} {metric['claimed']:.4g} {verdict}: found {anew}")
    if any(metric["holds"] is False for metric in report.get("metrics", [])):
        if asked.json:
            print(json.dumps(report, indent=2, ensure_ascii=False))
        raise RunStopped("; ".join(found), exit_code=1)
    if len(found) == 1:
        found.append("it holds nothing to compare the outputs with")
    return report, "; ".join(found)


def check_run(asked: argparse.Namespace) -> tuple[Any, str]:
    """The recipe's own `--check`; what it says on the way is no part of an answer in JSON."""
    import runpy

    if not Path(asked.recipe).is_file():
        raise UserError(f"{asked.recipe} is not a file; give a recipe, such as recipes/qa_adapter.py")
    sys.argv = [asked.recipe, *asked.flags, "--check"]
    try:
        with contextlib.redirect_stdout(sys.stderr if asked.json else sys.stdout):
            main = runpy.run_path(asked.recipe).get("main")
            if main is None:
                raise UserError(f"{asked.recipe} has no main(); give a recipe, such as recipes/qa_adapter.py")
            main()
    except Checked as checked:
        return checked.facts | {"check": str(checked)}, str(checked)
    raise UserError(f"{asked.recipe} did not ask for a check; give a recipe, such as recipes/qa_adapter.py")


def show_run(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.record import RunRecord

    run = RunRecord.load(asked.folder)
    rows = [("kind", run.kind), ("task", run.pipeline_tag), ("method", run.method["name"])]
    rows += [("base", run.base.id)] if run.base else []
    rows += [("data", run.data.id)]
    rows += [(name, f"{split.rows:,} rows") for name, split in run.data.splits.items()]
    for metric in run.metrics:
        interval = "" if metric.low is None else f", 95 % interval {metric.low:.4g} to {metric.high:.4g}"
        rows.append((metric.name, f"{metric.value:.4g}{interval} ({metric.rows:,} {metric.split} rows)"))
    rows += [(name, str(value)) for name, value in run.settings.items()]
    rows += [("seconds", f"{run.cost.training_seconds:.4g}")] if run.cost.training_seconds else []
    rows += [("date", run.created)] if run.created else []
    width = max(len(name) for name, _ in rows)
    return run.facts(), "\n".join([run.name, *(f"  {name:{width}}  {value}" for name, value in rows)])


def list_runs(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub import record

    root = Path(asked.folder)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the one that holds the runs")
    runs, rows = [], []
    for path in sorted(root.rglob(run_folder.RECORD)):
        folder = path.parent
        try:
            run = record.RunRecord.load(folder)
        except UserError as error:
            runs.append({"folder": str(folder), "error": str(error)})
            rows.append((str(folder), f"({error})", "", "", ""))
            continue
        runs.append({"folder": str(folder), **run.facts()})
        figure = f"{run.metrics[0].name} {run.metrics[0].value:.4g}" if run.metrics else ""
        rows.append((str(folder), run.kind, run.pipeline_tag, figure, run.created or ""))
    if not rows:
        return [], f"no runs under {root}"
    whole = [row for row in rows if row[2]]  # of a broken one, the reason may be long
    widths = [max(len(row[column]) for row in (whole if column else rows) or rows) for column in range(4)]
    return runs, "\n".join(
        "  ".join([*(f"{c:{w}}" for c, w in zip(row, widths, strict=False)), row[4]]) for row in rows
    )


def manage_cache(asked: argparse.Namespace) -> tuple[Any, str]:
    if not asked.days >= 0:
        raise UserError(f"--days is {asked.days:g}; it must be at least 0")

    from tl_hub.vectors import cache

    entries = cache.prune(asked.days) if asked.action == "prune" else cache.cache_entries()
    answer = [vars(entry) | {"used": entry.used.isoformat(timespec="seconds")} for entry in entries]
    total = f"{len(entries)} entries, {sum(entry.size for entry in entries) / 1e6:.1f} MB"
    if asked.action == "prune":
        return answer, f"{total} removed from {cache.cache_folder()}"
    rows = [
        f"{entry.used:%Y-%m-%d %H:%M}  {entry.size / 1e6:9.1f} MB  {entry.model_type:5}  {entry.features:9,} texts  "
        f"{len(entry.layers)} layers, {', '.join(entry.poolings)}"
        for entry in entries
    ]
    return answer, "\n".join([*rows, f"{total} in {cache.cache_folder()}"])


if __name__ == "__main__":
    main()
