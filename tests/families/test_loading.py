import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file

from kit import catalog
from kit.basemodel import ModelFile, detect
from kit.errors import ModelError
from kit.families import Family, Prediction, loading
from kit.families.clip import packaged_tokenizer
from kit.families.finite import check_finite
from tests.support.ldm import single_file_weights, write_single_file
from tests.support.tiny import build_vae, write_tiny

KEYS = ["sd1", "sd2", "sdxl"]
CROPS_26 = torch.tensor([[64, 64, 0, 0, 64, 64], [128, 96, 3, 0, 64, 64]])


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {key: write_tiny(root / key, key) for key in KEYS}


@pytest.fixture
def tiny_configs(monkeypatch, folders):
    """Single files do not tell their widths: these are miniatures."""
    monkeypatch.setattr(loading, "config_folder", lambda family: folders[family])


def load(file: ModelFile, **changes) -> Family:
    asked = {
        "predicts": Prediction.EPSILON,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "vae_dtype": torch.float32,
    }
    return loading.load_family(file, **(asked | changes))


@torch.no_grad()
def outputs(family: Family) -> dict[str, torch.Tensor]:
    """Everything a family says, about fixed inputs."""
    random = torch.Generator().manual_seed(5)
    pixels_B3HW = torch.rand(2, 3, 64, 64, generator=random) * 2 - 1
    noisy_BChw = torch.randn(2, 4, 8, 8, generator=random)
    tokens = family.tokenize(["a photo of sks dog", ""], max_token_length=150)
    text_embeds = family.encode_tokens(tokens, clip_skip=2)
    conditioning = family.condition(text_embeds, CROPS_26)
    mean_BChw, logvar_BChw = family.encode_pixels(pixels_B3HW)
    said = {
        "mean": mean_BChw,
        "logvar": logvar_BChw,
        "pixels": family.decode_latents(noisy_BChw),
        "hidden": text_embeds.hidden_BND,
        "guess": family.predict(noisy_BChw, torch.tensor([10, 800]), conditioning),
    }
    return said if text_embeds.pooled_BP is None else said | {"pooled": text_embeds.pooled_BP}


def assert_same(ours: Family, theirs: Family) -> None:
    left, right = outputs(ours), outputs(theirs)
    assert left.keys() == right.keys()
    for name in left:
        assert torch.allclose(left[name], right[name], atol=2e-5), name


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_says_the_same_as_its_folder(key, suffix, folders, tiny_configs, tmp_path):
    single = detect(write_single_file(folders[key], tmp_path / f"model{suffix}"))
    assert single.family == key
    assert_same(load(single), load(detect(folders[key])))


class ModelCheckpoint:
    """What a trainer leaves in its checkpoints."""


@pytest.mark.parametrize("key", KEYS)
def test_a_checkpoint_with_callbacks_is_loaded(key, folders, tiny_configs, tmp_path):
    path, weights = tmp_path / "model.ckpt", single_file_weights(folders[key])
    callbacks = {ModelCheckpoint: ModelCheckpoint()}
    torch.save({"state_dict": weights, "callbacks": callbacks}, path)
    assert_same(load(detect(path)), load(detect(folders[key])))


@pytest.mark.parametrize("key", KEYS)
def test_diffusers_reads_the_single_files_of_these_tests(key, folders, tmp_path):
    path = write_single_file(folders[key], tmp_path / "model.safetensors")
    kind = StableDiffusionXLPipeline if key == "sdxl" else StableDiffusionPipeline
    read = kind.from_single_file(path, config=str(folders[key]), local_files_only=True)
    ours = load(detect(folders[key]))
    pairs = [
        (read.unet, ours.unet),
        (read.vae, ours.vae),
        (read.text_encoder, ours.text_encoders[0]),
    ]
    if key == "sdxl":
        pairs.append((read.text_encoder_2, ours.text_encoders[1]))
    for theirs, mine in pairs:
        expected = mine.state_dict()
        assert all(
            torch.equal(tensor, expected[name]) for name, tensor in theirs.state_dict().items()
        )


@pytest.mark.parametrize("key", KEYS)
def test_what_is_loaded_is_frozen_and_knows_itself(key, folders):
    file = detect(folders[key])
    family = load(file, predicts=Prediction.V)
    assert (family.key, family.label) == (key, file.label)
    assert family.predicts is Prediction.V
    assert not family.zero_terminal_snr
    assert family.latent_scale == (0.13025 if key == "sdxl" else 0.18215)
    assert len(family.text_encoders) == (2 if key == "sdxl" else 1)
    for module in (family.unet, family.vae, *family.text_encoders):
        assert not module.training
        assert not any(weight.requires_grad for weight in module.parameters())


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("single", [False, True])
def test_precisions_of_vae_and_the_rest_are_apart(key, single, folders, tiny_configs, tmp_path):
    path = write_single_file(folders[key], tmp_path / "m.safetensors") if single else folders[key]
    family = load(detect(path), dtype=torch.bfloat16)
    for module in (family.unet, *family.text_encoders):
        assert {weight.dtype for weight in module.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in family.vae.parameters()} == {torch.float32}
    said = outputs(family)
    assert said["mean"].dtype == said["pixels"].dtype == torch.float32
    assert said["guess"].isfinite().all()


