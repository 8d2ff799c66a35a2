"""Train, publish, verify, download and load, against a Hub on this machine: the whole way without an account."""

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from .server import WRITE, HubServer

LOAD = """\
from transformers import AutoModelForQuestionAnswering
print(type(AutoModelForQuestionAnswering.from_pretrained("alice/qa")).__name__, "was loaded by transformers")
import tl_hub
print(tl_hub.pipeline("alice/qa")(question="Where does the Danube end?", context="The Danube ends in the Black Sea."))
"""


def main() -> None:
    with HubServer() as hub, tempfile.TemporaryDirectory() as folder:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        own |= {"HF_HOME": f"{folder}/home", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        recipe = [
            "recipes/qa_adapter.py",
            "--max_steps",
            "10",
            "--test_rows",
            "40",
            "--output_dir",
            f"{folder}/qa",
        ]
        for command in (
            [*recipe, "--push_to", "alice/qa", "--push_base", "alice/tiny-bert"],
            ["-m", "tl_hub.command", "push", f"{folder}/qa", "alice/qa", "--push_base", "alice/tiny-bert"]
            + ["--tag", "v1"],
            ["-m", "tl_hub.command", "verify", "alice/qa", "--revision", "v1"],
            ["-c", LOAD],
        ):
            print(f"\n$ python {shlex.join(command) if command[0] != '-c' else '...'}", flush=True)
            done = subprocess.run([sys.executable, *command], env={**os.environ, **own}, cwd=Path(__file__).parents[2])
            if done.returncode:
                sys.exit(done.returncode)


if __name__ == "__main__":
    main()
