"""What a setting takes, what it refuses, and how the refusal reads."""

from pathlib import Path

import pydantic
import pytest

from kit.errors import SettingsError
from kit.settings import Settings


def problems(**values):
    with pytest.raises(SettingsError) as caught:
        Settings().replace(**values)
    return list(caught.value.problems)


def test_settings_cannot_be_changed():
    settings = Settings()
    with pytest.raises(pydantic.ValidationError):
        settings.basic.epoch = 3
    with pytest.raises(pydantic.ValidationError):
        settings.basic = None


def test_replace_leaves_the_old_settings_alone():
    old = Settings()
    new = old.replace(epoch=3, network_dim=16)
    assert (old.basic.epoch, new.basic.epoch, new.network.network_dim) == (1, 3, 16)


def test_changed_names_only_what_differs_from_the_default():
    assert Settings().replace(epoch=3, network_dim=8).changed() == {"epoch": 3}


def test_an_unknown_name_is_told_with_the_nearest():
    assert problems(network_dimm=3) == ["network_dimm: no such setting; did you mean network_dim?"]
    assert problems(zzz=3) == ["zzz: no such setting"]


def test_all_problems_are_told_at_once():
    found = problems(network_dimm=3, epoch=0, lr_scheduler="cosinus", noise_offset="much")
    assert len(found) == 4
    assert found[1:] == [
        "[basic] epoch: 0 is outside of what is possible: a whole number from 1 to 100000",
        "[basic] lr_scheduler: 'cosinus' is not possible; it can be one of 'constant', "
        "'constant_with_warmup', 'linear', 'cosine', 'cosine_with_restarts', 'polynomial', "
        "'cosine_with_min_lr', 'inverse_sqrt', 'warmup_stable_decay', 'rex', 'piecewise_constant', "
        "'adafactor'; did you mean cosine?",
        "[noise] noise_offset: 'much' is not a number from 0 to 1",
    ]


def test_the_message_counts_the_problems():
    with pytest.raises(SettingsError, match=r"2 settings need a change:\n  - .*\n  - "):
        Settings().replace(epoch=0, seed=-1)
    with pytest.raises(SettingsError, match="1 setting needs a change:"):
        Settings().replace(epoch=0)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("epoch", "3", 3),
        ("learning_rate", "1e-4", 1e-4),
        ("cache_latents", "false", False),
        ("v2", "true", True),
        ("max_token_length", "150", 150),
        ("output_name", "3", "3"),
        ("seed", " 7 ", 7),
    ],
)
def test_text_of_a_form_or_a_command_line_becomes_the_value(name, text, value):
    assert Settings().replace(**{name: text}).flat()[name] == value


@pytest.mark.parametrize("blank", ["", "  ", "None", None])
@pytest.mark.parametrize("name", ["seed", "unet_lr", "conv_dim", "v2", "save_every_n_epochs"])
def test_a_blank_is_not_set(name, blank):
    assert Settings().replace(**{name: blank}).flat()[name] is None


def test_zero_is_not_the_same_as_unset():
    assert Settings().replace(unet_lr="0").basic.unet_lr == 0.0
    assert Settings().replace(unet_lr=0).basic.unet_lr is not None


def test_a_blank_is_refused_where_a_value_is_needed():
    assert problems(epoch="") == ["[basic] epoch: '' is not a whole number from 1 to 100000"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epoch", True),
        ("learning_rate", False),
        ("epoch", 1.5),
        ("epoch", "two"),
        ("learning_rate", "nan"),
        ("learning_rate", float("inf")),
        ("learning_rate", -1e-4),
        ("network_dim", 0),
        ("cache_latents", "perhaps"),
        ("output_name", 5),
        ("mixed_precision", "fp8"),
        ("max_token_length", 100),
        ("seed", 2**32),
    ],
)
def test_what_is_not_possible_is_refused_with_what_is(name, value):
    (problem,) = problems(**{name: value})
    assert f"] {name}: " in problem
    assert repr(value) in problem or str(value) in problem


def test_large_numbers_are_shown_as_they_were_written():
    assert "10000001 is outside" in problems(max_train_steps=10_000_001)[0]


def test_a_path_object_is_taken_as_its_text():
    assert Settings().replace(train_data_dir=Path("a/b")).folders.train_data_dir == str(Path("a/b"))


@pytest.mark.parametrize("value", ["512,768", "512x768", [512, 768], (512, 768), " 512 , 768 "])
def test_a_resolution_is_width_and_height(value):
    assert Settings().replace(resolution=value).images.size == (512, 768)


@pytest.mark.parametrize("value", [640, "640", [640]])
def test_one_number_is_a_square(value):
    assert Settings().replace(resolution=value).images.resolution == "640,640"


@pytest.mark.parametrize("value", ["", "512,", "a,b", "512,512,512", 32, "512,9000", None, 51.5j])
def test_what_is_no_size_is_refused(value):
    assert "is no size; write width,height" in problems(resolution=value)[0]


@pytest.mark.parametrize(("given", "kept"), [("txt", ".txt"), (".cap", ".cap"), ("", "")])
def test_a_caption_extension_gets_its_dot(given, kept):
    assert Settings().replace(caption_extension=given).images.caption_extension == kept


@pytest.mark.parametrize("value", [".", "txt.", "a/b", "..\\x"])
def test_what_is_no_extension_is_refused(value):
    assert "is no file extension" in problems(caption_extension=value)[0]


@pytest.mark.parametrize(
    "value", ["a/b", "..", " ", "", "a:b", 'a"b', "a\\b", "what?", "a\nb", "a\0"]
)
def test_a_name_that_no_file_can_have_is_refused(value):
    assert "is no file name; leave out" in problems(output_name=value)[0]


@pytest.mark.parametrize("value", ["x" * 201, "猫" * 67])
def test_a_name_that_leaves_no_room_for_steps_and_endings_is_refused(value):
    """File systems take 255 bytes; it used to fail at the first file, as a fault of the folder."""
    told = problems(output_name=value)[0]
    assert "too long for a file name: 201 bytes; at most 200" in told


@pytest.mark.parametrize("value", ["cat", "my cat v1.2", "Käse", "猫", ".hidden", "x" * 200])
def test_other_names_are_taken(value):
    assert Settings().replace(output_name=value).folders.output_name == value


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [float("inf"), 64], {"a": 1}, "inf"])
def test_a_resolution_without_a_size_is_refused(value):
    assert "is no size; write width,height" in problems(resolution=value)[0]


def test_half_a_character_is_in_no_setting():
    # It could not be written into run.toml.
    for name in ("output_name", "training_comment", "train_data_dir", "caption_prefix"):
        assert "half of a character" in problems(**{name: "a\ud800"})[0]
