"""A run folder becomes a repository on the Hub, in one commit that is complete or not there at all.

huggingface_hub repeats few of its calls when they fail in passing, and does not look whether a commit whose answer
was lost is there. Here every step is: look at the branch, send what differs, and on failure look again. So a step that
was done is not done twice, and the same command given later sends what is missing. Needs neither torch nor
transformers.

What is sent is on a list (`run_folder.PUBLISHED`). The probe is not on it: it holds rows of the user's data, and of a
language model its outputs take hundreds of megabytes; the check of what arrived reads the one in the folder.
"""

import hashlib
import itertools
import json
import random
import re
import shutil
import struct
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
    constants,
    get_session,
    get_token,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, filter_repo_objects, hf_raise_for_status, validate_repo_id

from tl_hub import card, record, run_folder, samples, sensitive, verification
from tl_hub.errors import RunStopped, UserError, first_line
from tl_hub.hub import check_token, model_facts
from tl_hub.licenses import IDENTIFIERS, license_of
from tl_hub.record import BaseModel, RunRecord

SENT = ".tl_hub.json"
"""Names the files of the last push, in the repository: of them the next one removes what no longer belongs."""

STATE_BRANCH = "training-state"
"""Holds what another machine needs to go on with a run (`push_state`). Of private repositories only."""

_T = TypeVar("_T")
_PASSING = (408, 429, 500, 502, 503, 504)
_LONGEST_PAUSE = 60.0
_LONGEST_WAIT = 600.0
_REF = re.compile(r"(?!.*(\.\.|//|@\{|/\.|\.lock(/|$)))(?![/.-])[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")
_LOADED = re.compile(r"(adapter/)?[^/]+\.(safetensors|bin|pt|index\.json)|(adapter_|adapter/adapter_)?config\.json")


@dataclass(frozen=True)
class Patience:
    """How long a call that fails in passing is repeated.

    Attributes:
        attempts: calls in all.
        wait: seconds before the second call; doubled each time, and up to half is added by chance.
        timeout: seconds without a sign of the server after which a call has failed.
    """

    attempts: int = 7
    wait: float = 1.0
    timeout: float = 120.0


