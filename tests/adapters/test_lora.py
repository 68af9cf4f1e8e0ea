"""One adapter: the reference's numbers, and what dropouts and norms promise."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from kit.adapters.lora import Lora
from kit.adapters.ops import lora_delta

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = json.loads((GOLDEN / "lora_forward.json").read_text())
TENSORS = load_file(GOLDEN / "lora_forward.safetensors")
LAYERS = {
    "linear": (lambda: nn.Linear(12, 10), (5, 12)),
    "linear on tokens": (lambda: nn.Linear(12, 10), (2, 7, 12)),
    "conv 1x1": (lambda: nn.Conv2d(6, 8, 1), (2, 6, 5, 5)),
    "conv 3x3": (lambda: nn.Conv2d(6, 8, 3, padding=1), (2, 6, 7, 7)),
    "conv 3x3 with stride": (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 7, 7)),
}


def tensors(prefix: str) -> dict[str, torch.Tensor]:
    """Recorded tensors below a prefix."""
    start = f"{prefix}."
    return {key.removeprefix(start): t for key, t in TENSORS.items() if key.startswith(start)}


def layer_like(weight: torch.Tensor, bias: torch.Tensor, stride: int) -> nn.Linear | nn.Conv2d:
    if weight.ndim == 2:
        layer = nn.Linear(weight.shape[1], weight.shape[0])
    else:
        side = weight.shape[2]
        layer = nn.Conv2d(*weight.shape[1::-1], side, stride=stride, padding=side // 2)
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer.requires_grad_(False)


def bare(weights: dict[str, torch.Tensor], alpha: float = 0.0) -> Lora:
    """An adapter with the given up and down parts."""
    down, up = weights["lora_down.weight"], weights["lora_up.weight"]
    if down.ndim == 2:
        layer = nn.Linear(down.shape[1], up.shape[0])
    else:
        layer = nn.Conv2d(down.shape[1], up.shape[0], down.shape[2])
    adapter = Lora(layer, rank=down.shape[0], alpha=alpha)
    adapter.lora_down.weight.data.copy_(down)
    adapter.lora_up.weight.data.copy_(up)
    return adapter


@pytest.fixture(params=LAYERS)
def layer_and_inputs(request):
    make, shape = LAYERS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().requires_grad_(False), torch.randn(shape)


def trained(layer: nn.Module, **changes) -> Lora:
    """An adapter of rank 4 whose up part is no longer zero."""
    adapter = Lora(layer, **{"rank": 4, "alpha": 2.0} | changes)
    adapter.start(1, "lora", "layer")
    draws = torch.Generator().manual_seed(2)
    adapter.lora_up.weight.data.normal_(std=0.3, generator=draws)
    return adapter


@pytest.mark.parametrize("case", RECORDED["forward"], ids=lambda case: case["name"])
def test_outputs_and_gradients_are_the_references(case):
    recorded = tensors(case["name"])
    layer = layer_like(recorded["weight"], recorded["bias"], case["stride"])
    adapter = Lora(layer, rank=case["rank"], alpha=case["alpha"] or 0)
    adapter.multiplier = case["multiplier"]
    adapter.lora_down.weight.data.copy_(recorded["lora_down"])
    adapter.lora_up.weight.data.copy_(recorded["lora_up"])
    layer.register_forward_hook(adapter.add_to)
    inputs = recorded["x"].clone().requires_grad_()
    outputs = layer(inputs)
    loss = outputs.square().sum()
    loss.backward()

    assert adapter.scale == case["scale"]
    assert adapter.alpha.item() == case["alpha_buffer"]
    assert loss.item() == pytest.approx(case["loss_sum_sq"], rel=1e-5)
    for ours, name in [
        (outputs, "y"),
        (inputs.grad, "grad_x"),
        (adapter.lora_down.weight.grad, "grad_down"),
        (adapter.lora_up.weight.grad, "grad_up"),
    ]:
        assert torch.allclose(ours, recorded[name], rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("case", RECORDED["forward"], ids=lambda case: case["name"])
def test_the_merged_weight_is_the_references(case):
    recorded = tensors(case["name"])
    scale = case["scale"] * case["multiplier"]
    merged = recorded["weight"] + lora_delta(recorded["lora_up"], recorded["lora_down"], scale)
    assert torch.allclose(merged, recorded["merged_weight"], atol=1e-6)


@pytest.mark.parametrize("number", range(len(RECORDED["max_norm"])))
def test_limited_norms_are_the_references(number):
    case, recorded = RECORDED["max_norm"][number], tensors("maxnorm_in")
    norms, scaled, changed = [], 0, []
    for name in sorted({key.split(".")[0] for key in recorded}):
        weights = {key: recorded[f"{name}.{key}"] for key in ("lora_down.weight", "lora_up.weight")}
        adapter = bare(weights, float(recorded[f"{name}.alpha"]))
        norm, was_scaled = adapter.limit_norm(case["max_norm"])
        assert norm == pytest.approx(adapter.delta().norm().item(), rel=1e-5)
        norms.append(norm)
        scaled += was_scaled
        for key, before in weights.items():
            after = adapter.state_dict()[key]
            if not torch.equal(after, before):
                changed.append(f"{name}.{key}")
                expected = TENSORS[f"maxnorm{number}_out.{name}.{key}"]
                assert torch.allclose(after, expected, rtol=1e-5, atol=1e-7)
    assert sorted(changed) == sorted(case["changed_keys"])
    assert scaled == case["keys_scaled"]
    assert sum(norms) / len(norms) == pytest.approx(case["mean_norm"], rel=1e-5)
    assert max(norms) == pytest.approx(case["maximum_norm"], rel=1e-5)


def test_a_fresh_adapter_changes_nothing(layer_and_inputs):
    layer, inputs = layer_and_inputs
    before = layer(inputs)
    adapter = Lora(layer, rank=4, alpha=1.0)
    adapter.start(1, "lora", "layer")
    layer.register_forward_hook(adapter.add_to)
    assert torch.equal(layer(inputs), before)
    assert not adapter.delta().any()


def test_the_down_part_starts_within_one_over_the_root_of_the_inputs(layer_and_inputs):
    layer, _ = layer_and_inputs
    adapter = Lora(layer, rank=4, alpha=1.0)
    adapter.start(1, "lora", "layer")
    bound = layer.weight[0].numel() ** -0.5
    longest = adapter.lora_down.weight.abs().max()
    assert 0.5 * bound < longest <= bound


def test_the_start_is_a_function_of_the_address():
    layer = nn.Linear(12, 10)

    def started(*address):
        adapter = Lora(layer, rank=4, alpha=1.0)
        adapter.start(*address)
        return adapter.lora_down.weight

    assert torch.equal(started(1, "lora", "a"), started(1, "lora", "a"))
    assert not torch.equal(started(1, "lora", "a"), started(1, "lora", "b"))
    assert not torch.equal(started(1, "lora", "a"), started(2, "lora", "a"))


def test_delta_is_what_the_forward_pass_adds(layer_and_inputs):
    layer, inputs = layer_and_inputs
    adapter = trained(layer)
    before = layer(inputs)
    hook = layer.register_forward_hook(adapter.add_to)
    adapted = layer(inputs)
    hook.remove()
    layer.weight.data += adapter.delta().detach()
    assert torch.allclose(layer(inputs), adapted, atol=1e-5)
    assert (adapted - before).abs().max() > 0.1


def test_an_alpha_of_zero_is_the_rank():
    adapter = Lora(nn.Linear(12, 10), rank=3, alpha=0)
    assert adapter.scale == 1
    assert adapter.alpha.item() == 3


def test_a_multiplier_of_zero_leaves_the_output_alone(layer_and_inputs):
    layer, inputs = layer_and_inputs
    adapter = trained(layer)
    adapter.multiplier = 0.0
    before = layer(inputs)
    assert adapter.add_to(layer, (inputs,), before) is before


def test_weights_stay_in_32_bits_over_a_base_in_16():
    layer = nn.Linear(12, 10, dtype=torch.bfloat16).requires_grad_(False)
    adapter = trained(layer)
    layer.register_forward_hook(adapter.add_to)
    outputs = layer(torch.ones(5, 12, dtype=torch.bfloat16))
    outputs.float().sum().backward()
    assert outputs.dtype == torch.bfloat16
    for weight in adapter.parameters():
        assert weight.dtype == weight.grad.dtype == torch.float32
    assert adapter.delta().dtype == torch.float32


def test_autocast_computes_in_16_bits_and_learns_in_32():
    layer = nn.Linear(12, 10, dtype=torch.bfloat16).requires_grad_(False)
    adapter = trained(layer)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        change = adapter(torch.ones(5, 12))
    change.float().sum().backward()
    assert change.dtype == torch.bfloat16
    assert adapter.lora_up.weight.grad.dtype == torch.float32


DROPOUTS = [{"network_dropout": 0.5}, {"rank_dropout": 0.5}, {"module_dropout": 0.5}]


@pytest.mark.parametrize("dropout", DROPOUTS, ids=lambda d: next(iter(d)))
def test_dropouts_act_in_training_only(layer_and_inputs, dropout):
    layer, inputs = layer_and_inputs
    plain, dropping = trained(layer), trained(layer, **dropout)
    assert dropping.draws
    assert not plain.draws
    outputs = layer(inputs)

    def adapted(adapter, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return adapter.add_to(layer, (inputs,), outputs)

    expected = adapted(plain, 0)
    trials = [adapted(dropping.train(), seed) for seed in range(8)]
    assert any(not torch.equal(trial, expected) for trial in trials)
    assert all(torch.equal(adapted(dropping, seed), trials[seed]) for seed in range(8))
    assert torch.equal(adapted(dropping.eval(), 0), expected)


@pytest.mark.parametrize("dropout", [{"network_dropout": 0.3}, {"rank_dropout": 0.3}], ids=str)
def test_the_mean_change_is_kept(layer_and_inputs, dropout):
    layer, inputs = layer_and_inputs
    dropping, plain = trained(layer, **dropout).train(), trained(layer)
    many = inputs[:1].repeat(20_000 // inputs[0].numel() * 4, *[1] * (inputs.dim() - 1))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        change, expected = dropping(many), plain(inputs[:1])[0]
    error = (change.mean(0) - expected).norm() / expected.norm()
    assert error < 0.1
    assert change.std(0).max() > 0.01


def test_rank_dropout_takes_whole_ranks_from_each_sample():
    layer = nn.Conv2d(6, 8, 3, padding=1)
    adapter = trained(layer, rank_dropout=0.5).train()
    hidden = torch.ones(64, 4, 5, 5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kept = adapter.rank_dropout.mask(hidden, is_conv=True)
    assert kept.shape == (64, 4, 1, 1)
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert 0.4 < kept.mean() < 0.6


def test_module_dropout_skips_the_whole_change(layer_and_inputs):
    layer, inputs = layer_and_inputs
    adapter = trained(layer, module_dropout=0.5).train()
    outputs = layer(inputs)
    whole = outputs + trained(layer)(inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        trials = [adapter.add_to(layer, (inputs,), outputs) for _ in range(200)]
    skipped = sum(trial is outputs for trial in trials)
    assert 70 < skipped < 130
    assert all(trial is outputs or torch.equal(trial, whole) for trial in trials)


def test_a_runs_state_names_its_weights_down_first(layer_and_inputs):
    adapter = Lora(layer_and_inputs[0], rank=4, alpha=1.0)
    assert list(adapter.state_dict()) == ["alpha", "lora_down.weight", "lora_up.weight"]
    assert [*adapter.parameters()] == [adapter.lora_down.weight, adapter.lora_up.weight]
