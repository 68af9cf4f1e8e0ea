import json
from pathlib import Path

import pytest

from kit.settings import declarations
from kit.ui import Form
from kit.ui.form.views import BASIC, search


def shown(form):
    return [
        css.removeprefix("kit-f-")
        for row in form.views._list.children
        for css in row._dom_classes
        if css.startswith("kit-f-")
    ]


def test_all_settings_stand_in_tabs():
    form = Form()
    form.views.choice.value = "All settings"
    assert form.pages.root.layout.display is None
    assert shown(form) == []


def test_the_basic_view_asks_about_a_dozen_things_that_exist():
    form = Form()
    assert form.views.choice.value == "Basic"  # how it opens
    assert shown(form) == list(BASIC)
    assert set(BASIC) <= set(declarations())
    assert 10 <= len(BASIC) <= 15
    assert not form.pages.is_made
    form.views.choice.value = "All settings"
    form.views.choice.value = "Basic"
    assert form.pages.root.layout.display == "none"


def test_the_basic_view_hides_nothing_that_differs_or_is_wrong(settings):
    form = Form(settings.replace(flip_aug=True))
    assert "flip_aug" in shown(form)
    form.fields["keep_tokens"].value = "-1"
    form.views.update()
    assert "keep_tokens" in shown(form)
    form.fields["keep_tokens"].value = "0"
    form.views.update()
    assert "keep_tokens" in shown(form)  # a row does not go while one types in it


def test_the_changed_view_lists_what_differs_with_its_default():
    form = Form()
    form.fields["network_dim"].control.value = "16"
    form.fields["unet_lr"].control.value = "0.0001"  # the default, written otherwise
    form.fields["flip_aug"].control.value = True
    form.views.choice.value = "Changed"
    assert set(shown(form)) == {"network_dim", "flip_aug"}
    assert "network_dim (default: 8)" in form.views.note.value


def test_a_value_that_is_wrong_counts_as_changed():
    form = Form()
    form.fields["epoch"].control.value = "many"
    assert form.changed() == ["epoch"]


def test_the_search_finds_names_labels_and_help_best_first():
    found = search("rank", declarations().values())
    assert found[0] == "network_dim"
    assert "conv_dim" in found
    assert search("network rank (dimension)", declarations().values())[0] == "network_dim"
    assert search("no such thing at all", declarations().values()) == []


def test_what_is_typed_in_a_list_stands_in_the_tabs():
    form = Form()
    form.views.search.value = "network_dim"
    form.views._list.children[0].children[0].value = "24"
    assert form.settings.network.network_dim == 24
    form.views.search.value = ""
    assert form.fields["network_dim"].row in form.views._list.children


def test_a_problem_is_brought_to_the_front():
    form = Form()
    form.views.choice.value = "Basic"
    form.fields["module_dropout"].control.value = "7"
    form.show_problem()
    parameters = form.pages.root.children[2]
    assert form.pages.root.selected_index == 2
    assert parameters.selected_index == 1
    assert form.views.choice.value == "All settings"


GUI = json.loads((Path(__file__).parents[2] / "golden" / "gui_fields.json").read_text())["fields"]


@pytest.mark.parametrize("field", GUI, ids=lambda field: field["key"])
def test_the_search_finds_each_setting_by_the_label_that_the_gui_gives_it(field):
    wanted = [name for name, d in declarations().items() if d.gui_key == field["key"]]
    found = search(field["label"], declarations().values())
    assert set(wanted) <= set(found[:8])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("LR number of cycles", "lr_scheduler_num_cycles"),
        ("regularization", "reg_data_dir"),
        ("regularisation", "reg_data_dir"),
        ("Trained Model output name", "output_name"),
        ("preview", "sample_prompts"),
        ("colour augmentation", "color_aug"),
        ("rank-stabilized", "rs_lora"),
        ("center crop", "random_crop"),
        ("centre crop", "random_crop"),
        ("SDXL Model", "sdxl"),
        ("LoRA network weights", "network_weights"),
        ("Caption Extension", "caption_extension"),
        ("Stop text encoder training", "stop_text_encoder_training"),
        ("LR warmup (% of steps)", "lr_warmup"),
        ("nois", "noise_offset"),
    ],
)
def test_the_search_knows_the_guides_words_in_both_spellings(text, name):
    assert name in search(text, declarations().values())[:4]
