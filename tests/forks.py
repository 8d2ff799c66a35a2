"""Processes in which torch is imported already: forks of one that has imported it, and has done nothing else.

What a recipe costs in a process of its own is the import above all. A fork has a state of its own as that has, may end
with any exit code, and be killed.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

ROOT = Path(__file__).parent.parent

STACK = [
    "accelerate", "datasets", "peft", "torch", "transformers", "transformers.models.bert.modeling_bert",
    "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.metrics", "sklearn.neural_network",
    "tl_hub.data", "tl_hub.evaluation", "tl_hub.finish", "tl_hub.load_back", "tl_hub.training",
]  # fmt: skip
"""All that recipes import; huggingface_hub is among it, so that all forks have the Hub of their server."""
UNDER_THE_STACK = [
    "torch", "torch._dynamo", "torch.distributed.tensor", "scipy.stats", "scipy.optimize", "sklearn.linear_model",
    "sklearn.metrics", "sklearn.neural_network", "pandas", "pyarrow",
]  # fmt: skip
"""What takes longest of it, without huggingface_hub, which reads its environment when it is imported: each fork imports
the rest, which takes two seconds, and has a Hub of its own."""

SERVER = """
import gc
gc.disable()
import importlib, json, os, runpy, sys, traceback

def prepare(modules):
    gc.disable()
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # or a fork that collects garbage would copy all that is imported
    gc.enable()

prepare(sys.argv[1:])

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
    for number, name in enumerate([os.devnull, asked["name"] + ".out", asked["name"] + ".err"]):
        os.dup2(os.open(name, os.O_CREAT | os.O_RDWR), number)
    os.environ.update(asked["environment"])
    if asked["here"] != "none":
        from tl_hub import verification
        check, verification.check = verification.check, check_here
    sys.argv = [asked["script"], *asked["arguments"]]
    sys.path[0] = os.path.dirname(asked["script"])
    runpy.run_path(asked["script"], run_name="__main__")

def note(what, number):
    with open(asked["name"] + ".new", "w") as file:
        file.write(str(number))
    os.rename(file.name, asked["name"] + "." + what)

def serve(lines):
    global asked
    for line in lines:
        asked = json.loads(line)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass  # what has ended is no zombie
        except ChildProcessError:
            pass
        if os.fork():
            continue
        if "modules" in asked:
            become_server()
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
        note("pid", child)
        note("code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(0)

def become_server():
    own = asked
    os.dup2(os.open(own["name"] + ".txt", os.O_CREAT | os.O_WRONLY), 2)
    os.environ.update(own["environment"])
    try:
        prepare(own["modules"])
        with open(own["name"] + ".in") as lines:
            serve(lines)
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    open(own["name"] + ".ended", "w").close()
    os._exit(0)

serve(sys.stdin)
"""


class Fork:
    """A script in a fork, which goes on while other things are done."""

    def __init__(self, forks: "Forks", path: Path, words: list[str]):
        self.forks, self.path, self.words = forks, path, words
        self.pid = self._number("pid")

    def has_ended(self) -> bool:
        return self.path.with_suffix(".code").exists()

    def end(self) -> subprocess.CompletedProcess[str]:
        """What it gave, once it has ended."""
        code = self._number("code")
        said = (self.path.with_suffix(f".{name}").read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(self.words, code, *said)

    def _number(self, what: str) -> int:
        file = self.path.with_suffix(f".{what}")
        given_up = time.monotonic() + 600
        while not file.exists():
            assert not self.forks.have_ended(), self.forks.errors.read_text()
            assert time.monotonic() < given_up, f"{self.words} go on and on"
            time.sleep(0.01)
        return int(file.read_text())


class Forks:
    """Runs scripts, such as recipes, in forks of one process, which has this environment and these modules.

    Args:
        under: its process has some of the modules, and is forked to import the others.
    """

    def __init__(self, folder: Path, modules: list[str], under: "Forks | None" = None, **environment: str):
        folder.mkdir(exist_ok=True)
        self.folder, self.count = folder, 0
        self.errors, self.ended = folder / "server.txt", folder / "server.ended"
        self.server: subprocess.Popen[str] | None = None
        if under:
            os.mkfifo(folder / "server.in")
            self.asked: IO[str] = os.fdopen(os.open(folder / "server.in", os.O_RDWR), "w")  # it need not read yet
            under.ask(modules=modules, environment=environment, name=str(folder / "server"))
            return
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER, *modules],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
        )
        assert self.server.stdin
        self.asked = self.server.stdin

    def ask(self, **asked: object) -> None:
        self.asked.write(json.dumps(asked) + "\n")
        self.asked.flush()

    def have_ended(self) -> bool:
        return self.server.poll() is not None if self.server else self.ended.exists()

    def __call__(
        self,
        script: Path | str,
        *arguments: object,
        here: Literal["none", "folders", "all"] = "folders",
        kill_when: Callable[[], bool] | None = None,
        sent: signal.Signals = signal.SIGKILL,
        processes: int = 1,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        """What a script, or a recipe by its name, gives in a fork.

        Args:
            here: what is loaded back in the fork itself, instead of in a fresh process, which imports torch anew: run
                folders, or what was pushed too.
            kill_when: says when the fork is `sent` a signal.
            processes: as many forks are the processes of one run, as a launcher starts them.
        """
        if processes > 1:
            environment |= _run_of(processes)
        ranks = [{"RANK": str(i), "LOCAL_RANK": str(i)} if processes > 1 else {} for i in range(processes)]
        started = [self.start(script, *arguments, here=here, **environment, **rank) for rank in ranks]
        if kill_when:
            while not (ended := started[0].has_ended()) and not kill_when():
                time.sleep(0.02)
            if not ended:
                os.kill(started[0].pid, sent)
        ended_all = [fork.end() for fork in started]
        return subprocess.CompletedProcess(
            started[0].words,
            next((done.returncode for done in ended_all if done.returncode), 0),
            "".join(done.stdout for done in ended_all),
            "".join(done.stderr for done in ended_all),
        )

    def start(
        self,
        script: Path | str,
        *arguments: object,
        here: Literal["none", "folders", "all"] = "folders",
        **environment: str,
    ) -> Fork:
        """The same, of which one need not wait for the end."""
        self.count += 1
        name = self.folder / str(self.count)
        path = str(ROOT / "recipes" / f"{script}.py") if isinstance(script, str) else str(script)
        words = [path, *map(str, arguments)]
        self.ask(script=path, arguments=words[1:], here=here, environment=environment, name=str(name))
        return Fork(self, name, words)

    def code(self, text: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same of a script of this text."""
        path = self.folder / f"{self.count}.py"
        path.write_text(text)
        return self(path, *arguments, **options)

    def close(self) -> None:
        """End the process that forks, by the end of what it is asked, or at once."""
        if self.server:
            self.server.kill()
            self.server.communicate()
        self.asked.close()


def _run_of(processes: int) -> dict[str, str]:
    """The environment by which so many processes on this machine find each other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    count = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    return {**count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
