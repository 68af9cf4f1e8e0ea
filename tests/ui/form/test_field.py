import pytest

from kit.errors import SettingsError
from kit.settings import Settings, declarations
from kit.ui.form.field import FROM_FILE, Field, as_text
from kit.ui.form.layouts import Shared


def field(name, value=None):
    made = Field(declarations()[name], value, lambda: None, Shared())
    assert made.row is made.row  # it is shown, and made once
    return made


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (0, "0"),
        (1.0, "1"),
        (0.0, "0"),
        (0.05, "0.05"),
        (5e-5, "5e-5"),
        (1e20, "1e20"),
        (2**32 - 1, "4294967295"),
    ],
)
def test_values_stand_as_a_person_would_type_them(value, text):
    assert as_text(value) == text
    if value is not None:
        assert type(value)(text) == value


@pytest.mark.parametrize("typed", ["1e-4", "0.0001", " 1e-04 "])
def test_a_rate_may_be_written_in_any_way(typed):
    row = field("unet_lr", 0.5)
    row.control.value = typed
    assert Settings().replace(unet_lr=row.value).basic.unet_lr == 1e-4


def test_a_blank_optional_number_is_none_and_zero_stays_zero():
    row = field("unet_lr", 0.5)
    for typed, meant in (("", None), ("0", 0.0)):
        row.control.value = typed
        assert Settings().replace(unet_lr=row.value).basic.unet_lr == meant


def test_a_number_that_is_needed_cannot_be_blank():
    row = field("train_batch_size", 1)
    row.control.value = ""
    with pytest.raises(SettingsError, match="train_batch_size"):
        Settings().replace(train_batch_size=row.value)


def test_what_the_file_may_say_is_a_choice_of_three():
    row = field("v2")
    assert (row.control.value, row.value) == (FROM_FILE, None)
    for value in (True, False, None):
        row.value = value
        assert row.value is value


def test_spaces_around_a_pasted_path_do_not_count():
    row = field("train_data_dir", "")
    row.control.value = "  /content/my cats \n"
    assert row.value == "/content/my cats"


@pytest.mark.parametrize("name", declarations())
def test_each_row_has_help_and_a_name_for_screen_readers_and_tests(name):
    declared = declarations()[name]
    row = field(name, declared.default)
    assert f"kit-f-{name}" in row.row._dom_classes
    assert row.control.description == declared.title  # the only name that core widgets have
    assert f"<code>{name}</code>: " in row._help.value
    assert row.value == declared.default or row.control.value == as_text(declared.default)


def test_help_opens_without_a_script():
    html = field("network_dim", 8)._help.value
    assert html.startswith('<details class="kit-help"><summary aria-label="Help: Network Rank')
    assert "How much the LoRA can hold." in html
    assert "default 8" in html


def test_help_cannot_become_markup():
    html = field("train_data_dir", "")._help.value
    assert "&lt;repeats&gt;" in html
    assert "<repeats>" not in html


def test_a_problem_is_shown_at_the_field_and_goes_away():
    row = field("epoch", 1)
    row.mark(problem="'x' is not a whole number")
    assert "&#x27;x&#x27; is not a whole number" in row._told.value
    assert row.row.children[-1] is row._told
    assert "kit-bad" in row.row._dom_classes
    row.mark()
    assert row._told.value == ""
    assert "kit-bad" not in row.row._dom_classes


def test_an_opened_help_is_not_closed_by_a_problem():
    row, sent = field("epoch", 1), []
    row._help.observe(lambda change: sent.append(change["new"]), names="value")
    row.mark(problem="'x' is not a whole number")
    row.mark()
    assert sent == []


def test_help_says_why_a_field_is_grey():
    row = field("conv_dim")
    row.mark(idle="LoRA type is Standard")
    assert "No effect now: LoRA type is Standard." in row._help.value


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("train_batch_size", "Train batch size (images)"),
        ("max_train_steps", "Max train steps"),
        ("lr_warmup", "LR warmup (% of steps)"),
        ("stop_text_encoder_training", "Stop text encoder training (%)"),
        ("num_cpu_threads_per_process", "Number of CPU threads per core"),
    ],
)
def test_a_unit_is_said_once(name, title):
    assert field(name).control.description == title


def test_a_wrong_value_stays_open_even_without_effect():
    row = field("conv_dim")
    row.mark(idle="LoRA type is Standard")
    assert row.control.disabled
    row.mark(idle="LoRA type is Standard", problem="'x' is not a whole number")
    assert not row.control.disabled


def test_a_row_that_is_shown_later_says_what_is_known_by_then():
    late = Field(declarations()["network_dim"], 8, lambda: None, Shared())
    late.mark(problem="too small")
    assert "kit-bad" in late.row._dom_classes
    assert "too small" in late.row.children[-1].value
