"""Forms of secrets, where they may stand in what is published, and how many are found; and how often nothing is.

    python -m tools.secret_forms [FILE ...]

Counts alarms in the lines of the files, which hold no secret: ordinary text and code.
"""

import base64
import json
import random
import string
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tl_hub import sensitive

_DRAWS = 20
_LETTERS, _HEX = string.ascii_letters + string.digits, "0123456789abcdef"


def forms(seed: int = 0) -> dict[str, str]:
    """A drawn secret of each form, as it stands in a command, a file of settings or a note, by name."""
    draw = random.Random(seed)

    def some(count: int, letters: str = _LETTERS) -> str:
        return "".join(draw.choices(letters, k=count))

    def digits(count: int) -> str:
        return some(count, string.digits)

    def coded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    def web(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    upper = string.ascii_uppercase + string.digits
    lower = string.ascii_lowercase + string.digits
    jwt = ".".join((web('{"alg":"HS256","typ":"JWT"}'), web(f'{{"sub":"{digits(10)}"}}'), some(43)))
    uuid = "-".join(some(count, _HEX) for count in (8, 4, 4, 4, 12))
    return {
        "Hugging Face": f"hf_{some(34)}",
        "Hugging Face OAuth": f"hf_oauth_{some(60)}",
        "Hugging Face organization": f"api_org_{some(34)}",
        "GitHub classic": f"ghp_{some(36)}",
        "GitHub OAuth": f"gho_{some(36)}",
        "GitHub app": f"ghs_{some(36)}",
        "GitHub fine-grained": f"github_pat_{some(22)}_{some(59)}",
        "GitLab": f"glpat-{some(20)}",
        "GitLab runner": f"glrt-{some(20)}",
        "Bitbucket": f"bitbucket_secret = {some(64, lower)}",
        "AWS key": f"AKIA{some(16, string.ascii_uppercase + '234567')}",
        "AWS secret": f"aws_secret_access_key={some(40)}",
        "AWS session": f"AWS_SESSION_TOKEN={some(200)}",
        "Google API": f"AIza{some(35)}",
        "Google OAuth secret": f"GOCSPX-{some(28)}",
        "Google OAuth token": f"ya29.{some(120)}",
        "Google service account": '{"type": "service_account", "private_key": "-----BEGIN PRIVATE KEY-----\\n'
        + some(64),
        "Azure storage": f"AccountName=a;AccountKey={some(86)}==;EndpointSuffix=core.windows.net",
        "Azure SAS": f"https://a.blob.core.windows.net/c?sv=2022-11-02&sp=r&sig={some(43)}%3D",
        "Azure AD": f"AZURE_CLIENT_SECRET={some(3)}8Q~{some(34)}",
        "OpenAI": f"sk-{some(20)}T3BlbkFJ{some(20)}",
        "OpenAI project": f"sk-proj-{some(74)}T3BlbkFJ{some(74)}",
        "Anthropic": f"sk-ant-api03-{some(93)}AA",
        "Cohere": f"COHERE_API_KEY={some(40)}",
        "Mistral": f"MISTRAL_API_KEY={some(32)}",
        "Groq": f"gsk_{some(52)}",
        "Replicate": f"r8_{some(37)}",
        "Perplexity": f"pplx-{some(48)}",
        "xAI": f"xai-{some(80)}",
        "NVIDIA": f"nvapi-{some(64)}",
        "LangSmith": f"lsv2_pt_{some(32, _HEX)}_{some(10, _HEX)}",
        "Weights & Biases": f"WANDB_API_KEY={some(40, _HEX)}",
        "Weights & Biases 2": f"wandb_v1_{some(60)}",
        "wandb login": f"wandb login --api-key {some(40, _HEX)}",
        "Kaggle": f'{{"username": "anna", "key": "{some(32, _HEX)}"}}',
        "Kaggle 2": f"KGAT_{some(32, _HEX)}",
        "Comet": f"COMET_API_KEY={some(25)}",
        "Neptune": f"NEPTUNE_API_TOKEN={coded(json.dumps({'api_address': 'https://app.neptune.ai', 'k': uuid}))}",
        "MLflow": f"MLFLOW_TRACKING_PASSWORD={some(8)}7!{some(6)}",
        "Databricks": f"dapi{some(32, _HEX)}",
        "Slack bot": f"xoxb-{digits(12)}-{digits(13)}-{some(24)}",
        "Slack webhook": f"https://hooks.slack.com/services/T{some(9, upper)}/B{some(10, upper)}/{some(24)}",
        "Discord webhook": f"https://discord.com/api/webhooks/{digits(18)}/{some(68)}",
        "Discord bot": f"DISCORD_TOKEN={some(24)}.{some(6)}.{some(38)}",
        "Telegram": f"{digits(10)}:AA{some(33)}",
        "Stripe": f"sk_live_{some(24)}",
        "Twilio": f"SK{some(32, _HEX)}",
        "SendGrid": f"SG.{some(22)}.{some(43)}",
        "Mailgun": f"mailgun_key = key-{some(32, _HEX)}",
        "Mailchimp": f"mailchimp_api_key={some(32, _HEX)}-us12",
        "npm": f"npm_{some(36)}",
        "npm registry": f"//registry.npmjs.org/:_authToken={uuid}",
        "PyPI": f"pypi-AgEIcHlwaS5vcmc{some(80)}",
        "RubyGems": f"rubygems_{some(48, _HEX)}",
        "Docker": f'{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{coded("anna:" + some(20))}"}}}}}}',
        "Docker Hub": f"dckr_pat_{some(27)}",
        "DigitalOcean": f"dop_v1_{some(64, _HEX)}",
        "Heroku": f"HEROKU_API_KEY={uuid}",
        "Cloudflare": f"CLOUDFLARE_API_TOKEN={some(40)}",
        "Netlify": f"nfp_{some(40)}",
        "Supabase": f"sbp_{some(40, _HEX)}",
        "Vault": f"hvs.{some(95)}",
        "Grafana": f"glsa_{some(32)}_{some(8, _HEX)}",
        "Sentry": f"sntryu_{some(64, _HEX)}",
        "New Relic": f"NRAK-{some(27, upper)}",
        "Datadog": f"DD_API_KEY={some(32, _HEX)}",
        "Notion": f"ntn_{digits(11)}{some(35)}",
        "Linear": f"lin_api_{some(40)}",
        "Atlassian": f"ATATT3xFfGF0{some(172)}={some(8, upper[:6] + string.digits)}",
        "Postman": f"PMAK-{some(24, _HEX)}-{some(34, _HEX)}",
        "Shopify": f"shpat_{some(32, _HEX)}",
        "JWT": jwt,
        "bearer": f'curl -H "Authorization: Bearer {some(32)}"',
        "basic": f'curl -H "Authorization: Basic {coded("anna:" + some(14))}"',
        "curl": f"curl -u anna:{some(12)}7 https://example.org/rows",
        "URL": f"https://anna:{some(10)}@example.org/rows.csv",
        "PostgreSQL": f"postgresql://anna:{some(12)}@db.example.org:5432/rows",
        "MongoDB": f"mongodb+srv://anna:{some(12)}@cluster0.example.mongodb.net",
        "Redis": f"redis://:{some(16)}@cache.example.org:6379/0",
        "netrc": f"machine api.wandb.ai login user password {some(40, _HEX)}",
        "RSA": f"-----BEGIN RSA PRIVATE KEY-----\n{some(64)}",
        "OpenSSH": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{some(64)}",
        "PGP": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{some(64)}",
        "age": f"AGE-SECRET-KEY-1{some(58, 'QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L')}",
        "password": f"password={some(9)}4!",
        "PGPASSWORD": f"PGPASSWORD={some(10)}5",
        "flag": f"--hub_token {some(30)}9",
        "flag password": f"--password {some(8)}3%",
        "client secret": f'client_secret: "{some(32)}"',
        "signed URL": f"https://b.s3.amazonaws.com/k?X-Amz-Expires=3600&X-Amz-Signature={some(64, _HEX)}",
    }


def _json(text: str) -> str:
    return json.dumps({"settings": {"prompt": text}}, indent=2)


CHANNELS: dict[str, Callable[[str], str]] = {
    "settings": _json,
    "command": lambda text: json.dumps({"command": f"python recipes/qa_adapter.py --output_dir runs/qa {text}"}),
    "card": lambda text: f"# My model\n\nUse it so: `{text}`\n\nMore.\n",
    "card, bare": lambda text: f"# My model\n\nI ran {text}\n",
    "row": lambda text: json.dumps({"text": f"He wrote: {text}, and left.", "label": 1}, ensure_ascii=False),
    "note": lambda text: json.dumps({"notes": [f"2 rows had {text}"]}),
    "prediction": lambda text: json.dumps({"prediction": {"text": text, "score": 0.5}, "reference": ["none"]}),
    "label": lambda text: json.dumps({"id2label": {"0": text}}),
    "YAML": lambda text: f"---\ntags:\n- '{text}'\n---\n",
    "Python repr": lambda text: repr({"x": text}),
}
"""How a text stands in what is published: as JSON of the record, as Markdown and so on."""


def missed(seed: int = 0) -> list[tuple[str, str]]:
    """Form and channel of each secret that is not found."""
    drawn = forms(seed)
    return [
        (form, place) for form in drawn for place in CHANNELS if not sensitive.secret_in(CHANNELS[place](drawn[form]))
    ]


def main(*files: str) -> None:
    places = Counter(each for seed in range(_DRAWS) for each in missed(seed))
    all_found = _DRAWS * len(forms()) - len({(form, seed) for seed in range(_DRAWS) for form, _ in missed(seed)})
    print(f"{all_found} of {_DRAWS} x {len(forms())} secrets are found in all {len(CHANNELS)} places")
    for (form, place), count in places.items():
        print(f"  missed: {form} in {place}, {count} times")
    rows = [line for file in files for line in Path(file).read_text(errors="replace").splitlines() if line.strip()]
    kinds = Counter[str]()
    for row in rows:
        secret, path = sensitive.secret_in(row), sensitive.PATHS.search(row)
        kinds.update((["a secret"] if secret else []) + (["a path"] if path else []))
        if secret or path:
            print(f"  {secret or (path and path[0])!r} in {row.strip()[:150]!r}")
    print(f"{len(rows):,} rows: {dict(kinds)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
