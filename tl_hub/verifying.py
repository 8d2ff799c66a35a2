"""Whether a run folder, or what was published of one, holds what it states: `tl-hub verify`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tl_hub import run_folder, verification
from tl_hub.errors import UserError
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
    retrain: bool = False,
    base: str | Path | None = None,
    **rows: str | None,
) -> dict[str, Any]:
    """Load a run folder, or a repository on the Hub, as its users will, and compare it with what it states.

    Args:
        location: the folder, or `owner/name`.
        revision: branch, tag or commit of a repository.
        metrics: measure the figures of its card anew.
        label_map: what the model calls the labels of the rows.
        public_key: of whoever must have signed the files, in PEM.
        retrain: train the run again, by its recipe and its recorded settings, in a process of its own and a temporary
            folder. `rows` are then those that it was trained on.
        base: folder of the model that it started from, for `retrain`, where that is neither embedded nor on the Hub.
        rows: the rows to measure them on (which asks for it), and how they are written: `dataset`, or `train_file`,
            `validation_file` and `test_file`, `encoding`, `text_column` and the like, as of the recipes; the run's own
            if none, where they are embedded or on the Hub.

    Returns:
        What `verification.check` gives and, of figures measured anew, `same_rows` and `metrics` as
        `evaluation.remeasure` gives them. Of a run trained again, `retrained` is what `retraining.retrain` gives. Of a
        signed one, `signature` is "holds" or, without a key, "not looked at".

    Raises:
        UserError: no such folder or repository, it holds no run, it is not what was signed, the figures cannot be
            measured, or the run cannot be trained again.
        RunStopped: it does not load, or is not the model that was trained; the Hub cannot be reached; or training was
            interrupted or came to no result.
    """
    if base and not retrain:
        raise UserError("--base needs --retrain")
    folder = snapshot(location, revision)
    if public_key:
        signing.verify(folder, Path(public_key))  # before anything of it is loaded
    RunRecord.load(folder)  # without one there is nothing to compare with
    report = verification.check(folder, offline=False, snippets=False)
    if (folder / run_folder.SIGNATURE).is_file():
        report["signature"] = "holds" if public_key else "not looked at"
    if metrics or label_map or (any(rows.values()) and not retrain):
        from tl_hub import evaluation  # which needs torch, and takes seconds

        report |= evaluation.remeasure(folder, label_map=label_map, **rows)
    if retrain:
        from tl_hub import retraining  # likewise

        report["retrained"] = retraining.retrain(folder, base=base, **rows)
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


def retrained(report: dict[str, Any]) -> list[str]:
    """What training a run again showed, a line each, the verdict first.

    Args:
        report: as `retraining.retrain` gives it.
    """
    weights = report["weights"]
    count, differ = weights["tensors"], len(weights["differ"])
    same = f"differ (in {differ} of {count} tensors)" if differ else f"are the same, bit for bit ({count} tensors),"
    figures = "hold" if report["holds"] else "DO NOT HOLD"
    verdict = f"trained again, the weights {same} and the figures {figures}"
    causes = [f"other bits may come of: {', '.join(report['differences'])}"] if differ and report["differences"] else []
    return [verdict, *(f"trained again, {claim}" for claim in claims(report["metrics"])), *causes]
