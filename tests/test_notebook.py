"""A run folder's notebook: its cells, executed in their order, give what they show."""

import ast
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import check_here
from tl_hub import card
from tl_hub.load_back import _same
from tl_hub.record import RunRecord

GOLDEN = Path(__file__).parents[1] / "model_cards"


def code_of(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def execute(notebook: dict[str, Any]) -> list[tuple[Any, str | None]]:
    """What the last line of each cell gives, with the text that the cell shows; commands for pip are left out."""
    found, names = [], dict[str, Any]()
    for cell in code_of(notebook):
        *lines, last = "".join(cell["source"]).splitlines()
        if last.startswith("%pip install -q "):
            continue
        if last in ("result", "answer"):
            exec("\n".join(lines), names)
            shown = [output["data"]["text/plain"] for output in cell["outputs"]]
            found.append((eval(last, names), "".join(shown[0]) if shown else None))
        else:
            exec("\n".join([*lines, last]), names)
    return found


@pytest.mark.parametrize("name", ["sentiment_finetune", "sentiment_adapter"])
@pytest.mark.usefixtures("load_back_here")
def test_its_cells_give_the_outputs_that_they_show(recipe_here, tmp_path, name):
    run = tmp_path / "run"
    few = ["--max_steps", "2", "--train_rows", "16", "--validation_rows", "8", "--test_rows", "8"]
    done = recipe_here(name, "--output_dir", run, *few)
    assert done.returncode == 0, done.stderr
    notebook = json.loads((run / "notebook.ipynb").read_text())
    with contextlib.chdir(run):
        found = execute(notebook)
    assert len(found) == 2
    for given, shown in found:
        assert shown is not None and _same(given, ast.literal_eval(shown))
    outputs = RunRecord.load(run).verification["outputs"]
    assert len(outputs) == 3 and _same(outputs[0]["output"], found[1][0])
    widget = card.metadata(RunRecord.load(run)).to_dict()["widget"]
    for entry, each in zip(widget, outputs, strict=True):
        shown = {pair["label"]: pair["score"] for pair in entry["output"]}
        assert shown == pytest.approx(each["output"]["scores"], rel=1e-3)
    record = RunRecord.load(run)
    record.verification["outputs"][1]["output"]["scores"]["positive"] += 0.5
    record.save(run)
    with pytest.raises(Exception, match="the card's example gives"):
        check_here(run)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_it_is_in_the_form_of_notebooks_and_loads_what_is_published(path: Path) -> None:
    record = RunRecord.from_facts(json.loads(path.read_text()))
    notebook = json.loads(card.notebook(record, "alice/it", "dev"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids) and all(len(cell) in (4, 6) for cell in notebook["cells"])
    sources = ["".join(cell["source"]) for cell in code_of(notebook)]
    for source in sources:
        ast.parse("" if source.startswith("%pip") else source)
    assert card.snippet(record, "alice/it", "dev").strip() in sources
    assert sources[0].startswith("%pip install -q ")
    record.hide_examples()
    for cell in code_of(json.loads(card.notebook(record))):
        assert cell["source"][-1] not in ("result", "answer"), "no row to call it with"


def test_a_reader_of_notebooks_takes_it() -> None:
    nbformat = pytest.importorskip("nbformat", reason="comes with jupyter, which the tests do without")
    record = RunRecord.from_facts(json.loads((GOLDEN / "qa_adapter.json").read_text()))
    nbformat.validate(nbformat.reads(card.notebook(record, "alice/it"), as_version=4))
