"""A run folder becomes a repository on the Hub, in one commit that is complete or not there at all.

`publish` reads as the steps of a push; each has a room beside it. Needs neither torch nor transformers.
"""

from collections.abc import Callable
from pathlib import Path

from tl_hub import run_folder, verification
from tl_hub.errors import UserError
from tl_hub.licenses import known_license
from tl_hub.publishing import base, commits, contents, rights, round_trip, secrets, target
from tl_hub.publishing.client import Patience, timeouts
from tl_hub.publishing.destination import Destination, Options
from tl_hub.publishing.files import Files
from tl_hub.publishing.report import Published
from tl_hub.publishing.repository import Repository
from tl_hub.record import RunRecord, license_in

__all__ = ["Destination", "Options", "Patience", "Published", "publish", "publish_to"]


def publish(
    folder: str | Path,
    repo: str,
    *,
    private: bool = True,
    revision: str | None = None,
    create_pr: bool = False,
    tag: str | None = None,
    collection: str | None = None,
    license: str | None = None,
    push_base: str | None = None,
    dry_run: bool = False,
    load_back: bool = True,
    patience: Patience = Patience(),
    say: Callable[[str], None] = print,
) -> Published:
    """Send a run folder to the Hub, load it back from there, and undo the commit if that is not the same model.

    A README.md in the folder is taken up as `card.merge` does: what a person wrote there is published.

    Args:
        folder: holds `run.json`; nothing in it is changed.
        repo, private, revision, create_pr, tag, collection: where to, as in `Destination`.
        license: of the result, instead of the record's.
        push_base: `owner/name` under which to publish a base that is only here; the result then names it.
        dry_run, load_back, patience, say: how, as in `Options`.

    Raises:
        UserError: what the user can mend: token, rights, names, license, base, a secret in a file.
        RunStopped: the Hub cannot be reached; or the folder does not load as the model that was trained; or the Hub
            gave back another model, and the commit was undone.
    """
    destination = Destination(repo, private, revision, create_pr, tag, collection)
    options = Options(dry_run, load_back, patience, say)
    return publish_to(destination, Path(folder), options, license=license, push_base=push_base)


def publish_to(
    destination: Destination,
    folder: Path,
    options: Options,
    *,
    license: str | None = None,
    push_base: str | None = None,
) -> Published:
    """What `publish` does, step by step."""
    destination.check()
    if push_base == destination.repo:
        raise UserError(f"--push_base is {push_base} too; a base needs a repository of its own")
    hub = Repository(destination.repo, options.patience, options.say)
    run = RunRecord.load(folder)
    base_folder = _decide_base_and_license(folder, run, license, push_base, options.say)
    files = contents.files_of(folder, run)
    left_out = contents.left_out(folder, files)
    with timeouts():
        rights.check_may_write(hub, destination.create_pr)
        rights.check_collection(hub, destination.collection)
        if run.base and run.base.source == "hub":
            base.check_there(hub, run.base)
            files |= base.pinned(run.base, files)
        if options.load_back:
            files |= _load_here(hub, folder, run, base_folder)
        published_base = None
        if base_folder and push_base:
            beside = Destination(push_base, destination.private)
            published_base, renamed = _publish_base(beside, folder, run, base_folder, options)
            files |= renamed
            if options.load_back and not options.dry_run:
                base.fetch(hub, run)
        content, notes = contents.with_card(folder, run, files, destination)
        found = target.find(hub, destination, content)
        if options.dry_run:
            number, report = found.pull_request, None
            plan = commits.plan(hub, found.head, content)
            notes += plan.notes
            target.preview(hub, destination, found, plan, left_out, notes)
            revision = None if plan.changed else plan.head
        else:
            branch, number = target.make(hub, destination, found, content.title)
            plan = commits.send(hub, branch, content)
            notes += plan.notes
            for note in notes:
                options.say(f"note: {note}")
            report = round_trip.compare(hub, branch, plan, folder, run, options.load_back)
            target.name(hub, destination, plan.head, number)
            revision = plan.head
    changes = (plan.sent, plan.removed, left_out, notes, plan.facts())
    return Published(hub.id, hub.url, revision, *changes, number, report, published_base)


def _decide_base_and_license(
    folder: Path, run: RunRecord, license: str | None, push_base: str | None, say: Callable[[str], None]
) -> Path | None:
    """Put the license into the record, and tell where the base is, if it is to be published.

    Raises:
        UserError: the license is not known or not allowed, or others could not load the result.
    """
    only_here = base.only_here(run)
    base_folder = base.to_publish(folder, run) if push_base else None
    if run.base and base_folder:
        # What the base itself says of its license counts, not what a run said of it that started from it.
        run.base.license = license_in(base_folder) or run.base.license
    run.license = known_license(license or run.license, run.base.license if run.base else None)
    if only_here and not push_base:
        raise UserError(base.BASE_ONLY_HERE.format(base=only_here))
    if push_base and not base_folder:
        say(f"--push_base {push_base} is not needed: the base is on the Hub, or the result stands alone")
    if run.examples and run.data.source == "local":
        say(f"note: {len(run.examples)} of your rows stand on the card and in run.json, verbatim")
    return base_folder


def _load_here(hub: Repository, folder: Path, run: RunRecord, base_folder: Path | None) -> Files:
    """Load a folder that nobody has loaded yet, and return the files that then say so."""
    if not base_folder:
        base.fetch(hub, run)
    if run.verification is not None:
        return {}
    hub.say("loading the folder in a fresh process ...")
    run.verification = verification.check(folder)
    return contents.from_record(run)


def _publish_base(
    destination: Destination, folder: Path, run: RunRecord, base_folder: Path, options: Options
) -> tuple[Published, Files]:
    """Publish the base of a run, and name it in the record and in the files that did so by a path.

    Raises:
        UserError, RunStopped: as `publish`, of the base.
    """
    assert run.base is not None
    license = known_license(run.base.license or run.license, None)
    options.say(f"the base {run.base.id}:")
    if (base_folder / run_folder.RECORD).is_file():
        published = publish_to(destination, base_folder, options, license=license)
    else:
        published = base.send_checkpoint(destination, base_folder, run.base, license, options)
    renamed = base.name_published(run, folder, published, license) | contents.from_record(run)
    for name, file in renamed.items():
        secrets.check(name, file, folder)
    return published, renamed
