"""Recipes as users start them, in processes of their own: good runs, mistakes, Ctrl-C; and what a recipe looks like."""

import ast
import dataclasses
import functools
import json
import math
import runpy
import signal
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import transformers
from accelerate.commands.launch import _validate_launch_command, launch_command_parser

import tl_hub
from tests.families import ONE_OF_EACH
from tl_hub import base_model, data, finish, launch, samples, training
from tl_hub.architectures import ARCHITECTURES
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.probe import digests
from tl_hub.record import RunRecord

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
ROWS = samples.load("qa")["train"][:24]


def lines(rows: list) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def malformed_json(folder: Path) -> tuple[list[str], str]:
    (folder / "rows.jsonl").write_text(lines(ROWS[:5]) + '{"question": "Who?",\n' + lines(ROWS[5:]))
    return ["--train_file", str(folder / "rows.jsonl")], "rows.jsonl cannot be read: line 6 is not JSON"


def misplaced_answers(folder: Path) -> tuple[list[str], str]:
    wrong = {**ROWS[3], "answers": {"text": ["nowhere"], "answer_start": [4]}}
    (folder / "rows.jsonl").write_text(lines([*ROWS, wrong]))
    return ["--train_file", str(folder / "rows.jsonl")], "1 of 25 rows: answer text not found at its offset: row 24"


def unknown_flag(folder: Path) -> tuple[list[str], str]:
    return ["--learning-rat", "1e-3"], "unknown flag or value --learning_rat; did you mean --learning_rate?"


def other_run(folder: Path) -> tuple[list[str], str]:
    (folder / "run").mkdir()
    (folder / "run" / "run.json").write_text("{}")
    return [], "holds another run; --overwrite replaces it"


def unknown_family(folder: Path) -> tuple[list[str], str]:
    config = transformers.ElectraConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16
    )
    transformers.ElectraModel(config).save_pretrained(folder / "electra")
    return ["--model", str(folder / "electra")], "is of type 'electra'; allowed are bert, "


def no_weights(folder: Path) -> tuple[list[str], str]:
    transformers.BertConfig().save_pretrained(folder / "bare")
    return ["--model", str(folder / "bare")], "the folder holds no safetensors weights"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake",
    [unknown_flag, malformed_json, misplaced_answers, other_run, unknown_family, no_weights],
    ids=lambda mistake: mistake.__name__,
)
def test_a_mistake_is_one_line_and_writes_nothing(request, tmp_path, mistake):
    flags, says = mistake(tmp_path)
    before = contents(tmp_path)
    # One in a process of its own, whose imports say nothing either.
    run = request.getfixturevalue("recipe" if mistake is no_weights else "recipe_here")
    process = run("qa_adapter", *flags, "--output_dir", str(tmp_path / "run"))
    assert process.returncode == 2, process.stderr
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1, process.stderr
    assert says in process.stderr
    assert contents(tmp_path) == before
    assert process.stdout == ""


def test_a_check_trains_and_writes_nothing(recipe_here, checkpoint_folders, few_rows, tmp_path):
    before = contents(tmp_path)
    flags = ["--model", str(checkpoint_folders("bert")), *few_rows, "--epochs", "3", "--check"]
    process = recipe_here("qa_finetune", *flags)
    assert process.returncode == 0, process.stderr
    windows = len(ROWS)  # short contexts: a window each
    said = f"checked, nothing trained: {windows} train, 6 validation rows of train.jsonl, validation.jsonl; "
    assert process.stdout.splitlines()[-1].startswith(said), process.stdout
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(checkpoint_folders("bert"))
    assert f"; {model.num_parameters():,} parameters" in process.stdout
    assert f" in {3 * -(-windows // 4):,} steps" in process.stdout
    assert contents(tmp_path) == before


