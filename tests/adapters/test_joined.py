"""q, k and v with one down-projection: the same learning as layer by layer, in fewer calls."""

import copy
from functools import partial

import pytest
import torch

from kit.adapters.network import parts_of
from kit.bench.launches import aten_calls
from kit.bench.models import full_batch
from kit.bench.steps import make_step
from kit.devices import make_accelerator
from kit.settings import NetworkSettings
from kit.training.network_setup import recompute_gradients
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny

CPU = torch.device("cpu")
RANK_4 = NetworkSettings(network_dim=4, network_alpha=2.0)


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def family(request, tmp_path_factory):
    return load_tiny(write_tiny(tmp_path_factory.mktemp("model"), request.param, thin=True))


def made(family, *, joined=True, precision="no", settings=RANK_4):
    own = copy.deepcopy(family)
    if precision == "bf16":
        for part in (own.unet, *own.text_encoders):
            part.to(torch.bfloat16)
    accelerator = make_accelerator(CPU, precision)
    rates = dict.fromkeys(parts_of(own), 1e-3)
    step, network = make_step(own, settings, rates, accelerator=accelerator)
    draws = torch.Generator().manual_seed(3)
    for weight in network.parameters():
        weight.data.copy_(torch.randn(weight.shape, generator=draws) / weight[0].numel() ** 0.5)
    if not joined:
        for _, adapter in network.named():
            adapter._joined = None
    return step, network.train()


def learnt(step, network):
    """Losses, and gradients by name, of a batch of two."""
    loss_B = step.loss(full_batch(step.text.family, px=64, count=2))
    step.backward(loss_B, 1)
    found = {name: w.grad.clone() for name, w in network.named_parameters() if w.grad is not None}
    step.zero_grad()
    return loss_B.detach(), found


def together(network):
    return {name: a._joined[0] for name, a in network.named() if a._joined is not None}


def test_self_attention_joins_q_k_and_v_words_k_and_v(family):
    _, network = made(family)
    groups = {}
    for name, joined in together(network).items():
        groups.setdefault(id(joined), []).append(name)
    for names in groups.values():
        ends = [name.rsplit("_to_")[-1] if "unet" in name else name[-6] for name in names]
        assert ends == ["k", "v"] if "attn2" in names[0] else sorted(ends) == ["k", "q", "v"]
        assert len({name.rsplit("_", 2)[0] for name in names}) == 1
    named = [name for name, _ in network.named()]
    wanted = sum(name.endswith(("to_k", "to_v", "k_proj", "v_proj")) for name in named)
    wanted += sum(name.endswith(("attn1_to_q", "q_proj")) for name in named)
    assert len(together(network)) == wanted > 0


@pytest.mark.parametrize(("precision", "near"), [("no", 1e-5), ("bf16", 2e-2)])
def test_they_learn_as_layer_by_layer(family, precision, near):
    losses, grads = learnt(*made(family, precision=precision))
    expected, alone = learnt(*made(family, precision=precision, joined=False))
    assert torch.allclose(losses, expected, rtol=near)
    assert grads.keys() == alone.keys()
    apart = sum(((grads[name] - alone[name]) ** 2).sum() for name in grads) ** 0.5
    assert apart < near * sum((g**2).sum() for g in alone.values()) ** 0.5
    assert all(grads[name].any() for name in together(made(family)[1]) for name in grads)


def test_each_attention_saves_calls_and_nothing_waits_behind_a_step(family):
    counts = []
    for joined in (True, False):
        step, network = made(family, joined=joined)
        learnt(step, network)
        counts.append(sum(aten_calls(partial(learnt, step, network)).values()))
        waiting = [(j._inputs, j._waiting) for j in together(network).values()]
        assert all(one == (None, {}) for one in waiting)
    per_attention = 4  # words' k and v save 2 without and 4 with a gradient to them, q, k, v 8
    attentions = sum(name.endswith("_to_k") for name, _ in network.named())
    assert counts[1] - counts[0] >= per_attention * attentions


def test_activations_computed_again_change_no_bit(family):
    step, network = made(family)
    losses, grads = learnt(step, network)
    recompute_gradients(step.text.family, text_encoders=True, draws=False)
    again, found = learnt(step, network)
    assert torch.equal(losses, again)
    assert all(torch.equal(gradient, found[name]) for name, gradient in grads.items())


def test_a_layer_that_is_given_other_inputs_computes_by_itself(family):
    step, network = made(family)
    step.copies.refresh()
    by_name = dict(network.named())
    name = next(name for name in together(network) if name.endswith("attn1_to_q"))
    q, k = (by_name[name.replace("to_q", end)].layer for end in ("to_q", "to_k"))
    one, other = torch.randn(2, 1, 5, q.in_features)
    with torch.no_grad():
        first, second = q(one), k(other)
        joined = q(one), k(one)
    step.copies.are_fresh = False
    with torch.no_grad():
        assert torch.allclose(first, q(one), atol=1e-6)
        assert torch.allclose(second, k(other), atol=1e-6)
        assert torch.allclose(joined[1], k(one), atol=1e-6)


def test_layers_of_which_some_learn_no_more_compute_one_by_one(family):
    step, network = made(family)
    name = next(name for name in together(network) if name.endswith("attn1_to_q"))
    dict(network.named())[name].requires_grad_(False)
    _, grads = learnt(step, network)
    assert not [key for key in grads if name in key and grads[key].any()]
    beside = [key for key in grads if name.replace("to_q", "to_k") in key]
    assert len(beside) == 2
    assert all(grads[key].any() for key in beside)


@pytest.mark.parametrize(
    "changes", [{"network_dropout": 0.1}, {"LoRA_type": "LoRA-FA"}, {"LoRA_type": "LyCORIS/LoCon"}]
)
def test_what_draws_and_other_types_are_not_joined(family, changes):
    settings = NetworkSettings(network_dim=2, **changes)
    rates = dict.fromkeys(parts_of(family), 1e-3)
    _, network = make_step(copy.deepcopy(family), settings, rates)
    assert not any(getattr(adapter, "_joined", None) for _, adapter in network.named())


def test_ranks_that_do_not_fill_what_lies_between_two_weights_are_not_joined(family):
    """A down of 32 numbers is followed by 32 that belong to nobody."""
    _, network = made(family, settings=NetworkSettings(network_dim=1))
    thin = [name for name, a in network.named() if a.part("lora_down.weight").numel() % 64]
    assert thin
    assert not together(network).keys() & set(thin)


def test_the_base_is_left_as_it_was(family):
    _, network = made(family)
    assert together(network)
    network.detach_hooks()
    assert not together(network)
