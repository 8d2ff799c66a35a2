"""Write `tl_hub/secret_rules.json`: the rules of gitleaks, a detector of secrets, as Python's `re` reads them.

    python -m tools.secret_rules config/gitleaks.toml LICENSE

The two files are those of https://github.com/gitleaks/gitleaks at the version in `VERSION`.
"""

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

VERSION = "b58d3f102cf3a2c84cb7f923d05c25c9b1aed84b"
_END = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
RULES = Path(__file__).parent.parent / "tl_hub" / "secret_rules.json"


def for_python(form: str) -> str:
    """A regular expression of Go: flags in its middle hold up to the end of their group, and it has other classes."""
    form = form.replace("[[:alnum:]]", "[0-9A-Za-z]").replace(r"\z", r"\Z")
    while "(?i)" in form:
        start = form.index("(?i)")
        end = _end_of_group(form, start + len("(?i)"))
        form = form[:start] + "(?i:" + form[start + len("(?i)") : end] + ")" + form[end:]
    re.compile(form)
    return form


def _end_of_group(form: str, place: int) -> int:
    depth, in_class = 0, False
    while place < len(form):
        letter = form[place]
        if letter == "\\":
            place += 1
        elif in_class:
            in_class = letter != "]"
        elif letter == "[":
            in_class = True
            place += form[place + 1 : place + 2] in ("]", "^")
            place += form[place : place + 2] == "^]"
        elif letter == "(":
            depth += 1
        elif letter == ")":
            if depth == 0:
                return place
            depth -= 1
        place += 1
    return place


def rule(given: dict[str, Any]) -> dict[str, Any]:
    """One rule: what it looks for, and which of its finds are none."""
    # What stands before a name, a lazy "any few characters", changes no find, and costs most of the time.
    form = given["regex"].replace(r"(?i)[\w.-]{0,50}?", "(?i)", 1)
    if given["id"] != "generic-api-key":  # in a sentence, a comma or a bracket may follow, which in code ends a name
        form = form.replace(_END, _END.replace(";]", ";,.)<]"))
    made = {"id": given["id"], "form": for_python(form), "keywords": given["keywords"]}
    made |= {key: given[key] for key in ("entropy", "secretGroup") if key in given}
    allowed = [each for each in given.get("allowlists", []) if each.get("condition") != "AND"]
    for target, name in (("secret", "not_secret"), ("match", "not_match")):
        those = [each for each in allowed if each.get("regexTarget", "secret") == target]
        found = [form for each in those for form in each.get("regexes", [])]
        made[name] = [for_python(form) for form in found]
    made["stopwords"] = [word for each in allowed for word in each.get("stopwords", [])]
    return made


def main(table: str, license: str) -> None:
    given = tomllib.loads(Path(table).read_text())
    everywhere = given["allowlist"]
    rules = [rule(each) for each in given["rules"] if "regex" in each and "path" not in each]
    facts: dict[str, Any] = {"source": f"https://github.com/gitleaks/gitleaks/blob/{VERSION}/config/gitleaks.toml"}
    facts |= {"license": Path(license).read_text()}
    all_rules = {
        "not_secret": [for_python(form) for form in everywhere["regexes"]],
        "stopwords": everywhere["stopwords"],
    }
    RULES.write_text(json.dumps(facts | all_rules | {"rules": rules}, indent=1) + "\n")
    print(f"{len(rules)} rules")


if __name__ == "__main__":
    main(*sys.argv[1:])
