"""The folders of a run's training states: whether they are whole, and which one a run goes on from. Needs no torch."""

import hashlib
import json
import shutil
from pathlib import Path

import xxhash

from tl_hub.errors import UserError
from tl_hub.run_folder import HISTORY, NEW_STATE, STATE, STATE_HASHES


def seal(state: Path) -> None:
    """Write down the hash of every file of a state. What is sealed is whole."""
    hashes = {file.name: _hash(file) for file in sorted(state.iterdir()) if file.name != STATE_HASHES}
    (state / STATE_HASHES).write_text(json.dumps(hashes, indent=1))


def put_in_place(run: Path, keep: int) -> None:
    """Make the sealed new state the one that a run goes on from, and keep so many in all, it included.

    A kill at any moment leaves a whole state that `find` knows.
    """
    kept = _in_place(run)
    for age, state in reversed([*enumerate(kept, start=1)]):
        state.rename(run / f"{STATE}.{age}")
    (run / NEW_STATE).rename(run / STATE)
    for state in _in_place(run)[keep:]:
        shutil.rmtree(state)


def exist(run: Path) -> bool:
    """Whether a run saved a state, be it damaged since. One that was being written when it was killed is none."""
    return bool(_states(run))


def find(run: Path) -> Path:
    """The latest state of a run folder that is whole.

    Raises:
        UserError: there is none, or each that there is has a damaged file (names them).
    """
    broken = []
    for state in _states(run):
        damaged = _damage(state)
        if damaged is None:
            return state
        broken.append(f"{state.name}/{damaged}")
    if not broken:
        raise UserError(f"--resume: {run} holds no interrupted run; omit --resume to start one")
    raise UserError(
        f"--resume: in {run}, {' and '.join(broken)} {'is' if len(broken) == 1 else 'are'} damaged or missing; start "
        "again with --overwrite (--keep 2 keeps an earlier state to fall back on)"
    )


def recover(run: Path, keep: int) -> str | None:
    """Put the latest whole state in its place; what there is to say of it, where a later one was damaged.

    Raises:
        UserError: as `find`.
    """
    found, states = find(run), _states(run)
    damaged = states[: states.index(found)]
    for state in damaged:
        shutil.rmtree(state)
    if found.name == NEW_STATE:
        put_in_place(run, keep)
    elif found.name != STATE:
        found.rename(run / STATE)
    if not damaged:
        return None
    step = json.loads((run / STATE / HISTORY).read_text())["step"]
    return f"the state saved last in {run} is damaged; going on from the one before it, of step {step}"


def _states(run: Path) -> list[Path]:
    """What may be gone on from, the latest first. A new state that is not sealed was being written when killed."""
    new = run / NEW_STATE
    return [new, *_in_place(run)] if (new / STATE_HASHES).is_file() else _in_place(run)


def _in_place(run: Path) -> list[Path]:
    """The states that were put in place, the latest first."""
    earlier = [state for state in run.glob(f"{STATE}.*") if state.suffix[1:].isdecimal()]
    found = [run / STATE, *sorted(earlier, key=lambda state: int(state.suffix[1:]))]
    return [state for state in found if (state / HISTORY).is_file() or (state / STATE_HASHES).is_file()]


def _damage(state: Path) -> str | None:
    """The first file of a state that is not as it was sealed."""
    try:
        hashes = json.loads((state / STATE_HASHES).read_text())
    except (FileNotFoundError, ValueError):
        return STATE_HASHES
    for name, expected in hashes.items():
        if not (state / name).is_file() or _hash(state / name) != expected:
            return name
    return None


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, xxhash.xxh3_128).hexdigest()
