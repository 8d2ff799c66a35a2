"""Every accepted method trains, and loads with stock classes as what was trained; the others are refused by name."""

import copy
import functools
import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from accelerate.state import AcceleratorState
from peft import PeftModel
from safetensors.torch import load_file, save_file

import tl_hub
from tl_hub import adamw, base_model, cli, data, finish, launch, training
from tl_hub.architectures import ARCHITECTURES
from tl_hub.base_model import Base
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.experiment import Experiment
from tl_hub.methods.adapters import METHODS, Adapter, Bottleneck, Dora, Ia3, Lora, Prefix, Prompt, Vera, named
from tl_hub.methods.adapters.base import merged
from tl_hub.methods.adapters.peft_bottleneck import BottleneckConfig, BottleneckLayer
from tl_hub.record import RunRecord
from tl_hub.tasks.question_answering import QuestionAnswering

pytestmark = pytest.mark.slow

ADAPTER_FILE = "adapter_model.safetensors"
CLASSIFICATION, ANSWERS = "AutoModelForSequenceClassification", "AutoModelForQuestionAnswering"
LANGUAGE = {
    "bert": "AutoModelForMaskedLM",
    "gpt2": "AutoModelForCausalLM",
    "t5": "AutoModelForSeq2SeqLM",
    "xlnet": "AutoModelForCausalLM",
    "roberta": "AutoModelForMaskedLM",
    "distilbert": "AutoModelForMaskedLM",
}
HEADS = [(family, head) for family in LANGUAGE for head in (CLASSIFICATION, ANSWERS, LANGUAGE[family])]
ANYWHERE: dict[str, Adapter] = {
    "lora": Lora(rank=2),
    "dora": Dora(rank=2),
    "ia3": Ia3(),
    "houlsby": Bottleneck(width=4),
    "pfeiffer": Bottleneck(width=4, placement="pfeiffer"),
    "vera": Vera(rank=4),
    "lora-top": Lora(rank=2, top_layers=1),
    "ia3-top": Ia3(top_layers=1),
}
SOMEWHERE = {
    "prompt": [
        ("bert", CLASSIFICATION),
        ("t5", LANGUAGE["t5"]),
        ("roberta", CLASSIFICATION),
        ("distilbert", CLASSIFICATION),
    ],
    "prefix": [
        ("bert", CLASSIFICATION),
        ("bert", ANSWERS),
        ("gpt2", CLASSIFICATION),
        ("gpt2", ANSWERS),
        ("gpt2", LANGUAGE["gpt2"]),
        ("t5", LANGUAGE["t5"]),
        ("roberta", CLASSIFICATION),
        ("roberta", ANSWERS),
    ],
}
CELLS = [
    *((name, adapter, *cell) for name, adapter in ANYWHERE.items() for cell in HEADS),
    *((name, METHODS[name](virtual_tokens=3), *cell) for name, cells in SOMEWHERE.items() for cell in cells),
]
FIXED = ("base_model.vera_A", "base_model.vera_B")
"""What is saved beside that which is trained."""
TASK_TYPES = {
    CLASSIFICATION: "SEQ_CLS",
    ANSWERS: "QUESTION_ANS",
    "AutoModelForCausalLM": "CAUSAL_LM",
    "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM",
}
TRANSFORMERS_LOADS = ("lora", "ia3", "houlsby", "pfeiffer", "lora-top", "ia3-top")
LOAD = """
import copy, functools, json, sys
from pathlib import Path
import torch, transformers
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
import tl_hub
torch.set_num_threads(1)
differences = {}
base_of = functools.cache(lambda auto_class, base, **config: auto_class.from_pretrained(base, **config))
for folder in map(Path, sys.argv[1:]):
    cell = json.loads((folder / "cell.json").read_text())
    auto_class = getattr(transformers, cell["auto_class"])
    probe = load_file(folder / "probe.safetensors")
    inputs = {name[3:]: tensor for name, tensor in probe.items() if name.startswith("in.")}
    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    models = {"peft": PeftModel.from_pretrained(copy.deepcopy(base_of(auto_class, base, **cell["config"])), folder)}
    if cell["transformers"]:
        models["transformers"] = auto_class.from_pretrained(folder, **cell["config"])
    for name, model in models.items():
        with torch.no_grad():
            outputs = model.eval()(**inputs)
        differences[f"{folder.name} {name}"] = max(
            float((outputs[key[4:]] - tensor).abs().max()) for key, tensor in probe.items() if key.startswith("out.")
        )
print(json.dumps(differences))
"""


