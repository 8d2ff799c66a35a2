"""Which license a published model may carry, decided before anything is trained.

Identifiers: https://huggingface.co/docs/hub/repositories-licenses. This is a safeguard, not legal advice.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tl_hub import run_folder
from tl_hub.errors import UserError

PERMISSIVE = frozenset(
    "afl-3.0 apache-2.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0"
    " cc-by-4.0 cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 ecl-2.0 isc mit ms-pl ncsa odc-by pddl"
    " postgresql unlicense wtfpl zlib".split()
)
"""A work derived from one under these may be licensed otherwise (naming its origin, which the card does)."""

IDENTIFIERS = PERMISSIVE | frozenset(
    "agpl-3.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0"
    " bigscience-openrail-m c-uda cc cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0"
    " cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-sharing-1.0"
    " creativeml-openrail-m deepfloyd-if-license epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2"
    " fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research"
    " intel-research lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c"
    " mpl-2.0 odbl ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other unknown".split()
)
"""Everything the Hub takes as `license` in a card's metadata."""


@dataclass(frozen=True)
class Terms:
    """A license as it is asked for.

    Attributes:
        license: as the Hub names it; None to inherit the base's.
        name: of one that the Hub does not list, whose `license` is `other`.
        link: where its text is: a URL, or a file, which is published as LICENSE.
    """

    license: str | None = None
    name: str | None = None
    link: str | None = None

    def check(self) -> None:
        """
        Raises:
            UserError: the Hub does not know the license, `other` has no name or no link, or the link is not there.
        """
        license_of(self.license, None)
        if (self.name or self.link) and self.license != "other":
            raise UserError("--license_name and --license_link are for --license other; give that too, or omit them")
        if self.license == "other" and not (self.name and self.link):
            raise UserError(
                "--license other says nothing alone; add --license_name, such as my-license-1.0, and --license_link, "
                "the URL of its text or a file that holds it"
            )
        if self.name and not re.fullmatch(r"[\w.+-]+", self.name, re.ASCII):
            raise UserError(
                f"--license_name {self.name!r} is not an id such as my-license-1.0; take letters and hyphens"
            )
        if self.file and not self.file.is_file():
            raise UserError(f"--license_link {self.link} is neither a URL nor a file; give one that holds the license")

    @property
    def file(self) -> Path | None:
        """The file that is published as LICENSE."""
        return Path(self.link) if self.link and not re.match("https?://", self.link) else None

    @property
    def published_link(self) -> str | None:
        """The link as the card has it."""
        return run_folder.LICENSE if self.file else self.link


def license_of(given: str | None, base: str | None) -> str | None:
    """The license of a model derived from another: the one asked for, or else the base's.

    Args:
        given: `--license`; None to inherit.
        base: license of the base model; None where there is none or nobody knows it.

    Raises:
        UserError: the Hub does not know the license, or the base's does not let a derived model take it.
    """
    if given is None:
        return base
    if given not in IDENTIFIERS:
        raise UserError(
            f"--license {given} is not an identifier of the Hub (such as apache-2.0, mit, cc-by-sa-4.0, other); "
            "all are listed at https://huggingface.co/docs/hub/repositories-licenses"
        )
    if base is not None and given != base and base not in PERMISSIVE:
        own = " (terms of its own, which its card names)" if base == "other" else ""
        raise UserError(
            f"--license {given}: the base model is under {base}{own}, which what is made from it must keep; omit it, "
            f"or give --license {base}{' with --license_name and --license_link' if own else ''}"
        )
    return given


def known_license(given: str | None, base: str | None) -> str:
    """The license a result is published under.

    Raises:
        UserError: nobody knows one, or the base's does not allow it.
    """
    license = license_of(given, base)
    if license not in IDENTIFIERS:
        raise UserError(f"the license is {license or 'not known'}; give --license, such as apache-2.0")
    return license
