"""Gathered batches: their mean moves the weights, as one batch of all their images would."""

from dataclasses import replace

import pytest
import torch

from kit import planning
from kit.training.preparation import prepare
from kit.training.step import run_step
from tests.support.parts import outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, lora, losses, run, same, toy_settings

RATE = 0.5
PLAIN_SGD = {
    "optimizer_type": "SGDNesterov",
    "optimizer_args": "momentum=0 nesterov=False weight_decay=0",
    "unet_lr": RATE,
    "text_encoder_lr": RATE,
    "lr_scheduler": "constant",
    "lr_warmup": 0,
    "max_grad_norm": 0.0,
    "epoch": 1,
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Settings over six batches an epoch, two of them in a bucket of their own."""
    root = tmp_path_factory.mktemp("gathering")
    model, images = write_tiny(root / "model", "sd1", thin=True), draw_images(root / "images")
    return lambda out, **changes: toy_settings(model, images, out, **changes)


def ready_for(settings):
    ready, _ = outcome(prepare(planning.plan(settings)))
    with torch.no_grad():  # an adapter's first factor gets no gradient while the second is 0
        for number, weight in enumerate(ready.network.parameters()):
            weight.add_(0.01 * torch.randn(weight.shape, generator=seeded(number)))
    return ready


def seeded(number):
    return torch.Generator().manual_seed(number)


def learned(ready):
    return [
        weight for group in ready.optimization.optimizer.param_groups for weight in group["params"]
    ]


def alike(ready):
    """The first two batches whose latents have one shape."""
    batches = [ready.batch_builder.batch(number) for number in range(6)]
    one = batches[0]
    return one, next(b for b in batches[1:] if b.latents_BChw.shape == one.latents_BChw.shape)


def joined(one, other):
    """Both batches as one of two images."""
    names = ("latents_BChw", "noise_BChw", "t_B", "weight_B", "crops_B6")
    both = {name: torch.cat([getattr(one, name), getattr(other, name)]) for name in names}
    tokens = tuple(torch.cat(pair) for pair in zip(one.tokens, other.tokens, strict=True))
    return replace(one, tokens=tokens, **both)


def test_two_gathered_batches_of_one_are_a_batch_of_two(tmp_path, asked):
    gathering, single = (ready_for(asked(tmp_path / name, **PLAIN_SGD)) for name in "ab")
    before = [weight.detach().clone() for weight in learned(single)]
    one, other = alike(single)
    gathered = run_step(gathering.training_step, [one, other], count=2)
    at_once = run_step(single.training_step, [joined(one, other)], count=1)
    assert sum(gathered.losses) / 2 == pytest.approx(at_once.losses[0], rel=1e-5)
    assert gathered.norm == pytest.approx(at_once.norm, rel=1e-4)
    moved = [new.detach() - old for new, old in zip(learned(single), before, strict=True)]
    assert sum(float(step.square().sum()) for step in moved) ** 0.5 == pytest.approx(
        RATE * at_once.norm, rel=1e-3
    )  # plain SGD: the rate times the gradient, so that a wrong divisor shows
    for new, at_once_too in zip(learned(gathering), learned(single), strict=True):
        assert torch.allclose(new, at_once_too, rtol=1e-4, atol=1e-7)


def test_a_short_window_divides_by_its_own_length(tmp_path, asked):
    """Six batches an epoch: gathering 100 of them gathers 6, and is the same run."""
    whole = run(asked(tmp_path / "a", **PLAIN_SGD, gradient_accumulation_steps=6))
    short = run(asked(tmp_path / "b", **PLAIN_SGD, gradient_accumulation_steps=100))
    assert len(losses(whole)) == 1
    assert losses(short) == losses(whole)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


def test_a_short_windows_gradient_is_the_mean_of_its_batches(tmp_path, asked):
    """Windows of 4 and 2: the second norm that is told is that of a mean over 2."""
    changes = {**PLAIN_SGD, "unet_lr": 1e-12, "text_encoder_lr": 1e-12}
    events = run(asked(tmp_path / "a", **changes, gradient_accumulation_steps=4))
    told = [event.norm for event in events if hasattr(event, "norm")]
    ready, _ = outcome(prepare(planning.plan(asked(tmp_path / "b", **changes))))
    ready.training_step.copies = None  # torch's own gradients, of the weights themselves
    for norm, window in zip(told, (range(4), range(4, 6)), strict=True):
        loss = sum(
            ready.training_step.loss(ready.batch_builder.batch(number)).mean() for number in window
        ) / len(window)
        weights = learned(ready)
        slopes = torch.autograd.grad(loss, weights, allow_unused=True)
        length = sum(float(slope.square().sum()) for slope in slopes if slope is not None) ** 0.5
        assert norm == pytest.approx(length, rel=1e-3)
