"""Models and data by id: pinned to a commit, and an id that is wrong or out of reach fails in seconds with one line."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub._tree_cache import TreeCacheEntry, write_tree_cache

from tests.forks import STACK, Forks
from tests.hub_server import File, HubServer, Repo
from tl_hub import hub, samples
from tl_hub.errors import UserError

pytestmark = pytest.mark.slow

REFERENCE = Path(__file__).parent.parent.parent / "shared" / "refhub" / "refhub.py"
NOWHERE = "http://127.0.0.1:9"  # the discard port, where nobody listens

# Answers a list of questions [function, id, ...] about the Hub in a process of its own, because huggingface_hub reads
# its environment when it is imported.
ASK = """
import json, sys, time
import tl_hub
from tl_hub import hub
from tl_hub.errors import UserError

def rows(name, **settings):
    from tl_hub import data
    from tl_hub.config import RunConfig
    from tl_hub.tasks.question_answering import QuestionAnswering
    loaded, _ = data.load(RunConfig(dataset=name, **settings), QuestionAnswering())
    return {"revision": loaded.revision, "splits": {key: part.rows.to_list() for key, part in loaded.splits.items()}}

def load(name):
    from tl_hub import base_model
    from tl_hub.config import RunConfig
    from tl_hub.tasks.question_answering import QuestionAnswering
    return type(base_model.load(RunConfig(model=name), QuestionAnswering())[0]).__name__

ask = {"load": load, "model": lambda *a: vars(hub.model_facts(*a)), "dataset": lambda *a: vars(hub.dataset_facts(*a)),
       "rows": lambda name, settings={}: rows(name, **settings), "pipeline": tl_hub.pipeline}
for function, *arguments in json.loads(sys.argv[1]):
    begin = time.monotonic()
    try:
        answer = ask[function](*arguments)
    except UserError as error:
        answer = str(error)
    print(json.dumps([answer, time.monotonic() - begin]))
"""


def ask(forks: Forks, *questions: list[Any], **environment: str) -> list[tuple[Any, float]]:
    """Answer (or the message of the UserError) and seconds of each question."""
    environment = {"HF_HUB_OFFLINE": "0", "NO_PROXY": "*", **environment}
    process = forks.code(ASK, json.dumps(questions), here="none", **environment)
    assert process.returncode == 0, process.stderr
    return [tuple(json.loads(line)) for line in process.stdout.splitlines()]


@pytest.fixture(scope="module")
def nowhere(forks_of_any_hub: Forks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """Forks whose Hub refuses each connection."""
    folder = tmp_path_factory.mktemp("nowhere")
    away = {"HF_ENDPOINT": NOWHERE, "HF_HUB_OFFLINE": "0", "NO_PROXY": "*", "HF_HOME": str(folder / "home")}
    forks = Forks(folder, STACK, forks_of_any_hub, **away)
    yield forks
    forks.close()


@pytest.mark.parametrize("choice", [("--model", "some/id"), ("--preset", "squad")])
def test_a_recipe_without_a_hub_says_how_to_work_offline(nowhere, tmp_path, choice):
    process = nowhere("qa_adapter", *choice, "--output_dir", tmp_path / "run")
    assert process.returncode == 2
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1, process.stderr
    assert "the Hub cannot be reached; offline: " in process.stderr
    model = {"--model": "some/id", "--preset": "google-bert/bert-base-uncased"}[choice[0]]
    assert f"--model {model}" in process.stderr and "tiny:bert" in process.stderr
    assert not (tmp_path / "run").exists()


def test_an_unreachable_hub_is_noticed_in_seconds(nowhere, forks_of_any_hub, tmp_path):
    """Refused at once, or silent: huggingface_hub alone would wait without an end for an answer."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        away = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HOME": str(tmp_path)}
        for forks, place in ((nowhere, {}), (forks_of_any_hub, away)):
            ((message, seconds),) = ask(forks, ["model", "some/id"], **place)
            assert "the Hub cannot be reached" in message
            assert seconds < 60
        silent.setblocking(False)
        assert connections(silent) <= 2, "each of them was waited for"


def connections(listening: socket.socket) -> int:
    """Connections that wait to be accepted."""
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize(("facts", "flag"), [(hub.model_facts, "--model"), (hub.dataset_facts, "--dataset")])
def test_offline_mode_says_how_to_go_on(facts, flag):
    """The tests themselves run in offline mode."""
    with pytest.raises(UserError) as raised:
        facts("tl-hub-tests/not-cached")
    offline = {"--model": "tiny:bert is embedded", "--dataset": "sample:qa is embedded"}[flag]
    assert str(raised.value).startswith(f"{flag} tl-hub-tests/not-cached: no such folder here, and the Hub cannot")
    assert offline in str(raised.value)


