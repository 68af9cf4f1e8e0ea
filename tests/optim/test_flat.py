"""Weights in one buffer learn as single ones: to the last bit, whoever gets no gradient."""

import copy

import pytest
import torch
from torch.nn import Parameter

from kit import catalog
from kit.adapters.network import Group
from kit.bench.launches import aten_calls
from kit.catalog.lr_schedules import ScheduleParams
from kit.optim.averaging import averaged
from kit.optim.flat import Flat, flat_of
from kit.optim.making import build_optimization, restore_optimizer

FLAT = [name for name, row in catalog.OPTIMIZERS.items() if row.elementwise]
ARGUMENTS = {
    "AdamW": ["", "weight_decay=0.1 amsgrad=True"],
    "SGDNesterov": ["", "nesterov=False"],
    # Weights of several lengths in 8 bits, whose last blocks are not full.
    "AdamW8bit": ["", "min_8bit_size=64 weight_decay=0.1", "min_8bit_size=100"],
    "Lion8bit": ["weight_decay=0.01", "min_8bit_size=64"],
}
CASES = [(name, given) for name in FLAT for given in ARGUMENTS.get(name, ["weight_decay=0.01"])]
STEPS = 12


def start() -> list[Parameter]:
    """Odd sizes, so that vectors end elsewhere in one buffer than in single weights."""
    draws = torch.Generator().manual_seed(1)
    shapes = ((13, 7), (8, 320), (), (5, 3, 3, 3), (1,), (64, 65))
    return [Parameter(torch.randn(shape, generator=draws)) for shape in shapes]


def made(name, given, weights, *, flat=True):
    rate = catalog.OPTIMIZERS[name].advised_lr or 1e-3
    groups = (Group("textencoder", rate / 2, tuple(weights[:2])),)
    groups += (Group("unet", rate, tuple(weights[2:])),)
    return build_optimization(
        groups,
        optimizer_type=name,
        optimizer_args=given,
        lr_scheduler="cosine",
        schedule_params=ScheduleParams(40),
        device=torch.device("cpu"),
        flat=flat,
    )


def without(step: int) -> set[int]:
    """Weights without a gradient: one for good, one from a step on, one now and then, a group."""
    gone = {4} | ({0} if step >= 5 else set()) | ({3} if step % 4 == 2 else set())
    return gone | ({0, 1} if 7 <= step < 9 else set())


def learn(own, weights, steps, missing=without):
    for step in steps:
        draws = torch.Generator().manual_seed(100 + step)
        for number, weight in enumerate(weights):
            gradient = torch.randn(weight.shape, generator=draws)
            weight.grad = None if number in missing(step) else gradient
        own.optimizer.step()
        own.scheduler.step()
        own.optimizer.zero_grad()


