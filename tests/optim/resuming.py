"""Every optimizer of the menu goes on from its state bit for bit, in fp32 and in bf16.

`python -m tests.optim.resuming` tries the whole matrix; CI has six of it (test_resuming.py).
"""

from __future__ import annotations

import io
import sys

import torch
from accelerate import Accelerator
from torch.nn import Parameter

from kit import catalog
from kit.adapters.param_groups import Group
from kit.catalog.lr_schedules import ScheduleParams
from kit.optim.making import build_optimization, restore_optimizer
from kit.optim.optimization import Optimization

PRECISIONS = {"fp32": torch.float32, "full_bf16": torch.bfloat16, "full_fp16": torch.float16}
BEFORE, AFTER = 5, 5


def weights_in(dtype: torch.dtype) -> tuple[Parameter, ...]:
    """As a LoRA's: a start at random, one of zeros, a convolution's."""
    draws = torch.Generator().manual_seed(1)
    return (
        Parameter(torch.randn(16, 20, generator=draws).to(dtype)),
        Parameter(torch.zeros(64, 64, dtype=dtype)),  # 8-bit states begin at 4096 values
        Parameter(torch.randn(8, 4, 3, 3, generator=draws).to(dtype)),
    )


def optimization_of(name: str, weights: tuple[Parameter, ...]) -> Optimization:
    """As a run makes it, prepared as a run does."""
    row = catalog.OPTIMIZERS[name]
    return build_optimization(
        (Group("unet", row.advised_lr or 1e-3, weights),),
        optimizer_type=name,
        optimizer_args="",
        lr_scheduler="cosine",
        schedule_params=ScheduleParams(total=20),
        device=torch.device("cpu"),
    )


def learn(optimization: Optimization, weights: tuple[Parameter, ...], steps: range) -> None:
    """Gradients by the step's number; random numbers too, since stochastic rounding draws them."""
    for step in steps:
        torch.manual_seed(step)
        draws = torch.Generator().manual_seed(100 + step)
        for weight in weights:
            noise = torch.randn(weight.shape, generator=draws)
            weight.grad = (0.01 * noise + 0.01).to(weight.dtype)
        optimization.optimizer.step()
        optimization.scheduler.step()
        optimization.optimizer.zero_grad()


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """In every bit and in precision; fp16 overflows alike, so NaN is like NaN."""
    alike = one.dtype == other.dtype and one.shape == other.shape
    return alike and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def differing(name: str, dtype: torch.dtype) -> list[str]:
    """What is not equal after going on: weights by number, state by weight and name."""
    accelerator = Accelerator(cpu=True)
    whole = weights_in(dtype)
    unbroken = optimization_of(name, whole)
    learn(unbroken, whole, range(BEFORE))
    file = io.BytesIO()
    kept = [weight.detach().clone() for weight in whole]
    torch.save([kept, unbroken.optimizer.state_dict(), unbroken.scheduler.state_dict()], file)
    learn(unbroken, whole, range(BEFORE, BEFORE + AFTER))

    file.seek(0)
    kept, of_optimizer, of_scheduler = torch.load(file, weights_only=True)
    weights = weights_in(dtype)
    for weight, value in zip(weights, kept, strict=True):
        weight.data.copy_(value)
    resumed = optimization_of(name, weights)
    raw = resumed.optimizer
    restore_optimizer(raw, of_optimizer)
    resumed.scheduler.load_state_dict(of_scheduler)
    resumed.optimizer = accelerator.prepare_optimizer(raw, device_placement=False)
    learn(resumed, weights, range(BEFORE, BEFORE + AFTER))
    wrong = [
        f"weight {number}"
        for number, pair in enumerate(zip(whole, weights, strict=True))
        if not same(*pair)
    ]
    for number, (one, other) in enumerate(zip(whole, weights, strict=True)):
        mine, theirs = unbroken.optimizer.state.get(one, {}), raw.state.get(other, {})
        wrong += [
            f"{key} of weight {number}"
            for key, value in mine.items()
            if isinstance(value, torch.Tensor) and not same(value, theirs[key])
        ]
    return wrong


def main() -> int:
    """The whole matrix, a line each; what cannot run here is told."""
    failed = 0
    for name in catalog.OPTIMIZERS:
        for precision, dtype in PRECISIONS.items():
            try:
                wrong = differing(name, dtype)
            except (RuntimeError, TypeError) as error:
                print(f"{name} {precision}: cannot run here: {str(error).splitlines()[0]}")
                continue
            print(f"{name} {precision}: {', '.join(wrong) or 'equal'}", flush=True)
            failed += bool(wrong)
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
