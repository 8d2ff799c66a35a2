"""What the Hub gives back must be the model that was trained."""

import json
import re
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.hub_server import File
from tests.publishing.runs import adapter_run, texts, weights, write_run
from tl_hub import run_folder
from tl_hub.probe import write_probe
from tl_hub.record import RunRecord

PUSH = """
import json, sys
import tl_hub
from tl_hub.errors import RunStopped, UserError
try:
    answer = vars(tl_hub.publish(*sys.argv[1:3], **json.loads(sys.argv[3]), say=lambda text: None))
except (UserError, RunStopped) as error:
    answer = {"error": str(error), "kind": type(error).__name__}
print(json.dumps(answer, default=vars))
"""


def test_a_model_that_comes_back_as_another_is_undone(hub, push, run_script, tmp_path, checkpoints):
    """A real model with its probe: first right, then with weights that are not those the probe was made with."""

    def load_back(**options: Any) -> dict[str, Any]:
        """What a push gives in a process that has what loads models, and loads it back there itself."""
        return json.loads(run_script.code(PUSH, folder, "alice/real", json.dumps(options), here="all").stdout)

    model, tokenizer = checkpoints("bert", "AutoModelForSequenceClassification")
    loaded = {"loaded_by": ["transformers"], "max_difference": 0.0}
    folder = write_run(tmp_path / "run", verification=loaded)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_probe(folder, model, dict(tokenizer("The Danube ends in the Black Sea.", return_tensors="pt")))
    answer = load_back()
    repo = hub.model("alice/real")
    assert answer["verification"]["max_difference"] == 0 and run_folder.PROBE not in texts(repo)
    right = texts(repo)
    model.classifier.weight.data.mul_(2)
    model.save_pretrained(folder)
    record = RunRecord.load(folder)
    replace(record, verification=None).save(folder)
    answer = load_back()
    assert answer["kind"] == "Mismatch" and "classifier.weight" in answer["error"] and len(repo.history("main")) == 2
    record.save(folder)  # as of a folder that was loaded back before its weights were changed
    answer = load_back(tag="v1")
    assert answer["kind"] == "RunStopped" and "classifier.weight" in answer["error"] and "undone" in answer["error"]
    assert texts(repo) == right and len(repo.history("main")) == 4 and "refs/tags/v1" not in repo.refs
    # As after a push that was killed before it could look: the next one finds nothing to send, and a wrong model.
    assert "error" not in push(folder, "alice/real")
    answer = load_back()
    assert "undone" in answer["error"] and texts(repo) == right and len(repo.history("main")) == 6


@pytest.mark.parametrize("then", ["before", "just before", "never", "instead"])
def test_an_undo_leaves_what_another_has_pushed_meanwhile(hub, push, tmp_path, then):
    """The weights come back as others, and another push comes before the undo, or the undo's answer is lost."""
    name = f"alice/undo-{then.replace(' ', '-')}"
    push(write_run(tmp_path / "run"), name)
    repo, asked = hub.model(name), len(hub.log)
    begin, folder = texts(repo), write_run(tmp_path / "run", 1)
    hub.fail(r"GET .*/resolve/.*/model\.safetensors", "slow", seconds=0.5)
    if then in ("before", "just before"):
        hub.fail("POST .*/commit/", "slow", seconds=0.5, skip=1)  # the first is the push itself
    else:
        hub.fail("POST .*/commit/", 503, skip=1, after=then == "never")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(push(folder, name)))
    thread.start()

    def wait_for(route: str, count: int = 1) -> None:
        end = time.monotonic() + 600
        while sum(bool(re.search(route, line)) for line in hub.log[asked:]) < count and time.monotonic() < end:
            time.sleep(0.01)

    wait_for(r"GET .*/resolve/.*/model\.safetensors")
    sent = repo.at("main")
    sent.files["model.safetensors"] = replace(sent.files["model.safetensors"], content=weights(9))
    hub.fail("GET .*/refs", "slow", seconds=0.5, skip=1)  # where the undo is tried again
    if then in ("just before", "instead"):
        wait_for("POST .*/commit/", count=2)
    if then != "never":
        repo.commit("refs/heads/main", {**sent.files, "notes.txt": File(b"mine")}, "another push", "", "alice")
    thread.join()
    (answer,) = answers
    assert answer["kind"] == "RunStopped" and "came back from the Hub as another file" in answer["error"], answer
    if then == "never":
        assert "the commit was undone" in answer["error"] and texts(repo) == begin
        assert len(repo.history("main")) == 4
    else:
        assert "main has moved on since, so the commit is still there" in answer["error"]
        assert [commit.title for commit in repo.history("main")][:2] == ["another push", sent.title]
        assert texts(repo)["notes.txt"] == b"mine" and texts(repo)["model.safetensors"] == weights(9)


SEEN = """
import json, sys
from pathlib import Path
from tl_hub import publishing, verification
seen = []
def check(folder, **_):
    for file in Path(folder).glob("adapter_config.json"):  # the base has none
        seen.append(json.loads(file.read_text())["base_model_name_or_path"])
    return {"loaded_by": []}
verification.check = check
publishing.publish(sys.argv[1], "alice/came-back", push_base="alice/came-back-base", say=lambda text: None)
print(seen)
"""


def test_what_is_loaded_back_is_what_came_and_not_what_is_here(hub, run_script, tmp_path):
    """The adapter here names its base by a path, which others do not have."""
    base = write_run(tmp_path / "base")
    folder = adapter_run(tmp_path / "run", base, "local")
    (tmp_path / "ask.py").write_text(SEEN)
    said = run_script(tmp_path / "ask.py", str(folder))
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines()[-1] == str([str(base), "alice/came-back-base"])
