"""What is loaded late comes without a look for garbage, which goes on afterwards as before."""

import gc
import sys

import pytest

from kit.catalog import imported


@pytest.fixture
def late(tmp_path, monkeypatch):
    """A module that notes whether garbage is looked for while it comes."""
    (tmp_path / "late_one.py").write_text("import gc\nlooks = gc.isenabled()\n", "utf-8")
    (tmp_path / "late_broken.py").write_text("import nothing_of_that_name\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    gc.enable()


@pytest.mark.parametrize("looks", [True, False])
def test_no_garbage_is_looked_for_while_a_module_comes(late, looks, monkeypatch):
    (gc.enable if looks else gc.disable)()
    monkeypatch.delitem(sys.modules, "late_one", raising=False)
    assert imported("late_one").looks is False
    assert gc.isenabled() is looks


def test_it_goes_on_where_a_module_does_not_load(late):
    with pytest.raises(ModuleNotFoundError, match="nothing_of_that_name"):
        imported("late_broken")
    assert gc.isenabled()
