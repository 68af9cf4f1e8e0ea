"""What can only be judged once the base model has said what it is."""

import pytest

from kit import demo
from kit.errors import SettingsError
from kit.families.base_model import find_model
from kit.settings import Settings

BASE = Settings().replace(pretrained_model_name_or_path=str(demo.BASE), resolution="64,64")


def test_a_fitting_model_needs_no_words():
    file, notices = find_model(BASE)
    assert (file.family, notices) == ("sd1", ())


@pytest.mark.parametrize(("step", "told"), [(64, False), (128, False), (32, True)])
def test_bucket_steps_that_the_family_was_not_made_for_are_told(step, told):
    _, notices = find_model(BASE.replace(bucket_reso_steps=step))
    assert any("no multiple of 64" in text for text in notices) is told


def test_without_buckets_their_steps_do_not_matter():
    assert find_model(BASE.replace(bucket_reso_steps=32, enable_bucket=False))[1] == ()


def test_lists_of_blocks_for_another_family_are_refused():
    with pytest.raises(SettingsError, match="this model has 25 blocks"):
        find_model(BASE.replace(block_dims=",".join(["4"] * 23)))
