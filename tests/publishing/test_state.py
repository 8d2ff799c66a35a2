"""What is asked of a repository that holds no whole run: a training state, or somebody else's files."""

from tests.publishing.runs import texts, write_run

SCRIPT = """
import sys
import tl_hub
from tl_hub.errors import UserError
from tl_hub.publishing.state import push_state
call, *arguments = sys.argv[1:]
try:
    {"push_state": push_state, "pipeline": tl_hub.pipeline}[call](*arguments)
except UserError as error:
    print(error)
"""


def test_a_training_state_is_not_sent_to_a_repository_that_all_can_see(hub, push, run_script, tmp_path):
    """Its owner may have opened it since the run began."""
    folder = write_run(tmp_path / "run")
    push(folder, "alice/opened")
    repo = hub.model("alice/opened")
    repo.private = False
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "history.json").write_text("{}")
    (tmp_path / "ask.py").write_text(SCRIPT)
    said = run_script(tmp_path / "ask.py", "push_state", str(folder), "alice/opened")
    assert "alice/opened is public, and a training state is not for everybody" in said.stdout, said.stderr
    assert repo.ref("training-state") is None
    (folder / "vocab.txt").symlink_to("/etc/hostname")
    said = run_script(tmp_path / "ask.py", "push_state", str(folder), "alice/opened")
    assert "vocab.txt is a link; put the file itself there" in said.stdout, said.stderr
    (folder / "vocab.txt").unlink()
    repo.private = True
    said = run_script(tmp_path / "ask.py", "push_state", str(folder), "alice/opened")
    assert said.stdout == "" and "checkpoint/history.json" in texts(repo, "training-state"), said.stderr


def test_a_repository_that_is_of_no_run_is_told_and_not_waited_for(hub, push, run_script, tmp_path):
    """It holds files that nobody asks for, which are not missing."""
    push(write_run(tmp_path / "run"), "alice/somebodys")
    repo = hub.model("alice/somebodys")
    files = {path: file for path, file in repo.at("main").files.items() if path in ("config.json", ".gitattributes")}
    repo.commit("refs/heads/main", files, "somebody's", "", "alice")
    (tmp_path / "ask.py").write_text(SCRIPT)
    said = run_script(tmp_path / "ask.py", "pipeline", "alice/somebodys")
    assert "alice/somebodys was not published from a run folder" in said.stdout, said.stderr
