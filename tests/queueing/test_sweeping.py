"""All combinations, named by what differs, or none where one of them is refused."""

import csv

import pytest

from kit.errors import SettingsError
from kit.queueing.sweeping import combinations, differing, sweep, values_in
from kit.settings import Settings

BASE = Settings().replace(
    pretrained_model_name_or_path="base.safetensors", train_data_dir="images", output_name="cat"
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("8,16,32", ["8", "16", "32"]),
        ("8", ["8"]),
        ("", [""]),
        ("1e-4, 3e-4", ["1e-4", "3e-4"]),
        ('"512,768",1024', ["512,768", "1024"]),
        ("AdamW,,", ["AdamW", "", ""]),
    ],
)
def test_values_are_parted_at_commas_but_not_within_quotes(text, values):
    assert values_in(text) == values


def test_a_quote_without_an_end_is_refused():
    with pytest.raises(csv.Error):
        values_in('"512,768')


def test_every_combination_becomes_a_run_named_by_what_differs():
    made = sweep(BASE.flat(), {"network_dim": ["8", "16"], "unet_lr": ["1e-4", "3e-4"]})
    assert [
        (each.folders.output_name, each.network.network_dim, each.basic.unet_lr) for each in made
    ] == [
        ("cat_network_dim8_unet_lr1e-4", 8, 1e-4),
        ("cat_network_dim8_unet_lr3e-4", 8, 3e-4),
        ("cat_network_dim16_unet_lr1e-4", 16, 1e-4),
        ("cat_network_dim16_unet_lr3e-4", 16, 3e-4),
    ]
    assert {each.folders.train_data_dir for each in made} == {"images"}


def test_names_are_fit_for_files_and_none_stands_twice():
    values = ["a/b c", "a b/c", "", "x" * 90]
    made = sweep(BASE.flat(), {"training_comment": values})
    names = [each.folders.output_name for each in made]
    assert names == [
        "cat_training_commenta-b-c",
        "cat_training_commenta-b-c-2",
        "cat_training_commentblank",
        f"cat_training_comment{'x' * 24}",
    ]
    assert [each.flat()["training_comment"] for each in made] == values
    named = sweep(BASE.flat(), {"output_name": ["one", "two"]})
    assert [each.folders.output_name for each in named] == ["one", "two"]


def test_every_value_that_is_refused_is_told_once_and_nothing_is_made():
    with pytest.raises(SettingsError) as refused:
        sweep(BASE.flat(), {"network_dim": ["8", "0", "x"], "seed": ["1", "2"]})
    assert len(refused.value.problems) == 2
    assert all("network_dim" in problem for problem in refused.value.problems)


def test_what_only_a_combination_makes_wrong_is_refused():
    base = BASE.replace(LoRA_type="Kohya LoCon", conv_dim=4).flat()
    assert len(sweep(base, {"scale_weight_norms": ["0", "1"]})) == 2
    with pytest.raises(SettingsError, match="gpu_ids"):
        sweep(base, {"gpu_ids": ["0", "first"]})


def test_a_value_twice_and_too_many_runs_are_refused():
    with pytest.raises(SettingsError, match="network_dim = 8: given twice"):
        combinations({"network_dim": ["8", "16", "8"]})
    numbers = [str(n) for n in range(30)]
    with pytest.raises(SettingsError, match=r"seed \(30\) x network_dim \(30\): 900 runs"):
        combinations({"seed": numbers, "network_dim": numbers})


def test_what_differs_is_found_and_the_name_is_no_difference():
    made = sweep(BASE.flat(), {"unet_lr": ["1e-4", "3e-4"], "network_dim": ["8", "16"]})
    assert differing([each.flat() for each in made]) == ["unet_lr", "network_dim"]
    assert differing([made[0].flat()]) == []
