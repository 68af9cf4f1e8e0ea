"""The kohya_ss GUI's JSON comes in, with a line for each key."""

import json
from pathlib import Path

import pytest

from kit.exchange import Verdict, load_any
from kit.exchange.known import gui_fields
from kit.settings import Settings, declarations

GOLDEN = Path(__file__).parents[1] / "golden"
PRESETS = sorted((GOLDEN / "gui_presets").glob("*.json"), key=lambda path: path.name)
KEYS = json.loads((GOLDEN / "gui_preset_keys.json").read_text("utf-8"))["keys"]
BY_KEY = {declared.gui_key: declared for declared in declarations().values() if declared.gui_key}


def load(**values):
    return load_any(json.dumps(values))


def line_of(report, key):
    (line,) = [line for line in report.lines if line.key == key]
    return line


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_key_of_a_shipped_preset_has_its_line(path):
    values = json.loads(path.read_text("utf-8"))
    settings, report = load_any(path)
    assert [line.key for line in report.lines] == list(values)
    assert report.of(Verdict.UNKNOWN) == ()
    for line in report.lines:
        assert line.told or line.verdict is Verdict.TAKEN, line
        if line.verdict in (Verdict.TAKEN, Verdict.TRANSLATED):
            for name, value in line.changes.items():
                assert settings.flat()[name] == value or value != value, line
        elif line.verdict is Verdict.NO_EFFECT:
            assert not line.changes


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_what_a_preset_says_is_what_we_would_train(path):
    """Read by hand from the file, past the importer."""
    values = json.loads(path.read_text("utf-8"))
    settings, _ = load_any(path)
    flat = settings.flat()
    assert flat["train_batch_size"] == values["train_batch_size"]
    assert flat["learning_rate"] == float(values["learning_rate"])
    assert flat["unet_lr"] == float(values["unet_lr"])
    assert flat["min_snr_gamma"] == values["min_snr_gamma"]
    assert flat["seed"] == (int(values["seed"]) if values["seed"] else None)
    assert flat["resolution"] == values.get("max_resolution", "512,512")
    assert flat["gradient_accumulation_steps"] == int(float(values["gradient_accumulation_steps"]))
    assert flat["sdxl"] is (True if values.get("sdxl") else None)


@pytest.mark.parametrize("key", KEYS)
def test_every_value_that_the_31_presets_have_is_judged(key):
    for value in KEYS[key]:
        _, report = load(**{key: value})
        assert len(report.lines) == 1
        assert report.lines[0].verdict is not Verdict.UNKNOWN
        if report.lines[0].verdict is Verdict.REFUSED:
            assert report.problems()


@pytest.mark.parametrize("key", gui_fields())
def test_every_field_of_the_gui_is_judged(key):
    field = gui_fields()[key]
    settings, report = load(**{key: field.default})
    (line,) = report.lines
    assert line.verdict not in (Verdict.UNKNOWN, Verdict.REFUSED) or key in BY_KEY, line
    if not field.is_ours:
        assert "another model family" in line.told
    elif key in BY_KEY:
        assert line.verdict in (Verdict.TAKEN, Verdict.TRANSLATED) or "LoRA_type" in line.told
        assert declarations()["network_dim"].default == 8 == settings.network.network_dim


def test_a_whole_form_of_the_gui_comes_in():
    values = {key: field.default for key, field in gui_fields().items()}
    settings, report = load(**values)
    assert len(report.lines) == 287 == sum(report.counts.values())
    assert not report.problems()
    assert settings.basic.max_train_steps == 1600
    assert settings.basic.text_encoder_lr == 1e-4


def test_an_unknown_key_is_told_with_the_nearest():
    _, report = load(network_dimm=4, quite_something_else=1)
    first, second = report.of(Verdict.UNKNOWN)
    assert first.told.endswith("did you mean network_dim?")
    assert "did you mean" not in second.told
    assert not report.problems()  # the GUI does not mind either


@pytest.mark.parametrize("key", ["wandb_api_key", "huggingface_token"])
def test_secrets_are_never_taken_and_never_shown(key):
    settings, report = load(**{key: "hf_Secret123"})
    assert "environment" in line_of(report, key).told
    assert "Secret123" not in str(report) + repr(report) + repr(settings) + settings.to_toml()