def same(one, other) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def same_state(one, other) -> bool:
    """In every name and bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_state(one[k], other[k]) for k in one)
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return one == other


@pytest.mark.parametrize(("name", "given"), CASES)
def test_weights_in_one_buffer_learn_as_single_ones_to_the_last_bit(name, given):
    mine, theirs = start(), start()
    own, plain = made(name, given, mine), made(name, given, theirs, flat=False)
    assert isinstance(own.optimizer, Flat)
    assert not isinstance(plain.optimizer, Flat)
    assert own.described == plain.described
    learn(own, mine, range(STEPS))
    learn(plain, theirs, range(STEPS))
    assert same(mine, theirs)
    assert not same(mine, start())
    assert torch.equal(mine[4], start()[4])  # no gradient: it does not even decay
    assert same_state(own.optimizer.state_dict(), plain.optimizer.state_dict())


@pytest.mark.parametrize(("name", "given"), CASES)
@pytest.mark.parametrize(("first", "then"), [(True, False), (False, True), (True, True)])
def test_a_state_goes_on_in_one_buffer_or_without(name, given, first, then):
    straight, broken, resumed = start(), start(), start()
    learn(made(name, given, straight, flat=first), straight, range(STEPS))
    own = made(name, given, broken, flat=first)
    learn(own, broken, range(6))
    kept = copy.deepcopy([own.optimizer.state_dict(), own.scheduler.state_dict()])
    second = made(name, given, resumed, flat=then)
    for weight, value in zip(resumed, broken, strict=True):
        weight.data.copy_(value.detach())
    restore_optimizer(second.optimizer, kept[0])
    second.scheduler.load_state_dict(kept[1])
    learn(second, resumed, range(6, STEPS))
    assert same(resumed, straight)


def test_a_state_that_is_kept_shares_no_memory():
    weights = start()
    own = made("AdamW", "", weights)
    learn(own, weights, range(2))
    kept = own.optimizer.state_dict()["state"]
    tensors = [value for state in kept.values() for value in state.values()]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
    assert all(t.untyped_storage().nbytes() == t.numel() * t.element_size() for t in tensors)


def test_addresses_stay_and_gradients_are_zeroed_in_place():
    weights = start()
    own = made("AdamW", "", weights)
    learn(own, weights, range(1), missing=lambda _: set())
    flat = flat_of(own.optimizer)

    def addresses():
        state = [value for each in own.optimizer.state.values() for value in each.values()]
        grads = [weight.grad for weight in weights]
        return [tensor.data_ptr() for tensor in (*weights, *grads, *state)], flat.generation

    before = addresses()
    assert not flat.buffers.gradients.any()
    for weight in weights:
        weight.sum().backward()  # as a training does: gradients are added in place
    assert all(torch.equal(weight.grad, torch.ones_like(weight)) for weight in weights)
    assert flat.buffers.gradients.sum() == sum(weight.numel() for weight in weights)
    own.optimizer.step()
    own.optimizer.zero_grad()
    assert addresses() == before


def test_a_gradient_is_shortened_as_by_torch():
    mine, theirs = start(), start()
    flat = flat_of(made("AdamW", "", mine).optimizer)
    for number, pair in enumerate(zip(mine, theirs, strict=True)):
        if number != 3:
            draws = torch.Generator().manual_seed(number)
            pair[0].grad = torch.randn(pair[0].shape, generator=draws)
            pair[1].grad = pair[0].grad.clone()
    norm = flat.clip(1.0)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
    assert norm.item() == pytest.approx(expected.item(), rel=1e-6)
    assert mine[3].grad is None
    for one, other in zip(mine, theirs, strict=True):
        assert one.grad is None or torch.allclose(one.grad, other.grad, rtol=1e-5, atol=0)
    assert flat.clip(float("inf")).item() == pytest.approx(1.0, rel=1e-5)


def test_looking_at_the_average_in_between_changes_nothing():
    straight, looked_at = start(), start()
    learn(made("AdamWScheduleFree", "", straight), straight, range(8))
    own = made("AdamWScheduleFree", "", looked_at)
    for step in range(8):
        learn(own, looked_at, range(step, step + 1))
        before = [weight.detach().clone() for weight in looked_at]
        with averaged(own):
            assert step == 0 or not same(looked_at, before)
    assert same(looked_at, straight)


def test_weights_of_two_precisions_stay_where_they_are():
    weights = start()
    weights[0].data = weights[0].data.bfloat16()
    assert flat_of(made("AdamW", "", weights).optimizer) is None


def test_an_update_is_a_handful_of_calls():
    from kit.bench.launches import aten_calls

    weights = start()
    own = made("AdamW", "", weights)
    learn(own, weights, range(1), missing=lambda _: set())
    assert sum(aten_calls(own.optimizer.step).values()) <= 12 * len(own.optimizer.param_groups)


# ------------------------------------------------------- AdamW with step and rate on the device


@pytest.mark.parametrize("given", ["", "weight_decay=0.1 amsgrad=True", "maximize=True eps=1e-6"])
def test_the_fused_kernel_moves_weights_as_torchs_adamw(given):
    """It is CUDA's; a CPU has it, too."""
    mine, theirs = start(), start()
    own, plain = made("AdamW", given, mine), made("AdamW", given, theirs, flat=False)
    assert type(plain.optimizer) is torch.optim.AdamW
    own.optimizer.fuses = True
    learn(own, mine, range(STEPS))
    learn(plain, theirs, range(STEPS))
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(mine, theirs, strict=True)
    )
    states = [each.optimizer.state_dict()["state"] for each in (own, plain)]
    steps = [{n: state["step"].item() for n, state in each.items()} for each in states]
    assert steps[0] == steps[1]


