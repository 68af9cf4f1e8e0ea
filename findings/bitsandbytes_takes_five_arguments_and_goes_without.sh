#!/usr/bin/env bash
# bitsandbytes' optimizers take nesterov, dampening, amsgrad and RMSprop's momentum, and go without.
#
# Versions: bitsandbytes 0.50.2, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: what the signature names is used or refused, as AdamW8bit refuses amsgrad and
# RMSprop refuses centered. sd-scripts calls its optimizer "SGDNesterov8bit" for this reason: it is
# SGD8bit with nesterov=True.
#
# What is seen: SGD and SGD8bit move weights the same with nesterov and dampening as without, so
# SGDNesterov8bit is plain momentum; so do Adam, AdamW and PagedAdamW32bit with amsgrad (alone the 8-bit
# ones refuse it), LAMB with bias_correction=False, and RMSprop with momentum=0.9. Not a word is said.
# torch's own SGD, AdamW and RMSprop change with each of them.
#
# Source: bitsandbytes/optim/sgd.py, adamw.py, lamb.py, rmsprop.py: the arguments are checked or not,
# and not passed on; the update in optimizer.py and its kernels knows none of them.
set -euo pipefail
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy
"$work/venv/bin/pip" install --quiet bitsandbytes==0.50.2
"$work/venv/bin/python" - <<'PYTHON'
import sys
import warnings

import bitsandbytes.optim as bits
import torch

warnings.filterwarnings("ignore", message="Paged optimizers are not supported")


def moved(kind, **given):
    """A weight after ten steps along the same gradients."""
    draws = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(64, 128, generator=draws))
    optimizer = kind([weight], lr=1e-2, **given)
    for step in range(10):
        # long at first: that is what amsgrad would remember
        weight.grad = torch.randn(64, 128, generator=draws) / (1 + step) ** 2
        optimizer.step()
    return weight.detach()


TRIED = [
    (bits.SGD, torch.optim.SGD, {"momentum": 0.9}, {"nesterov": True}),
    (bits.SGD8bit, torch.optim.SGD, {"momentum": 0.9}, {"nesterov": True}),
    (bits.SGD8bit, torch.optim.SGD, {"momentum": 0.9}, {"dampening": 0.5}),
    (bits.Adam, torch.optim.Adam, {}, {"amsgrad": True}),
    (bits.AdamW, torch.optim.AdamW, {}, {"amsgrad": True}),
    (bits.PagedAdamW32bit, torch.optim.AdamW, {}, {"amsgrad": True}),
    (bits.RMSprop, torch.optim.RMSprop, {}, {"momentum": 0.9}),
    (bits.LAMB, None, {}, {"bias_correction": False}),
]
as_described = True
for ours, torchs, always, given in TRIED:
    same = torch.equal(moved(ours, **always), moved(ours, **always, **given))
    in_torch = torchs and not torch.equal(moved(torchs, **always), moved(torchs, **always, **given))
    print(f"{ours.__name__} with {given}: {'the same' if same else 'another'} update")
    as_described &= same and in_torch in (None, True)
try:
    bits.AdamW8bit([torch.nn.Parameter(torch.zeros(8))], amsgrad=True)
    as_described = False
except ValueError as error:
    print(f"AdamW8bit: {error}")
sys.exit(not as_described)
PYTHON
echo "seen as described"
