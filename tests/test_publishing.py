"""Pushes by the real client against a Hub of our own: complete or not there at all, whatever fails on the way."""

import json
import os
import random
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hub_server import FINE, READ, WRITE, File, HubServer, Repo
from tl_hub import base_model, card, launch, run_folder, samples, verification
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.methods.adapters import Lora
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.publishing import commits, secrets
from tl_hub.record import RunRecord

REFERENCE = Path(__file__).parent.parent.parent / "shared" / "refhub"
SECRET = "hf_" + "Ab1" * 11

# One process that pushes what it is told, line by line; huggingface_hub reads its environment when it is imported.
# Its own pauses between its own retries cannot be set, so all are cut short.
WORKER = """
import json, sys, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
import tl_hub
from tl_hub import publishing
from tl_hub.errors import RunStopped, UserError
for line in sys.stdin:
    asked, said = {"load_back": False} | json.loads(line), []  # most weights here are of no model
    patience = publishing.Patience(wait=0.01, timeout=asked.pop("timeout", 20))
    try:
        answer = vars(tl_hub.publish(**asked, patience=patience, say=said.append))
    except (UserError, RunStopped) as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    answer["torch"] = "torch" in sys.modules
    print(json.dumps({**answer, "said": said}, default=vars), flush=True)
"""


class Pusher:
    """Calls `tl_hub.publish` in a process of its own, and gives its answer or the message of its error."""

    def __init__(self, url: str, token: str | None, home: Path, **environment: str):
        known = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
        own = {
            "HF_ENDPOINT": url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(home),
            "NO_PROXY": "*",
        }
        own |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", **({"HF_TOKEN": token} if token else {})}
        home.mkdir(exist_ok=True)
        self.errors = home / "errors"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**known, **own, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
        )

    def __call__(self, folder: Path, repo: str, **options: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"folder": str(folder), "repo": repo, **options}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return json.loads(answer) if answer else {"error": "died", "kind": self.errors.read_text()}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(autouse=True)
def no_faults(request: pytest.FixtureRequest) -> None:
    if "hub" in request.fixturenames:
        request.getfixturevalue("hub").faults.clear()


@pytest.fixture(scope="module")
def push(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pusher]:
    pusher = Pusher(hub.url, WRITE, tmp_path_factory.mktemp("home"))
    yield pusher
    pusher.close()


def weights(value: float, **metadata: str) -> bytes:
    facts = {"weight": {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024]}}
    header = json.dumps({"__metadata__": {"format": "pt", **metadata}, **facts}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", value) * 256


def write_run(folder: Path, value: float = 0.0, **changes: Any) -> Path:
    """A run folder such as a loop of one's own would leave: a record by hand and a kilobyte of weights."""
    folder.mkdir(exist_ok=True)
    facts = {
        "name": "mine",
        "kind": "fine-tuned",
        "pipeline_tag": "text-classification",
        "auto_class": "AutoModelForSequenceClassification",
        "method": {"name": "fine-tuning"},
        "license": "mit",
        "data": {"id": "rows.csv", "source": "local"},
        "metrics": [{"name": "accuracy", "value": 50 + value, "split": "test", "rows": 100}],
    }
    (folder / "run.json").write_text(json.dumps(facts | changes))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(weights(value))
    return folder


def adapter_run(folder: Path, base: Path | str, source: str, kind: str = "adapter") -> Path:
    write_run(folder, kind=kind, base={"id": Path(base).name if source == "local" else str(base), "source": source,
                                       "model_type": "bert", "license": "apache-2.0"})  # fmt: skip
    place = folder / "adapter" if kind == "merged" else folder
    place.mkdir(exist_ok=True)
    if kind == "adapter":
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
    (place / "adapter_model.safetensors").write_bytes(weights(1.0))
    (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "revision": None}))
    return folder


def texts(repo: Repo, revision: str = "main") -> dict[str, bytes]:
    return {path: file.content for path, file in repo.at(revision).files.items()}


def holds(repo: Repo, folder: Path, revision: str = "main") -> bool:
    return is_run(texts(repo, revision), folder)


def is_run(files: dict[str, bytes], folder: Path) -> bool:
    """Whether a repository has the weights, the figures and the card of this run, and of no other."""
    figure = json.loads((folder / "run.json").read_text())["metrics"][0]["value"]
    return (
        files.get("model.safetensors") == (folder / "model.safetensors").read_bytes()
        and json.loads(files["run.json"])["metrics"][0]["value"] == figure
        and f"| {figure:.4g} |" in files["README.md"].decode()
    )


