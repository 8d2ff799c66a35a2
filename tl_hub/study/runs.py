"""The runs of a study: each an ordinary run of a recipe, in a process of its own and a folder that is kept.

Peak memory is measured by process, so no two runs share one.
"""

import contextlib
import gc
import io
import json
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from accelerate.state import AcceleratorState

from tl_hub import launch, run_folder, state_folders
from tl_hub.errors import Checked, RunStopped, UserError
from tl_hub.record import RunRecord
from tl_hub.study.entries import Entry, arguments, settings_of

NOTES = "study.json"


@dataclass(frozen=True)
class Job:
    """A run that a study needs.

    Attributes:
        name: of its folder, within that of the study.
        entry: its technique.
        words: what its command line has beside the words of the entry and what says where it is.
        rows: that it is trained on, where a study counts them.
    """

    name: str
    entry: Entry
    words: tuple[str, ...] = ()
    rows: int = 0


class Study:
    """The folder of a study: what each of its runs was asked for, and the runs.

    Attributes:
        path: the folder.
        commands: words of each run that was begun, by name.
    """

    def __init__(self, path: Path, overwrite: bool):
        """
        Raises:
            UserError: the folder holds something else.
        """
        self.path, self.notes = path, path / NOTES
        self.commands: dict[str, list[str]] = {}
        if path.is_file() or (path.is_dir() and any(path.iterdir()) and not self.notes.is_file()):
            raise UserError(f"--output_dir {path} holds something else than a study; give another folder")
        if self.notes.is_file():
            self.commands = json.loads(self.notes.read_text(encoding="utf-8"))["commands"]
            if overwrite:
                for name in self.commands:
                    for folder in (path / name, Path(f"{path / name}.sweep"), Path(f"{path / name}.seeds")):
                        shutil.rmtree(folder, ignore_errors=True)
                    Path(f"{path / name}.txt").unlink(missing_ok=True)
                self.commands = {}

    def finished(self, job: Job) -> bool:
        """Whether a run came to its end, load-back included."""
        folder = self.path / job.name
        return (folder / run_folder.RECORD).is_file() and RunRecord.load(folder).verification is not None

    def left(self, jobs: Sequence[Job], script_of: dict[Path, dict[str, Any]]) -> list[Job]:
        """The runs that are not finished, all of which may begin.

        Args:
            script_of: what each recipe's file holds.

        Raises:
            UserError: a run of this name was asked for with other flags, or a recipe would refuse to begin.
        """
        for job in jobs:
            before = self.commands.get(job.name)
            if before is not None and before != [*job.entry.words, *job.words]:
                raise UserError(
                    f"{self.path / job.name} was made with other flags ({' '.join(before)}); give the same as before, "
                    "another --output_dir, or --overwrite"
                )
        left = [job for job in jobs if not self.finished(job)]
        for job in left:
            assert job.entry.recipe is not None
            run, _, method = settings_of(job.entry, script_of[job.entry.recipe], *job.words, *self._place(job))
            launch.check(run, method)
        return left

    def train(self, job: Job) -> RunRecord:
        """Begin a run, or go on with it, to its end. What it says but errors and progress is kept beside its folder.

        Raises:
            RunStopped: it was interrupted, or came to no result.
        """
        self.commands[job.name] = [*job.entry.words, *job.words]
        self.path.mkdir(parents=True, exist_ok=True)
        new = self.notes.with_suffix(".new")
        new.write_text(json.dumps({"commands": self.commands}, indent=1), encoding="utf-8")
        new.replace(self.notes)
        words = [*job.entry.words, *job.words, *self._place(job), "--predict_validation"]
        screen = Path(f"{self.path / job.name}.txt")
        screen.parent.mkdir(parents=True, exist_ok=True)
        with open(screen, "a", encoding="utf-8") as out:
            code = in_a_process([str(job.entry.recipe), *words], out)
        if code == 130:
            raise RunStopped(f"{job.name} was interrupted; the same command goes on", 130)
        if code or not self.finished(job):
            raise RunStopped(f"{job.name} came to no result, for the reason above; the same command goes on", code or 1)
        return RunRecord.load(self.path / job.name)

    def checked(self, job: Job) -> dict[str, Any]:
        """What the recipe's own `--check` finds: `seconds` and `memory_bytes`, among others.

        In this process, as the imports of one of its own take longer than all else. The memory may therefore be that
        of an earlier check, if that took more.

        Raises:
            UserError, RunStopped: it refuses the rows, the model or the flags, or cannot say.
        """
        words = [*job.entry.words, *job.words, *self._place(job), "--check"]
        try:
            with arguments(str(job.entry.recipe), words), contextlib.redirect_stdout(io.StringIO()):
                runpy.run_path(str(job.entry.recipe))["main"]()
        except Checked as checked:
            return checked.facts
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)  # the next one may ask for another precision
            gc.collect()
        raise RunStopped(f"{job.name}: the recipe did not ask for a check", 1)

    def _place(self, job: Job) -> list[str]:
        """The flags that say where a run is, and whether it goes on; what cannot be gone on with is removed."""
        folder = self.path / job.name
        trials = [Path(f"{folder}.sweep") / run_folder.SWEEP, Path(f"{folder}.seeds") / run_folder.SEEDS]
        resumed = state_folders.exist(folder) or any(notes.is_file() for notes in trials)
        if folder.is_dir() and not resumed and job.name in self.commands:
            shutil.rmtree(folder)  # it was killed before there was a state
        return ["--output_dir", str(folder), *["--resume"] * resumed]


def in_a_process(words: Sequence[str], out: TextIO) -> int:
    """The exit code of a Python script. An interrupt reaches it too, and it is waited for, as it saves its state."""
    with subprocess.Popen([sys.executable, *words], stdout=out) as process:
        before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            return 130
        finally:
            signal.signal(signal.SIGTERM, before)
