"""The CPU's dropout and attention against torch's own."""

import os

import psutil
import pytest
import torch
from transformers import AutoModel, AutoModelForQuestionAnswering

from tl_hub import cpu
from tl_hub.architectures import ARCHITECTURES


def test_cores_are_counted_where_a_process_cannot_ask_for_its_own(monkeypatch):
    assert cpu.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")  # macOS has none
    assert cpu.cores() == os.cpu_count()


@pytest.mark.parametrize(
    ("load", "busy", "threads"),
    [
        (0.2, [100, 100, 100, 100], 4),  # nothing but this program in the last minute: not asked
        (3.0, [2, 0, 1, 3], 4),
        (3.0, [100, 0, 1, 3], 3),
        (3.0, [100, 98, 0, 20], 2),
        (9.0, [100, 100, 100, 100], 1),
    ],
)
def test_threads_leave_out_the_cores_that_others_keep_busy(load, busy, threads, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3, 4}, raising=False)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0))
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: [100, *busy])
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert cpu.idle_share() == threads
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")  # they would count each other
    assert cpu.idle_share() == 2


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_expectation_and_drops_the_right_share(p, dtype):
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, dtype=dtype)
    y = cpu.dropout(x, p).float()
    dropped = (y == 0).double().mean().item()
    assert dropped == pytest.approx(round(256 * p) / 256, abs=0.002)  # five standard deviations
    assert y.double().mean().item() == pytest.approx(1, abs=0.005)
    assert len(y.unique()) == 2
    if dtype == torch.float32:  # what is left times its share is what was there, exactly
        assert y.max().item() * (1 - round(256 * p) / 256) == pytest.approx(1, rel=1e-6)


def test_dropout_is_independent_between_elements_and_follows_the_seed():
    torch.manual_seed(0)
    first = cpu.dropout(torch.ones(10_000), 0.5)
    second = cpu.dropout(torch.ones(10_000), 0.5)
    torch.manual_seed(0)
    assert torch.equal(first, cpu.dropout(torch.ones(10_000), 0.5))
    kept = torch.stack([first > 0, second > 0]).double()
    assert torch.corrcoef(kept)[0, 1].abs() < 0.05
    assert torch.corrcoef(torch.stack([kept[0, :-1], kept[0, 1:]]))[0, 1].abs() < 0.05


def test_gradients_pass_only_where_something_was_kept():
    x = torch.ones(1000, requires_grad=True)
    y = cpu.dropout(x, 0.3)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize("family", [name for name, entry in ARCHITECTURES.items() if entry.plain_attention])
def test_attention_equals_the_models_own_and_is_taken_back(family, checkpoints):
    """Logits and gradients are those of the stock attention, with padding and, for GPT-2, the causal mask."""
    model, _ = checkpoints(family, "AutoModelForQuestionAnswering")
    own = model.config._attn_implementation
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # as of T5's attention
            module.dropout = 0.0
    for name in ("attention_probs_dropout_prob", "attn_pdrop", "attention_dropout"):
        setattr(model.config, name, 0.0)
    model.train()
    batch = {"input_ids": torch.randint(5, 500, (3, 20)), "attention_mask": torch.ones(3, 20, dtype=torch.long)}
    batch["attention_mask"][1, 12:] = 0

    def run():
        model.zero_grad()
        logits = model(**batch).start_logits[batch["attention_mask"].bool()]
        logits.square().sum().backward()
        return logits.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    stock = run()
    with cpu.faster_training(model):
        assert any(type(module) is cpu.Dropout for module in model.modules())
        assert model.config._attn_implementation != own
        ours = run()
    assert model.config._attn_implementation == own
    assert not any(type(module) is cpu.Dropout for module in model.modules())
    torch.testing.assert_close(ours[0], stock[0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours[1], stock[1], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "name"),
    [("bert", "attention_probs_dropout_prob"), ("gpt2", "attn_pdrop"), ("t5", "dropout_rate"), ("xlnet", "dropout")],
)
def test_half_of_what_attention_gives_is_dropped_in_training_and_none_in_evaluation(family, name, checkpoint_folders):
    """Of a model that drops nothing else, so that the first layer's weights are nothing or twice what they were."""
    model = AutoModel.from_pretrained(checkpoint_folders(family), attn_implementation="eager", **{name: 0.5})
    model = model.encoder if family == "t5" else model
    of_attention = ("self.dropout", "attn_dropout", "rel_attn.dropout")
    for place, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and not place.endswith(of_attention):
            module.p = 0.0
    torch.manual_seed(0)
    inputs = {"input_ids": torch.randint(5, 500, (4, 32)), "output_attentions": True}
    with cpu.faster_training(model), torch.no_grad():
        whole = model.eval()(**inputs).attentions[0]
        drawn = model.train()(**inputs).attentions[0]
    torch.testing.assert_close(whole.sum(3), torch.ones(4, 2, 32))
    seen, kept = whole > 0, drawn > 0  # GPT-2 sees nothing that comes later
    torch.testing.assert_close(drawn[kept], 2 * whole[kept])
    assert (kept & seen).sum() / seen.sum() == pytest.approx(0.5, abs=0.05)


def test_nothing_of_it_is_saved(checkpoints, tmp_path):
    model, _ = checkpoints("bert", "AutoModelForQuestionAnswering")
    with cpu.faster_training(model):
        model.save_pretrained(tmp_path)
    assert "tl_hub" not in (tmp_path / "config.json").read_text()
    assert AutoModelForQuestionAnswering.from_pretrained(tmp_path).config._attn_implementation == "sdpa"
