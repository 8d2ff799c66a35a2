"""A run folder becomes a repository on the Hub, in one commit that is complete or not there at all.

`publish` reads as the steps of a push; each has a room beside it. Needs neither torch nor transformers.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tl_hub import run_folder, samples, verification
from tl_hub.errors import UserError, all_at_once
from tl_hub.licenses import Terms, known_license
from tl_hub.publishing import (
    base,
    benchmarks,
    commits,
    contents,
    rights,
    round_trip,
    secrets,
    signing,
    target,
    variants,
)
from tl_hub.publishing.client import Patience, still_done, timeouts
from tl_hub.publishing.destination import Destination, Options
from tl_hub.publishing.files import Files
from tl_hub.publishing.report import Published
from tl_hub.publishing.repository import Repository
from tl_hub.record import RunRecord, license_in

__all__ = ["Destination", "Options", "Patience", "Published", "publish", "publish_to"]

_INHERITED = Terms()


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
    license_name: str | None = None,
    license_link: str | None = None,
    push_base: str | None = None,
    push_adapter: str | None = None,
    sign: str | Path | None = None,
    dry_run: bool = False,
    load_back: bool = True,
    patience: Patience = Patience(),
    say: Callable[[str], None] = print,
) -> Published:
    """Send a run folder to the Hub, load it back from there, and undo the commit if that is not the same model.

    A README.md in the folder is taken up as `card.merge` does: what a person wrote there is published.

    Args:
        folder: holds `run.json`; nothing in it is changed.
        repo: `owner/name`, made if it is not there.
        private: of a repository that is made; one that is there stays as visible as it is.
        revision: branch, made from `main` if it is not there.
        create_pr: open a pull request, or go on with the one that an earlier push opened.
        tag: name for the commit.
        collection: slug of one that exists, or the title of one of the repository's owner, made if it is not there.
        license: of the result, instead of the record's.
        license_name, license_link: of one that the Hub does not list, whose `license` is `other`; the link is the URL
            of its text, or a file, which is published as LICENSE.
        push_base: `owner/name` under which to publish a base that is only here; the result then names it.
        push_adapter: `owner/name` under which to publish the adapter of a merged model, which `repo` then goes without.
            Both name each other, and are put into one collection: without `collection`, one with the name of `repo`.
        sign: the private key to sign it with, an elliptic-curve one in PEM.
        dry_run: say what would be sent, and send nothing.
        load_back: load what was sent in a fresh process; without, only its bytes are compared.
        patience: how long to wait for the Hub, and how often to try again.
        say: called with each line for the screen.

    Raises:
        UserError: what the user can mend: token, rights, names, license, base, a secret in a file.
        RunStopped: the Hub cannot be reached; or the folder does not load as the model that was trained; or the Hub
            gave back another model, and the commit was undone.
    """
    destination = Destination(repo, private, revision, create_pr, tag, collection)
    options = Options(dry_run, load_back, patience, say, Path(sign) if sign else None)
    terms = Terms(license, license_name, license_link)
    terms.check()
    return publish_to(destination, Path(folder), options, terms=terms, push_base=push_base, push_adapter=push_adapter)


def publish_to(
    destination: Destination,
    folder: Path,
    options: Options,
    *,
    terms: Terms = _INHERITED,
    push_base: str | None = None,
    push_adapter: str | None = None,
) -> Published:
    """What `publish` does."""
    for name, repo in (("push_base", push_base), ("push_adapter", push_adapter)):
        if repo and repo in (destination.repo, push_base if name == "push_adapter" else None):
            raise UserError(f"--{name} is {repo} too; each needs a repository of its own")
    run = RunRecord.load(folder)
    if push_adapter:
        return _publish_both(destination, push_adapter, folder, run, options, terms, push_base)
    return _publish_run(destination, folder, run, options, terms, push_base)


def _publish_both(
    destination: Destination,
    push_adapter: str,
    folder: Path,
    run: RunRecord,
    options: Options,
    terms: Terms,
    push_base: str | None,
) -> Published:
    """Publish the adapter of a merged run, then the merged model, then put both into a collection."""
    variants.check(destination, run, folder)
    run.variants = {"adapter": push_adapter, "merged": destination.repo}
    alone = replace(destination, collection=None)
    collection = variants.collection_of(destination)
    hub = Repository(destination.repo, options.patience, options.say)
    with timeouts():
        rights.check_may_write(hub, destination.create_pr)
        rights.check_collection(hub, destination.collection)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, folder.resolve().name)
        place.mkdir()
        record = variants.adapter_run(folder, run, place)
        options.say(f"the adapter, as {push_adapter}:")
        adapter = _publish_run(replace(alone, repo=push_adapter), place, record, options, terms, push_base)
    if not options.dry_run:
        run.base = record.base  # perhaps published on the way
    options.say(f"the merged model, as {destination.repo}:")
    with still_done(f"the adapter is {adapter.url} at {adapter.revision}"):
        merged = _publish_run(alone, folder, run, options, terms, None)
    if options.dry_run:
        options.say(f"both would be put into the collection {collection}")
    else:
        with still_done(f"{push_adapter} and {destination.repo} hold the run"), timeouts():
            hub.collect(collection, destination.private, [destination.repo, push_adapter])
    return replace(merged, adapter=adapter)


def _publish_run(
    destination: Destination, folder: Path, run: RunRecord, options: Options, terms: Terms, push_base: str | None
) -> Published:
    """Publish one repository, step by step."""
    base_folder = base.to_publish(folder, run) if push_base else None
    all_at_once(
        destination.check,
        lambda: _decide_license(run, terms, base_folder),
        lambda: base.check_published(run, push_base),
        lambda: signing.check_key(options.sign) if options.sign else None,
        lambda: rights.check_token(destination.repo),
    )
    _give_notes(folder, run, push_base, base_folder, options.say)
    hub = Repository(destination.repo, options.patience, options.say)
    files = contents.files_of(folder, run, terms.file)
    left_out = contents.left_out(folder, files)
    with timeouts():
        rights.check_may_write(hub, destination.create_pr)
        rights.check_collection(hub, destination.collection)
        if run.base and run.base.source == "hub":
            base.check_there(hub, run.base)
            files |= base.pinned(run.base, files)
        files |= benchmarks.results(hub, run)
        if options.load_back:
            files |= _load_here(hub, folder, run, base_folder)
        published_base = None
        if base_folder and push_base:
            beside = Destination(push_base, destination.private)
            published_base, renamed = _publish_base(beside, folder, run, base_folder, options)
            files |= renamed
            if options.load_back and not options.dry_run:
                base.fetch(hub, run)
        files |= contents.notebook(folder, run, destination)
        if options.sign:
            files |= signing.sign(files, options.sign)
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


def _decide_license(run: RunRecord, terms: Terms, base_folder: Path | None) -> None:
    """Put the license into the record.

    Raises:
        UserError: it is not known or not allowed.
    """
    if run.base and base.copy_of(run.base):  # records of earlier versions lack it
        run.base.license, run.base.license_name = samples.LICENSE, samples.LICENSE_NAME
        run.base.license_link = run_folder.LICENSE
    if run.base and base_folder:
        # What the base itself says of its license counts, not what a run said of it that started from it.
        run.base.license = license_in(base_folder) or run.base.license
    run.license = known_license(terms.license or run.license, run.base.license if run.base else None)
    if terms.name:  # a license of the list has none
        run.license_name, run.license_link = terms.name, terms.published_link


def _give_notes(
    folder: Path, run: RunRecord, push_base: str | None, base_folder: Path | None, say: Callable[[str], None]
) -> None:
    if push_base and not base_folder:
        say(f"--push_base {push_base} is not needed: the base is on the Hub, or the result stands alone")
    shown = len(run.examples) + len(run.mistakes)
    if shown and run.data.source == "local":
        say(
            f"note: {shown} of your rows stand on the card and in run.json, verbatim; tl-hub card {folder} "
            "--no_examples takes them out"
        )


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
        published = publish_to(destination, base_folder, options, terms=Terms(license))
    else:
        published = base.send_checkpoint(destination, base_folder, run.base, license, options)
    renamed = base.name_published(run, folder, published, license) | contents.from_record(run)
    for name, file in renamed.items():
        secrets.check(name, file, folder)
    return published, renamed