@dataclass(frozen=True)
class Published:
    """What a push did.

    Attributes:
        revision: the commit that holds the run now; None where a dry run found that one would be made.
        sent: files of the commit that are new or changed, none where all was there already.
        removed: files of an earlier push that no longer belong.
        left_out: files of the run folder that are not published.
        notes: what a person should look at, a sentence each.
        files: `path`, `size` in bytes and `state` (new, changed, unchanged or removed) of each.
        pull_request: its number.
        verification: what loading the pushed revision gave; None where that was not asked for.
        base: the same of a base that was published on the way.
    """

    repo: str
    url: str
    revision: str | None
    sent: list[str]
    removed: list[str]
    left_out: list[str]
    notes: list[str]
    files: list[dict[str, Any]]
    pull_request: int | None = None
    verification: dict[str, Any] | None = None
    base: "Published | None" = None

    def summary(self) -> str:
        """What to tell a person at the end of a push."""
        place = f"{self.url}/discussions/{self.pull_request}" if self.pull_request else self.url
        changed = (
            f"{len(self.sent)} files sent, {len(self.removed)} removed" if self.sent or self.removed else "no change"
        )
        checked = "its bytes were compared"
        if self.verification:
            checked = f"loaded back from there by {' and '.join(self.verification['loaded_by'])}"
            if "max_difference" not in self.verification:
                checked += ", with nothing to compare its outputs with, as there is no probe in the folder"
        return f"{place} at {self.revision}: {changed}; {checked}"


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
        repo: `owner/name`, made if it is not there.
        private: of a repository that is made; one that is there stays as visible as it is.
        revision: branch, made from `main` if it is not there.
        create_pr: open a pull request, or go on with the one that an earlier push opened.
        tag: name for the commit.
        collection: slug of one that exists, or the title of one of the repository's owner, made if it is not there.
        license: of the result, instead of the record's.
        push_base: `owner/name` under which to publish a base that is only here; the result then names it.
        dry_run: say what would be sent, and send nothing.
        load_back: load what was sent in a fresh process, and a folder that nobody has loaded yet before it is sent;
            without, only the bytes are compared with those that were sent.

    Raises:
        UserError: what the user can mend: token, rights, names, license, base, a secret in a file.
        RunStopped: the Hub cannot be reached; or the folder does not load as the model that was trained; or the Hub
            gave back another model, and the commit was undone.
    """
    folder = Path(folder)
    if create_pr and revision:
        raise UserError("--revision and --create_pr exclude each other; a pull request is made against main")
    if push_base == repo:
        raise UserError(f"--push_base is {repo} too; a base needs a repository of its own")
    check_ref("tag", tag)
    check_ref("revision", revision)
    hub = _Repository(repo, patience, say)
    run = RunRecord.load(folder)
    base_here = base_only_here(run)
    place = _base_folder(folder, run) if push_base and (base_here or _embedded_head(run)) else None
    if run.base and place:
        # What the base itself says of its license counts, not what a run said of it that started from it.
        run.base.license = record.license_in(place) or run.base.license
    run.license = known_license(license or run.license, run.base.license if run.base else None)
    title = f"{run.name}: {run.kind}, {run.pipeline_tag}"[:200]
    if base_here and not push_base:
        raise UserError(BASE_ONLY_HERE.format(base=base_here))
    if push_base and not place:
        say(f"--push_base {push_base} is not needed: the base is on the Hub, or the result stands alone")
    if run.examples and run.data.source == "local":
        say(f"note: {len(run.examples)} of your rows stand on the card and in run.json, verbatim")
    files = _files(folder, run)
    left_out = sorted(
        name
        for path in folder.rglob("*")
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in {*files, run_folder.CARD}
    )
    base: Published | None = None
    with _timeouts():
        hub.check_rights(create_pr)
        if collection:
            hub.check_collection(collection)
        if run.base and run.base.source == "hub":
            hub.check_base(run.base)
            files |= _pinned(run.base, files)
        if load_back and not place:
            hub.fetch_base(run)
        if load_back and run.verification is None:
            say("loading the folder in a fresh process ...")
            run.verification = verification.check(folder)
            files |= _told(run)
        if place and push_base:
            base, rewritten = _with_base_published(
                folder, run, place, push_base, private, dry_run, load_back, patience, say
            )
            files |= rewritten
            if load_back and not dry_run:
                hub.fetch_base(run)
        pictures = {Path(name).stem: name in files for name in run_folder.PICTURES}
        elsewhere = None if revision == "main" else revision
        text, notes = card.render(run, repo, elsewhere, **pictures), list[str]()
        if (folder / run_folder.CARD).is_file():
            text, notes = card.merge(text, card.read_text(folder / run_folder.CARD), "in the folder")
        content = _Content(title, text, files)
        _scan(run_folder.CARD, content.card.encode(), folder)
        exists = hub.exists()
        if not exists and create_pr:
            raise UserError(PULL_NEEDS_REPO.format(repo=repo))
        if exists and private and hub.public:
            say(f"note: {repo} is public, and stays so: everybody can see what is sent")
        number = hub.open_pull_request(title) if create_pr else None
        branch = f"refs/pr/{number}" if number else revision or "main"
        heads = hub.refs() if exists else {}
        head = heads.get(branch) or heads.get("main")
        tagged = hub.refs(tags=True).get(tag) if tag and exists else None
        if tagged and (tagged != head or hub.plan(tagged, content).changed):
            raise UserError(f"--tag {tag}: the tag is there, on another commit; give another name")
        if dry_run:
            plan = hub.plan(head, content)
            state = "is there" if exists else f"would be made, {'private' if private else 'public'}"
            goal = f"the pull request {number}" if number else "a new pull request" if create_pr else branch
            if not number and not create_pr and branch not in {"main", *heads}:
                goal += ", a branch that would be made,"
            does = f"a commit to {goal} would hold" if plan.changed else f"{goal} holds all of it"
            say(f"{repo} {state}; {does}:")
            _show(plan, left_out, say)
            for note in [*notes, *plan.notes]:
                say(f"  note     {note}")
            for what, given in (("tag", tag), ("collection", collection)):
                if given:
                    say(f"  {what} {given}")
            commit, notes = None if plan.changed else plan.head, notes + plan.notes
            changes = (plan.sent, plan.removed, left_out, notes, plan.facts())
            return Published(repo, hub.url, commit, *changes, pull_request=number, base=base)
        if not exists:
            hub.create(private)
        if revision:
            hub.branch(revision)
        if create_pr:
            number = hub.pull_request(title)
            branch = f"refs/pr/{number}"
        plan = hub.send(branch, content)
        for note in [*notes, *plan.notes]:
            say(f"note: {note}")
        report = _loaded_back(hub, branch, plan, folder, run, title, load_back)
        with _after(f"{repo} holds the run at {plan.head}"):
            if number:
                hub.open(number)
            if tag and plan.head:
                hub.tag(tag, plan.head)
            if collection:
                hub.collect(collection, private)
    changes = (plan.sent, plan.removed, left_out, notes + plan.notes, plan.facts())
    return Published(repo, hub.url, plan.head, *changes, pull_request=number, verification=report, base=base)


@contextmanager
def _after(done: str) -> Iterator[None]:
    """Whatever fails in it, what was done before stays done, and the message says so."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{done}, but not all that was asked for is done: {error}") from error
    except RunStopped as error:
        raise RunStopped(f"{done}, but not all that was asked for is done: {error}", error.exit_code) from error


def _loaded_back(
    hub: "_Repository", branch: str, plan: "_Plan", folder: Path, run: RunRecord, title: str, load_back: bool
) -> dict[str, Any] | None:
    """Download what was sent into an empty cache, compare its bytes, and load it from there in a fresh process.

    Where that is not the model that was trained, the commit is undone; where it cannot be found out, it stays.

    Raises:
        UserError: the Hub refuses to give it back.
        RunStopped: it cannot be reached, or gave back another model.
    """
    later = f"tl-hub verify {hub.id} --revision {plan.head}"
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        try:
            with _after(f"{hub.id} is complete at {plan.head}, though not checked (later: {later})"):
                there = hub.download(plan.head, [*plan.files, *run_folder.PUBLISHED], str(cache))
            for name, data in plan.files.items():
                if not (there / name).is_file() or _sha256(there / name) != _sha256(data):
                    raise verification.Mismatch(f"{name} came back from the Hub as another file", exit_code=1)
            if not load_back:
                return None
            copy = Path(scratch) / "run"
            shutil.copytree(there, copy)  # with the probe, which is not published
            probe = folder / run_folder.PROBE
            if probe.is_file():
                shutil.copy(probe, copy)
            # The client's own note of what a commit does not have: loaders ask for more files than there are.
            absent = there.parents[1] / ".no_exist" / there.name
            for name in run_folder.PUBLISHED:
                if "*" not in name and not (there / name).exists():
                    (absent / name).parent.mkdir(parents=True, exist_ok=True)
                    (absent / name).touch()
            if needed := _base_on_hub(run):
                # It was fetched before; a large one need not come twice.
                name = repo_folder_name(repo_id=needed.id, repo_type="model")
                (cache / name).symlink_to(Path(constants.HF_HUB_CACHE, name).resolve())
            hub.say("loading it back from the Hub in a fresh process ...")
            return verification.check(copy, repo=hub.id, revision=plan.head, cache=cache)
        except verification.Mismatch as stop:
            # Where nothing was sent now, an earlier push may have ended between its commit and this check.
            parent = plan.parent if plan.changed else hub.parent_of(plan.head, title)
            end = f"it was there before, and stays: see {hub.url}/commits/{branch}"
            if parent and plan.head:
                end = f"the commit was undone and {hub.id} is as it was before"
                if not hub.revert(branch, plan.head, parent):
                    end = f"{branch} has moved on since, so the commit is still there: see {hub.url}/commits/{branch}"
            raise RunStopped(f"{stop}; {end}", exit_code=1) from stop


