"""What a model's page on the Hub shows it at: measured rows of the record, with what the model gave for them.

The forms are those of huggingface.js, packages/tasks/src/widget-example.ts. The outputs are executed: a load-back calls
`tl_hub.pipeline` with the rows and keeps what it gives in the record (`load_back`).
"""

from typing import Any

from tl_hub.card.snippets import reads, shown_place
from tl_hub.record import RunRecord

GROUP = "Measured rows"
"""Of a page's menu of examples; by it a push knows those of an earlier one from a person's own."""
ROWS = 3
_LONGEST = 2_000  # characters of a row: the page shows all of it
_CLASSES = 5


def places(record: RunRecord) -> list[int]:
    """Which examples are shown, that of the card's snippets first; none where no text alone is read."""
    names, first = reads(record), shown_place(record)
    if first is None or names not in (("text",), ("question", "context")):
        return []
    fit = [
        i
        for i, row in enumerate(record.examples)
        if all(isinstance(row.get(name), str) and row[name].strip() for name in names)
        and sum(len(row[name]) for name in names) <= _LONGEST
    ]
    return sorted(fit, key=lambda i: i != first)[:ROWS]


def texts(record: RunRecord, place: int) -> dict[str, str]:
    """What `tl_hub.pipeline` is called with for an example."""
    return {name: record.examples[place][name] for name in reads(record)}


def entries(record: RunRecord) -> list[dict[str, Any]] | None:
    """The card's `widget`; None where there is no row to show."""
    given = {each["example"]: each["output"] for each in (record.verification or {}).get("outputs", [])}
    # Hosted inference is sent the text alone, and tl_hub.pipeline puts before it what the model was trained with.
    prefix = f"{record.settings['prefix']} " if record.settings.get("prefix") else ""
    found = []
    for place in places(record):
        row = texts(record, place)
        shown = {"text": row["question"], "context": row["context"]} if "question" in row else row
        shown["text"] = prefix + shown["text"]
        output = _output(given[place]) if place in given else None
        found.append({**shown, "group": GROUP} | ({"output": output} if output else {}))
    return found or None


def _output(given: Any) -> Any:
    """An output of `tl_hub.pipeline` in the form that the page reads; None where it reads none."""
    if isinstance(given, list):
        if not all("token_str" in each for each in given):
            return None  # entities, or the words of several masks
        return _labels({each["token_str"]: each["score"] for each in given})
    if "answer" in given:
        return {"answer": given["answer"], "score": _rounded(given["score"])}
    if "scores" in given:
        return _labels(given["scores"])
    if "label" in given:
        return _labels({given["label"]: given["score"]})
    return {"text": given["generated_text"]} if given.get("generated_text") else None


def _labels(scores: dict[str, float]) -> list[dict[str, Any]]:
    best = sorted(scores.items(), key=lambda pair: -pair[1])[:_CLASSES]
    return [{"label": label, "score": _rounded(score)} for label, score in best]


def _rounded(score: float) -> float:
    return float(f"{score:.4g}")


def of_a_person(widget: list[Any]) -> list[Any]:
    """The entries of a card that no push made."""
    return [each for each in widget if not (isinstance(each, dict) and each.get("group") == GROUP)]