@pytest.mark.parametrize("key", KEYS)
def test_an_old_fp16_folder_of_pickles_is_read(key, folders, tmp_path):
    folder = shutil.copytree(folders[key], tmp_path / "old")
    for path in folder.glob("*/*.safetensors"):
        name = {"model": "pytorch_model"}.get(path.stem, path.stem)
        torch.save(load_file(path), path.with_name(f"{name}.fp16.bin"))
        path.unlink()
    assert_same(load(detect(folder)), load(detect(folders[key])))


def test_text_encoders_of_the_oldest_sd1_files_are_read(folders, tiny_configs, tmp_path):
    weights = single_file_weights(folders["sd1"])
    old = {
        name.replace("transformer.text_model.", "transformer."): t for name, t in weights.items()
    }
    old["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(77)[None]
    save_file(old, tmp_path / "old.safetensors")
    assert_same(load(detect(tmp_path / "old.safetensors")), load(detect(folders["sd1"])))


def other_vae(scaling_factor: float) -> AutoencoderKL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        return build_vae(scaling_factor)


def test_a_separate_vae_replaces_the_models_own(folders, tiny_configs, tmp_path):
    vae = other_vae(0.18215)
    vae.save_pretrained(tmp_path / "alone")
    vae.save_pretrained(tmp_path / "model" / "vae")
    copy = shutil.copytree(folders["sd1"], tmp_path / "copy")
    shutil.rmtree(copy / "vae")
    vae.save_pretrained(copy / "vae")
    prefix = "first_stage_model."
    lone = {n.removeprefix(prefix): t for n, t in single_file_weights(copy).items() if prefix in n}
    save_file(lone, tmp_path / "ldm.safetensors")
    torch.save({"state_dict": lone}, tmp_path / "ldm.vae.pt")
    places = [
        "alone",
        "model",
        "alone/diffusion_pytorch_model.safetensors",
        "ldm.safetensors",
        "ldm.vae.pt",
    ]
    single = write_single_file(folders["sd1"], tmp_path / "base.safetensors")
    expected = vae.state_dict()
    for base, place in [*((folders["sd1"], place) for place in places), (single, places[0])]:
        read = load(detect(base), vae=str(tmp_path / place)).vae
        for name, tensor in read.state_dict().items():
            assert torch.equal(tensor, expected[name]), (place, name)


def test_a_vae_of_another_family_is_refused(folders, tmp_path):
    other_vae(0.18215).save_pretrained(tmp_path / "vae")
    with pytest.raises(
        ModelError, match=r"scales its latents by 0\.18215, the base model by 0\.13025"
    ):
        load(detect(folders["sdxl"]), vae=str(tmp_path / "vae"))


def test_a_vae_that_does_not_name_its_scale_takes_the_models(folders, tmp_path):
    other_vae(0.5).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["scaling_factor"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert load(detect(folders["sdxl"]), vae=str(tmp_path)).latent_scale == 0.13025


def test_a_file_without_vae_asks_for_one(folders, tiny_configs, tmp_path):
    weights = single_file_weights(folders["sd1"])
    bare = {name: t for name, t in weights.items() if not name.startswith("first_stage_model")}
    save_file(bare, tmp_path / "bare.safetensors")
    file = detect(tmp_path / "bare.safetensors")
    with pytest.raises(ModelError, match="holds no VAE"):
        load(file)
    assert_same(load(file, vae=str(folders["sd1"])), load(detect(folders["sd1"])))


@pytest.mark.parametrize(
    ("part", "lost"),
    [
        ("model.diffusion_model", "model.diffusion_model.middle_block.1.proj_in.weight"),
        ("first_stage_model", "first_stage_model.quant_conv.weight"),
        ("cond_stage_model", "cond_stage_model.transformer.text_model.final_layer_norm.weight"),
    ],
)
def test_a_single_file_with_a_missing_weight_is_refused(
    part, lost, folders, tiny_configs, tmp_path
):
    weights = single_file_weights(folders["sd1"])
    del weights[lost]
    save_file(weights, tmp_path / "part.safetensors")
    with pytest.raises(ModelError, match=r"missing|does not fit"):
        load(detect(tmp_path / "part.safetensors"))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_folder_with_a_missing_weight_is_refused(part, folders, tmp_path):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "copy")
    path = next((folder / part).glob("*.safetensors"))
    weights = load_file(path)
    weights.pop(sorted(weights)[0])
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="does not fit its family"):
        load(detect(folder))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_folder_with_a_weight_that_is_no_number_is_refused(part, bad, folders, tmp_path):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "copy")
    path = next((folder / part).glob("*.safetensors"))
    weights = load_file(path)
    name = sorted(weights)[3]
    weights[name].view(-1)[1] = bad
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="no numbers") as told:
        load(detect(folder))
    assert f"{path} is broken: 1 of the {weights[name].numel()} values of {name}" in str(told.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_a_single_file_with_weights_that_are_no_numbers_is_refused(
    suffix, folders, tiny_configs, tmp_path
):
    weights = single_file_weights(folders["sd1"])
    for name in sorted(weights):
        if name.startswith("model.diffusion_model.time_embed."):
            weights[name][:] = float("nan")
    path = tmp_path / f"model{suffix}"
    torch.save({"state_dict": weights}, path) if suffix == ".ckpt" else save_file(weights, path)
    with pytest.raises(ModelError, match=r"of time_embedding\.linear_1\.") as told:
        load(detect(path))
    assert f"{path} is broken" in str(told.value)
    assert "So do 3 more" in str(told.value)


def test_numbers_for_which_fp16_has_no_room_are_told_with_what_mends_it(folders, tmp_path):
    folder = shutil.copytree(folders["sd1"], tmp_path / "copy")
    path = next((folder / "unet").glob("*.safetensors"))
    weights = load_file(path)
    weights["conv_in.weight"][0] = 1e5
    save_file(weights, path, metadata={"format": "pt"})
    load(detect(folder), dtype=torch.bfloat16)
    with pytest.raises(ModelError, match=r"above 65504[\s\S]*mixed_precision = bf16"):
        load(detect(folder), dtype=torch.float16)


def test_large_numbers_whose_sum_overflows_are_numbers():
    layer = torch.nn.Linear(64, 64)
    torch.nn.init.constant_(layer.weight, 3e38)
    check_finite(layer, Path("model"))


def test_a_real_sized_file_of_another_shape_is_refused(folders, tmp_path):
    path = write_single_file(folders["sd1"], tmp_path / "narrow.safetensors")
    with pytest.raises(ModelError, match="does not fit its family"):
        load(detect(path))


def test_a_folder_with_words_of_its_own_brings_its_tokenizer(folders, tmp_path):
    from kit.demo.build_base import build_text_encoder, build_tokenizer

    folder = shutil.copytree(folders["sd1"], tmp_path / "own")
    tokenizer = build_tokenizer()
    shutil.rmtree(folder / "text_encoder")
    shutil.rmtree(folder / "tokenizer")
    build_text_encoder(tokenizer).save_pretrained(folder / "text_encoder")
    with pytest.raises(ModelError, match="but has no tokenizer/"):
        load(detect(folder))
    tokenizer.save_pretrained(folder / "tokenizer")
    family = load(detect(folder))
    (ids_BKN,) = family.tokenize(["a red ball", "zzz"], max_token_length=75)
    alone = tokenizer(
        ["a red ball", "zzz"], padding="max_length", max_length=77, return_tensors="pt"
    )
    assert torch.equal(ids_BKN[:, 0], alone.input_ids)
    assert family.encode_tokens((ids_BKN,), clip_skip=1).hidden_BND.shape == (2, 77, 96)


def test_clips_words_are_split_by_the_packaged_tokenizer_even_from_a_folder(folders, tmp_path):
    folder = shutil.copytree(folders["sdxl"], tmp_path / "bare")
    shutil.rmtree(folder / "tokenizer_2")
    family = load(detect(folder))
    tokens = family.tokenize(["hello, world!"], max_token_length=75)
    expected = packaged_tokenizer("!").windows(["hello, world!"], max_token_length=75)
    assert torch.equal(tokens[1], expected)


def test_words_travel_and_gradients_reach_the_text_encoders(folders):
    family = load(detect(folders["sdxl"]))
    for encoder in family.text_encoders:
        encoder.requires_grad_(True)
    tokens = family.tokenize(["a cat"], max_token_length=75)
    text_embeds = family.encode_tokens(tokens, clip_skip=1).to(torch.device("cpu"))
    conditioning = family.condition(text_embeds, CROPS_26[:1])
    prediction = family.predict(torch.randn(1, 4, 8, 8), torch.tensor([3]), conditioning)
    prediction.square().mean().backward()
    for encoder in family.text_encoders:
        inner = getattr(encoder, "text_model", encoder)
        assert inner.embeddings.token_embedding.weight.grad is not None


def test_loading_is_quiet_and_leaves_the_libraries_voices_as_they_were(folders, capfd, caplog):
    from transformers.utils import logging as voices

    before = voices.get_verbosity(), voices.is_progress_bar_enabled()
    with caplog.at_level(logging.WARNING):
        load(detect(folders["sdxl"]))
    assert (voices.get_verbosity(), voices.is_progress_bar_enabled()) == before
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert not caplog.records


def test_what_the_file_says_of_zero_snr_is_kept(folders, tiny_configs, tmp_path):
    path = write_single_file(
        folders["sdxl"], tmp_path / "v.safetensors", markers=("v_pred", "ztsnr")
    )
    file = detect(path)
    assert (file.predicts, file.zero_terminal_snr) == ("v_prediction", True)
    assert load(file, predicts=Prediction(file.predicts)).zero_terminal_snr
    assert not load(replace(file, zero_terminal_snr=False)).zero_terminal_snr


def test_every_family_of_the_menu_is_loaded_here():
    assert set(KEYS) == set(catalog.FAMILIES), "a miniature of it, in tests/support/tiny.py"
