"""Commands, flags, paths and code in the documents are those of the project as it is."""

import argparse
import ast
import csv
import importlib.util
import json
import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser

from tests.hub_server import Repo
from tests.hub_server.server import File
from tl_hub import card, cli, command, samples, several_runs
from tl_hub.architectures import ARCHITECTURES
from tl_hub.errors import UserError
from tl_hub.methods import head_only
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.record import RunRecord
from tools.pages import tables

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
PAGES = sorted((ROOT / "docs").rglob("*.md"))
NAMES = ("README.md", "README.ko.md", "CONTRIBUTING.md", "recipes/README.md", "model_cards/README.md")
DOCUMENTS = [path for name in NAMES if (path := ROOT / name).exists()] + PAGES
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS} | {
    path.name: ast.get_docstring(ast.parse(path.read_text())) or "" for path in RECIPES
}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^ {4}((?:accelerate launch|python|tl-hub|make)\b.*)$", re.MULTILINE)


def blocks(name: str, language: str) -> list[str]:
    return [code for kind, code in FENCE.findall(TEXTS[name]) if kind == language]


def commands(name: str) -> list[str]:
    """The command lines a document shows."""
    if name.endswith(".py"):
        return COMMAND.findall(TEXTS[name])
    lines = "".join(blocks(name, "bash")).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").strip() for line in lines if line.strip() and not line.startswith("#")]


def prose(name: str) -> list[str]:
    """What stands in backticks in the text around the blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", TEXTS[name]))


COMMANDS = [(name, line) for name in TEXTS for line in commands(name)]


class Parsed(Exception):
    """Ends a recipe's `main` where its settings are known."""


def settings_of(path: Path, words: list[str]) -> tuple[Any, ...]:
    """The settings a recipe starts with, given these words: its own call of `cli.parse`, and nothing after it."""
    real = cli.parse

    def parse(*given: Any, **options: Any) -> None:
        raise Parsed(real(*given, **options))

    with pytest.MonkeyPatch.context() as within, pytest.raises(Parsed) as parsed:
        within.setattr(cli, "parse", parse)
        within.setattr(sys, "argv", [str(path), *words])
        runpy.run_path(str(path))["main"]()
    return parsed.value.args[0]


def parser_of_tl_hub(words: list[str]) -> argparse.ArgumentParser:
    """The parser of `tl-hub`, after it has parsed these words."""
    real = cli.Parser.parse_args

    def parse(parser: Any, *given: Any) -> None:
        real(parser, *given)
        raise Parsed(parser)

    with pytest.MonkeyPatch.context() as within, pytest.raises(Parsed) as parsed:
        within.setattr(cli.Parser, "parse_args", parse)
        within.setattr(sys, "argv", ["tl-hub", *words])
        command._main()
    return parsed.value.args[0]


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[f"{name}: {line}" for name, line in COMMANDS])
def test_a_command_is_one_that_works(name, line):
    """Flags parse, files and targets are there."""
    words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    program = words[0]
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    if program == "make":
        assert set(words[1:]) <= targets()
    elif program == "tl-hub":
        assert program in {script.name for script in entry_points(group="console_scripts")}
        assert parser_of_tl_hub(words[1:])
        if words[1] == "check" and scripts:  # without one, a folder is judged
            assert settings_of(ROOT / words[2], words[3:])
    elif scripts:
        script = ROOT / words[scripts[0]]
        assert script.is_file()
        launcher = words[: scripts[0]]
        assert launcher[:1] == ["python"] or launcher[:2] == ["accelerate", "launch"]
        if launcher[:2] == ["accelerate", "launch"]:
            launch_command_parser().parse_args([*launcher[2:], str(script)])
        if script.parent.name == "recipes":
            assert settings_of(script, words[scripts[0] + 1 :])
    elif program == "python" and words[1] == "-c":
        compile(words[2], line, "exec")
    elif program == "python":
        assert words[1] == "-m" and importlib.util.find_spec(words[2])
    else:
        assert program in {"pip", "git", "cd", "hf", "openssl", "pre-commit"}, "a command that no test knows"


def recipe_commands() -> list[list[str]]:
    """Each command that starts a recipe, once: its words from the script on."""
    found = []
    for name, line in COMMANDS:
        words = shlex.split(line, comments=True)
        scripts = [i for i, word in enumerate(words) if re.fullmatch(r"recipes/\w+\.py", word)]
        # Commands of a result with a checkpoint, MINILM, or rows that are not here are parsed, and not run.
        if not scripts or words[0] == "tl-hub" or "MINILM" in words or name.endswith("results/real-data.md"):
            continue
        words = words[scripts[0] :]
        if words[-2:-1] == ["--output_dir"]:  # where it goes makes no other run
            words = words[:-2]
        if words not in found:
            found.append(words)
    return found


