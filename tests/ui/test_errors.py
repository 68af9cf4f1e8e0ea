import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from kit.errors import DatasetError, KitError, SettingsError
from kit.ui import errors

NO_HISTORY = Config({"HistoryManager": {"enabled": False}})


@pytest.fixture
def shell(monkeypatch):
    shell = InteractiveShell.instance(config=NO_HISTORY)
    monkeypatch.setattr(errors, "get_ipython", lambda: shell)
    yield shell
    InteractiveShell.clear_instance()


def test_found_possible_and_do_are_shown_and_nothing_becomes_markup():
    html = errors.panel(DatasetError("No images.", "In <repeats>_<word>.", "Move them."))
    assert "<b>No images.</b>" in html
    assert "In &lt;repeats&gt;_&lt;word&gt;.\nMove them." in html


def test_all_problems_of_the_settings_are_listed():
    html = errors.panel(SettingsError(["[basic] epoch: no", "[basic] seed: no"]))
    assert "<b>2 settings need a change:</b>" in html
    assert html.count("[basic]") == 2


def test_our_errors_leave_a_cell_without_a_traceback(shell, capsys):
    errors.install()
    result = shell.run_cell(
        "from kit.errors import KitError\nraise KitError('The file is gone.', do='Get it.')"
    )
    assert isinstance(result.error_in_exec, KitError)  # "Run all" stops here
    out = "".join(capsys.readouterr())
    assert "The file is gone.\nGet it." in out
    assert "Traceback" not in out


def test_mistakes_of_ours_keep_their_traceback(shell, capsys):
    errors.install()
    shell.run_cell("1 / 0")
    assert "ZeroDivisionError" in "".join(capsys.readouterr())


def test_outside_of_ipython_nothing_is_installed(monkeypatch):
    monkeypatch.setattr(errors, "get_ipython", lambda: None)
    errors.install()
