"""The model card: the README.md of a run folder, every statement of which follows from its `run.json`.

What the record does not know, the card does not mention. Needs neither torch nor transformers.
"""

import functools
import hashlib
import json
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tl_hub import run_folder, samples
from tl_hub.architectures import ARCHITECTURES
from tl_hub.errors import UserError
from tl_hub.methods.adapters import named
from tl_hub.record import BaseModel, DataFacts, Metric, RunRecord
from tl_hub.tasks import catalog

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

RESULTS = ".eval_results"

_LABELS = {
    "f1": "F1",
    "chrf": "chrF",
    "bleu": "BLEU",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "rmse": "RMSE",
    "pearsonr": "Pearson correlation",
    "spearmanr": "Spearman correlation",
}
_PAPERS = {
    **{name: (f"{entry.title}: {entry.paper[0]}", entry.paper[1]) for name, entry in ARCHITECTURES.items()},
    "expected_calibration_error": ("Expected calibration error: Guo et al. 2017", "https://arxiv.org/abs/1706.04599"),
}


class _Yaml(yaml.SafeLoader):
    """YAML 1.2, as the Hub reads it: `no` is Norwegian, not false, and a date is a text."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if not tag.endswith((":bool", ":timestamp"))]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Yaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))

_CELL = 160
"""Characters of a text that a table cell shows."""

# A whole absolute path, up to its last part. A slash inside a word or a URL starts none.
_PATH = re.compile(r"""(?<![\w.:/\\~-])(?:file://)?(?:~|[A-Za-z]:)?[/\\]+(?:[^\s"',;=/\\]+[/\\]+)*(?=[^\s"',;=/\\])""")
_PART = re.compile(
    r"<!-- tl_hub: (?P<name>[^\n]*) (?P<digest>[0-9a-f]{12}) -->\n(?P<text>.*?)\n<!-- tl_hub end -->", re.DOTALL
)
_UNFILLED = "# Model Card for Model ID"
"""How the forms begin that PEFT writes into a folder."""
_LIBRARIES = {"FeatureModel": "tl_hub", "SentenceTransformer": "sentence-transformers"}
"""Classes that are not of transformers, and the Hub's name of their library."""
_MEASURED = ("base_model", "base_model_relation", "datasets", "library_name", "metrics", "model-index", "pipeline_tag")
"""Metadata that states what a run did: what an earlier push said of it does not outlive a new one."""
_MARKUP = re.compile(r"[\\`*<\[\]~]|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")


def write(folder: str | Path, repo: str | None = None, say: Callable[[str], None] = print) -> Path:
    """Write the README.md of a run folder, and `.eval_results/`; of a README.md that is there, see `merge`.

    Args:
        repo: id of the Hub repository the folder is to be published as; None for a card about "this folder".
        say: is told what a person should look at.

    Raises:
        UserError: no run.json, or not a valid one; the README.md is not UTF-8.
    """
    record = RunRecord.load(folder)
    path = Path(folder) / run_folder.CARD
    there = {Path(name).stem: (Path(folder) / name).is_file() for name in run_folder.PICTURES}
    text, notes = render(record, repo, None, **there), list[str]()
    if path.is_file():
        text, notes = merge(text, read_text(path), "in the folder")
    for note in notes:
        say(f"note: {note}")
    path.write_text(text, encoding="utf-8")
    shutil.rmtree(Path(folder) / RESULTS, ignore_errors=True)
    for name, text in results_files(record).items():
        (Path(folder) / name).parent.mkdir(exist_ok=True)
        (Path(folder) / name).write_text(text, encoding="utf-8")
    return path


def read_text(path: Path) -> str:
    """The text of a README.md, without a byte order mark, which would hide the metadata at its beginning.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8: iconv -f latin1 -t utf-8 converts Latin-1"
        ) from error


def render(
    record: RunRecord,
    repo: str | None = None,
    revision: str | None = None,
    *,
    curves: bool = False,
    confusion: bool = False,
    layers: bool = False,
) -> str:
    """The text of the README.md. Each part stands between marks that `merge` knows it by.

    Args:
        repo: as in `write`.
        revision: branch of the repository, where that is not its main one.
        curves, confusion, layers: the folder holds the picture of that name.
    """
    record = RunRecord.from_facts(record.facts())  # plain values; None stands for all that is not known
    adapter = named(record.method["name"])
    body = _template("card.md").render(
        record=record,
        curves=curves,
        confusion=confusion,
        layers=layers,
        task=catalog.facts_of(record),
        method=adapter.title if adapter else record.method["name"],
        base=_base(record.base),
        pretraining_texts=samples.TEXTS_OF_CHECKPOINTS,
        data=_data(record.data),
        headline=_headline(record),
        on_hub=repo is not None,
        results=_results(record.metrics),
        tables=[(title, _rows(rows)) for title, rows in record.tables.items()],
        examples=_examples(record),
        splits=_splits(record.data),
        method_settings=_settings(record.method.get("settings", {})),
        settings=_settings(record.settings),
        history=_history(record),
        decision=_settings(record.decision),
        cost=_cost(record),
        snippet=snippet(record, repo, revision) + (call_snippet(record) or ""),
        # An adapter names its base: where that is not on the Hub, the adapter is not published.
        adapter_snippet=adapter_snippet(record, repo, revision)
        if record.kind == "merged" and (repo is None or (record.base and record.base.source == "hub"))
        else None,
        pipeline_snippet=pipeline_snippet(record, repo, revision),
        papers=_papers(record),
    )
    marked = "\n\n".join(map(_marked, _sections(re.sub(r"\n{3,}", "\n\n", body).strip())))
    return f"---\n{metadata(record).to_yaml()}\n---\n\n{marked}\n"


@functools.cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        text=_text, code=_code, figure=_figure, literal=_literal, without_folders=_without_folders
    )
    return environment.get_template(name)


def merge(generated: str, there: str, where: str = "on the Hub") -> tuple[str, list[str]]:
    """The card of a new push that keeps what a person wrote into the card that is there.

    What stands between the generated parts stays where it is. A generated part that was edited is replaced, or the
    card would state what the weights no longer do; the edit is kept beside it in a comment. In the metadata, what a
    run tells is replaced, tags are put together, and everything else stays.

    Args:
        generated: a text of `render`, or one that this made of it, whose own texts come before those that are there.
        there: a README.md of whatever origin.
        where: it is, for the sentences.

    Returns:
        The text, and a sentence on each thing a person should look at.

    Raises:
        UserError: the metadata there cannot be read.
    """
    from huggingface_hub.utils import yaml_dump

    notes = []
    (ours, body), (theirs, old) = _split(generated), _split(there)
    if old.lstrip().startswith(_UNFILLED):
        notes.append(f"the card {where} is PEFT's form, which nobody has filled in; it is left out")
        theirs, old = {}, ""
    for key in ("license", "language", *_MEASURED):
        said, known = theirs.get(key), ours.get(key)
        if not said or said == known or key in ("metrics", "model-index"):
            continue
        if known:
            notes.append(f"the card {where} says {key} {said}; replaced by the run's {known}")
        elif key in _MEASURED:
            notes.append(f"the card {where} says {key} {said}; left out, as the run has none")
    replaced = {*_MEASURED, *(["language_bcp47"] if "language" in ours else [])}
    head = ours | {key: value for key, value in theirs.items() if key not in ours and key not in replaced}
    tags = theirs.get("tags") or []
    tags = [str(tag) for tag in (tags if isinstance(tags, list) else [tags])]
    head["tags"] = list(dict.fromkeys([*ours.get("tags", []), *tags]))

    parts = [(part["name"], part[0]) for part in _PART.finditer(body)]
    for part in _PART.finditer(old):
        if _digest(part["text"]) != part["digest"]:
            notes.append(
                f"the part {part['name']!r} of the card {where} was edited; the edit is kept in a comment below it"
            )
    own, written = _written(body), _written(old)
    if not _PART.search(old) and old.strip():
        notes.append(f"the card {where} is not from tl_hub; its text is kept below the generated one")
        written = {parts[-1][0]: [old.strip()]}
    for place, texts in own.items():
        there_now = written.get(place, [])
        new = [text for text in texts if not any(text in other for other in there_now)]
        kept = [text for text in there_now if not any(text in other for other in new)]
        if new and kept:
            notes.append(f"a text of the card {where} is not that of the folder; both are kept")
        written[place] = new + kept

    merged = written.pop(None, [])
    for name, text in parts:
        merged += [text, *written.pop(name, [])]
    merged += [text for left in written.values() for text in left]  # of parts that the new card does not have
    text = "\n\n".join(merged)
    return f"---\n{yaml_dump(head, sort_keys=False)}---\n\n{text}\n", notes


def _written(body: str) -> dict[str | None, list[str]]:
    """What a person wrote into a card, by the generated part it follows; an edit of such a part in a comment."""
    written: dict[str | None, list[str]] = {}
    place, end = None, 0
    for part in _PART.finditer(body):
        written.setdefault(place, []).append(body[end : part.start()].strip())
        place, end = part["name"], part.end()
        if _digest(part["text"]) != part["digest"]:
            edited = part["text"].replace("--", "- -")  # two hyphens may end a comment
            written.setdefault(place, []).append(f"<!-- edited by hand, then replaced by a new push:\n{edited}\n-->")
    written.setdefault(place, []).append(body[end:].strip())
    return {place: [text for text in texts if text] for place, texts in written.items()}


def results_files(record: RunRecord) -> dict[str, str]:
    """The Hub's newer form of results: path in the repository -> YAML. Only for data of the Hub, which it names.

    An entry has no name of a metric, so only the first metric is stated, with what it is in the notes
    (https://huggingface.co/docs/hub/eval-results).
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump

    record = RunRecord.from_facts(record.facts())
    if record.data.source != "hub" or not record.metrics:
        return {}
    metric = record.metrics[0]
    entry = EvalResultEntry(
        dataset_id=record.data.id,
        task_id=record.pipeline_tag,
        value=_shown(metric.value),
        dataset_revision=record.data.revision,
        date=record.created,
        notes=", ".join([_label(metric.name), *_interval(metric), f"{metric.split} split", f"n = {metric.rows:,}"]),
    )
    name = re.sub(r"[^\w.-]+", "-", record.data.id.lower())
    return {f"{RESULTS}/{name}.yaml": yaml_dump(eval_result_entries_to_yaml([entry]))}


def metadata(record: RunRecord) -> "ModelCardData":
    """The YAML head. Only ids of the Hub stand in `base_model` and `datasets`: it links them, and refuses others."""
    from huggingface_hub import EvalResult, ModelCardData

    record = RunRecord.from_facts(record.facts())
    base, data = record.base, record.data
    base_on_hub = base is not None and base.source == "hub"
    data_on_hub = data.source == "hub"
    # The Hub takes the form of an id only, and would link it: other libraries, too, write this for rows it lacks.
    dataset_type = data.id if data_on_hub else "unknown"
    # Its `language` takes ISO 639 codes alone: what names a region or script as well belongs in `language_bcp47`.
    languages = list(dict.fromkeys(code.partition("-")[0] for code in record.language))
    results = [
        EvalResult(
            task_type=record.pipeline_tag,
            dataset_type=dataset_type,
            dataset_name=_without_folders(data.id),
            dataset_split=metric.split,
            dataset_revision=data.revision if data_on_hub else None,
            metric_type=metric.name,
            metric_value=_shown(metric.value),
            metric_name=_capital(_label(metric.name)) + f" ({', '.join([*_interval(metric), f'n = {metric.rows:,}'])})",
        )
        for metric in record.metrics
    ]
    return ModelCardData(
        language=languages or None,
        language_bcp47=[code for code in record.language if "-" in code] or None,
        license=record.license or (base.license if base else None),
        library_name="peft" if record.kind == "adapter" else _LIBRARIES.get(record.auto_class, "transformers"),
        pipeline_tag=record.pipeline_tag,
        base_model=base.id if base and base_on_hub else None,
        base_model_relation=("adapter" if record.kind == "adapter" else "finetune") if base_on_hub else None,
        datasets=[data.id] if data_on_hub else None,
        metrics=list(dict.fromkeys(metric.name for metric in record.metrics)) or None,
        tags=["tl_hub", _method_tag(record), *filter(None, [_model_type(record)])],
        model_name=" ".join(record.name.split()),
        eval_results=results or None,
    )


def snippet(record: RunRecord, repo: str | None, revision: str | None = None) -> str:
    """Python that defines `model` and, but for sentence-transformers, `tokenizer`; run in the folder without `repo`."""
    if record.kind == "adapter":
        return adapter_snippet(record, repo, revision)
    place = _place(repo, revision)
    if record.auto_class == "FeatureModel":
        return f"import tl_hub\n\nmodel = tl_hub.FeatureModel.from_pretrained({place})\ntokenizer = model.tokenizer\n"
    if record.auto_class == "SentenceTransformer":
        return f"from sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer({place})\n"
    return (
        f"from transformers import {record.auto_class}, AutoTokenizer\n\n"
        f"model = {record.auto_class}.from_pretrained({place})\n"
        f"tokenizer = AutoTokenizer.from_pretrained({place})\n"
    )


def _place(repo: str | None, revision: str | None) -> str:
    """Arguments that say where to load from."""
    return _literal(repo or ".") + (f", revision={_literal(revision)}" if repo and revision else "")


def adapter_snippet(record: RunRecord, repo: str | None, revision: str | None = None) -> str:
    """The same by the adapter and its base; beside a merged model the adapter is in `adapter/`."""
    base, auto_class, place = record.base, record.auto_class, _place(repo, revision)
    adapter = place + (', subfolder="adapter"' if record.kind == "merged" else "")
    imports = ["from peft import PeftModel", f"from transformers import {auto_class}, AutoTokenizer"]
    kind = named(record.method["name"])
    if kind and kind.snippet_import:
        imports.append(kind.snippet_import)
    lines = []
    if base is not None and base.source == "hub":
        where = _literal(base.id) + (f", revision={_literal(base.revision)}" if base.revision else "")
    elif base is not None and base.source == "embedded":
        imports.append("from tl_hub import samples")
        where = f"samples.checkpoint({_literal(base.id.removeprefix('tiny:'))})"
    else:  # a local base is known to adapter_config.json only: its path has no place on a card
        imports[0] = "from peft import PeftConfig, PeftModel"
        lines = [f"config = PeftConfig.from_pretrained({adapter})"]
        where = "config.base_model_name_or_path"
    # An adapter was trained on its base in float32; a loader would take the base's stored, perhaps halved, precision.
    arguments = [where, 'dtype="float32"', *(f"{name}={value!r}" for name, value in record.config.items())]
    joined = "".join(f"\n    {argument}," for argument in arguments) + "\n" if record.config else ", ".join(arguments)
    lines += [
        f"base = {auto_class}.from_pretrained({joined})",
        f"model = PeftModel.from_pretrained(base, {adapter}).eval()",
        f"tokenizer = AutoTokenizer.from_pretrained({place})",
    ]
    return "\n".join([*imports, "", *lines]) + "\n"


def reads(record: RunRecord) -> tuple[str, ...]:
    """Names of the texts that tl_hub.pipeline takes, which are columns of the examples; none without a pipeline."""
    pairs = bool(record.settings.get("text_pair_column"))
    return catalog.facts_of(record).reads + (("text_pair",) if pairs else ())


def shown_row(record: RunRecord) -> dict[str, str] | None:
    """The texts of the row that the snippets are called with, by their names; None without a pipeline or such a row."""
    names = reads(record)
    rows = [row for row in record.examples if all(row.get(name) and isinstance(row[name], str) for name in names)]
    if not names or not rows:
        return None
    row = min(rows, key=lambda row: (not row.get("predicted"), len(row[names[-1]])))
    return {name: row[name] for name in names}


def call_snippet(record: RunRecord) -> str | None:
    """Python that goes on with `snippet` by stock calls and defines `result`, of the row the record shows.

    None where there is no such row, or where few lines cannot read it as it was trained: GPT-2's prompts of
    summarization and translation, XLNet from left to right, sentences chosen from a text.
    """
    shown = shown_row(record)
    template = catalog.facts_of(record).stock_calls.get(record.auto_class)
    family = ARCHITECTURES.get(_model_type(record) or "")
    if shown is None or template is None or (template == "feature-model" and len(shown) > 1):
        return None
    if template == "sequence-to-sequence" and "prefix" not in record.settings:  # of another training loop
        return None
    if template == "text-generation" and (family is None or family.pretrained_by != "causal"):
        return None
    prefix = f"{record.settings['prefix']} " if record.settings.get("prefix") else ""
    if "question" in shown:
        shown["question"] = shown["question"].strip()  # as it is read in training
    return _template(f"calls/{template}.txt").render(
        record=record,
        texts=[_wrapped(prefix + text) for text in shown.values()],
        longest=record.settings.get("max_length") or record.settings.get("max_source_length"),
        null=0 if family and family.summary == "first" else -1,  # where the family has its special token
    )


def pipeline_snippet(record: RunRecord, repo: str | None, revision: str | None = None) -> str | None:
    """Python that defines `answer`, of a row the record shows; None where the task has no pipeline or no such row."""
    shown = shown_row(record)
    if shown is None:
        return None
    arguments = [f"    {name}={_wrapped(text)},\n" for name, text in shown.items()]
    code = f"import tl_hub\n\nanswer = tl_hub.pipeline({_place(repo, revision)})(\n{''.join(arguments)})\n"
    output = (record.verification or {}).get("pipeline_output")
    if output:
        code += f"# {_literal(_rounded(output))}\n"
    return code


def _sections(body: str) -> list[tuple[str, str]]:
    """The text cut before each heading of the second level, with the heading's name; the first part is "Summary"."""
    name, lines, code = "Summary", list[str](), False
    sections = []
    for line in body.splitlines():
        code ^= line.startswith("```")
        if line.startswith("## ") and not code:
            sections.append((name, "\n".join(lines).strip()))
            name, lines = line.removeprefix("## "), []
        lines.append(line)
    return [*sections, (name, "\n".join(lines).strip())]


def _marked(section: tuple[str, str]) -> str:
    name, text = section
    return f"<!-- tl_hub: {name} {_digest(text)} -->\n{text}\n<!-- tl_hub end -->"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _split(card: str) -> tuple[dict[str, Any], str]:
    """Metadata and text of a card."""
    found = re.match(r"\s*---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|\Z)", card := card.replace("\r\n", "\n"), re.DOTALL)
    if not found:
        return {}, card
    try:
        head = yaml.load(found[1] or "", _Yaml)
    except yaml.YAMLError as error:
        raise UserError(f"the metadata of the card are not YAML ({' '.join(str(error).split())})") from error
    return head if isinstance(head, dict) else {}, card[found.end() :]


def _base(base: BaseModel | None) -> str:
    if base is None:
        return ""
    if base.source == "hub":
        return f"[{base.id}](https://huggingface.co/{base.id})"
    kind = "the embedded checkpoint" if base.source == "embedded" else "the local checkpoint"
    return f"{kind} {_code(_without_folders(base.id))}"


def _data(data: DataFacts) -> str:
    if data.source == "hub":
        return f"[{data.id}](https://huggingface.co/datasets/{data.id})"
    kind = "the embedded data" if data.source == "embedded" else "local data"
    return f"{kind} {_code(_without_folders(data.id))}"


def _headline(record: RunRecord) -> str:
    """The first metric, in the middle of a sentence."""
    if not record.metrics:
        return ""
    metric = record.metrics[0]
    interval = "".join(f" ({text})" for text in _interval(metric))
    rows = f"{metric.rows:,} row{'' if metric.rows == 1 else 's'}"
    label, split = _text(_label(metric.name)), _text(metric.split)
    return f"{label} is {_figure(metric.value)}{interval} on {rows} of the {split} split"


def _results(metrics: list[Metric]) -> str:
    return _table(
        ["Metric", "Value", "95 % interval", "Split", "Rows"],
        [
            [
                _text(_capital(_label(metric.name))),
                _figure(metric.value),
                "".join(_interval(metric)).removeprefix("95 % interval "),
                _text(metric.split),
                f"{metric.rows:,}",
            ]
            for metric in metrics
        ],
    )


def _rows(rows: list[dict[str, Any]]) -> str:
    """A table of the record, whose rows are dicts."""
    columns = _keys(rows)
    headers = [_text(_capital(_label(name))) for name in columns]
    return _table(headers, [[_figure(row[name]) if name in row else "" for name in columns] for row in rows])


def _examples(record: RunRecord) -> str:
    """All columns but the context, which is long; in question answering no text stands for "there is no answer"."""
    columns = [name for name in _keys(record.examples) if name != "context"]
    empty = f"*{catalog.facts_of(record).no_answer}*"

    def cell(row: dict[str, Any], name: str) -> str:
        if name not in row:
            return ""
        value = ", ".join(map(str, row[name])) if isinstance(row[name], list) else str(row[name])
        return _text(_cut(value)) or empty

    headers = [_text(_capital(name.replace("_", " "))) for name in columns]
    return _table(headers, [[cell(row, name) for name in columns] for row in record.examples])


def _splits(data: DataFacts) -> str:
    return _table(
        ["Split", "Rows", "Features", "SHA-256"],
        [
            [
                _text(name),
                f"{split.rows:,}",
                "" if split.features is None else f"{split.features:,}",
                _code(split.sha256[:12]) if split.sha256 else "",
            ]
            for name, split in data.splits.items()
        ],
    )


def _settings(settings: dict[str, Any]) -> str:
    rows = []
    for name, value in settings.items():
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if value not in ("", [], {}):
            rows.append([_code(name), _code(_cut(_without_folders(shown)))])
    return _table(["Setting", "Value"], rows)


def _history(record: RunRecord) -> str:
    columns = _keys(record.history)

    def cell(epoch: dict[str, Any], name: str) -> str:
        shown = _figure(epoch[name]) if name in epoch else ""
        return f"**{shown} (kept)**" if name == "epoch" and shown and epoch[name] == record.best_epoch else shown

    headers = [_text(_capital(_label(name))) for name in columns]
    return _table(headers, [[cell(epoch, name) for name in columns] for epoch in record.history])


def _cost(record: RunRecord) -> str:
    cost = record.cost
    trained, total = cost.trainable_parameters, cost.total_parameters
    rows = [
        ["Training, without evaluations", _duration(cost.training_seconds)],
        ["Whole run", _duration(cost.total_seconds)],
        ["Training rows a second", "" if cost.rows_per_second is None else _figure(cost.rows_per_second)],
        ["Peak memory", "" if cost.peak_memory_bytes is None else f"{cost.peak_memory_bytes / 2**20:,.0f} MiB"],
        ["Parameters", "" if total is None or trained is not None else f"{total:,}"],
        ["Parameters trained", "" if trained is None else f"{trained:,}"],
        ["Device", _text(cost.device or "")],
        ["Precision", _text(cost.precision or "")],
    ]
    if trained is not None and total:
        rows[5][1] += f" of {total:,} ({100 * trained / total:.3g} %)"
    return _table(["Cost", "Figure"], [row for row in rows if row[1]])


def _papers(record: RunRecord) -> list[str]:
    adapter, of_task = named(record.method["name"]), catalog.facts_of(record).paper
    papers = [_PAPERS.get(_model_type(record) or ""), adapter.paper if adapter else None, of_task]
    papers += [_PAPERS.get(metric.name) for metric in record.metrics]
    return [f"[{paper[0]}]({paper[1]})" for paper in papers if paper]


def _model_type(record: RunRecord) -> str | None:
    """The base's family; of a model pretrained from scratch, that of the method's settings."""
    return record.base.model_type if record.base else record.method.get("settings", {}).get("model_type")


def _method_tag(record: RunRecord) -> str:
    return re.sub(r"[^a-z0-9]+", "-", record.method["name"].lower()).strip("-")


def _label(name: str) -> str:
    """The name of a metric, or of another figure, as the field writes it."""
    return " ".join(_LABELS.get(word, word) for word in re.split("[_ ]", name))


def _interval(metric: Metric) -> list[str]:
    """The interval as a list of one text, or of none where it is not known."""
    if metric.low is None or metric.high is None:
        return []
    return [f"95 % interval {_figure(metric.low)} to {_figure(metric.high)}"]


def _capital(text: str) -> str:
    return text if text == "chrF" else text[:1].upper() + text[1:]


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else _text(str(value))


def _shown(value: float) -> float:
    """A figure of the metadata, as exact as `_figure` shows it in the text; `run.json` has it in full."""
    return float(_figure(float(value)).replace(",", ""))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _keys(rows: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of cells that are Markdown. A column in which nothing is known is left out."""
    kept = [i for i in range(len(headers)) if any(row[i] for row in rows)]
    if not kept:
        return ""
    # A sparse column needs some mark, or the cell would look like a mistake.
    lines = [[row[i].replace("|", r"\|") or "–" for i in kept] for row in rows]
    lines = [[headers[i].replace("|", r"\|") for i in kept], ["---"] * len(kept), *lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(text: str) -> str:
    """Text as Markdown that shows it literally, on one line."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _code(text: str) -> str:
    """A code span, or escaped text where the span's own marks are in it."""
    return _text(text) if re.search(r"[`|\\]", text) else f"`{' '.join(text.split())}`"


def _cut(text: str) -> str:
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _without_folders(text: str) -> str:
    """Absolute paths reduced to their last part: the card is public, the machine is not."""
    return _PATH.sub("", text)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


def _literal(value: Any) -> str:
    """A text, or a dict of them, as Python source in double quotes."""
    return json.dumps(value, ensure_ascii=False)


def _wrapped(text: str) -> str:
    """A Python literal of `text`, over several lines where it is long."""
    parts = textwrap.wrap(
        text,
        100,
        drop_whitespace=False,
        replace_whitespace=False,
        expand_tabs=False,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if len(parts) < 2:
        return _literal(text)
    return "(\n" + "".join(f"        {_literal(part)}\n" for part in parts) + "    )"
