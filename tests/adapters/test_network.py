"""All adapters of a run: the reference's names and shapes, starts from files, no trace left."""

import copy
import json
from pathlib import Path

import pytest
import torch

from kit import catalog
from kit.adapters.network import Network, attach, parts_of
from kit.adapters.param_groups import Group, PartRates
from kit.errors import LoraFileError
from kit.families import Family
from kit.settings import NetworkSettings
from tests.families.test_target_layers import family_on_meta
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lora_keys.json").read_text())["models"]
CASES = {"sd1": "sd15", "sd2": "sd21_linear_proj", "sdxl": "sdxl"}


def rates_of(unet, text):
    return PartRates({"unet": unet, "te": text, "te1": text, "te2": text})


BOTH = frozenset({"unet", "te"})
RANKS = {"network_dim": 4, "network_alpha": 2.0, "conv_dim": 2, "conv_alpha": 1.0}
CONVOLUTIONS = 85  # one conv_shortcut less than the real model: two of its levels are equally wide
LOCON = NetworkSettings(LoRA_type="Kohya LoCon", **RANKS)


def recorded(key: str, conv: str) -> dict[str, list[list[int]]]:
    """Every module of the reference's network with the shapes of its down and up parts."""
    base = "sd21_conv_proj" if key == "sd2" else CASES[key]
    modules = dict(GOLDEN[f"{base}/rank4_linear"]["modules"])
    if conv == "rank4_conv2":
        modules |= GOLDEN[f"{base}/rank4_conv2"]["additional_modules"]
    if key == "sd2":
        modules |= GOLDEN[f"{CASES[key]}/{conv}"]["only_modules_differing_from_conv_proj"]
    return modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


@pytest.fixture(scope="module")
def loaded(folder) -> Family:
    return load_tiny(folder)


@pytest.fixture
def hang(loaded):
    """Attach to the shared family; the hooks go away after the test."""
    hung: list[Network] = []

    def hang_one(settings=LOCON, *, learns=BOTH, start=None, seed=1, awake=0.0) -> Network:
        network = attach(settings, loaded, learns=learns, seed=seed, start=start)
        hung.append(network)
        return randomize(network, awake)

    yield hang_one
    for network in hung:
        network.detach_hooks()


def randomize(network: Network, strength: float) -> Network:
    """Up parts away from zero, the same for every network of the same modules."""
    draws = torch.Generator().manual_seed(4)
    for _, adapter in network.named():
        for weight in adapter.fast() or adapter.learning() if strength else ():
            weight.data.normal_(std=strength, generator=draws)
    return network


def prediction(family: Family) -> torch.Tensor:
    """What the whole family makes of fixed inputs; differentiable."""
    draws = torch.Generator().manual_seed(5)
    noisy_BChw = torch.randn(2, 4, 8, 8, generator=draws)
    tokens = family.tokenize(["a zib ball", "a dog"], max_token_length=75)
    text_embeds = family.encode_tokens(tokens, clip_skip=1)
    return family.predict(noisy_BChw, torch.tensor([100, 800]), family.condition(text_embeds, None))


@pytest.mark.parametrize("conv", ["rank4_linear", "rank4_conv2"])
@pytest.mark.parametrize("key", CASES)
def test_names_shapes_and_order_are_the_references_at_real_size(key, conv):
    kind = "Standard" if conv == "rank4_linear" else "Kohya LoCon"
    settings = NetworkSettings(LoRA_type=kind, network_dim=4, network_alpha=1, conv_dim=2)
    family = family_on_meta(key)
    network = attach(settings, family, learns=parts_of(family), seed=1)
    found = {
        name: [list(adapter.lora_down.weight.shape), list(adapter.lora_up.weight.shape)]
        for name, adapter in network.named()
    }
    expected = recorded(key, conv)
    assert found == expected
    assert set(network.tensors()) == {
        f"{name}.{role}"
        for name in expected
        for role in ("alpha", "lora_down.weight", "lora_up.weight")
    }
    entry = GOLDEN[f"{CASES[key]}/{conv}"]
    assert len(network.tensors()) == entry["n_keys"]
    assert network.count + len(found) == entry["n_params"]  # the reference counts alphas too
    if conv == "rank4_linear":
        assert list(found) == list(expected)


@pytest.mark.parametrize("kind", catalog.LORA_TYPES)
@torch.no_grad()
def test_an_untrained_network_changes_nothing(kind, loaded, hang):
    before = prediction(loaded)
    network = hang(NetworkSettings(LoRA_type=kind, **RANKS))
    assert torch.equal(prediction(loaded), before)
    assert not any(adapter.delta().any() for _, adapter in network.named())


