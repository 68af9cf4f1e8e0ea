"""DoRA files of either axis, and tensors of any shape: taken as they are meant, or refused."""

import itertools
import random
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from kit import catalog
from kit.adapters.network import attach
from kit.errors import KitError, LoraFileError
from kit.families import Layer
from kit.settings import NetworkSettings
from kit.settings.targets import CONVOLUTIONS, TRANSFORMER
from kit.training.state_fit import check_axis
from tests.adapters.test_every_type import WAYS, made, randomize

NAME = "lora_unet_layer"
LAYERS = {
    "linear": lambda: nn.Linear(24, 16),
    "square": lambda: nn.Linear(16, 16),
    "conv 1x1": lambda: nn.Conv2d(20, 16, 1),
    "conv 3x3": lambda: nn.Conv2d(20, 16, 3, padding=1),
    "square conv": lambda: nn.Conv2d(16, 16, 3, padding=1),
}
FACTORS = {
    "LyCORIS/LoCon": {"lora_up.weight": "ur", "lora_down.weight": "rd"},
    "LyCORIS/LoHa": dict.fromkeys(("hada_w1_a", "hada_w2_a"), "ur")
    | dict.fromkeys(("hada_w1_b", "hada_w2_b"), "rd"),
    "LyCORIS/LoKr": {"lokr_w1": "", "lokr_w2_a": "", "lokr_w2_b": ""},
}
RANK = 4


def layer_of(place):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LAYERS[place]().requires_grad_(False)


def attached(layer, settings, tensors):
    """The adapter that `attach` puts beside the layer for a file's tensors."""
    row = Layer(NAME, layer, "unet", True, blocks=frozenset((*TRANSFORMER, *CONVOLUTIONS)))
    family = SimpleNamespace(layers=lambda: (row,), norms=lambda: ())
    start = {f"{NAME}.{role}": tensor for role, tensor in tensors.items()}
    network = attach(settings, family, learns=frozenset({"unet"}), seed=1, start=start)
    network.detach_hooks()
    return dict(network.named())[NAME]


