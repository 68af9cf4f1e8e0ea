"""Settings as TOML."""

import tomllib

import pytest

from kit.errors import SettingsError
from kit.settings import Settings, declarations


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "run.toml"
    path.write_text(text, encoding=encoding)
    return path


def problems_of(path):
    with pytest.raises(SettingsError) as caught:
        Settings.load(path)
    return list(caught.value.problems)


CHANGED = Settings().replace(
    unet_lr=None,  # blanks whose default is a value
    text_encoder_lr=None,
    save_every_n_epochs=None,
    v2=True,
    seed=0,
    learning_rate=5e-7,
    network_alpha=16,
    resolution="768,512",
    output_name="Käse 猫",
    train_data_dir=r"C:\pictures\10_cat",
    sample_prompts='a "cat"\n# off\na dog --n blurry\t--d 3\r\n',
    optimizer_args="weight_decay=0.1 betas=0.9,0.99",
    training_comment="a # b = [c] '''x''' \"\"\"y\"\"\" \\",
)
EVERYTHING_BLANK = Settings().replace(
    **{name: None for name, declared in declarations().items() if declared.optional}
)


@pytest.mark.parametrize("settings", [Settings(), CHANGED, EVERYTHING_BLANK])
@pytest.mark.parametrize("with_help", [True, False])
def test_settings_come_back_from_their_file(tmp_path, settings, with_help):
    path = write(tmp_path, settings.to_toml(with_help=with_help))
    assert Settings.load(path) == settings


def test_every_setting_stands_in_the_file_with_its_help():
    text = Settings().to_toml()
    for declared in declarations().values():
        assert f"\n{declared.name} = " in text or f"\n# {declared.name} = (blank)" in text
        assert f"# {declared.label}: {declared.help[:10]}" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_without_help_only_values_remain():
    text = Settings().to_toml(with_help=False)
    assert "#" not in text
    assert tomllib.loads(text)["network"]["network_dim"] == 8


def test_tables_are_for_the_reader(tmp_path):
    path = write(tmp_path, "epoch = 2\n[additional_network_arguments]\nnetwork_dim = 16\n")
    assert Settings.load(path).changed() == {"epoch": 2, "network_dim": 16}


def test_a_flat_file_of_sd_scripts_is_read(tmp_path):
    path = write(
        tmp_path,
        """
        pretrained_model_name_or_path = "runwayml/stable-diffusion-v1-5"
        train_data_dir = "/data/img"
        output_name = "last"
        resolution = "512,512"
        learning_rate = 0.0001
        unet_lr = 0.0001
        text_encoder_lr = [ 5e-5, 5e-5,]
        lr_warmup_steps = 0
        max_train_steps = 1600
        network_dim = 8
        network_alpha = 1
        optimizer_type = "AdamW"
        optimizer_args = [ "weight_decay=0.1", "betas=0.9,0.99",]
        cache_latents = true
        min_snr_gamma = 5
        """,
    )
    settings = Settings.load(path)
    assert settings.basic.text_encoder_lr == 5e-5
    assert settings.basic.optimizer_args == "weight_decay=0.1 betas=0.9,0.99"
    assert settings.basic.lr_warmup_steps == 0
    assert settings.noise.min_snr_gamma == 5.0


def test_different_rates_for_two_text_encoders_are_refused(tmp_path):
    path = write(tmp_path, "text_encoder_lr = [5e-5, 1e-5]")
    assert "[basic] text_encoder_lr: [5e-05, 1e-05] is not a number" in problems_of(path)[0]


def test_a_byte_order_mark_does_not_matter(tmp_path):
    assert Settings.load(write(tmp_path, "epoch = 2", encoding="utf-8-sig")).basic.epoch == 2


def test_a_setting_that_stands_twice_is_refused(tmp_path):
    path = write(tmp_path, "epoch = 2\n[basic]\nepoch = 3\n[other]\nepoch = 4\n")
    assert problems_of(path) == ["epoch: given twice; keep one of them"] * 2


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    path = write(
        tmp_path, "[network]\nnetwork_dimm = 2\n[noise]\nmin_snr_gama = 5\n[basic]\nepoch=0\n"
    )
    found = problems_of(path)
    assert found[:2] == [
        "network_dimm: no such setting; did you mean network_dim?",
        "min_snr_gama: no such setting; did you mean min_snr_gamma?",
    ]
    assert len(found) == 3


def test_a_missing_file_is_named(tmp_path):
    (problem,) = problems_of(tmp_path / "none.toml")
    assert "none.toml: cannot be read (No such file or directory)" in problem


def test_a_folder_is_no_file(tmp_path):
    assert "is a folder, and no file" in problems_of(tmp_path)[0]


@pytest.mark.parametrize("text", ["epoch = ", "{json: 1}", "epoch = 1\nepoch = 2"])
def test_what_is_no_toml_is_named_with_its_place(tmp_path, text):
    assert "is no TOML file" in problems_of(write(tmp_path, text))[0]


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xff\xfe\x00e")
    assert "is not UTF-8 text" in problems_of(path)[0]
