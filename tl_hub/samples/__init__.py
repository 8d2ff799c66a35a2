"""What is embedded, so that every recipe runs without a network: small pretrained checkpoints and authored data.

They are demonstrations: small enough to ship and to learn in a minute, not measures of what a method can do.
"""

import json
from pathlib import Path
from typing import Any

from tl_hub.errors import UserError

_HERE = Path(__file__).parent
_MAIN_DOMAIN = "world"


def checkpoint(family: str) -> Path:
    """Folder of the embedded checkpoint of a family.

    Raises:
        UserError: there is none.
    """
    folder = _HERE / family
    if not (folder / "config.json").is_file():
        there = ", ".join(f"tiny:{path.parent.name}" for path in sorted(_HERE.glob("*/config.json")))
        raise UserError(f"tiny:{family} is not embedded; there are {there}")
    return folder


def load(name: str) -> dict[str, list[dict[str, Any]]]:
    """Rows of embedded data by split (train, validation, test).

    Args:
        name: `<task>` for the task's main domain, or `<task>-<domain>` for another one, to show a domain shift.

    Raises:
        UserError: there is no such data.
    """
    task, _, domain = name.partition("-")
    file = _HERE / f"{task}.jsonl"
    paragraphs = list(map(json.loads, file.read_text(encoding="utf-8").splitlines())) if file.is_file() else []
    splits: dict[str, list[dict[str, Any]]] = {}
    for paragraph in paragraphs:
        if paragraph["domain"] == (domain or _MAIN_DOMAIN):
            rows = splits.setdefault(paragraph["split"], [])
            rows.extend({"context": paragraph["context"], **question} for question in paragraph["questions"])
    if not splits:
        there = [f"sample:{path.stem}" for path in sorted(_HERE.glob("*.jsonl"))]
        there += [f"sample:{task}-{other}" for other in sorted({p["domain"] for p in paragraphs} - {_MAIN_DOMAIN})]
        raise UserError(f"sample:{name} is not embedded; there are {', '.join(there)}")
    return splits
