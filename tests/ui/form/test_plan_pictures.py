import re

import pytest

from kit.planning import plan
from kit.ui import Form
from kit.ui.form.plan_pictures import (
    POINTS,
    bucket_picture,
    network_facts,
    plan_pictures,
    rate_picture,
)


def curves(svg):
    return [
        [tuple(map(float, pair.split(","))) for pair in points.split()]
        for points in re.findall(r'points="([^"]+)"', svg)
    ]


def test_the_rate_picture_is_the_runs_own_schedule(settings):
    svg = rate_picture(plan(settings.replace(lr_scheduler="linear", lr_warmup=10)))
    unet, text = curves(svg)
    assert len(unet) == 60
    assert min(y for _, y in unet) < min(y for _, y in text)  # the U-Net's rate is higher
    heights = [y for _, y in unet]
    assert heights.index(min(heights)) == 6  # the end of the warm-up
    assert "U-Net" in svg
    assert "text encoder" in svg


def test_a_part_that_does_not_learn_has_no_curve(settings):
    assert len(curves(rate_picture(plan(settings.replace(text_encoder_lr=0))))) == 1


def test_a_long_run_is_drawn_with_few_points(settings):
    svg = rate_picture(plan(settings.replace(max_train_steps=100_000, save_every_n_steps=10)))
    assert len(curves(svg)[0]) == POINTS
    assert len(svg) < 20_000


@pytest.mark.parametrize(
    "changes", [{"lr_scheduler_type": "LinearLR"}, {"optimizer_type": "Adafactor"}]
)
def test_a_rate_that_is_chosen_while_it_runs_is_not_drawn(settings, changes):
    assert rate_picture(plan(settings.replace(**changes))) == ""


def test_saves_and_samples_are_marked(settings):
    changed = settings.replace(
        save_every_n_epochs=1, sample_prompts="a cat", sample_every_n_epochs=2
    )
    svg = rate_picture(plan(changed))
    assert svg.count("<title>save at step") == 4
    assert svg.count("<title>sample at step") == 2
    assert "5 LoRA files (ticks below), samples drawn 2 times (ticks above)" in svg


def test_what_happens_once_is_told_as_one(settings):
    changed = settings.replace(
        save_every_n_epochs=None, sample_prompts="a cat", sample_every_n_steps=40
    )
    svg = rate_picture(plan(changed))
    assert "1 LoRA file, at the end, samples drawn once (tick above)<" in svg


def test_buckets_are_told_with_their_images(settings):
    svg = bucket_picture(plan(settings).buckets)
    assert "128x128" in svg
    assert ">12</text>" in svg
    assert 'viewBox="0 0 380 38.3333"' in svg  # no room below one row


def test_the_networks_size_is_told_once_the_family_is_known(settings):
    facts = network_facts(settings.replace(network_dim=4), "sd1")
    assert "2,359,296" in facts
    assert "1 / 4 = 0.25" in facts
    assert "A1111, Forge, ComfyUI and diffusers read it.<" in facts
    assert "told when the base is chosen" in network_facts(settings, "")
    by_block = settings.replace(down_lr_weight="1,1,1,1,1,1,1,1,1,1,1,0")
    assert "told when the run begins, for single layers decide it" in network_facts(by_block, "sd1")


def test_the_form_draws_them_and_takes_them_away(settings):
    form = Form(settings)
    assert form.pictures.value == plan_pictures(form.plan, "")
    form.fields["train_data_dir"].control.value = "/nowhere"
    assert form.pictures.value == ""
