"""Flags made from dataclasses, who wins when a value is given twice, and what a mistake looks like on the screen."""

import dataclasses
import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from safetensors import SafetensorError

from tl_hub import cli, settings_file
from tl_hub.config import RunConfig, flag
from tl_hub.errors import RunStopped, UserError, first_line
from tl_hub.methods.adapters import METHODS, Dora, Ia3, Lora
from tl_hub.methods.fine_tune import FineTune
from tl_hub.other_names import OTHER_NAMES
from tl_hub.tasks.classification import DocumentClassification
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.sequence_to_sequence import Summarization, Translation


@dataclass(kw_only=True)
class Run:
    epochs: int = flag(3, "passes")
    learning_rate: float = flag(5e-5, "peak rate, 100 % of it")
    data_file: str | None = flag(None, "rows")
    max_steps: int | None = flag(None, "steps")
    schedule: Literal["linear", "cosine"] = flag("linear", "shape")
    keep_all: bool = flag(False, "keep everything")
    shuffle: bool = flag(True, "mix rows")
    no_repeats: int = flag(0, "a name that starts with no")
    cached: str | None = flag(None, "cached rows", shown="those of the last run")


@dataclass(kw_only=True)
class Method:
    rank: int = flag(8, "rank")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UserError(f"--rank is {self.rank}; it must be at least 1")


PRESETS = {"paper": {"epochs": 2, "rank": 64, "data_file": "paper.jsonl", "keep_all": True, "shuffle": False}}
RECIPE = (Run(epochs=5), Method(rank=16))


@pytest.fixture
def parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, ...]]:
    """What the recipe's own settings become with these words on the command line."""

    def parsed(*words: str, presets: Any = PRESETS) -> tuple[Any, ...]:
        monkeypatch.setattr(sys, "argv", ["recipe.py", *words])
        return cli.parse(*RECIPE, doc="What it does.", presets=presets)

    return parsed


def test_another_method_does_not_take_what_the_recipe_sets_for_its_own(monkeypatch):
    def parsed(*words: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["recipe.py", *words])
        presets = {"paper": {"rank": 8}, "other": {"method": "dora", "rank": 4}}
        return cli.parse(Lora(rank=64), doc="What it does.", presets=presets)

    assert parsed() == parsed("--method", "lora") == (Lora(rank=64),)
    assert parsed("--method", "dora") == parsed("--preset", "paper", "--method", "dora") == (Dora(),)
    assert parsed("--preset", "paper") == parsed("--preset", "paper", "--method", "lora") == (Lora(rank=8),)
    assert parsed("--preset", "other") == (Dora(rank=4),), "and nothing of the recipe's"
    assert parsed("--preset", "other", "--method", "ia3") == (Ia3(),)
    with pytest.raises(UserError, match="--rank is not a setting of --method ia3; its own are --rate_factor"):
        parsed("--method", "ia3", "--rank", "8")


def test_nothing_given_leaves_the_recipes_own_settings(parse):
    assert parse() == RECIPE


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--epochs", "7"], "epochs", 7),
        (["--epochs=7"], "epochs", 7),
        (["--learning_rate", "1e-3"], "learning_rate", 1e-3),
        (["--learning-rate", "1e-3"], "learning_rate", 1e-3),
        (["--learning-rate=1e-3"], "learning_rate", 1e-3),
        (["--data_file", "a-b_c.jsonl"], "data_file", "a-b_c.jsonl"),
        (["--data-file=a-b=c--d.jsonl"], "data_file", "a-b=c--d.jsonl"),
        (["--max_steps", "4"], "max_steps", 4),
        (["--schedule", "cosine"], "schedule", "cosine"),
        (["--keep_all"], "keep_all", True),
        (["--keep-all"], "keep_all", True),
        (["--no-keep_all"], "keep_all", False),
        (["--no-shuffle"], "shuffle", False),
        (["--keep_all", "--no-keep-all"], "keep_all", False),
        (["--no_keep_all"], "keep_all", False),
        (["--no-repeats", "3"], "no_repeats", 3),
        (["--no_repeats=3"], "no_repeats", 3),
        (["--epochs", "7", "--epochs", "8"], "epochs", 8),
    ],
)
def test_a_flag_sets_its_field_with_its_type(parse, words, name, value):
    run, method = parse(*words)
    assert getattr(run, name) == value and type(getattr(run, name)) is type(value)
    others = {key: setting for key, setting in dataclasses.asdict(run).items() if key != name}
    assert others == {key: setting for key, setting in dataclasses.asdict(RECIPE[0]).items() if key != name}
    assert run.given == {name}
    assert method == RECIPE[1]


