"""LoRAs in other programs' layouts change every layer as they do there, and are told rightly."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from kit.adapters.network import attach
from kit.errors import KitError, LoraFileError
from kit.exchange.foreign_lora import foreseen_conversion
from kit.families.placing import placed
from kit.lorafile.tensors import read_lora
from kit.settings import NetworkSettings
from kit.tools.inspecting import describe, inspect
from tests.support.ldm import ldm_path
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny

RANK, ALPHA = 4, 3.0
KEYS = ("sd1", "sdxl")
EXACT = {"rtol": 1e-6, "atol": 1e-6}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of the real layout, and thin ones where names need not be all there."""
    found = {}
    for thin in (True, False):
        for key in KEYS:
            name = f"thin {key}" if thin else key
            found[name] = write_tiny(tmp_path_factory.mktemp("model"), key, thin=thin)
    return found


@pytest.fixture(scope="module")
def families(folders):
    return {key: load_tiny(folder) for key, folder in folders.items()}


def weight_of(layer):
    return layer.module.weight.detach()


def factors(family, *, convolutions=False):
    """Down and up of every layer, by the layer."""
    torch.manual_seed(3)
    for layer in family.layers():
        if layer.in_transformer or convolutions:
            outputs, inputs, *kernel = weight_of(layer).shape
            down = torch.randn(RANK, inputs, *kernel)
            yield layer, down, torch.randn(outputs, RANK, *[1] * len(kernel))


def product(up, down):
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def deltas_of(path, family, **changes):
    """The change of every layer, by its name here, as a training would begin with it."""
    settings = NetworkSettings(dim_from_weights=True, **{"LoRA_type": "Kohya LoCon", **changes})
    start = placed(read_lora(path).tensors, family)
    network = attach(settings, family, learns=frozenset(), seed=1, start=start)
    network.detach_hooks()
    return {name: adapter.delta().detach() for name, adapter in network.named()}


def assert_deltas(found, expected):
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        assert found[name].shape == delta.shape, name
        torch.testing.assert_close(found[name], delta, **EXACT, msg=name)


# ------------------------------------------------------------------------------ names and scales


def te_path(layer, level="text_model."):
    return level + layer.path.removeprefix("text_model.")


def in_diffusers(layer, folder, level="text_model."):
    part = {"unet": "unet", "te2": "text_encoder_2"}.get(layer.part, "text_encoder")
    path = layer.path if layer.part == "unet" else te_path(layer, level)
    return f"{part}.{path}.lora_A.weight", f"{part}.{path}.lora_B.weight", ""


def in_newer_diffusers(layer, folder):
    return in_diffusers(layer, folder, level="")


def in_old_diffusers(layer, folder):
    if layer.part != "unet":
        stem = in_diffusers(layer, folder)[0].removesuffix(".lora_A.weight")
        down, up = (f"{stem}.lora_linear_layer.{way}.weight" for way in ("down", "up"))
    elif "attn" in layer.path and ".to_" in layer.path:
        attention, _, name = layer.path.removesuffix(".0").rpartition(".")
        stem = f"unet.{attention}.processor.{name}_lora"
        down, up = f"{stem}.down.weight", f"{stem}.up.weight"
    else:
        down, up = (f"unet.{layer.path}.lora.{way}.weight" for way in ("down", "up"))
    return down, up, ""


def as_kohyas(stem):
    return f"{stem}.lora_down.weight", f"{stem}.lora_up.weight", f"{stem}.alpha"


def in_onetrainer(layer, folder):
    part = {"unet": "unet", "te2": "clip_g"}.get(layer.part, "clip_l")
    return as_kohyas(f"{part}.{layer.path if layer.part == 'unet' else te_path(layer, '')}")


def in_comfyui(layer, folder):
    if layer.part != "unet":
        return None
    return as_kohyas(f"diffusion_model.{ldm_path(folder, layer.path)}")


def in_ldm_names(layer, folder):
    if layer.part != "unet":
        return as_kohyas(layer.name)
    return as_kohyas("lora_unet_" + ldm_path(folder, layer.path).replace(".", "_"))


def in_diffusers_names(layer, folder):
    if layer.part != "unet":
        return as_kohyas(layer.name)
    return as_kohyas("lora_unet_" + layer.path.replace(".", "_"))


def with_te1(layer, folder):
    return as_kohyas(layer.name.replace("lora_te_", "lora_te1_"))


def in_lycoris(layer, folder):
    if layer.part == "te2":
        return None
    path = layer.path if layer.part == "unet" else te_path(layer)
    return as_kohyas("lycoris_" + path.replace(".", "_"))


