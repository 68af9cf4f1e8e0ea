"""Presets are complete, without problems, and leave alone what is the user's."""

import pytest

from kit import catalog
from kit.cli import main
from kit.errors import SettingsError
from kit.presets import decided, preset_named, presets
from kit.settings import Settings, declarations
from kit.settings.diffs import diff
from kit.settings.rules import notices, problems

MINE = Settings().replace(
    train_data_dir="cats", output_name="mine", seed=5, keep_tokens=2, clip_skip=2,
    sample_prompts="a cat", pretrained_model_name_or_path="a/b", metadata_title="Cats",
    noise_offset=0.1, network_dropout=0.5,
)  # fmt: skip

each = pytest.mark.parametrize("preset", presets().values(), ids=presets())


def test_there_is_one_for_every_aim_family_and_card():
    plain = [preset for preset in presets().values() if not preset.source]
    assert len(plain) == 3 * len(catalog.FAMILIES) * 3
    assert all(preset.name == name for name, preset in presets().items())


@each
def test_it_has_neither_problems_nor_idle_values(preset):
    settings = preset.applied_to(Settings().replace(train_data_dir="x", sample_prompts=""))
    assert problems(settings) == []
    assert notices(settings) == []


@each
def test_it_decides_all_and_leaves_the_rest(preset):
    assert set(preset.values) >= set(decided())
    after = preset.applied_to(MINE)
    changed = {change.name for change in diff(MINE, after)}
    assert changed <= set(preset.values)
    assert {"noise_offset", "network_dropout"} <= changed  # back to their defaults
    assert after.folders == MINE.folders
    assert (after.basic.seed, after.captions.keep_tokens, after.memory.clip_skip) == (5, 2, 2)
    assert after.samples == MINE.samples
    assert preset.applied_to(after) == after


@each
def test_it_suits_its_family_and_shows_four_images_an_update(preset):
    family = catalog.FAMILIES[preset.name.partition("-")[0]]
    settings = preset.applied_to(Settings())
    side = settings.images.size[0]
    assert side % family.size_multiple == 0
    assert side >= family.native_size
    basic = settings.basic
    assert basic.train_batch_size * basic.gradient_accumulation_steps == 4
    assert settings.model.sdxl is (True if preset.name.startswith("sdxl") else None)
    assert settings.model.v2 is (True if preset.name.startswith("sd2") else None)


def test_another_aim_or_card_is_another_preset():
    subject, style = presets()["sd1-subject-8gb"], presets()["sd1-style-8gb"]
    assert {"LoRA_type", "network_dim", "text_encoder_lr"} <= {
        change.name for change in diff(subject.applied_to(MINE), style.applied_to(MINE))
    }
    small, large = presets()["sdxl-subject-8gb"], presets()["sdxl-subject-24gb"]
    assert {c.name for c in diff(small.applied_to(MINE), large.applied_to(MINE))} == {
        "train_batch_size", "gradient_accumulation_steps", "mixed_precision",
    }  # fmt: skip


def test_recipes_of_others_say_where_they_are_from_and_are_theirs():
    colab, noobai = presets()["sdxl-colab-xl"], presets()["sdxl-noobai-v-pred"]
    assert colab.source.startswith("https://github.com/hollowstrawberry/")
    assert noobai.source.startswith("https://huggingface.co/Laxhar/")
    rates = {name: colab.values[name] for name in ("unet_lr", "text_encoder_lr", "lr_warmup")}
    assert rates == {"unet_lr": 3e-4, "text_encoder_lr": 6e-5, "lr_warmup": 5.0}
    theirs = {
        "v_parameterization": True,
        "zero_terminal_snr": True,
        "scale_v_pred_loss_like_noise_pred": True,
    }
    assert dict(noobai.values) == {**colab.values, **theirs}


def test_an_unknown_preset_is_told_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean sdxl-style-16gb"):
        preset_named("sdxl-stile-16gb")


def test_a_difference_has_the_label_and_both_values():
    (change,) = diff(Settings(), Settings().replace(seed=3))
    assert (change.label, change.before, change.after) == ("Seed", None, 3)
    assert str(change) == "seed: (blank) -> 3"


def test_what_is_decided_is_declared():
    for preset in presets().values():
        assert set(preset.values) <= set(declarations())


def test_a_presets_name_in_the_files_place_is_understood(capsys):
    main(["presets", "sdxl-subject-16gb"])
    assert capsys.readouterr().out.startswith("sdxl-subject-16gb: ")
    assert main(["presets", "sdxl-subject-16g"]) == 2
    assert "did you mean sdxl-subject-16gb" in capsys.readouterr().err