@pytest.mark.parametrize("kind", catalog.LORA_TYPES)
@torch.no_grad()
def test_added_to_the_weights_the_deltas_act_as_the_network_does(kind, folder):
    family = load_tiny(folder)
    before = prediction(family)
    network = attach(NetworkSettings(LoRA_type=kind, **RANKS), family, learns=BOTH, seed=1)
    randomize(network, 0.5).eval()
    adapted = prediction(family)
    network.detach_hooks()
    assert torch.equal(prediction(family), before)
    modules = {layer.name: layer.module for layer in family.layers()}
    for name, adapter in network.named():
        modules[name].weight += adapter.delta()
        bias = adapter.delta_bias()
        if bias is not None:
            modules[name].bias += bias
    assert torch.allclose(prediction(family), adapted, atol=1e-4)
    assert (adapted - before).abs().max() > 0.1


@torch.no_grad()
def test_detached_the_base_is_bit_for_bit_what_it_was(loaded, hang):
    parts = [loaded.unet, *loaded.text_encoders]
    weights = [copy.deepcopy(part.state_dict()) for part in parts]
    before = prediction(loaded)
    network = hang(awake=0.5)
    assert not torch.equal(prediction(loaded), before)
    network.detach_hooks()
    assert torch.equal(prediction(loaded), before)
    for part, kept in zip(parts, weights, strict=True):
        assert part.state_dict().keys() == kept.keys()
        assert all(torch.equal(part.state_dict()[name], kept[name]) for name in kept)


@torch.no_grad()
def test_the_multiplier_scales_the_whole_network(loaded, hang):
    before = prediction(loaded)
    network = hang(awake=0.5)
    full = prediction(loaded)
    network.set_multiplier(0)
    assert torch.equal(prediction(loaded), before)
    network.set_multiplier(1)
    assert torch.equal(prediction(loaded), full)


def test_the_start_does_not_depend_on_what_else_is_adapted(hang):
    whole = hang(seed=9).tensors()
    alone = hang(NetworkSettings(network_dim=4), learns=frozenset({"unet"}), seed=9).tensors()
    downs = [name for name in alone if name.endswith("lora_down.weight")]
    assert len(downs) == 192
    assert all(torch.equal(whole[name], alone[name]) for name in downs)
    other = hang(seed=10).tensors()
    assert not any(torch.equal(whole[name], other[name]) for name in downs)


def test_convolutions_have_their_own_rank_and_alpha(hang):
    for name, adapter in hang().named():
        is_3x3 = adapter.lora_down.weight.shape[2:] == (3, 3)
        assert (adapter.rank, adapter.alpha.item()) == ((2, 1.0) if is_3x3 else (4, 2.0)), name


def test_a_blank_convolution_rank_is_the_network_rank(hang):
    network = hang(NetworkSettings(LoRA_type="Kohya LoCon", network_dim=3))
    assert {adapter.rank for _, adapter in network.named()} == {3}


DROPOUTS = {"network_dropout": 0.3, "rank_dropout": 0.2, "module_dropout": 0.2}


