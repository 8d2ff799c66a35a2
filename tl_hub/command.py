"""Inspect, verify and publish run folders, whether a recipe or your own training loop wrote them."""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tl_hub
from tl_hub import cli, run_folder, run_table
from tl_hub.config import RunConfig
from tl_hub.errors import Checked, RunStopped, UserError
from tl_hub.study.commands import add_compare, add_curve, add_domains, add_labels

# What a command needs is imported when it is called: the Hub's client alone takes longer to load than `--help` may.


if TYPE_CHECKING:
    from tl_hub.cli import Commands


def main() -> None:
    cli.run(_main)


def _main() -> None:
    asked = _parser().parse_args()
    answer, text = asked.call(asked)
    try:
        print(json.dumps(answer, indent=2, ensure_ascii=False) if asked.json else text, flush=True)
    except BrokenPipeError:  # who reads it, such as head, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would fail again as it ends
        sys.exit(141)  # as the signal for it, 13, ends other programs


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="tl-hub",
        description=__doc__,
        epilog="tl-hub COMMAND --help shows examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tl_hub {tl_hub.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=cli.Parser)
    for add in (
        _add_push,
        _add_card,
        _add_space,
        _add_verify,
        _add_check,
        _add_show,
        _add_list,
        add_compare,
        add_curve,
        add_labels,
        add_domains,
        _add_cache,
        _add_completion,
    ):
        add(commands)
    return parser


def _row_settings(classes: list[Any]) -> dict[str, tuple[dataclasses.Field[Any], Any]]:
    """Fields of settings that say where rows are and how they are written, with their types, by name."""
    found: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
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


def _add_push(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        push_run,
        "push",
        "publish a run folder on the Hub",
        """\
tl-hub push runs/qa_adapter alice/qa --dry_run            what would be sent
tl-hub push runs/qa_adapter alice/qa --tag v1             private, unless --public
tl-hub push runs/qa_adapter alice/qa --push_base alice/tiny-bert
tl-hub push runs/merged alice/qa --push_adapter alice/qa-adapter
HF_HUB_DISABLE_XET=1 tl-hub push runs/qa_adapter alice/qa by LFS""",
    )
    parser.add_argument("folder")
    parser.add_argument("repo", metavar="owner/name")
    parser.add_argument("--public", action="store_true", help="a new repository is visible to everybody")
    parser.add_argument("--revision", metavar="BRANCH", help="branch, created if missing [main]")
    parser.add_argument("--create_pr", action="store_true", help="open a pull request, or update the one you opened")
    parser.add_argument("--tag", help="name for the commit")
    parser.add_argument("--collection", help="slug of a collection, or the title of one of yours, created if missing")
    parser.add_argument("--license", help="license of the result, as the Hub names it, instead of the record's")
    parser.add_argument("--license_name", help="id of a license that the Hub does not list, with --license other")
    parser.add_argument("--license_link", help="URL of its text, or a file that holds it, published as LICENSE")
    parser.add_argument("--push_base", metavar="owner/name", help="publish a local or embedded base there")
    parser.add_argument(
        "--push_adapter",
        metavar="owner/name",
        help="publish the adapter of a merged model apart; both name each other, in one collection",
    )
    parser.add_argument("--sign", metavar="KEY", help="private elliptic-curve key in PEM to sign what is sent with")
    parser.add_argument("--dry_run", action="store_true", help="list what would be sent, and send nothing")


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
        license_name=asked.license_name,
        license_link=asked.license_link,
        push_base=asked.push_base,
        push_adapter=asked.push_adapter,
        sign=asked.sign,
        dry_run=asked.dry_run,
        say=_say_nothing if asked.json else print,
    )
    return dataclasses.asdict(done), "nothing was sent" if asked.dry_run else done.summary()


def _say_nothing(text: str) -> None:
    pass


def _add_card(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        write_card,
        "card",
        "write the model card (README.md) of a run folder from its run.json",
        """\
tl-hub card runs/qa_adapter
tl-hub card runs/qa_adapter --html                        and card.html, pictures included
tl-hub card runs/mine --repo alice/mine                   with snippets that load it from there""",
    )
    parser.add_argument("folder")
    parser.add_argument("--repo", metavar="owner/name", help="repository that the snippets load from [this folder]")
    parser.add_argument("--html", action="store_true", help="also write card.html, one page for a browser")
    parser.add_argument(
        "--no_examples", action="store_true", help="take the rows that are shown out of run.json and the card"
    )


