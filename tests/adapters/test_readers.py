"""What A1111, Forge and ComfyUI make of our files: their formulas, told anew, on our tensors.

Read from ComfyUI's comfy/weight_adapter, Forge's backend/patcher/lora.py and A1111's
extensions-builtin/Lora, of 2025; over a base in 32 bits.
"""

import copy

import pytest
import torch
from torch import nn

from kit.adapters.network import Size, make_adapter
from kit.adapters.restoring import as_trained, parts_of, unsaid
from kit.families import Layer
from kit.settings import NetworkSettings
from kit.settings.targets import PRESETS
from tests.adapters.test_every_type import entry_of, made, randomize, read_back

LAYERS = {
    "linear": lambda: nn.Linear(24, 16),
    "conv 3x3": lambda: nn.Conv2d(20, 16, 3, padding=1),
    "square conv": lambda: nn.Conv2d(16, 16, 3, padding=1),
}
TIGHT = 0.02  # a constraint that acts


@pytest.fixture(params=LAYERS)
def layer(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LAYERS[request.param]().requires_grad_(False)


def number(file, role, otherwise):
    return file[role].item() if role in file else otherwise


def plain_change(file, weight):
    """The factors' change; no reader divides where both factors of LoKr are whole."""
    if "lora_up.weight" in file:
        up, down = file["lora_up.weight"].flatten(1), file["lora_down.weight"].flatten(1)
        return (up @ down).reshape(weight.shape) * number(file, "alpha", len(down)) / len(down)
    if "hada_w1_a" in file:
        halves = [file[f"hada_w{half}_a"] @ file[f"hada_w{half}_b"] for half in "12"]
        rank = len(file["hada_w1_b"])
        return (halves[0] * halves[1]).reshape(weight.shape) * file["alpha"].item() / rank
    rank = 0
    factors = []
    for factor in ("lokr_w1", "lokr_w2"):
        if factor in file:
            factors.append(file[factor])
        else:
            assert "lokr_t2" not in file, "Forge raises, ComfyUI leaves the layer out"
            rank = len(file[f"{factor}_b"])
            factors.append(file[f"{factor}_a"] @ file[f"{factor}_b"])
    small, large = factors
    if large.dim() == 4:
        small = small[:, :, None, None]
    return torch.kron(small, large).reshape(weight.shape) * (
        file["alpha"].item() / rank if rank else 1.0
    )


def with_magnitudes(file, weight, change):
    """All three: W + d, each column brought to the length of its magnitude."""
    whole = weight + change
    over = [side for side in range(weight.dim()) if side != 1]
    return whole * (file["dora_scale"] / whole.pow(2).sum(over, keepdim=True).sqrt())


def turned(file, weight, limit):
    """OFT or BOFT; limit: what the reader makes of alpha, 0 for none."""
    blocks = file["oft_blocks"]
    skew = blocks - blocks.mT
    if limit:
        skew = skew * min(1.0, limit / skew.norm().item())
    one = torch.eye(blocks.shape[-1])
    turns = (one + skew) @ torch.linalg.inv(one - skew)
    if blocks.dim() == 3:
        rows = weight.unflatten(0, turns.shape[:2])
        return torch.einsum("knm, kn... -> km...", turns, rows).flatten(0, 1)
    now, side = weight, blocks.shape[-1]
    for stage, turn in enumerate(turns):
        step = side // 2 * 2**stage
        mixed = now.unflatten(0, (-1, 2, step)).transpose(1, 2).flatten(0, 2)
        mixed = torch.einsum("bij, bj... -> bi...", turn, mixed.unflatten(0, (-1, side)))
        now = mixed.flatten(0, 1).unflatten(0, (-1, step, 2)).transpose(1, 2).flatten(0, 2)
    return now


def same(found, expected):
    return (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("kind", ["LyCORIS/LoCon", "LyCORIS/LoHa", "LyCORIS/LoKr"])
def test_dora_is_read_as_it_was_trained(kind, layer):
    adapter = randomize(made(layer, kind, {"dora_wd": True}))
    file = adapter.tensors()
    read = with_magnitudes(file, layer.weight, plain_change(file, layer.weight))
    assert same(read - layer.weight, adapter.delta())


@pytest.mark.parametrize("kind", ["LyCORIS/Diag-OFT", "LyCORIS/BOFT"])
@pytest.mark.parametrize("constraint", [0.0, TIGHT])
def test_rotations_are_read_as_they_were_trained(kind, constraint, layer):
    """ComfyUI takes alpha for the limit, A1111 alpha times the outputs: with 0 both agree."""
    adapter = randomize(made(layer, kind, {"constraint": constraint}))
    file = adapter.tensors()
    alpha = file["alpha"].item()
    assert alpha == 0
    for limit in (alpha, alpha * layer.weight.shape[0]):
        assert same(turned(file, layer.weight, limit) - layer.weight, adapter.delta())
    free = randomize(made(layer, kind, {"constraint": 0.0}))
    if constraint:  # or nothing would be shown
        assert adapter.delta().norm() < 0.8 * free.delta().norm()


@pytest.mark.parametrize("kind", ["LyCORIS/LoKr", "Kohya LoKr"])
@pytest.mark.parametrize(
    "changes", [{"network_dim": 1}, {"network_dim": 1, "decompose_both": True}, {"dora_wd": True}]
)
def test_lokr_with_tucker_is_read_as_it_was_trained(kind, changes, layer):
    if kind.startswith("Kohya") and len({*changes} - {"network_dim"}):
        return
    changes = {"network_dim": 1, "factor": 4, "use_tucker": True, **changes}
    adapter = randomize(made(layer, kind, changes))
    file = adapter.tensors()
    read = layer.weight + plain_change(file, layer.weight)
    if "dora_scale" in file:
        read = with_magnitudes(file, layer.weight, read - layer.weight)
    assert ("lokr_w2" in file) == (layer.weight.dim() == 4)
    assert same(read - layer.weight, adapter.delta())


STORED = {
    "OFT": ("LyCORIS/Diag-OFT", {"constraint": TIGHT}),
    "BOFT": ("LyCORIS/BOFT", {"constraint": TIGHT}),
    "LoKr": ("LyCORIS/LoKr", {"use_tucker": True, "factor": 4, "network_dim": 1}),
    "LoKr both": (
        "LyCORIS/LoKr",
        {"use_tucker": True, "factor": 4, "network_dim": 1, "decompose_both": True},
    ),
    "LoKr DoRA": (
        "LyCORIS/LoKr",
        {"use_tucker": True, "factor": 4, "network_dim": 1, "dora_wd": True},
    ),
}


@pytest.mark.parametrize("dim_from_weights", [True, False])
@pytest.mark.parametrize("way", STORED)
def test_what_is_stored_otherwise_goes_on_as_it_was_trained(way, dim_from_weights, layer):
    kind, changes = STORED[way]
    adapter, entry = randomize(made(layer, kind, changes)), None
    entry = read_back(adapter)
    if dim_from_weights:
        asked = NetworkSettings(LoRA_type=kind, dim_from_weights=True)
        again = made(layer, kind, changes, entry, asked=asked)
    else:
        again = made(layer, kind, changes)
    again.take(entry.tensors)
    assert same(again.delta(), adapter.delta())
    shapes = {name: weight.shape for name, weight in adapter.named_parameters()}
    assert {name: weight.shape for name, weight in again.named_parameters()} == shapes
    assert again.unsaid() == adapter.unsaid()  # the limit and the rank go on, too
    wrote, read = again.tensors(), adapter.tensors()
    assert all(torch.allclose(wrote[role], read[role], atol=1e-6) for role in read)
    again.delta().square().sum().backward()
    learning = [w for n, w in again.named_parameters() if "oft" in n or "lokr" in n]
    assert all(w.grad.abs().max() > 0 for w in learning)


def test_without_the_note_a_whole_factor_goes_on_whole(layer):
    """Of a pickle, which holds no metadata: the change is the same, with more weights."""
    kind, changes = STORED["LoKr"]
    adapter = randomize(made(layer, kind, changes))
    file = {f"layer.{role}": tensor for role, tensor in adapter.tensors().items()}
    assert as_trained(file, {}, tucker=True).keys() == file.keys()
    asked = NetworkSettings(LoRA_type=kind, dim_from_weights=True)
    entry = entry_of(adapter)
    row = Layer("layer", layer, "unet", True)
    again = make_adapter(asked, row, Size(entry.rank, entry.alpha), entry, PRESETS["full"])
    again.take(copy.deepcopy(entry.tensors))
    assert same(again.delta(), adapter.delta())


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"lokr_t2": 3}', '{"lokr_t2": {"": "x"}}'])
def test_a_damaged_note_is_none(text):
    file = {"layer.lokr_w2": torch.ones(4, 4, 3, 3), "layer.oft_blocks": torch.ones(1, 2, 2)}
    note = {"lorakit_network": text}
    assert as_trained(file, note, tucker=True).keys() == file.keys()


def test_the_note_names_what_most_modules_have_once():
    told = {"a": {"lokr_t2": 8}, "b": {"lokr_t2": 8}, "c": {"lokr_t2": 0}, "d": {}}
    assert unsaid(told) == {"lorakit_network": '{"lokr_t2":{"":8,"c":0}}'}
    assert unsaid({"a": {"lokr_t2": 0}, "b": {}}) == {}


@pytest.mark.parametrize(("shape", "rank"), [((8, 12, 3, 3), 3), ((4, 20, 3, 3), 6)])
def test_parts_make_the_factor_that_they_were_taken_from(shape, rank):
    draws = torch.Generator().manual_seed(1)
    core = torch.randn(rank, rank, 3, 3, generator=draws, dtype=torch.float64)
    wide = torch.randn(rank, shape[0], generator=draws, dtype=torch.float64)
    high = torch.randn(rank, shape[1], generator=draws, dtype=torch.float64)
    whole = torch.einsum("pqkl, po, qi -> oikl", core, wide, high)
    core, wide, high = parts_of(whole, rank)
    assert core.shape == (rank, rank, 3, 3)
    assert wide.shape == (rank, shape[0])
    again = torch.einsum("pqkl, po, qi -> oikl", core, wide, high)
    assert torch.allclose(again, whole, atol=1e-12 * whole.norm())
    half = whole.half()  # as rounded as a file may be
    core, wide, high = parts_of(half.double(), rank)
    again = torch.einsum("pqkl, po, qi -> oikl", core, wide, high)
    assert (again - whole).norm() < (half.double() - whole).norm() * 1.01
