"""The ladder: what is given up for memory, in which order, and in which settings it is said."""

import pytest

from kit.planning.ladder import RUNGS, Footing
from kit.settings import Settings, effective


def taken(settings, learns=False):
    """Every rung in its order, as often as it can be taken."""
    names = []
    for rung in RUNGS:
        while change := rung.change(settings.basic, settings.memory, learns):
            settings = settings.replace(**change)
            names.append(rung.name)
    return names, settings


def test_every_rung_is_taken_in_its_order_and_keeps_the_effective_batch():
    plain = Settings().replace(
        cache_latents=False, train_batch_size=6, gradient_accumulation_steps=2
    )
    names, last = taken(plain)
    assert names == [
        "latents", "texts", "latents on disk", "texts on disk", "checkpointing", "half batch",
        "half batch", "int8", "nf4",
    ]  # fmt: skip
    assert (last.basic.train_batch_size, last.basic.gradient_accumulation_steps) == (1, 12)
    assert effective.base_precision(last.memory) == "nf4"
    assert last.memory.gradient_checkpointing
    assert effective.caches_latents(last.memory)
    assert effective.caches_text_embeds(last.memory)
    assert last.memory.cache_latents_to_disk
    assert last.memory.cache_text_encoder_outputs_to_disk


def test_a_text_encoder_that_learns_is_not_cached_away():
    assert "texts" not in taken(Settings(), learns=True)[0]


def test_a_running_training_takes_only_what_keeps_the_gradient():
    assert [rung.name for rung in RUNGS if rung.in_mid_run] == ["checkpointing", "half batch"]
    assert all(rung.same for rung in RUNGS if rung.in_mid_run)


@pytest.mark.parametrize(
    ("batch_size", "rows"), [(1, [0]), (2, [0, 1]), (5, [0, 3, 2, 1]), (8, [0, 4, 2, 1])]
)
def test_a_run_goes_down_to_one_image_at_once(batch_size, rows):
    footing, seen = Footing(), []
    while (footing := footing.lower(batch_size)) is not None:
        seen.append((footing.checkpointing, footing.rows))
    assert seen == [(True, count) for count in rows]


def test_a_footing_is_said_in_settings_and_kept_in_a_state():
    footing = Footing(True, 2)
    assert footing.words == "gradient checkpointing, 2 images at once"
    assert footing.settings(8, 3) == {
        "gradient_checkpointing": True,
        "train_batch_size": 2,
        "gradient_accumulation_steps": 12,
    }
    assert Footing.of_state(footing.to_state()) == footing
    assert Footing.of_state({}) == Footing()
    assert Footing().settings(8, 3) == {}
