"""Noise, losses, captions and masks together: what is refused, what is told, exact resuming."""

from pathlib import Path

import pytest

from kit import planning
from kit.errors import SettingsError
from tests.effects.rows.captions import SHUFFLED
from tests.effects.rows.noise import HUBER, MULTIRES
from tests.effects.stage import BASE
from tests.support.toys import leave_after, lora, losses, run, same

MASKED = {"masked_loss": True, "conditioning_data_dir": "@shared/masks"}


def settings_of(stage, **changes):
    return stage.settings({**BASE, **changes})


def test_what_is_masked_out_does_not_teach(stage):
    with stage.prepared(settings_of(stage, **MASKED)) as ready:
        batch = ready.batch_builder.batch(0)
        assert batch.mask_B1hw is not None
        assert 0 < batch.mask_B1hw.mean() < 1
        masked = ready.training_step.loss(batch).mean()
    with stage.prepared(settings_of(stage)) as ready:
        assert masked < ready.training_step.loss(ready.batch_builder.batch(0)).mean()


def test_cached_captions_are_those_that_the_uses_ask_for(stage):
    changes = {
        **SHUFFLED,
        "caption_dropout_rate": 0.3,
        "cache_text_encoder_outputs": True,
        "text_encoder_lr": 0,
    }

    def drawn(variants):
        asked = settings_of(stage, **changes, cached_caption_variants=variants)
        with stage.prepared(asked) as ready:
            return {
                ready.batch_builder.batch(n).text_embeds.hidden_BND.sum().item() for n in range(30)
            }

    many = drawn(3)
    assert len(many) > 3
    assert len(drawn(1)) < len(many)


def test_a_run_with_all_of_it_goes_on_bit_for_bit(stage):
    changes = {
        **SHUFFLED, **MULTIRES, **HUBER, **MASKED, "color_aug": True, "cache_latents": False,
        "ip_noise_gamma": 0.1, "ip_noise_gamma_random_strength": True, "keep_tokens": 1,
        "caption_tag_dropout_rate": 0.2, "caption_dropout_rate": 0.2, "token_warmup_step": 4,
        "enable_wildcard": True, "weighted_captions": True, "text_encoder_lr": 1e-3,
        "alpha_mask": True, "max_train_steps": 5,
    }  # fmt: skip
    straight, broken = settings_of(stage, **changes), settings_of(stage, **changes)
    told = losses(run(straight))
    first = leave_after(2, broken)
    assert losses(first) + losses(run(broken)) == told
    assert same(*(lora(Path(asked.folders.output_dir)) for asked in (straight, broken)))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"min_timestep": 500, "max_timestep": 400}, "min_timestep"),
        ({"adaptive_noise_scale": 0.1}, "adaptive_noise_scale"),
        ({"masked_loss": True}, "masked_loss"),
        ({"color_aug": True}, "color_aug"),
        ({"caption_separator": ""}, "caption_separator"),
        (
            {"token_warmup_step": 5, "cache_text_encoder_outputs": True, "text_encoder_lr": 0},
            "token_warmup_step",
        ),
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(stage, changes, named):
    with pytest.raises(SettingsError, match=rf"\] {named}: "):
        planning.plan(settings_of(stage, **changes))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"scale_v_pred_loss_like_noise_pred": True}, "scale_v_pred_loss_like_noise_pred"),
        ({"v_pred_like_loss": 0.5, "v_parameterization": True}, "v_pred_like_loss"),
    ],
)
def test_a_weight_for_the_other_sort_of_model_is_refused(stage, changes, named):
    with pytest.raises(SettingsError, match=named), stage.prepared(settings_of(stage, **changes)):
        pass


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
def test_what_has_no_effect_is_told(stage, changes, told):
    plan = planning.plan(settings_of(stage, **changes))
    assert any(told in text for text in plan.notices)
