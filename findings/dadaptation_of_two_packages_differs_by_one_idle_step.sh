#!/usr/bin/env bash
# One step at a learning rate of 0 gives pytorch-optimizer's DAdaptAdam another d for good.
#
# Versions: pytorch-optimizer 4.1.0, dadaptation 3.2, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: both packages have the same algorithm (the one credits the other), so they
# find the same d, the step size that D-Adaptation estimates; and a step at a rate of 0, with which
# every linear warm-up of transformers begins, teaches neither anything.
#
# What is seen: without a warm-up the two agree to five digits. With a warm-up of 5 to 20 steps
# pytorch-optimizer ends with a d that is 29 to 36 % larger, after a single step at 0 and then a
# constant rate with one 16 % smaller. pytorch-optimizer takes the gradient of the idle
# step into its moving average of squares, dadaptation leaves a group at rate 0 alone. D-Adaptation
# divides by the root of that average from before the step: in a true first step that is eps alone,
# after an idle one it is not.
#
# Source: dadaptation/dadapt_adam.py, `if group_lr > 0.0`; pytorch_optimizer/optimizer/dadapt.py,
# DAdaptAdam.step, which has no such condition.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy pytorch-optimizer==4.1.0 dadaptation==3.2
"$work/venv/bin/python" - <<'PYTHON'
import sys

import dadaptation
import pytorch_optimizer
import torch


def found(kind, rates):
    """The d after one step at each rate, on a noisy bowl."""
    draws = torch.Generator().manual_seed(0)
    pair = [torch.nn.Parameter(torch.randn(8, 8, generator=draws)) for _ in range(2)]
    optimizer = kind(pair, lr=1.0)
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        for weight in pair:
            noise = torch.randn(weight.shape, generator=draws) / 100
            weight.grad = (weight.detach() - 1) / 10 + noise
        optimizer.step()
    return float(optimizer.param_groups[0]["d"])


cases = {
    "no warm-up": [1.0] * 60,
    "one idle step": [0.0] + [1.0] * 59,
    "warm-up of 5": [min(1.0, step / 5) for step in range(60)],
    "warm-up of 10": [min(1.0, step / 10) for step in range(60)],
    "warm-up of 20": [min(1.0, step / 20) for step in range(60)],
}
apart = {}
print("d after 60 steps   dadaptation   pytorch-optimizer")
for name, rates in cases.items():
    theirs = found(dadaptation.DAdaptAdam, rates)
    other = found(pytorch_optimizer.DAdaptAdam, rates)
    apart[name] = other / theirs - 1
    print(f"{name:18} {theirs:11.4f}   {other:11.4f}   {apart[name]:+.1%}")
same = abs(apart.pop("no warm-up")) < 1e-5
sys.exit(0 if same and all(abs(each) > 0.1 for each in apart.values()) else 1)
PYTHON
