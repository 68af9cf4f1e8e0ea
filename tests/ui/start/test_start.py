"""The first screen: answers fill the form, nothing is lost, and the example leaves nothing."""

import pytest
from PIL import Image

from kit import demo
from kit.catalog import BASE_MODELS
from kit.hosts import Gpu
from kit.presets import presets
from kit.settings import Settings
from kit.ui import Form
from kit.ui.form.remembered import example

SDXL = next(row for row in BASE_MODELS if row.title.startswith("Illustrious"))
V_PRED = next(row for row in BASE_MODELS if row.predicts == "v_prediction" and row.family == "sdxl")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "10_zxdog dog"
    folder.mkdir()
    for i in range(6):
        Image.new("RGB", (640, 480 + i), (40 * i, 90, 120)).save(folder / f"{i}.jpg")
    return tmp_path


def t4(monkeypatch, capability=7.5):
    card = Gpu("Tesla T4", 16_106)
    for place in ("autofill.gpu", "device.gpu"):
        monkeypatch.setattr(f"kit.ui.start.{place}", lambda: card)
    monkeypatch.setattr("kit.ui.start.device.capability", lambda: capability)


def answered(photos):
    form = Form()
    form.fields["train_data_dir"].value = str(photos)
    form.start.pick.value = SDXL.name
    form.start.trigger_word.value = "zxdog"
    return form


def test_the_answers_fill_in_the_preset_for_aim_family_and_card(photos, monkeypatch):
    t4(monkeypatch)
    form = answered(photos)
    asked = presets()["sdxl-subject-16gb"].applied_to(form.settings)
    assert form.settings == asked.replace(sdxl=None, v2=None)  # the model itself says that
    assert form.settings.folders.output_name == "zxdog"
    assert "zxdog" in form.settings.samples.sample_prompts
    assert form.problems == ()
    form.start.goal.value = "a style"
    assert form.settings.network.LoRA_type == "Kohya LoCon"
    assert "sdxl-style-16gb" in form.start.line.value


def test_a_blank_trigger_word_is_asked_for_where_pictures_would_train_without_words(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / "photos" / name)
    form = Form()
    form.fields["train_data_dir"].value = str(tmp_path / "photos")
    form.start.pick.value = str(demo.BASE)
    assert form.problems == ()  # it can be meant
    asked = "Still to type: a trigger word (1), else 2 pictures train without any words."
    assert asked in form.sentence.value
    form.start.class_word.value = "dog"
    assert form.problems == ()
    assert "Still to type" not in form.sentence.value


def test_a_trigger_word_that_no_caption_says_is_told(tmp_path):
    """A data set of another day keeps its folder's word: the new word would be learned by none."""
    folder = tmp_path / "set" / "10_zxdog dog"
    folder.mkdir(parents=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64)).save(folder / name)
    form = Form()
    form.start.pick.value = str(demo.BASE)
    form.fields["train_data_dir"].value = str(tmp_path / "set")
    for said in ("zxdog", "ZXDOG"):
        form.start.trigger_word.value = said
        assert form.problems == ()
        assert "without the trigger word" not in form.sentence.value
    form.start.trigger_word.value = "o<h>wx"
    assert form.problems == ()
    assert (
        "2 pictures learn without the trigger word &quot;o&lt;h&gt;wx&quot;: the caption of the "
        "first is &quot;zxdog dog&quot;. All captions (3) adds it." in form.sentence.value
    )
    (folder / "a.txt").write_text("a photo of o<h>wx")
    form.refresh()
    assert form.problems == ()
    assert "1 picture learns without the trigger word" in form.sentence.value
    form.fields["caption_prefix"].value = "o<h>wx,"
    assert form.problems == ()
    assert "without the trigger word" not in form.sentence.value


def test_a_link_to_a_model_nobody_knows_gets_the_precision_that_is_here(photos):
    form = Form()
    form.fields["train_data_dir"].value = str(photos)
    form.fields["pretrained_model_name_or_path"].value = "https://a.b/my model.safetensors"
    assert form.problems == ()
    assert form.settings.memory.mixed_precision == "no"  # no GPU here
    assert form.fields["pretrained_model_name_or_path"].value.endswith("/my%20model.safetensors")


def test_the_row_that_loads_settings_stands_in_one_place_at_a_time():
    form = Form()
    row, below, above = form.files.root, form.files_place, form.head._files
    for opened in (True, False, True):
        form.head.load_button.click()
        assert (row in above.children, row in below.children) == (opened, not opened)
        assert above.layout.display == (None if opened else "none")


def test_samples_are_also_drawn_before_the_first_step(photos, monkeypatch):
    t4(monkeypatch)
    assert answered(photos).settings.samples.sample_at_first is True


def test_another_model_takes_the_first_ones_values_along(photos, monkeypatch):
    t4(monkeypatch)
    form = answered(photos)
    form.start.pick.value = V_PRED.name
    assert form.settings.model.v_parameterization is True
    form.start.pick.value = SDXL.name
    assert form.settings.model.v_parameterization is None
    form.start.pick.value = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert form.settings.images.resolution == "512,512"
    assert form.settings.memory.gradient_checkpointing is False


def test_what_a_person_has_set_by_hand_stays_and_is_named(photos, monkeypatch):
    t4(monkeypatch)
    form = answered(photos)
    form.fields["network_dim"].value = "77"
    form.start.goal.value = "a style"
    assert form.settings.network.network_dim == 77
    assert "your own values stay: Network Rank (Dimension)" in form.start.line.value


