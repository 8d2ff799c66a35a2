"""The steps of a push as a user meets them."""

import re

import yaml

from tests.publishing.runs import SECRET, holds, texts, write_run
from tl_hub import card
from tl_hub.publishing import commits
from tl_hub.record import RunRecord


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
