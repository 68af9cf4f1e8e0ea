import pytest

from kit.control import LrRequest, RunControl, SampleRequest, SaveRequest, parse_rate
from kit.settings.prompts import parse_prompt
from kit.ui.monitor.controls import ALL_PARTS, Controls


@pytest.fixture
def controls():
    return Controls(RunControl(), lambda: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x0.5", LrRequest(factor=0.5)),
        ("* 2", LrRequest(factor=2.0)),
        (" 5e-5 ", LrRequest(rate=5e-5)),
        ("0", LrRequest(rate=0.0)),
    ],
)
def test_a_rate_is_read_as_a_factor_or_as_a_new_one(text, expected):
    assert parse_rate(text) == expected


@pytest.mark.parametrize("text", ["", "x", "nan", "-1", "1,5", "fast", "inf"])
def test_what_is_no_rate_is_said_beside_the_field(controls, text):
    with pytest.raises(ValueError, match="5e-5"):
        parse_rate(text)
    controls.rate.value = text
    controls.change.click()
    assert "kit-problem" in controls.line.value
    assert controls.control.take() == []


def test_buttons_leave_their_requests(controls):
    controls.save.click()
    controls.sample.click()
    controls.prompt.value = "a dog --s 4"
    controls.sample.click()
    controls.update(rests=False, groups=["unet"])
    controls.rate.value = "x2"
    controls.change.click()
    controls.group.value = "unet"
    controls.change.click()
    assert controls.control.take() == [
        SaveRequest(),
        SampleRequest(),
        SampleRequest(parse_prompt("a dog --s 4")),
        LrRequest("", factor=2.0),
        LrRequest("unet", factor=2.0),
    ]


def test_a_prompt_that_cannot_be_read_is_said(controls):
    controls.prompt.value = "a dog --z 4"
    controls.sample.click()
    assert "--z is no option" in controls.line.value
    assert controls.control.take() == []


def test_pause_is_a_switch(controls):
    controls.pause.click()
    assert controls.control.pause_requested
    controls.update(rests=True, groups=[])
    assert controls.pause.description == "Go on"
    controls.pause.click()
    assert not controls.control.pause_requested


def test_after_a_stop_there_is_nothing_to_pause(controls):
    controls.stop.click()
    assert controls.control.stop_requested
    assert controls.stop.disabled
    assert controls.pause.disabled
    assert controls.group.options == (ALL_PARTS,)


def test_an_option_that_is_skipped_is_said_beside_the_button(controls):
    controls.prompt.value = "a dog --s 4 --g 3.5"
    controls.sample.click()
    assert "--g has no effect: it belongs to other model families" in controls.line.value
    assert controls.control.take() == [SampleRequest(parse_prompt("a dog --s 4"))]
