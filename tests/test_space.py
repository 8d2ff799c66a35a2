"""A Space of a run: its page is imported and asked, and its folder goes to the Hub as models do.

gradio, 31 MB of its own, wants an older Pillow than the tests' pins, so it is no dependency of theirs. Where it is
installed the page is built with it; elsewhere a stand-in takes what the page gives it.
"""

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from tests.hub_server import judge
from tests.publishing.runs import write_run
from tl_hub import space
from tl_hub.errors import UserError
from tl_hub.record import RunRecord
from tl_hub.tasks import catalog

FEW = ["--max_steps", "2", "--train_rows", "16", "--validation_rows", "8", "--test_rows", "8"]


class _Component:
    def __init__(self, *, label: str, lines: int = 1, num_top_classes: int | None = None):
        self.label = label


class _Interface:
    def __init__(
        self, *, fn: Any, inputs: Any, outputs: Any, title: str, description: str, flagging_mode: str,
        examples: Any = None, cache_examples: bool | None = None,
    ):  # fmt: skip
        self.fn, self.title = fn, title


@pytest.fixture
def gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one where it is installed."""
    if importlib.util.find_spec("gradio"):
        return
    stand_in = types.ModuleType("gradio")
    names = ("Textbox", "Label", "Number", "JSON", "HighlightedText")
    vars(stand_in).update(dict.fromkeys(names, _Component), Interface=_Interface, Error=type("Error", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "gradio", stand_in)


def page_of(folder: Path) -> Any:
    """The module of a Space's page."""
    spec = importlib.util.spec_from_file_location("app", folder / "app.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("load_back_here", "gradio")
def test_the_page_of_a_run_answers_as_its_pipeline(recipe_here, script_here, tmp_path):
    run = tmp_path / "run"
    assert recipe_here("sentiment_finetune", "--output_dir", run, *FEW).returncode == 0
    done = script_here("tl_hub/command.py", "space", run, tmp_path / "space", "--json")
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)["files"]
    assert {"app.py", "requirements.txt", "README.md", "model/model.safetensors", "model/run.json"} <= set(files)
    assert not [name for name in files if "probe" in name or "predictions" in name or name.endswith(("png", "ipynb"))]
    page = page_of(tmp_path / "space")
    record = RunRecord.load(run)
    stated = record.verification["pipeline_output"]["scores"]
    shown = record.examples[record.verification["example"]]
    assert page.answer(shown["text"]) == pytest.approx(stated, abs=1e-4)
    assert page.demo.title == "run"
    with pytest.raises(Exception, match="a text is empty"):
        page.answer(" ")
    if hasattr(page.demo, "launch"):  # gradio itself, asked as its page asks it
        from gradio_client import Client

        _, url, _ = page.demo.launch(prevent_thread_lock=True, quiet=True, server_name="127.0.0.1")
        try:
            label = Client(url, verbose=False).predict(shown["text"], api_name="/answer")["label"]
        finally:
            page.demo.close()
        assert label == max(stated, key=stated.__getitem__)


TASKS = {
    "question-answering": ({"question": "Where?", "context": "Here."},
                           {"answer": "", "score": 0.5, "start": 0, "end": 0}, ("(no answer)", 0.5)),
    "text-classification": ({"text": "a"}, {"label": "x", "score": 0.9, "scores": {"x": 0.9}}, {"x": 0.9}),
    "text-regression": ({"text": "a"}, {"label": "score", "score": 2.5}, 2.5),
    "token-classification": ({"text": "Ada"}, [{"label": "PER", "score": 1.0, "text": "Ada", "start": 0, "end": 3}],
                             {"text": "Ada", "entities": [{"entity": "PER", "start": 0, "end": 3}]}),
    "summarization": ({"text": "a"}, {"generated_text": "b"}, "b"),
    "span-corruption": ({"text": "a"}, {"generated_text": "b", "spans": ["b"]}, "b"),
    "masked-language-modeling": ({"text": "a"}, [{"token_str": "b", "score": 1.0}], [{"token_str": "b", "score": 1.0}]),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.usefixtures("gradio")
def test_each_task_has_its_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str) -> None:
    row, given, shown = TASKS[task]
    hostile = 'A "run" \\ \'\'\' """ with %s {{ braces }}'
    facts = {"name": hostile, "task": task, "pipeline_tag": catalog.CATALOG[task].tag, "examples": [row]}
    run = write_run(tmp_path / "run", **facts, software={"torch": "2.9.0+cpu", "python": "3.11.2"})
    space.write(space.of(run), tmp_path / "space")
    asked: list[Any] = []

    def pipeline(place: Any) -> Any:
        asked.append(place)
        return lambda **texts: asked.append(texts) or given

    monkeypatch.setattr("tl_hub.pipeline", pipeline, raising=False)
    page = page_of(tmp_path / "space")
    assert page.answer(*row.values()) == shown and asked == [tmp_path / "space" / "model", row]
    assert page.demo.title == hostile
    readme = (tmp_path / "space" / "README.md").read_text()
    assert judge.faults_of_space(readme) == [] and judge.head_of(readme)["app_file"] == "app.py"
    lines = (tmp_path / "space" / "requirements.txt").read_text().splitlines()
    assert [str(Requirement(line)) for line in lines[1:]] == ["tl_hub", "torch==2.9.0"]


def test_what_no_space_can_load_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", pipeline_tag="feature-extraction", auto_class="SentenceTransformer")
    with pytest.raises(UserError, match="so there is no page for it"):
        space.of(run)
    (tmp_path / "other").mkdir()
    fit = space.of(write_run(tmp_path / "fit"))
    for name in ("mine.txt", "app.py"):
        (tmp_path / "other" / name).write_text("a")
        with pytest.raises(UserError, match="holds something else than a Space of tl_hub"):
            space.write(fit, tmp_path / "other")
        assert (tmp_path / "other" / name).read_text() == "a"
    space.write(fit, tmp_path / "space")
    (tmp_path / "space" / "model" / "adapter_config.json").write_text("{}")
    space.write(fit, tmp_path / "space")
    assert not (tmp_path / "space" / "model" / "adapter_config.json").exists(), "of another model"


def test_a_faulty_configuration_is_refused_by_the_server() -> None:
    good = {
        "title": "a",
        "emoji": "🤗",
        "colorFrom": "blue",
        "colorTo": "green",
        "sdk": "gradio",
        "sdk_version": "6.31.0",
    }
    assert judge.faults_of_space(f"---\n{yaml.safe_dump(good)}---\n") == []
    for name, value in {"emoji": "smile", "colorFrom": "teal", "sdk": "flask", "short_description": "a" * 61}.items():
        assert judge.faults_of_space(f"---\n{yaml.safe_dump(good | {name: value})}---\n"), name
