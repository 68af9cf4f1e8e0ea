"""Ours out and in again: equal, or told."""

import json
import tomllib

import pytest

from kit import catalog
from kit.errors import SettingsError
from kit.exchange import export_gui, export_sd_scripts, load_any
from kit.exchange.additional import with_additional
from kit.exchange.known import gui_fields, trainer_args
from kit.settings import Settings, declarations

DECLARED = declarations()
TEXTS = ("two words", "StepLR", "step_rules=1:10,0.1", "name=1", "1,1", "64,128", ".cap", "0.5")
# A value that is possible and is neither the default nor another way to say it.
VALUES = {
    "additional_parameters": "--max_grad_norm=2",
    "resolution": "768,512",
    "optimizer_args": "betas=0.9,0.99 weight_decay=0.1",
}
GIVEN = {"multires_noise_iterations": {"noise_offset_type": "Multires"}}  # so that it counts
# What goes out as something of the same meaning.
ALIKE_IN_TRAINER = ("max_train_epochs",)


def another_value(declared):
    """A value that is possible and not the default."""
    candidates = [VALUES[declared.name]] if declared.name in VALUES else []
    candidates += [choice for choice in declared.choices if choice != declared.default]
    if declared.type == "bool":
        candidates.append(not declared.default)
    if declared.between:
        low, high = declared.between
        for part in (0.5, 0.1, 0.01, 0.001):
            value = low + (high - low) * part
            candidates.append(int(value) if declared.type == "int" else round(value, 6))
    candidates += TEXTS
    for value in candidates:
        try:
            if Settings().replace(**{declared.name: value}) != Settings():
                return value
        except SettingsError:
            continue
    raise AssertionError(f"give {declared.name} a value in VALUES above")


def with_another_value(declared):
    kinds = [name for name, row in catalog.LORA_TYPES.items() if declared.name in row.uses]
    of_some = any(declared.name in row.uses for row in catalog.LORA_TYPES.values())
    changes = {"LoRA_type": kinds[0]} if of_some and kinds[0] != "Standard" else {}
    changes |= GIVEN.get(declared.name, {})
    return Settings().replace(**{"sdxl": True, **changes, declared.name: another_value(declared)})


def told(notices, name):
    return any(notice.startswith((f"{name} = ", f"{name} is ")) for notice in notices)


@pytest.mark.parametrize("name", DECLARED)
def test_a_setting_comes_back_from_the_gui_or_is_told(name):
    settings = with_another_value(DECLARED[name])
    text, notices = export_gui(settings)
    back, report = load_any(text)
    assert not report.problems()
    if name == "additional_parameters":
        assert back == settings
        return
    back, problems, _ = with_additional(back)
    assert not problems
    same = back.flat()[name] == settings.flat()[name]
    assert same != told(notices, name)
    assert same or DECLARED[name].gui_key not in gui_fields()
    has_blanks = " " in str(settings.flat()[name])  # the GUI tears arguments at every blank
    assert same or name not in trainer_args() or name == "dataset_repeats" or has_blanks


@pytest.mark.parametrize("name", DECLARED)
def test_a_setting_comes_back_from_sd_scripts_or_is_told(name):
    settings = with_another_value(DECLARED[name])
    text, notices = export_sd_scripts(settings)
    back, report = load_any(text)
    assert not report.problems()
    settings, _, _ = with_additional(settings)
    same = back.flat()[name] == settings.flat()[name]
    if name in trainer_args() and name not in (*ALIKE_IN_TRAINER, "dataset_repeats"):
        assert same, notices
    assert same or told(notices, name) or (name == "sdxl" and "sdxl_train_network.py" in text)


def test_the_defaults_come_back_whole():
    text, notices = export_gui(Settings())
    assert load_any(text)[0] == Settings()
    assert [notice.partition(" ")[0] for notice in notices] == ["sdxl"]
    text, notices = export_sd_scripts(Settings())
    assert load_any(text)[0] == Settings()
    assert notices == []


def test_the_gui_gets_all_it_saves_in_its_own_types():
    written = json.loads(export_gui(Settings())[0])
    assert written.keys() == gui_fields().keys()
    for key, field in gui_fields().items():
        kinds = {"bool": bool, "int": (int, float), "float": (int, float), "str": str}
        assert isinstance(written[key], kinds[field.type]), key
    assert written["wandb_api_key"] == written["huggingface_token"] == ""
    assert written["max_train_steps"] == 0  # so that Epoch counts there


TRAINER_TYPES = {
    "flag": bool, "int": int, "float": float, "str": str, "path": str, "list[str]": list,
    "list[float]": list, "int_or_float": (int, float),
}  # fmt: skip


