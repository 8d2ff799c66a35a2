"""One repository: what is in it, and what can be made there.

huggingface_hub does not look whether a change whose answer was lost is there. Here every change looks first, so that
one that was made is not made twice.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants, get_session, hf_hub_url, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import build_hf_headers, filter_repo_objects, hf_raise_for_status, validate_repo_id

from tl_hub.errors import UserError
from tl_hub.hub import check_token
from tl_hub.publishing import files
from tl_hub.publishing.client import Client, Patience

_OTHER = "{name} came as another file than the Hub lists; a proxy may answer in its place"


class Repository:
    """A repository by its name, whether it is there or not; only a model's has pull requests, branches and tags here.

    Raises:
        UserError: not a name for a repository, or a token that cannot be sent.
    """

    def __init__(
        self, id: str, patience: Patience, say: Callable[[str], None], kind: Literal["model", "space"] = "model"
    ):
        try:
            validate_repo_id(id)
        except HFValidationError as error:
            raise UserError(
                f"{id!r} is not a name for a repository; give owner/name, such as alice/my-model"
            ) from error
        check_token()
        self.id, self.say, self.kind = id, say, kind
        self.owner = id.split("/")[0]
        self.url = f"{constants.ENDPOINT}/{'spaces/' if kind == 'space' else ''}{id}"
        self.client = Client(id, patience, say)
        self.api, self.ask = self.client.api, self.client.ask
        self.public = False
        self._info: Any = self.api.space_info if kind == "space" else self.api.model_info

    @cached_property
    def account(self) -> dict[str, Any]:
        """What the Hub says of the token and of whose it is."""

        def look() -> dict[str, Any]:
            found = self.api.whoami()
            return found | {"name": found["name"]}  # what has none is no answer

        return self.ask("ask who the token belongs to", look)

    def exists(self) -> bool:
        """Whether it is there; if so, `public` tells whether everybody can see it."""

        def look() -> bool:
            try:
                self.public = not self._info(self.id).private
            except GatedRepoError:
                self.public = False
            except RepositoryNotFoundError:
                return False
            return True

        return self.ask(f"look for {self.id}", look)

    def create(self, private: bool) -> None:
        def make() -> None:
            try:
                sdk = "gradio" if self.kind == "space" else None
                self.api.create_repo(self.id, private=private, repo_type=self.kind, space_sdk=sdk)
            except HfHubHTTPError as error:
                # Made by the call whose answer was lost, or by another push.
                if error.response.status_code != 409 or not self.api.repo_exists(self.id, repo_type=self.kind):
                    raise

        self.ask(f"make {self.id}", make)

    def refs(self, tags: bool = False) -> dict[str, str]:
        """Commits of the branches and pull requests, or of the tags, by name."""

        def look() -> Any:
            return self.api.list_repo_refs(self.id, repo_type=self.kind, include_pull_requests=not tags)

        found = self.ask(f"look at {self.id}", look)
        if tags:
            return {ref.name: ref.target_commit for ref in found.tags}
        pulls = {ref.ref: ref.target_commit for ref in found.pull_requests or []}
        return {ref.name: ref.target_commit for ref in found.branches} | pulls

    def head(self, branch: str) -> str:
        """The last commit of a branch or pull request.

        Raises:
            UserError: there is no such branch.
        """
        commit = self.refs().get(branch)
        if commit is None:
            raise UserError(f"{self.id} has no branch {branch}; it was removed meanwhile")
        return commit

    def files(self, commit: str) -> dict[str, RepoFile]:
        """The files of a commit with their sizes and hashes, by which all that is read is checked."""

        def look() -> dict[str, RepoFile]:
            tree = self.api.list_repo_tree(self.id, revision=commit, recursive=True, repo_type=self.kind)
            found = {item.path: item for item in tree if isinstance(item, RepoFile)}
            # Nothing is a list, too: what stands in for the Hub must not make a card look as if it were not there.
            named = {item.rfilename for item in self._info(self.id, revision=commit).siblings or []}
            if not named <= set(found):
                raise ConnectionError(f"the list of files lacks {min(named - set(found))}")
            return found

        return self.ask(f"list {self.id}", look)

    def read(self, file: RepoFile, commit: str) -> bytes:
        """What a commit has of a small file."""

        def get() -> bytes:
            url = hf_hub_url(self.id, file.path, revision=commit, repo_type=self.kind)
            answer = get_session().get(url, headers=build_hf_headers())
            hf_raise_for_status(answer)
            if not files.same(answer.content, file):
                raise ConnectionError(_OTHER.format(name=file.path))
            return answer.content

        return self.ask(f"read {file.path} of {self.id}", get)

    def download(self, commit: str, names: Sequence[str], cache: str | None = None) -> Path:
        """Folder of a commit's files that fit one of `names`, of which those that now come from the Hub are checked.

        Args:
            cache: a folder; without, the client's own.
        """

        def get() -> Path:
            listed = self.files(commit)
            wanted = list(filter_repo_objects(listed, allow_patterns=list(names)))
            had = {
                name
                for name in wanted
                if try_to_load_from_cache(self.id, name, cache, revision=commit, repo_type=self.kind)
            }
            folder = Path(
                snapshot_download(
                    self.id, revision=commit, cache_dir=cache, allow_patterns=list(names), repo_type=self.kind
                )
            )
            for name in wanted:
                path = folder / name
                if not path.is_file():
                    raise ConnectionError(f"{name} was not downloaded")
                if name not in had and not files.same(path, listed[name]):
                    path.resolve().unlink()  # or it would be taken for the right one from then on
                    path.unlink(missing_ok=True)
                    raise ConnectionError(_OTHER.format(name=name))
            return folder

        return self.ask(f"download {self.id}", get)

    def branch(self, name: str) -> None:
        def make() -> None:
            if name not in self.refs():
                self.api.create_branch(self.id, branch=name)
                if name not in self.refs():
                    raise ConnectionError("it is not there")

        self.ask(f"make the branch {name}", make)

    def remove_branch(self, name: str) -> None:
        def remove() -> None:
            if name in self.refs():
                self.api.delete_branch(self.id, branch=name)

        self.ask(f"remove the branch {name}", remove)

    def tag(self, name: str, commit: str) -> None:
        def make() -> None:
            if self.refs(tags=True).get(name) != commit:
                self.api.create_tag(self.id, tag=name, revision=commit)
                if name not in self.refs(tags=True):
                    raise ConnectionError("it is not there")

        self.ask(f"make the tag {name}", make)

    def open_pull_request(self, title: str) -> int | None:
        """Number of the one that an earlier push of the same run opened."""

        def look() -> int | None:
            author = self.account["name"]
            found = self.api.get_repo_discussions(self.id, author=author, discussion_type="pull_request")
            return next((each.num for each in found if each.title == title and each.status in ("draft", "open")), None)

        return self.ask(f"look at the pull requests of {self.id}", look)

    def pull_request(self, title: str) -> int:
        """Number of the one that an earlier push of the same run opened, or of a new one."""

        def make() -> int:
            return self.open_pull_request(title) or self.api.create_pull_request(self.id, title=title).num

        return self.ask("open a pull request", make)

    def open(self, number: int) -> None:
        """A pull request is a draft until there is something in it."""

        def make() -> None:
            if self.api.get_discussion_details(self.id, number).status == "draft":
                self.api.change_discussion_status(self.id, number, new_status="open")

        self.ask(f"open pull request {number}", make)

    def collect(self, collection: str, private: bool, ids: Sequence[str]) -> None:
        """Put models into the collection of this slug, or of its owner and this title, made if need be."""

        def make() -> None:
            slug = collection
            if "/" not in slug:
                made = self.api.create_collection(collection, namespace=self.owner, private=private, exists_ok=True)
                slug = made.slug
            for id in ids:
                self.api.add_collection_item(slug, id, "model", exists_ok=True)

        self.ask(f"put {' and '.join(ids)} into the collection {collection}", make)
