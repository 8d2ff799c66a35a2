"""Processes in which torch is imported already: forks of one that has imported it, and has done nothing else.

What a recipe costs in a process of its own is the import above all. A fork has a state of its own as that has, may end
with any exit code, and be killed.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent

SERVER = """
import json, os, runpy, sys, traceback
import accelerate, datasets, peft, torch, transformers
import transformers.models.bert.modeling_bert
from tl_hub import evaluation, load_back, verification  # of which the former imports all that recipes do
from tl_hub.record import RunRecord

check = verification.check

def check_here(folder, offline=True, *, snippets=True, repo=None, revision=None, cache=None):
    if repo and not asked["all_here"]:
        return check(folder, offline, snippets=snippets, repo=repo, revision=revision, cache=cache)
    before = os.getcwd()
    os.chdir(folder)
    report = load_back.load_and_compare(RunRecord.load("."), snippets, *([repo, revision] if repo else []))
    os.chdir(before)
    if "error" in report:
        raise verification.Mismatch(report["error"], exit_code=1)
    return report

def work():
    for number, name in enumerate([os.devnull, asked["out"], asked["err"]]):
        os.dup2(os.open(name, os.O_CREAT | os.O_RDWR), number)
    os.environ.update(asked["environment"])
    verification.check = check_here
    sys.argv = [asked["script"], *asked["arguments"]]
    sys.path[0] = os.path.dirname(asked["script"])
    runpy.run_path(asked["script"], run_name="__main__")

for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Forks:
    """Runs scripts, such as recipes, in forks of one process, which has this environment.

    A run folder is loaded back in the fork itself, for which any other process would import torch anew. What was
    pushed is loaded back in a fresh process as ever, but with `all_here`.
    """

    def __init__(self, folder: Path, **environment: str):
        folder.mkdir(exist_ok=True)
        self.folder, self.count = folder, 0
        self.errors = folder / "server.txt"
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
        )

    def __call__(
        self,
        script: Path | str,
        *arguments: str,
        all_here: bool = False,
        kill_when: Callable[[], bool] | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """What a script gives in a fork, which is killed as soon as `kill_when` says so."""
        assert self.server.stdin
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        path = str(ROOT / "recipes" / f"{script}.py") if isinstance(script, str) else str(script)
        asked = {"script": path, "arguments": arguments, "all_here": all_here, "environment": environment}
        self.server.stdin.write(json.dumps({**asked, "out": str(out), "err": str(err)}) + "\n")
        self.server.stdin.flush()
        child = self._answer()
        if kill_when:
            while (alive := Path(f"/proc/{child}").exists()) and not kill_when():
                time.sleep(0.02)
            if alive:
                os.kill(child, signal.SIGKILL)
        code = self._answer()
        return subprocess.CompletedProcess([path, *arguments], code, out.read_text(), err.read_text())

    def _answer(self) -> int:
        assert self.server.stdout
        line = self.server.stdout.readline()
        assert line, self.errors.read_text()
        return int(line)

    def close(self) -> None:
        self.server.kill()
        self.server.communicate()