@pytest.fixture
def tiny(
    tmp_path: Path, checkpoint_folders: Any, checkpoints: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[list[str]], list[str]]:
    """The words of a command, with small models and few rows in place of what would take long."""

    def stand_in(task: Any, family: str) -> Path:
        """A checkpoint of random weights for one of the Hub; with the head, where the task goes on with it."""
        auto_class = task.class_for(family)
        if not auto_class.endswith("LM"):
            return checkpoint_folders(family)
        model, tokenizer = checkpoints(family, auto_class)
        model.save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
        return tmp_path / family

    monkeypatch.setattr(head_only, "_EPOCHS", 1)  # how well a layer is chosen is not asked here
    monkeypatch.setattr(head_only, "_LEAST", 1)

    def shortened(words: list[str]) -> list[str]:
        script, words = ROOT / words[0], words[1:]
        run, task, method = settings_of(script, words)
        if "--train_file" in words:
            rows = samples.load(getattr(task, "sample", "text"))["train"][:40]
            column = getattr(task, "text_column", "text")
            rows = [{column if name == "text" else name: value for name, value in row.items()} for row in rows]
            (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            words[words.index("--train_file") + 1] = str(tmp_path / "mine.jsonl")
        if "--eval_on" in words:
            rows = samples.load("sentiment")["test"][:4]
            lines = ["tweet,label", *(f'"{row["text"]}",{row["label"]}' for row in rows)]
            (tmp_path / "tweets.csv").write_text("\n".join(lines) + "\n")
            place = words.index("--eval_on") + 1
            words[place] = words[place].replace("tweets.csv", str(tmp_path / "tweets.csv"))
        if "--preset" not in words:
            if script.stem == "pretraining":
                words += "--layers 1 --hidden_size 32 --intermediate_size 32 --vocab_size 600".split()
            elif not run.model.startswith("tiny:"):
                family = next((name for name in ARCHITECTURES if name in run.model), "bert")  # a run folder
                words += ["--model", str(stand_in(task, family))]
            words += "--train_rows 16 --validation_rows 4 --test_rows 4 --batch_size 4".split()
            # A head on frozen vectors is not trained in steps, but for that of the answers to questions.
            words += [] if isinstance(method, FeatureExtraction) else ["--max_steps", "2"]
        if any(field.name == "max_target_length" for field in fields(task)):
            words += "--max_target_length 8 --beams 2".split()
        if any(field.name == "max_new_tokens" for field in fields(task)):
            words += "--max_new_tokens 4".split()
        return [str(script), *words, "--output_dir", str(tmp_path / "run")]

    return shortened


@pytest.mark.parametrize("words", recipe_commands(), ids=" ".join)
@pytest.mark.usefixtures("load_back_here")
def test_a_recipes_command_runs(tiny, monkeypatch, capsys, tmp_path, words):
    arguments = tiny(words)
    monkeypatch.setattr(sys, "argv", arguments)
    main = runpy.run_path(arguments[0])["main"]
    if "--preset" in words:  # the Hub is out of reach in tests: that is found out at once, and said in one line
        with pytest.raises(UserError, match="Hub"):
            main()
        assert not (tmp_path / "run").exists()
    else:
        several_runs.call(main)
        assert RunRecord.load(tmp_path / "run").verification["max_difference"] <= 1e-5
        assert "Next:" in capsys.readouterr().out


CARDS = sorted((ROOT / "model_cards").glob("*.json"))
SETTLED = {"max_answer_length", "prefix"}
"""Settings that a run decides by its rows or its model where nobody names them."""


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_recipe_has_the_settings_its_card_was_made_with(path):
    """Or the figures in the README would be of other commands than those beside them."""
    record = json.loads(path.read_text())
    words = shlex.split(record["command"])
    script = next(i for i, word in enumerate(words) if word.endswith(".py"))
    parts = settings_of(ROOT / words[script], words[script + 1 :])
    now = {field.name: getattr(part, field.name) for part in parts for field in fields(part)}
    then = record["settings"] | record["method"]["settings"]
    assert {name: now[name] for name in then if name not in SETTLED} == {
        name: value for name, value in then.items() if name not in SETTLED
    }
    if "base" in record:
        assert now["model"] == record["base"]["id"]


MEASURED = tables.results()["recipes"]


@pytest.mark.parametrize("line", [line for line in MEASURED if not line["flags"]], ids=lambda line: line["recipe"])
def test_a_bare_recipe_has_the_settings_its_figure_was_measured_with(line):
    parts = settings_of(ROOT / "recipes" / f"{line['recipe']}.py", [])
    now = {field.name: getattr(part, field.name) for part in parts for field in fields(part)}
    assert {name: now[name] for name in line["settings"]} == line["settings"]


def test_each_bare_recipe_has_a_figure():
    assert {path.stem for path in RECIPES} == {line["recipe"] for line in MEASURED if not line["flags"]}


def test_the_documents_show_commands():
    """If the patterns above no longer found any, all would be well."""
    assert {path.name for path in RECIPES} <= {name for name, _ in COMMANDS}
    for path in DOCUMENTS:
        if "```bash" in TEXTS[path.relative_to(ROOT).as_posix()]:
            assert commands(path.relative_to(ROOT).as_posix())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipes_docstring_starts_with_its_bare_command(path):
    assert commands(path.name)[0].split()[:3] == ["accelerate", "launch", f"recipes/{path.name}"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_help_lists_every_setting(recipe_here, path):
    process = recipe_here(path.stem, "--help")
    assert process.returncode == 0 and process.stderr == ""
    assert (ast.get_docstring(ast.parse(path.read_text())) or "?") in process.stdout
    shown = " ".join(process.stdout.split())
    for part in settings_of(path, []):
        for field in filter(lambda field: field.init, fields(part)):  # the others are no settings
            assert f"--{field.name}" in shown, field.name
            assert " ".join(field.metadata["help"].split()) in shown, field.name


FOREIGN_FLAGS = [
    "--config", "--full-diff", "--logdir",  # of git and of TensorBoard
    "--no-sync", "--with", "--flavor", "--secrets", "--volume", "--timeout", "--dry-run",  # of uv, of hf jobs uv run
    "--nnodes", "--nproc_per_node", "--signal",  # of torchrun and of Slurm's sbatch
    "--test_rows", "--text_column", "--sizes", "--draws", "--epochs",  # of tests/benchmarks/few_examples.py
]  # fmt: skip


@pytest.fixture(scope="module")
def known_flags() -> set[str]:
    """All flags of recipes, of `tl-hub`, of accelerate's launcher and of other programs in the documents."""
    parts = [part for path in RECIPES for part in settings_of(path, [])]
    parts += [kind for part in parts for kind in getattr(part, "methods", {}).values()]  # of the other adapters
    flags = [field for part in parts for field in fields(part)]
    known = {"--help", "--preset", *FOREIGN_FLAGS}
    known |= {f"--{field.name}" for field in flags}
    known |= {f"--no_{field.name}" for field in flags if isinstance(field.default, bool)}
    for action in parser_of_tl_hub(["verify", "runs/first"])._actions:
        if isinstance(action, argparse._SubParsersAction):
            known |= {flag for parser in action.choices.values() for flag in parser._option_string_actions}
    return known | {option for action in launch_command_parser()._actions for option in action.option_strings}


@pytest.mark.parametrize("name", TEXTS)
def test_flags_in_the_text_are_flags(known_flags, name):
    given = {flag for code in prose(name) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert given <= known_flags


@pytest.mark.parametrize("name", TEXTS)
def test_paths_in_the_text_are_there(name):
    given = re.findall(r"(?<![\w/.-])(?:recipes|tl_hub|tests|model_cards|\.ci)/[\w./-]*", TEXTS[name])
    assert [path for path in given if not (ROOT / path.rstrip(".")).exists()] == []
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", TEXTS[name]))
    assert [link for link in links if "://" not in link and not (ROOT / name).parent.joinpath(link).exists()] == []


def test_python_about_frozen_vectors_runs(monkeypatch, tmp_path):
    (code,) = blocks("docs/how-to/vectors.md", "python")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    assert namespace["vectors"].shape[0] == 4 and namespace["probabilities"].shape == (4, 2)
    assert (namespace["pipeline"].predict(namespace["texts"]) == namespace["labels"]).all()


def test_a_record_written_by_hand_is_enough_for_a_card(tmp_path):
    (facts,) = blocks("docs/tutorials/own-loop.md", "json")
    (tmp_path / "run.json").write_text(facts)
    text = card.write(tmp_path, "alice/reviews").read_text()
    assert "91.5" in text and 'from_pretrained("alice/reviews")' in text and "license: mit" in text


RUNNER = """
import os, runpy, sys
folder, program, *words = sys.argv[1:]
os.chdir(folder)
if program == "python":
    import functools, tl_hub
    few = {"max_steps": 2, "train_rows": 16, "validation_rows": 4, "test_rows": 4, "batch_size": 4}
    tl_hub.train = functools.partial(tl_hub.train, **few)
    exec(compile(open(words[0]).read(), words[0], "exec"), {"__name__": "__main__"})
elif program == "tl-hub":
    from tl_hub.command import main
    sys.argv = [program, *words]
    main()
else:
    sys.argv = [program, *words]
    runpy.run_path(program, run_name="__main__")
"""
FEW = "--max_steps 2 --train_rows 16 --validation_rows 4 --test_rows 4 --batch_size 4".split()


def test_readme_leads_to_a_published_adapter_and_python_runs(hub, run_script, checkpoint_folders, tmp_path):
    """README's commands, one after the other, from an own CSV file to the Hub; then all Python of every page."""
    base, user = checkpoint_folders("bert"), tmp_path / "user"
    user.mkdir()
    with (user / "mine.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
        rows.writeheader()
        rows.writerows(samples.load("sentiment")["train"][:40])
    script = tmp_path / "runner.py"
    script.write_text(RUNNER)
    files = {path.name: File(path.read_bytes(), path.suffix == ".safetensors") for path in base.iterdir()}
    card_of_base = {"README.md": File(b"---\nlicense: apache-2.0\n---\n")}
    hub.objects |= {file.sha256: file.content for file in files.values() if file.lfs}
    repo = Repo("google-bert/bert-base-uncased", "model", private=False)
    repo.commit("refs/heads/main", files | card_of_base, "base", "", "google-bert")
    hub.repos["model", repo.id] = repo

    def done(*words: str) -> str:
        ended = run_script(script, user, *words, here="all", TL_HUB_CACHE=str(tmp_path / "cache"))
        assert ended.returncode == 0, f"{words}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    said = {}
    for line in commands("README.md"):
        words = shlex.split(line)
        if words[:2] == ["accelerate", "launch"]:
            said[line] = done(str(ROOT / words[2]), *words[3:], *FEW)
        elif words[0] == "tl-hub":
            said[line] = done(*words)
        else:
            assert words[0] in {"git", "cd", "pip", "hf", "make"}, "a command that this test does not know"
    assert "loaded by transformers and peft" in said["tl-hub verify runs/first"]
    assert "nothing was sent" in said["tl-hub push runs/mine alice/reviews --dry_run"]
    published = hub.model("alice/reviews").at("main").files
    weights = (user / "runs" / "mine" / "adapter_model.safetensors").read_bytes()
    assert published["adapter_model.safetensors"].content == weights
    assert not published.keys() & {"predictions.jsonl", "log.jsonl", "probe.safetensors"}

    for other in ("sentiment_adapter", "korean"):
        shutil.copytree(user / "runs" / "mine", user / "runs" / other)
    ran = set[str]()
    for path in sorted(DOCUMENTS, key=lambda path: path.parent.name == "ko"):  # these have the code of English ones
        name = path.relative_to(ROOT).as_posix()
        if (code := "\n".join(blocks(name, "python"))) and code not in ran:
            ran.add(code)
            (tmp_path / "page.py").write_text(code)
            said[name] = done("python", str(tmp_path / "page.py"))
    assert "unknown" in said["docs/tutorials/korean.md"]
    assert RunRecord.load(user / "runs" / "reviews").verification["max_difference"] <= 1e-5
    assert RunRecord.load(user / "runs" / "own").verification["max_difference"] <= 1e-5


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "ko").glob("*.md")), ids=lambda page: page.stem)
def test_a_korean_page_shows_what_the_english_one_does(page):
    """The same blocks of code, in the same order: a command that changes must change in both."""
    if page.stem != "index":
        ours, english = (FENCE.findall(path.read_text()) for path in (page, ROOT / "docs" / "tutorials" / page.name))
        assert [(kind, code) for kind, code in ours if kind != "text"] == [
            (kind, code) for kind, code in english if kind != "text"
        ]


def test_the_korean_readme_shows_the_commands_of_the_english_one():
    assert set(commands("README.md")) <= set(commands("README.ko.md"))


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
