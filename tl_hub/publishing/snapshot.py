"""A published run folder, on the disk."""

import warnings
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from tl_hub import run_folder
from tl_hub.errors import UserError
from tl_hub.hub import model_facts
from tl_hub.publishing.client import Patience, timeouts
from tl_hub.publishing.repository import Repository

_PATTERNS = [*run_folder.PUBLISHED, run_folder.CARD]


def snapshot(location: str | Path, revision: str | None = None, patience: Patience = Patience(attempts=4)) -> Path:
    """A run folder as it is, or what a repository has of one: nothing else of it is downloaded, pickles least of all.

    Raises:
        UserError: as `hub.model_facts`; or a revision of a folder is asked for, the repository was not published from a
            run folder, or it is not whole in the cache and the client is to stay offline.
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
    hub = Repository(id, patience, warnings.warn)
    with timeouts():
        return hub.ask(f"download {id}", lambda: _download(hub, commit))


def _download(hub: Repository, commit: str | None) -> Path:
    try:
        found = Path(snapshot_download(hub.id, revision=commit, allow_patterns=_PATTERNS))
    except LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise UserError(
                f"{hub.id} is not whole in the cache, and HF_HUB_OFFLINE is set; load it once without"
            ) from error
        raise
    # Where the list of files cannot be had, the client is content with what is in its cache.
    whole = (found / run_folder.RECORD).is_file() and any(found.glob("*.safetensors"))
    if not constants.HF_HUB_OFFLINE and not whole:
        assert commit is not None
        names = filter_repo_objects(hub.files(commit), allow_patterns=_PATTERNS)
        missing = [name for name in names if not (found / name).is_file()]
        if missing:
            raise ConnectionError(f"{missing[0]} was not downloaded")
    return found