LAYOUTS = {
    "diffusers": (in_diffusers, "diffusers (PEFT)"),
    "diffusers with transformers 5.6": (in_newer_diffusers, "diffusers (PEFT)"),
    "old diffusers": (in_old_diffusers, "diffusers before PEFT"),
    "OneTrainer": (in_onetrainer, "OneTrainer (OMI)"),
    "ComfyUI": (in_comfyui, "ComfyUI's trainer (LDM names)"),
    "LDM names": (in_ldm_names, "kohya"),
    "diffusers names": (in_diffusers_names, "kohya"),
    "te1": (with_te1, "kohya"),
    "LyCORIS": (in_lycoris, "LyCORIS in diffusers"),
}


def written(path, family, folder, layout, *, flat=False):
    """A file in a layout, and the changes that it means."""
    tensors, expected = {}, {}
    for layer, down, up in factors(family, convolutions=layout is not in_old_diffusers):
        names = layout(layer, folder)
        if names is None:
            continue
        tensors[names[0]] = down.flatten(1) if flat else down
        tensors[names[1]] = up.flatten(1) if flat else up
        scale = 1.0
        if names[2]:
            tensors[names[2]], scale = torch.tensor(ALPHA), ALPHA / RANK
        expected[layer.name] = scale * product(up, down)
    save_file(tensors, path)
    return expected


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("case", LAYOUTS)
def test_a_layout_changes_every_layer_as_it_does_there(tmp_path, families, folders, case, key):
    layout, label = LAYOUTS[case]
    path = tmp_path / "a.safetensors"
    key = key if layout in (in_comfyui, in_ldm_names, in_diffusers_names) else f"thin {key}"
    expected = written(path, families[key], folders[key], layout, flat=case == "ComfyUI")
    assert_deltas(deltas_of(path, families[key]), expected)
    assert_deltas(deltas_of(path, families[key], LoRA_type="LyCORIS/LoCon"), expected)
    report = inspect(path)
    assert report["layout"] == label
    assert sum(report["parts"].values()) == len(expected)
    assert "other" not in report["parts"]
    assert report["ranks"] == {RANK: len(expected)}
    has_alpha = layout not in (in_diffusers, in_newer_diffusers, in_old_diffusers)
    assert report["alphas"] == ({ALPHA: len(expected)} if has_alpha else {})


def test_a_u_net_alone_without_beginnings_is_read(tmp_path, families):
    """As diffusers wrote it before it knew text encoders' LoRAs."""
    tensors, expected = {}, {}
    for layer, down, up in factors(families["sd1"]):
        if "attn2" in layer.path:
            stem = layer.path.removesuffix(".0")
            stem = f"{stem.rpartition('.')[0]}.processor.{stem.rpartition('.')[2]}_lora"
            tensors |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
            expected[layer.name] = product(up, down)
    save_file(tensors, tmp_path / "a.safetensors")
    assert_deltas(deltas_of(tmp_path / "a.safetensors", families["sd1"]), expected)


def test_what_lies_beside_a_good_lora_is_noticed_and_left_out(tmp_path, families, folders):
    path = tmp_path / "a.safetensors"
    expected = written(path, families["thin sd1"], folders["thin sd1"], with_te1)
    tensors = dict(read_lora(path).tensors)
    first = next(iter(expected))
    tensors |= {
        f"{first.replace('lora_te_', 'lora_te1_')}.scalar": torch.tensor(1.0),
        "bundle_emb.mycat.string_to_param.*": torch.ones(2, 32),
    }
    save_file(tensors, path)
    assert_deltas(deltas_of(path, families["thin sd1"]), expected)
    told = " ".join(foreseen_conversion(str(path)))
    for notices in (told, " ".join(inspect(path)["notices"])):
        assert "1 scalars are left out" in notices
        assert "carries embeddings (mycat)" in notices
    assert "refused" not in told
    assert "layout" not in told, "the names are kohya's"


# ------------------------------------------------------------------------------- diffusers, PEFT

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.2", "conv1", "proj_in"]
TEXT_TARGETS = ["q_proj", "fc1"]


def config(targets, **changes):
    asked = {"r": RANK, "lora_alpha": 6, "init_lora_weights": False, "target_modules": targets}
    return LoraConfig(**{**asked, **changes})


def change_by_peft(module):
    """What merging the adapter does to the layer's weight."""
    before = module.get_base_layer().weight.detach().clone()
    module.merge(safe_merge=True)
    after = module.get_base_layer().weight.detach().clone()
    module.unmerge()
    module.get_base_layer().weight.data.copy_(before)
    return after - before


def changes_by_peft(root, names):
    """By our names; PEFT's path of a layer is the base's."""
    return {
        names[path.removeprefix("base_model.model.")]: change_by_peft(module)
        for path, module in root.named_modules()
        if isinstance(module, LoraLayer)
    }


