"""Rules of the house that no other tool watches."""

import ast
from pathlib import Path

import pytest

from kit.settings import declarations

KIT = Path(__file__).parents[1] / "kit"
EFFECTS = Path(__file__).parent / "effects" / "rows"
FILES = {path.relative_to(KIT).as_posix(): path for path in sorted(KIT.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}
LONGEST_FILE = 400
LONGEST_FUNCTION = 60


def functions(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


def length_of(function):
    """Lines of code, from the name to the end, without the docstring."""
    lines = function.end_lineno - function.lineno + 1
    if ast.get_docstring(function) is not None:
        text = function.body[0]
        lines -= text.end_lineno - text.lineno + 1
    return lines


def names_read(tree):
    """Attributes that are read, by dot or by getattr with a fixed name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            yield from (a.value for a in node.args[1:2] if isinstance(a, ast.Constant))


def is_property(function):
    return any(getattr(decorator, "id", "") == "property" for decorator in function.decorator_list)


def names_used():
    """What is read outside the declarations, or given out by them in another form."""
    for name, tree in TREES.items():
        if not name.startswith("settings/"):
            yield from names_read(tree)
            continue
        for function in functions(tree):
            # A property such as Images.size, or a question such as rates, which others ask.
            rules = name.startswith("settings/rules/")
            asked = rules and not function.name.startswith("_")
            if asked or is_property(function):
                yield from names_read(function)


USED = set(names_used())


@pytest.mark.parametrize("name", declarations())
def test_every_setting_is_read_somewhere(name):
    assert name in USED, f"nobody reads {name}: it would be accepted and have no effect"


def test_every_setting_has_an_effect_test():
    trees = [ast.parse(path.read_text("utf-8")) for path in EFFECTS.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    named = {node.value for node in nodes if isinstance(node, ast.Constant)}
    missing = [name for name in declarations() if name not in named]
    assert not missing, f"write a row for {missing}: tests/effects/__init__.py says how"


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name):
    lines = len(FILES[name].read_text("utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{name} has {lines} lines; divide it"


@pytest.mark.parametrize("name", FILES)
def test_functions_are_short(name):
    long = [
        f"{function.name} has {length_of(function)} lines"
        for function in functions(TREES[name])
        if length_of(function) > LONGEST_FUNCTION
    ]
    assert not long, f"{name}: {', '.join(long)}"


@pytest.mark.parametrize("name", FILES)
def test_every_file_says_what_it_is_for(name):
    assert ast.get_docstring(TREES[name])


def test_every_folder_of_ours_is_a_package():
    folders = {path.parent for path in FILES.values()}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []
