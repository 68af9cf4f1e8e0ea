"""LyCORIS' own modules with the same tensors: the same change, where the library is right."""

import warnings

import pytest
import torch
from torch import nn

from kit import catalog
from kit.catalog import lora_shapes
from tests.adapters.test_every_type import LAYERS, WAYS, entry_of, made, randomize

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    modules = pytest.importorskip("lycoris.modules")
    from lycoris.functional.general import factorization, power2factorization
    from lycoris.modules.boft import ButterflyOFTModule
    from lycoris.modules.diag_oft import DiagOFTModule
    from lycoris.modules.full import FullModule
    from lycoris.modules.glora import GLoRAModule
    from lycoris.modules.ia3 import IA3Module
    from lycoris.modules.locon import LoConModule
    from lycoris.modules.loha import LohaModule
    from lycoris.modules.lokr import LokrModule

THEIRS = {
    "LyCORIS/LoCon": LoConModule,
    "LyCORIS/LoHa": LohaModule,
    "LyCORIS/LoKr": LokrModule,
    "LyCORIS/iA3": IA3Module,
    "LyCORIS/GLoRA": GLoRAModule,
    "LyCORIS/Diag-OFT": DiagOFTModule,
    "LyCORIS/BOFT": ButterflyOFTModule,
    "LyCORIS/Native Fine-Tuning": FullModule,
    "Kohya LoCon": LoConModule,
    "Kohya LoHa": LohaModule,
    "Kohya LoKr": LokrModule,
}
SAME_NAME = ("use_tucker", "decompose_both", "factor", "rs_lora", "rescaled", "constraint")
# Two files whose alpha the library's own readers take for something else: of whole factors nobody
# reads it, and GLoRA's lacks the square root.
WRONG_THERE = {"LyCORIS/LoKr": ["rs_lora"], "LoKr": ["rs_lora"], "LyCORIS/GLoRA": ["rs_lora"]}


def cases():
    for kind in THEIRS:
        row = catalog.LORA_TYPES[kind]
        for way, changes in WAYS.items():
            if way == "whole factors" and "factor" not in row.uses:
                continue
            if way in WRONG_THERE.get(kind.rpartition(" ")[2], ()):
                continue
            if set(changes) <= {*row.uses, "network_dim"} and way != "use_scalar":
                yield pytest.param(kind, changes, id=f"{kind}-{way}")


def theirs(kind, layer, changes, tensors):
    options = {name: changes[name] for name in SAME_NAME if name in changes}
    options.setdefault("constraint", 0.0)
    options |= {"weight_decompose": changes.get("dora_wd", False)}
    options |= {"wd_on_out": changes.get("wd_on_output", False)}
    options |= {"train_on_input": changes.get("train_on_input", True)}
    if "oft_blocks" in tensors:
        options["constraint"] = 0.0  # the file's blocks are limited already
    if changes.get("use_tucker") and "lokr_w2" in tensors:
        options |= {"full_matrix": True, "use_tucker": False}  # the file has the whole factor
    whole = {"lokr_w1", "lokr_w2"} <= tensors.keys()
    module = THEIRS[kind]("name", layer, 1.0, changes.get("network_dim", 4), 2.0, **options)
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    if kind == "LyCORIS/Native Fine-Tuning":
        own = {"diff": module.weight, "diff_b": module.bias}
    with torch.no_grad():
        for role, tensor in tensors.items():
            assert own[role].shape == tensor.shape, role
            assert role != "alpha" or whole or torch.allclose(own[role], tensor), "alpha"
            own[role].copy_(tensor)
    return module.eval()


@pytest.mark.parametrize("place", LAYERS)
@pytest.mark.parametrize(("kind", "changes"), list(cases()))
def test_the_same_tensors_make_the_same_outputs(kind, changes, place):
    make, shape = LAYERS[place]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer, inputs = make().requires_grad_(False), torch.randn(shape)
    adapter = randomize(made(layer, kind, changes)).eval()
    entry = entry_of(adapter)
    expected = theirs(kind, layer, changes, entry.tensors)(inputs)
    outputs = adapter.add_to(layer, (inputs,), layer(inputs))
    assert torch.allclose(outputs, expected, atol=2e-5)
    assert (outputs - layer(inputs)).abs().max() > 1e-3


SIZES = (4, 32, 40, 96, 127, 250, 320, 360, 640, 768, 960, 1280, 1920, 2048, 2560, 3072, 5120)
FACTORS = (-1, 1, 2, 3, 4, 5, 6, 8, 12, 16, 32, 64, 100)


@pytest.mark.parametrize("size", SIZES)
def test_sizes_are_divided_as_theirs(size):
    assert [lora_shapes.split(size, f) for f in FACTORS] == [
        factorization(size, f) for f in FACTORS
    ]
    if size == 127:
        return  # theirs does not end for a prime number
    for most in FACTORS[2:]:
        side = lora_shapes.butterfly_side(size, most)
        assert side == (power2factorization(size, most)[0] or 0)


def test_the_scalar_is_folded_into_the_file_as_theirs():
    layer = nn.Linear(24, 16)
    adapter = randomize(made(layer, "LyCORIS/LoHa", {"use_scalar": True}))
    module = LohaModule("name", layer, 1.0, 4, 2.0, use_scalar=True)
    with torch.no_grad():
        for role in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"):
            getattr(module, role).copy_(adapter.part(role))
        module.scalar.copy_(adapter.scalar)
    found = module.state_dict()
    assert adapter.tensors().keys() == found.keys()
    assert all(torch.allclose(tensor, found[role]) for role, tensor in adapter.tensors().items())
