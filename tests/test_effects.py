"""Each setting of noise, losses, captions and masks changes what the training sees, and resumes."""

import numpy as np
import pytest
import torch
from PIL import Image

from kit import planning
from kit.errors import SettingsError
from kit.settings import Settings
from kit.workshop import prepare
from tests.support.parts import outcome
from tests.support.tiny import write_tiny
from tests.support.toys import draw_images, leave_after, lora, losses, run, same, toy_settings

TAGS = "a zib ball, red, (round:1.4), {big|small}\nanother line, of tags, here"
OFFSET = {"noise_offset": 0.2}
MULTIRES = {"noise_offset_type": "Multires", "multires_noise_iterations": 4}
HUBER = {"loss_type": "huber"}
SHUFFLED = {"shuffle_caption": True}

# setting: its other value, and what both sides share so that it counts
SEEN_IN_THE_BATCH = {
    "noise_offset": (0.2, {}),
    "noise_offset_random_strength": (True, OFFSET),
    "adaptive_noise_scale": (0.5, OFFSET),
    "noise_offset_type": ("Multires", {**OFFSET, "multires_noise_iterations": 4}),
    "multires_noise_iterations": (4, {"noise_offset_type": "Multires"}),
    "multires_noise_discount": (0.9, MULTIRES),
    "ip_noise_gamma": (0.1, {}),
    "ip_noise_gamma_random_strength": (True, {"ip_noise_gamma": 0.1}),
    "min_timestep": (900, {}),
    "max_timestep": (10, {}),
    "color_aug": (True, {"cache_latents": False}),
    "alpha_mask": (True, {}),
    "masked_loss": (True, {"conditioning_data_dir": "MASKS"}),
    "conditioning_data_dir": ("MASKS", {"masked_loss": True, "alpha_mask": True}),
    "shuffle_caption": (True, {}),
    "keep_tokens": (2, SHUFFLED),
    "keep_tokens_separator": ("zib", SHUFFLED),
    "caption_separator": (" ", SHUFFLED),
    "secondary_separator": (" b", {}),
    "enable_wildcard": (True, {}),
    "caption_prefix": ("photo of", {}),
    "caption_suffix": ("in the sun", {}),
    "caption_dropout_rate": (1.0, {}),
    "caption_dropout_every_n_epochs": (1, {}),
    "caption_tag_dropout_rate": (1.0, {}),
    "token_warmup_step": (100.0, {}),
    "token_warmup_min": (2, {"token_warmup_step": 100}),
    "weighted_captions": (True, {}),
}
SEEN_IN_THE_LOSS = {
    "loss_type": ("l1", {}),
    "huber_schedule": ("constant", HUBER),
    "huber_c": (0.5, HUBER),
    "huber_scale": (3.0, HUBER),
    "min_snr_gamma": (0.001, {}),
    "debiased_estimation_loss": (True, {}),
    "v_pred_like_loss": (0.5, {}),
    "scale_v_pred_loss_like_noise_pred": (True, {"v_parameterization": True}),
    "zero_terminal_snr": (True, {"v_parameterization": True}),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("model"), "sd1")


@pytest.fixture
def images(tmp_path):
    """Tagged pictures, one of them half transparent, and a mask for each."""
    folder = draw_images(tmp_path / "images")
    (tmp_path / "masks").mkdir()
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        path.with_suffix(".txt").write_text(TAGS)
        with Image.open(path) as file:
            picture = file.convert("RGBA")
        mask = np.zeros((picture.height, picture.width), np.uint8)
        mask[:, : 16 + 8 * number] = 255
        Image.fromarray(mask).save(tmp_path / "masks" / path.name)
        if number == 0:
            picture.putalpha(Image.fromarray(mask))
            picture.save(path)
    return folder


def shop_of(model, images, tmp_path, changes):
    changes = {
        name: str(tmp_path / "masks") if value == "MASKS" else value
        for name, value in changes.items()
    }
    plan = planning.plan(toy_settings(model, images, tmp_path / "out", **changes))
    shop, _ = outcome(prepare(plan))
    return shop


def seen(batch):
    """All tensors of a batch."""
    words = batch.tokens or (batch.words.hidden_BND,)
    single = (batch.latents_BChw, batch.noise_BChw, batch.disturbance_BChw, batch.mask_B1hw)
    return [batch.t_B, *words, *(batch.token_weights or ()), *(t for t in single if t is not None)]


@pytest.mark.parametrize("name", SEEN_IN_THE_BATCH)
def test_the_setting_changes_the_batch(model, images, tmp_path, name):
    value, given = SEEN_IN_THE_BATCH[name]
    plain = shop_of(model, images, tmp_path, given)
    changed = shop_of(model, images, tmp_path, {**given, name: value})
    before, after = ([seen(shop.feed.batch(n)) for n in range(4)] for shop in (plain, changed))
    again = [seen(changed.feed.batch(n)) for n in range(4)]
    assert not all(alike(a, b) for a, b in zip(before, after, strict=True))
    assert all(alike(a, b) for a, b in zip(after, again, strict=True))