def test_the_recipes_settings_are_not_changed_in_place(parse):
    parse("--epochs", "9", "--rank", "2")
    assert RECIPE == (Run(epochs=5), Method(rank=16))


def test_a_preset_wins_over_the_recipe_and_reaches_every_part(parse):
    run, method = parse("--preset", "paper")
    assert (run.epochs, run.data_file, run.keep_all, run.shuffle, method.rank) == (2, "paper.jsonl", True, False, 64)
    assert run.learning_rate == RECIPE[0].learning_rate


@pytest.mark.parametrize("order", [("--preset", "paper", "--epochs", "5"), ("--epochs", "5", "--preset=paper")])
def test_a_flag_wins_over_the_preset_also_with_the_recipes_own_value(parse, order):
    """5 is the recipe's default: a parser that compares with the default would take the preset's 2."""
    assert parse(*order)[0].epochs == 5


@pytest.mark.parametrize("given", [("--dataset", "sample:text"), ("--train-file=mine.jsonl",)])
def test_other_rows_take_nothing_of_where_the_presets_are(monkeypatch, given):
    """Or the configuration of the preset's data set would be asked of the rows given."""
    preset = {"dataset": "alice/texts", "dataset_config": "raw", "dataset_revision": "v1", "train_rows": 9}
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--preset", "paper", *given])
    (run,) = cli.parse(RunConfig(), doc="What it does.", presets={"paper": preset})
    assert (run.dataset_config, run.dataset_revision, run.train_rows) == (None, None, 9)
    assert (run.dataset, run.train_file) in [("sample:text", None), (None, "mine.jsonl")]


def test_a_switch_wins_over_the_preset_in_both_directions(parse):
    run, _ = parse("--preset", "paper", "--no-keep-all", "--shuffle")
    assert run.keep_all is False and run.shuffle is True


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--lr", "1e-3"], ["--lr;", "did you mean --learning_rate?"]),
        (["--num-train-epochs=3"], ["did you mean --epochs?"]),
        (["--num_train_epoch", "3"], ["did you mean --epochs?"]),
        (["--lora_r", "3"], ["did you mean --rank?"]),
        (["--bs", "3"], ["it is --batch_size in the recipes that have it"]),
        (["--logging_steps", "5"], ["--logging_steps; every step is in log.jsonl"]),
        (["--do_train"], ["--do_train; a recipe always trains"]),
        (["--epoch", "3"], ["--epoch;", "did you mean --epochs?"]),
        (["--learning-rte=3"], ["--learning_rte=3", "did you mean --learning_rate?"]),
        (["--keepall"], ["did you mean --keep_all?"]),
        (["--no-shufle"], ["did you mean --no-shuffle?"]),
        (["--zzz", "3"], ["--zzz", "--help lists the flags"]),
        (["-e", "3"], ["-e", "--help lists the flags"]),
        (["extra"], ["extra", "--help lists the flags"]),
        (["--epochs", "many"], ["--epochs", "int", "'many'"]),
        (["--epochs", "3.5"], ["--epochs", "int", "'3.5'"]),
        (["--learning_rate", "fast"], ["--learning_rate", "float", "'fast'"]),
        (["--epochs"], ["--epochs", "expected one argument"]),
        (["--schedule", "sine"], ["--schedule", "'sine'", "'linear', 'cosine'"]),
        (["--keep_all=yes"], ["--keep_all", "'yes'"]),
        (["--preset", "papers"], ["--preset", "'papers'", "'paper'"]),
        (["--rank", "0"], ["--rank is 0"]),
        (["--no-epochs"], ["--no-epochs", "did you mean --epochs?"]),
    ],
)
def test_a_mistake_is_a_user_error_that_says_what_is_wrong(parse, words, says):
    with pytest.raises(UserError) as raised:
        parse(*words)
    assert [part for part in says if part not in str(raised.value)] == [], str(raised.value)


