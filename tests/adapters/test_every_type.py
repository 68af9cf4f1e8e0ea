"""What every LoRA type promises, for each row of the catalog: being listed is being tested."""

import copy

import pytest
import torch
from torch import nn

from kit import catalog
from kit.adapters.base import Adapter
from kit.adapters.from_file import Entry
from kit.adapters.network import Size, make_adapter
from kit.adapters.restoring import as_trained, unsaid
from kit.families import Layer
from kit.lorafile.tensors import split_name
from kit.settings import NetworkSettings
from kit.settings.targets import PRESETS

LAYERS = {
    "linear": (lambda: nn.Linear(24, 16), (2, 7, 24)),
    "linear without bias": (lambda: nn.Linear(16, 32, bias=False), (5, 16)),
    "conv 1x1": (lambda: nn.Conv2d(12, 16, 1), (2, 12, 5, 5)),
    "conv 3x3 with stride": (lambda: nn.Conv2d(12, 16, 3, stride=2, padding=1), (2, 12, 7, 7)),
}
# Ways in which a type can be asked for, beside its plain one.
WAYS = {
    "plain": {},
    "use_tucker": {"use_tucker": True},
    "use_scalar": {"use_scalar": True},
    "dora_wd": {"dora_wd": True},
    "dora_wd on outputs": {"dora_wd": True, "wd_on_output": True},
    "decompose_both": {"decompose_both": True, "factor": 4, "network_dim": 1},
    "factor": {"factor": 2},
    "whole factors": {"factor": 4, "network_dim": 100},
    "rs_lora": {"rs_lora": True},
    "rescaled": {"rescaled": True},
    "constraint": {"constraint": 0.01},
    "on outputs": {"train_on_input": False},
    "unit": {"unit": 2},
}


def cases():
    """Every type in every way that it knows."""
    for kind, row in catalog.LORA_TYPES.items():
        for way, changes in WAYS.items():
            if way == "whole factors" and "factor" not in row.uses:
                continue
            if set(changes) <= {*row.uses, "network_dim"}:
                yield pytest.param(kind, changes, id=f"{kind}-{way}")


EVERY = pytest.mark.parametrize(("kind", "changes"), list(cases()))


