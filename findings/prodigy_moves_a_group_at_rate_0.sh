#!/usr/bin/env bash
# Prodigy moves weights whose learning rate is 0, and further than those that learn.
#
# Versions: prodigyopt 1.1.2, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: Prodigy refuses groups of different rates with the words that this "is only
# supported for values of 0". So a group whose rate is set to 0 after some steps stays where it is,
# as with torch's own optimizers; that is how one freezes a text encoder for the rest of a run.
#
# What is seen: the group goes on in the direction of its last momentum, which no new gradient
# corrects, at the full rate of the other group. After 30 steps it has moved 6.7 times its own
# length; the group that learns moved 0.36 times. With weight_decay a group at 0 from the first step
# shrinks, too (by 10 % here). torch.optim.AdamW moves neither.
#
# Source: prodigyopt/prodigy.py, Optimizer.step: the loop that gathers gradients asks for
# group_lr > 0, the loop that moves weights takes the largest rate of all groups for every one.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy prodigyopt==1.1.2
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from prodigyopt import Prodigy


def moved(kind, frozen_from, **given):
    """How far each of two groups moves, in lengths of its own, while the second's rate is 0."""
    draws = torch.Generator().manual_seed(0)
    pair = [torch.nn.Parameter(torch.randn(8, 8, generator=draws)) for _ in range(2)]
    optimizer = kind([{"params": [weight]} for weight in pair], **given)
    rate = optimizer.param_groups[0]["lr"]
    for step in range(frozen_from + 30):
        if step == frozen_from:
            optimizer.param_groups[1]["lr"] = 0.0
            start = [weight.detach().clone() for weight in pair]
        for weight in pair:
            noise = torch.randn(weight.shape, generator=draws) / 100
            weight.grad = (weight.detach() - 1) / 10 + noise
        optimizer.step()
    assert optimizer.param_groups[0]["lr"] == rate
    return [float((a.detach() - b).norm() / b.norm()) for a, b in zip(pair, start)]


plain = moved(torch.optim.AdamW, 30, lr=1e-2, weight_decay=0.01)
later = moved(Prodigy, 30, lr=1.0, d0=1e-3)
never = moved(Prodigy, 0, lr=1.0, d0=1e-3, weight_decay=0.01)
print("moved, in lengths of the weight:      learns   rate 0")
print(f"AdamW, 0 from step 30               {plain[0]:8.4f} {plain[1]:8.4f}")
print(f"Prodigy, 0 from step 30             {later[0]:8.4f} {later[1]:8.4f}")
print(f"Prodigy, 0 from the start, decay    {never[0]:8.4f} {never[1]:8.4f}")
sys.exit(0 if plain[1] == 0 and later[1] > 2 * later[0] and never[1] > 0.05 else 1)
PYTHON
