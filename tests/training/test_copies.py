"""A step without autocast: no farther from float32 than autocast is, and the same trainings.

Distances are those of the whole gradient of all LoRA weights, over several batches.
"""

import copy
import statistics

import pytest
import torch

from kit import demo
from kit.adapters.folded import Fold, whole_linear
from kit.adapters.network import parts_of
from kit.bench.launches import aten_calls
from kit.bench.steps import make_step
from kit.devices import make_accelerator
from kit.diffusion.noise import draw_normal
from kit.settings import NetworkSettings
from kit.training.batches import Batch
from kit.training.copies import Copies
from kit.training.network_setup import recompute_gradients
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny

CPU = torch.device("cpu")
RANK_2 = NetworkSettings(network_dim=2, network_alpha=1.0)


@pytest.fixture(scope="module", params=["demo", "sd1", "sdxl"])
def family(request, tmp_path_factory):
    """A trained base and two of random weights, all rounded to bf16, which every step gets."""
    path = demo.BASE if request.param == "demo" else None
    model = tmp_path_factory.mktemp("model")
    found = load_tiny(path or write_tiny(model, request.param, thin=True))
    for part in (found.unet, *found.text_encoders):
        part.to(torch.bfloat16).float()
    return found


def made(family, precision="no", *, settings=RANK_2, with_copies=True, **options):
    """A step on a base of this precision, with LoRA weights that are not at their start."""
    own = copy.deepcopy(family)
    if precision == "bf16":
        for part in (own.unet, *own.text_encoders):
            part.to(torch.bfloat16)
    rates = dict.fromkeys(parts_of(own), 1e-3)
    accelerator = make_accelerator(CPU, precision)
    step, network = make_step(own, settings, rates, accelerator=accelerator, **options)
    assert isinstance(step.copies, Copies)
    if not with_copies:
        step.copies = None
    draw(network, 3)
    return step, network.train()


def draw(network, seed: int) -> None:
    """LoRA weights as after a while."""
    draws = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        spread = 0.5 / weight[0].numel() ** 0.5
        weight.data.copy_(torch.randn(weight.shape, generator=draws) * spread)


def batch(step, number: int) -> Batch:
    side, tokens = 8, step.text.tokens(["a red ball", "a dog"])[0]
    shape = (2, 4, side, side)
    return Batch(
        latents_BChw=draw_normal(shape, "latents", number),
        noise_BChw=draw_normal(shape, "noise", number),
        t_B=torch.tensor([10 + 90 * number, 950 - 70 * number]),
        weight_B=torch.ones(2),
        tokens=tokens,
        text_embeds=None,
        crops_B6=torch.tensor([[64, 64, 0, 0, 64, 64]] * 2),
    )


