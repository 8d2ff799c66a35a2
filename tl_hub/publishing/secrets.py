"""What is in no file that is published: a secret, a path of this machine, or code to be run."""

import struct
from pathlib import Path

from huggingface_hub import get_token

from tl_hub import run_folder, sensitive
from tl_hub.errors import UserError
from tl_hub.publishing import files
from tl_hub.publishing.files import File

_LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself allows


def check(name: str, file: File, folder: Path) -> None:
    """Refuse to publish a file that looks as if it held any of these.

    Args:
        folder: the run folder, whose own path nobody else has.

    Raises:
        UserError: names the file and what it holds.
    """
    content = _read(name, file).decode("utf-8", errors="replace")
    token = get_token()
    secret = sensitive.secret_in(content)
    if secret or (token and token in content):
        shown = f"{secret[:6]}..." if secret else "your Hub token"
        raise UserError(f"{name} holds what looks like a secret ({shown}); remove it, and replace the secret")
    if name not in run_folder.VOCABULARY and not name.endswith(".png"):
        path = sensitive.PATHS.search(content)
        here = (str(folder.resolve()), str(Path.home()), str(Path.cwd()))
        own = next((place for place in here if place.count("/") > 1 and place in content), None)
        if path or own:
            shown = path[0] if path else str(own)
            raise UserError(f"{name} holds a path of a machine ({shown}), which nobody else has; remove it")
    if name.endswith("config.json") and '"auto_map"' in content:
        raise UserError(f"{name} asks for code of its own to be run (auto_map); only stock classes are published")


def _read(name: str, file: File) -> bytes:
    """What there is to read of a file; of safetensors the header, as the rest is numbers."""
    if not name.endswith(".safetensors"):
        return files.content(file)
    assert isinstance(file, Path)
    with file.open("rb") as opened:
        (length,) = struct.unpack("<Q", opened.read(8).ljust(8, b"\0"))
        header = opened.read(min(length, _LONGEST_HEADER))
    if not header.startswith(b"{"):
        raise UserError(f"{name} is not a safetensors file")
    return header
