"""Where in a repository a commit goes: what is there already, and what is made for it."""

from dataclasses import dataclass

from tl_hub.errors import UserError
from tl_hub.publishing import commits, rights
from tl_hub.publishing.client import still_done
from tl_hub.publishing.commits import Content, Plan
from tl_hub.publishing.destination import Destination
from tl_hub.publishing.report import show
from tl_hub.publishing.repository import Repository


@dataclass(frozen=True)
class Target:
    """What there is of a destination before a push.

    Attributes:
        exists: whether the repository is there.
        pull_request: number of the one that an earlier push opened.
        branch: where the commit goes; of a pull request that is to be opened, `main`.
        head: the commit that the new one is made on.
        new_branch: whether the branch is to be made.
    """

    exists: bool
    pull_request: int | None
    branch: str
    head: str | None
    new_branch: bool


def find(hub: Repository, destination: Destination, content: Content) -> Target:
    """Look what is there.

    Raises:
        UserError: there is no repository for a pull request, or the tag is on another commit.
    """
    exists = hub.exists()
    if destination.create_pr:
        rights.check_there(hub, exists)
    if exists and destination.private and hub.public:
        hub.say(f"note: {hub.id} is public, and stays so: everybody can see what is sent")
    number = hub.open_pull_request(content.title) if destination.create_pr else None
    branch = f"refs/pr/{number}" if number else destination.revision or "main"
    heads = hub.refs() if exists else {}
    head = heads.get(branch) or heads.get("main")
    tag = destination.tag
    tagged = hub.refs(tags=True).get(tag) if tag and exists else None
    if tagged and (tagged != head or commits.plan(hub, tagged, content).changed):
        raise UserError(f"--tag {tag}: the tag is there, on another commit; give another name")
    return Target(exists, number, branch, head, branch not in {"main", *heads})


def make(hub: Repository, destination: Destination, target: Target, title: str) -> tuple[str, int | None]:
    """Make what is missing: the branch for the commit, and the number of its pull request if it has one."""
    if not target.exists:
        hub.create(destination.private)
    if destination.revision:
        hub.branch(destination.revision)
    if destination.create_pr:
        number = hub.pull_request(title)
        return f"refs/pr/{number}", number
    return target.branch, None


def name(hub: Repository, destination: Destination, commit: str | None, pull_request: int | None) -> None:
    """When the commit is there and checked: open its pull request, tag it, put it into a collection."""
    with still_done(f"{hub.id} holds the run at {commit}"):
        if pull_request:
            hub.open(pull_request)
        if destination.tag and commit:
            hub.tag(destination.tag, commit)
        if destination.collection:
            hub.collect(destination.collection, destination.private, [hub.id])


def preview(
    hub: Repository, destination: Destination, target: Target, plan: Plan, left_out: list[str], notes: list[str]
) -> None:
    """Say what a push would do."""
    number = target.pull_request
    state = "is there" if target.exists else f"would be made, {'private' if destination.private else 'public'}"
    goal = target.branch
    if destination.create_pr:
        goal = f"the pull request {number}" if number else "a new pull request"
    elif target.new_branch:
        goal += ", a branch that would be made,"
    does = f"a commit to {goal} would hold" if plan.changed else f"{goal} holds all of it"
    hub.say(f"{hub.id} {state}; {does}:")
    show(plan, left_out, hub.say)
    for note in notes:
        hub.say(f"  note     {note}")
    for what, given in (("tag", destination.tag), ("collection", destination.collection)):
        if given:
            hub.say(f"  {what} {given}")
