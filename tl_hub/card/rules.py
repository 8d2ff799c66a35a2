"""What the Hub asks of a card's metadata and of a repository, in one table, by which both are judged before a push.

Needs neither torch nor a network. The sources are files of huggingface/hub-docs and huggingface/huggingface.js at the
commits that `hub_names` names, and threads of other projects that quote the Hub's refusal.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tl_hub import run_folder
from tl_hub.card.merging import StrictYaml, split
from tl_hub.card.metadata import RESULTS
from tl_hub.errors import UserError, first_line
from tl_hub.hub_names import ID, LIBRARIES, PIPELINES, REPOSITORY, is_language
from tl_hub.licenses import IDENTIFIERS

DIGITS = 4
"""Most digits of a figure: intervals of a few thousand rows support three or four."""
TASK_TYPES = {
    "text-classification": ("SEQ_CLS",),
    "token-classification": ("TOKEN_CLS",),
    "text-generation": ("CAUSAL_LM", "SEQ_2_SEQ_LM"),
    "summarization": ("CAUSAL_LM", "SEQ_2_SEQ_LM"),
    "translation": ("CAUSAL_LM", "SEQ_2_SEQ_LM"),
}
"""Tasks with PEFT's names of them that the Hub's page knows, by which it says how an adapter is loaded."""
_LIBRARIES = ("peft", "transformers", *LIBRARIES.values())
_WIDGET_INPUTS = ("text", "src", "source_sentence", "messages", "table", "structured_data")
_DATASET_TYPE = re.compile(r"(?:[\w-]+/)?[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Published:
    """What is judged.

    Attributes:
        head: the metadata of the card.
        names: the files of the repository.
        read: the content of one of them.
        repo: id of the repository, where it is known.
        benchmarks: data set on the Hub -> ids of the tasks in its `eval.yaml`; None where nobody has looked.
    """

    head: dict[str, Any]
    names: Collection[str]
    read: Callable[[str], bytes]
    repo: str | None = None
    benchmarks: Mapping[str, Collection[str]] | None = None

    def several(self, key: str) -> list[Any]:
        """The values of a key that takes one or a list."""
        value = self.head.get(key)
        return value if isinstance(value, list) else [] if value is None else [value]

    def results(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Each result of `model-index` with its place, as far as it has the form of one."""
        models = self.head.get("model-index")
        for i, model in enumerate(models if isinstance(models, list) else []):
            results = model.get("results") if isinstance(model, dict) else None
            for j, result in enumerate(results if isinstance(results, list) else []):
                if isinstance(result, dict):
                    yield f"model-index[{i}].results[{j}]", result

    def json(self, name: str) -> dict[str, Any]:
        """A file that is a JSON object; nothing where it is not there, or is none."""
        try:
            content = json.loads(self.read(name)) if name in self.names else {}
        except ValueError:
            content = {}
        return content if isinstance(content, dict) else {}


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        name: of what it is about.
        says: what the Hub takes.
        source: where that is to be read.
        refused: the Hub refuses what breaks it at the end of a push; if not, its page shows or loads it wrong.
        faults: a sentence for each thing that breaks it.
    """

    name: str
    says: str
    source: str
    refused: bool
    faults: Callable[[Published], Iterator[str]]


@dataclass(frozen=True)
class Fault:
    rule: str
    refused: bool
    text: str


def _license(it: Published) -> Iterator[str]:
    for name in it.several("license"):
        if name not in IDENTIFIERS:
            yield f"{name!r} is not an identifier of the Hub, such as apache-2.0"


def _terms(it: Published) -> Iterator[str]:
    link = it.head.get("license_link")
    if it.head.get("license") == "other":
        for key in ("license_name", "license_link"):
            if not it.head.get(key):
                yield f"other comes without {key}; give --license_name and --license_link"
    if isinstance(link, str) and not re.match("https?://", link) and link not in it.names:
        yield f"license_link names {link}, which is not a file of the repository"


def _language(it: Published) -> Iterator[str]:
    for code in it.several("language"):
        if not is_language(code):
            yield f"{code!r} is not an ISO 639 code; pt-BR and such belong in language_bcp47"


def _pipeline_tag(it: Published) -> Iterator[str]:
    tag = it.head.get("pipeline_tag")
    if tag is not None and tag not in PIPELINES:
        yield f"{tag!r} is not a task of the Hub, such as text-classification"


def _library(it: Published) -> Iterator[str]:
    name = it.head.get("library_name")
    if name is not None and name not in _LIBRARIES:
        yield f"{name!r} is not one of {', '.join(_LIBRARIES)}"


def _ids(key: str) -> Callable[[Published], Iterator[str]]:
    def faults(it: Published) -> Iterator[str]:
        for name in it.several(key):
            if not isinstance(name, str) or not ID.fullmatch(name):
                yield f"{name!r} is not the id of a repository on the Hub"

    return faults


def _relation(it: Published) -> Iterator[str]:
    relation = it.head.get("base_model_relation")
    if relation not in (None, "adapter", "merge", "quantized", "finetune"):
        yield f"{relation!r} is not one of adapter, finetune, merge, quantized"


def _texts(key: str) -> Callable[[Published], Iterator[str]]:
    def faults(it: Published) -> Iterator[str]:
        value = it.head.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(text, str) for text in value)):
            yield f"{value!r} is not a list of texts"

    return faults


def _is(key: str, kind: type, name: str) -> Callable[[Published], Iterator[str]]:
    def faults(it: Published) -> Iterator[str]:
        if not isinstance(it.head.get(key, kind()), kind):
            yield f"{it.head[key]!r} is not {name}"

    return faults


def _widget(it: Published) -> Iterator[str]:
    given = it.head.get("widget")
    for i, entry in enumerate(given if isinstance(given, list) else []):
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("text", ""), str)
            or not any(map(entry.get, _WIDGET_INPUTS))
        ):
            yield f"widget[{i}] has no text or other input"
            continue
        if "output" in entry and not _is_output(entry["output"]):
            yield f"widget[{i}].output is not a list of label and score, an answer with its score, a text or a url"


def _emissions(it: Published) -> Iterator[str]:
    given = it.head.get("co2_eq_emissions")
    grams = given.get("emissions") if isinstance(given, dict) else given
    if given is not None and not (isinstance(grams, int | float) and math.isfinite(grams) and grams >= 0):
        yield f"{grams!r} is not a number of grams"


def _is_output(output: Any) -> bool:
    if isinstance(output, list):
        return all(
            isinstance(each, dict) and isinstance(each.get("label"), str) and _is_number(each.get("score"))
            for each in output
        )
    if not isinstance(output, dict):
        return False
    answer = isinstance(output.get("answer"), str) and _is_number(output.get("score"))
    return answer or any(isinstance(output.get(key), str) for key in ("text", "url"))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _model_index(it: Published) -> Iterator[str]:
    models = it.head.get("model-index", [])
    if not isinstance(models, list):
        yield "it is not a list"
        return
    for i, model in enumerate(models):
        if not isinstance(model, dict) or not model.get("name") or not isinstance(model.get("results"), list):
            yield f"model-index[{i}] has no name, or no list of results"
    for place, result in it.results():
        for part, key in (("task", "type"), ("dataset", "type"), ("dataset", "name")):
            of = result.get(part)
            if not isinstance(of, dict) or not isinstance(of.get(key), str) or not of[key]:
                yield f"{place} has no {part}.{key}"
        metrics = result.get("metrics")
        if not isinstance(metrics, list) or not all(isinstance(each, dict) and each.get("type") for each in metrics):
            yield f"{place} has no metrics, or one without a type"


def _datasets_of_results(it: Published, check: Callable[[dict[str, Any]], str | None]) -> Iterator[str]:
    for place, result in it.results():
        data = result.get("dataset")
        if isinstance(data, dict) and (fault := check(data)):
            yield f"{place}.{fault}"


def _dataset_type(it: Published) -> Iterator[str]:
    def check(data: dict[str, Any]) -> str | None:
        kind = data.get("type")
        wrong = isinstance(kind, str) and kind and not _DATASET_TYPE.fullmatch(kind)
        return f"dataset.type {kind!r} has a blank or a colon, or is not an id" if wrong else None

    return _datasets_of_results(it, check)


def _dataset_parts(it: Published) -> Iterator[str]:
    def check(data: dict[str, Any]) -> str | None:
        wrong = [key for key in ("config", "split", "revision") if not isinstance(data.get(key, ""), str)]
        return f"dataset.{wrong[0]} is not a text" if wrong else None

    return _datasets_of_results(it, check)


def _figures(it: Published) -> Iterator[Any]:
    for _, result in it.results():
        for metric in result.get("metrics") or []:
            if isinstance(metric, dict):
                yield metric.get("value")


def _values(it: Published) -> Iterator[str]:
    for value in _figures(it):
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            yield f"a metric has the value {value}"


def _digits(it: Published) -> Iterator[str]:
    for value in _figures(it):
        if isinstance(value, float) and math.isfinite(value) and abs(value) < 10**DIGITS:
            if float(f"{value:.{DIGITS}g}") != value:
                yield f"a metric has the value {value}, of more than {DIGITS} digits"


def _adapter(it: Published) -> Iterator[str]:
    if it.head.get("library_name") != "peft":
        return
    if run_folder.ADAPTER_CONFIG not in it.names:
        yield f"library_name is peft, and there is no {run_folder.ADAPTER_CONFIG}"
        return
    base = it.json(run_folder.ADAPTER_CONFIG).get("base_model_name_or_path")
    if base is None or base not in it.several("base_model"):
        yield f"{run_folder.ADAPTER_CONFIG} names the base {base}, and the card {it.head.get('base_model')}"
    if run_folder.CONFIG in it.names:
        yield f"{run_folder.CONFIG} beside {run_folder.ADAPTER_CONFIG} keeps transformers from finding the base"


def _task_type(it: Published) -> Iterator[str]:
    known = TASK_TYPES.get(str(it.head.get("pipeline_tag")))
    config = it.json(run_folder.ADAPTER_CONFIG)
    if known and config and config.get("task_type") not in known:
        yield f"{run_folder.ADAPTER_CONFIG} has task_type {config.get('task_type')}, not {' or '.join(known)}"


def _repository(it: Published) -> Iterator[str]:
    if it.repo is not None and not REPOSITORY.fullmatch(it.repo.rpartition("/")[2]):
        yield (
            f"{it.repo!r} is not a name for a repository: letters, digits, . _ and -, 96 at most, no -- or .., none of"
            " . and - at an end"
        )


def _eval_results(it: Published) -> Iterator[str]:
    for name in sorted(it.names):
        if not name.startswith(f"{RESULTS}/"):
            continue
        try:
            entries = yaml.safe_load(it.read(name))
        except (yaml.YAMLError, ValueError) as error:
            yield f"{name} is not YAML ({first_line(error)})"
            continue
        for entry in entries if isinstance(entries, list) else [entries]:
            fault = _entry_fault(entry if isinstance(entry, dict) else {}, it.benchmarks)
            if fault:
                yield f"{name} {fault}"


def _entry_fault(entry: dict[str, Any], benchmarks: Mapping[str, Collection[str]] | None) -> str | None:
    data, source = (entry.get(key) or {} for key in ("dataset", "source"))
    if not isinstance(data, dict) or not data.get("id") or not data.get("task_id"):
        return "has an entry without dataset.id or dataset.task_id"
    if benchmarks is not None and data["task_id"] not in benchmarks.get(data["id"], ()):
        return f"is about {data['id']}, whose eval.yaml has no task {data['task_id']}"
    if not isinstance(entry.get("value"), int | float):
        return "has an entry without a value"
    if not isinstance(source, dict) or not source.get("url"):
        return "has an entry without the url of a source"
    return None


_SPEC, _LICENSES, _RESULTS = "hub-docs modelcard.md", "hub-docs repositories-licenses.md", "hub-docs eval-results.md"
_CO2 = "hub-docs model-cards-co2.md"
_WIDGETS = "huggingface.js widget-example.ts"
_CARDS, _SNIPPETS = "hub-docs model-cards.md", "huggingface.js model-libraries-snippets.ts"
METADATA = Rule("metadata", "YAML 1.2, a mapping, in which no key comes twice", _SPEC, True, lambda it: iter(()))
RULES = (
    METADATA,
    Rule("repository", "the form of a name", "huggingface_hub validate_repo_id", True, _repository),
    Rule("license", "identifiers on the Hub's list", _LICENSES, True, _license),
    Rule("license terms", "`other` has license_name and license_link, a URL or a file", _LICENSES, False, _terms),
    Rule("language", "ISO 639 codes, `code`, `multilingual`", "espnet_model_zoo#102", True, _language),
    Rule("pipeline_tag", "a task on the Hub's list, no sub-task", "huggingface.js#1590", False, _pipeline_tag),
    Rule("library_name", "a library that has a name there", "huggingface.js model-libraries.ts", False, _library),
    Rule("base_model", "ids of models", "peft#2124", True, _ids("base_model")),
    Rule("base_model_relation", "adapter, finetune, merge or quantized", _CARDS, True, _relation),
    Rule("datasets", "ids of data sets", "transformers#13528", True, _ids("datasets")),
    Rule("new_version", "the id of a model", _CARDS, True, _ids("new_version")),
    Rule("tags", "a list of texts", _SPEC, True, _texts("tags")),
    Rule("metrics", "a list of texts", _SPEC, True, _texts("metrics")),
    Rule("widget", "a list", "hub-docs models-widgets.md", True, _is("widget", list, "a list")),
    Rule("widget entries", "an input each, and an output of its form", _WIDGETS, False, _widget),
    Rule("thumbnail", "a text", _CARDS, True, _is("thumbnail", str, "a text")),
    Rule("co2_eq_emissions", "grams, alone or as emissions", _CO2, False, _emissions),
    Rule("model-index", "name, task.type, dataset.type, dataset.name, metrics", _SPEC, True, _model_index),
    Rule("dataset.type", "an id of the Hub's form, such as `unknown`", "mteb#1111", True, _dataset_type),
    Rule("dataset.config", "config, split and revision are texts", _SPEC, True, _dataset_parts),
    Rule("value", "a metric has one, and it is finite", _SPEC, True, _values),
    Rule("digits", f"a figure has {DIGITS} digits at most", "our own: no interval supports more", False, _digits),
    Rule("adapter", "adapter_config.json names the card's base", _SNIPPETS, False, _adapter),
    Rule("task_type", "adapter_config.json names PEFT's task", _SNIPPETS, False, _task_type),
    Rule("eval_results", "of tasks in a benchmark's eval.yaml, with a source", _RESULTS, False, _eval_results),
)
"""Each rule once. A card without metadata that can be read is judged by the first alone."""


def judge(
    text: str,
    names: Collection[str] = (),
    read: Callable[[str], bytes] = lambda name: b"",
    *,
    repo: str | None = None,
    benchmarks: Mapping[str, Collection[str]] | None = None,
) -> list[Fault]:
    """What breaks a rule in a card and the files beside it, which `Published` describes."""
    try:
        head, _ = split(text, StrictYaml)
    except UserError as error:
        return [Fault(METADATA.name, METADATA.refused, str(error))]
    it = Published(head, names, read, repo, benchmarks)
    return [Fault(rule.name, rule.refused, f"{rule.name}: {fault}") for rule in RULES for fault in rule.faults(it)]
