"""What a stranger may have put into a run folder, a repository or a name is refused in a line; nothing of it is run."""

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.publishing.runs import adapter_run, weights, write_run
from tl_hub import base_model, card, verification
from tl_hub.card.merging import merge
from tl_hub.errors import UserError
from tl_hub.publishing import contents
from tl_hub.publishing.destination import Destination
from tl_hub.publishing.snapshot import snapshot
from tl_hub.record import RunRecord

GENERATED = "---\ntags:\n- tl_hub\n---\n\n<!-- tl_hub: Results 2c26b46b68ff -->\nfoo\n<!-- tl_hub end -->\n"


def changed(folder: Path, **facts: Any) -> Path:
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | facts))
    return folder


# --- what decides how, and by which code, a folder is loaded


@pytest.mark.parametrize(
    "weight_map",
    [
        {"weight": "pytorch_model.bin"},
        {"weight": "../other/model-00001-of-00001.safetensors"},
        {"weight": "/etc/model-00001-of-00001.safetensors"},
        {"weight": "model-1/../../x-of-1.safetensors"},
        {"weight": "model-00001-of-00001.pkl"},
        {"weight": 7},
        {"weight": ["model-00001-of-00001.safetensors"]},
        [],
        None,
    ],
)
def test_an_index_names_shards_in_safetensors_beside_it(tmp_path, weight_map):
    folder = write_run(tmp_path / "run")
    (folder / "model.safetensors").unlink()
    (folder / "model-00001-of-00001.safetensors").write_bytes(weights(0))
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"weight": "model-00001-of-00001.safetensors"}}')
    verification.check_weights(folder, RunRecord.load(folder))
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=r"index\.json (names .* which is not a shard|has no weight_map)"):
        verification.check_weights(folder, RunRecord.load(folder))


KERNELS: list[dict[str, Any]] = [
    {"attn_implementation": "stranger/kernel"},
    {"_attn_implementation": "stranger/kernel"},
    {"_attn_implementation_internal": "stranger/kernel@main"},
    {"_experts_implementation_internal": "stranger/kernel"},
    {"attn_implementation": {"": "stranger/kernel"}},
    {"attn_implementation": "flash_attention_2|stranger/kernel"},
    {"text_config": {"_attn_implementation": "stranger/kernel"}},
    {"text_config": [{"a": {"attn_implementation": "stranger/kernel"}}]},
    {"kernel_config": {"RMSNorm": "stranger/kernel:Norm"}},
]


@pytest.mark.parametrize("setting", KERNELS, ids=json.dumps)
def test_kernels_of_a_stranger_are_not_loaded(tmp_path, setting):
    """As in CVE-2026-4372, where a configuration alone had transformers run code of another repository."""
    folder = write_run(tmp_path / "run")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **setting}))
    with pytest.raises(UserError, match="asks for code from the Hub"):
        verification.check_weights(folder, RunRecord.load(folder))
    (folder / "config.json").write_text('{"model_type": "bert", "attn_implementation": "sdpa"}')
    verification.check_weights(folder, RunRecord.load(folder))
    changed(folder, config=setting)
    with pytest.raises(
        UserError, match=r"run\.json(: config: | asks for code from the Hub)"
    ):  # the schema refuses some
        verification.check_weights(folder, RunRecord.load(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "modules.json", "adapter_config.json"])
@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": ' + "9" * 5000 + "}", "", "7", '"x"', '["x"]'])
def test_a_file_that_decides_is_an_object(tmp_path, name, text):
    folder = write_run(tmp_path / "run")
    if name == "adapter_config.json":
        folder = adapter_run(tmp_path / "adapter", "alice/base", "hub")
    (folder / name).write_text(text)
    with pytest.raises(UserError) as raised:
        verification.check_weights(folder, RunRecord.load(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["adapter", "merged"])
@pytest.mark.parametrize(("named", "source"), [("bob/base", "hub"), (None, "hub"), ("bob/other", "local"), (3, "hub")])
def test_an_adapter_and_its_record_name_one_base(tmp_path, kind, named, source):
    base = "alice/base" if source == "hub" else "/somewhere/base"
    folder = adapter_run(tmp_path / "run", base, source, kind)
    verification.check_weights(folder, RunRecord.load(folder))
    path = folder / ("adapter" if kind == "merged" else ".") / "adapter_config.json"
    path.write_text(json.dumps({"base_model_name_or_path": named}))
    with pytest.raises(
        UserError, match=f"names the base {str(named).split('/')[-1] if source == 'local' else named}, and"
    ):
        verification.check_weights(folder, RunRecord.load(folder))


def test_an_adapter_and_its_record_name_one_revision_of_the_base(tmp_path):
    folder = adapter_run(tmp_path / "run", "alice/base", "hub")
    base = RunRecord.load(folder).facts()["base"]
    changed(folder, base=base | {"revision": "1" * 40})
    verification.check_weights(folder, RunRecord.load(folder))
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({"base_model_name_or_path": "alice/base", "revision": "2" * 40}))
    with pytest.raises(UserError, match="names revision 2{40} of the base, and run.json 1{40}"):
        verification.check_weights(folder, RunRecord.load(folder))


# --- what is published


def test_a_linked_folder_is_not_published(tmp_path):
    folder, elsewhere = adapter_run(tmp_path / "run", "alice/base", "hub", "merged"), tmp_path / "elsewhere"
    contents.files_of(folder, RunRecord.load(folder))
    (folder / "adapter").rename(elsewhere)
    os.symlink(elsewhere, folder / "adapter")
    with pytest.raises(UserError, match="run/adapter is a link; put the file itself there"):
        contents.files_of(folder, RunRecord.load(folder))


