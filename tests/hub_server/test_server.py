"""The Hub of the tests itself, by the real client and by plain requests."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import READ, WRITE, HubServer

pytestmark = pytest.mark.slow

SESSION = """
import sys
from pathlib import Path
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError, HfHubHTTPError, RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
)
def refused(call, kind, status):
    try:
        call()
    except kind as error:
        assert error.response.status_code == status, error
    else:
        raise AssertionError(f"{kind} {status} was not raised")
api, reader = HfApi(), HfApi(token=sys.argv[1])
first = "---\\nlicense: mit\\npipeline_tag: fill-mask\\ntags: [a]\\n---\\n# One\\n"
for name in ("one", "two", "three"):
    api.create_repo(f"alice/{name}", private=name == "three")
def add(**files):
    return [CommitOperationAdd(path.replace("_", "."), text) for path, text in files.items()]
files = add(README_md=first.encode(), w_safetensors=b"\\0" * 3000)
commit = api.create_commit("alice/one", files, commit_message="m").oid
refused(lambda: api.create_commit("alice/one", add(a_txt=b"x"), commit_message="m", parent_commit="0" * 40),
        HfHubHTTPError, 412)
refused(lambda: reader.create_commit("alice/one", add(a_txt=b"x"), commit_message="m"), HfHubHTTPError, 403)
refused(lambda: reader.create_repo("alice/four"), HfHubHTTPError, 403)
refused(lambda: api.create_repo("bob/four"), HfHubHTTPError, 403)
refused(lambda: api.create_repo("alice/one"), HfHubHTTPError, 409)
refused(lambda: HfApi(token=False).model_info("alice/three"), RepositoryNotFoundError, 401)
refused(lambda: api.model_info("alice/none"), RepositoryNotFoundError, 404)
refused(lambda: api.model_info("alice/one", revision="none"), RevisionNotFoundError, 404)
refused(lambda: hf_hub_download("alice/one", "none"), RemoteEntryNotFoundError, 404)
result = "model-index: [{name: a, results: [{task: {type: b}, dataset: {name: c, type: %s}, metrics: []}]}]"
for head, named in {"base_model: /home/me": "base_model", "language: pt-BR": "language",
                    result % "'sample:qa'": "dataset.type", result % "local files": "dataset.type"}.items():
    try:
        api.create_commit("alice/one", add(README_md=f"---\\n{head}\\n---\\n".encode()), commit_message="m")
    except ValueError as error:
        assert named in str(error), error
    else:
        raise AssertionError(f"a card with {head} was taken")
assert api.model_info("alice/one").sha == commit and api.model_info("alice/one").pipeline_tag == "fill-mask"
api.create_tag("alice/one", tag="v1")
api.create_branch("alice/one", branch="x/y")
api.create_commit("alice/one", [CommitOperationDelete("w.safetensors"), *add(b_txt=b"b")], commit_message="n")
assert {ref.name: ref.target_commit for ref in api.list_repo_refs("alice/one").tags} == {"v1": commit}
assert set(api.list_repo_files("alice/one")) == {".gitattributes", "README.md", "b.txt"}
assert set(api.list_repo_files("alice/one", revision="x/y")) == {".gitattributes", "README.md", "w.safetensors"}
assert [each.title for each in api.list_repo_commits("alice/one")] == ["n", "m", "initial commit"]
(item,) = api.get_paths_info("alice/one", ["w.safetensors", "none"], revision="v1")
assert item.lfs.size == 3000
pull = api.create_commit("alice/one", add(c_txt=b"c"), commit_message="pull", create_pr=True)
assert (pull.pr_num, "c.txt" in api.list_repo_files("alice/one")) == (1, False)
assert "c.txt" in api.list_repo_files("alice/one", revision="refs/pr/1")
api.merge_pull_request("alice/one", 1)
assert "c.txt" in api.list_repo_files("alice/one")
assert {model.id for model in api.list_models(author="alice")} == {"alice/one", "alice/two", "alice/three"}
assert {model.id for model in HfApi(token=False).list_models(author="alice")} == {"alice/one", "alice/two"}
assert [model.id for model in api.list_models(filter=["a", "license:mit"], pipeline_tag="fill-mask")] == ["alice/one"]
assert [model.id for model in api.list_models(search="tw", limit=1)] == ["alice/two"]
api.upload_folder(repo_id="alice/two", folder_path=sys.argv[2])
there = Path(snapshot_download("alice/two"))
sent = Path(sys.argv[2])
names = {path.relative_to(sent).as_posix() for path in sent.rglob("*") if path.is_file()}
assert names <= {path.relative_to(there).as_posix() for path in there.rglob("*") if path.is_file()}
assert all((there / name).read_bytes() == (sent / name).read_bytes() for name in names)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer(page=2) as server:  # small pages, so that every list has several
        yield server


def environment(hub: HubServer, home: Path) -> dict[str, str]:
    own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "*"}
    return {**os.environ, **own, "HF_HOME": str(home)}


def test_the_real_client_finds_what_it_needs(hub, tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "big.bin").write_bytes(os.urandom(3_000_000))
    for name in ("a.txt", "deep/b.txt", "deep/er/c.txt"):
        (folder / name).write_text(name)
    done = subprocess.run(
        [sys.executable, "-c", SESSION, READ, str(folder)],
        env=environment(hub, tmp_path / "home"),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    down = subprocess.run(
        [Path(sys.executable).with_name("hf"), "download", "alice/two", "--local-dir", str(tmp_path / "down")],
        env=environment(hub, tmp_path / "other"),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert down.returncode == 0, down.stderr
    assert (tmp_path / "down" / "big.bin").read_bytes() == (folder / "big.bin").read_bytes()


def test_ranges_etags_and_faults(hub, tmp_path):
    from tests.hub_server import File, Repo

    content = bytes(range(100))
    hub.repos["model", "alice/bytes"] = repo = Repo("alice/bytes", "model", private=False)
    repo.commit("refs/heads/main", {"x.bin": File(content, lfs=True)}, "x", "", "alice")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(**headers: str):
        asked = urllib.request.Request(f"{hub.url}/alice/bytes/resolve/main/x.bin", headers=headers)
        return direct.open(asked, timeout=10)

    with get(Range="bytes=90-") as answer:
        assert (answer.status, answer.read()) == (206, content[90:])
        assert answer.headers["Content-Range"] == "bytes 90-99/100"
        assert answer.headers["X-Linked-Etag"].strip('"') == File(content).sha256
        assert answer.headers["X-Repo-Commit"] == repo.at("main").id
    with get(Range="bytes=3-5") as answer:
        assert answer.read() == content[3:6]
    with pytest.raises(urllib.error.HTTPError, match="416"):
        get(Range="bytes=100-")
    hub.fail("GET .*x.bin", 503, retry_after="3", count=1, skip=1)
    assert get().read() == content
    with pytest.raises(urllib.error.HTTPError) as raised:
        get()
    assert (raised.value.code, raised.value.headers["Retry-After"]) == (503, "3")
    assert get().read() == content
