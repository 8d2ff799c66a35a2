"""LoRA's layers with merged weights against PEFT's own."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import Linear

from tl_hub import merged_lora
from tl_hub.architectures import ARCHITECTURES


def adapted(checkpoints, family, **options):
    model, _ = checkpoints(family, "AutoModelForQuestionAnswering")
    entry = ARCHITECTURES[family]
    config = LoraConfig(r=4, target_modules=list(entry.lora_targets), fan_in_fan_out=entry.fan_in_fan_out, **options)
    torch.manual_seed(0)
    wrapped = get_peft_model(model, config)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:  # it begins at zero, which would hide what is wrong
            torch.nn.init.normal_(parameter, std=0.05)
    return wrapped


def losses_and_gradients(model: PeftModel):
    """Of a batch of 6 x 40 tokens with padding, with the same dropout each time."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (6, 40), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 30:] = 0
    places = {name: torch.randint(0, 30, (6,), generator=generator) for name in ("start_positions", "end_positions")}
    model.zero_grad()
    torch.manual_seed(2)
    loss = model(input_ids=ids, attention_mask=mask, **places).loss
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_loss_and_gradients_are_those_of_peft(family, checkpoints):
    model = adapted(checkpoints, family).double().train()  # so that rounding hides nothing
    loss, gradients = losses_and_gradients(model)
    with merged_lora.fast_products(model):
        swapped = [module for module in model.modules() if type(module) is merged_lora._Merged]
        assert swapped
        found, merged = losses_and_gradients(model)
    assert found == pytest.approx(loss, rel=1e-12) and merged.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(merged[name], gradient, rtol=1e-9, atol=1e-12)
    assert all(type(module) is Linear for module in swapped)


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5", "xlnet"])
def test_in_bf16_gradients_are_as_close_to_exact_ones_as_those_of_peft(family, checkpoints):
    model = adapted(checkpoints, family).train()
    with torch.autocast("cpu", torch.bfloat16):
        _, own = losses_and_gradients(model)
        with merged_lora.fast_products(model):
            _, merged = losses_and_gradients(model)
    _, exact = losses_and_gradients(model.double())

    def off(gradients):
        return sum(float((gradients[name] - exact[name]).norm() / exact[name].norm()) for name in exact)

    assert merged.keys() == own.keys() == exact.keys()
    assert all(merged[name].dtype == torch.float32 for name in merged)
    assert 0 < off(merged) < 1.2 * off(own)


def test_in_bf16_an_update_too_small_for_one_weight_still_counts(checkpoints):
    """Each rounded by itself, W keeps its value where the update is below half a unit in the last place."""
    model = adapted(checkpoints, "bert").train()
    layer = next(module for module in model.modules() if merged_lora._suits(module))
    x = torch.rand(4000, layer.in_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.base_layer.weight.copy_(torch.empty_like(layer.base_layer.weight).uniform_(1, 2))
        layer.lora_B["default"].weight.fill_(1)
        layer.lora_A["default"].weight.fill_(1e-3 / layer.scaling["default"] / 4)  # 4 ranks: 0.001 a weight
        before = torch.nn.functional.linear(
            x.double(), layer.base_layer.weight.double(), layer.base_layer.bias.double()
        )
        with merged_lora.fast_products(model), torch.autocast("cpu", torch.bfloat16):
            given = layer(x).double() - before
    assert given.mean().item() == pytest.approx(1e-3 * x.sum(1).mean().item(), rel=0.2)


def test_the_products_with_b_are_gone_where_it_pays(checkpoints):
    """PEFT multiplies the tokens by A and by B in the forward pass; here neither is done, but for a few tokens."""
    model = adapted(checkpoints, "bert").train()
    ids = torch.randint(5, 60, (6, 40))

    def thin(rows):
        calls = []
        hooks = [
            module.register_forward_hook(lambda *_: calls.append(1))
            for name, module in model.named_modules()
            if name.endswith(("lora_A.default", "lora_B.default"))
        ]
        model(input_ids=rows)
        for hook in hooks:
            hook.remove()
        return len(calls)

    own = thin(ids)
    with merged_lora.fast_products(model):
        assert own > 0 and thin(ids) == 0
        assert thin(ids[:1, :1]) == own  # the sum would cost more than it saves
        with torch.autocast("cpu", torch.bfloat16):
            assert thin(ids) == 0
        model.eval()
        assert thin(ids) == own


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.1}, {"lora_bias": True}], ids=str)
def test_what_is_more_than_plain_lora_is_left_alone(options, checkpoints):
    model = adapted(checkpoints, "bert", **options)
    with merged_lora.fast_products(model):
        assert not any(type(module) is merged_lora._Merged for module in model.modules())
