"""Who published a repository, and that nobody changed it: a signature by a key that only its owner has.

The signature stands in `model.sig`, in the form of OpenSSF's Model Signing (https://model-signing.org), whose command
verifies it too. It covers every file that is published of a run folder, the record and the weights among them, but not
the card, which people may edit, nor what the Hub's pages alone read (`.eval_results/`).
"""

import base64
import importlib.util
import json
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path

from tl_hub import run_folder
from tl_hub.errors import UserError, first_line
from tl_hub.publishing import files
from tl_hub.publishing.files import Files

_PAIR = (
    "openssl ecparam -name prime256v1 -genkey -noout -out {private} && openssl ec -in {private} -pubout -out public.pem"
)


def check_key(key: Path) -> None:
    """
    Raises:
        UserError: there is no such key, it cannot sign, or the package that signs is not installed.
    """
    _check_installed("--sign")
    from model_signing import signing

    try:
        signing.Config().use_elliptic_key_signer(private_key=key)
    except FileNotFoundError as error:
        raise UserError(f"--sign {key}: no such file; make a pair of keys: {_PAIR.format(private=key)}") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:  # the last two: encrypted, or of another kind
        raise UserError(
            f"--sign {key} is not a private key that signs ({first_line(error)}); it must be an elliptic-curve key in "
            f"PEM without a password: {_PAIR.format(private='private.pem')}"
        ) from error


def sign(published: Files, key: Path) -> Files:
    """The signature of what is to be published, as a file beside it.

    Args:
        key: one that `check_key` takes.
    """
    from model_signing import hashing, signing

    with tempfile.TemporaryDirectory() as staged:
        folder = Path(staged)
        for name in _covered(published):
            file, there = published[name], folder / name
            there.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(file, bytes):
                there.write_bytes(file)
            else:
                there.symlink_to(file.resolve())
        signature = folder.with_suffix(".sig")
        try:
            signer = signing.Config().use_elliptic_key_signer(private_key=key)
            signer.set_hashing_config(hashing.Config().set_allow_symlinks(True)).sign(folder, signature)
            return {run_folder.SIGNATURE: signature.read_bytes()}
        finally:
            signature.unlink(missing_ok=True)


def verify(folder: Path, key: Path) -> None:
    """Check that the files of a run folder are those that were signed with the private key of a public one.

    Raises:
        UserError: there is no signature or no such key; or the signature is by another key, or of other files, which
            are named.
    """
    _check_installed("--public_key")
    from cryptography.exceptions import InvalidSignature
    from google.protobuf.json_format import ParseError
    from model_signing import hashing, verifying

    if not (folder / run_folder.SIGNATURE).is_file():
        raise UserError(f"{folder} has no {run_folder.SIGNATURE}: it was published without --sign")
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except FileNotFoundError as error:
        raise UserError(f"--public_key {key}: no such file") from error
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"--public_key {key} is not a public elliptic-curve key in PEM: {first_line(error)}") from error
    there = files.matching(folder, run_folder.PUBLISHED)
    found = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    unsigned = [path for path in found if path.as_posix() not in there]
    read = hashing.Config().set_ignored_paths(paths=unsigned).set_allow_symlinks(True)  # the client's cache has links
    try:
        verifier.set_hashing_config(read).verify(folder, folder / run_folder.SIGNATURE)
    except InvalidSignature as error:
        raise UserError(f"{run_folder.SIGNATURE} of {folder} is not by the owner of {key}") from error
    except (ValueError, KeyError, IndexError, ParseError) as error:
        mismatch = str(error).startswith("Signature mismatch")  # of a good signature
        what = _differences(folder, there) if mismatch else first_line(error)
        raise UserError(f"{folder} is not what the owner of {key} signed: {what}") from error


def _differences(folder: Path, there: Files) -> str:
    """Names of the files that are not those of a folder's signature, which lists the SHA-256 of each."""
    envelope = json.loads((folder / run_folder.SIGNATURE).read_text())["dsseEnvelope"]
    resources = json.loads(base64.b64decode(envelope["payload"]))["predicate"]["resources"]
    signed = {resource["name"]: resource["digest"] for resource in resources}
    kinds = {
        "changed": [name for name in signed if name in there and files.sha256(there[name]) != signed[name]],
        "missing": [name for name in signed if name not in there],
        "not signed": [name for name in there if name not in signed],
    }
    return "; ".join(f"{kind}: {', '.join(sorted(names))}" for kind, names in kinds.items() if names)


def _covered(published: Files) -> list[str]:
    """Names of the files that are signed: what a run folder has, without the signature itself."""
    return [name for name in published if any(fnmatchcase(name, pattern) for pattern in run_folder.PUBLISHED)]


def _check_installed(flag: str) -> None:
    if importlib.util.find_spec("model_signing") is None:
        raise UserError(f"{flag} needs the package model-signing; install it: pip install model-signing")