def test_a_model_of_which_some_files_are_cached_is_found_offline(monkeypatch, tmp_path):
    """The client lists all files of a commit in its cache, and a run fetches a few of them."""
    commit, folder = "1" * 40, tmp_path / "models--alice--part"
    for name, text in {"refs/main": commit, f"snapshots/{commit}/config.json": "{}"}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    entry = TreeCacheEntry(size=2, blob_id="0" * 40)
    write_tree_cache(str(folder), commit, {"config.json": entry, "model.onnx": entry})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert hub.model_facts("alice/part") == hub.RepoFacts(commit, None)


@pytest.mark.parametrize("name", ["a//b", "../models/bert", "a b", "x/y/z", "/home/me/bert", "runs/", "-a", "a--b"])
def test_an_ill_formed_id_is_refused_without_a_question_to_the_hub(name):
    with pytest.raises(UserError, match="neither a folder here nor a Hub id") as raised:
        hub.model_facts(name)
    assert f"--model {name}:" in str(raised.value)


def test_a_hub_that_says_no_is_not_one_out_of_reach_and_gated_files_are_asked_for_before(forks_of_any_hub, tmp_path):
    with HubServer() as server:
        for name in ("open", "gated", "blocked", "proxied"):
            repo = server.repos["model", f"alice/{name}"] = Repo(f"alice/{name}", "model", False, name == "gated")
            repo.commit("refs/heads/main", {"config.json": File(b"{}")}, "initial commit", "", "alice")
        server.fail("GET /api/models/alice/blocked", 403)
        server.fail("GET /api/models/alice/proxied", 200, html=True)
        names = [["model", f"alice/{name}"] for name in ("open", "gated", "blocked", "proxied")]
        place = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
        (facts, _), (gated, _), (blocked, _), (proxied, _) = ask(forks_of_any_hub, *names, **place)
        assert facts["revision"] == server.model("alice/open").at("main").id
        assert gated.startswith("--model alice/gated: access must be asked for on its Hub page")
        assert blocked.startswith("--model alice/blocked: the Hub refuses to show it (") and "hf auth login" in blocked
        assert proxied.startswith("--model alice/proxied: no such folder here, and the Hub cannot be reached")
        asked = [line for line in server.log if "auth-check" in line]
        assert asked == ["GET /api/models/alice/gated/auth-check"], "of no other"


# From here on: a Hub of our own on the loopback.

QA = {name: samples.load("qa")[name][:count] for name, count in (("train", 12), ("validation", 4))}

UPLOAD = """
import sys
from pathlib import Path
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

api, (model, rows) = HfApi(), sys.argv[1:]
api.create_repo("alice/tiny-bert")
api.upload_folder(repo_id="alice/tiny-bert", folder_path=model)
api.create_tag("alice/tiny-bert", tag="v1")
weights = Path(model, "model.safetensors")
save_file({name: tensor + 0.1 for name, tensor in load_file(weights).items()}, Path(rows, "moved"), {"format": "pt"})
api.upload_file(repo_id="alice/tiny-bert", path_in_repo="model.safetensors", path_or_fileobj=Path(rows, "moved"))
api.create_repo("alice/secret", private=True)
api.create_repo("alice/gated")
api.upload_file(repo_id="alice/gated", path_in_repo="config.json", path_or_fileobj=b"{}")
api.update_repo_settings("alice/gated", gated="manual")
for name in ("alice/qa", "alice/empty"):
    api.create_repo(name, repo_type="dataset")
api.upload_folder(repo_id="alice/qa", repo_type="dataset", folder_path=rows, allow_patterns="*.jsonl")
"""


class Server:
    """The reference Hub, with a model whose main branch has moved on since its tag v1, and a few rows."""

    def __init__(self, url: str, folder: Path, under: Forks):
        self.url = url
        self.environment = {
            "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home"), "NO_PROXY": "*",
        }  # fmt: skip
        self.forks = Forks(folder / "forks", STACK, under, **self.environment)

    def get(self, path: str) -> Any:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(self.url + path, timeout=600) as answer:
            return json.load(answer)

    def ask(self, *questions: list[Any], **environment: str) -> list[Any]:
        return [answer for answer, _ in ask(self.forks, *questions, **environment)]


