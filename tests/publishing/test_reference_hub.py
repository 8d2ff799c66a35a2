"""Pushes to the reference Hub, by both ways that the client has to upload."""

import random
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.publishing.runs import PASSING, PERMANENT, ROUTES, Pusher, is_run, write_run

REFERENCE = Path(__file__).parents[3] / "shared" / "refhub"


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


@pytest.fixture(scope="module")
def pusher(reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Pusher]]:
    """The process that pushes by a path, of which each test of that path uses the same."""
    pushers: dict[str, Pusher] = {}

    def of(path: str) -> Pusher:
        if path not in pushers:
            environment = {"HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms", "HF_XET_CLIENT_READ_TIMEOUT": "1s"}
            environment["HF_HUB_DISABLE_XET"] = "0" if path == "xet" else "1"
            pushers[path] = Pusher(reference.url, "hf_alice_write", tmp_path_factory.mktemp("home"), **environment)
        return pushers[path]

    yield of
    for each in pushers.values():
        each.close()


@pytest.fixture(autouse=True)
def no_faults_there(reference: Any) -> Iterator[None]:
    yield
    reference.clear_faults()


@pytest.mark.slow
@pytest.mark.parametrize("path", UPLOADS)
def test_both_upload_paths_to_the_reference_hub(reference, pusher, tmp_path, path):
    """What a path uploads by fails in every way, and all else that a push asks in passing: 55 and 74 times."""
    push, name, uploads = pusher(path), f"alice/{path}", UPLOADS[path]
    asked = ("whoami", "rights", "refs", "tree", "sent", "card", "validate", "preupload", "commit", "tag")
    cases = [(route, what, "before", 1) for route in uploads for what in (*PASSING, *PERMANENT)]
    cases += [(route, "drop", "after", 1) for route in (*uploads, "commit")]
    cases += [(route, what, "before", -1) for route in (*uploads, "commit") for what in (503, "drop")]
    cases += [(route, what, "before", 1) for route in asked for what in (503, "drop")]
    cases += [(route, "delay", "before", 1) for route in uploads if path == "xet"]
    assert "error" not in push(write_run(tmp_path / "run"), name, collection="Mine")
    kept = [
        item["id"] for each in reference.hub.collections.values() if each["title"] == "Mine" for item in each["items"]
    ]
    assert kept.count(name) == 1
    repo = reference.hub.repos["model", name]
    for number, (route, what, phase, count) in enumerate(random.Random(1).sample(cases, len(cases)), start=1):
        folder = write_run(tmp_path / "run", number + (path == "lfs") / 2)  # what is there is not sent again
        before, tag = repo.refs["refs/heads/main"], f"v{number}"
        pattern = uploads[route] if route in uploads else ROUTES[route][0]
        reference.fault(route=pattern, status=what, phase=phase, count=count, delay=2)
        answer = push(folder, name, tag=tag)
        case = f"{number}: {route} {what} {phase} {count}: {answer}"
        assert reference.hub.faults[0]["hits"], f"the fault did not come about, {case}"
        reference.clear_faults()
        assert ("error" in answer) == (count < 0 or what in PERMANENT), case
        if "error" in answer:
            assert answer["kind"] == ("UserError" if what in PERMANENT else "RunStopped"), case
            assert "\n" not in answer["error"] and repo.refs["refs/heads/main"] == before, case
            answer = push(folder, name, tag=tag)
            assert "error" not in answer, f"the same command again, {case}: {answer}"
        pushed = repo.commits[repo.refs["refs/heads/main"]]
        files = {place: reference.hub.content(blob) for place, blob in pushed.tree.items()}
        assert is_run(files, folder) and pushed.parent == before, f"one commit and no more, {case}"
        assert pushed.oid == answer["revision"] == repo.refs[f"refs/tags/{tag}"], case
        assert bool(pushed.tree["model.safetensors"].xet) == (path == "xet"), case


@pytest.mark.slow
@pytest.mark.parametrize(("what", "value"), [(403, 100.5), (503, 200.5), ("drop", 300.5)])  # of which none is cached
def test_a_download_by_xet_that_fails_is_one_line(reference, pusher, tmp_path, what, value):
    """After the commit, when what was sent is looked at again. The same command then finishes."""
    push, folder, name = pusher("xet"), write_run(tmp_path / "run", value), f"alice/down-{what}"
    reference.fault(route=r"GET .*/reconstructions/", status=what, phase="before", count=-1)
    answer = push(folder, name)
    assert reference.hub.faults[0]["hits"], "the fault came about"
    assert answer["kind"] == ("UserError" if what == 403 else "RunStopped") and "\n" not in answer["error"], answer
    reference.clear_faults()
    assert "error" not in push(folder, name)
