"""What is loaded late comes without a look for garbage, which goes on afterwards as before."""

import gc
import sys

import pytest

from kit.catalog import imported
from kit.devices import free_memory


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


def test_what_came_with_torch_is_looked_at_when_memory_is_wanted(late, tmp_path, monkeypatch):
    gc.unfreeze()
    (tmp_path / "late_heavy.py").write_text("import sys\nsys.modules['torch'] = sys\n", "utf-8")
    monkeypatch.delitem(sys.modules, "late_one", raising=False)
    imported("late_one")
    assert gc.get_freeze_count() == 0, "torch was there before: there may be something large"
    monkeypatch.setitem(sys.modules, "torch", sys.modules["torch"])  # put back at the end
    monkeypatch.delitem(sys.modules, "torch")
    imported("late_heavy")
    assert gc.get_freeze_count() > 0
    free_memory()
    assert gc.get_freeze_count() == 0
