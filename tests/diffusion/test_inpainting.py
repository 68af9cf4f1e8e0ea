"""Inpainting models, from their file to the LoRA: 9 channels in the pipelines' order."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from kit.basemodel import detect
from kit.dataset.inpaint_masks import in_latents, inpaint_mask_at
from kit.diffusion.inpainting import blank_inpaint_cond, grayed, inpaint_cond, unet_input
from kit.errors import ModelError
from kit.families import Prediction
from kit.families.base_model import find_model
from kit.families.loading import load_family
from kit.families.text import TextConditioner
from kit.lorafile.tensors import read_header
from kit.settings import Settings
from kit.settings.prompts import Prompt
from kit.training.sampling import SamplePipeline
from kit.training.step import run_step
from tests.support.ldm import write_single_file
from tests.support.parts import load_tiny
from tests.support.tiny import write_tiny
from tests.support.toys import leave_after, lora, losses, run, same, toy_settings

FAMILIES = ("sd1", "sd2", "sdxl")
PAINTS = {"train_inpainting": True, "cache_latents": False}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: write_tiny(root / name, name, thin=True, inpainting=True) for name in FAMILIES}


@pytest.fixture
def ready_for(folders, images, prepared, tmp_path):
    def made(family, **changes):
        asked = toy_settings(folders[family], images, tmp_path / "out", **PAINTS, **changes)
        return prepared(asked)

    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_and_a_single_file_read_nine_channels(tmp_path, family):
    folder = write_tiny(tmp_path / family, family, inpainting=True)
    file = detect(folder)
    assert (file.family, file.is_inpainting) == (family, True)
    single = detect(write_single_file(folder, tmp_path / "model.safetensors"))
    assert (single.family, single.is_inpainting) == (family, True)


def test_a_single_file_computes_as_its_folder(tmp_path, monkeypatch):
    folder = write_tiny(tmp_path / "sd1", "sd1", inpainting=True)
    single = detect(write_single_file(folder, tmp_path / "model.safetensors"))
    monkeypatch.setattr("kit.families.loading.config_folder", lambda family: plain)
    plain = write_tiny(tmp_path / "plain", "sd1")  # as what is packaged: it says 4 channels
    one = load_tiny(folder)
    other = load_family(
        single,
        predicts=Prediction.EPSILON,
        device=torch.device("cpu"),
        dtype=torch.float32,
        vae_dtype=torch.float32,
    )
    assert other.unet.config.in_channels == 9
    assert torch.equal(one.unet.conv_in.weight, other.unet.conv_in.weight)


def test_model_and_setting_must_agree(folders, tmp_path):
    base = Settings().replace(pretrained_model_name_or_path=str(folders["sd1"]))
    with pytest.raises(ModelError, match="inpainting model") as caught:
        find_model(base)
    assert "Turn train_inpainting on" in caught.value.do
    plain = write_tiny(tmp_path / "plain", "sd1", thin=True)
    with pytest.raises(ModelError, match="train_inpainting is on") as caught:
        find_model(base.replace(pretrained_model_name_or_path=str(plain), **PAINTS))
    assert "Turn train_inpainting off" in caught.value.do
    assert find_model(base.replace(**PAINTS))[0].is_inpainting


# --------------------------------------------------------------------------------------- holes


def inpaint_masks(count, size=(96, 64), seed=3):
    return [inpaint_mask_at(size, seed=seed, epoch=0, image=i, turn=0) for i in range(count)]


def test_holes_are_a_quarter_whole_the_rest_half_rectangles_half_ellipses():
    kinds = {"whole": 0, "rectangle": 0, "ellipse": 0}
    for inpaint_mask_HW in inpaint_masks(600):
        assert inpaint_mask_HW.shape == (64, 96) and inpaint_mask_HW.any()
        rows, columns = (
            np.flatnonzero(inpaint_mask_HW.any(1)),
            np.flatnonzero(inpaint_mask_HW.any(0)),
        )
        wide, high = np.ptp(columns) + 1, np.ptp(rows) + 1
        share = inpaint_mask_HW.sum() / (wide * high)
        kind = "whole" if inpaint_mask_HW.all() else "rectangle" if share == 1 else "ellipse"
        if kind == "ellipse":
            assert share == pytest.approx(np.pi / 4, abs=0.08)
        kinds[kind] += 1
    assert 110 < kinds["whole"] < 190
    assert 180 < kinds["rectangle"] < 270 and 180 < kinds["ellipse"] < 270


def test_a_hole_belongs_to_one_use_of_one_image():
    address = {"seed": 3, "epoch": 1, "image": 4, "turn": 0}
    same_again = [inpaint_mask_at((96, 64), **address) for _ in range(2)]
    assert np.array_equal(*same_again)
    for name in address:
        drawn = [inpaint_mask_at((96, 64), **address | {name: number}) for number in range(10, 20)]
        assert len({inpaint_mask_HW.tobytes() for inpaint_mask_HW in drawn}) > 3, name


def test_holes_shrink_as_in_the_pipelines():
    for inpaint_mask_HW in inpaint_masks(20):
        pixels = torch.from_numpy(inpaint_mask_HW)[None, None].float()
        expected = interpolate(pixels, size=(8, 12))[0, 0]
        assert torch.equal(torch.from_numpy(in_latents(inpaint_mask_HW)), expected)


# ---------------------------------------------------------------------- what is read and learned


def test_the_channels_stand_in_the_pipelines_order():
    noisy = torch.full((2, 4, 3, 3), 1.0)
    mask, around = torch.full((3, 3), 2.0), torch.full((4, 3, 3), 3.0)
    read = unet_input(noisy, torch.stack([inpaint_cond(mask, around)] * 2))
    assert read[:, :, 0, 0].tolist() == [[1.0] * 4 + [2.0] + [3.0] * 4] * 2
    assert unet_input(noisy, None) is noisy


def test_the_hole_is_gray_and_the_rest_is_the_picture():
    picture = torch.rand(3, 64, 96)
    inpaint_mask_HW = torch.from_numpy(next(h for h in inpaint_masks(30) if not h.all()))
    gray = grayed(picture, inpaint_mask_HW)
    assert (gray[:, inpaint_mask_HW] == 0).all()
    assert torch.equal(gray[:, ~inpaint_mask_HW], picture[:, ~inpaint_mask_HW])


def test_a_batch_holds_holes_and_the_latents_around_them(ready_for):
    ready = ready_for("sd1", train_batch_size=2)
    seen_masks = set()
    for number in range(4):
        batch = ready.batch_builder.batch(number)
        count, _, h, w = batch.latents_BChw.shape
        assert batch.inpaint_cond_B5hw.shape == (count, 5, h, w)
        assert set(batch.inpaint_cond_B5hw[:, 0].unique().tolist()) <= {0.0, 1.0}
        around = batch.inpaint_cond_B5hw[:, 1:]
        assert not torch.allclose(around, batch.latents_BChw)
        seen_masks |= {row.numpy().tobytes() for row in batch.inpaint_cond_B5hw[:, 0]}
        assert torch.equal(
            ready.batch_builder.batch(number).inpaint_cond_B5hw, batch.inpaint_cond_B5hw
        )
    assert len(seen_masks) > 2


def test_where_all_is_a_hole_only_gray_is_left_around(ready_for, monkeypatch):
    monkeypatch.setattr("kit.dataset.inpaint_masks.WHOLE", 1.0)
    ready = ready_for("sd1")
    batch = ready.batch_builder.batch(0)
    h, w = batch.latents_BChw.shape[2:]
    gray_mean, gray_logvar = ready.family.encode_pixels(torch.zeros(1, 3, 8 * h, 8 * w))
    spread = ready.family.latent_scale * torch.exp(0.5 * gray_logvar)
    draws = (batch.inpaint_cond_B5hw[:, 1:] - gray_mean * ready.family.latent_scale) / spread
    assert bool((batch.inpaint_cond_B5hw[:, 0] == 1).all())
    assert abs(float(draws.mean())) < 0.5 and 0.7 < float(draws.std()) < 1.3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_and_paints(ready_for, family):
    ready = ready_for(family)
    result = run_step(ready.training_step, ready.batch_builder.micro_batches(1), count=1)
    assert np.isfinite(result.losses).all() and result.norm > 0
    picture = ready.samples.pipeline.generate(Prompt("a zib ball", steps=2), size=(128, 64), seed=1)
    assert picture.size == (128, 64) and np.asarray(picture).std() > 0


def test_what_is_read_beside_changes_the_loss(ready_for):
    ready = ready_for("sd1")
    batch = ready.batch_builder.batch(0)
    moved = type(batch)(**vars(batch) | {"inpaint_cond_B5hw": batch.inpaint_cond_B5hw.flip(1)})
    assert (
        ready.training_step.loss(batch).mean().item()
        != ready.training_step.loss(moved).mean().item()
    )


def test_samples_are_painted_into_a_hole_as_large_as_the_picture(folders, monkeypatch):
    family = load_tiny(folders["sd1"])
    gray, _ = family.encode_pixels(torch.zeros(1, 3, 64, 128))
    canvas = blank_inpaint_cond(family, (128, 64))
    assert bool((canvas[0] == 1).all())
    assert torch.allclose(canvas[1:], gray[0] * family.latent_scale)
    read, predict = [], family.predict
    monkeypatch.setattr(family, "predict", lambda *given: read.append(given[0]) or predict(*given))
    pipeline = SamplePipeline(TextConditioner(family), "ddim", nullcontext)
    pipeline.generate(Prompt("a ball", steps=2, scale=5.0), size=(128, 64), seed=1)
    assert len(read) == 2 and all(x.shape == (2, 9, 8, 16) for x in read)
    assert all(torch.equal(x[row, 4:], canvas) for x in read for row in (0, 1))


def test_resuming_changes_nothing_and_the_file_tells_of_it(folders, images, tmp_path):
    def asked(name, **changes):
        return toy_settings(folders["sd1"], images, tmp_path / name, **PAINTS, **changes)

    words = {"cache_text_encoder_outputs": True, "text_encoder_lr": 0, "epoch": 1}
    straight = losses(run(asked("a", **words)))
    first = losses(leave_after(3, asked("b", **words)))
    assert first + losses(run(asked("b", **words))) == straight
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))
    told = read_header(tmp_path / "a" / "toy.safetensors").metadata
    assert "train_inpainting" in json.dumps(json.loads(told["lorakit_settings"]))