# --- the record


RECORDS = {
    "open": "[" * 100_000,
    "closed": '{"a":' * 5000 + "1" + "}" * 5000,
    "long number": '{"version": ' + "9" * 5000 + "}",
    "half a character": r'{"name": "\ud800"}',
    "a list": "[]",
    "a long text": json.dumps({"name": 3, "kind": "x" * 100_000}),
}


@pytest.mark.parametrize("text", RECORDS.values(), ids=RECORDS)
def test_a_record_that_cannot_be_read_is_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError) as raised:
        RunRecord.load(tmp_path)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 1000


def test_a_record_is_not_nested_deeper_than_its_readers_go(tmp_path):
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    folder = changed(write_run(tmp_path / "run"), settings={"a": deep})
    with pytest.raises(UserError, match="nested more than 50 levels deep"):
        RunRecord.load(folder)


# --- the card


FORGED = "x <!-- tl_hub end --> \n<!-- tl_hub: Results 0123456789ab -->\nfalse\n<!-- tl_hub end -->"
PLACES: dict[str, dict[str, Any]] = {
    "name": {"name": FORGED},
    "command": {"command": FORGED},
    "example": {"examples": [{"text": FORGED, "expected": "a", "predicted": FORGED}]},
    "label": {"config": {"id2label": {"0": FORGED, "1": "b"}}},
    "table": {"tables": {FORGED: [{FORGED: FORGED}]}},
    "method": {"method": {"name": FORGED}},
    "data": {"data": {"id": FORGED, "source": "local", "notes": [FORGED]}},
}


@pytest.mark.parametrize("facts", PLACES.values(), ids=PLACES)
def test_a_forged_mark_is_none_of_the_cards(tmp_path, facts):
    run = RunRecord.load(changed(write_run(tmp_path / "run"), **facts))
    generated = card.render(run, "alice/x")
    by_hand = generated.replace("\n---\n\n", "\n---\n\nBy hand.\n\n", 1)
    merged, notes = merge(generated, by_hand)
    assert notes == [] and merged.count("By hand.") == 1 and merge(generated, merged) == (merged, [])


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n"
for one, other in itertools.pairwise("abcdefghij"):
    BOMB += f"{other}: &{other} [{','.join([f'*{one}'] * 9)}]\n"
HEADS = {
    "aliases": f"{BOMB}tags: *j",
    "an alias of itself": "tags: &a [*a]",
    "open": "tags: " + "[" * 20_000,
    "closed": "tags: " + "[" * 60 + "]" * 60,
    "code": '!!python/object/apply:os.system ["id"]',
    "half a character": r'tags: ["\ud800"]',
    "long number": "x: " + "9" * 5000,
    "NUL": 'x: "\0"',
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_metadata_that_cannot_be_read_are_one_line(head):
    begin = time.process_time()
    with pytest.raises(UserError, match="the metadata of the card are not YAML that can be read") as raised:
        merge(GENERATED, f"---\n{head}\n---\n\nhi")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 500 and time.process_time() - begin < 5


@pytest.mark.parametrize(
    "text",
    ["<!-- tl_hub: Results 0123456789ab -->\n" * 20_000, "<!-- tl_hub: " * 20_000, "\n<!-- tl_hub end -->" * 20_000],
)
def test_marks_without_an_end_take_no_time(text):
    begin = time.process_time()
    merged, _ = merge(GENERATED, f"---\n---\n{text}")
    assert text.strip() in merged and time.process_time() - begin < 5


@given(
    st.lists(st.sampled_from([*GENERATED.splitlines(True), "---\n", "\n", "a: &a [*a]\n", "- x\n", "'", "é", "\r\n"]))
)
def test_any_card_can_be_merged_and_nothing_written_is_lost(lines):
    text = "".join(lines) + "\nBy hand."
    try:
        merged, _ = merge(GENERATED, text)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        assert "By hand." in merged and merge(GENERATED, merged) == (merged, [])
        assert yaml.safe_load(merged.split("---")[1])["tags"][0] == "tl_hub"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.sampled_from(sorted(RunRecord.__dataclass_fields__)), JSON)
def test_any_value_in_a_record_is_read_or_refused_in_a_line(tmp_path_factory, field, value):
    folder = changed(write_run(tmp_path_factory.mktemp("run") / "run"), **{field: value})
    try:
        run = RunRecord.load(folder)
        card.render(run, "alice/x").encode()
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000


# --- names


@pytest.mark.parametrize(
    "name", ["a/../b", "../x", "a\0b", "alice/\0", "x" * 300, "alice/" + "x" * 300, "~" + "x" * 300]
)
def test_a_name_that_is_none_is_one_line(name):
    assert base_model.source_of(name) == "hub"  # which is asked for it, and says the same
    for ask in (RunRecord.load, snapshot):
        with pytest.raises(UserError) as raised:
            ask(name)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["a..b", "a\0b", "x" * 300, "a b", "-a", "a/", "a~1", "a.lock"])
def test_a_branch_or_tag_that_git_does_not_take_is_one_line(name):
    for field in ("tag", "revision"):
        with pytest.raises(UserError, match=f"--{field} .* is not a name that git takes"):
            Destination("alice/x", **{field: name}).check()
