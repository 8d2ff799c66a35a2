"""Whether a push would be allowed, asked before anything is sent, or even trained."""

from collections.abc import Callable
from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import HfHubHTTPError

from tl_hub.errors import UserError
from tl_hub.publishing import commits
from tl_hub.publishing.client import Patience, timeouts
from tl_hub.publishing.destination import Destination
from tl_hub.publishing.repository import Repository


def check_rights(
    destination: Destination,
    *,
    with_state: bool = False,
    patience: Patience = Patience(),
    say: Callable[[str], None] = print,
) -> None:
    """Ask the Hub whether a recipe may publish there, before anything is trained.

    Args:
        with_state: whether training states are to go there, which only a private repository may hold.

    Raises:
        UserError: no token, one that is not valid or may not write there, not a name for a repository, branch or tag,
            a repository that everybody can see or is not there, a tag that is taken, or no such collection.
        RunStopped: the Hub cannot be reached.
    """
    destination.check(revision_flag="push_revision")
    repo, tag = destination.repo, destination.tag
    with timeouts():
        hub = Repository(repo, patience, say)
        check_may_write(hub, destination.create_pr)
        commits.check_free(hub)
        check_collection(hub, destination.collection)
        if destination.create_pr:
            check_there(hub, hub.exists())
        if tag and hub.exists() and tag in hub.refs(tags=True):
            raise UserError(f"--tag {tag}: {repo} has that tag; give another name")
        if with_state:
            check_private(hub)


def check_may_write(hub: Repository, create_pr: bool) -> None:
    """
    Raises:
        UserError: there is no token, or it may not write to the repository; a pull request needs no such right.
    """
    check_token(hub.id)
    user = hub.account["name"]
    token = hub.account.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise UserError(
            f"the token of {user} may only read; make one that may write at"
            " https://huggingface.co/settings/tokens, and give it to `hf auth login`"
        )
    if not create_pr:
        _check_place(hub, token)
    if hub.exists() and not create_pr:
        hub.ask(
            f"ask for the right to write to {hub.id}",
            lambda: hub.api.auth_check(hub.id, repo_type=hub.kind, write=True),
        )


def check_token(repo: str) -> None:
    """
    Raises:
        UserError: there is no token.
    """
    if get_token() is None:
        raise UserError(f"there is no token to write to {repo}; `hf auth login` sets one, and so does HF_TOKEN")


def _check_place(hub: Repository, token: dict[str, Any]) -> None:
    user = hub.account["name"]
    places = [user, *(org["name"] for org in hub.account.get("orgs", []) if org.get("roleInOrg") != "read")]
    if hub.owner not in places:
        raise UserError(f"{user} may not write to {hub.id}; give a name under {' or '.join(places)}")
    scopes = token.get("fineGrained", {}).get("scoped")
    if scopes is not None:
        writable = {scope["entity"].get("name") for scope in scopes if "repo.write" in scope["permissions"]}
        if not writable & {hub.id, hub.owner}:
            raise UserError(
                f"the token may not write to {hub.id}; give it the right to write to repositories of"
                f" {hub.owner} at https://huggingface.co/settings/tokens, or use another"
            )


def check_there(hub: Repository, exists: bool) -> None:
    """
    Raises:
        UserError: there is no repository to make a pull request against.
    """
    if not exists:
        raise UserError(f"{hub.id} does not exist, so no pull request can be made; push without --create_pr")


def check_private(hub: Repository) -> None:
    """
    Raises:
        UserError: everybody can see the repository.
    """
    if hub.exists() and hub.public:
        raise UserError(f"{hub.id} is public, and a training state is not for everybody; push to a private one")


def check_collection(hub: Repository, collection: str | None) -> None:
    """A slug must be of a collection that is there; of a title, one is made where there is none.

    Raises:
        UserError: there is none of that slug.
    """

    def look(slug: str) -> None:
        try:
            hub.api.get_collection(slug)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
            raise UserError(
                f"--collection {slug}: there is no such collection, or not for this token to see; give its"
                " slug, the end of its address, or a title without a slash"
            ) from error

    if collection and "/" in collection:
        hub.ask(f"look for the collection {collection}", lambda: look(collection))