def check_ref(flag: str, name: str | None) -> None:
    """Whether git takes a name for a branch or tag.

    Raises:
        UserError: it does not.
    """
    if name is not None and not _REF.fullmatch(name):
        raise UserError(f"--{flag} {name!r} is not a name that git takes; letters, digits, . _ - and / will do")


def check_rights(
    repo: str,
    patience: Patience = Patience(),
    say: Callable[[str], None] = print,
    *,
    private: bool = False,
    create_pr: bool = False,
    tag: str | None = None,
    revision: str | None = None,
    collection: str | None = None,
) -> None:
    """Ask the Hub whether this token may write there, before anything is trained.

    Args:
        private: whether the repository, if it is there, must be private.
        create_pr: whether a pull request is to be made, which needs a repository but no right to write to it.
        tag: name that the commit is to get.
        revision: branch that the commit is to go to.
        collection: where the repository is to be put, as in `publish`.

    Raises:
        UserError: no token, one that is not valid or may not write there, not a name for a repository, branch or tag,
            a repository that everybody can see or is not there, a tag that is taken, or no such collection.
        RunStopped: the Hub cannot be reached.
    """
    check_ref("tag", tag)
    check_ref("push_revision", revision)
    with _timeouts():
        hub = _Repository(repo, patience, say)
        hub.check_rights(create_pr)
        hub.check_free()
        if collection:
            hub.check_collection(collection)
        if create_pr and not hub.exists():
            raise UserError(PULL_NEEDS_REPO.format(repo=repo))
        if tag and hub.exists() and tag in hub.refs(tags=True):
            raise UserError(f"--tag {tag}: {repo} has that tag; give another name")
        if private and hub.exists() and hub.public:
            raise UserError(f"{repo} is public, and a training state is not for everybody; push to a private one")


def push_state(
    folder: str | Path,
    repo: str,
    names: Sequence[str],
    *,
    patience: Patience = Patience(),
    say: Callable[[str], None] = print,
) -> str:
    """Send files of an unfinished run to the branch `training-state`, and return the commit that holds them.

    Args:
        folder: the run folder.
        repo: `owner/name`, which exists and is private.
        names: patterns of the files, relative to the folder.

    Raises:
        UserError: the repository is public, may not be written to, or a file holds a secret.
        RunStopped: the Hub cannot be reached.
    """
    folder = Path(folder)
    files: dict[str, bytes | Path] = {
        path.relative_to(folder).as_posix(): path for name in names for path in sorted(folder.glob(name))
    }
    for name, data in files.items():
        _scan(name, data, folder)
    with _timeouts():
        hub = _Repository(repo, patience, say)
        if hub.exists() and hub.public:
            raise UserError(f"{repo} is public, and a training state is not for everybody; push to a private one")
        hub.branch(STATE_BRANCH)
        head = hub.send(STATE_BRANCH, _Content("Training state", "", files, keep_card=True)).head
    assert head is not None
    return head


def fetch_state(
    repo: str,
    folder: str | Path,
    names: Sequence[str],
    *,
    patience: Patience = Patience(),
    say: Callable[[str], None] = print,
) -> None:
    """Put the files that `push_state` sent into a folder, which is left alone unless all of them are there.

    Raises:
        UserError: no such repository, or no training state in it.
        RunStopped: the Hub cannot be reached.
    """
    folder = Path(folder)
    with _timeouts(), tempfile.TemporaryDirectory() as scratch:
        hub = _Repository(repo, patience, say)
        commit = hub.refs().get(STATE_BRANCH) if hub.exists() else None
        if commit is None:
            raise UserError(
                f"{repo} holds no training state that this token may see; a run leaves one there with --push_to and"
                " --push_every, until it is complete"
            )
        there = hub.download(commit, names, scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(path for path in there.rglob("*") if path.is_file()):
            place = folder / path.relative_to(there)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)


def drop_state(repo: str, *, patience: Patience = Patience(), say: Callable[[str], None] = print) -> None:
    """Remove the branch `training-state`, which a complete run needs no more.

    Raises:
        UserError: the branch may not be removed.
        RunStopped: the Hub cannot be reached.
    """
    with _timeouts():
        hub = _Repository(repo, patience, say)

        def remove() -> None:
            if STATE_BRANCH in hub.refs():
                hub.api.delete_branch(repo, branch=STATE_BRANCH)

        hub.ask(f"remove the branch {STATE_BRANCH}", remove)


PULL_NEEDS_REPO = "{repo} does not exist, so no pull request can be made; push without --create_pr"
BASE_ONLY_HERE = (
    "the base {base} is not on the Hub, and the result is of no use without it; --push_base owner/name publishes the"
    " base first, a --model that is on the Hub needs none of this, and --merge makes a result that stands alone"
)


