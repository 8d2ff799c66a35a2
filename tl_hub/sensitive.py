"""What nothing that is published may hold: secrets, paths of a machine and, in rows that are shown, personal data."""

import json
import re
from typing import Any

SECRETS = re.compile(
    rb"\b(hf_[A-Za-z0-9]{30,}|hf_(?:oauth|jwt)_[\w.-]{20,}|api_org_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}"
    rb"|github_pat_\w{40,}|sk-[\w-]{32,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|glpat-[\w-]{20,}|npm_[A-Za-z0-9]{36}"
    rb"|xox[abeoprs]-[\w-]{20,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})"
    rb"|(?i:(?:api|access|secret|private|auth|wandb)_?key|secret|token|password)[\"']?\s{0,3}[=:]\s{0,3}[\"']?"
    rb"(?:[0-9a-f]{40}|[A-Za-z0-9/+]{40})(?![\w/+])"
    rb"|\b[a-z]+://[^\s/:@\"']+:[^\s/@\"']+@|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
HOMES = re.compile(
    rb"(?:(?<![\w.~/-])(?:/home|/Users|/root|/mnt|/media|/scratch|/workspaces?|/tmp|/private|/var/folders|/opt|/srv"
    rb"|/dbfs|/gpfs|/lustre|/nfs|/efs|/fsx|/afs|/beegfs|/cephfs|/content/drive|/kaggle|~"
    rb"|/(?:content|data|datasets?|work|storage|projects?)/[\w.-]+)/[\w.-]+"
    rb"|(?<![\w.~/-])/(?:content|data|datasets?|work|storage|projects?)/[\w-]+\.\w+|\bfile:/{1,3}[\w.~-])"
    rb"[^\s\"'`)>,]*"
    # In JSON a backslash is two, and one before n, r or t is no part of a path, but the end of a line and so on.
    rb"|\b[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[^\s\"'`]+"
    rb"|\b[A-Z]:(?:\\\\[\w.-]+\\\\|\\(?![nrtbf\\])[\w.-]+\\|/[\w.-]+/)[\w.-][^\s\"'`]*"
    rb"|(?<!\\)(?:\\{4}[\w.-]+\\\\|\\\\(?![nrtbf])\w[\w.-]+\\(?!\\))[\w.$-][^\s\"'`]*"
)

# The first that fits names the row's kind: an IBAN has groups of digits as a phone number has.
_KINDS = {
    "a secret": SECRETS,
    "a path": HOMES,
    "an e-mail address": re.compile(rb"[\w.+-]+@[\w-]+\.\w[\w.-]*"),
    "an IBAN": re.compile(rb"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b"),
    "a phone number": re.compile(
        rb"\+\d(?:[ .()-]{0,2}\d){7,14}\b"  # with its country; below, without it, and no date
        rb"|(?<![\w.,:/-])(?!(?:19|20)\d\d-\d\d-\d\d)\(?\d{2,5}\)?[ .-](?:\d{2,4}[ .-]){1,3}\d{2,4}(?![\w:/-])"
    ),
}


def kind_of(row: dict[str, Any]) -> str | None:
    """What a row holds that must not stand on a card, such as "an e-mail address"; None if nothing."""
    content = json.dumps(row, ensure_ascii=False, default=str).encode()
    return next((kind for kind, form in _KINDS.items() if form.search(content)), None)