def test_without_presets_there_is_no_such_flag(parse):
    with pytest.raises(UserError, match="--preset"):
        parse("--preset", "paper", presets=None)


def test_a_flag_is_not_taken_for_a_longer_one(parse):
    """argparse would read --max as --max_steps, until the day a second --max_... field makes it ambiguous."""
    with pytest.raises(UserError, match="--max"):
        parse("--max", "3")


def test_help_shows_each_field_with_its_text_and_the_recipes_default(parse, capsys):
    with pytest.raises(SystemExit) as left:
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert left.value.code == 0
    assert "What it does." in shown
    for part in ("passes [5]", "peak rate, 100 % of it [5e-05]", "rows [none]", "shape [linear]", "rank [16]"):
        assert part in shown
    assert "cached rows [those of the last run]" in shown
    assert "--keep_all, --no-keep_all" in shown and "--preset {paper}" in shown
    assert shown.startswith("usage: recipe.py [flags] What it does.")
    assert shown.index(" run: --epochs ") < shown.index(" task: --rank ")


def test_a_file_of_settings_stands_between_the_preset_and_the_flags(parse, tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("learning_rate: 1e-3\nepochs: 7\nkeep_all: true\nshuffle: false\ndata_file: no\nrank: 4\n")
    run, method = parse("--config", str(config), "--epochs", "9")
    assert (run.learning_rate, run.epochs, run.keep_all, run.shuffle, run.data_file) == (1e-3, 9, True, False, "no")
    assert method.rank == 4
    assert run.given == {"learning_rate", "epochs", "keep_all", "shuffle", "data_file", "rank"}
    without = sys.argv[1:]
    assert "--config" not in without and without[-2:] == ["--epochs", "9"], "as the command stands on record"
    assert parse(*without) == (run, method)
    config.write_text("epochs: 7\npreset: paper\n")
    run, method = parse(f"--config={config}")
    assert (run.epochs, run.data_file, method.rank) == (7, "paper.jsonl", 64)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("epoch: 7", "unknown setting epoch; did you mean --epochs"),
        ("lr: 7", "did you mean --learning_rate"),
        ("config: other.yaml", "unknown setting config"),
        ("epochs: [1, 2]", "epochs is .* give a text, a number, true or false"),
        ("epochs: many", "invalid int value: 'many'"),
        ("keep_all: 1", "keep_all is '1'; give true or false"),
        ("- epochs", "holds no settings"),
        ("", "holds no settings"),
        ("a: b: c", "is not YAML"),
        ("a: \u00e9".encode("latin-1"), "cannot be read"),
    ],
)
def test_a_file_of_settings_that_does_not_fit_is_refused(parse, tmp_path, content, says):
    config = tmp_path / "run.yaml"
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=says):
        parse("--config", str(config))
    with pytest.raises(UserError, match="none.yaml cannot be read"):
        parse("--config", str(tmp_path / "none.yaml"))


def test_what_is_written_of_settings_is_read_back(tmp_path):
    run = RunConfig(language="no", learning_rate=1e-7, examples=False, train_file="My rows: all.csv", overwrite=True)
    task, method = Translation(prefix="-- "), Ia3(rate_factor=3.0)
    settings_file.write(tmp_path, "accelerate launch x.py --prefix 'a\n- b'", (run, task, method))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x.py", "--config", str(tmp_path / "settings.yaml")])
        read = cli.parse(RunConfig(), Translation(), Lora(), doc=None)
    assert read == (dataclasses.replace(run, overwrite=False), task, method)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("wrong\nand more"), "wrong"),
        (ValueError("\n  wrong\n"), "wrong"),
        (ValueError(), "ValueError"),
        (OSError(" \n"), "OSError"),
        (ValueError("x" * 1000), "x" * 300),
        (ValueError("wrong:\n  this\nand more"), "wrong: this"),
    ],
)
def test_the_first_line_of_an_error_is_never_empty(error, line):
    assert first_line(error) == line