def snapshot(location: str | Path, revision: str | None = None, patience: Patience = Patience(attempts=4)) -> Path:
    """A run folder as it is, or what a repository has of one: nothing else of it is downloaded, pickles least of all.

    Raises:
        UserError: as `hub.model_facts`; or a revision of a folder is asked for, the repository was not published from a
            run folder, or it is not whole in the cache and the client is told to stay offline.
        RunStopped: the Hub cannot be reached.
    """
    folder = Path(location)
    if folder.is_dir():
        if revision:
            raise UserError(f"--revision is for a repository, and {folder} is a folder")
        return folder
    id = str(location)
    commit = model_facts(id, revision).revision
    if "/" not in id:  # those without an owner are older than run folders
        raise UserError(f"{id} was not published from a run folder; transformers may load it")
    patterns = [*run_folder.PUBLISHED, run_folder.CARD]
    hub = _Repository(id, patience, warnings.warn)

    def get() -> Path:
        try:
            found = Path(snapshot_download(id, revision=commit, allow_patterns=patterns))
        except LocalEntryNotFoundError as error:
            if constants.HF_HUB_OFFLINE:
                raise UserError(
                    f"{id} is not whole in the cache, and HF_HUB_OFFLINE is set; load it once without"
                ) from error
            raise
        # Where the list of files cannot be had, the client is content with what is in its cache.
        if not constants.HF_HUB_OFFLINE and not (
            (found / run_folder.RECORD).is_file() and any(found.glob("*.safetensors"))
        ):
            assert commit is not None
            missing = [
                name for name in filter_repo_objects(hub.files(commit), allow_patterns=patterns)
                if not (found / name).is_file()
            ]  # fmt: skip
            if missing:
                raise ConnectionError(f"{missing[0]} was not downloaded")
        return found

    with _timeouts():
        return hub.ask(f"download {id}", get)


def known_license(given: str | None, base: str | None) -> str:
    """The license a result is published under.

    Raises:
        UserError: nobody knows one, or the base's does not allow it.
    """
    license = license_of(given, base)
    if license not in IDENTIFIERS:
        raise UserError(f"the license is {license or 'not known'}; give --license, such as apache-2.0")
    return license


def base_only_here(run: RunRecord) -> str | None:
    """Name of the base that the result needs and nobody else has.

    An embedded base is everybody's who has tl_hub: a head finds it there, but PEFT looks for an adapter's base itself.
    """
    head = run.auto_class == "FeatureModel"
    if run.base and (run.kind == "adapter" or head) and run.base.source in ("local", *([] if head else ["embedded"])):
        return run.base.id
    return None


def _embedded_head(run: RunRecord) -> bool:
    """Whether it is a head that finds its base in tl_hub, and may as well name a published copy."""
    return run.auto_class == "FeatureModel" and run.base is not None and run.base.source == "embedded"


def _base_on_hub(run: RunRecord) -> BaseModel | None:
    """The base that is needed to load a result, where that is on the Hub."""
    needed = run.kind in ("adapter", "merged") or run.auto_class == "FeatureModel"
    return run.base if run.base and needed and run.base.source == "hub" else None


@dataclass(frozen=True)
class _Content:
    """What is to be in a repository: files, and the text of the card, which takes up what a person wrote there.

    Attributes:
        keep_card: a card that is there stays as it is, but for `terms`.
        terms: a paragraph of `card` that a card which is kept must have, too.
    """

    title: str
    card: str
    files: dict[str, bytes | Path]
    keep_card: bool = False
    terms: str = ""


@dataclass
class _Plan:
    """What a commit on `parent` is to change; both are None for a repository that is not there.

    Attributes:
        head: the commit that was made, or `parent` where nothing is to change.
        files: all that belongs in the repository.
        there: paths that `parent` has.
    """

    parent: str | None
    head: str | None
    files: dict[str, bytes | Path]
    sent: list[str]
    removed: list[str]
    notes: list[str]
    there: set[str]

    @property
    def changed(self) -> bool:
        return bool(self.sent or self.removed)

    def facts(self) -> list[dict[str, Any]]:
        """Path, size in bytes and state of each file; of one that goes, only the path and that."""
        found: list[dict[str, Any]] = []
        for name, data in self.files.items():
            state = "unchanged" if name not in self.sent else "changed" if name in self.there else "new"
            size = data.stat().st_size if isinstance(data, Path) else len(data)
            found.append({"path": name, "size": size, "state": state})
        return found + [{"path": name, "state": "removed"} for name in self.removed]


