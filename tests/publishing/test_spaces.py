"""A Space goes to the Hub as models do: in one commit that is complete or not there."""

import json

import yaml

from tests.hub_server import File
from tests.publishing.runs import COMMAND, SECRET, texts, write_run


def test_a_space_is_one_commit_and_its_own_readme_stays(hub, push, run_script, tmp_path):
    push(write_run(tmp_path / "run"), "alice/shown")

    def space(*words):
        done = run_script(COMMAND, "space", *words)
        return done.returncode, done.stdout, done.stderr

    hub.fail(r"POST /api/spaces/alice/demo/commit/", "drop", after=True)
    code, out, error = space("alice/shown", tmp_path / "space", "--push_to", "alice/demo", "--json")
    assert code == 0, error
    repo = hub.repos["space", "alice/demo"]
    there = texts(repo)
    assert repo.private and len(repo.history("main")) == 2, "the answer was lost, the commit was not"
    assert set(there) == {".gitattributes", ".tl_hub.json", "README.md", "app.py", "requirements.txt"}
    commit = hub.model("alice/shown").at("main").id
    assert f'tl_hub.pipeline("alice/shown", revision="{commit}")' in there["app.py"].decode()
    assert yaml.safe_load(there["README.md"].decode().split("---")[1])["models"] == ["alice/shown"]
    assert json.loads(out)["published"]["revision"] == repo.at("main").id
    edited = there["README.md"].replace("🤗".encode(), "🦜".encode())
    repo.commit("refs/heads/main", repo.at("main").files | {"README.md": File(edited)}, "edit", "", "alice")
    code, out, error = space(tmp_path / "run", tmp_path / "space", "--push_to", "alice/demo")
    assert code == 0 and f"{hub.url}/spaces/alice/demo at " in out, error
    now = texts(repo)
    assert now["README.md"] == edited and now["model/model.safetensors"]
    assert b'Path(__file__).parent / "model"' in now["app.py"]

    hub.repos["space", "alice/theirs"] = theirs = type(repo)("alice/theirs", "space", True)
    theirs.commit("refs/heads/main", {"app.py": File(b"own")}, "by hand", "", "alice")
    code, _, error = space("alice/shown", tmp_path / "space", "--push_to", "alice/theirs")
    assert code == 2 and "holds a space that was not published from a run folder (app.py)" in error
    (tmp_path / "run" / "config.json").write_text(json.dumps({"token": SECRET}))
    code, _, error = space(tmp_path / "run", tmp_path / "space", "--push_to", "alice/secret")
    assert code == 2 and "holds what looks like a secret" in error and ("space", "alice/secret") not in hub.repos
    assert space("alice/shown", tmp_path / "space", "--public")[0] == 2
