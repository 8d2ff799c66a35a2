"""Nothing that is published holds a secret, a path of a machine, or code to be run."""

import json
from pathlib import Path

import pytest

from tests.hub_server import WRITE
from tests.publishing.runs import SECRET, texts, weights, write_run
from tl_hub import samples
from tl_hub.publishing import secrets


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("config.json", f'{{"token": "{SECRET}"}}', "a secret (hf_Ab1...)"),
        ("run.json", "ghp_" + "x" * 36, "a secret (ghp_xx...)"),
        ("tokenizer_config.json", f'{{"key": "{WRITE}"}}', "your Hub token"),
        ("chat_template.jinja", "-----BEGIN RSA PRIVATE KEY-----", "a secret"),
        ("config.json", '{"wandb_api_key": "' + "0a" * 20 + '"}', "a secret"),
        ("config.json", '{"aws_secret_access_key": "' + "aB/+" * 10 + '"}', "a secret"),
        ("chat_template.jinja", "see https://anna:hunter2@example.org/rows", "a secret (https:...)"),
        ("tokenizer_config.json", '{"npm": "npm_' + "a1" * 18 + '"}', "a secret (npm_a1...)"),
        ("curves.png", "\x89PNG AKIA" + "A" * 16, "a secret (AKIAAA...)"),
        ("model.safetensors", weights(0, note=SECRET).decode("latin-1"), "a secret (hf_Ab1...)"),
        (
            "config.json",
            '{"_name_or_path": "/home/anna/projects/base"}',
            "a path of a machine (/home/anna/projects/base)",
        ),
        ("config.json", '{"from": "/kaggle/working/base"}', "a path of a machine (/kaggle/working/base)"),
        ("config.json", '{"from": "/content/drive/MyDrive/base"}', "a path of a machine (/content/drive/MyDrive/base)"),
        ("config.json", '{"from": "/data/anna/base"}', "a path of a machine (/data/anna/base)"),
        ("config.json", '{"from": "file:///home/anna/base"}', "(file:///home/anna/base)"),
        ("config.json", '{"from": "~/secret/base"}', "(~/secret/base)"),
        ("config.json", '{"from": "/content/x.csv"}', "(/content/x.csv)"),
        ("config.json", '{"from": "/data/x.csv"}', "(/data/x.csv)"),
        ("config.json", '{"from": "cache_dir:/home/anna/x"}', "(/home/anna/x)"),
        ("config.json", '{"from": "/nfs/anna/x"}', "(/nfs/anna/x)"),
        ("config.json", json.dumps({"from": "D:\\models\\x"}), "a path of a machine"),
        ("chat_template.jinja", "D:\\models\\x", "(D:\\models\\x)"),
        ("config.json", json.dumps({"from": "\\\\nas\\share\\x"}), "a path of a machine"),
        ("chat_template.jinja", "\\\\server\\share\\x", "a path of a machine"),
        ("config.json", '{"token": "' + "0a" * 20 + '"}', "a secret"),
        ("config.json", '{"client_secret": "' + "aB3d" * 10 + '"}', "a secret"),
        ("config.json", '{"wandb_key": "' + "0a" * 20 + '"}', "a secret"),
        ("config.json", '{"x": "hf_oauth_' + "aB3-" * 8 + '"}', "a secret (hf_oau...)"),
        ("config.json", '{"x": "hf_jwt_' + "aB3." * 8 + '"}', "a secret (hf_jwt...)"),
        (
            "config.json",
            '{"x": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"}',
            "(eyJhbG...)",
        ),
        ("generation_config.json", r'{"from": "C:\\Users\\anna\\base"}', "a path of a machine"),
        ("model.safetensors", weights(0, source="/root/base").decode("latin-1"), "a path of a machine (/root/base)"),
        ("config.json", '{"auto_map": {"AutoModel": "own.Model"}}', "auto_map"),
        ("model.safetensors", "\x80\x02}q\x00.", "not a safetensors file"),
    ],
)
def test_secrets_paths_and_code_are_not_published(hub, push, tmp_path, name, text, says):
    folder = write_run(tmp_path / "run")
    if name == "run.json":
        record = json.loads((folder / name).read_text())
        text = json.dumps(record | {"settings": {"api_key": text}})
    (folder / name).write_bytes(text.encode("latin-1"))
    before = len(hub.log)
    answer = push(folder, "alice/secrets")
    assert answer["kind"] == "UserError" and name in answer["error"] and says in answer["error"]
    assert SECRET not in answer["error"] and hub.log[before:] == []


def test_what_only_looks_like_a_secret_or_a_path_is_published(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    record = json.loads((folder / "run.json").read_text())
    said = "GET /data/{id}, yes/no, /content, 0a" + "0a" * 19 + ", https://example.org:8080/a@b, password: none, 3/4"
    said += ", Q:\nIt\nis, ~3/4, https://example.org/data/x.csv, token: none, \\\\alpha, /data/, a token:\n" + "x" * 41
    (folder / "run.json").write_text(json.dumps(record | {"settings": {"prompt": said}}))
    push(folder, "alice/prose")
    assert said in json.loads(texts(hub.model("alice/prose"))["run.json"])["settings"]["prompt"]


def test_what_comes_with_the_package_holds_no_secret_and_no_path():
    root = Path(samples.__file__).parent.parent
    files = [file for place in (root / "samples").glob("*/config.json") for file in place.parent.iterdir()]
    files += [file for file in (root.parent / "model_cards").iterdir() if file.suffix != ".jsonl"]
    assert len(files) > 25
    for file in files:
        secrets.check(file.name, file, file.parent)
