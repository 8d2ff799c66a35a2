"""Entries against models and tokenizers: what an entry says is what they do, and nobody else knows a family."""

import ast
from pathlib import Path

import pytest
import torch
import transformers

import tl_hub
from tl_hub import base_model
from tl_hub.architectures import ARCHITECTURES, longest_input, pretrained_by, usable_positions
from tl_hub.architectures.base import through_tanh
from tl_hub.architectures.distilbert import DISTILBERT
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.tasks.classification import Classification
from tl_hub.tasks.language_modeling import MaskedLanguageModeling
from tl_hub.tokenizer import word_starts
from tl_hub.vectors.extract import depth_of, encoder_of

PACKAGE = Path(tl_hub.__file__).parent
MASKED = pretrained_by(["masked"])


def test_nothing_but_the_entries_knows_a_family():
    """Names of families stand in no other code; only the default of a new model is one."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        if not path.is_relative_to(PACKAGE / "architectures") and not path.is_relative_to(PACKAGE / "samples"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            found += [path.name for node in nodes if isinstance(node, ast.Constant) and node.value in ARCHITECTURES]
    assert found == ["from_scratch.py"]


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_a_model_reads_as_many_tokens_as_its_entry_says_and_no_more(family, checkpoints):
    model, _ = checkpoints(family, "AutoModel")
    usable = usable_positions(model.config)
    assert usable == {"t5": None, "xlnet": None, "gpt2": 1024}.get(family, 512)
    if usable is None:
        return
    assert longest_input(model.config) == usable

    def read(length: int) -> torch.Tensor:
        with torch.no_grad():
            return model.eval()(input_ids=torch.full((1, length), 7)).last_hidden_state

    assert read(usable).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        read(usable + 1)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_the_head_of_all_tokens_and_the_encoder_are_the_stock_models(family, checkpoints):
    """Of a text alone; the number of layers is called what the entry says."""
    model, tokenizer = checkpoints(family, "AutoModel")
    assert getattr(model.config, ARCHITECTURES[family].depth) == 2 == depth_of(encoder_of(model))
    names = {name for name, _ in model.named_parameters()}
    table = ARCHITECTURES[family].position_table
    tables = [name for name in names if table and name.endswith(table)]
    assert len(tables) == (family not in ("t5", "xlnet"))


@pytest.mark.parametrize("family", MASKED)
def test_scores_of_masked_tokens_are_the_stock_models(family, checkpoints):
    model, tokenizer = checkpoints(family, "AutoModelForMaskedLM")
    inputs = tokenizer(["The river rises in the hills.", "Snow."], return_tensors="pt", padding=True)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    labels[:, ::2] = -100
    with torch.no_grad():
        stock = model.eval()(**inputs, labels=labels)
        found = MaskedLanguageModeling().objective(model)(**inputs, labels=labels)
    torch.testing.assert_close(found.logits, stock.logits[labels != -100], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.loss, stock.loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", MASKED)
def test_the_first_piece_of_a_word_is_told_from_those_that_go_on(family, checkpoints):
    """Against the places of the pieces in a text: a word begins at the start and behind a blank."""
    _, tokenizer = checkpoints(family, "AutoModel")
    text = (
        "Pearce discovered the tributaries of the Danube in 1843 together with unbelievable quantities of hippopotami"
    )
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    starts, blanks = word_starts(tokenizer), {0} | {i + 1 for i, letter in enumerate(text) if letter == " "}
    pieces = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    assert sum(text[end - 1 : end] != " " for _, (_, end) in pieces) > len(text.split()) + 5, "words of several pieces"
    seen: set[int] = set()  # a marked blank may be a piece of its own, and the letters after it another
    for number, (begin, _) in pieces[1:]:
        assert starts[number] == (begin in blanks and begin not in seen), tokenizer.convert_ids_to_tokens(number)
        seen.add(begin)


def test_a_tokenizer_that_pads_otherwise_than_positions_are_counted_is_refused(checkpoint_folders, tmp_path):
    """The run's config.json would get the tokenizer's number, and the published model would read other positions."""
    transformers.AutoModel.from_pretrained(checkpoint_folders("roberta")).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint_folders("roberta"))
    tokenizer.pad_token = tokenizer.unk_token
    tokenizer.save_pretrained(tmp_path)
    task = Classification()
    task.labels = ["bad", "good"]
    with pytest.raises(UserError, match=r"config.json has pad_token_id 0, .* its tokenizer pads with 1 \(<unk>\)"):
        base_model.load(RunConfig(model=str(tmp_path)), task)


def test_a_distilbert_of_more_classes_than_its_head_has_room_for_is_not_folded(checkpoint_folders):
    """Each takes two of the head's hidden units; a stock head cannot pass on a negative number in one."""
    make = transformers.AutoModelForSequenceClassification.from_pretrained
    x = torch.randn(5, 32)
    for classes in (16, 17):
        model = make(checkpoint_folders("distilbert"), num_labels=classes)
        weight, bias = torch.randn(classes, 32), torch.randn(classes)
        with torch.no_grad():
            if classes == 16:
                DISTILBERT.fold(model, weight, bias, False)
                found = model.classifier(model.pre_classifier(x).relu())
                torch.testing.assert_close(found, x @ weight.T + bias, atol=1e-5, rtol=1e-5)
            else:
                with pytest.raises(UserError, match="32 hidden units, of which 17 classes need two each"):
                    DISTILBERT.fold(model, weight, bias, False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
@pytest.mark.parametrize("size", [1e-3, 0.02, 1.0])
def test_a_linear_head_goes_through_a_tanh_and_stays_linear(size, dtype, tolerance):
    """Also in half precision, which has few digits for values near nothing, and none for those above 65504."""
    torch.manual_seed(0)
    weight, bias, vectors = size * torch.randn(3, 64), torch.randn(3), torch.randn(50, 64)
    first, second = torch.nn.Linear(64, 64), torch.nn.Linear(64, 3)
    with torch.no_grad():
        through_tanh(first, second, weight, bias)
        found = second.to(dtype)(first.to(dtype)(vectors.to(dtype)).tanh())
    expected = vectors @ weight.T + bias
    assert (found.float() - expected).abs().max() <= tolerance * expected.abs().max()