@pytest.fixture(scope="module")
def server(
    checkpoint_folders: Callable[[str], Path], forks_of_any_hub: Forks, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    if not REFERENCE.is_file():
        pytest.skip(f"the reference Hub {REFERENCE} is not on this machine")
    for module in ("starlette", "uvicorn", "lz4"):
        pytest.importorskip(module, reason=f"the reference Hub needs {module}: pip install -e '.[test]'")
    folder = tmp_path_factory.mktemp("hub")
    address, rows = folder / "address", folder / "rows"
    rows.mkdir()
    for name, part in QA.items():
        (rows / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, REFERENCE, "--port", "0", "--url-file", address, "--data", folder / "data"],
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(12_000):
            if process.poll() is not None or (address.exists() and address.read_text()):
                break
            time.sleep(0.05)
        assert process.poll() is None and address.exists(), (folder / "log").read_text()
        server = Server(address.read_text(), folder, forks_of_any_hub)
        try:
            upload = server.forks.code(UPLOAD, checkpoint_folders("bert"), rows, HF_TOKEN="hf_alice_write")
            assert upload.returncode == 0, upload.stderr
            yield server
        finally:
            server.forks.close()
    finally:
        process.terminate()
        process.wait(timeout=600)


@pytest.fixture(scope="module")
def commits(server: Server) -> dict[str, str]:
    """Commits by the names that the tests give them."""
    return {
        "model": server.get("/api/models/alice/tiny-bert")["sha"],
        "v1": server.get("/api/models/alice/tiny-bert/revision/v1")["sha"],
        "rows": server.get("/api/datasets/alice/qa")["sha"],
    }


def trained_by_id(server: Server, folder: Path, *flags: str, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """run.json and the card's metadata of two steps on the Hub's model and rows."""
    given = ["--model", "alice/tiny-bert", "--dataset", "alice/qa", "--max_steps", "2", "--batch_size", "4"]
    process = server.forks("qa_adapter", *given, "--output_dir", folder, *flags, **options)
    assert process.returncode == 0, process.stderr
    return json.loads((folder / "run.json").read_text()), yaml.safe_load(
        (folder / "README.md").read_text().split("---")[1]
    )


def test_a_run_by_id_cites_the_commits_it_used(server, commits, tmp_path):
    record, card = trained_by_id(server, tmp_path / "run")
    assert (record["base"]["id"], record["base"]["source"]) == ("alice/tiny-bert", "hub")
    assert record["base"]["revision"] == commits["model"] != commits["v1"]
    assert (record["data"]["id"], record["data"]["source"]) == ("alice/qa", "hub")
    assert record["data"]["revision"] == commits["rows"]
    assert {name: split["rows"] for name, split in record["data"]["splits"].items()} == {"train": 12, "validation": 4}
    assert (card["base_model"], card["datasets"]) == ("alice/tiny-bert", ["alice/qa"])
    assert card["base_model_relation"] == "adapter"
    adapter = json.loads((tmp_path / "run" / "adapter_config.json").read_text())
    assert (adapter["base_model_name_or_path"], adapter["revision"]) == ("alice/tiny-bert", commits["model"])


def test_a_run_on_a_tag_stays_on_it_when_main_has_moved_on(server, commits, tmp_path):
    """The load-back at the end of the run, in a fresh process, fails where a loader takes the base of main instead."""
    record, _ = trained_by_id(server, tmp_path / "run", "--revision", "v1", here="none")
    assert record["base"]["revision"] == commits["v1"]


def test_what_the_hub_does_not_have_is_one_line(server, tmp_path):
    given = ["--model", "alice/nope", "--output_dir", tmp_path / "run"]
    process = server.forks("qa_adapter", *given)
    assert process.returncode == 2 and not (tmp_path / "run").exists()
    assert process.stderr.startswith("error: --model alice/nope: no such folder here, and no such model on the Hub")
    assert process.stderr.count("\n") == 1


def test_facts_and_rows_of_what_is_there(server, commits):
    model, tag, commit, rows, rows_of_commit = server.ask(
        ["model", "alice/tiny-bert"],
        ["model", "alice/tiny-bert", "v1"],
        ["model", "alice/tiny-bert", commits["v1"]],
        ["rows", "alice/qa"],
        ["rows", "alice/qa", {"dataset_revision": commits["rows"], "train_rows": 3}],
    )
    assert model == {"revision": commits["model"], **dict.fromkeys(("license", "license_name", "license_link"))}
    assert tag["revision"] == commit["revision"] == commits["v1"]
    assert rows["revision"] == rows_of_commit["revision"] == commits["rows"]
    asked = ("id", "question", "context", "answers")
    expected = {name: [{k: row[k] for k in asked if k in row} for row in part] for name, part in QA.items()}
    assert rows["splits"] == expected  # the rows of the Hub, of which question answering keeps what it reads
    assert len(rows_of_commit["splits"]["train"]) == 3


def test_each_refusal_names_its_cause(server):
    cases = [
        (["model", "alice/nope"], "--model alice/nope: no such folder here, and no such model on the Hub"),
        (["dataset", "alice/nope"], "--dataset alice/nope: no such folder here, and no such dataset on the Hub"),
        (["rows", "alice/tiny-bert"], "no such dataset on the Hub"),  # a model, not data
        (["model", "alice/secret"], "private: `hf auth login`"),
        (["pipeline", "alice/secret"], "private: `hf auth login`"),
        (["model", "alice/gated"], "access must be asked for on its Hub page"),
        (["pipeline", "alice/gated"], "access must be asked for on its Hub page"),
        (["model", "alice/tiny-bert", "v9"], "--model alice/tiny-bert: the Hub has no revision v9 of it"),
        (["rows", "alice/qa", {"dataset_revision": "v9"}], "--dataset alice/qa: the Hub has no revision v9 of it"),
        (["rows", "alice/qa", {"dataset_config": "german"}], "--dataset alice/qa cannot be loaded: "),
        (["rows", "alice/empty"], "--dataset alice/empty cannot be loaded: "),
    ]
    for (question, says), message in zip(cases, server.ask(*(question for question, _ in cases)), strict=True):
        assert says in message and "\n" not in message, (question, message)


def test_a_token_that_is_not_valid_is_not_taken_for_a_hub_out_of_reach(server):
    (message,) = server.ask(["model", "alice/tiny-bert"], HF_TOKEN="hf_expired")
    assert "Invalid credentials" in message and "hf auth login" in message


def test_a_token_with_a_letter_that_cannot_be_sent_is_one_line(server):
    for question in (["model", "alice/tiny-bert"], ["dataset", "alice/qa"], ["pipeline", "alice/tiny-bert"]):
        (message,) = server.ask(question, HF_TOKEN="hf_" + "ä" * 34)
        assert "has a letter that tokens do not have" in message and "\n" not in message


def test_with_the_hub_out_of_reach_a_cached_model_loads_at_once(server, forks_of_any_hub):
    """Its files were asked for one by one, with minutes of retries."""
    server.ask(["load", "alice/tiny-bert"])
    with socket.socket() as closing:
        closing.bind(("127.0.0.1", 0))
        closing.listen(100)
        reset = threading.Thread(target=hang_up, args=(closing, asked := []))
        reset.start()
        away = server.environment | {"HF_ENDPOINT": f"http://127.0.0.1:{closing.getsockname()[1]}"}
        ((loaded, _),) = ask(forks_of_any_hub, ["load", "alice/tiny-bert"], **away)
        closing.shutdown(socket.SHUT_RDWR)
    reset.join()
    assert loaded == "BertForQuestionAnswering" and len(asked) <= 2, asked


def hang_up(listening: socket.socket, asked: list[object]) -> None:
    """End each connection without an answer, until no more are taken."""
    with contextlib.suppress(OSError):
        while True:
            connection, address = listening.accept()
            asked.append(address)
            connection.close()


def test_what_a_run_has_used_is_there_without_the_hub(server, forks_of_any_hub, commits, tmp_path):
    """A second run on a train, or on a machine without a network, starts from the cache and cites the same commits."""

    def asked(*questions: list[Any], **environment: str) -> list[Any]:
        place = server.environment | {"HF_HOME": str(tmp_path)} | environment
        return [answer for answer, _ in ask(forks_of_any_hub, *questions, **place)]

    used = ["model", "alice/tiny-bert"], ["rows", "alice/qa"]
    model, rows = asked(*used)
    assert asked(*used, HF_HUB_OFFLINE="1") == [model, rows]
    assert (model["revision"], rows["revision"]) == (commits["model"], commits["rows"])
    others = ["dataset", "alice/qa"], ["model", "alice/tiny-bert", "v1"]
    again, facts, tag = asked(used[0], *others, HF_ENDPOINT=NOWHERE)
    assert (again["revision"], facts["revision"]) == (commits["model"], commits["rows"])
    assert "the Hub cannot be reached" in tag, "another revision than the one that is cached"