def gradients(network: Network, family: Family) -> dict[str, torch.Tensor]:
    """Of one backward pass with the same dice."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prediction(family).square().mean().backward()
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


def test_recomputing_gives_the_same_gradients_bit_for_bit(folder):
    family = load_tiny(folder)
    settings = LOCON.model_copy(update=DROPOUTS)
    network = randomize(attach(settings, family, learns=BOTH, seed=1), 0.2).train()
    assert network.draws
    plain = gradients(network, family)
    again = gradients(network, family)
    family.unet.enable_gradient_checkpointing()
    family.unet.train()
    [encoder] = family.text_encoders
    name = "activation_checkpointing_enable"  # transformers before 5.2x calls it otherwise
    enable = getattr(encoder, name, None) or encoder.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    encoder.train()
    recomputed = gradients(network, family)
    everything = dict(network.named_parameters())
    assert len(everything) / 2 < len(plain) < len(everything)  # some modules were skipped
    assert plain.keys() == again.keys() == recomputed.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    assert all(torch.equal(plain[name], recomputed[name]) for name in plain)


def test_samples_are_drawn_without_dropouts_and_training_goes_on_with_them(hang):
    network = hang().train()
    with network.eval_mode():
        assert not any(module.training for module in network.modules())
    assert all(module.training for module in network.modules())
    with pytest.raises(RuntimeError), network.eval_mode():
        raise RuntimeError
    assert network.training


def test_groups_hold_text_encoder_and_unet_with_their_own_rates(hang):
    network = hang()
    text, unet = network.groups(rates_of(1e-3, 1e-4))
    assert (text.name, text.rate, unet.name, unet.rate) == ("textencoder", 1e-4, "unet", 1e-3)
    weights = [*text.weights, *unet.weights]
    assert len(weights) == len(list(network.parameters()))
    assert all(weight.requires_grad for weight in weights)


@pytest.mark.parametrize("frozen", ["unet", "textencoder"])
def test_a_rate_of_zero_freezes_a_part_and_puts_it_in_no_group(hang, frozen):
    network = hang()
    rates = {"unet": 1e-3, "textencoder": 1e-4, frozen: 0.0}
    groups: tuple[Group, ...] = network.groups(rates_of(rates["unet"], rates["textencoder"]))
    assert [group.name for group in groups] == [name for name in rates if name != frozen]
    mark = "lora_unet_" if frozen == "unet" else "lora_te_"
    for name, adapter in network.named():
        learns = not name.startswith(mark)
        assert all(weight.requires_grad == learns for weight in adapter.parameters())


def test_limited_norms_leave_a_frozen_part_alone(hang):
    network = hang(awake=5.0)
    before = {name: adapter.delta().norm() for name, adapter in network.named()}
    network.groups(rates_of(1e-3, 0.0))
    limited = network.limit_norms(1.0)
    after = {name: adapter.delta().norm() for name, adapter in network.named()}
    unet = [name for name in before if name.startswith("lora_unet_")]
    assert limited == len([name for name in unet if before[name] > 1]) > 0
    assert all(after[name] <= 1.0001 for name in unet)
    assert all(after[name] == before[name] for name in before if name not in unet)


def counted(function, calls):
    def count(*arguments):
        calls.append(function)
        return function(*arguments)

    return count


def test_norms_are_limited_with_one_look_at_the_device(hang, monkeypatch):
    """Each number that is read by itself waits for a GPU: SDXL has 722 layers."""
    network, reads = hang(awake=5.0), []
    network.groups(rates_of(1e-3, 1e-3))
    for name in ("item", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, counted(getattr(torch.Tensor, name), reads))
    assert network.limit_norms(1.0) > 1
    assert len(reads) == 1


@pytest.fixture(scope="module")
def file(folder) -> dict[str, torch.Tensor]:
    """What a trained LoRA file holds, of rank 4 (2 for convolutions) and alpha 2 (1)."""
    network = randomize(attach(LOCON, load_tiny(folder), learns=BOTH, seed=1), 0.5)
    return {name: tensor.clone() for name, tensor in network.tensors().items()}


def deltas(network: Network) -> dict[str, torch.Tensor]:
    return {name: adapter.delta() for name, adapter in network.named()}


def deltas_of(file: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The file's changes, computed by its own alphas."""
    found = {}
    for name in dict.fromkeys(key.split(".")[0] for key in file):
        up, down = file[f"{name}.lora_up.weight"], file[f"{name}.lora_down.weight"]
        scale = float(file[f"{name}.alpha"]) / down.shape[0]
        product = scale * up.flatten(1) @ down.flatten(1)
        found[name] = product.reshape(up.shape[0], *down.shape[1:])
    return found


def assert_same_changes(network: Network, file: dict[str, torch.Tensor]) -> None:
    ours, theirs = deltas(network), deltas_of(file)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0, 16.0])
def test_a_file_acts_the_same_under_another_alpha_unlike_the_references_defect_8(hang, file, alpha):
    settings = LOCON.model_copy(update={"network_alpha": alpha, "conv_alpha": alpha})
    network = hang(settings, start=file)
    assert_same_changes(network, file)
    assert_same_changes(network, network.tensors())  # and again when saved
    alphas = {adapter.alpha.item() for _, adapter in network.named()}
    assert alphas == ({alpha} if alpha else {4.0, 2.0})


def test_a_file_in_16_bits_is_learned_from_in_32(hang, file):
    half = {name: tensor.half() for name, tensor in file.items()}
    network = hang(start=half)
    assert all(weight.dtype == torch.float32 for weight in network.parameters())
    assert_same_changes(network, {name: tensor.float() for name, tensor in half.items()})


