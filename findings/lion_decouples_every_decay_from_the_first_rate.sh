#!/usr/bin/env bash
# lion-pytorch's decoupled weight decay is decoupled from one rate alone: that of the constructor.
#
# Versions: lion-pytorch 0.2.3, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: with decoupled_weight_decay=True weights decay by `weight_decay` a step,
# times the schedule's share of the full rate, whatever the rate of their group is; torch's groups
# may each have a rate of their own, and trainers of LoRAs give text encoder and U-Net different
# ones beside a default for the optimizer.
#
# What is seen: a group decays by weight_decay x its own rate / the constructor's rate. With a
# default of 1e-3 and groups of 1e-4 (U-Net) and 1e-5 (text encoder), a decay of 0.01 is one of
# 0.001 and 0.0001. It follows the constructor also where no group uses that rate, and a state that
# is loaded into an optimizer made with another default goes on with another decay: the rate that
# it divides by is in no state.
#
# Source: lion_pytorch/lion_pytorch.py, `self._init_lr = lr` in __init__ and `wd /= init_lr` in step.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy lion-pytorch==0.2.3
"$work/venv/bin/python" - <<'PYTHON'
import sys

import torch
from lion_pytorch import Lion

DECAY, RATES = 0.01, {"unet": 1e-4, "text_encoder": 1e-5}


def made(default, state=None):
    weights = {name: torch.nn.Parameter(torch.ones(4, dtype=torch.float64)) for name in RATES}
    groups = [{"params": [weights[name]], "lr": rate} for name, rate in RATES.items()]
    optimizer = Lion(groups, lr=default, weight_decay=DECAY, decoupled_weight_decay=True)
    if state is not None:
        optimizer.load_state_dict(state)
    return weights, optimizer


def decays(weights, optimizer):
    """What a step takes of each group's weights, as a share; a gradient of 0 adds no update."""
    before = {name: weight[0].item() for name, weight in weights.items()}
    for weight in weights.values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    return {name: 1 - weight[0].item() / before[name] for name, weight in weights.items()}


seen = {default: decays(*made(default)) for default in (1e-3, 1e-4, 1e-5)}
print("default rate   decay of unet (1e-4)   of text_encoder (1e-5); asked for: 0.01 of both")
for default, each in seen.items():
    print(f"{default:12g}   {each['unet']:20.6f}   {each['text_encoder']:22.6f}")
first = made(1e-4)
decays(*first)
resumed = decays(*made(1e-3, first[1].state_dict()))
print("state of default 1e-4, gone on with under 1e-3:", resumed)
as_seen = all(
    abs(each[name] / (DECAY * rate / default) - 1) < 1e-6
    for default, each in [*seen.items(), (1e-3, resumed)]
    for name, rate in RATES.items()
)
sys.exit(0 if as_seen else 1)
PYTHON
