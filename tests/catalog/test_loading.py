"""What is loaded late comes without a look for garbage, which goes on afterwards as before."""

import gc
import subprocess
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


AFRESH = """
import gc
from kit.catalog import imported

{before}
imported("kit.devices")  # brings torch
print(gc.get_freeze_count() > 0)
from kit.devices import free_memory

free_memory()
print(gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize(
    ("before", "left_out"),
    [
        ("", [True, False]),
        ("import torch", [False, False]),  # there may be something large in circles already
        ("import torch; gc.freeze()", [True, True]),  # by somebody else, who knows why
    ],
)
def test_what_came_with_torch_is_looked_at_when_memory_is_wanted(before, left_out):
    command = [sys.executable, "-c", AFRESH.format(before=before)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert said == [str(each) for each in left_out]