def test_the_embedded_base_is_in_the_menu_and_never_preset(photos):
    form = Form()
    assert form.start.pick.value == ""
    assert str(demo.BASE) in [value for _, value in form.start.pick.options]
    form.fields["train_data_dir"].value = str(photos)
    form.start.pick.value = str(demo.BASE)
    assert form.settings.images.resolution == "64,64"
    assert form.settings.memory.mixed_precision == "no"  # no GPU here
    assert form.problems == ()


def test_the_example_is_one_click_from_a_blank_form():
    form = Form()
    form.head.example_button.click()
    assert form.settings == example()
    assert form.problems == ()


def test_where_the_example_would_overwrite_something_that_is_shown_first(settings):
    form = Form(settings)
    form.head.example_button.click()
    assert form.settings == settings
    assert "<td>Model output name</td><td>cat</td><td>zib-ball</td>" in form.head.offer.table.value
    form.head.offer.leave_button.click()
    assert form.head.offer.root.layout.display == "none"
    form.head.example_button.click()
    form.head.offer.apply_button.click()
    assert form.settings == example()
    form.head.undo_button.click()
    assert form.settings == settings


@pytest.mark.parametrize("way", ["folder", "button"])
def test_nothing_of_the_example_stays_once_it_is_left(photos, way):
    form = Form()
    form.head.try_example()
    form.fields["epoch"].value = "7"  # the person's own
    if way == "folder":
        form.fields["train_data_dir"].value = str(photos)
    else:
        form.head.own_button.click()
    left = form.settings.changed()
    assert left.pop("epoch") == 7
    assert left.pop("train_data_dir", "") == (str(photos) if way == "folder" else "")
    assert left == {}
    assert form.start.answers.trigger_word == ""
    form.head.undo()
    assert form.settings == example().replace(epoch=7)


def test_a_preset_and_the_reset_show_what_they_would_change_first(settings):
    form = Form(settings)
    form.starters.preset.value = "sdxl-style-16gb"
    told = form.starters.offer.table.value
    assert "<td>LoRA type</td><td>Standard</td><td>Kohya LoCon</td>" in told
    assert form.settings == settings
    form.starters.offer.apply_button.click()
    assert form.settings == presets()["sdxl-style-16gb"].applied_to(settings)
    form.starters.reset_button.click()
    assert form.settings != Settings()
    form.starters.offer.apply_button.click()
    assert form.settings == Settings()
    form.head.undo()
    form.head.undo()
    assert form.settings == settings


def test_a_preset_keeps_what_can_be_read_beside_a_wrong_value(settings):
    form = Form(settings)
    form.fields["seed"].value = "many"
    form.starters.preset.value = "sd1-subject-8gb"
    form.starters.offer.apply()
    assert form.settings.folders.output_name == "cat"
    form.head.undo()
    assert form.fields["seed"].value == "many"


def test_a_precision_that_is_lacking_blocks_train_and_has_its_button(ready):
    form = Form(ready.replace(mixed_precision="fp16"))
    assert "fp16 does not work" in form.fields["mixed_precision"].problem
    assert "Mixed precision: fp16 does not work" in form.plan_line.value
    row = form.remedies.rows[0]
    assert row.button.description == "Use 32 bits"
    row.button.click()
    assert form.settings == ready
    assert form.problems == ()
    assert row.root.layout.display == "none"
    form.head.undo()
    assert form.settings.memory.mixed_precision == "fp16"


def test_a_size_that_the_model_was_not_made_for_has_its_button(photos, monkeypatch):
    t4(monkeypatch)
    form = answered(photos)
    form.fields["resolution"].value = "64"
    row = form.remedies.rows[0]
    assert "1024 x 1024" in row.line.value
    row.mend()
    assert form.settings.images.resolution == "1024,1024"


def test_a_token_in_a_link_reaches_neither_form_nor_undo():
    form = Form()
    link = '"https://civitai.com/api/download/models/12?token=geheim"'
    form.fields["pretrained_model_name_or_path"].value = link
    assert form.fields["pretrained_model_name_or_path"].value.endswith("/models/12")
    kept = f"{form.memory.undo.now} {form.memory.undo.to_json()}"
    assert "geheim" not in kept


def test_the_family_is_asked_only_where_nothing_tells_it(photos):
    form = answered(photos)
    assert form.start.family.layout.display == "none"
    form.fields["pretrained_model_name_or_path"].value = "somebody/some-model"
    assert form.start.family.layout.display is None
    form.start.family.value = "sdxl"
    assert form.settings.images.resolution == "1024,1024"


def test_a_flat_folder_is_repeated_until_another_is_chosen(photos, tmp_path):
    form = Form()
    form.fields["train_data_dir"].value = str(photos / "10_zxdog dog")
    assert form.settings.images.dataset_repeats == 40
    form.fields["train_data_dir"].value = str(photos)
    assert form.settings.images.dataset_repeats is None


def test_names_of_pictures_and_words_are_escaped(photos):
    form = answered(photos)
    form.start.trigger_word.value = "<img src=x onerror=alert(1)>"
    form.start.fold(is_folded=True, pictures=6)
    assert "<img" not in form.start.summary.value
    assert "<img" not in form.start.line.value


def test_a_state_of_another_version_brings_back_what_is_known():
    form = Form()
    form.memory.bring_back(
        {"network_dim": "12", "LoRA_type": "Gone", "no_such": 1, "start": {"goal": "nonsense"}}
    )
    assert form.settings == Settings().replace(network_dim=12)
    assert form.start.answers.goal == "subject"