@pytest.fixture
def few_rows(tmp_path: Path) -> list[str]:
    """Flags of a run that takes a step in a fraction of a second."""
    (tmp_path / "train.jsonl").write_text(lines(ROWS))
    (tmp_path / "validation.jsonl").write_text(lines(samples.load("qa")["validation"][:6]))
    files = ["--train_file", str(tmp_path / "train.jsonl"), "--validation_file", str(tmp_path / "validation.jsonl")]
    return [*files, "--batch_size", "4", "--output_dir", str(tmp_path / "run")]


ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
MODEL = {"config.json", "model.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "family", "flags"),
    [("qa_adapter", family, ["--rank", "2"]) for family in ONE_OF_EACH] + [("qa_finetune", "bert", [])],
)
def test_a_good_run(request, checkpoint_folders, few_rows, tmp_path, name, family, flags):
    """BERT's adapter is started by accelerate and loaded back in a fresh process, for three times the imports."""
    base, run = checkpoint_folders(family), tmp_path / "run"
    flags = ["--model", str(base), *few_rows, "--max_steps", "3", *flags]
    if (name, family) == ("qa_adapter", "bert"):
        launcher = (str(Path(sys.executable).with_name("accelerate")), "launch", "--num_processes", "1", "--cpu")
        process = request.getfixturevalue("recipe")(name, *flags, launcher=launcher)
    else:
        request.getfixturevalue("load_back_here")
        process = request.getfixturevalue("recipe_here")(name, *flags)
    assert process.returncode == 0, process.stderr
    files = {path.name for path in run.iterdir()}
    expected = {"README.md", "run.json", "log.jsonl", "curves.png", "tokenizer.json", "tokenizer_config.json"}
    assert expected | {"predictions.jsonl"} <= files
    # Never both: an adapter beside a model's config is applied to it without a word.
    assert files & (ADAPTER | MODEL) == (ADAPTER if name == "qa_adapter" else MODEL)
    log = log_of(run)
    assert [entry["step"] for entry in log] == [1, 2, 3]
    assert all(math.isfinite(entry[figure]) and entry[figure] > 0 for entry in log for figure in ("loss", "grad_norm"))
    record = RunRecord.load(run)  # checks it against the schema
    assert (record.base.id, record.base.source, record.base.model_type) == (base.name, "local", family)
    assert (record.data.splits["train"].rows, record.data.splits["validation"].rows) == (24, 6)
    assert (record.cost.trainable_parameters < record.cost.total_parameters) == (name == "qa_adapter")
    assert record.verification["max_difference"] <= 1e-5
    assert str(tmp_path) not in (run / "README.md").read_text() + (run / "run.json").read_text()


