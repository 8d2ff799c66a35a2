"""The catalogue of tasks against the classes of tasks, which know the same of themselves, and against old records."""

from typing import Any

import pytest

from tl_hub.record import DataFacts, RunRecord
from tl_hub.tasks import catalog


@pytest.mark.parametrize("name", catalog.CATALOG)
def test_an_entry_leads_to_the_task_of_its_name(name: str) -> None:
    facts = catalog.CATALOG[name]
    assert facts.settings and facts.pipeline
    task = catalog.load(facts.settings)()
    if name == "text-regression":  # a matter of the labels
        task.regression = True
    assert (task.name, task.tag) == (name, facts.tag)
    assert callable(catalog.load(facts.pipeline))


def record(tag: str, auto_class: str = "AutoModel", task: str | None = None, **settings: Any) -> RunRecord:
    data = DataFacts(id="rows.csv", source="local")
    method = {"name": "fine-tuning"}
    return RunRecord(
        name="run",
        kind="fine-tuned",
        task=task,
        pipeline_tag=tag,
        auto_class=auto_class,
        method=method,
        data=data,
        metrics=[],
        settings=settings,
    )


@pytest.mark.parametrize(
    ("old", "task"),
    [
        (record("summarization", "AutoModelForSeq2SeqLM"), "summarization"),
        (record("summarization", "FeatureModel"), "extractive-summarization"),
        (record("text-generation", "AutoModelForCausalLM", max_new_tokens=48), "text-generation"),
        (record("text-generation", "AutoModelForCausalLM"), "causal-language-modeling"),
        (record("feature-extraction", "AutoModelForCausalLM"), "permutation-language-modeling"),
        (record("feature-extraction"), None),
        (record("text2text-generation", "AutoModelForSeq2SeqLM", noise_density=0.15), "span-corruption"),
        (record("text2text-generation", "AutoModelForSeq2SeqLM"), None),
        (record("fill-mask", "AutoModelForMaskedLM"), "masked-language-modeling"),
        (record("text-classification", "FeatureModel"), "text-classification"),
        (record("text-classification", regression=True), "text-regression"),
        (record("sentence-similarity", "SentenceTransformer"), None),
        (record("summarization", "FeatureModel", task="summarization"), "summarization"),
    ],
)
def test_the_task_of_a_record_that_does_not_name_it_is_told_from_its_tag(old: RunRecord, task: str | None) -> None:
    assert catalog.task_of(old) == task
    # To the Hub text2text-generation is a sub-task, which stands beside its task as a tag.
    assert catalog.facts_of(old).tag == old.pipeline_tag.replace("text2text", "text")
    assert catalog.facts_of(old).tags == ((old.pipeline_tag,) if "text2text" in old.pipeline_tag else ())
