"""A setting that cannot work is refused before anything is loaded, by a message that names its flag."""

import dataclasses
import math
import runpy
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.methods.adapters import METHODS, Lora
from tl_hub.methods.from_scratch import FromScratch
from tl_hub.tasks.language_modeling import MaskedLanguageModeling
from tl_hub.tasks.question_answering import QuestionAnswering
from tl_hub.tasks.question_answering.windows import QUESTION_TOKENS

AT_LEAST_1 = ("epochs", "batch_size", "accumulation", "max_steps", "train_rows", "validation_rows")
ABOVE_0 = ("learning_rate", "max_grad_norm", "checkpoint_minutes")


def refused(kind: type, **settings: object) -> str:
    with pytest.raises(UserError) as raised:
        kind(**settings)
    return str(raised.value)


RECIPES = [runpy.run_path(str(path)) for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.py"))]
PARTS = {type(part) for script in RECIPES for part in (script["RUN"], script["TASK"], script["METHOD"])}
KINDS = [*sorted(PARTS - set(METHODS.values()), key=lambda kind: kind.__name__), *METHODS.values()]
ANY_NUMBER = {"length_penalty"}
FROM_0 = {"seed", "init_seed", "train_draw", "no_repeat_ngram", "patience"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_setting_takes_a_number_that_cannot_be(kind):
    """Below its range or no number at all; or training would begin, and end in something that nobody understands."""
    hints = get_type_hints(kind)
    for name in (field.name for field in dataclasses.fields(kind) if field.init):
        kinds = set(get_args(hints[name]) or [hints[name]])
        if not kinds & {int, float}:
            continue
        wrong = [math.nan, math.inf] if float in kinds else [-1] if name in FROM_0 else [-1, 0]
        for value in [*wrong, *([-1.0] if float in kinds and name not in ANY_NUMBER else [])]:
            assert f"--{name} is {value}" in refused(kind, **{name: value})


@pytest.mark.parametrize("kind", [RunConfig, QuestionAnswering, MaskedLanguageModeling, FromScratch, *METHODS.values()])
def test_the_defaults_are_within_their_own_ranges(kind):
    kind()


@pytest.mark.parametrize("kind", [RunConfig, QuestionAnswering, MaskedLanguageModeling, FromScratch, *METHODS.values()])
def test_every_setting_says_what_it_is(kind):
    """`--help` is made from these; a field without one would be a flag without an explanation."""
    flags = [field for field in dataclasses.fields(kind) if field.init]
    assert flags and [field.name for field in flags if not field.metadata.get("help")] == []


@pytest.mark.parametrize("name", AT_LEAST_1)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_start_at_1(name, value):
    assert refused(RunConfig, **{name: value}) == f"--{name} is {value}; it must be at least 1"
    assert getattr(RunConfig(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", ABOVE_0)
@pytest.mark.parametrize("value", [0.0, -1e-5, math.nan, math.inf])
def test_rates_are_positive_numbers(name, value):
    """`nan < 0` is false: a check for what is wrong, instead of what is right, would let it through."""
    assert refused(RunConfig, **{name: value}) == f"--{name} is {value}; it must be a number greater than 0"
    assert getattr(RunConfig(**{name: 1e-9}), name) == 1e-9


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("warmup", [-0.1, 1.0, 100.0, math.nan], [0.0, 0.5, 0.99]),
        ("weight_decay", [-0.01, math.nan, math.inf], [0.0, 0.1, 2.0]),
        ("seed", [-1, 2**32], [0, 2**32 - 1]),
    ],
)
def test_other_ranges_of_a_run(name, wrong, right):
    for value in wrong:
        assert refused(RunConfig, **{name: value}).startswith(f"--{name} is {value}; it ")
    for value in right:
        assert getattr(RunConfig(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "wrong"), [("precision", "fp16"), ("schedule", "slanted")])
def test_one_of_several_values(name, wrong):
    """A recipe may hold what its command line would refuse; T5 overflows in fp16, for one."""
    assert refused(RunConfig, **{name: wrong}).startswith(f"--{name} is {wrong}; it must be one of ")


def test_a_state_of_a_hub_is_named_as_one():
    assert "give --resume alone, or --resume hub:owner/name" in refused(RunConfig, resume="runs/mine")
    assert RunConfig(resume="hub:owner/name").resume == "hub:owner/name" and RunConfig(resume=True).resume is True


@pytest.mark.parametrize("name", ["output_dir", "model", "revision", "dataset", "train_file"])
def test_an_empty_value_is_not_taken_for_none(name):
    """`--train_file "$FILE"` with FILE unset must not train on the embedded rows."""
    assert refused(RunConfig, **{name: ""}).startswith(f"--{name} is empty;")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"resume": True, "overwrite": True}, ("--resume", "--overwrite")),
        ({"dataset": "squad", "train_file": "a.jsonl"}, ("--dataset", "--train_file")),
        ({"tag": "v1"}, ("--tag", "--push_to")),
        ({"create_pr": True}, ("--create_pr", "--push_to")),
        ({"push_to": "a/b", "create_pr": True, "push_every": 1}, ("--create_pr", "--push_every")),
        ({"push_to": "a/b", "create_pr": True, "push_revision": "dev"}, ("--create_pr", "--push_revision")),
        ({"push_to": "a/b", "public": True, "push_every": 1}, ("--public", "--push_every")),
        ({"push_to": "a/b", "dry_run": True, "push_every": 1}, ("--dry_run", "--push_every")),
        ({"push_to": "a/b", "push_base": "a/b"}, ("--push_base", "--push_to")),
        ({"push_to": "a/b", "push_base": "a/c", "push_adapter": "a/c"}, ("--push_base", "--push_adapter")),
        ({"dataset": "squad", "test_file": "a.jsonl"}, ("--dataset", "--test_file")),
    ],
)
def test_settings_that_exclude_or_need_each_other(settings, named):
    message = refused(RunConfig, **settings)
    assert [name for name in named if name not in message] == []


