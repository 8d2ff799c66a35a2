"""What a reader must know of the code that the Hub's page prints under "Use this model", where it does not work.

The page makes it of the library, the task and adapter_config.json (huggingface.js, model-libraries-snippets.ts).
"""

from tl_hub.methods.adapters import named
from tl_hub.methods.adapters.base import TASK_TYPES
from tl_hub.record import RunRecord
from tl_hub.tasks import catalog

_HEADS = ("id2label", "label2id", "num_labels", "problem_type")
"""Values of a configuration by which a loader makes the head, as far as they change what is loaded."""
_PRINTED = TASK_TYPES.keys() - {"AutoModelForQuestionAnswering"}
"""Classes by which the page loads the base of an adapter; for answers it prints that the task is invalid."""
_SHOWN = 'the Hub shows under "Use this model"'


def note(record: RunRecord) -> str | None:
    """A sentence or two for the first lines of a card; None where the page's code works."""
    if record.kind == "adapter":
        return _of_adapter(record)
    if record.auto_class == "FeatureModel":
        return 'The Hub shows no code for it under "Use this model"; the code below loads it.'
    if catalog.facts_of(record).tag == "question-answering":  # of summaries and translations the page says it itself
        return f'`pipeline("question-answering")`, which {_SHOWN}, is not in transformers 5. Use the code below.'
    return None


def variant(record: RunRecord) -> str | None:
    """Which repository hosted inference takes, and where the other variant of the same training is."""
    merged, adapter = record.variants.get("merged"), record.variants.get("adapter")
    if record.kind == "merged" and adapter:
        return f"The adapter alone is in {_link(adapter)}."
    if record.kind != "adapter":
        return None
    whole = f"{_link(merged)} is the same model with the adapter merged into its weights" if merged else None
    if record.pipeline_tag == "text-generation":
        return f"{whole}." if whole else None
    return f"The Hub's hosted inference takes no adapters for this task, only whole models{f': {whole}' * bool(whole)}."


def _link(repo: str) -> str:
    return f"[{repo}](https://huggingface.co/{repo})"


def _of_adapter(record: RunRecord) -> str | None:
    if record.auto_class not in _PRINTED:
        return 'The Hub has no code for this adapter under "Use this model"; the code below loads it.'
    needed = [name for name in record.config if name not in _HEADS]
    labels = len(record.config.get("id2label") or "12")
    method = named(record.method["name"])
    if labels != 2:
        return f"The code that {_SHOWN} loads a head of two classes and fails. Use the code below."
    if needed:
        names = ", ".join(f"`{name}`" for name in needed)
        return f"The code that {_SHOWN} leaves out {names} and gives other results. Use the code below."
    if method and method.snippet_import:
        return f"Put `{method.snippet_import.split('  ')[0]}` before the code that {_SHOWN}."
    return None
