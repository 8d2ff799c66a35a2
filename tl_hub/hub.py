"""Short questions to the Hub before any long work, so that an id that is wrong or out of reach fails in seconds."""

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import datasets
import httpx2
from huggingface_hub import HfApi, constants, get_token, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tl_hub.errors import UserError

TIMEOUT_SECONDS = 5.0
NO_ANSWER = (LookupError, TypeError, AttributeError, ValueError)
"""How huggingface_hub fails where a proxy answers in the Hub's place: it reads what is there as the Hub's JSON."""
_ANY_FILE = {"model": "config.json", "dataset": "README.md"}


@dataclass(frozen=True)
class RepoFacts:
    """What a run pins and cites of a Hub repository.

    Attributes:
        revision: commit sha, of the cached copy where the Hub is out of reach.
        license: identifier from the card, if it states a single one and the Hub could be asked.
        license_name: of a license that the Hub does not list.
        license_link: URL of its text.
    """

    revision: str | None
    license: str | None = None
    license_name: str | None = None
    license_link: str | None = None


def model_facts(model: str, revision: str | None = None, called: str | None = None) -> RepoFacts:
    """Commit and license of a model repository; a cached copy will do where the Hub is out of reach.

    Args:
        called: how a message names it, where it was not given as `--model`.

    Raises:
        UserError: no such repository or revision, no access to it, or the Hub is out of reach and nothing is cached.
    """
    offline = "a run folder works as well" if called else "tiny:bert is embedded; a folder that holds the weights works"
    return _facts("model", model, revision, called or f"--model {model}", offline)


def dataset_facts(dataset: str, revision: str | None = None) -> RepoFacts:
    """As `model_facts`, of a data set repository."""
    offline = "sample:qa is embedded; --train_file reads your own rows"
    return _facts("dataset", dataset, revision, f"--dataset {dataset}", offline)


def _facts(kind: str, name: str, revision: str | None, flag: str, offline: str) -> RepoFacts:
    check_token()
    try:
        info = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=TIMEOUT_SECONDS)
        if info.gated:  # its facts are everybody's, its files are not
            HfApi().auth_check(name, repo_type=kind)
    except HFValidationError as error:
        raise UserError(f"{flag}: neither a folder here nor a Hub id (name or owner/name); {offline}") from error
    except GatedRepoError as error:
        raise UserError(f"{flag}: access must be asked for on its Hub page, then run `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{flag}: the Hub has no revision {revision} of it") from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{flag}: no such folder here, and no such {kind} on the Hub (or it is private: `hf auth login`); {offline}"
        ) from error
    except (httpx2.TransportError, OfflineModeIsEnabled, HfHubHTTPError, *NO_ANSWER) as error:
        refusal = _refusal(error)
        if refusal:
            raise UserError(f"{flag}: the Hub refuses to show it ({refusal}); `hf auth login` sets a token") from error
        commit = _cached_commit(kind, name, revision)
        if commit:
            _stay_offline()
            return RepoFacts(commit, None)
        raise UserError(f"{flag}: no such folder here, and the Hub cannot be reached; offline: {offline}") from error
    _remember(kind, name, revision)
    card = getattr(info, "card_data", None)
    stated = {key: card.get(key) for key in ("license", "license_name", "license_link")} if card else {}
    known = {key: value for key, value in stated.items() if isinstance(value, str)}  # a list names no single one
    if (link := known.get("license_link")) and "://" not in link:  # a file of that repository
        known["license_link"] = hf_hub_url(name, link, repo_type=kind, revision=info.sha).replace("/resolve/", "/blob/")
    return RepoFacts(info.sha, **known)


def check_token() -> None:
    """
    Raises:
        UserError: the token in use cannot be sent: it has a letter that a header may not hold.
    """
    if not (get_token() or "").isascii():
        raise UserError(
            "the Hub token (HF_TOKEN, or the one that `hf auth login` kept) has a letter that tokens do not have; copy "
            "it again from https://huggingface.co/settings/tokens"
        )


def _stay_offline() -> None:
    """Ask the Hub nothing more in this process and those that it starts: each file would be minutes of retries."""
    if not constants.HF_HUB_OFFLINE:
        print("note: the Hub cannot be reached; what is in the cache is used (HF_HUB_OFFLINE=1)", file=sys.stderr)
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        os.environ["HF_HUB_OFFLINE"] = "1"


def _refusal(error: Exception) -> str | None:
    """What the Hub says where it is there and answers no, such as to a token that has expired."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    return str(error).strip().splitlines()[-1] if status in (400, 401, 403) else None


def _remember(kind: str, name: str, revision: str | None) -> None:
    """Put the revision's commit into the cache, which a download by commit does not do, for runs without a network."""
    with suppress(httpx2.TransportError, OSError):
        hf_hub_download(name, _ANY_FILE[kind], repo_type=kind, revision=revision, etag_timeout=TIMEOUT_SECONDS)


def _cached_commit(kind: str, name: str, revision: str | None) -> str | None:
    try:
        wanted = _ANY_FILE[kind]  # few repositories are in the cache with all their files
        found = snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True, allow_patterns=wanted)
        return Path(found).name
    except OSError:
        return None
