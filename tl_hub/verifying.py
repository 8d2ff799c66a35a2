"""Whether a run folder, or what was published of one, holds what it states: `tl-hub verify`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_hub import run_folder, verification
from tl_hub.publishing import signing
from tl_hub.publishing.snapshot import snapshot
from tl_hub.record import RunRecord


def verify(
    location: str | Path,
    *,
    revision: str | None = None,
    metrics: bool = False,
    label_map: Mapping[str, str] | None = None,
    public_key: str | Path | None = None,
    **rows: str | None,
) -> dict[str, Any]:
    """Load a run folder, or a repository on the Hub, as its users will, and compare it with what it states.

    Args:
        location: the folder, or `owner/name`.
        revision: branch, tag or commit of a repository.
        metrics: measure the figures of its card anew.
        label_map: what the model calls the labels of the rows.
        public_key: of whoever must have signed the files, in PEM.
        rows: the rows to measure them on (which asks for it), and how they are written: `dataset`, or `train_file`,
            `validation_file` and `test_file`, `encoding`, `text_column` and the like, as of the recipes; the run's own
            if none, where they are embedded or on the Hub.

    Returns:
        What `verification.check` gives and, of figures measured anew, `same_rows` and `metrics` as
        `evaluation.remeasure` gives them. Of a signed one, `signature` is "holds" or, without a key, "not looked at".

    Raises:
        UserError: no such folder or repository, it holds no run, it is not what was signed, or the figures cannot be
            measured.
        RunStopped: it does not load, or is not the model that was trained; or the Hub cannot be reached.
    """
    folder = snapshot(location, revision)
    if public_key:
        signing.verify(folder, Path(public_key))  # before anything of it is loaded
    RunRecord.load(folder)  # without one there is nothing to compare with
    report = verification.check(folder, offline=False, snippets=False)
    if (folder / run_folder.SIGNATURE).is_file():
        report["signature"] = "holds" if public_key else "not looked at"
    if metrics or label_map or any(rows.values()):
        from tl_hub import evaluation  # which needs torch, and takes seconds

        report |= evaluation.remeasure(folder, label_map=label_map, **rows)
    return report


def claims(metrics: list[dict[str, Any]]) -> list[str]:
    """Whether claimed figures hold, a line each."""
    found = []
    for metric in metrics:
        anew = f"{metric['found']:.4g}"
        if metric["low"] is not None:
            anew += f" ({metric['low']:.4g} to {metric['high']:.4g})"
        if metric["holds"] is None:
            found.append(f"{metric['name']} {anew} here, {metric['claimed']:.4g} on its own rows")
        else:
            verdict = "holds" if metric["holds"] else "DOES NOT HOLD"
            found.append(f"{metric['name']} {metric['claimed']:.4g} {verdict}: found {anew}")
    return found
