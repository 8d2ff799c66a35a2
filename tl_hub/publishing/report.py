"""What a push did, or would do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tl_hub.publishing.commits import Plan


@dataclass(frozen=True)
class Published:
    """What a push did.

    Attributes:
        revision: the commit that holds the run now; None where a dry run found that one would be made.
        sent: files of the commit that are new or changed, none where all was there already.
        removed: files of an earlier push that no longer belong.
        left_out: files of the run folder that are not published.
        notes: what a person should look at, a sentence each.
        files: `path`, `size` in bytes and `state` (new, changed, unchanged or removed) of each.
        pull_request: its number.
        verification: what loading the pushed revision gave; None where that was not asked for.
        base: the same of a base that was published on the way.
        adapter: the same of the adapter of a merged model, in a repository of its own.
    """

    repo: str
    url: str
    revision: str | None
    sent: list[str]
    removed: list[str]
    left_out: list[str]
    notes: list[str]
    files: list[dict[str, Any]]
    pull_request: int | None = None
    verification: dict[str, Any] | None = None
    base: "Published | None" = None
    adapter: "Published | None" = None

    def summary(self) -> str:
        """What to tell a person at the end of a push."""
        place = f"{self.url}/discussions/{self.pull_request}" if self.pull_request else self.url
        changed = (
            f"{len(self.sent)} files sent, {len(self.removed)} removed" if self.sent or self.removed else "no change"
        )
        checked = "its bytes were compared"
        if self.verification:
            checked = f"loaded back from there by {' and '.join(self.verification['loaded_by'])}"
            if "max_difference" not in self.verification:
                checked += ", with nothing to compare its outputs with, as there is no probe in the folder"
        apart = f"; the adapter: {self.adapter.summary()}" if self.adapter else ""
        return f"{place} at {self.revision}: {changed}; {checked}{apart}"


def show(plan: Plan, left_out: list[str], say: Callable[[str], None]) -> None:
    """Say what a commit would hold, a line a file."""
    for file in plan.facts():
        size = f" ({file['size']:,} bytes)" if "size" in file else ""
        say(f"  {file['state']:9} {file['path']}{size}")
    for name in left_out:
        say(f"  left out  {name}")
