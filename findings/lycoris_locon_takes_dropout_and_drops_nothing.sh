#!/usr/bin/env bash
# LyCORIS' LoCon takes dropout=0.5 and drops nothing; create_lycoris takes rs_lora and does not scale.
#
# Versions: lycoris-lora 4.1.3, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: LoHa and LoKr say that they have no normal dropout, and DoRA says that it
# ignores it; so plain LoCon, which says nothing, has it. And an argument that the module classes take
# reaches them from both functions that make a network.
#
# What is seen: with algo="lora" and dropout=0.5 every forward pass in training mode is the one without
# dropout, bit for bit. With bypass_mode=True beside it the same dropout acts. rs_lora=True given to
# lycoris.create_lycoris leaves the scale alpha / rank; given to lycoris.kohya.create_network, the
# function that trainers call, it becomes alpha / sqrt(rank).
#
# Source: lycoris/modules/locon.py: forward adds the change to the weight and calls self.dropout in
# bypass_forward_diff alone; lycoris/wrapper.py: create_lycoris reads no rs_lora, kohya.py does.
set -euo pipefail
export OMP_NUM_THREADS=1
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$work/venv/bin/pip" install --quiet lycoris-lora==4.1.3
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import logging
import sys

import torch
from lycoris import LycorisNetwork, create_lycoris
from lycoris.modules.locon import LoConModule

logging.disable(logging.CRITICAL)
LycorisNetwork.apply_preset({"target_module": ["Linear"], "target_name": [".*"]})


def passes(**given):
    """Three forward passes in training mode, each with random numbers of its own."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.Linear(48, 16))
    network = create_lycoris(model, 1.0, linear_dim=4, linear_alpha=2, algo="lora", **given)
    network.apply_to()
    network.train()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    x = torch.randn(8, 32)
    out = []
    for number in range(3):
        torch.manual_seed(number)
        out.append(model(x).detach())
    return network, out


def differ(one, other):
    return any(not torch.equal(*pair) for pair in zip(one, other, strict=True))


_, plain = passes()
_, dropped = passes(dropout=0.5)
_, bypassed = passes(bypass_mode=True)
_, bypassed_dropped = passes(bypass_mode=True, dropout=0.5)
print("dropout changes LoCon:", differ(plain, dropped))
print("dropout changes LoCon in bypass_mode:", differ(bypassed, bypassed_dropped))
scale = passes(rs_lora=True)[0].loras[0].scale
own = LoConModule("x", torch.nn.Linear(32, 48), lora_dim=4, alpha=2, rs_lora=True).scale
print(f"scale with rs_lora: {scale} from create_lycoris, {own} from the module itself")
seen = differ(plain, dropped), differ(bypassed, bypassed_dropped), scale, own
sys.exit(seen != (False, True, 0.5, 1.0))
PYTHON
echo "seen as described"