@pytest.mark.parametrize("name", DECLARED)
def test_sd_scripts_gets_only_what_it_knows_in_its_own_types(name):
    written = tomllib.loads(export_sd_scripts(with_another_value(DECLARED[name]))[0])
    for argument, value in written.items():
        assert argument in trainer_args(), argument
        assert isinstance(value, TRAINER_TYPES[trainer_args()[argument].type]), argument
        assert not isinstance(value, bool) or trainer_args()[argument].type == "flag"
    assert "network_module" in written


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"text_encoder_lr": 0}, {"network_train_unet_only": True, "unet_lr": 1e-4}),
        ({"unet_lr": 0}, {"network_train_text_encoder_only": True, "text_encoder_lr": [5e-5]}),
        ({"unet_lr": None}, {"learning_rate": 1e-4}),
        ({"epoch": 7}, {"max_train_epochs": 7}),
        ({"max_train_steps": 50}, {"max_train_steps": 50}),
        ({"lr_warmup": 5}, {"lr_warmup_steps": 0.05}),
        ({"lr_scheduler": "constant"}, {"lr_warmup_steps": 0}),
        (
            {"lr_warmup_only_constant": True, "lr_warmup": 5},
            {"lr_warmup_steps": 0},
        ),
        ({"LoRA_type": "Kohya LoCon", "conv_dim": 4, "conv_alpha": 2},
         {"network_module": "networks.lora", "network_args": ["conv_dim=4", "conv_alpha=2"]}),
        ({"rank_dropout": 0.1}, {"network_args": ["rank_dropout=0.1"]}),
        ({"optimizer_args": "betas=0.9,0.99, name=x"},
         {"optimizer_args": ["betas=0.9,0.99", "name='x'"]}),
        ({"max_grad_norm": 0}, {"max_grad_norm": 0.0}),
    ],
)  # fmt: skip
def test_what_sd_scripts_says_in_other_words(changes, expected):
    written = tomllib.loads(export_sd_scripts(Settings().replace(**changes))[0])
    assert {name: written.get(name) for name in expected} == expected


def test_rates_that_are_off_are_not_written_twice():
    written = tomllib.loads(export_sd_scripts(Settings().replace(text_encoder_lr=0))[0])
    assert "text_encoder_lr" not in written


def test_what_the_gui_has_no_field_for_travels_as_an_argument():
    settings = Settings().replace(sdxl=True, alpha_mask=True, caption_tag_dropout_rate=0.2)
    text, notices = export_gui(settings)
    written = json.loads(text)["additional_parameters"].split()
    assert sorted(written) == ["--alpha_mask", "--caption_tag_dropout_rate=0.2"]
    assert notices == []
    assert with_additional(load_any(text)[0])[0] == settings


def test_additional_parameters_go_out_in_their_places():
    settings = Settings().replace(additional_parameters="--network_dim=16", sdxl=True)
    assert tomllib.loads(export_sd_scripts(settings)[0])["network_dim"] == 16
    assert json.loads(export_gui(settings)[0])["network_dim"] == 8
    with pytest.raises(SettingsError):
        export_gui(Settings().replace(additional_parameters="--network_dimm=16"))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lr_scheduler": "rex"}, "lr_scheduler = rex"),
        ({"lr_scheduler": "polynomial", "lr_scheduler_num_cycles": 2}, "polynomial"),
        ({"cache_text_encoder_outputs": True, "shuffle_caption": True}, "shuffle_caption"),
        ({"persistent_data_loader_workers": True}, "max_data_loader_n_workers"),
    ],
)
def test_what_sd_scripts_would_stop_at_is_told(changes, word):
    _, notices = export_sd_scripts(Settings().replace(sdxl=True, **changes))
    assert any(word in notice for notice in notices)


def test_what_the_gui_does_not_offer_is_told():
    _, notices = export_gui(Settings().replace(sdxl=True, lr_scheduler="rex", save_model_as="pt"))
    assert "lr_scheduler = rex: the GUI has no such choice" in notices
    assert "save_model_as = pt becomes safetensors in the GUI" in notices


def test_an_argument_of_sdxl_alone_is_not_written_for_others():
    settings = Settings().replace(cache_text_encoder_outputs=True, text_encoder_lr=0)
    text, notices = export_sd_scripts(settings)
    assert "cache_text_encoder_outputs" not in tomllib.loads(text)
    assert told(notices, "cache_text_encoder_outputs")
    text, notices = export_sd_scripts(settings.replace(sdxl=True))
    assert "cache_text_encoder_outputs" in tomllib.loads(text)
    assert notices == []


def test_compiling_goes_out_with_its_switch():
    assert "dynamo_backend" not in export_sd_scripts(Settings())[0]
    text, _ = export_sd_scripts(Settings().replace(dynamo_backend="inductor"))
    assert tomllib.loads(text)["torch_compile"] is True
    assert load_any(text)[0].machine.dynamo_backend == "inductor"


def test_several_processes_reach_the_gui_with_the_switch_that_starts_them():
    text, notices = export_gui(Settings().replace(sdxl=False, num_processes=2))
    assert json.loads(text)["multi_gpu"] is True
    assert notices == []
    assert load_any(text)[0].machine.num_processes == 2
    text, notices = export_gui(Settings().replace(sdxl=False, multi_gpu=True))
    assert (json.loads(text)["multi_gpu"], json.loads(text)["num_processes"]) == (True, 1)
    assert "does not count the GPUs" in notices[0]
