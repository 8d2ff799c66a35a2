"""Licenses, against the list of the reference Hub and the terms of the licenses themselves."""

import re
from pathlib import Path

import pytest

from tl_hub.errors import UserError
from tl_hub.licenses import IDENTIFIERS, PERMISSIVE, license_of

REFHUB = Path(__file__).parents[2] / "shared" / "refhub" / "refhub.py"


def test_identifiers_are_those_of_the_hub() -> None:
    if not REFHUB.is_file():
        pytest.skip(f"needs {REFHUB}, which is not part of this repository")
    listed = re.search(r'LICENSES = set\("""(.*?)"""', REFHUB.read_text(), re.DOTALL)
    assert listed and frozenset(listed[1].split()) | {"openmdw-1.1"} == IDENTIFIERS, "it is older than that one"


@pytest.mark.parametrize("kept", ["cc-by-sa-4.0", "cc-by-nc-4.0", "gpl-3.0", "llama3.1", "openrail", "other"])
def test_terms_that_bind_what_is_derived_cannot_be_dropped(kept: str) -> None:
    assert license_of(None, kept) == license_of(kept, kept) == kept
    with pytest.raises(UserError, match=f"--license mit: the base model is under {kept}"):
        license_of("mit", kept)


def test_a_permissive_base_leaves_the_choice() -> None:
    assert license_of("cc-by-nc-4.0", "apache-2.0") == "cc-by-nc-4.0"
    assert license_of(None, None) is None and license_of("mit", None) == "mit"
    assert not any(re.search(r"nc|nd|sa|gpl|rail|llama", name.replace("ncsa", "")) for name in PERMISSIVE)


def test_an_unknown_identifier_is_refused() -> None:
    with pytest.raises(UserError, match="--license Apache 2.0 is not an identifier"):
        license_of("Apache 2.0", None)
