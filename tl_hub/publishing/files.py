"""Files that are to be in a repository, by name: their bytes, or where on the disk they are."""

import hashlib
from pathlib import Path

from huggingface_hub.hf_api import RepoFile

from tl_hub.errors import UserError

File = bytes | Path
Files = dict[str, File]


def matching(folder: Path, patterns: tuple[str, ...] | list[str]) -> Files:
    """The files of a folder that fit one of the patterns, in the patterns' order."""
    return {path.relative_to(folder).as_posix(): path for pattern in patterns for path in sorted(folder.glob(pattern))}


def own(folder: Path, patterns: tuple[str, ...]) -> Files:
    """The same, of which none may be a link: what it points to may be anything of this machine.

    Raises:
        UserError: a file, or a folder that it is in, is a link.
    """
    found = matching(folder, patterns)
    for name in found:
        for place in (folder / name, *(folder / above for above in Path(name).parents if above.name)):
            if place.is_symlink():
                raise UserError(f"{place} is a link; put the file itself there")
    return found


def content(file: File) -> bytes:
    return file.read_bytes() if isinstance(file, Path) else file


def size(file: File) -> int:
    return file.stat().st_size if isinstance(file, Path) else len(file)


def sha256(file: File) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def git_sha1(file: File) -> str:
    """By which git knows it."""
    return hashlib.sha1(b"blob %d\0" % size(file) + content(file)).hexdigest()


def same(file: File, there: RepoFile) -> bool:
    """Whether a file is the one in the repository, which knows it by SHA-256 or as git does, by SHA-1."""
    if there.lfs:
        return size(file) == there.lfs.size and sha256(file) == there.lfs.sha256
    return size(file) == there.size and git_sha1(file) == there.blob_id
