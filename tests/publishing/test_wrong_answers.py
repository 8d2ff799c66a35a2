"""A proxy's page, nothing, or another file where the Hub's answer should be, and all of it with status 200."""

import json
from typing import Any

import pytest

from tests.hub_server import File, HubServer
from tests.publishing.runs import ROUTES, Pusher, holds, texts, weights, write_run

pytestmark = pytest.mark.slow

BY_HAND = "Written by hand."
WRONG: dict[str, tuple[int | str, dict[str, Any]]] = {
    "a page": (200, {"html": True}),
    "nothing": (200, {"body": b""}),
    "an object": (200, {"body": b"{}"}),
    "a list": (200, {"body": b"[]"}),
    "a word": (200, {"body": b'"login"'}),
    "a list of words": (200, {"body": b'["login"]'}),
    "other bytes": ("other", {}),
}


def with_a_persons_text(hub: HubServer, push: Pusher, folder, name: str):
    push(folder, name)
    repo = hub.model(name)
    files = repo.at("main").files
    readme = files["README.md"].content.replace(b"\n---\n\n", f"\n---\n\n{BY_HAND}\n\n".encode(), 1)
    repo.commit("refs/heads/main", {**files, "README.md": File(readme), "notes.md": File(b"mine")}, "hand", "", "alice")
    return repo


@pytest.mark.parametrize("count", [1, 999])
@pytest.mark.parametrize("route", ROUTES)
def test_a_wrong_answer_loses_nothing_and_is_told_in_a_line(hub, push, tmp_path, route, count):
    name = f"alice/wrong-{route.replace(' ', '-')}-{count}"
    repo = with_a_persons_text(hub, push, write_run(tmp_path / "run"), name)
    by_hand = repo.at("main")
    place = list(ROUTES).index(route)
    for number, (wrong, (what, options)) in enumerate(WRONG.items(), start=1):
        if wrong not in ("a page", "other bytes") and (place + number + count) % 3:
            continue  # all with all take three minutes and have found no more than these
        pattern, asked = ROUTES[route]
        asked = dict(asked)
        goal = f"{name}-{number}" if asked.pop("new", False) else name
        asked |= {key: f"{asked[key]}-{number}" for key in ("revision", "tag") if key in asked}
        folder = write_run(tmp_path / "run", number)
        begin = repo.at("main")
        hub.fail(pattern, what, count=count, **options)
        answer = push(folder, goal, **asked)
        hub.faults.clear()
        case = (route, wrong, count, answer)
        assert answer.get("kind") in (None, "UserError", "RunStopped", "Mismatch"), case
        assert "\n" not in answer.get("error", ""), case
        if repo.at("main") is not begin and "error" in answer:
            assert texts(repo) == {p: f.content for p, f in begin.files.items()} or holds(repo, folder), case
        assert "error" not in push(folder, goal, **asked), case
        for commit in repo.commits.values():
            if commit.date >= by_hand.date:
                assert BY_HAND.encode() in commit.files["README.md"].content, case
                assert b"injected" not in b"".join(file.content for file in commit.files.values()), case
        if "create_pr" in asked:
            repo.discussions[-1]["status"] = "closed"


@pytest.mark.parametrize("wrong", ["a page", "nothing", "other bytes"])
def test_an_undo_commits_what_was_there_and_no_wrong_answer(hub, push, tmp_path, wrong):
    name = f"alice/undo-{wrong.replace(' ', '-')}"
    repo = with_a_persons_text(hub, push, write_run(tmp_path / "run"), name)
    begin, parent = texts(repo), repo.at("main").id
    folder = write_run(tmp_path / "run", 1)
    sent = File((folder / "model.safetensors").read_bytes())
    hub.objects[sent.sha256] = weights(9)  # so that the Hub has another model than was sent
    what, options = WRONG[wrong]
    # The first two are read for the merge, the third and fourth for the undo.
    hub.fail(f"GET .*/resolve/{parent}/", what, count=2, skip=2, **options)
    answer = push(folder, name)
    del hub.objects[sent.sha256]
    assert not hub.faults[0].count
    assert "the commit was undone" in answer["error"] and "as it was before" in answer["error"], answer
    assert texts(repo) == begin and len(repo.history("main")) == 5


def test_an_undo_that_brings_back_another_file_is_told(hub, push, tmp_path):
    """What is in LFS the client copies by the SHA-256 of a second answer."""
    push(write_run(tmp_path / "run"), "alice/undo-other")
    folder = write_run(tmp_path / "run", 1)
    sent = File((folder / "model.safetensors").read_bytes())
    hub.objects[sent.sha256] = weights(9)
    stranger = File(weights(7), lfs=True)
    hub.objects[stranger.sha256] = stranger.content
    listed = json.dumps([stranger.facts("model.safetensors")]).encode()
    hub.fail("POST .*/paths-info/", 200, body=listed, count=2)
    answer = push(folder, "alice/undo-other")
    del hub.objects[sent.sha256]
    assert answer["kind"] == "RunStopped" and "model.safetensors is not as it was before" in answer["error"], answer


def test_a_card_that_is_not_utf_8_is_not_replaced(hub, push, tmp_path):
    repo = with_a_persons_text(hub, push, write_run(tmp_path / "run"), "alice/latin")
    there = repo.at("main").files["README.md"].content.replace(BY_HAND.encode(), "Größe".encode("latin-1"))
    files = {**repo.at("main").files, "README.md": File(there)}
    latin = repo.commit("refs/heads/main", files, "latin", "", "alice")
    answer = push(write_run(tmp_path / "run", 1), "alice/latin")
    assert "README.md of alice/latin is not UTF-8 (byte" in answer["error"] and repo.at("main") is latin
