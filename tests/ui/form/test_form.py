import subprocess
import sys

import ipywidgets as widgets
import pytest

from kit import planning
from kit.errors import SettingsError
from kit.settings import Settings, declarations
from kit.ui import Form
from kit.ui.form.pages import heading
from kit.ui.form.problem_texts import with_labels
from kit.ui.form.remembered import STATE, place

# Every way a person may have set things, one value away from its default each.
EDITS = {
    "pretrained_model_name_or_path": "owner/name",
    "v2": False,
    "sdxl": True,
    "max_train_steps": 600,
    "seed": 4294967295,
    "unet_lr": None,
    "text_encoder_lr": 0.0,
    "learning_rate": 3.5e-5,
    "lr_scheduler": "polynomial",
    "lr_scheduler_power": 1.5,
    "optimizer_args": "weight_decay=0.1 betas=0.9,0.99",
    "LoRA_type": "Kohya LoCon",
    "conv_dim": 4,
    "save_every_n_epochs": None,
    "max_token_length": 225,
    "gradient_checkpointing": True,
    "cache_latents": False,
    "sample_prompts": "a <b> & 'c' --d 7\nzwei Kätzchen 猫",
    "caption_extension": "",
    "metadata_title": '"quoted"',
}


def widgets_under(root):
    yield root
    for child in getattr(root, "children", ()):
        yield from widgets_under(child)


def set_by_hand(form, name, text):
    form.fields[name].control.value = text


def test_every_declared_setting_stands_in_the_tabs_exactly_once():
    form = Form()
    rows = [
        css.removeprefix("kit-f-")
        for widget in widgets_under(form.pages.root)
        for css in getattr(widget, "_dom_classes", ())
        if css.startswith("kit-f-")
    ]
    assert sorted(rows) == sorted(declarations())


def test_tabs_are_the_boxes_of_the_declarations():
    tabs = Form().pages.root
    titles = [tabs.get_title(i) for i in range(len(tabs.children))]
    assert titles[:3] == ["Source Model", "Folders", "Parameters"]
    assert {"Samples", "Metadata"} < set(titles)
    inner = tabs.children[titles.index("Parameters")]
    assert isinstance(inner, widgets.Tab)
    assert [inner.get_title(i) for i in range(2)] == ["Basic", "Advanced"]


def test_headings_are_the_sections_own_words():
    assert heading("network") == "The LoRA itself: kind, size and dropouts"


def test_an_untouched_form_holds_the_defaults():
    assert Form().settings == Settings()


def test_what_is_edited_comes_back_as_it_was_meant():
    asked = Settings().replace(**EDITS)
    assert asked.changed().keys() == EDITS.keys()
    assert Form(asked).settings == asked
    form = Form()
    form.fill(asked)
    assert form.settings == asked
    form.fill(Settings())
    assert form.settings == Settings()


def test_all_wrong_values_are_told_at_once():
    form = Form()
    set_by_hand(form, "epoch", "many")
    set_by_hand(form, "network_dim", "9999")
    with pytest.raises(SettingsError) as told:
        form.settings  # noqa: B018  # reading it is the check
    assert len(told.value.problems) == 2
    assert form.problems == told.value.problems


def test_a_wrong_value_is_told_at_its_field_on_its_tab_and_beneath():
    form = Form()
    set_by_hand(form, "network_dim", "9999")
    assert "outside of what is possible" in form.fields["network_dim"].problem
    assert "Parameters / Basic / Network Rank (Dimension): 9999" in form.plan_line.value
    tabs = form.pages.root
    assert [tabs.get_title(i) for i in (1, 2)] == ["Folders", "Parameters (!)"]
    assert [tabs.children[2].get_title(i) for i in (0, 1)] == ["Basic (!)", "Advanced"]
    set_by_hand(form, "network_dim", "16")
    assert form.fields["network_dim"].problem == ""
    assert tabs.get_title(2) == "Parameters"


def test_a_blank_that_is_not_possible_is_called_blank():
    form = Form()
    set_by_hand(form, "train_batch_size", "")
    assert form.fields["train_batch_size"].problem.startswith("blank is not a whole number")


def test_a_contradiction_is_told_at_the_field_but_the_settings_can_be_read():
    form = Form()
    form.fields["random_crop"].value = True
    assert "Cache latents" in form.fields["random_crop"].problem  # by its label
    assert form.settings.images.random_crop


def test_fields_without_effect_are_grey_until_they_have_one():
    form = Form()
    assert form.fields["conv_dim"].control.disabled
    (_, help_text, *_) = form.fields["conv_dim"].row.children
    assert "No effect now: LoRA type = Standard" in help_text.value
    form.fields["LoRA_type"].value = "Kohya LoCon"
    assert not form.fields["conv_dim"].control.disabled
    assert form.fields["lr_scheduler_power"].control.disabled


