"""Which license a published model may carry, decided before anything is trained.

Identifiers: https://huggingface.co/docs/hub/repositories-licenses. This is a safeguard, not legal advice.
"""

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
    " mpl-2.0 odbl ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other unknown".split()
)
"""Everything the Hub takes as `license` in a card's metadata."""


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
        raise UserError(f"--license {given}: the base model is under {base}, which what is made from it must keep")
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
