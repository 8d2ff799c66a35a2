"""Where a run is to be published, and how, as the user asked for it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.hub_names import REPOSITORY
from tl_hub.publishing.client import Patience

_REF = re.compile(r"(?!.{245})(?!.*(\.\.|//|@\{|/\.|\.lock(/|$)))(?![/.-])[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])")


def check_name(repo: str) -> None:
    """
    Raises:
        UserError: the Hub takes no repository of this name.
    """
    if not all(map(REPOSITORY.fullmatch, repo.split("/", 1))):
        raise UserError(
            f"{repo!r} is not a name for a repository: owner/name, each of up to 96 letters, digits, . _ and -, "
            "without -- and .., and with none of . and - at an end"
        )


@dataclass(frozen=True)
class Destination:
    """A repository, and what in it.

    Attributes:
        repo: `owner/name`, made if it is not there.
        private: of a repository that is made; one that is there stays as visible as it is.
        revision: branch, made from `main` if it is not there.
        create_pr: open a pull request, or go on with the one that an earlier push opened.
        tag: name for the commit.
        collection: slug of one that exists, or the title of one of the repository's owner, made if it is not there.
    """

    repo: str
    private: bool = True
    revision: str | None = None
    create_pr: bool = False
    tag: str | None = None
    collection: str | None = None

    @classmethod
    def of_run(cls, run: RunConfig) -> "Destination":
        """What the flags of a recipe ask for."""
        assert run.push_to is not None
        return cls(run.push_to, not run.public, run.push_revision, run.create_pr, run.tag, run.collection)

    @property
    def elsewhere(self) -> str | None:
        """The branch, where it is not the one that loaders take by themselves."""
        return None if self.revision == "main" else self.revision

    def check(self, revision_flag: str = "revision") -> None:
        """
        Raises:
            UserError: the repository has no owner, git does not take a name for a branch or tag, or a branch and a pull
                request are asked for.
        """
        if "/" not in self.repo:
            raise UserError(f"{self.repo!r} names no owner; give owner/name, such as alice/{self.repo}")
        check_name(self.repo)
        if self.create_pr and self.revision:
            raise UserError("--revision and --create_pr exclude each other; a pull request is made against main")
        for flag, name in (("tag", self.tag), (revision_flag, self.revision)):
            if name is not None and not _REF.fullmatch(name):
                raise UserError(f"--{flag} {name!r} is not a name that git takes; letters, digits, . _ - and / will do")


@dataclass(frozen=True)
class Options:
    """How a push goes about it.

    Attributes:
        dry_run: say what would be sent, and send nothing.
        load_back: load what was sent in a fresh process, and a folder that nobody has loaded yet before it is sent;
            without, only the bytes are compared with those that were sent.
        sign: the private key to sign it with.
    """

    dry_run: bool = False
    load_back: bool = True
    patience: Patience = Patience()
    say: Callable[[str], None] = print
    sign: Path | None = None