def test_a_push_is_one_commit_of_what_belongs(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    strangers = (
        ".env",
        "a screen.png",
        "training_args.bin",
        "optimizer.pt",
        "log.jsonl",
        "predictions.jsonl",
        "probe.txt",
        "checkpoint/state.pt",
    )
    (folder / "checkpoint").mkdir()
    for name in strangers:
        (folder / name).write_text(SECRET)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    answer = push(folder, "alice/first")
    repo = hub.model("alice/first")
    assert repo.private and len(repo.history("main")) == 2
    assert set(texts(repo)) == {
        ".gitattributes",
        "README.md",
        "config.json",
        "model.safetensors",
        "run.json",
        commits.SENT,
    }
    assert holds(repo, folder) and 'from_pretrained("alice/first")' in texts(repo)["README.md"].decode()
    assert answer["revision"] == repo.at("main").id and answer["left_out"] == sorted(strangers)
    assert not answer["torch"]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    again = push(folder, "alice/first")
    assert (again["sent"], again["revision"]) == ([], answer["revision"]) and len(repo.history("main")) == 2
    told = "note: alice/open is public, and stays so: everybody can see what is sent"
    assert told not in push(folder, "alice/open", private=False)["said"]
    assert not hub.model("alice/open").private
    assert told in push(folder, "alice/open")["said"] and told not in push(folder, "alice/open", private=False)["said"]


def test_a_dry_run_tells_and_changes_nothing(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    before = len(hub.log)
    new = push(folder, "alice/dry", dry_run=True)
    assert "model.safetensors" in new["sent"] and ("model", "alice/dry") not in hub.repos
    push(folder, "alice/wet")
    commit = hub.model("alice/wet").at("main").id
    before = len(hub.log)
    changed = push(write_run(tmp_path / "run", 1), "alice/wet", dry_run=True)
    assert sorted(changed["sent"]) == ["README.md", "model.safetensors", "run.json"]
    assert any(re.fullmatch(r" +unchanged +config.json \(22 bytes\)", line) for line in changed["said"])
    assert not [line for line in hub.log[before:] if not line.startswith(("GET", "HEAD"))]
    assert hub.model("alice/wet").at("main").id == commit
    size = (tmp_path / "run" / "config.json").stat().st_size
    assert {"path": "config.json", "size": size, "state": "unchanged"} in changed["files"]
    told = push(folder, "alice/wet", dry_run=True, create_pr=True)["said"]
    assert "alice/wet is there; a commit to a new pull request would hold:" in told
    told = push(folder, "alice/wet", dry_run=True, revision="dev", tag="v1")["said"]
    assert any("a commit to dev, a branch that would be made, would hold:" in line for line in told), told
    assert "  tag v1" in told
    push(folder, "alice/wet", tag="v1")
    other = write_run(tmp_path / "run", 2)
    assert "--tag v1: the tag is there" in push(other, "alice/wet", dry_run=True, tag="v1")["error"]
    for flag, name in (("tag", "v 1"), ("revision", "a..b"), ("collection", "alice/no-such-1a2b")):
        answer = push(folder, "alice/wet", dry_run=True, **{flag: name})
        assert answer["kind"] == "UserError" and answer["error"].startswith(f"--{flag} "), answer


# What a push asks, in its order; `options` bring a route about.
ROUTES = {
    "whoami": (r"GET /api/whoami", {}),
    "exists": (r"GET /api/models/alice/[\w-]+$", {}),
    "rights": (r"GET .*/auth-check", {}),
    "create": (r"POST /api/repos/create", {"new": True}),
    "refs": (r"GET .*/refs", {}),
    "tree": (r"GET .*/tree/", {}),
    "sent": (r"GET /alice/.*/\.tl_hub", {}),
    "card": (r"GET /alice/.*/README", {}),
    "validate": (r"POST /api/validate-yaml", {}),
    "preupload": (r"POST .*/preupload/", {}),
    "batch": (r"POST .*/objects/batch", {}),
    "put": (r"PUT /_lfs/", {}),
    "commit": (r"POST .*/commit/", {}),
    "branch": (r"POST .*/branch/", {"revision": "dev"}),
    "tag": (r"POST .*/tag/", {"tag": "v1"}),
    "pull requests": (r"GET .*/discussions\?", {"create_pr": True}),
    "pull request": (r"POST .*/discussions$", {"create_pr": True}),
    "open": (r"POST .*/status$", {"create_pr": True}),
    "head": (r"HEAD /alice/.*/resolve/", {}),
    "get": (r"GET /alice/.*/model.safetensors", {}),
}
PASSING = (408, 429, 500, 502, 503, 504, "drop")
PERMANENT = (401, 403, 404, 409, 413, 422)


def faults() -> list[tuple[str, int | str, bool, int]]:
    """Route, what happens there, whether the work was done before, and how often; 323 in a seeded order."""
    found = [(route, what, False, 1) for route in ROUTES for what in PASSING]
    writes = ("create", "put", "commit", "branch", "tag", "pull request", "open")
    found += [(route, what, True, 1) for route in writes for what in (429, 503, "drop")]
    found += [(route, what, False, 999) for route in ROUTES for what in (503, "drop")]
    found += [("commit", what, True, 999) for what in (504, "drop")]
    found += [(route, what, False, 1) for route in ROUTES for what in PERMANENT]
    return random.Random(0).sample(found, len(found))


def test_after_any_fault_the_repository_is_untouched_or_complete(hub, push, tmp_path):
    assert len(faults()) == 323
    push(write_run(tmp_path / "run"), "alice/faults")
    for number, (route, what, after, count) in enumerate(faults(), start=1):
        pattern, options = ROUTES[route]
        options = dict(options)
        name = f"alice/new-{number}" if options.pop("new", False) else "alice/faults"
        options |= {key: f"{options[key]}-{number}" for key in ("revision", "tag") if key in options}
        folder = write_run(tmp_path / "run", number / 4)
        record = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(record | {"name": f"run {number}"}))
        untouched = {ref: commit for ref, commit in hub.model("alice/faults").refs.items()}
        hub.fail(pattern, what, after=after, count=count)
        answer = push(folder, name, **options)
        case = f"{number}: {route} {what} {'after' if after else 'before'} {count} times: {answer}"
        assert hub.faults[0].count < count, f"the fault did not come about, {case}"
        hub.faults.clear()
        branch = "refs/pr/" if "create_pr" in options else f"refs/heads/{options.get('revision', 'main')}"

        def pushed(name=name, branch=branch, untouched=untouched) -> list[str]:
            refs = hub.model(name).refs if ("model", name) in hub.repos else {}
            return [refs[ref] for ref in refs if ref.startswith(branch) and untouched.get(ref) != refs[ref]]

        transient = what in PASSING and (count == 1 or after)  # a look at the branch finds what was done
        transient |= route == "head" and what in (403, 404, 409, 413, 422)  # the client tells no status of these
        assert ("error" in answer) == (not transient), case
        if "error" in answer:
            assert answer["kind"] == ("UserError" if what in PERMANENT else "RunStopped"), case
            assert "\n" not in answer["error"], case
            for commit in pushed():
                repo = hub.model(name)
                main = untouched.get("refs/heads/main")
                nothing = commit == main or commit == repo.history("main")[-1].id
                assert nothing or holds(repo, folder, commit), case
            answer = push(folder, name, **options)
            assert "error" not in answer, f"the same command again, {case}: {answer}"
        (commit,) = pushed()
        repo = hub.model(name)
        assert holds(repo, folder, commit) and answer["revision"] == commit, case
        parent = repo.commits[commit].parent
        expected = repo.history("main")[-1].id if name != "alice/faults" else untouched["refs/heads/main"]
        assert parent == expected, f"one commit and no more, {case}"
        if "tag" in options:
            assert repo.refs[f"refs/tags/{options['tag']}"] == commit, case
        if "create_pr" in options:
            repo.discussions[-1]["status"] = "closed"


def test_a_wait_that_the_hub_asks_for_is_kept_and_one_too_long_is_told(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    hub.fail("POST .*/commit/", 429, retry_after="7")
    assert any("the Hub answered 429; again in 7 s" in line for line in push(folder, "alice/wait")["said"])
    hub.fail("GET /api/whoami", 429, retry_after="3600")
    assert "asks to wait for 60 min" in push(folder, "alice/wait")["error"]


def test_a_server_that_says_nothing_is_given_up_and_asked_again(hub, push, tmp_path):
    hub.fail("POST .*/commit/", "slow", seconds=2.0)
    answer = push(write_run(tmp_path / "run"), "alice/slow", timeout=0.5)
    assert holds(hub.model("alice/slow"), tmp_path / "run")
    assert "error" not in answer and len(hub.model("alice/slow").history("main")) == 2
    time.sleep(2)  # the first request now comes to its end, and must not make a second commit
    assert len(hub.model("alice/slow").history("main")) == 2


def test_what_is_no_answer_of_the_hub_is_asked_again_and_what_it_answers_is_told(hub, push, tmp_path):
    """A page of a gateway says nothing of the card; the Hub's own refusals are told in full."""
    folder = write_run(tmp_path / "run")
    hub.fail("POST /api/validate-yaml", 504, html=True)
    assert "error" not in push(folder, "alice/answers") and holds(hub.model("alice/answers"), folder)
    for route in ("POST .*/commit/", "POST .*/preupload/"):
        hub.fail(route, 400)
        answer = push(write_run(folder, 1), "alice/answers")
        assert answer["kind"] == "UserError" and "the Hub refuses it (400: " in answer["error"], answer
        assert "injected" in answer["error"] and "\n" not in answer["error"]
    repo = hub.model("alice/answers")
    files = dict(repo.at("main").files)
    readme = files["README.md"].content.decode().replace("---\n", "---\nthumbnail: 5\nwidget: none\n", 1)
    repo.commit("refs/heads/main", files | {"README.md": type(files["README.md"])(readme.encode())}, "edit", "", "a")
    refused = push(folder, "alice/answers")["error"]
    assert 'Invalid metadata in README.md. - "thumbnail" must be a string - "widget" must be an array' in refused


def test_two_pushers_at_once_leave_one_of_both_runs_whole(hub, push, tmp_path):
    other = Pusher(hub.url, WRITE, tmp_path / "home")
    try:
        push(write_run(tmp_path / "start"), "alice/both")
        for turn in range(4):
            folders = [write_run(tmp_path / name, value + turn) for name, value in (("a", 1), ("b", 21))]
            answers: list[Any] = [None, None]

            def run(place: int, folders=folders, answers=answers) -> None:
                answers[place] = (push, other)[place](folders[place], "alice/both")

            threads = [threading.Thread(target=run, args=(place,)) for place in (0, 1)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            repo = hub.model("alice/both")
            assert not any("error" in answer for answer in answers), answers
            for folder, answer in zip(folders, answers, strict=True):
                assert holds(repo, folder, answer["revision"])
            assert repo.at("main").id in {answer["revision"] for answer in answers}
            assert len(repo.history("main")) == 2 + 2 * (turn + 1)
    finally:
        other.close()


def test_a_push_that_another_overtakes_looks_again(hub, push, tmp_path):
    """Only the figures are new when it looks. Other weights of the same size come before its commit is made."""
    folder = write_run(tmp_path / "run")
    push(folder, "alice/overtaken")
    repo = hub.model("alice/overtaken")
    write_run(folder, license="apache-2.0")
    hub.fail("POST .*/commit/", "slow", seconds=1.0)
    asked = len(hub.log)
    thread = threading.Thread(target=push, args=(folder, "alice/overtaken"))
    thread.start()
    while not any(re.search("POST .*/commit/", line) for line in hub.log[asked:]):
        time.sleep(0.01)
    files = repo.at("main").files
    other = {**files, "model.safetensors": replace(files["model.safetensors"], content=weights(9))}
    repo.commit("refs/heads/main", other, "another push", "", "alice")
    thread.join()
    assert holds(repo, folder) and json.loads(texts(repo)["run.json"])["license"] == "apache-2.0"
    assert [commit.title for commit in repo.history("main")].count("another push") == 1


@pytest.mark.parametrize("route", ["PUT /_lfs/", "POST .*/commit/"])
def test_a_push_that_is_killed_is_finished_by_the_next(hub, push, tmp_path, route):
    name = f"alice/killed-{len(route)}"
    push(write_run(tmp_path / "run"), name)
    folder, repo = write_run(tmp_path / "run", 99.5 + len(route)), hub.model(name)
    victim = Pusher(hub.url, WRITE, tmp_path / "home")
    hub.fail(route, "slow", seconds=0.5)
    waiting = threading.Thread(target=victim, args=(folder, name))
    waiting.start()
    while hub.faults[0].count:
        time.sleep(0.01)
    victim.process.kill()
    waiting.join()
    time.sleep(1)
    commits = len(repo.history("main"))
    assert commits == 2 or (commits == 3 and holds(repo, folder))
    assert "error" not in push(folder, name) and holds(repo, folder) and len(repo.history("main")) == 3
    victim.close()


def test_what_a_person_wrote_into_the_card_stays(hub, push, tmp_path):
    push(write_run(tmp_path / "run"), "alice/card")
    repo = hub.model("alice/card")
    text = texts(repo)["README.md"].decode()
    edited = text.replace("## Results", "## My results").replace("\n---\n\n", "\n---\n\nWritten by hand.\n\n", 1)
    files = {**repo.at("main").files, "README.md": type(repo.at("main").files["README.md"])(edited.encode())}
    files["notes.md"] = files["README.md"]
    repo.commit("refs/heads/main", files, "by hand", "", "alice")
    answer = push(write_run(tmp_path / "run", 1), "alice/card")
    merged = texts(repo)["README.md"].decode()
    assert "Written by hand." in merged and "## My results" in merged and "| 51 |" in merged
    assert "notes.md" in texts(repo)
    assert any("'Results'" in note for note in answer["notes"])
    again = push(tmp_path / "run", "alice/card")
    assert again["sent"] == [] and again["notes"] == []


def test_what_a_person_wrote_into_the_folder_is_published_and_kept(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "README.md").write_text("---\ntags: mine\nlicense: apache-2.0\n---\n\n# Hello\n\nBy hand.")
    answer = push(folder, "alice/own-card")
    assert any("the card in the folder is not from tl_hub" in note for note in answer["notes"])
    assert "the card in the folder says license apache-2.0; replaced by the run's mit" in answer["notes"]
    text = texts(hub.model("alice/own-card"))["README.md"].decode()
    assert "| 50 |" in text and text.endswith("# Hello\n\nBy hand.\n")
    assert yaml.safe_load(text.split("---")[1])["tags"] == ["tl_hub", "fine-tuning", "mine"]
    assert push(folder, "alice/own-card")["sent"] == []
    said: list[str] = []
    card.write(folder, say=said.append)
    assert "By hand." in (folder / "README.md").read_text() and len(said) == 2
    card.write(folder, say=said.append)
    assert len(said) == 2 and (folder / "README.md").read_text().count("By hand.") == 1
    assert push(folder, "alice/own-card")["notes"] == []
    # Both sides are changed: nothing of either is lost, once.
    repo = hub.model("alice/own-card")
    files = dict(repo.at("main").files)
    there = files["README.md"].content.replace(b"By hand.", b"By another hand.")
    repo.commit("refs/heads/main", files | {"README.md": type(files["README.md"])(there)}, "edit", "", "alice")
    (folder / "README.md").write_text((folder / "README.md").read_text().replace("By hand.", "By my hand."))
    assert any("both are kept" in note for note in push(folder, "alice/own-card")["notes"])
    again = push(folder, "alice/own-card")
    assert again["sent"] == [] and again["notes"] == []
    text = texts(repo)["README.md"].decode()
    assert text.count("By my hand.") == text.count("By another hand.") == 1
    form = "---\ntags: [x:/home/anna/base]\n---\n\n# Model Card for Model ID\n\n[More Information Needed]"
    (folder / "README.md").write_text(form)
    card.write(folder, say=said.append)
    assert "anna" not in (folder / "README.md").read_text() and "PEFT's form" in said[-1]


def test_files_of_an_earlier_push_go_and_those_of_others_stay(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    for number in (1, 2):
        (folder / f"model-0000{number}-of-00002.safetensors").write_bytes(weights(number))
    (folder / "model.safetensors.index.json").write_text("{}")
    (folder / "model.safetensors").unlink()
    push(folder, "alice/shards")
    repo = hub.model("alice/shards")
    files = repo.at("main").files
    repo.commit("refs/heads/main", {**files, "curves.png": files["README.md"]}, "a picture", "", "alice")
    for path in folder.glob("model*"):
        path.unlink()
    write_run(folder)
    answer = push(folder, "alice/shards")
    assert answer["removed"] == [
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json",
    ]  # fmt: skip
    assert holds(repo, folder) and "curves.png" in texts(repo) and len(repo.history("main")) == 4


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("config.json", f'{{"token": "{SECRET}"}}', "a secret (hf_Ab1...)"),
        ("run.json", "ghp_" + "x" * 36, "a secret (ghp_xx...)"),
        ("tokenizer_config.json", f'{{"key": "{WRITE}"}}', "your Hub token"),
        ("chat_template.jinja", "-----BEGIN RSA PRIVATE KEY-----", "a secret"),
        ("config.json", '{"wandb_api_key": "' + "0a" * 20 + '"}', "a secret"),
        ("config.json", '{"aws_secret_access_key": "' + "aB/+" * 10 + '"}', "a secret"),
        ("chat_template.jinja", "see https://anna:hunter2@example.org/rows", "a secret (https:...)"),
        ("tokenizer_config.json", '{"npm": "npm_' + "a1" * 18 + '"}', "a secret (npm_a1...)"),
        ("curves.png", "\x89PNG AKIA" + "A" * 16, "a secret (AKIAAA...)"),
        ("model.safetensors", weights(0, note=SECRET).decode("latin-1"), "a secret (hf_Ab1...)"),
        (
            "config.json",
            '{"_name_or_path": "/home/anna/projects/base"}',
            "a path of a machine (/home/anna/projects/base)",
        ),
        ("config.json", '{"from": "/kaggle/working/base"}', "a path of a machine (/kaggle/working/base)"),
        ("config.json", '{"from": "/content/drive/MyDrive/base"}', "a path of a machine (/content/drive/MyDrive/base)"),
        ("config.json", '{"from": "/data/anna/base"}', "a path of a machine (/data/anna/base)"),
        ("config.json", '{"from": "file:///home/anna/base"}', "(file:///home/anna/base)"),
        ("config.json", '{"from": "~/secret/base"}', "(~/secret/base)"),
        ("config.json", '{"from": "/content/x.csv"}', "(/content/x.csv)"),
        ("config.json", '{"from": "/data/x.csv"}', "(/data/x.csv)"),
        ("config.json", '{"from": "cache_dir:/home/anna/x"}', "(/home/anna/x)"),
        ("config.json", '{"from": "/nfs/anna/x"}', "(/nfs/anna/x)"),
        ("config.json", json.dumps({"from": "D:\\models\\x"}), "a path of a machine"),
        ("chat_template.jinja", "D:\\models\\x", "(D:\\models\\x)"),
        ("config.json", json.dumps({"from": "\\\\nas\\share\\x"}), "a path of a machine"),
        ("chat_template.jinja", "\\\\server\\share\\x", "a path of a machine"),
        ("config.json", '{"token": "' + "0a" * 20 + '"}', "a secret"),
        ("config.json", '{"client_secret": "' + "aB3d" * 10 + '"}', "a secret"),
        ("config.json", '{"wandb_key": "' + "0a" * 20 + '"}', "a secret"),
        ("config.json", '{"x": "hf_oauth_' + "aB3-" * 8 + '"}', "a secret (hf_oau...)"),
        ("config.json", '{"x": "hf_jwt_' + "aB3." * 8 + '"}', "a secret (hf_jwt...)"),
        (
            "config.json",
            '{"x": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"}',
            "(eyJhbG...)",
        ),
        ("generation_config.json", r'{"from": "C:\\Users\\anna\\base"}', "a path of a machine"),
        ("model.safetensors", weights(0, source="/root/base").decode("latin-1"), "a path of a machine (/root/base)"),
        ("config.json", '{"auto_map": {"AutoModel": "own.Model"}}', "auto_map"),
        ("model.safetensors", "\x80\x02}q\x00.", "not a safetensors file"),
    ],
)
def test_secrets_paths_and_code_are_not_published(hub, push, tmp_path, name, text, says):
    folder = write_run(tmp_path / "run")
    if name == "run.json":
        record = json.loads((folder / name).read_text())
        text = json.dumps(record | {"settings": {"api_key": text}})
    (folder / name).write_bytes(text.encode("latin-1"))
    before = len(hub.log)
    answer = push(folder, "alice/secrets")
    assert answer["kind"] == "UserError" and name in answer["error"] and says in answer["error"]
    assert SECRET not in answer["error"] and hub.log[before:] == []


def test_what_only_looks_like_a_secret_or_a_path_is_published(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    said = "GET /data/{id}, yes/no, /content, 0a" + "0a" * 19 + ", https://example.org:8080/a@b, password: none, 3/4"
    said += ", Q:\nIt\nis, ~3/4, https://example.org/data/x.csv, token: none, \\\\alpha, /data/, a token:\n" + "x" * 41
    (folder / "run.json").write_text(json.dumps(record | {"settings": {"prompt": said}}))
    push(folder, "alice/prose")
    assert said in json.loads(texts(hub.model("alice/prose"))["run.json"])["settings"]["prompt"]


def test_what_comes_with_the_package_holds_no_secret_and_no_path():
    root = Path(samples.__file__).parent.parent
    files = [file for place in (root / "samples").glob("*/config.json") for file in place.parent.iterdir()]
    files += [file for file in (root.parent / "model_cards").iterdir() if file.suffix != ".jsonl"]
    assert len(files) > 25
    for file in files:
        secrets.check(file.name, file, file.parent)


def test_a_folder_whose_loaders_would_be_misled_is_not_published(push, tmp_path):
    both = write_run(tmp_path / "both")
    (both / "adapter_model.safetensors").write_bytes(weights(1.0))
    assert "an adapter beside model.safetensors" in push(both, "alice/misled")["error"]
    bare = write_run(tmp_path / "bare")
    (bare / "config.json").unlink()
    assert "without its config.json" in push(bare, "alice/misled")["error"]


def test_a_base_that_only_this_machine_has_is_refused_before_training(tmp_path, checkpoint_folders):
    run = RunConfig(output_dir=str(tmp_path / "run"), model=str(checkpoint_folders("bert")), push_to="alice/head")
    for method in (FeatureExtraction(), Lora()):
        with pytest.raises(UserError, match="--push_base"):
            launch.start(run, method)


def test_a_license_is_asked_for_before_training(tmp_path, checkpoint_folders):
    """And that of a base that is one's own run is the one it states."""
    folder = str(tmp_path / "run")
    with pytest.raises(UserError, match="--license free is not an identifier"):
        launch.start(RunConfig(output_dir=folder, license="free"), FromScratch())
    with pytest.raises(UserError, match="the license is not known; give --license"):
        launch.start(RunConfig(output_dir=folder, push_to="alice/pretrained"), FromScratch())
    base = tmp_path / "base"
    shutil.copytree(checkpoint_folders("bert"), base)
    facts = json.loads((write_run(tmp_path / "facts", license="cc-by-nc-4.0") / "run.json").read_text())
    (base / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match="--license mit: the base model is under cc-by-nc-4.0"):
        base_model.family_of(RunConfig(output_dir=folder, model=str(base), license="mit"))


def test_a_link_is_not_followed(push, tmp_path):
    folder = write_run(tmp_path / "run")
    (tmp_path / "elsewhere").write_text("private")
    (folder / "vocab.txt").symlink_to(tmp_path / "elsewhere")
    assert "vocab.txt is a link" in push(folder, "alice/link")["error"]


def test_who_may_not_write_there_is_told_so_before_anything_is_sent(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    cases = [(READ, "alice/x", "may only read"), (None, "alice/x", "`hf auth login`"), ("hf_old", "alice/x", "(401")]
    cases += [(FINE, "alice/x", "may not write to alice/x; give it the right to write to repositories of alice")]
    for token, repo, says in cases:
        pusher = Pusher(hub.url, token, tmp_path / "home")
        answer = pusher(folder, repo)
        pusher.close()
        assert answer["kind"] == "UserError" and says in answer["error"], answer
    for repo, says in [
        ("bob/x", "give a name under alice or acme"),
        ("x", "alice/x"),
        ("alice/a b", "'alice/a b' is not a name"),
        ("alice/../x", "is not a name"),
    ]:
        answer = push(folder, repo)
        assert answer["kind"] == "UserError" and says in answer["error"], answer
    assert ("model", "alice/x") not in hub.repos
    push(folder, "acme/theirs")
    assert holds(hub.model("acme/theirs"), folder)
    pusher = Pusher(hub.url, FINE, tmp_path / "home")
    assert "error" not in pusher(folder, "acme/fine")
    pusher.close()
    assert holds(hub.model("acme/fine"), folder)


def test_a_name_that_another_model_has_is_refused(hub, push, tmp_path):
    push(write_run(tmp_path / "run"), "alice/taken")
    repo = hub.model("alice/taken")
    files = {path: file for path, file in repo.at("main").files.items() if path != commits.SENT}
    taken = repo.commit("refs/heads/main", files, "somebody's", "", "alice")
    answer = push(tmp_path / "run", "alice/taken")
    assert "(config.json, model.safetensors)" in answer["error"] and repo.at("main") is taken


def test_a_license_must_be_known_and_allowed(push, tmp_path):
    base = {"id": "bert-base", "source": "local", "model_type": "bert", "license": "cc-by-sa-4.0"}
    folder = write_run(tmp_path / "run", license=None)
    assert "give --license" in push(folder, "alice/license")["error"]
    assert "not an identifier" in push(folder, "alice/license", license="my own")["error"]
    folder = write_run(tmp_path / "run", license="mit", base=base)
    assert "which what is made from it must keep" in push(folder, "alice/license")["error"]


def test_the_license_that_is_given_counts_then_the_runs_then_the_bases(hub, push, tmp_path):
    base = {"id": "bert-base", "source": "local", "model_type": "bert", "license": "apache-2.0"}
    for own, given, expected in (("mit", "cc-by-4.0", "cc-by-4.0"), ("mit", None, "mit"), (None, None, "apache-2.0")):
        folder, name = write_run(tmp_path / expected, license=own, base=base), f"alice/license-{expected}"
        assert "error" not in push(folder, name, license=given)
        files = texts(hub.model(name))
        assert yaml.safe_load(files["README.md"].decode().split("---")[1])["license"] == expected
        assert json.loads(files["run.json"])["license"] == expected


def test_a_base_published_on_the_way_keeps_its_own_license(hub, push, tmp_path):
    base = write_run(tmp_path / "base", license="cc-by-nc-4.0")
    folder = adapter_run(tmp_path / "run", base, "local")
    answer = push(folder, "alice/relabelled", push_base="alice/nc-base")
    assert "--license mit: the base model is under cc-by-nc-4.0" in answer["error"], answer
    assert not {("model", "alice/nc-base"), ("model", "alice/relabelled")} & hub.repos.keys()
    assert "error" not in push(folder, "alice/relabelled", push_base="alice/nc-base", license="cc-by-nc-4.0")
    for name in ("nc-base", "relabelled"):
        assert hub.model(f"alice/{name}").private
        assert (
            yaml.safe_load(texts(hub.model(f"alice/{name}"))["README.md"].decode().split("---")[1])["license"]
            == "cc-by-nc-4.0"
        )


def test_a_published_copy_of_an_embedded_base_stays_a_demonstration(hub, push, tmp_path):
    folder = adapter_run(tmp_path / "run", samples.checkpoint("bert"), "local")
    facts = json.loads((folder / "run.json").read_text())
    facts["base"] |= {"id": "tiny:bert", "source": "embedded"}
    (folder / "run.json").write_text(json.dumps(facts))
    answer = push(folder, "alice/demo", push_base="alice/demo-base", license="other", load_back=False)
    assert "error" not in answer, answer
    for name in ("demo", "demo-base"):
        text = texts(hub.model(f"alice/{name}"))["README.md"].decode()
        assert "This is a demonstration" in text and "DialogSum (CC BY-NC-SA 4.0)" in text, name
    there = RunRecord.from_facts(json.loads(texts(hub.model("alice/demo"))["run.json"]))
    assert there.base.source == "hub" and "This is a demonstration" in card.render(there, "alice/demo")
    # A card that is there stays, and says it, once, too.
    theirs = "---\nlicense: other\n---\n\n# My base\n\nWords of its owner.\n"
    repo = hub.model("alice/demo-base")
    files = repo.at("main").files
    files = files | {"README.md": type(files["README.md"])(theirs.encode())}
    repo.commit("refs/heads/main", files, "edit", "", "alice")
    assert "error" not in push(folder, "alice/demo", push_base="alice/demo-base", license="other", load_back=False)
    text = texts(hub.model("alice/demo-base"))["README.md"].decode()
    assert text.startswith(theirs) and text.count("This is a demonstration") == text.count("DialogSum") == 1
    again = push(folder, "alice/demo", push_base="alice/demo-base", license="other", load_back=False)
    assert "error" not in again and texts(hub.model("alice/demo-base"))["README.md"].decode() == text
    own = adapter_run(tmp_path / "own", write_run(tmp_path / "base"), "local")
    assert "error" not in push(own, "alice/own", push_base="alice/own-base", load_back=False)
    for name in ("own", "own-base"):
        assert "demonstration" not in texts(hub.model(f"alice/{name}"))["README.md"].decode(), name


def test_branch_tag_and_pull_request(hub, push, tmp_path):
    push(write_run(tmp_path / "run"), "alice/refs")
    repo = hub.model("alice/refs")
    main = repo.at("main").id
    pull = push(write_run(tmp_path / "run", 1), "alice/refs", create_pr=True)
    assert pull["pull_request"] == 1 and holds(repo, tmp_path / "run", "refs/pr/1")
    pull = push(write_run(tmp_path / "run", 2), "alice/refs", create_pr=True)
    assert pull["pull_request"] == 1 and holds(repo, tmp_path / "run", "refs/pr/1") and len(repo.discussions) == 1
    push(tmp_path / "run", "alice/refs", revision="dev", tag="v1")
    assert holds(repo, tmp_path / "run", "v1") and repo.refs["refs/heads/dev"] == repo.refs["refs/tags/v1"]
    answer = push(write_run(tmp_path / "run", 3), "alice/refs", revision="dev", tag="v1")
    assert "--tag v1" in answer["error"] and holds(repo, write_run(tmp_path / "run", 2), "dev")
    assert repo.at("main").id == main
    push(tmp_path / "run", "alice/branch-of-a-new-one", revision="dev")
    elsewhere = hub.model("alice/branch-of-a-new-one")
    assert holds(elsewhere, tmp_path / "run", "dev")
    asks = 'from_pretrained("alice/branch-of-a-new-one", revision="dev")'
    assert asks in texts(elsewhere, "dev")["README.md"].decode(), "main has no model to load"


def test_a_base_that_only_this_machine_has(hub, push, tmp_path):
    base = tmp_path / "secret-client"
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "bert"}')
    (base / "model.safetensors").write_bytes(weights(7))
    folder = adapter_run(tmp_path / "run", base, "local")
    answer = push(folder, "alice/adapter")
    assert (
        all(way in answer["error"] for way in ("--push_base", "--merge", "--model"))
        and str(base) not in answer["error"]
    )
    assert "--push_base" in push(adapter_run(tmp_path / "tiny", "tiny:bert", "embedded"), "alice/adapter")["error"]
    assert ("model", "alice/adapter") not in hub.repos

    answer = push(folder, "alice/adapter", push_base="alice/base")
    published, adapter = hub.model("alice/base"), hub.model("alice/adapter")
    config = json.loads(texts(adapter)["adapter_config.json"])
    assert config == {"base_model_name_or_path": "alice/base", "revision": published.at("main").id}
    assert texts(published)["model.safetensors"] == weights(7)
    head = yaml.safe_load(texts(adapter)["README.md"].decode().split("---")[1])
    assert (head["base_model"], head["base_model_relation"]) == ("alice/base", "adapter")
    assert not any(str(tmp_path).encode() in text for text in [*texts(adapter).values(), *texts(published).values()])
    again = push(folder, "alice/adapter", push_base="alice/base")
    assert again["sent"] == [] and len(published.history("main")) == 2
    dry = push(folder, "alice/adapter", push_base="alice/base", dry_run=True)
    assert dry["sent"] == [] == dry["base"]["sent"] and dry["revision"] == again["revision"], dry["said"]
    assert "alice/base is there; main holds all of it:" in dry["said"]
    assert any(re.fullmatch(r" +unchanged +model.safetensors \([\d,]+ bytes\)", line) for line in dry["said"])

    merged = adapter_run(tmp_path / "merged", base, "local", kind="merged")
    push(merged, "alice/merged")
    assert holds(hub.model("alice/merged"), merged)
    assert not any(path.startswith("adapter") for path in texts(hub.model("alice/merged")))
    assert "adapter/" not in texts(hub.model("alice/merged"))["README.md"].decode()
    other = adapter_run(tmp_path / "other", "alice/base", "hub")
    (other / "adapter_config.json").write_text('{"base_model_name_or_path": "alice/another", "revision": null}')
    answer = push(other, "alice/other")
    assert "names the base alice/another, and run.json alice/base" in answer["error"], answer
    facts = json.loads((other / "run.json").read_text())
    facts["base"]["revision"] = published.at("main").id
    (other / "run.json").write_text(json.dumps(facts))
    own = '{"base_model_name_or_path": "alice/base", "revision": "%s"}'
    (other / "adapter_config.json").write_text(own % ("0" * 40))
    refused = push(other, "alice/other")["error"]
    assert f"names revision {'0' * 40} of the base alice/base, and run.json" in refused
    (other / "adapter_config.json").write_text('{"base_model_name_or_path": "alice/base", "revision": null}')
    push(other, "alice/pinned")
    assert json.loads(texts(hub.model("alice/pinned"))["adapter_config.json"]) == json.loads(
        own % published.at("main").id
    ), "PEFT would load what main has by then"
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    answer = push(folder, "alice/other", push_base="alice/empty")
    assert "no weights in safetensors" in answer["error"] and ("model", "alice/empty") not in hub.repos
    gone = push(adapter_run(tmp_path / "run", "alice/no-such-base", "hub"), "alice/other")
    assert "alice/no-such-base is not on the Hub" in gone["error"] and ("model", "alice/other") not in hub.repos


HEADS = """
import json, sys
from pathlib import Path
import numpy as np, torch, transformers
import tl_hub
from tl_hub import publishing
from tl_hub.errors import UserError
folder, base, facts = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
texts, classes = ["The Danube flows.", "The Danube ends.", "The Nile flows.", "The Nile ends."] * 2, [0, 1, 0, 1] * 2
def refused(call, words):
    try:
        call()
    except UserError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
def same(one, other):
    np.testing.assert_allclose(one.predict_proba(texts), other.predict_proba(texts), atol=1e-6)
    np.testing.assert_allclose(one.embed(texts), other.embed(texts), atol=1e-5)
def run(name, model, source):
    facts["base"] |= {"id": model.settings["base"]["id"], "source": source}
    model.save_pretrained(folder / name)
    (folder / name / "README.md").unlink()
    (folder / name / "run.json").write_text(json.dumps(facts))
    return folder / name
options = {"layer": "1", "pooling": "mean", "cv": 2, "max_length": 64, "doc_stride": 16, "bf16": False}
local = tl_hub.FeatureClassifier(base, **options).fit(texts, classes).model_
refused(lambda: local.push_to_hub("alice/refused"), "is a local folder")
refused(lambda: publishing.publish(run("local", local, "local"), "alice/head"), "--push_base")
publishing.publish(folder / "local", "alice/head", push_base="alice/head-base")
there = tl_hub.FeatureModel.from_pretrained("alice/head")
same(there, local)
assert there.settings["base"]["id"] == "alice/head-base" and "path" not in there.settings["base"]
there.push_to_hub("alice/mixin", private=True)
same(tl_hub.FeatureModel.from_pretrained("alice/mixin"), local)
embedded = tl_hub.FeatureClassifier("tiny:bert", **options).fit(texts, classes).model_
publishing.publish(run("tiny", embedded, "embedded"), "alice/tiny-head", load_back=False)
same(tl_hub.FeatureModel.from_pretrained("alice/tiny-head"), embedded)
publishing.publish(folder / "tiny", "alice/tiny-head", push_base="alice/tiny-bert", load_back=False)
there = tl_hub.FeatureModel.from_pretrained("alice/tiny-head")
assert there.settings["base"]["id"] == "alice/tiny-bert", there.settings["base"]
same(there, embedded)
# The base's main branch goes on; the head keeps to its own revision, and refuses what stands there now.
other = transformers.AutoModel.from_pretrained(base)
with torch.no_grad():
    other.encoder.layer[0].output.dense.bias[0] += 1e-3
other.push_to_hub("alice/head-base")
same(tl_hub.FeatureModel.from_pretrained("alice/head"), local)
other.save_pretrained(folder / "other")
refused(lambda: tl_hub.FeatureModel.from_pretrained("alice/head", base=folder / "other"), "its head is of no use")
refused(lambda: tl_hub.FeatureModel.from_pretrained("alice/head-base"), "holds no FeatureModel")
print("all")
"""


def test_a_head_on_frozen_vectors_is_loaded_with_the_base_it_was_trained_on(hub, checkpoint_folders, tmp_path):
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    own |= {"HF_HOME": str(tmp_path / "home"), "TL_HUB_CACHE": str(tmp_path / "cache")}
    facts = json.loads((write_run(tmp_path / "facts") / "run.json").read_text())
    facts |= {"kind": "feature-extraction", "auto_class": "FeatureModel", "method": {"name": "feature extraction"}}
    facts["base"] = {"model_type": "bert", "license": "apache-2.0"}
    arguments = [str(tmp_path), str(checkpoint_folders("bert")), json.dumps(facts)]
    process = subprocess.run(
        [sys.executable, "-c", HEADS, *arguments],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert process.stdout.endswith("all\n"), process.stderr
    assert {"head.safetensors", "config.json", "tokenizer.json", "run.json"} <= set(texts(hub.model("alice/head")))
    assert "model.safetensors" not in texts(hub.model("alice/head")), "the base is not in it"
    assert {"head.safetensors", "config.json", "README.md"} <= set(texts(hub.model("alice/mixin")))
    assert ("model", "alice/refused") not in hub.repos
    for name in ("head", "head-base", "mixin", "tiny-head", "tiny-bert"):
        assert not any(str(tmp_path).encode() in text for text in texts(hub.model(f"alice/{name}")).values()), name


def test_a_model_that_comes_back_as_another_is_undone(hub, push, tmp_path, checkpoints):
    """A real model with its probe: first right, then with weights that are not those the probe was made with."""
    model, tokenizer = checkpoints("bert", "AutoModelForSequenceClassification")
    loaded = {"loaded_by": ["transformers"], "max_difference": 0.0}
    folder = write_run(tmp_path / "run", verification=loaded)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    verification.write_probe(folder, model, dict(tokenizer("The Danube ends in the Black Sea.", return_tensors="pt")))
    answer = push(folder, "alice/real", load_back=True)
    repo = hub.model("alice/real")
    assert answer["verification"]["max_difference"] == 0 and run_folder.PROBE not in texts(repo)
    right = texts(repo)
    model.classifier.weight.data.mul_(2)
    model.save_pretrained(folder)
    record = RunRecord.load(folder)
    replace(record, verification=None).save(folder)
    answer = push(folder, "alice/real", load_back=True)
    assert answer["kind"] == "Mismatch" and "classifier.weight" in answer["error"] and len(repo.history("main")) == 2
    record.save(folder)  # as of a folder that was loaded back before its weights were changed
    answer = push(folder, "alice/real", tag="v1", load_back=True)
    assert answer["kind"] == "RunStopped" and "classifier.weight" in answer["error"] and "undone" in answer["error"]
    assert texts(repo) == right and len(repo.history("main")) == 4 and "refs/tags/v1" not in repo.refs
    # As after a push that was killed before it could look: the next one finds nothing to send, and a wrong model.
    assert "error" not in push(folder, "alice/real")
    answer = push(folder, "alice/real", load_back=True)
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
        end = time.monotonic() + 30
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


def test_a_card_merged_twice_is_the_same(tmp_path):
    """Or a push whose answer was lost would find a difference, and commit again."""
    first = card.render(RunRecord.load(write_run(tmp_path / "run")), "alice/x")
    second = card.render(RunRecord.load(write_run(tmp_path / "run", 1)), "alice/x")
    for there in (
        first,
        second,
        first.replace("## Results", "## Mine"),
        "# Hello\n\ntext",
        "---\ntags: [x]\n---\n\nhi",
    ):
        merged, _ = card.merge(second, there)
        assert card.merge(second, merged) == (merged, [])


def test_a_recipe_publishes_at_its_end_or_says_how_to_later(hub, recipe, tmp_path):
    """What can be known before training is said before it; what fails after it leaves the run folder as it is."""
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    own["HF_HOME"] = str(tmp_path / "home")
    folder = tmp_path / "run"
    flags = ["--output_dir", str(folder), "--push_to", "alice/recipe"]
    for refused, says in (
        (recipe("sentiment_adapter", *flags, **own), "--push_base"),
        (recipe("sentiment_finetune", *flags, **own), "give --license"),
    ):
        assert refused.returncode == 2 and says in refused.stderr and not folder.exists(), refused.stderr
    hub.fail("POST .*/commit/", 403, count=1)
    rows = ["--train_rows", "16", "--validation_rows", "8", "--test_rows", "8"]
    few = ["--license", "mit", "--max_steps", "2", *rows]
    run = recipe("sentiment_finetune", *flags, *few, "--public", "--push_revision", "dev", "--tag", "v1", **own)
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr
    said, command = run.stderr.splitlines()[-1].split("later: ")
    assert command == f"tl-hub push {folder} alice/recipe --revision dev --tag v1 --public"
    later = subprocess.run(
        [sys.executable, "-m", "tl_hub.command", *shlex.split(command)[1:]],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert later.returncode == 0 and "loaded back from there by transformers" in later.stdout, later.stderr
    repo, weights = hub.model("alice/recipe"), (folder / "model.safetensors").read_bytes()
    assert texts(repo, "dev")["model.safetensors"] == weights == texts(repo, "v1")["model.safetensors"]
    assert "model.safetensors" not in texts(repo) and not repo.private

    other = ["--output_dir", str(tmp_path / "other"), *few, "--push_to"]
    for asked, says in (
        (["alice/recipe", "--tag", "v1"], "--tag v1: alice/recipe has that tag"),
        (["bob/none", "--create_pr"], "bob/none does not exist"),
    ):
        refused = recipe("sentiment_finetune", *other, *asked, **own)
        assert refused.returncode == 2 and says in refused.stderr and not (tmp_path / "other").exists(), refused.stderr
    proposed = recipe("sentiment_finetune", *other, "alice/recipe", "--create_pr", **own)
    assert proposed.returncode == 0 and "/discussions/1 at " in proposed.stdout, proposed.stderr
    assert "model.safetensors" in texts(repo, "refs/pr/1") and "model.safetensors" not in texts(repo)


def test_a_run_pushed_after_each_epoch_is_finished_on_another_machine(hub, recipe, checkpoint_folders, tmp_path):
    """With the same weights, bit for bit, as a run that nothing interrupted. A push that fails stops no training."""
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    rows = ["--train_rows", "32", "--validation_rows", "8", "--test_rows", "8", "--batch_size", "8", "--license", "mit"]
    flags = ["--model", str(checkpoint_folders("bert")), *rows, "--epochs", "6"]
    pushed = [*flags, "--push_to", "alice/away", "--push_every", "2"]
    whole, here, there = (tmp_path / name for name in ("whole", "here", "there"))
    assert recipe("sentiment_finetune", *flags, "--output_dir", str(whole)).returncode == 0

    hub.fail("POST .*/commit/", 403, count=1)
    with open(tmp_path / "shown.txt", "w") as shown:
        process = subprocess.Popen(
            [sys.executable, "recipes/sentiment_finetune.py", *pushed, "--output_dir", str(here)],
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **own, "HF_HOME": str(tmp_path / "home")},
            stdout=shown,
            stderr=subprocess.STDOUT,
        )
        try:
            for _ in range(6000):
                repo = hub.repos.get(("model", "alice/away"))
                state = texts(repo, "training-state") if repo and repo.ref("training-state") else {}
                if process.poll() is not None or "checkpoint/history.json" in state:
                    break
                time.sleep(0.02)
        finally:
            process.kill()
            process.wait()
    said = (tmp_path / "shown.txt").read_text()
    assert "epoch 2 is not published: send to alice/away: the token may not do this" in said, said
    assert process.returncode == -9, said
    repo = hub.model("alice/away")
    assert repo.private and "model.safetensors" in texts(repo) and not any("checkpoint" in name for name in texts(repo))
    (figure, *_) = json.loads(texts(repo)["run.json"])["metrics"]
    assert figure["split"] == "validation" and figure["rows"] == 8
    state = texts(repo, "training-state")
    kinds = {".json", ".jsonl", ".md", ".safetensors", ".txt"}
    assert {Path(name).suffix for name in state if name != ".gitattributes"} <= kinds, sorted(state)

    resumed = recipe("sentiment_finetune", *pushed, "--output_dir", str(there), "--resume", "hub:alice/away", **own)
    assert resumed.returncode == 0, resumed.stderr
    assert (there / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert texts(repo)["model.safetensors"] == (whole / "model.safetensors").read_bytes()
    assert [json.loads(line)["step"] for line in (there / "log.jsonl").read_text().splitlines()] == list(range(1, 25))
    assert repo.ref("training-state") is None, "a complete run needs it no more"

    hub.repos["model", "alice/open"] = public = Repo("alice/open", "model", private=False)
    public.commit("refs/heads/main", {}, "initial commit", "", "alice")
    for flag, says in (
        (["--resume", "hub:alice/away"], "alice/away holds no training state"),
        (["--push_to", "alice/open", "--push_every", "1"], "alice/open is public, and a training state is not"),
    ):
        refused = recipe("sentiment_finetune", *flags, *flag, "--output_dir", str(tmp_path / "none"), **own)
        assert refused.returncode == 2 and says in refused.stderr, refused.stderr
        assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The reference Hub, which speaks Xet, in a thread of this process."""
    if not (REFERENCE / "refhub.py").is_file():
        pytest.skip(f"the reference Hub {REFERENCE} is not on this machine")
    pytest.importorskip("lz4", reason="the reference Hub needs lz4: pip install -e '.[test]'")
    sys.path.insert(0, str(REFERENCE))
    try:
        from refhub import RefHub
    finally:
        sys.path.remove(str(REFERENCE))
    server = RefHub()
    for each in server.socks:
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or each answer waits 40 ms for its body
    with server:
        yield server


UPLOADS = {
    "lfs": {"batch": r"POST .*/objects/batch", "put": r"PUT /"},
    "xet": {"token": r"GET .*/xet-write-token/", "xorb": r"POST /_cas/v1/xorbs/", "shard": r"POST /_cas/v1/shards"},
}


@pytest.mark.parametrize("path", UPLOADS)
def test_both_upload_paths_to_the_reference_hub(reference, tmp_path, path):
    """What a path uploads by fails in every way, and all else that a push asks in passing: 55 and 74 times."""
    environment = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms", "HF_XET_CLIENT_READ_TIMEOUT": "1s"}
    environment["HF_HUB_DISABLE_XET"] = "0" if path == "xet" else "1"
    pusher = Pusher(reference.url, "hf_alice_write", tmp_path / "home", **environment)
    name, uploads = f"alice/{path}", UPLOADS[path]
    asked = ("whoami", "rights", "refs", "tree", "sent", "card", "validate", "preupload", "commit", "tag")
    cases = [(route, what, "before", 1) for route in uploads for what in (*PASSING, *PERMANENT)]
    cases += [(route, "drop", "after", 1) for route in (*uploads, "commit")]
    cases += [(route, what, "before", -1) for route in (*uploads, "commit") for what in (503, "drop")]
    cases += [(route, what, "before", 1) for route in asked for what in (503, "drop")]
    cases += [(route, "delay", "before", 1) for route in uploads if path == "xet"]
    try:
        assert "error" not in pusher(write_run(tmp_path / "run"), name, collection="Mine")
        kept = [
            item["id"]
            for each in reference.hub.collections.values()
            if each["title"] == "Mine"
            for item in each["items"]
        ]
        assert kept.count(name) == 1
        repo = reference.hub.repos["model", name]
        for number, (route, what, phase, count) in enumerate(random.Random(1).sample(cases, len(cases)), start=1):
            folder = write_run(tmp_path / "run", number + (path == "lfs") / 2)  # what is there is not sent again
            before, tag = repo.refs["refs/heads/main"], f"v{number}"
            pattern = uploads[route] if route in uploads else ROUTES[route][0]
            reference.fault(route=pattern, status=what, phase=phase, count=count, delay=2)
            answer = pusher(folder, name, tag=tag)
            case = f"{number}: {route} {what} {phase} {count}: {answer}"
            assert reference.hub.faults[0]["hits"], f"the fault did not come about, {case}"
            reference.clear_faults()
            assert ("error" in answer) == (count < 0 or what in PERMANENT), case
            if "error" in answer:
                assert answer["kind"] == ("UserError" if what in PERMANENT else "RunStopped"), case
                assert "\n" not in answer["error"] and repo.refs["refs/heads/main"] == before, case
                answer = pusher(folder, name, tag=tag)
                assert "error" not in answer, f"the same command again, {case}: {answer}"
            pushed = repo.commits[repo.refs["refs/heads/main"]]
            files = {place: reference.hub.content(blob) for place, blob in pushed.tree.items()}
            assert is_run(files, folder) and pushed.parent == before, f"one commit and no more, {case}"
            assert pushed.oid == answer["revision"] == repo.refs[f"refs/tags/{tag}"], case
            assert bool(pushed.tree["model.safetensors"].xet) == (path == "xet"), case
    finally:
        pusher.close()


@pytest.mark.parametrize("what", [403, 503, "drop"])
def test_a_download_by_xet_that_fails_is_one_line(reference, tmp_path, what):
    """After the commit, when what was sent is looked at again. The same command then finishes."""
    environment = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms", "HF_XET_CLIENT_READ_TIMEOUT": "1s"}
    pusher = Pusher(reference.url, "hf_alice_write", tmp_path / "home", HF_HUB_DISABLE_XET="0", **environment)
    folder, name = write_run(tmp_path / "run", 7.5), f"alice/down-{what}"
    try:
        reference.fault(route=r"GET .*/reconstructions/", status=what, phase="before", count=-1)
        answer = pusher(folder, name)
        assert reference.hub.faults[0]["hits"], "the fault came about"
        assert answer["kind"] == ("UserError" if what == 403 else "RunStopped") and "\n" not in answer["error"], answer
        reference.clear_faults()
        assert "error" not in pusher(folder, name)
    finally:
        reference.clear_faults()
        pusher.close()