@pytest.fixture(scope="module")
def bases(tmp_path_factory, checkpoint_folders):
    """Folder of a checkpoint for a head; language models have theirs already, as an adapter needs."""
    root = tmp_path_factory.mktemp("bases")

    def folder(family: str, auto_class: str) -> Path:
        plain = checkpoint_folders(family)
        if auto_class != LANGUAGE[family]:
            return plain
        path = root / family
        if not path.exists():
            torch.manual_seed(1)
            getattr(transformers, auto_class).from_pretrained(plain).save_pretrained(path)
        return path

    return folder


@pytest.fixture(scope="module")
def load(bases):
    """A model with its head, as `base_model.load` gives it: copies of one, as loading takes as long as training."""

    @functools.cache
    def once(family: str, auto_class: str) -> tuple[Any, Base]:
        path = bases(family, auto_class)
        torch.manual_seed(0)
        model, report = getattr(transformers, auto_class).from_pretrained(
            path, output_loading_info=True, **config_for(family, auto_class)
        )
        return model, Base(path.name, "local", family, fresh=tuple(sorted(report["missing_keys"])))

    def loaded(family: str, auto_class: str) -> tuple[Any, Base]:
        copied = copy.deepcopy(once(family, auto_class))
        torch.manual_seed(0)
        return copied

    return loaded


def config_for(family: str, auto_class: str) -> dict[str, int]:
    if auto_class != CLASSIFICATION:
        return {}
    return {"num_labels": 3} | ({"pad_token_id": 0} if family == "gpt2" else {})


