import ast
import dataclasses
import re
import sys
import tomllib
from pathlib import Path

import pytest

from kit import catalog
from kit.errors import MissingPackage
from kit.settings import declarations

ROOT = Path(__file__).parents[2]
ROWS = {
    f"{menu} {name}": row
    for menu in ("OPTIMIZERS", "SCHEDULES", "LORA_TYPES", "SAMPLERS")
    for name, row in getattr(catalog, menu).items()
}
CODE = re.compile(r"kit(\.\w+)*:\w+")
TREES = [ast.parse(path.read_text("utf-8")) for path in sorted((ROOT / "kit").rglob("*.py"))]


def written_codes():
    """Every "kit.x:y" that stands in the sources: rows, the command line, the form, the doors."""
    for tree in TREES:
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def catalog_codes():
    """Every string of every row of every menu, those that were put together included."""
    for menu in vars(catalog).values():
        for row in menu.values() if isinstance(menu, dict) else ():
            if dataclasses.is_dataclass(row):
                yield from (value for value in vars(row).values() if isinstance(value, str))


def beginnings_of(tree):
    """What stands before the first brace of an f-string that names code of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            first = getattr(node.values[0], "value", "")
            if isinstance(first, str) and first.startswith("kit."):
                yield first


CODES = {code for code in (*written_codes(), *catalog_codes()) if CODE.fullmatch(code)}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_every_row_says_where_its_code_is(row):
    module, colon, name = row.code.partition(":")
    assert colon
    assert name.isidentifier()
    assert all(part.isidentifier() for part in module.split("."))


@pytest.mark.parametrize("code", sorted(CODES))
def test_code_that_is_named_in_a_string_loads(code):
    catalog.load(code)


def test_no_string_that_is_put_together_is_forgotten():
    # `f"kit.adapters.{code}"` stands for rows: it must be the beginning of one that is loaded.
    beginnings = {beginning for tree in TREES for beginning in beginnings_of(tree)}
    assert beginnings, "nothing is put together any longer: this test may go"
    lost = [each for each in beginnings if not any(code.startswith(each) for code in CODES)]
    assert not lost


@pytest.mark.parametrize("row", [*catalog.SCHEDULES.values(), *catalog.LORA_TYPES.values()])
def test_rows_use_settings_that_exist(row):
    assert set(row.uses) <= set(declarations())


NOT_FOR_TRAINING = {"dev", "browser"}


def packages_of_ours():
    """What an installation of ours brings, with the extras for those who train."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [project["dependencies"], *(extras[name] for name in extras.keys() - NOT_FOR_TRAINING)]
    return {re.split(r"[^\w.-]", each)[0].lower() for group in wanted for each in group}


def test_a_package_that_a_row_needs_can_be_installed_with_ours():
    ours = packages_of_ours()
    assert {"diffusers", "pytorch-optimizer"} <= ours
    for menu in (catalog.OPTIMIZERS, catalog.LOGGERS, catalog.BASE_PRECISIONS):
        for name, row in menu.items():
            assert not row.needs or row.needs in ours, f"{name}: pyproject.toml lacks {row.needs}"
            if not row.needs and row.code:
                package = row.code.partition(":")[0].partition(".")[0]
                assert package in ours | {"kit", "torch"}, f"{name}: its row needs {package}"


def test_a_row_that_takes_over_is_a_row():
    for row in catalog.OPTIMIZERS.values():
        assert not row.fallback or row.fallback in catalog.OPTIMIZERS


def test_family_names_are_those_of_the_settings():
    for declared in declarations().values():
        assert set(declared.families) <= set(catalog.FAMILIES)


def test_rows_cannot_be_changed():
    row = catalog.OPTIMIZERS["AdamW"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.code = "other"
    with pytest.raises(TypeError):
        row.defaults["lr"] = 1


def test_an_old_name_of_a_sampler_means_the_same_sampler():
    assert catalog.SAMPLERS["k_euler"] is catalog.SAMPLERS["euler"]


def test_load_gives_what_the_row_names():
    assert catalog.load("kit.catalog:LoraType") is catalog.LoraType


def test_a_missing_package_is_told_with_its_installation():
    with pytest.raises(MissingPackage, match="pip install bitsnbytes") as caught:
        catalog.load("no_such_module.optim:AdamW8bit", needs="bitsnbytes")
    assert "no_such_module" in caught.value.found


def test_a_package_missing_inside_our_own_code_is_named_and_not_ours(monkeypatch):
    monkeypatch.setitem(sys.modules, "tomlkit", None)
    monkeypatch.delitem(sys.modules, "kit.settings.files", raising=False)
    with pytest.raises(MissingPackage, match="The package tomlkit"):
        catalog.load("kit.settings.files:to_toml")


def test_a_mistake_of_ours_keeps_its_traceback():
    with pytest.raises(ModuleNotFoundError):
        catalog.load("kit.no_such_file:thing")
