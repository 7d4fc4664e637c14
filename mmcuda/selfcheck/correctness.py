"""The kernels against the float64 reference, which runs on the CPU on features rounded as the kernels get them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmcuda.relations import Attribute
from mmcuda.selfcheck.cases import LARGE, Case, Sizes, groups

TEMPERATURE = 0.1


class Mode(NamedTuple):
    """What features are and how far from the reference the kernels may be, relative to the largest value of each."""

    dtype: torch.dtype
    losses: float
    gradients: float  # in half precision they are rounded to 8 (bfloat16) or 11 bits
    precision: str = "highest"  # of torch.set_float32_matmul_precision


MODES = {
    "float64": Mode(torch.float64, 1e-11, 1e-10),
    "float32": Mode(torch.float32, 2e-5, 2e-5),
    "float32, TF32": Mode(torch.float32, 2e-3, 5e-3, "high"),
    "float16": Mode(torch.float16, 2e-5, 2e-3),
    "bfloat16": Mode(torch.bfloat16, 2e-5, 1e-2),
}
GROWTH = 4  # of the tolerance of gradients where logits are large: an error of 1e-7 of a logit is one of exp, too


def on(device: str, value: Any) -> Any:
    """Return an argument of a loss with its tensors on ``device``."""
    if isinstance(value, list):
        return [on(device, one) for one in value]
    if isinstance(value, Attribute):
        return replace(value, values=on(device, value.values), keys=on(device, value.keys))
    return value.to(device) if isinstance(value, Tensor) else value


Outcome = tuple[Tensor, list[Tensor]]  # losses; gradients of the features and, where there is one, the temperature


def outcome(case: Case, features: list[Tensor], impl: str) -> Outcome:
    """Return the losses and the gradients of features and temperature, in float64 on the CPU."""
    wanted = [one.detach().requires_grad_() for one in features]
    options = {name: on(features[0].device.type, value) for name, value in case.options.items()} | {"impl": impl}
    arguments = tuple(wanted)
    if case.has_temperature:
        wanted.append(torch.tensor(TEMPERATURE, dtype=torch.float64, device=features[0].device, requires_grad=True))
        options["temperature"] = wanted[-1]
    losses = case.function(*arguments, **options)
    upstream = torch.linspace(0.5, 1.5, losses.numel(), dtype=losses.dtype, device=losses.device).view(losses.shape)
    gradients = torch.autograd.grad(losses, wanted, upstream)
    return losses.detach().double().cpu(), [gradient.double().cpu() for gradient in gradients]


def errors_of(values: Outcome, expected: Outcome, features: Tensor) -> list[float]:
    """Return the largest errors of losses and gradients, relative to the largest value of each; NaN if one is."""
    (losses, gradients), (want, wants) = values, expected
    scales = [one.abs().max() for one in wants]
    if wants[-1].ndim == 0:  # dL/dtau = -sum x.(dL/dx) / tau, a sum that may cancel
        scales[-1] = (features * wants[0]).abs().sum() / TEMPERATURE
    each = [(one - other).abs().max() / scale for one, other, scale in zip(gradients, wants, scales, strict=True)]
    return [float((losses - want).abs().max() / want.abs().max()), float(torch.stack(each).max())]


def rounded(case: Case, dtype: torch.dtype) -> list[Tensor]:
    """Return the features as the kernels get them."""
    return [one.to(dtype) for one in case.features]


def references(cases: list[Case], dtype: torch.dtype) -> list[Outcome]:
    """Return what kernels for features of a dtype should return."""
    return [outcome(case, [one.double() for one in rounded(case, dtype)], "reference") for case in cases]


def check_group(mode: Mode, cases: list[Case], expected: list[Outcome], growth: float, device: str) -> tuple[bool, str]:
    """Return whether the kernels agree with the reference, and the errors in words."""
    errors = []
    try:
        for case, wanted in zip(cases, expected, strict=True):
            features = rounded(case, mode.dtype)
            values = outcome(case, [one.to(device) for one in features], "fused")
            errors.append(errors_of(values, wanted, features[0].double()))
    except RuntimeError as problem:  # such as a launch that fails
        return False, " ".join(str(problem).split())[:160]
    losses, gradients = torch.tensor(errors).amax(0).tolist()  # NaN if one is
    limit = growth * mode.gradients
    told = f"losses {losses:.1e} (<= {mode.losses:.0e})   gradients {gradients:.1e} (<= {limit:.0e})"
    return losses <= mode.losses and gradients <= limit, told


def check_all(device: str, sizes: Sizes, modes: dict[str, Mode]) -> tuple[int, int]:
    """Print a line for each mode of each group; return how many there are and how many failed."""
    results = []
    before = torch.get_float32_matmul_precision()
    torch.manual_seed(0)
    try:
        for group, cases in groups(sizes):
            # most of the time; modes of one dtype share it
            expected = {dtype: references(cases, dtype) for dtype in {mode.dtype for mode in modes.values()}}
            for name, mode in modes.items():
                torch.set_float32_matmul_precision(mode.precision)
                growth = GROWTH if LARGE in group else 1
                agrees, told = check_group(mode, cases, expected[mode.dtype], growth, device)
                results.append(agrees)
                print(f"{name:<14} {group:<36} {told}   {'ok' if agrees else 'FAILED'}", flush=True)
    finally:
        torch.set_float32_matmul_precision(before)
    return len(results), results.count(False)
