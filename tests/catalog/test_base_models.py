"""The quick pick: each model brings what belongs to it."""

import pytest

from kit import catalog
from kit.catalog import BASE_MODELS, base_model
from kit.settings import Settings

NOOB_V = "Laxhar/noobai-XL-Vpred-1.0/NoobAI-XL-Vpred-v1.0.safetensors"


@pytest.mark.parametrize("row", BASE_MODELS, ids=lambda row: row.title)
def test_each_brings_values_that_settings_take(row):
    settings = Settings().replace(**row.values)
    assert settings.model.pretrained_model_name_or_path == row.name
    assert settings.images.size == (row.side, row.side)
    assert row.family in catalog.FAMILIES
    assert base_model(row.name) is row


def test_a_model_that_predicts_v_brings_what_goes_with_it():
    noise = Settings().replace(**base_model(NOOB_V).values)
    assert noise.model.v_parameterization is True
    assert noise.noise.zero_terminal_snr is True
    assert noise.noise.scale_v_pred_loss_like_noise_pred is True
    assert base_model(NOOB_V).facts == "SDXL, predicts v, 1024, zero terminal SNR"


def test_the_next_choice_takes_it_back():
    settings = Settings().replace(**{**base_model(NOOB_V).values, "sdxl": True})
    plain = settings.replace(**base_model("stable-diffusion-v1-5/stable-diffusion-v1-5").values)
    assert plain.model.v_parameterization is None
    assert plain.model.sdxl is None
    assert plain.noise.zero_terminal_snr is None
    assert plain.noise.scale_v_pred_loss_like_noise_pred is False
    assert plain.images.size == (512, 512)


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("cagliostrolab/animagine-xl-3.0/", "Animagine XL 3.0"),
        ("https://huggingface.co/cagliostrolab/animagine-xl-3.0", "Animagine XL 3.0"),
        (f"https://huggingface.co/{NOOB_V.replace('/NoobAI', '/blob/main/NoobAI')}", "NoobAI-XL"),
        ("https://civitai.com/models/257749/pony?modelVersionId=290640", "Pony Diffusion V6 XL"),
        ("https://civitai.com/api/download/models/290640?type=Model", "Pony Diffusion V6 XL"),
    ],
)
def test_a_model_is_known_however_it_is_named(name, title):
    assert base_model(name).title.startswith(title)


@pytest.mark.parametrize("name", ["", "owner/name", "https://civitai.com/models/1", "/a/b/c"])
def test_other_names_are_none_of_them(name):
    assert base_model(name) is None


def test_titles_are_unique():
    titles = [row.title for row in BASE_MODELS]
    assert len(set(titles)) == len(titles)
