"""Short questions to the Hub before any long work, so that an id that is wrong or out of reach fails in seconds."""

from dataclasses import dataclass

import httpx2
from huggingface_hub import HfApi, try_to_load_from_cache
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


@dataclass(frozen=True)
class RepoFacts:
    """What a run pins and cites of a Hub repository.

    Attributes:
        revision: commit sha; None where only a cached copy could be asked.
        license: identifier from the card, if it states one.
    """

    revision: str | None
    license: str | None


def model_facts(model: str, revision: str | None = None) -> RepoFacts:
    """Commit and license of a model repository; a cached copy will do where the Hub is out of reach.

    Raises:
        UserError: no such repository or revision, no access to it, or the Hub is out of reach and nothing is cached.
    """
    return _facts("model", model, revision, "tiny:bert is embedded; a folder that holds the weights works as well")


def dataset_facts(dataset: str, revision: str | None = None) -> RepoFacts:
    """As `model_facts`, of a data set repository."""
    return _facts("dataset", dataset, revision, "sample:qa is embedded; --train_file reads your own rows")


def _facts(kind: str, name: str, revision: str | None, offline: str) -> RepoFacts:
    flag = f"--{kind} {name}"
    try:
        info = HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=TIMEOUT_SECONDS)
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
    except (httpx2.TransportError, OfflineModeIsEnabled, HfHubHTTPError) as error:
        cached = try_to_load_from_cache(name, "config.json" if kind == "model" else "README.md", revision=revision)
        if isinstance(cached, str):
            return RepoFacts(revision, None)
        raise UserError(f"{flag}: no such folder here, and the Hub cannot be reached; offline: {offline}") from error
    card = getattr(info, "card_data", None)
    license = card.get("license") if card else None
    return RepoFacts(info.sha, license if isinstance(license, str) else None)  # a list names no single one
