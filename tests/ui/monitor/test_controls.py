import pytest

from kit.control import RateWish, SampleWish, SaveWish, Wishes
from kit.settings.prompts import parse_prompt
from kit.ui.monitor.controls import ALL_PARTS, Controls, parse_rate


@pytest.fixture
def controls():
    return Controls(Wishes(), lambda: None)


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("x0.5", RateWish(factor=0.5)),
        ("* 2", RateWish(factor=2.0)),
        (" 5e-5 ", RateWish(rate=5e-5)),
        ("0", RateWish(rate=0.0)),
    ],
)
def test_a_rate_is_read_as_a_factor_or_as_a_new_one(text, wish):
    assert parse_rate(text) == wish


@pytest.mark.parametrize("text", ["", "x", "nan", "-1", "1,5", "fast", "inf"])
def test_what_is_no_rate_is_said_beside_the_field(controls, text):
    with pytest.raises(ValueError, match="5e-5"):
        parse_rate(text)
    controls.rate.value = text
    controls.change.click()
    assert "kit-problem" in controls.line.value
    assert controls.wishes.take() == []


def test_buttons_leave_their_wishes(controls):
    controls.save.click()
    controls.sample.click()
    controls.prompt.value = "a dog --s 4"
    controls.sample.click()
    controls.update(rests=False, groups=["unet"])
    controls.rate.value = "x2"
    controls.change.click()
    controls.group.value = "unet"
    controls.change.click()
    assert controls.wishes.take() == [
        SaveWish(),
        SampleWish(),
        SampleWish(parse_prompt("a dog --s 4")),
        RateWish("", factor=2.0),
        RateWish("unet", factor=2.0),
    ]


def test_a_prompt_that_cannot_be_read_is_said(controls):
    controls.prompt.value = "a dog --z 4"
    controls.sample.click()
    assert "--z is no option" in controls.line.value
    assert controls.wishes.take() == []


def test_pause_is_a_switch(controls):
    controls.pause.click()
    assert controls.wishes.pause_asked
    controls.update(rests=True, groups=[])
    assert controls.pause.description == "Go on"
    controls.pause.click()
    assert not controls.wishes.pause_asked


def test_after_a_stop_there_is_nothing_to_pause(controls):
    controls.stop.click()
    assert controls.wishes.stop_asked
    assert controls.stop.disabled
    assert controls.pause.disabled
    assert controls.group.options == (ALL_PARTS,)


def test_an_option_that_is_skipped_is_said_beside_the_button(controls):
    controls.prompt.value = "a dog --s 4 --g 3.5"
    controls.sample.click()
    assert "--g has no effect: it belongs to other model families" in controls.line.value
    assert controls.wishes.take() == [SampleWish(parse_prompt("a dog --s 4"))]
