"""`import kit` opens at once, and every public name is behind it."""

import importlib.util
import subprocess
import sys

import pytest

import kit

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "matplotlib"}
# What a fresh process has loaded afterwards is the truth; import-linter only reads the sources.
TELL = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def loaded_by(statement):
    run = subprocess.run(
        [sys.executable, "-c", f"{statement}; {TELL}"], capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import kit",
        "import kit.cli",
        "import kit.hosts",
        "import kit.planning",
        "import kit.ui",
        "from kit import Settings, plan",
        "from kit import Dashboard, show, watch",
    ],
)
def test_the_doors_open_without_torch(statement):
    assert not loaded_by(statement) & HEAVY


def test_importing_kit_alone_loads_nothing_but_itself():
    assert not loaded_by("import kit") & {"pydantic", "numpy", "PIL", "ipywidgets"}


@pytest.mark.parametrize("name", kit.__all__)
def test_every_public_name_is_there(name):
    assert callable(getattr(kit, name))


def test_public_names_are_listed_before_their_first_use():
    assert set(kit.__all__) <= set(dir(kit))


def test_an_unknown_name_is_an_ordinary_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = kit.trian


@pytest.mark.parametrize("name", kit.__all__)
def test_no_module_hides_a_public_name(name):
    # If kit/train.py existed, importing it would put the module in the place of the function.
    assert importlib.util.find_spec(f"kit.{name}") is None
