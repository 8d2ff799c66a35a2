"""What another machine needs to go on with a run, on a branch of its own. Of private repositories only."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from tl_hub import run_folder
from tl_hub.errors import UserError
from tl_hub.publishing import commits, files, rights, secrets
from tl_hub.publishing.client import Patience, timeouts
from tl_hub.publishing.commits import Content
from tl_hub.publishing.repository import Repository

BRANCH = "training-state"


def push_state(
    folder: str | Path,
    repo: str,
    *,
    patience: Patience = Patience(),
    say: Callable[[str], None] = print,
) -> str:
    """Send what an unfinished run needs to go on to the branch `training-state`, and return the commit that holds them.

    Args:
        folder: the run folder.
        repo: `owner/name`, which exists and is private.

    Raises:
        UserError: the repository is public, may not be written to, or a file is a link or holds a secret.
        RunStopped: the Hub cannot be reached.
    """
    found = files.own(Path(folder), run_folder.RESUMED)
    for name, file in found.items():
        secrets.check(name, file, Path(folder))
    with timeouts():
        hub = Repository(repo, patience, say)
        rights.check_private(hub)
        hub.branch(BRANCH)
        head = commits.send(hub, BRANCH, Content("Training state", "", found, keep_card=True)).head
    assert head is not None
    return head


def fetch_state(
    repo: str,
    folder: str | Path,
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
    with timeouts(), tempfile.TemporaryDirectory() as scratch:
        hub = Repository(repo, patience, say)
        commit = hub.refs().get(BRANCH) if hub.exists() else None
        if commit is None:
            raise UserError(
                f"{repo} holds no training state that this token may see; a run leaves one there with --push_to and"
                " --push_every, until it is complete"
            )
        there = hub.download(commit, run_folder.RESUMED, scratch)
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
    with timeouts():
        Repository(repo, patience, say).remove_branch(BRANCH)
