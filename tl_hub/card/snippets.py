"""Python on the card: how to load what the folder holds, and what it gives for a row that the card shows."""

import textwrap
from collections import Counter
from typing import Any

from tl_hub.architectures import ARCHITECTURES
from tl_hub.card.templates import literal, template
from tl_hub.methods.adapters import named
from tl_hub.record import RunRecord
from tl_hub.tasks import catalog


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
    return literal(repo or ".") + (f", revision={literal(revision)}" if repo and revision else "")


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
        where = literal(base.id) + (f", revision={literal(base.revision)}" if base.revision else "")
    elif base is not None and base.source == "embedded":
        imports.append("from tl_hub import samples")
        where = f"samples.checkpoint({literal(base.id.removeprefix('tiny:'))})"
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
    place = shown_place(record)
    return None if place is None else {name: record.examples[place][name] for name in reads(record)}


def shown_place(record: RunRecord) -> int | None:
    """Which example the snippets are called with: where there are any, one that was answered right, or else at all.

    Of a record that states what a row gave, it is that row; records of earlier versions do not say which it was.
    """
    names, stated = reads(record), record.verification or {}
    rows = record.examples
    fit = [i for i, row in enumerate(rows) if all(row.get(name) and isinstance(row[name], str) for name in names)]
    if not names or not fit:
        return None
    if stated.get("example") in fit:
        return int(stated["example"])
    earlier = "example" not in stated and ("pipeline_output" in stated or "result" in stated)
    return min(
        fit,
        key=lambda i: (
            not earlier and not is_right(rows[i]),
            not rows[i].get("predicted"),
            len(rows[i][names[-1]]),
        ),
    )


def is_right(row: dict[str, Any]) -> bool:
    """Whether an example was answered as is expected: the same text, or the same texts in any order."""
    expected, predicted = (row.get(name) for name in ("expected", "predicted"))
    if isinstance(expected, list) and isinstance(predicted, list):
        return Counter(map(str, expected)) == Counter(map(str, predicted))
    return expected == predicted


def expected_instead(record: RunRecord) -> str | None:
    """What was expected of the row that the snippets are called with, where the model's answer is a wrong one."""
    place, facts = shown_place(record), catalog.facts_of(record)
    if place is None or not facts.right_or_wrong or is_right(record.examples[place]):
        return None
    expected = record.examples[place].get("expected")
    if expected is None:
        return None
    return ", ".join(map(str, expected)) if isinstance(expected, list) else str(expected)


def call_snippet(record: RunRecord) -> str | None:
    """Python that goes on with `snippet` by stock calls and defines `result`, of the row the record shows.

    None where there is no such row, or where few lines cannot read it as it was trained: GPT-2's prompts of
    summarization and translation, XLNet from left to right, sentences chosen from a text.
    """
    shown = shown_row(record)
    call = catalog.facts_of(record).stock_calls.get(record.auto_class)
    family = ARCHITECTURES.get(record.model_type or "")
    if shown is None or call is None or (call == "feature-model" and len(shown) > 1):
        return None
    if call == "sequence-to-sequence" and "prefix" not in record.settings:  # of another training loop
        return None
    if call == "text-generation" and (family is None or family.pretrained_by != "causal"):
        return None
    prefix = f"{record.settings['prefix']} " if record.settings.get("prefix") else ""
    if "question" in shown:
        shown["question"] = shown["question"].strip()  # as it is read in training
    return template(f"calls/{call}.txt").render(
        record=record,
        texts=[_wrapped(prefix + text) for text in shown.values()],
        longest=record.settings.get("max_length") or record.settings.get("max_source_length"),
        word_pieces=family is not None and family.word_pieces,
        null=0 if family and family.summary == "first" else -1,  # where the family has its special token
    )


def pipeline_snippet(record: RunRecord, repo: str | None, revision: str | None = None) -> str | None:
    """Python that defines `ask` and, of a row the record shows, its `answer`; None without a pipeline or such a row."""
    shown = shown_row(record)
    if shown is None:
        return None
    arguments = [f"    {name}={_wrapped(text)},\n" for name, text in shown.items()]
    code = f"import tl_hub\n\nask = tl_hub.pipeline({_place(repo, revision)})\nanswer = ask(\n{''.join(arguments)})\n"
    output = (record.verification or {}).get("pipeline_output")
    if output:
        code += f"# {literal(_rounded(output))}\n"
    return code


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


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
        return literal(text)
    return "(\n" + "".join(f"        {literal(part)}\n" for part in parts) + "    )"