def write_card(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub import card

    notes: list[str] = []
    if asked.no_examples:
        from tl_hub.record import RunRecord

        record = RunRecord.load(asked.folder)
        record.hide_examples()
        record.save(asked.folder)
    written = [card.write(asked.folder, asked.repo, say=notes.append)]
    if asked.html:
        from tl_hub.card.page import write_page

        written.append(write_page(asked.folder))
    answer = {"card": str(written[0]), "page": str(written[-1]) if asked.html else None, "notes": notes}
    return answer, "\n".join([*notes, *(f"{path} was written" for path in written)])


def _add_space(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        write_space,
        "space",
        "write a Gradio Space, a page on which anybody can try the model",
        """\
tl-hub space runs/qa_finetune my_space                    with the model in my_space/model
tl-hub space alice/qa my_space                            which loads it from the Hub
tl-hub space alice/qa my_space --push_to alice/qa-demo    private, unless --public""",
    )
    parser.add_argument("location", metavar="folder|owner/name", help="the model")
    parser.add_argument("folder", help="where to write app.py, requirements.txt and README.md")
    parser.add_argument("--push_to", metavar="owner/name", help="also publish it as this Space on the Hub")
    parser.add_argument("--public", action="store_true", help="a new Space is visible to everybody")


def write_space(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub import space

    if asked.public and not asked.push_to:
        raise UserError("--public needs --push_to")
    found = space.of(asked.location)
    space.write(found, Path(asked.folder))
    written = f"{asked.folder} was written; try it: pip install gradio && python {Path(asked.folder) / space.APP}"
    answer = {"folder": asked.folder, "files": sorted(space.all_files(found)), "published": None}
    if not asked.push_to:
        return answer, written
    from tl_hub.publishing.destination import Destination, Options
    from tl_hub.publishing.space import push

    options = Options(say=_say_nothing if asked.json else print)
    done = push(found, Destination(asked.push_to, not asked.public), options)
    return answer | {"published": dataclasses.asdict(done)}, f"{written}\n{done.summary()}"


def _add_verify(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        verify_run,
        "verify",
        "load a run folder or a repository in a fresh process and compare it with what it states",
        """\
tl-hub verify runs/qa_adapter
tl-hub verify runs/qa_adapter --metrics                   are the figures on the card true?
tl-hub verify runs/qa_adapter --retrain                   does training again give the same weights?
tl-hub verify alice/qa --revision v1 --json
tl-hub verify alice/qa --public_key alice.pem             did its owner publish exactly this?
tl-hub verify runs/mine --test_file other.csv --encoding cp1252 --text_column review
tl-hub verify runs/mine --test_file other.csv --label_map neg=negative,pos=positive""",
    )
    parser.add_argument("location", metavar="folder|owner/name")
    parser.add_argument("--revision", help="branch, tag or commit of the repository [main]")
    parser.add_argument(
        "--public_key", metavar="KEY", help="key in PEM of whoever must have signed it, by --sign of the push"
    )
    parser.add_argument("--metrics", action="store_true", help="measure the card's figures anew, on the run's own rows")
    parser.add_argument(
        "--retrain", action="store_true", help="train the run again, and compare its weights, or else its figures"
    )
    parser.add_argument("--base", metavar="FOLDER", help="model in a folder that it started from, for --retrain")
    rows = parser.add_argument_group("rows to measure them on, or to train on again, given as to the recipe")
    settings: list[Any] = [RunConfig]
    if sys.argv[1:2] == ["verify"]:  # the tasks take as long to import as torch does
        from tl_hub.tasks import catalog

        settings += [catalog.load(facts.settings) for facts in catalog.CATALOG.values() if facts.settings]
    fields = _row_settings(settings)
    for name, (field, hint) in fields.items():
        shown = field.metadata["shown"] if name in ("encoding", "delimiter") else "the run's"
        cli.add_flag(rows, field, hint, f"{field.metadata['help']} [{shown}]")
    parser.set_defaults(row_settings=fields.keys())
    rows.add_argument(
        "--label_map",
        metavar="LABEL=CLASS,...",
        help="what the model calls the labels of the rows, such as neg=negative,pos=positive",
    )


def verify_run(asked: argparse.Namespace) -> tuple[Any, str]:
    import transformers

    from tl_hub import verifying

    transformers.logging.disable_progress_bar()

    label_map = _label_map(asked.label_map) if asked.label_map is not None else None
    rows = {name: value for name, value in vars(asked).items() if name in asked.row_settings}
    how = {name: getattr(asked, name) for name in ("revision", "metrics", "public_key", "retrain", "base")}
    report = verifying.verify(asked.location, label_map=label_map, **how, **rows)
    found = [f"{asked.location}: loaded by {' and '.join(report['loaded_by'])}"]
    if "max_difference" in report:
        found.append(f"largest difference of logits from those of the trained model {report['max_difference']:.1e}")
    if report.get("same_output"):
        found.append("the pipeline gives the answer that is on the card")
    if "tokenizer" in report:
        found.append(report["tokenizer"])
    if report.get("same_rows") is False:
        found.append("the rows are not those of the run, whose claims are about its own")
    found += verifying.claims(report.get("metrics", []))
    measured = [*report.get("metrics", [])]
    for domain in report.get("domains", []):
        found += [f"on {domain['name']}, {claim}" for claim in verifying.claims(domain["metrics"])]
        measured += domain["metrics"]
    again = report.get("retrained")
    found += verifying.retrained(again) if again else []
    if any(metric["holds"] is False for metric in measured) or (again and not again["holds"]):
        if asked.json:
            print(json.dumps(report, indent=2, ensure_ascii=False))
        raise RunStopped("; ".join(found), exit_code=1)
    if len(found) == 1:
        found.append("it holds nothing to compare the outputs with")
    if signature := report.get("signature"):
        says = {"holds": f"signed by the owner of {asked.public_key}"}
        found.append(says.get(signature, "signed, and --public_key would tell by whom"))
    return report, "; ".join(found)


def _add_check(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        check_run,
        "check",
        "look at a recipe's data, model, time, memory and rights on the Hub, or judge a run folder as the Hub would",
        """\
tl-hub check recipes/qa_adapter.py --train_file mine.jsonl
tl-hub check recipes/qa_adapter.py --train_file mine.jsonl --push_to alice/qa --json
tl-hub check runs/qa_adapter                              would the Hub take its card?""",
    )
    parser.add_argument("recipe", metavar="recipe|folder")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="as for the recipe itself")


def check_run(asked: argparse.Namespace) -> tuple[Any, str]:
    """The recipe's own `--check`; what it says on the way is no part of an answer in JSON."""
    import runpy

    if Path(asked.recipe).is_dir():
        return _judge_folder(asked)

    if "--json" in asked.flags:  # after the recipe it would be taken for one of its flags
        asked.flags.remove("--json")
        asked.json = True
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


def _judge_folder(asked: argparse.Namespace) -> tuple[Any, str]:
    """What the Hub would refuse of a run folder, or show wrong, asked of the rules alone and not of the Hub."""
    from tl_hub.card.rules import RULES
    from tl_hub.publishing.contents import judged

    if asked.flags:
        raise UserError(f"{' '.join(asked.flags)}: a run folder is judged as it is; flags are for a recipe")
    faults = judged(asked.recipe)
    answer = {"rules": len(RULES), "faults": [dataclasses.asdict(fault) for fault in faults]}
    refused = [fault.text for fault in faults if fault.refused]
    if refused:
        if asked.json:
            print(json.dumps(answer, indent=2, ensure_ascii=False))
        raise RunStopped(f"{asked.recipe}: the Hub would refuse it: {'; '.join(refused)}", exit_code=1)
    shown = [f"note: {fault.text}" for fault in faults]
    return answer, "\n".join([*shown, f"{asked.recipe}: none of {len(RULES)} rules of the Hub refuses it"])


def _add_show(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        show_run,
        "show",
        "show a run, or a table of several",
        """\
tl-hub show runs/qa_adapter
tl-hub show runs/qa_adapter runs/qa_finetune              one below the other
tl-hub show runs --sort score                             all runs in a folder""",
    )
    parser.add_argument("folder", nargs="+")
    _add_sort(parser)


def _add_sort(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sort",
        choices=run_table.COLUMNS,
        help="column to sort the table by: names from A to Z, figures from high to low, dates from the newest",
    )
    parser.add_argument("--reverse", action="store_true", help="the other way round")


def show_run(asked: argparse.Namespace) -> tuple[Any, str]:
    from tl_hub.record import RunRecord

    (first, *others) = map(Path, asked.folder)
    if others or (not (first / run_folder.RECORD).is_file() and any(first.rglob(run_folder.RECORD))):
        return _table(asked, asked.folder)
    run = RunRecord.load(first)
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


def _add_list(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        list_runs,
        "list",
        "list the runs under a folder",
        """\
tl-hub list
tl-hub list experiments --sort seconds --reverse          the quickest first
tl-hub list experiments --json | jq '.[].metrics[0]'""",
    )
    parser.add_argument("folder", nargs="?", default="runs")
    _add_sort(parser)


def list_runs(asked: argparse.Namespace) -> tuple[Any, str]:
    return _table(asked, [asked.folder])


def _table(asked: argparse.Namespace, places: list[str]) -> tuple[Any, str]:
    runs, text = run_table.table(run_table.folders(places), asked.sort, asked.reverse)
    return runs, text or f"no runs under {', '.join(places)}"


def _add_completion(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        write_completion,
        "completion",
        "print what completes commands, flags and files of tl-hub in a shell",
        """\
tl-hub completion bash > ~/.local/share/bash-completion/completions/tl-hub
tl-hub completion zsh > ~/.zfunc/_tl-hub                  with ~/.zfunc in $fpath, before compinit
tl-hub completion fish > ~/.config/fish/completions/tl-hub.fish""",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def write_completion(asked: argparse.Namespace) -> tuple[Any, str]:
    import shtab

    script = shtab.complete(_parser(), asked.shell)
    return {"shell": asked.shell, "script": script}, script


def _add_cache(commands: "Commands") -> None:
    parser = cli.add_command(
        commands,
        manage_cache,
        "cache",
        "list the vectors that feature extraction keeps, or remove what is not used",
        """\
tl-hub cache ls
tl-hub cache prune                                        what has not been used for 30 days
tl-hub cache prune --days 0                               everything""",
    )
    parser.add_argument("action", choices=("ls", "prune"))
    parser.add_argument("--days", type=float, default=30.0, help="prune what has not been used for so long [30]")


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
