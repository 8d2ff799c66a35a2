"""A Space on the Hub, by the way that models go: one commit, looked for when its answer is lost, and read back."""

from pathlib import Path

from tl_hub import run_folder
from tl_hub.publishing import commits, rights, round_trip, secrets
from tl_hub.publishing.client import timeouts
from tl_hub.publishing.commits import Content
from tl_hub.publishing.destination import Destination, Options
from tl_hub.publishing.files import content
from tl_hub.publishing.report import Published
from tl_hub.publishing.repository import Repository
from tl_hub.space import Space, all_files


def push(space: Space, destination: Destination, options: Options) -> Published:
    """Send a Space. A README.md that is there, which configures it, stays as it is.

    Raises:
        UserError: no token, one that may not write there, a name that the Hub does not take, a Space of another origin,
            or a secret in a file.
        RunStopped: the Hub cannot be reached, or gave other files back, and the commit was undone.
    """
    destination.check()
    rights.check_token(destination.repo)
    found = all_files(space)
    for name, file in found.items():
        secrets.check(name, file, Path())
    readme = content(found.pop(run_folder.CARD)).decode()
    hub = Repository(destination.repo, options.patience, options.say, kind="space")
    with timeouts():
        rights.check_may_write(hub, create_pr=False)
        exists = hub.exists()
        commits.check_free(hub)
        if not exists:
            hub.create(destination.private)
        plan = commits.send(hub, "main", Content(f"Space of {space.record.name}"[:200], readme, found, keep_card=True))
        round_trip.compare(hub, "main", plan, Path(), space.record, load_back=False)
    return Published(hub.id, hub.url, plan.head, plan.sent, plan.removed, [], plan.notes, plan.facts())
