"""A published run folder, on the disk."""

import os
import warnings
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from tl_hub import run_folder
from tl_hub.errors import UserError
from tl_hub.hub import model_facts
from tl_hub.publishing.client import Patience, timeouts
from tl_hub.publishing.repository import Repository

_PATTERNS = [*run_folder.PUBLISHED, run_folder.CARD, run_folder.SIGNATURE]
_OF_NO_RUN = "{id} was not published from a run folder; transformers may load it"


def snapshot(location: str | Path, revision: str | None = None, patience: Patience = Patience(attempts=4)) -> Path:
    """A run folder as it is, or what a repository has of one: nothing else of it is downloaded, pickles least of all.

    Raises:
        UserError: as `hub.model_facts`; or a revision of a folder is asked for, the repository was not published from a
            run folder, or it is not whole in the cache and the client is to stay offline.
        RunStopped: the Hub cannot be reached.
    """
    folder = Path(location)
    if os.path.isdir(folder):  # pathlib fails on a name that is too long
        if revision:
            raise UserError(f"--revision is for a repository, and {folder} is a folder")
        return folder
    id = str(location)
    commit = model_facts(id, revision, called=id).revision
    if "/" not in id:  # those without an owner are older than run folders
        raise UserError(_OF_NO_RUN.format(id=id))
    if constants.HF_HUB_OFFLINE:
        return _from_cache(id, commit)
    assert commit is not None  # a Hub that answered has told it
    hub = Repository(id, patience, warnings.warn)
    with timeouts():
        found = hub.download(commit, _PATTERNS)
    if not (found / run_folder.RECORD).is_file():
        raise UserError(_OF_NO_RUN.format(id=id))
    return found


def _from_cache(id: str, commit: str | None) -> Path:
    try:
        return Path(snapshot_download(id, revision=commit, allow_patterns=_PATTERNS))
    except LocalEntryNotFoundError as error:
        raise UserError(f"{id} is not whole in the cache, and HF_HUB_OFFLINE is set; load it once without") from error