def test_the_sentence_says_how_long_it_takes(ready, tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_KIT_CACHE", str(tmp_path / "nothing measured"))
    form = Form(ready)
    assert form.problems == ()
    assert "3 images x 4 repeats / batch 1 x 5 epochs = <b>60 steps</b>" in form.sentence.value
    assert "each image is seen 20 times, in 1 bucket" in form.sentence.value
    assert "not known on this machine yet" in form.sentence.value
    set_by_hand(form, "train_batch_size", "4")
    assert "/ batch 4 x 5 epochs = <b>15 steps</b>" in form.sentence.value


def test_what_a_forecast_was_measured_with_is_named_by_its_label(ready, monkeypatch):
    told = "About 9 s (measured with another LoRA_type and conv_dim)"
    monkeypatch.setattr("kit.ui.form.form.forecast", lambda plan: told)
    form = Form(ready)
    assert form.problems == ()
    labels = "measured with another LoRA type and Convolution Rank (Dimension)"
    assert labels in form.sentence.value


def test_the_line_never_shows_a_false_equation(ready):
    form = Form(ready.replace(train_batch_size=5))
    told = "(3 images x 4 repeats / batch 5, each bucket rounded up = 3 steps) x 5 epochs = <b>15"
    assert told in form.sentence.value
    set_by_hand(form, "max_train_steps", "7")
    told = (
        "batch 5, each bucket rounded up = 3 steps an epoch; it ends in epoch 3, after <b>7 steps"
    )
    assert f"3 images x 4 repeats / {told}" in form.sentence.value
    set_by_hand(form, "train_batch_size", "4")
    told = "batch 4 = 3 steps an epoch; it ends in epoch 3, after <b>7 steps"
    assert f"3 images x 4 repeats / {told}" in form.sentence.value


def test_the_line_does_not_change_by_itself(ready):
    form = Form(ready.replace(seed=None))
    before = form.sentence.value
    form._replan()
    assert form.sentence.value == before


def test_the_line_says_what_is_wrong_with_the_folder(settings):
    form = Form(settings)
    set_by_hand(form, "train_data_dir", "/nowhere/<b>")
    assert "Image folder = /nowhere/&lt;b&gt; does not exist" in form.plan_line.value
    assert "does not exist" in form.fields["train_data_dir"].problem
    assert "<b>" not in form.plan_line.value
    assert form.problems
    assert form.settings.folders.train_data_dir == "/nowhere/<b>"


def test_filling_many_fields_plans_once(settings, monkeypatch):
    plans = []
    form = Form()
    real = planning.plan
    monkeypatch.setattr(
        "kit.ui.form.form.planning.plan",
        lambda asked, **more: plans.append(asked) or real(asked, **more),
    )
    form.fill(settings)
    assert plans == [settings]


def test_toml_goes_out_and_comes_back(settings, tmp_path):
    path = tmp_path / "new folder" / "run.toml"
    form = Form(settings)
    form.files.path.value = f" {path} "
    form.files.save_button.click()
    assert "Saved as" in form.files.line.value
    assert Settings.load(path) == settings

    other = Form()
    other.files.path.value = str(path)
    other.files.load_button.click()
    other.files.offer_changes.apply()
    assert other.settings == settings


def test_a_file_that_cannot_be_read_changes_nothing(settings, tmp_path):
    (tmp_path / "bad.toml").write_text("epohc = 3", encoding="utf-8")
    form = Form(settings)
    for name, told in (("none.toml", "cannot be read"), ("bad.toml", "did you mean epoch")):
        form.files.path.value = str(tmp_path / name)
        form.files.load_button.click()
        assert told in form.files.line.value
        assert form.settings == settings


def test_a_form_with_wrong_values_is_not_saved(tmp_path):
    form = Form()
    set_by_hand(form, "epoch", "many")
    form.files.path.value = str(tmp_path / "run.toml")
    form.files.save_button.click()
    assert "epoch" in form.files.line.value
    assert not (tmp_path / "run.toml").exists()


def test_the_form_opens_without_torch_and_matplotlib():
    code = (
        "import sys; from kit.ui import Form; Form();"
        "print(sorted({'torch', 'matplotlib', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_only_core_widgets_are_used(settings):
    """Colab shows no others; and a Tab of ipywidgets 7 knows no `titles`."""
    for widget in widgets_under(Form(settings).root):
        assert type(widget).__module__.startswith("ipywidgets.")


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("pretrained_model_name_or_path", "", ""),
        ("network_weights", "", ""),
        ("additional_parameters", "--vae=", " --network_train_unet_only"),
    ],
)
def test_a_links_token_leaves_the_widgets_as_soon_as_it_is_typed(
    settings, tmp_path, monkeypatch, name, before, after
):
    monkeypatch.chdir(tmp_path)
    form = Form(settings)
    form.memory.keeps = True  # as the form that is shown
    set_by_hand(form, name, f"{before}https://x.org/m?token=t0k3n-secret{after}")
    assert form.fields[name].control.value == f"{before}https://x.org/m{after}"
    assert form.problems is not None  # it is planned
    held = [repr(widget.get_state()) for widget in widgets_under(form.root)]
    assert not [text for text in held if "t0k3n" in text]
    assert "t0k3n" not in place().with_name(STATE).read_text("utf-8")


def test_a_one_word_setting_with_its_value_is_told_by_its_label(settings):
    fields = Form(settings).fields
    told = with_labels("resolution = 512,650 is not in multiples of 8; a seed is drawn", fields)
    assert told == "Max resolution = 512,650 is not in multiples of 8; a seed is drawn"
    assert with_labels("see /a/epoch = 3", fields) == "see /a/epoch = 3"
    assert with_labels("epoch has no effect", fields) == "Epoch has no effect"
    assert with_labels("Leave sdxl to the model", fields) == "Leave SDXL Model to the model"
    assert with_labels("the seed of epoch 3 is set", fields) == "the seed of epoch 3 is set"


def test_notices_beneath_what_stands_in_the_way_have_a_heading_of_their_own(ready):
    form = Form(ready.replace(enable_bucket=False, bucket_no_upscale=True))
    assert "To know besides" not in form.plan_line.value
    form.fields["network_dim"].value = "9999"
    form.fields["network_dim"].value = "8"
    form.fields["pretrained_model_name_or_path"].value = "/no/model.safetensors"
    told = form.plan_line.value
    assert told.index("is not on this machine") < told.index("To know besides")