def foreign(kind, weight):
    """Factors and their change, alpha 2, made without the product's own code."""
    draws = torch.Generator().manual_seed(7)

    def drawn(*shape):
        return torch.randn(shape, generator=draws) * 0.3

    outputs, inputs, *kernel = weight.shape
    behind = weight[0].numel()
    if kind == "LyCORIS/LoCon":
        ones = [1] * len(kernel)
        up, down = drawn(outputs, RANK, *ones), drawn(RANK, inputs, *kernel)
        file = {"lora_up.weight": up, "lora_down.weight": down}
        change = up.flatten(1) @ down.flatten(1)
    elif kind == "LyCORIS/LoHa":
        file = {
            f"hada_w{half}_{side}": drawn(*((outputs, RANK) if side == "a" else (RANK, behind)))
            for half, side in itertools.product("12", "ab")
        }
        change = (file["hada_w1_a"] @ file["hada_w1_b"]) * (file["hada_w2_a"] @ file["hada_w2_b"])
    else:
        small, many = drawn(4, 4), behind // 4
        wide, high = drawn(outputs // 4, 1), drawn(1, many)
        file = {"lokr_w1": small, "lokr_w2_a": wide, "lokr_w2_b": high}
        large = (wide @ high).reshape(outputs // 4, inputs // 4, *kernel)
        change = torch.kron(small.reshape(4, 4, *[1] * len(kernel)), large)
    rank = 1 if kind == "LyCORIS/LoKr" else RANK
    return file | {"alpha": torch.tensor(2.0)}, change.reshape(weight.shape) * (2 / rank), rank


@pytest.mark.parametrize("dim_from_weights", [True, False])
@pytest.mark.parametrize("axis", ["inputs", "inputs as a matrix", "outputs"])
@pytest.mark.parametrize("place", LAYERS)
@pytest.mark.parametrize("kind", FACTORS)
def test_the_shape_of_the_magnitudes_says_their_axis(kind, place, axis, dim_from_weights):
    """W' = (W + d) s / |W + d|, whatever the settings say of the axis."""
    layer = layer_of(place)
    weight = layer.weight
    file, change, rank = foreign(kind, weight)
    if axis == "outputs":
        shape, over = (weight.shape[0], *[1] * (weight.dim() - 1)), [*range(1, weight.dim())]
    else:
        shape = (1, weight.shape[1], *[1] * (weight.dim() - 2))
        over = [side for side in range(weight.dim()) if side != 1]
    scale = torch.rand(shape, generator=torch.Generator().manual_seed(2)) + 0.5
    whole = weight + change
    expected = whole * scale / whole.pow(2).sum(over, keepdim=True).sqrt()
    file["dora_scale"] = scale.flatten(1) if "matrix" in axis else scale
    asked = {
        "LoRA_type": kind,
        "network_weights": "a file",
        "dim_from_weights": dim_from_weights,
        **({"factor": 4} if "LoKr" in kind else {}),
    }
    if not dim_from_weights:
        asked |= {"network_dim": rank, "conv_dim": rank, "dora_wd": True}
        asked["wd_on_output"] = axis != "outputs"  # the file counts more
    adapter = attached(layer, NetworkSettings(**asked), file)
    error = (weight + adapter.delta() - expected).norm() / weight.norm()
    assert error < 1e-5
    written = adapter.tensors()["dora_scale"]
    assert written.shape == shape  # continued, the file keeps its axis
    inputs = torch.randn(2, weight.shape[1], *([6, 6] if weight.dim() == 4 else []))
    bias = layer.bias
    place = {"padding": layer.padding} if weight.dim() == 4 else {}
    use = nn.functional.conv2d if weight.dim() == 4 else nn.functional.linear
    outputs = adapter.add_to(layer, (inputs,), layer(inputs))
    assert torch.allclose(outputs, use(inputs, expected, bias, **place), atol=1e-4)


@pytest.mark.parametrize("on_output", [True, False])
@pytest.mark.parametrize("kind", FACTORS)
def test_a_new_training_has_magnitudes_where_it_is_asked_to(kind, on_output):
    layer = layer_of("conv 3x3")
    changes = {"dora_wd": True} | ({"wd_on_output": True} if on_output else {})
    magnitudes = made(layer, kind, changes).tensors()["dora_scale"]
    assert magnitudes.shape == ((16, 1, 1, 1) if on_output else (1, 20, 1, 1))
    over = [1, 2, 3] if on_output else [0, 2, 3]
    norms = layer.weight.pow(2).sum(over, keepdim=True).sqrt()
    assert torch.allclose(magnitudes, norms, atol=1e-6)


@pytest.mark.parametrize("dim_from_weights", [True, False])
@pytest.mark.parametrize("shape", [(16,), (24,), (24, 1), (1, 16), (2, 12), (1, 1), (384,), ()])
def test_magnitudes_of_no_axis_are_refused(shape, dim_from_weights):
    layer = layer_of("linear")
    file, _, rank = foreign("LyCORIS/LoCon", layer.weight)
    asked = {"dim_from_weights": True} if dim_from_weights else {"dora_wd": True}
    settings = NetworkSettings(LoRA_type="LyCORIS/LoCon", network_dim=rank, **asked)
    with pytest.raises(LoraFileError, match=f"{NAME}: shapes of dora_scale"):
        attached(layer, settings, file | {"dora_scale": torch.ones(shape)})


@pytest.mark.parametrize(
    ("kept", "own", "setting"), [("16 1", "1 24", "true"), ("1 24", "16 1", "false")]
)
def test_a_state_of_the_other_axis_names_the_setting(kept, own, setting):
    def state(sides):
        return {"adapters.x.dora_scale": torch.ones([int(side) for side in sides.split()])}

    check_axis(state(own), state(own))
    with pytest.raises(ValueError, match=f"wd_on_output = {setting}"):
        check_axis(state(kept), state(own))


@pytest.mark.parametrize("dim_from_weights", [True, False])
@pytest.mark.parametrize("kind", ["Standard", "LyCORIS/LoCon"])
def test_a_transposed_factor_is_refused_though_it_has_as_many_values(kind, dim_from_weights):
    layer = layer_of("linear")
    file, _, rank = foreign("LyCORIS/LoCon", layer.weight)
    turned = file["lora_up.weight"].T.contiguous()
    settings = NetworkSettings(LoRA_type=kind, network_dim=rank, dim_from_weights=dim_from_weights)
    with pytest.raises(LoraFileError, match=r"shapes of lora_up\.weight"):
        attached(layer, settings, file | {"lora_up.weight": turned})


@pytest.mark.parametrize("kind", ["Standard", "Kohya LoCon", "LyCORIS/LoCon"])
@pytest.mark.parametrize("place", ["conv 1x1", "conv 3x3"])
def test_kernels_kept_as_matrices_come_back_as_kernels(kind, place):
    layer = layer_of(place)
    file, change, _ = foreign("LyCORIS/LoCon", layer.weight)
    flat = {role: t.flatten(1) if t.dim() else t for role, t in file.items()}
    adapter = attached(layer, NetworkSettings(LoRA_type=kind, dim_from_weights=True), flat)
    assert adapter.delta().shape == layer.weight.shape
    assert torch.allclose(adapter.delta(), change, atol=1e-6)
    assert adapter.tensors()["lora_down.weight"].shape == file["lora_down.weight"].shape


def disturbed(tensors, draws):
    """One tensor of a file in another shape, gone, doubled, or of another sort."""
    role = draws.choice(sorted(tensors))
    tensor, odd = tensors[role], torch.randn(draws.choice([(), (0,), (3,), (1, 7), (2, 3, 4)]))
    n = max(1, tensor.numel())
    changed = draws.choice(
        [
            lambda: {role: tensor.flatten()},
            lambda: {role: tensor.reshape(1, -1)},
            lambda: {role: tensor.reshape(-1, 1)},
            lambda: {role: tensor.reshape(n, 1, 1, 1, 1) if tensor.numel() else odd},
            lambda: {role: tensor.mT if tensor.dim() > 1 else tensor[None]},
            lambda: {role: tensor[:0] if tensor.dim() else odd},
            lambda: {role: odd},
            lambda: {role: tensor.to(torch.complex64)},
            lambda: {role: tensor.to(torch.int64)},
            lambda: {role: torch.cat([tensor, tensor]) if tensor.dim() else tensor[None, None]},
            lambda: {role: torch.full_like(tensor, float("nan"), dtype=torch.float32)},
            lambda: {f"{role}.more": tensor},
            lambda: {"alpha": torch.ones(3)},
            lambda: {"dora_scale": torch.ones(draws.choice([(1, 20), (16,), (16, 12), ()]))},
        ]
    )()
    without = {r: t for r, t in tensors.items() if r != role or draws.random() < 0.8}
    return without | changed


@pytest.mark.parametrize("place", ["linear", "conv 3x3"])
@pytest.mark.parametrize("kind", catalog.LORA_TYPES)
def test_nothing_but_our_own_errors_leaves_attach(kind, place):
    """40 files with a fault each: refused in words, or taken so that they change the layer."""
    layer, draws = layer_of(place), random.Random(f"{kind} {place}")
    ways = [
        way for way in WAYS.values() if {*way} <= {*catalog.LORA_TYPES[kind].uses, "network_dim"}
    ]
    refused = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for number in range(40):
            way = draws.choice(ways)
            if "decompose_both" not in way and "factor" not in way:
                way = {"network_dim": 4} | way
            file = randomize(made(layer, kind, way)).tensors()
            own = {"network_alpha": 2.0, "conv_dim": way.get("network_dim", 4), **way}
            asked = {"dim_from_weights": True} if number % 2 else own
            settings = NetworkSettings(LoRA_type=kind, **asked)
            try:
                adapter = attached(layer, settings, disturbed(file, draws))
            except KitError:
                refused += 1
                continue
            assert adapter.delta().shape == layer.weight.shape
            inputs = torch.ones(2, layer.weight.shape[1], *([5, 5] * (layer.weight.dim() == 4)))
            adapter.add_to(layer, (inputs,), layer(inputs))
    assert 10 < refused < 40
