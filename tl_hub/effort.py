"""What training took of energy and of arithmetic: estimates, each with a sentence on how it was made."""

import subprocess
from collections.abc import Iterator

import torch

WATTS_A_CORE = 12.0
"""Of any CPU: the default of Green Algorithms (Lannelongue et al. 2021, doi 10.1002/advs.202100707), TDP_cpu.csv."""


def energy(seconds: float, device: torch.device, processes: int) -> tuple[float | None, str | None]:
    """Kilowatt-hours of training for so many seconds on each of the processes' devices, and how they were found."""
    if device.type == "cpu":
        cores = torch.get_num_threads() * processes
        watts = WATTS_A_CORE * cores
        power = f"{cores} core{'s' * (cores != 1)} at {WATTS_A_CORE:g} W each (Green Algorithms' default)"
    elif device.type == "cuda" and (limit := _power_limit(device)):
        watts = limit * processes
        power = f"{processes} GPU{'s' * (processes != 1)} at the power limit of {limit:g} W each, so at most"
    else:
        return None, None
    return seconds / 3600 * watts / 1000, f"training time times {power}; without memory, evaluations and cooling"


def _power_limit(device: torch.device) -> float | None:
    """Watts, as the driver's own tool tells; None where it does not."""
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    asked = ["nvidia-smi", "--query-gpu=power.limit", "--format=csv,noheader,nounits", "-i", uuid]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
        return float(told)
    except (OSError, subprocess.SubprocessError, ValueError):  # not there, or "[N/A]"
        return None


def operations(model: torch.nn.Module, tokens: float, written: float = 0.0) -> tuple[float, str]:
    """Floating-point operations of training on so many tokens, and how they were found.

    For each token and parameter of a matrix, 2 forward, 2 for the gradient that goes on, and 2 for the matrix's own
    where it is trained (Kaplan et al. 2020, section 2.1: C = 6 N D). A table of embeddings is looked up, which takes
    none, but one that also gives the logits is a matrix.

    Args:
        tokens: that are read, padding left out.
        written: tokens of a decoder that reads others than its encoder does.
    """
    total = 0.0
    for name, parameter in _matrices(model):
        count = written if written and ("decoder." in name or "lm_head" in name) else tokens
        total += (6 if parameter.requires_grad else 4) * parameter.numel() * count
    trained = all(parameter.requires_grad for _, parameter in _matrices(model))
    share = "6" if trained else "6 (4 where frozen)"
    return total, f"{share} x parameters of matrices x tokens (Kaplan et al. 2020); without attention's own products"


def _matrices(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
    looked_up = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    multiplied = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Linear)}
    for name, parameter in model.named_parameters():
        if "original_module" in name:
            continue  # PEFT trains a copy of it
        if parameter.dim() > 1 and (id(parameter) not in looked_up or id(parameter) in multiplied):
            yield name, parameter
