"""The card's code as a notebook, which the Hub shows and opens in Colab: to load the model and call it."""

import json
from typing import Any

from tl_hub.card.markdown import text_as_is
from tl_hub.card.snippets import call_snippet, pipeline_snippet, snippet
from tl_hub.hub_names import LIBRARIES
from tl_hub.record import RunRecord


def notebook(record: RunRecord, repo: str | None = None, revision: str | None = None) -> str:
    """A notebook in format 4.5, whose cells have the outputs that a load-back executed, where it did.

    Args:
        repo, revision: as in `card.render`.
    """
    record = RunRecord.from_facts(record.facts())
    stated = record.verification or {}
    place = f"[{repo}](https://huggingface.co/{repo})" if repo else "the folder that this notebook is in"
    cells = [
        _markdown(f"# {text_as_is(record.name)}\n\nThe code of the model card. It loads the model from {place}."),
        _code(f"%pip install -q {_packages(record)}"),
    ]
    call = call_snippet(record)
    cells.append(_code(snippet(record, repo, revision)))
    if call:
        cells.append(_code(f"{call.strip()}\nresult", stated.get("result")))
    if ask := pipeline_snippet(record, repo, revision):
        code = "\n".join(line for line in ask.splitlines() if not line.startswith("# "))
        cells.append(_markdown("With tl_hub, which reads the text as in training:"))
        cells += [_code("%pip install -q tl_hub"), _code(f"{code}\nanswer", stated.get("pipeline_output"))]
    for number, cell in enumerate(cells, start=1):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    facts = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(facts, indent=1, ensure_ascii=False) + "\n"


def _packages(record: RunRecord) -> str:
    if record.kind == "adapter":
        return "transformers peft torch"
    return {"FeatureModel": "tl_hub"}.get(record.auto_class, LIBRARIES.get(record.auto_class, "transformers torch"))


def _markdown(text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "metadata": {}, "source": text.splitlines(keepends=True)}


def _code(code: str, output: Any = None) -> dict[str, Any]:
    """A cell, with what its last line gave."""
    source = code.strip().splitlines(keepends=True)
    shown = {
        "data": {"text/plain": [repr(output)]},
        "execution_count": 1,
        "metadata": {},
        "output_type": "execute_result",
    }
    known = {"execution_count": None, "outputs": []} if output is None else {"execution_count": 1, "outputs": [shown]}
    return {"cell_type": "code", "metadata": {}, "source": source, **known}
