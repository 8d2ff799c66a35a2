"""A commit is complete or not there at all, whoever else pushes."""

import json
import re
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from tests.hub_server import WRITE
from tests.publishing.runs import Pusher, holds, texts, weights, write_run
from tl_hub.publishing import commits


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


def test_a_tag_that_another_takes_meanwhile_stays_and_is_told(hub, push, tmp_path):
    push(write_run(tmp_path / "run"), "alice/tagged")
    repo = hub.model("alice/tagged")
    theirs = repo.at("main").id
    hub.fail("POST .*/commit/", "slow", seconds=1.0)
    asked, answers = len(hub.log), []
    folder = write_run(tmp_path / "run", 1)
    thread = threading.Thread(target=lambda: answers.append(push(folder, "alice/tagged", tag="v1")))
    thread.start()
    while not any(re.search("POST .*/commit/", line) for line in hub.log[asked:]):
        time.sleep(0.01)
    repo.refs["refs/tags/v1"] = theirs
    thread.join()
    said = answers[0]["error"]
    assert "holds the run at" in said and "the name is taken" in said, said
    assert repo.refs["refs/tags/v1"] == theirs and holds(repo, folder)


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


def test_a_name_that_another_model_has_is_refused(hub, push, tmp_path):
    push(write_run(tmp_path / "run"), "alice/taken")
    repo = hub.model("alice/taken")
    files = {path: file for path, file in repo.at("main").files.items() if path != commits.SENT}
    taken = repo.commit("refs/heads/main", files, "somebody's", "", "alice")
    answer = push(tmp_path / "run", "alice/taken")
    assert "(config.json, model.safetensors)" in answer["error"] and repo.at("main") is taken
