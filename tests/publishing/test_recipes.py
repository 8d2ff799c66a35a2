"""Recipes publish, and go on from what they published."""

import json
import shlex
from pathlib import Path

from tests.hub_server import Repo
from tests.publishing.runs import COMMAND, texts


def test_a_recipe_publishes_at_its_end_or_says_how_to_later(hub, run_script, checkpoint_folders, tmp_path):
    """What can be known before training is said before it; what fails after it leaves the run folder as it is."""
    folder = tmp_path / "run"
    flags = ["--output_dir", str(folder), "--push_to", "alice/recipe"]
    for refused, says in (
        (run_script("sentiment_adapter", *flags), "--push_base"),
        (run_script("sentiment_finetune", *flags, "--model", str(checkpoint_folders("bert"))), "give --license"),
        (run_script("sentiment_finetune", *flags, "--license", "mit"), "the base model is under other"),
    ):
        assert refused.returncode == 2 and says in refused.stderr and not folder.exists(), refused.stderr
    hub.fail("POST .*/commit/", 403, count=1)
    rows = ["--train_rows", "16", "--validation_rows", "8", "--test_rows", "8"]
    few = ["--max_steps", "2", *rows]
    run = run_script("sentiment_finetune", *flags, *few, "--public", "--push_revision", "dev", "--tag", "v1")
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr
    said, command = run.stderr.splitlines()[-1].split("to try again: ")
    assert command == f"tl-hub push {folder} alice/recipe --revision dev --tag v1 --public"
    later = run_script(COMMAND, *shlex.split(command)[1:], here="all")
    assert later.returncode == 0 and "loaded back from there by transformers" in later.stdout, later.stderr
    repo, weights = hub.model("alice/recipe"), (folder / "model.safetensors").read_bytes()
    assert texts(repo, "dev")["model.safetensors"] == weights == texts(repo, "v1")["model.safetensors"]
    assert "model.safetensors" not in texts(repo) and not repo.private

    other = ["--output_dir", str(tmp_path / "other"), *few, "--push_to"]
    for asked, says in (
        (["alice/recipe", "--tag", "v1"], "--tag v1: alice/recipe has that tag"),
        (["bob/none", "--create_pr"], "bob/none does not exist"),
    ):
        refused = run_script("sentiment_finetune", *other, *asked)
        assert refused.returncode == 2 and says in refused.stderr and not (tmp_path / "other").exists(), refused.stderr
    proposed = run_script("sentiment_finetune", *other, "alice/recipe", "--create_pr", here="all")
    assert proposed.returncode == 0 and "/discussions/1 at " in proposed.stdout, proposed.stderr
    assert "model.safetensors" in texts(repo, "refs/pr/1") and "model.safetensors" not in texts(repo)


def test_a_run_pushed_after_each_epoch_is_finished_on_another_machine(hub, run_script, checkpoint_folders, tmp_path):
    """With the same weights, bit for bit, as a run that nothing interrupted. A push that fails stops no training."""
    rows = ["--train_rows", "32", "--validation_rows", "8", "--test_rows", "8", "--batch_size", "8", "--license", "mit"]
    flags = ["--model", str(checkpoint_folders("bert")), *rows, "--epochs", "6"]
    pushed = [*flags, "--push_to", "alice/away", "--push_every", "2"]
    whole, here, there = (tmp_path / name for name in ("whole", "here", "there"))
    assert run_script("sentiment_finetune", *flags, "--output_dir", str(whole)).returncode == 0

    hub.fail("POST .*/commit/", 403, count=1)

    def state_is_sent() -> bool:
        repo = hub.repos.get(("model", "alice/away"))
        return bool(repo and repo.ref("training-state")) and "checkpoint/history.json" in texts(repo, "training-state")

    killed = run_script("sentiment_finetune", *pushed, "--output_dir", str(here), kill_when=state_is_sent)
    said = killed.stdout + killed.stderr
    assert "epoch 2 was not published: send to alice/away: the token may not do this" in said, said
    assert killed.returncode == -9, said
    repo = hub.model("alice/away")
    assert repo.private and "model.safetensors" in texts(repo) and not any("checkpoint" in name for name in texts(repo))
    (figure, *_) = json.loads(texts(repo)["run.json"])["metrics"]
    assert figure["split"] == "validation" and figure["rows"] == 8
    state = texts(repo, "training-state")
    kinds = {".json", ".jsonl", ".md", ".safetensors", ".txt"}
    assert {Path(name).suffix for name in state if name != ".gitattributes"} <= kinds, sorted(state)

    resume = ["--output_dir", str(there), "--resume", "hub:alice/away"]
    resumed = run_script("sentiment_finetune", *pushed, *resume, here="all")
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
        refused = run_script("sentiment_finetune", *flags, *flag, "--output_dir", str(tmp_path / "none"))
        assert refused.returncode == 2 and says in refused.stderr, refused.stderr
        assert not (tmp_path / "none").exists()
