"""What the Hub gives back of a push must be the model that was trained, or the commit is undone."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.file_download import repo_folder_name

from tl_hub import run_folder, verification
from tl_hub.errors import RunStopped
from tl_hub.publishing import base, commits, files
from tl_hub.publishing.client import still_done
from tl_hub.publishing.commits import Plan
from tl_hub.publishing.repository import Repository
from tl_hub.record import RunRecord


def compare(
    hub: Repository, branch: str, plan: Plan, folder: Path, run: RunRecord, load_back: bool
) -> dict[str, Any] | None:
    """Download what was sent into an empty cache, compare its bytes, and load it from there in a fresh process.

    Where that is not the model that was trained, the commit is undone; where it cannot be found out, it stays.

    Args:
        load_back: whether it is loaded.

    Returns:
        What `verification.check` found; None where nothing was loaded.

    Raises:
        UserError: the Hub refuses to give it back.
        RunStopped: it cannot be reached, or gave back another model.
    """
    assert plan.head is not None
    later = f"tl-hub verify {hub.id} --revision {plan.head}"
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        try:
            with still_done(f"{hub.id} is complete at {plan.head}, though not checked (later: {later})"):
                there = hub.download(plan.head, [*plan.files, *run_folder.PUBLISHED], str(cache))
            for name, file in plan.files.items():
                if not (there / name).is_file() or files.sha256(there / name) != files.sha256(file):
                    raise verification.Mismatch(f"{name} came back from the Hub as another file", exit_code=1)
            if not load_back:
                return None
            return _load(hub, plan, there, cache, folder, run)
        except verification.Mismatch as stop:
            # Where nothing was sent now, an earlier push may have ended between its commit and this check.
            parent = plan.parent if plan.changed else commits.parent_of(hub, plan)
            end = f"it was there before, and stays: see {hub.url}/commits/{branch}"
            if parent:
                end = f"the commit was undone and {hub.id} is as it was before"
                if not commits.undo(hub, branch, plan.head, parent):
                    end = f"{branch} has moved on since, so the commit is still there: see {hub.url}/commits/{branch}"
            raise RunStopped(f"{stop}; {end}", exit_code=1) from stop


def _load(hub: Repository, plan: Plan, there: Path, cache: Path, folder: Path, run: RunRecord) -> dict[str, Any]:
    """Load the snapshot `there`, as others will who have nothing but its `cache`."""
    copy = cache.with_name("run")
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
    if needed := base.needed_from_hub(run):
        # It was fetched before; a large one need not come twice.
        name = repo_folder_name(repo_id=needed.id, repo_type="model")
        (cache / name).symlink_to(Path(constants.HF_HUB_CACHE, name).resolve())
    hub.say("loading it back from the Hub in a fresh process ...")
    return verification.check(copy, repo=hub.id, revision=plan.head, cache=cache)