class _Repository:
    """A model repository. What fails in passing is asked again, after a look at what was done already."""

    def __init__(self, id: str, patience: Patience, say: Callable[[str], None]):
        try:
            validate_repo_id(id)
        except HFValidationError as error:
            raise UserError(
                f"{id!r} is not a name for a repository; give owner/name, such as alice/my-model"
            ) from error
        if "/" not in id:
            raise UserError(f"{id!r} names no owner; give owner/name, such as alice/{id}")
        check_token()
        self.id, self.patience, self.say = id, patience, say
        self.api = HfApi()
        self.url = f"{constants.ENDPOINT}/{id}"
        self.user = ""
        self.public = False

    def ask(self, doing: str, call: Callable[[], _T]) -> _T:
        """The answer of a call that may be made twice."""
        for attempt in itertools.count(1):
            get_session().timeout = httpx2.Timeout(self.patience.timeout)
            try:
                return call()
            except (*_FAILURES, RuntimeError) as error:  # the latter is all that Xet says of a download
                self.pause(doing, error, attempt)
        raise AssertionError

    def pause(self, doing: str, error: Exception, attempt: int) -> None:
        """Wait before the next attempt.

        Raises:
            UserError: the Hub has answered, and would answer the same again.
            RunStopped: it was the last attempt.
        """
        if isinstance(error, OfflineModeIsEnabled):
            raise UserError(f"{doing}: HF_HUB_OFFLINE is set; unset it, and give the same command again") from error
        response = error.response if isinstance(error, HfHubHTTPError) else None
        if response is not None and response.status_code not in _PASSING:
            raise UserError(f"{doing}: {self._refusal(error)}") from error
        refused = re.search(r"HTTP status client error \((\d+)", str(error))  # all that Xet tells is in its text
        if response is None and refused and int(refused[1]) not in _PASSING:
            raise UserError(
                f"{doing}: the Hub refuses the transfer by Xet ({first_line(error)}); check the token's rights, or set"
                " HF_HUB_DISABLE_XET=1"
            ) from error
        reason = f"the Hub answered {response.status_code}" if response is not None else first_line(error)
        seconds = min(self.patience.wait * 2 ** (attempt - 1), _LONGEST_PAUSE) * random.uniform(1, 1.5)
        if response is not None:
            seconds = max(seconds, _asked_to_wait(response))
        if attempt == self.patience.attempts or seconds > _LONGEST_WAIT:
            asked = f" and asks to wait for {seconds / 60:.0f} min" if seconds > _LONGEST_WAIT else ""
            raise RunStopped(
                f"{doing}: {reason}{asked} (attempt {attempt}); nothing is lost, give the same command again later",
                exit_code=1,
            ) from error
        self.say(f"{doing}: {reason}; again in {seconds:.0f} s (attempt {attempt + 1} of {self.patience.attempts})")
        time.sleep(seconds)

    def _refusal(self, error: Any) -> str:
        says = error.server_message or first_line(error)
        ways = {
            401: "the Hub does not accept the token; `hf auth login` sets another",
            403: "the token may not do this; make one that may write at https://huggingface.co/settings/tokens",
            404: f"{self.id}, or what was asked of it, is not there or not for this token to see; check the names",
            409: "the name is taken, or another change is under way; give another name, or the same command again",
            413: "a file is too large for the Hub; save the weights in smaller shards",
            422: "the Hub refuses what was sent; correct what it names",
        }
        return f"{ways.get(error.response.status_code, 'the Hub refuses it')} ({error.response.status_code}: {says})"

    def check_rights(self, create_pr: bool) -> None:
        if get_token() is None:
            raise UserError(f"there is no token to write to {self.id}; `hf auth login` sets one, and so does HF_TOKEN")
        who = self.ask("ask whose the token is", self.api.whoami)
        self.user = who["name"]
        token = who.get("auth", {}).get("accessToken", {})
        if token.get("role") == "read":
            raise UserError(
                f"the token of {self.user} may only read; make one that may write at"
                " https://huggingface.co/settings/tokens, and give it to `hf auth login`"
            )
        places = [self.user, *(org["name"] for org in who.get("orgs", []) if org.get("roleInOrg") != "read")]
        if not create_pr and self.id.split("/")[0] not in places:
            raise UserError(f"{self.user} may not write to {self.id}; give a name under {' or '.join(places)}")
        scopes = token.get("fineGrained", {}).get("scoped")
        if scopes is not None and not create_pr:
            writable = {scope["entity"].get("name") for scope in scopes if "repo.write" in scope["permissions"]}
            if not writable & {self.id, self.id.split("/")[0]}:
                raise UserError(
                    f"the token may not write to {self.id}; give it the right to write to repositories of"
                    f" {self.id.split('/')[0]} at https://huggingface.co/settings/tokens, or use another"
                )
        if self.exists():
            if not create_pr:
                self.ask(f"ask for the right to write to {self.id}", lambda: self.api.auth_check(self.id, write=True))

    def check_free(self) -> None:
        if self.exists():
            commit = self.refs()["main"]
            self._before(self.files(commit), commit)

    def check_base(self, base: BaseModel) -> None:
        def look() -> None:
            try:
                self.api.model_info(base.id, revision=base.revision)
            except GatedRepoError:
                pass
            except (RepositoryNotFoundError, RevisionNotFoundError) as error:
                revision = f" at {base.revision}" if base.revision else ""
                raise UserError(
                    f"the base {base.id}{revision} is not on the Hub, or not for this token to see; publish it first"
                ) from error

        self.ask(f"look for the base {base.id}", look)

    def fetch_base(self, run: RunRecord) -> None:
        """Put the base that loading a result needs into the cache, if it is on the Hub."""
        if base := _base_on_hub(run):
            self.ask(
                f"download the base {base.id}",
                lambda: snapshot_download(base.id, revision=base.revision, allow_patterns=list(run_folder.PUBLISHED)),
            )

    def exists(self) -> bool:
        """Whether it is there; if so, `public` tells whether everybody can see it."""

        def look() -> bool:
            try:
                self.public = not self.api.model_info(self.id).private
            except GatedRepoError:
                self.public = False
            except RepositoryNotFoundError:
                return False
            return True

        return self.ask(f"look for {self.id}", look)

    def create(self, private: bool) -> None:
        def make() -> None:
            try:
                self.api.create_repo(self.id, private=private)
            except HfHubHTTPError as error:
                # Made by the call whose answer was lost, or by another push.
                if error.response.status_code != 409 or not self.api.repo_exists(self.id):
                    raise

        self.ask(f"make {self.id}", make)

    def refs(self, tags: bool = False) -> dict[str, str]:
        """Commits of the branches and pull requests, or of the tags, by name."""
        found = self.ask(f"look at {self.id}", lambda: self.api.list_repo_refs(self.id, include_pull_requests=not tags))
        if tags:
            return {ref.name: ref.target_commit for ref in found.tags}
        pulls = {ref.ref: ref.target_commit for ref in found.pull_requests or []}
        return {ref.name: ref.target_commit for ref in found.branches} | pulls

    def files(self, commit: str) -> dict[str, RepoFile]:
        def look() -> dict[str, RepoFile]:
            found = self.api.list_repo_tree(self.id, revision=commit, recursive=True)
            return {item.path: item for item in found if isinstance(item, RepoFile)}

        return self.ask(f"list {self.id}", look)

    def read(self, path: str, commit: str) -> str:
        def get() -> str:
            answer = get_session().get(hf_hub_url(self.id, path, revision=commit), headers=build_hf_headers())
            hf_raise_for_status(answer)
            return answer.text

        return self.ask(f"read {path} of {self.id}", get)

    def branch(self, name: str) -> None:
        def make() -> None:
            if name not in self.refs():
                self.api.create_branch(self.id, branch=name)

        self.ask(f"make the branch {name}", make)

    def tag(self, name: str, commit: str) -> None:
        def make() -> None:
            if self.refs(tags=True).get(name) != commit:
                self.api.create_tag(self.id, tag=name, revision=commit)

        self.ask(f"make the tag {name}", make)

    def open_pull_request(self, title: str) -> int | None:
        """Number of the one that an earlier push of the same run opened."""

        def look() -> int | None:
            found = self.api.get_repo_discussions(self.id, author=self.user, discussion_type="pull_request")
            return next((each.num for each in found if each.title == title and each.status in ("draft", "open")), None)

        return self.ask(f"look at the pull requests of {self.id}", look)

    def pull_request(self, title: str) -> int:
        """Number of the one that an earlier push of the same run opened, or of a new one."""

        def make() -> int:
            return self.open_pull_request(title) or self.api.create_pull_request(self.id, title=title).num

        return self.ask("open a pull request", make)

    def open(self, number: int) -> None:
        """A pull request is a draft until there is something in it."""

        def make() -> None:
            if self.api.get_discussion_details(self.id, number).status == "draft":
                self.api.change_discussion_status(self.id, number, new_status="open")

        self.ask(f"open pull request {number}", make)

    def check_collection(self, collection: str) -> None:
        """A slug must be of a collection that is there; of a title, one is made where there is none."""

        def look() -> None:
            try:
                self.api.get_collection(collection)
            except HfHubHTTPError as error:
                if error.response.status_code != 404:
                    raise
                raise UserError(
                    f"--collection {collection}: there is no such collection, or not for this token to see; give its"
                    " slug, the end of its address, or a title without a slash"
                ) from error

        if "/" in collection:
            self.ask(f"look for the collection {collection}", look)

    def collect(self, collection: str, private: bool) -> None:
        def make() -> None:
            slug = collection
            if "/" not in slug:
                owner = self.id.split("/")[0]
                slug = self.api.create_collection(collection, namespace=owner, private=private, exists_ok=True).slug
            self.api.add_collection_item(slug, self.id, "model", exists_ok=True)

        self.ask(f"put it into the collection {collection}", make)

    def _before(self, there: dict[str, RepoFile], commit: str) -> set[str]:
        """Files that the last push sent.

        Raises:
            UserError: there is a model of another origin.
        """
        before = set(json.loads(self.read(SENT, commit))["files"]) if SENT in there else set()
        others = sorted(name for name in set(there) - before if _LOADED.fullmatch(name))
        if others:
            raise UserError(
                f"{self.id} holds a model that was not published from a run folder ({', '.join(others[:3])}); "
                "give another name, or delete these files there"
            )
        return before

    def plan(self, parent: str | None, content: _Content) -> _Plan:
        """How the repository at a commit differs from what it is to be."""
        there = self.files(parent) if parent else {}
        before = self._before(there, parent) if parent else set()
        old = self.read(run_folder.CARD, parent) if parent and run_folder.CARD in there else None
        text, notes = content.card, list[str]()
        if old is not None and not content.keep_card:
            text, notes = card.merge(content.card, old)
        elif old is not None:
            text = old
            if content.terms not in old:
                text = f"{old.rstrip()}\n\n{content.terms}\n"
                notes.append(f"the card of {self.id} stays; what its weights were pretrained on, and the terms, follow")
        files = {**content.files, run_folder.CARD: text.encode()}
        files[SENT] = (json.dumps({"files": sorted([*files, SENT])}, indent=2) + "\n").encode()
        sent = [name for name, data in files.items() if name not in there or not _same(data, there[name])]
        return _Plan(parent, parent, files, sent, sorted(before & set(there) - set(files)), notes, set(there))

    def send(self, branch: str, content: _Content) -> _Plan:
        """Commit what differs. A commit whose answer was lost is found by looking again, and counts as this one."""
        tried: _Plan | None = None
        for attempt in itertools.count(1):
            plan = self.plan(self.refs()[branch], content)
            if not plan.changed:
                return replace(tried, head=plan.head) if tried else plan
            operations: list[Any] = [
                *(CommitOperationAdd(name, plan.files[name]) for name in plan.sent),
                *(CommitOperationDelete(name) for name in plan.removed),
            ]
            try:
                get_session().timeout = httpx2.Timeout(self.patience.timeout)
                done = self.api.create_commit(
                    self.id, operations, commit_message=content.title, revision=branch, parent_commit=plan.parent
                )
                return replace(plan, head=done.oid)
            except (*_FAILURES, RuntimeError) as error:
                # The client wraps what went wrong with the upload of a file.
                failure = error.__cause__ if isinstance(error, RuntimeError) else error
                if not isinstance(failure, _FAILURES):
                    raise
                conflict = isinstance(failure, HfHubHTTPError) and failure.response.status_code == 412
                if conflict and attempt < self.patience.attempts:
                    self.say(f"{self.id} was changed by another push; looking again")
                    continue
                self.pause(f"send to {self.id}", failure, attempt)
                tried = plan
            except ValueError as error:  # the Hub's word on the card's metadata, a line for each fault
                raise UserError(f"{self.id}: {' '.join(str(error).split())}") from error
        raise AssertionError

    def download(self, commit: str | None, names: Sequence[str], cache: str) -> Path:
        """Folder of these files of a commit, all of which come from the Hub if the cache is a new one."""
        return Path(
            self.ask(
                f"download {self.id}",
                lambda: snapshot_download(self.id, revision=commit, cache_dir=cache, allow_patterns=list(names)),
            )
        )

    def parent_of(self, commit: str | None, title: str) -> str | None:
        """The commit before this one, if this one is of a push with that title."""

        def look() -> str | None:
            found = self.api.list_repo_commits(self.id, revision=commit)
            return found[1].commit_id if len(found) > 1 and found[0].title == title else None

        return self.ask(f"look at {self.id}", look)

    def revert(self, branch: str, head: str, parent: str) -> bool:
        """Make a commit that undoes another, if that is still the last one: whether it is undone."""
        now, before = self.files(head), self.files(parent)
        title = "Undo a push that does not load as the model that was trained"

        def make() -> bool:
            if self.refs()[branch] != head:
                later = itertools.takewhile(
                    lambda commit: commit.commit_id != head, self.api.list_repo_commits(self.id, revision=branch)
                )
                return any(commit.title == title for commit in later)  # by an attempt whose answer was lost
            back = [name for name in before if name not in now or now[name].blob_id != before[name].blob_id]
            operations: list[Any] = [
                *(CommitOperationCopy(name, name, src_revision=parent) for name in back),
                *(CommitOperationDelete(name) for name in now if name not in before),
            ]
            try:
                self.api.create_commit(self.id, operations, commit_message=title, revision=branch, parent_commit=head)
            except HfHubHTTPError as error:
                if error.response.status_code != 412:
                    raise
                return False  # another push came just before
            return True

        return self.ask(f"undo the commit {head}", make)


