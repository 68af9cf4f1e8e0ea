"""Rates of single parts and blocks, LoRA+, and a text encoder that stops."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from kit import catalog, planning
from kit.adapters.param_groups import PartRates
from kit.errors import SettingsError
from kit.events import Stepped
from kit.families.kohya_names import block_number
from kit.settings.unet_blocks import BlockPlan
from kit.training.preparation import prepare
from tests.support.parts import outcome
from tests.support.tiny import write_tiny
from tests.support.toys import leave_after, lora, losses, run, same, toy_settings

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "lora_keys.json").read_text())
NUMBERS = {**GOLDEN["block_index_sd"], **GOLDEN["block_index_sdxl"]}


@pytest.mark.parametrize("name", NUMBERS)
def test_blocks_are_numbered_as_in_the_reference(name):
    assert block_number(name) == NUMBERS[name]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("lora_unet_down_blocks_1_downsamplers_0_conv", 6),
        ("lora_unet_up_blocks_0_upsamplers_0_conv", 15),
        ("lora_unet_mid_block_resnets_1_conv1", 12),
        ("lora_unet_input_blocks_3_0_op", 4),
        ("lora_unet_middle_block_2_in_layers_2", 12),
        ("lora_unet_output_blocks_5_2_conv", 18),
        ("lora_unet_time_embedding_linear_1", None),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", None),
    ],
)
def test_other_layers_are_numbered_too(name, number):
    assert block_number(name) == number


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "sd1": write_tiny(folder / "sd1", "sd1"),
        "thin": write_tiny(folder / "thin", "sd1", thin=True),
        "sdxl": write_tiny(folder / "sdxl", "sdxl", thin=True),
    }


@pytest.fixture
def asked(models, images, tmp_path):
    def settings(out="out", model="sd1", **changes):
        return toy_settings(models[model], images, tmp_path / out, **changes)

    return settings


def groups_of(settings):
    ready, _ = outcome(prepare(planning.plan(settings)))
    try:
        return {
            g["name"]: (g["initial_lr"], g["params"])
            for g in ready.optimization.optimizer.param_groups
        }
    finally:
        ready.close()


def test_each_weighted_block_is_a_group_with_its_own_rate(asked):
    weights = "0,1,0.5" + ",1" * 9
    groups = groups_of(asked(unet_lr=1e-2, down_lr_weight=weights))
    assert groups["unet_block2"][0] == pytest.approx(5e-3)
    assert groups["unet_block1"][0] == pytest.approx(1e-2)
    assert "unet_block0" not in groups
    assert next(iter(groups)) == "textencoder"
    numbers = [int(name.removeprefix("unet_block")) for name in list(groups)[1:]]
    assert numbers == sorted(numbers)


def test_loraplus_lets_the_up_parts_learn_faster(asked):
    groups = groups_of(asked(loraplus_lr_ratio=16, loraplus_text_encoder_lr_ratio=0))
    assert list(groups) == ["textencoder", "unet", "unet plus"]
    assert groups["unet plus"][0] == pytest.approx(16 * groups["unet"][0])
    assert len(groups["unet plus"][1]) == len(groups["unet"][1])
    assert all(not weight.any() for weight in groups["unet plus"][1])  # up parts start as zeros


def test_each_parts_own_ratio_counts_more_than_that_of_all(asked):
    ratios = {"loraplus_unet_lr_ratio": 4, "loraplus_text_encoder_lr_ratio": 8}
    groups = groups_of(asked(loraplus_lr_ratio=16, unet_lr=1e-3, text_encoder_lr=1e-4, **ratios))
    rates = {name: rate for name, (rate, _) in groups.items()}
    assert rates == pytest.approx(
        {"textencoder": 1e-4, "textencoder plus": 8e-4, "unet": 1e-3, "unet plus": 4e-3}
    )


def test_sdxls_encoders_may_learn_at_two_rates_or_one_alone(asked):
    together = groups_of(asked(model="sdxl"))
    assert list(together) == ["textencoder", "unet"]
    apart = groups_of(asked(model="sdxl", learning_rate_te2=5e-3))
    assert list(apart) == ["textencoder1", "textencoder2", "unet"]
    assert (apart["textencoder1"][0], apart["textencoder2"][0]) == (1e-2, 5e-3)
    alone = groups_of(asked(model="sdxl", learning_rate_te2=0))
    assert list(alone) == ["textencoder1", "unet"]
    assert list(groups_of(asked(model="sdxl", text_encoder_lr=0, learning_rate_te2=1e-3))) == [
        "textencoder2",
        "unet",
    ]


def test_a_frozen_encoder_of_two_is_not_in_the_file(asked, tmp_path):
    run(asked(model="sdxl", learning_rate_te2=0, max_train_steps=1))
    names = {name.split("_")[1] for name in lora(tmp_path / "out")}
    assert names == {"te1", "unet"}


def test_a_layer_outside_of_all_blocks_learns_at_the_full_rate():
    rates = PartRates({"unet": 1e-3}, BlockPlan(weights=(0.5,) * 25))
    layer = type("L", (), {"part": "unet", "name": "lora_unet_time_embedding_linear_1"})()
    assert rates.of(layer) == ("unet", 1e-3)


def test_lists_of_another_family_are_refused_before_it_is_loaded(asked, monkeypatch):
    monkeypatch.setattr(
        "kit.training.preparation.load_model", lambda *_, **__: pytest.fail("was loaded")
    )
    plan = planning.plan(asked(block_dims=",".join(["4"] * 23)))
    with pytest.raises(SettingsError, match="this model has 25 blocks"):
        outcome(prepare(plan))


# --------------------------------------------------------------------------- stopping


STOP = {"stop_text_encoder_training": 40, "max_train_steps": 8}  # after ceil(3.2) = 4 steps
PLUS = {**STOP, "optimizer_args": "weight_decay=0.1", "loraplus_lr_ratio": 4}


def test_the_text_encoder_stops_and_the_unet_goes_on(asked, tmp_path):
    four = run(asked("four", model="thin", **STOP))
    told = [event.rates for event in four if isinstance(event, Stepped)]
    assert [rates["textencoder"] > 0 for rates in told] == [True] * 4 + [False] * 4
    assert all(rates["unet"] > 0 for rates in told[:-1])
    stopped, whole = lora(tmp_path / "four"), None
    straight = asked("whole", model="thin", max_train_steps=8, save_every_n_steps=4)
    run(straight)
    from safetensors.torch import load_file

    at_four = load_file(tmp_path / "whole" / "toy-step00000004.safetensors")
    whole = lora(tmp_path / "whole")
    for name, tensor in stopped.items():
        if name.startswith("lora_te") and not name.endswith("alpha"):
            assert torch.equal(tensor, at_four[name])
            assert not torch.equal(tensor, whole[name])
    unet = next(name for name in stopped if name.startswith("lora_unet") and "up" in name)
    assert not torch.equal(stopped[unet], at_four[unet])


@pytest.fixture(scope="module")
def straight(models, images, tmp_path_factory):
    """A run that was not left, and where its file lies."""
    out = tmp_path_factory.mktemp("straight")
    return run(toy_settings(models["thin"], images, out, **PLUS)), out


@pytest.mark.parametrize("left", [3, 4, 6])
def test_a_run_goes_on_across_the_stop_bit_for_bit(asked, straight, tmp_path, left):
    told, out = straight
    first = leave_after(left, asked("b", model="thin", **PLUS))
    rest = run(asked("b", model="thin", **PLUS))
    assert losses(first) + losses(rest) == losses(told)
    assert same(lora(out), lora(tmp_path / "b"))


def test_the_plan_tells_where_it_stops(asked):
    assert "the text encoder learns until step 4" in str(planning.plan(asked(**STOP)))


def test_blocks_and_loraplus_go_on_bit_for_bit(asked, tmp_path):
    changes = {
        "down_lr_weight": "linear+0.1",
        "block_dims": ",".join(["2"] * 12 + ["4"] + ["3"] * 12),
        "loraplus_unet_lr_ratio": 8,
        "max_train_steps": 5,
    }
    straight = run(asked("a", **changes))
    first = leave_after(2, asked("b", **changes))
    assert losses(first) + losses(run(asked("b", **changes))) == losses(straight)
    assert same(lora(tmp_path / "a"), lora(tmp_path / "b"))


NO_BLOCKS = {"down_lr_weight": "zeros", "mid_lr_weight": "0", "up_lr_weight": "zeros"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({**NO_BLOCKS, "text_encoder_lr": 0}, "leave no block that has an adapter"),
        ({**NO_BLOCKS, **STOP}, "after step 4 nothing would"),
    ],
)
def test_a_run_in_which_nothing_would_learn_does_not_begin(asked, changes, told):
    with pytest.raises(SettingsError, match=told):
        run(asked(**changes))


def test_the_text_encoder_may_learn_alone_to_the_end(asked, tmp_path):
    run(asked(**NO_BLOCKS, max_train_steps=1))
    assert {name.split("_")[1] for name in lora(tmp_path / "out")} == {"te"}


@pytest.mark.parametrize("kind", catalog.LORA_TYPES)
def test_the_menu_says_of_every_type_whether_loraplus_finds_a_faster_factor(kind):
    row = catalog.LORA_TYPES[kind]
    adapter = catalog.load(row.code)(nn.Linear(64, 64), rank=8, alpha=4)
    assert bool(adapter.fast()) == ("loraplus_lr_ratio" in row.uses)
