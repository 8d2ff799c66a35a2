"""What is published of a run folder.

It is on a list (`run_folder.PUBLISHED`). The probe is not on it: it holds rows of the user's data, and of a language
model its outputs take hundreds of megabytes; the check of what arrived reads the one in the folder.
"""

import re
from pathlib import Path

from tl_hub import card, run_folder, samples, sensitive
from tl_hub.card import rules
from tl_hub.card.rules import Fault
from tl_hub.errors import UserError
from tl_hub.publishing import base, files, secrets
from tl_hub.publishing.commits import Content
from tl_hub.publishing.destination import Destination
from tl_hub.publishing.files import Files
from tl_hub.record import RunRecord


def files_of(folder: Path, run: RunRecord, license: Path | None = None) -> Files:
    """What is published of a run folder, the card excepted.

    Args:
        license: the file to publish as LICENSE, instead of the folder's.

    Raises:
        UserError: no weights in safetensors, a link, code, a secret or a local path.
    """
    found = files.own(folder, run_folder.PUBLISHED)
    if _stands_alone(run):
        found = {name: file for name, file in found.items() if not name.startswith(f"{run_folder.ADAPTER}/")}
    _check_weights(folder, run, found)
    if run.base and base.copy_of(run.base) and not run.license_name and run_folder.LICENSE not in found:
        # As in folders of earlier versions.
        found[run_folder.LICENSE] = samples.LICENSE_TEXT.encode()
    found |= from_record(run) | ({run_folder.LICENSE: license} if license else {})
    renamed = base.NAMING if base.only_here(run) else ()  # these are rewritten
    for name, file in found.items():
        if name not in renamed:
            secrets.check(name, file, folder)
    return found


def _stands_alone(run: RunRecord) -> bool:
    """Whether a merged model is published without its adapter, which has a repository of its own or names a path."""
    return run.kind == "merged" and bool(run.variants or (run.base and run.base.source != "hub"))


def _check_weights(folder: Path, run: RunRecord, found: Files) -> None:
    """
    Raises:
        UserError: loaders would find no weights, or take some for others.
    """
    if not any(name.endswith(".safetensors") for name in found):
        raise UserError(f"{folder} holds no weights in safetensors (model.safetensors, adapter_model.safetensors ...)")
    whole = sorted(name for name in found if re.fullmatch(r"model.*\.safetensors", name))
    if run_folder.ADAPTER_WEIGHTS in found and (whole or run.kind != "adapter"):
        raise UserError(
            f"{folder} holds an adapter beside {whole[0] if whole else f'a record of a {run.kind} model'}; loaders "
            "would take one for the other: keep what the record is of"
        )
    if whole and run_folder.CONFIG not in found:
        raise UserError(f"{folder} holds {whole[0]} without its config.json, so nobody could load it")


def from_record(run: RunRecord) -> Files:
    """The record, which is written anew."""
    if _stands_alone(run) and run.verification:
        by = [loader for loader in run.verification.get("loaded_by", []) if loader != "peft"]  # it is not published
        run.verification = run.verification | {"loaded_by": by}
    return {run_folder.RECORD: run.text().encode()}


def left_out(folder: Path, found: Files) -> list[str]:
    """The files of a run folder that are not published."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name not in {*found, run_folder.CARD})


def notebook(folder: Path, run: RunRecord, destination: Destination) -> Files:
    """The card's code, which loads what is published.

    Raises:
        UserError: it holds a secret or a local path.
    """
    content = card.notebook(run, destination.repo, destination.elsewhere).encode()
    secrets.check(run_folder.NOTEBOOK, content, folder)
    return {run_folder.NOTEBOOK: content}


def with_card(folder: Path, run: RunRecord, found: Files, destination: Destination) -> tuple[Content, list[str]]:
    """All that is published, with a card that takes up the one in the folder, and what a person should look at.

    Raises:
        UserError: the card holds a secret or a local path.
    """
    elsewhere = destination.elsewhere
    pictures = {Path(name).stem: name in found for name in run_folder.PICTURES}
    text, notes = card.render(run, destination.repo, elsewhere, **pictures), list[str]()
    if (folder / run_folder.CARD).is_file():
        text, notes = card.merge(text, card.read_text(folder / run_folder.CARD), "in the folder")
    secrets.check(run_folder.CARD, text.encode(), folder)
    if addresses := sorted(set(sensitive.ADDRESSES.findall(text))):
        notes.append(
            f"the card holds e-mail addresses, which everybody who sees it can read: {', '.join(addresses[:3])}"
        )
    return Content(f"{run.name}: {run.kind}, {run.pipeline_tag}"[:200], text, found), notes


def judged(folder: str | Path) -> list[Fault]:
    """What the Hub would refuse of a run folder as it would be published, or show wrong; nothing is asked of the Hub.

    Raises:
        UserError: what no push would send: no run, no weights, a secret in a file.
    """
    folder = Path(folder)
    run = RunRecord.load(folder)
    published = files_of(folder, run)
    content, _ = with_card(folder, run, published, Destination("owner/name"))
    return rules.judge(content.card, published, lambda name: files.content(published[name]))