def alike(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("name", SEEN_IN_THE_LOSS)
def test_the_setting_changes_the_loss(model, images, tmp_path, name):
    value, given = SEEN_IN_THE_LOSS[name]
    plain = shop_of(model, images, tmp_path, given)
    changed = shop_of(model, images, tmp_path, {**given, name: value})
    before, after = (shop.loss(shop.feed.batch(0)).item() for shop in (plain, changed))
    assert before != after


def test_what_is_masked_out_does_not_teach(model, images, tmp_path):
    shop = shop_of(model, images, tmp_path, {"masked_loss": True, "conditioning_data_dir": "MASKS"})
    batch = shop.feed.batch(0)
    assert batch.mask_B1hw is not None
    assert 0 < batch.mask_B1hw.mean() < 1
    unmasked = shop_of(model, images, tmp_path, {})
    assert shop.loss(batch) < unmasked.loss(unmasked.feed.batch(0))


def test_cached_captions_are_those_that_the_uses_ask_for(model, images, tmp_path):
    changes = {
        **SHUFFLED,
        "caption_dropout_rate": 0.3,
        "cache_text_encoder_outputs": True,
        "text_encoder_lr": 0,
        "cached_caption_variants": 3,
    }
    shop = shop_of(model, images, tmp_path, changes)
    drawn = {shop.feed.batch(n).words.hidden_BND.sum().item() for n in range(30)}
    assert len(drawn) > 3
    fewer = shop_of(model, images, tmp_path, {**changes, "cached_caption_variants": 1})
    assert len({fewer.feed.batch(n).words.hidden_BND.sum().item() for n in range(30)}) < len(drawn)


def test_a_run_with_all_of_it_goes_on_bit_for_bit(model, images, tmp_path):
    changes = {
        **SHUFFLED, **MULTIRES, **HUBER, "color_aug": True, "cache_latents": False,
        "ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True, "keep_tokens": 1,
        "caption_tag_dropout_rate": 0.2, "caption_dropout_rate": 0.2, "token_warmup_step": 4,
        "enable_wildcard": True, "weighted_captions": True, "text_encoder_lr": 1e-3,
        "masked_loss": True, "conditioning_data_dir": str(tmp_path / "masks"), "alpha_mask": True,
        "max_train_steps": 5,
    }  # fmt: skip

    def settings(out):
        return toy_settings(model, images, tmp_path / out, **changes)

    straight = run(settings("a"))
    first = leave_after(2, settings("b"))
    assert losses(first) + losses(run(settings("b"))) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"min_timestep": 500, "max_timestep": 400}, "min_timestep"),
        ({"adaptive_noise_scale": 0.1}, "adaptive_noise_scale"),
        ({"masked_loss": True}, "masked_loss"),
        ({"debiased_estimation_loss": True, "min_snr_gamma": 5}, "debiased_estimation_loss"),
        ({"color_aug": True}, "color_aug"),
        ({"caption_separator": ""}, "caption_separator"),
        (
            {"token_warmup_step": 5, "cache_text_encoder_outputs": True, "text_encoder_lr": 0},
            "token_warmup_step",
        ),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(model, images, changes, named):
    with pytest.raises(SettingsError, match=rf"\] {named}: "):
        planning.plan(toy_settings(model, images, images.parent / "out", **changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scale_v_pred_loss_like_noise_pred": True}, "scale_v_pred_loss_like_noise_pred"),
        ({"v_pred_like_loss": 0.5, "v_parameterization": True}, "v_pred_like_loss"),
    ],
)
def test_a_weight_for_the_other_sort_of_model_is_refused(model, images, tmp_path, changes, named):
    with pytest.raises(SettingsError, match=named):
        shop_of(model, images, tmp_path, changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"multires_noise_iterations": 3}, "multires_noise_iterations has no effect"),
        ({"huber_c": 0.3}, "huber_c has no effect"),
        ({"keep_tokens": 1}, "keep_tokens has no effect"),
        ({"token_warmup_min": 3}, "token_warmup_min has no effect"),
        ({"cached_caption_variants": 3}, "cached_caption_variants has no effect"),
        ({"conditioning_data_dir": "x"}, "conditioning_data_dir has no effect"),
        ({"noise_offset_random_strength": True}, "noise_offset_random_strength has no effect"),
    ],
)
def test_what_has_no_effect_is_told(model, images, changes, told):
    plan = planning.plan(toy_settings(model, images, images.parent / "out", **changes))
    assert any(told in text for text in plan.notices)


def test_every_new_setting_is_covered():
    covered = {
        *SEEN_IN_THE_BATCH,
        *SEEN_IN_THE_LOSS,
        "prior_loss_weight",
        "cached_caption_variants",
    }
    declared = {*type(Settings().noise).model_fields, *type(Settings().captions).model_fields}
    assert declared <= covered, "write a row for it above"
