"""The training step: no plan in it, and nothing that makes the host wait for the device."""

import ast
from pathlib import Path

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch.utils._python_dispatch import TorchDispatchMode

import kit.training.step as module
from kit.adapters.network import parts_of
from kit.bench.steps import make_step
from kit.diffusion.noise import draw_normal
from kit.settings import NetworkSettings, Noise
from kit.training.batches import Batch
from kit.training.step import NotFinite, TrainingStep, run_step
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny

LOSSES = Noise(
    loss_type="huber", min_snr_gamma=5.0, debiased_estimation_loss=True, huber_schedule="snr"
)


class Reads(TorchDispatchMode):
    """The calls that hand a number of a tensor to Python: on a GPU, they wait for it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name in ("aten::_local_scalar_dense", "aten::nonzero"):
            self.seen.append(function._schema.name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(params=["sd1", "sdxl"])
def ready(request, tmp_path):
    """A step of U-Net and text encoders, with a batch; its network is gone after the test."""
    family = load_tiny(write_tiny(tmp_path / "model", request.param, thin=True))
    rates = dict.fromkeys(parts_of(family), 1e-2)
    settings = NetworkSettings(network_dim=2)
    step, network = make_step(family, settings, rates, noise=LOSSES)
    yield step, network, batch(step)
    network.detach_hooks()


def batch(step):
    tokens, _ = step.text.tokens(["a zib ball", "a dog"])
    latents_BChw, noise_BChw = (draw_normal((2, 4, 8, 8), name) for name in ("latents", "noise"))
    return Batch(
        latents_BChw=latents_BChw,
        noise_BChw=noise_BChw,
        t_B=torch.tensor([10, 800]),
        weight_B=torch.tensor([1.0, 0.5]),
        tokens=tokens,
        text_embeds=None,
        crops_B6=torch.tensor([[64, 64, 0, 0, 64, 64]] * 2),
        mask_B1hw=torch.full((2, 1, 8, 8), 0.5),
        perturbation_BChw=0.1 * noise_BChw,
    )


def test_loss_and_backward_read_nothing_back(ready):
    step, network, given = ready
    with Reads() as reads:
        loss_B = step.loss(given)
        step.backward(loss_B, 1)
    assert reads.seen == []
    assert loss_B.shape == (2,)
    assert any(weight.grad is not None for weight in network.parameters())
    with Reads() as reads:
        loss_B.mean().item()
    assert reads.seen  # such a reading is seen


def test_the_parts_of_a_step_are_the_whole(ready):
    step, network, given = ready
    before = {name: tensor.clone() for name, tensor in network.tensors().items()}
    loss_B = step.loss(given)
    step.backward(loss_B, 1)
    norm = step.optimizer_step()
    apart = {name: tensor.clone() for name, tensor in network.tensors().items()}
    for name, tensor in network.tensors().items():
        tensor.copy_(before[name])
    step.optimization.optimizer.optimizer.state.clear()
    result = run_step(step, [given], count=1)
    assert result.losses == [loss_B.mean().item()]
    assert result.norm == norm.item() > 0
    assert all(torch.equal(tensor, apart[name]) for name, tensor in network.tensors().items())
    assert result.bands[0] == pytest.approx(loss_B[0].item(), abs=1e-6)
    assert result.bands[3] == pytest.approx(loss_B[1].item(), abs=1e-6)
    assert result.bands[1:3] == (None, None)


def test_a_loss_that_is_not_finite_moves_nothing(ready):
    step, network, given = ready
    given.latents_BChw[0, 0, 0, 0] = torch.nan
    before = {name: tensor.clone() for name, tensor in network.tensors().items()}
    with pytest.raises(NotFinite):
        run_step(step, [given], count=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.tensors().items())
    assert not any(w.grad is not None and w.grad.any() for w in network.parameters())


def test_a_norm_that_fp16s_scaler_will_look_at_is_told_as_zero(ready, monkeypatch):
    step, network, given = ready
    before = {name: tensor.clone() for name, tensor in network.tensors().items()}
    monkeypatch.setattr(TrainingStep, "clip", lambda self: torch.tensor(float("inf")))
    with pytest.raises(NotFinite, match="its norm is inf"):
        run_step(step, [given], count=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.tensors().items())
    monkeypatch.setattr(step.accelerator, "scaler", torch.amp.GradScaler("cpu"))
    assert run_step(step, [given], count=1).norm == 0.0


def test_a_step_that_is_forgotten_half_way_leaves_the_scaler_as_it_was(ready, monkeypatch):
    step, _, given = ready
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    monkeypatch.setattr(step.accelerator, "scaler", scaler)
    step.forget()  # before it has seen anything
    inner = step.optimization.optimizer.optimizer
    for _ in range(2):  # the second unscaling would be refused as one too many
        scaler.scale(step.loss(given).mean()).backward()
        scaler.unscale_(inner)
        kept = scaler.state_dict()
        step.forget()
        assert scaler.state_dict() == kept


def scaled(step, monkeypatch, scale=8.0):
    """As with fp16: the loss is scaled, gradients are looked at before the update."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    inner = step.optimization.optimizer.optimizer
    step.optimization.optimizer = AcceleratedOptimizer(inner, scaler=scaler)
    monkeypatch.setattr(step.accelerator, "scaler", scaler)
    monkeypatch.setattr(step.accelerator, "unscale_gradients", lambda: scaler.unscale_(inner))
    return scaler


