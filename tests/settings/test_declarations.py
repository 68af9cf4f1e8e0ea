"""What holds for every declared setting."""

import json
from pathlib import Path

import pytest

import kit
from kit.cli.settings import settings_markdown
from kit.settings import Section, Settings, declarations

GUI = json.loads((Path(__file__).parents[1] / "golden" / "gui_fields.json").read_text())["fields"]
DECLARED = declarations()
OUR_OWN = """base_precision cached_caption_variants compress_text_encoders learning_rate_te2
    deterministic guardian lr_warmup_only_constant rs_lora scale_lr_by_processes shard_base
    step_engine validation_count validation_patience wd_on_output"""
DEAD_IN_THE_GUI = "disable_mmap_load_safetensors"
TYPES = {"int": int, "float": float, "bool": bool, "str": str, "path": str, "text": str}

each = pytest.mark.parametrize("declared", DECLARED.values(), ids=DECLARED)


def test_names_are_unique_and_none_is_lost():
    sections = [info.annotation for info in Settings.model_fields.values()]
    names = [name for section in sections for name in section.model_fields]
    assert len(names) == len(set(names))
    assert names == list(DECLARED)


def test_labels_are_unique():
    labels = [declared.label for declared in DECLARED.values()]
    assert len(labels) == len(set(labels))


@each
def test_it_has_a_label_and_a_box(declared):
    assert declared.label.strip() == declared.label != ""
    assert declared.box


@each
def test_its_help_is_sentences(declared):
    assert declared.help.endswith(".")
    assert declared.help[0].isupper() or declared.help.startswith(("safetensors", "fp16"))
    assert "  " not in declared.help


@each
def test_its_default_is_valid_and_of_its_own_type(declared):
    assert Settings().replace(**{declared.name: declared.default}) == Settings()
    if declared.default is None:
        assert declared.optional
    elif declared.type != "choice":
        # 10 for 10.0 would be another value in run.toml and in the run's fingerprint.
        assert type(declared.default) is TYPES[declared.type]


@each
def test_its_bounds_are_in_order_and_for_numbers_only(declared):
    if declared.between:
        assert declared.type in ("int", "float")
        assert declared.between[0] < declared.between[1]
    elif declared.type in ("int", "float"):
        pytest.fail(f"{declared.name} is a number without bounds")


@each
def test_it_says_what_is_possible(declared):
    assert declared.possible
    assert ("blank" in declared.possible) is declared.optional


@each
def test_its_key_in_the_gui_exists(declared):
    known = declared.gui_key is None or declared.gui_key in {field["key"] for field in GUI}
    assert known, f"the GUI has no field {declared.gui_key}: gui= says its key there, or None"


@each
def test_its_source_is_a_link(declared):
    assert declared.source == "" or declared.source.startswith("https://")


def test_only_what_the_gui_lacks_has_no_key():
    ours = {name for name, declared in DECLARED.items() if declared.gui_key is None}
    of_the_trainer = """alpha_mask caption_prefix caption_separator caption_suffix
        caption_tag_dropout_rate conditioning_data_dir dataset_repeats enable_wildcard
        cache_text_encoder_outputs_to_disk keep_tokens_separator lr_decay_steps
        log_prefix lr_scheduler_min_lr_ratio lr_scheduler_timescale sample_at_first
        secondary_separator
        max_validation_steps validate_every_n_epochs validate_every_n_steps validation_seed
        validation_split
        token_warmup_min token_warmup_step zero_terminal_snr"""
    told = {*of_the_trainer.split(), *OUR_OWN.split(), DEAD_IN_THE_GUI}
    assert not ours - told, "has the GUI really no such field? Then it stands in OUR_OWN"
    assert not told - ours, "these have a key: they stand in no list here"


def test_no_two_settings_share_a_key_of_the_gui():
    keys = [declared.gui_key for declared in DECLARED.values() if declared.gui_key]
    assert len(keys) == len(set(keys))


def test_every_section_has_a_docstring_and_a_box():
    for info in Settings.model_fields.values():
        assert issubclass(info.annotation, Section)
        assert info.annotation.__doc__
        assert info.annotation.box


def test_bounds_are_shown_as_whole_numbers_where_they_are():
    assert DECLARED["lr_warmup"].possible == "a number from 0 to 100"
    assert DECLARED["lr_scheduler_power"].possible == "a number from 0.01 to 100, or blank"
    assert DECLARED["max_token_length"].possible == "one of 75, 150, 225"


def test_the_list_that_the_readme_links_to_is_up_to_date():
    told = (Path(kit.__file__).parent / "SETTINGS.md").read_text("utf-8")
    made = settings_markdown() + "\n"
    assert told == made, "make it anew: python -m kit settings --markdown > kit/SETTINGS.md"
