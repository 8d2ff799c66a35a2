"""Recipes called from Python, such as in a notebook."""

import base64
import runpy
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, PartialState

from tl_hub import cli, recipe_files, run_folder, settings_file, several_runs
from tl_hub.card.markdown import capitalized, interval_of, label_of, value_of
from tl_hub.record import RunRecord


@dataclass(frozen=True)
class Run:
    """A finished run. A notebook shows its figures and its curves.

    Attributes:
        folder: what `tl_hub.pipeline`, `tl_hub.publish` and `tl_hub.verify` take.
        record: what its run.json holds: metrics, settings, cost.
    """

    folder: Path
    record: RunRecord = field(repr=False)

    def _repr_html_(self) -> str:
        rows = [
            [capitalized(label_of(metric.name)), value_of(metric), *interval_of(metric)]
            for metric in self.record.metrics
        ]
        table = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        shown = [f"<p><b>{escape(str(self.folder))}</b></p>", f"<table>{table}</table>"]
        if (self.folder / run_folder.CURVES).is_file():
            picture = base64.b64encode((self.folder / run_folder.CURVES).read_bytes()).decode()
            shown.append(f'<img alt="Loss and quality by epoch" width="600" src="data:image/png;base64,{picture}">')
        return "\n".join(shown)


def train(recipe: str, **settings: Any) -> Run:
    """Run a recipe as its command line does, with the same checks and into the same folder.

        run = tl_hub.train("qa_adapter", train_file="mine.jsonl", epochs=3)
        answer = tl_hub.pipeline(run.folder)

    Args:
        recipe: name of a file in recipes/, without its suffix.
        settings: by the names of the recipe's flags. `None` is as if the flag was not given.

    Raises:
        UserError: there is no such recipe, or its command line would refuse the settings.
        RunStopped: the run was interrupted or came to no result, or was a `check`, whose message says what it found.
    """
    path = recipe_files.path_of(recipe)
    words = settings_file.arguments({name: value for name, value in settings.items() if value is not None})
    script = runpy.run_path(str(path))
    parts = (script["RUN"], script["TASK"], script["METHOD"])
    here, ours = sys.argv, not PartialState._shared_state
    sys.argv = [str(path), *words]
    try:
        run, _, _ = cli.parse(*parts, presets=script.get("PRESETS"), doc=None)
        several_runs.call(script["main"])
    finally:
        sys.argv = here
        if ours:  # another run may ask for another precision, which accelerate allows once a process
            AcceleratorState._reset_state(reset_partial_state=True)
    folder = Path(run.output_dir)
    return Run(folder, RunRecord.load(folder))
