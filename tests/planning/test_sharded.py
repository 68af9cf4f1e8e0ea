"""A base that is divided among processes: what memory it takes, and what is not known of it."""

import pytest

from kit.planning import needs, proposals
from kit.planning.needs import megabytes
from kit.planning.proposals import Candidate, Room
from kit.runs.measured import Measured, best_of, read_measured, work_of
from kit.settings import Settings

XL = {
    "resolution": "1024,1024",
    "mixed_precision": "bf16",
    "text_encoder_lr": 0.0,
    "network_dim": 8,
    "train_batch_size": 1,
    "gradient_checkpointing": True,
    "cache_latents": True,
    "cache_text_encoder_outputs": True,
}


def asked(**changes) -> Settings:
    return Settings().replace(**XL | changes)


def sharded(processes, **changes):
    return asked(shard_base=True, num_processes=processes, **changes)


def test_a_card_holds_its_part_of_the_unet_and_a_few_blocks():
    whole, half, quarter = (
        megabytes(work_of(settings, "sdxl"), "gpu", lora_weights=1_000_000)
        for settings in (asked(num_processes=2), sharded(2), sharded(4))
    )
    unet = needs.WEIGHTS["sdxl"][0] * 2  # MB of bf16
    gathered = needs.GATHERED * 2
    assert whole - half == pytest.approx(unet / 2 - gathered)
    assert half - quarter == pytest.approx(unet / 4)
    assert 2_000 < half < whole - 2_000


def test_processes_on_one_machines_processor_take_as_much_together():
    works = [work_of(s, "sd1") for s in (asked(mixed_precision="no"),)]
    works += [work_of(sharded(2, mixed_precision="no"), "sd1")]
    one, two = (megabytes(work, "cpu", lora_weights=1) for work in works)
    assert one == two


def test_it_has_no_effect_on_one_process():
    assert work_of(asked(shard_base=True), "sdxl") == work_of(asked(), "sdxl")


def test_a_base_in_fewer_bits_is_not_proposed_where_it_is_sharded():
    small = Room("gpu", 5_200)
    found = proposals.proposal(Candidate(asked(), "sdxl"), small)
    assert found and found.changes["base_precision"] == "int8"
    assert proposals.proposal(Candidate(sharded(2), "sdxl"), Room("gpu", 3_000)) is None
    assert proposals.proposal(Candidate(sharded(2), "sdxl"), small).changes == {}


def test_what_a_whole_base_measured_says_nothing_of_a_sharded_one():
    row = Measured("T4", work_of(asked(), "sdxl"), 1.0, 9_000)
    assert best_of([row], "T4", work_of(asked(), "sdxl"))
    assert best_of([row], "T4", work_of(sharded(2), "sdxl")) is None
    older = (
        '[{"device": "T4", "work": {"resolution": "512x512"}, "seconds": 1.0, "megabytes": 9000}]'
    )
    assert read_measured(older)[0].work["shards"] == 1