def test_the_fused_kernel_reads_nothing_back():
    weights = start()
    own = made("AdamW", "", weights)
    own.optimizer.fuses = True
    learn(own, weights, range(1))
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    own.optimizer.step()  # who has a gradient has changed, so runs are formed anew
    assert "_local_scalar_dense" not in aten_calls(own.optimizer.step)


def test_kernels_that_a_person_has_switched_off_stay_off(monkeypatch):
    own = made("AdamW", "fused=False", start())
    own.optimizer.fuses = True  # as on a GPU
    monkeypatch.setattr(type(own.optimizer), "_move", lambda *_: pytest.fail("fused all the same"))
    for weight in (place.weight for place in own.optimizer.buffers.places):
        weight.grad = torch.ones_like(weight)
    own.optimizer.step()


# ---------------------------------------------------------------------- bitsandbytes' optimizers


def test_a_group_of_8_bit_states_is_two_calls_and_none_waits_for_each_weight(monkeypatch):
    inside = pytest.importorskip("bitsandbytes.optim.optimizer")
    weights = [Parameter(torch.randn(side, 80)) for side in (8, 64, 16, 80, 52, 8)]
    own = made("AdamW8bit", "", weights)
    learn(own, weights, range(1), missing=lambda _: set())
    asked = []
    monkeypatch.setattr(inside, "sync_gpu", lambda _: pytest.fail("it waits for each"))
    for name in ("optimizer_update_8bit_blockwise", "optimizer_update_32bit"):
        real = getattr(inside.F, name)
        monkeypatch.setattr(
            inside.F,
            name,
            lambda *a, real=real, name=name, **k: (
                asked.append((name, a[1].numel())) or real(*a, **k)
            ),
        )
    learn(own, weights, range(1, 2), missing=lambda _: set())
    # The first group holds a small and a large weight, the second two of each, side by side.
    assert [name[17:20] for name, _ in asked] == ["8bi", "32b", "8bi", "32b"]
    assert asked[2][1] == 80 * 80 + 52 * 80
    begins = [place.start for place in own.optimizer.buffers.places]
    assert all(begin % 256 == 0 for begin in begins)
    state = own.optimizer.state_dict()["state"]
    kept = [state[number]["__bnb_optimizer_quant_state__"] for number in range(len(weights))]
    small = [weight.numel() < 4096 for weight in weights]
    assert [each["state1"].dtype is torch.float32 for each in kept] == small


def test_what_lies_between_two_weights_is_no_largest_value_when_runs_are_joined_anew():
    """It would spoil what the numbers beside it are rounded to."""
    ends = []
    for flat in (True, False):
        draws = torch.Generator().manual_seed(1)
        weights = [Parameter(torch.randn(5, 50, generator=draws)) for _ in range(4)]
        own = made("AdamW8bit", "min_8bit_size=64", weights, flat=flat)
        for step in range(9):  # averages that shrink soon after the runs are joined
            for number, weight in enumerate(weights):
                noise = torch.randn(weight.shape, generator=draws)
                has_none = number == 1 and step in (3, 4)
                weight.grad = None if has_none else 0.1 * noise + (1 if step < 5 else -1)
            own.optimizer.step()
            own.optimizer.zero_grad()
        ends.append(weights)
    assert same(*ends)
