#!/usr/bin/env bash
# LyCORIS merges a LoHa, and a LoKr with factors, at the square of the strength that it trains it at.
#
# Versions: lycoris-lora 4.1.3, torch 2.13.0 (CPU), Python 3.11.
#
# What one would guess: merge_to(1.0) adds to the weights the change that the applied network makes,
# as it does for LoCon, so that the merged model draws what training was checked with.
#
# What is seen: with rank 4 and alpha 1 the merged change is a quarter of the applied one for LoHa
# and for LoKr whose factors are of low rank, with precise=True as well; at rank 16 and alpha 1 it
# would be a sixteenth. So is that of onfly_merge. With alpha = rank nobody notices, and so it is for a LoKr
# of two whole matrices, which has no scale. Nothing is said.
#
# Source: lycoris/modules/loha.py and lokr.py: get_weight multiplies by alpha / rank already, which
# forward relies on; get_diff_weight, which only merging calls, multiplies by it once more.
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

logging.disable(logging.CRITICAL)
LycorisNetwork.apply_preset({"target_module": ["Linear"], "target_name": [".*"]})


@torch.no_grad()
def merged_share(algo, alpha, how, **given):
    """The change of a layer's output once merged, as a share of that while the network is applied."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    network = create_lycoris(model, 1.0, linear_dim=4, linear_alpha=alpha, algo=algo, **given)
    x = torch.randn(8, 64)
    base = model(x)
    network.apply_to()
    network.eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    applied = model(x) - base
    network.restore()
    how(network)
    merged = model(x) - base
    share = float((merged * applied).sum() / (applied * applied).sum())
    assert torch.allclose(merged, share * applied, atol=1e-3), "not only its strength differs"
    return round(share, 4)


HOW = {
    "merge_to": lambda network: network.merge_to(1.0),
    "merge_to, precise": lambda network: network.merge_to(1.0, precise=True),
    "onfly_merge": lambda network: network.onfly_merge(1.0),
}
KINDS = {
    "LoCon": ("lora", {}),
    "LoHa": ("loha", {}),
    "LoKr": ("lokr", {"factor": 4}),
    "LoKr of whole matrices": ("lokr", {"factor": 4, "full_matrix": True}),
}
as_described = True
for kind, (algo, given) in KINDS.items():
    squared = kind in ("LoHa", "LoKr")
    for alpha in (1, 4):
        shares = {name: merged_share(algo, alpha, how, **given) for name, how in HOW.items()}
        print(f"{kind}, rank 4, alpha {alpha}: merged change / applied change = {shares}")
        as_described &= set(shares.values()) == {0.25 if squared and alpha == 1 else 1.0}
sys.exit(not as_described)
PYTHON
echo "seen as described"
