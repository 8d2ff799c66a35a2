"""Signatures of what is published, against the verifier of OpenSSF's own command."""

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.hub_server import File
from tests.publishing.runs import texts, write_run
from tl_hub import run_folder
from tl_hub.errors import UserError
from tl_hub.publishing import files, signing

PRIVATE = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
PUBLIC = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def pair(folder: Path, name: str, key=None, password: bytes | None = None) -> tuple[Path, Path]:
    key = key or ec.generate_private_key(ec.SECP256R1())
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.key", folder / f"{name}.pem"
    private.write_bytes(key.private_bytes(*PRIVATE, hidden))
    public.write_bytes(key.public_key().public_bytes(*PUBLIC))
    return private, public


@pytest.fixture
def keys(tmp_path):
    return pair(tmp_path, "alice")


@pytest.fixture
def signed(tmp_path, keys):
    """A run folder as it is downloaded: what was signed, the signature, and a card."""
    folder = write_run(tmp_path / "run")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    published = files.matching(folder, run_folder.PUBLISHED) | {".eval_results/mine.yaml": b"- value: 1"}
    for name, content in signing.sign(published, keys[0]).items():
        (folder / name).write_bytes(content)
    (folder / "README.md").write_text("# Mine")
    (folder / "log.jsonl").write_text("{}")  # of the run, and not published
    return folder


def test_what_was_signed_is_verified_by_us_and_by_the_stock_command(signed, keys):
    signing.verify(signed, keys[1])
    (signed / "README.md").write_text("# Edited by a person")
    signing.verify(signed, keys[1])
    stock = [sys.executable, "-m", "model_signing", "verify", "key", str(signed), "--public_key", str(keys[1])]
    stock += ["--signature", str(signed / "model.sig")]
    for ignored in ("README.md", "log.jsonl"):
        stock += ["--ignore-paths", str(signed / ignored)]
    done = subprocess.run(stock, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "model.safetensors").write_bytes(b"other weights"), "changed: model.safetensors"),
        (lambda folder: (folder / "run.json").write_text((folder / "run.json").read_text() + " "), "changed: run.json"),
        (lambda folder: (folder / "1_Pooling" / "config.json").write_text("[]"), "changed: 1_Pooling/config.json"),
        (lambda folder: (folder / "config.json").unlink(), "missing: config.json"),
        (
            lambda folder: (folder / "adapter_model.safetensors").write_bytes(b""),
            "not signed: adapter_model.safetensors",
        ),
        (lambda folder: (folder / "vocab.txt").symlink_to(folder / "run.json"), "not signed: vocab.txt"),
    ],
)
def test_each_change_is_named(signed, keys, change, named):
    change(signed)
    with pytest.raises(UserError, match=rf"is not what the owner of .*alice.pem signed: {named}$") as told:
        signing.verify(signed, keys[1])
    assert "\n" not in str(told.value)


def test_a_signature_of_another_or_none_at_all(signed, keys, tmp_path):
    _, stranger = pair(tmp_path, "mallory")
    with pytest.raises(UserError, match="is not what the owner of .*mallory.pem signed: Key mismatch"):
        signing.verify(signed, stranger)
    whole = (signed / "model.sig").read_text()
    for broken in ("", "{}", whole[: len(whole) // 2]):
        (signed / "model.sig").write_text(broken)
        with pytest.raises(UserError, match=r"is not what the owner of .*alice\.pem signed: "):
            signing.verify(signed, keys[1])
    bundle = json.loads(whole)
    statement = base64.b64decode(bundle["dsseEnvelope"]["payload"]).replace(b"config.json", b"conf1g.json")
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(statement).decode()
    (signed / "model.sig").write_text(json.dumps(bundle))
    with pytest.raises(UserError, match=r"model\.sig of .* is not by the owner of .*alice\.pem"):
        signing.verify(signed, keys[1])
    (signed / "model.sig").unlink()
    with pytest.raises(UserError, match=r"has no model\.sig: it was published without --sign"):
        signing.verify(signed, keys[1])


def test_a_key_that_cannot_sign_is_refused_with_the_command_that_makes_one(keys, tmp_path):
    signing.check_key(keys[0])
    with pytest.raises(UserError, match="no such file; make a pair of keys: openssl ecparam"):
        signing.check_key(tmp_path / "none.key")
    unfit = [
        keys[1],  # the public one
        pair(tmp_path, "rsa", rsa.generate_private_key(65537, 2048))[0],
        pair(tmp_path, "curve", ec.generate_private_key(ec.SECP256K1()))[0],
        pair(tmp_path, "locked", password=b"secret")[0],
        tmp_path,
    ]
    for key in unfit:
        with pytest.raises(UserError, match="is not a private key that signs .*: openssl ecparam") as told:
            signing.check_key(key)
        assert "\n" not in str(told.value)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which the page makes keys with, is not installed")
def test_keys_are_made_as_the_page_says(signed, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "publish.md").read_text()
    for line in re.findall(r"^openssl .*$", page, re.MULTILINE):
        subprocess.run(line.split(), cwd=tmp_path, check=True, capture_output=True)
    published = files.matching(signed, run_folder.PUBLISHED)
    (signed / "model.sig").write_bytes(signing.sign(published, tmp_path / "private.pem")["model.sig"])
    signing.verify(signed, tmp_path / "alice.pem")


def test_a_push_sends_a_signature_that_the_next_one_takes_back(hub, push, keys, tmp_path):
    folder = write_run(tmp_path / "mine")
    answer = push(folder, "alice/signed", sign=str(keys[0]))
    assert "error" not in answer, answer
    repo = hub.model("alice/signed")
    repo.commit("refs/heads/main", {**repo.at("main").files, "notes.md": File(b"by a person")}, "notes", "", "alice")
    there = tmp_path / "there"
    for name, content in texts(repo).items():
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(content)
    signing.verify(there, keys[1])
    (there / "model.safetensors").write_bytes((there / "model.safetensors").read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match=r"model\.safetensors"):
        signing.verify(there, keys[1])
    assert "error" not in push(folder, "alice/signed")
    assert "model.sig" not in texts(repo), "it would not fit what an unsigned push sends"


def test_a_push_with_an_unfit_key_sends_nothing(hub, push, keys, tmp_path):
    answer = push(write_run(tmp_path / "mine"), "alice/unsigned", sign=str(keys[1]))
    assert answer["kind"] == "UserError" and "is not a private key that signs" in answer["error"]
    assert "alice/unsigned" not in hub.repos if hasattr(hub, "repos") else True