def batch_for(model: Any, auto_class: str, length: int = 12) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs, of which the second row is padded where the family expects it, and labels."""
    ids = torch.randint(10, 200, (3, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    places = slice(0, 4) if model.config.model_type == "xlnet" else slice(-4, None)
    ids[1, places], mask[1, places] = model.config.pad_token_id or 0, 0
    if model.config.model_type == "t5" and auto_class != LANGUAGE["t5"]:
        ids[:, 7] = 1  # its classification head wants one end of text a row
    inputs = {"input_ids": ids, "attention_mask": mask}
    if ARCHITECTURES[model.config.model_type].token_type_ids:
        inputs["token_type_ids"] = (torch.arange(length) > length // 2).long().expand(3, length).contiguous()
    if auto_class == CLASSIFICATION:
        return inputs, {"labels": torch.tensor([0, 1, 2])}
    if auto_class == ANSWERS:
        return inputs, {"start_positions": torch.tensor([1, 5, 3]), "end_positions": torch.tensor([2, 6, 4])}
    if model.config.model_type == "t5":
        inputs["labels"] = ids.clone()
    return inputs, {"labels": ids}


def logits_of(model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        outputs = model.eval()(**inputs)
    return {name: outputs[name] for name in ("logits", "start_logits", "end_logits") if name in outputs}


def difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys() and all(first[name].shape == second[name].shape for name in first)
    return max(float((first[name] - second[name]).abs().max()) for name in first)


@pytest.fixture(scope="module")
def cells(tmp_path_factory, load, forks):
    """Every accepted cell trained for three steps and saved, with what became of it when loaded again."""
    root = tmp_path_factory.mktemp("cells")
    facts: dict[str, dict[str, Any]] = {}
    for name, adapter, family, auto_class in CELLS:
        model, base = load(family, auto_class)
        inputs, labels = batch_for(model, auto_class)
        before = logits_of(model, inputs)
        wrapped = adapter.wrap(model, base)
        start = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
        initial = logits_of(wrapped, inputs)
        optimizer = torch.optim.AdamW([p for p in wrapped.parameters() if p.requires_grad], lr=0.01, weight_decay=0.0)
        wrapped.train()
        for _ in range(3):  # in the first, only those parameters move that are not multiplied by zeros
            optimizer.zero_grad()
            wrapped(**inputs | labels).loss.backward()
            optimizer.step()
        folder = root / f"{name}-{family}-{auto_class}"
        trained = logits_of(wrapped, inputs)
        wrapped.save_pretrained(folder, save_embedding_layers=False)
        save_file(
            {f"in.{n}": t.contiguous() for n, t in inputs.items()} | {f"out.{n}": t for n, t in trained.items()},
            folder / "probe.safetensors",
        )
        cell = {
            "auto_class": auto_class,
            "config": config_for(family, auto_class),
            "transformers": name in TRANSFORMERS_LOADS,
        }
        (folder / "cell.json").write_text(json.dumps(cell))
        facts[folder.name] = {
            "task type": json.loads((folder / "adapter_config.json").read_text())["task_type"],
            "frozen moved": [n for n, p in wrapped.named_parameters() if not p.requires_grad and (p != start[n]).any()],
            "trained still": [n for n, p in wrapped.named_parameters() if p.requires_grad and (p == start[n]).all()],
            "new and frozen": [
                n for n in base.fresh
                if not any(p.requires_grad and m.replace("modules_to_save.default.", "").endswith(n)
                           for m, p in wrapped.named_parameters())
            ],
            "new and not saved": [
                n for n in base.fresh if not any(m.endswith(n) for m in load_file(folder / "adapter_model.safetensors"))
            ],
            "trained and not saved": len([p for p in wrapped.parameters() if p.requires_grad])
            - len([n for n in load_file(folder / "adapter_model.safetensors") if n not in FIXED]),
            "initial": difference(before, initial) if name not in SOMEWHERE else 0.0,
            "merged": difference(trained, logits_of(merged(wrapped), inputs))
            if adapter.mergeable else 0.0,
        }  # fmt: skip
    process = forks.code(LOAD, *(root / name for name in facts), here="none")
    assert process.returncode == 0, process.stderr[-2000:]
    for key, value in json.loads(process.stdout.splitlines()[-1]).items():
        name, loader = key.split()
        facts[name][loader] = value
    return facts


@pytest.mark.parametrize(("name", "family", "auto_class"), [(name, *cell) for name, _, *cell in CELLS])
def test_an_accepted_cell_trains_and_loads_as_what_was_trained(cells, name, family, auto_class):
    facts = cells[f"{name}-{family}-{auto_class}"]
    for fault in ("frozen moved", "trained still", "new and frozen", "new and not saved"):
        assert facts[fault] == [], fault
    assert facts["trained and not saved"] == 0
    if auto_class != ANSWERS or name in SOMEWHERE or not ARCHITECTURES[family].token_type_ids:
        assert facts["task type"] == TASK_TYPES.get(auto_class), "the Hub's page asks for it"
    else:  # PEFT's class for answers would drop the segment ids
        assert facts["task type"] is None
    assert facts["peft"] <= 1e-5
    assert facts["initial"] <= 1e-5 and facts["merged"] <= 1e-5
    assert facts.get("transformers", 0.0) <= 1e-5
    assert ("transformers" in facts) == (name in TRANSFORMERS_LOADS)


LINEAR = {  # of a layer: those of its attention, feed-forward layers and, in T5's decoder, attention to the encoder
    "bert": 2 * 6,
    "gpt2": 2 * 4,
    "t5": 2 * (4 + 2) + 2 * (4 + 4 + 2),
    "xlnet": 2 * 2,
}


@pytest.mark.parametrize("family", LINEAR)
def test_vera_is_two_vectors_a_linear_layer_and_matrices_that_all_share(load, tmp_path, family):
    """By the paper's formula, from what is saved alone: W + diag(b) B diag(d) A, with the part of A and B that fits."""
    model, base = load(family, LANGUAGE[family])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapped = Vera(rank=4).wrap(model, base)
    for name, parameter in wrapped.named_parameters():
        if "vera_lambda" in name:
            torch.nn.init.normal_(parameter)
    wrapped.save_pretrained(tmp_path)
    saved = {name.removeprefix("base_model."): tensor for name, tensor in load_file(tmp_path / ADAPTER_FILE).items()}
    matrices = saved.pop("vera_A"), saved.pop("vera_B")
    names = {name.removeprefix("model.").rpartition(".vera_lambda_")[0] for name in saved}
    assert len(names) == LINEAR[family] and len(saved) == 2 * len(names)

    torch.manual_seed(1)  # the matrices are loaded, not drawn again
    again = PeftModel.from_pretrained(load(family, LANGUAGE[family])[0], tmp_path)
    tensors = dict(wrapped.state_dict())
    assert tensors.keys() == again.state_dict().keys()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in again.state_dict().items())

    after = dict(wrapped.merge_and_unload().named_parameters())
    moved = {name for name in before if (after[name] != before[name]).any()}
    assert {name.removesuffix(".weight") for name in moved} == names
    for name in names:
        d, b = (saved[f"model.{name}.vera_lambda_{vector}"] for vector in "db")
        weight = before[f"{name}.weight"]
        wide = weight.T if family == "gpt2" else weight  # (out, in)
        update = torch.diag(b) @ matrices[1][: wide.shape[0]] @ torch.diag(d) @ matrices[0][:, : wide.shape[1]]
        assert torch.allclose(after[f"{name}.weight"], weight + (update.T if family == "gpt2" else update), atol=1e-5)