def test_ctrl_c_leaves_a_run_that_resume_finishes(forks, checkpoint_folders, few_rows, tmp_path):
    run, steps = tmp_path / "run", 120
    flags = ["--model", str(checkpoint_folders("bert")), *few_rows, "--epochs", "20", "--patience", "0", "--rank", "2"]

    def is_on_its_way() -> bool:
        return (run / "log.jsonl").exists() and len(log_of(run)) >= 2

    stopped = forks("qa_adapter", *flags, kill_when=is_on_its_way, sent=signal.SIGINT)
    assert stopped.returncode == 130, stopped.stderr
    shown = stopped.stderr
    assert "Traceback" not in shown
    done = len(log_of(run))
    assert f"interrupted at step {done} of {steps}; the same command with --resume goes on from there" in shown
    assert 2 <= done < steps and (run / "checkpoint").is_dir() and not (run / "run.json").exists()

    resumed = forks("qa_adapter", *flags, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert [entry["step"] for entry in log_of(run)] == list(range(1, steps + 1)), "no step twice, none left out"
    assert len(RunRecord.load(run).history) == 20


CLASSES = ["a place", "a river", "a town"]


@pytest.mark.parametrize("family", ONE_OF_EACH)
@pytest.mark.parametrize("method", ["finetune", "adapter"])
def test_every_family_and_method_trains_and_saves_its_head(
    method, family, checkpoint_folders, load_back_here, tmp_path
):
    """With three classes, which no loader assumes, and texts of several windows."""
    rows = [{"text": f"{ROWS[i]['context'][: 60 + 40 * (i % 7)]}", "label": CLASSES[i % 3]} for i in range(18)]
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_text(lines(rows))
    recipe = runpy.run_path(str(ROOT / "recipes" / f"document_classification_{method}.py"))
    run = dataclasses.replace(
        recipe["RUN"], output_dir=str(tmp_path / "run"), model=str(checkpoint_folders(family)), dataset=str(tmp_path),
        max_steps=2, epochs=1, batch_size=6, learning_rate=1e-2,
    )  # fmt: skip
    task = dataclasses.replace(recipe["TASK"], max_length=64, doc_stride=16)
    accelerator = launch.start(run)
    data_rows, task = data.load(run, task)
    model, tokenizer, base = base_model.load(run, task)
    data.encode(data_rows, task, tokenizer, model)
    model = recipe["METHOD"].wrap(model, base)
    before = digests(model)
    experiment = Experiment(run, task, recipe["METHOD"], base, data_rows, model, tokenizer, accelerator)
    history = training.train(experiment)
    score = training.evaluate(experiment, split="validation")
    finish.finish(experiment, history, score)
    record = RunRecord.load(tmp_path / "run")
    assert record.verification["max_difference"] <= 1e-5
    assert record.data.splits["train"].features > 18 and any("overlapping" in note for note in record.data.notes)
    assert {row["system"] for row in record.tables["Baselines"]} >= {"this model", "most frequent class"}
    assert (tmp_path / "run" / "confusion.png").is_file()

    trained = digests(model)
    changed = {name for name in trained if trained[name] != before[name]}
    assert base.fresh and set(base.fresh) <= changed, "the head"
    ask = tl_hub.pipeline(tmp_path / "run")
    loaded = digests(ask.model)
    assert {name: loaded[name] for name in base.fresh} == {name: trained[name] for name in base.fresh}
    assert set(ask.model.config.id2label.values()) == set(CLASSES)
    # From text to class, alone or among others, as in the evaluation.
    answers = ask([row["text"] for row in rows], batch_size=5)
    for answer, shown in zip(answers, score.predictions, strict=True):  # of two as good as alike, the other may win
        assert answer["scores"][shown["predicted"]] > answer["score"] - 0.01
    alone = ask(rows[6]["text"])
    assert alone["scores"] == pytest.approx(answers[6]["scores"], abs=1e-5) and set(alone["scores"]) == set(CLASSES)
    assert sum(alone["scores"].values()) == pytest.approx(1) and alone["score"] == max(alone["scores"].values())
    with pytest.raises(UserError, match="omit text_pair"):
        ask("a", "b")


@pytest.mark.parametrize("name", ["sentiment_adapter", "qa_features"])
@pytest.mark.usefixtures("load_back_here")
def test_the_other_recipes_end_to_end(recipe_here, checkpoint_folders, tmp_path, name):
    flags = ["--model", str(checkpoint_folders("bert")), "--train_rows", "12", "--validation_rows", "8"]
    flags += ["--max_steps", "2", "--output_dir", str(tmp_path / "run")]
    if name == "sentiment_adapter":
        rows = [{"text": f"text {i}", "kind": ["good", "new"][: i % 3]} for i in range(12)]
        (tmp_path / "train.jsonl").write_text(lines(rows))
        flags += ["--train_file", str(tmp_path / "train.jsonl"), "--label_column", "kind", "--rank", "2"]
    process = recipe_here(name, *flags, TL_HUB_CACHE=str(tmp_path / "cache"))
    assert process.returncode == 0, process.stderr
    assert ("4 training rows of the rarest class" in process.stdout) == (name == "sentiment_adapter")
    record = RunRecord.load(tmp_path / "run")
    assert record.kind == {"sentiment_adapter": "adapter", "qa_features": "feature-extraction"}[name]
    if name == "sentiment_adapter":
        assert record.metrics[0].name == "micro_f1" and 0 < record.decision["threshold"] < 1
        assert isinstance(tl_hub.pipeline(tmp_path / "run")("text")["label"], list)


@pytest.mark.parametrize("method", ["dora", "ia3", "prompt", "prefix", "bottleneck"])
def test_every_method_of_an_adapter_recipe_trains_and_loads_back(
    method, checkpoint_folders, load_back_here, monkeypatch, tmp_path
):
    """What the recipe sets for LoRA is not in the way of another method."""
    flags = ["--model", str(checkpoint_folders("bert")), "--train_rows", "12", "--validation_rows", "4"]
    flags += ["--test_rows", "4", "--max_steps", "2", "--output_dir", str(tmp_path / "run"), "--method", method]
    monkeypatch.setattr(sys, "argv", ["sentiment_adapter.py", *flags])
    runpy.run_path(str(ROOT / "recipes" / "sentiment_adapter.py"))["main"]()
    record = RunRecord.load(tmp_path / "run")
    assert method in record.method["name"] and record.verification["max_difference"] <= 1e-5


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_reads_from_top_to_bottom(path):
    """Logic lives in the package, where it is tested once; a recipe shows the steps and their settings."""
    source = path.read_text()
    tree = ast.parse(source)
    unwanted = (ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.comprehension, ast.Lambda)
    assert [f"{type(n).__name__}, line {n.lineno}" for n in ast.walk(tree) if isinstance(n, unwanted)] == []
    assert len(source.splitlines()) <= 80
    assert ast.get_docstring(tree), "what it does, how it is called, the paper"
    if path.stem.startswith(("qa", "sentiment", "document")):  # tasks with a threshold: the test rows decide on none
        calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "training.evaluate"]
        assert all(ast.unparse(call.args[-1]) == "history.decision" for call in calls)
        assert calls or path.stem.endswith("_features")


