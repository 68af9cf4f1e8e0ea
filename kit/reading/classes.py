"""What a class of an installed package takes, read from its source: nothing is imported for it.

torch takes seconds to import, and a form must not wait for it to say that a name is wrong.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Argument:
    """One argument of a class; kind: its annotation, "" without one."""

    name: str
    kind: str
    is_needed: bool


@dataclass(frozen=True)
class Class:
    """A class; arguments: None where its source does not say all of them."""

    name: str
    arguments: tuple[Argument, ...] | None
    bases: tuple[str, ...] = ()


def is_installed(package: str) -> bool:
    """There is a package, or a module, of this name at the top."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


@cache
def classes_in(module: str) -> dict[str, Class] | None:
    """The classes that a module's source defines; None where not all of its names are to be seen.

    So it is with extensions, with names that are made while it is imported, and without a source.
    """
    tree = _tree_of(module)
    if tree is None:
        return None
    if not all(map(_is_plain, tree.body)):
        return None
    return {node.name: _class(node) for node in tree.body if isinstance(node, ast.ClassDef)}


@cache
def names_in(module: str) -> frozenset[str]:
    """All names that a module's source binds at its top, imported ones too."""
    tree = _tree_of(module)
    return frozenset(_bound(tree.body if tree else ()))


def _bound(nodes: Iterable[ast.stmt]) -> Iterator[str]:
    for node in nodes:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (each.asname or each.name.partition(".")[0] for each in names)
            case ast.Assign(targets=targets):
                yield from (each.id for each in targets if isinstance(each, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If(body=body, orelse=orelse):
                yield from _bound((*body, *orelse))


def _is_plain(node: ast.stmt) -> bool:
    """It binds the names that stand in it, and no others."""
    match node:
        case ast.ImportFrom(names=names):
            return all(each.name != "*" for each in names)
        case ast.Import() | ast.ClassDef() | ast.Pass():
            return True
        case ast.FunctionDef(name=name):
            return name != "__getattr__"
        case ast.Expr(value=value):
            return isinstance(value, ast.Constant)  # a docstring; a call may do anything
        case ast.Assign(targets=targets):
            return all(isinstance(each, ast.Name) for each in targets)
        case ast.AnnAssign(target=target):
            return isinstance(target, ast.Name)
        case ast.If(body=body, orelse=orelse):  # if TYPE_CHECKING
            inner = (*body, *orelse)
            return all(_is_plain(each) and not isinstance(each, ast.ClassDef) for each in inner)
    return False


def _tree_of(module: str) -> ast.Module | None:
    file = _file_of(module)
    if file is None:
        return None
    try:
        return ast.parse(file.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError, RecursionError):
        return None


def _file_of(module: str) -> Path | None:
    """The source of a module; only what stands at the top is asked of Python's own finders."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        return _source(Path(spec.origin)) if spec.origin else None
    for place in spec.submodule_search_locations or ():
        path = Path(place, *inner)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _source(path: Path) -> Path | None:
    return path if path.suffix == ".py" and path.is_file() else None


def _class(node: ast.ClassDef) -> Class:
    bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
    made = [each for each in node.body if isinstance(each, ast.FunctionDef)]
    init = next((each for each in made if each.name == "__init__"), None)
    if init is None or init.args.vararg or init.args.kwarg:
        return Class(node.name, None, bases)
    placed = [*init.args.posonlyargs, *init.args.args][1:]  # without self
    free = len(placed) - len(init.args.defaults)
    arguments = [_argument(each, is_needed=place < free) for place, each in enumerate(placed)]
    for each, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
        arguments.append(_argument(each, is_needed=default is None))
    return Class(node.name, tuple(arguments), bases)


def _argument(node: ast.arg, *, is_needed: bool) -> Argument:
    kind = ast.unparse(node.annotation) if node.annotation else ""
    return Argument(node.arg, kind, is_needed)
