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
from typing import Any, Literal

ROOT = Path(__file__).parent.parent

STACK = [
    "accelerate", "datasets", "peft", "torch", "transformers", "transformers.models.bert.modeling_bert",
    "tl_hub.evaluation", "tl_hub.load_back",
]  # fmt: skip
"""All that recipes import; huggingface_hub is among it, so that all forks have the Hub of their server."""
UNDER_THE_STACK = [
    "torch", "torch._dynamo", "torch.distributed.tensor", "scipy.stats", "scipy.optimize", "sklearn.linear_model",
    "sklearn.metrics", "sklearn.neural_network", "pandas", "pyarrow",
]  # fmt: skip
"""What takes longest of it, without huggingface_hub, which reads its environment when it is imported."""

SERVER = """
import gc
gc.disable()
import importlib, json, os, runpy, sys, traceback

for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # or a fork that collects garbage would copy all that is imported
gc.enable()

def check_here(folder, offline=True, *, snippets=True, repo=None, revision=None, cache=None):
    if repo and asked["here"] != "all":
        return check(folder, offline, snippets=snippets, repo=repo, revision=revision, cache=cache)
    from tl_hub import load_back
    before = os.getcwd()
    os.chdir(folder)
    report = load_back.report(snippets, *([repo, revision] if repo else []))
    os.chdir(before)
    if "error" in report:
        raise verification.Mismatch(f"load-back of {repo or folder} failed: {report['error']}", exit_code=1)
    return report

def work():
    global check, verification
    for number, name in enumerate([os.devnull, asked["out"], asked["err"]]):
        os.dup2(os.open(name, os.O_CREAT | os.O_RDWR), number)
    os.environ.update(asked["environment"])
    if asked["here"] != "none":
        from tl_hub import verification
        check, verification.check = verification.check, check_here
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
    """Runs scripts, such as recipes, in forks of one process, which has this environment and these modules."""

    def __init__(self, folder: Path, modules: list[str], **environment: str):
        folder.mkdir(exist_ok=True)
        self.folder, self.count = folder, 0
        self.errors = folder / "server.txt"
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *modules],
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
        *arguments: object,
        here: Literal["none", "folders", "all"] = "folders",
        kill_when: Callable[[], bool] | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """What a script, or a recipe by its name, gives in a fork.

        Args:
            here: what is loaded back in the fork itself, instead of in a fresh process, which imports torch anew: run
                folders, or what was pushed too.
            kill_when: says when the fork is killed.
        """
        assert self.server.stdin
        self.count += 1
        out, err = (self.folder / f"{self.count}.{name}" for name in ("out", "err"))
        path = str(ROOT / "recipes" / f"{script}.py") if isinstance(script, str) else str(script)
        asked = {"script": path, "arguments": [*map(str, arguments)], "here": here, "environment": environment}
        self.server.stdin.write(json.dumps({**asked, "out": str(out), "err": str(err)}) + "\n")
        self.server.stdin.flush()
        child = self._answer()
        if kill_when:
            while (alive := Path(f"/proc/{child}").exists()) and not kill_when():
                time.sleep(0.02)
            if alive:
                os.kill(child, signal.SIGKILL)
        code = self._answer()
        return subprocess.CompletedProcess([path, *map(str, arguments)], code, out.read_text(), err.read_text())

    def code(self, text: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same of a script of this text."""
        path = self.folder / f"{self.count}.py"
        path.write_text(text)
        return self(path, *arguments, **options)

    def _answer(self) -> int:
        assert self.server.stdout
        line = self.server.stdout.readline()
        assert line, self.errors.read_text()
        return int(line)

    def close(self) -> None:
        self.server.kill()
        self.server.communicate()
