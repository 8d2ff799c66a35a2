"""What a commit is to change in a repository, and the commit: complete, or not there at all.

huggingface_hub does not look whether a commit whose answer was lost is there. Here every step is: look at the branch,
send what differs, and on failure look again. So a step that was done is not done twice, and the same command given
later sends what is missing.
"""

import itertools
import json
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import RepoFile

from tl_hub import card, run_folder
from tl_hub.card import rules
from tl_hub.errors import RunStopped, UserError
from tl_hub.hub import NO_ANSWER
from tl_hub.publishing import files
from tl_hub.publishing.client import FAILURES
from tl_hub.publishing.files import Files
from tl_hub.publishing.repository import Repository

SENT = ".tl_hub.json"
"""Names the files of the last push, in the repository: of them the next one removes what no longer belongs."""
_UNDONE = "Undo a push that does not load as the model that was trained"
_REFUSED = re.compile("Invalid metadata|LFS batch API returned errors")
"""How the client passes on the Hub's word on the card's metadata, and on an upload."""
_LOADED = {
    "model": re.compile(r"(adapter/)?[^/]+\.(safetensors|bin|pt|index\.json)|(adapter_|adapter/adapter_)?config\.json"),
    "space": re.compile(r"app\.py|requirements\.txt|Dockerfile|index\.html"),
}
"""Files of each kind of repository by which one of another origin is known."""


@dataclass(frozen=True)
class Content:
    """What is to be in a repository: files, and the text of the card, which takes up what a person wrote there.

    Attributes:
        keep_card: a card that is there stays as it is, but for `terms`.
        terms: a paragraph of `card` that a card which is kept must have, too.
    """

    title: str
    card: str
    files: Files
    keep_card: bool = False
    terms: str = ""


@dataclass
class Plan:
    """What a commit on `parent` is to change; both are None for a repository that is not there.

    Attributes:
        head: the commit that was made, or `parent` where nothing is to change.
        title: of the commit.
        files: all that belongs in the repository.
        there: paths that `parent` has.
    """

    parent: str | None
    head: str | None
    title: str
    files: Files
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
        for name, file in self.files.items():
            state = "unchanged" if name not in self.sent else "changed" if name in self.there else "new"
            found.append({"path": name, "size": files.size(file), "state": state})
        return found + [{"path": name, "state": "removed"} for name in self.removed]


def plan(hub: Repository, parent: str | None, content: Content) -> Plan:
    """How the repository at a commit differs from what it is to be.

    Raises:
        UserError: there is a model of another origin.
    """
    there = hub.files(parent) if parent else {}
    before = _sent_before(hub, there, parent) if parent else set()
    text, notes = content.card, list[str]()
    if parent and run_folder.CARD in there:
        old = _text(hub, run_folder.CARD, hub.read(there[run_folder.CARD], parent))
        text, notes = _kept(hub, old, content.terms) if content.keep_card else card.merge(content.card, old)
    wanted = {**content.files, run_folder.CARD: text.encode()}
    if not content.keep_card:
        notes += _check_rules(hub, text, content.files)
    wanted[SENT] = (json.dumps({"files": sorted([*wanted, SENT])}, indent=2) + "\n").encode()
    sent = [name for name, file in wanted.items() if name not in there or not files.same(file, there[name])]
    return Plan(
        parent, parent, content.title, wanted, sent, sorted(before & set(there) - set(wanted)), notes, set(there)
    )