CONFIGS = {
    "alpha": {},
    "ranks and alphas that differ": {
        "rank_pattern": {"attn2.to_q": 2, "mid_block.resnets.0.conv1": 3},
        "alpha_pattern": {"attn2.to_k": 5, "mid_block.resnets.0.conv1": 7.5},
    },
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
}


def scramble_magnitudes(root):
    """Trained ones, that are not the weights' norms any more."""
    for name, weight in root.named_parameters():
        if "magnitude" in name:
            weight.data.mul_(1 + 0.1 * torch.rand_like(weight))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks for it
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("case", CONFIGS)
def test_what_diffusers_writes_is_read(tmp_path, folders, families, case, key):
    torch.manual_seed(0)
    family = load_tiny(folders[f"thin {key}"])  # PEFT puts its layers into it
    names = {part: {} for part in ("unet", "te", "te1", "te2")}
    for layer in families[f"thin {key}"].layers():
        names[layer.part][layer.path] = layer.name
    options = CONFIGS[case]
    family.unet.add_adapter(config(TARGETS, **options))
    metadata = {"unet_lora_adapter_metadata": family.unet.peft_config["default"].to_dict()}
    layers = {}
    scramble_magnitudes(family.unet)
    encoders = {"te": "text_encoder"} if key == "sd1" else {"te1": "text_encoder"}
    if key == "sdxl":
        encoders["te2"] = "text_encoder_2"
    expected = changes_by_peft(family.unet, names["unet"])
    layers["unet_lora_layers"] = get_peft_model_state_dict(family.unet)
    for (part, word), encoder in zip(encoders.items(), family.text_encoders, strict=True):
        plain = {k: v for k, v in options.items() if "pattern" not in k}
        wrapped = get_peft_model(encoder, config(TEXT_TARGETS, **plain | {"lora_alpha": 2}))
        scramble_magnitudes(wrapped)
        expected |= changes_by_peft(wrapped, names[part])
        state = get_peft_model_state_dict(wrapped)
        state = {key.removeprefix("base_model.model."): value for key, value in state.items()}
        layers[f"{word}_lora_layers"] = convert_state_dict_to_diffusers(state)
        metadata[f"{word}_lora_adapter_metadata"] = wrapped.peft_config["default"].to_dict()
    kind = StableDiffusionXLPipeline if key == "sdxl" else StableDiffusionPipeline
    kind.save_lora_weights(tmp_path, **layers, **metadata)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    type_here = "LyCORIS/LoCon" if case == "DoRA" else "Kohya LoCon"
    assert_deltas(deltas_of(path, families[f"thin {key}"], LoRA_type=type_here), expected)
    report = inspect(path)
    assert report["layout"] == "diffusers (PEFT)"
    assert sum(report["parts"].values()) == len(expected) == sum(report["alphas"].values())
    if case == "alpha":
        assert set(report["alphas"]) == {6.0, 2.0}
    told = list(foreseen_conversion(str(path)))
    assert told == ["network_weights is in the layout of diffusers (PEFT) and is converted"]


@pytest.mark.parametrize("case", CONFIGS)
def test_a_peft_adapter_folder_is_read(tmp_path, folders, families, case):
    torch.manual_seed(0)
    names = {x.path: x.name for x in families["thin sd1"].layers() if x.part == "unet"}
    model = get_peft_model(load_tiny(folders["thin sd1"]).unet, config(TARGETS, **CONFIGS[case]))
    scramble_magnitudes(model)
    model.save_pretrained(tmp_path)
    expected = changes_by_peft(model, names)
    type_here = "LyCORIS/LoCon" if case == "DoRA" else "Kohya LoCon"
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        assert_deltas(deltas_of(path, families["thin sd1"], LoRA_type=type_here), expected)
        report = inspect(path)
        assert report["layout"] == "a PEFT adapter folder"
        assert report["parts"] == {"unet": len(expected)}
        assert sum(report["alphas"].values()) == len(expected)
        told = list(foreseen_conversion(str(path)))
        assert told == [
            "network_weights is in the layout of a PEFT adapter folder and is converted"
        ]


# ---------------------------------------------------------------------------------------- OFT


def rotations(outputs, blocks, *, limit=0.0):
    """Blocks, and the rotation (1 + q) (1 - q)^-1 that they mean, as kohya and LyCORIS have it."""
    side = outputs // blocks
    made = torch.randn(blocks, side, side, dtype=torch.float64) * 0.2
    q = made - made.transpose(-1, -2)
    if limit:
        q = q * min(1.0, float(limit * outputs / q.norm()))
    one = torch.eye(side, dtype=torch.float64)
    return made, (one + q) @ torch.linalg.inv(one - q)