_FAILURES = (
    HfHubHTTPError,
    httpx2.TransportError,
    ConnectionError,
    TimeoutError,
    LocalEntryNotFoundError,
    json.JSONDecodeError,  # what stands between may answer with a page of its own
)


@contextmanager
def _timeouts() -> Iterator[None]:
    """huggingface_hub waits without an end; its client is shared, so what it had is given back."""
    before = get_session().timeout
    try:
        yield
    finally:
        get_session().timeout = before


def _asked_to_wait(response: httpx2.Response) -> float:
    """Seconds that the Hub asks for, in the header of the standard or in that of its rate limits."""
    found = re.fullmatch(r"\d+", response.headers.get("Retry-After", "")) or re.search(
        r"\br=0;t=(\d+)", response.headers.get("RateLimit", "")
    )
    return float(found[found.lastindex or 0]) if found else 0.0


def _files(folder: Path, run: RunRecord) -> dict[str, bytes | Path]:
    """What is published of a run folder, the card excepted.

    Raises:
        UserError: no weights in safetensors, a link, code, a secret or a local path.
    """
    files: dict[str, bytes | Path] = {}
    for pattern in run_folder.PUBLISHED:
        for path in sorted(folder.glob(pattern)):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink():
                raise UserError(f"{path} is a link; put the file itself there")
            files[name] = path
    if run.kind == "merged" and run.base and run.base.source != "hub":
        # The adapter names its base by a path. The merged model stands alone.
        files = {name: data for name, data in files.items() if not name.startswith(f"{run_folder.ADAPTER}/")}
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"{folder} holds no weights in safetensors (model.safetensors, adapter_model.safetensors ...)")
    whole = sorted(name for name in files if re.fullmatch(r"model.*\.safetensors", name))
    if run_folder.ADAPTER_WEIGHTS in files and (whole or run.kind != "adapter"):
        raise UserError(
            f"{folder} holds an adapter beside {whole[0] if whole else f'a record of a {run.kind} model'}; loaders "
            "would take one for the other: keep what the record is of"
        )
    if whole and run_folder.CONFIG not in files:
        raise UserError(f"{folder} holds {whole[0]} without its config.json, so nobody could load it")
    files |= _told(run)
    for name, data in files.items():
        if name not in _REWRITTEN or not base_only_here(run):
            _scan(name, data, folder)
    return files