def learnt(step, network, number: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Losses and gradients of a batch, which is forgotten then."""
    loss_B = step.loss(batch(step, number))
    step.backward(loss_B, 1)
    grads = {
        name: None if weight.grad is None else weight.grad.float().clone()
        for name, weight in network.named_parameters()
    }
    step.zero_grad()
    return loss_B.detach(), grads


def distance(one, other) -> float:
    pairs = [(one[name], other[name]) for name in one if one[name] is not None]
    return sum(((a - b).double() ** 2).sum().item() for a, b in pairs) ** 0.5


def length(grads) -> float:
    return distance(grads, {name: 0 * g for name, g in grads.items() if g is not None})


def test_in_bf16_it_is_no_farther_from_float32_than_autocast(family):
    """In the mean over LoRAs and batches: of one, either may be nearer by a quarter."""
    exact, autocast = made(family, with_copies=False), made(family, "bf16", with_copies=False)
    own = made(family, "bf16")
    ratios, losses_off = [], {"own": 0.0, "autocast": 0.0}
    for number in range(10):
        for _, network in (exact, own, autocast):
            draw(network, number)
        losses, grads = learnt(*exact, number)
        off = {}
        for name, each in (("own", own), ("autocast", autocast)):
            found, found_grads = learnt(*each, number)
            losses_off[name] += ((found - losses) ** 2).sum().item()
            off[name] = distance(grads, found_grads)
        ratios.append(off["own"] / off["autocast"])
    assert max(ratios) > 0
    assert statistics.geometric_mean(ratios) <= 1.15, ratios
    assert losses_off["own"] <= 5 * losses_off["autocast"], losses_off


def test_in_float32_it_is_the_plain_step_but_for_the_order_of_sums(family):
    exact, own = made(family, with_copies=False), made(family)
    for number in range(2):
        losses, grads = learnt(*exact, number)
        found, found_grads = learnt(*own, number)
        assert torch.allclose(found, losses, rtol=1e-5, atol=0)
        assert {n for n, g in grads.items() if g is None} == {
            n for n, g in found_grads.items() if g is None
        }
        assert distance(grads, found_grads) < 1e-4 * length(grads)


def test_weights_that_learn_no_more_get_no_gradient(family):
    step, network = made(family)
    learnt(step, network)
    network.stop_text_encoders()
    _, grads = learnt(step, network)
    frozen = [grad for name, grad in grads.items() if "lora_te" in name]
    assert frozen
    assert all(grad is None for grad in frozen)
    assert all(grads[name].any() for name in grads if "lora_unet" in name and "down" in name)


def test_gradients_of_batches_add_up(family):
    step, network = made(family)
    apart = [learnt(step, network, number)[1] for number in (0, 1)]
    for number in (0, 1):
        step.backward(step.loss(batch(step, number)), 1)
    for name, weight in network.named_parameters():
        if apart[0][name] is not None:
            assert torch.equal(weight.grad, apart[0][name] + apart[1][name])


def test_activations_that_are_computed_again_change_nothing(family):
    step, network = made(family, "bf16")
    losses, grads = learnt(step, network)
    recompute_gradients(step.text.family, text_encoders=True, draws=False)
    again, found = learnt(step, network)
    assert torch.equal(losses, again)
    assert all(g is None or torch.equal(g, found[name]) for name, g in grads.items())


def test_no_layer_casts_its_weights_and_none_is_added_up_by_torch(family):
    step, network = made(family, "bf16")
    given = batch(step, 0)
    learnt(step, network)
    calls = aten_calls(lambda: step.backward(step.loss(given), 1))
    layers = len(network.adapters)
    assert calls["_to_copy"] < layers / 2
    assert calls["add_"] < layers / 2


def test_kernels_of_nine_places_learn_without_autocast_too(family):
    settings = RANK_2.__class__(LoRA_type="Kohya LoCon", network_dim=2, conv_dim=2, conv_alpha=1)
    exact = made(family, settings=settings, with_copies=False)
    own, half = made(family, settings=settings), made(family, "bf16", settings=settings)
    losses, grads = learnt(*exact)
    found, found_grads = learnt(*own)
    assert torch.allclose(found, losses, rtol=1e-5, atol=0)
    assert distance(grads, found_grads) < 1e-4 * length(grads)
    assert any(grad is not None and grad.shape[2:] == (3, 3) for grad in grads.values())
    _, of_half = learnt(*half)
    assert distance(grads, of_half) < 0.1 * length(grads)


@pytest.mark.parametrize(
    "changes",
    [
        {"network_dropout": 0.1},
        {"rank_dropout": 0.1},
        {"module_dropout": 0.1},
        {"LoRA_type": "LyCORIS/LoHa"},
    ],
)
def test_what_draws_and_other_types_stay_under_autocast(tmp_path, changes):
    family = load_tiny(write_tiny(tmp_path / "model", "sd1", thin=True))
    rates = dict.fromkeys(parts_of(family), 1e-3)
    step, network = make_step(family, NetworkSettings(network_dim=2, **changes), rates)
    assert step.copies is None
    network.detach_hooks()


def test_a_base_of_another_precision_stays_under_autocast(tmp_path):
    family = load_tiny(write_tiny(tmp_path / "model", "sd1", thin=True))
    rates = dict.fromkeys(parts_of(family), 1e-3)
    step, network = make_step(family, RANK_2, rates, accelerator=make_accelerator(CPU, "bf16"))
    assert step.copies is None
    network.detach_hooks()


def test_the_base_is_left_as_it_was(family):
    step, network = made(family)
    unet = step.text.family.unet
    changed = [module for module in unet.modules() if "forward" in vars(module)]
    assert changed
    network.detach_hooks()
    assert not any("forward" in vars(module) for module in unet.modules())


def test_in_fp16_a_small_strength_keeps_gradients_in_range():
    strength, half = 1 / 128, torch.float16
    layer = torch.nn.Linear(16, 16, bias=False).to(half)
    up, down = torch.ones(16, 8), torch.full((8, 16), 1e-3)
    learning = torch.nn.Parameter(up), torch.nn.Parameter(down)
    gradients = torch.zeros_like(up, dtype=half), torch.zeros_like(down, dtype=half)
    pairs = tuple((weight, torch.zeros_like(weight)) for weight in learning)
    copies = up.to(half), (down * strength).to(half)
    fold = Fold(lambda: True, *copies, *gradients, pairs, strength)
    inputs = torch.full((4, 16), 64.0, dtype=half)
    whole_linear(layer, inputs, fold).backward(torch.full((4, 16), 32.0, dtype=half))
    # 32 x 16 x 64 x 4 = 131,072 without the strength, which fp16 does not hold.
    assert torch.equal(gradients[1], torch.full_like(gradients[1], 131_072 * strength))


@pytest.mark.parametrize("settings", [RANK_2, NetworkSettings(network_dim=2, network_alpha=0.3)])
def test_copies_are_rounded_once_and_hold_nothing_else_for_each_weight(family, settings):
    """What they are multiplied with is one number for all that lie side by side."""
    step, network = made(family, "bf16", settings=settings)
    copies = step.copies
    calls = aten_calls(copies.refresh)
    groups = len(step.optimization.optimizer.param_groups)
    assert sum(calls.values()) <= 2 * groups + 1  # downs and ups of each, and the gradients' zeros
    for _, adapter in network.named():
        fold = adapter._fold
        if fold is not None:
            down = adapter.part("lora_down.weight") * adapter.scale
            assert torch.equal(fold.down_RI.flatten(), down.bfloat16().flatten())
            up = adapter.part("lora_up.weight").bfloat16()
            assert torch.equal(fold.up_OR.flatten(), up.flatten())
    tensors = [value for value in vars(copies).values() if isinstance(value, torch.Tensor)]
    flat = copies._buffers.weights
    assert sum(tensor.nbytes for tensor in tensors) == flat.nbytes  # two of half the precision


def test_each_strength_reaches_its_own_weights(family):
    """Blocks with alphas of their own, and weights that are not folded in between."""
    settings = NetworkSettings(
        LoRA_type="Kohya LoCon", network_dim=2, network_alpha=0.5, conv_dim=3, conv_alpha=1
    )
    step, network = made(family, settings=settings)
    step.copies.refresh()
    scales = set()
    for _, adapter in network.named():
        if (fold := adapter._fold) is not None:
            scales.add(adapter.scale)
            down = adapter.part("lora_down.weight").flatten(1)
            assert torch.equal(fold.down_RI, down * adapter.scale)
    assert scales
