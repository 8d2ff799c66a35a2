"""How the Hub judges a card, as a JSON Schema: the server's own reading of what hub-docs and the Hub's refusals say.

It shares nothing with `tl_hub.card.rules`, or pushes to this server would prove nothing of those.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from jsonschema import Draft202012Validator

_LICENSES = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m afl-3.0
artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0
cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0
epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research
intel-research lppl-1.3c ms-pl apple-ascl apple-amlr mpl-2.0 odc-by odbl openmdw-1.0 openmdw-1.1 openrail++ osl-3.0
postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2
llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma unknown other
""".split()
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}


def _one_or_more(item: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"type": "array"}, "then": {"items": item}, "else": item}


_ID = {"type": "string", "pattern": r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?\Z"}
_RESULT = {
    "required": ["task", "dataset", "metrics"],
    "properties": {
        "task": {"required": ["type"], "properties": {"type": _TEXT}},
        "dataset": {
            "required": ["type", "name"],
            "properties": {
                "type": {"type": "string", "pattern": r"^(?:[\w-]+/)?[\w\-.]+\Z"},
                "name": {"type": "string", "minLength": 1},
                "config": _TEXT,
                "split": _TEXT,
                "revision": _TEXT,
            },
        },
        "metrics": {
            "type": "array",
            "items": {
                "required": ["type", "value"],
                "properties": {
                    "type": _TEXT,
                    "value": {"type": ["number", "string", "object"], "not": {"enum": [float("inf"), float("-inf")]}},
                },
            },
        },
    },
}
_CARD = {
    "type": "object",
    "properties": {
        "license": _one_or_more({"enum": _LICENSES}),
        "language": _one_or_more({"type": "string", "pattern": r"^([a-z]{2,3}|multilingual|code)\Z"}),
        "tags": _TEXTS,
        "metrics": _TEXTS,
        "datasets": _one_or_more(_ID),
        "base_model": _one_or_more(_ID),
        "base_model_relation": {"enum": ["adapter", "merge", "quantized", "finetune"]},
        "new_version": _ID,
        "thumbnail": _TEXT,
        "widget": {"type": "array"},
        "pipeline_tag": _TEXT,
        "library_name": _TEXT,
        "model-index": {
            "type": "array",
            "items": {
                "required": ["name", "results"],
                "properties": {"results": {"type": "array", "items": _RESULT}},
            },
        },
    },
}


SDKS = ("gradio", "docker", "static", "streamlit")
_COLORS = {"enum": ["red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"]}
_SPACE = {  # hub-docs spaces-config-reference.md
    "type": "object",
    "required": ["sdk"],
    "properties": {
        "title": _TEXT,
        "emoji": {"type": "string", "pattern": r"^[^\x00-\u2000]+\Z"},
        "colorFrom": _COLORS,
        "colorTo": _COLORS,
        "sdk": {"enum": list(SDKS)},
        "sdk_version": {"type": "string", "pattern": r"^\d+\.\d+(\.\d+)?\Z"},
        "python_version": {"type": "string", "pattern": r"^3\.\d+(\.\d+)?\Z"},
        "app_file": _TEXT,
        "short_description": {"type": "string", "maxLength": 60},
        "license": _one_or_more({"enum": _LICENSES}),
        "models": {"type": "array", "items": _ID},
        "datasets": {"type": "array", "items": _ID},
        "tags": _TEXTS,
        "pinned": {"type": "boolean"},
    },
}


class _Loader(yaml.SafeLoader):
    """As the Hub's reader, of YAML 1.2: only true and false are truth values, and no key may come twice."""

    yaml_implicit_resolvers = {
        letter: [
            (tag, form) for tag, form in known if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
        ]
        for letter, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _mapping(loader: Any, node: Any) -> dict[Any, Any]:
    pairs = loader.construct_pairs(node, deep=True)
    if len(dict(pairs)) < len(pairs):
        raise yaml.YAMLError("duplicated mapping key")
    return dict(pairs)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$", re.IGNORECASE), list("tTfF"))


def head_of(text: str) -> Any:
    """The metadata of a card.

    Raises:
        yaml.YAMLError: they are not YAML.
    """
    found = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    return (yaml.load(found[1], _Loader) if found else None) or {}


def faults_of_card(text: str) -> list[str]:
    """What the Hub refuses of a model's card, in words like its own."""
    return _faults(text, _CARD)


def faults_of_space(text: str) -> list[str]:
    """What it refuses of the README.md that configures a Space; one without metadata is none yet."""
    return _faults(text, _SPACE) if text else []


def _faults(text: str, form: dict[str, Any]) -> list[str]:
    try:
        head = head_of(text)
    except yaml.YAMLError as error:
        return [f"invalid YAML: {error}"]
    found = [
        f'"{_place(fault.absolute_path)}" {fault.message}' for fault in Draft202012Validator(form).iter_errors(head)
    ]
    return found + [f'"{place}" must not be NaN' for place, value in _numbers(head) if value != value]


def _place(path: Iterable[Any]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).lstrip(".")


def _numbers(value: Any, place: str = "") -> Iterable[tuple[str, float]]:
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(item, f"{place}.{key}".lstrip("."))


FAULTS: dict[str, Callable[[str], list[str]]] = {
    "model": faults_of_card,
    "dataset": lambda text: [],
    "space": faults_of_space,
}


def faults_of_results(content: bytes, tasks: Callable[[str], set[str]]) -> list[str]:
    """What is wrong with a file of `.eval_results/`; `tasks` gives those of a data set's `eval.yaml`."""
    found = []
    for entry in yaml.safe_load(content):
        data = entry["dataset"]
        if data["task_id"] not in tasks(data["id"]):
            found.append(f"{data['id']} has no task {data['task_id']} in its eval.yaml")
        if not isinstance(entry["value"], int | float) or not entry.get("source", {}).get("url"):
            found.append(f"the result on {data['id']} has no value, or no source")
    return found