@pytest.fixture(params=LAYERS)
def place(request):
    make, shape = LAYERS[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().requires_grad_(False), torch.randn(shape)


def settings_of(kind, changes):
    return NetworkSettings(LoRA_type=kind, **{"network_dim": 4, "network_alpha": 2.0} | changes)


def made(layer, kind, changes, entry=None, *, asked=None) -> Adapter:
    settings = settings_of(kind, changes)
    size = Size(entry.rank, entry.alpha) if entry else Size(settings.network_dim, 2.0)
    settings = asked or settings
    adapter = make_adapter(
        settings, Layer("layer", layer, "unet", True), size, entry, PRESETS["full"]
    )
    adapter.start(1, "lora", "layer")
    return adapter


def randomize(adapter: Adapter, spread=0.2, seed=3) -> Adapter:
    """Every weight away from where it started."""
    draws = torch.Generator().manual_seed(seed)
    for weight in adapter.parameters():
        weight.data += torch.randn(weight.shape, generator=draws) * spread
    return adapter


def adapted(adapter, layer, inputs):
    return adapter.add_to(layer, (inputs,), layer(inputs))


def merged(adapter, layer):
    """The layer with the change in its own weight and bias."""
    whole = copy.deepcopy(layer)
    whole.weight.data += adapter.delta().detach()
    bias = adapter.delta_bias()
    if bias is not None:
        whole.bias.data += bias.detach()
    return whole


def entry_of(adapter) -> Entry:
    return Entry(type(adapter), {role: t.clone() for role, t in adapter.tensors().items()})


def read_back(adapter) -> Entry:
    """As a run goes on from its file."""
    file = {f"layer.{role}": t.clone() for role, t in adapter.tensors().items()}
    trained = as_trained(file, unsaid({"layer": adapter.unsaid()}), tucker=True)
    return Entry(type(adapter), {key.removeprefix("layer."): t for key, t in trained.items()})


@EVERY
def test_untrained_it_changes_nothing(kind, changes, place):
    layer, inputs = place
    adapter = made(layer, kind, changes)
    assert torch.allclose(adapted(adapter, layer, inputs), layer(inputs), atol=1e-6)
    assert adapter.delta().abs().max() < 1e-6
    assert adapter.delta().shape == layer.weight.shape


@EVERY
def test_its_start_is_a_function_of_the_address(kind, changes, place):
    layer, _ = place
    one, two = made(layer, kind, changes), made(layer, kind, changes)
    other = made(layer, kind, changes)
    other.start(2, "lora", "layer")
    assert all(torch.equal(t, two.state_dict()[n]) for n, t in one.state_dict().items())
    drawn = [n for n, w in one.named_parameters() if w.unique().numel() > 1 and "dora" not in n]
    assert all(not torch.equal(one.state_dict()[n], other.state_dict()[n]) for n in drawn)


@EVERY
def test_it_learns_in_32_bits(kind, changes, place):
    """A few steps bring the outputs nearer to where they would be if they were turned a little."""
    layer, inputs = place
    adapter = made(layer, kind, changes).train()
    axis = 1 if inputs.dim() == 4 else -1
    one, other = layer(inputs).unflatten(axis, (-1, 2)).unbind(2 if axis == 1 else -1)
    pairs = [0.8 * one - 0.6 * other, 0.6 * one + 0.8 * other]  # turned, so that OFT can follow
    wanted = torch.stack(pairs, 2 if axis == 1 else -1).flatten(*((1, 2) if axis == 1 else (-2,)))
    optimizer = torch.optim.Adam(adapter.learning(), lr=0.02)
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(30):
            loss = (adapted(adapter, layer, inputs) - wanted).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(w.dtype == torch.float32 for w in adapter.parameters())


@EVERY
def test_merged_it_acts_as_beside_the_layer(kind, changes, place):
    layer, inputs = place
    adapter = randomize(made(layer, kind, changes)).eval()
    beside = adapted(adapter, layer, inputs)
    assert torch.allclose(merged(adapter, layer)(inputs), beside, atol=2e-5)
    assert (beside - layer(inputs)).abs().max() > 1e-3
    adapter.multiplier = 0.5
    half = adapted(adapter, layer, inputs)
    assert torch.allclose(half - layer(inputs), (beside - layer(inputs)) / 2, atol=1e-5)


@EVERY
def test_over_a_base_in_16_bits_no_small_change_is_lost(kind, changes, place):
    layer, inputs = place
    adapter = made(layer.to(torch.bfloat16), kind, changes)
    randomize(adapter, spread=1e-3).eval()
    inputs = inputs.bfloat16()
    change = adapter.change(inputs, layer(inputs))
    exact = merged(adapter, copy.deepcopy(layer).float())(inputs.float()) - layer.float()(
        inputs.float()
    )
    assert change.dtype == torch.float32
    error = (change - exact).norm() / exact.norm()
    assert error < 0.02


@EVERY
def test_its_file_holds_known_names_and_loads_again_to_the_same(kind, changes, place):
    layer, inputs = place
    adapter = randomize(made(layer, kind, changes)).eval()
    entry = entry_of(adapter)
    kinds = {split_name(f"lora_unet_layer.{role}")[2] for role in entry.tensors}
    assert len(kinds - {""}) == 1
    again = made(layer, kind, changes)
    again.take(read_back(adapter).tensors)
    expected = adapted(adapter, layer, inputs)
    assert torch.allclose(adapted(again.eval(), layer, inputs), expected, atol=1e-5)


@EVERY
def test_its_shape_comes_from_the_file_where_asked(kind, changes, place):
    layer, inputs = place
    adapter = randomize(made(layer, kind, changes)).eval()
    entry = read_back(adapter)
    assert type(adapter).reads(entry.shapes)
    asked = NetworkSettings(LoRA_type=kind, dim_from_weights=True, network_weights="a file")
    again = made(layer, kind, changes, entry, asked=asked)
    again.take(entry.tensors)
    expected = adapted(adapter, layer, inputs)
    assert torch.allclose(adapted(again.eval(), layer, inputs), expected, atol=1e-5)
    kept = {name: tuple(w.shape) for name, w in adapter.named_parameters() if name != "scalar"}
    assert {name: tuple(w.shape) for name, w in again.named_parameters()} == kept
    assert again.unsaid() == pytest.approx(adapter.unsaid())


@pytest.mark.parametrize("alpha", [0.0, 1.0, 8.0])
@EVERY
def test_a_file_acts_the_same_under_another_alpha(kind, changes, alpha):
    layer, inputs = nn.Linear(24, 16), torch.ones(3, 24)
    adapter = randomize(made(layer, kind, changes)).eval()
    asked = settings_of(kind, changes | {"network_alpha": alpha})
    other = make_adapter(
        asked,
        Layer("layer", layer, "unet", True),
        Size(asked.network_dim, alpha),
        None,
        PRESETS["full"],
    )
    other.take(entry_of(adapter).tensors)
    expected = adapted(adapter, layer, inputs)
    assert torch.allclose(adapted(other.eval(), layer, inputs), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["network_dropout", "rank_dropout", "module_dropout"])
@pytest.mark.parametrize("kind", catalog.LORA_TYPES)
def test_its_dropouts_act_in_training_alone(kind, name, place):
    layer, inputs = place
    adapter = randomize(made(layer, kind, {name: 0.5}))
    plain = randomize(made(layer, kind, {}))
    assert adapter.draws

    def drawn(which, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return adapted(which, layer, inputs)

    trials = [drawn(adapter.train(), seed) for seed in range(8)]
    assert any(not torch.allclose(trial, trials[0]) for trial in trials)
    assert all(torch.equal(drawn(adapter, seed), trials[seed]) for seed in range(8))
    assert torch.equal(drawn(adapter.eval(), 0), drawn(plain.eval(), 0))


@EVERY
def test_its_norm_is_limited_where_it_says_so(kind, changes, place):
    if "scale_weight_norms" not in catalog.LORA_TYPES[kind].uses:
        return
    layer, _ = place
    adapter = randomize(made(layer, kind, changes), spread=0.5)
    before = adapter.length().item()
    assert adapter.limit_norm(before * 2) == (pytest.approx(before), False)
    assert adapter.limit_norm(before / 2)[1]
    assert adapter.length().item() == pytest.approx(before / 2, rel=1e-4)


@EVERY
def test_what_lora_plus_speeds_up_learns(kind, changes, place):
    adapter = made(place[0], kind, changes)
    learning = {id(weight) for weight in adapter.learning()}
    assert {id(weight) for weight in adapter.fast()} <= learning


def test_of_lora_fa_only_the_up_part_learns():
    adapter = made(nn.Linear(24, 16), "LoRA-FA", {})
    assert adapter.learning() == (adapter.lora_up.weight,)
    spread = adapter.lora_down.weight.std().item()
    assert spread == pytest.approx((2 / 28) ** 0.5, rel=0.3)


def test_dylora_teaches_one_block_of_ranks_at_a_time():
    layer, inputs = nn.Linear(24, 16), torch.ones(3, 24)
    adapter = randomize(made(layer, "Kohya DyLoRA", {"unit": 2})).train()
    taught = set()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(12):
            adapter.zero_grad()
            adapter(inputs).sum().backward()
            rows = adapter.lora_down.weight.grad.abs().sum(1).nonzero().flatten().tolist()
            columns = adapter.lora_up.weight.grad.abs().sum(0).nonzero().flatten().tolist()
            assert rows == columns
            taught.add(tuple(rows))
    assert taught == {(0, 1), (2, 3)}


def test_dyloras_first_ranks_alone_are_strengthened():
    layer, inputs = nn.Linear(24, 16), torch.ones(3, 24)
    adapter = randomize(made(layer, "Kohya DyLoRA", {"unit": 2})).train()
    up, down = adapter.lora_up.weight, adapter.lora_down.weight
    expected = {
        ranks: (inputs @ down[:ranks].T @ up[:, :ranks].T) * 0.5 * (4 / ranks) ** 0.5
        for ranks in (2, 4)
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(6):
            change = adapter(inputs)
            assert any(torch.allclose(change, other, atol=1e-5) for other in expected.values())
