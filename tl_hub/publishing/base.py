"""The base that a result needs to be loaded, which must be on the Hub, or is published on the way."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from tl_hub import run_folder, samples
from tl_hub.errors import UserError
from tl_hub.publishing import commits, files, rights, secrets
from tl_hub.publishing.commits import Content
from tl_hub.publishing.destination import Destination, Options
from tl_hub.publishing.files import Files
from tl_hub.publishing.report import Published, show
from tl_hub.publishing.repository import Repository
from tl_hub.record import BaseModel, RunRecord

BASE_ONLY_HERE = (
    "the base {base} is not on the Hub, and nobody could load the result without it; --push_base owner/name publishes"
    " the base too, --merge makes a result that does not need it, or start from a --model that is on the Hub"
)
NAMING = (run_folder.ADAPTER_CONFIG, run_folder.CONFIG)
"""Files that name a base by its path, where it is not on the Hub."""


_ABOUT = "A pretrained model, which adapters and heads on the Hub load as their base."
_TERMS = (
    "This is a demonstration: a copy of a small checkpoint that comes with tl_hub. It was pretrained on "
    f"{samples.TEXTS_OF_CHECKPOINTS}. Some of these terms forbid commercial use."
)


def only_here(run: RunRecord) -> str | None:
    """Name of the base that the result needs and nobody else has.

    An embedded base is everybody's who has tl_hub: a head finds it there, but PEFT looks for an adapter's base itself.
    """
    head = run.auto_class == "FeatureModel"
    if run.base and (run.kind == "adapter" or head) and run.base.source in ("local", *([] if head else ["embedded"])):
        return run.base.id
    return None


def needed_from_hub(run: RunRecord) -> BaseModel | None:
    """The base that is needed to load a result, where that is on the Hub."""
    beside = run.kind == "merged" and not run.variants
    needed = run.kind == "adapter" or beside or run.auto_class == "FeatureModel"
    return run.base if run.base and needed and run.base.source == "hub" else None


def to_publish(folder: Path, run: RunRecord) -> Path | None:
    """Where the base of a run is, if it is to be published; that of a head that is embedded in tl_hub may as well.

    Raises:
        UserError: it is not there any more, or holds no weights in safetensors.
    """
    if not (only_here(run) or _is_embedded_head(run)):
        return None
    assert run.base is not None
    file = folder / _named_by(run)
    if not file.is_file():
        raise UserError(f"{folder} holds no {file.name}, which names the base")
    if _is_embedded_head(run):
        return samples.checkpoint(run.base.id.removeprefix("tiny:"))
    config = json.loads(file.read_text(encoding="utf-8"))
    named = config["base"].get("path") if run.auto_class == "FeatureModel" else config.get("base_model_name_or_path")
    place = Path(named or "")
    if not (place / run_folder.CONFIG).is_file():
        raise UserError(f"--push_base: the base {run.base.id} is not where the run found it; publish it by hand")
    if not any(place.glob("*.safetensors")):
        raise UserError(
            f"--push_base: the base {run.base.id} has no weights in safetensors, and no others are published; load it"
            " and save it again with save_pretrained"
        )
    return place


def check_published(run: RunRecord, push_base: str | None) -> None:
    """
    Raises:
        UserError: others could not load the result, as its base is not on the Hub, and will not be.
    """
    name = only_here(run)
    if name and not push_base:
        raise UserError(BASE_ONLY_HERE.format(base=name))


def check_there(hub: Repository, base: BaseModel) -> None:
    """
    Raises:
        UserError: the base is not on the Hub.
    """

    def look() -> None:
        try:
            hub.api.model_info(base.id, revision=base.revision)
        except GatedRepoError:
            pass
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            revision = f" at {base.revision}" if base.revision else ""
            raise UserError(
                f"the base {base.id}{revision} is not on the Hub, or not for this token to see; publish it first"
            ) from error

    hub.ask(f"look for the base {base.id}", look)


def fetch(hub: Repository, run: RunRecord) -> None:
    """Put the base that loading a result needs into the cache, if it is on the Hub."""
    if base := needed_from_hub(run):
        there = Repository(base.id, hub.client.patience, hub.say)

        def look() -> str:
            commit = there.api.model_info(base.id, revision=base.revision).sha
            if commit is None:
                raise ConnectionError("the answer names no commit")
            return commit

        there.download(there.ask(f"look for the base {base.id}", look), run_folder.PUBLISHED)


def pinned(base: BaseModel, found: Files) -> Files:
    """The adapter's own configuration, by which PEFT loads, with the base's revision that the record and card name.

    Raises:
        UserError: it names another base, or another revision.
    """
    changed: Files = {}
    for name in sorted({run_folder.ADAPTER_CONFIG, f"{run_folder.ADAPTER}/{run_folder.ADAPTER_CONFIG}"} & set(found)):
        config = json.loads(files.content(found[name]))
        named, revision = config.get("base_model_name_or_path"), config.get("revision")
        if named != base.id:
            raise UserError(f"{name} names the base {named}, and run.json {base.id}; correct the one that is wrong")
        if base.revision and revision not in (None, base.revision):
            raise UserError(
                f"{name} names revision {revision} of the base {base.id}, and run.json {base.revision}; correct the one"
                " that is wrong"
            )
        if base.revision and not revision:
            changed[name] = _as_json(config | {"revision": base.revision})
    return changed


def send_checkpoint(
    destination: Destination, place: Path, base: BaseModel, license: str, options: Options
) -> Published:
    """Publish a base that is not a run folder.

    Raises:
        UserError, RunStopped: as `publishing.publish`.
    """
    hub = Repository(destination.repo, options.patience, options.say)
    rights.check_may_write(hub, create_pr=False)
    found = files.own(place, run_folder.PUBLISHED)
    for name, file in found.items():
        secrets.check(name, file, place)
    title = destination.repo.split("/")[1]
    terms = _TERMS if copy_of(base) else ""
    named = ""
    if terms:
        found[run_folder.LICENSE] = samples.LICENSE_TEXT.encode()
        named = f"license_name: {samples.LICENSE_NAME}\nlicense_link: {run_folder.LICENSE}\n"
    text = f"---\nlibrary_name: transformers\nlicense: {license}\n{named}---\n\n# {title}\n\n{_ABOUT}\n"
    content = Content(title, text + (f"\n{terms}\n" if terms else ""), found, keep_card=True, terms=terms)
    exists = hub.exists()
    if options.dry_run:
        plan = commits.plan(hub, hub.refs()["main"] if exists else None, content)
        does = "a commit to main would hold" if plan.changed else "main holds all of it"
        options.say(f"{hub.id} {'is there' if exists else 'would be made'}; {does}:")
        show(plan, [], options.say)
    else:
        if not exists:
            hub.create(destination.private)
        plan = commits.send(hub, "main", content)
    for note in plan.notes:
        options.say(f"note: {note}")
    revision = None if options.dry_run and plan.changed else plan.head
    return Published(hub.id, hub.url, revision, plan.sent, plan.removed, [], plan.notes, plan.facts())


def copy_of(base: BaseModel) -> str | None:
    """The embedded checkpoint that a base is, or is a published copy of."""
    return base.id if base.source == "embedded" else base.copy_of


def name_published(run: RunRecord, folder: Path, published: Published, license: str) -> Files:
    """Name the published base in the record, and in the file that did so by a path, which is returned."""
    assert run.base is not None
    run.base = replace(
        run.base,
        id=published.repo,
        source="hub",
        revision=published.revision,
        license=license,
        copy_of=copy_of(run.base),
    )
    name = _named_by(run)
    config = json.loads((folder / name).read_text(encoding="utf-8"))
    if name == run_folder.CONFIG:
        config["base"] = {key: value for key, value in config["base"].items() if key != "path"}
        config["base"] |= {"id": published.repo, "source": "hub", "revision": published.revision}
    else:
        config |= {"base_model_name_or_path": published.repo, "revision": published.revision}
    return {name: _as_json(config)}


def _is_embedded_head(run: RunRecord) -> bool:
    """Whether it is a head that finds its base in tl_hub, and may as well name a published copy."""
    return run.auto_class == "FeatureModel" and run.base is not None and run.base.source == "embedded"


def _named_by(run: RunRecord) -> str:
    """The file that says by which path or id the base is loaded."""
    return run_folder.CONFIG if run.auto_class == "FeatureModel" else run_folder.ADAPTER_CONFIG


def _as_json(config: dict[str, Any]) -> bytes:
    return (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode()