def _text(hub: Repository, name: str, content: bytes) -> str:
    """
    Raises:
        UserError: the content is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{name} of {hub.id} is not UTF-8 (byte {error.start}); save it as UTF-8 there") from error


def _check_rules(hub: Repository, text: str, published: Files) -> list[str]:
    """A sentence for each rule that the Hub's page shows broken.

    Raises:
        UserError: the Hub would refuse the card.
    """
    found = rules.judge(text, published, lambda name: files.content(published[name]), repo=hub.id)
    if refused := [fault.text for fault in found if fault.refused]:
        raise UserError(f"the Hub would refuse the card of {hub.id}: {'; '.join(refused)}")
    return [fault.text for fault in found]


def _kept(hub: Repository, card: str, terms: str) -> tuple[str, list[str]]:
    """A card that stays, with the terms that it lacks, and what a person should look at."""
    if terms in card:
        return card, []
    note = f"the card of {hub.id} stays; what its weights were pretrained on, and the terms, follow"
    return f"{card.rstrip()}\n\n{terms}\n", [note]


def send(hub: Repository, branch: str, content: Content) -> Plan:
    """Commit what differs. A commit whose answer was lost is found by looking again, and counts as this one."""
    tried: Plan | None = None
    for attempt in itertools.count(1):
        now = plan(hub, hub.head(branch), content)
        if not now.changed:
            return replace(tried, head=now.head) if tried else now
        operations: list[Any] = [
            *(CommitOperationAdd(name, now.files[name]) for name in now.sent),
            *(CommitOperationDelete(name) for name in now.removed),
        ]
        try:
            hub.client.set_timeout()
            done = hub.api.create_commit(
                hub.id,
                operations,
                commit_message=now.title,
                revision=branch,
                parent_commit=now.parent,
                repo_type=hub.kind,
            )
            return replace(now, head=done.oid)
        except (*FAILURES, *NO_ANSWER, RuntimeError) as error:
            if isinstance(error, ValueError) and _REFUSED.match(str(error)):  # a line for each fault
                raise UserError(f"{hub.id}: {' '.join(str(error).split())}") from error
            # The client wraps what went wrong with the upload of a file.
            failure = error.__cause__ if isinstance(error, RuntimeError) else error
            if not isinstance(failure, (*FAILURES, *NO_ANSWER)):
                raise
            conflict = isinstance(failure, HfHubHTTPError) and failure.response.status_code == 412
            if conflict and attempt < hub.client.patience.attempts:
                hub.say(f"{hub.id} was changed by another push; looking again")
                continue
            hub.client.pause(f"send to {hub.id}", failure, attempt)
            tried = now
    raise AssertionError


def parent_of(hub: Repository, plan: Plan) -> str | None:
    """The commit before the head, if the head is of a push of the same run."""

    def look() -> str | None:
        found = hub.api.list_repo_commits(hub.id, repo_type=hub.kind, revision=plan.head)
        return found[1].commit_id if len(found) > 1 and found[0].title == plan.title else None

    return hub.ask(f"look at {hub.id}", look)


def undo(hub: Repository, branch: str, head: str, parent: str) -> bool:
    """Make a commit that undoes another, if that is still the last one: whether it is undone.

    Raises:
        RunStopped: the Hub cannot be reached, or has other files after the undo than before the commit.
    """
    now, before = hub.files(head), hub.files(parent)
    back = [name for name in before if name not in now or now[name].blob_id != before[name].blob_id]
    # The client would copy a small file as it is read, whatever that is; one in LFS is copied by its SHA-256.
    operations: list[Any] = [
        CommitOperationCopy(name, name, src_revision=parent)
        if before[name].lfs
        else CommitOperationAdd(name, hub.read(before[name], parent))
        for name in back
    ]
    operations += [CommitOperationDelete(name) for name in now if name not in before]

    def make() -> str | None:
        if hub.head(branch) != head:
            commits = hub.api.list_repo_commits(hub.id, repo_type=hub.kind, revision=branch)
            later = itertools.takewhile(lambda commit: commit.commit_id != head, commits)
            # By an attempt whose answer was lost.
            return next((commit.commit_id for commit in later if commit.title == _UNDONE), None)
        try:
            made = hub.api.create_commit(
                hub.id,
                operations,
                commit_message=_UNDONE,
                revision=branch,
                parent_commit=head,
                repo_type=hub.kind,
            )
        except HfHubHTTPError as error:
            if error.response.status_code != 412:
                raise
            return None  # another push came just before
        return made.oid

    undone = hub.ask(f"undo the commit {head}", make)
    if undone:
        blobs = [{(file.path, file.blob_id) for file in each.values()} for each in (before, hub.files(undone))]
        if blobs[0] != blobs[1]:
            other = min(path for path, _ in blobs[0] ^ blobs[1])
            raise RunStopped(
                f"the commit {head} of {hub.id} was undone, though {other} is not as it was before; see"
                f" {hub.url}/commits/{branch}",
                exit_code=1,
            )
    return undone is not None


def check_free(hub: Repository) -> None:
    """
    Raises:
        UserError: the repository holds a model of another origin.
    """
    if hub.exists():
        commit = hub.head("main")
        _sent_before(hub, hub.files(commit), commit)


def _sent_before(hub: Repository, there: dict[str, RepoFile], commit: str) -> set[str]:
    """Files that the last push sent."""
    before: set[str] = set()
    if SENT in there:
        with suppress(ValueError, LookupError, TypeError):  # by hand; then it names none
            before = set(json.loads(hub.read(there[SENT], commit))["files"])
    others = sorted(name for name in set(there) - before if _LOADED[hub.kind].fullmatch(name))
    if others:
        raise UserError(
            f"{hub.id} holds a {hub.kind} that was not published from a run folder ({', '.join(others[:3])}); "
            "give another name, or delete these files there"
        )
    return before