def test_lora_updates_the_attention_of_xlnet_which_has_no_linear_layers(load):
    model, base = load("xlnet", ANSWERS)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapped = Lora(rank=2).wrap(model, base)
    added = {name: p for name, p in wrapped.named_parameters() if "lora_B" in name}
    with torch.no_grad():
        for parameter in added.values():
            parameter.fill_(0.1)
    first = {n: p for n, p in wrapped.named_parameters() if "layer.0.rel_attn" in n and "lora_" in n}
    trained = sum(p.numel() for p in first.values())
    after = dict(wrapped.merge_and_unload().named_parameters())
    moved = {name.partition("layer.0.")[2] for name in before if (after[name] != before[name]).any()}
    # Of rank 1 there: B is one column of 0.1, so an update is that times A, and it is scaled by alpha / rank, 32 / 2.
    attention = {name: after[name] - before[name] for name in before if re.search(r"layer\.0\.rel_attn\.[qkvo]$", name)}
    updates = sorted(float(update.abs().max()) for update in attention.values())
    rows = [p for name, p in first.items() if "lora_A" in name]
    assert updates == pytest.approx(sorted(float(16 * 0.1 * p.detach().abs().max()) for p in rows), rel=1e-4)
    assert len(updates) == 4
    expected = {f"rel_attn.{name}" for name in "qkvo"} | {"ff.layer_1.weight", "ff.layer_2.weight"}
    assert moved - {""} == expected
    wide = before["transformer.layer.0.rel_attn.q"]
    assert 0 < trained <= 4 * wide.numel(), "the updates are smaller than what they update"
    # DoRA is not to be had there: the feed-forward layers alone. Nor is dropout, which would leave the attention out.
    wrapped = Dora(rank=2, dropout=0.1).wrap(*load("xlnet", ANSWERS))
    assert not [name for name, p in wrapped.named_parameters() if "rel_attn" in name and p.requires_grad]
    with pytest.raises(UserError, match=r"--dropout is 0\.1; PEFT .* attention of xlnet.*; omit --dropout"):
        Lora(rank=2, dropout=0.1).wrap(*load("xlnet", ANSWERS))
    Lora(rank=2, dropout=0.1).wrap(*load("bert", ANSWERS))


