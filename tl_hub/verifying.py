"""Whether a run folder, or what was published of one, holds what it states: `tl-hub verify`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_hub import verification
from tl_hub.publishing.snapshot import snapshot


def verify(
    location: str | Path,
    *,
    revision: str | None = None,
    metrics: bool = False,
    label_map: Mapping[str, str] | None = None,
    **rows: str | None,
) -> dict[str, Any]:
    """Load a run folder, or a repository on the Hub, as its users will, and compare it with what it states.

    Args:
        location: the folder, or `owner/name`.
        revision: branch, tag or commit of a repository.
        metrics: measure the figures of its card anew.
        label_map: what the model calls the labels of the rows.
        rows: the rows to measure them on (which asks for it), and how they are written: `dataset`, or `train_file`,
            `validation_file` and `test_file`, `encoding`, `text_column` and the like, as of the recipes; the run's own
            if none, where they are embedded or on the Hub.

    Returns:
        What `verification.check` gives and, of figures measured anew, `same_rows` and `metrics` as
        `evaluation.remeasure` gives them.

    Raises:
        UserError: no such folder or repository, or the figures cannot be measured.
        RunStopped: it does not load, or is not the model that was trained; or the Hub cannot be reached.
    """
    folder = snapshot(location, revision)
    report = verification.check(folder, offline=False, snippets=False)
    if metrics or label_map or any(rows.values()):
        from tl_hub import evaluation  # which needs torch, and takes seconds

        report |= evaluation.remeasure(folder, label_map=label_map, **rows)
    return report
