"""What is embedded, so that every recipe runs without a network: small pretrained checkpoints and authored data.

They are demonstrations: small enough to ship and to learn in a minute, not measures of what a method can do.
"""

import json
from pathlib import Path
from typing import Any

from tl_hub.errors import UserError

TEXTS_OF_CHECKPOINTS = (
    "training rows of public data sets, under these terms: SQuAD 1.1 and its Wikipedia paragraphs (CC BY-SA 4.0), "
    "DialogSum (CC BY-NC-SA 4.0), AG News (research and other non-commercial use), the Large Movie Review Dataset (no "
    "terms stated), and paragraphs by the grammar of tl_hub's embedded questions (Apache 2.0)"
)
"""What the embedded checkpoints were pretrained on, for every card of something made from one."""

LICENSE = "other"
"""Of the embedded checkpoints, and so of what is made from one: no identifier of the Hub has all of these terms."""
LICENSE_NAME = "mixed-terms-non-commercial"
LICENSE_TEXT = f"""\
Terms of the checkpoints that come with tl_hub, and of what is made from them

They were pretrained on {TEXTS_OF_CHECKPOINTS}. Those terms apply to the checkpoints and to models made from them. Some
of them forbid commercial use. tl_hub adds none of its own.
"""

_HERE = Path(__file__).parent
_MAIN_DOMAIN = "world"


def checkpoints() -> list[str]:
    """The families of which there is an embedded checkpoint."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.json"))


def checkpoint(family: str) -> Path:
    """Folder of the embedded checkpoint of a family.

    Raises:
        UserError: there is none.
    """
    if family not in checkpoints():
        there = ", ".join(f"tiny:{name}" for name in checkpoints())
        raise UserError(f"tiny:{family} is not embedded; there are {there}")
    return _HERE / family


def load(name: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of embedded data by split (train, validation, test).

    A line of the file is a row, or, where it has `questions`, a row for each of them.

    Args:
        name: `<task>` for the task's main domain, or `<task>-<domain>` for another one, to show a domain shift.

    Raises:
        UserError: there is no such data.
    """
    task, _, domain = name.partition("-")
    file = _HERE / f"{task}.jsonl"
    lines = list(map(json.loads, file.read_text(encoding="utf-8").splitlines())) if file.is_file() else []
    splits: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if line["domain"] == (domain or _MAIN_DOMAIN):
            shared = {name: value for name, value in line.items() if name not in ("split", "domain", "questions")}
            rows = splits.setdefault(line["split"], [])
            rows.extend({**shared, **question} for question in line.get("questions", [{}]))
    if not splits:
        there = [f"sample:{path.stem}" for path in sorted(_HERE.glob("*.jsonl"))]
        there += [f"sample:{task}-{other}" for other in sorted({line["domain"] for line in lines} - {_MAIN_DOMAIN})]
        raise UserError(f"sample:{name} is not embedded; there are {', '.join(there)}")
    return splits