@functools.cache
def installed_modules() -> frozenset[str]:
    return frozenset(packages_distributions())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_shadows_no_module_and_uses_no_other_recipe(path):
    """A script's folder comes first on sys.path: the package would import recipes/datasets.py as `datasets`."""
    assert path.stem not in {*sys.stdlib_module_names, *installed_modules()}
    others = {other.stem for other in RECIPES} | {"recipes"}
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not others & {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_preset_sets_what_there_is_to_set(path):
    """`cli.parse` passes over a name that no part has, such as one with a typing error."""
    found = runpy.run_path(str(path))
    known = {field.name for part in found.values() if is_setting(part) for field in dataclasses.fields(part)}
    assert {"output_dir", "epochs"} <= known
    for name, preset in found.get("PRESETS", {}).items():
        assert set(preset) <= known, name


def test_recipes_of_a_task_read_the_same_of_each_row():
    """The figures of their methods stand side by side in docs/results/public.md."""
    found: dict[str, list[tuple[str, object]]] = {}
    for path in RECIPES:
        parts = runpy.run_path(str(path))
        found.setdefault(path.stem.rpartition("_")[0], []).append((path.stem, parts["TASK"]))
    for recipes in found.values():
        first, *others = ((name, task) for name, task in recipes if name != "summarization_features")  # of sentences
        for name, task in others:
            assert task == first[1], f"{name}, {first[0]}"
    assert len(found) == 9


def test_presets_of_a_task_read_the_same_rows_into_folders_of_their_own():
    """So that one method stands beside another, and no run is in the way of another one's."""
    read: dict[tuple[str, str], list[dict]] = {}
    folders = []
    for path in RECIPES:
        recipe = runpy.run_path(str(path))
        assert recipe["RUN"].output_dir == f"runs/{path.stem}"
        folders.append(recipe["RUN"].output_dir)
        for name, preset in recipe.get("PRESETS", {}).items():
            folders.append(preset["output_dir"])
            rows = {key: value for key, value in preset.items() if key.startswith("dataset") or key.endswith("_column")}
            if path.stem != "summarization_features":  # by an encoder, which T5 is not
                rows["model"] = preset["model"]
            read.setdefault((path.stem.rpartition("_")[0], name), []).append(rows)
    for (task, preset), (first, *others) in read.items():
        assert all(first | other == first for other in others), f"{task}, --preset {preset}"
    assert len(set(folders)) == len(folders) and len(read) == 9


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_bare_recipe_starts_from_a_model_that_its_task_takes(path):
    recipe = runpy.run_path(str(path))
    run = recipe["RUN"]
    task = recipe["TASK"].of_run(run)
    assert ARCHITECTURES[base_model.family_of(run)].pretrained_by in task.pretrained_by


def is_setting(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def test_main_has_one_of_few_shapes():
    """Trained, trained and compared with before, fitted, and from scratch: who has read four recipes has read all."""
    bodies = {}
    for path in RECIPES:
        (main,) = (node for node in ast.parse(path.read_text()).body if getattr(node, "name", "") == "main")
        bodies.setdefault(ast.dump(main), []).append(path.stem)
    assert len(bodies) <= 4, sorted(bodies.values())


def test_there_are_recipes():
    assert "qa_adapter" in {path.stem for path in RECIPES}


def test_what_a_person_waits_for_imports_no_torch(tmp_path):
    """Import sets, not seconds. Every recipe's --help needs none of these; mistakes in rows and models no torch."""
    (tmp_path / "rows.csv").write_text("txt,label\nfine,1\nbad,0\n")
    given = ["--output_dir", str(tmp_path / "run")]
    mistakes = {
        "sentiment_adapter": [
            ["--train_file", str(tmp_path / "rows.csv"), *given],
            ["--train_file", str(tmp_path / "none.csv"), *given],
            ["--model", str(tmp_path / "none"), *given],
        ]
    }
    code = f"""
import contextlib, io, runpy, sys
sys.argv = ["x"]
def end(recipe, arguments):
    sys.argv = [recipe, *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(f"recipes/{{recipe}}.py", run_name="__main__")
    except SystemExit as end:
        return end.code
for recipe in {[path.stem for path in RECIPES]!r}:
    assert end(recipe, ["--help"]) == 0 and end(recipe, ["--lr", "1"]) == 2
    loaded = {{"torch", "transformers", "datasets", "scipy", "sklearn", "huggingface_hub"}} & set(sys.modules)
    assert not loaded, (recipe, loaded)
for recipe, cases in {mistakes!r}.items():
    for case in cases:
        assert end(recipe, case) == 2, case
        assert not {{"torch", "transformers"}} & set(sys.modules), case
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if "--lr" not in line]
    assert (
        "no column 'text'" in errors[0]
        and "none.csv: no such file" in errors[1]
        and "none: neither a folder" in errors[2]
    )


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/launch").glob("*.yaml")), ids=lambda path: path.stem)
def test_accelerate_takes_the_configurations_and_has_no_default_to_tell_of(path, capsys):
    """By accelerate's own parser and validation; the recipes choose the precision."""
    words = ["--config_file", str(path), str(ROOT / "recipes/qa_adapter.py")]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    shown = capsys.readouterr()
    assert "defaults used instead" not in shown.out + shown.err
    assert args.mixed_precision == "no"
    assert args.num_processes == (1 if path.stem == "one_process" else 4)
