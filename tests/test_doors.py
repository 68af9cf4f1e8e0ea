"""`import kit` opens at once, and every public name is behind it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kit

KIT = Path(kit.__file__).parent
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


def exports_of(package):
    """What the package's __init__ gives out: made there, imported there, or loaded on first use."""
    name = ".".join(package.relative_to(KIT.parent).parts)
    tree = ast.parse((package / "__init__.py").read_text("utf-8"))
    found = {each for node in tree.body for each in given_out(node, name)}
    return {each for each in found if not each.startswith("_")}


def given_out(node, package):
    if isinstance(node, ast.If | ast.Try):  # TYPE_CHECKING says what is loaded on first use
        yield from (name for below in node.body for name in given_out(below, package))
    elif isinstance(node, ast.ImportFrom) and node.module != package:  # else the module itself
        yield from (alias.asname or alias.name for alias in node.names)
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        stored = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
        yield from (each.id for each in stored if isinstance(each.ctx, ast.Store))


def modules_of(package):
    return {path.stem for path in package.iterdir() if path.suffix == ".py" or is_package(path)}


def is_package(path):
    return (path / "__init__.py").exists()


PACKAGES = sorted(path.parent for path in KIT.rglob("__init__.py"))


@pytest.mark.parametrize(
    "package", PACKAGES, ids=lambda path: path.relative_to(KIT.parent).as_posix()
)
def test_no_module_hides_a_name_that_its_package_exports(package):
    # If kit/train.py existed, importing it would put the module in the place of the function;
    # if planning/plan.py did, `import kit.planning.plan` would find the function instead.
    assert not modules_of(package) & exports_of(package)


def test_a_module_that_hides_an_exported_name_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "KIT", tmp_path / "kit")
    package = tmp_path / "kit" / "ui"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from kit.ui.start import run, show")
    (package / "show").mkdir()
    (package / "show" / "__init__.py").touch()
    for name in ("run.py", "start.py"):
        (package / name).touch()
    assert modules_of(package) & exports_of(package) == {"run", "show"}


def test_every_public_name_is_among_the_exports():
    assert set(kit.__all__) <= exports_of(KIT)
