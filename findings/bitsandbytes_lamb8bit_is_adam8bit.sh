#!/usr/bin/env bash
# bitsandbytes' LAMB8bit is Adam8bit and its LARS8bit is SGD8bit, to the last bit.
#
# Versions: bitsandbytes 0.50.2, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: LAMB and LARS scale each layer's update by the norm of its weights, which is
# what they are for (large batches, rates alike over layers); the 8-bit classes differ in how they keep
# their averages. Both take max_unorm, which bounds an update by that norm.
#
# What is seen: LAMB and LARS (32 bits) move a weight otherwise than Adam and SGD. LAMB8bit moves it as
# Adam8bit and LARS8bit as SGD8bit, bit for bit, max_unorm or not. Weights of fewer than 4096 numbers
# keep 32 bits (min_8bit_size) and are scaled: one training has both, by the size of a layer. So
# a LoRA's layers are trained by two algorithms. Not a word is said.
#
# Source: bitsandbytes/optim/optimizer.py, Optimizer1State and Optimizer2State.update_step: max_unorm is
# given to optimizer_update_32bit, and not to optimizer_update_8bit_blockwise, which has no such argument.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$work/venv/bin/pip" install --quiet bitsandbytes==0.50.2
"$work/venv/bin/python" - <<'PYTHON'
import sys

import bitsandbytes.optim as bits
import torch


def moved(kind, rows=64, **given):
    """A weight of rows x 128 after ten steps along the same gradients."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(rows, 128, generator=draws))
    optimizer = kind([weight], lr=1e-2, **given)
    for _ in range(10):
        weight.grad = torch.randn(rows, 128, generator=draws)
        optimizer.step()
    return weight.detach()


MOMENTUM = {"momentum": 0.9}  # without it SGD and LARS refuse
as_described = True
for kind, plain, rows, given, expected in (
    (bits.LAMB, bits.Adam, 64, {}, False),
    (bits.LAMB8bit, bits.Adam8bit, 64, {}, True),
    (bits.LAMB8bit, bits.Adam8bit, 16, {}, False),  # 2048 numbers: in 32 bits
    (bits.LARS, bits.SGD, 64, MOMENTUM, False),
    (bits.LARS8bit, bits.SGD8bit, 64, MOMENTUM, True),
    (bits.LARS8bit, bits.SGD8bit, 16, MOMENTUM, False),
):
    same = torch.equal(moved(kind, rows, **given), moved(plain, rows, **given))
    print(f"{kind.__name__}, {rows * 128} numbers: {'as' if same else 'not as'} {plain.__name__}")
    as_described &= same == expected
bound = {**MOMENTUM, "max_unorm": 1e-6}
same = torch.equal(moved(bits.LARS8bit, **bound), moved(bits.LARS8bit, **MOMENTUM))
print(f"LARS8bit with max_unorm=1e-6: {'the same' if same else 'another'} update")
sys.exit(not (as_described and same))
PYTHON
echo "seen as described"
