"""Where rows of several domains are, as a flag names them."""

import re
from dataclasses import dataclass
from pathlib import Path

from tl_hub.errors import UserError

_FORM = re.compile(r"\s*(?:(?P<name>[^/\\=]*[^/\\=\s])=)?(?P<place>[^=\s](?:.*?\S)?)(?P<settings>(?:\s+\w+=\S+)*)\s*")


@dataclass(frozen=True)
class Source:
    """Where the rows of a domain are.

    Attributes:
        name: that a person gave; empty without one.
        place: a file, a folder, a Hub data set id or `sample:NAME`.
        written: how the rows are written, where otherwise than the run's own: settings by name.
    """

    name: str
    place: str
    written: dict[str, str]


def sources(text: str, flag: str = "eval_on") -> list[Source]:
    """The domains of a flag: `[NAME=]DATA [SETTING=VALUE ...]`, several separated by commas; none of no text.

    Raises:
        UserError: one of them is not of this form.
    """
    found = []
    for part in text.split(",") if text else ():
        form = _FORM.fullmatch(part)
        if not form:
            raise UserError(
                f"--{flag} {text}: {part!r} is not of the form NAME=DATA or DATA, with settings such as "
                "text_column=review behind it"
            )
        name, place, settings = form["name"] or "", form["place"], form["settings"].split()
        if name and Path(f"{name}={place}").exists():
            name, place = "", f"{name}={place}"
        found.append(Source(name, place, dict(setting.split("=", 1) for setting in settings)))
    return found
