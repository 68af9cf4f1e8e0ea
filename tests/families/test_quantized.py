"""Layers in few bits: how far they are from the plain ones, forwards, backwards and in a run."""

import copy

import pytest
import torch
from torch import nn

from kit import catalog, devices, planning
from kit.errors import DeviceError
from kit.families import loading
from kit.families.quantized import CompressedConv2d, CompressedLinear, Int8, compress
from kit.training.preparation import prepare
from kit.training.step import run_step
from tests.support.parts import load_tiny, outcome
from tests.support.tiny import write_tiny
from tests.support.toys import leave_after, lora, losses, run, same, toy_settings

ROWS = {name: row for name, row in catalog.BASE_PRECISIONS.items() if row.code}
CPU = torch.device("cpu")
# Relative error of a decoded weight that is normally distributed, and what a value takes in bits.
EXPECTED = {"int8": (0.01, 8.1), "fp8": (0.03, 8.1), "nf4": (0.1, 4.6)}
BASES = [
    {"fp8_base": True},
    {"base_precision": "nf4", "compress_text_encoders": True, "gradient_checkpointing": True},
]

each = pytest.mark.parametrize("name", ROWS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1", thin=True)


def pack_of(name):
    return catalog.load(ROWS[name].code)


def pair(name, kind):
    """A plain layer, its compressed copy, and inputs of it."""
    torch.manual_seed(0)
    if kind == "linear":
        plain, inputs = nn.Linear(256, 512), torch.randn(3, 7, 256)
    else:
        plain, inputs = nn.Conv2d(32, 64, 3, stride=2, padding=1), torch.randn(2, 32, 12, 10)
    plain.requires_grad_(False)
    compressed = copy.deepcopy(plain)
    compress([compressed], pack_of(name), pack_of(name), CPU)
    return plain, compressed, inputs


def error(one, other):
    return ((one - other).norm() / other.norm()).item()


def test_every_row_is_measured_here():
    assert set(EXPECTED) == set(ROWS)


@each
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_it_computes_as_the_plain_layer_with_its_decoded_weight(name, kind):
    plain, compressed, inputs = pair(name, kind)
    assert isinstance(compressed, CompressedLinear | CompressedConv2d)
    largest, bits = EXPECTED[name]
    assert 0 < error(compressed.weight, plain.weight) < largest
    held = sum(buffer.nbytes for buffer in compressed.packed.buffers())
    assert held * 8 / plain.weight.numel() < bits + 0.5
    plain.weight.data = compressed.weight
    ours, theirs = inputs.clone().requires_grad_(), inputs.clone().requires_grad_()
    (compressed(ours) ** 2).sum().backward()
    (plain(theirs) ** 2).sum().backward()
    torch.testing.assert_close(compressed(inputs), plain(inputs))
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)


@each
def test_it_computes_in_the_precision_of_autocast(name):
    _, compressed, inputs = pair(name, "linear")
    with torch.autocast("cpu", torch.bfloat16):
        assert compressed(inputs).dtype == torch.bfloat16
    assert compressed(inputs).dtype == torch.float32


@each
def test_it_survives_a_cast_of_the_whole_model(name):
    _, compressed, inputs = pair(name, "linear")
    before = compressed(inputs)
    again = copy.deepcopy(compressed).to(torch.bfloat16).float()
    assert error(again(inputs), before) < 0.01


@each
def test_a_weight_of_zeros_stays_one(name):
    layer = nn.Linear(64, 64)
    nn.init.zeros_(layer.weight)
    compress([layer], pack_of(name), pack_of(name), CPU)
    assert torch.equal(layer.weight, torch.zeros(64, 64))


def test_the_walk_finds_the_same_layers_and_shapes_and_no_others_are_touched(model):
    plain, compressed = load_tiny(model), load_tiny(model)
    loading.compress_base(compressed.unet, [], "nf4", CPU)
    conv = compressed.unet.mid_block.resnets[0].conv1
    assert (type(conv), type(conv.packed)) == (CompressedConv2d, Int8)
    found = [(layer.name, layer.module.weight.shape) for layer in plain.layers()]
    assert found == [(layer.name, layer.module.weight.shape) for layer in compressed.layers()]
    assert type(compressed.unet.conv_in) is nn.Conv2d
    assert type(compressed.unet.time_embedding.linear_1) is nn.Linear


@pytest.fixture(scope="module")
def plain(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("plain")
    return losses(run(toy_settings(model, images, out, max_train_steps=3)))


@pytest.mark.parametrize("changes", BASES, ids=["fp8", "nf4 with text encoders"])
def test_a_run_over_it_learns_almost_the_same_and_goes_on_bit_for_bit(
    model, images, tmp_path, plain, changes
):
    def settings(out, **more):
        return toy_settings(model, images, tmp_path / out, max_train_steps=3, **more)

    straight = run(settings("a", **changes))
    first = leave_after(2, settings("b", **changes))
    assert losses(first) + losses(run(settings("b", **changes))) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    assert losses(straight) != plain
    assert losses(straight) == pytest.approx(plain, rel=0.2)


@pytest.mark.parametrize("kind", catalog.LORA_TYPES)
def test_every_lora_type_learns_over_it_with_weights_in_bf16(model, images, tmp_path, kind):
    changes = {"base_precision": "nf4", "mixed_precision": "bf16", "full_bf16": True}
    changes |= {"lr_warmup": 0, "network_dim": 16}  # BOFT's blocks are no smaller
    settings = toy_settings(model, images, tmp_path, LoRA_type=kind, **changes)
    ready, _ = outcome(prepare(planning.plan(settings)))
    before = {name: weight.clone() for name, weight in ready.network.named_parameters()}
    told = run_step(ready.training_step, ready.batch_builder.micro_batches(1), count=1).losses
    ready.close()
    assert all(torch.isfinite(torch.tensor(told)))
    assert any(not torch.equal(w, before[n]) for n, w in ready.network.named_parameters())


def test_a_device_that_cannot_is_told_with_the_setting(model, monkeypatch):
    def fail(weight):
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr(loading.catalog, "load", lambda *_: fail)
    with pytest.raises(DeviceError, match=r"base_precision = nf4[\s\S]*no such kernel"):
        loading.compress_base(nn.Module(), [], "nf4", CPU)


def test_fp16_gradients_are_unscaled_and_an_overflow_skips_the_step():
    weight = nn.Parameter(torch.ones(4, dtype=torch.float16))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler = devices.HalfScaler("cpu", init_scale=4.0)
    scaler.scale(weight.sum().float()).backward()
    scaler.unscale_(optimizer)
    assert torch.equal(weight.grad, torch.ones(4, dtype=torch.float16))
    scaler.step(optimizer)
    scaler.update()
    assert torch.equal(weight.detach(), torch.zeros(4, dtype=torch.float16))
    weight.grad[0] = torch.inf
    scaler.step(optimizer)
    assert torch.equal(weight.detach(), torch.zeros(4, dtype=torch.float16))


def test_a_run_in_full_bf16_goes_on_bit_for_bit(model, images, tmp_path):
    changes = {"full_bf16": True, "mixed_precision": "bf16", "max_train_steps": 4}
    straight = run(toy_settings(model, images, tmp_path / "a", **changes))
    first = leave_after(2, toy_settings(model, images, tmp_path / "b", **changes))
    again = run(toy_settings(model, images, tmp_path / "b", **changes))
    assert losses(first) + losses(again) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    weights = lora(tmp_path / "a")
    down = next(tensor for name, tensor in weights.items() if "lora_down" in name)
    assert torch.equal(down, down.bfloat16().float())
