"""LyCORIS' presets on real layouts: which layers get an adapter."""

import pytest

from kit import catalog
from kit.adapters.network import attach, parts_of
from kit.errors import SettingsError
from kit.planning.lora_size import network_size
from kit.settings import NetworkSettings, Settings
from kit.settings.targets import PRESETS, preset_of
from tests.families.test_target_layers import family_on_meta

FAMILIES = ("sd1", "sd2", "sdxl")
LOCON = "LyCORIS/LoCon"


@pytest.fixture(scope="module")
def families():
    return {key: family_on_meta(key) for key in FAMILIES}


def adapted(family, preset, kind=LOCON):
    settings = NetworkSettings(LoRA_type=kind, LyCORIS_preset=str(preset), network_dim=16)
    network = attach(settings, family, learns=parts_of(family), seed=1)
    network.detach_hooks()
    return dict(network.named())


@pytest.mark.parametrize("key", FAMILIES)
def test_every_preset_takes_what_its_name_says(families, key):
    family = families[key]
    layers = {layer.name: layer for layer in family.layers()}
    taken = {name: set(adapted(family, name)) for name in PRESETS}
    unet = {name for name, layer in layers.items() if layer.part == "unet"}
    in_transformer = {name for name, layer in layers.items() if layer.in_transformer}
    wide = {name for name, layer in layers.items() if layer.is_conv3x3}
    assert taken["full"] == set(layers)
    assert taken["full-lin"] == set(layers) - wide
    assert taken["attn-mlp"] == in_transformer
    assert taken["unet-only"] == unet
    assert taken["unet-transformer-only"] == unet & in_transformer
    assert taken["unet-convblock-only"] == unet - in_transformer
    marks = ("to_q", "to_k", "to_v", "to_out_0", "q_proj", "k_proj", "v_proj", "out_proj")
    assert taken["attn-only"] == {name for name in layers if name.endswith(marks)}
    chosen = ("to_k", "to_v", "ff_net_2", "k_proj", "v_proj", "mlp_fc2")
    assert taken["ia3"] == {name for name in layers if name.endswith(chosen)}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("key", FAMILIES)
def test_the_plan_tells_the_size_or_says_nothing(families, key, preset):
    asked = {"LoRA_type": LOCON, "LyCORIS_preset": preset, "network_dim": 16}
    size = network_size(Settings().replace(**asked), key)
    if preset in ("attn-only", "ia3"):
        assert size is None
        return
    adapters = adapted(families[key], preset)
    weights = sum(w.numel() for a in adapters.values() for w in a.parameters())
    assert (size.layers, size.weights) == (len(adapters), weights)


@pytest.mark.parametrize("kind", [kind for kind in catalog.LORA_TYPES if "Full" not in kind])
def test_the_plan_tells_the_size_of_every_type(families, kind):
    size = network_size(Settings().replace(LoRA_type=kind, network_dim=16), "sd1")
    adapters = adapted(families["sd1"], "full", kind)
    weights = sum(w.numel() for a in adapters.values() for w in a.parameters())
    assert size.layers == len(adapters)
    assert size.weights == pytest.approx(weights, rel=1e-4)  # not every layer has a bias


def test_ia3s_own_preset_says_which_side_is_scaled(families):
    sides = {
        name: adapter.train_on_input
        for name, adapter in adapted(families["sd1"], "ia3", "LyCORIS/iA3").items()
    }
    assert all(on == name.endswith(("ff_net_2", "mlp_fc2")) for name, on in sides.items())
    plain = adapted(families["sd1"], "full", "LyCORIS/iA3")
    assert all(adapter.train_on_input for adapter in plain.values())


def test_a_file_chooses_by_class_and_name(families, tmp_path):
    path = tmp_path / "own.toml"
    path.write_text(
        'unet_target_module = ["CrossAttention"]\nunet_target_name = ["conv1"]\n'
        'text_encoder_target_module = []\nexclude_name = ["down_blocks.*"]\n'
    )
    found = adapted(families["sd1"], path)
    assert not any(name.startswith(("lora_te_", "lora_unet_down")) for name in found)
    assert any(name.endswith("conv1") for name in found)
    path.write_text('use_fnmatch = true\nunet_target_module = []\nunet_target_name = ["*.to_q"]\n')
    found = adapted(families["sd1"], path)
    assert all(name.endswith("to_q") for name in found if "unet" in name)
    assert any("lora_te_" in name for name in found)  # what a file leaves out is as in full


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name_algo_map = {}", "name_algo_map is not supported"),
        ('enable_conv = "yes"', "enable_conv must be a bool"),
        ("exclude_name = [1]", "must be a list of texts"),
        ('unet_target_name = ["("]', "no regular expression"),
        ("[", "is no TOML file"),
    ],
)
def test_a_file_that_asks_for_more_is_refused(tmp_path, text, told):
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=told):
        preset_of(str(path))


def test_an_unknown_preset_is_told_before_anything_is_adapted(families):
    with pytest.raises(SettingsError, match="the presets are full"):
        adapted(families["sd1"], "everything")
