import pytest

from kit.catalog import FAMILIES
from kit.settings import Settings
from kit.settings.rules import notices, problems
from kit.settings.unet_blocks import BlockPlan, block_plan

SD, SDXL = FAMILIES["sd1"].blocks, FAMILIES["sdxl"].blocks


def planned(layout=SD, **changes):
    return block_plan(Settings().replace(**changes).blocks, layout)


def test_families_have_as_many_blocks_as_the_reference_counts():
    assert (SD.count, SDXL.count) == (25, 23)


def test_without_lists_every_layer_is_the_networks_own():
    network = Settings().replace(network_dim=4, network_alpha=2, conv_dim=3, conv_alpha=1).network
    assert planned() == BlockPlan()
    assert planned().size(7, is_conv3x3=False, network=network) == (4, 2.0)
    assert planned().size(7, is_conv3x3=True, network=network) == (3, 1.0)


@pytest.mark.parametrize(
    ("course", "first", "last"),
    [
        ("sine", 0.0, 1.0),
        ("cosine", 1.0, 0.0),
        ("linear", 0.0, 1.0),
        ("reverse_linear", 1.0, 0.0),
        ("zeros", 0.0, 0.0),
        ("linear+0.25", 0.25, 1.25),
    ],
)
def test_a_course_runs_over_the_section(course, first, last):
    weights = planned(down_lr_weight=course).weights
    assert weights[0] == pytest.approx(first)
    assert weights[11] == pytest.approx(last, abs=1e-12)
    assert weights[12:] == (1.0,) * 13


def test_one_number_counts_for_the_whole_section():
    assert planned(up_lr_weight="0.5").weights == (1.0,) * 13 + (0.5,) * 12
    assert planned(SDXL, mid_lr_weight="0.5").weights[10:13] == (0.5,) * 3


def test_weights_not_above_the_threshold_are_none():
    weights = planned(down_lr_weight="linear", block_lr_zero_threshold=0.5).weights
    assert weights[:6] == (0.0,) * 6
    assert weights[6] > 0.5


def test_a_block_of_rank_zero_or_without_weight_gets_no_adapter():
    network = Settings().network
    dims = ",".join(["0", "4"] + ["2"] * 23)
    plan = planned(block_dims=dims, down_lr_weight="1,1,0,1,1,1,1,1,1,1,1,1")
    sizes = [plan.size(n, is_conv3x3=False, network=network) for n in range(4)]
    assert sizes == [None, (4, 1.0), None, (2, 1.0)]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"down_lr_weight": "1,2,3"}, "3 numbers; this model has 12"),
        ({"down_lr_weight": "slope"}, "'slope' is no number"),
        ({"mid_lr_weight": "1,-1"}, "2 numbers"),
        ({"block_dims": "4,4"}, "2 numbers; this model has 25 blocks"),
        ({"block_dims": ",".join(["1.5"] * 25)}, "whole numbers"),
        ({"block_alphas": "nan"}, "no number that can be used"),
    ],
)
def test_lists_that_do_not_fit_are_refused_before_a_model_is_loaded(changes, told):
    [problem] = problems(Settings().replace(**changes))
    assert told in problem
    assert problem.startswith(f"[blocks] {next(iter(changes))}: ")


def test_lists_of_sdxl_fit_until_the_model_is_known_to_be_another():
    asked = Settings().replace(block_dims=",".join(["4"] * 23))
    assert problems(asked) == []
    assert problems(asked.replace(sdxl=True)) == []
    assert problems(asked.replace(sdxl=True, block_dims=",".join(["4"] * 25))) != []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"block_lr_zero_threshold": 0.1}, "block_lr_zero_threshold has no effect"),
        ({"conv_block_dims": ",".join(["4"] * 25)}, "adapts no 3x3 convolutions"),
        (
            {"stop_text_encoder_training": 50, "text_encoder_lr": 0},
            "stop_text_encoder_training has no effect",
        ),
        ({"lr_warmup_only_constant": True}, "lr_warmup_only_constant is on"),
    ],
)
def test_what_has_no_effect_is_told(changes, told):
    assert any(told in text for text in notices(Settings().replace(**changes)))
