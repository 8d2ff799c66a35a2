"""A Gradio Space of a model: the folder of a page on which anybody can try it. Needs neither torch nor gradio.

The page calls `tl_hub.pipeline`, so it reads a text as the evaluation did.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_hub import run_folder
from tl_hub.card import widget
from tl_hub.card.snippets import reads
from tl_hub.card.templates import template
from tl_hub.errors import UserError
from tl_hub.publishing import base, contents
from tl_hub.publishing.files import Files
from tl_hub.publishing.snapshot import snapshot
from tl_hub.record import RunRecord
from tl_hub.tasks import catalog

APP, REQUIREMENTS, MODEL = "app.py", "requirements.txt", "model"
GRADIO = "6.31.0"
"""The version that a Space installs, and that the page was tried with."""
_LIBRARIES = ("torch", "transformers", "peft", "tokenizers")
_LONGEST_TITLE = 60  # characters of a short description, too


@dataclass(frozen=True)
class Space:
    """What a Space is of.

    Attributes:
        record: of the run.
        repo, revision: where it is on the Hub; None of a run folder, whose files the Space then holds.
        files: of the model, for `model/`.
    """

    record: RunRecord
    repo: str | None
    revision: str | None
    files: Files


def of(location: str | Path) -> Space:
    """The Space of a run folder or of a repository.

    Raises:
        UserError: as `snapshot`; or its task has no pipeline, or the Space could not load it.
    """
    folder = snapshot(location)
    record = RunRecord.load(folder)
    if not reads(record) or not catalog.facts_of(record).pipeline:
        raise UserError(f"{location}: tl_hub.pipeline has no {record.pipeline_tag}, so there is no page for it")
    if not Path(location).is_dir():
        return Space(record, str(location), folder.name, {})
    if record.kind == "adapter" and (name := base.only_here(record)):
        raise UserError(
            f"the base {name} is not on the Hub, and a Space could not load {location} without it; push it with"
            " --push_base, and give the repository instead"
        )
    record.variants = {}
    found = contents.files_of(folder, record)
    if record.base and record.base.source == "hub":
        found |= base.pinned(record.base, found)
    shown = {run_folder.NOTEBOOK, *run_folder.PICTURES}  # of the model's own page
    return Space(record, None, None, {name: file for name, file in found.items() if name not in shown})


def texts(space: Space) -> Files:
    """The Space's own files: the page, what it needs installed, and the README.md that configures it."""
    return {
        APP: _app(space).encode(),
        REQUIREMENTS: _requirements(space.record).encode(),
        run_folder.CARD: _readme(space).encode(),
    }


def write(space: Space, folder: Path) -> None:
    """Write a Space into a folder, which must be empty or not there, or a Space that was written before.

    Raises:
        UserError: the folder holds something else.
    """
    page = folder / APP
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not _is_ours(page)):
        raise UserError(f"{folder} holds something else than a Space of tl_hub; give a folder that is not there yet")
    run_folder.clear(folder / MODEL)  # of another model that was there
    for name, content in all_files(space).items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.read_bytes())


def _is_ours(page: Path) -> bool:
    return page.is_file() and b"tl_hub.pipeline(" in page.read_bytes()


def all_files(space: Space) -> Files:
    return texts(space) | {f"{MODEL}/{name}": file for name, file in space.files.items()}


def _app(space: Space) -> str:
    record = space.record
    rows = [list(widget.texts(record, place).values()) for place in widget.places(record)]
    text: str = template("space/app.txt").render(
        name=" ".join(record.name.split()),
        in_folder=space.repo is None,
        repo=space.repo,
        revision=space.revision,
        reads=reads(record),
        shows=_shows(record),
        no_answer=f"({catalog.facts_of(record).no_answer})",
        description=f"A model that {catalog.facts_of(record).does}.",
        examples=rows,
    )
    return text


def _shows(record: RunRecord) -> str | None:
    """Which part of an answer the page shows; None for all of it."""
    task, tag = catalog.task_of(record), record.pipeline_tag
    if task == "text-regression":
        return "score"
    if task == "span-corruption" or tag in ("summarization", "translation", "text-generation"):
        return "generated_text"
    return {"text-classification": "scores", "question-answering": "answer", "token-classification": "entities"}.get(
        tag
    )


def _requirements(record: RunRecord) -> str:
    versions = {name: record.software[name].partition("+")[0] for name in _LIBRARIES if name in record.software}
    lines = ["--extra-index-url https://download.pytorch.org/whl/cpu", "tl_hub"]
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in versions.items())]) + "\n"


def _readme(space: Space) -> str:
    from huggingface_hub.utils import yaml_dump

    record = space.record
    models = [space.repo] if space.repo else [record.base.id] if record.base and record.base.source == "hub" else []
    title = " ".join(record.name.split())[:_LONGEST_TITLE]
    head: dict[str, Any] = {
        "title": title,
        "emoji": "🤗",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": GRADIO,
        "app_file": APP,
        "pinned": False,
        **({"license": record.license} if record.license else {}),
        "short_description": f"A model that {catalog.facts_of(record).does}"[:_LONGEST_TITLE],
        "tags": ["tl-hub"],
        **({"models": models} if models else {}),
    }
    link = f"[{space.repo}](https://huggingface.co/{space.repo})" if space.repo else f"the model in `{MODEL}/`"
    secret = " A private model needs a secret of the Space, `HF_TOKEN`, that may read it." if space.repo else ""
    return f"---\n{yaml_dump(head, sort_keys=False)}---\n\n# {title}\n\nA page to try {link}.{secret}\n"
