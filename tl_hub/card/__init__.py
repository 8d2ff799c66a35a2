"""The model card: the README.md of a run folder, every statement of which follows from its `run.json`.

What the record does not know, the card does not mention. Needs neither torch nor transformers.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from tl_hub import comparison, overfitting, run_folder, samples, soup
from tl_hub.card import sections, use_this_model
from tl_hub.card.merging import marked, merge, sections_of
from tl_hub.card.metadata import RESULTS, metadata
from tl_hub.card.notebook import notebook
from tl_hub.card.snippets import adapter_snippet, call_snippet, expected_instead, pipeline_snippet, snippet
from tl_hub.card.templates import template
from tl_hub.errors import UserError
from tl_hub.methods.adapters import named
from tl_hub.record import RunRecord
from tl_hub.tasks import catalog


def write(folder: str | Path, repo: str | None = None, say: Callable[[str], None] = print) -> Path:
    """Write the README.md of a run folder and its code as a notebook; of a README.md that is there, see `merge`.

    Args:
        repo: id of the Hub repository the folder is to be published as; None for a card about "this folder".
        say: called with a line for each thing that a person should look at.

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
    (Path(folder) / run_folder.NOTEBOOK).write_text(notebook(record, repo), encoding="utf-8")
    shutil.rmtree(Path(folder) / RESULTS, ignore_errors=True)  # of earlier versions, which wrote it here
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
    risk_coverage: bool = False,
) -> str:
    """The text of the README.md. Each part stands between marks that `merge` knows it by.

    Args:
        repo: as in `write`.
        revision: branch of the repository, where that is not its main one.
        curves, confusion, layers, risk_coverage: the folder holds the picture of that name.
    """
    record = RunRecord.from_facts(record.facts())  # plain values; None stands for all that is not known
    adapter = named(record.method["name"])
    body = template("card.md").render(
        record=record,
        curves=curves,
        confusion=confusion,
        layers=layers,
        risk_coverage=risk_coverage,
        task=catalog.facts_of(record),
        method=adapter.title if adapter else record.method["name"],
        base=sections.base(record.base),
        pretraining_texts=samples.TEXTS_OF_CHECKPOINTS,
        data=sections.data(record.data),
        headline=sections.headline(record),
        on_hub=repo is not None,
        use_note=use_this_model.note(record) if repo else None,
        variant_note=use_this_model.variant(record) if repo else None,
        results=sections.results(record.metrics),
        seeds=sections.seeds(record.seeds),
        soup=soup.sentence(record),
        soup_kept=soup.is_kept(record),
        domains=sections.domains(record),
        domain_facts=[sections.domain_facts(domain) for domain in record.domains],
        tables=[(title, sections.table_of(rows)) for title, rows in record.tables.items()],
        examples=sections.examples(record, record.examples),
        mistakes=sections.examples(record, record.mistakes),
        splits=sections.splits(record.data),
        method_settings=sections.settings_table(record.method.get("settings", {})),
        settings=sections.settings_table(record.settings),
        history=sections.history(record),
        skipped=sections.skipped(record),
        stopped_early=sections.stopped_early(record),
        overfitting=overfitting.sentence(record),
        decision=sections.settings_table(record.decision),
        cost=sections.cost(record),
        estimates=sections.estimates(record.cost),
        snippet=snippet(record, repo, revision) + (call_snippet(record) or ""),
        # An adapter names its base: where that is not on the Hub, the adapter is not published.
        adapter_snippet=adapter_snippet(record, repo, revision)
        if record.kind == "merged"
        and (repo is None or (record.base and record.base.source == "hub"))
        # Where it is published apart, the card of its own repository has it.
        and not (repo and record.variants)
        else None,
        pipeline_snippet=pipeline_snippet(record, repo, revision),
        expected_instead=expected_instead(record),
        comparison=comparison.sentences(record),
        papers=sections.papers(record),
    )
    parts = "\n\n".join(map(marked, sections_of(re.sub(r"\n{3,}", "\n\n", body).strip())))
    return f"---\n{metadata(record).to_yaml()}\n---\n\n{parts}\n"