@pytest.mark.parametrize("kind", ["oft_unet", "oft_diag"])
def test_rotations_of_other_programs_turn_every_layer_as_there(tmp_path, families, kind):
    torch.manual_seed(5)
    tensors, expected = {}, {}
    for layer in families["sd1"].layers():
        if layer.part != "unet" or "attn" not in layer.path:
            continue
        weight = weight_of(layer).double()
        limit = 0.01 if kind == "oft_unet" else 0.0
        blocks, turns = rotations(weight.shape[0], 8, limit=limit)
        rows = weight.unflatten(0, (8, -1))
        turned = torch.einsum("knm,kn...->km...", turns, rows).flatten(0, 1)
        expected[layer.name] = (turned - weight).float()
        if kind == "oft_unet":
            name = layer.name.replace("lora_unet", "oft_unet")
            tensors |= {f"{name}.oft_blocks": blocks.float(), f"{name}.alpha": torch.tensor(limit)}
        else:
            tensors |= {f"{layer.name}.oft_diag": turns.float()}
    save_file(tensors, tmp_path / "a.safetensors")
    found = deltas_of(tmp_path / "a.safetensors", families["sd1"], LoRA_type="LyCORIS/Diag-OFT")
    assert found.keys() == expected.keys()
    for name, delta in expected.items():
        torch.testing.assert_close(found[name], delta, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
    "matrices", [2 * torch.eye(4).repeat(2, 1, 1), torch.ones(2, 3, 4), torch.ones(())]
)
def test_matrices_that_are_no_rotations_are_refused(tmp_path, matrices):
    save_file({"lora_unet_x.oft_diag": matrices}, tmp_path / "a.safetensors")
    with pytest.raises(LoraFileError, match="are no rotations"):
        read_lora(tmp_path / "a.safetensors")


# ------------------------------------------------------------------------- what cannot be converted

FF = "down_blocks.0.attentions.0.transformer_blocks.0.ff.net.2"
PAIR = {"lora_A.weight": (4, 8), "lora_B.weight": (8, 4)}
REFUSED = {
    "PEFT's OFT": {f"unet.{FF}.oft_R.weight": (2, 6), f"unet.{FF}.lora_A.weight": (4, 8)},
    "PEFT's BOFT": {f"base_model.model.{FF}.boft_R": (2, 2, 4, 4)},
    "biases": {**{f"unet.{FF}.{r}": s for r, s in PAIR.items()}, f"unet.{FF}.lora_B.bias": (8,)},
    "Flux": {f"transformer.single_transformer_blocks.0.attn.to_q.{r}": s for r, s in PAIR.items()},
    "adapter_config.json is not beside it": {
        f"base_model.model.{FF}.{r}": s for r, s in PAIR.items()
    },
    "whole layers": {
        **{f"base_model.model.{FF}.{r}": s for r, s in PAIR.items()},
        "base_model.model.conv_in.weight": (8, 4, 3, 3),
    },
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_converted_is_one_line_that_names_it(tmp_path, words):
    path = tmp_path / "a.safetensors"
    save_file({name: torch.ones(shape) for name, shape in REFUSED[words].items()}, path)
    with pytest.raises(LoraFileError, match=words) as told:
        read_lora(path)
    assert "\n" not in told.value.found
    assert len(told.value.found) < 250
    (line,) = foreseen_conversion(str(path))
    assert line.startswith("training would be refused: network_weights: ")
    assert words in line


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({"peft_type": "LOHA"}, "of type LOHA"),
        ({"lora_alpha": 2, "alpha_pattern": {"(a+)+b": 3}}, "only plain names are read"),
        ("{", "is damaged"),
        ({"lora_alpha": "much"}, "alphas are damaged"),
        ({"lora_alpha": float("nan")}, "alphas are damaged"),
        ({"alpha_pattern": [1]}, "alphas are damaged"),
    ],
)
def test_a_configuration_that_is_not_understood_is_told(tmp_path, contents, words):
    tensors = {f"base_model.model.{FF}.{r}": torch.ones(s) for r, s in PAIR.items()}
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    text = contents if isinstance(contents, str) else json.dumps(contents)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(KitError, match=words):
        read_lora(tmp_path)
    assert words in next(foreseen_conversion(str(tmp_path)))


def test_inspect_names_the_layout_in_words(tmp_path, families, folders):
    written(tmp_path / "a.safetensors", families["sd1"], folders["sd1"], in_onetrainer)
    assert "layout      OneTrainer (OMI)" in describe(inspect(tmp_path / "a.safetensors"))
