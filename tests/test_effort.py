"""Estimates of what training took, against what torch counts, and as the card and the Hub have them."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from tl_hub import card, effort
from tl_hub.card import rules
from tl_hub.config import RunConfig
from tl_hub.errors import UserError
from tl_hub.record import Cost, RunRecord

GOLDEN = Path(__file__).parents[1] / "model_cards"
HEADS = {
    "bert": "AutoModelForSequenceClassification",
    "distilbert": "AutoModelForTokenClassification",
    "gpt2": "AutoModelForCausalLM",
    "t5": "AutoModelForSeq2SeqLM",
    "xlnet": "AutoModelForSequenceClassification",
}

TARGETS = {"bert": ["query"], "distilbert": ["q_lin"], "gpt2": ["c_attn"], "t5": ["q"]}


@pytest.mark.parametrize("family", HEADS)
def test_operations_are_those_that_torch_counts_but_for_attention(checkpoints: Any, family: str) -> None:
    """Eight tokens a row: the products of attention, which the estimate leaves out, are few."""
    model, _ = checkpoints(family, HEADS[family])
    ids = torch.randint(5, 500, (16, 8))
    inputs: dict[str, Any] = {"input_ids": ids}
    written = 0.0
    if family == "t5":
        inputs["labels"], written = ids[:, :4].clone(), 64.0
    elif family == "gpt2":
        inputs["labels"] = ids
    for adapter in (False, True):
        if adapter:
            if family not in TARGETS:
                continue
            model = get_peft_model(model, LoraConfig(target_modules=TARGETS[family]))
        with FlopCounterMode(display=False) as counter:
            output = model(**inputs)
            (output.loss if output.loss is not None else output.logits.sum()).backward()
        found, by = effort.operations(model, 128.0, written)
        # Heads read one token of a text, and the lowest frozen layer hands no gradient on.
        assert found == pytest.approx(counter.get_total_flops(), rel=0.25 if adapter else 0.16), (family, adapter)
        assert ("(4 where frozen)" in by) == adapter


def test_energy_is_time_by_power(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    kwh, by = effort.energy(3600.0, torch.device("cpu"), 2)
    assert kwh == pytest.approx(8 * 12 / 1000) and by and by.startswith("training time times 8 cores at 12 W each")
    assert effort.energy(3600.0, torch.device("meta"), 1) == (None, None)
    properties = type("Properties", (), {"uuid": "1234"})
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert effort.energy(3600.0, torch.device("cuda"), 2) == (None, None), "no tool that tells"
    tool = tmp_path / "nvidia-smi"
    for told, watts in (("700.00", 700.0), ("[N/A]", None)):
        tool.write_text(f'#!/bin/sh\ncase "$*" in *"-i GPU-1234"*) echo "{told}";; *) exit 6;; esac\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        kwh, by = effort.energy(3600.0, torch.device("cuda"), 2)
        assert kwh == (None if watts is None else pytest.approx(1.4))
        assert by is None or "2 GPUs at the power limit of 700 W each, so at most" in by


def record(**cost: Any) -> RunRecord:
    facts = json.loads((GOLDEN / "sentiment_finetune.json").read_text())
    return RunRecord.from_facts(facts | {"cost": {"device": "CPU, 2 cores", **cost}})


def head_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---")[1])


def test_emissions_are_stated_where_the_user_gave_the_intensity_of_the_grid() -> None:
    known = {"energy_kwh": 0.02, "energy_by": "time times power", "operations": 1.234e12, "operations_by": "6 N D"}
    text = card.render(record(**known))
    assert "co2_eq_emissions" not in head_of(text) and "CO2" not in text
    assert "| Energy, estimated | 0.02 kWh |" in text and "| Floating-point operations, estimated | 1.2e+12 |" in text
    assert "\nOperations: 6 N D. Energy: time times power.\n" in text
    given = card.render(record(**known, carbon_intensity=430.0, location="South Korea"))
    assert head_of(given)["co2_eq_emissions"] == {
        "emissions": 8.6,
        "source": "estimated by tl_hub: time times power; at 430 g of CO2eq a kWh",
        "training_type": "fine-tuning",
        "geographical_location": "South Korea",
        "hardware_used": "CPU, 2 cores",
    }
    assert "| CO2 equivalent, estimated | 8.6 g at 430 g/kWh (South Korea) |" in given
    assert rules.judge(given) == []
    assert "co2_eq_emissions" not in head_of(card.merge(text, given)[0]), "of another run"
    own = {"emissions": 7, "source": "CodeCarbon"}
    mine, _ = card.merge(given, f"---\n{yaml.safe_dump({'co2_eq_emissions': own})}---\n")
    assert head_of(mine)["co2_eq_emissions"] == own


def test_a_run_states_them(recipe_here: Any, load_back_here: None, tmp_path: Path) -> None:
    few = ["--max_steps", "2", "--train_rows", "16", "--validation_rows", "8", "--test_rows", "8"]
    run = tmp_path / "run"
    done = recipe_here("sentiment_finetune", "--output_dir", run, *few, "--carbon_intensity", "400")
    assert done.returncode == 0, done.stderr
    cost = RunRecord.load(run).cost
    assert cost.energy_kwh == pytest.approx(cost.training_seconds / 3.6e6 * 12 * torch.get_num_threads(), abs=1e-6)
    assert cost.emissions == pytest.approx(cost.energy_kwh * 400)
    rows = 2 * 16  # two steps of a batch
    assert cost.operations and 6 * cost.trainable_parameters * rows > cost.operations / 100
    for wrong in ({"carbon_intensity": 0.0}, {"carbon_intensity": float("nan")}, {"location": "Oslo"}):
        with pytest.raises(UserError, match="--carbon_intensity"):
            RunConfig(output_dir="a", **wrong)
    assert Cost(energy_kwh=1.0).emissions is None
