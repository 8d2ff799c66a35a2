"""Run folders without a real model, a process that pushes them, and what a push asks of the Hub."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.hub_server import Repo

COMMAND = Path(__file__).parents[2] / "tl_hub" / "command.py"
"""What `tl-hub` runs."""
SECRET = "hf_" + "Ab1" * 11


# One process that makes the pushes it is sent, line by line; huggingface_hub reads its environment when it is imported.
# Its own pauses between its own retries cannot be set, so all are cut short.
WORKER = """
import json, os, sys, time
sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))
token = os.environ["HF_TOKEN"]
import tl_hub
from tl_hub import publishing
from tl_hub.errors import RunStopped, UserError
for line in sys.stdin:
    asked, said = {"load_back": False} | json.loads(line), []  # most weights here are of no model
    patience = publishing.Patience(wait=0.01, timeout=asked.pop("timeout", 20))
    os.environ["HF_TOKEN"] = asked.pop("token", token)
    try:
        answer = vars(tl_hub.publish(**asked, patience=patience, say=said.append))
    except (UserError, RunStopped) as error:
        answer = {"error": str(error), "kind": type(error).__name__}
    answer["torch"] = "torch" in sys.modules
    print(json.dumps({**answer, "said": said}, default=vars), flush=True)
"""


def environment(url: str, token: str, home: Path) -> dict[str, str]:
    """Of a process that has to do with a Hub at `url`."""
    return {
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
    }


class Pusher:
    """Calls `tl_hub.publish` in a process of its own, and gives its answer or the message of its error."""

    def __init__(self, url: str, token: str, home: Path, **own: str):
        home.mkdir(exist_ok=True)
        self.errors = home / "errors"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER],
            env={**os.environ, **environment(url, token, home), **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors.open("w"),
            text=True,
        )

    def __call__(self, folder: Path, repo: str, **options: Any) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps({"folder": str(folder), "repo": repo, **options}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        return json.loads(answer) if answer else {"error": "died", "kind": self.errors.read_text()}

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def weights(value: float, **metadata: str) -> bytes:
    facts = {"weight": {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024]}}
    header = json.dumps({"__metadata__": {"format": "pt", **metadata}, **facts}).encode()
    return struct.pack("<Q", len(header)) + header + struct.pack("<f", value) * 256


def write_run(folder: Path, value: float = 0.0, **changes: Any) -> Path:
    """A run folder such as another training loop would leave: a record by hand and a kilobyte of weights."""
    folder.mkdir(exist_ok=True)
    facts = {
        "name": "mine",
        "kind": "fine-tuned",
        "pipeline_tag": "text-classification",
        "auto_class": "AutoModelForSequenceClassification",
        "method": {"name": "fine-tuning"},
        "license": "mit",
        "data": {"id": "rows.csv", "source": "local"},
        "metrics": [{"name": "accuracy", "value": 50 + value, "split": "test", "rows": 100}],
    }
    (folder / "run.json").write_text(json.dumps(facts | changes))
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(weights(value))
    return folder


def adapter_run(folder: Path, base: Path | str, source: str, kind: str = "adapter") -> Path:
    write_run(folder, kind=kind, base={"id": Path(base).name if source == "local" else str(base), "source": source,
                                       "model_type": "bert", "license": "apache-2.0"})  # fmt: skip
    place = folder / "adapter" if kind == "merged" else folder
    place.mkdir(exist_ok=True)
    if kind == "adapter":
        (folder / "config.json").unlink()
        (folder / "model.safetensors").unlink()
    (place / "adapter_model.safetensors").write_bytes(weights(1.0))
    (place / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), "revision": None}))
    return folder


def texts(repo: Repo, revision: str = "main") -> dict[str, bytes]:
    return {path: file.content for path, file in repo.at(revision).files.items()}


def holds(repo: Repo, folder: Path, revision: str = "main") -> bool:
    return is_run(texts(repo, revision), folder)


def is_run(files: dict[str, bytes], folder: Path) -> bool:
    """Whether a repository has the weights, the figures and the card of this run, and of no other."""
    figure = json.loads((folder / "run.json").read_text())["metrics"][0]["value"]
    return (
        files.get("model.safetensors") == (folder / "model.safetensors").read_bytes()
        and json.loads(files["run.json"])["metrics"][0]["value"] == figure
        and f"| {figure:.4g} |" in files["README.md"].decode()
    )


# What a push asks, in its order; `options` bring a route about.
ROUTES = {
    "whoami": (r"GET /api/whoami", {}),
    "exists": (r"GET /api/models/alice/[\w-]+$", {}),
    "rights": (r"GET .*/auth-check", {}),
    "create": (r"POST /api/repos/create", {"new": True}),
    "refs": (r"GET .*/refs", {}),
    "tree": (r"GET .*/tree/", {}),
    "sent": (r"GET /alice/.*/\.tl_hub", {}),
    "card": (r"GET /alice/.*/README", {}),
    "validate": (r"POST /api/validate-yaml", {}),
    "preupload": (r"POST .*/preupload/", {}),
    "batch": (r"POST .*/objects/batch", {}),
    "put": (r"PUT /_lfs/", {}),
    "commit": (r"POST .*/commit/", {}),
    "branch": (r"POST .*/branch/", {"revision": "dev"}),
    "tag": (r"POST .*/tag/", {"tag": "v1"}),
    "pull requests": (r"GET .*/discussions\?", {"create_pr": True}),
    "pull request": (r"POST .*/discussions$", {"create_pr": True}),
    "open": (r"POST .*/status$", {"create_pr": True}),
    "head": (r"HEAD /alice/.*/resolve/", {}),
    "get": (r"GET /alice/.*/model.safetensors", {}),
}


PASSING = (408, 429, 500, 502, 503, 504, "drop")


PERMANENT = (401, 403, 404, 409, 413, 422)
