"""Several runs of a recipe one after another, of which one goes on to its end in the run folder.

Each trial is a run in a folder of its own, beside the run folder, and can be resumed.
"""

import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tl_hub import cli, launch, run_folder, settings_file, state_folders
from tl_hub.command_line import recorded_as
from tl_hub.config import RunConfig
from tl_hub.errors import Diverged, RunStopped, TrialEnded, UserError, first_line
from tl_hub.on_use import accelerate

if TYPE_CHECKING:
    from tl_hub.methods.base import Method
    from tl_hub.tasks.base import Task

_HERE = ("resume", "overwrite", "output_dir")
"""Flags that no trial takes from the command line."""


class Trials(ABC):
    """The trials' folders, `RUN.sweep/` or `RUN.seeds/`, and what came of them so far.

    Attributes:
        flag: that asks for them.
        noun: what they are called together.
        least: how many must come to a result.
        own: flags that no run takes from the command line, beside those that say where it is.
        of_the_result: flags that only the last run takes from there.
        notes_name: of the file that says what they came to.
        done: facts of the trials that ended, by name: settings, metric, figure and epoch, or why there is none.
    """

    flag: ClassVar[str]
    noun: ClassVar[str]
    least: ClassVar[int] = 1
    own: ClassVar[tuple[str, ...]]
    of_the_result: ClassVar[tuple[str, ...]] = ()
    notes_name: ClassVar[str]

    def __init__(self, run: RunConfig, method: "Method", common: Sequence[str]):
        """
        Raises:
            UserError: the run folder is taken, or there are no trials to go on with, or other ones.
        """
        self.result, self.path = Path(run.output_dir), Path(f"{run.output_dir}.{self.flag}")
        self.notes, self.done, self.common = self.path / self.notes_name, dict[str, dict[str, Any]](), [*common]
        if run.resume:
            self._go_on()
            return
        launch.check(run, method)
        if self.path.exists():
            if not run.overwrite:
                raise UserError(f"{self.path} holds a {self.noun}; --resume goes on with it, --overwrite replaces it")
            if not self.notes.is_file():
                raise UserError(f"--overwrite: {self.path} holds no {self.noun}; give another --output_dir")
            shutil.rmtree(self.path)
        if self.result.is_dir():
            run_folder.clear(self.result)

    @staticmethod
    @abstractmethod
    def settings(run: RunConfig, task: "Task", method: "Method") -> dict[str, dict[str, Any]]:
        """The settings of each trial, by what it is called.

        Raises:
            UserError: what is asked for cannot be tried.
        """

    @abstractmethod
    def choose(self, ended: Mapping[str, dict[str, Any]]) -> str:
        """The trial that becomes the result, among those that came to a figure."""

    @abstractmethod
    def take(self, name: str) -> None:
        """Bring the files of a trial into the run folder, which is there."""

    @abstractmethod
    def facts(self, chosen: str) -> dict[str, Any]:
        """What the run folder keeps of all trials, for the record and its card."""

    def _go_on(self) -> None:
        if not self.notes.is_file():
            raise UserError(f"--resume: {self.path} holds no interrupted {self.noun}; omit --resume to start one")
        noted = json.loads(self.notes.read_text())
        if noted["flags"] != self.common:
            raise UserError(
                f"--resume: the {self.noun} in {self.path} was started with other flags ({' '.join(noted['flags'])}); "
                "give the same as before"
            )
        self.done = noted["trials"]

    def words_of(self, name: str) -> list[str]:
        """Flags of a trial: its folder, and whether it goes on.

        Raises:
            UserError: the trials have come to their end before, without this one.
        """
        if (self.result / self.notes_name).is_file():
            raise UserError(
                f"--resume: the {self.noun} of {self.result} has ended without {name}; --overwrite starts another"
            )
        folder = self.path / name
        self._write()
        resumed = state_folders.exist(folder)
        if folder.is_dir() and not resumed:
            shutil.rmtree(folder)  # it was killed before there was a state
        return ["--output_dir", str(folder), *["--resume"] * resumed]

    def note(self, name: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Keep what a trial came to."""
        self.done[name] = {"settings": settings, **facts}
        self._write()

    def keep(self) -> str:
        """Bring the trial that is chosen into the run folder; its name.

        Raises:
            RunStopped: too few trials came to a result.
        """
        ended = {name: facts for name, facts in self.done.items() if "figure" in facts}
        if len(ended) < self.least:
            failed = next(facts["failed"] for facts in self.done.values() if "failed" in facts)
            few = "no trial" if self.least == 1 else f"fewer than {self.least} trials"
            raise RunStopped(f"--{self.flag}: {few} came to a result; {failed}", 1)
        chosen = self.choose(ended)
        self.result.mkdir(parents=True, exist_ok=True)
        (self.result / self.notes_name).write_text(json.dumps(self.facts(chosen), indent=1))
        self.take(chosen)
        return chosen

    def _write(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        new = self.notes.with_suffix(".new")
        new.write_text(json.dumps({"flags": self.common, "trials": self.done}, indent=1))
        new.replace(self.notes)


def run_all(main: Callable[[], None], kind: type[Trials]) -> None:
    """Call a recipe's `main` for each trial, and then for the chosen one's end.

    Raises:
        UserError: the trials cannot be made, or do not fit those that they go on with; or as `main`.
        RunStopped: interrupted, or too few trials came to a result; or as `main`.
    """
    script, here = main.__globals__, sys.argv
    parts = (script["RUN"], script["TASK"], script["METHOD"])

    def parse(*words: str) -> Any:
        sys.argv = [here[0], *words]
        return cli.parse(*parts, presets=script.get("PRESETS"), doc=script.get("__doc__"))

    try:
        run, task, method = parse(*here[1:])
        asked = sys.argv[1:]  # `--config` was replaced by what it says
        words = without(asked, (kind.flag, *kind.own, *_HERE))
        common = without(words, kind.of_the_result)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError(f"--{kind.flag} trains on one process; start it as python recipes/... or on one GPU")
        trials = kind.settings(run, task, method)
        for settings in trials.values():
            parse(*common, *settings_file.arguments(settings))
        if run.check:
            first = next(iter(trials.values()))
            parse(*common, *settings_file.arguments(first), "--output_dir", run.output_dir)
            return main()
        folder = kind(run, method, common)
        for place, (name, settings) in enumerate(trials.items(), start=1):
            print(f"\ntrial {place} of {len(trials)}: {name}", flush=True)
            if name not in folder.done:
                own = [*settings_file.arguments(settings), *folder.words_of(name)]
                sys.argv = [here[0], *common, *own, f"--{kind.flag}", str(getattr(run, kind.flag))]
                folder.note(name, settings, _tried(main, kind))
            print(f"trial {place} of {len(trials)}: {_said(folder.done[name])}", flush=True)
        chosen = folder.keep()
        (rows,) = tables(folder.result).values()
        print("", *_lines(rows), f"{chosen} goes on to its end in {run.output_dir}", sep="\n", flush=True)
        rest = settings_file.arguments(folder.done[chosen]["settings"])
        sys.argv = [here[0], *words, *rest, "--output_dir", run.output_dir, "--resume"]
        _start_anew()
        with recorded_as(asked):
            main()
    finally:
        sys.argv = here


def tables(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What was tried and what came of it, for the card of a run that was chosen among several."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name in (run_folder.SWEEP, run_folder.SEEDS):
        if (folder / name).is_file():
            found |= json.loads((folder / name).read_text())["tables"]
    return found


def _tried(main: Callable[[], None], kind: type[Trials]) -> dict[str, Any]:
    """What a trial came to: its epoch and figure, or why it came to none."""
    _start_anew()
    try:
        main()
    except TrialEnded as ended:
        return ended.facts
    except Diverged as failure:
        return {"failed": first_line(failure)}
    raise RunStopped(f"--{kind.flag}: the recipe ended without training", exit_code=1)


def _start_anew() -> None:
    """Another run may ask for another precision, which accelerate allows once a process."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)


def _said(trial: Mapping[str, Any]) -> str:
    if "failed" in trial:
        return str(trial["failed"])
    return f"{trial['metric']} {trial['figure']:.4g} in epoch {trial['epoch']}"


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rows of a table for the screen."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([_cell(row.get(name, "")) for name in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flag_of(word: str) -> str:
    """Of the flag that a word of the command line is; empty if it is none."""
    return word.partition("=")[0][2:].replace("-", "_") if word.startswith("--") else ""


def without(words: Sequence[str], names: Iterable[str]) -> list[str]:
    """The words of a command line without some flags and their values."""
    kept, dropping, left_out = list[str](), False, {*names}
    for word in words:
        if word.startswith("--"):
            name = flag_of(word)
            dropping = name in left_out or name.removeprefix("no_") in left_out
        kept += [] if dropping else [word]
    return kept