def _told(run: RunRecord) -> dict[str, bytes]:
    """The files that are written anew from the record."""
    if run.kind == "merged" and run.base and run.base.source != "hub" and run.verification:
        by = [loader for loader in run.verification.get("loaded_by", []) if loader != "peft"]  # it is not published
        run.verification = run.verification | {"loaded_by": by}
    return {run_folder.RECORD: run.text().encode()} | {
        name: text.encode() for name, text in card.results_files(run).items()
    }


def _pinned(base: BaseModel, files: dict[str, bytes | Path]) -> dict[str, bytes | Path]:
    """The adapter's own configuration, by which PEFT loads, with the base's revision that the record and card name.

    Raises:
        UserError: it names another base, or another revision.
    """
    pinned: dict[str, bytes | Path] = {}
    for name in sorted({run_folder.ADAPTER_CONFIG, f"{run_folder.ADAPTER}/{run_folder.ADAPTER_CONFIG}"} & set(files)):
        config = json.loads(_bytes(files[name]))
        named, revision = config.get("base_model_name_or_path"), config.get("revision")
        if named != base.id:
            raise UserError(f"{name} names the base {named}, and run.json {base.id}; correct the one that is wrong")
        if base.revision and revision not in (None, base.revision):
            raise UserError(
                f"{name} names revision {revision} of the base {base.id}, and run.json {base.revision}; correct the one"
                " that is wrong"
            )
        if base.revision and not revision:
            config["revision"] = base.revision
            pinned[name] = (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
    return pinned


_REWRITTEN = (run_folder.ADAPTER_CONFIG, run_folder.CONFIG)
"""Files that name a base by its path, where it is not on the Hub."""


def _scan(name: str, data: bytes | Path, folder: Path) -> None:
    """Refuse to publish what looks like a secret, a path of this machine, or code to be run.

    Raises:
        UserError: names the file and what it holds.
    """
    if name.endswith(".safetensors"):
        assert isinstance(data, Path)
        with data.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            content = file.read(min(length, 100_000_000))
        if not content.startswith(b"{"):
            raise UserError(f"{name} is not a safetensors file")
    else:
        content = _bytes(data)
    token = (get_token() or "").encode()
    secret = sensitive.SECRETS.search(content)
    if secret or (token and token in content):
        shown = f"{secret[0][:6].decode()}..." if secret else "your Hub token"
        raise UserError(f"{name} holds what looks like a secret ({shown}); remove it, and replace the secret")
    vocabulary = name in run_folder.VOCABULARY
    if not vocabulary and not name.endswith(".png"):
        path = sensitive.HOMES.search(content)
        here = (str(folder.resolve()), str(Path.home()), str(Path.cwd()))
        own = next((place for place in here if place.count("/") > 1 and place.encode() in content), None)
        if path or own:
            shown = path[0].decode(errors="replace") if path else str(own)
            raise UserError(f"{name} holds a path of a machine ({shown}), which nobody else has; remove it")
    if name.endswith("config.json") and b'"auto_map"' in content:
        raise UserError(f"{name} asks for code of its own to be run (auto_map); only stock classes are published")


def _named_by(run: RunRecord) -> str:
    """The file that says by which path or id the base is loaded."""
    return run_folder.CONFIG if run.auto_class == "FeatureModel" else run_folder.ADAPTER_CONFIG


def _base_folder(folder: Path, run: RunRecord) -> Path:
    """Where the base of a run is, which is only here.

    Raises:
        UserError: it is not there any more, or holds no weights in safetensors.
    """
    assert run.base is not None
    file = folder / _named_by(run)
    if not file.is_file():
        raise UserError(f"{folder} holds no {file.name}, which names the base")
    config = json.loads(file.read_text(encoding="utf-8"))
    if _embedded_head(run):
        return samples.checkpoint(run.base.id.removeprefix("tiny:"))
    named = config["base"].get("path") if run.auto_class == "FeatureModel" else config.get("base_model_name_or_path")
    place = Path(named or "")
    if not (place / run_folder.CONFIG).is_file():
        raise UserError(f"--push_base: the base {run.base.id} is not where the run found it; publish it by hand")
    if not any(place.glob("*.safetensors")):
        raise UserError(
            f"--push_base: the base {run.base.id} has no weights in safetensors, and no others are published; load it"
            " and save it again with save_pretrained"
        )
    return place


def _with_base_published(
    folder: Path,
    run: RunRecord,
    place: Path,
    repo: str,
    private: bool,
    dry_run: bool,
    load_back: bool,
    patience: Patience,
    say: Callable[[str], None],
) -> tuple[Published, dict[str, bytes | Path]]:
    """Publish the base of a run, and name it in the record and in the files that did so by a path.

    Raises:
        UserError, RunStopped: as `publish`, of the base.
    """
    assert run.base is not None
    license = known_license(run.base.license or run.license, None)
    copy_of = run.base.id if run.base.source == "embedded" else run.base.copy_of
    say(f"the base {run.base.id}:")
    if (place / run_folder.RECORD).is_file():
        options: dict[str, Any] = {"dry_run": dry_run, "load_back": load_back, "patience": patience, "say": say}
        done = publish(place, repo, private=private, license=license, **options)
    else:
        hub = _Repository(repo, patience, say)
        hub.check_rights(create_pr=False)
        files: dict[str, bytes | Path] = {
            path.relative_to(place).as_posix(): path
            for pattern in run_folder.PUBLISHED
            for path in sorted(place.glob(pattern))
        }
        for file, data in files.items():
            _scan(file, data, place)
        title = repo.split("/")[1]
        head = f"---\nlibrary_name: transformers\nlicense: {license}\n---\n\n"
        text = f"{head}# {title}\n\nA pretrained model, which adapters and heads on the Hub load as their base.\n"
        terms = ""
        if copy_of:
            terms = (
                "This is a demonstration: a copy of a small checkpoint that comes with tl_hub. It was pretrained on "
                f"{samples.TEXTS_OF_CHECKPOINTS}. Some of these terms forbid commercial use."
            )
            text += f"\n{terms}\n"
        content = _Content(title, text, files, keep_card=True, terms=terms)
        exists = hub.exists()
        if dry_run:
            plan = hub.plan(hub.refs()["main"] if exists else None, content)
            does = "a commit to main would hold" if plan.changed else "main holds all of it"
            say(f"{repo} {'is there' if exists else 'would be made'}; {does}:")
            _show(plan, [], say)
        else:
            if not exists:
                hub.create(private)
            plan = hub.send("main", content)
        for note in plan.notes:
            say(f"note: {note}")
        revision = None if dry_run and plan.changed else plan.head
        done = Published(repo, hub.url, revision, plan.sent, plan.removed, [], plan.notes, plan.facts())
    run.base = replace(run.base, id=repo, source="hub", revision=done.revision, license=license, copy_of=copy_of)
    name = _named_by(run)
    config = json.loads((folder / name).read_text(encoding="utf-8"))
    if name == run_folder.CONFIG:
        known = {key: value for key, value in config["base"].items() if key != "path"}
        config["base"] = known | {"id": repo, "source": "hub", "revision": done.revision}
    else:
        config |= {"base_model_name_or_path": repo, "revision": done.revision}
    rewritten: dict[str, bytes | Path] = {name: (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()}
    rewritten |= _told(run)
    for file, data in rewritten.items():
        _scan(file, data, folder)
    return done, rewritten


def _show(plan: _Plan, left_out: list[str], say: Callable[[str], None]) -> None:
    for file in plan.facts():
        size = f" ({file['size']:,} bytes)" if "size" in file else ""
        say(f"  {file['state']:9} {file['path']}{size}")
    for name in left_out:
        say(f"  left out  {name}")


def _bytes(data: bytes | Path) -> bytes:
    return data.read_bytes() if isinstance(data, Path) else data


def _same(data: bytes | Path, there: RepoFile) -> bool:
    """Whether a file is the one in the repository, which knows it by SHA-256 or as git does, by SHA-1."""
    size = data.stat().st_size if isinstance(data, Path) else len(data)
    if there.lfs:
        return size == there.lfs.size and _sha256(data) == there.lfs.sha256
    return size == there.size and hashlib.sha1(b"blob %d\0" % size + _bytes(data)).hexdigest() == there.blob_id


def _sha256(data: bytes | Path) -> str:
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
