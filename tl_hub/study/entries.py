"""What a study is asked to try: recipes with settings, or runs that are there."""

import runpy
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from tl_hub import cli, recipe_files, run_folder, settings_file
from tl_hub.errors import UserError
from tl_hub.methods.adapters import Adapter
from tl_hub.trials import flag_of, without

TECHNIQUES = ("features", "adapter", "finetune")
"""How the names of recipes end, the cheapest first."""
_OWN = ("output_dir", "resume", "overwrite", "check", "find_lr", "predict_validation")
_PUSHES = ("push_to", "push_base", "push_every", "push_revision", "create_pr", "sign", "tag", "collection", "public")


@dataclass(frozen=True)
class Entry:
    """A technique of a study.

    Attributes:
        name: of its folder in that of the study; the folder itself for a run that was there before.
        label: what tables and pictures call it.
        recipe: None for a run that was there before.
        words: flags of the recipe, those of all techniques and its own.
    """

    name: str
    label: str
    recipe: Path | None
    words: tuple[str, ...] = ()


def of(asked: Sequence[str], flags: Sequence[str]) -> list[Entry]:
    """The techniques that are asked for, each with the flags that have an effect with it.

    Args:
        asked: each a run folder, a recipe's name, that with settings (`sentiment_adapter rank=8 method=dora`), or a
            task, which stands for its recipes.
        flags: words of a command line, for all recipes. One that only some of them know is left out for the others.

    Raises:
        UserError: one of them is none of these, occurs twice, or a recipe would refuse its flags.
    """
    if flags and not flags[0].startswith("--"):
        raise UserError(f"{flags[0]}: give techniques before flags, as in tl-hub compare sentiment --epochs 3")
    for name in map(flag_of, flags):
        if name in (*_OWN, *_PUSHES):
            raise UserError(f"--{name} is not for a study; omit it, or give it to the recipe")
    found = [entry for text in asked for entry in _entries(text)]
    for i, entry in enumerate(found):
        if entry.name in [other.name for other in found[:i]]:
            raise UserError(f"{entry.name} is asked for twice; give it once, or with a setting that differs")
    recipes = [entry for entry in found if entry.recipe]
    if flags and not recipes:
        raise UserError(f"{flags[0]}: runs are compared as they are; flags are for recipes")
    scripts = scripts_of(recipes)
    kept = {entry.name: _known(entry, scripts[entry.recipe], flags) for entry in recipes if entry.recipe}
    for name in {*map(flag_of, flags)} - {""}:
        if not any(flag_of(word) == name for words in kept.values() for word in words):
            first = recipes[0]
            settings_of(Entry(first.name, first.label, first.recipe, (*flags,)), scripts[first.recipe or Path()])
            raise UserError(f"--{name} has no effect with {', '.join(entry.name for entry in recipes)}; omit it")
    made = [
        Entry(entry.name, entry.label, entry.recipe, (*kept[entry.name], *entry.words)) if entry.recipe else entry
        for entry in found
    ]
    for entry in made:
        if entry.recipe:
            settings_of(entry, scripts[entry.recipe])
    return _labelled(made)


def scripts_of(entries: Sequence[Entry]) -> dict[Path, dict[str, Any]]:
    """What the file of each recipe holds."""
    return {path: runpy.run_path(str(path)) for path in {entry.recipe: 0 for entry in entries} if path}


def settings_of(entry: Entry, script: dict[str, Any], *more: str) -> tuple[Any, ...]:
    """Run, task and method of a recipe by its flags.

    Raises:
        UserError: it refuses them; the message names the recipe.
    """
    with arguments(str(entry.recipe), [*entry.words, *more]):
        try:
            parts = (script["RUN"], script["TASK"], script["METHOD"])
            return cli.parse(*parts, presets=script.get("PRESETS"), doc=None)
        except UserError as error:
            raise UserError(f"{entry.label}: {error}") from error


@contextmanager
def arguments(script: str, words: Sequence[str]) -> Iterator[None]:
    """Within it, the command line is one that starts this script."""
    here = sys.argv
    sys.argv = [script, *words]
    try:
        yield
    finally:
        sys.argv = here


def _entries(text: str) -> list[Entry]:
    if Path(text, run_folder.RECORD).is_file():
        return [Entry(text, text, None)]
    first, *given = shlex.split(text) or [""]
    recipes = recipe_files.paths()
    names = [f"{first}_{technique}" for technique in TECHNIQUES if f"{first}_{technique}" in recipes]
    names = names or [recipe_files.path_of(first).stem]
    settings: dict[str, Any] = {}
    for setting in given:
        name, equals, value = setting.partition("=")
        if not (name and equals and value) or name.startswith("-"):
            raise UserError(f"{text}: {setting!r} is not a setting; give such as rank=8")
        if name in (*_OWN, *_PUSHES):
            raise UserError(f"{text}: {name} is not for a study; omit it")
        settings[name] = settings_file.SWITCHES.get(value, value)
    label = " ".join(given)
    return [
        Entry(
            ",".join([name, *given]).replace("/", "-"),
            f"{name} {label}".strip(),
            recipes[name],
            (*settings_file.arguments(settings),),
        )
        for name in names
    ]


def _known(entry: Entry, script: dict[str, Any], flags: Sequence[str]) -> tuple[str, ...]:
    """The flags that have an effect with a recipe and its own settings."""
    switches = {"config"}  # which say what the other flags are
    switches |= {"preset"} if script.get("PRESETS") else set()
    switches |= {"method"} if isinstance(script["METHOD"], Adapter) else set()
    names = [name for name in map(flag_of, flags) if name]
    words = without(flags, [name for name in names if name not in switches])
    parts = settings_of(Entry(entry.name, entry.label, entry.recipe, (*words, *entry.words)), script)
    known = switches | {field.name for part in parts for field in fields(part) if field.init}
    known -= {*parts[2].unused} - {*map(flag_of, entry.words)}
    return (*without(flags, [name for name in names if name not in known and name.removeprefix("no_") not in known]),)


def _labelled(entries: list[Entry]) -> list[Entry]:
    """Without the task, where all are of one; runs by the names of their folders, where those differ."""
    tasks = {entry.recipe.stem.rpartition("_")[0] for entry in entries if entry.recipe}
    runs = [Path(entry.name).resolve().name for entry in entries if not entry.recipe]
    short = len(runs) == len({*runs})

    def label(entry: Entry) -> str:
        if not entry.recipe:
            return Path(entry.name).resolve().name if short else entry.name
        return entry.label.removeprefix(f"{next(iter(tasks))}_") if len(tasks) == 1 else entry.label

    return [Entry(entry.name, label(entry), entry.recipe, entry.words) for entry in entries]