def test_a_secret_in_the_additional_parameters_is_not_shown_either():
    settings, report = load(additional_parameters="--wandb_api_key Secret123")
    assert report.problems()
    assert "Secret123" not in str(report) + repr(report) + settings.to_toml()
    assert report.problems() and not report.problems(settled={"additional_parameters": ""})


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        ({"use_8bit_adam": True}, "optimizer_type", "AdamW8bit"),
        ({"use_8bit_adam": False}, "optimizer_type", "AdamW"),
        ({"optimizer": "AdamW", "use_8bit_adam": True}, "optimizer_type", "AdamW"),
        ({"optimizer": "adafactor"}, "optimizer_type", "Adafactor"),
        ({"lora_network_weights": "a.safetensors"}, "network_weights", "a.safetensors"),
        ({"lora_network_weights": "a", "network_weights": "b"}, "network_weights", "b"),
        ({"seed": ""}, "seed", None),
        ({"seed": 0}, "seed", None),
        ({"seed": "12"}, "seed", 12),
        ({"noise_offset": ""}, "noise_offset", 0.0),
        ({"noise_offset": "0.05"}, "noise_offset", 0.05),
        ({"lr_scheduler_power": "", "lr_scheduler_num_cycles": ""}, "lr_scheduler_power", None),
        ({"lr_scheduler_num_cycles": "3"}, "lr_scheduler_num_cycles", 3),
        ({"keep_tokens": "1", "caption_dropout_every_n_epochs": 2.0}, "keep_tokens", 1),
        ({"caption_dropout_every_n_epochs": 2.0}, "caption_dropout_every_n_epochs", 2),
        ({"max_token_length": "225"}, "max_token_length", 225),
        ({"vae_batch_size": 0}, "vae_batch_size", 1),
        ({"lr_warmup_steps": 0, "lr_warmup": "5"}, "lr_warmup_steps", None),
        ({"lr_warmup_steps": 0, "lr_warmup": "5"}, "lr_warmup", 5.0),
        ({"unet_lr": 0, "text_encoder_lr": 1e-5}, "unet_lr", 0.0),
        ({"unet_lr": 0, "text_encoder_lr": 0}, "unet_lr", None),
        ({"unet_lr": 0, "text_encoder_lr": 0.0}, "text_encoder_lr", None),
        ({"max_train_steps": ""}, "max_train_steps", None),
        ({"max_grad_norm": 0}, "max_grad_norm", 0.0),
        ({"sdxl": False, "v2": True}, "sdxl", None),
        ({"sdxl": False, "v2": True}, "v2", True),
        ({"LoRA_type": "kohya locon", "conv_dim": 4}, "conv_dim", 4),
        ({"LoRA_type": "Standard", "conv_dim": 4}, "conv_dim", None),
        ({"model_list": "a/b"}, "pretrained_model_name_or_path", "a/b"),
        ({"model_list": "custom"}, "pretrained_model_name_or_path", ""),
        ({"save_model_as": "diffusers"}, "save_model_as", "safetensors"),
        ({"optimizer_args": '"d0=1e-5" "betas=0.9,0.99"'}, "optimizer_args",
         "d0=1e-5 betas=0.9,0.99"),
        ({"sdxl": False, "sdxl_no_half_vae": True}, "no_half_vae", False),
        ({"sdxl": True, "sdxl_no_half_vae": True}, "no_half_vae", True),
        ({"xformers": True}, "cross_attention", "xformers"),
        ({"xformers": False}, "cross_attention", "none"),
        ({"xformers": "none"}, "cross_attention", "none"),
        ({"use_wandb": "True"}, "log_with", "wandb"),
        ({"stop_text_encoder_training_pct": 50}, "stop_text_encoder_training", 50),
        ({"loraplus_lr_ratio": 0}, "loraplus_lr_ratio", None),
        ({"block_lr_zero_threshold": "0.1"}, "block_lr_zero_threshold", 0.1),
        ({"conv_dims": "1,2"}, "conv_block_dims", "1,2"),
        ({"LoRA_type": "LyCORIS/LoKr", "network_dim": 100000, "factor": 6}, "network_dim", 1024),
        ({"LoRA_type": "LyCORIS/LoKr", "conv_dim": 100000}, "conv_dim", 1024),
        ({"LoRA_type": "LyCORIS/LoKr", "use_cp": True, "use_tucker": False}, "use_tucker", True),
        ({"LoRA_type": "LyCORIS/LoHa", "use_cp": True, "use_tucker": False}, "use_tucker", False),
        ({"shuffle_caption": "True"}, "shuffle_caption", True),
        ({"lr_scheduler": "adafactor", "optimizer": "Adafactor"}, "lr_scheduler", "adafactor"),
    ],
)  # fmt: skip
def test_old_and_odd_spellings_mean_what_the_gui_takes_them_for(values, name, expected):
    settings, report = load(**values)
    value = settings.flat()[name]
    assert value == expected
    assert type(value) is type(expected)
    assert len(report.lines) == len(values)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"LoRA_type": "Flux1"}, "another model family"),
        ({"flux1_checkbox": True}, "Flux.1"),
        ({"network_dim": -3}, "-3"),
        ({"optimizer": "Banana"}, "Banana"),
        ({"lr_scheduler": "adafactor", "optimizer": "AdamW"}, "Adafactor"),
        ({"mixed_precision": "fp8"}, "fp8"),
        ({"LoRA_type": "LyCORIS/LoKr", "network_dim": 100000, "factor": 2}, "100000"),
        ({"network_dim": 100000}, "100000"),
        ({"additional_parameters": "--network_dimm=4"}, "did you mean network_dim"),
    ],
)
def test_what_cannot_be_done_stops_a_training_and_says_so(values, word):
    settings, report = load(**values)
    (problem,) = report.problems()
    assert word in problem
    assert settings.basic.optimizer_type in ("AdamW", "AdamW8bit")


def test_what_is_refused_is_settled_by_another_value():
    _, report = load(optimizer="Banana")
    assert report.problems()
    assert not report.problems(settled={"optimizer_type": "AdamW"})


def test_a_blank_file_changes_nothing():
    settings, report = load()
    assert settings == Settings()
    assert str(report).endswith("0 keys")


def test_the_report_tells_what_needs_a_decision_first_and_what_holds_last():
    _, report = load(LoRA_type="LyCORIS/LoHa", network_dim=8, use_cp=True, something=1)
    lines = [line.rstrip(":") for line in report.text()]
    found = [line for line in lines if line in {str(verdict) for verdict in Verdict}]
    assert found == ["unknown", "without effect here", "taken"]
    assert "  use_cp = true: only LyCORIS/LoKr reads it" in lines
