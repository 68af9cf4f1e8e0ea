"""train_norm: the U-Net's normalisations learn too, as LyCORIS has them."""

import copy
import warnings

import pytest
import torch
from torch import nn

from kit.adapters.network import attach, parts_of
from kit.adapters.norms import Norm
from kit.lorafile.tensors import split_name
from kit.planning.lora_size import network_size
from kit.settings import NetworkSettings, Settings
from tests.families.test_target_layers import family_on_meta

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    norms = pytest.importorskip("lycoris.modules.norms")

LAYERS = {
    "group": (lambda: nn.GroupNorm(4, 16), (2, 16, 5, 5)),
    "layer": (lambda: nn.LayerNorm(24), (2, 7, 24)),
}


@pytest.fixture(params=LAYERS)
def place(request):
    make, shape = LAYERS[request.param]
    draws = torch.Generator().manual_seed(0)
    layer = make().requires_grad_(False)
    layer.weight.normal_(1, 0.3, generator=draws)
    layer.bias.normal_(0, 0.3, generator=draws)
    return layer, torch.randn(shape, generator=draws)


def woken(layer, spread=0.2, **options):
    adapter = Norm(layer, **options)
    adapter.start(1, "lora", "norm")
    draws = torch.Generator().manual_seed(3)
    for weight in adapter.parameters():
        weight.data.normal_(0, spread, generator=draws)
    return adapter


def test_untrained_it_changes_nothing_and_merged_it_acts_alike(place):
    layer, inputs = place
    fresh = Norm(layer)
    fresh.start(1, "lora", "norm")
    assert torch.equal(fresh.add_to(layer, (inputs,), layer(inputs)), layer(inputs))
    adapter = woken(layer)
    whole = copy.deepcopy(layer)
    whole.weight.data += adapter.delta()
    whole.bias.data += adapter.delta_bias()
    beside = adapter.add_to(layer, (inputs,), layer(inputs))
    assert torch.allclose(whole(inputs), beside, atol=1e-5)
    assert not torch.allclose(beside, layer(inputs), atol=1e-2)


def test_the_librarys_module_does_the_same_with_the_same_tensors(place):
    layer, inputs = place
    adapter = woken(layer)
    module = norms.NormModule("name", layer, 1.0)
    with torch.no_grad():
        for role, tensor in adapter.tensors().items():
            getattr(module, role).copy_(tensor)
        expected = module(inputs)
    assert torch.allclose(adapter.add_to(layer, (inputs,), layer(inputs)), expected, atol=1e-5)


def test_over_a_base_in_16_bits_a_small_change_is_kept(place):
    layer, inputs = place
    layer, inputs = layer.bfloat16(), inputs.bfloat16()
    adapter = woken(layer, spread=1e-4)
    exact = adapter.plain_change(inputs.float(), layer(inputs))
    assert torch.allclose(adapter.change(inputs, layer(inputs)), exact)
    assert exact.abs().max() > 1e-5


def test_its_rank_dropout_takes_whole_channels(place):
    layer, inputs = place
    adapter = woken(layer, rank_dropout=0.5).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        change = adapter.change(inputs, layer(inputs))
    axis = 1 if isinstance(layer, nn.GroupNorm) else -1
    dropped = (change == 0).movedim(axis, 0).flatten(1).all(1)
    assert 0 < dropped.sum() < len(dropped)


def test_a_file_is_taken_and_the_length_is_never_limited(place):
    layer, _ = place
    adapter = woken(layer)
    other = Norm(layer)
    other.take(adapter.tensors())
    assert torch.equal(other.delta(), adapter.delta())
    assert other.limit_norm(1e-9)[1] is False
    assert torch.equal(other.delta(), adapter.delta())


@pytest.mark.parametrize("preset", ["full", "attn-mlp", "unet-convblock-only"])
@pytest.mark.parametrize("key", ["sd1", "sd2", "sdxl"])
def test_those_of_the_presets_blocks_learn_under_names_of_the_file_format(key, preset):
    family = family_on_meta(key)
    asked = {"LoRA_type": "LyCORIS/LoCon", "LyCORIS_preset": preset, "train_norm": True}
    settings = NetworkSettings(**asked)
    network = attach(settings, family, learns=parts_of(family), seed=1)
    network.detach_hooks()
    found = {name: adapter for name, adapter in network.named() if isinstance(adapter, Norm)}
    expected = {
        norm.name
        for norm in family.norms()
        if preset == "full" or norm.in_transformer == (preset == "attn-mlp")
    }
    assert set(found) == expected != set()
    assert all(split_name(f"{name}.w_norm")[2] == "norm" for name in found)
    assert {"w_norm", "b_norm"} == {key.split(".")[1] for key in network.tensors() if "norm" in key}
    size = network_size(Settings().replace(**asked), key)
    weights = sum(weight.numel() for weight in network.parameters())
    assert (size.layers, size.weights) == (len(network.adapters), weights)


def test_some_names_are_those_of_stabilitys_layout():
    names = {norm.name for norm in family_on_meta("sdxl").norms()}
    assert "lora_unet_input_blocks_1_0_in_layers_0" in names
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_norm1" in names
    assert "lora_unet_middle_block_1_norm" in names
