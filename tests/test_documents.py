"""Commands, flags, paths and code in the documents are those of the project as it is."""

import ast
import importlib.util
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser

from tl_hub import card, cli, samples
from tl_hub.architectures import ARCHITECTURES
from tl_hub.errors import UserError
from tl_hub.methods.feature_extraction import FeatureExtraction
from tl_hub.record import RunRecord

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.py"))
DOCUMENTS = [path for name in ("README.md", "CONTRIBUTING.md", "recipes/README.md") if (path := ROOT / name).exists()]
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


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, ...]]:
    """The settings a recipe starts with, given these words: its own call of `cli.parse`, and nothing after it."""
    real = cli.parse

    def parse(*given: Any, **options: Any) -> None:
        raise Parsed(real(*given, **options))

    def found(path: Path, words: list[str]) -> tuple[Any, ...]:
        with monkeypatch.context() as within, pytest.raises(Parsed) as parsed:
            within.setattr(cli, "parse", parse)
            within.setattr(sys, "argv", [str(path), *words])
            runpy.run_path(str(path))["main"]()
        return parsed.value.args[0]

    return found


def targets() -> set[str]:
    return set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=[f"{name}: {line}" for name, line in COMMANDS])
def test_a_command_is_one_that_works(settings, name, line):
    """Flags parse, files and targets are there."""
    words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    program = words[0]
    scripts = [i for i, word in enumerate(words) if word.endswith(".py")]
    if program == "make":
        assert set(words[1:]) <= targets()
    elif program == "tl-hub":
        assert program in {script.name for script in entry_points(group="console_scripts")}
    elif scripts:
        script = ROOT / words[scripts[0]]
        assert script.is_file()
        launcher = words[: scripts[0]]
        assert launcher[:1] == ["python"] or launcher[:2] == ["accelerate", "launch"]
        if launcher[:2] == ["accelerate", "launch"]:
            launch_command_parser().parse_args([*launcher[2:], str(script)])
        if script.parent.name == "recipes":
            assert settings(script, words[scripts[0] + 1 :])
    elif program == "python" and words[1] == "-c":
        compile(words[2], line, "exec")
    elif program == "python":
        assert words[1] == "-m" and importlib.util.find_spec(words[2])
    else:
        assert program in {"pip", "git", "cd", "hf", "pre-commit"}, "a command that no test knows"


def recipe_commands() -> list[list[str]]:
    """Each command that starts a recipe, once: its words from the script on."""
    found = []
    for _, line in COMMANDS:
        words = shlex.split(line, comments=True)
        scripts = [i for i, word in enumerate(words) if word.startswith("recipes/")]
        if scripts and words[scripts[0] :] not in found and "..." not in words:
            found.append(words[scripts[0] :])
    return found


@pytest.fixture
def tiny(tmp_path: Path, checkpoint_folders: Any, checkpoints: Any, settings: Any) -> Callable[[list[str]], list[str]]:
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

    def shortened(words: list[str]) -> list[str]:
        script, words = ROOT / words[0], words[1:]
        run, task, method = settings(script, words)
        if "--train_file" in words:
            rows = samples.load(getattr(task, "sample", "text"))["train"][:40]
            (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            words[words.index("--train_file") + 1] = str(tmp_path / "mine.jsonl")
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
        main()
        assert RunRecord.load(tmp_path / "run").verification["max_difference"] <= 1e-5
        assert "Next:" in capsys.readouterr().out


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
def test_help_lists_every_setting(recipe_here, settings, path):
    process = recipe_here(path.stem, "--help")
    assert process.returncode == 0 and process.stderr == ""
    assert (ast.get_docstring(ast.parse(path.read_text())) or "?") in process.stdout
    shown = " ".join(process.stdout.split())
    for part in settings(path, []):
        for field in filter(lambda field: field.init, fields(part)):  # the others are no settings
            assert f"--{field.name}" in shown, field.name
            assert " ".join(field.metadata["help"].split()) in shown, field.name


@pytest.mark.parametrize("name", TEXTS)
def test_flags_in_the_text_are_flags(settings, name):
    parts = [part for path in RECIPES for part in settings(path, [])]
    parts += [kind for part in parts for kind in getattr(part, "methods", {}).values()]  # of the other adapters
    flags = [field for part in parts for field in fields(part)]
    known = {f"--{field.name}" for field in flags}
    known |= {f"--no_{field.name}" for field in flags if isinstance(field.default, bool)}
    known |= {"--help", "--preset", "--label_map", "--full-diff"}  # the last is git's
    known |= {option for action in launch_command_parser()._actions for option in action.option_strings}
    given = {flag for code in prose(name) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", code)}
    assert given <= known


@pytest.mark.parametrize("name", TEXTS)
def test_paths_in_the_text_are_there(name):
    given = re.findall(r"(?<![\w/.-])(?:recipes|tl_hub|tests|model_cards|\.ci)/[\w./-]*", TEXTS[name])
    assert [path for path in given if not (ROOT / path.rstrip(".")).exists()] == []
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXTS[name])
    assert [link for link in links if "://" not in link and not (ROOT / name).parent.joinpath(link).exists()] == []


def test_python_about_frozen_vectors_runs(monkeypatch, tmp_path):
    (code,) = (code for code in blocks("README.md", "python") if "FeatureClassifier" in code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TL_HUB_CACHE", str(tmp_path / "cache"))
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    assert namespace["vectors"].shape[0] == 4 and namespace["probabilities"].shape == (4, 2)
    assert (namespace["pipeline"].predict(namespace["texts"]) == namespace["labels"]).all()


def test_a_record_written_by_hand_is_enough_for_a_card(tmp_path):
    (facts,) = blocks("README.md", "json")
    (tmp_path / "run.json").write_text(facts)
    text = card.write(tmp_path, "alice/reviews").read_text()
    assert "91.5" in text and 'from_pretrained("alice/reviews")' in text and "license: mit" in text


def test_python_in_the_documents_compiles_and_imports_what_is_there():
    for path in DOCUMENTS:
        for code in blocks(path.relative_to(ROOT).as_posix(), "python"):
            tree = ast.parse(code, f"{path.name}, python block")
            imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
            namespace: dict[str, Any] = {}
            exec(compile(ast.Module(imports, []), path.name, "exec"), namespace)
            for node in ast.walk(tree):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in namespace:
                    assert hasattr(namespace[node.value.id], node.attr), f"{path.name}: {ast.unparse(node)}"