def test_a_gradient_that_others_made_is_unscaled_before_any_loss_of_our_own(ready, monkeypatch):
    step, network, given = ready
    scaler = scaled(step, monkeypatch)
    scaler.load_state_dict({**scaler.state_dict(), "scale": 4.0})  # as after a resume
    step.loss(given).mean().backward()
    own = [w.grad.clone() for w in network.parameters() if w.grad is not None]
    step.clip()
    theirs = [w.grad for w in network.parameters() if w.grad is not None]
    assert all(torch.equal(4 * b, a) for a, b in zip(own, theirs, strict=True))
    step.update()
    assert not step.has_overflowed


class Unscaled(TorchDispatchMode):
    """How many tensors each unscaling is given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._amp_foreach_non_finite_check_and_unscale_.default:
            self.seen.append(len(args[0]))
        return func(*args, **(kwargs or {}))


def test_the_whole_gradient_is_unscaled_as_one(ready, monkeypatch):
    step, network, given = ready
    start = {name: tensor.clone() for name, tensor in network.tensors().items()}
    plain = run_step(step, [given], count=1)
    expected = {name: tensor.clone() for name, tensor in network.tensors().items()}
    for name, tensor in network.tensors().items():
        tensor.copy_(start[name])
    step.optimization.optimizer.optimizer.state.clear()
    groups = [list(group["params"]) for group in step.optimization.optimizer.param_groups]
    scaled(step, monkeypatch)  # by a power of two, which rounds nothing
    with Unscaled() as unscaled:
        result = run_step(step, [given], count=1)
    assert unscaled.seen == [1]
    assert result == plain
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.tensors().items())
    after = [group["params"] for group in step.optimization.optimizer.param_groups]
    assert all(
        a is b
        for own, now in zip(groups, after, strict=True)
        for a, b in zip(own, now, strict=True)
    )


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_one_number_that_is_none_leaves_out_the_update(ready, monkeypatch, bad):
    step, network, given = ready
    scaler = scaled(step, monkeypatch)
    run_step(step, [given], count=1)
    before = {name: tensor.clone() for name, tensor in network.tensors().items()}
    loss_B = step.loss(given)
    step.backward(loss_B, 1)
    next(reversed([w for w in network.parameters() if w.grad is not None])).grad.view(-1)[-1] = bad
    step.optimizer_step()
    assert step.has_overflowed
    assert scaler.get_scale() == 4.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.tensors().items())
    run_step(step, [given], count=1)
    assert not step.has_overflowed
    assert not all(torch.equal(t, before[name]) for name, t in network.tensors().items())


def test_it_knows_no_plan_and_no_settings():
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [
        n for n in imported if n.startswith(("kit.planning", "kit.settings", "kit.catalog"))
    ]
