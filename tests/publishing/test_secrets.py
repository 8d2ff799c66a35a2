"""Nothing that is published holds a secret, a path of a machine, or code to be run."""

import json
import re
from pathlib import Path

import pytest

from tests.hub_server import WRITE
from tests.publishing.runs import SECRET, texts, weights, write_run
from tl_hub import samples, sensitive
from tl_hub.errors import UserError
from tl_hub.publishing import secrets
from tools import secret_forms, secret_rules


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
        ("config.json", '{"from": "/var/lib/anna/x"}', "(/var/lib/anna/x)"),
        ("config.json", '{"from": "/etc/tl_hub/x.yaml"}', "(/etc/tl_hub/x.yaml)"),
        ("config.json", '{"from": "/app/models/base"}', "(/app/models/base)"),
        ("config.json", '{"from": "/export/home/anna"}', "(/export/home/anna)"),
        ("config.json", '{"from": "s3://anna-private/base"}', "(s3://anna-private/base)"),
        ("config.json", '{"from": "gs://anna/base"}', "(gs://anna/base)"),
        ("config.json", '{"from": "hdfs://node:8020/user/anna"}', "(hdfs://node:8020/user/anna)"),
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


def test_the_run_folders_own_place_is_not_published_wherever_it_is():
    content, folder = b'{"from": "/u/anna/runs/base"}', Path("/u/anna/runs")
    with pytest.raises(UserError, match=r"config.json holds a path of a machine \(/u/anna/runs\)"):
        secrets.check("config.json", content, folder)
    secrets.check("config.json", content, Path("/u/berta/runs"))  # "/u" may be said of any machine


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


def test_secrets_are_found_wherever_they_stand():
    drawn, lost = secret_forms.forms(), {form for form, _ in secret_forms.missed()}
    assert len(drawn) >= 74 and len(lost) <= 0.05 * len(drawn), lost


def test_in_a_long_text_the_same_is_found_as_by_reading_all_of_it():
    """Far from the beginning, at its end, between letters that take two when small, and beside other words."""
    prose, code = "The museum is near the river, said İpek. ", "tokens = keys[secret_index] or api.auth\n"
    for form, secret in secret_forms.forms().items():
        for words, put in ((prose, "settings"), (code, "card, bare")):
            text = secret_forms.CHANNELS[put](secret)
            long = f"{words * 600}\n{text}\n{words * (put == 'settings')}"
            assert len(long) > 20_000
            assert (sensitive.secret_in(long) is None) == (sensitive.secret_in(text) is None), (form, put)
    assert sensitive.secret_in(prose * 600) is None and sensitive.secret_in(code * 600) is None


@pytest.mark.parametrize(
    "text",
    [
        "the token embeddings of bert-base-uncased-2018, 768 numbers each",
        "tokens: 128, key: value, the password is 12345678 no more",
        "def forward(self, key=None, token_type_ids=input_ids_2d, password=config.password):",
        "git clone https://github.com/owner/name@v1.2.3",
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "commit 1d6f3a5c9be2478800aa71c2d35e9f604b7c8d12 of tiny:bert",
        "export HF_TOKEN=$HF_TOKEN; python -m tool --token <your token> --password $PASSWORD",
        "api_key = os.environ['WANDB_API_KEY']",
        "https://example.org/a?page=2&token=none",
        "/etc/hosts, an app/data/x, and/or, s3://bucket",
    ],
)
def test_ordinary_text_and_code_is_none(text):
    for put in secret_forms.CHANNELS.values():
        assert sensitive.secret_in(put(text)) is None and not sensitive.PATHS.search(put(text)), put(text)


def test_the_rules_are_read_as_the_detector_reads_them():
    """Flags in the middle of a form hold to the end of their group, brackets in a class are none."""
    assert secret_rules.for_python("a(b(?i)c|d)e") == "a(b(?i:c|d))e"
    assert secret_rules.for_python("x(?i)[)](?-i:y)") == "x(?i:[)](?-i:y))"
    assert re.fullmatch(secret_rules.for_python("a(?i)b[[:alnum:]]"), "aB7")


def test_an_e_mail_address_is_told_and_not_refused(hub, push, tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n\nAsk anna@example.org or b@example.org.")
    notes = push(folder, "alice/mail")["notes"]
    assert (
        "the card holds e-mail addresses, which everybody who sees it can read: anna@example.org, b@example.org"
        in notes
    )