def test_rank_and_alpha_come_from_the_file_module_by_module(hang, file):
    kept = {key: tensor for key, tensor in file.items() if "mid_block" in key or "mlp_fc1" in key}
    name = "lora_unet_mid_block_attentions_0_proj_in"
    kept[f"{name}.lora_down.weight"] = torch.randn(7, 64, 1, 1)
    kept[f"{name}.lora_up.weight"] = torch.randn(64, 7, 1, 1)
    kept[f"{name}.alpha"] = torch.tensor(3.0)
    network = hang(NetworkSettings(dim_from_weights=True, network_weights="a file"), start=kept)
    assert_same_changes(network, kept)
    sizes = {n: (a.rank, a.alpha.item()) for n, a in network.named()}
    assert sizes.pop(name) == (7, 3.0)
    assert set(sizes.values()) == {
        (4, 2.0),
        (2, 1.0),
    }  # convolutions as well, whatever LoRA_type says


def test_a_missing_alpha_is_the_rank(hang, file):
    bare = {key: tensor for key, tensor in file.items() if not key.endswith("alpha")}
    ranks = {
        key.replace("lora_down.weight", "alpha"): torch.tensor(float(tensor.shape[0]))
        for key, tensor in bare.items()
        if "lora_down" in key
    }
    assert_same_changes(hang(start=bare), bare | ranks)


def test_modules_that_the_file_lacks_start_afresh(hang, file):
    unet = {key: tensor for key, tensor in file.items() if key.startswith("lora_unet_")}
    network = hang(start=unet)
    for name, change in deltas(network).items():
        assert bool(change.any()) == name.startswith("lora_unet_")


def test_a_text_encoder_in_the_file_that_does_not_learn_is_kept_and_saved(hang, file):
    network = hang(learns=frozenset({"unet"}), start=file)
    [group] = network.groups(rates_of(1e-3, 0.0))
    assert group.name == "unet"
    assert_same_changes(network, file)
    assert network.tensors().keys() == file.keys()
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert frozen
    assert all("lora_te_" in name for name in frozen)


def test_another_rank_is_refused_with_what_to_do(hang, file):
    settings = LOCON.model_copy(update={"network_dim": 8})
    with pytest.raises(LoraFileError) as error:
        hang(settings, start=file)
    assert "rank 4 in the file, 8 here" in str(error.value)
    assert "dim_from_weights" in error.value.do


def test_a_layer_of_another_size_is_refused(hang, file):
    name = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    wrong = file | {f"{name}.lora_up.weight": torch.zeros(5, 4)}
    with pytest.raises(LoraFileError, match=f"{name}: shapes"):
        hang(start=wrong)


def test_modules_without_a_place_are_refused(hang, file):
    with pytest.raises(LoraFileError, match=f"{CONVOLUTIONS} modules that LoRA_type = Standard"):
        hang(NetworkSettings(network_dim=4), start=file)
    stray = {key.replace("lora_unet_mid", "lora_unet_middle"): t for key, t in file.items()}
    with pytest.raises(LoraFileError, match="lora_unet_middle_block"):
        hang(start=stray)
    with pytest.raises(LoraFileError, match="lora_unet_middle_block"):
        hang(NetworkSettings(dim_from_weights=True), start=stray)


OUTSIDE = ("conv_in", "conv_out", "time_embedding_linear_1", "time_embedding_linear_2")
OF_SDXL = ("add_embedding_linear_1", "time_embed_0", "label_emb_0_2", "input_blocks_0_0", "out_2")


@pytest.mark.parametrize("names", [OUTSIDE, OF_SDXL, ("conv_in",)])
@pytest.mark.parametrize("from_file", [False, True])
def test_layers_outside_blocks_which_lycoris_full_adapts_are_told(hang, file, names, from_file):
    settings = NetworkSettings(**RANKS, LoRA_type="Kohya LoCon", dim_from_weights=from_file)
    more = {f"lora_unet_{name}.lora_{way}.weight": torch.ones(4, 4) for name in names
            for way in ("down", "up")}  # fmt: skip
    with pytest.raises(LoraFileError, match=f"adapts {len(names)} layers outside .*full") as error:
        hang(settings, start=file | more)
    assert all(f"lora_unet_{name}" in str(error.value) for name in names)


@pytest.mark.parametrize("role", ["hada_w1_a", "dora_scale", "lora_mid.weight"])
def test_other_kinds_of_files_are_refused_rather_than_half_read(hang, file, role):
    name = "lora_unet_mid_block_attentions_0_proj_in"
    with pytest.raises(LoraFileError, match=role):
        hang(start=file | {f"{name}.{role}": torch.ones(4, 64)})
