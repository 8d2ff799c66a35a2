"""Whether a figure belongs on the leaderboard of a benchmark: a data set whose `eval.yaml` has the task it is of."""

from typing import Any

import yaml
from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from tl_hub import run_folder
from tl_hub.card.metadata import results_file
from tl_hub.publishing.files import Files
from tl_hub.publishing.repository import Repository
from tl_hub.record import RunRecord


def results(hub: Repository, run: RunRecord) -> Files:
    """The Hub's newer form of the first metric, where it is of a whole split that the benchmark has a task for."""
    if run.data.source != "hub" or not run.metrics or run.settings.get(f"{run.metrics[0].split}_rows"):
        return {}
    task = next((task for task in _tasks(hub, run.data.id) if _is_of(task, run)), None)
    if task is None:
        return {}
    files = results_file(run, str(task["id"]), f"{hub.url}/blob/main/{run_folder.RECORD}")
    return {name: text.encode() for name, text in files.items()}


def _is_of(task: dict[str, Any], run: RunRecord) -> bool:
    config = run.settings.get("dataset_config") or "default"
    return (task.get("config") or "default", task.get("split") or "test") == (config, run.metrics[0].split)


def _tasks(hub: Repository, dataset: str) -> list[dict[str, Any]]:
    """The tasks in a data set's `eval.yaml`; none where it has none, or none that can be read."""

    def get() -> bytes:
        answer = get_session().get(hf_hub_url(dataset, "eval.yaml", repo_type="dataset"), headers=build_hf_headers())
        try:
            hf_raise_for_status(answer)
        except (EntryNotFoundError, RepositoryNotFoundError):
            return b""
        return answer.content

    try:
        content = yaml.safe_load(hub.ask(f"look whether {dataset} is a benchmark", get))
    except (yaml.YAMLError, ValueError, RecursionError):  # nested too deep, or no text
        return []
    tasks = content.get("tasks") if isinstance(content, dict) else None
    return [task for task in tasks if isinstance(task, dict) and task.get("id")] if isinstance(tasks, list) else []