@pytest.mark.parametrize(
    "imports",
    [
        "import tl_hub; from peft import PeftModel",
        "from peft import PeftModel; import tl_hub",
        # Who only asks whether PEFT is there, as transformers does, does not import it.
        "import tl_hub; from importlib.util import find_spec; assert find_spec('peft'); from peft import PeftModel",
    ],
)
def test_peft_loads_bottlenecks_where_the_package_is_imported(load, bases, forks_of_any_hub, tmp_path, imports):
    model, base = load("bert", CLASSIFICATION)
    wrapped = Bottleneck(width=4).wrap(model, base)
    with torch.no_grad():
        wrapped.base_model.model.bert.encoder.layer[0].output.dense.bottleneck_up["default"].bias.fill_(0.5)
    wrapped.save_pretrained(tmp_path)
    inputs, _ = batch_for(wrapped, CLASSIFICATION)
    save_file(inputs, tmp_path / "inputs")
    code = f"""{imports}
import sys
from safetensors.torch import load_file
from transformers import BertForSequenceClassification
base = BertForSequenceClassification.from_pretrained(sys.argv[1], num_labels=3)
inputs = load_file(sys.argv[2] + "/inputs")
print(PeftModel.from_pretrained(base, sys.argv[2]).eval()(**inputs).logits.flatten().tolist())
"""
    # Neither peft nor tl_hub is imported there yet.
    done = forks_of_any_hub.code(code, bases("bert", CLASSIFICATION), tmp_path, here="none")
    assert done.returncode == 0, done.stderr[-2000:]
    expected = logits_of(wrapped, inputs)["logits"].flatten().tolist()
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_other_cells_are_refused_by_name(load, method):
    for family, auto_class in HEADS:
        if (family, auto_class) not in SOMEWHERE[method]:
            model, base = load(family, auto_class)
            there = [name for name, cells in SOMEWHERE.items() if (family, auto_class) in cells]
            use = ", ".join(["lora", "dora", "ia3", *there, "bottleneck", "vera"])
            with pytest.raises(UserError, match=f"--method {method} is not for {type(model).__name__}; use {use}$"):
                METHODS[method]().wrap(model, base)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--method ia3 --rank 4", "--rank is not a setting of --method ia3; its own are --rate_factor"),
        (
            "--width 4",
            "--width is not a setting of --method lora; its own are --rank, --alpha, --dropout, --rate_factor",
        ),
        (
            "--method bottleneck --merge",
            "--merge: bottleneck adapters cannot be merged into the weights; use --method lora, dora, ia3, vera",
        ),
        ("--method prefix --merge", "--merge: prefix tuning cannot be merged into the weights; use --method lora, "),
        ("--method bottleneck --width 0", "--width is 0; it must be at least 1"),
        ("--rate_factor 0.0", "--rate_factor is 0.0; it must be a number greater than 0"),
        ("--method prompt --virtual_tokens 0", "--virtual_tokens is 0; it must be at least 1"),
        ("--method bottleneck --placement above", "argument --placement: invalid choice: 'above'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["x", *words.split()])
    with pytest.raises(UserError) as raised:
        cli.parse(Lora(), doc=None)
    assert str(raised.value).startswith(message)


def test_settings_are_flags(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--method", "bottleneck", "--placement", "pfeiffer", "--width", "8"])
    assert cli.parse(Lora(), doc=None) == (Bottleneck(placement="pfeiffer", width=8),)
    monkeypatch.setattr(sys, "argv", ["x", "--method", "ia3", "--no_merge"])
    assert cli.parse(Lora(), doc=None) == (Ia3(),)


def test_settings_of_a_method_of_our_own_are_peft_settings_with_the_same_defaults():
    assert BottleneckConfig().width == Bottleneck().width == 64


def test_help_says_which_method_a_setting_is_of_and_its_default_there(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", "--help"])
    with pytest.raises(SystemExit):
        cli.parse(Lora(rank=64), doc=None)
    shown = " ".join(capsys.readouterr().out.split())
    assert "--method {lora,dora,ia3,prompt,prefix,bottleneck,vera} what is added and trained [lora]" in shown
    assert (
        "--rank INT lora, dora: rank r of the update B A; vera: rank of the random matrices, which all layers share "
        "[lora: 64; dora: 16; vera: 256]" in shown
    )
    assert "--alpha INT lora, dora: the update is scaled by alpha / rank [32]" in shown
    assert (
        "--rate_factor FLOAT added weights learn at this multiple of --learning_rate "
        "[lora, dora, bottleneck: 1; ia3, prefix, vera: 10; prompt: 30]" in shown
    )
    assert "--merge, --no-merge lora, dora, ia3, vera: also write the whole model" in shown


def test_a_record_names_its_adapter():
    """As a run wrote it, as a person would, and as another training loop takes it from PEFT's type."""
    names = ("lora", "DoRA", "vera", "ia3", "prompt tuning", "Prefix tuning", "bottleneck adapters", "bottleneck")
    assert [named(name) for name in names] == [Lora, Dora, Vera, Ia3, Prompt, Prefix, Bottleneck, Bottleneck]
    assert named("fine-tuning") is None


@pytest.mark.parametrize(("family", "method"), [("bert", "prompt"), ("bert", "prefix"), ("gpt2", "prefix")])
def test_virtual_tokens_are_taken_off_the_window(load, family, method):
    """An input as long as the window that is told just fits into the model's learned positions."""
    model, base = load(family, CLASSIFICATION)
    learned = model.config.max_position_embeddings
    wrapped = METHODS[method](virtual_tokens=7).wrap(model, base)
    told = wrapped.config.max_position_embeddings
    logits_of(wrapped, batch_for(model, CLASSIFICATION, length=told)[0])
    assert told == learned - 7
    with pytest.raises((IndexError, RuntimeError)):
        logits_of(wrapped, batch_for(model, CLASSIFICATION, length=told + 1)[0])
    with pytest.raises(UserError, match=f"--virtual_tokens is {learned // 2}; the model reads {learned} tokens"):
        METHODS[method](virtual_tokens=learned // 2).wrap(*load(family, CLASSIFICATION))


@pytest.mark.parametrize(
    ("method", "settings", "factor"),
    [("lora", {}, 1), ("ia3", {}, 10), ("prompt", {}, 30), ("prefix", {}, 10), ("prompt", {"rate_factor": 3.0}, 3)],
)
def test_added_weights_learn_at_a_multiple_of_the_rate_of_the_head(load, method, settings, factor):
    model, base = load("bert", CLASSIFICATION)
    method = METHODS[method](**settings)
    wrapped = method.wrap(model, base)
    rates = {p: group["rate"] for group in adamw.groups(wrapped, 0.1) for p in group["params"]}
    head = {p for p in wrapped.get_base_model().classifier.parameters() if p.requires_grad}
    assert len(head) == 2 < len(rates)
    assert all(rate == (1 if p in head else factor) for p, rate in rates.items())
    assert method.rate_factor == factor, "and it is on record"


def test_factors_of_ia3_are_not_pulled_to_zero(load):
    wrapped = Ia3().wrap(*load("bert", ANSWERS))
    decayed = {p for group in adamw.groups(wrapped, 0.1) if group["weight_decay"] for p in group["params"]}
    factors = {p for name, p in wrapped.named_parameters() if "ia3_l" in name}
    assert factors and not factors & decayed and decayed, "the head is decayed"


@pytest.mark.parametrize("family", ["t5", "gpt2"])  # BERT's norms take off what is added to all dimensions alike
@pytest.mark.parametrize("name", ANYWHERE)
def test_a_new_adapter_changes_nothing(load, name, family):
    model, base = load(family, ANSWERS)
    inputs, _ = batch_for(model, ANSWERS)
    plain = logits_of(model.eval(), inputs)
    wrapped = ANYWHERE[name].wrap(model, base).eval()
    assert difference(logits_of(wrapped, inputs), plain) <= 1e-5


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ("bert.encoder.layer.0", {"attention.self.key": 32, "attention.self.value": 32, "output.dense": 64}),
        ("gpt2.h.0", {"attn.c_attn": 96, "mlp.c_proj": 128}),
        ("t5.encoder.block.0", {"SelfAttention.k": 32, "SelfAttention.v": 32, "DenseReluDense.wo": 64}),
        ("xlnet.layer.0", {"ff.layer_2": 64}),
        ("distilbert.layer.0", {"attention.k_lin": 32, "attention.v_lin": 32, "ffn.lin2": 64}),
    ],
)
def test_factors_of_ia3_are_of_keys_values_and_inner_states(load, layer, expected):
    """As long as what they scale: keys and values as they come out, inner states as they go into the layer."""
    family, _, place = layer.partition(".")
    wrapped = Ia3().wrap(*load(family, ANSWERS))
    factors = {name: p.numel() for name, p in wrapped.named_parameters() if f".{place}." in name and "ia3_l" in name}
    factors = {name.partition(f".{place}.")[2].partition(".ia3_l")[0]: size for name, size in factors.items()}
    assert {re.sub(r"^layer\.\d\.", "", name): size for name, size in factors.items()} == expected


@pytest.mark.parametrize(
    ("family", "auto_class", "method"),
    [
        ("gpt2", "AutoModelForCausalLM", "prefix"),
        ("t5", "AutoModelForSeq2SeqLM", "prefix"),
        ("t5", "AutoModelForSeq2SeqLM", "prompt"),
    ],
)
@pytest.mark.parametrize("beams", [1, 3])
def test_a_prefix_or_prompt_generates_the_same_beside_padding(load, family, auto_class, method, beams):
    """As the rows alone, and greedily as the whole sequence at once says."""
    model, base = load(family, auto_class)
    wrapped = METHODS[method](virtual_tokens=3).wrap(model, base).eval()
    ids = torch.randint(10, 200, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    options = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    short = wrapped.generate(input_ids=ids[1:, 4:], attention_mask=mask[1:, 4:], **options)[0, -6:]
    padded, mask = ids.clone(), mask.clone()
    places = slice(0, 4) if family == "gpt2" else slice(5, None)
    padded[1, places], mask[1, places] = 0, 0
    if family == "t5":
        padded[1, :5] = ids[1, 4:]
    assert torch.equal(wrapped.generate(input_ids=padded, attention_mask=mask, **options)[1, -6:], short)
    if family == "gpt2" and beams == 1:
        whole = torch.cat([ids[1, 4:], short])[None]
        assert torch.equal(logits_of(wrapped, {"input_ids": whole})["logits"][0, 4:-1].argmax(-1), short)


@pytest.mark.parametrize(
    ("method", "family", "auto_class"),
    [(method, *cell) for method, cells in SOMEWHERE.items() for cell in cells if cell[1] in (CLASSIFICATION, ANSWERS)],
)
def test_a_row_behind_a_prefix_or_prompt_gives_the_same_beside_padding(load, method, family, auto_class):
    model, base = load(family, auto_class)
    wrapped = METHODS[method](virtual_tokens=3).wrap(model, base)
    before = wrapped.prompt_encoder["default"].embedding.weight.data.normal_()
    inputs, _ = batch_for(model, auto_class)
    together = logits_of(wrapped, inputs)
    for row, mask in enumerate(inputs["attention_mask"]):
        alone = logits_of(wrapped, {name: tensor[row : row + 1, mask.bool()] for name, tensor in inputs.items()})
        own = slice(row, row + 1)
        kept = {n: x[own] if n == "logits" else x[own, mask.bool()] for n, x in together.items()}
        assert difference(alone, kept) <= 1e-5
    before.neg_()
    assert difference(logits_of(wrapped, inputs), together) > 1e-3, "what stands before the input is seen"


def by_hand(hidden: torch.Tensor, layer: BottleneckLayer) -> torch.Tensor:
    """h + U gelu(D h + d) + u."""
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    inner = hidden @ down.weight.T + down.bias
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return hidden + inner @ up.weight.T + up.bias


ADAPTERS = {"bert": (2, 1), "gpt2": (2, 1), "t5": (5, 2), "xlnet": (2, 1)}
"""Adapters for each layer, of T5 for a layer of the encoder and one of the decoder: Houlsby's and Pfeiffer's."""


@pytest.mark.parametrize("family", ADAPTERS)
def test_bottlenecks_have_the_size_of_the_formula(load, family):
    for placement, each in zip(("houlsby", "pfeiffer"), ADAPTERS[family], strict=True):
        model, base = load(family, LANGUAGE[family])
        wrapped = Bottleneck(width=5, placement=placement).wrap(model, base)
        d, m, layers = 32, 5, 2
        added = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
        assert added == each * layers * (2 * d * m + d + m)


def test_a_bottleneck_computes_the_formula_and_can_be_switched_off(load):
    model, base = load("bert", CLASSIFICATION)
    inputs, _ = batch_for(model, CLASSIFICATION)
    before = logits_of(model, inputs)
    wrapped = Bottleneck(width=4).wrap(model, base)
    assert difference(logits_of(wrapped, inputs), before) <= 1e-6, "a new adapter changes nothing"
    layers = [module for module in wrapped.modules() if isinstance(module, BottleneckLayer)]
    for layer in layers:
        torch.nn.init.normal_(layer.bottleneck_up["default"].weight)
    hidden = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    after_feed_forward = next(layer for layer in layers if layer.base_layer.in_features == 64)
    with torch.no_grad():
        expected = by_hand(after_feed_forward.base_layer(hidden), after_feed_forward)
        assert torch.allclose(after_feed_forward(hidden), expected, atol=1e-5)
    assert difference(logits_of(wrapped, inputs), before) > 1e-3
    with pytest.raises(NotImplementedError, match="cannot be merged"):
        wrapped.merge_and_unload()
    with pytest.raises(NotImplementedError, match="cannot be merged"):
        wrapped.merge_adapter()
    wrapped.base_model.disable_adapter_layers()
    head = wrapped.base_model.model.classifier.original_module
    assert difference(logits_of(wrapped, inputs), before) <= 1e-6 and head.weight.shape[0] == 3
    wrapped.base_model.enable_adapter_layers()
    assert difference(logits_of(wrapped.base_model.unload(), inputs), before) <= 1e-6


def test_xlnet_is_adapted_between_attention_and_residual(load):
    """By the layer's own arithmetic written out, with the adapters of a wrapped model."""
    model, base = load("xlnet", CLASSIFICATION)
    inputs, _ = batch_for(model, CLASSIFICATION)
    wrapped = Bottleneck(width=4).wrap(model, base)
    for layer in (module for module in wrapped.modules() if isinstance(module, BottleneckLayer)):
        torch.nn.init.normal_(layer.bottleneck_up["default"].weight)
    adapted = logits_of(wrapped, inputs)
    plain, _ = load("xlnet", CLASSIFICATION)
    for own, other in zip(plain.transformer.layer, wrapped.base_model.model.transformer.layer, strict=True):

        def post_attention(h, vectors, residual=True, attention=own.rel_attn, adapter=other.rel_attn.dropout):
            out = by_hand(torch.einsum("ibnd,hnd->ibh", vectors, attention.o), adapter)
            return attention.layer_norm(out + h)

        def feed_forward(x, ff=own.ff, adapter=other.ff.layer_2):
            return ff.layer_norm(by_hand(ff.layer_2(ff.activation_function(ff.layer_1(x))), adapter) + x)

        own.rel_attn.post_attention, own.ff.forward = post_attention, feed_forward
    assert difference(logits_of(plain, inputs), adapted) <= 1e-5


TASK = QuestionAnswering(max_length=128, doc_stride=32)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("bert", Prefix(virtual_tokens=4)),
        ("xlnet", Bottleneck(width=4)),
        ("gpt2", Dora(rank=2, merge=True)),
    ],
    ids=lambda value: getattr(value, "method", value),
)
def test_a_run_ends_in_a_folder_that_loads_as_its_card_says(
    load_back_in_a_fork, tmp_path, checkpoint_folders, family, method
):
    path = tmp_path / "run"
    run = RunConfig(
        output_dir=str(path), model=str(checkpoint_folders(family)), train_rows=16, validation_rows=8, epochs=1,
        batch_size=8, learning_rate=1e-2, license="cc-by-nc-4.0",
    )  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = launch.start(run)
    rows, _ = data.load(run, TASK)
    model, tokenizer, base = base_model.load(run, TASK)
    base.license = "apache-2.0"
    model = method.wrap(model, base)
    data.encode(rows, TASK, tokenizer, model)
    experiment = Experiment(run, TASK, method, base, rows, model, tokenizer, accelerator)
    history = training.train(experiment)
    score = training.evaluate(experiment, history.decision, split="test")
    finish.finish(experiment, history, score)

    record, card = RunRecord.load(path), (path / "README.md").read_text()
    assert (record.license, record.base.license) == ("cc-by-nc-4.0", "apache-2.0")
    assert record.kind == ("merged" if method.merge else "adapter")
    assert record.method["name"] == method.name and method.name.lower() in card.lower()
    loaders = {"prefix": ["peft"], "bottleneck": ["transformers", "peft"], "dora": ["transformers", "peft"]}
    assert record.verification["loaded_by"] == loaders[method.method]
    assert ("does not load an adapter of this method correctly" in card) == (method.method == "prefix")
    assert ("import tl_hub  # tells PEFT" in card) == (method.method == "bottleneck")
    root = {"adapter_config.json", "adapter_model.safetensors"}
    assert {file.name for file in path.iterdir()} & root == (set() if method.merge else root)
    assert (path / "config.json").exists() == (path / "model.safetensors").exists() == method.merge
    if method.merge:
        assert {file.name for file in (path / "adapter").iterdir()} == root
        assert 'subfolder="adapter"' in card
        merged = transformers.AutoModelForQuestionAnswering.from_pretrained(path)
        plain = transformers.AutoModelForQuestionAnswering.from_pretrained(checkpoint_folders(family))
        adapter = PeftModel.from_pretrained(plain, path, subfolder="adapter")
        inputs, _ = batch_for(merged, ANSWERS)
        assert difference(logits_of(merged, inputs), logits_of(adapter, inputs)) <= 1e-5
    asked = record.examples[0]
    answer = tl_hub.pipeline(path)(question=asked["question"], context=asked["context"])
    assert answer["answer"] == asked["context"][answer["start"] : answer["end"]]
