"""What nothing that is published may hold: secrets, paths of a machine and, in rows that are shown, personal data.

Secrets are found by the rules of gitleaks (`secret_rules.json`, MIT, written by `tools/secret_rules.py`) and by some of
our own, for what stands in commands, settings and notes of training rather than in a repository of code.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

_NAMES = ("key", "secret", "token", "passw", "passphrase")
# Words of which a text must hold one, in lower case, for a look at the form that follows to be worth its time.
_OWN = {
    (
        *(
            "hf_",
            "api_org_",
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "sk-",
            "akia",
            "asia",
            "aiza",
            "glpat-",
        ),
        *("npm_", "xox", "kgat_", "wandb_v1_", "k_live_", "k_test_", "gsk_", "r8_", "xai-", "pplx-", "sbp_", "gocspx-"),
        *("glpat-", "ya29.", "nvapi-", "nfp_", "atatt3", "fw_", "tgp_v1_", "lsv2_", "dckr_", "nrak-"),
    ): r"\b(?:hf_[A-Za-z0-9]{30,}|hf_(?:oauth|jwt)_[\w.-]{20,}|api_org_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,}"
    r"|github_pat_\w{40,}|sk-[\w-]{32,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[\w-]{35}|glpat-[\w-]{20,}|npm_[A-Za-z0-9]{36}"
    r"|xox[abceoprs]-[\w-]{20,}|KGAT_[0-9a-f]{32}|wandb_v1_\w{40,}"
    r"|(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37}|xai-[A-Za-z0-9]{60,}"
    r"|pplx-[A-Za-z0-9]{40,}|sbp_[0-9a-f]{40}|GOCSPX-[\w-]{28}|ya29\.[\w-]{40,}|nvapi-[\w-]{60,}|nfp_[A-Za-z0-9]{36,}"
    r"|ATATT3[\w=-]{60,}|fw_[A-Za-z0-9]{22,24}|tgp_v1_[\w-]{40,}|lsv2_[ps]t_[0-9a-f]{32}_[0-9a-f]{10}"
    r"|dckr_[po]at_[\w-]{27,}|NRAK-[A-Z0-9]{27})(?![A-Za-z0-9])",
    (".eyj",): r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    ("private key",): r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----",
    ("putty-user-key-file-",): r"PuTTY-User-Key-File-\d",
    (":aa",): r"\b\d{8,10}:AA[\w-]{33}(?![\w-])",
    ("://",): r"(?<![a-z])[a-z][a-z0-9+.-]{0,20}://[^\s/:@\"']*:[^\s/@\"']+@[\w.-]",
    ("hooks.slack", "api/webhooks"): (
        r"https://(?:hooks\.slack\.com/services|discord(?:app)?\.com/api/webhooks)/[\w/-]{20,}"
    ),
    ("_authtoken",): r"_authToken=[\w+/=-]{10,}",
    ("curl",): r"\bcurl\b[^\n]{0,200}? (?:-u|--user)[ =]?[\"']?[\w.@-]{1,80}:[^\s\"'$<{]{4,}",
    _NAMES: (
        r"(?i:(?:api|access|secret|private|auth|wandb)_?key|secret|token|password)[\"']?\s{0,3}[=:]\s{0,3}[\"']?"
        r"(?:[0-9a-f]{40}|[A-Za-z0-9/+]{40})(?![\w/+])"
        # The rest want a digit, which words of a language have not.
        r"|(?i:(?:api|access|secret|private|auth|account|wandb|master|encryption)[_-]?key|secret|token|passw(?:or)?d)"
        r"[\"']?(?:\s{0,3}[=:]\s{0,3}|\s)[\"']?(?=[^\s\"'`<>{}()\[\],;]{0,40}\d)"
        r"(?:[0-9a-f]{32,64}|[A-Za-z0-9/+]{40,}={0,2})(?![\w/+])"
        r"|(?i:--[\w-]{0,20}(?:token|passw(?:or)?d|passphrase|secret|api[_-]?key)[= ]|passw(?:or)?d[\"']?[=:] {0,1})"
        r"[\"']?(?=[^\s\"'`]{0,20}\d)(?=[^\s\"'`]{0,20}[A-Za-z])[^\s\"'`<>{}()\[\],;$.]{8,}"
        r"|(?:KEY|TOKEN|SECRET|PASSWORD)\s?=\s?[\"']?(?=[\w.+/-]{0,40}\d)[\w.+/-]{16,}"
    ),
    ("username",): r"[\"']username[\"']: ?[\"'][^\"']{1,80}[\"'], ?[\"']key[\"']: ?[\"'][0-9a-f]{32}",
    ("machine",): r"\bmachine \S{1,80} login \S{1,80} password \S",
    ("authorization", "bearer"): (
        r"(?i:authorization[\"']?\s{0,2}[:=]\s{0,2}[\"']?(?:bearer|basic|token|apikey)\s+)[\w+/.=~-]{8,}"
        r"|\b[Bb]earer (?=[\w.~+/-]{0,30}\d)[\w.~+/-]{20,}"
    ),
    ("sig=", "x-amz-signature=", "token="): r"[?&;](?:sig|X-Amz-Signature|access_token|token)=[\w%+/.-]{20,}",
    ("cookie",): r"(?i:cookie): *\w{0,30}(?:session|sid|auth)\w{0,10}=[\w%.+/-]{16,}",
}
PATHS = re.compile(
    r"(?:(?<![\w.~/-])(?:/home|/export|/Users|/Volumes|/root|/mnt|/media|/scratch|/local_?scratch|/workspaces?|/tmp"
    r"|/private|/var/(?:lib|folders|tmp|opt|run|spool|www|data|mnt)|/opt|/srv|/run/user|/dev/shm|/cluster|/shared|/vol\d*"
    r"|/volume\d+|/net|/dbfs|/gpfs\d*|/lustre|/ceph|/nfs\d*|/efs|/fsx|/afs|/beegfs|/cephfs|/content/drive|/kaggle|/gcs|~"
    r"|/(?:app|etc|content|data|datasets?|work|storage|projects?)/[\w.-]+)/[\w.-]+"
    r"|(?<![\w.~/-])/(?:app|etc|content|data|datasets?|work|storage|projects?)/[\w-]+\.\w+|\bfile:/{1,3}[\w.~-]"
    r"|\bdbfs:/[\w.-]+/[\w.-]"
    r"|\b(?:s3[an]?|gs|gcs|hdfs|viewfs|abfss?|wasbs?|azureml|az|adl|oss|cos|obs|r2|b2|swift|smb|nfs|sftp|lakefs|juicefs)"
    r"://[\w.@:-]*/[\w.-]+)"
    r"[^\s\"'`)>,]*"
    # In JSON a backslash is two, and one before n, r or t is no part of a path, but the end of a line and so on.
    r"|\b[A-Za-z]:(?:\\{1,2}|/)Users(?:\\{1,2}|/)[^\s\"'`]+"
    r"|\b[A-Z]:(?:\\\\[\w.-]+\\\\|\\(?![nrtbf\\])[\w.-]+\\|/[\w.-]+/)[\w.-][^\s\"'`]*"
    r"|(?<!\\)(?:\\{4}[\w.-]+\\\\|\\\\(?![nrtbf])\w[\w.-]+\\(?!\\))[\w.$-][^\s\"'`]*",
    re.ASCII,
)
ADDRESSES = re.compile(r"[\w.+-]+@[\w-]+\.\w[\w.-]*\b", re.ASCII)
# The first that fits names the row's kind: an IBAN has groups of digits as a phone number has.
_KINDS = {
    "a path": PATHS,
    "an e-mail address": ADDRESSES,
    # Norway's is the only one of fewer than 16 characters.
    "an IBAN": re.compile(
        r"\b(?:[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?|NO\d{2}(?: ?\d{4}){2} ?\d{3})\b", re.ASCII
    ),
    "a phone number": re.compile(
        r"\+\d(?:[ .()-]{0,2}\d){7,14}\b"  # with its country; below, without it, and no date
        r"|(?<![\w.,:/-])(?!(?:19|20)\d\d-\d\d-\d\d)\(?\d{2,5}\)?[ .-](?:\d{2,4}[ .-]){1,3}\d{2,4}(?![\w:/-])",
        re.ASCII,
    ),
}
_SHORT = 20_000  # characters of a text that is not worth more than a plain look
_BEFORE, _BEHIND = 100, 1_000
"""Characters from which, and up to which, a form that begins near a name is looked for; none is as long."""
_GENERIC = "generic-api-key"
"""The one rule of gitleaks whose words are in every text of code."""
_RULES = Path(__file__).parent / "secret_rules.json"


def kind_of(row: dict[str, Any]) -> str | None:
    """What a row holds that must not stand on a card, such as "an e-mail address"; None if nothing."""
    content = json.dumps(row, ensure_ascii=False, default=str)
    if secret_in(content):
        return "a secret"
    return next((kind for kind, form in _KINDS.items() if form.search(content)), None)


def secret_in(text: str) -> str | None:
    """What looks like a secret in a text; None if nothing does."""
    text = text.replace('\\"', '"').replace("\\n", "\n")  # as it was before it stood in JSON
    holds = _holder(text.lower().encode(errors="surrogatepass"))
    for words, form in _OWN.items():
        if any(map(holds, words)) and (own := next(_finds(text, form, words if words is _NAMES else ()), None)):
            return own[0]
    for rule in _rules()["rules"]:
        if any(map(holds, rule["keywords"])):
            names = rule["keywords"] if rule["id"] == _GENERIC else ()
            for found in _finds(text, rule["form"], names):
                secret = found[rule.get("secretGroup") or (1 if found.re.groups else 0)] or found[0]
                if not _allowed(rule, found[0], secret):
                    return secret
    return None


def _holder(lowered: bytes) -> Callable[[str], bool]:
    """Whether a text holds a word. A long one is looked through once for threes of letters, which most words lack."""
    if len(lowered) < _SHORT:
        return lambda word: word.encode() in lowered
    letters = np.frombuffer(lowered, np.uint8).astype(np.uint32)
    there = np.zeros(1 << 24, dtype=bool)
    there[letters[:-2] << 16 | letters[1:-1] << 8 | letters[2:]] = True

    def holds(word: str) -> bool:
        sought = word.encode()
        threes = (int.from_bytes(sought[i : i + 3]) for i in range(len(sought) - 2))
        return all(there[three] for three in threes) and sought in lowered

    return holds


def _finds(text: str, form: str, names: Sequence[str]) -> Iterator[re.Match[str]]:
    """What fits a form in a text; where every fit holds one of `names`, only what is near them is read."""
    if not names or len(text) < _SHORT:
        yield from _form(form).finditer(text)
        return
    spans: list[list[int]] = []
    for name in _form(f"(?i:{'|'.join(names)})").finditer(text):
        start, end = max(0, name.start() - _BEFORE), name.end() + _BEHIND
        if spans and start <= spans[-1][1]:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    for start, end in spans:
        yield from _form(form).finditer(text, start, end)


def _allowed(rule: dict[str, Any], match: str, secret: str) -> bool:
    """Whether a find is a placeholder, a name or another thing that the rule says is none."""
    lowered = secret.lower()
    return (
        _entropy(secret) < rule.get("entropy", 0)
        or any(_form(form).search(secret) for form in (*_rules()["not_secret"], *rule["not_secret"]))
        or any(_form(form).search(match) for form in rule["not_match"])
        or any(word in lowered for word in (*_rules()["stopwords"], *rule["stopwords"]))
    )


def _entropy(text: str) -> float:
    """Shannon's, in bits a character."""
    shares = [count / len(text) for count in Counter(text).values()]
    return -sum(share * math.log2(share) for share in shares)


@cache
def _rules() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_RULES.read_text(encoding="utf-8"))
    return found


@cache
def _form(form: str) -> re.Pattern[str]:
    return re.compile(form, re.ASCII)