def test_no_path_or_name_of_ones_own_is_recorded():
    """The record is published. What may be any text is of the Hub or of the result; other recorded settings are not."""
    free = {"revision", "dataset_config", "dataset_revision", "license", "language", "encoding", "delimiter"}
    hints = get_type_hints(RunConfig)
    recorded = {field.name for field in dataclasses.fields(RunConfig) if field.metadata["recorded"]}
    assert {name for name in recorded if str in (hints[name], *get_args(hints[name]))} == free
    assert {"seed", "batch_size", "learning_rate", "train_rows"} <= recorded


def test_files_that_go_together():
    RunConfig(train_file="a.jsonl", validation_file="b.jsonl", test_file="c.jsonl")


@pytest.mark.parametrize("name", ["doc_stride", "max_answer_length"])
def test_question_answering_counts_start_at_1(name):
    for value in (0, -5):
        assert refused(QuestionAnswering, **{name: value}) == f"--{name} is {value}; it must be at least 1"
    assert getattr(QuestionAnswering(**{name: 1}), name) == 1


def test_a_window_has_room_for_a_question_and_more_than_the_overlap():
    """With less, the tokenizer would cut windows that never advance, or raise in the middle of a run."""
    least = 128 + QUESTION_TOKENS + 8
    message = refused(QuestionAnswering, max_length=least - 1, doc_stride=128)
    assert message == f"--max_length is {least - 1}; with --doc_stride 128 it must be at least {least}"
    assert QuestionAnswering(max_length=least, doc_stride=128).max_length == least
    assert refused(QuestionAnswering, max_length=0).startswith("--max_length is 0;")


def test_language_modeling_ranges():
    assert refused(MaskedLanguageModeling, max_length=7) == "--max_length is 7; it must be at least 8"
    for value in (0.0, 1.0, -0.1, math.nan):
        assert refused(MaskedLanguageModeling, mask_probability=value).startswith(f"--mask_probability is {value};")


@pytest.mark.parametrize("name", ["rank", "alpha"])
def test_adapter_counts_start_at_1(name):
    for value in (0, -8):
        assert refused(Lora, **{name: value}) == f"--{name} is {value}; it must be at least 1"
    assert getattr(Lora(**{name: 1}), name) == 1


def test_adapter_dropout():
    for value in (-0.1, 1.0, math.nan):
        assert refused(Lora, dropout=value) == f"--dropout is {value}; it must lie in [0, 1)"
    assert Lora(dropout=0.0).dropout == 0.0 and Lora(dropout=0.9).dropout == 0.9


def test_heads_divide_the_width():
    refusal = refused(FromScratch, hidden_size=100, heads=3)
    assert refusal == "--hidden_size 100 is not a multiple of twice --heads 3"


def test_a_value_of_another_kind_is_told_its_place(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("text,label\n")
    assert refused(RunConfig, model="bert").startswith("--model bert is a family, not a checkpoint; give tiny:bert")
    assert RunConfig(model="gpt2").model == "gpt2", "which is also what the Hub calls a checkpoint"
    assert refused(RunConfig, dataset=str(file)) == f"--dataset {file} is a file; give it as --train_file {file}"
    assert refused(RunConfig, train_file=str(tmp_path)).startswith(f"--train_file {tmp_path} is a folder; give a file")
    assert refused(RunConfig, output_dir=str(file)) == f"--output_dir {file} is a file; give a folder"
