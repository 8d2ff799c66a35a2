"""The steps of a push as a user meets them."""

import re

import yaml

from tests.hub_server import File, Repo
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
        "notebook.ipynb",
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
    push(write_run(tmp_path / "run", 4), "alice/wet", revision="apart")
    told = push(folder, "alice/wet", dry_run=True, revision="apart")
    assert told["sent"] == [] and "alice/wet is there; apart holds all of it:" in told["said"], "not what main holds"
    push(write_run(tmp_path / "run", 1), "alice/wet", tag="v1")
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
    repo.discussions[0]["status"] = "closed"
    pull = push(tmp_path / "run", "alice/refs", create_pr=True)
    assert pull["pull_request"] == 2 and holds(repo, tmp_path / "run", "refs/pr/2"), "what was closed is not opened"
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
    assert yaml.safe_load(text.split("---")[1])["tags"] == ["tl-hub", "fine-tuning", "mine"]
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


def test_a_figure_on_a_benchmark_stands_where_its_leaderboard_looks_and_no_other(hub, push, tmp_path):
    """The server takes no result without a source, or on a data set whose eval.yaml lacks the task."""
    hub.repos["dataset", "alice/bench"] = data = Repo("alice/bench", "dataset", private=False)
    tasks = "name: Bench\ntasks:\n- {id: hard, config: x, split: test}\n- {id: plain, split: test}\n"
    data.commit("refs/heads/main", {"eval.yaml": File(tasks.encode())}, "", "", "alice")
    hub.repos["dataset", "alice/rows"] = rows = Repo("alice/rows", "dataset", private=False)
    rows.commit("refs/heads/main", {}, "", "", "alice")
    for kind, content in (("deep", b"tasks: " + b"[" * 3000), ("binary", b"\x00\xff\xfe")):
        hub.repos["dataset", f"alice/{kind}"] = strange = Repo(f"alice/{kind}", "dataset", private=False)
        strange.commit("refs/heads/main", {"eval.yaml": File(content)}, "", "", "alice")
    name, path = "alice/measured", ".eval_results/alice-bench.yaml"
    of_bench = {"data": {"id": "alice/bench", "source": "hub"}}
    push(write_run(tmp_path / "run", **of_bench, settings={"dataset_config": "x"}), name)
    (entry,) = yaml.safe_load(texts(hub.model(name))[path])
    assert entry["dataset"]["task_id"] == "hard" and entry["value"] == 50
    assert entry["source"]["url"] == f"{hub.url}/{name}/blob/main/run.json"
    head = yaml.safe_load(texts(hub.model(name))["README.md"].decode().split("---")[1])
    assert head["model-index"][0]["results"][0]["dataset"]["config"] == "x"
    for changes in (
        of_bench | {"settings": {"dataset_config": "y"}},
        of_bench | {"settings": {"test_rows": 10}},
        {"data": {"id": "alice/rows", "source": "hub"}},
        *({"data": {"id": f"alice/{id}", "source": "hub"}} for id in ("none", "deep", "binary")),
    ):
        answer = push(write_run(tmp_path / "run", **changes), name)
        assert "error" not in answer, answer
        assert not any(path.startswith(".eval_results") for path in texts(hub.model(name))), changes
    push(write_run(tmp_path / "run", **of_bench), name)
    assert yaml.safe_load(texts(hub.model(name))[path])[0]["dataset"]["task_id"] == "plain"


def test_a_license_that_the_hub_does_not_list_has_a_name_and_its_text(hub, push, tmp_path):
    folder, terms = write_run(tmp_path / "run", license="other"), tmp_path / "terms.txt"
    terms.write_text("Be kind.")
    answer = push(folder, "alice/kind")
    assert any(note.startswith("license terms: other comes without license_name") for note in answer["notes"])
    asked = {"license": "other", "license_name": "kind-1.0", "license_link": str(terms)}
    assert "error" not in push(folder, "alice/kind", **asked)
    files = texts(hub.model("alice/kind"))
    head = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert files["LICENSE"] == b"Be kind." and not (folder / "LICENSE").exists()
    assert (head["license"], head["license_name"], head["license_link"]) == ("other", "kind-1.0", "LICENSE")
    assert "neither a URL nor a file" in push(folder, "alice/kind", **asked | {"license_link": "none.txt"})["error"]


def test_a_card_that_the_hub_would_refuse_is_not_sent(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "README.md").write_text("---\nthumbnail: [a.png]\nlanguage: pt-BR\n---\n")
    before = sum("commit" in line for line in hub.log)
    answer = push(folder, "alice/refused")
    assert answer["kind"] == "UserError" and "would refuse the card" in answer["error"], answer
    assert "thumbnail: ['a.png'] is not a text" in answer["error"] and "pt-BR" in answer["error"]
    assert sum("commit" in line for line in hub.log) == before
