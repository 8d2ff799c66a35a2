"""A tokenizer that reads other tokens than in training is noticed, and one that does not is left alone."""

import copy
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer

import tl_hub
from tests.test_card import minimal
from tests.test_old_run_folders import FOLDERS
from tl_hub import canary, load_back, samples
from tl_hub.record import RunRecord
from tl_hub.tokenizer import load_tokenizer

FAMILIES = ("bert", "gpt2", "t5", "xlnet", "roberta", "xlm-roberta", "distilbert")


def record_of(tokenizer: Any) -> RunRecord:
    """As it comes back from the file."""
    record = RunRecord.from_facts(minimal())
    record.token_ids = canary.token_ids(tokenizer)
    return RunRecord.from_facts(json.loads(record.text()))


def _read(content: dict[str, Any]) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))


def _swap(content: dict[str, Any], *places: int) -> None:
    """Two added tokens have each other's number."""
    first, second = (content["added_tokens"][place] for place in places)
    first["id"], second["id"] = second["id"], first["id"]
    vocabulary = content["model"]["vocab"]
    if isinstance(vocabulary, dict):
        for token in (first, second):
            vocabulary[token["content"]] = token["id"]
    else:
        low, high = first["id"], second["id"]
        vocabulary[low], vocabulary[high] = vocabulary[high], vocabulary[low]


def _set(*path: Any) -> Callable[[Any], None]:
    """Set what stands at a place to the last of `path`."""

    def change(content: Any) -> None:
        for step in path[:-2]:
            content = content[step]
        assert content[path[-2]] != path[-1]
        content[path[-2]] = path[-1]

    return change


def _normalized(*kinds: str) -> Callable[[Any], None]:
    return lambda content: content.update(normalizer={"type": "Sequence", "normalizers": [{"type": k} for k in kinds]})


def _split(*pretokenizers: dict[str, Any]) -> Callable[[Any], None]:
    def change(content: Any) -> None:
        own = [content["pre_tokenizer"]] if content["pre_tokenizer"] else []
        content["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [*pretokenizers, *own]}

    return change


def _rename(content: Any) -> None:
    """Two tokens of the vocabulary have each other's number."""
    vocabulary = content["model"]["vocab"]
    a, b = "e", "o"
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]


def _flat(content: Any) -> None:
    """All pieces are as likely."""
    for piece in content["model"]["vocab"]:
        piece[1] = -1.0


DRIFTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "lower-casing off": ("bert", _set("normalizer", "lowercase", False)),
    "accents kept": ("bert", _set("normalizer", "strip_accents", False)),
    "Chinese not split": ("bert", _set("normalizer", "handle_chinese_chars", False)),
    "control characters kept": ("bert", _set("normalizer", "clean_text", False)),
    "longest word": ("bert", _set("model", "max_input_chars_per_word", 20)),
    "prefix of pieces": ("bert", _set("model", "continuing_subword_prefix", "@@")),
    "unknown token": ("bert", _set("model", "unk_token", "[MASK]")),
    "no special tokens": ("bert", _set("post_processor", None)),
    "added tokens moved in bert": ("bert", lambda content: _swap(content, -1, -2)),
    "words swapped": ("distilbert", _rename),
    "NFKC": ("gpt2", _normalized("NFKC")),
    "NFD": ("gpt2", _normalized("NFD")),
    "lower case": ("gpt2", _normalized("Lowercase")),
    "blanks joined": ("gpt2", _set("normalizer", {"type": "Replace", "pattern": {"Regex": " +"}, "content": " "})),
    "blank before": ("gpt2", _set("pre_tokenizer", "add_prefix_space", True)),
    "accents stripped": ("gpt2", _normalized("NFD", "StripAccents")),
    "digits apart": ("gpt2", _split({"type": "Digits", "individual_digits": True})),
    "merges lost": ("roberta", lambda content: content["model"].update(merges=content["model"]["merges"][:-40])),
    "ends swapped": ("roberta", lambda content: content["post_processor"].update(
        cls=content["post_processor"]["sep"], sep=content["post_processor"]["cls"])),
    "byte fallback off": ("t5", _set("model", "byte_fallback", False)),
    "gap tokens moved": ("t5", lambda content: _swap(content, 50, 51)),
    "gap token lost": ("t5", lambda content: content["added_tokens"].pop(60)),
    "scores of pieces": ("t5", _flat),
    "mark of blanks": ("xlnet", lambda content: json.loads(json.dumps(content).replace('"always"', '"never"'))),
    "punctuation apart": ("xlnet", _split({"type": "Punctuation", "behavior": "Isolated"})),
}  # fmt: skip


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drift_is_caught(checkpoint_folders, name: str) -> None:
    family, change = DRIFTS[name]
    content = json.loads((checkpoint_folders(family) / "tokenizer.json").read_text(encoding="utf-8"))
    if name == "byte fallback off":  # of a tokenizer that spells what it does not know in bytes
        content["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
        content["model"]["byte_fallback"] = True
    record = record_of(_read(content))
    assert canary.drift(record, _read(copy.deepcopy(content))) is None
    changed = copy.deepcopy(content)
    changed = change(changed) if name == "mark of blanks" else (change(changed), changed)[1]
    assert changed != content
    line = canary.drift(record, _read(changed))
    assert line and "\n" not in line and line.startswith("the tokenizer reads ") and line.isascii()


@pytest.mark.parametrize("family", [*FAMILIES, *(f"tiny:{family}" for family in samples.checkpoints())])
def test_a_tokenizer_that_was_saved_and_loaded_is_no_drift(checkpoint_folders, tmp_path: Path, family: str) -> None:
    embedded = family.startswith("tiny:")
    path = samples.checkpoint(family.removeprefix("tiny:")) if embedded else checkpoint_folders(family)
    config = transformers.AutoConfig.from_pretrained(path)
    tokenizer = load_tokenizer(str(path), None, config)
    record = record_of(tokenizer)
    assert len(record.token_ids) > 50 and set(list(record.token_ids)[-1].split()) & tokenizer.get_added_vocab().keys()
    # What a batch was cut and filled up to stays in a tokenizer.
    tokenizer(["a", "b c d"], padding=tokenizer.pad_token is not None, truncation=True, max_length=4)
    tokenizer.save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert canary.drift(record, tokenizer) is None and canary.drift(record, loaded) is None


def test_pipeline_verify_and_feature_model_say_it_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    shutil.copytree(FOLDERS / "features_bert", folder)
    record = RunRecord.load(folder)
    record.token_ids = canary.token_ids(transformers.AutoTokenizer.from_pretrained(folder))
    record.save(folder)
    monkeypatch.chdir(folder)

    def said() -> list[list[str]]:
        """By each of the three."""
        lines = []
        for load in (tl_hub.pipeline, tl_hub.FeatureModel.from_pretrained):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                load(folder)
            lines.append([str(each.message) for each in caught if "tokenizer reads" in str(each.message)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = load_back.load_and_compare(RunRecord.load(folder), snippets=False)
        assert "error" not in report
        return [*lines, [report["tokenizer"]] if "tokenizer" in report else []]

    assert said() == [[], [], []]
    first = next(iter(record.token_ids))
    record.token_ids[first] = f"7 {record.token_ids[first]}"
    record.save(folder)
    found = said()
    assert [len(lines) for lines in found] == [1, 1, 1] and len({line for (line,) in found}) == 1
    assert found[0][0].startswith(f"the tokenizer reads 1 of {len(record.token_ids)} texts otherwise")
    (folder / "run.json").write_text("{")
    with pytest.warns(UserWarning, match=r"as in training is not known: .*run\.json: line 1 is not JSON"):
        assert tl_hub.FeatureModel.from_pretrained(folder).settings, "a head needs no record"


def test_records_without_token_ids_are_read_as_before() -> None:
    for folder in FOLDERS.iterdir():
        record = RunRecord.load(folder)
        assert record.token_ids == {} and "token_ids" in record.facts()
        assert canary.drift(record, None) is None