def fails(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("--x is 1;\n  it must be 2"), 2, "error: --x is 1; it must be 2\n"),
        (RunStopped("interrupted at step 3", 130), 130, "interrupted at step 3\n"),
        (RunStopped("diverged", 1), 1, "diverged\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_an_early_end_is_one_line_and_an_exit_code(capsys, error, code, line):
    with pytest.raises(SystemExit) as left:
        cli.run(fails(error))
    shown = capsys.readouterr()
    assert (left.value.code, shown.err, shown.out) == (code, line, "")


def test_success_is_exit_code_0(capsys):
    with pytest.raises(SystemExit) as left:
        cli.run(lambda: print("done"))
    assert (left.value.code, capsys.readouterr()) == (0, ("done\n", ""))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "runs/x"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_the_users_to_mend(capsys, error):
    with pytest.raises(SystemExit) as left:
        cli.run(fails(error))
    shown = capsys.readouterr().err
    assert left.value.code == 2 and shown.startswith("error: the disk is full (") and shown.count("\n") == 1
    assert "No space left on device" in shown and "is kept, and the same command with --resume" in shown


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), OSError(errno.EIO, "the disk is broken"), SafetensorError("invalid header")]
)
def test_a_bug_keeps_its_traceback(error):
    """What is nobody's mistake but ours must not be dressed up as one line."""
    with pytest.raises(type(error)):
        cli.run(fails(error))


def test_other_names_lead_to_flags_that_recipes_have():
    """And are none themselves, or nobody would ever see the hint."""
    settings = [RunConfig, DocumentClassification, QuestionAnswering, Summarization, Translation, FineTune]
    of_adapters = {name for kind in METHODS.values() for name in kind.flags()} | {"method"}
    flags = {field.name for cls in settings for field in dataclasses.fields(cls)} | of_adapters
    assert {ours for ours in OTHER_NAMES.values() if " " not in ours} <= flags
    of_classification = {field.name for cls in (RunConfig, DocumentClassification) for field in dataclasses.fields(cls)}
    assert not (of_classification | of_adapters) & OTHER_NAMES.keys()


@pytest.mark.parametrize(
    ("words", "preset", "cut"),
    [
        ([], None, (256, 64)),
        (["--max_length", "64"], None, (64, 16)),
        (["--max_length", "64", "--doc_stride", "8"], None, (64, 8)),
        (["--max_length", "512"], None, (512, 64)),
        ([], "short", (128, 32)),
        (["--max_length", "64"], "short", (64, 16)),
        (["--max_length", "256"], "short", (256, 32)),
    ],
)
def test_the_overlap_of_windows_follows_their_length(monkeypatch, words, preset, cut):
    presets = {"short": {"max_length": 128, "doc_stride": 32}}
    monkeypatch.setattr(sys, "argv", ["recipe.py", *words, *(["--preset", preset] if preset else [])])
    (task,) = cli.parse(DocumentClassification(max_length=256, doc_stride=64), doc="", presets=presets)
    assert (task.max_length, task.doc_stride) == cut


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--max_length", "8"], "--max_length is 8; with --doc_stride 2 it must be at least 20"),
        (["--max_length", "64", "--doc_stride", "32"], "with --doc_stride 32 it must be at least 80"),
    ],
)
def test_windows_that_cannot_be_are_refused(monkeypatch, words, says):
    monkeypatch.setattr(sys, "argv", ["recipe.py", *words])
    with pytest.raises(UserError, match=says):
        cli.parse(DocumentClassification(), doc="")
